//! Folders with something wrong in them: what was cut short is cut and said, what is damaged is refused and left as it
//! is, and nobody else's folder is touched.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use super::{TestDir, append, first_log, new_topic, open};
use crate::core::group::MemberIdentity;
use crate::core::group::offsets::OffsetToCommit;
use crate::core::log::IsolationLevel;
use crate::core::refusal::ErrorCode;
use crate::core::{Core, CoreOptions};
use crate::disk::DiskStorage;

/// Why the folder does not open.
fn refused(dir: &Path) -> String {
    match DiskStorage::open(dir, false) {
        Err(error) => error.to_string(),
        Ok(storage) => Core::open(CoreOptions::default(), Arc::new(storage)).unwrap_err().to_string(),
    }
}

/// Every file below a folder with its bytes.
fn files(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(files(&path)),
            false => found.push((path.display().to_string(), fs::read(&path).unwrap())),
        }
    }
    found.sort();
    found
}

fn commit(core: &Core, offset: i64) {
    let offset = OffsetToCommit { topic: "t".into(), partition: 0, offset, leader_epoch: -1, metadata: "m".into() };
    let member = MemberIdentity { generation: -1, ..MemberIdentity::default() };
    core.commit_offsets(0, "g", &member, vec![offset]).unwrap().remove(0).unwrap();
}

/// A folder with topic `t`, three records in it and a committed offset; with small segments there are three of them.
fn filled(segment_bytes: &str) -> TestDir {
    let dir = TestDir::new();
    let (core, _) = open(dir.path());
    core.create_topic(&new_topic("t", &[("segment.bytes", segment_bytes)]), false).unwrap();
    for value in ["first", "second", "third"] {
        append(&core, value.as_bytes());
    }
    commit(&core, 1);
    dir
}

#[test]
fn lost_metadata_beside_records_is_refused_and_no_record_is_touched() {
    let dir = filled("1000000");
    let path = dir.path().join("metadata.log");
    let whole = fs::read(&path).unwrap();
    let first_line = whole.iter().position(|&byte| byte == b'\n').unwrap() + 1;
    let log = fs::read(first_log(dir.path())).unwrap();
    for length in [0, first_line] {
        fs::write(&path, &whole[..length]).unwrap();
        let before = files(dir.path());
        let error = refused(dir.path());
        assert!(error.contains("metadata.log: it does not know the topic whose records are in"), "{error}");
        assert!(error.contains("put the file back from a copy"), "{error}");
        assert_eq!(files(dir.path()), before, "{length} bytes");
    }
    fs::remove_file(&path).unwrap();
    assert!(refused(dir.path()).contains("it does not know the topic"));
    assert_eq!(fs::read(first_log(dir.path())).unwrap(), log);
    fs::write(&path, &whole).unwrap();
    assert_eq!(open(dir.path()).0.partition("t", 0).unwrap().bounds().high_watermark, 3);
}

#[test]
fn only_what_a_broker_left_is_removed() {
    let dir = filled("1000000");
    let logs = dir.path().join("logs");
    // A creation cut short, which has no records, and something of the user's.
    fs::create_dir_all(logs.join("u-00000000000000010000000000000005").join("0")).unwrap();
    fs::write(logs.join("u-00000000000000010000000000000005/0/00000000000000000000.log"), "").unwrap();
    fs::create_dir_all(logs.join("backup")).unwrap();
    fs::write(logs.join("notes.txt"), "mine").unwrap();
    drop(open(dir.path()));
    assert!(logs.join("backup").exists() && logs.join("notes.txt").exists());
    assert_eq!(fs::read_dir(&logs).unwrap().count(), 3);
}

#[test]
fn logs_that_are_gone_are_refused() {
    let dir = filled("1000000");
    let partition = first_log(dir.path()).parent().unwrap().to_owned();
    fs::remove_dir_all(&partition).unwrap();
    let error = refused(dir.path());
    assert!(error.contains(&partition.display().to_string()) && error.contains("are gone"), "{error}");
    // The way on that the message names.
    fs::create_dir_all(&partition).unwrap();
    fs::write(partition.join("00000000000000000000.log"), "").unwrap();
    assert_eq!(open(dir.path()).0.partition("t", 0).unwrap().bounds().high_watermark, 0);
}

#[test]
fn a_last_write_cut_anywhere_loses_only_itself() {
    let dir = filled("1000000");
    let path = first_log(dir.path());
    let before = fs::read(&path).unwrap().len();
    append(&open(dir.path()).0, b"the last one");
    let whole = fs::read(&path).unwrap();
    for length in before..whole.len() {
        fs::write(&path, &whole[..length]).unwrap();
        let (core, recoveries) = open(dir.path());
        assert_eq!(core.partition("t", 0).unwrap().bounds().high_watermark, 3, "{length} bytes");
        let cut: Vec<u64> = recoveries.iter().map(|recovery| recovery.cut_bytes).collect();
        let expected = (length - before) as u64;
        assert_eq!(cut, if expected == 0 { vec![] } else { vec![expected] });
    }
}

#[test]
fn a_summary_cut_anywhere_is_no_loss() {
    let dir = filled("1000000");
    let (core, _) = open(dir.path());
    core.summarize_logs();
    drop(core);
    let path = first_log(dir.path()).with_extension("summary");
    let whole = fs::read(&path).unwrap();
    for length in 0..whole.len() {
        fs::write(&path, &whole[..length]).unwrap();
        let (core, recoveries) = open(dir.path());
        assert_eq!((core.partition("t", 0).unwrap().bounds().high_watermark, recoveries.len()), (3, 0), "{length}");
    }
}

#[test]
fn metadata_cut_anywhere_in_its_last_write_loses_only_that() {
    let dir = filled("1000000");
    let path = dir.path().join("metadata.log");
    let (core, _) = open(dir.path());
    let before = fs::read(&path).unwrap().len();
    commit(&core, 2);
    drop(core);
    let whole = fs::read(&path).unwrap();
    for length in before..=whole.len() {
        fs::write(&path, &whole[..length]).unwrap();
        let (core, _) = open(dir.path());
        let committed = core.committed_offset("g", "t", 0).unwrap().offset;
        assert_eq!(committed, if length == whole.len() { 2 } else { 1 }, "{length} bytes");
        assert_eq!(core.partition("t", 0).unwrap().bounds().high_watermark, 3);
    }
}

#[test]
fn a_flipped_byte_in_a_closed_segment_names_file_and_place() {
    let dir = filled("100");
    let path = first_log(dir.path());
    let whole = fs::read(&path).unwrap();
    // With its summary the segment is not read at the start: the reader is told.
    for at in [16, 30, whole.len() - 2] {
        let mut damaged = whole.clone();
        damaged[at] ^= 1;
        fs::write(&path, &damaged).unwrap();
        let (core, _) = open(dir.path());
        let handle = core.partition("t", 0).unwrap();
        let refusal = handle.read(0, 1_000, true, IsolationLevel::ReadCommitted).unwrap_err();
        assert_eq!(refusal.code, ErrorCode::CorruptMessage);
        assert!(refusal.detail.contains(&format!("byte 0 of {}", path.display())), "{refusal}");
        let next = handle.read(1, 1_000, true, IsolationLevel::ReadCommitted).unwrap().records;
        assert!(next.windows(6).any(|window| window == b"second"));
    }
    // Without it the start is refused, and nothing is changed.
    for at in 0..whole.len() {
        let own = (0..8).contains(&at) || (12..16).contains(&at);
        let mut damaged = whole.clone();
        damaged[at] ^= 1;
        fs::write(&path, &damaged).unwrap();
        drop(fs::remove_file(path.with_extension("summary")));
        if own {
            // Offset and epoch are outside of the checksum.
            continue;
        }
        let error = refused(dir.path());
        assert!(error.contains(&path.display().to_string()) && error.contains("damaged at byte 0 of"), "{at}: {error}");
        assert!(error.contains("from offset 0 to 0"), "{error}");
        assert_eq!(fs::read(&path).unwrap(), damaged, "byte {at}");
    }
}

#[test]
fn a_flipped_byte_before_the_last_batch_is_not_taken_for_a_torn_end() {
    let dir = filled("1000000");
    let path = first_log(dir.path());
    let mut damaged = fs::read(&path).unwrap();
    let second = damaged.windows(6).position(|window| window == b"second").unwrap();
    damaged[second] ^= 1;
    fs::write(&path, &damaged).unwrap();
    let error = refused(dir.path());
    assert!(error.contains("damaged at byte") && error.contains("from offset 1 to the end"), "{error}");
    assert_eq!(fs::read(&path).unwrap(), damaged);
}

#[test]
fn a_flipped_byte_in_the_metadata_names_file_and_place() {
    let dir = filled("1000000");
    let path = dir.path().join("metadata.log");
    let whole = fs::read(&path).unwrap();
    let last_line = whole[..whole.len() - 1].iter().rposition(|&byte| byte == b'\n').unwrap() + 1;
    for at in 0..last_line {
        let mut damaged = whole.clone();
        damaged[at] ^= 1;
        fs::write(&path, &damaged).unwrap();
        let before = files(dir.path());
        let error = refused(dir.path());
        assert!(error.contains("metadata.log: line ") && error.contains("at byte"), "{at}: {error}");
        assert!(error.contains("nothing was changed: put the file back from a copy"), "{at}: {error}");
        assert_eq!(files(dir.path()), before, "byte {at}");
    }
}

#[test]
fn a_line_of_a_newer_program_is_not_taken_for_a_torn_end() {
    let dir = filled("1000000");
    let path = dir.path().join("metadata.log");
    let json = br#"{"type":"something_new","number":1}"#;
    let mut bytes = fs::read(&path).unwrap();
    bytes.extend_from_slice(format!("{:08x} ", crc32c::crc32c(json)).as_bytes());
    bytes.extend_from_slice(json);
    bytes.push(b'\n');
    fs::write(&path, &bytes).unwrap();
    let error = refused(dir.path());
    assert!(error.contains("whole but not known here") && error.contains("something_new"), "{error}");
    assert_eq!(fs::read(&path).unwrap(), bytes);
}

#[test]
fn nobody_elses_folder_is_taken() {
    for entry in ["src", "logs", "meta.properties"] {
        let dir = TestDir::new();
        fs::create_dir_all(dir.path().join(entry).join("mine")).unwrap();
        let error = refused(dir.path());
        assert!(error.contains(&format!("it has {entry:?}, which no broker made")), "{error}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "{entry}");
    }
    // What file systems and desktops leave, and a first start cut short, is nobody's.
    let dir = TestDir::new();
    for name in [".gitkeep", "lost+found", "lock", "format.new"] {
        fs::write(dir.path().join(name), "").unwrap();
    }
    drop(open(dir.path()));
}

#[test]
fn a_file_where_a_folder_should_be_is_named() {
    let dir = TestDir::new();
    let file = dir.path().join("file");
    fs::write(&file, "mine").unwrap();
    assert!(refused(&file).contains(&format!("make the folder {}", file.display())));
    assert_eq!(fs::read(&file).unwrap(), b"mine");
    let dir = filled("1000000");
    let log = first_log(dir.path());
    let partition = log.parent().unwrap();
    fs::remove_dir_all(partition).unwrap();
    fs::write(partition, "mine").unwrap();
    let error = refused(dir.path());
    assert!(error.contains(&partition.display().to_string()), "{error}");
    assert_eq!(fs::read(partition).unwrap(), b"mine");
}
