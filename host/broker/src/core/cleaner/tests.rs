//! The cleaner of a whole core: settings, restarts, a full disk, topics that go away, and a model.

mod model;

use std::collections::BTreeMap;

use super::*;
use crate::core::CoreOptions;
use crate::core::admin::NewTopic;
use crate::core::batch::build::{NewRecord, batch_of};
use crate::core::log::IsolationLevel;
use crate::core::memory::MemoryStorage;
use crate::core::refusal::ErrorCode;

fn options() -> CoreOptions {
    CoreOptions::default()
}

fn open(storage: &MemoryStorage) -> Core {
    let (core, recoveries) = Core::open(options(), Arc::new(storage.clone())).unwrap();
    assert_eq!(recoveries, []);
    core
}

fn create(core: &Core, name: &str, configs: &[(&str, &str)]) {
    let configs: BTreeMap<String, String> =
        configs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    core.create_topic(&NewTopic { name: name.into(), partitions: 1, configs }, false).unwrap();
}

fn put(core: &Core, topic: &str, key: &str, value: Option<&str>, now_ms: i64) -> i64 {
    let record =
        NewRecord { timestamp: now_ms, key: Some(key.as_bytes()), value: value.map(str::as_bytes), headers: &[] };
    core.partition(topic, 0).unwrap().append(&batch_of(None, &[record]), now_ms).unwrap().base_offset
}

/// Calls until nothing is left to do; the sum of all calls.
fn clean_all(core: &Core, now_ms: i64) -> Cleaning {
    let mut sum = Cleaning::default();
    loop {
        let cleaning = core.clean(now_ms);
        sum.rolled_segments += cleaning.rolled_segments;
        sum.removed_segments += cleaning.removed_segments;
        sum.removed_bytes += cleaning.removed_bytes;
        sum.replaced_segments += cleaning.replaced_segments;
        sum.freed_bytes += cleaning.freed_bytes;
        sum.finished_passes += cleaning.finished_passes;
        sum.errors.extend(cleaning.errors);
        sum.next_ms = cleaning.next_ms;
        if cleaning.next_ms > now_ms {
            return sum;
        }
    }
}

fn log_start(core: &Core) -> i64 {
    core.partition("t", 0).unwrap().bounds().log_start_offset
}

#[test]
fn retention_frees_the_disk_and_is_kept() {
    let storage = MemoryStorage::new();
    let core = open(&storage);
    create(&core, "t", &[("retention.ms", "1000"), ("segment.bytes", "100")]);
    for now_ms in 0..10 {
        put(&core, "t", "k", Some("v"), now_ms * 100);
    }
    let before = core.size_bytes()["t"];
    let cleaning = clean_all(&core, 1_501);
    assert_eq!((cleaning.removed_segments, cleaning.errors.as_slice()), (6, [].as_slice()));
    assert_eq!(cleaning.removed_bytes, before - core.size_bytes()["t"]);
    assert_eq!(log_start(&core), 6);
    let image = super::super::storage::Storage::load_metadata(&storage).unwrap();
    assert_eq!(image.topics["t"].log_starts[&0], 6);
    drop(core);
    let core = open(&storage);
    assert_eq!(log_start(&core), 6);
    let read = core.partition("t", 0).unwrap().read(5, 1, true, IsolationLevel::ReadCommitted);
    assert_eq!(read.unwrap_err().code, ErrorCode::OffsetOutOfRange);
    // The last record goes when its time has come, with the segment that was written.
    clean_all(&core, 1_901);
    assert_eq!((log_start(&core), core.size_bytes()["t"]), (10, 0));
    drop(core);
    let core = open(&storage);
    assert_eq!((log_start(&core), put(&core, "t", "k", None, 2_000)), (10, 10));
}

#[test]
fn a_topic_without_limits_keeps_records_of_any_age() {
    let core = open(&MemoryStorage::new());
    create(&core, "t", &[("segment.bytes", "100")]);
    for _ in 0..5 {
        put(&core, "t", "k", Some("v"), 1);
    }
    let cleaning = clean_all(&core, 1_700_000_000_000);
    assert_eq!((cleaning.removed_segments, log_start(&core)), (0, 0));
}

#[test]
fn a_full_disk_is_made_free() {
    let storage = MemoryStorage::new();
    let core = open(&storage);
    create(&core, "t", &[("retention.ms", "1000"), ("segment.bytes", "100")]);
    for now_ms in 0..10 {
        put(&core, "t", "k", Some("v"), now_ms * 100);
    }
    storage.fill_disk(true);
    let cleaning = clean_all(&core, 1_501);
    assert_eq!((cleaning.removed_segments, cleaning.errors.len(), log_start(&core)), (6, 1, 6));
    storage.fill_disk(false);
    drop(core);
    assert_eq!(log_start(&open(&storage)), 6, "what is left says where the log begins");
}

#[test]
fn a_full_disk_is_made_free_though_no_segment_can_be_made() {
    // The last segment is due; everything has expired, the last segment too; a single segment has.
    for (segment_ms, records, now_ms, removed, left) in
        [(1_000, 10, 2_601, 9, 9), (604_800_000, 10, 10_000, 9, 9), (604_800_000, 1, 10_000, 0, 0)]
    {
        let storage = MemoryStorage::new();
        let core = open(&storage);
        let segment_ms = i64::to_string(&segment_ms);
        create(&core, "t", &[("retention.ms", "1000"), ("segment.bytes", "100"), ("segment.ms", &segment_ms)]);
        for now_ms in 0..records {
            put(&core, "t", "k", Some("v"), now_ms * 100);
        }
        storage.fill_disk(true);
        let cleaning = clean_all(&core, now_ms);
        assert_eq!((cleaning.removed_segments, log_start(&core)), (removed, left), "{:?}", cleaning.errors);
        assert!(cleaning.errors[0].to_string().starts_with("create segment"), "{:?}", cleaning.errors);
        storage.fill_disk(false);
        let cleaning = clean_all(&core, now_ms + 1_000);
        assert_eq!((cleaning.errors.as_slice(), log_start(&core)), ([].as_slice(), records));
    }
}

#[test]
fn both_policies_at_once() {
    let core = open(&MemoryStorage::new());
    let configs = [
        ("cleanup.policy", "compact,delete"),
        ("retention.ms", "1000"),
        ("segment.bytes", "100"),
        ("min.cleanable.dirty.ratio", "0.01"),
    ];
    create(&core, "t", &configs);
    for now_ms in 0..10 {
        put(&core, "t", if now_ms % 2 == 0 { "even" } else { "odd" }, Some("v"), now_ms * 100);
    }
    let cleaning = clean_all(&core, 1_201);
    assert_eq!((cleaning.removed_segments, log_start(&core)), (3, 3));
    let read = core.partition("t", 0).unwrap().read(3, 1 << 20, true, IsolationLevel::ReadCommitted).unwrap();
    let header = crate::core::batch::BatchHeader::read(&read.records).unwrap();
    assert_eq!(header.base_offset, 7, "the segment that is written has the last odd one");
}

#[test]
fn an_idle_compacted_topic_is_compacted() {
    let core = open(&MemoryStorage::new());
    create(&core, "t", &[("cleanup.policy", "compact"), ("max.compaction.lag.ms", "500")]);
    for _ in 0..50 {
        put(&core, "t", "k", Some("v"), 0);
    }
    let cleaning = clean_all(&core, 500);
    assert_eq!((cleaning.rolled_segments, cleaning.finished_passes), (0, 0));
    let cleaning = clean_all(&core, 1_500);
    assert_eq!((cleaning.rolled_segments, cleaning.finished_passes, cleaning.replaced_segments), (1, 1, 1));
    let bounds = core.partition("t", 0).unwrap().bounds();
    assert_eq!((bounds.log_start_offset, bounds.high_watermark), (0, 50));
    assert_eq!(clean_all(&core, 2_500).finished_passes, 0, "there is nothing more to do");
}

#[test]
fn the_work_of_one_call_is_bounded() {
    let cleaner = CleanerOptions { work_bytes: 2_000, ..CleanerOptions::default() };
    let storage = Arc::new(MemoryStorage::new());
    let (core, _) = Core::open(CoreOptions { cleaner, ..options() }, storage).unwrap();
    create(&core, "t", &[("cleanup.policy", "compact"), ("segment.bytes", "500")]);
    for _ in 0..200 {
        put(&core, "t", "k", Some("v"), 0);
    }
    let mut calls = 1;
    let mut finished = 0;
    loop {
        let cleaning = core.clean(10);
        finished += cleaning.finished_passes;
        if cleaning.next_ms > 10 {
            assert_eq!(cleaning.next_ms, 1_010);
            break;
        }
        calls += 1;
        // Others go on in between.
        put(&core, "t", "k", Some("v"), 0);
    }
    assert!(calls >= 10 && finished >= 1, "{calls} calls, {finished} passes");
}

#[test]
fn a_topic_that_goes_away_ends_its_cleaning() {
    let cleaner = CleanerOptions { work_bytes: 1, ..CleanerOptions::default() };
    for calls in 0..12 {
        let storage = MemoryStorage::new();
        let options = CoreOptions { cleaner: cleaner.clone(), ..options() };
        let (core, _) = Core::open(options, Arc::new(storage)).unwrap();
        let configs = [("cleanup.policy", "compact"), ("segment.bytes", "100")];
        create(&core, "t", &configs);
        for _ in 0..5 {
            put(&core, "t", "k", Some("v"), 0);
        }
        for _ in 0..calls {
            core.clean(10);
        }
        core.delete_topic("t").unwrap();
        create(&core, "t", &configs);
        put(&core, "t", "new", Some("v"), 0);
        let cleaning = clean_all(&core, 20);
        assert_eq!(cleaning.errors, [], "after {calls} calls");
        assert_eq!(core.partition("t", 0).unwrap().bounds().high_watermark, 1);
    }
}

#[test]
fn a_log_that_fails_does_not_stop_the_others() {
    let storage = MemoryStorage::new();
    let core = open(&storage);
    let configs = [("cleanup.policy", "compact"), ("segment.bytes", "100"), ("retention.ms", "-1")];
    create(&core, "a", &configs);
    create(&core, "b", &configs);
    for topic in ["a", "b"] {
        for _ in 0..5 {
            put(&core, topic, "k", Some("v"), 0);
        }
    }
    let topic = core.topic("a").unwrap();
    let mut store = super::super::storage::Storage::open_log(&storage, topic.id, "a", 0).unwrap();
    let mut damaged = store.read(1, 0, usize::MAX).unwrap().to_vec();
    *damaged.last_mut().unwrap() ^= 1;
    store.append(1, 0, &[&damaged]).unwrap();
    let cleaning = clean_all(&core, 10);
    assert_eq!((cleaning.errors.len(), cleaning.finished_passes), (1, 1));
    assert!(cleaning.errors[0].to_string().contains("clean the log of a-0"), "{:?}", cleaning.errors);
    assert_eq!(clean_all(&core, 5_000).errors, [], "it is left alone for a while");
    assert_eq!(clean_all(&core, 70_000).errors.len(), 1, "and tried again");
}
