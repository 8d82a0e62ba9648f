//! Does everything that a record may do, step by step and straight to the host, and stops in the middle of it where the
//! record says so: its value is the number of steps that it gets to, and how it ends then. Below the SDK, which would
//! hold back writes until the end of the call.

use std::cell::Cell;

use sandbar::bindings::exports::sandbar::processor::processor::Guest;
use sandbar::bindings::sandbar::processor::types::{
    InputBatch, NullableColumns, Outcome, OutputBatch, Refusal, Sink, Source, StoreDeclaration, SubTopology, TaskId,
    Topology,
};
use sandbar::bindings::sandbar::processor::{context, state};

/// Interval of all schedules, in milliseconds.
const INTERVAL_MS: u64 = 1_000;
const STEPS: u8 = 8;

thread_local! {
    static STORE: Cell<u32> = const { Cell::new(0) };
    static HEARTBEAT: Cell<u32> = const { Cell::new(0) };
}

struct Careless;

impl Guest for Careless {
    fn describe() -> Topology {
        let store = StoreDeclaration {
            name: "counts".to_owned(),
            kind: "key-value".to_owned(),
            key_format: "utf8".to_owned(),
            value_format: "bytes".to_owned(),
            version: 1,
            options: Vec::new(),
        };
        let sub_topology = SubTopology {
            sources: vec![Source { name: "in".to_owned(), options: Vec::new() }],
            stores: vec![store],
            sinks: vec![Sink { name: "out".to_owned(), options: Vec::new() }],
        };
        Topology { sub_topologies: vec![sub_topology], options: Vec::new() }
    }

    fn init(_task: TaskId) -> Result<(), String> {
        STORE.set(state::open("counts")?);
        HEARTBEAT.set(context::schedule(INTERVAL_MS, context::PunctuationType::WallClockTime));
        Ok(())
    }

    fn process(batch: InputBatch) -> Result<Outcome, String> {
        let mut outcome = Outcome { outputs: OutputBatch::default(), refused: Vec::new() };
        for index in 0..batch.timestamps.len() {
            let (key, value) = (item(&batch.keys, index), item(&batch.values, index));
            let time = batch.timestamps[index];
            let mut schedule = None;
            for step in 0..STEPS {
                if step == value[0] {
                    end(value[1], index, &mut outcome)?;
                    break;
                }
                match step {
                    0 | 3 => count(key),
                    1 => forward(&mut outcome.outputs, time, key, b"1"),
                    2 => state::put(STORE.get(), &[key, b"/last"].concat(), Some(value)),
                    4 => schedule = Some(context::schedule(INTERVAL_MS, context::PunctuationType::WallClockTime)),
                    // Only where it is undone.
                    5 if value[0] < STEPS => context::cancel(HEARTBEAT.get()),
                    6 => schedule.take().into_iter().for_each(context::cancel),
                    7 => forward(&mut outcome.outputs, time, key, b"2"),
                    _ => {}
                }
            }
        }
        Ok(outcome)
    }

    fn punctuate(schedule: u32, time: i64) -> Result<Outcome, String> {
        let key: &[u8] = if schedule == HEARTBEAT.get() { b"heartbeat" } else { b"stray schedule" };
        let mut outputs = OutputBatch::default();
        forward(&mut outputs, time, key, b"");
        Ok(Outcome { outputs, refused: Vec::new() })
    }
}

sandbar::bindings::__export_module!(Careless with_types_in sandbar::bindings);

/// Ends the call, or has the record refused.
fn end(how: u8, index: usize, outcome: &mut Outcome) -> Result<(), String> {
    match how {
        0 => std::process::abort(),
        1 => {
            let mut taken: Vec<Vec<u8>> = Vec::new();
            loop {
                taken.push(std::hint::black_box(Vec::with_capacity(1 << 20)));
            }
        }
        2 => Err("no".to_owned()),
        3 => {
            outcome.refused.push(Refusal { index: index as u32, reason: "no".to_owned() });
            Ok(())
        }
        4 => {
            forward(&mut outcome.outputs, -7, b"", b"");
            Ok(())
        }
        _ => loop {
            std::hint::black_box(context::wall_clock_time());
        },
    }
}

fn count(key: &[u8]) {
    let before = state::get(STORE.get(), key).and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_be_bytes);
    state::put(STORE.get(), key, Some(&(before + 1).to_be_bytes()));
}

fn forward(outputs: &mut OutputBatch, timestamp: i64, key: &[u8], value: &[u8]) {
    outputs.timestamps.push(timestamp);
    for (columns, bytes) in [(&mut outputs.keys, key), (&mut outputs.values, value)] {
        columns.bytes.extend_from_slice(bytes);
        columns.ends.push(columns.bytes.len() as u32);
    }
}

fn item(columns: &NullableColumns, index: usize) -> &[u8] {
    let start = if index == 0 { 0 } else { columns.ends[index - 1] as usize };
    &columns.bytes[start..columns.ends[index] as usize]
}
