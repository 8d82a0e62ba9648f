//! What the instances of an application have used, counted once per call. Any thread may read it at any time.

use std::sync::atomic::{AtomicU64, Ordering};

use engine::processor::ProcessorError;
use rustix::time::{ClockId, clock_gettime};

use crate::limits::{DEADLINE_KEY, KEYS, Limits, MEMORY_KEY};
use crate::log_rate::{Dropped, LogRate};

/// Counters of one application, shared by all its instances.
#[derive(Debug, Default)]
pub struct Usage {
    calls: AtomicU64,
    records: AtomicU64,
    cpu_ns: AtomicU64,
    host_calls: AtomicU64,
    failures: AtomicU64,
    instances: AtomicU64,
    log_lines: AtomicU64,
    log_lines_dropped: AtomicU64,
    memory_peak_bytes: AtomicU64,
    /// Linear memory of all living instances.
    memory_bytes: AtomicU64,
    /// In the order of `Limits::keys`.
    limit_hits: [AtomicU64; KEYS],
    log_rate: LogRate,
}

/// The counters at one moment; they are read one after the other, not as one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct UsageSnapshot {
    /// Calls of `init`, `process`, `punctuate` and `migrate`.
    pub calls: u64,
    /// Records handed to `process`, and rows to `migrate`.
    pub records: u64,
    /// Thread CPU time inside calls, host calls included. Of calls with few records every 16th is measured and stands
    /// for the others.
    pub cpu_ns: u64,
    /// Calls of imports.
    pub host_calls: u64,
    /// Calls that failed, whatever the reason.
    pub failures: u64,
    /// Instances made so far.
    pub instances: u64,
    pub log_lines: u64,
    pub log_lines_dropped: u64,
    /// The largest linear memory that any instance had.
    pub memory_peak_bytes: u64,
    /// Linear memory of all living instances together.
    pub memory_bytes: u64,
}

/// What one call adds to the counters.
#[derive(Debug, Default)]
pub(crate) struct CallUsage {
    pub records: u64,
    pub cpu_ns: u64,
    pub host_calls: u64,
    pub failed: bool,
    pub log_lines: u64,
    pub log_lines_dropped: Dropped,
    pub memory_bytes: u64,
}

impl Usage {
    pub fn snapshot(&self) -> UsageSnapshot {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        UsageSnapshot {
            calls: read(&self.calls),
            records: read(&self.records),
            cpu_ns: read(&self.cpu_ns),
            host_calls: read(&self.host_calls),
            failures: read(&self.failures),
            instances: read(&self.instances),
            log_lines: read(&self.log_lines),
            log_lines_dropped: read(&self.log_lines_dropped),
            memory_peak_bytes: read(&self.memory_peak_bytes),
            memory_bytes: read(&self.memory_bytes),
        }
    }

    /// How often each limit was hit, by its key, in the order of `Limits::keys`. Calls of which lines were dropped
    /// count once for each limit that dropped some.
    pub fn limit_hits(&self) -> Vec<(&'static str, u64)> {
        let hits = self.limit_hits.iter().map(|hits| hits.load(Ordering::Relaxed));
        Limits::keys().map(|key| key.key).zip(hits).collect()
    }

    /// Counts the limit that an error is about, if it is about one.
    pub(crate) fn count_limit_of(&self, error: &ProcessorError) {
        match error {
            ProcessorError::Deadline { .. } => self.count_limit(DEADLINE_KEY),
            ProcessorError::Memory { .. } => self.count_limit(MEMORY_KEY),
            ProcessorError::Limit { key, .. } => self.count_limit(key),
            _ => {}
        }
    }

    fn count_limit(&self, key: &str) {
        if let Some(hits) = Limits::position(key).and_then(|position| self.limit_hits.get(position)) {
            hits.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Takes linear memory for an instance; where all instances together would have more than `limit`, nothing is
    /// taken and the error says how much they would have.
    pub(crate) fn take_memory(&self, bytes: u64, limit: u64) -> Result<(), u64> {
        let grown = |taken: u64| taken.checked_add(bytes).filter(|grown| *grown <= limit);
        let taken = self.memory_bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, grown);
        taken.map(|_| ()).map_err(|taken| taken.saturating_add(bytes))
    }

    /// Gives back what an instance had taken.
    pub(crate) fn release_memory(&self, bytes: u64) {
        self.memory_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// How fast all instances together may log.
    pub(crate) fn log_rate(&self) -> &LogRate {
        &self.log_rate
    }

    pub(crate) fn add_instance(&self) {
        self.instances.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn add_call(&self, call: &CallUsage) {
        let add = |counter: &AtomicU64, amount: u64| {
            if amount != 0 {
                counter.fetch_add(amount, Ordering::Relaxed);
            }
        };
        add(&self.calls, 1);
        add(&self.records, call.records);
        add(&self.cpu_ns, call.cpu_ns);
        add(&self.host_calls, call.host_calls);
        add(&self.failures, u64::from(call.failed));
        add(&self.log_lines, call.log_lines);
        add(&self.log_lines_dropped, call.log_lines_dropped.total());
        for (key, _) in call.log_lines_dropped.by_key().iter().filter(|(_, lines)| *lines > 0) {
            self.count_limit(key);
        }
        if call.memory_bytes > self.memory_peak_bytes.load(Ordering::Relaxed) {
            self.memory_peak_bytes.fetch_max(call.memory_bytes, Ordering::Relaxed);
        }
    }
}

/// Measures the CPU time of an instance's calls. The clock is a system call (0.2 to 0.6 us), too much to pay twice for
/// a single record, so calls with few records are sampled.
#[derive(Debug, Default)]
pub(crate) struct CpuMeter {
    /// Calls with few records since the last one that was measured.
    unmeasured: u64,
}

/// A call with at least so many records is always measured.
const ALWAYS_MEASURED_RECORDS: usize = 32;
/// One of so many calls with few records is measured and counts for all of them.
const SAMPLED_CALLS: u64 = 16;

/// A running measurement: its start, and how many calls it stands for.
pub(crate) struct CpuStart {
    start_ns: u64,
    calls: u64,
}

impl CpuMeter {
    /// `None` where the call is not measured.
    pub fn start(&mut self, records: usize) -> Option<CpuStart> {
        if records >= ALWAYS_MEASURED_RECORDS {
            return Some(CpuStart { start_ns: thread_cpu_ns(), calls: 1 });
        }
        self.unmeasured += 1;
        if self.unmeasured < SAMPLED_CALLS {
            return None;
        }
        self.unmeasured = 0;
        Some(CpuStart { start_ns: thread_cpu_ns(), calls: SAMPLED_CALLS })
    }

    /// A measurement whatever the size of the call; it counts for this call alone.
    pub fn start_always(&mut self) -> Option<CpuStart> {
        Some(CpuStart { start_ns: thread_cpu_ns(), calls: 1 })
    }

    /// What to charge for the call that `start` began.
    pub fn end(start: Option<CpuStart>) -> u64 {
        start.map_or(0, |start| thread_cpu_ns().saturating_sub(start.start_ns).saturating_mul(start.calls))
    }
}

/// CPU time of this thread since it began; a system call.
pub(crate) fn thread_cpu_ns() -> u64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    // The clock counts from the start of the thread, so neither part is negative.
    time.tv_sec.unsigned_abs() * 1_000_000_000 + time.tv_nsec.unsigned_abs()
}

#[cfg(test)]
mod tests;
