//! Topics and settings that a client may not have, and the last values that it may.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::create_topics_request::{
    CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig,
};
use kafka_protocol::messages::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
use kafka_protocol::messages::{CreateTopicsRequest, IncrementalAlterConfigsRequest};

use super::client::{Broker, Client, batch, text, topic};
use crate::core::topic_config::{ConfigKind, DEFINITIONS};

fn one(name: &str, partitions: i32, replication_factor: i16) -> CreatableTopic {
    CreatableTopic::default()
        .with_name(topic(name))
        .with_num_partitions(partitions)
        .with_replication_factor(replication_factor)
}

/// The code of a creation, and a check that a refused one has a message and left nothing.
fn create(client: &mut Client, topic: CreatableTopic) -> i16 {
    let name = topic.name.clone();
    let response = client.call(&CreateTopicsRequest::default().with_topics(vec![topic]), 4).topics.remove(0);
    assert_eq!(response.name, name);
    let message = response.error_message.map(|message| message.as_str().to_owned()).unwrap_or_default();
    assert_eq!(response.error_code == 0, message.is_empty(), "{name:?}: {message}");
    response.error_code
}

#[test]
fn names_that_are_refused() {
    let broker = Broker::start();
    let client = &mut broker.client();
    let (longest, longer) = ("x".repeat(249), "x".repeat(250));
    let invalid = ResponseError::InvalidTopicException;
    let taken = ResponseError::TopicAlreadyExists;
    for name in ["", ".", "..", "a/b", "a b", "ä", "a:b", "../../etc", "a\0b", longer.as_str(), &"é".repeat(16_000)] {
        assert_eq!(create(client, one(name, 1, 1)), invalid.code(), "{name:?}");
    }
    for (name, code) in [
        ("a.b", 0),
        ("a_b", invalid.code()),
        ("a.b", taken.code()),
        ("A.b", 0),
        ("...", 0),
        ("-", 0),
        (longest.as_str(), 0),
        (longest.as_str(), taken.code()),
    ] {
        assert_eq!(create(client, one(name, 1, 1)), code, "{name}");
    }
    assert_eq!(client.produce_batch(&longest, 0, batch(b"v")).error_code, 0);
    // A name that no old version can give back in full is answered all the same.
    let long = "y".repeat(32_767);
    assert_eq!(client.produce_batch(&long, 0, batch(b"v")).error_code, 3);
}

#[test]
fn counts_that_are_refused() {
    let broker = Broker::start();
    let client = &mut broker.client();
    for partitions in [0, -2, i32::MIN, 10_001, i32::MAX] {
        assert_eq!(create(client, one("t", partitions, 1)), ResponseError::InvalidPartitions.code(), "{partitions}");
    }
    // Kafka with one broker refuses them with the same code.
    for factor in [0, 2, 3, -2, i16::MAX, i16::MIN] {
        assert_eq!(create(client, one("t", 1, factor)), ResponseError::InvalidReplicationFactor.code(), "{factor}");
    }
    let assigned = |partition, brokers: &[i32]| {
        let brokers = brokers.iter().map(|&broker| broker.into()).collect();
        CreatableReplicaAssignment::default().with_partition_index(partition).with_broker_ids(brokers)
    };
    for assignments in [
        vec![assigned(0, &[1])],
        vec![assigned(0, &[])],
        vec![assigned(0, &[0, 1])],
        vec![assigned(1, &[0])],
        vec![assigned(0, &[0]), assigned(0, &[0])],
        vec![assigned(-1, &[0])],
    ] {
        let refused = create(client, one("t", -1, -1).with_assignments(assignments.clone()));
        assert_eq!(refused, ResponseError::InvalidReplicaAssignment.code(), "{assignments:?}");
    }
    assert_eq!(create(client, one("t", -1, -1)), 0);
}

#[test]
fn settings_that_are_refused_at_creation() {
    let broker = Broker::start();
    let client = &mut broker.client();
    let long = "x".repeat(32_000);
    for (name, value) in [
        ("nonsense", Some("1")),
        ("", Some("1")),
        ("retention.ms", None),
        ("retention.ms", Some("")),
        ("cleanup.policy", Some("compact;delete")),
        (long.as_str(), Some("1")),
        ("retention.ms", Some(long.as_str())),
    ] {
        let config = CreatableTopicConfig::default().with_name(text(name)).with_value(value.map(text));
        let code = create(client, one("t", 1, 1).with_configs(vec![config]));
        assert_eq!(code, ResponseError::InvalidConfig.code(), "{name:.20}={value:.20?}");
    }
    assert_eq!(create(client, one("t", 1, 1)), 0, "nothing was left");
}

fn alter(client: &mut Client, name: &str, value: Option<&str>, operation: i8) -> (i16, String) {
    let config =
        AlterableConfig::default().with_name(text(name)).with_config_operation(operation).with_value(value.map(text));
    let resource =
        AlterConfigsResource::default().with_resource_type(2).with_resource_name(text("t")).with_configs(vec![config]);
    let response =
        client.call(&IncrementalAlterConfigsRequest::default().with_resources(vec![resource]), 0).responses.remove(0);
    (response.error_code, response.error_message.map(|message| message.as_str().to_owned()).unwrap_or_default())
}

/// Values that a setting takes and values next to them that it does not.
fn bounds(kind: ConfigKind) -> (Vec<String>, Vec<String>) {
    let number = |least: i64, most: i64| {
        let below = (i128::from(least) - 1).to_string();
        let above = (i128::from(most) + 1).to_string();
        (vec![least.to_string(), most.to_string()], vec![below, above, String::new(), "1.5".into(), "0x1".into()])
    };
    let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
    match kind {
        ConfigKind::Boolean => (texts(&["true", "false"]), texts(&["", "yes", "1"])),
        ConfigKind::Int(least) => number(least, i64::from(i32::MAX)),
        ConfigKind::Long(least) => number(least, i64::MAX),
        ConfigKind::Double(least, most) => {
            (vec![least.to_string(), most.to_string()], texts(&["-0.01", "1.01", "NaN", "inf", ""]))
        }
        ConfigKind::Word(words) => (texts(words), texts(&["", "nonsense"])),
        ConfigKind::List(words) => (vec![words.join(","), words[0].into()], texts(&["nonsense", "compact,nonsense"])),
        ConfigKind::Text => (vec![String::new()], vec!["x".repeat(40_000)]),
    }
}

#[test]
fn each_setting_at_its_bounds() {
    let broker = Broker::start();
    let client = &mut broker.client();
    client.create_topic("t", 1);
    let mut offset = 0;
    for definition in DEFINITIONS {
        let (taken, refused) = bounds(definition.kind);
        for value in refused.iter().filter(|value| value.len() < 32_768) {
            let (code, message) = alter(client, definition.name, Some(value), 0);
            assert_eq!(code, ResponseError::InvalidConfig.code(), "{}={value:?}", definition.name);
            assert!(message.contains(definition.name), "{message}");
        }
        for value in &taken {
            assert_eq!(alter(client, definition.name, Some(value), 0).0, 0, "{}={value:?}", definition.name);
            // The broker goes on, whatever the setting says of the batch.
            let produced = client.produce_batch("t", 0, batch(b"v"));
            offset += i64::from(produced.error_code == 0);
            assert_eq!(alter(client, definition.name, None, 1).0, 0);
        }
        assert_eq!(client.produce("t", b"v"), offset, "after {}", definition.name);
        offset += 1;
    }
}
