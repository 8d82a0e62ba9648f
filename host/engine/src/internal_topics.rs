//! The topics that an application needs: which internal ones must exist (a pure list), and their creation and
//! verification before anything starts. Never alters or deletes a topic.

use crate::broker::{Admin, NewTopic, TopicDescription};
use crate::error::EngineError;
use crate::topology::{PartitionCounts, Topology, changelog_topic};
use std::collections::BTreeMap;
use std::sync::Arc;

const CLEANUP_POLICY: &str = "cleanup.policy";
const TIMESTAMP_TYPE: &str = "message.timestamp.type";

/// An internal topic as it must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InternalTopic {
    pub name: String,
    pub partitions: i32,
}

/// The internal topics of an application: a changelog for each logged store, with as many partitions as its
/// sub-topology has tasks.
pub fn required(application_id: &str, topology: &Topology, counts: &PartitionCounts) -> Vec<InternalTopic> {
    let mut topics = Vec::new();
    for (index, sub_topology) in topology.sub_topologies.iter().enumerate() {
        let partitions = topology.task_count(index as u32, counts);
        let logged = sub_topology.stores.iter().filter(|store| store.logging_enabled);
        topics.extend(
            logged.map(|store| InternalTopic { name: changelog_topic(application_id, &store.name), partitions }),
        );
    }
    topics
}

/// Makes sure that everything an application reads and writes is there: validates the topology, asks for its source
/// and sink topics, creates the changelogs that are missing (`replication_factor` -1 = the broker's default) and
/// verifies those that exist (R22). Returns the partition counts for `StreamThreadOptions`. Called once, before the
/// stream threads start; broker errors are for the caller to retry.
pub fn prepare(
    admin: &mut dyn Admin,
    application_id: &str,
    topology: &Topology,
    replication_factor: i32,
) -> Result<PartitionCounts, EngineError> {
    topology.validate(application_id)?;
    let mut topics = topology.source_topics();
    topics.extend(topology.sink_topics());
    topics.sort();
    topics.dedup();
    let counts = count_partitions(admin, &topics)?;
    let required = required(application_id, topology, &counts);
    let names: Vec<&str> = required.iter().map(|topic| &*topic.name).collect();
    let found = admin.describe_topics(&names)?;
    for (topic, found) in required.iter().zip(found) {
        match found {
            Some(found) => verify(topic, &found)?,
            None => create(admin, topic, replication_factor)?,
        }
    }
    Ok(counts)
}

fn count_partitions(admin: &mut dyn Admin, topics: &[Arc<str>]) -> Result<PartitionCounts, EngineError> {
    let names: Vec<&str> = topics.iter().map(|topic| &**topic).collect();
    let mut counts = BTreeMap::new();
    let mut missing = Vec::new();
    for (topic, found) in topics.iter().zip(admin.describe_topics(&names)?) {
        match found {
            Some(found) => {
                counts.insert(topic.clone(), found.partitions);
            }
            None => missing.push(topic.to_string()),
        }
    }
    if missing.is_empty() { Ok(PartitionCounts(counts)) } else { Err(EngineError::MissingTopics { topics: missing }) }
}

fn create(admin: &mut dyn Admin, topic: &InternalTopic, replication_factor: i32) -> Result<(), EngineError> {
    let configs = [(CLEANUP_POLICY, "compact"), (TIMESTAMP_TYPE, "CreateTime")];
    let configs = configs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    let new = NewTopic { name: topic.name.clone(), partitions: topic.partitions, replication_factor, configs };
    match admin.create_topic(&new) {
        Ok(()) => Ok(()),
        // Another host of the application was faster; what it made is verified like any other.
        Err(error) if error.kind == crate::broker::BrokerErrorKind::TopicExists => {
            match admin.describe_topics(&[&topic.name])?.into_iter().next().flatten() {
                Some(found) => verify(topic, &found),
                None => Err(crate::broker::BrokerError::new(
                    crate::broker::BrokerErrorKind::Retriable,
                    format!("describe internal topic {}", topic.name),
                    "it exists but is not visible yet",
                )
                .into()),
            }
        }
        Err(error) => Err(error.into()),
    }
}

/// Refuses a topic that cannot hold a changelog. A setting that the broker does not report has Kafka's default.
fn verify(topic: &InternalTopic, found: &TopicDescription) -> Result<(), EngineError> {
    let mut faults = Vec::new();
    if found.partitions != topic.partitions {
        faults.push(format!("it has {} partitions where {} are needed", found.partitions, topic.partitions));
    }
    let setting = |key, default| found.configs.get(key).map_or(default, String::as_str);
    let policy = setting(CLEANUP_POLICY, "delete");
    if policy.trim() != "compact" {
        faults.push(format!("its {CLEANUP_POLICY} is {policy} where compact is needed"));
    }
    let timestamps = setting(TIMESTAMP_TYPE, "CreateTime");
    if timestamps != "CreateTime" {
        faults.push(format!("its {TIMESTAMP_TYPE} is {timestamps} where CreateTime is needed"));
    }
    if faults.is_empty() { Ok(()) } else { Err(EngineError::InternalTopic { topic: topic.name.clone(), faults }) }
}

#[cfg(test)]
mod tests;
