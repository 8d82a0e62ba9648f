//! A module whose `describe` asks the host for something, which it must not.

use sandbar::bindings::exports::sandbar::processor::processor::Guest;
use sandbar::bindings::sandbar::processor::context;
use sandbar::bindings::sandbar::processor::types::{InputBatch, Outcome, Source, SubTopology, TaskId, Topology};

struct Impure;

impl Guest for Impure {
    fn describe() -> Topology {
        let name = context::config("source").unwrap_or_default();
        let sources = vec![Source { name, options: Vec::new() }];
        let sub_topology = SubTopology { sources, stores: Vec::new(), sinks: Vec::new() };
        Topology { sub_topologies: vec![sub_topology], options: Vec::new() }
    }

    fn init(_task: TaskId) -> Result<(), String> {
        Ok(())
    }

    fn process(_batch: InputBatch) -> Result<Outcome, String> {
        Ok(Outcome::default())
    }

    fn punctuate(_schedule: u32, _time: i64) -> Result<Outcome, String> {
        Ok(Outcome::default())
    }
}

sandbar::bindings::__export_module!(Impure with_types_in sandbar::bindings);
