//! The deterministic simulation: several hosts with real stream threads on the broker's core, driven step by step by
//! one seed that decides the workload, the settings and every fault. `run` plays a seed and returns what was observed
//! and what was wrong with it. Equal seeds give equal runs. The checkers know the workload's inputs, the logs and the
//! stores only; they share no code with the engine's processing.

pub mod campaign;
pub mod checker;
mod current;
pub mod deployments;
pub mod host;
pub mod observation;
pub mod scenario;
mod stages;
pub mod tally;
pub mod watch;
pub mod workload;
pub mod world;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

pub use checker::{Rules, Violation, check};
pub use observation::Observation;
pub use scenario::{Kind, Scenario};

/// What came of one seed.
#[derive(Debug)]
pub struct Report {
    pub kind: Kind,
    pub seed: u64,
    pub observation: Observation,
    /// What the run was allowed to show.
    pub rules: Rules,
    pub violations: Vec<Violation>,
    /// Equal for equal runs.
    pub digest: u64,
    /// What went wrong on purpose, for people.
    pub summary: String,
    /// Events and faults by name.
    pub counts: BTreeMap<&'static str, u64>,
    /// Where in a commit hosts have crashed or stood still.
    pub coverage: BTreeMap<String, u32>,
    /// The calls of all clients, where they were asked for.
    pub trace: Vec<String>,
}

/// Plays a scenario. `keep_trace` keeps the line of every call.
pub fn run(scenario: &Scenario, keep_trace: bool) -> Report {
    stages::listen();
    let world = Rc::new(world::World::new(scenario, keep_trace));
    let _current = current::enter(&world);
    let mut violations = Vec::new();
    let played = catch_unwind(AssertUnwindSafe(|| {
        violations = world.play();
        // A run that ended in the middle of things shows nothing that could be judged.
        if !violations.is_empty() {
            return (Observation::default(), Rules { replays: 0, zombies: false });
        }
        let observation = world.observe(&mut violations);
        let rules = scenario.rules(&world);
        violations.extend(check(&observation, rules));
        (observation, rules)
    }));
    let (observation, rules) = played.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic");
        violations.push(Violation::Failed(format!("panicked: {text}")));
        (Observation::default(), Rules { replays: 0, zombies: false })
    });
    let digest = world.digest(&observation);
    Report {
        kind: scenario.kind,
        seed: scenario.seed,
        rules,
        violations,
        digest,
        summary: world.summary(),
        counts: world.counts(),
        coverage: world.coverage(),
        trace: world.trace(),
        observation,
    }
}
