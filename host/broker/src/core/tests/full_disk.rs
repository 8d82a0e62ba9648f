//! A full disk, for every kind of write: refused with an error, nothing acknowledged is lost, and everything works
//! again when there is space, without a restart.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::core::admin::{ConfigChange, NewTopic};
use crate::core::batch::build::{NewRecord, batch_of};
use crate::core::group::offsets::OffsetToCommit;
use crate::core::group::{JoinRequest, MemberIdentity};
use crate::core::log::IsolationLevel;
use crate::core::memory::MemoryStorage;
use crate::core::refusal::{ErrorCode, Refusal};
use crate::core::{Core, CoreOptions};

type Write = (&'static str, fn(&Core) -> Result<(), Refusal>);

fn topic(name: &str) -> NewTopic {
    // Two batches fill a segment, so that every other append begins a new one.
    let configs = BTreeMap::from([("segment.bytes".to_owned(), "200".to_owned())]);
    NewTopic { name: name.to_owned(), partitions: 2, configs }
}

fn append(core: &Core, partition: i32) -> Result<(), Refusal> {
    let batch = batch_of(None, &[NewRecord { value: Some(b"value"), ..NewRecord::default() }]);
    core.partition("t", partition)?.append(&batch, 0).map(drop)
}

fn commit(core: &Core, offset: i64) -> Result<(), Refusal> {
    let offset = OffsetToCommit { topic: "t".into(), partition: 0, offset, leader_epoch: -1, metadata: String::new() };
    let member = MemberIdentity { generation: -1, ..MemberIdentity::default() };
    core.commit_offsets(0, "g", &member, vec![offset])?.remove(0)
}

/// Everything that writes. Each may be done twice.
const WRITES: &[Write] = &[
    ("append", |core| append(core, 0)),
    ("append to the other partition", |core| append(core, 1)),
    ("make a topic", |core| match core.create_topic(&topic("made"), false) {
        Err(refusal) if refusal.code == ErrorCode::TopicAlreadyExists => Ok(()),
        made => made.map(drop),
    }),
    ("widen a topic", |core| core.create_partitions("t", core.topic("t").unwrap().partitions.len() as i32 + 1, false)),
    ("replace settings", |core| core.alter_configs("t", topic("t").configs, false)),
    ("change a setting", |core| {
        core.incremental_alter_configs("t", &[("retention.ms".into(), ConfigChange::Set("5".into()))], false)
    }),
    ("delete records", |core| {
        core.delete_records("t", 1, core.partition("t", 1)?.bounds().log_start_offset + 1).map(drop)
    }),
    ("commit an offset", |core| commit(core, 2)),
    ("delete an offset", |core| core.delete_offsets("g", vec![("t".into(), 0)])),
    ("delete a group", |core| core.delete_group("g").and_then(|()| commit(core, 1))),
    ("give out a producer's id", |core| core.init_producer_id().map(drop)),
    ("delete a topic", |core| {
        core.delete_topic("gone").map(drop)?;
        core.create_topic(&topic("gone"), false).map(drop)
    }),
];

fn open(storage: &MemoryStorage) -> Core {
    Core::open(CoreOptions::default(), Arc::new(storage.clone())).unwrap().0
}

fn filled(storage: &MemoryStorage) -> Core {
    let core = open(storage);
    core.create_topic(&topic("t"), false).unwrap();
    core.create_topic(&topic("gone"), false).unwrap();
    for _ in 0..3 {
        append(&core, 0).unwrap();
        append(&core, 1).unwrap();
    }
    commit(&core, 1).unwrap();
    core
}

/// What a client can see.
fn seen(core: &Core) -> String {
    let topics: Vec<_> = core.topics().into_iter().map(|topic| (topic.id, topic.name, topic.configs)).collect();
    let partitions: Vec<_> = core.topics().iter().flat_map(|topic| topic.partitions.clone()).collect();
    let logs: Vec<_> = partitions
        .iter()
        .map(|partition| {
            let log = partition.log();
            log.read(log.bounds().log_start_offset, usize::MAX, true, IsolationLevel::ReadUncommitted).unwrap()
        })
        .collect();
    format!("{topics:?} {logs:?} {:?}", core.committed_offsets("g"))
}

#[test]
fn every_write_is_refused_and_works_again() {
    for (name, write) in WRITES {
        let storage = MemoryStorage::new();
        let core = filled(&storage);
        let before = seen(&core);
        storage.fill_disk(true);
        for _ in 0..3 {
            let refusal = write(&core).unwrap_err();
            assert_eq!(refusal.code, ErrorCode::KafkaStorageError, "{name}: {refusal}");
            assert!(refusal.detail.contains("no space left"), "{name}: {refusal}");
        }
        core.summarize_logs();
        assert_eq!(seen(&core), before, "{name}");
        assert_eq!(seen(&open(&storage)), before, "{name}: a restart on the full disk");
        storage.fill_disk(false);
        for (again, write) in WRITES {
            write(&core).unwrap_or_else(|refusal| panic!("{again} after {name}: {refusal}"));
        }
        let after = seen(&core);
        assert_ne!(after, before);
        drop(core);
        assert_eq!(seen(&open(&storage)), after, "{name}: a restart at the end");
    }
}

#[test]
fn a_failed_creation_leaves_nothing() {
    let storage = MemoryStorage::new();
    let core = filled(&storage);
    storage.fill_disk(true);
    core.create_topic(&topic("new"), false).unwrap_err();
    assert!(core.topic("new").is_none());
    assert_eq!(storage.log_count(), 4);
    storage.fill_disk(false);
    core.create_topic(&topic("new"), false).unwrap();
    assert_eq!(storage.log_count(), 6);
}

#[test]
fn groups_go_on_in_memory() {
    let storage = MemoryStorage::new();
    let core = filled(&storage);
    storage.fill_disk(true);
    let join = JoinRequest {
        group: "members".into(),
        member_id: String::new(),
        instance_id: None,
        client_id: "c".into(),
        client_host: "/127.0.0.1".into(),
        session_timeout_ms: 10_000,
        rebalance_timeout_ms: 10_000,
        protocol_type: "consumer".into(),
        protocols: vec![("range".into(), bytes::Bytes::new())],
        require_known_member_id: false,
    };
    assert_eq!(core.join_group(0, 1, join).answers.len(), 1);
}

#[test]
fn a_stale_summary_does_not_keep_a_full_disk_from_starting() {
    let storage = MemoryStorage::new();
    let core = filled(&storage);
    core.summarize_logs();
    let id = core.topic("t").unwrap().id;
    drop(core);
    // The last segment lost its end, so its summary says too much.
    let store = crate::core::storage::Storage::open_log(&storage, id, "t", 0);
    let mut store = store.unwrap();
    let (base, size) = *store.segments().unwrap().last().unwrap();
    store.truncate(base, size - 1).unwrap();
    storage.fill_disk(true);
    let core = open(&storage);
    let end = core.partition("t", 0).unwrap().bounds().high_watermark;
    assert_eq!(end, 2);
    storage.fill_disk(false);
    append(&core, 0).unwrap();
    append(&core, 0).unwrap();
    let expected = seen(&core);
    drop(core);
    assert_eq!(seen(&open(&storage)), expected);
}
