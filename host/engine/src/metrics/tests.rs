//! The table of metrics is in order and well named; counters, gauges and histograms count.

use std::collections::BTreeSet;

use super::{DURATION_BUCKETS_MS, DURATIONS, DurationMetric, EngineMetrics, METRICS, Metric, MetricKind};

#[test]
fn the_table_is_in_the_order_of_the_enum_and_well_named() {
    let mut ended = BTreeSet::new();
    let mut previous = "";
    let mut labels = BTreeSet::new();
    for (index, spec) in METRICS.iter().enumerate() {
        assert_eq!(spec.metric as usize, index, "{}", spec.name);
        assert!(spec.name.starts_with("sandbar_"), "{}", spec.name);
        assert_eq!(spec.name.ends_with("_total"), spec.kind == MetricKind::Counter, "{}", spec.name);
        assert!(!spec.help.is_empty() && !spec.help.ends_with('.'), "{}", spec.name);
        if spec.name != previous {
            assert!(ended.insert(spec.name), "{} does not stand together", spec.name);
            labels.clear();
        }
        assert!(labels.insert(spec.label), "{} {:?} is there twice", spec.name, spec.label);
        previous = spec.name;
    }
    for (index, (metric, name, _)) in DURATIONS.iter().enumerate() {
        assert_eq!(*metric as usize, index);
        assert!(name.ends_with("_seconds"));
    }
}

#[test]
fn values_are_counted_apart() {
    let metrics = EngineMetrics::new();
    metrics.add(Metric::RecordsProcessed, 3);
    metrics.add(Metric::RecordsProcessed, 4);
    metrics.set(Metric::TasksRunning, 2);
    metrics.set(Metric::TasksRunning, 1);
    let set: Vec<_> =
        metrics.samples().filter(|(_, value)| *value > 0).map(|(spec, value)| (spec.name, value)).collect();
    assert_eq!(set, [("sandbar_records_processed_total", 7), ("sandbar_tasks", 1)]);
}

#[test]
fn a_duration_falls_into_the_first_bucket_that_holds_it() {
    let metrics = EngineMetrics::new();
    for duration_ms in [0, 1, 2, 3, 10_000, 10_001] {
        metrics.observe_ms(DurationMetric::Commit, duration_ms);
    }
    let snapshot = metrics.histogram(DurationMetric::Commit);
    assert_eq!(snapshot.sum_ms, 20_007);
    assert_eq!(snapshot.cumulative[..3], [2, 3, 4], "up to 1, 2 and 5 ms");
    assert_eq!(snapshot.cumulative[DURATION_BUCKETS_MS.len() - 1], 5);
    assert_eq!(snapshot.cumulative[DURATION_BUCKETS_MS.len()], 6, "all of them");
    assert_eq!(metrics.histogram(DurationMetric::Restore).sum_ms, 0);
}
