//! The metadata log: torn ends, damage, rewriting.

use std::fs;

use super::*;
use crate::core::metadata::{CommittedOffset, OffsetRecord};
use crate::disk::tests::TestDir;

fn committed(offset: i64) -> MetadataRecord {
    let committed = CommittedOffset { offset, leader_epoch: 0, metadata: "m".into(), commit_timestamp: 1 };
    let offsets = vec![OffsetRecord { topic: "t".into(), partition: 0, committed }];
    MetadataRecord::OffsetsCommitted { group: "g".into(), offsets }
}

fn offset_of(journal: &Journal) -> Option<i64> {
    Some(journal.image().groups.get("g")?.offsets.get("t")?.get(&0)?.offset)
}

#[test]
fn any_torn_end_is_cut_to_the_last_whole_line() {
    let dir = TestDir::new();
    let path = dir.path().join("metadata.log");
    let mut journal = Journal::open(&path, true).unwrap();
    journal.append(&[committed(1)]).unwrap();
    let whole = fs::read(&path).unwrap();
    journal.append(&[committed(2)]).unwrap();
    drop(journal);
    let both = fs::read(&path).unwrap();
    for length in whole.len()..both.len() {
        fs::write(&path, &both[..length]).unwrap();
        let mut journal = Journal::open(&path, false).unwrap();
        assert_eq!(offset_of(&journal), Some(1), "{length} bytes");
        assert_eq!(fs::read(&path).unwrap(), whole);
        journal.append(&[committed(3)]).unwrap();
        drop(journal);
        assert_eq!(offset_of(&Journal::open(&path, false).unwrap()), Some(3));
    }
}

#[test]
fn damage_before_good_lines_is_an_error_that_names_the_line() {
    let dir = TestDir::new();
    let path = dir.path().join("metadata.log");
    let mut journal = Journal::open(&path, false).unwrap();
    for offset in 0..3 {
        journal.append(&[committed(offset)]).unwrap();
    }
    drop(journal);
    let mut bytes = fs::read(&path).unwrap();
    let second = bytes.iter().position(|&byte| byte == b'\n').unwrap() + 20;
    bytes[second] ^= 1;
    fs::write(&path, &bytes).unwrap();
    let error = Journal::open(&path, false).unwrap_err().to_string();
    assert!(error.contains("is damaged, but line 3 is whole"), "{error}");
    assert_eq!(fs::read(&path).unwrap(), bytes, "nothing was changed");
}

#[test]
fn it_is_rewritten_when_it_has_grown() {
    let dir = TestDir::new();
    let path = dir.path().join("metadata.log");
    let mut journal = Journal::open(&path, false).unwrap();
    let mut most = 0;
    for offset in 0..20_000 {
        journal.append(&[committed(offset)]).unwrap();
        most = most.max(journal.length);
    }
    assert!(most > REWRITE_BYTES_MIN / 2 && most <= REWRITE_BYTES_MIN, "{most} bytes");
    assert_eq!(fs::metadata(&path).unwrap().len(), journal.length);
    let image = journal.image().clone();
    drop(journal);
    assert_eq!(Journal::open(&path, false).unwrap().image(), &image);
}

#[test]
fn a_rewrite_that_fails_leaves_the_log_in_use() {
    let dir = TestDir::new();
    let path = dir.path().join("metadata.log");
    let mut journal = Journal::open(&path, false).unwrap();
    // Where the new file would be written stands a folder.
    fs::create_dir(path.with_extension("new")).unwrap();
    for offset in 0..10_000 {
        journal.append(&[committed(offset)]).unwrap();
    }
    assert!(journal.length > REWRITE_BYTES_MIN);
    fs::remove_dir(path.with_extension("new")).unwrap();
    for offset in 10_000..50_000 {
        journal.append(&[committed(offset)]).unwrap();
    }
    assert!(journal.length < 2 * REWRITE_BYTES_MIN, "rewritten at last: {} bytes", journal.length);
    drop(journal);
    assert_eq!(offset_of(&Journal::open(&path, false).unwrap()), Some(49_999));
}
