//! Cleaning passes over one log: what goes, what stays, and what happens in between.

use std::collections::BTreeMap;

use super::*;
use crate::core::batch::Marker;
use crate::core::batch::build::{NewRecord, ProducerStamp, batch_of};
use crate::core::batch::codec::Codec;
use crate::core::batch::rewrite::compressed;
use crate::core::log::CheckedBatch;
use crate::core::log::{IsolationLevel, TransactionOwner};
use crate::core::memory::MemoryStorage;
use crate::core::metadata::{TopicId, TopicImage};
use crate::core::refusal::ErrorCode;
use crate::core::storage::Storage;
use crate::core::topics::open_topic;

const TOPIC: TopicId = TopicId(1);
const KEY_BYTES_MAX: usize = 1 << 20;

/// One compacted log.
struct Fixture {
    storage: MemoryStorage,
    partition: Arc<Partition>,
    limits: LogLimits,
}

fn limits() -> LogLimits {
    LogLimits {
        // One batch a segment, unless a test wants more.
        segment_bytes: 1,
        index_interval_bytes: 100,
        timestamp_after_max_ms: i64::MAX,
        cleanup: CleanupLimits {
            delete: false,
            compact: true,
            min_dirty_millionths: 0,
            delete_retention_ms: 1_000,
            ..CleanupLimits::default()
        },
        ..LogLimits::default()
    }
}

fn open(storage: &MemoryStorage) -> Arc<Partition> {
    let configs = BTreeMap::from([("index.interval.bytes".to_owned(), "100".to_owned())]);
    let image = TopicImage { id: TOPIC, partitions: 1, configs, log_starts: BTreeMap::new() };
    let (topic, recoveries) = open_topic(storage, "t", &image).unwrap();
    assert_eq!(recoveries, []);
    Arc::clone(&topic.partitions[0])
}

impl Fixture {
    fn new(limits: LogLimits) -> Self {
        let storage = MemoryStorage::new();
        Self { partition: open(&storage), storage, limits }
    }

    fn append(&self, batch: &[u8]) -> i64 {
        self.partition.log().append(batch, &self.limits, 0).unwrap().base_offset
    }

    /// One batch of these keys and values; timestamps are offsets.
    fn put(&self, pairs: &[(&str, Option<&str>)]) -> i64 {
        let next = self.partition.log().bounds().high_watermark;
        self.append(&batch(next, None, pairs))
    }

    fn restart(&mut self) {
        self.partition = open(&self.storage);
    }

    fn begin(&self, now_ms: i64) -> Option<CleaningPass> {
        CleaningPass::begin(&self.partition, &self.limits, now_ms, KEY_BYTES_MAX)
    }

    fn clean(&self, now_ms: i64) -> PassReport {
        finish(&mut self.begin(now_ms).expect("something to clean")).unwrap()
    }

    /// The batches that a reader finds who begins at `offset` and goes on behind each batch.
    fn batches(&self, mut offset: i64) -> Vec<(BatchHeader, Bytes)> {
        let log = self.partition.log();
        let mut found = Vec::new();
        while offset < log.bounds().high_watermark {
            let bytes = log.read(offset, 1, true, IsolationLevel::ReadCommitted).unwrap().records;
            let header = BatchHeader::read(&bytes).unwrap_or_else(|| panic!("nothing at {offset}"));
            assert!(crate::core::batch::is_intact(&bytes, &header) && header.last_offset() >= offset);
            offset = header.last_offset() + 1;
            found.push((header, bytes));
        }
        found
    }

    /// Offset, timestamp, key and value of what such a reader finds, as text.
    fn records_from(&self, offset: i64) -> Vec<String> {
        let mut found = Vec::new();
        for (header, bytes) in self.batches(offset) {
            let decoded = DecodedBatch::decode(&bytes, &header).unwrap();
            found.extend(decoded.records().filter(|record| record.offset >= offset && !header.is_control()).map(
                |record| {
                    let text =
                        |bytes: Option<&[u8]>| bytes.map_or("-".into(), |b| String::from_utf8_lossy(b).into_owned());
                    format!("{}@{} {}={}", record.offset, record.timestamp, text(record.key), text(record.value))
                },
            ));
        }
        found
    }

    fn records(&self) -> Vec<String> {
        self.records_from(0)
    }

    fn sizes(&self) -> Vec<u64> {
        self.partition.log().segments.iter().map(|segment| segment.size).collect()
    }
}

fn finish(pass: &mut CleaningPass) -> Result<PassReport, StorageError> {
    loop {
        match pass.step()? {
            Step::Worked(_) => {}
            Step::MustChangeFiles => pass.change_files()?,
            Step::Done => return Ok(pass.report()),
        }
    }
}

fn batch(timestamp: i64, producer: Option<ProducerStamp>, pairs: &[(&str, Option<&str>)]) -> Bytes {
    let records: Vec<NewRecord<'_>> = pairs
        .iter()
        .zip(timestamp..)
        .map(|((key, value), timestamp)| NewRecord {
            timestamp,
            key: Some(key.as_bytes()),
            value: value.map(str::as_bytes),
            headers: &[],
        })
        .collect();
    batch_of(producer, &records)
}

fn stamp(producer_id: i64, base_sequence: i32) -> ProducerStamp {
    ProducerStamp { producer_id, epoch: 0, base_sequence, transactional: false }
}

#[test]
fn the_last_record_of_each_key_stays_where_it_was() {
    let mut log = Fixture::new(limits());
    log.put(&[("a", Some("1")), ("b", Some("1"))]);
    log.put(&[("a", Some("2")), ("c", Some("1")), ("a", Some("3"))]);
    log.put(&[("b", Some("2"))]);
    log.put(&[("a", Some("4"))]);
    let before = log.sizes();
    let report = log.clean(0);
    // The last segment is written: what it says is not known to the cleaner.
    let expected = ["3@3 c=1", "4@4 a=3", "5@5 b=2", "6@6 a=4"];
    for _ in 0..3 {
        assert_eq!(log.records(), expected);
        // Whoever stands in a gap gets what comes next.
        for (offset, skipped) in [(0, 0), (1, 0), (2, 0), (3, 0), (4, 1), (5, 2), (6, 3), (7, 4)] {
            assert_eq!(log.records_from(offset), expected[skipped..], "from {offset}");
        }
        log.restart();
    }
    let after = log.sizes();
    assert_eq!(report.replaced_segments, 2);
    assert_eq!(report.freed_bytes, before.iter().sum::<u64>() - after.iter().sum::<u64>());
    assert_eq!((after[0], after[2..].to_vec()), (0, before[2..].to_vec()), "the first stays, empty");
    assert!(log.begin(0).is_none(), "a restart knows what was cleaned");
    assert_eq!(log.put(&[("d", Some("1"))]), 7);
}

#[test]
fn the_log_start_stays_over_a_restart() {
    let log = Fixture::new(LogLimits { segment_bytes: 250, ..limits() });
    for key in ["a", "b", "c", "b", "c"] {
        log.put(&[(key, Some("a value that fills the segment, three of them do"))]);
    }
    log.clean(0);
    assert_eq!(log.records().len(), 4);
    let ends: Vec<i64> = log.partition.log().segments.iter().map(|segment| segment.next_offset).collect();
    // The first segment ended at 2 before its end was compacted away.
    assert_eq!((ends[0], log.partition.log().segments[1].base_offset), (1, 2));
    log.partition.log().advance_log_start(1).unwrap();
    let kept = log.storage.open_log(TOPIC, "t", 0).unwrap().segments().unwrap();
    assert_eq!(kept[0].0, 0, "a reader at 1 must still be in the log after a restart");
    assert_eq!(log.records_from(1).len(), 3);
}

#[test]
fn segments_without_a_summary_are_scanned_and_the_same() {
    let mut log = Fixture::new(LogLimits { segment_bytes: 600, ..limits() });
    for number in 0..60 {
        let (key, value) = ((number * 7 % 11).to_string(), number.to_string());
        log.put(&[(&key, Some(&value)), ("x", Some(&value))]);
    }
    log.clean(0);
    let expected = (log.records(), log.partition.log().segments.clone());
    log.restart();
    assert_eq!((log.records(), log.partition.log().segments.clone()), expected);
    let mut store = log.storage.open_log(TOPIC, "t", 0).unwrap();
    for segment in &expected.1 {
        store.write_summary(segment.base_offset, b"garbage").unwrap();
    }
    log.restart();
    assert_eq!(log.records(), expected.0);
    let unmarked = expected.1.into_iter().map(|segment| Segment { is_cleaned: false, ..segment });
    assert_eq!(log.partition.log().segments, unmarked.collect::<Vec<_>>());
    // Without summaries nothing is known to be clean; another pass finds nothing to do.
    assert_eq!(log.clean(0), PassReport::default());
}

#[test]
fn tombstones_stay_for_a_while_and_take_their_key_along() {
    let mut log = Fixture::new(limits());
    log.put(&[("a", Some("1")), ("b", Some("1"))]);
    log.put(&[("a", None)]);
    log.put(&[("c", Some("1"))]);
    log.clean(5_000);
    assert_eq!(log.records(), ["1@1 b=1", "2@2 a=-", "3@3 c=1"]);
    let horizon = |log: &Fixture| log.batches(2)[0].0.delete_horizon_ms();
    assert_eq!(horizon(&log), Some(6_000), "delete.retention.ms after the first cleaning");
    log.put(&[("c", Some("2"))]);
    log.restart();
    log.clean(5_999);
    assert_eq!((log.records().len(), horizon(&log)), (4, Some(6_000)), "the horizon stays");
    log.put(&[("c", Some("3"))]);
    log.clean(6_000);
    assert_eq!(log.records(), ["1@1 b=1", "4@4 c=2", "5@5 c=3"]);
    assert_eq!(log.records_from(2), ["4@4 c=2", "5@5 c=3"]);
}

#[test]
fn a_new_value_takes_an_old_tombstone_away() {
    let log = Fixture::new(limits());
    log.put(&[("a", None), ("b", None)]);
    log.put(&[("a", Some("1"))]);
    log.put(&[("c", Some("1"))]);
    log.clean(0);
    assert_eq!(log.records(), ["1@1 b=-", "2@2 a=1", "3@3 c=1"]);
}

#[test]
fn compressed_batches_are_cleaned_or_kept_byte_for_byte() {
    for codec in [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
        let log = Fixture::new(limits());
        let first = batch(0, None, &[("a", Some("1")), ("b", Some("1")), ("a", Some("2"))]);
        log.append(&compressed(&first, codec));
        log.append(&compressed(&batch(3, None, &[("c", Some("1")), ("d", Some("1"))]), codec));
        log.append(&compressed(&batch(5, None, &[("b", Some("2"))]), codec));
        log.put(&[("z", Some("1"))]);
        let before = log.batches(0);
        log.clean(0);
        assert_eq!(log.records(), ["2@2 a=2", "3@3 c=1", "4@4 d=1", "5@5 b=2", "6@6 z=1"], "{codec:?}");
        let after = log.batches(0);
        assert_eq!(after[1..], before[1..], "{codec:?}");
        assert_eq!((after[0].0.compression(), after[0].0.record_count), (codec as i16, 1));
        assert_eq!(log.partition.log().offset_for_timestamp(1).unwrap(), Some((2, 2)), "{codec:?}");
    }
}

#[test]
fn append_times_stay() {
    let log = Fixture::new(LogLimits { log_append_time: true, ..limits() });
    log.append(&compressed(&batch(0, None, &[("a", Some("1")), ("b", None)]), Codec::Lz4));
    log.partition.log().append(&batch(0, None, &[("a", Some("2"))]), &log.limits, 70).unwrap();
    log.partition.log().append(&batch(0, None, &[("c", Some("1"))]), &log.limits, 80).unwrap();
    log.clean(5);
    assert_eq!(log.records(), ["1@0 b=-", "2@70 a=2", "3@80 c=1"]);
    assert_eq!(log.partition.log().offset_for_timestamp(1).unwrap(), Some((2, 70)));
}

#[test]
fn the_last_batch_of_a_living_producer_stays_without_records() {
    let mut log = Fixture::new(limits());
    for (id, sequence) in [(1, 0), (1, 1), (2, 0), (3, 0)] {
        log.append(&batch(0, Some(stamp(id, sequence)), &[("a", Some("1"))]));
    }
    log.put(&[("a", Some("2"))]);
    log.put(&[("z", Some("1"))]);
    log.partition.log().producers = {
        let all = log.partition.log().producers.clone();
        let alive = all.entries().filter(|(id, _)| *id != 3).map(|(id, entry)| (id, entry.clone()));
        serde_json::from_value(serde_json::json!({ "producers": alive.collect::<BTreeMap<_, _>>() })).unwrap()
    };
    log.clean(0);
    let found: Vec<_> = log.batches(0).iter().map(|(h, _)| (h.base_offset, h.producer_id, h.record_count)).collect();
    assert_eq!(found, [(1, 1, 0), (2, 2, 0), (4, -1, 1), (5, -1, 1)]);
    // Even a start that has lost all summaries knows where the producers stand.
    let mut store = log.storage.open_log(TOPIC, "t", 0).unwrap();
    for (base_offset, _) in store.segments().unwrap() {
        store.write_summary(base_offset, b"garbage").unwrap();
    }
    log.restart();
    let send = |sequence| {
        let batch = batch(0, Some(stamp(1, sequence)), &[("a", Some("1"))]);
        log.partition.log().append(&batch, &log.limits, 0)
    };
    assert!(send(1).unwrap().duplicate);
    assert_eq!(send(3).unwrap_err().code, ErrorCode::OutOfOrderSequenceNumber);
    assert_eq!(send(2).unwrap().base_offset, 6);
    // Once the producer has gone on, its empty batch is of no use any more.
    log.put(&[("z", Some("2"))]);
    log.clean(0);
    let found: Vec<_> = log.batches(0).iter().map(|(h, _)| (h.base_offset, h.producer_id, h.record_count)).collect();
    assert_eq!(found, [(2, 2, 0), (5, -1, 1), (6, 1, 1), (7, -1, 1)]);
}

#[test]
fn a_reader_always_gets_to_the_end() {
    let mut log = Fixture::new(limits());
    log.put(&[("a", Some("1"))]);
    log.put(&[("a", None)]);
    assert!(log.partition.log().roll_if_due(i64::MAX, &log.limits.cleanup).unwrap());
    log.clean(0);
    log.restart();
    let mut store = log.storage.open_log(TOPIC, "t", 0).unwrap();
    for (base_offset, _) in store.segments().unwrap() {
        store.write_summary(base_offset, b"garbage").unwrap();
    }
    log.restart();
    log.clean(10_000);
    assert_eq!(log.records(), [""; 0]);
    let last = log.batches(0).last().unwrap().0;
    assert_eq!((last.last_offset(), last.record_count), (1, 0));
    assert_eq!(log.partition.log().offset_of_max_timestamp().unwrap(), None, "nobody has a record of that time");
    log.restart();
    assert_eq!(log.partition.log().bounds().high_watermark, 2);
    assert_eq!(log.put(&[("b", Some("1"))]), 2);
    log.put(&[("b", Some("2"))]);
    log.clean(10_000);
    assert_eq!((log.records(), log.batches(0).len()), (vec!["2@2 b=1".into(), "3@3 b=2".into()], 2));
}

fn append_in_transaction(log: &Fixture, sequence: i32, pairs: &[(&str, Option<&str>)]) -> i64 {
    let owner = TransactionOwner { producer_id: 7, epoch: 0 };
    let bytes = batch(0, Some(ProducerStamp { transactional: true, ..stamp(7, sequence) }), pairs);
    let checked = CheckedBatch::new(&bytes, &log.limits).unwrap();
    log.partition.log().append_checked(&checked, &log.limits, 0, Some(owner)).unwrap().base_offset
}

fn end_transaction(log: &Fixture, marker: Marker) -> i64 {
    let owner = TransactionOwner { producer_id: 7, epoch: 0 };
    log.partition.log().append_marker(owner, marker, &log.limits, 0).unwrap()
}

#[test]
fn aborted_records_go_and_markers_stay() {
    let mut log = Fixture::new(limits());
    log.put(&[("a", Some("1")), ("b", Some("1"))]);
    assert_eq!(append_in_transaction(&log, 0, &[("a", Some("aborted")), ("n", Some("aborted"))]), 2);
    assert_eq!(append_in_transaction(&log, 2, &[("a", Some("aborted too"))]), 4);
    assert_eq!(end_transaction(&log, Marker::Abort), 5);
    append_in_transaction(&log, 3, &[("b", Some("2")), ("b", Some("3"))]);
    assert_eq!(end_transaction(&log, Marker::Commit), 8);
    append_in_transaction(&log, 5, &[("b", Some("open"))]);
    log.put(&[("z", Some("1"))]);
    log.put(&[("z", Some("2"))]);
    let told = |log: &Fixture| log.partition.log().read(3, 1, true, IsolationLevel::ReadCommitted).unwrap().aborted;
    let aborted = told(&log);
    assert_eq!(aborted.iter().map(|found| (found.first_offset, found.last_offset)).collect::<Vec<_>>(), [(2, 5)]);
    log.clean(0);
    let found = |log: &Fixture| -> Vec<_> {
        let mut found = Vec::new();
        let mut offset = 0;
        while offset < 12 {
            let bytes = log.partition.log().read(offset, 1, true, IsolationLevel::ReadUncommitted).unwrap().records;
            let header = BatchHeader::read(&bytes).unwrap();
            found.push((header.base_offset, header.record_count, header.is_control()));
            offset = header.last_offset() + 1;
        }
        found
    };
    // The open transaction holds the last stable offset at 9: nothing from there on is touched.
    let expected =
        [(0, 1, false), (5, 1, true), (6, 1, false), (8, 1, true), (9, 1, false), (10, 1, false), (11, 1, false)];
    for _ in 0..2 {
        assert_eq!(found(&log), expected);
        // A reader is told what it was told before: the marker that ends it is still there.
        assert_eq!(told(&log), aborted);
        assert_eq!(log.partition.log().bounds().last_stable_offset, 9);
        log.restart();
    }
    // What waited for the transaction's end is cleaned after it.
    assert!(log.begin(0).is_none());
    end_transaction(&log, Marker::Abort);
    log.put(&[("z", Some("3"))]);
    log.clean(0);
    let batches: Vec<_> = log.batches(0).iter().map(|(h, _)| (h.base_offset, h.record_count, h.is_control())).collect();
    // The batch at 9 is the producer's last one.
    let expected = [(0, 1, false), (5, 1, true), (6, 1, false), (8, 1, true), (9, 0, false), (11, 1, false)];
    assert_eq!(batches[..6], expected);
    assert_eq!(batches[6..], [(12, 1, true), (13, 1, false)]);
}

#[test]
fn keyless_records_of_before_go() {
    let log = Fixture::new(limits());
    log.append(&batch_of(None, &[NewRecord { value: Some(b"old"), ..NewRecord::default() }]));
    log.put(&[("a", Some("1"))]);
    log.put(&[("b", Some("1"))]);
    log.clean(0);
    assert_eq!(log.records(), ["1@1 a=1", "2@2 b=1"]);
}

#[test]
fn a_pass_begins_when_it_is_worth_it() {
    let log = Fixture::new(limits());
    for number in 100..104 {
        log.append(&batch(number, None, &[("a", Some("1"))]));
    }
    let with = |change: &dyn Fn(&mut CleanupLimits)| {
        let mut cleanup = limits().cleanup;
        change(&mut cleanup);
        cleanup
    };
    let found = |now_ms: i64, change: &dyn Fn(&mut CleanupLimits)| {
        log.partition.log().cleanable(now_ms, &with(change)).map(|found| (found.segments, found.is_overdue))
    };
    assert_eq!(found(0, &|_| {}), Some((3, false)));
    assert_eq!(found(0, &|c| c.compact = false), None);
    // Young records protect the rest of the log.
    assert_eq!(found(1_101, &|c| c.min_compaction_lag_ms = 1_000), Some((2, false)));
    assert_eq!(found(1_099, &|c| c.min_compaction_lag_ms = 1_000), None);
    // All is dirty, and no part is more than all.
    assert_eq!(found(0, &|c| c.min_dirty_millionths = 1_000_000), None);
    let overdue = |c: &mut CleanupLimits| (c.min_dirty_millionths, c.max_compaction_lag_ms) = (1_000_000, 500);
    assert_eq!((found(600, &overdue), found(601, &overdue)), (None, Some((3, true))));
    // Nothing at or beyond the last stable offset.
    for (stable, segments) in [(0, None), (1, Some(1)), (2, Some(2)), (3, Some(3)), (4, Some(3))] {
        let found = log.partition.log().cleanable_below(stable, 0, &limits().cleanup);
        assert_eq!(found.map(|found| found.segments), segments, "{stable}");
    }
    log.clean(0);
    assert_eq!(found(0, &|_| {}), None);
    log.append(&batch(0, None, &[("b", Some("1"))]));
    // Half of what a pass may touch is dirty; the first segment is empty by now.
    assert_eq!(found(0, &|c| c.min_dirty_millionths = 499_999), Some((3, false)));
    assert_eq!(found(0, &|c| c.min_dirty_millionths = 500_000), None);
}

#[test]
fn more_keys_than_fit_take_several_passes() {
    // One batch a segment, five, and all in one: a pass ends within a segment, too.
    for segment_bytes in [1, 5 * 70, 1 << 20] {
        for keys_max in [0, 1, 3, 4] {
            let mut log = Fixture::new(LogLimits { segment_bytes, ..limits() });
            let expected = |from: i64, keys: i64| -> Vec<String> {
                (from..60).map(|offset| format!("{offset}@{offset} {}=v", offset % keys)).collect()
            };
            for offset in 0..60 {
                log.put(&[(&(offset % 7).to_string(), Some("v"))]);
            }
            log.partition.log().roll().unwrap();
            let latest_bytes_max = keys_max * (KEY_OVERHEAD_BYTES + 1);
            let mut dirty_from = -1;
            let mut passes = 0;
            while let Some(mut pass) = CleaningPass::begin(&log.partition, &log.limits, 0, latest_bytes_max) {
                assert!(pass.dirty_from.0 > dirty_from, "each pass gets further: {:?}", pass.dirty_from);
                dirty_from = pass.dirty_from.0;
                finish(&mut pass).unwrap();
                assert!(pass.latest.len() <= keys_max.max(1), "{} of {keys_max} keys", pass.latest.len());
                passes += 1;
                // A start in between knows less, and nothing is lost by that.
                if passes == 4 {
                    log.restart();
                    dirty_from = -1;
                }
            }
            assert!(passes >= 60 / keys_max.max(1), "{passes} passes of {keys_max} keys, {segment_bytes}");
            assert_eq!(log.records(), expected(53, 7), "{keys_max} keys, {segment_bytes}");
            assert!(log.partition.log().segments.iter().rev().skip(1).all(|segment| segment.is_cleaned));
        }
    }
}

#[test]
fn a_pass_that_ends_within_a_segment_leaves_the_rest_of_it_alone() {
    let log = Fixture::new(LogLimits { segment_bytes: 1 << 20, ..limits() });
    for key in ["a", "a", "b", "b", "a", "c"] {
        log.put(&[(key, (key != "b").then_some("1"))]);
    }
    log.partition.log().roll().unwrap();
    let clean = || {
        let pass = CleaningPass::begin(&log.partition, &log.limits, 5_000, 2 * (KEY_OVERHEAD_BYTES + 1));
        finish(&mut pass.expect("something to clean")).unwrap().replaced_segments
    };
    let cleaned = || {
        let log = log.partition.log();
        (log.cleaned_to, log.segments[0].is_cleaned)
    };
    let horizon = |offset| log.batches(offset)[0].0.delete_horizon_ms();
    assert_eq!((clean(), cleaned()), (1, (3, false)));
    assert_eq!(log.records(), ["1@1 a=1", "2@2 b=-", "3@3 b=-", "4@4 a=1", "5@5 c=1"]);
    assert_eq!((horizon(2), horizon(3)), (Some(6_000), None), "what deletes the rest waits for its own pass");
    assert_eq!((clean(), cleaned()), (1, (5, false)));
    assert_eq!((log.records(), horizon(3)), (vec!["3@3 b=-".into(), "4@4 a=1".into(), "5@5 c=1".into()], Some(6_000)));
    // Only what is behind counts as dirty.
    let most = CleanupLimits { min_dirty_millionths: 700_000, ..limits().cleanup };
    assert_eq!(log.partition.log().cleanable(0, &most), None);
    assert_eq!((clean(), cleaned()), (0, (5, true)));
    assert!(log.begin(5_000).is_none() && log.records().len() == 3);
}

#[test]
fn the_keys_of_a_large_segment_stay_within_the_bound() {
    let log = Fixture::new(LogLimits { segment_bytes: 10_000_000, ..limits() });
    for number in 0..20_000 {
        log.put(&[(&number.to_string(), Some("v"))]);
    }
    log.partition.log().roll().unwrap();
    let most = 10_000;
    let mut pass = CleaningPass::begin(&log.partition, &log.limits, 0, most).unwrap();
    while !pass.to_map.is_empty() {
        pass.step().unwrap();
    }
    assert!((most..most + 100).contains(&pass.latest_bytes), "{} of {most}", pass.latest_bytes);
}

#[test]
fn a_full_disk_in_the_middle_changes_nothing() {
    let log = Fixture::new(limits());
    for number in 0..6 {
        log.put(&[("a", Some(&number.to_string())), ("b", Some("1"))]);
    }
    let expected = log.records();
    let mut failures = 0;
    for steps in 0.. {
        let mut pass = log.begin(0).unwrap();
        for _ in 0..steps {
            match pass.step().unwrap() {
                Step::MustChangeFiles => pass.change_files().unwrap(),
                Step::Worked(_) => {}
                Step::Done => break,
            }
        }
        log.storage.fill_disk(true);
        let result = finish(&mut pass);
        log.storage.fill_disk(false);
        failures += usize::from(result.is_err());
        if result.is_ok() {
            break;
        }
        let left = log.records();
        assert!(left.iter().all(|record| expected.contains(record)) && left.contains(&"11@11 b=1".into()), "{left:?}");
    }
    assert!(failures > 3, "{failures}");
    assert_eq!(log.records(), ["8@8 a=4", "9@9 b=1", "10@10 a=5", "11@11 b=1"]);
}

#[test]
fn what_is_removed_meanwhile_stays_removed() {
    // The log start moves after each number of steps, in turn.
    for steps in 0..40 {
        let log = Fixture::new(limits());
        for number in 0..8 {
            log.put(&[(&(number % 3).to_string(), Some(&number.to_string()))]);
        }
        let mut pass = log.begin(0).unwrap();
        for _ in 0..steps {
            match pass.step().unwrap() {
                Step::MustChangeFiles => pass.change_files().unwrap(),
                Step::Worked(_) => {}
                Step::Done => break,
            }
        }
        log.partition.log().advance_log_start(5).unwrap();
        finish(&mut pass).unwrap();
        let found = log.records_from(5);
        assert_eq!(found, ["5@5 2=5", "6@6 0=6", "7@7 1=7"], "after {steps} steps");
        assert!(log.partition.log().segments[0].base_offset >= 4, "after {steps} steps");
    }
}

#[test]
fn a_damaged_batch_ends_the_pass_and_nothing_else() {
    let log = Fixture::new(limits());
    for number in 0..4 {
        log.put(&[("a", Some(&number.to_string()))]);
    }
    let mut store = log.storage.open_log(TOPIC, "t", 0).unwrap();
    let mut bytes = store.read(1, 0, usize::MAX).unwrap().to_vec();
    *bytes.last_mut().unwrap() ^= 1;
    store.append(1, 0, &[&bytes]).unwrap();
    let error = finish(&mut log.begin(0).unwrap()).unwrap_err();
    assert!(error.to_string().contains("the batch at byte 0 of segment 1 of t-0 in memory is damaged"), "{error}");
    assert_eq!(log.partition.log().segments.len(), 4);
    assert_eq!(log.records_from(2), ["2@2 a=2", "3@3 a=3"]);
}
