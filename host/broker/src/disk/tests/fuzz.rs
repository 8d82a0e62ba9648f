//! Damaged record batches, segments and metadata, from a seed: never a panic, refused ones change nothing, and what is
//! taken can be read.

use std::fs;
use std::sync::Arc;

use super::TestDir;
use crate::core::batch::build::{NewRecord, ProducerStamp, batch_of};
use crate::core::batch::{self, BatchHeader, HEADER_BYTES, Records};
use crate::core::log::{IsolationLevel, LogLimits, PartitionLog};
use crate::core::memory::MemoryStorage;
use crate::core::metadata::{CommittedOffset, MetadataRecord, OffsetRecord, TopicId};
use crate::core::refusal::ErrorCode;
use crate::core::storage::Storage;
use crate::disk::journal::Journal;
use crate::mutation::{Numbers, hexadecimal, mutate};

const TOPIC: TopicId = TopicId(5);

fn limits() -> LogLimits {
    LogLimits { segment_bytes: 600, index_interval_bytes: 100, ..LogLimits::default() }
}

fn batches() -> Vec<Vec<u8>> {
    let header: (&[u8], Option<&[u8]>) = (b"name", Some(b"value"));
    let headers = [header, (b"null", None)];
    let record = NewRecord { timestamp: 5, key: Some(b"key"), value: Some(b"value"), headers: &headers };
    let stamp = ProducerStamp { producer_id: 7, epoch: 0, base_sequence: 0, transactional: false };
    [batch_of(None, &[NewRecord::default()]), batch_of(None, &[record; 5]), batch_of(Some(stamp), &[record; 3])]
        .map(|batch| batch.to_vec())
        .to_vec()
}

/// Makes length and checksum true again, so that the damage lies deeper.
fn mend(bytes: &mut [u8]) {
    if bytes.len() >= HEADER_BYTES {
        let length = (bytes.len() - 12) as i32;
        bytes[8..12].copy_from_slice(&length.to_be_bytes());
        let crc = crc32c::crc32c(&bytes[21..]);
        bytes[17..21].copy_from_slice(&crc.to_be_bytes());
    }
}

fn new_log(storage: &MemoryStorage) -> PartitionLog {
    let store = storage.open_log(TOPIC, "t", 0).unwrap();
    PartitionLog::open(Arc::from("t-0"), store, 0, &limits()).unwrap().0
}

#[test]
fn damaged_batches_are_refused_and_change_nothing() {
    let samples = batches();
    let mut storage = MemoryStorage::new();
    let mut log = new_log(&storage);
    let mut taken = 0;
    for seed in 0..60_000u64 {
        let mut numbers = Numbers::new(seed);
        if seed % 1_000 == 0 {
            storage = MemoryStorage::new();
            log = new_log(&storage);
        }
        let mut bytes = samples[numbers.below(samples.len())].clone();
        let other = samples[numbers.below(samples.len())].clone();
        mutate(&mut numbers, &mut bytes, 0, &other);
        if numbers.below(4) > 0 {
            mend(&mut bytes);
        }
        let (before, writes) = (log.bounds(), storage.write_count());
        let name = || format!("seed {seed} bytes {}", hexadecimal(&bytes));
        match log.append(&bytes, &limits(), 10) {
            Err(_) => {
                assert_eq!((log.bounds(), storage.write_count()), (before, writes), "{}", name());
            }
            Ok(appended) if appended.duplicate => assert_eq!(log.bounds(), before),
            Ok(appended) => {
                taken += 1;
                let header = batch::check(&bytes, false).unwrap();
                let end = appended.base_offset + i64::from(header.record_count);
                assert_eq!((appended.base_offset, log.bounds().high_watermark), (before.high_watermark, end));
                if header.compression() == 0 {
                    assert_eq!(Records::new(&bytes, &header).count(), header.record_count as usize, "{}", name());
                }
                let read = log.read(appended.base_offset, 1, true, IsolationLevel::ReadUncommitted).unwrap();
                assert_eq!(read.records.len(), bytes.len(), "{}", name());
            }
        }
    }
    assert!(taken > 1_000, "{taken} were taken");
}

/// The segments of a log with a dozen batches, and a summary of each but the last.
fn filled() -> MemoryStorage {
    let storage = MemoryStorage::new();
    let mut log = new_log(&storage);
    for number in 0..12 {
        let stamp = ProducerStamp { producer_id: 7, epoch: 0, base_sequence: 2 * number, transactional: false };
        let record = NewRecord { timestamp: i64::from(number), key: Some(b"k"), value: Some(&[7; 40]), headers: &[] };
        log.append(&batch_of(Some(stamp), &[record; 2]), &limits(), 0).unwrap();
    }
    storage
}

/// Every batch from the start on: offsets ascend, and each is whole or said to be damaged.
fn read_to_the_end(log: &PartitionLog, name: &dyn Fn() -> String) {
    let bounds = log.bounds();
    let mut offset = bounds.log_start_offset;
    while offset < bounds.high_watermark {
        match log.read(offset, 300, true, IsolationLevel::ReadUncommitted) {
            Ok(fetched) => {
                let header = BatchHeader::read(&fetched.records);
                let last = header.map_or(bounds.high_watermark, |header| header.last_offset());
                assert!(last >= offset, "{}", name());
                offset = last + 1;
            }
            Err(refusal) => {
                let expected = [ErrorCode::CorruptMessage, ErrorCode::KafkaStorageError];
                assert!(expected.contains(&refusal.code), "{refusal} {}", name());
                offset += 1;
            }
        }
    }
    for timestamp in [0, 5, 100] {
        drop(log.offset_for_timestamp(timestamp));
    }
}

#[test]
fn damaged_segments_open_or_are_refused_unchanged() {
    let mut opened = 0;
    for seed in 0..4_000u64 {
        let mut numbers = Numbers::new(seed);
        let storage = filled();
        let mut store = storage.open_log(TOPIC, "t", 0).unwrap();
        let segments = store.segments().unwrap();
        let (base, size) = segments[numbers.below(segments.len())];
        let whole = store.read(base, 0, size as usize).unwrap();
        let mut bytes = whole.to_vec();
        let is_summary = numbers.below(4) == 0;
        match store.read_summary(base).unwrap() {
            Some(summary) if is_summary => {
                let mut summary = summary.to_vec();
                mutate(&mut numbers, &mut summary, 0, &whole);
                store.write_summary(base, &summary).unwrap();
            }
            summary => {
                mutate(&mut numbers, &mut bytes, 0, &whole);
                store.append(base, 0, &[&bytes]).unwrap();
                if summary.is_some() && numbers.below(2) == 0 {
                    store.write_summary(base, b"").unwrap();
                }
            }
        }
        let name = || format!("seed {seed} segment {base} bytes {}", hexadecimal(&bytes));
        match PartitionLog::open(Arc::from("t-0"), storage.open_log(TOPIC, "t", 0).unwrap(), 0, &limits()) {
            Err(_) => assert_eq!(store.read(base, 0, usize::MAX).unwrap(), bytes, "{}", name()),
            Ok((mut log, _)) => {
                opened += 1;
                read_to_the_end(&log, &name);
                let end = log.bounds().high_watermark;
                let appended = log.append(&batches()[1], &limits(), 10).unwrap();
                assert_eq!(appended.base_offset, end, "{}", name());
            }
        }
    }
    assert!(opened > 400, "{opened} were opened");
}

#[test]
fn damaged_metadata_opens_or_is_refused_unchanged() {
    let dir = TestDir::new();
    let path = dir.path().join("metadata.log");
    let committed = |offset| {
        let committed = CommittedOffset { offset, leader_epoch: 0, metadata: "m".into(), commit_timestamp: 1 };
        let offsets = vec![OffsetRecord { topic: "t".into(), partition: 0, committed }];
        MetadataRecord::OffsetsCommitted { group: "g".into(), offsets }
    };
    let mut journal = Journal::open(&path, false).unwrap();
    journal.append(&[MetadataRecord::Started { incarnation: 1 }, MetadataRecord::NextTopic { number: 1 }]).unwrap();
    let configs = [("retention.ms".to_owned(), "5".to_owned())].into();
    journal
        .append(&[MetadataRecord::TopicCreated { id: TOPIC, name: "t".into(), partitions: 2, configs }, committed(1)])
        .unwrap();
    journal.append(&[committed(2)]).unwrap();
    drop(journal);
    let whole = fs::read(&path).unwrap();
    let mut opened = 0;
    for seed in 0..4_000u64 {
        let mut numbers = Numbers::new(seed);
        let mut bytes = whole.clone();
        mutate(&mut numbers, &mut bytes, 0, &whole);
        fs::write(&path, &bytes).unwrap();
        let name = || format!("seed {seed} {}", String::from_utf8_lossy(&bytes));
        match Journal::open(&path, false) {
            Err(_) => assert_eq!(fs::read(&path).unwrap(), bytes, "{}", name()),
            Ok(mut journal) => {
                opened += 1;
                journal.append(&[committed(77)]).unwrap();
                let image = journal.image().clone();
                drop(journal);
                assert_eq!(Journal::open(&path, false).unwrap().image(), &image, "{}", name());
            }
        }
    }
    assert!(opened > 400, "{opened} were opened");
}
