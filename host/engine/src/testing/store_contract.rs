//! The contract that every `StateStore` passes, shipped or native. `store_contract` runs it over stores that the
//! adapter opens; `persistent_store_contract` adds what must survive a close.

use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};

use bytes::Bytes;

use super::Seed;
use crate::state::{KeyRange, ReadView, StateStore, Visit, Write};

fn write(key: &str, value: Option<&str>) -> Write {
    (Bytes::copy_from_slice(key.as_bytes()), value.map(|value| Bytes::copy_from_slice(value.as_bytes())))
}

type Entries = Vec<(Vec<u8>, Vec<u8>)>;

fn collect(scan: impl FnOnce(&mut Visit<'_>), limit: usize) -> Entries {
    let mut entries = Entries::new();
    scan(&mut |key, value| {
        entries.push((key.to_vec(), value.to_vec()));
        if entries.len() == limit { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    entries
}

fn scan(store: &dyn StateStore, range: KeyRange<'_>, reverse: bool, limit: usize) -> Entries {
    collect(|visit| store.scan(range, reverse, visit).expect("scan"), limit)
}

fn scan_view(view: &dyn ReadView, range: KeyRange<'_>, reverse: bool) -> Entries {
    collect(|visit| view.scan(range, reverse, visit).expect("scan of a read view"), usize::MAX)
}

fn keys(entries: &Entries) -> Vec<&str> {
    entries.iter().map(|(key, _)| std::str::from_utf8(key).expect("keys of the contract are text")).collect()
}

/// Runs the contract; `open` returns a new, empty store on every call.
pub fn store_contract(open: &mut dyn FnMut() -> Box<dyn StateStore>) {
    a_new_store_is_empty(&mut *open());
    writes_are_applied_in_order(&mut *open());
    empty_values_are_not_deletes(&mut *open());
    bytes_are_kept_as_they_are(&mut *open());
    get_many_answers_each_key_once_in_order(&mut *open());
    bounds_are_respected(&mut *open());
    a_scan_ends_when_its_visitor_breaks(&mut *open());
    the_offset_moves_with_the_data(&mut *open());
    a_read_view_follows_the_writes(&mut *open());
    a_read_view_outlives_its_store(open());
    random_writes_agree_with_a_map(&mut *open());
    a_bulk_load_ends_with_everything_there(&mut *open());
}

/// Runs the part of the contract about what survives a close; `open` opens the same store on every call, which is
/// closed (dropped) before.
pub fn persistent_store_contract(open: &mut dyn FnMut() -> Box<dyn StateStore>) {
    let mut store = open();
    store.write(&[write("a", Some("1")), write("b", Some("2")), write("c", Some(""))], Some(7)).expect("write");
    store.write(&[write("b", None)], Some(9)).expect("write");
    store.flush().expect("flush");
    drop(store);

    let mut store = open();
    assert_eq!(store.changelog_offset().expect("offset"), Some(9), "the offset survives a close");
    assert_eq!(keys(&scan(&*store, KeyRange::ALL, false, usize::MAX)), ["a", "c"], "data survives a close");
    assert_eq!(store.get(b"c").expect("get"), Some(Bytes::new()), "an empty value survives a close");
    store.write(&[write("d", Some("4"))], None).expect("write");
    store.flush().expect("flush");
    drop(store);

    let store = open();
    assert_eq!(store.changelog_offset().expect("offset"), Some(9), "a write without an offset keeps the old one");
    assert_eq!(keys(&scan(&*store, KeyRange::ALL, false, usize::MAX)), ["a", "c", "d"]);
}

fn a_new_store_is_empty(store: &mut dyn StateStore) {
    assert_eq!(store.get(b"a").expect("get"), None);
    assert_eq!(store.changelog_offset().expect("offset"), None, "a new store has no changelog offset");
    assert!(scan(store, KeyRange::ALL, false, usize::MAX).is_empty());
    assert!(scan(store, KeyRange::ALL, true, usize::MAX).is_empty());
    store.write(&[], None).expect("an empty batch is no error");
    assert_eq!(store.changelog_offset().expect("offset"), None);
    store.flush().expect("flush of an empty store");
}

fn writes_are_applied_in_order(store: &mut dyn StateStore) {
    let writes =
        [write("a", Some("1")), write("a", None), write("b", Some("1")), write("b", Some("2")), write("c", None)];
    store.write(&writes, Some(5)).expect("write");
    assert_eq!(store.get(b"a").expect("get"), None, "the delete comes last");
    assert_eq!(store.get(b"b").expect("get"), Some(Bytes::from_static(b"2")), "the second put comes last");
    assert_eq!(store.get(b"c").expect("get"), None, "deleting what is absent is no error");
    assert_eq!(keys(&scan(store, KeyRange::ALL, false, usize::MAX)), ["b"]);
}

fn empty_values_are_not_deletes(store: &mut dyn StateStore) {
    store.write(&[write("a", Some("")), write("", Some("empty key"))], Some(1)).expect("write");
    assert_eq!(store.get(b"a").expect("get"), Some(Bytes::new()), "an empty value is a value");
    assert_eq!(store.get(b"").expect("get"), Some(Bytes::from_static(b"empty key")), "the empty key is a key");
    let mut found = Vec::new();
    store.get_many(&[b"a", b"b", b""], &mut |_, value| found.push(value.map(<[u8]>::to_vec))).expect("get_many");
    assert_eq!(found, [Some(Vec::new()), None, Some(b"empty key".to_vec())]);
    assert_eq!(keys(&scan(store, KeyRange::ALL, false, usize::MAX)), ["", "a"]);
    store.write(&[write("a", None), write("", None)], None).expect("write");
    assert!(scan(store, KeyRange::ALL, false, usize::MAX).is_empty());
}

fn bytes_are_kept_as_they_are(store: &mut dyn StateStore) {
    let all: Vec<u8> = (0..=u8::MAX).collect();
    let large = vec![0xa5; 300_000];
    let highest = Bytes::from_static(&[0xff, 0xff]);
    let writes = [
        (Bytes::from(all.clone()), Some(Bytes::from(large.clone()))),
        (highest.clone(), Some(Bytes::from_static(&[0]))),
        (Bytes::from_static(&[0]), Some(Bytes::from(all.clone()))),
    ];
    store.write(&writes, Some(1)).expect("write");
    assert_eq!(store.get(&all).expect("get").as_deref(), Some(&large[..]));
    let order: Vec<Vec<u8>> = scan(store, KeyRange::ALL, false, usize::MAX).into_iter().map(|(key, _)| key).collect();
    assert_eq!(order, [vec![0], all, highest.to_vec()], "keys are ordered as unsigned bytes");
}

fn get_many_answers_each_key_once_in_order(store: &mut dyn StateStore) {
    let writes: Vec<Write> = (0..40).step_by(2).map(|n| write(&format!("k{n:02}"), Some(&n.to_string()))).collect();
    store.write(&writes, Some(1)).expect("write");
    // Unordered, with repeats and absent keys.
    let asked: Vec<String> = [38, 1, 0, 0, 39, 20, 7, 38].iter().map(|n| format!("k{n:02}")).collect();
    let asked: Vec<&[u8]> = asked.iter().map(String::as_bytes).collect();
    let mut answers = Vec::new();
    store
        .get_many(&asked, &mut |index, value| {
            answers.push((index, value.map(|value| String::from_utf8_lossy(value).into_owned())));
        })
        .expect("get_many");
    let expected = [Some("38"), None, Some("0"), Some("0"), None, Some("20"), None, Some("38")];
    let expected: Vec<_> = expected.iter().map(|value| value.map(str::to_owned)).enumerate().collect();
    assert_eq!(answers, expected);
    store.get_many(&[], &mut |_, _| panic!("no key was asked for")).expect("get_many of nothing");
}

fn bounds_are_respected(store: &mut dyn StateStore) {
    let writes: Vec<Write> = ["a", "b", "ba", "c", "d"].iter().map(|key| write(key, Some(key))).collect();
    store.write(&writes, Some(1)).expect("write");
    let (b, c, z) = (&b"b"[..], &b"c"[..], &b"z"[..]);
    let cases: [(KeyRange<'_>, &[&str]); 9] = [
        (KeyRange::ALL, &["a", "b", "ba", "c", "d"]),
        (KeyRange { lower: Bound::Included(b), upper: Bound::Included(c) }, &["b", "ba", "c"]),
        (KeyRange { lower: Bound::Excluded(b), upper: Bound::Excluded(c) }, &["ba"]),
        (KeyRange { lower: Bound::Unbounded, upper: Bound::Excluded(b) }, &["a"]),
        (KeyRange { lower: Bound::Excluded(c), upper: Bound::Unbounded }, &["d"]),
        (KeyRange { lower: Bound::Included(b"bb"), upper: Bound::Included(b"bc") }, &[]),
        (KeyRange { lower: Bound::Included(z), upper: Bound::Unbounded }, &[]),
        (KeyRange { lower: Bound::Included(c), upper: Bound::Included(b) }, &[]),
        (KeyRange { lower: Bound::Excluded(b), upper: Bound::Excluded(b) }, &[]),
    ];
    for (range, expected) in cases {
        assert_eq!(keys(&scan(store, range, false, usize::MAX)), expected, "{range:?}");
        let backwards: Vec<&str> = expected.iter().rev().copied().collect();
        assert_eq!(keys(&scan(store, range, true, usize::MAX)), backwards, "{range:?} in reverse");
        assert_eq!(scan_view(&*store.read_view(), range, true), scan(store, range, true, usize::MAX), "{range:?}");
    }
}

fn a_scan_ends_when_its_visitor_breaks(store: &mut dyn StateStore) {
    let writes: Vec<Write> = (0..1_000).map(|n| write(&format!("{n:04}"), Some("v"))).collect();
    store.write(&writes, Some(1)).expect("write");
    assert_eq!(keys(&scan(store, KeyRange::ALL, false, 2)), ["0000", "0001"]);
    assert_eq!(keys(&scan(store, KeyRange::ALL, true, 2)), ["0999", "0998"]);
    assert_eq!(scan(store, KeyRange::ALL, false, usize::MAX).len(), 1_000);
}

fn the_offset_moves_with_the_data(store: &mut dyn StateStore) {
    store.write(&[write("a", Some("1"))], Some(3)).expect("write");
    assert_eq!(store.changelog_offset().expect("offset"), Some(3));
    store.write(&[write("b", Some("1"))], None).expect("write");
    assert_eq!(store.changelog_offset().expect("offset"), Some(3), "no offset given: it stays");
    store.write(&[], Some(12)).expect("an offset without data");
    assert_eq!(store.changelog_offset().expect("offset"), Some(12));
    assert_eq!(store.read_view().changelog_offset().expect("offset of a read view"), Some(12));
    assert_eq!(keys(&scan(store, KeyRange::ALL, false, usize::MAX)), ["a", "b"], "the offset is no entry");
}

#[expect(clippy::disallowed_methods, reason = "whether a view works in another thread can only be seen in one")]
fn a_read_view_follows_the_writes(store: &mut dyn StateStore) {
    let view = store.read_view();
    assert_eq!(view.get(b"a").expect("get"), None);
    store.write(&[write("a", Some("1")), write("b", Some("2"))], Some(2)).expect("write");
    assert_eq!(view.get(b"a").expect("get"), Some(Bytes::from_static(b"1")), "a view sees what was written after it");
    assert_eq!(view.changelog_offset().expect("offset"), Some(2));
    store.write(&[write("a", None)], Some(3)).expect("write");
    assert_eq!(keys(&scan_view(&*view, KeyRange::ALL, false)), ["b"]);
    let other_thread = std::sync::Arc::clone(&view);
    let read = std::thread::spawn(move || other_thread.get(b"b").expect("get")).join().expect("the thread ended");
    assert_eq!(read, Some(Bytes::from_static(b"2")), "a view works in any thread");
}

/// Loads come and go between other writes; the offset is known all the time.
fn a_bulk_load_ends_with_everything_there(store: &mut dyn StateStore) {
    let mut seed = Seed::new(4_711);
    let mut model: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
    let mut offset = 0;
    for round in 0..8 {
        if round % 2 == 1 {
            store.begin_bulk().expect("begin");
            store.begin_bulk().expect("a second begin has no effect");
        }
        for _ in 0..seed.below(50) {
            let key = seed.below(90).to_string().into_bytes();
            let value = (!seed.one_in(4)).then(|| seed.next_u64().to_string().into_bytes());
            offset += 1;
            store.write(&[(Bytes::from(key.clone()), value.clone().map(Bytes::from))], Some(offset)).expect("write");
            assert_eq!(store.changelog_offset(), Ok(Some(offset)), "round {round}");
            match value {
                Some(value) => model.insert(key, value),
                None => model.remove(&key),
            };
        }
        if round == 3 {
            store.flush().expect("a flush in between");
        }
        store.end_bulk().expect("end");
        store.end_bulk().expect("a second end has no effect");
        let expected: Entries = model.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
        assert_eq!(scan(store, KeyRange::ALL, false, usize::MAX), expected, "round {round}");
        assert_eq!(scan_view(&*store.read_view(), KeyRange::ALL, false), expected, "round {round}");
        assert_eq!(store.changelog_offset(), Ok((offset > 0).then_some(offset)), "round {round}");
    }
}

fn a_read_view_outlives_its_store(mut store: Box<dyn StateStore>) {
    store.write(&[write("a", Some("1"))], Some(1)).expect("write");
    let view = store.read_view();
    drop(store);
    // The content of a closed store may or may not be there; asking must not crash.
    let _ = view.get(b"a");
    let _ = view.scan(KeyRange::ALL, false, &mut |_, _| ControlFlow::Continue(()));
}

fn random_writes_agree_with_a_map(store: &mut dyn StateStore) {
    let mut seed = Seed::new(20_260);
    let mut model: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
    for round in 0..60 {
        let mut writes: Vec<Write> = Vec::new();
        for _ in 0..seed.below(40) {
            let key = seed.below(200).to_string().into_bytes();
            if seed.one_in(3) {
                model.remove(&key);
                writes.push((Bytes::from(key), None));
            } else {
                let value = seed.next_u64().to_string().into_bytes();
                model.insert(key.clone(), value.clone());
                writes.push((Bytes::from(key), Some(Bytes::from(value))));
            }
        }
        store.write(&writes, Some(round)).expect("write");
        let expected: Entries = model.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
        assert_eq!(scan(store, KeyRange::ALL, false, usize::MAX), expected, "round {round}");
        let bound = seed.below(200).to_string().into_bytes();
        let range = KeyRange { lower: Bound::Excluded(&bound), upper: Bound::Unbounded };
        let above: Entries = expected.iter().filter(|(key, _)| *key > bound).rev().cloned().collect();
        assert_eq!(scan(store, range, true, usize::MAX), above, "round {round} above {bound:?}");
    }
}
