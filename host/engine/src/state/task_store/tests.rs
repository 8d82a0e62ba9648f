//! A task's store: reads merge the overlay over the backend, a commit moves everything down, a rollback nothing.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;

use crate::columns::Columns;
use crate::record::Offset;
use crate::state::memory::MemoryStore;
use crate::state::{KeyRange, Page, ReadView, StateStore, StoreError, TaskStore, Visit, Write, prefix_end};
use crate::testing::Seed;
use crate::topology::{StoreBackend, StoreChangelog, StoreSpec};

fn store(cache_max_bytes: usize) -> (TaskStore, MemoryStore) {
    let spec = StoreSpec {
        name: "votes".into(),
        backend: StoreBackend::InMemory,
        changelog: StoreChangelog::Internal,
        version: 1,
        key_format: "utf8".into(),
        value_format: "utf8".into(),
        older_generation_of: None,
    };
    let backend = MemoryStore::new();
    (TaskStore::new(spec, Box::new(backend.clone()), cache_max_bytes), backend)
}

fn entries(page: &Page) -> Vec<(String, String)> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    page.keys.iter().map(text).zip(page.values.iter().map(text)).collect()
}

#[test]
fn a_scan_merges_the_overlay_over_the_backend() {
    let (mut store, _) = store(0);
    for key in ["b", "d", "f"] {
        store.put(key.as_bytes(), Some(b"old"), 1);
    }
    store.commit(Some(3)).expect("commit");
    store.put(b"a", Some(b"new"), 2);
    store.put(b"d", None, 2);
    store.put(b"f", Some(b"new"), 2);
    store.put(b"g", Some(b"new"), 2);
    store.put(b"h", None, 2);
    let all = [("a", "new"), ("b", "old"), ("f", "new"), ("g", "new")].map(|(k, v)| (k.to_owned(), v.to_owned()));
    let page = store.range(KeyRange::ALL, false, 10).expect("range");
    assert_eq!((entries(&page), page.more), (all.to_vec(), false));
    let page = store.range(KeyRange::ALL, true, 3).expect("range");
    let backwards: Vec<_> = all.iter().rev().take(3).cloned().collect();
    assert_eq!((entries(&page), page.more), (backwards, true));
    let page = store.range(KeyRange::ALL, false, 4).expect("range");
    assert!(!page.more, "a limit that is just reached leaves nothing");
    let backwards_bounds = KeyRange { lower: Bound::Included(b"f"), upper: Bound::Included(b"a") };
    assert_eq!(store.range(backwards_bounds, false, 4).expect("range"), Page::default());
}

#[test]
fn a_prefix_is_paged_in_both_directions() {
    let (mut store, _) = store(0);
    for key in ["a", "b1", "b2", "b3", "c"] {
        store.put(key.as_bytes(), Some(b""), 1);
    }
    let mut keys = |after: Option<&[u8]>, reverse, limit| {
        let page = store.prefix(b"b", after, reverse, limit).expect("prefix");
        (entries(&page).into_iter().map(|(key, _)| key).collect::<Vec<_>>(), page.more)
    };
    assert_eq!(keys(None, false, 2), (vec!["b1".into(), "b2".into()], true));
    assert_eq!(keys(Some(b"b2"), false, 2), (vec!["b3".into()], false));
    assert_eq!(keys(None, true, 2), (vec!["b3".into(), "b2".into()], true));
    assert_eq!(keys(Some(b"b2"), true, 2), (vec!["b1".into()], false));
    assert_eq!(keys(Some(b"a"), false, 1), (vec!["b1".into()], true), "a position before the prefix");
    assert_eq!(keys(Some(b"c"), false, 1), (vec![], false), "a position behind the prefix");
    assert_eq!(keys(Some(b"c"), true, 1), (vec!["b3".into()], true));
    assert_eq!(keys(None, false, 0), (vec![], true));
}

#[test]
fn the_end_of_a_prefix_is_the_next_longer_key() {
    assert_eq!(prefix_end(b"ab"), Some(b"ac".to_vec()));
    assert_eq!(prefix_end(&[1, 255]), Some(vec![2]));
    assert_eq!(prefix_end(&[255, 255]), None);
    assert_eq!(prefix_end(b""), None);
}

#[test]
fn reading_many_keys_fills_the_cache_and_counts_hits() {
    let (mut store, mut backend) = store(1 << 20);
    backend.write(&[("a".into(), Some("1".into())), ("b".into(), Some("2".into()))], Some(1)).expect("write");
    let mut keys = Columns::default();
    for key in ["c", "a", "x", "a", "b", "x"] {
        keys.push(key.as_bytes());
    }
    store.put(b"c", Some(b"3"), 1);
    for _ in 0..2 {
        let values = store.get_many(&keys, |_| Ok::<_, StoreError>(())).expect("get_many");
        let values: Vec<_> = values.iter().map(|value| value.map(<[u8]>::to_vec)).collect();
        let one = Some(b"1".to_vec());
        assert_eq!(values, [Some(b"3".to_vec()), one.clone(), None, one, Some(b"2".to_vec()), None]);
    }
    assert_eq!(store.cache_hits_and_misses(), (1 + 6, 5));
    // The cache answers alone from here on: the backend is changed behind its back to see it.
    backend.write(&[("a".into(), None)], None).expect("write");
    assert_eq!(store.get(b"a").expect("get").as_deref(), Some(&b"1"[..]));
    store.abort();
    store.restore(&[("a".into(), None)], 9).expect("restore");
    assert_eq!(store.get(b"a").expect("get"), None, "a restore drops cached entries");
    assert_eq!(store.changelog_offset().expect("offset"), Some(9));
}

/// Gives out values of one mebibyte, each from a buffer of its own, and counts the most that it held at once.
struct Large(Arc<AtomicUsize>);

impl StateStore for Large {
    fn get_many(&self, keys: &[&[u8]], found: &mut dyn FnMut(usize, Option<&[u8]>)) -> Result<(), StoreError> {
        self.0.fetch_max(keys.len(), Ordering::Relaxed);
        (0..keys.len()).for_each(|index| found(index, Some(&[7; 1 << 20])));
        Ok(())
    }

    fn get(&self, _key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        Ok(None)
    }

    fn scan(&self, _range: KeyRange<'_>, _reverse: bool, _visit: &mut Visit<'_>) -> Result<(), StoreError> {
        Ok(())
    }

    fn write(&mut self, _writes: &[Write], _changelog_offset: Option<Offset>) -> Result<(), StoreError> {
        Ok(())
    }

    fn changelog_offset(&self) -> Result<Option<Offset>, StoreError> {
        Ok(None)
    }

    fn flush(&mut self) -> Result<(), StoreError> {
        Ok(())
    }

    fn read_view(&self) -> Arc<dyn ReadView> {
        MemoryStore::new().read_view()
    }

    fn approximate_entries(&self) -> u64 {
        0
    }
}

/// One large value a thousand times, from the overlay or from a backend, and many of them.
#[test]
fn reading_many_keys_ends_at_the_value_that_is_not_allowed() {
    let most_at_once = Arc::new(AtomicUsize::new(0));
    let (known, _) = store(0);
    let mut cold = TaskStore::new(known.spec().clone(), Box::new(Large(Arc::clone(&most_at_once))), 0);
    let (mut known, _) = store(0);
    known.put(b"0", Some(&[7; 1 << 20]), 1);
    let (mut same, mut many) = (Columns::default(), Columns::default());
    for key in 0..1_000 {
        same.push(b"0");
        many.push(key.to_string().as_bytes());
    }
    for (is_known, keys) in [(true, &same), (false, &same), (false, &many)] {
        let store = if is_known { &mut known } else { &mut cold };
        let mut allowed = 5 << 20;
        let refused = StoreError::Locked { path: "its limit".to_owned(), detail: String::new() };
        let mut values = 0;
        let ended = store.get_many(keys, |bytes| {
            values += 1;
            allowed -= bytes as i64;
            if allowed < 0 { Err(refused.clone()) } else { Ok(()) }
        });
        assert_eq!((ended, values, allowed), (Err(refused), 6, -1 << 20));
    }
    assert!(most_at_once.load(Ordering::Relaxed) <= 64);
    let (mut first, mut bytes) = (Columns::default(), 0);
    ["1", "0", "1"].iter().for_each(|key| first.push(key.as_bytes()));
    let values = cold.get_many(&first, |value| {
        bytes += value;
        Ok::<_, StoreError>(())
    });
    assert_eq!((values.expect("get_many").bytes.len(), bytes), (3 << 20, 3 << 20));
}

#[test]
fn random_steps_agree_with_a_map() {
    for cache_max_bytes in [0, 1_000, 1 << 20] {
        let mut seed = Seed::new(cache_max_bytes as u64);
        let (mut store, backend) = store(cache_max_bytes);
        let mut model: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
        for round in 0..400_i64 {
            let before = model.clone();
            store.savepoint();
            for _ in 0..seed.below(20) {
                let key = seed.below(60).to_string().into_bytes();
                assert_eq!(store.get(&key).expect("get").as_deref(), model.get(&key).map(Vec::as_slice));
                if seed.one_in(3) {
                    store.put(&key, None, round);
                    model.remove(&key);
                } else {
                    let value = seed.next_u64().to_string().into_bytes();
                    store.put(&key, Some(&value), round);
                    model.insert(key, value);
                }
            }
            if seed.one_in(4) {
                store.rollback();
                model = before;
            } else {
                store.release();
            }
            check_pages(&mut store, &model, &mut seed);
            if seed.one_in(5) {
                store.commit(Some(round)).expect("commit");
                let committed: BTreeMap<Vec<u8>, Vec<u8>> =
                    backend.content().entries.iter().map(|(k, v)| (k.to_vec(), v.to_vec())).collect();
                assert_eq!(committed, model);
            }
        }
    }
}

fn check_pages(store: &mut TaskStore, model: &BTreeMap<Vec<u8>, Vec<u8>>, seed: &mut Seed) {
    let reverse = seed.one_in(2);
    let limit = 1 + seed.below(10) as usize;
    let mut expected: Vec<Vec<u8>> = model.keys().cloned().collect();
    if reverse {
        expected.reverse();
    }
    let mut found: Vec<Vec<u8>> = Vec::new();
    loop {
        let after = found.last().cloned();
        let page = store.prefix(b"", after.as_deref(), reverse, limit).expect("prefix");
        assert!(page.keys.len() <= limit);
        found.extend(page.keys.iter().map(<[u8]>::to_vec));
        if !page.more {
            break;
        }
    }
    assert_eq!(found, expected);
}
