//! The deterministic simulation: several hosts with real stream threads on the broker's core, driven step by step by
//! one seed that decides the workload, the settings and every fault. `run` plays a seed and returns what was observed
//! and what was wrong with it. Equal seeds give equal runs. The checker knows the workload's inputs and the final
//! state only; it shares no code with the engine's processing.

pub mod checker;
pub mod host;
pub mod observation;
pub mod scenario;
pub mod tally;
pub mod workload;
pub mod world;

pub use checker::{Rules, Violation, check};
pub use observation::Observation;
pub use scenario::Scenario;

/// What came of one seed.
#[derive(Debug)]
pub struct Report {
    pub seed: u64,
    pub observation: Observation,
    /// What the run was allowed to show.
    pub rules: Rules,
    pub violations: Vec<Violation>,
    /// Equal for equal runs.
    pub digest: u64,
    /// What went wrong on purpose, for people.
    pub summary: String,
    /// The calls of all clients, where they were asked for.
    pub trace: Vec<String>,
}

/// Plays a scenario. `keep_trace` keeps the line of every call.
pub fn run(scenario: &Scenario, keep_trace: bool) -> Report {
    let mut world = world::World::new(scenario, keep_trace);
    let mut violations = world.play();
    let observation = world.observe(&mut violations);
    let rules = scenario.rules(&world);
    violations.extend(check(&observation, rules));
    let digest = world.digest(&observation);
    Report {
        seed: scenario.seed,
        rules,
        violations,
        digest,
        summary: world.summary(),
        trace: world.trace(),
        observation,
    }
}
