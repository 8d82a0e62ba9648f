//! Tests of `reads`: what is noted, the bound, and the encoding in the hands of strangers.

use super::*;

fn entry(store: &'static str, key: &'static [u8], value: Option<&'static [u8]>) -> Read {
    Read::Entry { store: store.into(), key: key.into(), value: value.map(Bytes::from_static) }
}

#[test]
fn what_was_before_the_call_is_noted_once_for_each_key() {
    let mut reads = Reads::new(1_000);
    reads.entry("s", b"a", Some(b"1"));
    reads.entry("s", b"a", Some(b"2"));
    reads.written("s", b"b");
    reads.entry("s", b"b", Some(b"its own"));
    reads.entry("t", b"b", None);
    reads.config("unit", Some("km"));
    reads.config("unit", Some("km"));
    let unit = Read::Config { key: "unit".into(), value: Some("km".into()) };
    assert_eq!(reads.reads, [entry("s", b"a", Some(b"1")), entry("t", b"b", None), unit]);
    assert!(!reads.truncated);
}

#[test]
fn what_is_above_the_bound_is_marked_and_ends_the_notes() {
    let mut reads = Reads::new(60);
    reads.entry("s", b"a", Some(b"1"));
    reads.entry("s", b"b", Some(&[7; 100]));
    reads.entry("s", b"c", Some(b"3"));
    assert_eq!((reads.reads.len(), reads.truncated), (1, true));
}

/// A million keys written, or asked of the configuration, are not remembered without end, nor looked for one by one.
#[test]
fn what_is_remembered_is_bounded() {
    let mut reads = Reads::new(1_000);
    reads.entry("s", b"a", Some(b"1"));
    let remembered = |reads: &Reads| reads.settled.values().map(BTreeSet::len).sum::<usize>();
    let mut most = 0;
    for key in 0..1_000_000_u32 {
        reads.written("store", &key.to_be_bytes());
        most = most.max(remembered(&reads));
    }
    assert_eq!((reads.reads.len(), reads.truncated), (1, true));
    assert!((5_000..20_000).contains(&most), "{most} keys");
    assert_eq!(remembered(&reads), 0, "nothing is noted any more");

    let mut reads = Reads::new(16 << 20);
    (0..100).for_each(|_| (0..1_000).for_each(|key| reads.written("store", format!("{key}").as_bytes())));
    assert!(!reads.truncated, "each key counts once");
    (0..2).for_each(|_| (0..100_000).for_each(|key| reads.config(&format!("key {key}"), None)));
    assert_eq!((reads.reads.len(), reads.truncated), (100_000, false));
}

#[test]
fn an_encoding_says_the_same_again() {
    let mut init = Reads::new(1_000);
    init.config("unit", None);
    let mut call = Reads::new(1_000);
    call.entry("s", b"", Some(b""));
    call.entry("s", b"x", None);
    call.range("s", Bound::Included(b"a"), Bound::Excluded(b"b"));
    call.range("s", Bound::Unbounded, Bound::Included(b""));
    call.truncated = true;
    let all = init.followed_by(&call);
    assert_eq!(all.reads[1], Read::EndOfInit);
    assert_eq!(Reads::decode(&all.encode()), Ok(all));
}

#[test]
fn bytes_of_strangers_are_refused_wherever_they_stop_making_sense() {
    let mut reads = Reads::new(1_000);
    reads.entry("store", b"key", Some(b"value"));
    reads.range("store", Bound::Included(b"a"), Bound::Excluded(b"b"));
    let bytes = reads.encode();
    let whole = [2, bytes.len() - (1 + 4 + 5 + 1 + 4 + 1 + 1 + 4 + 1), bytes.len()];
    for end in 0..bytes.len() {
        let decoded = Reads::decode(&bytes[..end]);
        assert_eq!(decoded.is_ok(), whole.contains(&end), "{end} of {}: {decoded:?}", bytes.len());
    }
    assert_eq!(Reads::decode(&[9, 0]), Err(ReadsError::Version { found: 9 }));
    assert_eq!(Reads::decode(&[1, 0, 77]), Err(ReadsError::Kind { item: 0, kind: 77 }));
    let huge = [1, 0, ENTRY, 0xfe, 0xff, 0xff, 0xff];
    assert_eq!(Reads::decode(&huge), Err(ReadsError::Short { item: 0 }));
}
