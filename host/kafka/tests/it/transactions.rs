//! Transactions: what commits is seen, what aborts is not, offsets go with them, zombies are fenced.

use std::sync::Arc;
use std::time::{Duration, Instant};

use engine::broker::{
    BrokerErrorKind, ClientSupplier, GroupMetadata, OffsetAndMetadata, Producer, ProducerRecord, SendError,
};
use engine::record::TopicPartition;
use kafka::topics::ReadOptions;

use crate::cluster::{Cluster, Member, PATIENCE, on_each_broker, send, unique, wait_for};

on_each_broker!(
    a_commit_is_visible_and_an_abort_is_not,
    the_position_passes_control_records,
    offsets_are_committed_with_the_transaction,
    offsets_of_no_member_are_refused_before_the_broker_is_asked,
    a_zombie_is_fenced,
    a_zombie_that_goes_on_sending_hears_that_it_is_fenced,
    many_transactions_one_after_the_other,
);

fn transactional(cluster: &Cluster, id: &str) -> Box<dyn Producer> {
    let mut producer = cluster.clients("transactions").producer(0, Some(id)).expect("producer");
    producer.init_transactions(PATIENCE).expect("init");
    producer
}

fn values(cluster: &Cluster, topic: &str) -> Vec<String> {
    let mut reader = cluster.clients("reader").topic_reader(topic, &ReadOptions::default()).expect("reader");
    let mut values = Vec::new();
    wait_for("the end", || {
        for record in reader.poll(Duration::from_millis(50), 1000).expect("poll") {
            values.push(String::from_utf8_lossy(record.value.as_deref().unwrap_or_default()).into_owned());
        }
        reader.is_done().then_some(())
    });
    values
}

fn a_commit_is_visible_and_an_abort_is_not(cluster: &Cluster) {
    let topic = cluster.topic("transactions", 1);
    let mut producer = transactional(cluster, &unique("id"));
    for (value, commit) in [("a", true), ("b", false), ("c", true), ("d", false)] {
        producer.begin_transaction().expect("begin");
        for _ in 0..10 {
            send(&mut *producer, &topic, Some(0), "k", value);
        }
        producer.flush(PATIENCE).expect("flush");
        if commit {
            producer.commit_transaction(PATIENCE).expect("commit");
        } else {
            producer.abort_transaction(PATIENCE).expect("abort");
        }
    }
    // With records still queued, too.
    producer.begin_transaction().expect("begin");
    send(&mut *producer, &topic, Some(0), "k", "e");
    producer.abort_transaction(PATIENCE).expect("abort");
    producer.begin_transaction().expect("begin");
    send(&mut *producer, &topic, Some(0), "k", "f");
    producer.commit_transaction(PATIENCE).expect("commit");
    let values = values(cluster, &topic);
    let count = |value: &str| values.iter().filter(|found| *found == value).count();
    assert_eq!(["a", "b", "c", "d", "e", "f"].map(count), [10, 0, 10, 0, 0, 1]);
}

fn the_position_passes_control_records(cluster: &Cluster) {
    let topic = cluster.topic("changelog", 1);
    let mut producer = transactional(cluster, &unique("id"));
    for commit in [true, false] {
        producer.begin_transaction().expect("begin");
        send(&mut *producer, &topic, Some(0), "k", "v");
        producer.flush(PATIENCE).expect("flush");
        if commit {
            producer.commit_transaction(PATIENCE).expect("commit");
        } else {
            producer.abort_transaction(PATIENCE).expect("abort");
        }
    }
    let partition = TopicPartition::new(Arc::clone(&topic), 0);
    let mut reader = cluster.clients("reader").restore_consumer(0).expect("reader");
    let marks = reader.watermarks(std::slice::from_ref(&partition)).expect("watermarks");
    assert_eq!(marks[0].high, 4, "two records and two markers");
    reader.assign(&partition, 0).expect("assign");
    let mut records = 0;
    wait_for("the end", || {
        records +=
            reader.poll(Duration::from_millis(50), 10).expect("poll").iter().map(|g| g.records.len()).sum::<usize>();
        (reader.position(&partition).expect("position") == Some(4)).then_some(())
    });
    assert_eq!(records, 1, "the aborted record is hidden");

    // An open transaction holds up the reader but not the log end.
    producer.begin_transaction().expect("begin");
    send(&mut *producer, &topic, Some(0), "k", "open");
    producer.flush(PATIENCE).expect("flush");
    let marks = reader.watermarks(std::slice::from_ref(&partition)).expect("watermarks");
    assert_eq!(marks[0].high, 5, "the log end counts open transactions");
    assert!(reader.poll(Duration::from_millis(300), 10).expect("poll").is_empty());
    producer.abort_transaction(PATIENCE).expect("abort");
}

fn offsets_are_committed_with_the_transaction(cluster: &Cluster) {
    let (input, output) = (cluster.topic("input", 1), cluster.topic("output", 1));
    let clients = cluster.clients(&unique("group"));
    let mut member = Member::join(&clients, 0, &input);
    member.poll_until_owned(1);
    let partition = TopicPartition::new(input, 0);
    let mut producer = transactional(cluster, &unique("id"));
    for (offset, commit) in [(5, true), (9, false)] {
        producer.begin_transaction().expect("begin");
        send(&mut *producer, &output, Some(0), "k", "v");
        producer.flush(PATIENCE).expect("flush");
        let offsets = [(partition.clone(), OffsetAndMetadata { offset, metadata: "stream time".into() })];
        let group = member.consumer.group_metadata().expect("group");
        producer.send_offsets(&offsets, &group, PATIENCE).expect("send offsets");
        if commit {
            producer.commit_transaction(PATIENCE).expect("commit");
        } else {
            producer.abort_transaction(PATIENCE).expect("abort");
        }
    }
    let committed = member.consumer.committed(std::slice::from_ref(&partition)).expect("committed");
    assert_eq!(committed, [Some(OffsetAndMetadata { offset: 5, metadata: "stream time".into() })]);

    let stale = GroupMetadata { generation_id: 0, ..member.consumer.group_metadata().expect("group") };
    producer.begin_transaction().expect("begin");
    send(&mut *producer, &output, Some(0), "k", "v");
    let offsets = [(partition, OffsetAndMetadata { offset: 9, metadata: String::new() })];
    let error = producer.send_offsets(&offsets, &stale, PATIENCE).expect_err("an old generation");
    assert_eq!(error.kind, BrokerErrorKind::Abortable, "{error}");
    producer.abort_transaction(PATIENCE).expect("abort");
}

fn offsets_of_no_member_are_refused_before_the_broker_is_asked(cluster: &Cluster) {
    let mut producer = transactional(cluster, &unique("id"));
    producer.begin_transaction().expect("begin");
    let nobody =
        GroupMetadata { group_id: "g".into(), generation_id: -1, member_id: String::new(), group_instance_id: None };
    let offsets = [(TopicPartition::new("t", 0), OffsetAndMetadata { offset: 1, metadata: String::new() })];
    let error = producer.send_offsets(&offsets, &nobody, PATIENCE).expect_err("generation -1");
    assert_eq!(error.kind, BrokerErrorKind::Abortable, "{error}");
    producer.abort_transaction(PATIENCE).expect("abort");
}

fn a_zombie_is_fenced(cluster: &Cluster) {
    let topic = cluster.topic("zombie", 1);
    let id = unique("id");
    let mut zombie = transactional(cluster, &id);
    zombie.begin_transaction().expect("begin");
    send(&mut *zombie, &topic, Some(0), "k", "zombie");
    zombie.flush(PATIENCE).expect("flush");
    let mut successor = transactional(cluster, &id);
    let error = zombie.commit_transaction(PATIENCE).expect_err("fenced");
    assert_eq!(error.kind, BrokerErrorKind::Fenced, "{error}");
    assert!(error.to_string().contains(&id), "{error}");
    successor.begin_transaction().expect("begin");
    send(&mut *successor, &topic, Some(0), "k", "successor");
    successor.commit_transaction(PATIENCE).expect("commit");
    assert_eq!(values(cluster, &topic), ["successor"]);
}

/// The client hears of it while it sends: whoever meets it first must be told why.
fn a_zombie_that_goes_on_sending_hears_that_it_is_fenced(cluster: &Cluster) {
    let topic = cluster.topic("zombie-sends", 1);
    let id = unique("id");
    let mut zombie = transactional(cluster, &id);
    zombie.begin_transaction().expect("begin");
    send(&mut *zombie, &topic, Some(0), "k", "zombie");
    zombie.flush(PATIENCE).expect("flush");
    let successor = transactional(cluster, &id);
    let record = ProducerRecord {
        topic: &topic,
        partition: Some(0),
        timestamp: 1,
        key: Some(b"k"),
        value: Some(b"zombie"),
        headers: &[],
    };
    let started = Instant::now();
    let error = loop {
        assert!(started.elapsed() < PATIENCE, "it was never refused");
        match zombie.send(record) {
            Ok(()) | Err(SendError::QueueFull) => std::thread::sleep(Duration::from_millis(1)),
            Err(SendError::Failed(error)) => break error,
        }
    };
    assert_eq!(error.kind, BrokerErrorKind::Fenced, "{error}");
    drop(successor);
}

fn many_transactions_one_after_the_other(cluster: &Cluster) {
    let topic = cluster.topic("many", 1);
    let mut producer = transactional(cluster, &unique("id"));
    let mut took_ms = Vec::new();
    for index in 0..100 {
        let started = Instant::now();
        producer.begin_transaction().expect("begin");
        for _ in 0..10 {
            send(&mut *producer, &topic, Some(0), "k", &index.to_string());
        }
        producer.commit_transaction(PATIENCE).expect("commit");
        took_ms.push(started.elapsed().as_secs_f64() * 1000.0);
    }
    took_ms.sort_by(f64::total_cmp);
    eprintln!("a transaction of 10 records: p50 {:.1} ms, p99 {:.1} ms", took_ms[50], took_ms[99]);
    assert_eq!(values(cluster, &topic).len(), 1000);
}
