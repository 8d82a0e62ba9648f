//! Standby tasks (`num.standby.replicas`): a thread that keeps copies of the stores of tasks which other hosts process,
//! so that a host that takes over restores a few records instead of everything. One thread a host and application,
//! driven by calls of `run_once`; which tasks are its own comes from `assignment`, each host computing it alone. Never
//! produces, never joins the group, and gives a task up as soon as a stream thread of the host wants it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::assignment::logged_tasks;
use crate::broker::{BrokerErrorKind, ClientSupplier, Membership, PartitionRecords, RestoreConsumer};
use crate::clock::Clock;
use crate::error::EngineError;
use crate::metrics::{EngineMetrics, Metric};
use crate::query::QueryRegistry;
use crate::record::TopicPartition;
use crate::state::{StoreError, StoreProvider};
use crate::stream_thread::{CloseMode, StreamThreadOptions, StreamsConfig};
use crate::topology::{PartitionCounts, StoreSpec, TaskId, Topology};

mod handover;
mod placement;
mod report;
mod standby_task;

pub use handover::StandbyTasks;
pub(crate) use handover::{ActiveClaim, WholeCopy};
pub use report::{SharedStandbyReport, StandbyReport, StandbyState, StandbyStoreReport, StandbyTaskReport};

use placement::{Placed, Placement};
use standby_task::{Bounds, StandbyTask};

/// How often the group is asked for its members.
const ASK_MEMBERS_MS: u64 = 3_000;
/// How soon it is asked again while it is changing, or after a stream thread of this host opened or closed a task.
const ASK_MEMBERS_SOON_MS: u64 = 500;
/// How often the ends of the changelogs are asked for.
const ASK_ENDS_MS: u64 = 1_000;
const PUBLISH_MS: u64 = 100;
/// Tasks that catch up at the same time; those that follow do not count.
const CATCHING_UP_MAX: usize = 4;
/// How long a task is kept off after an error: twice as long with each, up to the second number.
const OFF_MS: u64 = 1_000;
const OFF_MAX_MS: u64 = 60_000;
/// How long a thread without tasks waits for its next turn.
const IDLE_WAIT_MS: u64 = 500;

/// Everything that the standby thread needs; what it shares with the stream threads of its host is the same there.
#[derive(Clone)]
pub struct StandbyThreadOptions {
    /// Its number for client ids and logs, after those of the stream threads.
    pub thread: usize,
    pub application_id: Arc<str>,
    /// The id of this host in its consumers' `assignment::MemberName`.
    pub host_id: String,
    /// `num.standby.replicas`.
    pub num_standby_replicas: usize,
    pub config: StreamsConfig,
    pub clients: Arc<dyn ClientSupplier>,
    pub topology: Arc<Topology>,
    pub stores: Arc<dyn StoreProvider>,
    pub clock: Arc<dyn Clock>,
    pub partition_counts: Arc<PartitionCounts>,
    pub queries: Arc<QueryRegistry>,
    pub standby_tasks: Arc<StandbyTasks>,
    /// The thread's own counters.
    pub metrics: Arc<EngineMetrics>,
    /// Where the thread publishes its report; keep a clone to read it.
    pub report: Arc<SharedStandbyReport>,
}

impl StandbyThreadOptions {
    /// The options of a standby thread beside stream threads that were made of `stream`, of which there are `threads`.
    pub fn beside(stream: &StreamThreadOptions, threads: usize, host_id: &str, num_standby_replicas: usize) -> Self {
        Self {
            thread: threads,
            application_id: Arc::clone(&stream.application_id),
            host_id: host_id.to_owned(),
            num_standby_replicas,
            config: stream.config.clone(),
            clients: Arc::clone(&stream.clients),
            topology: Arc::clone(&stream.topology),
            stores: Arc::clone(&stream.stores),
            clock: Arc::clone(&stream.clock),
            partition_counts: Arc::clone(&stream.partition_counts),
            queries: Arc::clone(&stream.queries),
            standby_tasks: Arc::clone(&stream.standby_tasks),
            metrics: Arc::default(),
            report: Arc::default(),
        }
    }
}

/// What one turn did, and when the next one is worth it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StandbyTurn {
    /// Changelog records that were applied.
    pub records: u64,
    /// How long the caller should wait before the next turn.
    pub wait_ms: u64,
}

/// A task that is kept off after an error.
#[derive(Debug)]
struct Off {
    error: String,
    retry_at_ms: u64,
    backoff_ms: u64,
}

/// Keeps tasks warm.
pub struct StandbyThread {
    options: StandbyThreadOptions,
    membership: Box<dyn Membership>,
    consumer: Box<dyn RestoreConsumer>,
    placement: Placement,
    tasks: BTreeMap<TaskId, StandbyTask>,
    /// Whose each changelog is that is being read.
    readers: BTreeMap<TopicPartition, TaskId>,
    /// Tasks with an error, until they are caught up.
    off: BTreeMap<TaskId, Off>,
    asked_members_ms: Option<u64>,
    settled: bool,
    /// `StandbyTasks::changes` when the members were asked for.
    seen_changes: u64,
    asked_ends_ms: u64,
    flushed_ms: u64,
    published_ms: Option<u64>,
    /// A poll failed, and the reader may have passed records that were not returned: its positions mean nothing until
    /// they are set anew.
    lost_place: bool,
    membership_trouble: Option<String>,
    reader_trouble: Option<String>,
    records: u64,
}

impl StandbyThread {
    /// Makes the clients.
    pub fn new(options: StandbyThreadOptions) -> Result<Self, EngineError> {
        let now_ms = options.clock.monotonic_ms();
        let tasks = logged_tasks(&options.topology, &options.partition_counts);
        Ok(Self {
            membership: options.clients.membership()?,
            consumer: options.clients.restore_consumer(options.thread)?,
            placement: Placement::new(&options.host_id, tasks, options.num_standby_replicas),
            tasks: BTreeMap::new(),
            readers: BTreeMap::new(),
            off: BTreeMap::new(),
            asked_members_ms: None,
            settled: false,
            seen_changes: 0,
            asked_ends_ms: now_ms,
            flushed_ms: now_ms,
            published_ms: None,
            lost_place: false,
            membership_trouble: None,
            reader_trouble: None,
            records: 0,
            options,
        })
    }

    /// One turn: give up, take over, read, apply. An error is final for this thread and its clients, and no harm to the
    /// tasks: drop it and make a new one after a while. A fault of one task keeps that task off and is in the report.
    pub fn run_once(&mut self) -> Result<StandbyTurn, EngineError> {
        let now_ms = self.options.clock.monotonic_ms();
        self.hand_over(now_ms);
        self.place(now_ms);
        self.close_unwanted(now_ms);
        self.open_wanted(now_ms)?;
        let mut turn = self.read(now_ms)?;
        self.look_at_ends(now_ms);
        self.flush(now_ms, false);
        self.publish(now_ms);
        if self.tasks.is_empty() {
            turn.wait_ms = turn.wait_ms.max(IDLE_WAIT_MS);
        }
        Ok(turn)
    }

    /// Gives the stream threads what they want.
    fn hand_over(&mut self, now_ms: u64) {
        let wanted = self.tasks.iter().filter(|(_, task)| task.is_wanted()).map(|(&id, _)| id);
        for id in wanted.collect::<Vec<_>>() {
            if let Some(task) = self.stop_reading(id, now_ms) {
                task.hand_over();
            }
        }
    }

    /// Stops to read a task's changelogs and gives the task back. It is closed when it is dropped.
    fn stop_reading(&mut self, id: TaskId, now_ms: u64) -> Option<StandbyTask> {
        let task = self.tasks.get_mut(&id)?;
        for changelog in task.changelogs() {
            // It has passed control records that no poll shows.
            if !self.lost_place
                && let Ok(Some(position)) = self.consumer.position(&changelog)
            {
                task.passed(&changelog, position, now_ms);
            }
        }
        self.abandon(id)
    }

    /// As `stop_reading` for a task that has not taken all that was read, so that the reader's position is not its own.
    fn abandon(&mut self, id: TaskId) -> Option<StandbyTask> {
        let task = self.tasks.remove(&id)?;
        for changelog in task.changelogs() {
            self.readers.remove(&changelog);
            if let Err(error) = self.consumer.unassign(&changelog) {
                tracing::debug!(%changelog, %error, "the changelog is read on for a while, in vain");
            }
        }
        Some(task)
    }

    /// Asks the group for its members, now and then, and for the tasks that follow from them.
    fn place(&mut self, now_ms: u64) {
        let changes = self.options.standby_tasks.changes();
        let soon = !self.settled || changes != self.seen_changes;
        let interval_ms = if soon { ASK_MEMBERS_SOON_MS } else { ASK_MEMBERS_MS };
        if self.asked_members_ms.is_some_and(|asked| now_ms.saturating_sub(asked) < interval_ms) {
            return;
        }
        self.asked_members_ms = Some(now_ms);
        let members = match self.membership.members() {
            Ok(members) => members,
            Err(error) => {
                self.membership_trouble = Some(error.to_string());
                return;
            }
        };
        self.membership_trouble = None;
        self.seen_changes = changes;
        match self.placement.update(members.as_deref(), &self.options.topology, now_ms) {
            Placed::Unsettled => self.settled = false,
            Placed::Settled(misses) => {
                self.settled = true;
                for miss in misses {
                    self.options.metrics.add(Metric::StandbyMisses, 1);
                    tracing::warn!(task = %miss.task, warm_host = miss.host_id, warm_endpoint = miss.endpoint,
                        "the group gave task {} to this host, which kept no warm copy of it, though host {} at {} has \
                         one; it is restored from what is on this disk", miss.task, miss.host_id, miss.endpoint);
                }
            }
        }
    }

    /// Closes what is to be kept warm elsewhere. The copy stays on the disk.
    fn close_unwanted(&mut self, now_ms: u64) {
        let unwanted = self.tasks.keys().copied().filter(|&id| !self.placement.stays(id));
        for id in unwanted.collect::<Vec<_>>() {
            let Some(mut task) = self.stop_reading(id, now_ms) else { continue };
            tracing::info!(task = %id, "standby task closed");
            if let Err(error) = task.flush() {
                // What is not durable is read again if the task comes back.
                tracing::warn!(task = %id, %error, "a standby task was closed without a flush");
            }
        }
        let keep = self.placement.keep();
        self.off.retain(|id, _| keep.contains(id));
    }

    /// Opens tasks that are to be kept warm, as many at a time as may catch up together.
    fn open_wanted(&mut self, now_ms: u64) -> Result<(), EngineError> {
        let mut catching_up = self.tasks.values().filter(|task| task.is_catching_up(now_ms)).count();
        let due = |id: &TaskId| self.off.get(id).is_none_or(|off| now_ms >= off.retry_at_ms);
        let missing = self.placement.keep().iter().filter(|id| !self.tasks.contains_key(id) && due(id)).copied();
        for id in missing.collect::<Vec<_>>() {
            if catching_up >= CATCHING_UP_MAX {
                return Ok(());
            }
            match self.begin(id, now_ms) {
                Ok(true) => catching_up += 1,
                // A stream thread has it still, or again.
                Ok(false) => {}
                Err(EngineError::Broker(error)) if error.kind == BrokerErrorKind::Fatal => return Err(error.into()),
                Err(error) => self.put_off(id, &error, now_ms),
            }
        }
        Ok(())
    }

    /// Opens a task and begins to read its changelogs. False when a stream thread has it.
    fn begin(&mut self, id: TaskId, now_ms: u64) -> Result<bool, EngineError> {
        let options = &self.options;
        let Some(claim) = options.standby_tasks.keep(id) else { return Ok(false) };
        let logged = self.logged_stores(id);
        let mut task = StandbyTask::open(id, claim, &logged, &*options.stores, &options.queries)?;
        let logs = self.consumer.watermarks(&task.changelogs())?;
        task.begin(&logs, &*options.stores, now_ms)?;
        let positions: Vec<_> = task.positions().map(|(changelog, at)| (changelog.clone(), at)).collect();
        tracing::info!(task = %id, ?positions, "standby task begins");
        self.tasks.insert(id, task);
        for (changelog, position) in positions {
            self.readers.insert(changelog.clone(), id);
            self.consumer.assign(&changelog, position)?;
        }
        Ok(true)
    }

    fn logged_stores(&self, id: TaskId) -> Vec<(StoreSpec, TopicPartition)> {
        let stores = self.options.topology.sub_topology(id.sub_topology).map_or(&[][..], |part| &part.stores);
        let logged = stores.iter().filter_map(|store| {
            let topic = store.changelog_topic(&self.options.application_id)?;
            Some((store.clone(), TopicPartition::new(topic, id.partition)))
        });
        logged.collect()
    }

    /// Closes a task that failed, and lets it begin again after a while. A corrupt store is wiped (R12).
    fn put_off(&mut self, id: TaskId, error: &EngineError, now_ms: u64) {
        // Given up at the end, after a wipe.
        let _claim = self.abandon(id).and_then(StandbyTask::close);
        let text = error.to_string();
        let earlier = self.off.get(&id);
        let backoff_ms = earlier.map_or(OFF_MS, |off| (2 * off.backoff_ms).min(OFF_MAX_MS));
        if earlier.is_none_or(|off| off.error != text) {
            tracing::warn!(task = %id, error = text, backoff_ms, "standby task is kept off; the host goes on");
        }
        self.off.insert(id, Off { error: text, retry_at_ms: now_ms + backoff_ms, backoff_ms });
        if let EngineError::Store(StoreError::Corrupt { store, .. }) = error
            && let Some((spec, _)) = self.logged_stores(id).iter().find(|(spec, _)| *spec.name == **store)
            && let Err(error) = self.options.stores.wipe(id, spec)
        {
            // It is found corrupt again, and wiped again, when it is opened.
            tracing::warn!(task = %id, store, %error, "a corrupt standby store could not be wiped");
        }
    }

    /// Reads a slice and applies it.
    fn read(&mut self, now_ms: u64) -> Result<StandbyTurn, EngineError> {
        let mut turn = StandbyTurn::default();
        if self.readers.is_empty() {
            return Ok(turn);
        }
        if self.lost_place && !self.find_place() {
            turn.wait_ms = self.options.config.retry_backoff_ms;
            return Ok(turn);
        }
        // Nothing runs beside it on this thread, so the slices are as large as those of a restore that is alone.
        let max_records = self.options.config.restore_max_records * 10;
        match self.consumer.poll(Duration::from_millis(self.options.config.poll_ms), max_records) {
            Ok(polled) => {
                self.reader_trouble = None;
                turn.records = self.apply(&polled, now_ms);
                self.follow_positions(now_ms);
            }
            Err(error) if error.kind == BrokerErrorKind::Fatal => return Err(error.into()),
            Err(error) => {
                // It may have passed records that it did not return.
                self.lost_place = true;
                self.reader_trouble = Some(error.to_string());
                turn.wait_ms = self.options.config.retry_backoff_ms;
            }
        }
        Ok(turn)
    }

    fn apply(&mut self, polled: &[PartitionRecords], now_ms: u64) -> u64 {
        let (mut applied, mut dropped) = (0, 0);
        for records in polled {
            let Some(&id) = self.readers.get(&records.partition) else { continue };
            let Some(task) = self.tasks.get_mut(&id) else { continue };
            match task.apply(records) {
                Ok((count, without_key)) => {
                    applied += count;
                    dropped += without_key;
                }
                Err(error) => self.put_off(id, &error, now_ms),
            }
        }
        self.records += applied;
        self.options.metrics.add(Metric::StandbyRecords, applied);
        self.options.metrics.add(Metric::RecordsDropped, dropped);
        applied
    }

    fn follow_positions(&mut self, now_ms: u64) {
        for (changelog, id) in &self.readers {
            // A position that cannot be told now is told by a later turn.
            if let (Ok(Some(position)), Some(task)) = (self.consumer.position(changelog), self.tasks.get_mut(id)) {
                task.passed(changelog, position, now_ms);
                if task.is_caught_up() {
                    self.off.remove(id);
                }
            }
        }
    }

    /// Asks for the ends of the changelogs, from time to time and after a place was lost. A task that is outside of one
    /// begins anew.
    fn look_at_ends(&mut self, now_ms: u64) {
        let due = now_ms.saturating_sub(self.asked_ends_ms) >= ASK_ENDS_MS;
        if self.readers.is_empty() || !(due || self.lost_place) {
            return;
        }
        self.asked_ends_ms = now_ms;
        let changelogs: Vec<TopicPartition> = self.readers.keys().cloned().collect();
        let logs = match self.consumer.watermarks(&changelogs) {
            Ok(logs) => logs,
            Err(error) => {
                self.reader_trouble = Some(error.to_string());
                return;
            }
        };
        for (changelog, log) in changelogs.iter().zip(logs) {
            let Some(&id) = self.readers.get(changelog) else { continue };
            let outside = self.tasks.get_mut(&id).is_some_and(|task| task.look(changelog, log) == Bounds::Outside);
            if outside {
                tracing::warn!(task = %id, %changelog, low = log.low, high = log.high, "standby task begins anew");
                drop(self.stop_reading(id, now_ms));
            }
        }
    }

    /// Sets the reader to the tasks' positions. True when that is done.
    fn find_place(&mut self) -> bool {
        let mut found = true;
        let positions = self.tasks.values().flat_map(StandbyTask::positions);
        for (changelog, position) in positions.map(|(changelog, at)| (changelog.clone(), at)).collect::<Vec<_>>() {
            if let Err(error) = self.consumer.assign(&changelog, position) {
                found = false;
                self.reader_trouble = Some(error.to_string());
            }
        }
        self.lost_place = !found;
        found
    }

    /// Makes durable what was applied, from time to time (R4).
    fn flush(&mut self, now_ms: u64, at_once: bool) {
        let due = now_ms.saturating_sub(self.flushed_ms) >= self.options.config.statestore_flush_interval_ms;
        if !due && !at_once {
            return;
        }
        self.flushed_ms = now_ms;
        for id in self.tasks.keys().copied().collect::<Vec<_>>() {
            if let Err(error) = self.tasks.get_mut(&id).map_or(Ok(()), StandbyTask::flush) {
                self.put_off(id, &error, now_ms);
            }
        }
    }

    /// Ends the thread: what was applied is flushed, then the stores are closed.
    pub fn close(&mut self, mode: CloseMode) {
        let now_ms = self.options.clock.monotonic_ms();
        if mode == CloseMode::Clean {
            self.flush(now_ms, true);
        }
        for id in self.tasks.keys().copied().collect::<Vec<_>>() {
            drop(self.stop_reading(id, now_ms));
        }
        self.off.clear();
        self.published_ms = None;
        self.publish(now_ms);
    }

    fn publish(&mut self, now_ms: u64) {
        if self.published_ms.is_some_and(|at| now_ms.saturating_sub(at) < PUBLISH_MS) {
            return;
        }
        self.published_ms = Some(now_ms);
        let report = |&id: &TaskId| match (self.tasks.get(&id), self.off.get(&id)) {
            (Some(task), _) => task.report(),
            (None, off) => StandbyTaskReport {
                task: id,
                state: if off.is_some() { StandbyState::Off } else { StandbyState::Waiting },
                error: off.map(|off| off.error.clone()),
                stores: Vec::new(),
            },
        };
        let known: BTreeSet<&TaskId> = self.placement.keep().iter().chain(self.tasks.keys()).collect();
        let report = StandbyReport {
            trouble: self.reader_trouble.clone().or_else(|| self.membership_trouble.clone()),
            records: self.records,
            tasks: known.into_iter().map(report).collect(),
        };
        self.options.metrics.set(Metric::StandbyTasks, self.tasks.len() as u64);
        self.options.report.publish(report);
    }
}

#[cfg(test)]
mod tests;
