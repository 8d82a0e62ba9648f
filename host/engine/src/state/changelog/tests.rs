//! Changelog records carry exactly key, value and timestamp, and come back as the same writes.

use bytes::Bytes;

use super::{ChangelogError, ChangelogRecord, to_record, to_write};
use crate::record::{Record, TopicPartition};
use crate::state::Overlay;

fn record(key: Option<&'static [u8]>, value: Option<&'static [u8]>) -> Record {
    Record {
        offset: 41,
        timestamp: 7,
        key: key.map(Bytes::from_static),
        value: value.map(Bytes::from_static),
        headers: Vec::new(),
    }
}

#[test]
fn a_write_and_a_delete_come_back_from_their_records() {
    let mut overlay = Overlay::new(0);
    overlay.put(b"a", Some(Bytes::from_static(b"")), 5);
    overlay.put(b"b", None, 6);
    let records: Vec<_> = overlay.dirty_entries().map(to_record).collect();
    assert_eq!(records[0], ChangelogRecord { key: b"a", value: Some(b""), timestamp: 5 });
    assert_eq!(records[1], ChangelogRecord { key: b"b", value: None, timestamp: 6 });

    let partition = TopicPartition::new("app-votes-changelog", 3);
    let written = to_write(&partition, &record(Some(b"a"), Some(b""))).expect("has a key");
    assert_eq!(written, (Bytes::from_static(b"a"), Some(Bytes::new())));
    let deleted = to_write(&partition, &record(Some(b"b"), None)).expect("has a key");
    assert_eq!(deleted, (Bytes::from_static(b"b"), None));
}

#[test]
fn a_record_without_a_key_is_named_by_topic_partition_and_offset() {
    let partition = TopicPartition::new("app-votes-changelog", 3);
    let error = to_write(&partition, &record(None, Some(b"x"))).expect_err("no key");
    assert_eq!(error, ChangelogError::NullKey { partition, offset: 41 });
    assert!(error.to_string().starts_with("changelog app-votes-changelog-3 has a record without a key at offset 41"));
}
