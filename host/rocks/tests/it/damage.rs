//! Random damage to the files of a store (C2): it is found, or it is harmless, which means that the store is exactly
//! what it was at the changelog offset that it names. A wrong value is never read. Damage while the store is open is
//! found by whoever meets it: a read, or RocksDB's own compaction.

use std::collections::BTreeMap;
use std::fs;
use std::ops::{Bound, ControlFlow};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use engine::state::{KeyRange, StateStore, StoreError, StoreProvider};
use engine::testing::Seed;
use rocks::{RocksOptions, RocksStoreProvider};

use crate::folder::{Folder, TASK, open, put, spec};

const MUTATIONS: u64 = 60;
const KEYS: i64 = 700;
const BATCHES: i64 = 6_000;

/// Batch `n` writes key `n % KEYS` and deletes one every now and then, with offset `n + 1`.
fn write_batch(store: &mut dyn StateStore, n: i64) {
    let key = format!("key-{:04}", n % KEYS);
    let write = if n % 11 == 3 { (key.into(), None) } else { put(&key, &format!("{n}-{n:0100}")) };
    store.write(&[write], Some(n + 1)).expect("write");
}

/// What the store holds after `offset` batches.
fn model(offset: i64) -> BTreeMap<String, String> {
    let mut entries = BTreeMap::new();
    for n in 0..offset {
        let key = format!("key-{:04}", n % KEYS);
        if n % 11 == 3 {
            entries.remove(&key);
        } else {
            entries.insert(key, format!("{n}-{n:0100}"));
        }
    }
    entries
}

/// Two stores of some table files each, closed.
fn prepare(folder: &Folder) {
    let mut options = folder.options();
    options.write_buffer_bytes = 64 << 10;
    let provider = RocksStoreProvider::open(options).expect("open");
    for name in ["store", "other"] {
        let mut store = open(&provider, name);
        for n in 0..BATCHES {
            write_batch(&mut *store, n);
            if n % 1_500 == 700 {
                store.flush().expect("flush");
            }
        }
        store.flush().expect("flush");
    }
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> =
        fs::read_dir(folder).expect("list").map(|entry| entry.expect("an entry").path()).collect();
    // Nobody reads the lock, nor RocksDB's log for people, of which there are more or fewer from run to run.
    let is_read = |name: &std::ffi::OsStr| name != "LOCK" && !name.to_string_lossy().starts_with("LOG");
    found.retain(|path| path.file_name().is_some_and(is_read));
    found.sort();
    found
}

/// Does one harm to one file, and says which.
fn harm(path: &Path, seed: &mut Seed) -> String {
    let mut bytes = fs::read(path).expect("read");
    let at = |seed: &mut Seed, length: usize| seed.below(length.max(1) as u64) as usize;
    let what = match seed.below(5) {
        0 | 1 if !bytes.is_empty() => {
            let (place, bit) = (at(seed, bytes.len()), seed.below(8));
            bytes[place] ^= 1 << bit;
            format!("bit {bit} of byte {place} flipped")
        }
        2 => {
            let length = at(seed, bytes.len());
            bytes.truncate(length);
            format!("cut to {length} bytes")
        }
        3 => {
            let (start, length) = (at(seed, bytes.len()), 1 + at(seed, 4_096));
            bytes.iter_mut().skip(start).take(length).for_each(|byte| *byte = 0);
            format!("{length} bytes from {start} zeroed")
        }
        _ => {
            fs::remove_file(path).expect("remove");
            return format!("{} deleted", path.display());
        }
    };
    fs::write(path, bytes).expect("write");
    format!("{}: {what}", path.display())
}

/// Every entry, and the offset that they belong to.
fn read_all(folder: &Folder, name: &str) -> Result<(i64, BTreeMap<String, String>), StoreError> {
    let provider = folder.provider();
    let store = provider.open(TASK, &spec(name))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let mut entries = BTreeMap::new();
    let range = KeyRange { lower: Bound::Unbounded, upper: Bound::Unbounded };
    store.scan(range, false, &mut |key, value| {
        entries.insert(text(key), text(value));
        ControlFlow::Continue(())
    })?;
    for n in 0..KEYS {
        let key = format!("key-{n:04}");
        let found = store.get(key.as_bytes())?.map(|value| text(&value));
        assert_eq!(found.as_ref(), entries.get(&key), "get and scan differ for {key}");
    }
    Ok((store.changelog_offset()?.unwrap_or(0), entries))
}

#[test]
fn random_damage_is_found_or_harmless() {
    let (mut detected, mut harmless) = (0, 0);
    for number in 0..MUTATIONS {
        let mut seed = Seed::new(number);
        let folder = Folder::new("damage");
        prepare(&folder);
        let files = files(&folder.store_path("store"));
        let what = harm(&files[seed.below(files.len() as u64) as usize], &mut seed);
        match read_all(&folder, "store") {
            Ok((offset, entries)) => {
                assert_eq!(entries, model(offset), "seed {number}: {what}: not the state of offset {offset}");
                harmless += 1;
            }
            Err(StoreError::Corrupt { store, task, .. }) => {
                assert_eq!((store.as_str(), task), ("store", TASK), "seed {number}: {what}");
                let provider = folder.provider();
                provider.wipe(TASK, &spec("store")).expect("wipe");
                assert_eq!(open(&provider, "store").changelog_offset(), Ok(None), "seed {number}: {what}");
                detected += 1;
            }
            Err(other) => panic!("seed {number}: {what}: {other}"),
        }
        assert_eq!(read_all(&folder, "other"), Ok((BATCHES, model(BATCHES))), "seed {number}: the other store");
    }
    println!("{MUTATIONS} mutations: {detected} found, {harmless} harmless, 0 wrong reads");
    assert!(detected >= MUTATIONS / 3, "only {detected} of {MUTATIONS} were found: the damage is too mild");
}

/// A store that is open, with nothing of it in memory, and its table files.
fn open_uncached(folder: &Folder) -> (RocksStoreProvider, Box<dyn StateStore>, Vec<PathBuf>) {
    prepare(folder);
    let mut options: RocksOptions = folder.options();
    options.block_cache_bytes = 64 << 10;
    options.write_buffers_bytes = 64 << 10;
    let provider = RocksStoreProvider::open(options).expect("open");
    let store = open(&provider, "store");
    let tables = settled_tables(&folder.store_path("store"));
    (provider, store, tables)
}

/// The table files of an open store, once no compaction replaces them any more: one that is over makes new files, in
/// which no damage would be.
fn settled_tables(folder: &Path) -> Vec<PathBuf> {
    let tables = || {
        let mut tables = files(folder);
        tables.retain(|path| path.extension().is_some_and(|extension| extension == "sst"));
        tables
    };
    let (mut found, mut since) = (tables(), Instant::now());
    while since.elapsed() < Duration::from_millis(300) {
        std::thread::sleep(Duration::from_millis(20));
        let now = tables();
        if now != found {
            (found, since) = (now, Instant::now());
        }
    }
    found
}

/// Spoils the data blocks, not the tables' own descriptions at their ends.
fn spoil(tables: &[PathBuf]) {
    for table in tables {
        let mut bytes = fs::read(table).expect("read");
        let half = bytes.len() / 2;
        bytes.iter_mut().take(half).for_each(|byte| *byte ^= 0x5a);
        fs::write(table, bytes).expect("write");
    }
}

#[test]
fn damage_under_an_open_store_is_found_by_reads() {
    let folder = Folder::new("open-read");
    let (_provider, store, tables) = open_uncached(&folder);
    spoil(&tables);
    let expected = model(BATCHES);
    let mut found = 0;
    for n in 0..KEYS {
        let key = format!("key-{n:04}");
        match store.get(key.as_bytes()) {
            Ok(value) => {
                let value = value.map(|value| String::from_utf8_lossy(&value).into_owned());
                assert_eq!(value.as_ref(), expected.get(&key), "a wrong value of {key}");
            }
            Err(StoreError::Corrupt { .. }) => found += 1,
            Err(other) => panic!("{other}"),
        }
    }
    assert!(found > 0, "no read met the damage");
    let range = KeyRange { lower: Bound::Unbounded, upper: Bound::Unbounded };
    let scanned = store.scan(range, false, &mut |_, _| ControlFlow::Continue(()));
    assert!(matches!(scanned, Err(StoreError::Corrupt { .. })), "{scanned:?}");
    let view = store.read_view();
    let viewed = view.scan(range, true, &mut |_, _| ControlFlow::Continue(()));
    assert!(matches!(viewed, Err(StoreError::Corrupt { .. })), "{viewed:?}");
}

#[test]
fn damage_that_a_compaction_meets_stops_the_writes() {
    let folder = Folder::new("open-compact");
    let (_provider, mut store, tables) = open_uncached(&folder);
    spoil(&tables);
    let (deadline, mut n) = (Instant::now() + Duration::from_secs(60), BATCHES);
    // Enough files that RocksDB merges them with the spoilt ones.
    let error = loop {
        assert!(Instant::now() < deadline, "writes went on over damaged files");
        let written = store.write(&[put(&format!("key-{:04}", n % KEYS), "x")], Some(n + 1));
        n += 1;
        if let Err(error) = written.and_then(|()| if n % 50 == 0 { store.flush() } else { Ok(()) }) {
            break error;
        }
    };
    assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
}
