//! The processor of the simulation. Store `tallies` keeps count and sum of each key, which shows every record that is
//! lost or counted again; store `latest` keeps the last sequence of each key, deleted at every fifth, which does not
//! depend on replays. Each record forwards its own place, the new tally, and the version that made it; a stream-time
//! schedule writes its time.

use std::collections::BTreeMap;

use engine::columns::{Columns, NullableColumns};
use engine::processor::{ProcessorContext, ProcessorError, PunctuationType, ScheduleId};
use engine::record::{InputBatch, Outcome, OutputBatch, Refusal, Timestamp};
use engine::testing::{NativeProcessor, Seed, forward, topology};
use engine::topology::Topology;

use crate::deployments::{Version, VersionFault};
use crate::workload::{decode_value, source_topic};

pub const TALLIES: &str = "tallies";
pub const LATEST: &str = "latest";
pub const OUTPUT: &str = "out";

/// The newest schema of `tallies` that is ever deployed.
pub const SCHEMA_MAX: u32 = 4;

/// Under which name the rows of a schema of `tallies` are kept.
pub fn generation(schema: u32) -> String {
    if schema == 1 { TALLIES.to_owned() } else { format!("{TALLIES}-v{schema}") }
}

/// The key in `latest` that holds the time of the last punctuation.
pub const TICK: &[u8] = b"tick";

/// The key in `latest` that holds the stream time as of the records that the store reflects.
pub const STREAM_TIME: &[u8] = b"stream time";

/// The key in `latest` that says that a call was told another stream time than `STREAM_TIME`. After a replay the
/// store may be ahead; otherwise this must never be there.
pub const STREAM_TIME_LOST: &[u8] = b"stream time lost";

/// The key that is in both stores or in none, by what was processed last: a delete that one of them does not know of
/// shows.
pub const PAIRED: &[u8] = b"paired";

/// The key in `latest` that says that a call found `PAIRED` in one store only. After a replay one may be ahead;
/// otherwise this must never be there.
pub const UNPAIRED: &[u8] = b"unpaired";

/// The interval of the schedule, in stream time.
pub const TICK_INTERVAL_MS: u64 = 500;

/// Sequences that delete their key from `latest`.
pub fn deletes(sequence: u32) -> bool {
    sequence % 5 == 4
}

/// What the application declares.
pub fn declare(topics: u32, schema: u32) -> Topology {
    let sources: Vec<String> = (0..topics).map(source_topic).collect();
    let sources: Vec<&str> = sources.iter().map(String::as_str).collect();
    let mut declared = topology(&sources, &[TALLIES, LATEST], &[OUTPUT]);
    for store in declared.sub_topologies.iter_mut().flat_map(|part| &mut part.stores) {
        if &*store.name == TALLIES {
            store.version = schema;
        }
    }
    declared
}

/// Count and sum of a key.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tallied {
    pub count: u64,
    pub sum: u128,
}

impl Tallied {
    pub fn encode(self) -> Vec<u8> {
        [&self.count.to_be_bytes()[..], &self.sum.to_be_bytes()].concat()
    }

    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (count, sum) = bytes.split_first_chunk::<8>()?;
        Some(Self { count: u64::from_be_bytes(*count), sum: u128::from_be_bytes(sum.try_into().ok()?) })
    }

    /// As a row of this schema version: the first is the bare tally, later ones are marked.
    pub fn encode_row(self, schema: u32) -> Vec<u8> {
        match schema {
            1 => self.encode(),
            schema => [&schema.to_be_bytes()[..], &self.encode()].concat(),
        }
    }

    /// What a row of this schema version holds; `None` where it is of another.
    pub fn decode_row(schema: u32, row: &[u8]) -> Option<Self> {
        match schema {
            1 => Self::decode(row),
            schema => Self::decode(row.strip_prefix(&schema.to_be_bytes()[..])?),
        }
    }
}

/// The processor. It fails at some calls in the end, when everything is written, but never at a record alone in a fresh
/// instance: so no record is given up, and what the others lose or gain by its isolation shows.
#[derive(Debug, Clone, Copy)]
pub struct Tally {
    /// Once in so many calls, 0 for never.
    pub fails_one_in: u64,
    /// Its version.
    number: u64,
    /// What its rows of `tallies` look like.
    schema: u32,
    fault: VersionFault,
    /// Calls of this instance.
    calls: u64,
}

impl Tally {
    pub fn new(fails_one_in: u64, number: u64, version: Version) -> Self {
        let Version { fault, schema } = version;
        Self { fails_one_in, number, schema, fault, calls: 0 }
    }

    /// Whether a call fails, and how: with a trap, or by the refusal of a record.
    fn failure(&mut self, batch: &InputBatch) -> Option<Result<Refusal, ProcessorError>> {
        self.calls += 1;
        if self.fails_one_in == 0 {
            return None;
        }
        let place = (batch.base_offset as u64) << 20 | (batch.partition as u64) << 16 | batch.len() as u64;
        let mut chance = Seed::new(place ^ self.calls << 40);
        let fails = chance.one_in(self.fails_one_in);
        match batch.len() {
            _ if !fails => None,
            1 if self.calls == 1 => None,
            count if count > 1 && chance.one_in(2) => {
                let index = chance.below(count as u64) as u32;
                Some(Ok(Refusal { index, reason: "not in company".to_owned() }))
            }
            _ => Some(Err(ProcessorError::Trap { message: "by chance".to_owned(), backtrace: String::new() })),
        }
    }
}

fn malformed(batch: &InputBatch, index: usize) -> ProcessorError {
    ProcessorError::Returned(format!("malformed input at offset {}", batch.offset(index)))
}

impl NativeProcessor for Tally {
    fn init(&mut self, context: &mut ProcessorContext) -> Result<(), ProcessorError> {
        context.schedule(TICK_INTERVAL_MS, PunctuationType::StreamTime);
        if self.fault == VersionFault::Init {
            let latest = context.store(LATEST)?;
            context.put(latest, b"half an init", Some(b"!"), None)?;
            return Err(ProcessorError::Returned("no licence".to_owned()));
        }
        Ok(())
    }

    fn process(&mut self, context: &mut ProcessorContext, batch: &InputBatch) -> Result<Outcome, ProcessorError> {
        let (tallies, latest) = (context.store(TALLIES)?, context.store(LATEST)?);
        let told = context.stream_time.map(i64::to_be_bytes);
        if context.get(latest, STREAM_TIME)?.as_deref() != told.as_ref().map(|bytes| &bytes[..]) {
            context.put(latest, STREAM_TIME_LOST, Some(b"!"), None)?;
        }
        let stream_time = batch.timestamps.iter().copied().chain(context.stream_time).max().unwrap_or_default();
        context.put(latest, STREAM_TIME, Some(&stream_time.to_be_bytes()), None)?;
        if context.get(tallies, PAIRED)?.is_some() != context.get(latest, PAIRED)?.is_some() {
            context.put(latest, UNPAIRED, Some(b"!"), None)?;
        }
        let mut is_paired = false;
        let mut outputs = OutputBatch::default();
        let mut is_hit = false;
        // Within a batch the tallies are kept here and written once, as a guest's cache would do.
        let mut cached: BTreeMap<&[u8], Tallied> = BTreeMap::new();
        for index in 0..batch.len() {
            let (Some(key), Some(value)) = (batch.keys.get(index), batch.values.get(index)) else {
                return Err(malformed(batch, index));
            };
            let (topic, sequence, amount) = decode_value(value).ok_or_else(|| malformed(batch, index))?;
            let mut tallied = match cached.get(key) {
                Some(&tallied) => tallied,
                None => match context.get(tallies, key)? {
                    Some(bytes) => Tallied::decode_row(self.schema, &bytes).ok_or_else(|| malformed(batch, index))?,
                    None => Tallied::default(),
                },
            };
            tallied.count += 1;
            tallied.sum += amount;
            cached.insert(key, tallied);
            let timestamp = batch.timestamps[index];
            let kept = (!deletes(sequence)).then(|| sequence.to_be_bytes());
            is_paired = kept.is_some();
            context.put(latest, key, kept.as_ref().map(|bytes| &bytes[..]), Some(timestamp))?;
            let made = [&self.number.to_be_bytes()[..], &batch.offset(index).to_be_bytes()].concat();
            let output = [&topic.to_be_bytes()[..], &sequence.to_be_bytes(), &tallied.encode(), &made].concat();
            is_hit |= self.fault.hits(sequence);
            forward(&mut outputs, timestamp, Some(key), Some(&output));
        }
        for (key, tallied) in cached {
            context.put(tallies, key, Some(&tallied.encode_row(self.schema)), None)?;
        }
        let pair = is_paired.then(|| Tallied::default().encode_row(self.schema));
        context.put(tallies, PAIRED, pair.as_deref(), None)?;
        context.put(latest, PAIRED, pair.as_deref(), None)?;
        if is_hit && self.fault == VersionFault::Refuses {
            return Err(ProcessorError::Returned("a third of them".to_owned()));
        }
        if is_hit {
            return Err(ProcessorError::Trap { message: "a third of them".to_owned(), backtrace: String::new() });
        }
        match self.failure(batch) {
            Some(Err(trap)) => Err(trap),
            refused => Ok(Outcome { outputs, refused: refused.and_then(Result::ok).into_iter().collect() }),
        }
    }

    fn punctuate(
        &mut self,
        context: &mut ProcessorContext,
        _schedule: ScheduleId,
        time: Timestamp,
    ) -> Result<Outcome, ProcessorError> {
        let latest = context.store(LATEST)?;
        context.put(latest, TICK, Some(&time.to_be_bytes()), Some(time))?;
        Ok(Outcome::default())
    }

    fn migrate(
        &mut self,
        store: &str,
        from_version: u32,
        keys: &Columns,
        values: &Columns,
    ) -> Result<NullableColumns, ProcessorError> {
        let malformed = |key: &[u8]| {
            let key = String::from_utf8_lossy(key);
            ProcessorError::Returned(format!("no row of schema {from_version} of {store}: {key}"))
        };
        let mut migrated = NullableColumns::default();
        for (key, value) in keys.iter().zip(values.iter()) {
            if self.fault == VersionFault::Migrate && key.ends_with(b"3") {
                return Err(ProcessorError::Trap { message: "at this row".to_owned(), backtrace: String::new() });
            }
            let tallied = Tallied::decode_row(from_version, value).filter(|_| store == TALLIES);
            migrated.push(Some(&tallied.ok_or_else(|| malformed(key))?.encode_row(self.schema)));
        }
        Ok(migrated)
    }
}
