//! What a version does while it is on probation, and when that is too much. Counts and compares; decides nothing by
//! itself.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::Rates;
use crate::processor::ProcessorError;

/// How many records there must be before rates of outputs are compared: a window that closes may forward many at once.
const OUTPUT_RECORDS_MIN: u64 = 1_000;

/// What a version has done, over all tasks of the process that ran it.
#[derive(Debug, Default)]
pub struct VersionTally {
    records: AtomicU64,
    outputs: AtomicU64,
    /// Calls that ended in a trap, past a limit, or with a broken outcome.
    crashes: AtomicU64,
    /// Of these, the ones that ran too long.
    deadlines: AtomicU64,
    /// Records and punctuations that were given up because of it.
    given_up: AtomicU64,
}

impl VersionTally {
    pub(crate) fn processed(&self, records: u64, outputs: u64) {
        self.records.fetch_add(records, Relaxed);
        self.outputs.fetch_add(outputs, Relaxed);
    }

    pub(crate) fn failed(&self, error: &ProcessorError) {
        if matches!(error, ProcessorError::Deadline { .. }) {
            self.deadlines.fetch_add(1, Relaxed);
        }
        self.crashes.fetch_add(u64::from(error.is_crash()), Relaxed);
    }

    pub(crate) fn gave_up(&self) {
        self.given_up.fetch_add(1, Relaxed);
    }

    pub fn records(&self) -> u64 {
        self.records.load(Relaxed)
    }

    pub fn outputs(&self) -> u64 {
        self.outputs.load(Relaxed)
    }

    pub fn crashes(&self) -> u64 {
        self.crashes.load(Relaxed)
    }

    pub fn deadlines(&self) -> u64 {
        self.deadlines.load(Relaxed)
    }

    pub fn given_up(&self) -> u64 {
        self.given_up.load(Relaxed)
    }

    pub(super) fn rates(&self) -> Rates {
        let records = self.records();
        let per_record = |count: u64| count as f64 / (records + count).max(1) as f64;
        Rates {
            crashes: per_record(self.crashes()),
            given_up: per_record(self.given_up()),
            outputs: (records >= OUTPUT_RECORDS_MIN).then(|| self.outputs() as f64 / records as f64),
        }
    }
}

/// What a version may do before it is confirmed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Probation {
    /// Failed calls, and as many records given up, beyond those that the version before would have had.
    pub failures_max: u64,
    /// By how many times the records forwarded for each record may differ from the version before, up or down; 0 does
    /// not compare them.
    pub output_factor: f64,
}

impl Probation {
    /// Why the version has gone too far.
    pub(super) fn judge(&self, tally: &VersionTally, before: &Rates) -> Option<String> {
        let records = tally.records();
        let too_many = |what: &str, found: u64, rate: f64| {
            let bound = self.failures_max + expected_at_most(rate, records + found);
            (found > bound).then(|| {
                format!(
                    "{found} {what} in {records} records, more than the {bound} that are allowed by probation.failures.max \
                     = {} and the version before, which had {:.4} % of them",
                    self.failures_max,
                    100.0 * rate
                )
            })
        };
        too_many("failed calls", tally.crashes(), before.crashes)
            .or_else(|| too_many("records given up", tally.given_up(), before.given_up))
            .or_else(|| self.judge_outputs(tally, before))
    }

    fn judge_outputs(&self, tally: &VersionTally, before: &Rates) -> Option<String> {
        let records = tally.records();
        let old = before.outputs.filter(|old| *old > 0.0)?;
        if self.output_factor <= 0.0 || records < OUTPUT_RECORDS_MIN {
            return None;
        }
        let new = tally.outputs() as f64 / records as f64;
        if new <= old * self.output_factor && new * self.output_factor >= old {
            return None;
        }
        Some(format!(
            "it forwards {new:.3} records for each, the version before {old:.3}: more than {} times apart \
             (probation.output.factor)",
            self.output_factor
        ))
    }
}

/// As many as are to be expected among so many records, and four standard deviations more: chance alone passes this
/// about once in 30,000 times.
fn expected_at_most(rate: f64, records: u64) -> u64 {
    let mean = rate * records as f64;
    (mean + 4.0 * mean.sqrt()).ceil() as u64
}
