//! What the command line uses: list, write, read.

use std::collections::BTreeMap;
use std::time::Duration;

use engine::broker::{BrokerErrorKind, ProducerRecord};
use engine::record::Header;
use kafka::topics::{NewRecord, PartitionBounds, ReadFrom, ReadOptions, TopicReader, TopicRecord};

use crate::cluster::{Cluster, PATIENCE, on_each_broker, unique, wait_for};

on_each_broker!(
    a_written_topic_is_read_back_and_listed,
    reading_can_begin_anywhere_and_follow,
    a_writer_reports_what_the_broker_refused,
    topics_that_do_not_exist_are_named,
    records_are_deleted_below_an_offset,
    what_cannot_be_deleted_is_told_by_partition,
    a_transaction_shows_nothing_before_it_is_committed,
);

fn value(record: &TopicRecord) -> String {
    String::from_utf8_lossy(record.value.as_deref().unwrap_or_default()).into_owned()
}

fn read_all(mut reader: TopicReader) -> Vec<TopicRecord> {
    let mut records = Vec::new();
    wait_for("the end of the topic", || {
        records.extend(reader.poll(Duration::from_millis(50), 100).expect("poll"));
        reader.is_done().then_some(())
    });
    records
}

fn new_record(index: usize, partition: Option<i32>) -> NewRecord {
    NewRecord {
        partition,
        timestamp: 1_000 + index as i64,
        key: Some(format!("k{index}").into()),
        value: Some(format!("v{index}").into()),
        headers: vec![Header { key: "n".into(), value: Some(index.to_string().into()) }],
    }
}

fn a_written_topic_is_read_back_and_listed(cluster: &Cluster) {
    let topic = cluster.topic("cli", 3);
    let clients = cluster.clients("cli");
    let mut writer = clients.topic_writer(&topic).expect("writer");
    for index in 0..3000 {
        writer.send(&new_record(index, None)).expect("send");
    }
    writer.flush(PATIENCE).expect("flush");
    assert_eq!((writer.sent(), writer.in_flight()), (3000, 0));
    let written: i64 = writer.acknowledged().values().map(|offset| offset + 1).sum();
    assert_eq!(written, 3000);

    let mut records = read_all(clients.topic_reader(&topic, &ReadOptions::default()).expect("reader"));
    assert_eq!(records.len(), 3000);
    records.sort_by_key(|record| record.timestamp);
    for (index, record) in records.iter().enumerate() {
        let expected = new_record(index, None);
        assert_eq!((&record.key, &record.value, &record.headers), (&expected.key, &expected.value, &expected.headers));
        let partition = engine::partitioner::partition_for_key(expected.key.as_deref().unwrap_or_default(), 3);
        assert_eq!(record.partition, partition);
    }

    let listed = clients.list_topics(false).expect("list");
    let found = listed.iter().find(|summary| summary.name == *topic).expect("it is listed");
    assert_eq!((found.partitions, found.log_length), (3, 3000));
    assert!(listed.iter().all(|summary| !summary.name.starts_with("__")));
    assert!(listed.is_sorted_by(|one, other| one.name < other.name));
}

fn reading_can_begin_anywhere_and_follow(cluster: &Cluster) {
    let topic = cluster.topic("cli", 2);
    let clients = cluster.clients("cli");
    let mut writer = clients.topic_writer(&topic).expect("writer");
    for index in 0..10 {
        writer.send(&new_record(index, Some(i32::from(index >= 5)))).expect("send");
    }
    writer.flush(PATIENCE).expect("flush");
    let read = |options: ReadOptions| {
        let mut values: Vec<_> =
            read_all(clients.topic_reader(&topic, &options).expect("reader")).iter().map(value).collect();
        values.sort();
        values
    };
    let from = ReadFrom::Offsets(BTreeMap::from([(0, 3), (1, 5)]));
    assert_eq!(read(ReadOptions { from: from.clone(), ..Default::default() }), ["v3", "v4"]);
    assert_eq!(read(ReadOptions { partitions: vec![1], ..Default::default() }), ["v5", "v6", "v7", "v8", "v9"]);
    assert!(read(ReadOptions { from: ReadFrom::End, ..Default::default() }).is_empty());

    let options = ReadOptions { from: ReadFrom::End, follow: true, ..Default::default() };
    let mut reader = clients.topic_reader(&topic, &options).expect("reader");
    writer.send(&new_record(10, Some(1))).expect("send");
    writer.flush(PATIENCE).expect("flush");
    let records = wait_for("the new record", || {
        let records = reader.poll(Duration::from_millis(50), 100).expect("poll");
        (!records.is_empty()).then_some(records)
    });
    assert_eq!(records.iter().map(value).collect::<Vec<_>>(), ["v10"]);
    assert!(!reader.is_done());

    let from = ReadFrom::Offsets(BTreeMap::from([(0, 77)]));
    let Err(error) = clients.topic_reader(&topic, &ReadOptions { from, ..Default::default() }) else {
        panic!("offset 77 is out of range")
    };
    assert_eq!(error.kind, BrokerErrorKind::OffsetOutOfRange);
    assert!(error.to_string().contains("0 to 5"), "{error}");
}

fn a_writer_reports_what_the_broker_refused(cluster: &Cluster) {
    let topic = cluster.topic_with("cli", 1, &[("max.message.bytes", "1000")]);
    let mut writer = cluster.clients("cli").topic_writer(&topic).expect("writer");
    writer.send(&NewRecord { value: Some(vec![0; 5000].into()), ..Default::default() }).expect("queued");
    let error = writer.flush(PATIENCE).expect_err("refused");
    assert_eq!(error.kind, BrokerErrorKind::Rejected, "{error}");
    assert!(error.to_string().contains(&format!("{topic}-0")), "{error}");
    let error = writer.send(&new_record(0, Some(4))).expect_err("there is one partition");
    assert!(error.to_string().contains("0 to 0"), "{error}");
}

fn topics_that_do_not_exist_are_named(cluster: &Cluster) {
    let clients = cluster.clients("cli");
    let name = unique("missing");
    let writer = clients.topic_writer(&name).err().expect("no writer");
    let reader = clients.topic_reader(&name, &ReadOptions::default()).err().expect("no reader");
    for error in [writer, reader] {
        assert_eq!(error.kind, BrokerErrorKind::UnknownTopic, "{error}");
        assert!(error.to_string().contains(&name) && error.to_string().contains(&cluster.bootstrap_servers), "{error}");
    }
    assert_eq!(clients.describe_topic(&name).expect("describe"), None);
}

fn records_are_deleted_below_an_offset(cluster: &Cluster) {
    let topic = cluster.topic("cli", 2);
    let clients = cluster.clients("cli");
    cluster.fill(&topic, 0, 0, 10);
    cluster.fill(&topic, 1, 0, 4);
    let deleted = clients.delete_records(&topic, &BTreeMap::from([(0, 7), (1, 4)])).expect("delete");
    assert_eq!(deleted, BTreeMap::from([(0, Ok(7)), (1, Ok(4))]));
    let bounds = |partition, start, stable_end| PartitionBounds { partition, start, stable_end };
    assert_eq!(clients.partition_bounds(&topic).expect("bounds"), [bounds(0, 7, 10), bounds(1, 4, 4)]);
    let left = read_all(clients.topic_reader(&topic, &ReadOptions::default()).expect("reader"));
    assert_eq!(left.iter().map(value).collect::<Vec<_>>(), ["value-7", "value-8", "value-9"]);
}

fn what_cannot_be_deleted_is_told_by_partition(cluster: &Cluster) {
    let topic = cluster.topic("cli", 2);
    let clients = cluster.clients("cli");
    cluster.fill(&topic, 0, 0, 3);
    cluster.fill(&topic, 1, 0, 3);
    let deleted = clients.delete_records(&topic, &BTreeMap::from([(0, 2), (1, 99)])).expect("an answer");
    assert_eq!(deleted.get(&0), Some(&Ok(2)));
    let error = deleted[&1].as_ref().expect_err("it ends at 3");
    assert_eq!(error.kind, BrokerErrorKind::OffsetOutOfRange, "{error}");
    assert!(error.to_string().contains(&format!("{topic}-1")), "{error}");

    let compacted = cluster.topic_with("cli", 1, &[("cleanup.policy", "compact")]);
    cluster.fill(&compacted, 0, 0, 3);
    let deleted = clients.delete_records(&compacted, &BTreeMap::from([(0, 2)])).expect("an answer");
    assert_eq!(deleted[&0].as_ref().expect_err("compacted").kind, BrokerErrorKind::Rejected);
    let error = clients.delete_records(&compacted, &BTreeMap::from([(0, -1)])).expect_err("no offset");
    assert_eq!(error.kind, BrokerErrorKind::Rejected, "{error}");
}

fn a_transaction_shows_nothing_before_it_is_committed(cluster: &Cluster) {
    let topic = cluster.topic("cli", 1);
    let clients = cluster.clients("cli");
    let mut producer = clients.transactional_producer(&unique("cli")).expect("producer");
    producer.init_transactions(PATIENCE).expect("init");
    producer.begin_transaction().expect("begin");
    let record = ProducerRecord {
        topic: &topic,
        partition: Some(0),
        timestamp: 1,
        key: None,
        value: Some(b"sent"),
        headers: &[],
    };
    producer.send(record).expect("send");
    producer.flush(PATIENCE).expect("flush");
    assert_eq!(clients.partition_bounds(&topic).expect("bounds")[0].stable_end, 0);
    producer.commit_transaction(PATIENCE).expect("commit");
    wait_for("the end of the transaction", || {
        (clients.partition_bounds(&topic).expect("bounds")[0].stable_end == 2).then_some(())
    });
}
