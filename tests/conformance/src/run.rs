//! Runs the table's checks against one broker: first those that may run together, four at a time, then those that are
//! alone, then those across a restart, at last those that kill the broker. Prints a line for each and the counts. A
//! panic in a check is its failure, not the suite's.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};

use crate::broker::{Broker, Kind};
use crate::check::{Body, Check, Context, Outcome};
use crate::client::Clients;
use crate::report::{Report, Verdict};
use crate::{limits, table};

/// How many checks run side by side.
const TOGETHER: usize = 4;

/// What a run is asked for.
pub struct Options {
    pub kind: Kind,
    /// Only checks whose name holds this.
    pub only: Option<String>,
}

/// A result before the documented limits are looked at.
struct Done {
    name: String,
    proves: &'static str,
    outcome: Outcome,
    took: Duration,
}

/// Runs the checks and prints their lines; the counts come last and are printed by the caller.
pub fn run(options: &Options) -> Result<Report> {
    let broker = Broker::start(options.kind)?;
    let clients = Clients::new(&broker.bootstrap())?;
    let wanted = |check: &&Check| options.only.as_ref().is_none_or(|only| check.name.contains(only));
    let checks: Vec<Check> = table::CHECKS.iter().flat_map(|theme| theme.iter()).filter(wanted).copied().collect();
    let mut report = Report::new(&broker.name()?);
    let lines = Mutex::new(&mut report);
    let tell = |done: Done| {
        let verdict = verdict(options.kind, &done);
        println!("{:<9} {:>6.1} s  {}", verdict.word(), done.took.as_secs_f32(), done.name);
        if let Some(text) = verdict.detail() {
            println!("          {}", text.replace('\n', "\n          "));
        }
        lines.lock().unwrap_or_else(PoisonError::into_inner).add(done.name, done.proves, verdict);
    };
    together(&checks, &clients, &tell);
    for check in &checks {
        let Body::Alone(body) = check.body else { continue };
        tell(timed(check, || body(&Context::new(&clients, check.name, ""))));
    }
    across_restarts(&checks, &broker, &clients, &tell)?;
    for check in &checks {
        let Body::Kills(body) = check.body else { continue };
        tell(timed(check, || body(&Context::new(&clients, check.name, ""), &broker)));
    }
    Ok(report)
}

fn verdict(kind: Kind, done: &Done) -> Verdict {
    let limit = (kind == Kind::Embedded).then(|| limits::of(&done.name)).flatten();
    match (&done.outcome, limit) {
        (Ok(()), None) => Verdict::Passed,
        (Ok(()), Some(_)) => Verdict::Failed("this is a documented limit, yet it passed: remove the limit".to_owned()),
        (Err(_), Some(limit)) => Verdict::Limit(limit.to_owned()),
        (Err(error), None) => Verdict::Failed(format!("{error:#}")),
    }
}

fn timed(check: &Check, body: impl FnOnce() -> Outcome) -> Done {
    let started = Instant::now();
    let outcome = guarded(body);
    Done { name: check.name.to_owned(), proves: check.proves, outcome, took: started.elapsed() }
}

/// A panic becomes an error.
fn guarded<T>(body: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
        let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
        Err(anyhow!("the check panicked: {}", text.unwrap_or_default()))
    })
}

/// Does the work for each item, four at a time, in order of their start.
fn side_by_side<T: Send>(items: Vec<T>, work: impl Fn(T) + Sync) {
    let items = Mutex::new(items.into_iter());
    let next = || items.lock().unwrap_or_else(PoisonError::into_inner).next();
    thread::scope(|scope| {
        for _ in 0..TOGETHER {
            scope.spawn(|| {
                while let Some(item) = next() {
                    work(item);
                }
            });
        }
    });
}

fn together(checks: &[Check], clients: &Clients, tell: &(impl Fn(Done) + Sync)) {
    side_by_side(checks.iter().collect(), |check: &Check| {
        let Body::Together(body) = check.body else { return };
        tell(timed(check, || body(&Context::new(clients, check.name, ""))));
    });
}

/// Both halves of each check, with an orderly restart between them and then with a SIGKILL.
fn across_restarts(checks: &[Check], broker: &Broker, clients: &Clients, tell: &(impl Fn(Done) + Sync)) -> Result<()> {
    let halves = |check: &Check| match check.body {
        Body::AcrossRestart(before) => Some((*check, before)),
        _ => None,
    };
    let halves: Vec<_> = checks.iter().filter_map(halves).collect();
    if halves.is_empty() {
        return Ok(());
    }
    for (way, killed) in [("restart", false), ("kill -9", true)] {
        let waiting = Mutex::new(Vec::new());
        side_by_side(halves.clone(), |(check, before)| {
            let context = Context::new(clients, check.name, &way.replace(' ', ""));
            let started = Instant::now();
            let after = guarded(|| before(&context).context("before the restart"));
            let half = (check, context, after, started.elapsed());
            waiting.lock().unwrap_or_else(PoisonError::into_inner).push(half);
        });
        if killed {
            broker.kill()?
        } else {
            broker.stop()?
        }
        broker.start_again()?;
        clients.wait_for_broker()?;
        let waiting = waiting.into_inner().unwrap_or_else(PoisonError::into_inner);
        side_by_side(waiting, |(check, context, after, before)| {
            let mut done = timed(&check, || after.and_then(|after| after(&context)));
            done.name = format!("{} ({way})", check.name);
            done.took += before;
            tell(done);
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests;
