//! Opens each store with the backend that the manifest chose. The state directory is taken, with its lock and its
//! identity, whatever the stores are, so that two hosts never share one.

use engine::state::memory::MemoryStoreProvider;
use engine::state::{StateStore, StoreError, StoreProvider};
use engine::topology::{StoreBackend, StoreSpec, TaskId};
use rocks::{RocksOptions, RocksStoreProvider};

/// The stores of an application, by backend.
pub struct Stores {
    memory: MemoryStoreProvider,
    rocks: RocksStoreProvider,
}

impl Stores {
    /// Takes the state directory.
    ///
    /// # Errors
    /// When the directory is in use, belongs to another application or has a newer format.
    pub fn open(options: RocksOptions) -> Result<Self, StoreError> {
        Ok(Self { memory: MemoryStoreProvider, rocks: RocksStoreProvider::open(options)? })
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

impl StoreProvider for Stores {
    fn open(&self, task: TaskId, store: &StoreSpec) -> Result<Box<dyn StateStore>, StoreError> {
        self.provider(store).open(task, store)
    }

    fn wipe(&self, task: TaskId, store: &StoreSpec) -> Result<(), StoreError> {
        self.provider(store).wipe(task, store)
    }
}
