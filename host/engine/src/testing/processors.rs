//! Native processors for tests, for the simulation and as the baseline of benchmarks. They use the context by the
//! batch, as a good guest does, and keep nothing in themselves.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::columns::{Columns, NullableColumns};
use crate::processor::{
    Processor, ProcessorContext, ProcessorError, ProcessorSupplier, PunctuationType, ScheduleId, no_migration,
};
use crate::record::{InputBatch, Outcome, OutputBatch, Refusal, Timestamp};
use crate::state::KeyRange;
use crate::topology::{StoreBackend, StoreChangelog, StoreSpec, SubTopology, TaskId, TopicBinding, Topology};

/// A topology of one sub-topology; names are topics as well, stores are in memory and have changelogs.
pub fn topology(sources: &[&str], stores: &[&str], sinks: &[&str]) -> Topology {
    let bindings = |names: &[&str]| {
        names.iter().map(|&name| TopicBinding { name: name.into(), topic: name.into() }).collect::<Vec<_>>()
    };
    let stores = stores.iter().map(|&name| StoreSpec {
        name: name.into(),
        backend: StoreBackend::InMemory,
        changelog: StoreChangelog::Internal,
        version: 1,
        key_format: "bytes".into(),
        value_format: "bytes".into(),
        older_generation_of: None,
    });
    let sub_topology = SubTopology { sources: bindings(sources), stores: stores.collect(), sinks: bindings(sinks) };
    Topology { sub_topologies: vec![sub_topology], ..Topology::default() }
}

/// Makes native processors.
pub struct NativeSupplier<F> {
    topology: Arc<Topology>,
    digest: String,
    migrates: bool,
    make: F,
}

impl<F, P> NativeSupplier<F>
where
    F: Fn(TaskId) -> P + Send + Sync,
    P: Processor + 'static,
{
    /// A supplier whose instances come from `make`.
    pub fn new(topology: Topology, make: F) -> Self {
        Self { topology: Arc::new(topology), digest: "native".to_owned(), migrates: false, make }
    }

    /// The same with instances that have a `migrate`.
    pub fn migrating(self) -> Self {
        Self { migrates: true, ..self }
    }
}

impl<F, P> ProcessorSupplier for NativeSupplier<F>
where
    F: Fn(TaskId) -> P + Send + Sync,
    P: Processor + 'static,
{
    fn topology(&self) -> &Arc<Topology> {
        &self.topology
    }

    fn digest(&self) -> &str {
        &self.digest
    }

    fn can_migrate(&self) -> bool {
        self.migrates
    }

    fn create(&self, task: TaskId) -> Result<Box<dyn Processor>, ProcessorError> {
        Ok(Box::new((self.make)(task)))
    }
}

/// A call's result, before the context is put beside it.
type Called = Result<Outcome, ProcessorError>;

/// What a migration comes to.
type Migrated = Result<NullableColumns, ProcessorError>;

/// What most native processors need of `Processor`: without `init` and `punctuate` where they do nothing, and with a
/// borrowed context, so that `?` works.
pub trait NativeProcessor: Send {
    fn init(&mut self, _context: &mut ProcessorContext) -> Result<(), ProcessorError> {
        Ok(())
    }

    fn process(&mut self, context: &mut ProcessorContext, batch: &InputBatch) -> Called;

    fn punctuate(&mut self, _context: &mut ProcessorContext, _schedule: ScheduleId, _time: Timestamp) -> Called {
        Ok(Outcome::default())
    }

    fn migrate(&mut self, store: &str, from_version: u32, _keys: &Columns, _values: &Columns) -> Migrated {
        Err(no_migration(store, from_version))
    }
}

impl<P: NativeProcessor> Processor for P {
    fn init(&mut self, mut context: ProcessorContext) -> (ProcessorContext, Result<(), ProcessorError>) {
        let result = NativeProcessor::init(self, &mut context);
        (context, result)
    }

    fn process(&mut self, mut context: ProcessorContext, batch: InputBatch) -> (ProcessorContext, Called) {
        let result = NativeProcessor::process(self, &mut context, &batch);
        (context, result)
    }

    fn punctuate(
        &mut self,
        mut context: ProcessorContext,
        schedule: ScheduleId,
        time: Timestamp,
    ) -> (ProcessorContext, Called) {
        let result = NativeProcessor::punctuate(self, &mut context, schedule, time);
        (context, result)
    }

    fn migrate(&mut self, store: &str, from_version: u32, keys: &Columns, values: &Columns) -> Migrated {
        NativeProcessor::migrate(self, store, from_version, keys, values)
    }
}

/// Appends one output record for sink 0.
pub fn forward(outputs: &mut OutputBatch, timestamp: Timestamp, key: Option<&[u8]>, value: Option<&[u8]>) {
    outputs.timestamps.push(timestamp.max(0));
    outputs.keys.push(key);
    outputs.values.push(value);
}

/// Forwards every record as it is, without headers.
#[derive(Debug, Clone, Copy, Default)]
pub struct PassThrough;

impl NativeProcessor for PassThrough {
    fn process(&mut self, _context: &mut ProcessorContext, batch: &InputBatch) -> Called {
        let outputs = OutputBatch {
            timestamps: batch.timestamps.iter().map(|&timestamp| timestamp.max(0)).collect(),
            keys: batch.keys.clone(),
            values: batch.values.clone(),
            ..OutputBatch::default()
        };
        Ok(Outcome { outputs, refused: Vec::new() })
    }
}

/// Counts the records of each key in its first store, as 8-byte big-endian numbers, and forwards every new count.
/// Records without a key are skipped.
#[derive(Debug, Clone, Copy, Default)]
pub struct Count;

impl NativeProcessor for Count {
    fn process(&mut self, context: &mut ProcessorContext, batch: &InputBatch) -> Called {
        let store = context.store_at(0)?;
        let mut keys = Columns::default();
        // Position of each distinct key in `keys`.
        let mut positions: BTreeMap<&[u8], usize> = BTreeMap::new();
        for key in batch.keys.iter().flatten() {
            positions.entry(key).or_insert_with(|| {
                keys.push(key);
                keys.len() - 1
            });
        }
        let read = context.get_many(store, &keys, |_| Ok::<_, ProcessorError>(()))?;
        let mut counts: Vec<u64> = read.iter().map(|value| value.map_or(0, number)).collect();
        let mut times = vec![0; counts.len()];
        let mut outputs = OutputBatch::default();
        for (key, &timestamp) in batch.keys.iter().zip(&batch.timestamps) {
            let Some(&position) = key.and_then(|key| positions.get(key)) else { continue };
            counts[position] += 1;
            times[position] = timestamp.max(0);
            forward(&mut outputs, timestamp, key, Some(&counts[position].to_be_bytes()));
        }
        let mut values = NullableColumns::default();
        counts.iter().for_each(|count| values.push(Some(&count.to_be_bytes())));
        context.put_many(store, &keys, &values, &times)?;
        Ok(Outcome { outputs, refused: Vec::new() })
    }
}

/// An 8-byte big-endian number; 0 where the bytes are no such thing.
pub fn number(bytes: &[u8]) -> u64 {
    bytes.try_into().map_or(0, u64::from_be_bytes)
}

/// The shape of a majority vote: key = object, value = `agent=0` or `agent=1`. The first store keeps the latest
/// report of each agent under `object/agent`; every report forwards `yes/agents` of its object. An hourly
/// stream-time schedule forwards the number of reports kept, under the key `summary`.
#[derive(Debug, Clone, Copy, Default)]
pub struct MajorityVote;

impl MajorityVote {
    /// The interval of its schedule.
    pub const SUMMARY_INTERVAL_MS: u64 = 3_600_000;
}

impl NativeProcessor for MajorityVote {
    fn init(&mut self, context: &mut ProcessorContext) -> Result<(), ProcessorError> {
        context.schedule(Self::SUMMARY_INTERVAL_MS, PunctuationType::StreamTime);
        Ok(())
    }

    fn process(&mut self, context: &mut ProcessorContext, batch: &InputBatch) -> Called {
        let store = context.store_at(0)?;
        let mut outcome = Outcome::default();
        for (index, &timestamp) in batch.timestamps.iter().enumerate() {
            let (Some(object), Some(report)) = (batch.keys.get(index), batch.values.get(index)) else {
                let reason = "a report has a key and a value".to_owned();
                outcome.refused.push(Refusal { index: index as u32, reason });
                continue;
            };
            let cut = report.iter().position(|&byte| byte == b'=').unwrap_or(report.len());
            let (agent, state) = (&report[..cut], report.get(cut + 1..).unwrap_or_default());
            context.put(store, &[object, b"/", agent].concat(), Some(state), Some(timestamp))?;
            let page = context.prefix(store, &[object, b"/"].concat(), None, false, 1_000)?;
            let yes = page.values.iter().filter(|&state| state == b"1").count();
            let vote = format!("{yes}/{}", page.values.len());
            forward(&mut outcome.outputs, timestamp, Some(object), Some(vote.as_bytes()));
        }
        Ok(outcome)
    }

    fn punctuate(&mut self, context: &mut ProcessorContext, _schedule: ScheduleId, time: Timestamp) -> Called {
        let store = context.store_at(0)?;
        let kept = context.range(store, KeyRange::ALL, false, usize::MAX)?.keys.len();
        let mut outputs = OutputBatch::default();
        forward(&mut outputs, time, Some(b"summary"), Some(kept.to_string().as_bytes()));
        Ok(Outcome { outputs, refused: Vec::new() })
    }
}

/// What `Hostile` does with a record of the same value.
pub mod commands {
    pub const REFUSE: &[u8] = b"refuse";
    pub const TRAP: &[u8] = b"trap";
    pub const RETURN: &[u8] = b"return an error";
    pub const MALFORMED: &[u8] = b"malformed output";
    pub const UNKNOWN_SINK: &[u8] = b"unknown sink";
}

/// Counts like `Count`, and obeys records whose value is one of `commands`. It writes and schedules before it fails, so
/// that what is undone shows.
#[derive(Debug, Clone, Copy, Default)]
pub struct Hostile;

impl NativeProcessor for Hostile {
    fn process(&mut self, context: &mut ProcessorContext, batch: &InputBatch) -> Called {
        context.schedule(1, PunctuationType::WallClockTime);
        NativeProcessor::process(&mut Obedient, context, batch)
    }
}

/// As `Hostile`, without the schedule.
#[derive(Debug, Clone, Copy, Default)]
pub struct Obedient;

impl NativeProcessor for Obedient {
    fn process(&mut self, context: &mut ProcessorContext, batch: &InputBatch) -> Called {
        let mut outcome = NativeProcessor::process(&mut Count, context, batch)?;
        for (index, value) in batch.values.iter().enumerate() {
            match value {
                Some(commands::REFUSE) => {
                    outcome.refused.push(Refusal { index: index as u32, reason: "told to refuse".to_owned() });
                }
                Some(commands::TRAP) => {
                    let (message, backtrace) = ("told to trap".to_owned(), String::new());
                    return Err(ProcessorError::Trap { message, backtrace });
                }
                Some(commands::RETURN) => return Err(ProcessorError::Returned("told to fail".to_owned())),
                Some(commands::MALFORMED) => outcome.outputs.keys.push(None),
                Some(commands::UNKNOWN_SINK) => outcome.outputs.sinks = vec![99; outcome.outputs.len()],
                _ => {}
            }
        }
        Ok(outcome)
    }
}

/// A processor made of one function, for a test that needs only that.
pub struct ProcessWith<F>(pub F);

impl<F> NativeProcessor for ProcessWith<F>
where
    F: FnMut(&mut ProcessorContext, &InputBatch) -> Called + Send,
{
    fn process(&mut self, context: &mut ProcessorContext, batch: &InputBatch) -> Called {
        (self.0)(context, batch)
    }
}
