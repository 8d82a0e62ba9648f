//! A file system that is really full: 8 MiB of memory, mounted where only this test's process sees it. Needs the right
//! to mount; without it the test says that it was skipped.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use broker::core::batch::{BatchHeader, Records};
use broker::core::metadata::{CommittedOffset, MetadataRecord, OffsetRecord};
use broker::disk::journal::Journal;
use broker::{EmbeddedBroker, EmbeddedBrokerOptions};
use kafka_protocol::messages::CreateTopicsRequest;
use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::protocol::StrBytes;

use crate::client::{Client, TestDir};

const DIR_VARIABLE: &str = "BROKER_IT_FULL_DIR";
const MOUNT: &str = "mount -t tmpfs -o size=8m tmpfs \"$0\"";

/// Runs one of the tests below inside of a mount namespace with a small file system at its folder.
fn run(test: &str) {
    let dir = TestDir::new();
    let mount = Command::new("unshare").args(["-m", "sh", "-c", MOUNT]).arg(dir.path()).output();
    if !mount.is_ok_and(|output| output.status.success()) {
        // Straight to the terminal: what a passing test prints is not shown.
        let line = format!("skipped: {test} needs the right to mount a file system\n");
        std::io::stderr().write_all(line.as_bytes()).unwrap();
        return;
    }
    let output = Command::new("unshare")
        .args(["-m", "sh", "-c", &format!("{MOUNT} && exec \"$@\"")])
        .arg(dir.path())
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(DIR_VARIABLE, dir.path())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}\n{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn a_full_disk_loses_nothing_and_is_left_behind() {
    run("full_disk::inside_the_broker");
}

#[test]
fn a_journal_that_cannot_be_rewritten_goes_on() {
    run("full_disk::inside_the_journal");
}

#[test]
fn a_read_only_folder_is_named() {
    run("full_disk::inside_read_only");
}

fn inside() -> Option<PathBuf> {
    std::env::var_os(DIR_VARIABLE).map(PathBuf::from)
}

/// Takes all space but about `left` bytes.
fn fill(dir: &Path, left: usize) -> PathBuf {
    let path = dir.join("ballast");
    let mut file = File::create(&path).unwrap();
    while file.write_all(&[7; 4096]).is_ok() {}
    let length = file.metadata().unwrap().len();
    file.set_len(length.saturating_sub(left as u64)).unwrap();
    path
}

fn start(dir: &Path, fsync: bool) -> (EmbeddedBroker, Client) {
    let options = EmbeddedBrokerOptions { fsync, ..EmbeddedBrokerOptions::default() };
    let broker = EmbeddedBroker::start(&dir.join("broker"), &options).unwrap();
    let client = Client::connect(broker.address()).unwrap();
    (broker, client)
}

fn create(client: &mut Client, name: &str) -> i16 {
    let one = CreatableTopic::default()
        .with_name(StrBytes::from_string(name.to_owned()).into())
        .with_num_partitions(3)
        .with_replication_factor(1);
    client.call(&CreateTopicsRequest::default().with_topics(vec![one]), 4).unwrap().topics[0].error_code
}

/// The sequence numbers of all records.
fn values(client: &mut Client) -> Vec<i32> {
    let mut found = Vec::new();
    loop {
        let bytes = client.fetch(found.len() as i64);
        let Some(header) = BatchHeader::read(&bytes) else { return found };
        let batch = &bytes[..header.size().unwrap()];
        let records = Records::new(batch, &header);
        found.extend(records.map(|record| i32::from_be_bytes(record.value.unwrap()[..4].try_into().unwrap())));
    }
}

fn value(number: i32) -> Vec<u8> {
    [number.to_be_bytes().as_slice(), &[7; 1_500]].concat()
}

#[test]
fn inside_the_broker() {
    let Some(dir) = inside() else { return };
    for fsync in [false, true] {
        drop(fs::remove_dir_all(dir.join("broker")));
        let (mut broker, mut client) = start(&dir, fsync);
        assert_eq!(client.create_topic(), 0);
        let (mut next, mut committed) = (0, 0);
        for _ in 0..100 {
            assert_eq!(client.produce(1, next, &value(next)).unwrap().0, 0);
            next += 1;
        }
        let ballast = fill(&dir, 0);
        // The last page of each file still has room.
        let mut refused = 0;
        for _ in 0..50 {
            match client.produce(1, next, &value(next)).unwrap().0 {
                0 => next += 1,
                code => {
                    assert_eq!(code, 56, "a storage error");
                    refused += 1;
                }
            }
        }
        assert!(refused > 40, "{refused}");
        let mut codes = Vec::new();
        for offset in 1..100 {
            let code = client.commit(offset).unwrap();
            if code == 0 {
                committed = offset;
            }
            codes.push(code);
        }
        assert_eq!(codes.last(), Some(&16), "a client looks for its coordinator and tries again: {codes:?}");
        assert_eq!(create(&mut client, "u"), 56);
        // A restart on the full disk, once with another port, which is written down.
        for port in [0, 1] {
            drop((broker, client));
            if port == 1 {
                fs::write(dir.join("broker/listener"), "").unwrap();
            }
            (broker, client) = start(&dir, fsync);
            assert!(values(&mut client).into_iter().eq(0..next));
            assert_eq!(client.committed(), committed);
        }
        assert_eq!(client.produce(1, next, &value(next)).unwrap().0, 56);
        fs::remove_file(&ballast).unwrap();
        // Space is back, without a restart.
        for _ in 0..100 {
            assert_eq!(client.produce(1, next, &value(next)).unwrap(), (0, i64::from(next)));
            next += 1;
        }
        assert_eq!(client.commit(77).unwrap(), 0);
        assert_eq!(create(&mut client, "u"), 0);
        drop((broker, client));
        let (_broker, mut client) = start(&dir, fsync);
        assert!(values(&mut client).into_iter().eq(0..next));
        assert_eq!((client.committed(), create(&mut client, "u")), (77, 36));
    }
}

#[test]
fn inside_the_journal() {
    let Some(dir) = inside() else { return };
    let path = dir.join("metadata.log");
    let mut journal = Journal::open(&path, false).unwrap();
    let committed = |partition: i32, offset: i64| {
        let committed = CommittedOffset { offset, leader_epoch: 0, metadata: "m".repeat(4_000), commit_timestamp: 1 };
        let offsets = vec![OffsetRecord { topic: "t".into(), partition, committed }];
        MetadataRecord::OffsetsCommitted { group: "g".into(), offsets }
    };
    // What a rewrite would keep is 400 kB; there is no place for that.
    for partition in 0..100 {
        journal.append(&[committed(partition, 0)]).unwrap();
    }
    let ballast = fill(&dir, 1_500_000);
    let mut last = 0;
    for offset in 1.. {
        if journal.append(&[committed(0, offset)]).is_err() {
            break;
        }
        last = offset;
    }
    assert!(fs::metadata(&path).unwrap().len() > 1_500_000, "a rewrite was due");
    assert!(!path.with_extension("new").exists(), "what was written of it takes no place");
    for offset in 0..10 {
        journal.append(&[committed(1, offset)]).unwrap_err();
    }
    drop(journal);
    let mut journal = Journal::open(&path, false).unwrap();
    let offset_of = |journal: &Journal, partition| journal.image().groups["g"].offsets["t"][&partition].offset;
    assert_eq!((offset_of(&journal, 0), offset_of(&journal, 1)), (last, 0));
    fs::remove_file(ballast).unwrap();
    for offset in 0..1_000 {
        journal.append(&[committed(1, offset)]).unwrap();
    }
    assert!(fs::metadata(&path).unwrap().len() < 4_000_000, "rewritten at last");
    let image = journal.image().clone();
    drop(journal);
    assert_eq!(Journal::open(&path, false).unwrap().image(), &image);
}

#[test]
fn inside_read_only() {
    let Some(dir) = inside() else { return };
    let (broker, mut client) = start(&dir, false);
    assert_eq!(client.create_topic(), 0);
    drop((broker, client));
    assert!(Command::new("mount").args(["-o", "remount,ro"]).arg(&dir).status().unwrap().success());
    let error = EmbeddedBroker::start(&dir.join("broker"), &EmbeddedBrokerOptions::default()).unwrap_err();
    assert!(error.to_string().contains(&dir.join("broker/lock").display().to_string()), "{error}");
    let error = EmbeddedBroker::start(&dir.join("new"), &EmbeddedBrokerOptions::default()).unwrap_err();
    assert!(error.to_string().contains(&dir.join("new").display().to_string()), "{error}");
}
