//! What makes a topology impossible to run. Pure: looks at the declaration only, reports every fault at once, and
//! never asks a broker.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use super::{StoreChangelog, StoreSpec, SubTopology, Topology, changelog_topic};
use crate::task::offset_metadata::{SCHEMA_BYTES_MAX, schema_bytes};

/// Kafka's limit for the length of a topic name (`Topic.MAX_NAME_LENGTH`).
const TOPIC_NAME_MAX_LENGTH: usize = 249;

/// The formats in which keys and values can be shown.
const FORMATS: [&str; 6] = ["bytes", "utf8", "json", "i32", "i64", "f64"];

/// One thing that is wrong with a topology. Sub-topologies are named by their index.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TopologyFault {
    #[error("the topology has no sub-topology")]
    Empty,
    #[error("the application id {application_id:?} is no valid topic name prefix: {reason}")]
    ApplicationId { application_id: String, reason: String },
    #[error("sub-topology {sub_topology} has no source")]
    NoSource { sub_topology: usize },
    #[error("sub-topology {sub_topology} declares the {what} {name:?} twice")]
    Twice { sub_topology: usize, what: &'static str, name: String },
    #[error("sub-topology {sub_topology} has a {what} with an invalid name {name:?}: {reason}")]
    Name { sub_topology: usize, what: &'static str, name: String, reason: String },
    #[error("topic {topic} is read by sub-topologies {first} and {second}; one topic feeds one sub-topology")]
    SharedSource { topic: String, first: usize, second: usize },
    #[error("store {store} is declared by sub-topologies {first} and {second}; a store belongs to one")]
    SharedStore { store: String, first: usize, second: usize },
    #[error("the {what} {name:?} of sub-topology {sub_topology} is bound to {topic}, the changelog of store {store}")]
    Changelog { sub_topology: usize, what: &'static str, name: String, topic: String, store: String },
    #[error(
        "the sink {name:?} of sub-topology {sub_topology} is bound to {topic}, which may be the state of an application: a sink's topic never ends in -changelog, -repartition or -sandbar-versions and never begins with __"
    )]
    ReservedSink { sub_topology: usize, name: String, topic: String },
    #[error(
        "store {store} of sub-topology {sub_topology} is backed by the source topic {topic}: that must be the only source, with no other store and no sink beside it"
    )]
    SourceBacked { sub_topology: usize, store: String, topic: String },
    #[error("errors.dead.letter.queue.topic.name is {topic}, which is {what}: dead letters need a topic of their own")]
    DeadLetterTopic { topic: String, what: String },
    #[error("errors.dead.letter.queue.topic.name is no valid topic name: {reason}")]
    DeadLetterName { reason: String },
    #[error("store {store} has the unknown {what} format {format:?}; known are {}", FORMATS.join(", "))]
    Format { store: String, what: &'static str, format: String },
    #[error(
        "the stores of sub-topology {sub_topology} whose schema version is not 1 have names of {bytes} bytes together, and at most {max} find a place in the metadata of a commit; give them shorter names"
    )]
    TooManySchemas { sub_topology: usize, bytes: usize, max: usize },
}

/// Every fault of a topology.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopologyError {
    pub faults: Vec<TopologyFault>,
}

impl std::error::Error for TopologyError {}

impl fmt::Display for TopologyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the topology cannot run: ")?;
        for (index, fault) in self.faults.iter().enumerate() {
            let separator = if index == 0 { "" } else { "; " };
            write!(f, "{separator}{fault}")?;
        }
        Ok(())
    }
}

/// Whether a topic belongs to the state of some application, or to the cluster, by its name: changelogs and repartition
/// topics, as every application of Kafka Streams names them too, the versions of an application, and what begins with
/// two underscores. Who writes such a topic writes what others take for their own, or run.
pub fn is_reserved_topic(topic: &str) -> bool {
    let ends = ["-changelog", "-repartition", super::VERSIONS_TOPIC_SUFFIX];
    topic.starts_with("__") || ends.iter().any(|end| topic.ends_with(end))
}

/// Why a string is no topic name (Kafka's `Topic.validate`).
fn topic_name_fault(name: &str) -> Option<String> {
    if name.is_empty() || name == "." || name == ".." {
        return Some("it must not be empty, '.' or '..'".to_owned());
    }
    if name.len() > TOPIC_NAME_MAX_LENGTH {
        return Some(format!("it has {} characters, at most {TOPIC_NAME_MAX_LENGTH} are allowed", name.len()));
    }
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    name.chars().find(|&c| !allowed(c)).map(|c| format!("it contains {c:?}; use letters, digits, '.', '_' and '-'"))
}

pub(super) fn validate(topology: &Topology, application_id: &str) -> Result<(), TopologyError> {
    let mut faults = Vec::new();
    if topology.sub_topologies.is_empty() {
        faults.push(TopologyFault::Empty);
    }
    if let Some(reason) = topic_name_fault(application_id) {
        faults.push(TopologyFault::ApplicationId { application_id: application_id.to_owned(), reason });
    }
    for (index, sub_topology) in topology.sub_topologies.iter().enumerate() {
        check_names(index, sub_topology, application_id, &mut faults);
        check_formats(sub_topology, &mut faults);
        check_source_backed(index, sub_topology, &mut faults);
        check_schemas(index, sub_topology, &mut faults);
    }
    check_sharing(topology, &mut faults);
    check_changelogs(topology, application_id, &mut faults);
    check_dead_letters(topology, application_id, &mut faults);
    if faults.is_empty() { Ok(()) } else { Err(TopologyError { faults }) }
}

fn check_names(index: usize, sub_topology: &SubTopology, application_id: &str, faults: &mut Vec<TopologyFault>) {
    if sub_topology.sources.is_empty() {
        faults.push(TopologyFault::NoSource { sub_topology: index });
    }
    let mut check = |what, names: Vec<&str>, to_topic: &dyn Fn(&str) -> String| {
        for (position, &name) in names.iter().enumerate() {
            if names[..position].contains(&name) {
                faults.push(TopologyFault::Twice { sub_topology: index, what, name: name.to_owned() });
            } else if let Some(reason) = topic_name_fault(&to_topic(name)) {
                let name = name.to_owned();
                faults.push(TopologyFault::Name { sub_topology: index, what, name, reason });
            }
        }
    };
    let as_it_is = |name: &str| name.to_owned();
    let free = |name: &str| if name.is_empty() { String::new() } else { "name".to_owned() };
    check("source", sub_topology.sources.iter().map(|source| &*source.name).collect(), &free);
    check("source topic", sub_topology.sources.iter().map(|source| &*source.topic).collect(), &as_it_is);
    check("sink", sub_topology.sinks.iter().map(|sink| &*sink.name).collect(), &free);
    let of_source = |name: &str| sub_topology.stores.iter().any(|s| *s.name == *name && s.is_source_backed());
    let changelog = |store: &str| match store {
        "" => String::new(),
        store if of_source(store) => store.to_owned(),
        store => changelog_topic(application_id, store),
    };
    // Two of one name would have one changelog, and so would `votes` of version 2 and `votes-v2`.
    let generations: Vec<Arc<str>> = sub_topology.stores.iter().map(StoreSpec::generation).collect();
    check("store", generations.iter().map(|generation| &**generation).collect(), &changelog);
    // Two sinks may be bound to one topic, so only the names of these topics are checked.
    for sink in &sub_topology.sinks {
        if let Some(reason) = topic_name_fault(&sink.topic) {
            let name = sink.topic.to_string();
            faults.push(TopologyFault::Name { sub_topology: index, what: "sink topic", name, reason });
        }
    }
}

fn check_formats(sub_topology: &SubTopology, faults: &mut Vec<TopologyFault>) {
    for store in &sub_topology.stores {
        for (what, format) in [("key", &store.key_format), ("value", &store.value_format)] {
            if !FORMATS.contains(&&**format) {
                let (store, format) = (store.name.to_string(), format.to_string());
                faults.push(TopologyFault::Format { store, what, format });
            }
        }
    }
}

/// A commit that left one out would have its rows taken for older ones.
fn check_schemas(index: usize, sub_topology: &SubTopology, faults: &mut Vec<TopologyFault>) {
    let versioned = sub_topology.stores.iter().filter(|store| store.version != 1);
    let bytes = versioned.map(|store| schema_bytes(&store.name)).sum();
    if bytes > SCHEMA_BYTES_MAX {
        faults.push(TopologyFault::TooManySchemas { sub_topology: index, bytes, max: SCHEMA_BYTES_MAX });
    }
}

/// A restore passes records on to the store alone, so nothing else may depend on having seen each of them.
fn check_source_backed(index: usize, sub_topology: &SubTopology, faults: &mut Vec<TopologyFault>) {
    for store in &sub_topology.stores {
        let StoreChangelog::Source(topic) = &store.changelog else { continue };
        let is_only_source = sub_topology.sources.len() == 1 && sub_topology.sources[0].topic == *topic;
        if !is_only_source || sub_topology.stores.len() > 1 || !sub_topology.sinks.is_empty() {
            let (store, topic) = (store.name.to_string(), topic.to_string());
            faults.push(TopologyFault::SourceBacked { sub_topology: index, store, topic });
        }
    }
}

/// Dead letters that came back as input, or into a changelog, would never end or be taken for state. What a module
/// could forward into their topic would pass for dead letters, and a redrive would send it wherever it says.
fn check_dead_letters(topology: &Topology, application_id: &str, faults: &mut Vec<TopologyFault>) {
    let Some(topic) = &topology.dead_letter_topic else { return };
    if let Some(reason) = topic_name_fault(topic) {
        faults.push(TopologyFault::DeadLetterName { reason });
    }
    let stores = topology.sub_topologies.iter().flat_map(|part| &part.stores);
    let own = |store: &&StoreSpec| changelog_topic(application_id, &store.generation()) == **topic;
    let what = match stores.into_iter().find(own) {
        Some(store) => format!("the changelog of store {}", store.name),
        None if topology.source_topics().contains(topic) => "a source topic".to_owned(),
        None => match sink_of(topology, topic) {
            Some(sink) => format!("the topic of the sink {sink:?}"),
            None if is_reserved_topic(topic) => "named like the state of an application".to_owned(),
            None => return,
        },
    };
    faults.push(TopologyFault::DeadLetterTopic { topic: topic.to_string(), what });
}

/// The sink that has this topic.
fn sink_of<'a>(topology: &'a Topology, topic: &str) -> Option<&'a str> {
    let mut sinks = topology.sub_topologies.iter().flat_map(|part| &part.sinks);
    sinks.find(|sink| *sink.topic == *topic).map(|sink| &*sink.name)
}

fn check_sharing(topology: &Topology, faults: &mut Vec<TopologyFault>) {
    let mut topics: BTreeMap<&str, usize> = BTreeMap::new();
    let mut stores: BTreeMap<Arc<str>, usize> = BTreeMap::new();
    for (second, sub_topology) in topology.sub_topologies.iter().enumerate() {
        for source in &sub_topology.sources {
            let first = *topics.entry(&source.topic).or_insert(second);
            if first != second {
                faults.push(TopologyFault::SharedSource { topic: source.topic.to_string(), first, second });
            }
        }
        for store in &sub_topology.stores {
            let first = *stores.entry(store.generation()).or_insert(second);
            if first != second {
                faults.push(TopologyFault::SharedStore { store: store.name.to_string(), first, second });
            }
        }
    }
}

fn check_changelogs(topology: &Topology, application_id: &str, faults: &mut Vec<TopologyFault>) {
    let stores = topology.sub_topologies.iter().flat_map(|sub_topology| &sub_topology.stores);
    let changelogs: BTreeMap<String, &str> = stores
        .filter(|store| !store.is_source_backed())
        .map(|store| (changelog_topic(application_id, &store.generation()), &*store.name))
        .collect();
    for (index, sub_topology) in topology.sub_topologies.iter().enumerate() {
        let sources = sub_topology.sources.iter().map(|source| ("source", source));
        let sinks = sub_topology.sinks.iter().map(|sink| ("sink", sink));
        for (what, binding) in sources.chain(sinks) {
            let (name, topic) = (binding.name.to_string(), binding.topic.to_string());
            if let Some(store) = changelogs.get(&*binding.topic) {
                let store = (*store).to_owned();
                faults.push(TopologyFault::Changelog { sub_topology: index, what, name, topic, store });
            } else if what == "sink" && is_reserved_topic(&topic) {
                faults.push(TopologyFault::ReservedSink { sub_topology: index, name, topic });
            }
        }
    }
}
