//! Forwards every record as it is, without headers: the columns that come in go out. What the engine's native
//! `PassThrough` does, so that the two can be compared.

use sandbar::bindings::exports::sandbar::processor::processor::Guest;
use sandbar::bindings::sandbar::processor::types::{
    InputBatch, Outcome, OutputBatch, Sink, Source, SubTopology, TaskId, Topology,
};

struct PassThrough;

impl Guest for PassThrough {
    fn describe() -> Topology {
        let sub_topology = SubTopology {
            sources: vec![Source { name: "in".to_owned(), options: Vec::new() }],
            stores: Vec::new(),
            sinks: vec![Sink { name: "out".to_owned(), options: Vec::new() }],
        };
        Topology { sub_topologies: vec![sub_topology], options: Vec::new() }
    }

    fn init(_task: TaskId) -> Result<(), String> {
        Ok(())
    }

    fn process(batch: InputBatch) -> Result<Outcome, String> {
        let mut timestamps = batch.timestamps;
        timestamps.iter_mut().for_each(|timestamp| *timestamp = (*timestamp).max(0));
        let outputs = OutputBatch { timestamps, keys: batch.keys, values: batch.values, ..OutputBatch::default() };
        Ok(Outcome { outputs, refused: Vec::new() })
    }

    fn punctuate(_schedule: u32, _time: i64) -> Result<Outcome, String> {
        Ok(Outcome::default())
    }
}

sandbar::bindings::__export_module!(PassThrough with_types_in sandbar::bindings);
