//! The state directory: one owner, one identity, nothing left behind.

use std::time::{Duration, Instant};

use engine::state::{StoreError, StoreProvider};
use engine::topology::{StoreChangelog, StoreSpec};
use rocks::{FORMAT_VERSION, RocksOptions, RocksStoreProvider};

use crate::folder::{APPLICATION, Folder, TASK, open, put, spec};

fn refused(options: RocksOptions) -> StoreError {
    match RocksStoreProvider::open(options) {
        Ok(_) => panic!("the directory was taken"),
        Err(error) => error,
    }
}

#[test]
fn the_layout_is_that_of_kafka_streams() {
    let folder = Folder::new("layout");
    let provider = folder.provider();
    drop(open(&provider, "counts"));
    assert!(folder.path().join("carrier-count/0_3/rocksdb/counts/CURRENT").exists());
}

#[test]
fn a_second_owner_is_refused_while_the_first_lives() {
    let folder = Folder::new("owner");
    let provider = folder.provider();
    let mut store = open(&provider, "store");
    // A lock of this process stands for one of another: `flock` belongs to the open file.
    let error = refused(folder.options());
    assert!(matches!(error, StoreError::Locked { .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains(APPLICATION) && text.contains(&std::process::id().to_string()), "{text}");
    store.write(&[put("a", "1")], Some(1)).expect("the first is unharmed");
    drop(store);
    drop(provider);
    folder.provider();
}

#[test]
fn another_application_or_cluster_or_a_newer_format_is_refused() {
    let folder = Folder::new("foreign");
    let with_cluster = |cluster: &str| RocksOptions { cluster_id: Some(cluster.into()), ..folder.options() };
    drop(RocksStoreProvider::open(with_cluster("one")).expect("open"));
    drop(RocksStoreProvider::open(folder.options()).expect("an unknown cluster is not another one"));
    let error = refused(with_cluster("two"));
    assert!(matches!(error, StoreError::Foreign { .. }), "{error}");
    assert!(error.to_string().contains("cluster one") && error.to_string().contains("cluster two"), "{error}");

    let identity = folder.path().join(APPLICATION).join(".identity");
    let with_identity = |text: &str| {
        std::fs::write(&identity, text).expect("write");
        refused(folder.options())
    };
    let error = with_identity("format.version = 1\napplication.id = other\n");
    assert!(matches!(error, StoreError::Foreign { .. }) && error.to_string().contains("application other"), "{error}");
    let newer = FORMAT_VERSION + 1;
    let error = with_identity(&format!("format.version = {newer}\napplication.id = {APPLICATION}\n"));
    assert!(matches!(error, StoreError::Foreign { .. }), "{error}");
    assert!(error.to_string().contains(&format!("format version {newer}")), "{error}");
    let error = with_identity("\0\0\0");
    assert!(matches!(error, StoreError::Foreign { .. }), "{error}");
    std::fs::remove_file(&identity).expect("remove");
    std::fs::create_dir_all(folder.path().join(APPLICATION).join("0_0")).expect("create");
    let error = refused(folder.options());
    assert!(matches!(error, StoreError::Foreign { .. }) && error.to_string().contains(".identity"), "{error}");
}

#[test]
fn names_that_leave_the_directory_are_refused() {
    let folder = Folder::new("names");
    refused(RocksOptions::new(folder.path(), "../elsewhere"));
    refused(RocksOptions::new(folder.path(), ""));
    let provider = folder.provider();
    for name in ["../../elsewhere", "a/b", "", ".."] {
        assert!(provider.open(TASK, &spec(name)).is_err(), "{name:?} was opened");
        assert!(provider.wipe(TASK, &spec(name)).is_err(), "{name:?} was wiped");
    }
}

#[test]
fn a_directory_that_cannot_be_made_is_named() {
    let folder = Folder::new("file");
    let file = folder.path().join("file");
    std::fs::write(&file, "x").expect("write");
    let error = refused(RocksOptions::new(&file, APPLICATION));
    assert!(matches!(error, StoreError::Io { .. }), "{error}");
    assert!(error.to_string().contains(&file.display().to_string()), "{error}");
}

#[test]
fn a_wiped_store_is_gone_and_leaves_nothing() {
    let folder = Folder::new("wipe");
    let provider = folder.provider();
    let mut store = open(&provider, "store");
    store.write(&[put("a", "1")], Some(5)).expect("write");
    drop(store);
    provider.wipe(TASK, &spec("store")).expect("wipe");
    let store = open(&provider, "store");
    assert_eq!((store.get(b"a").expect("get"), store.changelog_offset().expect("offset")), (None, None));
    drop(store);
    let removed = folder.path().join(APPLICATION).join(".removed");
    let empty = || std::fs::read_dir(&removed).map_or(true, |mut entries| entries.next().is_none());
    wait_until("the removed store is deleted", empty);

    // What a crash left between the rename and the deletion goes with the next start.
    drop(provider);
    std::fs::create_dir_all(removed.join("0_3-store-1-0")).expect("create");
    std::fs::write(removed.join("0_3-store-1-0/000001.sst"), "x").expect("write");
    let _provider = folder.provider();
    wait_until("the leftover is deleted", empty);
}

fn wait_until(what: &str, done: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !done() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn each_schema_version_has_rows_of_its_own() {
    let folder = Folder::new("schema");
    let provider = folder.provider();
    let mut older = open(&provider, "store");
    older.write(&[put("key", "old")], Some(1)).expect("write");
    let mut version_2 = spec("store");
    version_2.version = 2;
    let mut newer = provider.open(TASK, &version_2).expect("beside the older one");
    assert_eq!(newer.get(b"key"), Ok(None));
    newer.write(&[put("key", "new")], Some(1)).expect("write");
    assert_eq!(older.get(b"key").expect("read").as_deref(), Some(&b"old"[..]));
    drop(newer);
    provider.wipe(TASK, &version_2).expect("wipe");
    assert_eq!(older.get(b"key").expect("read").as_deref(), Some(&b"old"[..]), "the older rows are somebody else's");
}

/// The folder says which version its rows have, whatever it is called.
#[test]
fn rows_of_another_schema_version_are_refused() {
    let folder = Folder::new("schema-moved");
    let provider = folder.provider();
    drop(open(&provider, "store"));
    std::fs::rename(folder.store_path("store"), folder.store_path("store-v2")).expect("rename");
    let mut newer = spec("store");
    newer.version = 2;
    let error = provider.open(TASK, &newer).err().expect("version 2 over version 1");
    assert!(matches!(error, StoreError::Foreign { .. }), "{error}");
    assert!(error.to_string().contains("version 1") && error.to_string().contains("version 2"), "{error}");
}

#[test]
fn a_full_disk_is_told_apart() {
    // A write to it always fails with ENOSPC, wherever the test runs.
    let folder = Folder::new("full");
    let provider = folder.provider();
    std::os::unix::fs::symlink("/dev/full", folder.path().join(APPLICATION).join(".identity.new")).expect("link");
    drop(provider);
    std::fs::remove_file(folder.path().join(APPLICATION).join(".identity")).expect("remove");
    let error = refused(folder.options());
    assert!(matches!(error, StoreError::NoSpace { .. }), "{error}");
}

/// The offset of one topic would be taken for that of another.
#[test]
fn stores_of_different_topics_do_not_meet() {
    let folder = Folder::new("topics");
    let provider = folder.provider();
    let of_topic = |topic: &str| StoreSpec { changelog: StoreChangelog::Source(topic.into()), ..spec("store") };
    let offset = |spec: &StoreSpec| provider.open(TASK, spec).expect("open").changelog_offset().expect("an offset");
    for (offset, spec) in (1..).zip([spec("store"), of_topic("flights"), of_topic(".planes")]) {
        let mut store = provider.open(TASK, &spec).expect("open");
        store.write(&[put("a", "1")], Some(offset)).expect("write");
    }
    assert_eq!(offset(&spec("store")), Some(1));
    assert_eq!(offset(&of_topic("flights")), Some(2));
    assert_eq!(offset(&of_topic(".planes")), Some(3));
    assert_eq!(offset(&of_topic("planes")), None);
    provider.wipe(TASK, &of_topic("flights")).expect("wipe");
    assert_eq!((offset(&of_topic("flights")), offset(&spec("store"))), (None, Some(1)));
    assert_eq!(offset(&of_topic(&"x".repeat(249))), None, "the longest name that Kafka allows");
    for topic in ["../elsewhere", "a/b", &"x".repeat(250)] {
        assert!(provider.open(TASK, &of_topic(topic)).is_err(), "{topic:?} was opened");
    }
}
