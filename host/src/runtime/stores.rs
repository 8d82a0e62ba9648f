//! Opens each store with the backend that the manifest chose. The state directory is taken, with its lock and its
//! identity, whatever the stores are, so that two hosts never share one.

use std::path::PathBuf;

use engine::state::memory::MemoryStoreProvider;
use engine::state::{StateStore, StoreError, StoreProvider};
use engine::topology::{StoreBackend, StoreSpec, TaskId};
use rocks::{RocksMemory, RocksOptions, RocksStoreProvider};

use crate::exit::StateDirectoryError;

/// The stores of an application, by backend.
pub struct Stores {
    memory: MemoryStoreProvider,
    rocks: RocksStoreProvider,
}

impl Stores {
    /// Takes the state directory. The stores on disk share the memory with those of others.
    ///
    /// # Errors
    /// When the directory is in use, cannot be written, belongs to another application or has a newer format.
    pub fn open(options: RocksOptions, memory: &RocksMemory) -> Result<Self, StateDirectoryError> {
        let rocks = RocksStoreProvider::open_within(options, memory).map_err(unusable)?;
        Ok(Self { memory: MemoryStoreProvider, rocks })
    }

    /// Checks that the stores follow the changelogs of this cluster.
    ///
    /// # Errors
    /// When they follow those of another one.
    pub fn check_cluster(&self, cluster_id: &str) -> Result<(), StateDirectoryError> {
        self.rocks.check_cluster(cluster_id).map_err(unusable)
    }

    /// The application's folder below `state.dir`.
    pub fn path(&self) -> PathBuf {
        self.rocks.path()
    }

    /// The name of this host among those of the application, which stays with the state directory.
    pub fn host_id(&self) -> &str {
        self.rocks.host_id()
    }

    fn provider(&self, store: &StoreSpec) -> &dyn StoreProvider {
        match store.backend {
            StoreBackend::InMemory => &self.memory,
            StoreBackend::Persistent => &self.rocks,
        }
    }
}

/// The error in words of the directory: it belongs to no store yet.
fn unusable(error: StoreError) -> StateDirectoryError {
    StateDirectoryError(match error {
        StoreError::Io { operation, detail, .. } => format!("cannot {operation} {detail}; see state.dir"),
        StoreError::NoSpace { detail, .. } => format!("no space left for the state directory: {detail}"),
        error => error.to_string(),
    })
}

impl StoreProvider for Stores {
    fn open(&self, task: TaskId, store: &StoreSpec) -> Result<Box<dyn StateStore>, StoreError> {
        self.provider(store).open(task, store)
    }

    fn wipe(&self, task: TaskId, store: &StoreSpec) -> Result<(), StoreError> {
        self.provider(store).wipe(task, store)
    }
}
