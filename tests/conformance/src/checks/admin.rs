//! Settings of topics: described, replaced as a whole, changed one by one, refused; and requests that only validate.

use anyhow::{Result, anyhow};
use rdkafka::admin::{AlterConfig, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::error::RDKafkaErrorCode as Code;

use crate::check::{Context, Outcome};
use crate::client::{Clients, PATIENCE, block_on, expect_equal, expect_refused};
use crate::raw::{self, Change};

fn setting(check: &Context, topic: &str, name: &str) -> Result<(String, bool)> {
    let settings = check.clients.topic_settings(topic)?;
    settings.get(name).cloned().ok_or_else(|| anyhow!("the description has no {name}"))
}

/// Settings as `(value, is the default)`.
fn expect_settings(check: &Context, topic: &str, expected: &[(&str, &str, bool)]) -> Outcome {
    for (name, value, default) in expected {
        expect_equal(name, ((*value).to_owned(), *default), setting(check, topic, name)?)?;
    }
    Ok(())
}

pub fn describe(check: &Context) -> Outcome {
    let topic = check.topic(1, &[("cleanup.policy", "compact"), ("delete.retention.ms", "1234")])?;
    let expected = [
        ("cleanup.policy", "compact", false),
        ("delete.retention.ms", "1234", false),
        ("max.message.bytes", "1048588", true),
        ("message.timestamp.type", "CreateTime", true),
        ("compression.type", "producer", true),
        ("retention.bytes", "-1", true),
    ];
    expect_settings(check, &topic, &expected)?;
    // The client hides the error of a single resource: it has no settings then.
    let missing = check.clients.topic_settings(&check.name("missing"))?;
    expect_equal("settings of a topic that is not there", 0, missing.len())
}

fn alter(check: &Context, topic: &str, settings: &[(&str, &str)]) -> Result<()> {
    let request = settings
        .iter()
        .fold(AlterConfig::new(ResourceSpecifier::Topic(topic)), |request, (name, value)| request.set(name, value));
    let results = block_on(check.clients.admin().alter_configs([&request], &Clients::options()))??;
    let result = results.into_iter().next().ok_or_else(|| anyhow!("alter configs gave no result"))?;
    result.map(drop).map_err(|(_, code)| code.into())
}

pub fn legacy_alter(check: &Context) -> Outcome {
    let topic = check.topic(1, &[("cleanup.policy", "compact"), ("retention.ms", "5000")])?;
    alter(check, &topic, &[("retention.ms", "6000"), ("max.message.bytes", "2000")])?;
    let expected =
        [("retention.ms", "6000", false), ("max.message.bytes", "2000", false), ("cleanup.policy", "delete", true)];
    expect_settings(check, &topic, &expected)
}

pub fn incremental_alter(check: &Context) -> Outcome {
    let topic = check.topic(1, &[("cleanup.policy", "compact"), ("retention.ms", "5000")])?;
    let changes = [Change::Set("max.message.bytes", "2000"), Change::Delete("cleanup.policy")];
    raw::alter_topic_incrementally(check.clients.native(), &topic, &changes)?;
    let expected =
        [("retention.ms", "5000", false), ("max.message.bytes", "2000", false), ("cleanup.policy", "delete", true)];
    expect_settings(check, &topic, &expected)?;
    let sender = check.sender(&[])?;
    sender.put(&topic, 0, &"x".repeat(3_000))?;
    expect_refused("a record above the new bound", sender.flush(), &[Code::MessageSizeTooLarge])
}

pub fn refused_settings(check: &Context) -> Outcome {
    let topic = check.topic(1, &[("retention.ms", "5000")])?;
    let change = |name, value| -> Result<()> {
        Ok(raw::alter_topic_incrementally(check.clients.native(), &topic, &[Change::Set(name, value)])?)
    };
    expect_refused("an unknown setting", change("no.such.setting", "1"), &[Code::InvalidConfig])?;
    expect_refused("text for a number", change("retention.ms", "soon"), &[Code::InvalidConfig])?;
    expect_refused("a number below its bound", change("retention.ms", "-2"), &[Code::InvalidConfig])?;
    expect_refused("a ratio above 1", change("min.cleanable.dirty.ratio", "1.5"), &[Code::InvalidConfig])?;
    // The client hides the error of this call: what it would have changed tells.
    let _ = alter(check, &topic, &[("cleanup.policy", "sweep")]);
    let missing = raw::alter_topic_incrementally(
        check.clients.native(),
        &check.name("missing"),
        &[Change::Set("retention.ms", "1")],
    );
    expect_refused("a topic that is not there", missing.map_err(Into::into), &[Code::UnknownTopicOrPartition])?;
    expect_settings(check, &topic, &[("retention.ms", "5000", false), ("cleanup.policy", "delete", true)])
}

pub fn validate_only(check: &Context) -> Outcome {
    let name = check.name("topic");
    let create = |topic: &str, replicas| -> Result<()> {
        let request = NewTopic::new(topic, 1, TopicReplication::Fixed(replicas));
        let options = Clients::options().validate_only(true);
        let results = block_on(check.clients.admin().create_topics([&request], &options))??;
        let result = results.into_iter().next().ok_or_else(|| anyhow!("create topics gave no result"))?;
        result.map(drop).map_err(|(_, code)| code.into())
    };
    create(&name, 1)?;
    expect_refused("the topic", check.clients.partitions(&name), &[Code::UnknownTopicOrPartition])?;
    expect_refused("an odd name", create("no/slash", 1), &[Code::InvalidTopic])?;
    expect_refused("three replicas on one broker", create(&name, 3), &[Code::InvalidReplicationFactor])
}

pub fn cluster(check: &Context) -> Outcome {
    let id = check.clients.native().fetch_cluster_id(PATIENCE).unwrap_or_default();
    expect_equal("a cluster id", true, !id.is_empty())?;
    let metadata = check.clients.native().fetch_metadata(None, PATIENCE)?;
    expect_equal("brokers", 1, metadata.brokers().len())?;
    let address = metadata.brokers().first().map(|broker| format!("{}:{}", broker.host(), broker.port()));
    expect_equal("the broker's address", Some(check.bootstrap().to_owned()), address)
}
