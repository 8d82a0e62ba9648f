//! The life of an active task: opening its stores, its start after the restore, suspending, closing clean or dirty,
//! and reviving. Every change of state goes through the table in `task`. A task closed dirty writes nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{StoreRegistration, StreamTask};
use crate::broker::OffsetAndMetadata;
use crate::error::EngineError;
use crate::processor::{ProcessorContext, ProcessorError, Reads};
use crate::query::{Availability, Registration, Role};
use crate::record::{NO_TIMESTAMP, Offset, Timestamp, TopicPartition};
use crate::restore::{ChangelogFacts, RestoreStart, restore_start};
use crate::standby::{ActiveClaim, WholeCopy};
use crate::state::{StateStore, StoreError, StoreProvider, TaskStore};
use crate::stream_thread::StreamThreadOptions;
use crate::task::partition_group::PartitionGroup;
use crate::task::punctuation::PunctuationQueue;
use crate::task::record_collector::RecordCollector;
use crate::task::{TaskState, offset_metadata};
use crate::topology::{StoreSpec, SubTopology, TaskId};

impl StreamTask {
    /// A task in state CREATED.
    pub fn new(id: TaskId, partitions: &[TopicPartition], options: Arc<StreamThreadOptions>) -> Self {
        let none = SubTopology::default();
        let topology = &options.topology;
        let sub_topology = topology.sub_topology(id.sub_topology).unwrap_or(&none);
        let changelog = |store: &StoreSpec| {
            let topic = store.changelog_topic(&options.application_id);
            topic.map(|topic| TopicPartition::new(topic, id.partition))
        };
        let changelogs = sub_topology.stores.iter().map(changelog).collect();
        let is_table = sub_topology.stores.iter().any(StoreSpec::is_source_backed);
        let collector = RecordCollector::new(id, topology, &options.partition_counts, &options.sink_limits.get());
        Self {
            id,
            state: TaskState::Created,
            group: PartitionGroup::new(id, partitions, options.config.max_task_idle_ms),
            changelogs,
            stores: Vec::new(),
            registrations: Vec::new(),
            positions: Arc::default(),
            context: None,
            processor: None,
            schedules: PunctuationQueue::default(),
            collector,
            stream_time_moved: false,
            commit_needed: false,
            initial_commit: false,
            committed_changelogs: BTreeMap::new(),
            rewind: false,
            changelog_cursor: (0, 0),
            changelogs_written: false,
            is_table,
            dropped_reported: false,
            dead_letter_reported: false,
            dropped_output_reported: false,
            fresh: false,
            init_reads: Reads::default(),
            failures_in_a_row: 0,
            failed_punctuations_in_a_row: 0,
            wants_fresh: false,
            condemned: None,
            resume_at_ms: 0,
            warm: false,
            promoted_with: None,
            claim: ActiveClaim::new(&options.standby_tasks, id),
            version: options.versions.target(),
            version_starts: BTreeMap::new(),
            version_unmarked: false,
            committed_schemas: BTreeMap::new(),
            is_schema_known: false,
            schema_starts: BTreeMap::new(),
            committed_schema_sources: BTreeMap::new(),
            committed_migrating: None,
            migration: None,
            options,
        }
    }

    fn move_to(&mut self, next: TaskState) -> Result<(), EngineError> {
        self.state = self.state.moved_to(next, self.id)?;
        Ok(())
    }

    /// Sets where a partition starts and what the group has committed for it.
    pub fn set_start(&mut self, partition: &TopicPartition, start: Offset, committed: Option<&OffsetAndMetadata>) {
        let known = committed.map(|committed| offset_metadata::decode(&committed.metadata));
        let time = known.as_ref().map_or(NO_TIMESTAMP, |known| known.partition_time);
        self.note_version(partition, start, known.as_ref().and_then(|known| known.version));
        if let Some(known) = known {
            for (generation, offset) in known.changelogs {
                // Each partition says what was true when it was committed last.
                let latest = self.committed_changelogs.entry(generation).or_default();
                *latest = offset.max(*latest);
            }
            // What they say of rows is committed for all of them together. A source that was not read for a while says
            // what was true then, and offsets that somebody else has set say nothing.
            self.is_schema_known |= known.version.is_some();
            for (store, version) in known.schemas {
                let latest = self.committed_schemas.entry(store).or_default();
                *latest = version.max(*latest);
            }
            for (store, version) in known.schema_sources {
                let latest = self.committed_schema_sources.entry(store).or_default();
                *latest = version.max(*latest);
            }
            self.committed_migrating = self.committed_migrating.max(known.migrating);
            match known.schema_since {
                Some(since) => self.schema_starts.insert(partition.clone(), since),
                None => self.schema_starts.remove(partition),
            };
        }
        if let Some(queue) = self.group.queue_mut(partition) {
            queue.reset(start, time);
            queue.committed = committed.cloned();
        }
        self.group.reset_stream_time();
        self.initial_commit = self.group.queues().iter().all(|queue| queue.committed.is_none());
    }

    /// Where the source partition that backs a store goes on: at the offset that the store knows, whatever the group
    /// has committed. The store is restored.
    pub fn source_backed_position(&self) -> Result<Option<(TopicPartition, Offset)>, EngineError> {
        for (store, changelog) in self.stores().iter().zip(&self.changelogs) {
            if let (true, Some(partition)) = (store.spec().is_source_backed(), changelog) {
                return Ok(store.changelog_offset()?.map(|offset| (partition.clone(), offset)));
            }
        }
        Ok(None)
    }

    /// The consumer stands where the store does; what came before that is in the store already.
    pub fn follow_store(&mut self, partition: &TopicPartition, offset: Offset) {
        if let Some(queue) = self.group.queue_mut(partition) {
            queue.reset(offset, queue.partition_time());
        }
    }

    /// Whether the group does not have what a restore from the source topic has brought.
    fn is_ahead_of_group(&self) -> bool {
        self.is_table && self.group.queues().iter().any(|queue| queue.committed_offset() != Some(queue.next_offset()))
    }

    /// The offset that the changelog of a generation of a store must reach by what the group knows; `None` where it
    /// says nothing.
    pub fn committed_changelog(&self, generation: &str) -> Option<Offset> {
        self.committed_changelogs.get(generation).copied()
    }

    /// Whether the group has no committed offset for any of its partitions.
    pub fn has_no_committed_offsets(&self) -> bool {
        self.initial_commit
    }

    /// Whether the consumer must be moved to the committed offsets before the task may go on.
    pub fn needs_rewind(&self) -> bool {
        self.rewind
    }

    /// Asks for the consumer to be moved to the committed offsets before the task goes on.
    pub fn rewind(&mut self) {
        self.rewind = true;
    }

    /// The consumer stands at the committed offsets again.
    pub fn rewound(&mut self) {
        self.rewind = false;
    }

    /// The changelog of each store, in the order of declaration.
    pub fn changelogs(&self) -> &[Option<TopicPartition>] {
        &self.changelogs
    }

    pub fn stores(&self) -> &[TaskStore] {
        self.context.as_ref().map_or(&self.stores, |context| context.stores())
    }

    pub fn stores_mut(&mut self) -> &mut [TaskStore] {
        match &mut self.context {
            Some(context) => context.stores_mut(),
            None => &mut self.stores,
        }
    }

    /// Opens the stores, wiping those that turn out to be corrupt (R12): CREATED to RESTORING. A warm copy that the
    /// standby thread has is taken over as it is. False while another thread has them: ask again in the next turn. On
    /// an error the task stays as it is and the call may be repeated.
    pub fn open_stores(&mut self) -> Result<bool, EngineError> {
        let Some(mut warm) = self.claim.take() else { return Ok(false) };
        self.warm |= !warm.is_empty();
        let topology = Arc::clone(&self.options.topology);
        let specs = topology.sub_topology(self.id.sub_topology).map_or(&[][..], |sub_topology| &sub_topology.stores);
        let mut stores = Vec::with_capacity(specs.len());
        for spec in specs {
            let (backend, copy) = match warm.iter().position(|open| open.name == spec.name) {
                Some(index) => {
                    let open = warm.swap_remove(index);
                    (open.backend, open.copy)
                }
                None => (open_or_wipe(&*self.options.stores, self.id, spec)?, None),
            };
            stores.push((TaskStore::new(spec.clone(), backend, 0), copy));
        }
        self.move_to(TaskState::Restoring)?;
        let mut opened = Vec::with_capacity(stores.len());
        for (store, copy) in stores {
            let availability = match &copy {
                Some(WholeCopy { position, end, .. }) => Availability::Following { position: *position, end: *end },
                None => Availability::Opened,
            };
            // One whose offset cannot be read says so to the restore.
            let stored = store.read_view().changelog_offset().ok().flatten();
            // Also where there is a copy, whose note is of no use any more.
            let noted = self.claim.take_whole(&store.spec().name, stored);
            let whole = noted || copy.is_some();
            let id = self.options.queries.register(self.registration(&store, availability));
            self.registrations.push(StoreRegistration { id, whole });
            opened.push(store);
        }
        self.stores = opened;
        Ok(true)
    }

    fn registration(&self, store: &TaskStore, availability: Availability) -> Registration {
        Registration {
            store: store.spec().name.clone(),
            task: self.id,
            role: Role::Active,
            availability,
            view: store.read_view(),
            sources: Arc::clone(&self.positions),
        }
    }

    /// Whether the stores were taken over from the standby thread and nobody has said so yet.
    pub fn is_warm(&self) -> bool {
        self.warm
    }

    /// Notes how many records are left to restore after that.
    pub fn promoted(&mut self, records: u64) {
        self.warm = false;
        self.promoted_with = Some(records);
    }

    /// How many records were left to restore when it was promoted; `None` where it was not.
    pub fn promoted_with(&self) -> Option<u64> {
        self.promoted_with
    }

    /// Replaces a store by an empty one, while the task is restoring.
    pub fn wipe_store(&mut self, index: usize) -> Result<(), EngineError> {
        if index >= self.stores.len() {
            return Ok(());
        }
        self.options.queries.unregister(self.registrations.remove(index).id);
        self.positions.clear();
        let (spec, backend) = self.stores.remove(index).into_backend();
        drop(backend);
        // On an error the task lacks a store: whoever gets it closes the task dirty.
        self.options.stores.wipe(self.id, &spec)?;
        let backend: Box<dyn StateStore> = self.options.stores.open(self.id, &spec)?;
        let store = TaskStore::new(spec, backend, 0);
        let id = self.options.queries.register(self.registration(&store, Availability::Opened));
        self.registrations.insert(index, StoreRegistration { id, whole: false });
        self.stores.insert(index, store);
        Ok(())
    }

    /// Tells queries how far a store is that has had everything once, before its restore has begun.
    pub fn report_copy(&self, facts: &ChangelogFacts) {
        let whole = self.registrations.get(facts.index).is_some_and(|registration| registration.whole);
        let start = restore_start(facts.stored, facts.log);
        let is_kept = matches!(start, RestoreStart::Complete | RestoreStart::From(_));
        if let Some(stored) = facts.stored.filter(|_| whole && is_kept) {
            self.report_restore(facts.index, stored, facts.log.high);
        }
    }

    /// Tells queries how far the restore of a store is. A copy that was whole lacks the latest changes only.
    pub fn report_restore(&self, index: usize, position: Offset, target: Offset) {
        if let Some(&StoreRegistration { id, whole }) = self.registrations.get(index) {
            let availability = match whole {
                true => Availability::Following { position, end: target },
                false => Availability::Restoring { position, target },
            };
            self.options.queries.set_availability(id, availability);
        }
    }

    /// Makes and initialises the processor: RESTORING to RUNNING. The stores are up to date.
    pub fn begin_running(&mut self, wall_clock_ms: Timestamp) -> Result<(), EngineError> {
        self.take_wanted_version();
        let (application_id, config) = (self.options.application_id.clone(), self.version.config.clone());
        let mut stores = std::mem::take(&mut self.stores);
        let limits = self.options.sink_limits.get();
        for (store, changelog) in stores.iter_mut().zip(&self.changelogs) {
            let max_bytes = changelog.as_ref().map_or(usize::MAX, |topic| limits.of(&topic.topic).entry_max_bytes());
            store.set_entry_max_bytes(max_bytes);
        }
        let context = ProcessorContext::new(self.id, application_id, config, stores);
        self.context = Some(context.leave_out_savepoints(self.options.config.without_savepoints));
        let started = self.begin_migration().and_then(|begun| match begun {
            true => Ok(()),
            false => self.start_processor(wall_clock_ms).map_err(|error| self.not_started(error)),
        });
        if let Err(error) = started {
            self.stores = self.context.take().map(ProcessorContext::into_stores).unwrap_or_default();
            return Err(error);
        }
        self.commit_needed =
            self.version_unmarked || self.stores().iter().any(TaskStore::is_dirty) || self.is_ahead_of_group();
        self.move_to(TaskState::Running)?;
        if self.migration.is_none() {
            self.begin_serving();
        }
        Ok(())
    }

    /// Lets queries have the stores as they are.
    pub(super) fn begin_serving(&mut self) {
        self.report_positions();
        for registration in &mut self.registrations {
            registration.whole = true;
            self.options.queries.set_availability(registration.id, Availability::Running);
        }
    }

    /// Makes an instance and initialises it, at the start of the task and after a failed call. Schedules that `init`
    /// asks for again keep their time; what the last instance has asked for elsewhere ends with it, as with a restart.
    pub(super) fn start_processor(&mut self, wall_clock_ms: Timestamp) -> Result<(), ProcessorError> {
        let mut processor = self.version.processors.create(self.id)?;
        let Some(mut context) = self.context.take() else {
            return Err(ProcessorError::Start(format!("task {} has no stores", self.id)));
        };
        let stream_time = self.group.stream_time();
        if self.options.topology.dead_letter_topic.is_some() {
            context.record_reads(self.options.config.exception_handlers.dead_letter_reads_max_bytes);
        }
        context.restart_schedule_ids();
        context.begin_call(stream_time, stream_time.unwrap_or(wall_clock_ms), wall_clock_ms);
        let (mut context, result) = processor.init(context);
        self.init_reads = context.take_reads();
        match &result {
            Ok(()) => self.schedules.renew(context.complete_call(), wall_clock_ms),
            Err(_) => context.fail_call(),
        }
        self.context = Some(context);
        result?;
        self.processor = Some(processor);
        self.fresh = true;
        Ok(())
    }

    /// Drops everything that is not committed, together with the processor and what waits in the queues; the stores
    /// stay open at their last commit. From CREATED, RESTORING or RUNNING to SUSPENDED.
    pub fn suspend(&mut self) -> Result<(), EngineError> {
        self.move_to(TaskState::Suspended)?;
        if let Some(context) = self.context.take() {
            self.stores = context.into_stores();
        }
        self.stores.iter_mut().for_each(TaskStore::abort);
        self.processor = None;
        self.migration = None;
        self.forget_schemas();
        self.failures_in_a_row = 0;
        self.failed_punctuations_in_a_row = 0;
        self.wants_fresh = false;
        self.resume_at_ms = 0;
        self.schedules = PunctuationQueue::default();
        self.collector.abort();
        self.stream_time_moved = false;
        self.commit_needed = false;
        self.changelog_cursor = (0, 0);
        self.rewind = true;
        for queue in self.group.queues_mut() {
            let (offset, time) = (queue.next_offset(), queue.partition_time());
            queue.reset(offset, time);
        }
        Ok(())
    }

    /// Goes on after `suspend` and the rewind: SUSPENDED to RESTORING, with the stores still open.
    pub fn resume(&mut self) -> Result<(), EngineError> {
        self.collector.set_limits(&self.options.sink_limits.get());
        self.move_to(TaskState::Restoring)
    }

    /// Closes after a commit: makes the stores durable, then closes them. When that fails the task is closed all the
    /// same, and what was not durable is restored from the changelog.
    pub fn close_clean(&mut self) -> Result<(), EngineError> {
        debug_assert!(!self.commit_needed, "task {} is closed clean with uncommitted work", self.id);
        let flushed = self.stores_mut().iter_mut().try_for_each(TaskStore::flush);
        self.close_dirty()?;
        Ok(flushed?)
    }

    /// Takes the stores from queries and closes them, without writing anything. The hold on the task stays.
    fn close_stores(&mut self) -> Result<(), EngineError> {
        for (store, _) in self.stores().iter().zip(&self.registrations).filter(|(_, registration)| registration.whole) {
            // Without its offset it is a store of which nothing is known.
            if let Ok(Some(offset)) = store.read_view().changelog_offset() {
                self.claim.note_whole(&store.spec().name, offset);
            }
        }
        for StoreRegistration { id, .. } in self.registrations.drain(..) {
            self.options.queries.unregister(id);
        }
        // What is opened again may be older.
        self.positions.clear();
        if !matches!(self.state, TaskState::Suspended | TaskState::Closed) {
            self.suspend()?;
        }
        self.stores.clear();
        Ok(())
    }

    /// Closes without writing anything.
    pub fn close_dirty(&mut self) -> Result<(), EngineError> {
        self.close_stores()?;
        self.claim.release();
        self.warm = false;
        if self.state == TaskState::Suspended {
            self.move_to(TaskState::Closed)?;
        }
        Ok(())
    }

    /// Closes without writing anything and wipes a store, before anybody else can open it.
    pub fn close_dirty_and_wipe(&mut self, store: &str) -> Result<(), EngineError> {
        self.close_stores()?;
        let topology = Arc::clone(&self.options.topology);
        let specs = topology.sub_topology(self.id.sub_topology).map_or(&[][..], |sub_topology| &sub_topology.stores);
        let spec = specs.iter().find(|spec| &*spec.name == store);
        let wiped = spec.map_or(Ok(()), |spec| self.options.stores.wipe(self.id, spec));
        self.close_dirty()?;
        Ok(wiped?)
    }

    /// Begins a new life with the same partitions: CLOSED to CREATED.
    pub fn revive(&mut self) -> Result<(), EngineError> {
        self.move_to(TaskState::Created)
    }
}

/// Opens a store, empty where what was there is corrupt (R12).
pub(crate) fn open_or_wipe(
    stores: &dyn StoreProvider,
    task: TaskId,
    spec: &StoreSpec,
) -> Result<Box<dyn StateStore>, StoreError> {
    match stores.open(task, spec) {
        Err(StoreError::Corrupt { detail, .. }) => {
            tracing::warn!(%task, store = %spec.name, detail, "corrupt store, wiping it");
            stores.wipe(task, spec)?;
            stores.open(task, spec)
        }
        opened => opened,
    }
}
