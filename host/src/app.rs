//! Binds what a module declares to what the manifest says: sources and sinks to topics, stores to backends; or makes
//! the topology of a manifest that has tables and no module. Pure; a name of the manifest that the module does not
//! declare is an error, never ignored.

use std::sync::Arc;

use engine::table::{self, TableSpec};
use engine::topology::{
    PartitionCounts, StoreBackend, StoreChangelog, StoreSpec, SubTopology, TopicBinding, Topology, is_reserved_topic,
};
use sandbox::{Declaration, StoreDeclaration, TopicDeclaration};

use crate::config::{ConfigError, Manifest, StoreSettings, TableSettings, nearest};
use crate::rest::writes::Target;

/// The topology of an application.
///
/// # Errors
/// Names the key of the manifest that binds something which the module does not declare.
pub fn bind(manifest: &Manifest, declaration: &Declaration) -> Result<Topology, ConfigError> {
    let parts = &declaration.sub_topologies;
    let topics = |declared: fn(&sandbox::SubTopologyDeclaration) -> &[TopicDeclaration]| -> Vec<&str> {
        parts.iter().flat_map(declared).map(|topic| topic.name.as_str()).collect()
    };
    let stores: Vec<&str> = parts.iter().flat_map(|part| &part.stores).map(|store| store.name.as_str()).collect();
    check_store_count(manifest, stores.len())?;
    check_names(manifest, "sources", manifest.sources.keys(), &topics(|part| &part.sources))?;
    check_names(manifest, "sinks", manifest.sinks.keys(), &topics(|part| &part.sinks))?;
    check_names(manifest, "stores", manifest.stores.keys(), &stores)?;
    check_write_sources(manifest, parts)?;
    check_reserved_topics(manifest, parts)?;
    let sub_topologies = parts
        .iter()
        .map(|part| SubTopology {
            sources: part
                .sources
                .iter()
                .map(|source| topic(&source.name, manifest.sources.get(&source.name)))
                .collect(),
            stores: part.stores.iter().map(|declared| store(declared, manifest.stores.get(&declared.name))).collect(),
            sinks: part.sinks.iter().map(|sink| topic(&sink.name, manifest.sinks.get(&sink.name))).collect(),
        })
        .collect();
    Ok(Topology { sub_topologies, dead_letter_topic: dead_letter_topic(manifest) })
}

fn dead_letter_topic(manifest: &Manifest) -> Option<Arc<str>> {
    manifest.optional_text("errors.dead.letter.queue.topic.name").map(Arc::from)
}

/// The topology of a manifest with tables, in the order of their names.
pub fn tables(manifest: &Manifest) -> Topology {
    let table = |(name, settings): (&String, &TableSettings)| TableSpec {
        store: name.as_str().into(),
        topic: settings.topic.as_str().into(),
        backend: backend(settings.in_memory),
        key_format: settings.key_format.as_str().into(),
        value_format: settings.value_format.as_str().into(),
    };
    table::topology(&manifest.tables.iter().map(table).collect::<Vec<_>>())
}

fn backend(in_memory: bool) -> StoreBackend {
    if in_memory { StoreBackend::InMemory } else { StoreBackend::Persistent }
}

/// A source or sink; without a binding the topic has its name.
fn topic(name: &str, bound: Option<&String>) -> TopicBinding {
    TopicBinding { name: name.into(), topic: bound.map_or(name, String::as_str).into() }
}

fn store(declared: &StoreDeclaration, settings: Option<&StoreSettings>) -> StoreSpec {
    let settings = settings.cloned().unwrap_or_default();
    StoreSpec {
        name: declared.name.as_str().into(),
        backend: backend(settings.in_memory),
        changelog: if settings.logging_enabled { StoreChangelog::Internal } else { StoreChangelog::Off },
        version: declared.version,
        key_format: declared.key_format.as_str().into(),
        value_format: declared.value_format.as_str().into(),
        older_generation_of: None,
    }
}

/// The stores that take writes, each with the topic of the source that its manifest names.
/// `record_bytes_max` says what a topic takes of one record.
///
/// # Errors
/// The first of `record_bytes_max`.
pub fn write_targets<E>(
    manifest: &Manifest,
    topology: &Topology,
    counts: &PartitionCounts,
    mut record_bytes_max: impl FnMut(&str) -> Result<Option<usize>, E>,
) -> Result<Vec<Target>, E> {
    let target = &|part: &SubTopology, store: &StoreSpec| {
        let settings = manifest.stores.get(&*store.name)?;
        let source = settings.write_source.as_deref()?;
        let source = part.sources.iter().find(|one| &*one.name == source)?;
        Some(Target {
            store: store.name.to_string(),
            topic: Arc::clone(&source.topic),
            partitions: counts.of(&source.topic),
            conditional: settings.conditional_writes,
            record_bytes_max: None,
        })
    };
    let parts = topology.sub_topologies.iter();
    let targets = parts.flat_map(|part| part.stores.iter().filter_map(move |store| target(part, store)));
    targets.map(|target| Ok(Target { record_bytes_max: record_bytes_max(&target.topic)?, ..target })).collect()
}

/// A module chooses the names of its sources and sinks, and a name without a binding is the topic itself: it must not
/// choose itself another application's state. Reading that is for the operator to allow, topic by topic; writing it is
/// not, since whoever restores from the topic would take what it finds for its own.
fn check_reserved_topics(manifest: &Manifest, parts: &[sandbox::SubTopologyDeclaration]) -> Result<(), ConfigError> {
    const WHY: &str = "topics that end in -changelog, -repartition or -sandbar-versions, or begin with __, are the state \
                       of applications or of the cluster";
    let module = manifest.text("module");
    for part in parts {
        for sink in &part.sinks {
            let topic = topic(&sink.name, manifest.sinks.get(&sink.name)).topic;
            if is_reserved_topic(&topic) {
                let (name, key) = (&sink.name, format!("sinks.{}", sink.name));
                let message = format!(
                    "{key}.topic: the module {module} would write into the topic {topic} by its sink {name}; {WHY}, and no \
                     module may write them: bind the sink to another topic"
                );
                return Err(manifest.fault_below(&key, message));
            }
        }
        for source in &part.sources {
            let (name, key) = (&source.name, format!("sources.{}", source.name));
            let bound = manifest.sources.get(name);
            if bound.is_none() && is_reserved_topic(name) {
                let message = format!(
                    "{key}.topic: the module {module} would read the topic {name} by its source of that name; {WHY}: where \
                     it is to read it, name the topic with this key"
                );
                return Err(manifest.fault_below(&key, message));
            }
            let written = |store: &StoreDeclaration| {
                manifest.stores.get(&store.name).is_some_and(|settings| settings.write_source.as_ref() == Some(name))
            };
            let topic = topic(name, bound).topic;
            if let Some(store) = part.stores.iter().find(|store| written(store)).filter(|_| is_reserved_topic(&topic)) {
                let key = format!("stores.{}.write", store.name);
                let message =
                    format!("{key}.source: the topic of the source {name} is {topic}; {WHY}: clients may not write it");
                return Err(manifest.fault_below(&key, message));
            }
        }
    }
    Ok(())
}

/// Each store is a topic with all its partitions, a folder and write buffers for each task; `describe` is the module's
/// word.
fn check_store_count(manifest: &Manifest, stores: usize) -> Result<(), ConfigError> {
    const KEY: &str = "processor.stores.max.count";
    let limit = manifest.count(KEY);
    if stores as u64 <= limit {
        return Ok(());
    }
    let module = manifest.text("module");
    Err(manifest.fault_at(
        KEY,
        format!(
            "the module {module} declares {stores} stores, more than the limit of {limit}; raise it with the key {KEY}"
        ),
    ))
}

/// A store's writes go to a source of the part of the topology that has the store.
fn check_write_sources(manifest: &Manifest, parts: &[sandbox::SubTopologyDeclaration]) -> Result<(), ConfigError> {
    for part in parts {
        let sources: Vec<&str> = part.sources.iter().map(|source| source.name.as_str()).collect();
        for store in &part.stores {
            let Some(settings) = manifest.stores.get(&store.name) else { continue };
            let key = format!("stores.{}.write", store.name);
            match settings.write_source.as_deref() {
                Some(source) if !sources.contains(&source) => {
                    let known = sources.join(", ");
                    let message = format!(
                        "{key}.source: expected a source whose records reach the store ({known}), found {source}"
                    );
                    return Err(manifest.fault_below(&key, message));
                }
                None if settings.conditional_writes => {
                    let message = format!("{key}.conditional: it means nothing without {key}.source");
                    return Err(manifest.fault_below(&key, message));
                }
                _ => {}
            }
        }
    }
    Ok(())
}

fn check_names<'a>(
    manifest: &Manifest,
    table: &str,
    names: impl Iterator<Item = &'a String>,
    declared: &[&str],
) -> Result<(), ConfigError> {
    for name in names {
        if declared.contains(&name.as_str()) {
            continue;
        }
        let known = if declared.is_empty() { "none".to_owned() } else { declared.join(", ") };
        let hint = match nearest(name, declared.iter().copied()) {
            Some(meant) => format!("; did you mean {table}.{meant}?"),
            None => String::new(),
        };
        let message = format!("{table}.{name}: the module does not declare it; it declares {known}{hint}");
        return Err(manifest.fault_below(&format!("{table}.{name}"), message));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
