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
        for store in part.stores.iter().filter(|store| store.has_generations() && !store.is_older_generation()) {
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
