//! The producer: acknowledgements, backpressure, refusals, partitions.

use std::sync::Arc;
use std::time::Duration;

use engine::broker::{BrokerErrorKind, ClientSupplier, ProducerRecord, SendError};
use engine::record::TopicPartition;
use kafka::KafkaClients;

use crate::cluster::{Cluster, PATIENCE, on_each_broker, send, unique};

on_each_broker!(
    acknowledged_offsets_are_the_highest_of_each_partition,
    a_full_queue_is_told_apart_from_a_failure,
    a_record_above_the_producers_limit_is_refused,
    a_record_may_be_as_large_as_its_topic_takes,
    no_batch_is_larger_than_the_least_of_the_topics_takes,
    a_record_above_the_topics_limit_fails_its_delivery,
    a_null_key_in_a_compacted_topic_fails_its_delivery,
    an_unknown_topic_fails_its_delivery,
    what_cannot_be_sent_is_refused_before_it_is_queued,
    keys_meet_where_java_puts_them,
);

fn record<'a>(topic: &'a Arc<str>, key: Option<&'a [u8]>, value: Option<&'a [u8]>) -> ProducerRecord<'a> {
    ProducerRecord { topic, partition: Some(0), timestamp: 1, key, value, headers: &[] }
}

fn acknowledged_offsets_are_the_highest_of_each_partition(cluster: &Cluster) {
    let (one, other) = (cluster.topic("acks", 2), cluster.topic("acks", 1));
    let mut producer = cluster.clients("acks").producer(0, None).expect("producer");
    for i in 0..30 {
        send(&mut *producer, &one, Some(i % 2), "k", "v");
    }
    send(&mut *producer, &other, Some(0), "k", "v");
    assert!(producer.in_flight() > 0);
    producer.flush(PATIENCE).expect("flush");
    assert_eq!(producer.in_flight(), 0);
    let acknowledged = producer.take_acknowledged();
    let expected = [
        (TopicPartition::new(one.clone(), 0), 14),
        (TopicPartition::new(one.clone(), 1), 14),
        (TopicPartition::new(other, 0), 0),
    ];
    assert_eq!(acknowledged, expected.into_iter().collect());
    assert!(producer.take_acknowledged().is_empty(), "the account is cleared");
    send(&mut *producer, &one, Some(1), "k", "v");
    producer.flush(PATIENCE).expect("flush");
    assert_eq!(producer.take_acknowledged().into_iter().collect::<Vec<_>>(), [(TopicPartition::new(one, 1), 15)]);
}

fn a_full_queue_is_told_apart_from_a_failure(cluster: &Cluster) {
    let topic = cluster.topic("full", 1);
    let mut config = cluster.config("full");
    config.properties.insert("producer.queue.buffering.max.messages".into(), "10".into());
    config.properties.insert("producer.linger.ms".into(), "200".into());
    let mut producer = KafkaClients::new(config).expect("clients").producer(0, None).expect("producer");
    let mut full = 0;
    for _ in 0..100 {
        loop {
            match producer.send(record(&topic, None, Some(b"v"))) {
                Ok(()) => break,
                Err(SendError::QueueFull) => {
                    full += 1;
                    producer.poll(Duration::from_millis(50)).expect("poll");
                }
                Err(SendError::Failed(error)) => panic!("{error}"),
            }
        }
    }
    producer.flush(PATIENCE).expect("flush");
    assert!(full > 0, "the queue was never full");
    assert_eq!(producer.take_acknowledged().values().copied().collect::<Vec<_>>(), [99], "all 100 records are there");
}

fn a_record_above_the_producers_limit_is_refused(cluster: &Cluster) {
    let topic = cluster.topic("large", 1);
    let mut config = cluster.config("large");
    config.properties.insert("producer.message.max.bytes".into(), "1000000".into());
    let mut producer = KafkaClients::new(config).expect("clients").producer(0, None).expect("producer");
    let value = vec![0; 2_000_000];
    let Err(SendError::Failed(error)) = producer.send(record(&topic, None, Some(&value))) else {
        panic!("a record of 2 MB was taken")
    };
    assert_eq!(error.kind, BrokerErrorKind::Rejected, "{error}");
    let text = error.to_string();
    assert!(text.contains(&*topic) && text.contains("2000000") && text.contains("message.max.bytes"), "{text}");
    send(&mut *producer, &topic, Some(0), "k", "v");
    producer.flush(PATIENCE).expect("the next record is not affected");
}

fn a_record_may_be_as_large_as_its_topic_takes(cluster: &Cluster) {
    let topic = cluster.topic_with("larger", 1, &[("max.message.bytes", "3000000")]);
    let mut producer = cluster.clients("larger").producer(0, None).expect("producer");
    producer.send(record(&topic, None, Some(&vec![7; 2_000_000]))).expect("queued");
    producer.flush(PATIENCE).expect("the topic takes it");
}

fn no_batch_is_larger_than_the_least_of_the_topics_takes(cluster: &Cluster) {
    let topic = cluster.topic_with("small", 1, &[("max.message.bytes", "1000")]);
    let send_all = |bound: Option<usize>| {
        let clients = cluster.clients("small");
        bound.into_iter().for_each(|bytes| clients.bound_batches(bytes));
        let mut producer = clients.producer(0, None).expect("producer");
        (0..100).for_each(|_| producer.send(record(&topic, None, Some(&[7; 100]))).expect("queued"));
        producer.flush(PATIENCE).map(|()| producer.take_acknowledged().into_values().max())
    };
    // Each of these records fits by itself, and their batch does not.
    assert_eq!(send_all(None).expect_err("the batch is refused").kind, BrokerErrorKind::Rejected);
    assert!(send_all(Some(1_000)).expect("each batch fits").is_some());
}

fn a_record_above_the_topics_limit_fails_its_delivery(cluster: &Cluster) {
    let topic = cluster.topic_with("large", 1, &[("max.message.bytes", "1000")]);
    let mut producer = cluster.clients("large").producer(0, None).expect("producer");
    producer.send(record(&topic, None, Some(&[0; 5_000]))).expect("queued");
    let error = producer.flush(PATIENCE).expect_err("the broker refuses it");
    assert_eq!(error.kind, BrokerErrorKind::Rejected, "{error}");
    assert!(error.to_string().contains(&format!("{topic}-0")), "{error}");
    // The whole text: librdkafka's own one for the broker's message is freed memory.
    assert!(error.detail.contains("Message size too large") && error.detail.is_ascii(), "{error:?}");
    assert!(producer.take_acknowledged().is_empty());
}

fn a_null_key_in_a_compacted_topic_fails_its_delivery(cluster: &Cluster) {
    let topic = cluster.topic_with("compacted", 1, &[("cleanup.policy", "compact")]);
    let mut producer = cluster.clients("compacted").producer(0, None).expect("producer");
    producer.send(record(&topic, None, Some(b"v"))).expect("queued");
    let error = producer.flush(PATIENCE).expect_err("the broker refuses it");
    assert_eq!(error.kind, BrokerErrorKind::Rejected, "{error}");
    assert!(error.detail.contains("Broker failed to validate record"), "{error:?}");
}

fn an_unknown_topic_fails_its_delivery(cluster: &Cluster) {
    // A partition that does not exist: a topic that does not exist may be created by the broker.
    let topic = cluster.topic("partitions", 1);
    let mut producer = cluster.clients("unknown").producer(0, None).expect("producer");
    let sent = producer.send(ProducerRecord { partition: Some(7), ..record(&topic, None, Some(b"v")) });
    let error = match sent {
        Err(SendError::Failed(error)) => error,
        Err(SendError::QueueFull) => panic!("queue full"),
        Ok(()) => producer.flush(PATIENCE).expect_err("there is no partition 7"),
    };
    assert_eq!(error.kind, BrokerErrorKind::UnknownTopic, "{error}");
    assert!(error.to_string().contains(&format!("{topic}-7")), "{error}");
}

fn what_cannot_be_sent_is_refused_before_it_is_queued(cluster: &Cluster) {
    let topic = cluster.topic("refused", 1);
    let mut producer = cluster.clients("refused").producer(0, None).expect("producer");
    let nul: Arc<str> = "a\0b".into();
    let cases = [
        (ProducerRecord { timestamp: -1, ..record(&topic, None, None) }, "timestamp -1"),
        (ProducerRecord { partition: Some(-3), ..record(&topic, None, None) }, "below 0"),
        (record(&nul, None, None), "NUL"),
    ];
    for (record, expected) in cases {
        match producer.send(record) {
            Err(SendError::Failed(error)) => {
                assert_eq!(error.kind, BrokerErrorKind::Rejected, "{error}");
                assert!(error.to_string().contains(expected), "{error}");
            }
            other => panic!("{expected}: {other:?}"),
        }
    }
    assert_eq!(producer.in_flight(), 0);
}

/// Keys with their murmur2 hashes, from the test of Kafka's `org.apache.kafka.common.utils.Utils`.
const JAVA_HASHES: [(&[u8], i32); 6] = [
    (b"21", -973_932_308),
    (b"foobar", -790_332_482),
    (b"a-little-bit-long-string", -985_981_536),
    (b"a-little-bit-longer-string", -1_486_304_829),
    (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
    (b"abc", 479_470_107),
];

fn keys_meet_where_java_puts_them(cluster: &Cluster) {
    let partitions = 7;
    let topic = cluster.topic("murmur2", partitions);
    let mut producer = cluster.clients(&unique("murmur2")).producer(0, None).expect("producer");
    for (key, hash) in JAVA_HASHES {
        producer.send(ProducerRecord { partition: None, ..record(&topic, Some(key), None) }).expect("send");
        producer.flush(PATIENCE).expect("flush");
        let acknowledged: Vec<_> = producer.take_acknowledged().into_keys().collect();
        let expected = (hash & i32::MAX) % partitions;
        assert_eq!(acknowledged, [TopicPartition::new(topic.clone(), expected)], "{:?}", String::from_utf8_lossy(key));
        assert_eq!(engine::partitioner::partition_for_key(key, partitions), expected, "the engine agrees");
    }
}
