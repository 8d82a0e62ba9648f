//! Topics and their settings on the wire, and what the cluster looks like: one node.

use std::collections::{BTreeMap, BTreeSet};

use kafka_protocol::messages::alter_configs_response::AlterConfigsResourceResponse;
use kafka_protocol::messages::create_partitions_response::CreatePartitionsTopicResult;
use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::create_topics_response::{CreatableTopicConfigs, CreatableTopicResult};
use kafka_protocol::messages::delete_records_response::{DeleteRecordsPartitionResult, DeleteRecordsTopicResult};
use kafka_protocol::messages::delete_topics_response::DeletableTopicResult;
use kafka_protocol::messages::describe_cluster_response::DescribeClusterBroker;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::describe_configs_response::{
    DescribeConfigsResourceResult, DescribeConfigsResult, DescribeConfigsSynonym,
};
use kafka_protocol::messages::incremental_alter_configs_response::AlterConfigsResourceResponse as IncrementalResponse;
use kafka_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::{
    AlterConfigsRequest, AlterConfigsResponse, CreatePartitionsRequest, CreatePartitionsResponse, CreateTopicsRequest,
    CreateTopicsResponse, DeleteRecordsRequest, DeleteRecordsResponse, DeleteTopicsRequest, DeleteTopicsResponse,
    DescribeClusterRequest, DescribeClusterResponse, DescribeConfigsRequest, DescribeConfigsResponse,
    IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse, MetadataRequest, MetadataResponse, TopicName,
};

use super::connection::Session;
use super::{NODE_ID, code, inspect, message, text, unique};
use crate::core::admin::{ConfigChange, ConfigEntry, NewTopic};
use crate::core::log::LEADER_EPOCH;
use crate::core::metadata::TopicId;
use crate::core::refusal::{ErrorCode, Refusal};
use crate::core::topic_config::ConfigKind;
use crate::core::topics::Topic;

const TOPIC_RESOURCE: i8 = 2;
const SOURCE_TOPIC: i8 = 1;
const SOURCE_DEFAULT: i8 = 5;

pub(super) fn metadata(session: &Session<'_>, version: i16, request: MetadataRequest) -> MetadataResponse {
    let core = &session.shared.core;
    // Version 0 asks for all topics with an empty list, later ones with none.
    let asked = request.topics.filter(|topics| version > 0 || !topics.is_empty());
    let topics = match asked {
        None => core.topics().iter().map(|topic| described(Ok(topic), None, version)).collect(),
        Some(asked) => unique(asked.into_iter().map(|one| (one.name, one.topic_id)).collect())
            .map(|(name, id)| match name {
                Some(name) => {
                    let create =
                        session.shared.options.auto_create_topics && (version < 4 || request.allow_auto_topic_creation);
                    let found = find_or_create(session, &name, create);
                    described(found.as_ref(), Some((name, TopicId(0))), version)
                }
                None => {
                    let id = TopicId(id.as_u128());
                    let found = core.topic_by_id(id).ok_or_else(|| unknown_id(id));
                    described(found.as_ref(), Some((TopicName::default(), id)), version)
                }
            })
            .collect(),
    };
    let address = session.address;
    let broker = MetadataResponseBroker::default()
        .with_node_id(NODE_ID.into())
        .with_host(text(address.ip().to_string()))
        .with_port(i32::from(address.port()));
    MetadataResponse::default()
        .with_brokers(vec![broker])
        .with_cluster_id(Some(text(session.shared.options.cluster_id.as_str())))
        .with_controller_id(NODE_ID.into())
        .with_topics(topics)
}

fn unknown_id(id: TopicId) -> Refusal {
    Refusal::new(ErrorCode::UnknownTopicId, format!("there is no topic with id {:032x}", id.0))
}

fn find_or_create(session: &Session<'_>, name: &str, create: bool) -> Result<Topic, Refusal> {
    let core = &session.shared.core;
    let unknown = || Refusal::new(ErrorCode::UnknownTopicOrPartition, format!("there is no topic {name}"));
    match core.topic(name) {
        Some(topic) => Ok(topic),
        None if !create => Err(unknown()),
        None => {
            let new = NewTopic { name: name.to_owned(), partitions: -1, configs: BTreeMap::new() };
            match core.create_topic(&new, false) {
                // Another client made it at the same moment.
                Err(refusal) if refusal.code == ErrorCode::TopicAlreadyExists => core.topic(name).ok_or_else(unknown),
                made => made,
            }
        }
    }
}

fn described(
    topic: Result<&Topic, &Refusal>,
    asked: Option<(TopicName, TopicId)>,
    version: i16,
) -> MetadataResponseTopic {
    let response = MetadataResponseTopic::default();
    let topic = match topic {
        Ok(topic) => topic,
        Err(refusal) => {
            let (name, id) = asked.unwrap_or((TopicName::default(), TopicId(0)));
            let by_id = id != TopicId(0);
            let mut response = response.with_error_code(refusal.code.code());
            response.name = if by_id && version >= 12 { None } else { Some(name) };
            set_id(&mut response.topic_id, id);
            return response;
        }
    };
    let partitions = topic.partitions.iter().map(|partition| {
        MetadataResponsePartition::default()
            .with_partition_index(partition.index)
            .with_leader_id(NODE_ID.into())
            .with_leader_epoch(LEADER_EPOCH)
            .with_replica_nodes(vec![NODE_ID.into()])
            .with_isr_nodes(vec![NODE_ID.into()])
    });
    let mut response =
        response.with_name(Some(TopicName(text(topic.name.as_ref())))).with_partitions(partitions.collect());
    set_id(&mut response.topic_id, topic.id);
    response
}

/// Writes a topic id in the form of the protocol's structures.
fn set_id<T: std::str::FromStr>(place: &mut T, id: TopicId) {
    if let Ok(value) = format!("{:032x}", id.0).parse() {
        *place = value;
    }
}

pub(super) fn describe_cluster(session: &Session<'_>, request: &DescribeClusterRequest) -> DescribeClusterResponse {
    let address = session.address;
    let broker = DescribeClusterBroker::default()
        .with_broker_id(NODE_ID.into())
        .with_host(text(address.ip().to_string()))
        .with_port(i32::from(address.port()));
    DescribeClusterResponse::default()
        .with_endpoint_type(request.endpoint_type)
        .with_cluster_id(text(session.shared.options.cluster_id.as_str()))
        .with_controller_id(NODE_ID.into())
        .with_brokers(vec![broker])
}

pub(super) fn create_topics(session: &Session<'_>, request: CreateTopicsRequest) -> CreateTopicsResponse {
    let validate_only = request.validate_only;
    let mut count: BTreeMap<TopicName, usize> = BTreeMap::new();
    request.topics.iter().for_each(|topic| *count.entry(topic.name.clone()).or_default() += 1);
    let mut topics = request.topics;
    let mut seen = BTreeSet::new();
    topics.retain(|topic| seen.insert(topic.name.clone()));
    let topics = topics.into_iter().map(|topic| {
        let result = match count.get(&topic.name) {
            Some(1) => create_topic(session, &topic, validate_only),
            // Kafka's answer too: it is not clear which of them is meant.
            _ => Err(Refusal::new(ErrorCode::InvalidRequest, format!("topic {}: named twice", topic.name.as_str()))),
        };
        let mut response = CreatableTopicResult::default()
            .with_name(topic.name)
            .with_error_code(code(&result))
            .with_error_message(message(&result))
            .with_num_partitions(-1)
            .with_replication_factor(-1);
        if let Ok((created, partitions)) = result {
            let configs = session.shared.core.describe_configs(&created.name).unwrap_or_default();
            let configs = configs.into_iter().map(|entry| {
                CreatableTopicConfigs::default()
                    .with_name(text(entry.name))
                    .with_value(Some(text(entry.value)))
                    .with_config_source(source_of(entry.is_default))
            });
            response.num_partitions = partitions;
            response.replication_factor = 1;
            response.configs = Some(configs.collect());
            if !validate_only {
                set_id(&mut response.topic_id, created.id);
            }
        }
        response
    });
    CreateTopicsResponse::default().with_topics(topics.collect())
}

fn create_topic(session: &Session<'_>, topic: &CreatableTopic, validate_only: bool) -> Result<(Topic, i32), Refusal> {
    let name = topic.name.as_str();
    if !matches!(topic.replication_factor, -1 | 1) {
        let detail =
            format!("topic {name}: one broker, so a replication factor of 1, found {}", topic.replication_factor);
        return Err(Refusal::new(ErrorCode::InvalidReplicationFactor, detail));
    }
    let mut partitions = topic.num_partitions;
    if !topic.assignments.is_empty() {
        let mut indexes: Vec<i32> = topic.assignments.iter().map(|one| one.partition_index).collect();
        indexes.sort_unstable();
        let only_here =
            topic.assignments.iter().all(|one| matches!(one.broker_ids.as_slice(), [only] if only.0 == NODE_ID));
        if !only_here || !indexes.iter().copied().eq(0..indexes.len() as i32) {
            let detail = format!("topic {name}: partitions from 0 on, each on broker {NODE_ID} alone");
            return Err(Refusal::new(ErrorCode::InvalidReplicaAssignment, detail));
        }
        partitions = indexes.len() as i32;
    }
    let mut configs = BTreeMap::new();
    for config in &topic.configs {
        let value = config.value.as_ref().ok_or_else(|| no_value(&config.name))?;
        configs.insert(config.name.as_str().to_owned(), value.as_str().to_owned());
    }
    let new = NewTopic { name: name.to_owned(), partitions, configs };
    let created = session.shared.core.create_topic(&new, validate_only)?;
    let count = if partitions == -1 { session.shared.core.options().default_partitions } else { partitions };
    Ok((created, count))
}

fn no_value(name: &str) -> Refusal {
    Refusal::new(ErrorCode::InvalidConfig, format!("configuration {name} has no value"))
}

pub(super) fn delete_topics(session: &Session<'_>, version: i16, request: DeleteTopicsRequest) -> DeleteTopicsResponse {
    let core = &session.shared.core;
    let mut asked: Vec<(Option<TopicName>, TopicId)> =
        request.topics.into_iter().map(|topic| (topic.name, TopicId(topic.topic_id.as_u128()))).collect();
    asked.extend(request.topic_names.into_iter().map(|name| (Some(name), TopicId(0))));
    let responses = asked.into_iter().map(|(name, id)| {
        let known = match &name {
            Some(name) => Ok(name.as_str().to_owned()),
            None => core.topic_by_id(id).map(|topic| topic.name.to_string()).ok_or_else(|| unknown_id(id)),
        };
        let result = known.as_ref().map_err(Clone::clone).and_then(|name| core.delete_topic(name));
        let found = name.or_else(|| known.ok().map(|name| TopicName(text(name))));
        let mut response = DeletableTopicResult::default().with_error_code(code(&result)).with_name(found);
        if version >= 5 {
            response.error_message = message(&result);
        }
        if version >= 6 {
            set_id(&mut response.topic_id, result.unwrap_or(id));
        }
        response
    });
    DeleteTopicsResponse::default().with_responses(responses.collect())
}

pub(super) fn delete_records(session: &Session<'_>, request: &DeleteRecordsRequest) -> DeleteRecordsResponse {
    let topics = request.topics.iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|partition| {
            let result = session.shared.core.delete_records(&topic.name, partition.partition_index, partition.offset);
            DeleteRecordsPartitionResult::default()
                .with_partition_index(partition.partition_index)
                .with_error_code(code(&result))
                .with_low_watermark(result.unwrap_or(-1))
        });
        let partitions = partitions.collect();
        DeleteRecordsTopicResult::default().with_name(topic.name.clone()).with_partitions(partitions)
    });
    DeleteRecordsResponse::default().with_topics(topics.collect())
}

pub(super) fn create_partitions(session: &Session<'_>, request: &CreatePartitionsRequest) -> CreatePartitionsResponse {
    let results = request.topics.iter().map(|topic| {
        let result = session.shared.core.create_partitions(&topic.name, topic.count, request.validate_only);
        CreatePartitionsTopicResult::default()
            .with_name(topic.name.clone())
            .with_error_code(code(&result))
            .with_error_message(message(&result))
    });
    CreatePartitionsResponse::default().with_results(results.collect())
}

fn source_of(is_default: bool) -> i8 {
    if is_default { SOURCE_DEFAULT } else { SOURCE_TOPIC }
}

pub(super) fn kind_number(kind: ConfigKind) -> i8 {
    match kind {
        ConfigKind::Boolean => 1,
        ConfigKind::Text | ConfigKind::Word(_) => 2,
        ConfigKind::Int(_) => 3,
        ConfigKind::Long(_) => 5,
        ConfigKind::Double(..) => 6,
        ConfigKind::List(_) => 7,
    }
}

pub(super) fn describe_configs(session: &Session<'_>, request: &DescribeConfigsRequest) -> DescribeConfigsResponse {
    let mut seen = BTreeSet::new();
    let mut asked = request.resources.clone();
    asked.retain(|resource| seen.insert((resource.resource_type, resource.resource_name.clone())));
    let results = asked.iter().map(|resource| {
        let result = match resource.resource_type {
            inspect::BROKER_RESOURCE => inspect::broker_configs(session, resource),
            _ => resource_configs(session, resource)
                .map(|entries| entries.iter().map(|entry| described_config(entry, request.include_synonyms)).collect()),
        };
        DescribeConfigsResult::default()
            .with_error_code(code(&result))
            .with_error_message(message(&result))
            .with_resource_type(resource.resource_type)
            .with_resource_name(resource.resource_name.clone())
            .with_configs(result.unwrap_or_default())
    });
    DescribeConfigsResponse::default().with_results(results.collect())
}

fn resource_configs(session: &Session<'_>, resource: &DescribeConfigsResource) -> Result<Vec<ConfigEntry>, Refusal> {
    check_resource(resource.resource_type)?;
    let mut entries = session.shared.core.describe_configs(&resource.resource_name)?;
    if let Some(keys) = resource.configuration_keys.as_ref().filter(|keys| !keys.is_empty()) {
        entries.retain(|entry| keys.iter().any(|key| key.as_str() == entry.name));
    }
    Ok(entries)
}

fn check_resource(kind: i8) -> Result<(), Refusal> {
    match kind {
        TOPIC_RESOURCE => Ok(()),
        other => {
            let detail = format!("expected a topic (resource type {TOPIC_RESOURCE}), found resource type {other}");
            Err(Refusal::new(ErrorCode::InvalidRequest, detail))
        }
    }
}

fn described_config(entry: &ConfigEntry, include_synonyms: bool) -> DescribeConfigsResourceResult {
    let synonym = |value: &str, source| {
        DescribeConfigsSynonym::default().with_name(text(entry.name)).with_value(Some(text(value))).with_source(source)
    };
    let mut synonyms = Vec::new();
    if include_synonyms {
        if !entry.is_default {
            synonyms.push(synonym(&entry.value, SOURCE_TOPIC));
        }
        synonyms.push(synonym(entry.default, SOURCE_DEFAULT));
    }
    DescribeConfigsResourceResult::default()
        .with_name(text(entry.name))
        .with_value(Some(text(entry.value.as_str())))
        .with_config_source(source_of(entry.is_default))
        .with_synonyms(synonyms)
        .with_config_type(kind_number(entry.kind))
}

pub(super) fn alter_configs(session: &Session<'_>, request: &AlterConfigsRequest) -> AlterConfigsResponse {
    let responses = request.resources.iter().map(|resource| {
        let result = check_resource(resource.resource_type).and_then(|()| {
            let mut configs = BTreeMap::new();
            for config in &resource.configs {
                let value = config.value.as_ref().ok_or_else(|| no_value(&config.name))?;
                configs.insert(config.name.as_str().to_owned(), value.as_str().to_owned());
            }
            session.shared.core.alter_configs(&resource.resource_name, configs, request.validate_only)
        });
        AlterConfigsResourceResponse::default()
            .with_error_code(code(&result))
            .with_error_message(message(&result))
            .with_resource_type(resource.resource_type)
            .with_resource_name(resource.resource_name.clone())
    });
    AlterConfigsResponse::default().with_responses(responses.collect())
}

pub(super) fn incremental_alter_configs(
    session: &Session<'_>,
    request: &IncrementalAlterConfigsRequest,
) -> IncrementalAlterConfigsResponse {
    let responses = request.resources.iter().map(|resource| {
        let result = check_resource(resource.resource_type).and_then(|()| {
            let mut changes = Vec::with_capacity(resource.configs.len());
            for config in &resource.configs {
                let value = || config.value.as_ref().map(|value| value.as_str().to_owned());
                let value = || value().ok_or_else(|| no_value(&config.name));
                let change = match config.config_operation {
                    0 => ConfigChange::Set(value()?),
                    1 => ConfigChange::Delete,
                    2 => ConfigChange::Append(value()?),
                    3 => ConfigChange::Subtract(value()?),
                    other => {
                        let detail = format!("configuration {}: operation {other} is unknown", config.name.as_str());
                        return Err(Refusal::new(ErrorCode::InvalidRequest, detail));
                    }
                };
                changes.push((config.name.as_str().to_owned(), change));
            }
            session.shared.core.incremental_alter_configs(&resource.resource_name, &changes, request.validate_only)
        });
        IncrementalResponse::default()
            .with_error_code(code(&result))
            .with_error_message(message(&result))
            .with_resource_type(resource.resource_type)
            .with_resource_name(resource.resource_name.clone())
    });
    IncrementalAlterConfigsResponse::default().with_responses(responses.collect())
}
