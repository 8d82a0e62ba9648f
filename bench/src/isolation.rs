//! `make bench-isolation`: what it costs that one bad record costs one record. Part (a): savepoints and a dead letter
//! topic while nothing fails. Part (b): poison of which a share of the records is (`poison`). Part (c): an application
//! beside a hostile one (`neighbour`), which needs `SANDBAR_KAFKA_BOOTSTRAP` of a fresh broker. What is compared takes
//! turns, round by round. Prints figures and judges nothing.

mod neighbour;
mod poison;

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use broker::direct::ClientOptions;
use engine::exception_handlers::{ExceptionHandler, ExceptionHandlers};
use engine::metrics::EngineMetrics;
use engine::processor::ProcessorSupplier;
use engine::stream_thread::StreamsConfig;
use engine::topology::{StoreBackend, Topology};
use sandbox::{Runtime, RuntimeConfig};

use crate::drive::{Drive, Stores};
use crate::measure::{self, Spread, spread};
use crate::sandbox_tax::{filled_broker, guest};
use crate::workload::{INPUT, Input, OUTPUT, Work, input};
use crate::{setting, show};

const DEAD_LETTERS: &str = "bench-dead-letters";
const LIMIT: Duration = Duration::from_secs(300);

/// How long the benchmark is.
pub struct Plan {
    pub rounds: u64,
    /// Records of a run of parts (a) and (b).
    pub records: u64,
    /// Seconds of a run of part (c), and the victim's records in one of them.
    pub seconds: u64,
    pub per_second: u64,
    /// The parts that are measured, each by its letter.
    parts: String,
}

/// The tables.
pub fn run() -> Result<()> {
    let plan = Plan {
        rounds: setting("SANDBAR_BENCH_ROUNDS", 9)?,
        records: setting("SANDBAR_BENCH_ISOLATION_RECORDS", 1_000_000)?,
        seconds: setting("SANDBAR_BENCH_ISOLATION_SECONDS", 20)?,
        per_second: setting("SANDBAR_BENCH_ISOLATION_PER_SECOND", 2_000)?,
        parts: std::env::var("SANDBAR_BENCH_ONLY").unwrap_or_else(|_| "abc".to_owned()),
    };
    println!("load {} at the start, {} rounds by turns, median (min–max)", measure::load_average()?, plan.rounds);
    let runtime = Runtime::new(RuntimeConfig::default())?;
    if plan.parts.contains('a') {
        nothing_fails(&runtime, &plan)?;
    }
    if plan.parts.contains('b') {
        poison::run(&runtime, &plan)?;
    }
    if plan.parts.contains('c') {
        neighbour::run(&plan)?;
    }
    println!("\nload {} at the end", measure::load_average()?);
    Ok(())
}

/// How an application is protected.
#[derive(Debug, Clone, Copy)]
struct Protection {
    savepoints: bool,
    dead_letters: bool,
}

/// What a run cost.
struct Cost {
    wall: Duration,
    /// Of the stream thread.
    cpu: Duration,
    /// Records that were processed.
    records: u64,
    metrics: Arc<EngineMetrics>,
}

impl Cost {
    fn cpu_us_per_record(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / self.records as f64
    }

    fn k_records_per_second(&self) -> f64 {
        self.records as f64 / self.wall.as_secs_f64() / 1e3
    }
}

/// The topology of a work, with a dead letter topic where that is asked for.
fn topology(work: Work, dead_letters: bool) -> Topology {
    let mut topology = work.topology();
    topology.dead_letter_topic = dead_letters.then(|| DEAD_LETTERS.into());
    topology
}

/// One run over the embedded broker's core, with one stream thread, until `healthy` records are processed.
fn run_one(
    processors: Arc<dyn ProcessorSupplier>,
    protection: Protection,
    (records, healthy): (u64, u64),
    input: impl Fn(u64) -> Input,
) -> Result<Cost> {
    let broker = filled_broker(records, &[INPUT, OUTPUT, DEAD_LETTERS], input)?;
    let application_id = "bench-isolation";
    let state_dir = std::env::temp_dir().join(format!("sandbar-bench-{}", std::process::id()));
    let handler = if protection.dead_letters { ExceptionHandler::DeadLetter } else { ExceptionHandler::Fail };
    let exception_handlers = ExceptionHandlers {
        deserialization: handler,
        processing: handler,
        production: handler,
        ..ExceptionHandlers::default()
    };
    let metrics = Arc::new(EngineMetrics::new());
    let config =
        StreamsConfig { exception_handlers, without_savepoints: !protection.savepoints, ..StreamsConfig::default() };
    let drive = Drive {
        application_id: application_id.to_owned(),
        threads: 1,
        config,
        clients: Arc::new(broker.clients(ClientOptions::new("bench", application_id))),
        processors,
        stores: Arc::new(Stores::fresh(&state_dir, application_id)?),
        metrics: Arc::clone(&metrics),
        records: healthy,
        limit: LIMIT,
    };
    let prepared = drive.prepare()?;
    let started = std::time::Instant::now();
    let (records, cpu) = prepared.run_by_thread()?;
    let wall = started.elapsed();
    std::fs::remove_dir_all(&state_dir).with_context(|| format!("remove {}", state_dir.display()))?;
    Ok(Cost { wall, cpu, records, metrics })
}

/// The ratio of the CPU time of each pair of runs.
fn cpu_ratio(costs: &[Cost], base: &[Cost]) -> Option<Spread> {
    spread(costs.iter().zip(base).map(|(cost, base)| cost.cpu_us_per_record() / base.cpu_us_per_record()))
}

/// Part (a).
fn nothing_fails(runtime: &Runtime, plan: &Plan) -> Result<()> {
    println!(
        "\n## (a) nothing fails: CPU time of the stream thread, {} records, modules in the sandbox\n",
        plan.records
    );
    println!(
        "| work | without savepoints µs/rec | with savepoints µs/rec | ratio | and a dead letter topic µs/rec | ratio |"
    );
    println!("| --- | ---: | ---: | ---: | ---: | ---: |");
    let protections = [(false, false), (true, false), (true, true)];
    for work in [Work::PassThrough, Work::Count(StoreBackend::InMemory), Work::Count(StoreBackend::Persistent)] {
        let mut costs: [Vec<Cost>; 3] = Default::default();
        for round in 0..plan.rounds {
            for turn in 0..3 {
                // Each is the first of a round as often as the others.
                let place = usize::try_from((round + turn) % 3)?;
                let (savepoints, dead_letters) = protections[place];
                let processors = guest(runtime, work.guest(), topology(work, dead_letters))?;
                let protection = Protection { savepoints, dead_letters };
                costs[place].push(run_one(processors, protection, (plan.records, plan.records), input)?);
            }
        }
        let of = |costs: &[Cost]| show(spread(costs.iter().map(Cost::cpu_us_per_record)), 3);
        let [without, with, dead_letters] = &costs;
        println!(
            "| {work} | {} | {} | {} | {} | {} |",
            of(without),
            of(with),
            show(cpu_ratio(with, without), 3),
            of(dead_letters),
            show(cpu_ratio(dead_letters, with), 3),
        );
    }
    Ok(())
}
