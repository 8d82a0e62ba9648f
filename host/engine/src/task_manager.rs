//! The tasks of a stream thread: which exist, which commit now, what a rebalance does to them, and how they come to
//! run. Decides by facts and executes; never looks inside a record or a store.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use crate::broker::{Consumer, OffsetAndMetadata, PartitionRecords, RebalanceEvent};
use crate::error::{EngineError, Remedy};
use crate::metrics::{DurationMetric, Metric};
use crate::record::{Offset, Record, Timestamp, TopicPartition};
use crate::restore::StoreChangelogReader;
use crate::stream_thread::{PartitionReport, StreamThreadOptions, TaskReport};
use crate::task::TaskState;
use crate::task::commit::{Commit, CommitParts};
use crate::task::record_queue::RecordQueue;
use crate::task::stream_task::{Condemned, MigrationSlice, Processed, StreamTask};
use crate::task::streams_producer::StreamsProducer;
use crate::topology::TaskId;

mod bring_up;
mod plan;
mod rebalance;

use plan::Action;

/// After failed calls that took this part of the transaction timeout, what is done is committed before anything else.
const TRANSACTION_SHARE: u64 = 8;

/// How long older rows are taken over in one turn, beside running tasks.
const MIGRATION_BUSY_MS: u64 = 20;

/// And where nobody waits but the group.
const MIGRATION_ALONE_MS: u64 = 100;

/// Where a partition starts: the offset, and what the group has committed.
type Start = (Offset, Option<OffsetAndMetadata>);

/// How a commit that could not wait has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommitNow {
    Completed,
    /// The group is changing: it will be possible once the consumer was polled for that.
    Rebalanced,
    /// It could not be done in time, or there is no space for it.
    GivenUp,
}

/// The tasks of one thread.
pub struct TaskManager {
    options: Arc<StreamThreadOptions>,
    tasks: BTreeMap<TaskId, StreamTask>,
    reader: StoreChangelogReader,
    assigned: BTreeSet<TopicPartition>,
    /// Where assigned partitions start, until their task is created.
    starts: BTreeMap<TopicPartition, Start>,
    /// Records of assigned partitions that came before they could be paused.
    early: BTreeMap<TopicPartition, Vec<Record>>,
    /// Incomplete tasks, and since when they wait (monotonic).
    held: BTreeMap<TaskId, u64>,
    /// Rebalance events that were not looked at, and the rest of the answer to the current one.
    events: VecDeque<RebalanceEvent>,
    actions: VecDeque<Action>,
    /// Tasks whose restore has begun, and when they were assigned (monotonic).
    restoring: BTreeMap<TaskId, u64>,
    /// Tasks whose stores another thread of the process has open still, and since when they wait (monotonic).
    waiting: BTreeMap<TaskId, u64>,
    /// Tasks that wait for the restores of others to end.
    in_line: BTreeSet<TaskId>,
    /// Tasks with state but without committed offsets: since when, and when that was asked last.
    missing_offsets: BTreeMap<TaskId, (u64, u64)>,
    /// The commit on its way.
    commit: Option<Commit>,
    /// The next commit does not wait for its time.
    commit_requested: bool,
    /// The last round ended early with this task: the next one begins behind it.
    cut_off_at: Option<TaskId>,
    last_commit_ms: u64,
    last_flush_ms: u64,
}

impl TaskManager {
    pub fn new(options: Arc<StreamThreadOptions>, reader: StoreChangelogReader, now_ms: u64) -> Self {
        Self {
            options,
            tasks: BTreeMap::new(),
            reader,
            assigned: BTreeSet::new(),
            starts: BTreeMap::new(),
            early: BTreeMap::new(),
            held: BTreeMap::new(),
            events: VecDeque::new(),
            actions: VecDeque::new(),
            restoring: BTreeMap::new(),
            waiting: BTreeMap::new(),
            in_line: BTreeSet::new(),
            missing_offsets: BTreeMap::new(),
            commit: None,
            commit_requested: false,
            cut_off_at: None,
            last_commit_ms: now_ms,
            last_flush_ms: now_ms,
        }
    }

    pub fn tasks(&self) -> &BTreeMap<TaskId, StreamTask> {
        &self.tasks
    }

    /// Whether all tasks run, all partitions belong to a task, and no rebalance waits to be answered.
    pub fn all_running(&self) -> bool {
        self.held.is_empty()
            && self.events.is_empty()
            && self.actions.is_empty()
            && self.tasks.values().all(|task| task.state() == TaskState::Running && !task.is_migrating())
    }

    /// Whether a task would process something now.
    pub fn is_processable(&self, now_ms: u64) -> bool {
        self.commit.is_none()
            && !self.options.versions.is_paused()
            && self.tasks.values().any(|task| task.is_processable(now_ms))
    }

    /// Whether a task would go on in the next turn on its way to run, or a rebalance is to be answered. Tasks that only
    /// wait for an answer or for their other partitions do not count.
    pub fn is_bringing_up(&self) -> bool {
        let waits = |id: TaskId| self.missing_offsets.contains_key(&id) || self.waiting.contains_key(&id);
        let goes_on = |task: &StreamTask| task.state() != TaskState::Running && !waits(task.id());
        !self.events.is_empty() || !self.actions.is_empty() || self.tasks.values().any(goes_on)
    }

    /// Whether outputs wait for room in the producer's queue.
    pub fn is_held_back(&self) -> bool {
        self.tasks.values().any(StreamTask::is_held_back)
    }

    /// Whether a task waits for another thread to give its stores up.
    pub fn is_waiting_for_stores(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Whether a commit is on its way.
    pub fn is_committing(&self) -> bool {
        self.commit.is_some()
    }

    /// Whether changelogs are being read.
    pub fn is_restoring(&self) -> bool {
        !self.reader.is_idle()
    }

    /// Hands polled records to the tasks.
    pub fn add_records(&mut self, polled: Vec<PartitionRecords>) -> Result<(), EngineError> {
        for PartitionRecords { partition, records } in polled {
            self.options.metrics.add(Metric::RecordsConsumed, records.len() as u64);
            let id = self.options.topology.task_of(&partition);
            match id.and_then(|id| self.tasks.get_mut(&id)) {
                Some(task) => task.add_records(&partition, records),
                None if self.assigned.contains(&partition) => {
                    self.early.entry(partition).or_default().extend(records);
                }
                None => return Err(EngineError::UnexpectedPartition { partition }),
            }
        }
        Ok(())
    }

    /// Pauses partitions whose queues are full. Called before a poll and not after it: a pause throws away what the
    /// client has fetched ahead, so a queue that one poll fills and the next turn empties must not be paused.
    pub fn pause_full_partitions(&mut self, consumer: &mut dyn Consumer) -> Result<(), EngineError> {
        let max = self.options.config.buffered_records_per_partition;
        let full = self.partitions_where(|_, queue| !queue.paused && queue.len() >= max);
        if !full.is_empty() {
            consumer.pause(&full)?;
            self.set_paused(&full, true);
        }
        Ok(())
    }

    /// Resumes partitions of running tasks whose queues have room again.
    pub fn resume_partitions(&mut self, consumer: &mut dyn Consumer) -> Result<(), EngineError> {
        let low = self.options.config.buffered_records_per_partition / 2;
        let with_room =
            self.partitions_where(|state, queue| state == TaskState::Running && queue.paused && queue.len() <= low);
        if !with_room.is_empty() {
            consumer.resume(&with_room)?;
            self.set_paused(&with_room, false);
        }
        Ok(())
    }

    fn partitions_where(&self, wanted: impl Fn(TaskState, &RecordQueue) -> bool) -> Vec<TopicPartition> {
        let queues =
            self.tasks.values().flat_map(|task| task.group().queues().iter().map(|queue| (task.state(), queue)));
        queues.filter(|(state, queue)| wanted(*state, queue)).map(|(_, queue)| queue.partition.clone()).collect()
    }

    fn set_paused(&mut self, partitions: &[TopicPartition], paused: bool) {
        for queue in self.tasks.values_mut().flat_map(|task| task.group_mut().queues_mut()) {
            if partitions.contains(&queue.partition) {
                queue.paused = paused;
            }
        }
    }

    /// Lets each task process at most `batches` batches.
    pub fn process(
        &mut self,
        batches: u32,
        producer: &mut StreamsProducer,
        now_ms: u64,
        wall_clock_ms: Timestamp,
    ) -> Result<Processed, EngineError> {
        let mut total = Processed::default();
        if self.commit.is_some() || self.options.versions.is_paused() {
            return Ok(total);
        }
        let mut order: Vec<TaskId> = self.tasks.keys().copied().collect();
        let behind = self.cut_off_at.take().map_or(0, |id| order.partition_point(|other| *other <= id));
        order.rotate_left(behind);
        for id in order {
            let Some(task) = self.tasks.get_mut(&id) else { continue };
            for _ in 0..batches {
                let processed = task.process(producer, now_ms, wall_clock_ms)?;
                total.records += processed.records;
                total.bytes += processed.bytes;
                total.batches += processed.batches;
                total.punctuations += processed.punctuations;
                total.failed_calls += processed.failed_calls;
                // A failed call may have taken its whole time; the consumer wants to be polled meanwhile.
                if processed.batches == 0 {
                    break;
                }
            }
            // The next one may take as long, and the coordinator ends a transaction that becomes too old.
            let since_ms = self.options.clock.monotonic_ms().saturating_sub(now_ms);
            if total.failed_calls > 0 && since_ms > self.options.config.transaction_timeout_ms / TRANSACTION_SHARE {
                self.commit_requested = true;
                self.cut_off_at = Some(id);
                break;
            }
        }
        Ok(total)
    }

    /// Lets one task process one record, unless another one waits for its commit, and begins the commit of it. Returns
    /// which it was, once it is done with.
    pub fn process_one(
        &mut self,
        producer: &mut StreamsProducer,
        now_ms: u64,
        wall_clock_ms: Timestamp,
    ) -> Result<(Processed, Option<(TopicPartition, Offset)>), EngineError> {
        let mut processed = Processed::default();
        let waits = self.commit.is_some() || self.tasks.values().any(StreamTask::commit_needed);
        for task in self.tasks.values_mut().filter(|task| !waits && task.is_processable(now_ms)) {
            let place = task.process_one(&mut processed, producer, now_ms, wall_clock_ms)?;
            if place.is_some() {
                return Ok((processed, place));
            }
        }
        self.commit_requested |= waits;
        Ok((processed, None))
    }

    /// Where the work of each partition ends that is not committed.
    pub fn uncommitted_ends(&self) -> BTreeMap<TopicPartition, Offset> {
        let queues = self.tasks.values().flat_map(|task| task.group().queues());
        let ends = queues.filter(|queue| queue.committed_offset().is_none_or(|offset| offset < queue.next_offset()));
        ends.map(|queue| (queue.partition.clone(), queue.next_offset())).collect()
    }

    /// What the group has committed of a partition of this thread.
    pub fn committed_offset(&self, partition: &TopicPartition) -> Option<Offset> {
        let mut queues = self.tasks.values().flat_map(|task| task.group().queues());
        queues.find(|queue| queue.partition == *partition).map(|queue| queue.committed_offset().unwrap_or(0))
    }

    /// The outputs of a record are refused: it is given up when its task comes to it again.
    pub fn condemn(&mut self, (partition, offset): (TopicPartition, Offset), fault: &str) {
        let id = self.options.topology.task_of(&partition);
        if let Some(task) = id.and_then(|id| self.tasks.get_mut(&id)) {
            task.condemn(Condemned { partition, offset, fault: fault.to_owned() });
        }
    }

    /// Whether a task would take older rows over in the next turn.
    pub fn is_migrating(&self) -> bool {
        let goes_on = |task: &StreamTask| task.is_migrating() && !task.awaits_migration_commit();
        self.commit.is_none() && !self.options.versions.is_paused() && self.tasks.values().any(goes_on)
    }

    /// Lets each task that has older rows take some of them over. Returns how many.
    pub fn migrate(&mut self, now_ms: u64, wall_clock_ms: Timestamp) -> Result<u64, EngineError> {
        if !self.is_migrating() {
            return Ok(0);
        }
        let migrating = self.tasks.values().filter(|task| task.is_migrating()).count();
        // Beside running tasks it must not hold them up.
        let slice_ms = if migrating < self.tasks.len() { MIGRATION_BUSY_MS } else { MIGRATION_ALONE_MS };
        let uncommitted_max_bytes = self.options.config.statestore_uncommitted_max_bytes / migrating.max(1);
        let (mut rows, mut until_ms) = (0, now_ms);
        for task in self.tasks.values_mut().filter(|task| task.is_migrating() && !task.awaits_migration_commit()) {
            until_ms += slice_ms / migrating as u64 + 1;
            rows += task.migrate(MigrationSlice { until_ms, uncommitted_max_bytes, wall_clock_ms })?;
            self.commit_requested |= task.awaits_migration_commit();
            self.commit_requested |= task.uncommitted_bytes() > uncommitted_max_bytes;
        }
        Ok(rows)
    }

    /// Runs the wall-clock schedules that are due.
    pub fn punctuate(&mut self, producer: &mut StreamsProducer, wall_clock_ms: Timestamp) -> Result<u64, EngineError> {
        let mut punctuations = 0;
        if self.commit.is_none() && !self.options.versions.is_paused() {
            for task in self.tasks.values_mut() {
                punctuations += task.punctuate_wall_clock(producer, wall_clock_ms)?;
            }
        }
        Ok(punctuations)
    }

    /// When the next wall-clock schedule is due.
    pub fn next_wall_clock_punctuation(&self) -> Option<Timestamp> {
        if self.options.versions.is_paused() {
            return None;
        }
        self.tasks.values().filter_map(StreamTask::next_wall_clock_punctuation).min()
    }

    /// How long until the next commit is due; `None` when nothing is to be committed.
    pub fn until_commit_ms(&self, now_ms: u64) -> Option<u64> {
        let needed = self.tasks.values().any(StreamTask::commit_needed);
        needed.then(|| (self.last_commit_ms + self.options.config.commit_interval_ms).saturating_sub(now_ms))
    }

    fn uncommitted_bytes(&self) -> usize {
        self.tasks.values().map(StreamTask::uncommitted_bytes).sum()
    }

    /// Begins a commit if one is due (by time, by uncommitted bytes, or for a task's first offsets), and takes the
    /// one on its way as far as it gets. True when one was completed.
    pub fn maybe_commit(
        &mut self,
        producer: &mut StreamsProducer,
        consumer: &mut dyn Consumer,
        now_ms: u64,
        wall_clock_ms: Timestamp,
    ) -> Result<bool, EngineError> {
        if self.commit.is_none() {
            let config = &self.options.config;
            let by_time = now_ms.saturating_sub(self.last_commit_ms) >= config.commit_interval_ms;
            let by_bytes = self.uncommitted_bytes() > config.statestore_uncommitted_max_bytes;
            let requested = std::mem::take(&mut self.commit_requested);
            if !by_time && !by_bytes && !requested && !self.tasks.values().any(StreamTask::awaits_initial_commit) {
                return Ok(false);
            }
            if by_bytes && !by_time {
                self.options.metrics.add(Metric::CommitsForcedBySize, 1);
            }
            if !self.begin_commit(now_ms) {
                self.last_commit_ms = now_ms;
                return Ok(false);
            }
        }
        self.advance_commit(producer, consumer, now_ms, wall_clock_ms)
    }

    /// Begins a commit of every task that has something to commit.
    fn begin_commit(&mut self, now_ms: u64) -> bool {
        let needed = self.tasks.values().filter(|task| task.commit_needed()).map(StreamTask::id);
        let needed: Vec<TaskId> = needed.collect();
        if needed.is_empty() {
            return false;
        }
        self.commit = Some(Commit::new(self.options.config.processing_guarantee, needed, now_ms));
        true
    }

    fn advance_commit(
        &mut self,
        producer: &mut StreamsProducer,
        consumer: &mut dyn Consumer,
        now_ms: u64,
        wall_clock_ms: Timestamp,
    ) -> Result<bool, EngineError> {
        let Some(commit) = &mut self.commit else { return Ok(false) };
        let mut parts = CommitParts {
            thread: self.options.thread,
            tasks: &mut self.tasks,
            producer,
            consumer,
            wall_clock_ms,
            timeout: Duration::from_millis(self.options.config.commit_timeout_ms),
        };
        let advanced = commit.advance(&mut parts);
        if matches!(advanced, Ok(true)) {
            self.options.metrics.add(Metric::Commits, 1);
            // The calls to the broker have taken time since.
            let ended_ms = self.options.clock.monotonic_ms();
            self.options.metrics.observe_ms(DurationMetric::Commit, ended_ms.saturating_sub(commit.started_ms));
            self.commit = None;
            self.last_commit_ms = now_ms;
        } else if advanced.is_err() {
            self.options.metrics.add(Metric::CommitsFailed, 1);
        }
        advanced
    }

    /// How long the commit on its way has taken, while its outcome is open.
    pub fn undecided_commit_ms(&self, now_ms: u64) -> Option<u64> {
        let commit = self.commit.as_ref().filter(|commit| !commit.stage().is_decided())?;
        Some(now_ms.saturating_sub(commit.started_ms))
    }

    /// The stage of the commit on its way.
    pub fn commit_stage(&self) -> Option<&'static str> {
        self.commit.as_ref().map(|commit| commit.stage().name())
    }

    /// Commits everything now, for at most `commit_timeout_ms`: before partitions are given up and at a clean end.
    /// An error means that the work must be dropped.
    pub fn commit_now(
        &mut self,
        producer: &mut StreamsProducer,
        consumer: &mut dyn Consumer,
    ) -> Result<CommitNow, EngineError> {
        /// Ends the loop where the clock stands still.
        const ATTEMPTS_MAX: u32 = 1_000;
        const PAUSE: Duration = Duration::from_millis(10);
        let clock = Arc::clone(&self.options.clock);
        let deadline_ms = clock.monotonic_ms() + self.options.config.commit_timeout_ms;
        // A commit on its way may leave out work that was done since; there is none, as nothing is processed then.
        if self.commit.is_none() && !self.begin_commit(clock.monotonic_ms()) {
            return Ok(CommitNow::Completed);
        }
        for _ in 0..ATTEMPTS_MAX {
            match self.advance_commit(producer, consumer, clock.monotonic_ms(), clock.wall_clock_ms()) {
                Ok(true) => return Ok(CommitNow::Completed),
                Ok(false) => {}
                Err(error) => match error.remedy() {
                    Remedy::Retry => {
                        tracing::debug!(%error, "commit is tried again");
                        producer.poll(PAUSE)?;
                    }
                    Remedy::Rebalance => return Ok(CommitNow::Rebalanced),
                    Remedy::Pause => {
                        tracing::warn!(%error, "commit given up");
                        return Ok(CommitNow::GivenUp);
                    }
                    _ => return Err(error),
                },
            }
            if clock.monotonic_ms() >= deadline_ms {
                break;
            }
        }
        tracing::warn!(stage = self.commit_stage(), "commit took too long and is given up");
        Ok(CommitNow::GivenUp)
    }

    /// Commits once more what the group has of the running tasks. That changes nothing, but the group refuses it from
    /// somebody who is a member no more.
    pub fn commit_again(&self, consumer: &mut dyn Consumer) -> Result<(), EngineError> {
        let running = self.tasks.values().filter(|task| task.state() == TaskState::Running);
        let queues = running.flat_map(|task| task.group().queues());
        let committed = queues.filter_map(|queue| Some((queue.partition.clone(), queue.committed.clone()?)));
        let committed: Vec<_> = committed.collect();
        if !committed.is_empty() {
            consumer.commit(&committed)?;
        }
        Ok(())
    }

    /// Whether a running task has another version than the one that is wanted, and was not given up.
    pub fn is_swapping(&self) -> bool {
        let wanted = self.options.versions.target_number();
        !self.options.versions.is_given_up() && self.tasks.values().any(|task| is_behind(task, wanted))
    }

    /// Gives each running task that stands at a commit boundary the version that is wanted, and asks for a commit where
    /// one does not. A version that does not start is given up, and the task goes on as it is. Returns how many have
    /// changed.
    pub fn maybe_swap(&mut self, wall_clock_ms: Timestamp) -> Result<usize, EngineError> {
        if self.commit.is_some() || !self.is_swapping() {
            return Ok(0);
        }
        let versions = &self.options.versions;
        let version = versions.target();
        let mut swapped = 0;
        for task in self.tasks.values_mut().filter(|task| is_behind(task, version.number)) {
            if !task.may_swap() {
                self.commit_requested = true;
                continue;
            }
            let Err(error) = task.swap(Arc::clone(&version), wall_clock_ms) else {
                swapped += 1;
                continue;
            };
            let reason = format!("it does not start in task {}: {error}", task.id());
            // Somebody else may have given it up meanwhile.
            let is_given_up = versions.roll_back(version.number, &reason) || versions.is_given_up();
            if !is_given_up && versions.target_number() == version.number {
                let digest = version.processors.digest().to_owned();
                return Err(EngineError::Start { task: task.id(), digest, error: Box::new(error) });
            }
            break;
        }
        Ok(swapped)
    }

    /// Makes durable what was committed, from time to time (R4).
    pub fn maybe_flush(&mut self, now_ms: u64) -> Result<(), EngineError> {
        if now_ms.saturating_sub(self.last_flush_ms) < self.options.config.statestore_flush_interval_ms {
            return Ok(());
        }
        let mut running = self.tasks.values_mut().filter(|task| task.state() == TaskState::Running);
        running.try_for_each(StreamTask::flush_stores)?;
        // Where it failed, on a full disk for example, it is tried again and not first in a minute.
        self.last_flush_ms = now_ms;
        Ok(())
    }

    /// Asks for the ends of empty partitions whose tasks have records of others, so that they know whether to wait.
    pub fn look_for_more(&mut self, consumer: &mut dyn Consumer, now_ms: u64) -> Result<(), EngineError> {
        for task in self.tasks.values_mut().filter(|task| task.state() == TaskState::Running) {
            for index in task.group().to_ask().collect::<Vec<_>>() {
                let Some(queue) = task.group().queues().get(index) else { continue };
                let partition = queue.partition.clone();
                let position = consumer.position(&partition)?.unwrap_or(queue.next_offset());
                let end = match consumer.end_offset(&partition)? {
                    Some(end) => Some(end),
                    None => self.reader.watermarks(&[partition])?.first().map(|log| log.high),
                };
                if let Some(end) = end {
                    task.group_mut().set_end(index, position, end, now_ms);
                }
            }
        }
        Ok(())
    }

    /// Asks for the ends of all assigned partitions, for the progress report.
    pub fn ask_ends(&mut self, consumer: &mut dyn Consumer) -> Result<(), EngineError> {
        let mut unknown = Vec::new();
        for queue in self.tasks.values_mut().flat_map(|task| task.group_mut().queues_mut()) {
            match consumer.end_offset(&queue.partition)? {
                Some(end) => queue.end_offset = Some(end),
                None => unknown.push(queue.partition.clone()),
            }
        }
        let ends = self.reader.watermarks(&unknown)?;
        let ends: BTreeMap<TopicPartition, Offset> =
            unknown.into_iter().zip(ends.into_iter().map(|log| log.high)).collect();
        for queue in self.tasks.values_mut().flat_map(|task| task.group_mut().queues_mut()) {
            if let Some(&end) = ends.get(&queue.partition) {
                queue.end_offset = Some(end);
            }
        }
        Ok(())
    }

    /// Drops everything that is not committed; the tasks begin again at the last commit with their stores as they
    /// are (R5). The producer is made anew by the caller.
    pub fn suspend_all(&mut self) -> Result<(), EngineError> {
        self.commit = None;
        let mut result = Ok(());
        for task in self.tasks.values_mut() {
            match task.state() {
                TaskState::Running => result = result.and(task.suspend()),
                // What the old producer left in the changelogs is only known once it is fenced.
                TaskState::Restoring => {
                    self.restoring.remove(&task.id());
                    result = result.and(self.reader.remove(task.id()));
                }
                TaskState::Created | TaskState::Suspended | TaskState::Closed => {}
            }
        }
        result
    }

    /// Closes a task whose store is corrupt, wipes the store, and lets the task begin again.
    pub fn revive(&mut self, id: TaskId, store: &str) -> Result<(), EngineError> {
        if let Some(commit) = &mut self.commit {
            commit.remove(id);
        }
        self.restoring.remove(&id);
        self.reader.remove(id)?;
        let Some(task) = self.tasks.get_mut(&id) else { return Ok(()) };
        let wiped = task.close_dirty_and_wipe(store);
        self.options.metrics.add(Metric::TasksClosedDirty, 1);
        // The task lives again even if the wipe failed: opening the store finds the damage once more.
        task.revive()?;
        wiped
    }

    /// Drops a task without writing.
    fn close_dirty(&mut self, id: TaskId) -> Result<(), EngineError> {
        let Some(mut task) = self.tasks.remove(&id) else { return Ok(()) };
        let forgotten = self.forget(id);
        self.options.metrics.add(Metric::TasksClosedDirty, 1);
        task.close_dirty().and(forgotten)
    }

    /// Closes a task whose work is committed; dirty when it is not.
    fn close_clean(&mut self, id: TaskId) -> Result<(), EngineError> {
        if self.tasks.get(&id).is_some_and(StreamTask::commit_needed) {
            tracing::warn!(task = %id, "closed without its last commit; its records will be processed again");
            return self.close_dirty(id);
        }
        let Some(mut task) = self.tasks.remove(&id) else { return Ok(()) };
        let forgotten = self.forget(id);
        self.options.metrics.add(Metric::TasksClosedClean, 1);
        task.close_clean().and(forgotten)
    }

    /// Forgets a task that is being closed.
    fn forget(&mut self, id: TaskId) -> Result<(), EngineError> {
        if let Some(commit) = &mut self.commit {
            commit.remove(id);
        }
        self.restoring.remove(&id);
        self.waiting.remove(&id);
        self.in_line.remove(&id);
        self.missing_offsets.remove(&id);
        self.reader.remove(id)
    }

    /// Closes every task, and forgets the assignment. Returns the first fault after everything is closed.
    pub fn close_all(&mut self, clean: bool) -> Result<(), EngineError> {
        let mut result = Ok(());
        for id in self.tasks.keys().copied().collect::<Vec<_>>() {
            let closed = if clean { self.close_clean(id) } else { self.close_dirty(id) };
            result = result.and(closed);
        }
        self.commit = None;
        self.assigned.clear();
        self.starts.clear();
        self.early.clear();
        self.held.clear();
        self.events.clear();
        self.actions.clear();
        result
    }

    /// What the progress report says of the tasks.
    pub fn reports(&self) -> Vec<TaskReport> {
        let report = |task: &StreamTask| TaskReport {
            task: task.id(),
            state: task.state(),
            stream_time: task.group().stream_time(),
            uncommitted_bytes: task.uncommitted_bytes(),
            version: task.version(),
            promoted_with: task.promoted_with(),
            partitions: task.group().queues().iter().map(|queue| partition_report(task, queue)).collect(),
            restores: self.reader.reports(task.id()),
            migration: task.migration_report(),
        };
        self.tasks.values().map(report).collect()
    }
}

fn is_behind(task: &StreamTask, wanted: u64) -> bool {
    task.state() == TaskState::Running && !task.is_migrating() && task.version() != wanted
}

fn partition_report(task: &StreamTask, queue: &RecordQueue) -> PartitionReport {
    PartitionReport {
        partition: queue.partition.clone(),
        buffered: queue.len(),
        next_offset: Some(queue.next_offset()),
        committed_offset: queue.committed_offset(),
        end_offset: queue.end_offset,
        version_since: task.version_since(&queue.partition),
    }
}
