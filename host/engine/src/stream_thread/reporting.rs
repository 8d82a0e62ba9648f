//! What a stream thread counts and publishes: its progress report and the gauges of its metrics, at most every
//! `PUBLISH_INTERVAL_MS`, and at once when something changed that others wait for.

use super::{RunOnce, StreamThread, ThreadReport, ThreadState};
use crate::error::EngineError;
use crate::metrics::Metric;
use crate::task::TaskState;
use crate::task::stream_task::Processed;

const PUBLISH_INTERVAL_MS: u64 = 100;

/// How often the ends of partitions are asked for where the consumer does not know them by itself.
const ASK_ENDS_INTERVAL_MS: u64 = 1_000;

/// The counters of a thread.
#[derive(Debug)]
pub(super) struct Reporting {
    report: ThreadReport,
    published_ms: Option<u64>,
    /// Tasks came or went since the last report.
    tasks_changed: bool,
    /// The group has told this consumer what is its own, be it nothing.
    joined: bool,
    asked_ends_ms: u64,
}

impl Reporting {
    pub(super) fn new(now_ms: u64) -> Self {
        let report = ThreadReport { last_activity_ms: now_ms, ..ThreadReport::default() };
        Self { report, published_ms: None, tasks_changed: false, joined: false, asked_ends_ms: now_ms }
    }

    pub(super) fn processed(&mut self, processed: &Processed) {
        self.report.records_processed += processed.records;
        self.report.bytes_processed += processed.bytes;
        self.report.batches_processed += processed.batches;
        self.report.punctuations += processed.punctuations;
    }

    pub(super) fn punctuated(&mut self, punctuations: u64) {
        self.report.punctuations += punctuations;
    }

    pub(super) fn committed(&mut self) {
        self.report.commits += 1;
    }

    pub(super) fn tasks_changed(&mut self) {
        self.tasks_changed = true;
    }

    /// Whether the consumer has had an assignment; false again with a new consumer.
    pub(super) fn joined(&mut self, joined: bool) {
        self.joined = joined;
    }
}

impl StreamThread {
    /// Publishes what the turn changed.
    pub(super) fn publish(&mut self, turn: &RunOnce, error: Option<&EngineError>) {
        let now_ms = self.options.clock.monotonic_ms();
        let state = match error {
            Some(_) => ThreadState::Dead,
            None if !self.manager.all_running() => ThreadState::PartitionsAssigned,
            None if self.manager.tasks().is_empty() && !self.reporting.joined => ThreadState::Starting,
            None => ThreadState::Running,
        };
        let changed = std::mem::take(&mut self.reporting.tasks_changed) || state != self.reporting.report.state;
        self.reporting.report.state = state;
        self.reporting.report.records_restored += turn.records_restored;
        self.reporting.report.rows_migrated += turn.rows_migrated;
        let has_moved = turn.records_processed > 0 || turn.records_restored > 0 || turn.rows_migrated > 0;
        if has_moved || changed {
            self.reporting.report.last_activity_ms = now_ms;
        }
        let due = self.reporting.published_ms.is_none_or(|at| now_ms.saturating_sub(at) >= PUBLISH_INTERVAL_MS);
        if !due && !changed {
            return;
        }
        self.reporting.published_ms = Some(now_ms);
        if error.is_none() {
            self.ask_ends(now_ms);
        }
        self.publish_report();
    }

    /// Publishes the end of the thread.
    pub(super) fn publish_final(&mut self) {
        self.reporting.report.state = ThreadState::Dead;
        self.publish_report();
    }

    /// The lag is information: when the broker cannot say the end of a log, the last known one stays.
    fn ask_ends(&mut self, now_ms: u64) {
        if now_ms.saturating_sub(self.reporting.asked_ends_ms) < ASK_ENDS_INTERVAL_MS {
            return;
        }
        self.reporting.asked_ends_ms = now_ms;
        let Some(consumer) = self.consumer.as_deref_mut() else { return };
        if let Err(error) = self.manager.ask_ends(consumer) {
            self.recovery.trouble(&error, now_ms);
        }
    }

    fn publish_report(&mut self) {
        let report = &mut self.reporting.report;
        report.thread = self.options.thread;
        report.records_sent = self.producer.as_ref().map_or(report.records_sent, |producer| producer.records_sent);
        report.recycles = self.recovery.recycles_total;
        report.trouble = self.recovery.current_trouble();
        report.tasks = self.manager.reports();
        self.publish_gauges();
        self.options.progress.publish(self.reporting.report.clone());
    }

    fn publish_gauges(&self) {
        let (metrics, report) = (&self.options.metrics, &self.reporting.report);
        let in_state = |state| report.tasks.iter().filter(|task| task.state == state).count() as u64;
        metrics.set(Metric::TasksRestoring, in_state(TaskState::Restoring) + in_state(TaskState::Created));
        metrics.set(Metric::TasksRunning, in_state(TaskState::Running));
        metrics.set(Metric::TasksSuspended, in_state(TaskState::Suspended));
        metrics.set(Metric::OutOfSpace, u64::from(self.recovery.out_of_space));
        let restores = report.tasks.iter().flat_map(|task| &task.restores);
        metrics.set(Metric::RestoreRemainingOffsets, restores.map(|restore| restore.remaining()).sum());
        let buffered = report.tasks.iter().flat_map(|task| &task.partitions).map(|partition| partition.buffered as u64);
        metrics.set(Metric::InputBufferRecords, buffered.sum());
        metrics.set(Metric::UncommittedBytes, report.tasks.iter().map(|task| task.uncommitted_bytes as u64).sum());
        metrics.set(Metric::InFlightRecords, self.producer.as_ref().map_or(0, |producer| producer.in_flight() as u64));
        let queues = self.manager.tasks().values().flat_map(|task| task.group().queues());
        metrics.set(Metric::PausedPartitions, queues.filter(|queue| queue.paused).count() as u64);
        let stores = || self.manager.tasks().values().flat_map(|task| task.stores());
        metrics.set(Metric::CacheBytes, stores().map(|store| store.cached_bytes() as u64).sum());
        let (hits, misses) = stores()
            .map(|store| store.cache_hits_and_misses())
            .fold((0, 0), |(h, m), (hits, misses)| (h + hits, m + misses));
        metrics.set(Metric::CacheHits, hits);
        metrics.set(Metric::CacheMisses, misses);
    }
}
