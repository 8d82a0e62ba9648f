//! Retention: by age, by size, both bounded by the last segment and the last stable offset; segments closed by time.

use std::sync::Arc;

use bytes::Bytes;

use super::*;
use crate::core::batch::build::{NewRecord, batch_of};
use crate::core::log::{LogBounds, LogLimits};
use crate::core::memory::MemoryStorage;
use crate::core::metadata::TopicId;
use crate::core::storage::Storage;

/// Two of the batches below fit.
const SEGMENT_BYTES: u64 = 350;

fn limits(cleanup: CleanupLimits) -> LogLimits {
    LogLimits { segment_bytes: SEGMENT_BYTES, timestamp_after_max_ms: i64::MAX, cleanup, ..LogLimits::default() }
}

fn open(storage: &MemoryStorage) -> PartitionLog {
    let store = storage.open_log(TopicId(1), "t", 0).unwrap();
    PartitionLog::open(Arc::from("t-0"), store, 0, &limits(CleanupLimits::default())).unwrap().0
}

fn batch(timestamp: i64) -> Bytes {
    batch_of(None, &[NewRecord { timestamp, key: Some(b"k"), value: Some(&[0; 100]), headers: &[] }])
}

/// Batches at these times, two a segment.
fn filled(timestamps: &[i64]) -> PartitionLog {
    let mut log = open(&MemoryStorage::new());
    for &timestamp in timestamps {
        log.append(&batch(timestamp), &limits(CleanupLimits::default()), timestamp).unwrap();
    }
    log
}

fn aged(retention_ms: i64) -> CleanupLimits {
    CleanupLimits { retention_ms, ..CleanupLimits::default() }
}

fn start(log: &mut PartitionLog, now_ms: i64, cleanup: &CleanupLimits) -> Option<i64> {
    let mut errors = Vec::new();
    let start = log.retention_start(now_ms, cleanup, &mut errors);
    assert_eq!(errors, []);
    start
}

#[test]
fn whole_segments_go_by_the_age_of_their_youngest_record() {
    for (now_ms, expected) in [(1_019, None), (1_020, None), (1_021, Some(2)), (1_041, Some(4))] {
        let mut log = filled(&[10, 20, 40, 30, 50, 60]);
        assert_eq!(log.segment_count(), 3);
        assert_eq!(start(&mut log, now_ms, &aged(1_000)), expected, "{now_ms}");
    }
    // A young segment protects the ones behind it, however old they are.
    assert_eq!(start(&mut filled(&[9_000, 20, 40, 30, 50]), 9_500, &aged(1_000)), None);
    assert_eq!(start(&mut filled(&[10, 20, 40]), i64::MAX, &aged(-1)), None, "no limit");
    let compacted = CleanupLimits { delete: false, compact: true, ..aged(0) };
    assert_eq!(start(&mut filled(&[10, 20, 40]), i64::MAX, &compacted), None, "compacted only");
}

#[test]
fn a_log_that_is_old_as_a_whole_is_emptied() {
    let mut log = filled(&[10, 20, 40]);
    assert_eq!(start(&mut log, 5_000, &aged(1_000)), Some(3));
    log.advance_log_start(3).unwrap();
    assert_eq!((log.segment_count(), log.size_bytes()), (1, 0));
    assert_eq!(log.bounds(), LogBounds { log_start_offset: 3, high_watermark: 3, last_stable_offset: 3 });
    assert_eq!(start(&mut log, 5_000, &aged(1_000)), None, "an empty log stays");
    assert!(!log.roll_if_due(i64::MAX, &aged(0)).unwrap());
    assert_eq!(log.append(&batch(1), &limits(CleanupLimits::default()), 1).unwrap().base_offset, 3);
}

#[test]
fn segments_beyond_the_size_go() {
    let sized = |retention_bytes: i64| CleanupLimits { retention_bytes, ..CleanupLimits::default() };
    let mut log = filled(&[10, 20, 40, 30, 50, 60]);
    let segment = log.segments[0].size as i64;
    for (retention_bytes, expected) in [
        (-1, None),
        (3 * segment, None),
        (2 * segment + 1, None),
        (2 * segment, Some(2)),
        (segment + 1, Some(2)),
        (segment, Some(4)),
        (1, Some(4)),
    ] {
        assert_eq!(start(&mut log, 100, &sized(retention_bytes)), expected, "{retention_bytes}");
    }
    assert_eq!(start(&mut log, 100, &sized(0)), Some(6), "nothing at all is to be kept");
    // Age takes the first segment, size the second.
    let both = CleanupLimits { retention_bytes: segment, ..aged(1_000) };
    assert_eq!(start(&mut filled(&[10, 20, 40, 30, 50, 60]), 1_021, &both), Some(4));
}

#[test]
fn the_segment_that_is_written_is_closed_by_time() {
    let cleanup = CleanupLimits { segment_ms: 1_000, ..CleanupLimits::default() };
    let storage = MemoryStorage::new();
    let mut log = open(&storage);
    assert!(!log.roll_if_due(i64::MAX, &cleanup).unwrap(), "nothing in it");
    // The age is the one by the broker's clock: old records do not make a segment old.
    log.append(&batch(7), &limits(cleanup.clone()), 100_000).unwrap();
    assert!(!log.roll_if_due(101_000, &cleanup).unwrap());
    assert!(log.roll_if_due(101_001, &cleanup).unwrap());
    assert!(!log.roll_if_due(i64::MAX, &cleanup).unwrap(), "the new one is empty");
    assert_eq!(log.segment_count(), 2);
    log.append(&batch(200_000), &limits(cleanup.clone()), 200_000).unwrap();
    drop(log);
    // After a restart the records' own time has to do.
    let mut log = open(&storage);
    assert_eq!(log.segment_count(), 2);
    assert!(!log.roll_if_due(201_000, &cleanup).unwrap());
    assert!(log.roll_if_due(201_001, &cleanup).unwrap());
    assert_eq!(log.append(&batch(1), &limits(cleanup), 1).unwrap().base_offset, 2);
    let compacted = CleanupLimits { compact: true, max_compaction_lag_ms: 10, ..CleanupLimits::default() };
    assert!(!log.roll_if_due(11, &CleanupLimits { compact: false, ..compacted.clone() }).unwrap());
    assert!(log.roll_if_due(12, &compacted).unwrap(), "a compacted topic's lag closes it too");
}

#[test]
fn a_record_of_a_later_time_begins_a_segment() {
    let limits = limits(CleanupLimits { segment_ms: 1_000, ..CleanupLimits::default() });
    let mut log = open(&MemoryStorage::new());
    for (timestamp, segments) in [(500, 1), (1_500, 1), (1_501, 2), (700, 2)] {
        log.append(&batch(timestamp), &limits, 0).unwrap();
        assert_eq!(log.segment_count(), segments, "{timestamp}");
    }
}

#[test]
fn nothing_at_or_beyond_the_last_stable_offset_goes() {
    let log = filled(&[10, 20, 40, 30, 50, 60]);
    for (stable, segments) in [(0, 0), (1, 0), (2, 1), (3, 1), (4, 2), (5, 2), (6, 3)] {
        assert_eq!(log.removable_segments(stable), segments, "{stable}");
    }
}
