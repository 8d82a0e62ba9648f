//! Files of a partition: the budget of open ones, and appends at a place that was written before.

use super::*;
use crate::disk::tests::TestDir;

#[test]
fn many_partitions_share_a_budget_of_open_files() {
    let dir = TestDir::new();
    let open_files = OpenFiles::default();
    let count = ALL_OPEN_FILES_MAX + 50;
    let mut logs: Vec<DiskLog> = (0..count)
        .map(|number| DiskLog::open(dir.path().join(number.to_string()), false, Arc::clone(&open_files)).unwrap())
        .collect();
    for log in &mut logs {
        log.create_segment(0).unwrap();
        log.append(0, 0, &[b"one "]).unwrap();
    }
    assert_eq!(open_files.load(Ordering::Relaxed), ALL_OPEN_FILES_MAX);
    for log in &mut logs {
        log.append(0, 4, &[b"t", b"wo"]).unwrap();
        assert_eq!(log.read(0, 0, 100).unwrap(), Bytes::from_static(b"one two"));
    }
    assert_eq!(open_files.load(Ordering::Relaxed), ALL_OPEN_FILES_MAX);
    drop(logs);
    assert_eq!(open_files.load(Ordering::Relaxed), 0);
}

#[test]
fn an_append_overwrites_what_a_failed_one_left() {
    let dir = TestDir::new();
    let mut log = DiskLog::open(dir.path().to_owned(), true, OpenFiles::default()).unwrap();
    log.create_segment(7).unwrap();
    log.append(7, 0, &[b"kept", b" half of a ba"]).unwrap();
    log.append(7, 4, &[b" next"]).unwrap();
    assert_eq!(log.read(7, 0, 9).unwrap(), Bytes::from_static(b"kept next"));
    assert_eq!(log.segments().unwrap(), [(7, 17)]);
    log.truncate(7, 9).unwrap();
    log.write_summary(7, b"summary").unwrap();
    assert_eq!(log.read_summary(7).unwrap(), Some(Bytes::from_static(b"summary")));
    log.remove_segment(7).unwrap();
    assert_eq!((log.segments().unwrap(), log.read_summary(7).unwrap()), (vec![], None));
}

fn with_segment(dir: &Path, fsync: bool) -> DiskLog {
    let mut log = DiskLog::open(dir.to_owned(), fsync, OpenFiles::default()).unwrap();
    log.create_segment(7).unwrap();
    log.append(7, 0, &[b"old bytes"]).unwrap();
    log.write_summary(7, b"of the old bytes").unwrap();
    log
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = entries.collect();
    names.sort_unstable();
    names
}

#[test]
fn a_replacement_takes_the_place_of_a_segment_as_a_whole() {
    for fsync in [false, true] {
        let dir = TestDir::new();
        let mut log = with_segment(dir.path(), fsync);
        let mut replacement = log.begin_replacement(7).unwrap();
        replacement.append(b"new").unwrap();
        assert_eq!(log.read(7, 0, 100).unwrap(), Bytes::from_static(b"old bytes"));
        assert_eq!(log.segments().unwrap(), [(7, 9)]);
        replacement.append(b" ones").unwrap();
        replacement.sync().unwrap();
        log.replace_segment(7, replacement).unwrap();
        assert_eq!(log.read(7, 0, 100).unwrap(), Bytes::from_static(b"new ones"), "not by the old handle");
        assert_eq!(log.read_summary(7).unwrap(), None, "it was of the old bytes");
        assert_eq!(names(dir.path()), ["00000000000000000007.log"]);
    }
}

#[test]
fn a_replacement_that_is_not_wanted_leaves_nothing() {
    let dir = TestDir::new();
    let log = with_segment(dir.path(), false);
    let mut replacement = log.begin_replacement(7).unwrap();
    replacement.append(b"new").unwrap();
    assert_eq!(names(dir.path()).len(), 3);
    drop(replacement);
    assert_eq!(names(dir.path()), ["00000000000000000007.log", "00000000000000000007.summary"]);
}

#[test]
fn a_crash_at_any_point_of_a_replacement_leaves_the_old_or_the_new() {
    let dir = TestDir::new();
    let log = with_segment(dir.path(), false);
    let (old, summary) = (log.read(7, 0, 100).unwrap(), log.path(7, "summary"));
    let crashed = |bytes: &[u8]| fs::write(log.path(7, REPLACEMENT), bytes).unwrap();
    // In the middle of the writing; after it; after the summary went.
    for (bytes, has_summary) in [(&b"ne"[..], true), (b"new", true), (b"new", false)] {
        crashed(bytes);
        if !has_summary {
            fs::remove_file(&summary).unwrap();
        }
        let after = DiskLog::open(dir.path().to_owned(), false, OpenFiles::default()).unwrap();
        assert_eq!(after.read(7, 0, 100).unwrap(), old);
        assert_eq!((after.segments().unwrap(), after.read_summary(7).unwrap().is_some()), (vec![(7, 9)], has_summary));
        assert!(!log.path(7, REPLACEMENT).exists());
    }
    // After the renaming.
    crashed(b"new");
    fs::rename(log.path(7, REPLACEMENT), log.path(7, "log")).unwrap();
    let after = DiskLog::open(dir.path().to_owned(), false, OpenFiles::default()).unwrap();
    assert_eq!((after.segments().unwrap(), after.read_summary(7).unwrap()), (vec![(7, 3)], None));
}

#[test]
fn a_replacement_that_cannot_be_put_in_place_changes_nothing() {
    let dir = TestDir::new();
    let mut log = with_segment(dir.path(), false);
    let replacement = log.begin_replacement(7).unwrap();
    fs::remove_file(log.path(7, REPLACEMENT)).unwrap();
    assert!(log.replace_segment(7, replacement).unwrap_err().to_string().contains("replace"));
    assert_eq!(log.read(7, 0, 100).unwrap(), Bytes::from_static(b"old bytes"));
}
