//! The simulated directory passes the store contract, and a crash leaves a prefix.

use bytes::Bytes;

use super::CrashStores;
use crate::state::{StateStore, StoreError, StoreProvider, Write};
use crate::testing::{Seed, persistent_store_contract, store_contract, topology};
use crate::topology::{StoreSpec, TaskId};

fn spec() -> StoreSpec {
    topology(&[], &["counts"], &[]).sub_topologies.remove(0).stores.remove(0)
}

fn open(stores: &CrashStores) -> Box<dyn StateStore> {
    stores.open(TaskId::default(), &spec()).expect("opens")
}

fn write(n: i64) -> Write {
    (Bytes::from(n.to_string()), Some(Bytes::new()))
}

#[test]
fn passes_the_store_contracts() {
    store_contract(&mut || open(&CrashStores::new()));
    let stores = CrashStores::new();
    persistent_store_contract(&mut || open(&stores));
}

#[test]
fn a_crash_leaves_a_prefix_that_is_not_older_than_the_last_flush() {
    let mut seed = Seed::new(1);
    let mut lengths = std::collections::BTreeSet::new();
    for _ in 0..100 {
        let stores = CrashStores::new();
        let mut store = open(&stores);
        for n in 0..10 {
            store.write(&[write(n)], Some(n + 1)).expect("write");
            if n == 4 {
                store.flush().expect("flush");
            }
        }
        stores.crash(&mut seed);
        // A dead process writes nothing, whatever its objects do.
        store.write(&[write(99)], Some(99)).expect("write");
        drop(store);
        let content = stores.content(TaskId::default(), "counts").expect("is there");
        let length = content.entries.len() as i64;
        assert_eq!(content.changelog_offset, Some(length), "the offset belongs to the data");
        assert!((5..=10).contains(&length));
        assert!(content.entries.keys().all(|key| key != &Bytes::from_static(b"99")));
        lengths.insert(length);
        assert_eq!(StateStore::changelog_offset(&*open(&stores)), Ok(Some(length)));
    }
    assert_eq!(lengths.len(), 6, "every prefix occurs");
}

#[test]
fn a_damaged_store_fails_until_it_is_wiped() {
    let stores = CrashStores::new();
    let mut store = open(&stores);
    store.write(&[write(1)], Some(1)).expect("write");
    stores.damage_any(&mut Seed::new(1)).expect("there is one");
    assert!(matches!(store.get(b"1"), Err(StoreError::Corrupt { .. })));
    assert!(matches!(store.write(&[write(2)], Some(2)), Err(StoreError::Corrupt { .. })));
    assert!(matches!(store.flush(), Err(StoreError::Corrupt { .. })));
    drop(store);
    assert!(matches!(stores.open(TaskId::default(), &spec()), Err(StoreError::Corrupt { .. })));
    stores.wipe(TaskId::default(), &spec()).expect("wipe");
    assert_eq!(open(&stores).changelog_offset(), Ok(None));
}

#[test]
fn whoever_drives_the_host_says_whether_a_write_reaches_the_disk() {
    let stores = CrashStores::new();
    let mut store = open(&stores);
    stores.ask_before_writes(std::sync::Arc::new(|task, store| task == TaskId::default() && store != "counts"));
    assert!(matches!(store.write(&[write(1)], Some(1)), Err(StoreError::Io { .. })));
    drop(store);
    assert_eq!(stores.content(TaskId::default(), "counts").expect("is there").changelog_offset, None);
}

#[test]
fn a_store_is_open_once_and_a_full_disk_takes_nothing() {
    let stores = CrashStores::new();
    let mut store = open(&stores);
    assert!(matches!(stores.open(TaskId::default(), &spec()), Err(StoreError::Locked { .. })));
    stores.fill_disk(true);
    assert!(matches!(store.write(&[write(1)], Some(1)), Err(StoreError::NoSpace { .. })));
    assert_eq!(store.changelog_offset(), Ok(None));
    stores.fill_disk(false);
    store.write(&[write(1)], Some(1)).expect("write");
    drop(store);
    assert_eq!(open(&stores).changelog_offset(), Ok(Some(1)));
}
