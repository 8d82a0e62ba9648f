//! The declared form of an application: sub-topologies with their sources, stores and sinks, already bound to real
//! topics. Immutable once built; `validate` finds every fault at once. Knows no runtime state.

use std::fmt;
use std::sync::Arc;

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

/// A state store as declared and bound.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreSpec {
    pub name: Arc<str>,
    pub backend: StoreBackend,
    /// Whether a changelog topic backs the store.
    pub logging_enabled: bool,
    /// The version of the stored schema.
    pub version: u32,
    /// How people see keys and values: `bytes`, `utf8`, `json`, `i32`, `i64`, `f64`.
    pub key_format: Arc<str>,
    pub value_format: Arc<str>,
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
}

/// `<application id>-<store>-changelog` (Kafka Streams' `ProcessorStateManager.storeChangelogTopic`).
pub fn changelog_topic(application_id: &str, store: &str) -> String {
    format!("{application_id}-{store}-changelog")
}
