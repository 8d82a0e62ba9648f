//! Which folders are synced, and what happens when that fails. No test can cut the power: these hold that every folder
//! in which a name was made or changed is asked for before the call is done.

use std::cell::{Cell, RefCell};
use std::io;
use std::mem;

use super::*;
use crate::core::metadata::{CommittedOffset, MetadataRecord, OffsetRecord};
use crate::disk::log::{DiskLog, OpenFiles};

thread_local! {
    static SYNCED: RefCell<Vec<PathBuf>> = const { RefCell::new(Vec::new()) };
    static FAILS: Cell<bool> = const { Cell::new(false) };
}

/// Called for every folder that is to be synced.
pub(in crate::disk) fn note(dir: &Path) -> io::Result<()> {
    if FAILS.get() {
        return Err(io::Error::other("the folder cannot be synced"));
    }
    SYNCED.with_borrow_mut(|synced| synced.push(dir.to_owned()));
    Ok(())
}

/// The folders that were synced since the last call, below `root`, each once.
fn synced(root: &Path) -> Vec<String> {
    let synced = SYNCED.with_borrow_mut(mem::take);
    let below = |dir: &PathBuf| dir.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
    synced.iter().map(below).collect::<BTreeSet<String>>().into_iter().collect()
}

fn committed(offset: i64) -> MetadataRecord {
    let committed = CommittedOffset { offset, leader_epoch: 0, metadata: "m".into(), commit_timestamp: 1 };
    let offsets = vec![OffsetRecord { topic: "t".into(), partition: 0, committed }];
    MetadataRecord::OffsetsCommitted { group: "g".into(), offsets }
}

#[test]
fn every_folder_with_a_new_name_is_synced() {
    for fsync in [false, true] {
        let root = TestDir::new();
        let dir = root.path().join("a").join("b");
        let expect = |what: &str, expected: &[&str]| {
            let expected: &[&str] = if fsync { expected } else { &[] };
            assert_eq!(synced(root.path()), expected, "{what}, fsync {fsync}");
        };
        let start = || {
            let storage = DiskStorage::open(&dir, fsync).unwrap();
            Core::open(CoreOptions::default(), Arc::new(storage)).unwrap().0
        };
        let core = start();
        expect("the first start", &["", "a", "a/b", "a/b/logs"]);
        core.create_topic(&new_topic("t", &[("segment.bytes", "100")]), false).unwrap();
        let partition = first_log(&dir).parent().unwrap().strip_prefix(root.path()).unwrap().to_owned();
        let (topic, partition) = (partition.parent().unwrap().to_str().unwrap(), partition.to_str().unwrap());
        expect("a topic", &["a/b/logs", topic, partition]);
        append(&core, &[0; 80]);
        expect("a batch in a segment that is there", &[]);
        append(&core, &[0; 80]);
        expect("a batch in a new segment", &[partition]);
        drop(core);
        drop(start());
        expect("a start", &["a/b", "a/b/logs", topic, partition]);
    }
}

#[test]
fn a_rewritten_journal_is_appended_to_only_when_its_name_is_sure() {
    let root = TestDir::new();
    let path = root.path().join("metadata.log");
    let mut journal = Journal::open(&path, true).unwrap();
    journal.append(&[committed(0)]).unwrap();
    assert_eq!(synced(root.path()), [""], "the new file");
    let many: Vec<MetadataRecord> = (1..10_000).map(committed).collect();
    FAILS.set(true);
    journal.append(&many).unwrap();
    assert!(fs::metadata(&path).unwrap().len() < 1_000, "it was rewritten");
    let error = journal.append(&[committed(10_000)]).unwrap_err();
    assert!(error.to_string().contains("the folder cannot be synced"), "{error}");
    FAILS.set(false);
    journal.append(&[committed(10_001)]).unwrap();
    assert_eq!(synced(root.path()), [""]);
    journal.append(&[committed(10_002)]).unwrap();
    assert_eq!(synced(root.path()), [""; 0]);
    let image = journal.image().clone();
    drop(journal);
    assert_eq!(Journal::open(&path, true).unwrap().image(), &image);
    assert_eq!(image.groups["g"].offsets["t"][&0].offset, 10_002);
}

#[test]
fn a_segment_whose_name_is_not_sure_is_not_there() {
    let root = TestDir::new();
    let mut log = DiskLog::open(root.path().to_owned(), true, OpenFiles::default()).unwrap();
    log.create_segment(0).unwrap();
    FAILS.set(true);
    log.create_segment(7).unwrap_err();
    FAILS.set(false);
    assert_eq!(log.segments().unwrap(), [(0, 0)]);
    log.create_segment(9).unwrap();
    assert_eq!(log.segments().unwrap(), [(0, 0), (9, 0)]);
}
