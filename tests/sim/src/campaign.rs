//! Playing many schedules at once: each on one OS thread, as many at a time as the machine has cores. What comes of it
//! does not depend on how many there are.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::{Kind, Report, Scenario, Violation, run};

/// A schedule that showed something that must not be.
#[derive(Debug)]
pub struct Failure {
    pub kind: Kind,
    pub seed: u64,
    pub violations: Vec<Violation>,
    pub summary: String,
}

/// What came of many schedules.
#[derive(Debug, Default)]
pub struct Campaign {
    /// How many were played, by kind.
    pub played: BTreeMap<Kind, u64>,
    pub failures: Vec<Failure>,
    /// Events and faults by name.
    pub counts: BTreeMap<&'static str, u64>,
    /// Where in a commit hosts have crashed or stood still.
    pub coverage: BTreeMap<String, u64>,
}

/// The schedules of a campaign with these numbers: every hundred holds the kinds in their shares, and each kind's seeds
/// are counted on.
pub fn schedules(from: u64, to: u64) -> Vec<(Kind, u64)> {
    let schedule = |number: u64| {
        let (hundred, mut place) = (number / 100, number % 100);
        // Spread over the hundred, so that small campaigns have every kind; 37 has no factor in common with 100.
        place = place * 37 % 100;
        for kind in Kind::ALL {
            if place < kind.percent() {
                return (kind, hundred * kind.percent() + place);
            }
            place -= kind.percent();
        }
        unreachable!("the shares make a hundred")
    };
    (from..to).map(schedule).collect()
}

impl Campaign {
    /// Plays these schedules. Stops early once `failures_max` have failed.
    pub fn play(schedules: &[(Kind, u64)], failures_max: usize) -> Self {
        let next = AtomicUsize::new(0);
        let result = Mutex::new(Self::default());
        let add = |report: Report| {
            let mut campaign = result.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            campaign.add(report);
            campaign.failures.len() >= failures_max
        };
        let work = || {
            while let Some(&(kind, seed)) = schedules.get(next.fetch_add(1, Ordering::SeqCst)) {
                if add(run(&Scenario::new(kind, seed), false)) {
                    next.store(schedules.len(), Ordering::SeqCst);
                }
            }
        };
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        std::thread::scope(|scope| (0..cores).for_each(|_| drop(scope.spawn(work))));
        let mut campaign = result.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        campaign.failures.sort_by_key(|failure| (failure.kind, failure.seed));
        campaign
    }

    fn add(&mut self, report: Report) {
        *self.played.entry(report.kind).or_default() += 1;
        for (name, count) in report.counts {
            *self.counts.entry(name).or_default() += count;
        }
        for (place, count) in report.coverage {
            *self.coverage.entry(place).or_default() += u64::from(count);
        }
        if !report.violations.is_empty() {
            let Report { kind, seed, violations, summary, .. } = report;
            self.failures.push(Failure { kind, seed, violations, summary });
        }
    }

    /// The failures, for people, with the command that repeats each.
    pub fn describe_failures(&self) -> String {
        let mut lines = Vec::new();
        for Failure { kind, seed, violations, summary } in &self.failures {
            lines.push(format!("make sim KIND={kind} SEED={seed}: {summary}"));
            lines.extend(violations.iter().take(5).map(|violation| format!("    {violation}")));
        }
        lines.join("\n")
    }
}
