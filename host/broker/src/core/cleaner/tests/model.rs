//! A log against a model, from a seed: puts and tombstones in batches of every codec, idempotent and not, deleted
//! records, cleanings in pieces and with room for a part of the keys, restarts. What is readable is always what was
//! written there; after the last cleaning the compacted view is the last value of each key.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Cleaning, clean_all, options};
use crate::core::admin::NewTopic;
use crate::core::batch::build::{NewRecord, ProducerStamp, batch_of};
use crate::core::batch::codec::Codec;
use crate::core::batch::rewrite::compressed;
use crate::core::batch::{BatchHeader, DecodedBatch, is_intact};
use crate::core::cleaner::CleanerOptions;
use crate::core::log::IsolationLevel;
use crate::core::memory::MemoryStorage;
use crate::core::storage::Storage;
use crate::core::{Core, CoreOptions};
use crate::disk::DiskStorage;
use crate::disk::tests::TestDir;

const CODECS: [Codec; 5] = [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd];

/// A small generator; its numbers are the same everywhere.
struct Random(u64);

impl Random {
    fn below(&mut self, most: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % most
    }
}

/// Timestamp, key and value.
type Written = (i64, Vec<u8>, Option<Vec<u8>>);

struct Model {
    random: Random,
    core: Core,
    /// Everything that was ever written, by offset.
    written: BTreeMap<i64, Written>,
    now_ms: i64,
    log_start: i64,
    sequence: i32,
    freed_bytes: u64,
}

fn open(storage: Arc<dyn Storage>) -> Core {
    let cleaner = CleanerOptions { work_bytes: 300, key_bytes_max: 250, ..CleanerOptions::default() };
    let (core, recoveries) = Core::open(CoreOptions { cleaner, ..options() }, storage).unwrap();
    assert_eq!(recoveries, []);
    core
}

impl Model {
    fn put(&mut self) {
        let count = 1 + self.random.below(5);
        let record = |random: &mut Random| -> Written {
            let key = random.below(12).to_string().into_bytes();
            let size = random.below(60) as usize;
            let value = (random.below(4) > 0).then(|| vec![b'a' + random.below(26) as u8; size]);
            (self.now_ms - random.below(50) as i64, key, value)
        };
        let records: Vec<Written> = (0..count).map(|_| record(&mut self.random)).collect();
        let new: Vec<NewRecord<'_>> = records
            .iter()
            .map(|(timestamp, key, value)| NewRecord {
                timestamp: *timestamp,
                key: Some(key),
                value: value.as_deref(),
                headers: &[(b"h", None)],
            })
            .collect();
        let stamp = ProducerStamp { producer_id: 5, epoch: 0, base_sequence: self.sequence, transactional: false };
        let is_idempotent = self.random.below(3) == 0;
        let batch = batch_of(is_idempotent.then_some(stamp), &new);
        let batch = match CODECS[self.random.below(5) as usize] {
            Codec::None => batch,
            codec => compressed(&batch, codec),
        };
        let handle = self.core.partition("t", 0).unwrap();
        let appended = handle.append(&batch, self.now_ms).unwrap();
        if is_idempotent {
            self.sequence += count as i32;
            let again = handle.append(&batch, self.now_ms).unwrap();
            assert_eq!((again.base_offset, again.duplicate), (appended.base_offset, true));
        }
        self.written.extend((appended.base_offset..).zip(records));
    }

    /// Reads from `offset` to the end; every record must be what was written there.
    fn read(&self, offset: i64) -> BTreeMap<i64, Written> {
        let handle = self.core.partition("t", 0).unwrap();
        let end = handle.bounds().high_watermark;
        assert_eq!(end, self.written.last_key_value().map_or(0, |(last, _)| last + 1), "the log end");
        let mut found = BTreeMap::new();
        let mut next = offset;
        while next < end {
            let bytes = handle.read(next, 1, true, IsolationLevel::ReadCommitted).unwrap().records;
            let header = BatchHeader::read(&bytes).unwrap_or_else(|| panic!("nothing at {next} of {end}"));
            assert!(is_intact(&bytes, &header) && header.last_offset() >= next);
            let decoded = DecodedBatch::decode(&bytes, &header).unwrap();
            assert_eq!(decoded.records().count(), header.record_count as usize);
            for record in decoded.records().filter(|record| record.offset >= next) {
                let written = (record.timestamp, record.key.unwrap().to_vec(), record.value.map(<[u8]>::to_vec));
                assert_eq!(self.written.get(&record.offset), Some(&written), "offset {}", record.offset);
                assert_eq!(record.headers(), [(b"h".as_slice(), None)]);
                found.insert(record.offset, written);
            }
            next = header.last_offset() + 1;
        }
        found
    }

    /// The last offset of each key at or after the log start.
    fn latest(&self) -> BTreeMap<&[u8], i64> {
        self.written.range(self.log_start..).map(|(&offset, (_, key, _))| (key.as_slice(), offset)).collect()
    }

    /// What may be missing is what has a later record of its key, and tombstones.
    fn check(&mut self) {
        let found = self.read(self.log_start);
        for (key, offset) in self.latest() {
            let is_tombstone = self.written[&offset].2.is_none();
            assert!(found.contains_key(&offset) || is_tombstone, "key {key:?} at {offset}");
        }
        let handle = self.core.partition("t", 0).unwrap();
        let left = (handle.bounds().high_watermark - self.log_start + 1) as u64;
        let from = self.log_start + self.random.below(left) as i64;
        let expected: BTreeMap<i64, Written> = found.range(from..).map(|(&at, record)| (at, record.clone())).collect();
        assert_eq!(self.read(from), expected, "from {from}");
        let timestamp = self.now_ms - self.random.below(500) as i64;
        let expected = found.iter().find(|(_, record)| record.0 >= timestamp).map(|(&at, record)| (at, record.0));
        assert_eq!(handle.offset_for_timestamp(timestamp).unwrap(), expected, "timestamp {timestamp}");
    }

    fn note(&mut self, cleaning: &Cleaning) {
        assert_eq!(cleaning.errors, []);
        self.freed_bytes += cleaning.freed_bytes;
    }

    /// Does something; true when it was more than a put.
    fn step(&mut self, reopen: &mut dyn FnMut() -> Arc<dyn Storage>) -> bool {
        self.now_ms += self.random.below(40) as i64;
        let choice = self.random.below(40);
        match choice {
            0..=23 => self.put(),
            24..=36 => {
                let cleaning = self.core.clean(self.now_ms);
                self.note(&cleaning);
            }
            37 => {
                let end = self.core.partition("t", 0).unwrap().bounds().high_watermark;
                let start = self.log_start + self.random.below(20) as i64;
                self.log_start = self.core.delete_records("t", 0, start.min(end)).unwrap();
            }
            _ => {
                if self.random.below(2) == 0 {
                    self.core.summarize_logs();
                }
                // The old core goes first: a folder has one broker.
                self.core = open(Arc::new(MemoryStorage::new()));
                self.core = open(reopen());
            }
        }
        choice > 23
    }
}

fn run(seed: u64, steps: usize, reopen: &mut dyn FnMut() -> Arc<dyn Storage>) -> (BTreeMap<i64, Written>, u64) {
    let core = open(reopen());
    let configs = [
        ("cleanup.policy", "compact,delete"),
        ("retention.ms", "-1"),
        ("segment.bytes", "600"),
        ("index.interval.bytes", "200"),
        ("segment.ms", "400"),
        ("min.cleanable.dirty.ratio", "0.2"),
        ("max.compaction.lag.ms", "5000"),
        ("delete.retention.ms", "300"),
    ];
    let configs = configs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    core.create_topic(&NewTopic { name: "t".into(), partitions: 1, configs }, false).unwrap();
    let random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let mut model =
        Model { random, core, written: BTreeMap::new(), now_ms: 10_000, log_start: 0, sequence: 0, freed_bytes: 0 };
    for step in 0..steps {
        if model.step(reopen) || step % 8 == 0 {
            model.check();
        }
    }
    // Everything is closed by age and cleaned, and again when the tombstones' time has come.
    let mut last = 0;
    for _ in 0..2 {
        last = model.core.partition("t", 0).unwrap().bounds().high_watermark;
        model.put();
        model.now_ms += 10_000;
        let cleaning = clean_all(&model.core, model.now_ms);
        model.note(&cleaning);
        model.check();
    }
    let found = model.read(model.log_start);
    let latest = model.latest();
    for (offset, (_, key, value)) in &found {
        assert_eq!(latest[key.as_slice()], *offset, "seed {seed}: offset {offset} is not the last of its key");
        assert!(value.is_some() || *offset >= last, "seed {seed}: the tombstone at {offset} is too old");
    }
    (found, model.freed_bytes)
}

#[test]
fn the_compacted_view_is_the_last_value_of_each_key() {
    for seed in 1..=8 {
        let storage = MemoryStorage::new();
        let (found, freed_bytes) = run(seed, 200, &mut || Arc::new(storage.clone()));
        assert!(found.len() <= 12 && freed_bytes > 3_000, "seed {seed}: {} records, {freed_bytes}", found.len());
    }
}

#[test]
fn the_same_seed_gives_the_same_log() {
    let once = || {
        let storage = MemoryStorage::new();
        run(77, 100, &mut || Arc::new(storage.clone()))
    };
    assert_eq!(once(), once());
}

#[test]
fn the_same_on_files() {
    for seed in 100..=101 {
        let dir = TestDir::new();
        let (found, freed_bytes) = run(seed, 150, &mut || Arc::new(DiskStorage::open(dir.path(), false).unwrap()));
        assert!(found.len() <= 12 && freed_bytes > 1_000, "seed {seed}: {} records, {freed_bytes}", found.len());
    }
}
