//! `make bench-peer`: the same pipelines as processes of their own, on Kafka Streams and on Sandbar, by turns on one
//! real broker. The outputs of the first round are read and compared with the input; a wrong one ends the benchmark.

mod change;
mod checks;
mod pipelines;
mod processes;
mod report;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use sandbox::{Runtime, RuntimeConfig};

use self::pipelines::{PIPELINES, Pipeline};
use self::processes::{COMMIT_INTERVAL_MS, Plan, Side, THREADS};
use self::report::{Figures, Row, Runs};
use crate::workload::{INPUT, KEYS, Keys, PARTITIONS, TABLE, ZIPF_INPUT, input_of, row};
use crate::{floors, measure, real_kafka, setting};

/// What `SANDBAR_BENCH_ONLY` calls the parts by themselves; any other text is part of a pipeline's name.
const PARTS: &str = "parts";

const GUARANTEES: [&str; 2] = ["at_least_once", "exactly_once_v2"];

/// Every pipeline under both guarantees, by turns.
pub fn run() -> Result<()> {
    let plan = plan()?;
    let rounds = setting("SANDBAR_BENCH_ROUNDS", 3)?;
    let only = std::env::var("SANDBAR_BENCH_ONLY").unwrap_or_default();
    let facts = facts();
    let load_before = measure::load_average()?;
    println!("{facts}\nload {load_before} at the start\n");
    let all = plan.warm_up + plan.records;
    real_kafka::fill_topic(&plan.bootstrap, INPUT, (0..all).map(|index| input_of(Keys::Uniform, index)))?;
    real_kafka::fill_topic(&plan.bootstrap, ZIPF_INPUT, (0..all).map(|index| input_of(Keys::Zipf, index)))?;
    real_kafka::fill_topic(&plan.bootstrap, TABLE, (0..KEYS).map(row))?;
    let folder = std::env::var_os("SANDBAR_BENCH_RESULTS").map(PathBuf::from);
    let mut figures = folder.as_deref().map(Figures::read).transpose()?.unwrap_or_default();
    figures.facts = facts;
    let rows = rows(&plan, rounds, &only, &mut figures, folder.as_deref());
    if plan.folder.exists() {
        std::fs::remove_dir_all(&plan.folder)?;
    }
    rows?;
    if only.is_empty() || only == PARTS {
        let floors = floors::run(&Runtime::new(RuntimeConfig::default())?, &plan.bootstrap, plan.records, rounds)?;
        figures.parts = report::parts(&floors);
        print!("\n{}", report::parts_table(&figures.parts));
    }
    println!("\nload {load_before} at the start, {} at the end", measure::load_average()?);
    folder.map_or(Ok(()), |folder| figures.write(&folder))
}

/// The table of `change`.
pub fn run_change() -> Result<()> {
    let plan = plan()?;
    let measured = change::run(&plan, setting("SANDBAR_BENCH_ROUNDS", 5)?);
    if plan.folder.exists() && measured.is_ok() {
        std::fs::remove_dir_all(&plan.folder)?;
    }
    measured
}

fn plan() -> Result<Plan> {
    let path = |name: &str| std::env::var_os(name).map(PathBuf::from).with_context(|| format!("{name} is not set"));
    let data = path("SANDBAR_KAFKA_DATA")?;
    let broker = std::fs::read_to_string(data.join("pid")).context("the broker's number")?.trim().to_owned();
    Ok(Plan {
        bootstrap: std::env::var("SANDBAR_KAFKA_BOOTSTRAP").context("SANDBAR_KAFKA_BOOTSTRAP is not set")?,
        binary: path("SANDBAR_BENCH_BINARY")?,
        guests: path("SANDBAR_GUESTS")?,
        peer: path("SANDBAR_BENCH_PEER")?,
        broker,
        folder: std::env::temp_dir().join(format!("sandbar-bench-peer-{}", std::process::id())),
        warm_up: setting("SANDBAR_BENCH_WARM_UP", 400_000)?,
        records: setting("SANDBAR_BENCH_KAFKA_RECORDS", 600_000)?,
    })
}

fn facts() -> String {
    format!(
        "Kafka Streams 4.3.1 (Java with a heap of 1 GiB) and Sandbar {} beside Kafka 4.3.1 on one machine, {THREADS} stream \
         threads each; {PARTITIONS} partitions, {KEYS} keys; a commit every \
         {COMMIT_INTERVAL_MS} ms. Every update goes out, but for the lines that say \"merging\": there the cache of Kafka \
         Streams has its default of 10 MiB. Windows are segments of a day there, and plain keys of a store here. Median (least–most) of the rounds.",
        env!("CARGO_PKG_VERSION"),
    )
}

/// Each row is kept as soon as it is measured.
fn rows(plan: &Plan, rounds: u64, only: &str, figures: &mut Figures, folder: Option<&Path>) -> Result<()> {
    println!("{}", report::head().trim_end());
    for pipeline in PIPELINES.iter().filter(|pipeline| pipeline.name.contains(only)) {
        for guarantee in GUARANTEES {
            let before = measure::load_average()?;
            let row = measure_row(plan, pipeline, guarantee, rounds)?;
            let Plan { warm_up, records, .. } = plan;
            let measured = format!(
                "{rounds} rounds of {records} records after {warm_up}, load {before} before and {} after",
                measure::load_average()?
            );
            let row = row.figures(&measured);
            println!("{}", report::lines(&row).trim_end());
            figures.put(row);
            folder.map_or(Ok(()), |folder| figures.write(folder))?;
        }
    }
    Ok(())
}

fn measure_row(plan: &Plan, pipeline: &Pipeline, guarantee: &'static str, rounds: u64) -> Result<Row> {
    let mut sides = vec![Side::KafkaStreams, Side::Sandbar];
    if pipeline.store.is_some() {
        sides.insert(1, Side::KafkaStreamsMerging);
    }
    let mut runs: Vec<Runs> = sides.into_iter().map(|side| Runs { side, rounds: Vec::new(), outputs: 0 }).collect();
    for round in 0..rounds {
        for runs in &mut runs {
            let words = pipeline.name.replace([' ', ','], "");
            let application_id = format!("peer-{words}-{guarantee}-{round}-{:?}", runs.side);
            let what = || format!("{}, {}, {guarantee}, round {round}", runs.side.name(), pipeline.name);
            let measured = processes::run(plan, runs.side, pipeline, guarantee, &application_id).with_context(what)?;
            runs.rounds.push(measured);
            // Results do not hang on the round.
            if round == 0 {
                let output = processes::output(&application_id);
                let all = plan.warm_up + plan.records;
                runs.outputs = checks::check(&plan.bootstrap, pipeline, runs.side, &output, all)?;
            }
        }
    }
    Ok(Row { pipeline: pipeline.name, guarantee, sides: runs })
}
