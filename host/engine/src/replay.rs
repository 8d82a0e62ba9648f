//! Repeats the call of a dead letter without broker, stores or clock: from the record, the times and the reads that the
//! dead letter carries. Pure. What the call reads beyond that is told, never made up.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Bound, ControlFlow};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use crate::processor::{
    CallReport, ProcessorContext, ProcessorError, ProcessorSupplier, Read, Reads, ScheduleId, ScheduleRequest,
};
use crate::record::{HeaderColumns, InputBatch, Outcome, Record, Timestamp, TopicPartition};
use crate::state::memory::MemoryStoreProvider;
use crate::state::{KeyRange, ReadView, StateStore, StoreError, StoreProvider, TaskStore, Visit, Write};
use crate::task::record_collector::RecordCollector;
use crate::topic_limits::SinkLimits;
use crate::topology::{PartitionCounts, StoreSpec, TaskId};

/// What is repeated.
#[derive(Debug, Clone)]
pub enum ReplayedCall {
    Record { partition: TopicPartition, record: Record },
    Punctuation { schedule: u32, time: Timestamp },
}

/// Everything that the call saw.
#[derive(Debug, Clone)]
pub struct Replay {
    pub call: ReplayedCall,
    pub task: TaskId,
    pub application_id: String,
    pub stream_time: Option<Timestamp>,
    pub write_time: Timestamp,
    pub wall_clock_ms: Timestamp,
    pub reads: Reads,
    /// Of the topics that the processor writes.
    pub partition_counts: PartitionCounts,
    pub sink_limits: SinkLimits,
    /// What the stores' changelogs take of an entry, by store.
    pub entry_max_bytes: BTreeMap<String, usize>,
}

/// A write of the call: store, key, value (`None` deletes), timestamp.
pub type ReplayedWrite = (String, Bytes, Option<Bytes>, Timestamp);

/// What the call did.
#[derive(Debug)]
pub struct Replayed {
    /// Its outcome, judged as a task judges it. One refused record is an error, as it is a dead letter.
    pub result: Result<Outcome, ProcessorError>,
    /// It failed in `init` already.
    pub in_init: bool,
    pub report: CallReport,
    /// What it had written when it ended, also where it failed and all of it is undone.
    pub writes: Vec<ReplayedWrite>,
    pub schedules: Vec<ScheduleRequest>,
    /// Keys and ranges that it read and the dead letter does not know; they had nothing.
    pub unknown_reads: Vec<String>,
}

/// Runs the call in a fresh instance.
///
/// # Errors
/// When the instance cannot be made, which says nothing about the call.
pub fn replay(replay: &Replay, processors: &dyn ProcessorSupplier) -> Result<Replayed, ProcessorError> {
    let topology = processors.topology();
    let part = topology.sub_topology(replay.task.sub_topology).ok_or_else(|| {
        let task = replay.task;
        ProcessorError::Start(format!("the module has no sub-topology {}, which task {task} is of", task.sub_topology))
    })?;
    let unknown: Arc<Mutex<BTreeSet<String>>> = Arc::default();
    let (init_reads, call_reads) = split(&replay.reads);
    let mut known: Vec<Arc<Mutex<Known>>> = Vec::new();
    let mut store = |spec: &StoreSpec| -> Result<TaskStore, StoreError> {
        let inner = MemoryStoreProvider.open(replay.task, spec)?;
        let of_store = Arc::new(Mutex::new(Known::of(&spec.name, init_reads)));
        known.push(Arc::clone(&of_store));
        let store = RecordedStore { name: spec.name.clone(), inner, known: of_store, unknown: Arc::clone(&unknown) };
        let mut store = TaskStore::new(spec.clone(), Box::new(store), 0);
        store.set_entry_max_bytes(replay.entry_max_bytes.get(&*spec.name).copied().unwrap_or(usize::MAX));
        Ok(store)
    };
    let stores = part.stores.iter().map(&mut store).collect::<Result<Vec<_>, _>>()?;
    let config = Arc::new(configs(&replay.reads.reads));
    let mut context = ProcessorContext::new(replay.task, replay.application_id.as_str().into(), config, stores);
    fill(&mut context, init_reads)?;

    let mut processor = processors.create(replay.task)?;
    context.begin_call(replay.stream_time, replay.stream_time.unwrap_or(replay.wall_clock_ms), replay.wall_clock_ms);
    let (mut context, result) = processor.init(context);
    let mut in_init = true;
    let mut result = result.map(|()| Outcome::default());
    if result.is_ok() {
        in_init = false;
        context.complete_call();
        // What `init` has read may have been another long before the call. To empty a store is no read of the module's.
        let unknown_to_init = unknown.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for (store, known) in context.stores_mut().iter_mut().zip(&known) {
            store.abort();
            empty(store)?;
            *known.lock().unwrap_or_else(PoisonError::into_inner) = Known::of(&store.spec().name, call_reads);
        }
        *unknown.lock().unwrap_or_else(PoisonError::into_inner) = unknown_to_init;
        fill(&mut context, call_reads)?;
        context.begin_call(replay.stream_time, replay.write_time, replay.wall_clock_ms);
        (context, result) = match &replay.call {
            ReplayedCall::Record { partition, record } => processor.process(context, batch_of(partition, record)),
            ReplayedCall::Punctuation { schedule, time } => processor.punctuate(context, ScheduleId(*schedule), *time),
        };
    }
    let collector = RecordCollector::new(replay.task, topology, &replay.partition_counts, &replay.sink_limits);
    let result = result.and_then(|outcome| judge(&collector, &context, outcome, replay.wall_clock_ms));
    let writes = context.stores().iter().flat_map(writes_of).collect();
    let report = processor.report();
    let unknown_reads = unknown.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect();
    Ok(Replayed { result, in_init, report, writes, schedules: context.complete_call(), unknown_reads })
}

/// As a task judges the outcome of a call with one record.
fn judge(
    collector: &RecordCollector,
    context: &ProcessorContext,
    outcome: Outcome,
    wall_clock_ms: Timestamp,
) -> Result<Outcome, ProcessorError> {
    let checked = collector.check(&outcome.outputs, wall_clock_ms).map_err(ProcessorError::Output)?;
    if let Some(refusal) = outcome.refused.first() {
        return Err(ProcessorError::Returned(refusal.reason.clone()));
    }
    match context.too_large_entry() {
        Some(fault) => Err(ProcessorError::Production { fault, too_large: true }),
        None if checked.refused.is_empty() => Ok(outcome),
        None => Err(checked.into_error()),
    }
}

fn writes_of(store: &TaskStore) -> Vec<ReplayedWrite> {
    let name = store.spec().name.to_string();
    let entries = store.dirty_entries();
    entries.map(|entry| (name.clone(), entry.key.clone(), entry.value.cloned(), entry.timestamp)).collect()
}

fn batch_of(partition: &TopicPartition, record: &Record) -> InputBatch {
    let mut batch = InputBatch {
        topic: partition.topic.clone(),
        partition: partition.partition,
        base_offset: record.offset,
        offset_deltas: vec![0],
        timestamps: vec![record.timestamp],
        ..InputBatch::default()
    };
    batch.keys.push(record.key.as_deref());
    batch.values.push(record.value.as_deref());
    if !record.headers.is_empty() {
        let mut headers = HeaderColumns { counts: vec![record.headers.len() as u32], ..HeaderColumns::default() };
        for header in &record.headers {
            headers.keys.push(&header.key);
            headers.values.push(header.value.as_deref());
        }
        batch.headers = headers;
    }
    batch
}

/// The reads of `init` and those of the call.
fn split(reads: &Reads) -> (&[Read], &[Read]) {
    match reads.reads.iter().position(|read| *read == Read::EndOfInit) {
        Some(end) => (&reads.reads[..end], &reads.reads[end + 1..]),
        None => (&[], &reads.reads),
    }
}

fn configs(reads: &[Read]) -> BTreeMap<String, String> {
    let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
    let config = |read: &Read| match read {
        Read::Config { key, value: Some(value) } => Some((text(key), text(value))),
        _ => None,
    };
    reads.iter().filter_map(config).collect()
}

/// Puts what was read into the stores' backends.
fn fill(context: &mut ProcessorContext, reads: &[Read]) -> Result<(), StoreError> {
    for store in context.stores_mut() {
        let name = store.spec().name.clone();
        let own = reads.iter().filter_map(|read| match read {
            Read::Entry { store, key, value } if *store == name.as_bytes() => Some((key, value)),
            _ => None,
        });
        for (key, value) in own {
            store.put(key, value.as_deref(), 0);
        }
        store.commit(None)?;
    }
    Ok(())
}

/// Takes everything out of a store.
fn empty(store: &mut TaskStore) -> Result<(), StoreError> {
    loop {
        let page = store.range(KeyRange { lower: Bound::Unbounded, upper: Bound::Unbounded }, false, usize::MAX)?;
        for key in page.keys.iter() {
            store.put(key, None, 0);
        }
        store.commit(None)?;
        if !page.more {
            return Ok(());
        }
    }
}

/// What the dead letter knows of a store, of `init` or of the call.
#[derive(Debug, Default)]
struct Known {
    keys: BTreeSet<Bytes>,
    ranges: Vec<(Bound<Bytes>, Bound<Bytes>)>,
}

impl Known {
    fn of(store: &str, reads: &[Read]) -> Self {
        let mut known = Self::default();
        for read in reads {
            match read {
                Read::Entry { store: name, key, .. } if *name == store.as_bytes() => {
                    known.keys.insert(key.clone());
                }
                Read::Range { store: name, lower, upper } if *name == store.as_bytes() => {
                    known.ranges.push((lower.clone(), upper.clone()));
                }
                _ => {}
            }
        }
        known
    }

    fn has(&self, key: &[u8]) -> bool {
        let below = |lower: &Bound<Bytes>| match lower {
            Bound::Unbounded => true,
            Bound::Included(lower) => lower.as_ref() <= key,
            Bound::Excluded(lower) => lower.as_ref() < key,
        };
        let above = |upper: &Bound<Bytes>| match upper {
            Bound::Unbounded => true,
            Bound::Included(upper) => key <= upper.as_ref(),
            Bound::Excluded(upper) => key < upper.as_ref(),
        };
        self.keys.contains(key) || self.ranges.iter().any(|(lower, upper)| below(lower) && above(upper))
    }

    /// Whether one scan of the dead letter saw all of a range.
    fn covers(&self, range: KeyRange<'_>) -> bool {
        self.ranges.iter().any(|(lower, upper)| {
            let starts_before = match (lower.as_ref(), range.lower) {
                (Bound::Unbounded, _) => true,
                (_, Bound::Unbounded) => false,
                (Bound::Included(known), Bound::Included(asked) | Bound::Excluded(asked)) => known.as_ref() <= asked,
                (Bound::Excluded(known), Bound::Excluded(asked)) => known.as_ref() <= asked,
                (Bound::Excluded(known), Bound::Included(asked)) => known.as_ref() < asked,
            };
            let ends_after = match (upper.as_ref(), range.upper) {
                (Bound::Unbounded, _) => true,
                (_, Bound::Unbounded) => false,
                (Bound::Included(known), Bound::Included(asked) | Bound::Excluded(asked)) => known.as_ref() >= asked,
                (Bound::Excluded(known), Bound::Excluded(asked)) => known.as_ref() >= asked,
                (Bound::Excluded(known), Bound::Included(asked)) => known.as_ref() > asked,
            };
            starts_before && ends_after
        })
    }
}

/// A store that has what was recorded and notes what was not.
struct RecordedStore {
    name: Arc<str>,
    inner: Box<dyn StateStore>,
    known: Arc<Mutex<Known>>,
    unknown: Arc<Mutex<BTreeSet<String>>>,
}

impl RecordedStore {
    fn note_unknown(&self, what: String) {
        let what = format!("{}: {what}", self.name);
        self.unknown.lock().unwrap_or_else(PoisonError::into_inner).insert(what);
    }

    fn note_key(&self, key: &[u8]) {
        if !self.known.lock().unwrap_or_else(PoisonError::into_inner).has(key) {
            self.note_unknown(format!("key {}", key.escape_ascii()));
        }
    }
}

impl StateStore for RecordedStore {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.note_key(key);
        self.inner.get(key)
    }

    fn get_many(&self, keys: &[&[u8]], found: &mut dyn FnMut(usize, Option<&[u8]>)) -> Result<(), StoreError> {
        keys.iter().for_each(|key| self.note_key(key));
        self.inner.get_many(keys, found)
    }

    /// A scan that its reader ended early needs no more than it saw; whether the dead letter knows that much is known
    /// only then.
    fn scan(&self, range: KeyRange<'_>, reverse: bool, visit: &mut Visit<'_>) -> Result<(), StoreError> {
        let mut last = None;
        let scanned = self.inner.scan(range, reverse, &mut |key, value| {
            let flow = visit(key, value);
            if flow == ControlFlow::Break(()) {
                last = Some(Bytes::copy_from_slice(key));
            }
            flow
        });
        let seen = match (&last, reverse) {
            (None, _) => range,
            (Some(last), false) => KeyRange { upper: Bound::Excluded(last), ..range },
            (Some(last), true) => KeyRange { lower: Bound::Excluded(last), ..range },
        };
        if !seen.is_empty() && !self.known.lock().unwrap_or_else(PoisonError::into_inner).covers(seen) {
            self.note_unknown(format!("range {}", describe(range)));
        }
        scanned
    }

    fn write(&mut self, writes: &[Write], changelog_offset: Option<i64>) -> Result<(), StoreError> {
        self.inner.write(writes, changelog_offset)
    }

    fn changelog_offset(&self) -> Result<Option<i64>, StoreError> {
        self.inner.changelog_offset()
    }

    fn flush(&mut self) -> Result<(), StoreError> {
        Ok(())
    }

    fn read_view(&self) -> Arc<dyn ReadView> {
        self.inner.read_view()
    }

    fn approximate_entries(&self) -> u64 {
        self.inner.approximate_entries()
    }
}

fn describe(range: KeyRange<'_>) -> String {
    let bound = |bound: Bound<&[u8]>| match bound {
        Bound::Unbounded => String::new(),
        Bound::Included(key) | Bound::Excluded(key) => key.escape_ascii().to_string(),
    };
    format!("{}..{}", bound(range.lower), bound(range.upper))
}

#[cfg(test)]
mod tests;
