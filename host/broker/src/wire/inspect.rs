//! What tools ask about the inside of a broker: its settings, and its folder with the size of each partition. Reads
//! only.

use std::collections::BTreeSet;

use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::describe_configs_response::DescribeConfigsResourceResult;
use kafka_protocol::messages::describe_log_dirs_response::{
    DescribeLogDirsPartition, DescribeLogDirsResult, DescribeLogDirsTopic,
};
use kafka_protocol::messages::{DescribeLogDirsRequest, DescribeLogDirsResponse, TopicName};

use super::admin::kind_number;
use super::connection::Session;
use super::{NODE_ID, text};
use crate::core::refusal::{ErrorCode, Refusal};
use crate::core::topic_config::ConfigKind;

pub(super) const BROKER_RESOURCE: i8 = 4;
/// Given at the start of the broker, not changed while it runs.
const SOURCE_STATIC: i8 = 4;

/// The one folder, with the asked partitions in it; all of them where none are named. What does not exist is left out,
/// as in Kafka. The size of the disk is not told (-1): the broker does not look at it.
pub(super) fn describe_log_dirs(session: &Session<'_>, request: &DescribeLogDirsRequest) -> DescribeLogDirsResponse {
    let asked: Option<BTreeSet<(&str, i32)>> = request.topics.as_ref().map(|topics| {
        let partitions =
            topics.iter().flat_map(|topic| topic.partitions.iter().map(|index| (topic.topic.as_str(), *index)));
        partitions.collect()
    });
    let is_asked = |name: &str, index| asked.as_ref().is_none_or(|asked| asked.contains(&(name, index)));
    let mut topics = Vec::new();
    for topic in session.shared.core.topics() {
        let partitions: Vec<DescribeLogDirsPartition> = topic
            .partitions
            .iter()
            .filter(|partition| is_asked(&topic.name, partition.index))
            .map(|partition| {
                DescribeLogDirsPartition::default()
                    .with_partition_index(partition.index)
                    .with_partition_size(i64::try_from(partition.log().size_bytes()).unwrap_or(i64::MAX))
            })
            .collect();
        if !partitions.is_empty() {
            let name = TopicName(text(topic.name.as_ref()));
            topics.push(DescribeLogDirsTopic::default().with_name(name).with_partitions(partitions));
        }
    }
    let folder = DescribeLogDirsResult::default()
        .with_log_dir(text(session.shared.options.log_dir.as_str()))
        .with_topics(topics)
        .with_total_bytes(-1)
        .with_usable_bytes(-1);
    DescribeLogDirsResponse::default().with_results(vec![folder])
}

/// The settings of the one broker, by Kafka's names, none of which can be changed; those that stand for every broker
/// (an empty name) are none.
pub(super) fn broker_configs(
    session: &Session<'_>,
    resource: &DescribeConfigsResource,
) -> Result<Vec<DescribeConfigsResourceResult>, Refusal> {
    let name = resource.resource_name.as_str();
    if name.is_empty() {
        return Ok(Vec::new());
    }
    if name != NODE_ID.to_string() {
        let detail = format!("there is one broker, {NODE_ID}, found {name}");
        return Err(Refusal::new(ErrorCode::InvalidRequest, detail));
    }
    let options = &session.shared.options;
    let core = session.shared.core.options();
    let number = ConfigKind::Int(0);
    let entries = [
        ("auto.create.topics.enable", options.auto_create_topics.to_string(), ConfigKind::Boolean),
        ("broker.id", NODE_ID.to_string(), number),
        ("connections.max.idle.ms", options.idle_timeout.as_millis().to_string(), ConfigKind::Long(0)),
        ("default.replication.factor", String::from("1"), number),
        ("group.initial.rebalance.delay.ms", core.groups.initial_rebalance_delay_ms.to_string(), number),
        ("group.max.session.timeout.ms", core.groups.max_session_timeout_ms.to_string(), number),
        ("group.min.session.timeout.ms", core.groups.min_session_timeout_ms.to_string(), number),
        ("log.dirs", options.log_dir.clone(), ConfigKind::Text),
        ("max.connections", options.connections_max.to_string(), number),
        ("num.partitions", core.default_partitions.to_string(), number),
        ("offset.metadata.max.bytes", core.groups.offset_metadata_max_bytes.to_string(), number),
        ("socket.request.max.bytes", options.request_bytes_max.to_string(), number),
    ];
    let asked = |name: &str| match resource.configuration_keys.as_ref().filter(|keys| !keys.is_empty()) {
        Some(keys) => keys.iter().any(|key| key.as_str() == name),
        None => true,
    };
    let described = entries.into_iter().filter(|(name, ..)| asked(name)).map(|(name, value, kind)| {
        DescribeConfigsResourceResult::default()
            .with_name(text(name))
            .with_value(Some(text(value)))
            .with_read_only(true)
            .with_config_source(SOURCE_STATIC)
            .with_config_type(kind_number(kind))
    });
    Ok(described.collect())
}
