//! Kill campaigns: the built `sandbar` as processes on a real Kafka, killed, frozen and cut off while a loader writes and
//! a reader watches, and afterwards judged record by record. Sees the host only as a user can: command line, REST, topics.

mod campaign;
mod checker;
mod clients;
mod hosts;
mod random;
mod results;
mod rows;
mod self_test;
mod workload;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Result, ensure};
use clap::{Parser, Subcommand};
use e2e::repository;

use crate::rows::Request;

/// Seeds of each kind of defect in the checker's self-test.
const SELF_TEST_SEEDS: u64 = 20;

/// Kill campaigns on a real Kafka.
#[derive(Parser)]
#[command(name = "chaos")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Row X1: the checker finds defects that are put into recordings, and nothing else.
    SelfTest,
    /// Run a row in slices, each with the next seed, until it has had so many faults.
    Run {
        /// The row's name, as `chaos list` shows it.
        row: String,
        /// Faults in all.
        #[arg(long)]
        count: Option<u64>,
        /// Entries in each slice at least.
        #[arg(long, default_value_t = 200_000)]
        records: u64,
        /// The first slice's seed; a new one each time where none is given.
        #[arg(long)]
        seed: Option<u64>,
        /// Add the slices to docs/reliability/results.json.
        #[arg(long)]
        record: bool,
        /// Begin no slice after so many seconds.
        #[arg(long, default_value_t = 400)]
        seconds: u64,
    },
    /// Compare the table in the documentation with the results; SANDBAR_UPDATE=1 writes it anew.
    Document,
    /// List the rows.
    List,
}

fn main() -> ExitCode {
    match execute(Arguments::parse().command) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("chaos: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// False when something was found wrong that has been printed already.
fn execute(command: Command) -> Result<bool> {
    match command {
        Command::SelfTest => {
            let outcome = self_test::run(SELF_TEST_SEEDS)?;
            let self_test::Outcome { kinds, seeds, clean_runs } = outcome;
            println!(
                "chaos: X1: {kinds} kinds of defects x {seeds} seeds found, 0 false alarms in {clean_runs} clean runs"
            );
        }
        Command::Run { row, count, records, seed, record, seconds } => {
            let row = rows::find(&row)?;
            let seed = seed.map_or_else(fresh_seed, Ok)?;
            return run(row, count.unwrap_or(row.faults), records, seed, record, Duration::from_secs(seconds));
        }
        Command::Document => {
            let page = repository::root().join("docs/src/reliability.md");
            let update = std::env::var_os("SANDBAR_UPDATE").is_some_and(|value| value == "1");
            results::document(&results_file(), &page, update)?;
        }
        Command::List => rows::ROWS.iter().for_each(|row| println!("{:<4} {}", row.name, row.what)),
    }
    Ok(true)
}

fn results_file() -> PathBuf {
    repository::root().join("docs/reliability/results.json")
}

fn fresh_seed() -> Result<u64> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs() % 1_000_000)
}

fn run(row: &rows::Row, count: u64, records: u64, seed: u64, record: bool, limit: Duration) -> Result<bool> {
    ensure!(count > 0, "a row needs at least one fault");
    let started = Instant::now();
    let (mut left, mut seed, mut passed) = (count, seed, true);
    while left > 0 && started.elapsed() < limit {
        let faults = left.min(row.faults);
        let slice = (row.run)(&Request { seed, faults, records });
        passed &= slice.passed();
        if record {
            results::add(&results_file(), &slice)?;
        }
        let word = if slice.passed() { "ok" } else { "FAILED" };
        let percent = |percent| results::percentile(&slice.downtime_ms, percent).unwrap_or(0);
        println!(
            "chaos: {} seed {seed}: {word}, {} faults, {} records, defects {:?}, downtime ms p50 {} p99 {} max {}, \
             {} restored, figures {:?}, {} s",
            row.name,
            slice.faults,
            slice.records,
            slice.defects,
            percent(50),
            percent(99),
            percent(100),
            slice.records_restored,
            slice.figures,
            slice.seconds
        );
        (left, seed) = (left - faults, seed + 1);
    }
    if left > 0 {
        println!("chaos: {}: {left} of {count} faults are left for another run", row.name);
    }
    Ok(passed)
}
