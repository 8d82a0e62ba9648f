//! `make bench`: what a record costs, in tables. Part (a)/(b) compares the sandbox with a native processor over the
//! embedded broker's core; part (c) compares the engine with a raw librdkafka loop on a real broker. Runs that are
//! compared take turns, round by round, and the median of the rounds counts. It prints figures and judges nothing.
//! With the argument `broker` it measures the embedded broker instead (`brokers`), with `commits` what transactions
//! cost (`commits`), with `peer` Kafka Streams beside Sandbar, with `change` the change of a running application on
//! both (`peer`), with `restore` how fast stores come back (`restore`), with `restart` how fast a killed host does
//! (`restart`), with `isolation` what the isolation of bad records and modules costs (`isolation`).

mod brokers;
mod commits;
mod drive;
mod floors;
mod isolation;
mod measure;
mod peer;
mod queries;
mod real_kafka;
mod restart;
mod restore;
mod sandbox_tax;
mod workload;

use anyhow::{Context, Result, bail};
use engine::stream_thread::StreamsConfig;
use measure::{Sample, Spread, spread};
use sandbox::{Runtime, RuntimeConfig};
use sandbox_tax::Place;
use workload::Work;

const BATCHES: [usize; 4] = [1, 100, 500, 1_000];

/// How long the benchmark is.
struct Plan {
    rounds: usize,
    /// Records of a run on the broker's core; a quarter of it with batches of one record.
    core_records: u64,
    kafka_records: u64,
}

fn setting(name: &str, default: u64) -> Result<u64> {
    match std::env::var(name) {
        Ok(text) => text.parse().with_context(|| format!("{name} must be a number, not {text}")),
        Err(_) => Ok(default),
    }
}

/// A number on the command line.
fn argument(place: usize) -> Result<usize> {
    let text = std::env::args().nth(place).with_context(|| format!("argument {place} is missing"))?;
    text.parse().with_context(|| format!("argument {place} must be a number, not {text}"))
}

fn main() -> Result<()> {
    match std::env::args().nth(1).as_deref() {
        None => records(),
        Some("broker") => brokers::run(),
        Some("change") => peer::run_change(),
        Some("commits") => commits::run(),
        Some("isolation") => isolation::run(),
        Some("peer") => peer::run(),
        Some("plain-route") => queries::plain::serve(argument(2)?),
        Some("queries") => queries::run(),
        Some("restore") => restore::run(),
        Some("restart") => restart::run(),
        Some(other) => {
            bail!(
                "nothing, `broker`, `change`, `commits`, `isolation`, `peer`, `queries`, `restore` or `restart`, not \
                 `{other}`"
            )
        }
    }
}

fn records() -> Result<()> {
    let plan = Plan {
        rounds: setting("SANDBAR_BENCH_ROUNDS", 5)? as usize,
        core_records: setting("SANDBAR_BENCH_CORE_RECORDS", 400_000)?,
        kafka_records: setting("SANDBAR_BENCH_KAFKA_RECORDS", 500_000)?,
    };
    let runtime = Runtime::new(RuntimeConfig::default())?;
    println!("load {} at the start, {} rounds, median (min–max)\n", measure::load_average()?, plan.rounds);
    core_table(&runtime, &plan)?;
    match std::env::var("SANDBAR_KAFKA_BOOTSTRAP") {
        Ok(bootstrap) => kafka_table(&runtime, &plan, &bootstrap)?,
        Err(_) => println!("\npart (c) needs SANDBAR_KAFKA_BOOTSTRAP; `make bench` starts a broker and sets it"),
    }
    println!(
        "\npeak memory of this process, in-process broker of part (a) and (b) included: {} MiB",
        measure::memory_kb("VmHWM")? / 1024
    );
    println!("load {} at the end", measure::load_average()?);
    Ok(())
}

/// Three figures of a series: `median (min–max)`.
fn show(spread: Option<Spread>, decimals: usize) -> String {
    spread.map_or_else(String::new, |s| format!("{:.decimals$} ({:.decimals$}–{:.decimals$})", s.median, s.min, s.max))
}

fn cpu(samples: &[Sample]) -> Option<Spread> {
    spread(samples.iter().map(Sample::cpu_us_per_record))
}

fn rate(samples: &[Sample]) -> Option<Spread> {
    spread(samples.iter().map(|sample| sample.records_per_second() / 1_000.0))
}

/// The ratio of the CPU time of each pair of runs.
fn ratio(samples: &[Sample], base: &[Sample]) -> Option<Spread> {
    let pairs = samples.iter().zip(base);
    spread(pairs.map(|(sample, base)| sample.cpu_us_per_record() / base.cpu_us_per_record()))
}

fn core_table(runtime: &Runtime, plan: &Plan) -> Result<()> {
    println!("## (a), (b): engine over the embedded broker's core, one stream thread\n");
    println!(
        "| work | batch | native k rec/s | native CPU µs/rec | sandbox k rec/s | sandbox CPU µs/rec | sandbox / native CPU |"
    );
    println!("| --- | ---: | ---: | ---: | ---: | ---: | ---: |");
    for work in Work::ALL {
        for batch in BATCHES {
            let records = if batch == 1 { plan.core_records / 4 } else { plan.core_records };
            let (mut native, mut sandbox) = (Vec::new(), Vec::new());
            for _ in 0..plan.rounds {
                native.push(sandbox_tax::run(runtime, work, Place::Native, batch, records)?);
                sandbox.push(sandbox_tax::run(runtime, work, Place::Sandbox, batch, records)?);
            }
            println!(
                "| {work} | {batch} | {} | {} | {} | {} | {} |",
                show(rate(&native), 0),
                show(cpu(&native), 2),
                show(rate(&sandbox), 0),
                show(cpu(&sandbox), 2),
                show(ratio(&sandbox, &native), 2),
            );
        }
    }
    Ok(())
}

fn kafka_table(runtime: &Runtime, plan: &Plan, bootstrap: &str) -> Result<()> {
    println!("\n## (c): real Kafka, {} records, one stream thread, at-least-once\n", plan.kafka_records);
    println!("| what | k rec/s | CPU µs/rec | CPU / raw loop |");
    println!("| --- | ---: | ---: | ---: |");
    real_kafka::fill(bootstrap, plan.kafka_records)?;
    let cases: Vec<(Work, Place)> =
        Work::ALL.into_iter().flat_map(|work| [(work, Place::Native), (work, Place::Sandbox)]).collect();
    let mut raw = Vec::new();
    let mut samples = vec![Vec::new(); cases.len()];
    for round in 0..plan.rounds {
        raw.push(real_kafka::raw(bootstrap, &format!("bench-raw-{round}"), plan.kafka_records)?);
        for (index, &(work, place)) in cases.iter().enumerate() {
            let application_id = format!("bench-{round}-{index}");
            let config = StreamsConfig::default();
            let sample = real_kafka::run(runtime, bootstrap, &application_id, work, place, config, plan.kafka_records)?;
            samples[index].push(sample);
        }
    }
    println!("| raw consume → produce | {} | {} | 1 |", show(rate(&raw), 0), show(cpu(&raw), 2));
    for ((work, place), samples) in cases.iter().zip(&samples) {
        let place = if *place == Place::Native { "native" } else { "sandbox" };
        println!(
            "| {work}, {place} | {} | {} | {} |",
            show(rate(samples), 0),
            show(cpu(samples), 2),
            show(ratio(samples, &raw), 2),
        );
    }
    Ok(())
}
