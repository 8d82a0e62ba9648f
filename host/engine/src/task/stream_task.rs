//! An active task: takes batches from its partition group, calls its processor, hands the outputs to its collector
//! and runs its schedules. A call that fails leaves no trace in stores, schedules, queues or outputs; `isolation` finds
//! the record at which it fails. Its life (opening, restoring, closing) is in `lifecycle`, its part in a commit in
//! `committing`.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::error::EngineError;
use crate::exception_handlers::ExceptionHandler;
use crate::metrics::Metric;
use crate::processor::{CallReport, Processor, ProcessorContext, ProcessorError, PunctuationType, Reads, ScheduleId};
use crate::query::{RegistrationId, SourcePositions};
use crate::record::{Offset, Outcome, Record, Refusal, Timestamp, TopicPartition};
use crate::standby::ActiveClaim;
use crate::state::TaskStore;
use crate::state::changelog::warn_of_dropped;
use crate::stream_thread::StreamThreadOptions;
use crate::task::TaskState;
use crate::task::partition_group::{BatchInfo, BatchLimits, PartitionGroup};
use crate::task::punctuation::PunctuationQueue;
use crate::task::record_collector::RecordCollector;
use crate::task::streams_producer::StreamsProducer;
use crate::topology::TaskId;
use crate::version::ProcessorVersion;

mod changing;
mod committing;
mod isolation;
mod lifecycle;
mod migrating;

pub use committing::TaskOffsets;
pub(crate) use lifecycle::open_or_wipe;
pub use migrating::{MigrationReport, MigrationSlice};
pub(crate) use migrating::{migrated, migration_error, rows_of_one_call};

/// What one call of `process` did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Processed {
    pub records: u64,
    /// Bytes of keys and values.
    pub bytes: u64,
    pub batches: u64,
    pub punctuations: u64,
    /// Calls that failed; what becomes of their records is decided by further ones.
    pub failed_calls: u64,
}

/// The times of a call.
#[derive(Debug, Clone, Copy)]
struct CallTimes {
    stream_time: Option<Timestamp>,
    /// The timestamp of writes that name none.
    write_time: Timestamp,
    wall_clock_ms: Timestamp,
}

/// What is kept of a call: its outcome, and which of its outputs are left out.
struct Succeeded {
    outcome: Outcome,
    dropped: Vec<usize>,
}

/// Why nothing is kept of a call.
enum Failure {
    /// The processor refused records of the batch.
    Refused(Vec<Refusal>),
    Failed(ProcessorError),
    /// There was no instance to call, and none could be made.
    NotStarted(ProcessorError),
}

/// A call of the processor.
struct Call {
    result: Result<Succeeded, Failure>,
    reads: Reads,
    report: CallReport,
    /// The instance had done nothing before.
    was_fresh: bool,
}

impl Call {
    fn not_begun(failure: Failure) -> Self {
        Self { result: Err(failure), reads: Reads::default(), report: CallReport::default(), was_fresh: true }
    }
}

/// A record whose outputs a topic has refused, found by the search of the thread.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condemned {
    pub partition: TopicPartition,
    pub offset: Offset,
    /// What the broker said.
    pub fault: String,
}

/// A call that failed, as `isolation` gets it.
struct FailedCall {
    failure: Failure,
    reads: Reads,
    report: CallReport,
    was_fresh: bool,
}

/// What queries know an open store by.
struct StoreRegistration {
    id: RegistrationId,
    /// The store has had everything once, and was not wiped since.
    whole: bool,
}

/// A task that processes records.
pub struct StreamTask {
    id: TaskId,
    state: TaskState,
    options: Arc<StreamThreadOptions>,
    /// What it runs, or will run once it is running.
    version: Arc<ProcessorVersion>,
    /// For each source partition, where it began to run that.
    version_starts: BTreeMap<TopicPartition, Offset>,
    /// The committed offsets do not say yet which version the task runs.
    version_unmarked: bool,
    /// By store, the version of the schema of its rows where that is not 1, as the group has it.
    committed_schemas: BTreeMap<String, u32>,
    /// A commit of ours has said it; offsets that others have set do not.
    is_schema_known: bool,
    /// For each source partition, where the rows got the schemas that they have, if they had others before.
    schema_starts: BTreeMap<TopicPartition, Offset>,
    /// By store, the schema that its rows were taken from there.
    committed_schema_sources: BTreeMap<String, u32>,
    /// The version that has begun to take rows over, as the group has it.
    committed_migrating: Option<u64>,
    /// While older rows are taken over.
    migration: Option<migrating::Migration>,
    group: PartitionGroup,
    /// For each store in the order of declaration, `None` where logging is off.
    changelogs: Vec<Option<TopicPartition>>,
    /// The open stores while there is no context.
    stores: Vec<TaskStore>,
    registrations: Vec<StoreRegistration>,
    /// What queries are told of how far the stores reflect the sources.
    positions: Arc<SourcePositions>,
    /// While the task is running; moved into each call and back.
    context: Option<ProcessorContext>,
    processor: Option<Box<dyn Processor>>,
    schedules: PunctuationQueue,
    collector: RecordCollector,
    /// A batch was processed and the schedules on stream time were not looked at since.
    stream_time_moved: bool,
    /// Something was processed, written or scheduled since the last commit.
    commit_needed: bool,
    /// The group has no committed offset of this task: the start is committed before anything else is done.
    initial_commit: bool,
    /// What the group knows of the changelogs: by store, the offset that followed its last record at the last commit.
    committed_changelogs: BTreeMap<String, Offset>,
    /// The consumer must be moved to the committed offsets before the task goes on.
    rewind: bool,
    /// How far the changelog records of the open commit were sent: store and entry.
    changelog_cursor: (usize, usize),
    /// The open commit has sent every changelog record, so that the stores may follow it.
    changelogs_written: bool,
    /// Its source topic backs its store: records without a key are counted.
    is_table: bool,
    dropped_reported: bool,
    dead_letter_reported: bool,
    dropped_output_reported: bool,
    /// The instance has done nothing since its `init`.
    fresh: bool,
    /// What that read.
    init_reads: Reads,
    /// Records at which the processor has failed since it last succeeded with one.
    failures_in_a_row: u32,
    /// And so for schedules.
    failed_punctuations_in_a_row: u32,
    /// The next record has failed alone in an instance with a history: it is called again in one without.
    wants_fresh: bool,
    /// It is given up whatever its call comes to.
    condemned: Option<Condemned>,
    /// Nothing is processed before (monotonic), because of them.
    resume_at_ms: u64,
    /// The stores came from the standby thread, and the records that are left to restore were not counted yet.
    warm: bool,
    promoted_with: Option<u64>,
    /// The last field: it ends after the stores are closed.
    claim: ActiveClaim,
}

impl StreamTask {
    pub fn id(&self) -> TaskId {
        self.id
    }

    pub fn state(&self) -> TaskState {
        self.state
    }

    pub fn group(&self) -> &PartitionGroup {
        &self.group
    }

    pub fn group_mut(&mut self) -> &mut PartitionGroup {
        &mut self.group
    }

    /// The source partitions of the task.
    pub fn partitions(&self) -> Vec<TopicPartition> {
        self.group.queues().iter().map(|queue| queue.partition.clone()).collect()
    }

    /// Appends records that the consumer returned for one of the task's partitions.
    pub fn add_records(&mut self, partition: &TopicPartition, records: Vec<Record>) {
        if let Some(queue) = self.group.queue_mut(partition) {
            queue.add(records);
        }
    }

    /// Bytes of uncommitted writes in its stores.
    pub fn uncommitted_bytes(&self) -> usize {
        self.context.as_ref().map_or(0, ProcessorContext::uncommitted_bytes)
    }

    /// Whether nothing is to be committed or taken over first.
    fn may_process(&self) -> bool {
        self.state == TaskState::Running && !self.initial_commit && self.migration.is_none()
    }

    /// Whether `process` would find something to do, unless the producer's queue is full.
    pub fn is_processable(&self, now_ms: u64) -> bool {
        self.may_process()
            && !self.collector.is_full()
            && now_ms >= self.resume_at_ms
            && (self.stream_time_moved || self.group.is_ready(now_ms))
    }

    /// Whether its outputs wait for room in the producer's queue.
    pub fn is_held_back(&self) -> bool {
        self.state == TaskState::Running && self.collector.is_full()
    }

    /// Processes the next batch and runs the schedules on stream time that it makes due. Does nothing while the
    /// producer has no room for what is there already.
    pub fn process(
        &mut self,
        producer: &mut StreamsProducer,
        now_ms: u64,
        wall_clock_ms: Timestamp,
    ) -> Result<Processed, EngineError> {
        self.process_at_most(self.options.config.batch_max_records, producer, now_ms, wall_clock_ms)
    }

    /// Processes the next record alone. Returns its place once it is done with, which may take several calls where it
    /// fails.
    pub fn process_one(
        &mut self,
        processed: &mut Processed,
        producer: &mut StreamsProducer,
        now_ms: u64,
        wall_clock_ms: Timestamp,
    ) -> Result<Option<(TopicPartition, Offset)>, EngineError> {
        let next = self.group.first_alone().map(|info| (self.group.partition_of(&info).clone(), info.first_offset));
        *processed = self.process_at_most(1, producer, now_ms, wall_clock_ms)?;
        let Some((partition, offset)) = next else { return Ok(None) };
        let is_done = self.group.queue_mut(&partition).is_some_and(|queue| queue.next_offset() > offset);
        Ok(is_done.then_some((partition, offset)))
    }

    /// Its outputs were refused: gives a record up when it comes again.
    pub fn condemn(&mut self, condemned: Condemned) {
        self.condemned = Some(condemned);
    }

    fn process_at_most(
        &mut self,
        max_records: usize,
        producer: &mut StreamsProducer,
        now_ms: u64,
        wall_clock_ms: Timestamp,
    ) -> Result<Processed, EngineError> {
        let mut processed = Processed::default();
        if !self.may_process() || now_ms < self.resume_at_ms {
            return Ok(processed);
        }
        // What an earlier batch left behind comes before the next one.
        if !self.finish_outputs(producer, wall_clock_ms, &mut processed)? || !self.group.is_ready(now_ms) {
            return Ok(processed);
        }
        let limits = BatchLimits { max_records, max_bytes: self.options.config.batch_max_bytes };
        let due = self.schedules.next_due(PunctuationType::StreamTime);
        let next = match self.group.next_batch(limits, due) {
            Err(error @ EngineError::InvalidTimestamp { .. }) => {
                processed.failed_calls += 1;
                return self.unreadable(error, producer, wall_clock_ms).map(|()| processed);
            }
            next => next?,
        };
        let Some((batch, info)) = next else { return Ok(processed) };
        let condemned = self.condemned_fault(&info);
        let without_key = batch.keys.nulls.len() as u64;
        let is_piece = self.group.is_piece(&info);
        if self.wants_fresh && !self.fresh {
            // Something else was called meanwhile, a schedule for example.
            self.processor = None;
        }
        let times = CallTimes { stream_time: self.group.stream_time(), write_time: info.stream_time, wall_clock_ms };
        if is_piece {
            self.options.metrics.add(Metric::IsolationCalls, 1);
        }
        let call = self.call(times, is_piece && info.count == 1, |processor, context| {
            match (processor.process(context, batch), condemned) {
                ((context, Ok(_)), Some(fault)) => {
                    (context, Err(ProcessorError::Production { fault, too_large: false }))
                }
                (called, _) => called,
            }
        });
        let Succeeded { outcome, dropped } = match call.result {
            Ok(succeeded) => succeeded,
            Err(failure) => {
                let failed = FailedCall { failure, reads: call.reads, report: call.report, was_fresh: call.was_fresh };
                processed.failed_calls += 1;
                return self.isolate(&info, failed, times, now_ms, producer).map(|()| processed);
            }
        };
        self.failures_in_a_row = 0;
        self.wants_fresh = false;
        self.group.complete(&info);
        if self.is_table && without_key > 0 {
            self.count_dropped(&info, without_key);
        }
        self.stream_time_moved = true;
        self.rows_change();
        processed.records = info.count as u64;
        processed.bytes = info.bytes as u64;
        processed.batches = 1;
        self.options.metrics.add(Metric::RecordsProcessed, processed.records);
        self.options.metrics.add(Metric::ProcessCalls, 1);
        self.tally(processed.records, outcome.outputs.len())?;
        self.collector.send(outcome.outputs, dropped, producer)?;
        self.finish_outputs(producer, wall_clock_ms, &mut processed)?;
        Ok(processed)
    }

    /// What the broker said of the one record of a batch, where that is condemned.
    fn condemned_fault(&mut self, info: &BatchInfo) -> Option<String> {
        let condemned = self.condemned.as_ref().filter(|_| info.count == 1)?;
        if condemned.offset != info.first_offset || condemned.partition != *self.group.partition_of(info) {
            return None;
        }
        let fault = condemned.fault.clone();
        if !self.group.is_piece(info) {
            self.group.split(info, &[1]);
        }
        Some(fault)
    }

    /// Runs the wall-clock schedules that are due. Returns how many ran.
    pub fn punctuate_wall_clock(
        &mut self,
        producer: &mut StreamsProducer,
        wall_clock_ms: Timestamp,
    ) -> Result<u64, EngineError> {
        if !self.may_process() || self.collector.is_full() {
            return Ok(0);
        }
        self.punctuate(PunctuationType::WallClockTime, wall_clock_ms, producer, wall_clock_ms)
    }

    /// When its next wall-clock schedule is due.
    pub fn next_wall_clock_punctuation(&self) -> Option<Timestamp> {
        self.schedules.next_due(PunctuationType::WallClockTime)
    }

    /// Sends what is pending and runs the schedules on stream time that the last batch made due; true when nothing
    /// is left.
    fn finish_outputs(
        &mut self,
        producer: &mut StreamsProducer,
        wall_clock_ms: Timestamp,
        processed: &mut Processed,
    ) -> Result<bool, EngineError> {
        if !self.collector.drain(producer)? {
            return Ok(false);
        }
        if self.stream_time_moved {
            if let Some(stream_time) = self.group.stream_time() {
                processed.punctuations +=
                    self.punctuate(PunctuationType::StreamTime, stream_time, producer, wall_clock_ms)?;
            }
            // After one that failed the others are due still.
            let stream_time = self.group.stream_time();
            let due = self.schedules.next_due(PunctuationType::StreamTime);
            self.stream_time_moved = due.is_some_and(|due| stream_time.is_some_and(|stream_time| due <= stream_time));
        }
        Ok(!self.collector.is_full())
    }

    /// Runs each schedule of a kind that is due at `now`, once; the processor gets the current time of that kind.
    fn punctuate(
        &mut self,
        kind: PunctuationType,
        now: Timestamp,
        producer: &mut StreamsProducer,
        wall_clock_ms: Timestamp,
    ) -> Result<u64, EngineError> {
        let mut punctuations = 0;
        for schedule in self.due_schedules(kind, now, wall_clock_ms)? {
            // After a failed one, the others wait for the schedules of the next instance.
            if self.processor.is_none() || !self.schedules.contains(schedule) {
                continue;
            }
            let stream_time = self.group.stream_time();
            let times = CallTimes { stream_time, write_time: stream_time.unwrap_or(wall_clock_ms), wall_clock_ms };
            let call = self.call(times, true, |processor, context| processor.punctuate(context, schedule, now));
            match call.result {
                Ok(Succeeded { outcome, dropped }) => {
                    self.options.metrics.add(Metric::Punctuations, 1);
                    self.failed_punctuations_in_a_row = 0;
                    self.collector.send(outcome.outputs, dropped, producer)?;
                }
                Err(failure) => {
                    let failed =
                        FailedCall { failure, reads: call.reads, report: call.report, was_fresh: call.was_fresh };
                    self.failed_punctuation((schedule, now), failed, times, producer)?;
                }
            }
            self.schedules.completed(schedule, now);
            self.rows_change();
            punctuations += 1;
        }
        Ok(punctuations)
    }

    /// The schedules that are due, by the ids that the instance gave them: one that is gone is replaced first, and with
    /// it the ids.
    fn due_schedules(
        &mut self,
        kind: PunctuationType,
        now: Timestamp,
        wall_clock_ms: Timestamp,
    ) -> Result<Vec<ScheduleId>, EngineError> {
        if self.processor.is_none() && self.schedules.next_due(kind).is_some_and(|next| next <= now) {
            self.replace_processor(wall_clock_ms).map_err(|error| self.not_started(error))?;
        }
        Ok(self.schedules.due(kind, now))
    }

    /// Makes a new instance after a failed call.
    fn replace_processor(&mut self, wall_clock_ms: Timestamp) -> Result<(), ProcessorError> {
        self.start_processor(wall_clock_ms)?;
        self.options.metrics.add(Metric::InstancesReplaced, 1);
        Ok(())
    }

    /// Runs one call of the processor between `begin_call` and `complete_call`, or `fail_call` when it failed, when
    /// it refused records, or when its outputs break the contract or would be refused by Kafka. `records` its reads
    /// where that may be asked for.
    fn call(
        &mut self,
        times: CallTimes,
        records: bool,
        call: impl FnOnce(&mut dyn Processor, ProcessorContext) -> (ProcessorContext, Result<Outcome, ProcessorError>),
    ) -> Call {
        if self.processor.is_none()
            && let Err(error) = self.replace_processor(times.wall_clock_ms)
        {
            return Call::not_begun(Failure::NotStarted(error));
        }
        let was_fresh = std::mem::replace(&mut self.fresh, false);
        let (Some(processor), Some(mut context)) = (self.processor.as_deref_mut(), self.context.take()) else {
            let error = ProcessorError::Start(format!("task {} has no processor", self.id));
            return Call::not_begun(Failure::NotStarted(error));
        };
        let config = &self.options.config.exception_handlers;
        if records && self.options.topology.dead_letter_topic.is_some() {
            context.record_reads(config.dead_letter_reads_max_bytes);
        }
        context.begin_call(times.stream_time, times.write_time, times.wall_clock_ms);
        let (mut context, result) = call(processor, context);
        let reads = context.take_reads();
        let result = self.judge(result, &context, times.wall_clock_ms);
        let mut report = CallReport::default();
        match &result {
            Ok(_) => {
                let requests = context.complete_call();
                self.schedules.apply(requests, times.wall_clock_ms);
            }
            Err(_) => {
                context.fail_call();
                report = self.processor.as_deref().map(Processor::report).unwrap_or_default();
                // Its memory knows of records that were undone, and after a crash it is guesswork (S8): whatever such
                // an instance does next may be wrong, the records of this call among it, which are processed again.
                self.processor = None;
            }
        }
        self.context = Some(context);
        Call { result, reads, report, was_fresh }
    }

    /// Whether what a call came back with may be kept.
    fn judge(
        &mut self,
        result: Result<Outcome, ProcessorError>,
        context: &ProcessorContext,
        wall_clock_ms: Timestamp,
    ) -> Result<Succeeded, Failure> {
        let outcome = result.map_err(Failure::Failed)?;
        let checked = self.collector.check(&outcome.outputs, wall_clock_ms);
        let checked = checked.map_err(|fault| Failure::Failed(ProcessorError::Output(fault)))?;
        if !outcome.refused.is_empty() {
            return Err(Failure::Refused(outcome.refused));
        }
        if let Some(fault) = context.too_large_entry() {
            return Err(Failure::Failed(ProcessorError::Production { fault, too_large: true }));
        }
        if checked.refused.is_empty() {
            return Ok(Succeeded { outcome, dropped: Vec::new() });
        }
        if self.options.config.exception_handlers.production == ExceptionHandler::Continue {
            self.options.metrics.add(Metric::OutputsDropped, checked.refused.len() as u64);
            if !std::mem::replace(&mut self.dropped_output_reported, true) {
                let (task, digest) = (self.id, self.version.processors.digest());
                tracing::warn!(%task, digest, fault = checked.fault(), "output left out, the first of the task");
            }
            return Ok(Succeeded { outcome, dropped: checked.refused });
        }
        Err(Failure::Failed(checked.into_error()))
    }

    fn count_dropped(&mut self, info: &BatchInfo, dropped: u64) {
        self.options.metrics.add(Metric::RecordsDropped, dropped);
        if !std::mem::replace(&mut self.dropped_reported, true) {
            warn_of_dropped(self.id, self.group.partition_of(info), dropped);
        }
    }
}
