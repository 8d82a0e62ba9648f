//! The overlay against a model: random writes, savepoints, commits and aborts, with a small cache.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::{ENTRY_OVERHEAD_BYTES, Known, Overlay};
use crate::record::Timestamp;
use crate::state::{KeyRange, Write};
use crate::testing::Seed;

type Dirty = BTreeMap<Vec<u8>, (Option<Bytes>, Timestamp)>;

fn bytes(text: &'static str) -> Option<Bytes> {
    Some(Bytes::from_static(text.as_bytes()))
}

fn dirty(overlay: &Overlay) -> Dirty {
    overlay.dirty_entries().map(|e| (e.key.to_vec(), (e.value.cloned(), e.timestamp))).collect()
}

fn size(dirty: &Dirty) -> usize {
    let one = |(key, (value, _)): (&Vec<u8>, &(Option<Bytes>, Timestamp))| {
        key.len() + value.as_ref().map_or(0, Bytes::len) + ENTRY_OVERHEAD_BYTES
    };
    dirty.iter().map(one).sum()
}

fn commit(overlay: &mut Overlay, expected: &[Write]) {
    let checked = |writes: &[Write]| {
        assert_eq!(writes, expected);
        Ok::<(), ()>(())
    };
    overlay.commit(checked).expect("is written");
}

#[test]
fn the_last_write_of_a_key_is_its_only_changelog_record() {
    let mut overlay = Overlay::new(0);
    overlay.put(b"a", bytes("1"), 10);
    overlay.put(b"b", bytes("2"), 11);
    overlay.put(b"a", None, 9);
    let entries: Vec<_> = overlay.dirty_entries().map(|e| (e.key.clone(), e.value.cloned(), e.timestamp)).collect();
    assert_eq!(entries, [(Bytes::from_static(b"a"), None, 9), (Bytes::from_static(b"b"), bytes("2"), 11)]);
    assert_eq!(overlay.get(b"a"), Known::Value(None));
    assert_eq!(overlay.get(b"c"), Known::Unknown);
    assert_eq!(overlay.uncommitted_bytes(), 3 + 2 * ENTRY_OVERHEAD_BYTES);
}

#[test]
fn a_rollback_restores_dirty_clean_and_unknown_keys() {
    let mut overlay = Overlay::new(1 << 20);
    overlay.cache(b"clean", bytes("from the backend"));
    overlay.put(b"dirty", bytes("1"), 1);
    let before = dirty(&overlay);
    overlay.savepoint();
    for (key, value) in [("clean", None), ("dirty", bytes("2")), ("new", bytes("3")), ("dirty", None)] {
        overlay.put(key.as_bytes(), value, 2);
    }
    assert_eq!(overlay.dirty_len(), 3);
    overlay.rollback();
    assert_eq!(dirty(&overlay), before);
    assert_eq!(overlay.get(b"clean"), Known::Value(bytes("from the backend").as_ref()));
    assert_eq!(overlay.get(b"new"), Known::Unknown);
    assert_eq!(overlay.uncommitted_bytes(), size(&before));
    overlay.rollback();
    assert_eq!(dirty(&overlay), before, "a rollback without a savepoint does nothing");
}

#[test]
fn a_released_savepoint_belongs_to_the_outer_one() {
    let mut overlay = Overlay::new(0);
    overlay.savepoint();
    overlay.put(b"a", bytes("1"), 1);
    overlay.savepoint();
    overlay.put(b"a", bytes("2"), 2);
    overlay.release();
    overlay.put(b"a", bytes("3"), 3);
    overlay.rollback();
    assert!(overlay.is_clean());
    assert_eq!(overlay.get(b"a"), Known::Unknown);
}

#[test]
fn a_commit_leaves_clean_entries_and_an_abort_leaves_nothing_of_its_writes() {
    let mut overlay = Overlay::new(1 << 20);
    overlay.put(b"a", bytes("1"), 1);
    overlay.commit(|writes| if writes.len() == 1 { Err("disk full") } else { Ok(()) }).expect_err("fails");
    assert_eq!(dirty(&overlay)[&b"a"[..]], (bytes("1"), 1), "a failed write changes nothing");
    commit(&mut overlay, &[(Bytes::from_static(b"a"), bytes("1"))]);
    assert!(overlay.is_clean());
    assert_eq!(overlay.get(b"a"), Known::Value(bytes("1").as_ref()));
    overlay.put(b"a", bytes("2"), 2);
    overlay.abort();
    assert_eq!(overlay.get(b"a"), Known::Unknown, "the backend knows the committed value");
    assert_eq!((overlay.uncommitted_bytes(), overlay.cached_bytes()), (0, 0));
}

#[test]
fn the_cache_keeps_its_bound_and_what_is_used() {
    let entry_bytes = 4 + 1 + ENTRY_OVERHEAD_BYTES;
    let mut overlay = Overlay::new(10 * entry_bytes);
    overlay.put(b"held", bytes("x"), 1);
    for n in 0..100 {
        overlay.get(b"0000");
        overlay.cache(format!("{n:04}").as_bytes(), bytes("v"));
        assert!(overlay.cached_bytes() <= 10 * entry_bytes);
    }
    assert_eq!(overlay.cached_bytes(), 10 * entry_bytes);
    assert_eq!(overlay.get(b"0000"), Known::Value(bytes("v").as_ref()), "what is used stays");
    assert_eq!(overlay.get(b"0050"), Known::Unknown);
    assert_eq!(overlay.get(b"held"), Known::Value(bytes("x").as_ref()), "dirty entries are never evicted");
    overlay.cache(b"huge", Some(Bytes::from(vec![0; 20 * entry_bytes])));
    assert_eq!(overlay.get(b"huge"), Known::Unknown, "larger than the bound");
    overlay.drop_clean();
    assert_eq!(overlay.cached_bytes(), 0);
}

/// Keys to (value, timestamp) of the backend and of each savepoint.
struct Model {
    backend: BTreeMap<Vec<u8>, Bytes>,
    dirty: Dirty,
    savepoints: Vec<Dirty>,
}

impl Model {
    fn read(&self, key: &[u8]) -> Option<Bytes> {
        match self.dirty.get(key) {
            Some((value, _)) => value.clone(),
            None => self.backend.get(key).cloned(),
        }
    }

    fn commit(&mut self) {
        self.savepoints.clear();
        for (key, (value, _)) in std::mem::take(&mut self.dirty) {
            match value {
                Some(value) => self.backend.insert(key, value),
                None => self.backend.remove(&key),
            };
        }
    }
}

fn step(overlay: &mut Overlay, model: &mut Model, seed: &mut Seed, at: Timestamp) {
    let key = format!("key {}", seed.below(40)).into_bytes();
    match seed.below(100) {
        0..50 => {
            let value = (!seed.one_in(4)).then(|| Bytes::from(seed.below(1_000_000).to_string()));
            overlay.put(&key, value.clone(), at);
            model.dirty.insert(key, (value, at));
        }
        50..70 => {
            let expected = model.read(&key);
            match overlay.get(&key) {
                Known::Value(value) => assert_eq!(value, expected.as_ref()),
                Known::Unknown => {
                    assert!(!model.dirty.contains_key(&key), "an uncommitted write is lost");
                    overlay.cache(&key, expected);
                }
            }
        }
        70..80 => {
            overlay.savepoint();
            model.savepoints.push(model.dirty.clone());
        }
        80..86 => {
            overlay.rollback();
            if let Some(dirty) = model.savepoints.pop() {
                model.dirty = dirty;
            }
        }
        86..93 => {
            overlay.release();
            model.savepoints.pop();
        }
        93..96 => {
            let expected: Dirty = model.dirty.clone();
            let written = overlay.commit(|writes| {
                assert_eq!(writes.len(), expected.len());
                writes.iter().for_each(|(key, value)| assert_eq!(expected[&key[..]].0, *value));
                if seed.one_in(4) { Err(()) } else { Ok(()) }
            });
            if written.is_ok() {
                model.commit();
            }
        }
        96 => {
            overlay.abort();
            model.dirty.clear();
            model.savepoints.clear();
        }
        _ => {
            let ordered: Vec<_> = overlay.dirty_range(KeyRange::ALL).map(|e| e.key.to_vec()).collect();
            assert_eq!(ordered, model.dirty.keys().cloned().collect::<Vec<_>>());
        }
    }
}

#[test]
fn random_steps_agree_with_a_model() {
    for (round, cache_max_bytes) in [0, 10 * (7 + ENTRY_OVERHEAD_BYTES), 1 << 20].into_iter().enumerate() {
        let mut seed = Seed::new(round as u64);
        let mut overlay = Overlay::new(cache_max_bytes);
        let mut model = Model { backend: BTreeMap::new(), dirty: Dirty::new(), savepoints: Vec::new() };
        for at in 0..6_000 {
            step(&mut overlay, &mut model, &mut seed, at);
            assert_eq!(dirty(&overlay), model.dirty, "step {at}");
            assert_eq!(overlay.uncommitted_bytes(), size(&model.dirty), "step {at}");
            assert!(overlay.cached_bytes() <= cache_max_bytes, "step {at}");
        }
    }
}
