//! The declared form of an application: sub-topologies with their sources, stores and sinks, already bound to real
//! topics. Immutable once built; `validate` finds every fault at once. Knows no runtime state.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use crate::record::TopicPartition;

pub mod change;
pub mod generations;
mod validation;
pub use validation::{TopologyError, TopologyFault, is_reserved_topic};

/// `(sub-topology, partition)`: the unit of parallelism. Written as Kafka Streams does: `0_3`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct TaskId {
    pub sub_topology: u32,
    pub partition: i32,
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}_{}", self.sub_topology, self.partition)
    }
}

/// Where a store keeps its data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum StoreBackend {
    #[default]
    Persistent,
    InMemory,
}

/// The topic that a store is restored from.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum StoreChangelog {
    /// An internal topic of its own, which the application writes.
    #[default]
    Internal,
    /// The source topic of its sub-topology, which says the same as the store (Kafka Streams'
    /// `reuse.ktable.source.topics`): nothing is created or written for it.
    Source(Arc<str>),
    /// None: the data is gone with the local state (`logging.enabled = false`).
    Off,
}

/// A state store as declared and bound.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreSpec {
    pub name: Arc<str>,
    pub backend: StoreBackend,
    pub changelog: StoreChangelog,
    /// The version of the stored schema.
    pub version: u32,
    /// How people see keys and values: `bytes`, `utf8`, `json`, `i32`, `i64`, `f64`.
    pub key_format: Arc<str>,
    pub value_format: Arc<str>,
    /// The store whose older rows it holds, for a migration to read; `None` for a store of the processor.
    pub older_generation_of: Option<Arc<str>>,
}

impl StoreSpec {
    /// Whether a topic backs the store, so that it can be restored elsewhere.
    pub fn is_logged(&self) -> bool {
        self.changelog != StoreChangelog::Off
    }

    /// Whether its source topic backs it.
    pub fn is_source_backed(&self) -> bool {
        matches!(self.changelog, StoreChangelog::Source(_))
    }

    /// The topic that it is restored from; `None` where there is none.
    pub fn changelog_topic(&self, application_id: &str) -> Option<Arc<str>> {
        match &self.changelog {
            StoreChangelog::Internal => Some(changelog_topic(application_id, &self.generation()).into()),
            StoreChangelog::Source(topic) => Some(Arc::clone(topic)),
            StoreChangelog::Off => None,
        }
    }
}

/// A source or a sink: the name the processor knows and the topic it is bound to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicBinding {
    pub name: Arc<str>,
    pub topic: Arc<str>,
}

/// Sources, stores and sinks whose records meet in one task.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SubTopology {
    pub sources: Vec<TopicBinding>,
    pub stores: Vec<StoreSpec>,
    pub sinks: Vec<TopicBinding>,
}

/// The whole of an application.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Topology {
    pub sub_topologies: Vec<SubTopology>,
    /// `errors.dead.letter.queue.topic.name`: a topic that every task may write.
    pub dead_letter_topic: Option<Arc<str>>,
}

/// How many partitions each source and sink topic has, as `internal_topics::prepare` found them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PartitionCounts(pub BTreeMap<Arc<str>, i32>);

impl PartitionCounts {
    /// The partitions of a topic; 0 for a topic that was not asked about.
    pub fn of(&self, topic: &str) -> i32 {
        self.0.get(topic).copied().unwrap_or(0)
    }
}

impl Topology {
    /// Finds every fault of the declaration at once. `application_id` prefixes the names of internal topics.
    pub fn validate(&self, application_id: &str) -> Result<(), TopologyError> {
        validation::validate(self, application_id)
    }

    /// The topics that the application reads, each once, in the order of declaration.
    pub fn source_topics(&self) -> Vec<Arc<str>> {
        let mut topics: Vec<Arc<str>> = Vec::new();
        for source in self.sub_topologies.iter().flat_map(|sub_topology| &sub_topology.sources) {
            if !topics.contains(&source.topic) {
                topics.push(source.topic.clone());
            }
        }
        topics
    }

    /// The topics that the application writes, each once, in the order of declaration; that of the dead letters last.
    pub fn sink_topics(&self) -> Vec<Arc<str>> {
        let mut topics: Vec<Arc<str>> = Vec::new();
        let sinks = self.sub_topologies.iter().flat_map(|sub_topology| &sub_topology.sinks).map(|sink| &sink.topic);
        for topic in sinks.chain(&self.dead_letter_topic) {
            if !topics.contains(topic) {
                topics.push(topic.clone());
            }
        }
        topics
    }

    /// Whether a store is backed by this source topic.
    pub fn is_source_backed(&self, topic: &str) -> bool {
        let mut stores = self.sub_topologies.iter().flat_map(|sub_topology| &sub_topology.stores);
        stores.any(|store| matches!(&store.changelog, StoreChangelog::Source(source) if **source == *topic))
    }

    /// Whether every sub-topology is a table: a store that its source topic backs.
    pub fn has_tables_only(&self) -> bool {
        self.source_topics().iter().all(|topic| self.is_source_backed(topic))
    }

    /// The sub-topology with this index, as `TaskId::sub_topology` counts.
    pub fn sub_topology(&self, index: u32) -> Option<&SubTopology> {
        self.sub_topologies.get(index as usize)
    }

    /// The task that a source partition belongs to; `None` for a topic that is no source.
    pub fn task_of(&self, partition: &TopicPartition) -> Option<TaskId> {
        let reads = |sub_topology: &SubTopology| sub_topology.sources.iter().any(|s| s.topic == partition.topic);
        let index = self.sub_topologies.iter().position(reads)?;
        Some(TaskId { sub_topology: index as u32, partition: partition.partition })
    }

    /// The source partitions that make up a task, in the order of the declared sources. A source with fewer
    /// partitions than its neighbours has no part in the tasks above its count.
    pub fn task_partitions(&self, task: TaskId, counts: &PartitionCounts) -> Vec<TopicPartition> {
        let Some(sub_topology) = self.sub_topology(task.sub_topology) else { return Vec::new() };
        let sources = sub_topology.sources.iter().filter(|source| task.partition < counts.of(&source.topic));
        sources.map(|source| TopicPartition::new(source.topic.clone(), task.partition)).collect()
    }

    /// How many tasks a sub-topology has: the most partitions of any of its sources. The changelogs of its stores
    /// have as many partitions.
    pub fn task_count(&self, sub_topology: u32, counts: &PartitionCounts) -> i32 {
        let sources = self.sub_topology(sub_topology).map_or(&[][..], |sub_topology| &sub_topology.sources);
        sources.iter().map(|source| counts.of(&source.topic)).max().unwrap_or(0)
    }
}

/// `<application id>-<store>-changelog` (Kafka Streams' `ProcessorStateManager.storeChangelogTopic`).
pub fn changelog_topic(application_id: &str, store: &str) -> String {
    format!("{application_id}-{store}-changelog")
}

/// How the names of the topics end that hold the versions of an application.
pub const VERSIONS_TOPIC_SUFFIX: &str = "-sandbar-versions";

/// `<application id>-sandbar-versions`: the modules and manifests that were deployed, of which each host of the
/// application runs the active one.
pub fn versions_topic(application_id: &str) -> String {
    format!("{application_id}{VERSIONS_TOPIC_SUFFIX}")
}

#[cfg(test)]
mod tests;
