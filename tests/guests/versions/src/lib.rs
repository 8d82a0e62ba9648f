//! The versions of one stateful guest, good, bad and incompatible ones, for the tests of the hot swap. It counts the
//! records of each key and forwards every new count as
//! `{"version":"a","count":3,"partition":0,"offset":17}`: who made it, the running count of the key (a gap is a lost
//! record, a repetition a doubled one), and the record it is the answer to. Below the SDK, whose outputs are never
//! malformed. Pure but for what its `[config]` asks for.
//!
//! **Modules** (`make guests`), each with a digest of its own:
//!
//! | module | what it is |
//! | --- | --- |
//! | `versions` | good, says that it is version `a` |
//! | `versions-b` | good, says that it is version `b` |
//! | `versions-other-source` | reads the source `in-renamed` instead of `in` |
//! | `versions-store-less` | has no store `last` |
//! | `versions-store-more` | has a store `extra` beside the others |
//! | `versions-other-format` | keeps the values of `counts` as text (`utf8`), not as `i64` |
//! | `versions-higher-schema` | says that `counts` has schema version 2, and has no migration |
//! | `versions-migrates` | `counts` has schema version 2, whose values are text, and rows of version 1 are migrated |
//! | `versions-migrates-fragile` | the same, but its `migrate` traps at the row `0-00042` |
//!
//! **Config tables** make as many versions of each module as there are tables. All keys may be absent:
//!
//! | key | meaning |
//! | --- | --- |
//! | `label` | what the outputs say instead of `a` or `b` |
//! | `behaviour` | in which way the version is bad, a name of the table in `behaviour.rs`; absent or `good`: in none |
//! | `after_records` | how many records an instance processes well before it is bad in `process`; 0 |
//! | `key` | the key at which `trap-one-key` traps; `poison` |
//!
//! A behaviour or a number that cannot be read is an error of `init` which names it.

use std::cell::RefCell;

use sandbar::bindings::exports::sandbar::processor::processor::Guest;
use sandbar::bindings::sandbar::processor::types::{
    InputBatch, NullableColumns, Outcome, OutputBatch, Refusal, Sink, Source, StoreDeclaration, SubTopology, TaskId,
    Topology,
};
use sandbar::bindings::sandbar::processor::{context, log, state};

mod behaviour;
#[cfg(any(feature = "migrates", feature = "migrates-fragile"))]
mod migrating;

use behaviour::Behaviour;

const SOURCE: &str = if cfg!(feature = "other-source") { "in-renamed" } else { "in" };
const LABEL: &str = if cfg!(feature = "b") { "b" } else { "a" };
const MIGRATES: bool = cfg!(any(feature = "migrates", feature = "migrates-fragile"));
const IS_TEXT: bool = cfg!(feature = "other-format") || MIGRATES;
const COUNT_FORMAT: &str = if IS_TEXT { "utf8" } else { "i64" };
const COUNT_SCHEMA: u32 = if cfg!(feature = "higher-schema") || MIGRATES { 2 } else { 1 };
/// How often `trap-in-punctuate` is called.
const INTERVAL_MS: u64 = 100;

thread_local! {
    static INSTANCE: RefCell<Option<Instance>> = const { RefCell::new(None) };
}

/// What an instance knows between calls.
struct Instance {
    counts: u32,
    /// The offset of the last record of each key.
    last: Option<u32>,
    label: String,
    behaviour: Behaviour,
    good_records_left: u64,
    key: Vec<u8>,
}

struct Versions;

impl Guest for Versions {
    fn describe() -> Topology {
        let store = |name: &str, value_format: &str, version| StoreDeclaration {
            name: name.to_owned(),
            kind: "key-value".to_owned(),
            key_format: "utf8".to_owned(),
            value_format: value_format.to_owned(),
            version,
            options: Vec::new(),
        };
        let mut stores = vec![store("counts", COUNT_FORMAT, COUNT_SCHEMA)];
        if !cfg!(feature = "store-less") {
            stores.push(store("last", "i64", 1));
        }
        if cfg!(feature = "store-more") {
            stores.push(store("extra", "bytes", 1));
        }
        let sub_topology = SubTopology {
            sources: vec![Source { name: SOURCE.to_owned(), options: Vec::new() }],
            stores,
            sinks: vec![Sink { name: "out".to_owned(), options: Vec::new() }],
        };
        Topology { sub_topologies: vec![sub_topology], options: Vec::new() }
    }

    fn init(_task: TaskId) -> Result<(), String> {
        std::panic::set_hook(Box::new(|panic| log::log(log::Level::Error, &panic.to_string())));
        let behaviour = Behaviour::of(context::config("behaviour").as_deref())?;
        behaviour::in_init(behaviour)?;
        let good_records_left = match context::config("after_records") {
            None => 0,
            Some(text) => text.parse::<u64>().map_err(|error| format!("config.after_records = {text:?}: {error}"))?,
        };
        if behaviour == Behaviour::TrapInPunctuate {
            context::schedule(INTERVAL_MS, context::PunctuationType::WallClockTime);
        }
        let instance = Instance {
            counts: state::open("counts")?,
            last: if cfg!(feature = "store-less") { None } else { Some(state::open("last")?) },
            label: context::config("label").unwrap_or_else(|| LABEL.to_owned()),
            behaviour,
            good_records_left,
            key: context::config("key").unwrap_or_else(|| "poison".to_owned()).into_bytes(),
        };
        INSTANCE.set(Some(instance));
        Ok(())
    }

    fn process(batch: InputBatch) -> Result<Outcome, String> {
        INSTANCE.with_borrow_mut(|instance| match instance {
            Some(instance) => instance.process(&batch),
            None => Err("process was called before init".to_owned()),
        })
    }

    fn punctuate(_schedule: u32, _time: i64) -> Result<Outcome, String> {
        panic!("a schedule is due, which no good version makes");
    }
}

sandbar::bindings::__export_module!(Versions with_types_in sandbar::bindings);

impl Instance {
    fn process(&mut self, batch: &InputBatch) -> Result<Outcome, String> {
        let mut outcome = Outcome { outputs: OutputBatch::default(), refused: Vec::new() };
        let mut is_bad = false;
        for index in 0..batch.timestamps.len() {
            let Some(key) = item(&batch.keys, index) else {
                let reason = "deserialization: the key is null".to_owned();
                outcome.refused.push(Refusal { index: index as u32, reason });
                continue;
            };
            is_bad = self.good_records_left == 0;
            self.good_records_left = self.good_records_left.saturating_sub(1);
            if is_bad {
                behaviour::before_record(self.behaviour)?;
                if self.behaviour == Behaviour::RefuseEveryRecord {
                    outcome.refused.push(Refusal { index: index as u32, reason: "it is not liked".to_owned() });
                    continue;
                }
            }
            let offset = batch.base_offset + i64::from(batch.offset_deltas[index]);
            let count = self.count(key, offset);
            if is_bad {
                behaviour::after_record(self.behaviour, key == self.key);
            }
            let Self { label, .. } = self;
            let partition = batch.partition;
            let value = format!(r#"{{"version":"{label}","count":{count},"partition":{partition},"offset":{offset}}}"#);
            for _ in 0..behaviour::copies(self.behaviour, is_bad) {
                forward(&mut outcome.outputs, batch.timestamps[index].max(0), key, value.as_bytes());
            }
        }
        if is_bad {
            behaviour::spoil(self.behaviour, &mut outcome.outputs);
        }
        Ok(outcome)
    }

    /// One more record of the key.
    fn count(&self, key: &[u8], offset: i64) -> i64 {
        let count = state::get(self.counts, key).map_or(0, |value| read_count(&value)) + 1;
        state::put(self.counts, key, Some(&written_count(count)));
        if let Some(last) = self.last {
            state::put(last, key, Some(&offset.to_be_bytes()));
        }
        count
    }
}

fn read_count(value: &[u8]) -> i64 {
    let text = || -> Option<i64> { std::str::from_utf8(value).ok()?.parse().ok() };
    let number = || -> Option<i64> { value.try_into().ok().map(i64::from_be_bytes) };
    let count = if IS_TEXT { text() } else { number() };
    count.unwrap_or_else(|| panic!("the store has a count that is not {COUNT_FORMAT}: {value:?}"))
}

fn written_count(count: i64) -> Vec<u8> {
    if IS_TEXT { count.to_string().into_bytes() } else { count.to_be_bytes().to_vec() }
}

fn forward(outputs: &mut OutputBatch, timestamp: i64, key: &[u8], value: &[u8]) {
    outputs.timestamps.push(timestamp);
    for (columns, bytes) in [(&mut outputs.keys, key), (&mut outputs.values, value)] {
        columns.bytes.extend_from_slice(bytes);
        columns.ends.push(columns.bytes.len() as u32);
    }
}

fn item(columns: &NullableColumns, index: usize) -> Option<&[u8]> {
    if columns.nulls.binary_search(&(index as u32)).is_ok() {
        return None;
    }
    let start = if index == 0 { 0 } else { columns.ends[index - 1] as usize };
    Some(&columns.bytes[start..columns.ends[index] as usize])
}
