//! The restore consumer: reads to the log end, outside any group.

use std::sync::Arc;
use std::time::Duration;

use engine::broker::{BrokerErrorKind, ClientSupplier, RestoreConsumer, Watermarks};
use engine::record::TopicPartition;

use crate::cluster::{Cluster, PATIENCE, on_each_broker, send, unique, wait_for};

on_each_broker!(
    a_changelog_is_read_to_its_end,
    reading_begins_where_it_is_told,
    partitions_come_and_go,
    an_offset_beyond_the_log_is_an_error,
    a_hanging_transaction_is_waited_for_and_nothing_above_it_is_missed,
);

fn read_to(reader: &mut dyn RestoreConsumer, partition: &TopicPartition, end: i64) -> Vec<i64> {
    let mut offsets = Vec::new();
    wait_for("the end", || {
        for group in reader.poll(Duration::from_millis(50), 1000).expect("poll") {
            assert_eq!(&group.partition, partition);
            offsets.extend(group.records.iter().map(|record| record.offset));
        }
        (reader.position(partition).expect("position") >= Some(end)).then_some(())
    });
    offsets
}

fn a_changelog_is_read_to_its_end(cluster: &Cluster) {
    let topic = cluster.topic("changelog", 2);
    cluster.fill(&topic, 1, 0, 2500);
    let clients = cluster.clients(&unique("app"));
    let mut reader = clients.restore_consumer(0).expect("reader");
    let [empty, full] = [0, 1].map(|partition| TopicPartition::new(Arc::clone(&topic), partition));
    let marks = reader.watermarks(&[full.clone(), empty.clone()]).expect("watermarks");
    assert_eq!(marks, [Watermarks { low: 0, high: 2500 }, Watermarks { low: 0, high: 0 }]);
    assert_eq!(reader.position(&full).expect("position"), None, "not assigned yet");
    reader.assign(&full, 0).expect("assign");
    assert_eq!(read_to(&mut *reader, &full, 2500), (0..2500).collect::<Vec<i64>>());
    reader.assign(&empty, 0).expect("assign");
    assert_eq!(reader.position(&empty).expect("position"), Some(0), "an empty partition is at its end at once");
}

fn reading_begins_where_it_is_told(cluster: &Cluster) {
    let topic = cluster.topic("changelog", 1);
    cluster.fill(&topic, 0, 0, 20);
    let clients = cluster.clients(&unique("app"));
    let mut reader = clients.restore_consumer(0).expect("reader");
    let partition = TopicPartition::new(topic, 0);
    let started = std::time::Instant::now();
    reader.assign(&partition, 15).expect("assign");
    assert_eq!(read_to(&mut *reader, &partition, 20), [15, 16, 17, 18, 19]);
    assert!(started.elapsed() < Duration::from_secs(5), "a restore begins at once: {:?}", started.elapsed());
    reader.assign(&partition, 3).expect("assign again moves it");
    let mut offsets = Vec::new();
    wait_for("17 records", || {
        for group in reader.poll(Duration::from_millis(50), 1000).expect("poll") {
            offsets.extend(group.records.iter().map(|record| record.offset));
        }
        (offsets.len() >= 17).then_some(())
    });
    assert_eq!(offsets, (3..20).collect::<Vec<i64>>());
}

fn partitions_come_and_go(cluster: &Cluster) {
    let topic = cluster.topic("changelog", 3);
    let clients = cluster.clients(&unique("app"));
    let mut reader = clients.restore_consumer(0).expect("reader");
    let partitions = [0, 1, 2].map(|partition| TopicPartition::new(Arc::clone(&topic), partition));
    for partition in &partitions {
        cluster.fill(&topic, partition.partition, 0, 10);
        reader.assign(partition, 0).expect("assign");
        read_to(&mut *reader, partition, 10);
    }
    reader.unassign(&partitions[1]).expect("unassign");
    reader.unassign(&partitions[1]).expect("unassign again");
    for partition in &partitions {
        cluster.fill(&topic, partition.partition, 10, 10);
    }
    let mut seen = [0; 3];
    wait_for("both", || {
        for group in reader.poll(Duration::from_millis(50), 1000).expect("poll") {
            seen[usize::try_from(group.partition.partition).expect("small")] += group.records.len();
        }
        (seen[0] == 10 && seen[2] == 10).then_some(())
    });
    assert_eq!(seen, [10, 0, 10]);
}

fn an_offset_beyond_the_log_is_an_error(cluster: &Cluster) {
    let topic = cluster.topic("changelog", 1);
    let clients = cluster.clients(&unique("app"));
    let mut producer = clients.producer(0, None).expect("producer");
    send(&mut *producer, &topic, Some(0), "k", "v");
    producer.flush(PATIENCE).expect("flush");
    let mut reader = clients.restore_consumer(0).expect("reader");
    let partition = TopicPartition::new(Arc::clone(&topic), 0);
    reader.assign(&partition, 50).expect("assign");
    let error = wait_for("an error", || reader.poll(Duration::from_millis(50), 1000).err());
    assert_eq!(error.kind, BrokerErrorKind::OffsetOutOfRange, "{error}");
    assert!(error.to_string().contains(&format!("{topic}-0")), "{error}");
}

/// C3: the log end counts what is committed above the transaction that hangs, and the reader does not pass it before it
/// has ended; then everything is there.
fn a_hanging_transaction_is_waited_for_and_nothing_above_it_is_missed(cluster: &Cluster) {
    for aborted in [true, false] {
        let topic = cluster.topic_with("changelog", 1, &[("cleanup.policy", "compact")]);
        let clients = cluster.clients(&unique("app"));
        let transactional = |id: &str| {
            let mut producer = clients.producer(0, Some(&unique(id))).expect("producer");
            producer.init_transactions(PATIENCE).expect("init");
            producer.begin_transaction().expect("begin");
            producer
        };
        let mut hanging = transactional("hanging");
        send(&mut *hanging, &topic, Some(0), "h", "hanging");
        hanging.flush(PATIENCE).expect("flush");
        let mut committed = transactional("committed");
        for key in ["a", "b", "c"] {
            send(&mut *committed, &topic, Some(0), key, "committed");
        }
        committed.flush(PATIENCE).expect("flush");
        committed.commit_transaction(PATIENCE).expect("commit");

        let partition = TopicPartition::new(Arc::clone(&topic), 0);
        let mut reader = clients.restore_consumer(0).expect("reader");
        let target = reader.watermarks(std::slice::from_ref(&partition)).expect("watermarks")[0].high;
        assert!([4, 5].contains(&target), "four records, and the marker once the coordinator has written it: {target}");
        let stable_ends = |reader: &mut dyn RestoreConsumer| reader.stable_ends(std::slice::from_ref(&partition));
        assert_eq!(stable_ends(&mut *reader).expect("the end below the open transaction"), [0]);
        reader.assign(&partition, 0).expect("assign");
        let waited = std::time::Instant::now();
        while waited.elapsed() < Duration::from_secs(2) {
            let polled = reader.poll(Duration::from_millis(50), 1000).expect("poll");
            assert!(polled.is_empty(), "read above a transaction that is open: {polled:?}");
            assert_eq!(reader.position(&partition).expect("position"), Some(0), "not complete, and not declared so");
        }
        if aborted {
            hanging.abort_transaction(PATIENCE).expect("abort");
        } else {
            hanging.commit_transaction(PATIENCE).expect("commit");
        }
        let expected: &[i64] = if aborted { &[1, 2, 3] } else { &[0, 1, 2, 3] };
        assert_eq!(read_to(&mut *reader, &partition, target), expected);
        assert!(stable_ends(&mut *reader).expect("the end")[0] >= target);
    }
}
