//! Many stores in one budget (C10): what they take does not grow with their number, their values or the length of
//! scans. Measured in a process of its own, which is this test binary, started again.

use std::ops::{Bound, ControlFlow};
use std::path::PathBuf;
use std::process::Command;

use bytes::Bytes;
use engine::state::{KeyRange, StateStore, StoreProvider};
use engine::topology::TaskId;
use rocks::{RocksMemory, RocksOptions, RocksStoreProvider};

use crate::folder::{Folder, spec};

const CHILD: &str = "SANDBAR_ROCKS_MEMORY";
const STORES: i32 = 200;
const VALUE_BYTES: usize = 20_000;
const VALUES: usize = 60;
const MIB: usize = 1 << 20;
const BUDGET: usize = 48 * MIB;
/// What RocksDB takes for an open database beside cache and buffers.
const EACH: usize = MIB / 2;

fn resident_bytes() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("linux");
    let line = status.lines().find(|line| line.starts_with("VmRSS")).expect("VmRSS");
    line.split_ascii_whitespace().nth(1).expect("a value").parse::<usize>().expect("a number") << 10
}

/// Does nothing unless it was started by the test below. Prints what it took at most.
#[test]
fn the_child_that_is_measured() {
    let Ok(folder) = std::env::var(CHILD) else { return };
    let mut options = RocksOptions::new(PathBuf::from(folder), crate::folder::APPLICATION);
    (options.block_cache_bytes, options.write_buffers_bytes) = (BUDGET, 16 * MIB);
    let before = resident_bytes();
    let provider = RocksStoreProvider::open(options).expect("open");
    let mut stores: Vec<Box<dyn StateStore>> = (0..STORES)
        .map(|partition| provider.open(TaskId { sub_topology: 0, partition }, &spec("store")).expect("open"))
        .collect();
    let mut most = 0;
    for round in 0..VALUES {
        for (number, store) in stores.iter_mut().enumerate() {
            // Bytes that do not compress.
            let mut seed = engine::testing::Seed::new((round * 1_000 + number) as u64);
            let value: Vec<u8> = (0..VALUE_BYTES / 8).flat_map(|_| seed.next_u64().to_le_bytes()).collect();
            let key = Bytes::from(format!("key-{round:04}"));
            store.write(&[(key, Some(Bytes::from(value)))], Some(round as i64)).expect("write");
        }
        most = most.max(resident_bytes());
    }
    for store in &stores {
        let range = KeyRange { lower: Bound::Unbounded, upper: Bound::Unbounded };
        let mut entries = 0;
        store
            .scan(range, false, &mut |_, _| {
                entries += 1;
                ControlFlow::Continue(())
            })
            .expect("scan");
        assert_eq!(entries, VALUES);
        most = most.max(resident_bytes());
    }
    println!("took {} of {}", most.saturating_sub(before), provider.memory_usage_bytes());
}

#[test]
fn two_hundred_stores_share_a_budget() {
    let folder = Folder::new("memory");
    let output = Command::new(std::env::current_exe().expect("this binary"))
        .args(["--exact", "memory::the_child_that_is_measured", "--test-threads=1", "--nocapture"])
        .env(CHILD, folder.path())
        .output()
        .expect("start the child");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}");
    let taken = text.split("took ").nth(1).and_then(|rest| rest.split(' ').next()).expect("the child's figure");
    let taken: usize = taken.parse().expect("a number");
    let allowed = (BUDGET + STORES as usize * EACH) * 11 / 10;
    let data = STORES as usize * VALUES * VALUE_BYTES;
    println!("{STORES} stores with {} MiB of data took {} MiB", data / MIB, taken / MIB);
    assert!(taken <= allowed, "{} MiB, allowed are {} MiB", taken / MIB, allowed / MIB);
}

#[test]
fn applications_may_share_their_memory() {
    let folder = Folder::new("shared");
    let memory = RocksMemory::new(BUDGET, 16 * MIB);
    let open = |application: &str| {
        let provider = RocksStoreProvider::open_within(RocksOptions::new(folder.path(), application), &memory);
        provider.expect("a folder of its own")
    };
    let (one, other) = (open("one"), open("other"));
    let mut store = one.open(TaskId::default(), &spec("store")).expect("open");
    let before = other.memory_usage_bytes();
    store.write(&[(Bytes::from("key"), Some(Bytes::from(vec![1; MIB])))], Some(1)).expect("write");
    assert!(other.memory_usage_bytes() >= before + MIB as u64, "{before}, and then {}", other.memory_usage_bytes());
    assert_eq!(one.memory_usage_bytes(), other.memory_usage_bytes());
}
