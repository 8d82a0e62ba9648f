//! Which tasks of an application still have rows of an older schema, by what the group has committed.

use std::collections::BTreeMap;

use crate::broker::OffsetAndMetadata;
use crate::record::TopicPartition;
use crate::task::offset_metadata;
use crate::topology::Topology;
use crate::topology::generations::OlderGeneration;

/// An older generation that tasks may have yet to take rows from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Found {
    pub generation: OlderGeneration,
    /// The commits say so. Otherwise they say nothing of the store, and version 1 is assumed: whether there ever was
    /// such a store, its changelog tells.
    pub is_certain: bool,
}

/// The older generations that tasks of `topology` have yet to take rows from, by what the group has committed.
pub fn older_generations<'a>(
    topology: &Topology,
    committed: impl IntoIterator<Item = (&'a TopicPartition, &'a OffsetAndMetadata)>,
) -> Vec<Found> {
    let mut found: BTreeMap<OlderGeneration, bool> = BTreeMap::new();
    for (partition, committed) in committed {
        let Some(task) = topology.task_of(partition) else { continue };
        let Some(part) = topology.sub_topology(task.sub_topology) else { continue };
        let committed = offset_metadata::decode(&committed.metadata);
        for store in part.stores.iter().filter(|store| store.has_generations()) {
            let schema = committed.schemas.get(&*store.name).copied();
            let version = schema.unwrap_or(1);
            if version < store.version {
                let generation =
                    OlderGeneration { sub_topology: task.sub_topology, store: store.name.clone(), version };
                let is_certain = schema.is_some() || committed.changelogs.contains_key(&*store.name);
                *found.entry(generation).or_default() |= is_certain;
            }
        }
    }
    found.into_iter().map(|(generation, is_certain)| Found { generation, is_certain }).collect()
}

/// Whether tasks can go on with the rows that `topology`, an older one, has: by what the group has committed, nothing
/// has changed since newer rows were taken from them.
pub fn has_current_rows<'a>(
    topology: &Topology,
    committed: impl IntoIterator<Item = (&'a TopicPartition, &'a OffsetAndMetadata)>,
) -> bool {
    let is_current = |(partition, committed): (&TopicPartition, &OffsetAndMetadata)| {
        let Some(part) = topology.task_of(partition).and_then(|task| topology.sub_topology(task.sub_topology)) else {
            return true;
        };
        let known = offset_metadata::decode(&committed.metadata);
        part.stores.iter().filter(|store| store.has_generations()).all(|store| {
            let is_newer = known.schemas.get(&*store.name).is_some_and(|schema| *schema > store.version);
            let is_source = known.schema_sources.get(&*store.name) == Some(&store.version);
            !is_newer || (is_source && known.schema_since == Some(committed.offset))
        })
    };
    committed.into_iter().all(is_current)
}
