//! A process that dies without a word: what is found afterwards is a state that the store once had, with the changelog
//! offset of that very state. The dying process is this test binary, started again for one test.

use std::ops::{Bound, ControlFlow};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use engine::state::{KeyRange, StoreProvider};

use crate::folder::{Folder, TASK, open, put, spec};
use rocks::{RocksOptions, RocksStoreProvider};

const CHILD: &str = "SANDBAR_ROCKS_CRASH";
const KEYS: i64 = 50;

/// Batch `n` writes `n` to key `n % KEYS` and to `latest`, with offset `n + 1`.
fn write_batch(store: &mut dyn engine::state::StateStore, n: i64) {
    let writes = [put(&format!("key-{:02}", n % KEYS), &n.to_string()), put("latest", &n.to_string())];
    store.write(&writes, Some(n + 1)).expect("write");
}

/// Does nothing unless it was started by a test below.
#[test]
fn the_child_that_dies() {
    let Ok(plan) = std::env::var(CHILD) else { return };
    let (folder, batches) = plan.split_once('|').expect("a plan");
    let (batches, bulk) = batches.strip_suffix('b').map_or((batches, false), |batches| (batches, true));
    let batches: i64 = batches.parse().expect("a number");
    let mut options = RocksOptions::new(PathBuf::from(folder), crate::folder::APPLICATION);
    // Small buffers, so that some batches are in tables, some in buffers that are being written, some in memory only.
    options.write_buffer_bytes = 64 << 10;
    if bulk {
        // Files of a few hundred entries.
        options.write_buffers_bytes = 64 << 10;
    }
    let provider = RocksStoreProvider::open(options).expect("open");
    let mut store = open(&provider, "store");
    let from = store.changelog_offset().expect("offset").unwrap_or(0);
    if bulk {
        store.begin_bulk().expect("begin");
    }
    for n in from..from + batches {
        write_batch(&mut *store, n);
        if n % 1_000 == 500 {
            store.flush().expect("flush");
        }
    }
    // As `kill -9`: no destructor runs, nothing is written out.
    std::process::abort();
}

fn die_after(folder: &Folder, batches: i64) {
    die(folder, &batches.to_string());
}

fn die(folder: &Folder, plan: &str) {
    let status = Command::new(std::env::current_exe().expect("this binary"))
        .args(["--exact", "crash::the_child_that_dies", "--test-threads=1"])
        .env(CHILD, format!("{}|{plan}", folder.path().display()))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .expect("start the child");
    assert!(!status.success(), "the child ended in order");
}

#[test]
fn a_crash_leaves_an_older_state_with_its_own_offset() {
    crashes_leave_older_states(&Folder::new("crash"), "");
}

#[test]
fn a_crash_in_a_bulk_load_does_so_too() {
    crashes_leave_older_states(&Folder::new("crash-bulk"), "b");
}

fn crashes_leave_older_states(folder: &Folder, suffix: &str) {
    let mut previous = 0;
    for batches in [10, 700, 3_000, 9_999] {
        die(folder, &format!("{batches}{suffix}"));
        let provider = folder.provider();
        let store = provider.open(TASK, &spec("store")).expect("the lock died with its owner, the store opens");
        let offset = store.changelog_offset().expect("offset").unwrap_or(0);
        assert!(offset >= previous, "what was durable before stays: {offset} after {previous}");
        assert!(offset <= previous + batches);
        // The flush at 500 of each thousand is a floor.
        let flushed = (previous..previous + batches).rev().find(|n| n % 1_000 == 500).map_or(previous, |n| n + 1);
        assert!(offset >= flushed, "flushed up to {flushed}, found {offset}");
        let mut expected: Vec<(String, String)> = (0..KEYS)
            .filter_map(|key| {
                (0..offset).rev().find(|n| n % KEYS == key).map(|n| (format!("key-{key:02}"), n.to_string()))
            })
            .collect();
        if offset > 0 {
            expected.push(("latest".into(), (offset - 1).to_string()));
        }
        let mut found = Vec::new();
        let range = KeyRange { lower: Bound::Unbounded, upper: Bound::Unbounded };
        store
            .scan(range, false, &mut |key, value| {
                found.push((String::from_utf8_lossy(key).into_owned(), String::from_utf8_lossy(value).into_owned()));
                ControlFlow::Continue(())
            })
            .expect("scan");
        assert_eq!(found, expected, "the state is not that of offset {offset}");
        previous = offset;
    }
    assert!(previous > 3_000, "{previous} batches survived in all");
}

#[test]
fn a_second_process_is_refused() {
    let folder = Folder::new("process");
    let provider = folder.provider();
    drop(open(&provider, "store"));
    // The child fails on the lock, before it writes anything.
    die_after(&folder, 10);
    assert_eq!(open(&provider, "store").changelog_offset().expect("offset"), None);
}
