//! Does what its input tells it to: the key of the first record is a command, its value an argument. Most commands are
//! hostile: they try to use too much, to hand over malformed data or to reach what is not theirs.

use sandbar::bindings::exports::sandbar::processor::processor::Guest;
use sandbar::bindings::sandbar::processor::types::{
    InputBatch, NullableColumns, Outcome, OutputBatch, Sink, Source, StoreDeclaration, SubTopology, TaskId, Topology,
};
use sandbar::bindings::sandbar::processor::{context, log};

mod hostile;
mod malformed;
mod stores;

struct Probe;

impl Guest for Probe {
    fn describe() -> Topology {
        let store = StoreDeclaration {
            name: "data".to_owned(),
            kind: "key-value".to_owned(),
            key_format: "utf8".to_owned(),
            value_format: "bytes".to_owned(),
            version: 3,
            options: Vec::new(),
        };
        let sub_topology = SubTopology {
            sources: vec![Source { name: "commands".to_owned(), options: Vec::new() }],
            stores: vec![store],
            sinks: vec![Sink { name: "answers".to_owned(), options: Vec::new() }],
        };
        Topology { sub_topologies: vec![sub_topology], options: Vec::new() }
    }

    fn init(task: TaskId) -> Result<(), String> {
        std::panic::set_hook(Box::new(|panic| log::log(log::Level::Error, &panic.to_string())));
        match context::config("init").as_deref() {
            None => Ok(()),
            Some("error") => Err(format!("no wish to run task {}_{}", task.sub_topology, task.partition)),
            Some(_) => panic!("init of {}_{} panicked", task.sub_topology, task.partition),
        }
    }

    fn process(batch: InputBatch) -> Result<Outcome, String> {
        let command = text(&batch.keys, 0);
        let argument = text(&batch.values, 0);
        match command.as_str() {
            "echo" => Ok(echo(batch)),
            "context" => Ok(answer(&about_context())),
            "error" => Err(argument),
            "nothing" => Ok(Outcome::default()),
            other => stores::run(other, &argument)
                .or_else(|| malformed::run(other))
                .or_else(|| hostile::run(other, &argument))
                .unwrap_or_else(|| Err(format!("no command {other}"))),
        }
    }

    fn punctuate(schedule: u32, time: i64) -> Result<Outcome, String> {
        Ok(answer(&format!("schedule {schedule} at {time}")))
    }
}

sandbar::bindings::__export_module!(Probe with_types_in sandbar::bindings);

/// All there is of the input, headers included.
fn echo(batch: InputBatch) -> Outcome {
    let outputs = OutputBatch {
        timestamps: batch.timestamps,
        keys: batch.keys,
        values: batch.values,
        headers: batch.headers,
        ..OutputBatch::default()
    };
    Outcome { outputs, refused: Vec::new() }
}

fn about_context() -> String {
    let task = context::task();
    format!(
        "{} {}_{} stream-time {:?} wall-clock {} config {:?} {:?}",
        context::application_id(),
        task.sub_topology,
        task.partition,
        context::stream_time(),
        context::wall_clock_time(),
        context::config("colour"),
        context::config("absent"),
    )
}

/// One record with a text.
fn answer(text: &str) -> Outcome {
    Outcome { outputs: output(text.as_bytes().to_vec()), refused: Vec::new() }
}

fn output(bytes: Vec<u8>) -> OutputBatch {
    let ends = vec![bytes.len() as u32];
    OutputBatch {
        timestamps: vec![0],
        keys: NullableColumns { bytes: Vec::new(), ends: vec![0], nulls: vec![0] },
        values: NullableColumns { bytes, ends, nulls: Vec::new() },
        ..OutputBatch::default()
    }
}

fn text(columns: &NullableColumns, index: usize) -> String {
    let Some(&end) = columns.ends.get(index) else { return String::new() };
    let start = if index == 0 { 0 } else { columns.ends[index - 1] as usize };
    String::from_utf8_lossy(&columns.bytes[start..end as usize]).into_owned()
}
