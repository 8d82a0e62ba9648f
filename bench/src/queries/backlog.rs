//! Part (d): how much slower records are processed while the host is asked as often as it answers. A backlog waits when
//! the host starts; the same driver on the plain route says how much of it is the driver's own use of the machine.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, ensure};

use super::Plan;
use super::bed::{Bed, LIMIT, read_request};
use super::driver::{Load, Measured, drive_while};
use super::plain::PlainRoute;
use crate::measure::spread;
use crate::show;

/// What goes on while the backlog is processed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Meanwhile {
    Nothing,
    PlainRoute,
    Reads,
}

/// One backlog.
struct Run {
    records_per_second: f64,
    asked: Option<Measured>,
}

/// The table.
///
/// # Errors
/// When a backlog is not processed.
pub fn run(plan: &Plan, bed: &mut Bed, plain: &PlainRoute) -> Result<()> {
    let cases = [Meanwhile::Nothing, Meanwhile::PlainRoute, Meanwhile::Reads];
    let mut runs: [Vec<Run>; 3] = Default::default();
    for _ in 0..plan.rounds {
        for (runs, meanwhile) in runs.iter_mut().zip(cases) {
            bed.stop()?;
            bed.produce(0..plan.backlog)?;
            bed.start()?;
            runs.push(process(plan, bed, plain, meanwhile)?);
        }
    }
    println!("\n## (d) a backlog of {} records processed, one stream thread, exactly_once_v2\n", plan.backlog);
    println!("| meanwhile | k records/s | of the rate with nothing | k requests/s | failed |");
    println!("| --- | ---: | ---: | ---: | ---: |");
    let names = ["nothing", "the driver asks the plain route", "the driver reads keys of the host"];
    for (name, of_case) in names.into_iter().zip(&runs) {
        let pairs = of_case.iter().zip(&runs[0]);
        let ratio = spread(pairs.map(|(run, alone)| run.records_per_second / alone.records_per_second));
        let asked = || of_case.iter().filter_map(|run| run.asked.as_ref());
        println!(
            "| {name} | {} | {} | {} | {} |",
            show(spread(of_case.iter().map(|run| run.records_per_second / 1_000.0)), 0),
            show(ratio, 2),
            show(spread(asked().map(|asked| asked.per_second() / 1_000.0)), 1),
            asked().map(|asked| asked.failed).sum::<u64>()
        );
    }
    Ok(())
}

/// The rate from the first look at which the host is busy to the last record.
fn process(plan: &Plan, bed: &Bed, plain: &PlainRoute, meanwhile: Meanwhile) -> Result<Run> {
    let done = AtomicBool::new(false);
    let load = match meanwhile {
        Meanwhile::Nothing => None,
        Meanwhile::PlainRoute => Some(Load::of(plan, plain.address, vec![plain.process_id()])),
        Meanwhile::Reads => Some(Load::of(plan, bed.address()?, vec![bed.process_id()?])),
    };
    std::thread::scope(|scope| {
        let goes_on = || !done.load(Ordering::Relaxed);
        let asking = load
            .map(|load| scope.spawn(move || drive_while(&load, &goes_on, &|number| read_request(number % plan.keys))));
        let measured = rate(bed, plan.backlog);
        done.store(true, Ordering::Relaxed);
        let asked = asking.map(|asking| asking.join().map_err(|_| anyhow!("the driver panicked"))?);
        Ok(Run { records_per_second: measured?, asked: asked.transpose()? })
    })
}

fn rate(bed: &Bed, records: u64) -> Result<f64> {
    const LOOK: Duration = Duration::from_millis(20);
    let mut first = None;
    let started = Instant::now();
    loop {
        let (processed, now) = (bed.processed()?, Instant::now());
        let (from, since) = *first.get_or_insert((processed, now));
        if processed == 0 {
            first = None;
        }
        if processed >= records {
            let (of_it, time) = (processed - from, now.duration_since(since));
            ensure!(of_it * 2 > records, "the backlog was nearly done before it was looked at; make it larger");
            return Ok(of_it as f64 / time.as_secs_f64());
        }
        ensure!(started.elapsed() < LIMIT, "{processed} of {records} records processed in {LIMIT:?}");
        std::thread::sleep(LOOK);
    }
}
