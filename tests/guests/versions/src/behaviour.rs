//! The ways in which a version is bad, each at one place of a call. A good version is bad nowhere.
//!
//! | name | what it does | what a host sees |
//! | --- | --- | --- |
//! | `trap-in-init` | panics in `init` | no instance starts |
//! | `error-in-init` | returns an error from `init` | no instance starts |
//! | `loop-in-init` | never ends `init` | the deadline, at each start |
//! | `trap-first-record` | panics at an instance's first record, before it touched anything | a trap a record |
//! | `trap-every-record` | panics at each record, after its writes | a trap a record |
//! | `trap-one-key` | panics at records of one key | a trap for these only |
//! | `trap-in-punctuate` | has a schedule of 100 ms by the wall clock, and panics when it is due | a trap without a record |
//! | `error-every-call` | returns an error for each batch | an error a record |
//! | `refuse-every-record` | refuses each record | a refusal a record |
//! | `loop-in-process` | never ends at a record | the deadline |
//! | `grow-memory` | takes memory until there is none | the memory limit |
//! | `recurse` | calls itself until the stack ends | a trap |
//! | `panic-huge` | panics with a message of 4 MiB | a trap, and a log line that is cut |
//! | `flood-log` | logs without an end | the limit of host calls, and lines that are dropped |
//! | `flood-host-calls` | asks for the time without an end | the limit of host calls |
//! | `sink-out-of-range` | forwards to sink 7 | a malformed output |
//! | `columns-misfit` | forwards one value less than keys | a malformed output |
//! | `partition-missing` | forwards to partition 99,999 | a malformed output |
//! | `output-too-large` | forwards one value of 2 MiB in each call | an output that Kafka would refuse |
//! | `null-key` | forwards without keys | an output that Kafka refuses where the sink's topic is compacted |
//! | `outputs-hundredfold` | forwards each output a hundred times | its rate only |
//! | `outputs-none` | counts, and forwards nothing | its rate only |

use std::hint::black_box;

use sandbar::bindings::sandbar::processor::types::OutputBatch;
use sandbar::bindings::sandbar::processor::{context, log};

const PANIC_BYTES: usize = 4 << 20;
/// More than a topic takes by default.
const LARGE_VALUE_BYTES: usize = 2 << 20;

/// See the module's head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Behaviour {
    Good,
    TrapInInit,
    ErrorInInit,
    LoopInInit,
    TrapFirstRecord,
    TrapEveryRecord,
    TrapOneKey,
    TrapInPunctuate,
    ErrorEveryCall,
    RefuseEveryRecord,
    LoopInProcess,
    GrowMemory,
    Recurse,
    PanicHuge,
    FloodLog,
    FloodHostCalls,
    SinkOutOfRange,
    ColumnsMisfit,
    PartitionMissing,
    OutputTooLarge,
    NullKey,
    OutputsHundredfold,
    OutputsNone,
}

const NAMES: [(&str, Behaviour); 23] = [
    ("good", Behaviour::Good),
    ("trap-in-init", Behaviour::TrapInInit),
    ("error-in-init", Behaviour::ErrorInInit),
    ("loop-in-init", Behaviour::LoopInInit),
    ("trap-first-record", Behaviour::TrapFirstRecord),
    ("trap-every-record", Behaviour::TrapEveryRecord),
    ("trap-one-key", Behaviour::TrapOneKey),
    ("trap-in-punctuate", Behaviour::TrapInPunctuate),
    ("error-every-call", Behaviour::ErrorEveryCall),
    ("refuse-every-record", Behaviour::RefuseEveryRecord),
    ("loop-in-process", Behaviour::LoopInProcess),
    ("grow-memory", Behaviour::GrowMemory),
    ("recurse", Behaviour::Recurse),
    ("panic-huge", Behaviour::PanicHuge),
    ("flood-log", Behaviour::FloodLog),
    ("flood-host-calls", Behaviour::FloodHostCalls),
    ("sink-out-of-range", Behaviour::SinkOutOfRange),
    ("columns-misfit", Behaviour::ColumnsMisfit),
    ("partition-missing", Behaviour::PartitionMissing),
    ("output-too-large", Behaviour::OutputTooLarge),
    ("null-key", Behaviour::NullKey),
    ("outputs-hundredfold", Behaviour::OutputsHundredfold),
    ("outputs-none", Behaviour::OutputsNone),
];

impl Behaviour {
    /// The behaviour of a name.
    pub fn of(name: Option<&str>) -> Result<Self, String> {
        let Some(name) = name else { return Ok(Self::Good) };
        let found = NAMES.iter().find(|(other, _)| *other == name).map(|(_, behaviour)| *behaviour);
        found.ok_or_else(|| {
            let known: Vec<&str> = NAMES.iter().map(|(name, _)| *name).collect();
            format!("config.behaviour: expected one of {}, found {name:?}", known.join(", "))
        })
    }
}

pub fn in_init(behaviour: Behaviour) -> Result<(), String> {
    match behaviour {
        Behaviour::TrapInInit => panic!("init was told to"),
        Behaviour::ErrorInInit => Err("this version does not start".to_owned()),
        Behaviour::LoopInInit => endless(),
        _ => Ok(()),
    }
}

/// Before anything of a record was done.
pub fn before_record(behaviour: Behaviour) -> Result<(), String> {
    match behaviour {
        Behaviour::TrapFirstRecord => panic!("at the first record"),
        Behaviour::ErrorEveryCall => Err("this version takes nothing".to_owned()),
        _ => Ok(()),
    }
}

/// After the writes of a record, before its output.
pub fn after_record(behaviour: Behaviour, is_its_key: bool) {
    match behaviour {
        Behaviour::TrapEveryRecord => panic!("at every record"),
        Behaviour::TrapOneKey if is_its_key => panic!("at one key"),
        Behaviour::LoopInProcess => endless(),
        Behaviour::GrowMemory => grow(),
        Behaviour::Recurse => {
            black_box(recurse(0));
        }
        Behaviour::PanicHuge => panic!("{}", "x".repeat(PANIC_BYTES)),
        Behaviour::FloodLog => loop {
            log::log(log::Level::Warn, "once more");
        },
        Behaviour::FloodHostCalls => loop {
            black_box(context::wall_clock_time());
        },
        _ => {}
    }
}

/// How often an output goes out.
pub fn copies(behaviour: Behaviour, is_bad: bool) -> usize {
    match behaviour {
        Behaviour::OutputsHundredfold if is_bad => 100,
        Behaviour::OutputsNone if is_bad => 0,
        _ => 1,
    }
}

/// What becomes of a call's outputs.
pub fn spoil(behaviour: Behaviour, outputs: &mut OutputBatch) {
    let records = outputs.timestamps.len();
    match behaviour {
        Behaviour::SinkOutOfRange => outputs.sinks = vec![7; records],
        Behaviour::ColumnsMisfit => {
            outputs.values.ends.pop();
        }
        Behaviour::PartitionMissing => outputs.partitions = vec![99_999; records],
        Behaviour::OutputTooLarge if records > 0 => {
            outputs.values.bytes.resize(outputs.values.bytes.len() + LARGE_VALUE_BYTES, b' ');
            outputs.values.ends[records - 1] = outputs.values.bytes.len() as u32;
        }
        Behaviour::NullKey => {
            outputs.keys.bytes.clear();
            outputs.keys.ends = vec![0; records];
            outputs.keys.nulls = (0..records as u32).collect();
        }
        _ => {}
    }
}

fn endless() -> ! {
    let mut turn = 0_u64;
    loop {
        turn = black_box(turn.wrapping_add(1));
    }
}

fn grow() -> ! {
    let mut taken: Vec<Vec<u8>> = Vec::new();
    loop {
        taken.push(black_box(vec![1; 1 << 20]));
    }
}

/// With a frame in the guest's memory, where its own stack overflows first.
#[expect(unconditional_recursion, reason = "that is what it is for")]
fn recurse(depth: u64) -> u64 {
    // The black boxes keep the compiler from making a loop of it.
    let frame = black_box([depth; 32]);
    black_box(recurse(depth + 1)) + frame[(depth % 32) as usize]
}
