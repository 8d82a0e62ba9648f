//! An active task: takes batches from its partition group, calls its processor, hands the outputs to its collector
//! and runs its schedules. A call that fails leaves no trace in stores, schedules, queues or outputs. Its life
//! (opening, restoring, closing) is in `lifecycle`, its part in a commit in `committing`.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::error::EngineError;
use crate::metrics::Metric;
use crate::processor::{Processor, ProcessorContext, ProcessorError, PunctuationType, ScheduleId};
use crate::query::{RegistrationId, SourcePositions};
use crate::record::{Offset, Outcome, Record, Timestamp, TopicPartition};
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

mod committing;
mod lifecycle;

pub use committing::TaskOffsets;
pub(crate) use lifecycle::open_or_wipe;

/// What one call of `process` did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Processed {
    pub records: u64,
    /// Bytes of keys and values.
    pub bytes: u64,
    pub batches: u64,
    pub punctuations: u64,
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

    /// Whether `process` would find something to do, unless the producer's queue is full.
    pub fn is_processable(&self, now_ms: u64) -> bool {
        self.state == TaskState::Running
            && !self.initial_commit
            && !self.collector.is_full()
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
        let mut processed = Processed::default();
        if self.state != TaskState::Running || self.initial_commit {
            return Ok(processed);
        }
        // What an earlier batch left behind comes before the next one.
        if !self.finish_outputs(producer, wall_clock_ms, &mut processed)? || !self.group.is_ready(now_ms) {
            return Ok(processed);
        }
        let config = &self.options.config;
        let limits = BatchLimits { max_records: config.batch_max_records, max_bytes: config.batch_max_bytes };
        let due = self.schedules.next_due(PunctuationType::StreamTime);
        let Some((batch, info)) = self.group.next_batch(limits, due)? else { return Ok(processed) };
        let without_key = batch.keys.nulls.len() as u64;
        let stream_time = self.group.stream_time();
        let outcome = self
            .call(stream_time, info.stream_time, wall_clock_ms, |processor, context| processor.process(context, batch));
        let outcome = match outcome {
            Ok(outcome) if outcome.refused.is_empty() => outcome,
            Ok(outcome) => return Err(self.refused(&info, &outcome)),
            Err(error) => return Err(self.failed(&info, error)),
        };
        self.group.complete(&info);
        if self.is_table && without_key > 0 {
            self.count_dropped(&info, without_key);
        }
        self.stream_time_moved = true;
        self.commit_needed = true;
        processed.records = info.count as u64;
        processed.bytes = info.bytes as u64;
        processed.batches = 1;
        self.options.metrics.add(Metric::RecordsProcessed, processed.records);
        self.options.metrics.add(Metric::ProcessCalls, 1);
        self.collector.send(outcome.outputs, producer)?;
        self.finish_outputs(producer, wall_clock_ms, &mut processed)?;
        Ok(processed)
    }

    /// Runs the wall-clock schedules that are due. Returns how many ran.
    pub fn punctuate_wall_clock(
        &mut self,
        producer: &mut StreamsProducer,
        wall_clock_ms: Timestamp,
    ) -> Result<u64, EngineError> {
        if self.state != TaskState::Running || self.initial_commit || self.collector.is_full() {
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
            self.stream_time_moved = false;
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
        for schedule in self.schedules.due(kind, now) {
            if !self.schedules.contains(schedule) {
                continue;
            }
            let stream_time = self.group.stream_time();
            let write_timestamp = stream_time.unwrap_or(wall_clock_ms);
            let outcome = self.call(stream_time, write_timestamp, wall_clock_ms, |processor, context| {
                processor.punctuate(context, schedule, now)
            });
            let outcome = outcome.map_err(|error| self.failed_punctuation(schedule, now, error))?;
            self.schedules.completed(schedule, now);
            self.commit_needed = true;
            punctuations += 1;
            self.options.metrics.add(Metric::Punctuations, 1);
            self.collector.send(outcome.outputs, producer)?;
        }
        Ok(punctuations)
    }

    /// Runs one call of the processor between `begin_call` and `complete_call`, or `fail_call` when it failed, when
    /// it refused records, or when its outputs break the contract.
    fn call(
        &mut self,
        stream_time: Option<Timestamp>,
        write_timestamp: Timestamp,
        wall_clock_ms: Timestamp,
        call: impl FnOnce(&mut dyn Processor, ProcessorContext) -> (ProcessorContext, Result<Outcome, ProcessorError>),
    ) -> Result<Outcome, ProcessorError> {
        let (Some(processor), Some(mut context)) = (self.processor.as_deref_mut(), self.context.take()) else {
            return Err(ProcessorError::Start(format!("task {} has no processor", self.id)));
        };
        context.begin_call(stream_time, write_timestamp, wall_clock_ms);
        let (mut context, result) = call(processor, context);
        let result = result.and_then(|outcome| match self.collector.check(&outcome.outputs) {
            Ok(()) => Ok(outcome),
            Err(fault) => Err(ProcessorError::Output(fault)),
        });
        match &result {
            Ok(outcome) if outcome.refused.is_empty() => {
                let requests = context.complete_call();
                self.schedules.apply(requests, wall_clock_ms);
            }
            _ => context.fail_call(),
        }
        self.context = Some(context);
        result
    }

    fn count_dropped(&mut self, info: &BatchInfo, dropped: u64) {
        self.options.metrics.add(Metric::RecordsDropped, dropped);
        if !std::mem::replace(&mut self.dropped_reported, true) {
            warn_of_dropped(self.id, self.group.partition_of(info), dropped);
        }
    }

    fn failed(&self, info: &BatchInfo, error: ProcessorError) -> EngineError {
        self.options.metrics.add(Metric::ProcessorErrors, 1);
        EngineError::Processing {
            task: self.id,
            partition: self.group.partition_of(info).clone(),
            first_offset: info.first_offset,
            last_offset: info.last_offset,
            digest: self.options.processors.digest().to_owned(),
            error: Box::new(error),
        }
    }

    fn failed_punctuation(&self, schedule: ScheduleId, time: Timestamp, error: ProcessorError) -> EngineError {
        self.options.metrics.add(Metric::ProcessorErrors, 1);
        let digest = self.options.processors.digest().to_owned();
        EngineError::Punctuation { task: self.id, schedule: schedule.0, time, digest, error: Box::new(error) }
    }

    fn refused(&self, info: &BatchInfo, outcome: &Outcome) -> EngineError {
        self.options.metrics.add(Metric::RecordsRefused, outcome.refused.len() as u64);
        let Some(first) = outcome.refused.iter().min_by_key(|refusal| refusal.index) else {
            return self.failed(info, ProcessorError::Output("no record was refused".to_owned()));
        };
        let Some(offset) = self.group.offset_in(info, first.index as usize) else {
            let fault = format!("record {} was refused, but the batch has {}", first.index, info.count);
            return self.failed(info, ProcessorError::Output(fault));
        };
        EngineError::Refused {
            task: self.id,
            partition: self.group.partition_of(info).clone(),
            offset,
            digest: self.options.processors.digest().to_owned(),
            reason: first.reason.clone(),
            others: outcome.refused.len() - 1,
        }
    }
}
