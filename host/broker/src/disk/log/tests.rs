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
