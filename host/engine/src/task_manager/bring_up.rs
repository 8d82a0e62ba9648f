//! How tasks come to run: open the stores, move the consumer to the committed offsets, restore, start the processor.
//! Each turn takes every task one step further where it can; a task that cannot go on does not hold up the others.

use std::time::Duration;

use super::TaskManager;
use crate::broker::Consumer;
use crate::error::EngineError;
use crate::metrics::{DurationMetric, Metric};
use crate::record::{Timestamp, TopicPartition};
use crate::restore::{ChangelogFacts, Slice};
use crate::state::StoreError;
use crate::task::TaskState;
use crate::task::stream_task::StreamTask;
use crate::topology::TaskId;

/// How often "no committed offset" is asked again.
const ASK_AGAIN_MS: u64 = 1_000;

/// How long a slice of a restore takes at most beside running tasks, which wait meanwhile.
const BUSY_SLICE_MS: u64 = 20;

/// As `BUSY_SLICE_MS` where nobody waits but the group.
const ALONE_SLICE_MS: u64 = 200;

/// How long the partitions of an incomplete task are kept.
const HELD_MAX_MS: u64 = 60_000;

impl TaskManager {
    /// Takes each task that does not run yet a step further. Returns how many records were restored.
    pub fn bring_up(
        &mut self,
        consumer: &mut dyn Consumer,
        restore_timeout: Duration,
        now_ms: u64,
        wall_clock_ms: Timestamp,
    ) -> Result<u64, EngineError> {
        self.check_held(now_ms)?;
        let ids: Vec<TaskId> =
            self.tasks.values().filter(|task| task.state() != TaskState::Running).map(StreamTask::id).collect();
        if ids.is_empty() {
            return Ok(0);
        }
        let mut result = Ok(());
        for &id in &ids {
            let begun = self.begin_restore(id, consumer, now_ms);
            result = result.and(begun);
        }
        // Alone, a restore takes larger slices; beside running tasks it must not hold them up.
        let busy = self.tasks.len() > ids.len();
        let max_records = self.options.config.restore_max_records;
        let slice = match busy {
            true => Slice { wait: Duration::ZERO, max_records, max_ms: BUSY_SLICE_MS },
            false => Slice { wait: restore_timeout, max_records: 10 * max_records, max_ms: ALONE_SLICE_MS },
        };
        let restored = self.reader.restore(&mut self.tasks, slice, &*self.options.clock);
        self.options.metrics.add(Metric::RecordsDropped, self.reader.take_dropped());
        // Whoever left the reader by a fault begins again at the offset of its store.
        if restored.is_err() {
            let reader = &self.reader;
            self.restoring.retain(|&id, _| !reader.is_complete(id));
        }
        for id in ids {
            let started = self.start(id, consumer, now_ms, wall_clock_ms);
            result = result.and(started);
        }
        let restored = restored.map_err(|error| result.clone().err().unwrap_or(error))?;
        self.options.metrics.add(Metric::RestoredRecords, restored);
        result.map(|()| restored)
    }

    /// From CREATED or SUSPENDED to RESTORING, up to the point where the reader has the task's changelogs.
    fn begin_restore(&mut self, id: TaskId, consumer: &mut dyn Consumer, now_ms: u64) -> Result<(), EngineError> {
        if self.restoring.contains_key(&id) || (self.in_line.contains(&id) && !self.reader.has_place()) {
            return Ok(());
        }
        let Some(task) = self.tasks.get_mut(&id) else { return Ok(()) };
        if task.state() == TaskState::Created && !task.open_stores()? {
            return self.wait_for_stores(id, now_ms);
        }
        self.waiting.remove(&id);
        if task.needs_rewind() {
            self.rewind(id, consumer)?;
        }
        let Some(task) = self.tasks.get_mut(&id) else { return Ok(()) };
        if task.state() == TaskState::Suspended {
            task.resume()?;
        }
        let facts = self.reader.look(task)?;
        facts.iter().for_each(|facts| task.report_copy(facts));
        if !self.offsets_are_plausible(id, &facts, consumer, now_ms)? {
            return Ok(());
        }
        // What needs no restore does not wait for those that do.
        if facts.iter().any(ChangelogFacts::needs_restore) && !self.reader.has_place() {
            self.in_line.insert(id);
            return Ok(());
        }
        self.in_line.remove(&id);
        let Some(task) = self.tasks.get_mut(&id) else { return Ok(()) };
        if let Err(error) = self.reader.begin(task, &facts, now_ms) {
            // A store may be missing after a failed wipe, and some changelogs may be assigned.
            task.close_dirty()?;
            task.revive()?;
            self.reader.remove(id)?;
            return Err(error);
        }
        if task.is_warm() {
            let behind = |facts: &ChangelogFacts| facts.log.high - facts.stored.unwrap_or(facts.log.low);
            let records = facts.iter().map(|facts| behind(facts).max(0).unsigned_abs()).sum();
            task.promoted(records);
            tracing::info!(task = %id, records, "promoted standby task {id}: {records} records to restore");
            self.options.metrics.add(Metric::StandbyPromotions, 1);
        }
        self.restoring.insert(id, now_ms);
        Ok(())
    }

    /// The standby thread, or another stream thread, still has the task's stores and gives them up at its next turn.
    fn wait_for_stores(&mut self, id: TaskId, now_ms: u64) -> Result<(), EngineError> {
        let since = *self.waiting.entry(id).or_insert(now_ms);
        let waited_ms = now_ms.saturating_sub(since);
        if waited_ms < self.options.config.task_timeout_ms {
            return Ok(());
        }
        let detail = format!("another thread of this host does not give it up since {waited_ms} ms");
        Err(StoreError::Locked { path: format!("task {id}"), detail }.into())
    }

    /// Moves the consumer to where the group stands.
    fn rewind(&mut self, id: TaskId, consumer: &mut dyn Consumer) -> Result<(), EngineError> {
        let partitions = self.tasks.get(&id).map(StreamTask::partitions).unwrap_or_default();
        let starts = self.find_starts(&partitions, consumer)?;
        consumer.pause(&partitions)?;
        let Some(task) = self.tasks.get_mut(&id) else { return Ok(()) };
        for (partition, (start, committed)) in &starts {
            consumer.seek(partition, *start)?;
            task.set_start(partition, *start, committed.as_ref());
        }
        task.group_mut().queues_mut().iter_mut().for_each(|queue| queue.paused = true);
        task.rewound();
        Ok(())
    }

    /// Refuses to process from the start on top of state that is there already (R11). A task commits its start before
    /// it writes anything, so "state, but no committed offset" cannot come from a crash in a first start: the offsets
    /// have expired, or the coordinator's answer is wrong for the moment. Ask again for a while, then stop.
    fn offsets_are_plausible(
        &mut self,
        id: TaskId,
        facts: &[ChangelogFacts],
        consumer: &mut dyn Consumer,
        now_ms: u64,
    ) -> Result<bool, EngineError> {
        let config = &self.options.config;
        let Some(task) = self.tasks.get(&id) else { return Ok(false) };
        let evidence = facts.iter().find_map(|facts| facts.evidence_of_state().map(|found| (&facts.store, found)));
        let (true, false, Some((store, evidence))) =
            (task.has_no_committed_offsets(), config.accept_missing_offsets, evidence)
        else {
            self.missing_offsets.remove(&id);
            return Ok(true);
        };
        let partitions = task.partitions();
        let (since, asked) = self.missing_offsets.entry(id).or_insert((now_ms, now_ms));
        if now_ms.saturating_sub(*since) >= config.missing_offsets_timeout_ms {
            return Err(EngineError::CommittedOffsetsMissing { task: id, store: store.clone(), evidence, partitions });
        }
        if now_ms.saturating_sub(*asked) < ASK_AGAIN_MS {
            return Ok(false);
        }
        if asked == since {
            let timeout_ms = config.missing_offsets_timeout_ms;
            tracing::warn!(task = %id, %store, evidence, timeout_ms,
                "the task has state but the group has no committed offset; asking again until the application is stopped");
        }
        *asked = now_ms;
        if consumer.committed(&partitions)?.iter().any(Option::is_some) {
            self.rewind(id, consumer)?;
        }
        Ok(false)
    }

    /// RESTORING to RUNNING once the stores are complete; then its partitions are fetched.
    fn start(
        &mut self,
        id: TaskId,
        consumer: &mut dyn Consumer,
        now_ms: u64,
        wall_clock_ms: Timestamp,
    ) -> Result<(), EngineError> {
        let Some(&assigned_ms) = self.restoring.get(&id) else { return Ok(()) };
        if !self.reader.is_complete(id) || self.options.versions.is_given_up() {
            return Ok(());
        }
        let Some(task) = self.tasks.get_mut(&id) else { return Ok(()) };
        if let Some((partition, offset)) = task.source_backed_position()? {
            consumer.seek(&partition, offset)?;
            task.follow_store(&partition, offset);
        }
        task.begin_running(wall_clock_ms)?;
        self.restoring.remove(&id);
        self.options.metrics.observe_ms(DurationMetric::Restore, now_ms.saturating_sub(assigned_ms));
        self.share_cache();
        // Resumed like any queue that has room again.
        self.resume_partitions(consumer)
    }

    /// Gives every open store of the thread its share of the record cache.
    fn share_cache(&mut self) {
        let stores: usize = self.tasks.values().map(|task| task.stores().len()).sum();
        let share = self.options.config.statestore_cache_max_bytes / stores.max(1);
        for store in self.tasks.values_mut().flat_map(StreamTask::stores_mut) {
            store.set_cache_max_bytes(share);
        }
    }

    /// Fails when the rest of an incomplete task does not come: its partitions would never be processed.
    fn check_held(&self, now_ms: u64) -> Result<(), EngineError> {
        for (&task, &since) in &self.held {
            let waited_ms = now_ms.saturating_sub(since);
            if waited_ms >= HELD_MAX_MS {
                let wanted = self.options.topology.task_partitions(task, &self.options.partition_counts);
                let (held, missing): (Vec<TopicPartition>, Vec<TopicPartition>) =
                    wanted.into_iter().partition(|partition| self.assigned.contains(partition));
                return Err(EngineError::IncompleteTask { task, held, missing, waited_ms });
            }
        }
        Ok(())
    }
}
