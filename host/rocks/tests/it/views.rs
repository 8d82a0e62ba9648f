//! Read views: from other threads, past the store's life, one moment each.

use std::ops::{Bound, ControlFlow};
use std::sync::atomic::{AtomicBool, Ordering};

use engine::state::{KeyRange, StateStore, StoreError, StoreProvider};
use rocks::RocksStoreProvider;

use crate::folder::{Folder, TASK, open, put, spec};

#[test]
fn a_scan_of_a_view_sees_one_moment() {
    let folder = Folder::new("moment");
    let provider = folder.provider();
    let mut store = open(&provider, "store");
    let all: Vec<_> = (0..200).map(|i| format!("{i:03}")).collect();
    let write_all = |store: &mut Box<dyn StateStore>, value: i64| {
        let writes: Vec<_> = all.iter().map(|key| put(key, &value.to_string())).collect();
        store.write(&writes, Some(value)).expect("write");
    };
    write_all(&mut store, 0);
    let view = store.read_view();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut scans = 0;
            while !done.load(Ordering::Relaxed) || scans == 0 {
                let mut values = Vec::new();
                let range = KeyRange { lower: Bound::Unbounded, upper: Bound::Unbounded };
                view.scan(range, false, &mut |_, value| {
                    values.push(value.to_vec());
                    ControlFlow::Continue(())
                })
                .expect("scan");
                assert_eq!(values.len(), 200);
                assert!(values.iter().all(|value| *value == values[0]), "a scan saw half a batch");
                scans += 1;
            }
        });
        for value in 1..500 {
            write_all(&mut store, value);
        }
        done.store(true, Ordering::Relaxed);
    });
    assert_eq!(view.changelog_offset().expect("offset"), Some(499));
}

#[test]
fn a_view_of_a_closed_store_fails_and_does_not_hold_it_open() {
    let folder = Folder::new("closed");
    let provider = folder.provider();
    let mut store = open(&provider, "store");
    store.write(&[put("a", "1")], Some(1)).expect("write");
    let view = store.read_view();
    assert_eq!(view.get(b"a").expect("get").as_deref(), Some(b"1".as_slice()));
    drop(store);
    let error = view.get(b"a").expect_err("the store is closed");
    assert!(matches!(&error, StoreError::Closed { store, task } if store == "store" && *task == TASK), "{error}");
    provider.wipe(TASK, &spec("store")).expect("wipe");
    assert_eq!(open(&provider, "store").get(b"a").expect("get"), None);
}

#[test]
fn a_store_opens_again_behind_a_query_that_is_still_running() {
    let folder = Folder::new("behind");
    let provider = folder.provider();
    let mut store = open(&provider, "store");
    store.write(&[put("a", "1"), put("b", "2")], Some(1)).expect("write");
    // Often, since the closing and the opening must be seen in every order.
    for _ in 0..100 {
        store = reopen_behind_a_scan(&provider, store);
        assert_eq!(store.changelog_offset().expect("offset"), Some(1));
    }
}

fn reopen_behind_a_scan(provider: &RocksStoreProvider, store: Box<dyn StateStore>) -> Box<dyn StateStore> {
    let view = store.read_view();
    std::thread::scope(|scope| {
        let (started, wait) = std::sync::mpsc::channel();
        scope.spawn(move || {
            let range = KeyRange { lower: Bound::Unbounded, upper: Bound::Unbounded };
            view.scan(range, false, &mut |_, _| {
                started.send(()).expect("the test waits");
                std::thread::sleep(std::time::Duration::from_millis(3));
                ControlFlow::Continue(())
            })
            .expect("scan");
        });
        wait.recv().expect("the scan runs");
        drop(store);
        let store = open(provider, "store");
        wait.recv().expect("the scan ended");
        store
    })
}
