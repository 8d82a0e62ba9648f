//! Records over the wire: fetches that wait, the order of answers, a full disk, no answer for `acks=0`.

use std::time::{Duration, Instant};

use kafka_protocol::ResponseError;
use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::fetch_response::PartitionData;
use kafka_protocol::messages::{CreateTopicsRequest, FetchRequest, MetadataRequest, metadata_request};

use super::client::{Broker, Client, batch, produce_request, text, topic};
use crate::core::CoreOptions;
use crate::core::cleaner::CleanerOptions;
use crate::wire::WireOptions;

fn fetch_request(name: &str, offset: i64, wait_ms: i32, min_bytes: i32) -> FetchRequest {
    let partition = FetchPartition::default().with_fetch_offset(offset).with_partition_max_bytes(1_000_000);
    let one = FetchTopic::default().with_topic(topic(name)).with_partitions(vec![partition]);
    FetchRequest::default()
        .with_max_wait_ms(wait_ms)
        .with_min_bytes(min_bytes)
        .with_max_bytes(1_000_000)
        .with_topics(vec![one])
}

fn fetch(client: &mut Client, name: &str, offset: i64, wait_ms: i32, min_bytes: i32) -> PartitionData {
    client.call(&fetch_request(name, offset, wait_ms, min_bytes), 11).responses.remove(0).partitions.remove(0)
}

#[test]
fn a_waiting_fetch_is_woken_by_the_append() {
    let broker = Broker::start();
    let (mut producer, mut consumer) = (broker.client(), broker.client());
    producer.create_topic("t", 1);
    for round in 0..20i64 {
        consumer.write(&fetch_request("t", round, 60_000, 1), 11);
        std::thread::sleep(Duration::from_millis(2));
        assert_eq!(producer.produce("t", b"v"), round);
        let response = consumer.read::<FetchRequest>(11);
        let found = &response.responses[0].partitions[0];
        assert_eq!((found.error_code, found.high_watermark), (0, round + 1));
        assert!(!found.records.as_ref().unwrap().is_empty());
    }
}

#[test]
fn a_fetch_waits_for_as_much_as_it_asked_or_for_its_time() {
    let broker = Broker::start();
    let (mut producer, mut consumer) = (broker.client(), broker.client());
    producer.create_topic("t", 1);
    let began = Instant::now();
    assert_eq!(fetch(&mut consumer, "t", 0, 120, 1).records.unwrap().len(), 0);
    assert!(began.elapsed() >= Duration::from_millis(120));
    let one = batch(b"v").len() as i32;
    consumer.write(&fetch_request("t", 0, 60_000, 2 * one), 11);
    producer.produce("t", b"v");
    std::thread::sleep(Duration::from_millis(20));
    producer.produce("t", b"v");
    let response = consumer.read::<FetchRequest>(11);
    assert_eq!(response.responses[0].partitions[0].records.as_ref().unwrap().len() as i32, 2 * one);
    // Errors are answered at once.
    assert_eq!(fetch(&mut consumer, "no such topic", 0, 60_000, 1).error_code, 3);
    assert_eq!(fetch(&mut consumer, "t", 3, 60_000, 1).error_code, 1);
}

#[test]
fn a_consumer_that_is_gone_frees_its_thread() {
    let broker = Broker::with(CoreOptions::default(), WireOptions { connections_max: 2, ..WireOptions::default() });
    let mut first = broker.client();
    first.create_topic("t", 1);
    let mut second = broker.client();
    second.write(&fetch_request("t", 0, 300_000, 1), 11);
    assert!(broker.client().is_closed(), "a third connection is refused");
    drop(second);
    let deadline = Instant::now() + Duration::from_secs(10);
    while Instant::now() < deadline {
        let mut third = broker.client();
        third.write(&MetadataRequest::default(), 4);
        if third.read_frame().is_ok() {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("the thread of the client that is gone still waits");
}

#[test]
fn answers_come_in_order_and_acks_0_has_none() {
    let broker = Broker::start();
    let mut client = broker.client();
    client.create_topic("t", 1);
    client.write(&produce_request("t", 0, batch(b"a")).with_acks(0), 8);
    client.write(&produce_request("t", 0, batch(b"b")).with_acks(0), 8);
    assert_eq!(client.produce("t", b"c"), 2);
    let response = client.call(&produce_request("t", 0, batch(b"d")).with_acks(2), 8);
    let code = response.responses[0].partition_responses[0].error_code;
    assert_eq!(code, ResponseError::InvalidRequiredAcks.code());
}

#[test]
fn a_full_disk_is_told_and_nothing_acknowledged_is_lost() {
    let broker = Broker::start();
    let mut client = broker.client();
    client.create_topic("t", 1);
    client.produce("t", b"kept");
    broker.storage.fill_disk(true);
    let refused = client.produce_batch("t", 0, batch(b"lost"));
    assert_eq!((refused.error_code, refused.base_offset), (ResponseError::KafkaStorageError.code(), -1));
    assert!(refused.error_message.unwrap().contains("no space left"));
    broker.storage.fill_disk(false);
    assert_eq!(client.produce("t", b"after"), 1);
    let records = fetch(&mut client, "t", 0, 0, 1).records.unwrap();
    assert!(records.windows(4).any(|window| window == b"kept") && records.windows(5).any(|window| window == b"after"));
    assert!(!records.windows(4).any(|window| window == b"lost"));
}

#[test]
fn topics_come_by_themselves_only_where_that_is_wanted() {
    let asked = |name| {
        let one = metadata_request::MetadataRequestTopic::default().with_name(Some(topic(name)));
        MetadataRequest::default().with_topics(Some(vec![one]))
    };
    let off = Broker::start();
    assert_eq!(off.client().call(&asked("t").with_allow_auto_topic_creation(true), 4).topics[0].error_code, 3);
    let core = CoreOptions { default_partitions: 4, ..CoreOptions::default() };
    let on = Broker::with(core, WireOptions { auto_create_topics: true, ..WireOptions::default() });
    assert_eq!(on.client().call(&asked("t").with_allow_auto_topic_creation(false), 4).topics[0].error_code, 3);
    let made = on.client().call(&asked("t").with_allow_auto_topic_creation(true), 4);
    assert_eq!((made.topics[0].error_code, made.topics[0].partitions.len()), (0, 4));
    let bad = on.client().call(&asked("a/b").with_allow_auto_topic_creation(true), 4);
    assert_eq!(bad.topics[0].error_code, ResponseError::InvalidTopicException.code());
}

#[test]
fn old_records_go_while_the_broker_serves() {
    let cleaner = CleanerOptions { interval_ms: 10, ..CleanerOptions::default() };
    let broker = Broker::with(CoreOptions { cleaner, ..CoreOptions::default() }, WireOptions::default());
    let mut client = broker.client();
    let config = CreatableTopicConfig::default().with_name(text("retention.ms")).with_value(Some(text("1000")));
    let one = CreatableTopic::default()
        .with_name(topic("t"))
        .with_num_partitions(1)
        .with_replication_factor(1)
        .with_configs(vec![config]);
    let response = client.call(&CreateTopicsRequest::default().with_topics(vec![one]), 5);
    assert_eq!(response.topics[0].error_code, 0);
    // The record is of 1970.
    client.produce("t", b"old");
    let deadline = Instant::now() + Duration::from_secs(20);
    while fetch(&mut client, "t", 0, 0, 0).error_code != ResponseError::OffsetOutOfRange.code() {
        assert!(Instant::now() < deadline, "nothing was removed");
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(client.produce("t", b"next"), 1);
}
