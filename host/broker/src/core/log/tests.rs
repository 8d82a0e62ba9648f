//! Logs: offsets, reads across segments, offsets for times, restarts, torn tails, full disks.

use std::sync::Arc;

use super::*;
use crate::core::batch::Records;
use crate::core::batch::build::{NewRecord, ProducerStamp, batch_of};
use crate::core::batch::codec::Codec;
use crate::core::batch::rewrite::compressed;
use crate::core::memory::MemoryStorage;
use crate::core::metadata::TopicId;
use crate::core::storage::Storage;

const TOPIC: TopicId = TopicId(5);

fn open(storage: &MemoryStorage, limits: &LogLimits) -> (PartitionLog, Option<Recovery>) {
    let store = storage.open_log(TOPIC, "t", 0).unwrap();
    PartitionLog::open(Arc::from("t-0"), store, 0, limits).unwrap()
}

fn limits() -> LogLimits {
    LogLimits {
        segment_bytes: 400,
        index_interval_bytes: 100,
        timestamp_after_max_ms: i64::MAX,
        ..LogLimits::default()
    }
}

fn batch(timestamps: &[i64]) -> Bytes {
    let records: Vec<NewRecord<'_>> = timestamps
        .iter()
        .map(|&timestamp| NewRecord { timestamp, key: Some(b"key"), value: Some(b"value"), headers: &[] })
        .collect();
    batch_of(None, &records)
}

/// Offsets and timestamps of all records from `offset` on, by reads of `max_bytes`.
fn read_all(log: &PartitionLog, mut offset: i64, max_bytes: usize) -> Vec<(i64, i64)> {
    let mut found = Vec::new();
    loop {
        let fetched = log.read(offset, max_bytes, true, IsolationLevel::ReadCommitted).unwrap();
        if fetched.records.is_empty() {
            return found;
        }
        let mut at = 0;
        while let Some(header) = fetched.records.get(at..).and_then(BatchHeader::read) {
            let size = header.size().unwrap();
            let bytes = &fetched.records[at..at + size];
            assert!(batch::is_intact(bytes, &header));
            found.extend(Records::new(bytes, &header).filter(|r| r.offset >= offset).map(|r| (r.offset, r.timestamp)));
            at += size;
        }
        assert_eq!(at, fetched.records.len(), "only whole batches");
        offset = found.last().map_or(offset, |last| last.0 + 1);
    }
}

fn filled(storage: &MemoryStorage) -> PartitionLog {
    let (mut log, _) = open(storage, &limits());
    for number in 0..20 {
        let appended = log.append(&batch(&[number * 10, number * 10 + 5]), &limits(), 0).unwrap();
        assert_eq!(appended.base_offset, number * 2);
    }
    log
}

#[test]
fn reads_find_every_offset_in_every_segment() {
    let log = filled(&MemoryStorage::new());
    assert!(log.segments.len() > 3, "{} segments", log.segments.len());
    let expected: Vec<(i64, i64)> = (0..40).map(|offset| (offset, offset / 2 * 10 + offset % 2 * 5)).collect();
    for max_bytes in [1, 100, 250, 10_000] {
        for start in 0..=40 {
            assert_eq!(read_all(&log, start, max_bytes), expected[start as usize..], "from {start} by {max_bytes}");
        }
    }
    assert_eq!(log.read(41, 1, true, IsolationLevel::ReadUncommitted).unwrap_err().code, ErrorCode::OffsetOutOfRange);
    assert_eq!(log.read(-1, 1, true, IsolationLevel::ReadUncommitted).unwrap_err().code, ErrorCode::OffsetOutOfRange);
    assert!(log.read(0, 10, false, IsolationLevel::ReadUncommitted).unwrap().records.is_empty());
}

#[test]
fn offsets_for_times() {
    let log = filled(&MemoryStorage::new());
    for (timestamp, expected) in [
        (0, Some((0, 0))),
        (1, Some((1, 5))),
        (5, Some((1, 5))),
        (6, Some((2, 10))),
        (195, Some((39, 195))),
        (196, None),
    ] {
        assert_eq!(log.offset_for_timestamp(timestamp).unwrap(), expected, "{timestamp}");
    }
    assert_eq!(log.offset_of_max_timestamp().unwrap(), Some((39, 195)));
    let (empty, _) = open(&MemoryStorage::new(), &limits());
    assert_eq!(empty.offset_for_timestamp(0).unwrap(), None);
    assert_eq!(empty.offset_of_max_timestamp().unwrap(), None);
}

#[test]
fn offsets_for_times_out_of_order() {
    let (mut log, _) = open(&MemoryStorage::new(), &limits());
    for timestamps in [[50, 10], [20, 30], [70, 5]] {
        log.append(&batch(&timestamps), &limits(), 0).unwrap();
    }
    assert_eq!(log.offset_for_timestamp(51).unwrap(), Some((4, 70)));
    assert_eq!(log.offset_for_timestamp(20).unwrap(), Some((0, 50)));
}

#[test]
fn offsets_for_times_in_compressed_batches_are_exact() {
    for codec in [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
        let (mut log, _) = open(&MemoryStorage::new(), &limits());
        for timestamps in [[10, 20, 15], [30, 40, 35]] {
            log.append(&compressed(&batch(&timestamps), codec), &limits(), 0).unwrap();
        }
        for (timestamp, expected) in [
            (0, Some((0, 10))),
            (11, Some((1, 20))),
            (16, Some((1, 20))),
            (21, Some((3, 30))),
            (36, Some((4, 40))),
            (41, None),
        ] {
            assert_eq!(log.offset_for_timestamp(timestamp).unwrap(), expected, "{codec:?} {timestamp}");
        }
        assert_eq!(log.offset_of_max_timestamp().unwrap(), Some((4, 40)));
        log.advance_log_start(2).unwrap();
        assert_eq!(log.offset_for_timestamp(0).unwrap(), Some((2, 15)), "{codec:?}");
        let stamped = LogLimits { log_append_time: true, ..limits() };
        log.append(&compressed(&batch(&[1, 2]), codec), &stamped, 100).unwrap();
        assert_eq!(log.offset_for_timestamp(41).unwrap(), Some((6, 100)), "{codec:?}");
    }
}

#[test]
fn a_restart_finds_everything_again() {
    let storage = MemoryStorage::new();
    let before = filled(&storage);
    let expected = (read_all(&before, 0, 1_000), before.segments.clone());
    drop(before);
    let (mut after, recovery) = open(&storage, &limits());
    assert_eq!(recovery, None);
    assert_eq!((read_all(&after, 0, 1_000), after.segments.clone()), expected);
    assert_eq!(after.append(&batch(&[1]), &limits(), 0).unwrap().base_offset, 40);
}

#[test]
fn a_torn_tail_is_cut_and_reported() {
    let whole = batch(&[1]);
    for torn in 1..whole.len() {
        let storage = MemoryStorage::new();
        let (mut log, _) = open(&storage, &limits());
        log.append(&whole, &limits(), 0).unwrap();
        drop(log);
        let mut next = stamp_of(&whole, 1);
        next.truncate(torn);
        storage.tear(TOPIC, 0, &next);
        let (mut log, recovery) = open(&storage, &limits());
        let recovery = recovery.unwrap_or_else(|| panic!("{torn} bytes"));
        assert_eq!((recovery.cut_bytes, recovery.next_offset), (torn as u64, 1));
        assert_eq!(log.append(&whole, &limits(), 0).unwrap().base_offset, 1);
        assert_eq!(read_all(&log, 0, 1_000), [(0, 1), (1, 1)]);
    }
}

/// A write cut short is the last one, so what has whole batches behind it or in it is damage, whatever the damaged
/// place says of itself: its length and its offset are not in any checksum.
#[test]
fn damage_before_whole_batches_is_not_taken_for_a_torn_tail() {
    let wide = LogLimits { segment_bytes: 1 << 20, ..limits() };
    let whole = batch(&[1, 2]);
    let cases: [(&str, usize, u8); 4] =
        [("the first batch's length", 9, 0xff), ("its offset", 0, 0x58), ("its magic", 16, 9), ("its body", 70, 0x55)];
    for (what, at, value) in cases {
        let storage = MemoryStorage::new();
        let (mut log, _) = open(&storage, &wide);
        for _ in 0..3 {
            log.append(&whole, &wide, 0).unwrap();
        }
        let mut store = storage.open_log(TOPIC, "t", 0).unwrap();
        let mut bytes = store.read(0, 0, usize::MAX).unwrap().to_vec();
        bytes[at] = value;
        store.append(0, 0, &[&bytes]).unwrap();
        let error = PartitionLog::open(Arc::from("t-0"), store, 0, &wide).unwrap_err().to_string();
        assert!(error.contains("damaged at byte 0 of"), "{what}: {error}");
        // The last batch, too: it is whole, but not where its offset says.
        let mut store = storage.open_log(TOPIC, "t", 0).unwrap();
        let mut last = stamp_of(&whole, 0);
        last[0] = 0x58;
        store.truncate(0, 0).unwrap();
        store.append(0, 0, &[&last]).unwrap();
        let error = PartitionLog::open(Arc::from("t-0"), store, 0, &wide).unwrap_err().to_string();
        assert!(error.contains("damaged at byte 0 of"), "{error}");
    }
}

fn stamp_of(bytes: &[u8], base_offset: i64) -> Vec<u8> {
    let mut stamped = batch::stamp(bytes, base_offset, 0, None).unwrap().to_vec();
    stamped.extend_from_slice(&bytes[HEADER_BYTES..]);
    stamped
}

#[test]
fn damage_in_a_closed_segment_is_an_error_not_a_loss() {
    let storage = MemoryStorage::new();
    let log = filled(&storage);
    let (first, size) = (log.segments[0].base_offset, log.segments[0].size);
    drop(log);
    let mut store = storage.open_log(TOPIC, "t", 0).unwrap();
    store.write_summary(first, b"no summary").unwrap();
    store.truncate(first, size - 1).unwrap();
    let error = PartitionLog::open(Arc::from("t-0"), store, 0, &limits()).unwrap_err();
    assert!(error.to_string().contains("damaged at byte"), "{error}");
}

#[test]
fn a_lost_summary_is_no_loss() {
    let storage = MemoryStorage::new();
    let expected = filled(&storage).segments.clone();
    let mut store = storage.open_log(TOPIC, "t", 0).unwrap();
    for segment in &expected {
        store.write_summary(segment.base_offset, b"garbage").unwrap();
    }
    assert_eq!(open(&storage, &limits()).0.segments, expected);
}

#[test]
fn a_summary_of_an_open_segment_saves_the_scan_of_its_front() {
    let storage = MemoryStorage::new();
    let (mut log, _) = open(&storage, &LogLimits::default());
    let now = LogLimits { timestamp_after_max_ms: i64::MAX, ..LogLimits::default() };
    for number in 0..10 {
        log.append(&batch(&[number]), &now, 0).unwrap();
    }
    log.summarize();
    let (size, expected) = (log.segments[0].size, read_all(&log, 0, 1_000));
    log.append(&batch(&[77]), &now, 0).unwrap();
    drop(log);
    // The front is not read again: damage there is not seen by the start.
    let mut store = storage.open_log(TOPIC, "t", 0).unwrap();
    let bytes = store.read(0, 0, usize::MAX).unwrap();
    let mut damaged = bytes.to_vec();
    damaged[70] ^= 1;
    store.append(0, 0, &[&damaged]).unwrap();
    let (log, recovery) = open(&storage, &now);
    assert_eq!((recovery, log.bounds().high_watermark), (None, 11));
    drop(log);
    // A segment that lost its end has a summary that lies; it is not taken for true when the segment grows again.
    store.append(0, 0, &[&bytes[..size as usize - 1]]).unwrap();
    let (mut log, recovery) = open(&storage, &now);
    assert_eq!((recovery.is_some(), log.bounds().high_watermark), (true, 9));
    for number in 0..5 {
        log.append(&batch(&[number, number]), &now, 0).unwrap();
    }
    drop(log);
    let (log, _) = open(&storage, &now);
    let mut found = expected[..9].to_vec();
    found.extend((0..10).map(|number| (9 + number, number / 2)));
    assert_eq!(read_all(&log, 0, 1_000), found);
}

#[test]
fn a_full_disk_refuses_and_loses_nothing() {
    let storage = MemoryStorage::new();
    let mut log = filled(&storage);
    let before = read_all(&log, 0, 1_000);
    storage.fill_disk(true);
    for _ in 0..20 {
        assert_eq!(log.append(&batch(&[1, 2]), &limits(), 0).unwrap_err().code, ErrorCode::KafkaStorageError);
    }
    assert_eq!(read_all(&log, 0, 1_000), before);
    storage.fill_disk(false);
    assert_eq!(log.append(&batch(&[1]), &limits(), 0).unwrap().base_offset, 40);
}

#[test]
fn a_refused_idempotent_batch_may_be_sent_again() {
    let storage = MemoryStorage::new();
    let (mut log, _) = open(&storage, &limits());
    let stamp = |base_sequence| ProducerStamp { producer_id: 1, epoch: 0, base_sequence, transactional: false };
    let first = batch_of(Some(stamp(0)), &[NewRecord::default()]);
    let second = batch_of(Some(stamp(1)), &[NewRecord::default()]);
    log.append(&first, &limits(), 0).unwrap();
    storage.fill_disk(true);
    assert!(log.append(&second, &limits(), 0).is_err());
    storage.fill_disk(false);
    assert_eq!(log.append(&second, &limits(), 0).unwrap().base_offset, 1);
    assert!(log.append(&second, &limits(), 0).unwrap().duplicate);
    drop(log);
    // The window is found again after a restart.
    let (mut log, _) = open(&storage, &limits());
    let again = log.append(&first, &limits(), 0).unwrap();
    assert_eq!((again.base_offset, again.duplicate), (0, true));
    assert_eq!(log.bounds().high_watermark, 2);
}

#[test]
fn producers_are_known_after_segments_were_summarized() {
    let storage = MemoryStorage::new();
    let (mut log, _) = open(&storage, &limits());
    let send = |log: &mut PartitionLog, sequence| {
        let stamp = ProducerStamp { producer_id: 1, epoch: 0, base_sequence: sequence, transactional: false };
        log.append(
            &batch_of(Some(stamp), &[NewRecord { value: Some(&[0; 150]), ..NewRecord::default() }]),
            &limits(),
            0,
        )
    };
    for sequence in 0..10 {
        send(&mut log, sequence).unwrap();
    }
    drop(log);
    let (mut log, _) = open(&storage, &limits());
    assert!(log.segments.len() > 3);
    for sequence in 5..10 {
        assert!(send(&mut log, sequence).unwrap().duplicate, "{sequence}");
    }
    assert!(!send(&mut log, 10).unwrap().duplicate);
}

#[test]
fn limits_of_the_topic_are_kept() {
    let (mut log, _) = open(&MemoryStorage::new(), &limits());
    let small = LogLimits { max_message_bytes: 60, ..limits() };
    let refusal = log.append(&batch(&[1]), &small, 0).unwrap_err();
    assert_eq!(refusal.code, ErrorCode::MessageTooLarge);
    assert!(refusal.detail.contains("t-0 at offset 0") && refusal.detail.contains("max.message.bytes"), "{refusal}");
    let near = LogLimits { timestamp_after_max_ms: 10, timestamp_before_max_ms: 10, ..limits() };
    for (timestamp, fits) in [(89, false), (90, true), (110, true), (111, false)] {
        assert_eq!(log.append(&batch(&[timestamp]), &near, 100).is_ok(), fits, "{timestamp}");
    }
    let stamped = LogLimits { log_append_time: true, ..near };
    assert_eq!(log.append(&batch(&[1, 2]), &stamped, 100).unwrap().log_append_time, 100);
    assert_eq!(read_all(&log, 2, 1_000), [(2, 100), (3, 100)]);
}

#[test]
fn deleting_records_moves_the_start_and_drops_whole_segments() {
    let storage = MemoryStorage::new();
    let mut log = filled(&storage);
    let segments = log.segments.len();
    log.advance_log_start(17).unwrap();
    assert!(log.segments.len() < segments);
    assert_eq!(log.bounds().log_start_offset, 17);
    assert_eq!(log.read(16, 1, true, IsolationLevel::ReadUncommitted).unwrap_err().code, ErrorCode::OffsetOutOfRange);
    assert_eq!(read_all(&log, 17, 1_000).first(), Some(&(17, 85)));
    assert_eq!(log.offset_for_timestamp(0).unwrap(), Some((17, 85)));
    log.advance_log_start(3).unwrap();
    assert_eq!(log.bounds().log_start_offset, 17);
    log.advance_log_start(1_000).unwrap();
    assert_eq!(log.bounds(), LogBounds { log_start_offset: 40, high_watermark: 40, last_stable_offset: 40 });
    assert_eq!(log.append(&batch(&[1]), &limits(), 0).unwrap().base_offset, 40);
}
