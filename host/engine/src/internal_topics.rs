//! The topics that an application needs: which internal ones must exist (a pure list), their creation and verification
//! before anything starts, and whether they and the source topics are still the same later. Never alters or deletes a
//! topic.

use crate::broker::{Admin, NewTopic, TopicDescription};
use crate::error::EngineError;
use crate::topic_limits::{SinkLimits, TopicLimits};
use crate::topology::{PartitionCounts, StoreChangelog, StoreSpec, Topology, changelog_topic};
use std::collections::BTreeMap;
use std::sync::Arc;

const CLEANUP_POLICY: &str = "cleanup.policy";
const RETENTION_MS: &str = "retention.ms";
const TIMESTAMP_TYPE: &str = "message.timestamp.type";

/// An internal topic as it must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InternalTopic {
    pub name: String,
    pub partitions: i32,
}

/// The internal topics of an application: a changelog for each logged store that no source topic backs, with as many
/// partitions as its sub-topology has tasks.
pub fn required(application_id: &str, topology: &Topology, counts: &PartitionCounts) -> Vec<InternalTopic> {
    let mut topics = Vec::new();
    for (index, sub_topology) in topology.sub_topologies.iter().enumerate() {
        let partitions = topology.task_count(index as u32, counts);
        let own = sub_topology.stores.iter().filter(|store| store.changelog == StoreChangelog::Internal);
        let name = |store: &StoreSpec| changelog_topic(application_id, &store.generation());
        topics.extend(own.map(|store| InternalTopic { name: name(store), partitions }));
    }
    topics
}

/// What a topic is to an application that depends on its staying the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TopicRole {
    Source,
    Changelog,
}

/// A topic as an application found it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownTopic {
    /// `None` where the broker does not tell ids.
    pub id: Option<String>,
    pub partitions: i32,
}

/// The source topics and changelogs of an application as it found them. The host keeps them beside the stores, so that
/// a later start knows whether they are still the same.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KnownTopics(pub BTreeMap<String, KnownTopic>);

/// What a start found out about its topics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prepared {
    /// For `StreamThreadOptions`.
    pub counts: PartitionCounts,
    /// What the topics that are written take; for `StreamThreadOptions` too.
    pub limits: SinkLimits,
    /// For the next start, and for `check`.
    pub topics: KnownTopics,
}

/// As `prepare_known`, for an application that has not run before.
pub fn prepare(
    admin: &mut dyn Admin,
    application_id: &str,
    topology: &Topology,
    replication_factor: i32,
) -> Result<PartitionCounts, EngineError> {
    let prepared = prepare_known(admin, application_id, topology, replication_factor, &KnownTopics::default())?;
    Ok(prepared.counts)
}

/// Makes sure that everything an application reads and writes is there: validates the topology, asks for its source
/// and sink topics, creates the changelogs that are missing (`replication_factor` -1 = the broker's default) and
/// verifies those that exist (R22), and that none is another topic than the one it knows. A changelog that it knows is
/// never created anew. Called once, before the stream threads start; broker errors are for the caller to retry.
pub fn prepare_known(
    admin: &mut dyn Admin,
    application_id: &str,
    topology: &Topology,
    replication_factor: i32,
    known: &KnownTopics,
) -> Result<Prepared, EngineError> {
    topology.validate(application_id)?;
    let mut topics = topology.source_topics();
    topics.extend(topology.sink_topics());
    topics.sort();
    topics.dedup();
    let found = describe(admin, topics.iter().map(|topic| &**topic))?;
    let missing = found.iter().filter(|(name, found)| found.is_none() && !known.0.contains_key(*name));
    let missing: Vec<String> = missing.map(|(name, _)| name.clone()).collect();
    if !missing.is_empty() {
        return Err(EngineError::MissingTopics { topics: missing });
    }
    let sources = topology.source_topics();
    for topic in &sources {
        known.verify(topic, TopicRole::Source, found.get(&**topic).and_then(Option::as_ref))?;
    }
    verify_dead_letter_topic(topology, &found)?;
    warn_of_retention(topology, found.values().flatten());
    warn_of_small_dead_letters(topology, &found);
    let counts = found.iter().filter_map(|(name, found)| Some((Arc::from(&**name), found.as_ref()?.partitions)));
    let counts = PartitionCounts(counts.collect());
    let sinks_found: Vec<TopicDescription> = found.values().flatten().cloned().collect();
    verify_partition_counts(topology, &counts, known)?;

    let mut prepared = KnownTopics::default();
    sources.iter().for_each(|topic| prepared.note(found.get(&**topic).and_then(Option::as_ref)));
    let required = required(application_id, topology, &counts);
    let found = describe(admin, required.iter().map(|topic| &*topic.name))?;
    for topic in &required {
        let found = found.get(&topic.name).and_then(Option::as_ref);
        known.verify(&topic.name, TopicRole::Changelog, found)?;
        match found {
            Some(found) => verify_changelog(topic, found, topology, &counts)?,
            None => create(admin, topic, replication_factor)?,
        }
    }
    // Once more, for the ids of those that were created.
    let found = describe(admin, required.iter().map(|topic| &*topic.name))?;
    found.values().for_each(|found| prepared.note(found.as_ref()));
    let written = written_topics(application_id, topology);
    let limits = topic_limits(&written, sinks_found.iter().chain(found.values().flatten()));
    Ok(Prepared { counts, limits, topics: prepared })
}

/// The topics that the application writes: sinks, the dead letter topic, changelogs.
pub(crate) fn written_topics(application_id: &str, topology: &Topology) -> Vec<Arc<str>> {
    let mut topics = topology.sink_topics();
    let stores = topology.sub_topologies.iter().flat_map(|sub| &sub.stores);
    let own = stores.filter(|store| store.changelog == StoreChangelog::Internal);
    topics.extend(own.map(|store| Arc::from(changelog_topic(application_id, &store.generation()))));
    topics
}

/// What topics take.
pub(crate) fn topic_limits<'a>(topics: &[Arc<str>], found: impl Iterator<Item = &'a TopicDescription>) -> SinkLimits {
    let wanted = found.filter(|found| topics.iter().any(|topic| **topic == *found.name));
    SinkLimits(wanted.map(|found| (Arc::from(&*found.name), TopicLimits::of_configs(&found.configs))).collect())
}

/// Whether everything is still as a start has found it. Called from time to time while the application runs.
pub fn check(
    admin: &mut dyn Admin,
    application_id: &str,
    topology: &Topology,
    prepared: &Prepared,
) -> Result<(), EngineError> {
    let sources = topology.source_topics();
    let required = required(application_id, topology, &prepared.counts);
    // One that is written may be made anew, since nothing hangs on what is in it. Without it every send waits in vain.
    let mut sinks = topology.sink_topics();
    sinks.retain(|topic| !sources.contains(topic));
    let names = sources.iter().chain(&sinks).map(|topic| &**topic).chain(required.iter().map(|topic| &*topic.name));
    let found = describe(admin, names)?;
    let found = |name: &str| found.get(name).and_then(Option::as_ref);
    for topic in &sources {
        prepared.topics.verify(topic, TopicRole::Source, found(topic))?;
        let (expected, now) = (prepared.counts.of(topic), found(topic).map_or(0, |found| found.partitions));
        if now > expected {
            return Err(EngineError::PartitionsAdded { topic: topic.to_string(), expected, found: now });
        }
    }
    let missing: Vec<String> = sinks.iter().filter(|topic| found(topic).is_none()).map(ToString::to_string).collect();
    if !missing.is_empty() {
        return Err(EngineError::MissingTopics { topics: missing });
    }
    for topic in &required {
        prepared.topics.verify(&topic.name, TopicRole::Changelog, found(&topic.name))?;
        if let Some(found) = found(&topic.name) {
            verify(topic, found)?;
        }
    }
    Ok(())
}

impl KnownTopics {
    fn note(&mut self, found: Option<&TopicDescription>) {
        if let Some(found) = found {
            let known = KnownTopic { id: found.id.clone(), partitions: found.partitions };
            self.0.insert(found.name.clone(), known);
        }
    }

    /// Refuses another topic under a known name, or none. A broker that tells no ids cannot be checked.
    fn verify(&self, topic: &str, role: TopicRole, found: Option<&TopicDescription>) -> Result<(), EngineError> {
        let Some(known) = self.0.get(topic) else { return Ok(()) };
        let known = known.id.clone().unwrap_or_else(|| "unknown".to_owned());
        let changed = |found| EngineError::TopicChanged { topic: topic.to_owned(), role, known: known.clone(), found };
        match found {
            None => Err(changed(None)),
            Some(TopicDescription { id: Some(id), .. }) if *id != known && known != "unknown" => {
                Err(changed(Some(id.clone())))
            }
            Some(_) => Ok(()),
        }
    }
}

/// A table that is loaded again has what its topic has then. What a topic deletes by its age is gone from it. A dead
/// letter has the timestamp of its record, so that one of an old record may be deleted before anybody reads it.
fn warn_of_retention<'a>(topology: &Topology, topics: impl Iterator<Item = &'a TopicDescription>) {
    for topic in topics {
        let setting = |key, default| topic.configs.get(key).map_or(default, String::as_str);
        let (policy, retention_ms) = (setting(CLEANUP_POLICY, "delete"), setting(RETENTION_MS, "604800000"));
        if !policy.contains("delete") || retention_ms == "-1" {
            continue;
        }
        if topology.dead_letter_topic.as_deref() == Some(&*topic.name) {
            tracing::warn!(
                topic = topic.name,
                retention_ms,
                "the topic of the dead letters deletes records by their age, and a dead letter is as old as its record: set retention.ms=-1 to keep those of old records"
            );
        }
        if topology.is_source_backed(&topic.name) {
            tracing::warn!(
                topic = topic.name,
                policy,
                retention_ms,
                "the topic deletes records by their age: a table that is loaded again lacks the keys of those; compact it to keep them"
            );
        }
    }
}

/// A dead letter is larger than its record, by its own headers: one of a record as large as its source takes would not
/// fit into a topic that takes no more, and end the application.
fn warn_of_small_dead_letters(topology: &Topology, found: &BTreeMap<String, Option<TopicDescription>>) {
    /// More than the headers of a dead letter take that leaves out what may be left out.
    const HEADERS_BYTES: usize = 4 << 10;
    let max_bytes = |topic: &str| {
        let found = found.get(topic).and_then(Option::as_ref)?;
        Some(TopicLimits::of_configs(&found.configs).message_max_bytes)
    };
    let largest = topology.source_topics().iter().filter_map(|topic| max_bytes(topic)).max();
    let (Some(topic), Some(largest)) = (topology.dead_letter_topic.as_deref(), largest) else { return };
    if max_bytes(topic).is_some_and(|max_bytes| max_bytes < largest.saturating_add(HEADERS_BYTES)) {
        tracing::warn!(
            topic,
            largest,
            "the topic of the dead letters takes hardly more than the source topics, and a dead letter is larger than its record: a record of the largest size that fails would end the application; raise max.message.bytes of the topic"
        );
    }
}

/// Refuses a topic whose compaction would drop dead letters: two of the same key stand for two records.
fn verify_dead_letter_topic(
    topology: &Topology,
    found: &BTreeMap<String, Option<TopicDescription>>,
) -> Result<(), EngineError> {
    let topic = topology.dead_letter_topic.as_deref().and_then(|topic| found.get(topic)?.as_ref());
    match topic.and_then(|topic| Some((topic, topic.configs.get(CLEANUP_POLICY)?))) {
        Some((topic, policy)) if policy.contains("compact") => {
            Err(EngineError::CompactedDeadLetters { topic: topic.name.clone(), policy: policy.clone() })
        }
        _ => Ok(()),
    }
}

/// Refuses more partitions than the stores are split by, as far as the application remembers that.
fn verify_partition_counts(
    topology: &Topology,
    counts: &PartitionCounts,
    known: &KnownTopics,
) -> Result<(), EngineError> {
    let stateful = topology.sub_topologies.iter().filter(|part| !part.stores.is_empty());
    for source in stateful.flat_map(|part| &part.sources) {
        let found = counts.of(&source.topic);
        if let Some(known) = known.0.get(&*source.topic).filter(|known| known.partitions < found) {
            let topic = source.topic.to_string();
            return Err(EngineError::PartitionsAdded { topic, expected: known.partitions, found });
        }
    }
    Ok(())
}

/// As `verify`. A changelog with fewer partitions than its sources tells that these got more, even where nothing else
/// remembers it.
fn verify_changelog(
    topic: &InternalTopic,
    found: &TopicDescription,
    topology: &Topology,
    counts: &PartitionCounts,
) -> Result<(), EngineError> {
    let result = verify(topic, found);
    if found.partitions >= topic.partitions {
        return result;
    }
    let grown = topology.source_topics().into_iter().find(|source| counts.of(source) == topic.partitions);
    match (&result, grown) {
        (Err(EngineError::InternalTopic { faults, .. }), Some(source)) if faults.len() == 1 => {
            let (topic, expected) = (source.to_string(), found.partitions);
            Err(EngineError::PartitionsAdded { topic, expected, found: counts.of(&source) })
        }
        _ => result,
    }
}

fn describe<'a>(
    admin: &mut dyn Admin,
    names: impl Iterator<Item = &'a str>,
) -> Result<BTreeMap<String, Option<TopicDescription>>, EngineError> {
    let names: Vec<&str> = names.collect();
    if names.is_empty() {
        return Ok(BTreeMap::new());
    }
    let found = admin.describe_topics(&names)?;
    Ok(names.into_iter().map(str::to_owned).zip(found).collect())
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
