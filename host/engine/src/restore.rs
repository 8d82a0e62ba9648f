//! Restoring stores from their changelogs (Kafka Streams' `StoreChangelogReader`): off the processing path, in bounded
//! slices, resumable at any point because each write carries its offset. A store is complete when the reader's
//! position, which passes control records, has reached the log end that was asked for when the restore began (R9).

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::time::Duration;

use crate::broker::{BrokerError, BrokerErrorKind, PartitionRecords, RestoreConsumer, Watermarks};
use crate::clock::Clock;
use crate::error::EngineError;
use crate::record::{Offset, TopicPartition};
use crate::state::changelog::{to_writes, warn_of_dropped};
use crate::state::{KeyRange, ReadView, TaskStore};
use crate::stream_thread::RestoreReport;
use crate::task::stream_task::StreamTask;
use crate::topology::TaskId;

/// A restore that stands still for this long is reported, and its target checked (R10).
const STALL_REPORT_MS: u64 = 30_000;

/// Most records of one read: enough that a batch is cheap, few enough that a slice is not much longer than its bound.
const READ_MAX_RECORDS: usize = 2_000;

/// Most tasks of a thread that are restored at the same time.
const TASKS_MAX: usize = 4;

/// A restore over this many offsets is worth a bulk load.
const BULK_MIN_OFFSETS: Offset = 20_000;

/// The bounds of a slice, so that a restore does not hold up who shares its thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slice {
    /// How long it may wait for a first record.
    pub wait: Duration,
    pub max_records: usize,
    /// After this long no further read begins.
    pub max_ms: u64,
}

/// Where a restore begins, by R11.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RestoreStart {
    /// The store has everything.
    Complete,
    From(Offset),
    /// Records between the store's offset and the log start are gone, deletes among them: begin with an empty store.
    WipeAndFrom(Offset),
    /// The store knows more than the changelog: that was deleted or made anew.
    Regressed,
}

/// Decides where to begin with a store whose next changelog offset is `stored`.
pub fn restore_start(stored: Option<Offset>, log: Watermarks) -> RestoreStart {
    match stored {
        Some(stored) if stored > log.high => RestoreStart::Regressed,
        Some(stored) if stored < log.low => RestoreStart::WipeAndFrom(log.low),
        Some(stored) if stored == log.high => RestoreStart::Complete,
        Some(stored) => RestoreStart::From(stored),
        None if log.low == log.high => RestoreStart::Complete,
        None => RestoreStart::From(log.low),
    }
}

/// What is known of a logged store before its restore.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangelogFacts {
    /// The store's place in the declaration.
    pub index: usize,
    pub store: String,
    pub changelog: TopicPartition,
    pub stored: Option<Offset>,
    /// For a store that its source topic backs, the end is the last stable offset: others write that topic, and how
    /// long their transactions are open is not ours to wait for.
    pub log: Watermarks,
    /// The topic is the task's source.
    pub is_source: bool,
}

impl ChangelogFacts {
    /// Whether there is something to be read.
    pub fn needs_restore(&self) -> bool {
        restore_start(self.stored, self.log) != RestoreStart::Complete
    }

    /// What shows that the store was in use before, if anything does. Where the source topic backs the store that means
    /// nothing: no record is counted twice by being read again.
    pub fn evidence_of_state(&self) -> Option<String> {
        match self.stored {
            _ if self.is_source => None,
            Some(stored) if stored > 0 => Some(format!("local changelog offset {stored}")),
            _ if self.log.high > self.log.low => {
                Some(format!("changelog {} ends at offset {}", self.changelog, self.log.high))
            }
            _ => None,
        }
    }
}

/// A changelog that is being restored.
#[derive(Debug)]
struct Changelog {
    task: TaskId,
    index: usize,
    store: String,
    start: Offset,
    position: Offset,
    target: Offset,
    records: u64,
    /// Records without a key are left out, and that was said.
    is_source: bool,
    dropped_reported: bool,
    /// Monotonic time at which its position or that of another changelog moved last, or the broker could not be asked.
    moved_ms: u64,
    stall_reported: bool,
}

/// Restores the stores of a thread's tasks.
pub struct StoreChangelogReader {
    consumer: Box<dyn RestoreConsumer>,
    changelogs: BTreeMap<TopicPartition, Changelog>,
    /// A restore that stands still for longer fails (R10).
    stall_max_ms: u64,
    /// Records that were restored before an error, for the next answer.
    untold: u64,
    /// Records without a key that were left out, since somebody asked.
    dropped: u64,
    accept_lost_changelogs: bool,
}

impl StoreChangelogReader {
    pub fn new(consumer: Box<dyn RestoreConsumer>, transaction_timeout_ms: u64) -> Self {
        let stall_max_ms = (2 * transaction_timeout_ms).max(2 * STALL_REPORT_MS);
        let changelogs = BTreeMap::new();
        Self { consumer, changelogs, stall_max_ms, untold: 0, dropped: 0, accept_lost_changelogs: false }
    }

    /// Lets stores begin with changelogs that end before the state to which the committed offsets belong.
    pub fn accepting_lost_changelogs(self, accept_lost_changelogs: bool) -> Self {
        Self { accept_lost_changelogs, ..self }
    }

    /// Log start and log end of any partitions, in the order asked.
    pub fn watermarks(&mut self, partitions: &[TopicPartition]) -> Result<Vec<Watermarks>, EngineError> {
        if partitions.is_empty() {
            return Ok(Vec::new());
        }
        Ok(self.consumer.watermarks(partitions)?)
    }

    /// The last stable offset of any partitions, in the order asked.
    pub fn stable_ends(&mut self, partitions: &[TopicPartition]) -> Result<Vec<Offset>, EngineError> {
        if partitions.is_empty() {
            return Ok(Vec::new());
        }
        Ok(self.consumer.stable_ends(partitions)?)
    }

    /// How many records without a key were left out since the last call.
    pub fn take_dropped(&mut self) -> u64 {
        std::mem::take(&mut self.dropped)
    }

    /// Looks at the stores of a task and the bounds of their changelogs. Called after the assignment, and under
    /// exactly-once after older producers were fenced (R9).
    pub fn look(&mut self, task: &StreamTask) -> Result<Vec<ChangelogFacts>, EngineError> {
        let mut facts = Vec::new();
        for (index, (store, changelog)) in task.stores().iter().zip(task.changelogs()).enumerate() {
            if let Some(changelog) = changelog {
                facts.push(ChangelogFacts {
                    index,
                    store: store.spec().name.to_string(),
                    changelog: changelog.clone(),
                    stored: store.changelog_offset()?,
                    log: Watermarks { low: 0, high: 0 },
                    is_source: store.spec().is_source_backed(),
                });
            }
        }
        let changelogs: Vec<TopicPartition> = facts.iter().map(|facts| facts.changelog.clone()).collect();
        for (facts, log) in facts.iter_mut().zip(self.watermarks(&changelogs)?) {
            facts.log = log;
        }
        let of_sources = facts.iter_mut().filter(|facts| facts.is_source);
        let mut of_sources: Vec<&mut ChangelogFacts> = of_sources.collect();
        let changelogs: Vec<TopicPartition> = of_sources.iter().map(|facts| facts.changelog.clone()).collect();
        for (facts, end) in of_sources.iter_mut().zip(self.stable_ends(&changelogs)?) {
            // What the store has already was stable.
            facts.log.high = facts.stored.unwrap_or(0).min(facts.log.high).max(end);
        }
        Ok(facts)
    }

    /// Begins to restore the stores of a task that need it.
    pub fn begin(&mut self, task: &mut StreamTask, facts: &[ChangelogFacts], now_ms: u64) -> Result<(), EngineError> {
        for facts in facts {
            let start = restore_start(facts.stored, facts.log);
            if start != RestoreStart::Regressed {
                if !self.accept_lost_changelogs && !facts.is_source {
                    check_changelog(task, facts)?;
                }
                if let Some(store) = task.stores().get(facts.index) {
                    check_content(task.id(), &facts.store, &facts.changelog, facts.stored, &*store.read_view())?;
                }
            }
            let start = match start {
                RestoreStart::Complete => {
                    complete_at_once(task, facts)?;
                    continue;
                }
                RestoreStart::From(start) => start,
                RestoreStart::WipeAndFrom(start) => {
                    tracing::warn!(task = %task.id(), store = facts.store, changelog = %facts.changelog,
                        stored = facts.stored, log_start = start, "changelog was cut above the store, wiping the store");
                    task.wipe_store(facts.index)?;
                    start
                }
                RestoreStart::Regressed => {
                    let (stored, end) = (facts.stored.unwrap_or(0), facts.log.high);
                    return Err(regressed(task.id(), &facts.store, &facts.changelog, facts.is_source, stored, end));
                }
            };
            if facts.log.high - start >= BULK_MIN_OFFSETS
                && let Some(store) = task.stores_mut().get_mut(facts.index)
            {
                store.begin_bulk()?;
            }
            self.consumer.assign(&facts.changelog, start)?;
            let changelog = Changelog {
                task: task.id(),
                index: facts.index,
                store: facts.store.clone(),
                start,
                position: start,
                target: facts.log.high,
                records: 0,
                is_source: facts.is_source,
                dropped_reported: false,
                moved_ms: now_ms,
                stall_reported: false,
            };
            task.report_restore(facts.index, start, facts.log.high);
            self.changelogs.insert(facts.changelog.clone(), changelog);
        }
        Ok(())
    }

    /// Whether one more task may be restored now. Each has memory of its own while it is.
    pub fn has_place(&self) -> bool {
        let tasks: BTreeSet<TaskId> = self.changelogs.values().map(|changelog| changelog.task).collect();
        tasks.len() < TASKS_MAX
    }

    /// Whether nothing is being restored.
    pub fn is_idle(&self) -> bool {
        self.changelogs.is_empty()
    }

    /// Whether no store of the task is being restored.
    pub fn is_complete(&self, task: TaskId) -> bool {
        self.changelogs.values().all(|changelog| changelog.task != task)
    }

    /// Stops restoring a task. Its stores keep what was restored, with its offset (R12).
    pub fn remove(&mut self, task: TaskId) -> Result<(), EngineError> {
        let of_task = self.changelogs.iter().filter(|(_, changelog)| changelog.task == task);
        let partitions: Vec<TopicPartition> = of_task.map(|(partition, _)| partition.clone()).collect();
        let mut result = Ok(());
        for partition in partitions {
            self.changelogs.remove(&partition);
            let unassigned = self.consumer.unassign(&partition);
            result = result.and(unassigned);
        }
        Ok(result?)
    }

    /// One slice: reads and applies what is there, within the slice's bounds. Returns how many records there were. A
    /// store that fails is left out, to begin again from its own offset; the others go on.
    pub fn restore(
        &mut self,
        tasks: &mut BTreeMap<TaskId, StreamTask>,
        slice: Slice,
        clock: &dyn Clock,
    ) -> Result<u64, EngineError> {
        let deadline_ms = clock.monotonic_ms() + slice.max_ms;
        let (mut left, mut wait) = (slice.max_records, slice.wait);
        while left > 0 && !self.changelogs.is_empty() {
            let read = self.read(tasks, wait, left.min(READ_MAX_RECORDS), clock.monotonic_ms())?;
            left = left.saturating_sub(read as usize);
            wait = Duration::ZERO;
            if read == 0 || clock.monotonic_ms() >= deadline_ms {
                break;
            }
        }
        Ok(std::mem::take(&mut self.untold))
    }

    fn read(
        &mut self,
        tasks: &mut BTreeMap<TaskId, StreamTask>,
        wait: Duration,
        max_records: usize,
        now_ms: u64,
    ) -> Result<u64, EngineError> {
        let polled = match self.consumer.poll(wait, max_records) {
            Err(error) if error.kind == BrokerErrorKind::OffsetOutOfRange => return Err(self.begin_again(error)),
            polled => polled,
        };
        let polled = polled.inspect_err(|_| {
            // Time without a broker is no sign of a hanging transaction.
            self.changelogs.values_mut().for_each(|changelog| changelog.moved_ms = now_ms);
        })?;
        let mut restored = 0;
        let mut result = Ok(());
        for records in polled {
            match self.apply(tasks, &records) {
                Ok(count) => restored += count,
                Err((task, error)) => {
                    let removed = self.remove(task);
                    result = result.and(Err::<(), EngineError>(error)).and(removed);
                }
            }
        }
        result.and(self.follow_positions(tasks, now_ms)).map(|()| restored)
    }

    /// Leaves out the tasks whose changelogs were cut above the position of their restore: they begin again, which R11
    /// decides on. Returns the error of the slice.
    fn begin_again(&mut self, error: BrokerError) -> EngineError {
        match self.remove_cut() {
            Ok(0) => error.into(),
            Ok(_) => {
                let detail = "records were deleted before they were read; the restore begins again";
                BrokerError::new(BrokerErrorKind::Retriable, error.operation, detail).into()
            }
            Err(error) => error,
        }
    }

    fn remove_cut(&mut self) -> Result<usize, EngineError> {
        let changelogs: Vec<TopicPartition> = self.changelogs.keys().cloned().collect();
        let mut cut = BTreeSet::new();
        for (partition, log) in changelogs.iter().zip(self.watermarks(&changelogs)?) {
            let Some(changelog) = self.changelogs.get(partition) else { continue };
            if self.consumer.position(partition)?.unwrap_or(changelog.position) < log.low {
                tracing::warn!(task = %changelog.task, store = changelog.store, changelog = %partition,
                    position = changelog.position, log_start = log.low, "changelog was cut above its restore");
                cut.insert(changelog.task);
            }
        }
        cut.iter().try_for_each(|&task| self.remove(task))?;
        Ok(cut.len())
    }

    fn apply(
        &mut self,
        tasks: &mut BTreeMap<TaskId, StreamTask>,
        polled: &PartitionRecords,
    ) -> Result<u64, (TaskId, EngineError)> {
        let Some(changelog) = self.changelogs.get_mut(&polled.partition) else { return Ok(0) };
        let task = changelog.task;
        let writes = to_writes(&polled.partition, &polled.records, changelog.is_source);
        let (writes, dropped) = writes.map_err(|error| (task, error.into()))?;
        self.dropped += dropped;
        if dropped > 0 && !std::mem::replace(&mut changelog.dropped_reported, true) {
            warn_of_dropped(task, &polled.partition, dropped);
        }
        let Some(last) = polled.records.last() else { return Ok(0) };
        let store = tasks.get_mut(&task).and_then(|task| task.stores_mut().get_mut(changelog.index));
        if let Some(store) = store {
            store.restore(&writes, last.offset + 1).map_err(|error| (task, error.into()))?;
        }
        changelog.records += writes.len() as u64;
        // Kept over an error of a later read.
        self.untold += writes.len() as u64;
        // Left out or not, they were read.
        Ok(polled.records.len() as u64)
    }

    fn follow_positions(&mut self, tasks: &mut BTreeMap<TaskId, StreamTask>, now_ms: u64) -> Result<(), EngineError> {
        let mut complete = Vec::new();
        let mut moved = false;
        for (partition, changelog) in &mut self.changelogs {
            let position = self.consumer.position(partition)?.unwrap_or(changelog.position);
            if position > changelog.position {
                changelog.position = position;
                moved = true;
                if let Some(task) = tasks.get(&changelog.task) {
                    task.report_restore(changelog.index, position, changelog.target);
                }
            }
            if position >= changelog.target {
                complete.push(partition.clone());
            }
        }
        if moved {
            // One client reads them all, and not evenly: who waits behind the others does not stand still.
            for changelog in self.changelogs.values_mut() {
                (changelog.moved_ms, changelog.stall_reported) = (now_ms, false);
            }
        }
        for partition in complete {
            self.complete(tasks, &partition)?;
        }
        self.watch(now_ms)
    }

    /// The store has reached its target: its offset moves past the control records at the end too.
    fn complete(
        &mut self,
        tasks: &mut BTreeMap<TaskId, StreamTask>,
        partition: &TopicPartition,
    ) -> Result<(), EngineError> {
        let Some(changelog) = self.changelogs.get(partition) else { return Ok(()) };
        let store = tasks.get_mut(&changelog.task).and_then(|task| task.stores_mut().get_mut(changelog.index));
        if let Some(store) = store
            && store.changelog_offset()? != Some(changelog.position)
        {
            store.restore(&[], changelog.position)?;
        }
        if let Some(task) = tasks.get_mut(&changelog.task) {
            end_bulk(task, changelog.index)?;
        }
        self.consumer.unassign(partition)?;
        if let Some(done) = self.changelogs.remove(partition) {
            tracing::info!(task = %done.task, store = done.store, records = done.records, from = done.start,
                to = done.position, "store restored");
        }
        Ok(())
    }

    /// Reports and finally fails a restore that stands still (R10). Only time counts in which the broker was there: it
    /// is asked when a restore has stood still for long, and before it fails.
    fn watch(&mut self, now_ms: u64) -> Result<(), EngineError> {
        let mut stalled = Vec::new();
        for (partition, changelog) in &self.changelogs {
            let stalled_ms = now_ms.saturating_sub(changelog.moved_ms);
            if stalled_ms >= STALL_REPORT_MS && !changelog.stall_reported {
                tracing::warn!(task = %changelog.task, store = changelog.store, changelog = %partition, stalled_ms,
                    position = changelog.position, target = changelog.target, "restore stands still");
                stalled.push(partition.clone());
            } else if stalled_ms >= self.stall_max_ms {
                stalled.push(partition.clone());
            }
        }
        let logs = self.watermarks(&stalled);
        for (index, partition) in stalled.iter().enumerate() {
            let Some(changelog) = self.changelogs.get_mut(partition) else { continue };
            let Ok(logs) = &logs else {
                // Nothing can move while nobody answers; the wait begins anew.
                (changelog.moved_ms, changelog.stall_reported) = (now_ms, false);
                continue;
            };
            if let Some(log) = logs.get(index).filter(|log| log.high < changelog.target) {
                let Changelog { task, store, is_source, target, .. } = changelog;
                return Err(regressed(*task, store, partition, *is_source, *target, log.high));
            }
            let stalled_ms = now_ms.saturating_sub(changelog.moved_ms);
            // What was not said before is not final: a process that stood still has only begun to wait.
            if stalled_ms >= self.stall_max_ms && changelog.stall_reported {
                return Err(EngineError::RestoreStalled {
                    task: changelog.task,
                    store: changelog.store.clone(),
                    changelog: partition.clone(),
                    position: changelog.position,
                    target: changelog.target,
                    stalled_ms,
                });
            }
            changelog.stall_reported = true;
        }
        logs.map(drop)
    }

    /// How far the restores of a task are.
    pub fn reports(&self, task: TaskId) -> Vec<RestoreReport> {
        let of_task = self.changelogs.iter().filter(|(_, changelog)| changelog.task == task);
        let report = |(partition, changelog): (&TopicPartition, &Changelog)| RestoreReport {
            store: changelog.store.clone(),
            changelog: partition.clone(),
            start_offset: changelog.start,
            position: changelog.position,
            target: changelog.target,
            records: changelog.records,
        };
        of_task.map(report).collect()
    }
}

/// The store has, or should have, more than the topic that it follows.
pub(crate) fn regressed(
    task: TaskId,
    store: &str,
    changelog: &TopicPartition,
    is_source: bool,
    stored: Offset,
    end: Offset,
) -> EngineError {
    let (store, changelog) = (store.to_owned(), changelog.clone());
    match is_source {
        true => EngineError::SourceRegressed { task, store, changelog, stored, end },
        false => EngineError::ChangelogRegressed { task, store, changelog, stored, end },
    }
}

/// Refuses a changelog that ends before the state to which the committed offsets belong (R11): with it the store would
/// be empty, or an older one, in the middle of the input.
fn check_changelog(task: &StreamTask, facts: &ChangelogFacts) -> Result<(), EngineError> {
    let generation = task.stores().get(facts.index).map(|store| store.spec().generation());
    match generation.and_then(|generation| task.committed_changelog(&generation)) {
        Some(committed) if committed > facts.log.high => Err(EngineError::ChangelogLost {
            task: task.id(),
            store: facts.store.clone(),
            changelog: facts.changelog.clone(),
            committed,
            end: facts.log.high,
        }),
        _ => Ok(()),
    }
}

/// Refuses a store that holds entries but no changelog offset: they were written while it had no changelog, and would
/// be gone with the directory, or on another host. They may be the only copy, so nobody takes them away unasked.
pub(crate) fn check_content(
    task: TaskId,
    store: &str,
    changelog: &TopicPartition,
    stored: Option<Offset>,
    view: &dyn ReadView,
) -> Result<(), EngineError> {
    if stored.is_some() {
        return Ok(());
    }
    let mut is_empty = true;
    view.scan(KeyRange::ALL, false, &mut |_, _| {
        is_empty = false;
        ControlFlow::Break(())
    })?;
    if is_empty {
        return Ok(());
    }
    Err(EngineError::UnloggedContent { task, store: store.to_owned(), changelog: changelog.clone() })
}

/// The store has everything. A restore may have been broken off at its very end; and where the source topic backs the
/// store, that knows from now on where its source goes on.
fn complete_at_once(task: &mut StreamTask, facts: &ChangelogFacts) -> Result<(), EngineError> {
    end_bulk(task, facts.index)?;
    match task.stores_mut().get_mut(facts.index) {
        Some(store) if facts.is_source && facts.stored.is_none() => Ok(store.restore(&[], facts.log.high)?),
        _ => Ok(()),
    }
}

fn end_bulk(task: &mut StreamTask, index: usize) -> Result<(), EngineError> {
    Ok(task.stores_mut().get_mut(index).map_or(Ok(()), TaskStore::end_bulk)?)
}

#[cfg(test)]
mod tests;
