//! All metrics of the engine: their names in one table (`METRICS`, `DURATIONS`), and the plain counters behind them
//! (`EngineMetrics`, one for each stream thread, shared with whoever renders them). Nothing here asks a clock or
//! writes text. Names follow Kafka Streams' metrics where one exists, in Prometheus' form.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// How a value behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricKind {
    /// Only grows.
    Counter,
    Gauge,
}

/// One metric: what it is called and what it says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MetricSpec {
    pub metric: Metric,
    /// With the prefix `sandbar_`; a counter ends in `_total`.
    pub name: &'static str,
    pub kind: MetricKind,
    pub help: &'static str,
    /// A label that tells this metric from others of the same name.
    pub label: Option<(&'static str, &'static str)>,
}

macro_rules! metrics {
    ($($metric:ident $kind:ident $name:literal $(($label:literal = $value:literal))? $help:literal)*) => {
        /// The counters and gauges of a stream thread.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Metric { $(#[doc = $help] $metric,)* }

        /// Every metric, in the order of `Metric`. Entries of one name stand together.
        pub const METRICS: &[MetricSpec] = &[$(MetricSpec {
            metric: Metric::$metric,
            name: $name,
            kind: MetricKind::$kind,
            help: $help,
            label: metrics!(@label $($label $value)?),
        },)*];
    };
    (@label) => { None };
    (@label $label:literal $value:literal) => { Some(($label, $value)) };
}

metrics! {
    RecordsConsumed Counter "sandbar_records_consumed_total" "Records read from source topics"
    RecordsProcessed Counter "sandbar_records_processed_total" "Records that a processor has processed"
    ChangelogRecords Counter "sandbar_changelog_records_total" "Records sent to changelogs"
    RecordsRefused Counter "sandbar_records_refused_total" "Records that a processor refused"
    RecordsDropped Counter "sandbar_dropped_records_total"
        "Records left out: without a key for a table, or failed where an exception handler says continue"
    DeadLetters Counter "sandbar_dead_letters_total" "Records sent to the dead letter topic"
    OutputsDropped Counter "sandbar_dropped_outputs_total"
        "Outputs that Kafka would refuse, left out where production.exception.handler says continue"
    IsolationCalls Counter "sandbar_isolation_calls_total"
        "Calls of a processor with a part of a batch, to find the record that it fails at"
    InstancesReplaced Counter "sandbar_instances_replaced_total" "Instances made anew after a failed call"
    ProcessCalls Counter "sandbar_process_calls_total" "Calls of a processor with a batch"
    Punctuations Counter "sandbar_punctuations_total" "Calls of a processor for a schedule"
    ProcessorErrors Counter "sandbar_processor_errors_total" "Calls of a processor that failed as a whole"
    Commits Counter "sandbar_commits_total" ("result" = "ok") "Commits that were tried"
    CommitsFailed Counter "sandbar_commits_total" ("result" = "failed") "Commits that were tried"
    CommitsForcedBySize Counter "sandbar_commits_forced_total"
        "Commits before their time because uncommitted bytes reached statestore.uncommitted.max.bytes"
    Recycles Counter "sandbar_recycles_total"
        "How often uncommitted work and the producer were dropped because an outcome was unclear"
    Rebalances Counter "sandbar_rebalances_total" "Changes of the group's assignment"
    TasksCreated Counter "sandbar_tasks_created_total" "Tasks that were created"
    TasksClosedClean Counter "sandbar_tasks_closed_total" ("how" = "clean") "Tasks that were closed"
    TasksClosedDirty Counter "sandbar_tasks_closed_total" ("how" = "dirty") "Tasks that were closed"
    TasksSwapped Counter "sandbar_tasks_swapped_total" "Tasks that were given another version of the processor"
    RowsMigrated Counter "sandbar_migrated_rows_total" "Rows of stores that were taken over from an older schema"
    VersionRollbacks Counter "sandbar_version_rollbacks_total"
        "Times that uncommitted work was dropped because a version did worse than its probation allows"
    TasksRestoring Gauge "sandbar_tasks" ("state" = "restoring") "Tasks of this thread by state"
    TasksRunning Gauge "sandbar_tasks" ("state" = "running") "Tasks of this thread by state"
    TasksSuspended Gauge "sandbar_tasks" ("state" = "suspended") "Tasks of this thread by state"
    RestoredRecords Counter "sandbar_restore_records_total" "Changelog records applied to stores"
    RestoreRemainingOffsets Gauge "sandbar_restore_remaining_offsets"
        "Changelog offsets still to be restored; offsets, not records, since compaction leaves gaps"
    StandbyTasks Gauge "sandbar_standby_tasks" "Standby tasks that this host keeps warm"
    StandbyRecords Counter "sandbar_standby_records_total" "Changelog records applied to standby stores"
    StandbyPromotions Counter "sandbar_standby_promotions_total"
        "Tasks that became active on this host with a warm copy"
    StandbyMisses Counter "sandbar_standby_misses_total"
        "Tasks that became active on this host though another one had the warm copy"
    OutOfSpace Gauge "sandbar_out_of_space" "1 while nothing is processed because the disk of the stores is full"
    InputBufferRecords Gauge "sandbar_input_buffer_records" "Records that wait in the queues of tasks"
    PausedPartitions Gauge "sandbar_paused_partitions" "Source partitions that are not fetched for now"
    InFlightRecords Gauge "sandbar_producer_in_flight_records" "Records sent whose delivery report has not come"
    UncommittedBytes Gauge "sandbar_store_uncommitted_bytes" "Bytes of uncommitted writes in the stores' overlays"
    CacheBytes Gauge "sandbar_cache_bytes" "Bytes of clean entries in the record caches"
    CacheHits Counter "sandbar_cache_hits_total" "Store look-ups that the overlay or the record cache answered"
    CacheMisses Counter "sandbar_cache_misses_total" "Store look-ups that the backend answered"
}

/// Upper bounds of the buckets of a duration, in milliseconds; a last bucket holds the rest.
pub const DURATION_BUCKETS_MS: [u64; 13] = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000];

/// A distribution of durations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DurationMetric {
    Commit,
    Restore,
}

/// Name and help of each `DurationMetric`, in its order. Rendered as histograms in seconds.
pub const DURATIONS: [(DurationMetric, &str, &str); 2] = [
    (DurationMetric::Commit, "sandbar_commit_duration_seconds", "From the start of a commit to its end"),
    (DurationMetric::Restore, "sandbar_restore_duration_seconds", "From the assignment of a task to its running"),
];

#[derive(Debug, Default)]
struct Histogram {
    /// One for each bound, and one for the rest; not cumulative.
    buckets: [AtomicU64; DURATION_BUCKETS_MS.len() + 1],
    sum_ms: AtomicU64,
}

/// A histogram as it was at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HistogramSnapshot {
    /// How many were at most as long as each bound, then how many there were in all.
    pub cumulative: [u64; DURATION_BUCKETS_MS.len() + 1],
    pub sum_ms: u64,
}

/// The values of one stream thread. Written by the thread, read by anybody; values are independent of each other.
#[derive(Debug)]
pub struct EngineMetrics {
    values: [AtomicU64; METRICS.len()],
    durations: [Histogram; DURATIONS.len()],
}

impl Default for EngineMetrics {
    fn default() -> Self {
        Self { values: std::array::from_fn(|_| AtomicU64::new(0)), durations: Default::default() }
    }
}

impl EngineMetrics {
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds to a counter.
    pub fn add(&self, metric: Metric, count: u64) {
        self.values[metric as usize].fetch_add(count, Relaxed);
    }

    /// Sets a gauge, or a counter that is kept elsewhere.
    pub fn set(&self, metric: Metric, value: u64) {
        self.values[metric as usize].store(value, Relaxed);
    }

    pub fn get(&self, metric: Metric) -> u64 {
        self.values[metric as usize].load(Relaxed)
    }

    /// Counts a duration.
    pub fn observe_ms(&self, metric: DurationMetric, duration_ms: u64) {
        let histogram = &self.durations[metric as usize];
        let bucket = DURATION_BUCKETS_MS.partition_point(|&bound| bound < duration_ms);
        histogram.buckets[bucket].fetch_add(1, Relaxed);
        histogram.sum_ms.fetch_add(duration_ms, Relaxed);
    }

    pub fn histogram(&self, metric: DurationMetric) -> HistogramSnapshot {
        let histogram = &self.durations[metric as usize];
        let mut total = 0;
        let cumulative = std::array::from_fn(|bucket| {
            total += histogram.buckets[bucket].load(Relaxed);
            total
        });
        HistogramSnapshot { cumulative, sum_ms: histogram.sum_ms.load(Relaxed) }
    }

    /// Every metric with its value, in the order of the table.
    pub fn samples(&self) -> impl Iterator<Item = (&'static MetricSpec, u64)> {
        METRICS.iter().map(|spec| (spec, self.get(spec.metric)))
    }
}

#[cfg(test)]
mod tests;
