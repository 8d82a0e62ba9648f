//! The group member: events, assignment, positions, commits.

use std::time::Duration;

use engine::broker::{BrokerErrorKind, OffsetAndMetadata, RebalanceEvent, StartOffset};
use engine::broker::{ClientSupplier, ProducerRecord};
use engine::record::{Header, TopicPartition};

use crate::cluster::{Cluster, Member, PATIENCE, on_each_broker, send, unique, wait_for};

on_each_broker!(
    two_members_share_the_partitions_and_one_takes_over,
    a_static_member_comes_back_to_its_partitions,
    a_second_host_with_the_same_identity_fences_the_first,
    an_eager_group_works_too,
    committed_offsets_carry_metadata,
    a_commit_outside_the_group_is_refused,
    group_metadata_needs_a_group,
    records_arrive_as_they_were_sent,
    the_position_moves_with_the_poll_and_with_seek,
    a_paused_partition_keeps_its_place,
    an_offset_out_of_range_is_an_error_with_its_place,
    an_unknown_topic_is_an_error_that_names_it,
    a_poll_is_bounded_in_records_and_in_time,
    a_closed_consumer_says_so,
);

fn two_members_share_the_partitions_and_one_takes_over(cluster: &Cluster) {
    let topic = cluster.topic("share", 4);
    let application = unique("group");
    let clients = cluster.clients(&application);
    let mut one = Member::join(&clients, 0, &topic);
    one.poll_until_owned(4);
    assert_eq!(one.events.len(), 1, "{:?}", one.events);

    let mut other = Member::join(&clients, 1, &topic);
    wait_for("two partitions each", || {
        one.poll();
        other.poll();
        (one.owned.len() == 2 && other.owned.len() == 2).then_some(())
    });
    assert!(one.owned.iter().all(|partition| !other.owned.contains(partition)), "no partition has two owners");
    let revoked: usize = one
        .events
        .iter()
        .map(|event| if let RebalanceEvent::Revoked(partitions) = event { partitions.len() } else { 0 })
        .sum();
    assert_eq!(revoked, 2, "a cooperative group revokes only what moves: {:?}", one.events);

    other.consumer.close().expect("leave");
    one.poll_until_owned(4);
}

fn a_static_member_comes_back_to_its_partitions(cluster: &Cluster) {
    let topic = cluster.topic("static", 2);
    let application = unique("group");
    let mut config = cluster.config(&application);
    config.group_instance_id = Some("host-1".into());
    let clients = kafka::KafkaClients::new(config).expect("clients");
    let mut member = Member::join(&clients, 0, &topic);
    member.poll_until_owned(2);
    let before = member.consumer.group_metadata().expect("metadata");
    assert_eq!(before.group_instance_id.as_deref(), Some("host-1-0"));
    drop(member);
    let mut member = Member::join(&clients, 0, &topic);
    member.poll_until_owned(2);
    let after = member.consumer.group_metadata().expect("metadata");
    assert_eq!(after.generation_id, before.generation_id, "a static member's restart is no rebalance");
}

fn a_second_host_with_the_same_identity_fences_the_first(cluster: &Cluster) {
    let topic = cluster.topic("fenced", 1);
    let mut config = cluster.config(&unique("group"));
    config.group_instance_id = Some("host-1".into());
    let clients = kafka::KafkaClients::new(config).expect("clients");
    let mut first = Member::join(&clients, 0, &topic);
    first.poll_until_owned(1);
    let mut second = Member::join(&clients, 0, &topic);
    let error = wait_for("the first to be fenced", || {
        second.poll();
        // The partitions of a fenced member are lost; what matters is the error.
        first.consumer.poll(Duration::from_millis(50), 10).err()
    });
    assert_eq!(error.kind, BrokerErrorKind::Fenced, "{error}");
    second.poll_until_owned(1);
}

fn an_eager_group_works_too(cluster: &Cluster) {
    let topic = cluster.topic("eager", 4);
    let mut config = cluster.config(&unique("group"));
    config.properties.insert("consumer.partition.assignment.strategy".into(), "range".into());
    let clients = kafka::KafkaClients::new(config).expect("clients");
    let mut one = Member::join(&clients, 0, &topic);
    one.poll_until_owned(4);
    let mut other = Member::join(&clients, 1, &topic);
    wait_for("two partitions each", || {
        one.poll();
        other.poll();
        (one.owned.len() == 2 && other.owned.len() == 2).then_some(())
    });
    for partition in 0..4 {
        cluster.fill(&topic, partition, 0, 10);
    }
    wait_for("all records", || {
        one.poll();
        other.poll();
        (one.values.len() == 20 && other.values.len() == 20).then_some(())
    });
}

fn committed_offsets_carry_metadata(cluster: &Cluster) {
    let topic = cluster.topic("commit", 2);
    let clients = cluster.clients(&unique("group"));
    let mut member = Member::join(&clients, 0, &topic);
    member.poll_until_owned(2);
    let partitions = [TopicPartition::new(topic.clone(), 1), TopicPartition::new(topic.clone(), 0)];
    assert_eq!(member.consumer.committed(&partitions).expect("committed"), [None, None]);

    cluster.fill(&topic, 1, 0, 7);
    let offset = OffsetAndMetadata { offset: 7, metadata: "AgAAAZoX".into() };
    member.consumer.commit(&[(partitions[0].clone(), offset.clone())]).expect("commit");
    assert_eq!(member.consumer.committed(&partitions).expect("committed"), [Some(offset), None], "in the order asked");

    let none = OffsetAndMetadata { offset: 3, metadata: String::new() };
    member.consumer.commit(&[(partitions[0].clone(), none.clone())]).expect("commit");
    assert_eq!(member.consumer.committed(&partitions[..1]).expect("committed"), [Some(none)]);
    member.consumer.commit(&[]).expect("nothing to commit is no error");
}

fn a_commit_outside_the_group_is_refused(cluster: &Cluster) {
    let topic = cluster.topic("stale", 1);
    let clients = cluster.clients(&unique("group"));
    let mut member = Member::join(&clients, 0, &topic);
    member.poll_until_owned(1);
    // A second member that never joins commits to a group that has a live generation.
    let mut outsider = clients.consumer(1).expect("consumer");
    let offset = OffsetAndMetadata { offset: 1, metadata: String::new() };
    let error = outsider
        .commit(&[(TopicPartition::new(topic.clone(), 0), offset)])
        .expect_err("a commit of somebody who is no member");
    assert_eq!(error.kind, BrokerErrorKind::Rebalanced, "{error}");
    assert!(error.to_string().contains(&*topic), "{error}");
}

fn group_metadata_needs_a_group(cluster: &Cluster) {
    let topic = cluster.topic("metadata", 1);
    let application = unique("group");
    let clients = cluster.clients(&application);
    let mut consumer = clients.consumer(0).expect("consumer");
    let error = consumer.group_metadata().expect_err("not joined");
    assert_eq!(error.kind, BrokerErrorKind::Rebalanced, "{error}");
    drop(consumer);
    let mut member = Member::join(&clients, 0, &topic);
    member.poll_until_owned(1);
    let metadata = member.consumer.group_metadata().expect("metadata");
    assert_eq!(metadata.group_id, application);
    assert!(metadata.generation_id >= 0 && !metadata.member_id.is_empty(), "{metadata:?}");
}

fn records_arrive_as_they_were_sent(cluster: &Cluster) {
    let topic = cluster.topic("shape", 1);
    let clients = cluster.clients(&unique("group"));
    let mut producer = clients.producer(0, None).expect("producer");
    let headers = [
        Header { key: "origin".into(), value: Some("a".into()) },
        Header { key: "origin".into(), value: None },
        Header { key: "empty".into(), value: Some("".into()) },
    ];
    type Sent<'a> = (i64, Option<&'a [u8]>, Option<&'a [u8]>, &'a [Header]);
    let sent: [Sent<'_>; 5] = [
        (1_700_000_000_000, Some(b"k"), Some(b"v"), &headers),
        (1, None, Some(b"no key"), &[]),
        (2, Some(b"tombstone"), None, &[]),
        (3, Some(b""), Some(b""), &[]),
        (0, Some(b"\xff\x00"), Some(b"\x00"), &headers[..1]),
    ];
    for (timestamp, key, value, headers) in sent {
        producer
            .send(ProducerRecord { topic: &topic, partition: Some(0), timestamp, key, value, headers })
            .expect("send");
    }
    producer.flush(PATIENCE).expect("flush");

    let mut member = Member::join(&clients, 0, &topic);
    let mut records = Vec::new();
    wait_for("five records", || {
        let polled = member.consumer.poll(Duration::from_millis(50), 100).expect("poll");
        for event in polled.events {
            let RebalanceEvent::Assigned(partitions) = event else { panic!("{event:?}") };
            let starts: Vec<_> = partitions.into_iter().map(|p| (p, StartOffset::At(0))).collect();
            member.consumer.assign(&starts).expect("assign");
        }
        for group in polled.records {
            assert_eq!(group.partition, TopicPartition::new(topic.clone(), 0));
            records.extend(group.records);
        }
        (records.len() >= 5).then_some(())
    });
    for (index, (record, (timestamp, key, value, headers))) in records.iter().zip(sent).enumerate() {
        assert_eq!(record.offset, index as i64);
        // librdkafka cannot send timestamp 0; the adapter sends the next millisecond.
        assert_eq!(record.timestamp, timestamp.max(1));
        assert_eq!(record.key.as_deref(), key);
        assert_eq!(record.value.as_deref(), value);
        assert_eq!(record.headers, headers);
    }
}

fn the_position_moves_with_the_poll_and_with_seek(cluster: &Cluster) {
    let topic = cluster.topic("position", 1);
    let clients = cluster.clients(&unique("group"));
    let partition = TopicPartition::new(topic.clone(), 0);
    cluster.fill(&topic, 0, 0, 10);
    let mut member = Member::join(&clients, 0, &topic);
    member.poll_until_owned(1);
    member.poll_until_read(10);
    assert_eq!(member.consumer.position(&partition).expect("position"), Some(10));

    member.values.clear();
    member.consumer.seek(&partition, 4).expect("seek");
    member.poll_until_read(6);
    assert_eq!(member.values, ["value-4", "value-5", "value-6", "value-7", "value-8", "value-9"]);
    assert_eq!(member.consumer.position(&partition).expect("position"), Some(10));

    member.values.clear();
    member.consumer.seek(&partition, 2).expect("seek");
    let polled = wait_for("one record", || {
        let polled = member.consumer.poll(Duration::from_millis(50), 1).expect("poll");
        polled.records.into_iter().next()
    });
    assert_eq!(polled.records[0].offset, 2);
    assert_eq!(member.consumer.position(&partition).expect("position"), Some(3), "after a seek back");
}

fn a_paused_partition_keeps_its_place(cluster: &Cluster) {
    let topic = cluster.topic("pause", 2);
    let clients = cluster.clients(&unique("group"));
    let paused = TopicPartition::new(topic.clone(), 0);
    let mut member = Member::join(&clients, 0, &topic);
    member.poll_until_owned(2);
    member.consumer.pause(std::slice::from_ref(&paused)).expect("pause");
    member.consumer.pause(std::slice::from_ref(&paused)).expect("pause again");
    cluster.fill(&topic, 0, 0, 5);
    cluster.fill(&topic, 1, 100, 5);
    member.poll_until_read(5);
    for _ in 0..10 {
        member.poll();
    }
    assert_eq!(member.values.len(), 5, "{:?}", member.values);
    assert!(member.values.iter().all(|value| value.starts_with("value-10")), "{:?}", member.values);
    member.consumer.resume(&[paused]).expect("resume");
    member.poll_until_read(10);
    assert_eq!(&member.values[5..], ["value-0", "value-1", "value-2", "value-3", "value-4"]);
}

fn an_offset_out_of_range_is_an_error_with_its_place(cluster: &Cluster) {
    let topic = cluster.topic("range", 1);
    cluster.fill(&topic, 0, 0, 3);
    let clients = cluster.clients(&unique("group"));
    let mut member = Member::join(&clients, 0, &topic);
    member.start = StartOffset::At(99);
    let error = wait_for("an error", || match member.consumer.poll(Duration::from_millis(50), 100) {
        Ok(polled) => {
            assert!(polled.records.is_empty(), "no silent reset: {:?}", polled.records);
            for event in polled.events {
                if let RebalanceEvent::Assigned(partitions) = event {
                    let starts: Vec<_> = partitions.into_iter().map(|p| (p, StartOffset::At(99))).collect();
                    member.consumer.assign(&starts).expect("assign");
                }
            }
            None
        }
        Err(error) => Some(error),
    });
    assert_eq!(error.kind, BrokerErrorKind::OffsetOutOfRange, "{error}");
    let text = error.to_string();
    assert!(text.contains(&format!("{topic}-0")) && text.contains("99"), "{text}");
}

fn an_unknown_topic_is_an_error_that_names_it(cluster: &Cluster) {
    let topic: std::sync::Arc<str> = unique("missing").into();
    let clients = cluster.clients(&unique("group"));
    let mut consumer = clients.consumer(0).expect("consumer");
    consumer.subscribe(std::slice::from_ref(&topic)).expect("subscribe");
    let error = wait_for("an error", || consumer.poll(Duration::from_millis(50), 100).err());
    assert_eq!(error.kind, BrokerErrorKind::UnknownTopic, "{error}");
    assert!(error.to_string().contains(&*topic), "{error}");
}

fn a_poll_is_bounded_in_records_and_in_time(cluster: &Cluster) {
    let topic = cluster.topic("bounds", 1);
    cluster.fill(&topic, 0, 0, 500);
    let clients = cluster.clients(&unique("group"));
    let mut member = Member::join(&clients, 0, &topic);
    member.poll_until_owned(1);
    let mut seen = 0;
    wait_for("all records", || {
        let polled = member.consumer.poll(Duration::from_millis(50), 7).expect("poll");
        let count: usize = polled.records.iter().map(|group| group.records.len()).sum();
        assert!(count <= 7, "{count} records");
        seen += count;
        // `poll_until_owned` may have read some already.
        (seen + member.values.len() >= 500).then_some(())
    });
    let started = std::time::Instant::now();
    let polled = member.consumer.poll(Duration::from_millis(200), 100).expect("poll");
    assert!(polled.records.is_empty());
    assert!(started.elapsed() >= Duration::from_millis(190), "waited {:?}", started.elapsed());
    let mut producer = clients.producer(0, None).expect("producer");
    send(&mut *producer, &topic, Some(0), "late", "late");
    producer.flush(PATIENCE).expect("flush");
    let started = std::time::Instant::now();
    let polled = member.consumer.poll(Duration::from_secs(30), 100).expect("poll");
    assert_eq!(polled.records.len(), 1);
    assert!(started.elapsed() < Duration::from_secs(10), "a record ends the wait: {:?}", started.elapsed());
}

fn a_closed_consumer_says_so(cluster: &Cluster) {
    let topic = cluster.topic("closed", 1);
    let clients = cluster.clients(&unique("group"));
    // Closed with an assignment that was never answered: the group must still be left.
    let mut consumer = clients.consumer(0).expect("consumer");
    consumer.subscribe(std::slice::from_ref(&topic)).expect("subscribe");
    wait_for("an assignment", || {
        let polled = consumer.poll(Duration::from_millis(50), 10).expect("poll");
        (!polled.events.is_empty()).then_some(())
    });
    consumer.close().expect("close");
    consumer.close().expect("close again");
    let error = consumer.poll(Duration::ZERO, 1).expect_err("closed");
    assert_eq!(error.kind, BrokerErrorKind::Fatal, "{error}");
    let mut member = Member::join(&clients, 1, &topic);
    let started = std::time::Instant::now();
    member.poll_until_owned(1);
    assert!(started.elapsed() < Duration::from_secs(5), "the group was not left: {:?}", started.elapsed());
}
