//! `make bench-queries`: what the REST interface of a host costs, beside a route of the same framework that does
//! nothing and beside RocksDB by itself. The driver shares the machine with what it measures, so the CPU time of the
//! process that answers is told as well. What is compared takes turns, round by round. Needs `SANDBAR_KAFKA_BOOTSTRAP`
//! of a fresh broker. Prints figures and judges nothing.

mod backlog;
mod bed;
mod driver;
pub mod plain;
mod scan;
mod table;
mod writes;

use std::time::Duration;

use anyhow::{Context, Result};

use self::bed::Bed;
use self::driver::{Load, Measured, drive};
use self::plain::PlainRoute;
use self::table::Series;
use crate::{measure, setting};

/// How long the benchmark is.
pub struct Plan {
    pub bootstrap: String,
    pub rounds: u64,
    /// Keys in the store.
    pub keys: u64,
    /// Connections of the driver, each with one request at a time.
    pub connections: usize,
    /// Of one measurement.
    pub time: Duration,
    /// Records that come in while a host that is busy is asked.
    pub records_per_second: u64,
    /// Records that wait when a host starts.
    pub backlog: u64,
    /// The parts that are measured, each by its letter.
    pub parts: String,
}

impl Plan {
    fn from_environment() -> Result<Self> {
        Ok(Self {
            bootstrap: std::env::var("SANDBAR_KAFKA_BOOTSTRAP").context("needs SANDBAR_KAFKA_BOOTSTRAP")?,
            rounds: setting("SANDBAR_BENCH_ROUNDS", 5)?,
            keys: setting("SANDBAR_BENCH_QUERIES_KEYS", 1_000_000)?,
            connections: usize::try_from(setting("SANDBAR_BENCH_QUERIES_CONNECTIONS", 16)?)?,
            time: Duration::from_secs(setting("SANDBAR_BENCH_QUERIES_SECONDS", 4)?),
            records_per_second: setting("SANDBAR_BENCH_QUERIES_RECORDS_PER_SECOND", 20_000)?,
            backlog: setting("SANDBAR_BENCH_QUERIES_BACKLOG", 1_000_000)?,
            parts: std::env::var("SANDBAR_BENCH_ONLY").unwrap_or_else(|_| "abcde".to_owned()),
        })
    }

    fn has(&self, part: char) -> bool {
        self.parts.contains(part)
    }
}

/// The tables.
pub fn run() -> Result<()> {
    let plan = Plan::from_environment()?;
    println!(
        "load {} at the start; {} keys, {} connections, {} s a measurement, {} rounds by turns, median (min–max)",
        measure::load_average()?,
        plan.keys,
        plan.connections,
        plan.time.as_secs(),
        plan.rounds
    );
    let mut bed = Bed::make(&plan)?;
    let plain = PlainRoute::start(bed.answer_bytes()?)?;
    if plan.has('a') {
        point_reads(&plan, &bed, &plain)?;
    }
    if plan.has('c') {
        scan::run(&plan, &bed)?;
    }
    if plan.has('e') {
        writes::run(&plan, &bed)?;
    }
    if plan.has('d') {
        backlog::run(&plan, &mut bed, &plain)?;
    }
    if plan.has('b') {
        forwarded_reads(&plan, &mut bed)?;
    }
    println!("\nload {} at the end", measure::load_average()?);
    bed.end()
}

/// Part (a): reads of single keys beside the plain route, with nothing else to do and while records are processed.
fn point_reads(plan: &Plan, bed: &Bed, plain: &PlainRoute) -> Result<()> {
    let mut idle = (Series::new("point read, idle"), Series::new("plain route, idle"));
    for _ in 0..plan.rounds {
        idle.0.add(read_keys(plan, bed)?);
        idle.1.add(ask_plain(plan, plain)?);
    }
    let mut busy = (Series::new("point read, records come in"), Series::new("plain route, records come in"));
    let processed = bed.while_fed(plan.records_per_second, || {
        for _ in 0..plan.rounds {
            busy.0.add(read_keys(plan, bed)?);
            busy.1.add(ask_plain(plan, plain)?);
        }
        Ok(())
    })?;
    println!("\n## (a) reads of single keys of one host, beside a route that answers with so many bytes by heart\n");
    print!("{}", table::head("of the plain route's rate"));
    for (reads, plain) in [&idle, &busy] {
        print!("{}{}", reads.line(Some(plain)), plain.line(None));
    }
    println!(
        "\nWhere records came in, {processed:.0} a second were processed, and their CPU time is in that of the reads."
    );
    Ok(())
}

fn read_keys(plan: &Plan, bed: &Bed) -> Result<Measured> {
    let load = Load::of(plan, bed.address()?, vec![bed.process_id()?]);
    drive(&load, &|number| bed.read(number % plan.keys))
}

fn ask_plain(plan: &Plan, plain: &PlainRoute) -> Result<Measured> {
    let load = Load::of(plan, plain.address, vec![plain.process_id()]);
    drive(&load, &|number| bed::read_request(number % plan.keys))
}

/// Part (b): reads that the host answers by asking the other host, beside reads that it answers by itself.
fn forwarded_reads(plan: &Plan, bed: &mut Bed) -> Result<()> {
    let pair = bed.with_second_host()?;
    let mut local = Series::new("read of a key that is here");
    let mut forwarded = Series::new("read of a key of the other host");
    for _ in 0..plan.rounds {
        for (series, partitions) in [(&mut local, &pair.here), (&mut forwarded, &pair.there)] {
            let load = Load::of(plan, bed.address()?, vec![bed.process_id()?, pair.process_id()]);
            series.add(drive(&load, &|number| bed::read_request(bed::key_in(partitions, number, plan.keys)))?);
        }
    }
    println!("\n## (b) reads at one of two hosts, CPU time of both together\n");
    print!("{}", table::head("of the rate of reads that are here"));
    print!("{}{}", local.line(None), forwarded.line(Some(&local)));
    Ok(())
}
