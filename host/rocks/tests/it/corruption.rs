//! Damaged files are found, named and answered by a wipe; other stores are untouched.

use std::fs;
use std::path::{Path, PathBuf};

use engine::state::{KeyRange, StateStore, StoreError, StoreProvider};
use std::ops::{Bound, ControlFlow};

use crate::folder::{Folder, TASK, many, open, spec};

const ENTRIES: usize = 2_000;

/// A store whose data is in table files, closed.
fn prepare(folder: &Folder) {
    let provider = folder.provider();
    for name in ["store", "other"] {
        let mut store = open(&provider, name);
        store.write(&many(ENTRIES), Some(ENTRIES as i64)).expect("write");
        store.flush().expect("flush");
    }
}

fn files(folder: &Folder, wanted: impl Fn(&str) -> bool) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder.store_path("store")).expect("list");
    let mut found: Vec<_> = entries
        .map(|entry| entry.expect("entry").path())
        .filter(|path| wanted(&path.file_name().expect("name").to_string_lossy()))
        .collect();
    found.sort();
    found
}

fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).expect("read");
    let at = at.min(bytes.len() - 1);
    bytes[at] ^= 0xff;
    fs::write(path, bytes).expect("write");
}

/// Opens the store and reads all of it.
fn read_all(folder: &Folder) -> Result<usize, StoreError> {
    let provider = folder.provider();
    let store = provider.open(TASK, &spec("store"))?;
    let mut entries = 0;
    let range = KeyRange { lower: Bound::Unbounded, upper: Bound::Unbounded };
    store.scan(range, false, &mut |key, value| {
        let number: usize = String::from_utf8_lossy(key)[4..].parse().expect("a key of ours");
        assert!(value.starts_with(format!("{number}-").as_bytes()), "a wrong value was read for {number}");
        entries += 1;
        ControlFlow::Continue(())
    })?;
    Ok(entries)
}

fn expect_corrupt_then_wipe(folder: &Folder, what: &str) {
    match read_all(folder) {
        Err(StoreError::Corrupt { store, task, .. }) => assert_eq!((store.as_str(), task), ("store", TASK)),
        other => panic!("{what}: {other:?}"),
    }
    let provider = folder.provider();
    provider.wipe(TASK, &spec("store")).expect("wipe");
    let store = open(&provider, "store");
    assert_eq!(store.changelog_offset().expect("offset"), None, "{what}: restored from the beginning");
    let other = open(&provider, "other");
    assert_eq!(other.changelog_offset().expect("offset"), Some(ENTRIES as i64), "{what}: the other store is whole");
}

#[test]
fn an_undamaged_store_is_read_whole() {
    let folder = Folder::new("whole");
    prepare(&folder);
    assert_eq!(read_all(&folder).expect("read"), ENTRIES);
}

#[test]
fn a_flipped_byte_in_a_table_is_found() {
    for at in [100, 10_000, 50_000] {
        let folder = Folder::new("flip");
        prepare(&folder);
        let tables = files(&folder, |name| name.ends_with(".sst"));
        flip(tables.first().expect("a table"), at);
        expect_corrupt_then_wipe(&folder, &format!("byte {at} flipped"));
    }
}

#[test]
fn a_get_of_a_damaged_block_is_corrupt_too() {
    let folder = Folder::new("get");
    prepare(&folder);
    flip(files(&folder, |name| name.ends_with(".sst")).first().expect("a table"), 100);
    let provider = folder.provider();
    // The open may find it already.
    let Ok(store) = provider.open(TASK, &spec("store")) else { return };
    let damaged = |store: &dyn StateStore| {
        let keys: Vec<_> = (0..ENTRIES).map(|i| format!("key-{i:06}")).collect();
        let keys: Vec<&[u8]> = keys.iter().map(String::as_bytes).collect();
        (keys.iter().find_map(|key| store.get(key).err()), store.get_many(&keys, &mut |_, _| {}).err())
    };
    let (get, get_many) = damaged(&*store);
    assert!(matches!(get, Some(StoreError::Corrupt { .. })), "{get:?}");
    assert!(matches!(get_many, Some(StoreError::Corrupt { .. })), "{get_many:?}");
}

#[test]
fn missing_and_cut_files_are_found() {
    type Damage = (&'static str, fn(&Folder));
    let damages: [Damage; 5] = [
        ("CURRENT deleted", |folder| fs::remove_file(folder.store_path("store").join("CURRENT")).expect("remove")),
        ("CURRENT emptied", |folder| fs::write(folder.store_path("store").join("CURRENT"), "").expect("write")),
        ("MANIFEST emptied", |folder| {
            fs::write(&files(folder, |name| name.starts_with("MANIFEST"))[0], "").expect("write");
        }),
        ("table deleted", |folder| {
            fs::remove_file(&files(folder, |name| name.ends_with(".sst"))[0]).expect("remove");
        }),
        ("table cut", |folder| {
            let table = &files(folder, |name| name.ends_with(".sst"))[0];
            let bytes = fs::read(table).expect("read");
            fs::write(table, &bytes[..bytes.len() / 2]).expect("write");
        }),
    ];
    for (what, damage) in damages {
        let folder = Folder::new("files");
        prepare(&folder);
        damage(&folder);
        expect_corrupt_then_wipe(&folder, what);
    }
}
