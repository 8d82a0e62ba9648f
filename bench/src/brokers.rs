//! `make bench-broker`: the embedded broker as a process of its own beside real Kafka, with the same probe. Rates,
//! delays, transactions, start times and memory. The two take turns, round by round, and the median of the rounds
//! counts. It prints figures and judges nothing.

mod probe;
mod subject;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use probe::{Probe, RECORD_BYTES};
use subject::{End, Subject};

use crate::measure::{self, spread};
use crate::{setting, show};

/// Bytes of a record where the broker is only filled.
const LARGE_RECORD_BYTES: u64 = 1_000;
/// Real Kafka takes seconds for each.
const STARTS_MAX: usize = 3;
const PARTITION_COUNTS: [i32; 2] = [1, 4];

/// How long the benchmark is.
struct Plan {
    rounds: usize,
    records: u64,
    round_trips: usize,
    transactions: usize,
    /// MB of records for the start times.
    megabytes: u64,
}

/// Figures by name, for each of the two.
#[derive(Default)]
struct Figures {
    rows: Vec<(String, [Vec<f64>; 2], usize)>,
}

impl Figures {
    fn add(&mut self, name: &str, subject: usize, value: f64, decimals: usize) {
        let at = self.rows.iter().position(|(known, ..)| known == name).unwrap_or_else(|| {
            self.rows.push((name.to_owned(), Default::default(), decimals));
            self.rows.len() - 1
        });
        self.rows[at].1[subject].push(value);
    }

    fn print(&self, names: [&str; 2]) {
        println!("| what | {} | {} | {} / {} |", names[0], names[1], names[0], names[1]);
        println!("| --- | ---: | ---: | ---: |");
        for (name, [one, other], decimals) in &self.rows {
            let ratio = spread(one.iter().zip(other).map(|(one, other)| one / other));
            let of = |values: &[f64]| show(spread(values.iter().copied()), *decimals);
            println!("| {name} | {} | {} | {} |", of(one), of(other), show(ratio, 2));
        }
    }
}

/// Runs it.
pub fn run() -> Result<()> {
    let plan = Plan {
        rounds: setting("SANDBAR_BENCH_ROUNDS", 5)? as usize,
        records: setting("SANDBAR_BENCH_BROKER_RECORDS", 1_000_000)?,
        round_trips: setting("SANDBAR_BENCH_ROUND_TRIPS", 2_000)? as usize,
        transactions: setting("SANDBAR_BENCH_TRANSACTIONS", 300)? as usize,
        megabytes: setting("SANDBAR_BENCH_MEGABYTES", 1_000)?,
    };
    let path = |name: &str| std::env::var_os(name).map(PathBuf::from).with_context(|| format!("{name} is not set"));
    let dir = std::env::temp_dir().join(format!("sandbar-bench-broker-{}", std::process::id()));
    let mut subjects = [
        Subject::embedded(&path("SANDBAR_BENCH_BINARY")?, &dir)?,
        Subject::kafka(&path("SANDBAR_BENCH_KAFKA_SCRIPT")?)?,
    ];
    let names = [subjects[0].name(), subjects[1].name()];
    println!("load {} at the start, {} rounds, median (min–max)\n", measure::load_average()?, plan.rounds);
    let mut figures = Figures::default();
    let measured = measure_all(&mut subjects, &plan, &mut figures);
    // What was measured before something failed is still worth its while.
    figures.print(names);
    println!("\nload {} at the end", measure::load_average()?);
    measured
}

fn measure_all(subjects: &mut [Subject; 2], plan: &Plan, figures: &mut Figures) -> Result<()> {
    starts(subjects, plan, figures, "empty", &[End::Clean])?;
    for (index, subject) in subjects.iter_mut().enumerate() {
        subject.start()?;
        std::thread::sleep(Duration::from_secs(1));
        figures.add("memory at rest, MiB", index, subject.memory_mib("VmRSS")?, 0);
    }
    for round in 0..plan.rounds {
        for (index, subject) in subjects.iter().enumerate() {
            rates(subject, index, round, plan, figures)?;
            delays(subject, index, round, plan, figures)?;
        }
    }
    for (index, subject) in subjects.iter().enumerate() {
        figures.add("memory after the run, MiB", index, subject.memory_mib("VmRSS")?, 0);
        figures.add("memory, peak, MiB", index, subject.memory_mib("VmHWM")?, 0);
    }
    fill(subjects, plan)?;
    let filled = format!("on {} MB more", plan.megabytes);
    starts(subjects, plan, figures, &filled, &[End::Clean, End::Killed])?;
    for (index, subject) in subjects.iter_mut().enumerate() {
        subject.start()?;
        std::thread::sleep(Duration::from_secs(1));
        figures.add("memory at rest on all of it, MiB", index, subject.memory_mib("VmRSS")?, 0);
    }
    Ok(())
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// Starts after a clean end and after a kill, and leaves them ended.
fn starts(subjects: &mut [Subject; 2], plan: &Plan, figures: &mut Figures, what: &str, ends: &[End]) -> Result<()> {
    for &end in ends {
        let how = if end == End::Clean { "a clean end" } else { "kill -9" };
        for _ in 0..plan.rounds.min(STARTS_MAX) {
            for (index, subject) in subjects.iter_mut().enumerate() {
                // What is measured is the start after this end; the first one of all makes the folder.
                subject.start()?;
                // One that is killed in the middle of its start is another matter.
                std::thread::sleep(Duration::from_secs(1));
                subject.end(end)?;
                let took = subject.start()?;
                figures.add(&format!("start, {what}, after {how}, ms"), index, milliseconds(took), 1);
                subject.end(End::Clean)?;
            }
        }
    }
    Ok(())
}

fn rates(subject: &Subject, index: usize, round: usize, plan: &Plan, figures: &mut Figures) -> Result<()> {
    let probe = Probe::for_rates(&subject.address()?)?;
    for partitions in PARTITION_COUNTS {
        let topic = format!("rates-{partitions}-{round}");
        probe.create_topic(&topic, partitions)?;
        let on = if partitions == 1 { "1 partition".to_owned() } else { format!("{partitions} partitions") };
        let mut note = |what: &str, took: Duration, cpu: Duration| {
            let records = plan.records as f64;
            figures.add(&format!("{what}, {on}, k rec/s"), index, records / took.as_secs_f64() / 1e3, 0);
            let per_record = cpu.as_secs_f64() * 1e6 / records;
            figures.add(&format!("{what}, {on}, broker's CPU µs/rec"), index, per_record, 2);
        };
        let before = subject.cpu()?;
        let took = probe.produce(&topic, partitions, plan.records, RECORD_BYTES)?;
        let between = subject.cpu()?;
        note("produce", took, between.saturating_sub(before));
        let took = probe.consume(&topic, partitions, plan.records)?;
        note("consume", took, subject.cpu()?.saturating_sub(between));
    }
    Ok(())
}

fn delays(subject: &Subject, index: usize, round: usize, plan: &Plan, figures: &mut Figures) -> Result<()> {
    let probe = Probe::for_delays(&subject.address()?)?;
    let topic = format!("delays-{round}");
    probe.create_topic(&topic, 1)?;
    let mut note = |what: &str, mut found: Vec<Duration>| {
        found.sort();
        for (name, share) in [("p50", 50), ("p99", 99)] {
            if let Some(value) = found.get(found.len() * share / 100) {
                figures.add(&format!("{what}, {name}, ms"), index, milliseconds(*value), 2);
            }
        }
    };
    note("produce → consume", probe.there_and_back(&topic, plan.round_trips)?);
    if plan.transactions > 0 {
        note("transaction of 10 records", probe.transactions(&topic, plan.transactions)?);
    }
    Ok(())
}

/// Fills both with large records.
fn fill(subjects: &mut [Subject; 2], plan: &Plan) -> Result<()> {
    for subject in subjects.iter_mut() {
        let probe = Probe::for_rates(&subject.address()?)?;
        probe.create_topic("filled", 4)?;
        let records = plan.megabytes * 1_000_000 / LARGE_RECORD_BYTES;
        if records > 0 {
            probe.produce("filled", 4, records, LARGE_RECORD_BYTES as usize)?;
        }
        drop(probe);
        subject.end(End::Clean)?;
    }
    Ok(())
}
