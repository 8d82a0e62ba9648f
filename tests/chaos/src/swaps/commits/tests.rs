//! Committed offsets in the bytes of Kafka's topic, taken from a broker and made by hand.

use super::*;

fn key(form: i16, group: &str, topic: &str, partition: i32) -> Vec<u8> {
    let mut bytes = form.to_be_bytes().to_vec();
    for text in [group, topic] {
        bytes.extend(i16::try_from(text.len()).expect("a short text").to_be_bytes());
        bytes.extend(text.as_bytes());
    }
    bytes.extend(partition.to_be_bytes());
    bytes
}

fn value(offset: i64, metadata: &str) -> Vec<u8> {
    let mut bytes = 3_i16.to_be_bytes().to_vec();
    bytes.extend(offset.to_be_bytes());
    bytes.extend((-1_i32).to_be_bytes());
    bytes.extend(i16::try_from(metadata.len()).expect("a short text").to_be_bytes());
    bytes.extend(metadata.as_bytes());
    bytes.extend(0_i64.to_be_bytes());
    bytes
}

/// A partition time of 7, a changelog offset of 3, version 5 since offset 40.
const METADATA: &str = concat!(
    "AgAAAAAAAAAHAAAAAwAAAA9zYW5kYmFyQHZlcnNpb24AAAAAAAAABQAAAA1zYW5kYmFyQHNpbmNl",
    "AAAAAAAAACgAAAAOc2FuZGJhcjpjb3VudHMAAAAAAAAAAw=="
);

#[test]
fn a_commit_says_offset_and_version() {
    let found = parse("app", &key(1, "app", "in", 3), Some(&value(42, METADATA))).expect("a commit");
    assert_eq!(found, Some(("in".to_owned(), 3, Commit { offset: 42, version: Some((5, 40)), ..Commit::default() })));
}

#[test]
fn the_compact_form_says_the_same() {
    let mut bytes = 4_i16.to_be_bytes().to_vec();
    bytes.extend(42_i64.to_be_bytes());
    bytes.extend((-1_i32).to_be_bytes());
    let length = METADATA.len() + 1;
    bytes.extend([(length & 0x7F) as u8 | 0x80, (length >> 7) as u8]);
    bytes.extend(METADATA.as_bytes());
    bytes.extend([0; 9]);
    let found = parse("app", &key(1, "app", "in", 3), Some(&bytes)).expect("a commit");
    assert_eq!(found, Some(("in".to_owned(), 3, Commit { offset: 42, version: Some((5, 40)), ..Commit::default() })));
}

#[test]
fn metadata_without_a_version_names_none() {
    // The version byte and a partition time of 7, as Kafka Streams writes it; and nothing at all.
    for metadata in ["AgAAAAAAAAAH", ""] {
        let found = parse("app", &key(1, "app", "in", 0), Some(&value(9, metadata))).expect("a commit");
        assert_eq!(
            found,
            Some(("in".to_owned(), 0, Commit { offset: 9, version: None, ..Commit::default() })),
            "{metadata:?}"
        );
    }
}

#[test]
fn other_groups_deleted_offsets_and_members_are_passed_over() {
    let commit = value(9, "");
    assert_eq!(parse("app", &key(1, "other", "in", 0), Some(&commit)).expect("a commit"), None);
    assert_eq!(parse("app", &key(1, "app", "in", 0), None).expect("a commit"), None);
    assert_eq!(parse("app", &key(2, "app", "in", 0), Some(&commit)).expect("a group"), None);
    assert!(parse("app", &key(1, "app", "in", 0), Some(&commit[..9])).is_err(), "bytes that are cut off");
    assert!(parse("app", &key(1, "app", "in", 0), Some(&value(9, "?"))).is_err(), "metadata that is no base64");
}
