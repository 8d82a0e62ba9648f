//! Generations of a store: the rows of one version of its schema, in a changelog and a folder of their own. A migration
//! reads one and writes the next, so that the older rows stay as they were. Names them, and declares the older ones
//! that a migration still has to read.

use std::sync::Arc;

use super::{StoreSpec, Topology};

/// An older generation that rows are still to be taken from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct OlderGeneration {
    pub sub_topology: u32,
    /// The name of the store.
    pub store: Arc<str>,
    /// The version of the schema of its rows.
    pub version: u32,
}

impl OlderGeneration {
    /// The name by which it is declared and queried: `votes@1`. No store of a processor is named like that, since it is
    /// no part of a topic's name.
    pub fn name(&self) -> Arc<str> {
        format!("{}@{}", self.store, self.version).into()
    }
}

impl StoreSpec {
    /// What its changelog and its folder are named after: the store, and from version 2 of the schema on that too
    /// (`votes-v2`). The first has the name that Kafka Streams would give it.
    pub fn generation(&self) -> Arc<str> {
        let store = self.older_generation_of.as_ref().unwrap_or(&self.name);
        match self.version {
            0 | 1 => Arc::clone(store),
            version => format!("{store}-v{version}").into(),
        }
    }

    /// Whether it holds rows that a migration reads, and that no processor sees.
    pub fn is_older_generation(&self) -> bool {
        self.older_generation_of.is_some()
    }

    /// Whether a migration can write it: others write what its source topic backs, and nobody an older generation.
    pub fn has_generations(&self) -> bool {
        !self.is_source_backed() && !self.is_older_generation()
    }
}

impl Topology {
    /// The same with the older generations of its stores declared behind the others of their sub-topologies, so that
    /// these keep their places. Those of stores that it does not have are left out.
    #[must_use]
    pub fn with_older_generations(&self, generations: &[OlderGeneration]) -> Self {
        let mut topology = self.clone();
        for generation in generations {
            let Some(part) = topology.sub_topologies.get_mut(generation.sub_topology as usize) else { continue };
            let Some(newer) = part.stores.iter().find(|store| store.name == generation.store) else { continue };
            let older = StoreSpec {
                name: generation.name(),
                version: generation.version,
                older_generation_of: Some(Arc::clone(&generation.store)),
                // How the older rows are to be seen is not known any more.
                key_format: newer.key_format.clone(),
                value_format: "bytes".into(),
                ..newer.clone()
            };
            if !part.stores.iter().any(|store| store.name == older.name) {
                part.stores.push(older);
            }
        }
        topology
    }
}
