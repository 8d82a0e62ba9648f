//! How fast the instances of one application may log together: a bucket of lines and one of bytes, each filled once a
//! second's worth. A line takes from both or from neither. What was dropped, for whatever reason, is told in one line a
//! second at most. The line reaches the host's log while the call waits, so that an application without this bound
//! would slow its neighbours down.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::limits::{LOG_BYTES_RATE_KEY, LOG_KEY, LOG_LINES_RATE_KEY, Limits};

const NOTICE_INTERVAL: Duration = Duration::from_secs(1);

/// Lines that were dropped, by the limit that they came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Dropped {
    /// By `processor.log.max.lines`.
    pub of_call: u64,
    /// By `processor.log.max.lines.per.second`.
    pub lines_per_second: u64,
    /// By `processor.log.max.bytes.per.second`.
    pub bytes_per_second: u64,
}

impl Dropped {
    pub fn total(&self) -> u64 {
        self.by_key().iter().map(|(_, lines)| lines).sum()
    }

    pub fn by_key(&self) -> [(&'static str, u64); 3] {
        [
            (LOG_KEY, self.of_call),
            (LOG_LINES_RATE_KEY, self.lines_per_second),
            (LOG_BYTES_RATE_KEY, self.bytes_per_second),
        ]
    }

    fn add(&mut self, other: &Self) {
        self.of_call += other.of_call;
        self.lines_per_second += other.lines_per_second;
        self.bytes_per_second += other.bytes_per_second;
    }
}

/// Why a line may not be logged now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TooFast {
    Lines,
    Bytes,
}

/// What the instances of an application share.
#[derive(Debug, Default)]
pub(crate) struct LogRate(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    lines: Bucket,
    bytes: Bucket,
    /// Not told yet.
    dropped: Dropped,
    told_at: Option<Instant>,
}

impl LogRate {
    /// Takes a line of so many bytes out of the buckets.
    pub fn take(&self, now: Instant, line_bytes: usize, limits: &Limits) -> Result<(), TooFast> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let line_bytes = line_bytes as u64;
        let State { lines, bytes, .. } = &mut *state;
        if lines.filled(now, limits.log_max_lines_per_second) < NANOS {
            return Err(TooFast::Lines);
        }
        // A line that is larger than the bucket takes all of it: less than a line a second is no sensible bound.
        let line_bytes = line_bytes.min(limits.log_max_bytes_per_second);
        if bytes.filled(now, limits.log_max_bytes_per_second) < u128::from(line_bytes) * NANOS {
            return Err(TooFast::Bytes);
        }
        lines.spend(1);
        bytes.spend(line_bytes);
        Ok(())
    }

    /// Adds what a call has lost, and gives out the sum where it is time to tell it.
    pub fn dropped(&self, now: Instant, dropped: &Dropped) -> Option<Dropped> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.dropped.add(dropped);
        let is_time = state.told_at.is_none_or(|told_at| now.saturating_duration_since(told_at) >= NOTICE_INTERVAL);
        if state.dropped.total() == 0 || !is_time {
            return None;
        }
        state.told_at = Some(now);
        Some(std::mem::take(&mut state.dropped))
    }
}

/// Billionths of one unit, so that a slow rate fills at every look.
const NANOS: u128 = 1_000_000_000;

#[derive(Debug, Default)]
struct Bucket {
    nanos: u128,
    filled_at: Option<Instant>,
}

impl Bucket {
    /// What is in it, in billionths, after it was filled for the time since the last look.
    fn filled(&mut self, now: Instant, per_second: u64) -> u128 {
        let full = u128::from(per_second) * NANOS;
        let passed = self.filled_at.map_or(NANOS, |at| now.saturating_duration_since(at).as_nanos());
        self.nanos = self.nanos.saturating_add(passed.min(NANOS) * u128::from(per_second)).min(full);
        self.filled_at = Some(self.filled_at.map_or(now, |at| at.max(now)));
        self.nanos
    }

    fn spend(&mut self, units: u64) {
        self.nanos = self.nanos.saturating_sub(u128::from(units) * NANOS);
    }
}

#[cfg(test)]
mod tests;
