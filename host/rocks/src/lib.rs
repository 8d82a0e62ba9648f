//! The engine's state store on RocksDB: one database per task and store, without a write-ahead log, the changelog
//! offset always in the same batch as the data, so that what a crash leaves is an older state with the offset that
//! belongs to it. Owns the state directory: its lock, its identity, the removal of stores. Reads no changelog and no
//! topic; a store that follows a source topic has that topic's name in its path.

mod bulk;
mod directory;
mod error;
mod open_stores;
mod options;
mod store;

use std::path::PathBuf;
use std::sync::Arc;

use engine::state::{StateStore, StoreError, StoreProvider};
use engine::topology::{StoreSpec, TaskId};

use directory::StateDirectory;
use options::SharedOptions;
use store::RocksStore;

pub use directory::FORMAT_VERSION;
pub use options::{RocksMemory, RocksOptions};

/// Opens the stores of one application below one state directory. As long as it lives, no other process can.
pub struct RocksStoreProvider {
    directory: StateDirectory,
    shared: Arc<SharedOptions>,
}

impl RocksStoreProvider {
    /// Takes the directory `<state.dir>/<application id>`: creates it when there is none, locks it, checks that it
    /// belongs to this application and to a format that this version reads, and removes what an interrupted wipe left.
    ///
    /// # Errors
    /// `Locked` when another process holds it, `Foreign` when it belongs to something else, `Io` for the rest; nothing
    /// is changed then.
    pub fn open(options: RocksOptions) -> Result<Self, StoreError> {
        let directory = StateDirectory::open(&options)?;
        Ok(Self { directory, shared: Arc::new(SharedOptions::new(&options)) })
    }

    /// As `open`, with stores that share their memory with those of other applications.
    ///
    /// # Errors
    /// As `open`.
    pub fn open_within(options: RocksOptions, memory: &RocksMemory) -> Result<Self, StoreError> {
        let directory = StateDirectory::open(&options)?;
        Ok(Self { directory, shared: Arc::new(SharedOptions::within(&options, memory)) })
    }

    /// Checks that the directory belongs to this cluster, and notes it where no cluster was known yet.
    ///
    /// # Errors
    /// `Foreign` when its stores follow the changelogs of another cluster.
    pub fn check_cluster(&self, cluster_id: &str) -> Result<(), StoreError> {
        self.directory.check_identity(Some(cluster_id))
    }

    /// `<state.dir>/<application id>`.
    pub fn path(&self) -> PathBuf {
        self.directory.path().to_path_buf()
    }

    /// A random name that was given to the directory when it was made, and stays with it.
    pub fn host_id(&self) -> &str {
        self.directory.host_id()
    }

    /// Bytes that all stores together hold in memory, those that share it included: block cache, with the write buffers
    /// charged to it.
    pub fn memory_usage_bytes(&self) -> u64 {
        self.shared.memory_usage_bytes()
    }
}

impl StoreProvider for RocksStoreProvider {
    fn open(&self, task: TaskId, store: &StoreSpec) -> Result<Box<dyn StateStore>, StoreError> {
        let path = self.directory.store_path(task, store)?;
        let bulk_folder = self.directory.scratch_path(task, &store.generation())?;
        Ok(Box::new(RocksStore::open(&path, bulk_folder, task, store, Arc::clone(&self.shared))?))
    }

    fn wipe(&self, task: TaskId, store: &StoreSpec) -> Result<(), StoreError> {
        self.directory.wipe(task, store)
    }
}
