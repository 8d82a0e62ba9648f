//! Kill campaigns: the built `sandbar` as processes on a real Kafka, killed, frozen and cut off while a loader writes
//! and a reader watches, and afterwards judged record by record. Sees the host only as a user can: command line, REST,
//! topics.

mod asking;
mod campaign;
mod checker;
mod clients;
mod findings;
mod hosts;
mod poison;
mod proxy;
mod queries;
mod random;
mod registers;
mod results;
mod rows;
mod self_test;
mod swaps;
mod workload;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Result, ensure};
use clap::{Parser, Subcommand, ValueEnum};
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
        #[arg(long)]
        records: Option<u64>,
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
    /// Run the next slices of every row that has not come to its number of faults yet, and add them to the results.
    Long {
        /// Begin no slice after so many seconds.
        #[arg(long, default_value_t = 400)]
        seconds: u64,
    },
    /// Rows G3, ending with one line of counts.
    Swaps {
        /// `ci` for some of all in a minute, `long` for the next slices of what is not at its number yet.
        profile: Profile,
        /// Begin no slice after so many seconds.
        #[arg(long, default_value_t = 400)]
        seconds: u64,
    },
    /// What a swap costs, under a steady load.
    BenchSwaps {
        /// Swaps whose pauses are measured.
        #[arg(long, default_value_t = 60)]
        swaps: u64,
        /// New modules of each size.
        #[arg(long, default_value_t = 10)]
        deploys: u64,
        #[arg(long, default_value_t = 20_000)]
        records_per_second: u64,
    },
    /// Succeeds where the row needs the binary with failpoints.
    #[command(hide = true)]
    NeedsFailpoints { row: String },
    /// Compare the table in the documentation with the results; SANDBAR_UPDATE=1 writes it anew.
    Document,
    /// List the rows.
    List,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Profile {
    Ci,
    Long,
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
            let self_test::Outcome { kinds, seeds, clean_runs } = swaps::self_test::run(SELF_TEST_SEEDS)?;
            println!(
                "chaos: X1 of swaps: {kinds} kinds of defects x {seeds} seeds found, 0 false alarms in {clean_runs} clean \
                 runs"
            );
        }
        Command::Run { row, count, records, seed, record, seconds } => {
            let row = rows::find(&row)?;
            let work = Work {
                count: count.unwrap_or(row.faults),
                records: records.unwrap_or(row.records),
                seed: seed.map_or_else(fresh_seed, Ok)?,
                record,
            };
            return work.run(row, Instant::now() + Duration::from_secs(seconds));
        }
        Command::Long { seconds } => return long("", Instant::now() + Duration::from_secs(seconds)),
        Command::Swaps { profile, seconds } => {
            return swap_rows(profile, Instant::now() + Duration::from_secs(seconds));
        }
        Command::BenchSwaps { swaps, deploys, records_per_second } => {
            let slice = rows::bench_swaps(swaps::bench::Amount { swaps, deploys }, records_per_second);
            println!("{}", slice.summary());
            return Ok(slice.passed());
        }
        Command::NeedsFailpoints { row } => return Ok(rows::find(&row)?.failpoints),
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

/// Slices of one row.
struct Work {
    /// Faults in all.
    count: u64,
    records: u64,
    seed: u64,
    record: bool,
}

impl Work {
    /// Runs slices until there were enough faults or the time is over; false when one did not pass.
    fn run(&self, row: &'static rows::Row, deadline: Instant) -> Result<bool> {
        ensure!(self.count > 0, "a row needs at least one fault");
        let (mut left, mut seed, mut passed) = (self.count, self.seed, true);
        while left > 0 && Instant::now() < deadline {
            let faults = left.min(row.faults);
            let slice = (row.run)(&Request { name: row.name, seed, faults, records: self.records });
            passed &= slice.passed();
            // What could not even begin, for want of a broker or of time on the machine, is no result.
            if self.record && (slice.passed() || slice.faults > 0) {
                results::add(&results_file(), &slice)?;
            }
            println!("{}", slice.summary());
            (left, seed) = (left - faults, seed + 1);
        }
        if left > 0 {
            println!("chaos: {}: {left} of {} faults are left for another run", row.name, self.count);
        }
        Ok(passed)
    }
}

/// Rows G3 in a short or a long form, and one line of what came of them.
fn swap_rows(profile: Profile, deadline: Instant) -> Result<bool> {
    let (slices, passed) = match profile {
        Profile::Ci => {
            let mut slices = Vec::new();
            for name in ["G3-ci", "G3-migrate-ci"] {
                let row = rows::find(name)?;
                let slice = (row.run)(&Request { name: row.name, seed: 1, faults: row.faults, records: row.records });
                println!("{}", slice.summary());
                slices.push(slice);
            }
            let passed = slices.iter().all(|slice| slice.passed());
            (slices, passed)
        }
        Profile::Long => {
            let passed = long("G3", deadline)?;
            let slices = results::read(&results_file())?;
            (slices.into_iter().filter(|slice| slice.row.starts_with("G3") && slice.passed()).collect(), passed)
        }
    };
    println!("{}", swaps::summary(&slices));
    Ok(passed)
}

/// Goes on where the results say that rows have come to, of those whose names begin so; one slice of each in turn.
fn long(prefix: &str, deadline: Instant) -> Result<bool> {
    let mut passed = true;
    loop {
        let done = results::read(&results_file())?;
        let faults = |row: &rows::Row| {
            done.iter().filter(|slice| slice.row == row.name && slice.passed()).map(|slice| slice.faults).sum::<u64>()
        };
        // The row that is least far.
        let next = rows::ROWS
            .iter()
            .filter(|row| row.name.starts_with(prefix) && faults(row) < row.goal)
            .min_by_key(|row| faults(row) * 1_000 / row.goal);
        let Some(row) = next else {
            println!("chaos: every row has had its faults");
            return Ok(passed);
        };
        if Instant::now() >= deadline || !passed {
            println!(
                "chaos: {} of {} faults of {} are left for another run",
                row.goal - faults(row),
                row.goal,
                row.name
            );
            return Ok(passed);
        }
        let count = row.faults.min(row.goal - faults(row));
        passed = Work { count, records: row.records, seed: fresh_seed()?, record: true }.run(row, deadline)?;
    }
}
