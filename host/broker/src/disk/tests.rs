//! The folder: lock, format, torn files, topics removed, and a whole core on it over restarts.

mod damage;
mod fuzz;
pub(super) mod syncs;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::*;
use crate::core::admin::NewTopic;
use crate::core::batch::build::{NewRecord, batch_of};
use crate::core::log::{IsolationLevel, Recovery};
use crate::core::{Core, CoreOptions};

/// A folder of this test's own, removed at its end.
pub(crate) struct TestDir(PathBuf);

impl TestDir {
    pub(crate) fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("broker-test-{}-{number}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TestDir {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

fn open(dir: &Path) -> (Core, Vec<Recovery>) {
    let storage = DiskStorage::open(dir, false).unwrap();
    Core::open(CoreOptions::default(), Arc::new(storage)).unwrap()
}

fn new_topic(name: &str, configs: &[(&str, &str)]) -> NewTopic {
    let configs = configs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    NewTopic { name: name.into(), partitions: 1, configs: configs.collect() }
}

fn append(core: &Core, value: &[u8]) -> i64 {
    let batch = batch_of(None, &[NewRecord { value: Some(value), ..NewRecord::default() }]);
    core.partition("t", 0).unwrap().append(&batch, 0).unwrap().base_offset
}

fn first_log(dir: &Path) -> PathBuf {
    let topic = fs::read_dir(dir.join("logs")).unwrap().next().unwrap().unwrap().path();
    topic.join("0").join("00000000000000000000.log")
}

#[test]
fn records_in_many_segments_survive_a_restart() {
    let dir = TestDir::new();
    let (core, _) = open(dir.path());
    core.create_topic(&new_topic("t", &[("segment.bytes", "2000")]), false).unwrap();
    for number in 0..200i64 {
        assert_eq!(append(&core, &number.to_be_bytes()), number);
    }
    drop(core);
    assert!(first_log(dir.path()).with_extension("summary").exists());
    let (core, recoveries) = open(dir.path());
    assert_eq!(recoveries, []);
    let handle = core.partition("t", 0).unwrap();
    for offset in [0, 1, 57, 199] {
        let fetched = handle.read(offset, 1, true, IsolationLevel::ReadCommitted).unwrap();
        assert!(fetched.records.windows(8).any(|window| window == offset.to_be_bytes()), "offset {offset}");
    }
    assert_eq!(append(&core, b"next"), 200);
}

#[test]
fn a_torn_write_is_cut_at_the_next_start() {
    let dir = TestDir::new();
    let (core, _) = open(dir.path());
    core.create_topic(&new_topic("t", &[]), false).unwrap();
    append(&core, b"kept");
    drop(core);
    let path = first_log(dir.path());
    let whole = fs::read(&path).unwrap();
    let mut torn = whole.clone();
    torn.extend_from_slice(&whole[..whole.len() - 1]);
    fs::write(&path, &torn).unwrap();
    let (core, recoveries) = open(dir.path());
    assert_eq!((recoveries.len(), recoveries[0].cut_bytes), (1, whole.len() as u64 - 1));
    assert_eq!(fs::read(&path).unwrap(), whole);
    assert_eq!(append(&core, b"next"), 1);
}

/// A folder with a compacted topic: ten records of one key, a segment each.
fn ten_of_one_key(dir: &Path) -> Core {
    let (core, _) = open(dir);
    core.create_topic(&new_topic("t", &[("cleanup.policy", "compact"), ("segment.bytes", "14")]), false).unwrap();
    for number in 0..10u8 {
        let record = NewRecord { key: Some(b"k"), value: Some(&[number]), ..NewRecord::default() };
        core.partition("t", 0).unwrap().append(&batch_of(None, &[record]), 0).unwrap();
    }
    core
}

#[test]
fn a_cleaned_log_is_the_same_after_a_restart() {
    let dir = TestDir::new();
    let core = ten_of_one_key(dir.path());
    let cleaning = core.clean(1);
    assert_eq!((cleaning.errors.as_slice(), cleaning.replaced_segments), ([].as_slice(), 8));
    let read = |core: &Core| {
        let handle = core.partition("t", 0).unwrap();
        let read = |offset| handle.read(offset, 1 << 20, true, IsolationLevel::ReadCommitted).unwrap();
        (0..10).map(read).collect::<Vec<_>>()
    };
    let (expected, size) = (read(&core), core.size_bytes()["t"]);
    drop(core);
    let logs = fs::read_dir(first_log(dir.path()).parent().unwrap()).unwrap();
    let bytes: u64 = logs
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.path().extension().is_some_and(|extension| extension == "log"))
        .map(|entry| entry.metadata().unwrap().len())
        .sum();
    assert_eq!(bytes, size, "the disk is free");
    let (core, recoveries) = open(dir.path());
    assert_eq!((recoveries.as_slice(), read(&core)), ([].as_slice(), expected));
    assert_eq!(core.clean(2).finished_passes, 0, "it is known to be clean");
}

#[test]
fn a_crash_in_the_middle_of_a_cleaning_is_no_harm() {
    let dir = TestDir::new();
    drop(ten_of_one_key(dir.path()));
    let path = first_log(dir.path());
    fs::write(path.with_extension("cleaned"), b"half of a batch").unwrap();
    // The summary of a segment whose replacement was to follow.
    fs::remove_file(path.with_file_name("00000000000000000003.summary")).unwrap();
    let (core, recoveries) = open(dir.path());
    assert_eq!((recoveries.len(), path.with_extension("cleaned").exists()), (0, false));
    assert_eq!(core.partition("t", 0).unwrap().bounds().high_watermark, 10);
    let cleaning = core.clean(1);
    assert_eq!((cleaning.errors.as_slice(), cleaning.replaced_segments), ([].as_slice(), 8));
}

#[test]
fn a_second_broker_on_the_folder_is_refused() {
    let dir = TestDir::new();
    let first = DiskStorage::open(dir.path(), false).unwrap();
    first.write_listener("127.0.0.1:4711".parse().unwrap()).unwrap();
    let error = DiskStorage::open(dir.path(), false).unwrap_err().to_string();
    assert!(error.contains("another process uses it (a broker at 127.0.0.1:4711)"), "{error}");
    drop(first);
    DiskStorage::open(dir.path(), false).unwrap();
}

/// As a child that is being forked off does: it has a copy of the lock for a moment after its parent gave it up.
#[test]
fn a_lock_that_is_held_for_a_moment_only_is_waited_for() {
    let dir = TestDir::new();
    let first = DiskStorage::open(dir.path(), false).unwrap();
    let copy = first._lock.try_clone().unwrap();
    drop(first);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(50));
            drop(copy);
        });
        DiskStorage::open(dir.path(), false).unwrap();
    });
}

#[test]
fn a_newer_format_is_refused_and_left_alone() {
    let dir = TestDir::new();
    fs::write(dir.path().join("format.json"), r#"{"version":3,"something":"new"}"#).unwrap();
    let error = DiskStorage::open(dir.path(), false).unwrap_err().to_string();
    assert!(error.contains("format 3, this program knows up to 2"), "{error}");
    assert!(!dir.path().join("metadata.log").exists());
    fs::write(dir.path().join("format.json"), "garbage").unwrap();
    let error = DiskStorage::open(dir.path(), false).unwrap_err().to_string();
    assert!(error.contains("format.json"), "{error}");
    fs::remove_file(dir.path().join("format.json")).unwrap();
    fs::write(dir.path().join("metadata.log"), "").unwrap();
    let error = DiskStorage::open(dir.path(), false).unwrap_err().to_string();
    assert!(error.contains("missing beside a metadata.log"), "{error}");
}

/// An older program must not open what a newer one has written to: it would take transactions for damage.
#[test]
fn an_older_format_is_read_and_marked_as_the_present_one() {
    let dir = TestDir::new();
    let id = DiskStorage::open(dir.path(), false).unwrap().cluster_id().to_owned();
    let path = dir.path().join("format.json");
    let present = fs::read_to_string(&path).unwrap();
    fs::write(&path, present.replace(r#""version":2"#, r#""version":1"#)).unwrap();
    assert_ne!(fs::read_to_string(&path).unwrap(), present);
    assert_eq!(DiskStorage::open(dir.path(), false).unwrap().cluster_id(), id);
    assert_eq!(fs::read_to_string(&path).unwrap(), present);
}

#[test]
fn a_damaged_folder_of_an_older_format_stays_one() {
    let dir = TestDir::new();
    drop(DiskStorage::open(dir.path(), false).unwrap());
    let path = dir.path().join("format.json");
    let old = fs::read_to_string(&path).unwrap().replace(r#""version":2"#, r#""version":1"#);
    fs::write(&path, &old).unwrap();
    let json = r#"{"type":"of_the_future"}"#;
    fs::write(dir.path().join("metadata.log"), format!("{:08x} {json}\n", crc32c::crc32c(json.as_bytes()))).unwrap();
    let error = DiskStorage::open(dir.path(), false).unwrap_err().to_string();
    assert!(error.contains("nothing was changed"), "{error}");
    assert_eq!(fs::read_to_string(&path).unwrap(), old);
}

#[test]
fn the_identity_stays() {
    let (one, other) = (TestDir::new(), TestDir::new());
    let id = DiskStorage::open(one.path(), false).unwrap().cluster_id().to_owned();
    assert_eq!(id.len(), 32);
    assert_eq!(DiskStorage::open(one.path(), false).unwrap().cluster_id(), id);
    assert_ne!(DiskStorage::open(other.path(), false).unwrap().cluster_id(), id);
}

#[test]
fn deleted_topics_leave_no_files() {
    let dir = TestDir::new();
    let (core, _) = open(dir.path());
    let long = "x".repeat(249);
    core.create_topic(&new_topic("t", &[]), false).unwrap();
    core.create_topic(&new_topic(&long, &[]), false).unwrap();
    append(&core, b"gone");
    core.delete_topic("t").unwrap();
    core.create_topic(&new_topic("t", &[]), false).unwrap();
    assert_eq!(append(&core, b"new"), 0);
    core.delete_topic(&long).unwrap();
    drop(core);
    assert_eq!(fs::read_dir(dir.path().join("logs")).unwrap().count(), 1);
    // A creation or deletion that was cut short.
    fs::create_dir_all(dir.path().join("logs").join("left-00000000000000000000000000000009").join("0")).unwrap();
    let (core, _) = open(dir.path());
    assert_eq!(fs::read_dir(dir.path().join("logs")).unwrap().count(), 1);
    assert_eq!(core.partition("t", 0).unwrap().bounds().high_watermark, 1);
}

#[test]
fn opening_an_empty_folder_twice_is_the_same() {
    let dir = TestDir::new();
    drop(open(&dir.path().join("deep/er")));
    let (core, recoveries) = open(&dir.path().join("deep/er"));
    assert_eq!(recoveries, []);
    assert_eq!(core.size_bytes(), BTreeMap::new());
}
