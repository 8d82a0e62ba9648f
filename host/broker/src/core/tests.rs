//! The core as a whole: topics and their settings, offsets, ids, and all of it over a restart.

mod full_disk;

use super::admin::{ConfigChange, NewTopic};
use super::batch::build::{NewRecord, batch_of};
use super::memory::MemoryStorage;
use super::refusal::ErrorCode;
use super::*;

fn open(storage: &MemoryStorage) -> Core {
    let (core, recoveries) = Core::open(CoreOptions::default(), Arc::new(storage.clone())).unwrap();
    assert_eq!(recoveries, []);
    core
}

fn new_topic(name: &str, partitions: i32) -> NewTopic {
    NewTopic { name: name.into(), partitions, configs: BTreeMap::new() }
}

fn configs(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn value_of(core: &Core, topic: &str, name: &str) -> (String, bool) {
    let entries = core.describe_configs(topic).unwrap();
    let entry = entries.into_iter().find(|entry| entry.name == name).unwrap();
    (entry.value, entry.is_default)
}

fn append(core: &Core, topic: &str, partition: i32) -> Result<i64, Refusal> {
    let batch = batch_of(None, &[NewRecord { key: Some(b"k"), ..NewRecord::default() }]);
    core.partition(topic, partition)?.append(&batch, 0).map(|appended| appended.base_offset)
}

fn commit(core: &Core, group: &str, topic: &str, partition: i32, offset: i64) -> Result<(), Refusal> {
    let member = MemberIdentity { generation: -1, ..MemberIdentity::default() };
    let metadata = format!("m{offset}");
    let offset = OffsetToCommit { topic: topic.into(), partition, offset, leader_epoch: 0, metadata };
    core.commit_offsets(1, group, &member, vec![offset])?.remove(0)
}

#[test]
fn everything_is_there_after_a_restart() {
    let storage = MemoryStorage::new();
    let core = open(&storage);
    let id = core.create_topic(&new_topic("a", 2), false).unwrap().id;
    core.create_topic(&NewTopic { configs: configs(&[("cleanup.policy", "compact")]), ..new_topic("b", -1) }, false)
        .unwrap();
    core.create_partitions("a", 3, false).unwrap();
    for _ in 0..3 {
        append(&core, "a", 2).unwrap();
    }
    core.delete_records("a", 2, 2).unwrap();
    commit(&core, "g", "a", 2, 2).unwrap();
    core.incremental_alter_configs("a", &[("retention.ms".into(), ConfigChange::Set("5".into()))], false).unwrap();
    let producer = core.init_producer_id().unwrap();
    drop(core);

    let core = open(&storage);
    let topic = core.topic("a").unwrap();
    assert_eq!((topic.id, topic.partitions.len()), (id, 3));
    assert_eq!(core.topic_by_id(id).unwrap().name.as_ref(), "a");
    let bounds = core.partition("a", 2).unwrap().bounds();
    assert_eq!((bounds.log_start_offset, bounds.high_watermark), (2, 3));
    let committed = core.committed_offset("g", "a", 2).unwrap();
    assert_eq!((committed.offset, committed.metadata.as_str()), (2, "m2"));
    assert_eq!(value_of(&core, "a", "retention.ms"), ("5".into(), false));
    assert_eq!(value_of(&core, "b", "cleanup.policy"), ("compact".into(), false));
    assert_ne!(core.init_producer_id().unwrap().0, producer.0, "producer ids never repeat");
    assert_eq!(append(&core, "a", 2), Ok(3));
}

#[test]
fn a_topic_made_again_is_another_topic() {
    let storage = MemoryStorage::new();
    let core = open(&storage);
    let old = core.create_topic(&new_topic("t", 1), false).unwrap().id;
    append(&core, "t", 0).unwrap();
    commit(&core, "g", "t", 0, 1).unwrap();
    assert_eq!(core.create_topic(&new_topic("t", 1), false).unwrap_err().code, ErrorCode::TopicAlreadyExists);
    core.delete_topic("t").unwrap();
    assert_eq!(append(&core, "t", 0).unwrap_err().code, ErrorCode::UnknownTopicOrPartition);
    assert_eq!(core.committed_offset("g", "t", 0), None, "offsets go with their topic");
    assert_eq!(core.delete_topic("t").unwrap_err().code, ErrorCode::UnknownTopicOrPartition);
    let core = open(&storage);
    let new = core.create_topic(&new_topic("t", 1), false).unwrap().id;
    assert_ne!(old, new);
    assert!(core.topic_by_id(old).is_none());
    assert_eq!(append(&core, "t", 0), Ok(0));
}

#[test]
fn bad_topics_are_refused_with_their_name() {
    let core = open(&MemoryStorage::new());
    core.create_topic(&new_topic("a.b", 1), false).unwrap();
    let long = "x".repeat(250);
    for (name, partitions, code) in [
        ("", 1, ErrorCode::InvalidTopicException),
        (".", 1, ErrorCode::InvalidTopicException),
        ("..", 1, ErrorCode::InvalidTopicException),
        ("a/b", 1, ErrorCode::InvalidTopicException),
        ("ä", 1, ErrorCode::InvalidTopicException),
        (long.as_str(), 1, ErrorCode::InvalidTopicException),
        ("a_b", 1, ErrorCode::InvalidTopicException),
        ("c", 0, ErrorCode::InvalidPartitions),
        ("c", -2, ErrorCode::InvalidPartitions),
        ("c", i32::MAX, ErrorCode::InvalidPartitions),
    ] {
        let refusal = core.create_topic(&new_topic(name, partitions), false).unwrap_err();
        assert_eq!(refusal.code, code, "{name:?} {partitions}");
    }
    let bad = NewTopic { configs: configs(&[("retention", "1")]), ..new_topic("c", 1) };
    assert_eq!(core.create_topic(&bad, false).unwrap_err().code, ErrorCode::InvalidConfig);
    assert!(core.create_topic(&new_topic("c", 1), true).is_ok(), "would be possible");
    assert!(core.topic("c").is_none(), "but was only asked");
    assert_eq!(core.create_partitions("a.b", 1, false).unwrap_err().code, ErrorCode::InvalidPartitions);
    assert_eq!(core.create_partitions("no", 2, false).unwrap_err().code, ErrorCode::UnknownTopicOrPartition);
}

#[test]
fn the_legacy_alter_replaces_and_the_incremental_one_does_not() {
    let core = open(&MemoryStorage::new());
    let new = NewTopic { configs: configs(&[("cleanup.policy", "compact")]), ..new_topic("t", 1) };
    core.create_topic(&new, false).unwrap();
    let change = |name: &str, change| [(String::from(name), change)];
    core.incremental_alter_configs("t", &change("retention.ms", ConfigChange::Set("9".into())), false).unwrap();
    core.incremental_alter_configs("t", &change("cleanup.policy", ConfigChange::Append("delete".into())), false)
        .unwrap();
    assert_eq!(value_of(&core, "t", "cleanup.policy"), ("compact,delete".into(), false));
    core.incremental_alter_configs("t", &change("cleanup.policy", ConfigChange::Subtract("compact".into())), false)
        .unwrap();
    assert_eq!(value_of(&core, "t", "cleanup.policy"), ("delete".into(), false));
    core.alter_configs("t", configs(&[("segment.ms", "7")]), false).unwrap();
    assert_eq!(value_of(&core, "t", "retention.ms"), ("-1".into(), true));
    assert_eq!(value_of(&core, "t", "segment.ms"), ("7".into(), false));
    core.incremental_alter_configs("t", &change("segment.ms", ConfigChange::Delete), false).unwrap();
    assert_eq!(value_of(&core, "t", "segment.ms"), ("604800000".into(), true));
    let refused = core.incremental_alter_configs("t", &change("segment.ms", ConfigChange::Append("1".into())), false);
    assert_eq!(refused.unwrap_err().code, ErrorCode::InvalidConfig);
    assert!(core.alter_configs("t", configs(&[("segment.ms", "0")]), false).is_err());
    core.alter_configs("t", configs(&[("segment.ms", "8")]), true).unwrap();
    assert_eq!(value_of(&core, "t", "segment.ms"), ("604800000".into(), true), "only validated");
}

#[test]
fn settings_hold_from_the_next_append_on() {
    let core = open(&MemoryStorage::new());
    core.create_topic(&new_topic("t", 1), false).unwrap();
    append(&core, "t", 0).unwrap();
    core.alter_configs("t", configs(&[("max.message.bytes", "10")]), false).unwrap();
    assert_eq!(append(&core, "t", 0).unwrap_err().code, ErrorCode::MessageTooLarge);
}

#[test]
fn a_full_disk_changes_nothing() {
    let storage = MemoryStorage::new();
    let core = open(&storage);
    core.create_topic(&new_topic("t", 1), false).unwrap();
    commit(&core, "g", "t", 0, 1).unwrap();
    storage.fill_disk(true);
    assert_eq!(core.create_topic(&new_topic("u", 1), false).unwrap_err().code, ErrorCode::KafkaStorageError);
    assert_eq!(commit(&core, "g", "t", 0, 2).unwrap_err().code, ErrorCode::KafkaStorageError);
    assert_eq!(core.delete_topic("t").unwrap_err().code, ErrorCode::KafkaStorageError);
    assert_eq!(core.create_partitions("t", 2, false).unwrap_err().code, ErrorCode::KafkaStorageError);
    assert_eq!(
        core.alter_configs("t", configs(&[("segment.ms", "8")]), false).unwrap_err().code,
        ErrorCode::KafkaStorageError
    );
    assert_eq!(core.delete_group("g").unwrap_err().code, ErrorCode::KafkaStorageError);
    drop(core);
    let core = open(&storage);
    assert_eq!(append(&core, "t", 0).unwrap_err().code, ErrorCode::KafkaStorageError, "it starts, but cannot write");
    storage.fill_disk(false);
    assert_eq!(append(&core, "t", 0), Ok(0));
    assert!(core.topic("u").is_none());
    assert_eq!(core.committed_offset("g", "t", 0).unwrap().offset, 1);
    assert_eq!(core.topic("t").unwrap().partitions.len(), 1);
    assert_eq!(value_of(&core, "t", "segment.ms"), ("604800000".into(), true));
    assert!(core.create_topic(&new_topic("u", 1), false).is_ok());
}

#[test]
fn commits_on_unknown_partitions_are_refused_one_by_one() {
    let core = open(&MemoryStorage::new());
    core.create_topic(&new_topic("t", 1), false).unwrap();
    let member = MemberIdentity { generation: -1, ..MemberIdentity::default() };
    let offset = |topic: &str, partition| OffsetToCommit {
        topic: topic.into(),
        partition,
        offset: 5,
        leader_epoch: -1,
        metadata: String::new(),
    };
    let offsets = vec![offset("t", 0), offset("t", 1), offset("t", -1), offset("u", 0)];
    let results = core.commit_offsets(0, "g", &member, offsets).unwrap();
    let codes: Vec<Option<ErrorCode>> = results.into_iter().map(|result| result.err().map(|r| r.code)).collect();
    let unknown = Some(ErrorCode::UnknownTopicOrPartition);
    assert_eq!(codes, [None, unknown, unknown, unknown]);
    assert_eq!(core.committed_offsets("g").len(), 1);
}

#[test]
fn a_transactional_batch_needs_a_transaction() {
    let core = open(&MemoryStorage::new());
    core.create_topic(&new_topic("t", 1), false).unwrap();
    let stamp = batch::build::ProducerStamp { producer_id: 1, epoch: 0, base_sequence: 0, transactional: true };
    let batch = batch_of(Some(stamp), &[NewRecord::default()]);
    let refusal = core.partition("t", 0).unwrap().append(&batch, 0).unwrap_err();
    assert_eq!(refusal.code, ErrorCode::InvalidTxnState);
    let refusal = core.append_in_transaction(0, "nobody", "t", 0, &batch).unwrap_err();
    assert_eq!(refusal.code, ErrorCode::InvalidProducerIdMapping);
}

#[test]
fn member_ids_never_repeat_over_restarts() {
    let storage = MemoryStorage::new();
    let join = |core: &Core| {
        let request = JoinRequest {
            group: "g".into(),
            member_id: String::new(),
            instance_id: None,
            client_id: "c".into(),
            client_host: String::new(),
            session_timeout_ms: 10_000,
            rebalance_timeout_ms: 10_000,
            protocol_type: "consumer".into(),
            protocols: vec![("range".into(), bytes::Bytes::new())],
            require_known_member_id: false,
        };
        match core.join_group(0, 1, request).answers.remove(0).1 {
            group::GroupAnswer::Join(Ok(answer)) => (answer.member_id, answer.generation),
            other => panic!("{other:?}"),
        }
    };
    let (first, second) = (join(&open(&storage)), join(&open(&storage)));
    assert_ne!(first.0, second.0);
    assert_eq!((first.1, second.1), (1, 2), "generations go on");
}

#[test]
fn records_of_a_topic_that_is_only_compacted_are_not_for_deletion() {
    let core = open(&MemoryStorage::new());
    for (policy, refused) in [("compact", true), ("delete", false), ("compact,delete", false)] {
        let new =
            NewTopic { configs: configs(&[("cleanup.policy", policy)]), ..new_topic(&policy.replace(',', "-"), 1) };
        core.create_topic(&new, false).unwrap();
        let result = core.delete_records(&new.name, 0, -1);
        assert_eq!(result.err().map(|refusal| refusal.code), refused.then_some(ErrorCode::PolicyViolation), "{policy}");
    }
}

#[test]
fn an_image_says_itself_in_records() {
    let storage = MemoryStorage::new();
    let core = open(&storage);
    core.create_topic(&NewTopic { configs: configs(&[("segment.ms", "8")]), ..new_topic("t", 2) }, false).unwrap();
    append(&core, "t", 1).unwrap();
    core.delete_records("t", 1, -1).unwrap();
    commit(&core, "g", "t", 1, 1).unwrap();
    core.init_producer_id().unwrap();
    let image = storage.load_metadata().unwrap();
    let mut again = metadata::MetadataImage::default();
    for record in image.to_records() {
        let text = serde_json::to_string(&record).unwrap();
        again.apply(&serde_json::from_str(&text).unwrap());
    }
    assert_eq!(again, image);
}
