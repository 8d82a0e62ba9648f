//! A folder for the time of a test, and short ways to open stores in it.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use engine::state::{StateStore, StoreProvider, Write};
use engine::topology::{StoreBackend, StoreChangelog, StoreSpec, TaskId};
use rocks::{RocksOptions, RocksStoreProvider};

pub const TASK: TaskId = TaskId { sub_topology: 0, partition: 3 };
pub const APPLICATION: &str = "carrier-count";

/// Removed with everything in it when it is dropped.
pub struct Folder(PathBuf);

static NUMBER: AtomicU64 = AtomicU64::new(0);

impl Folder {
    pub fn new(stem: &str) -> Self {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("sandbar-rocks-{stem}-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a temporary folder");
        Folder(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    pub fn options(&self) -> RocksOptions {
        RocksOptions::new(&self.0, APPLICATION)
    }

    pub fn provider(&self) -> RocksStoreProvider {
        RocksStoreProvider::open(self.options()).expect("the state directory")
    }

    pub fn store_path(&self, store: &str) -> PathBuf {
        self.0.join(APPLICATION).join(TASK.to_string()).join("rocksdb").join(store)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

pub fn spec(name: &str) -> StoreSpec {
    StoreSpec {
        name: name.into(),
        backend: StoreBackend::Persistent,
        changelog: StoreChangelog::Internal,
        version: 1,
        key_format: "utf8".into(),
        value_format: "utf8".into(),
        older_generation_of: None,
    }
}

pub fn open(provider: &RocksStoreProvider, name: &str) -> Box<dyn StateStore> {
    provider.open(TASK, &spec(name)).expect("open the store")
}

pub fn put(key: &str, value: &str) -> Write {
    (Bytes::copy_from_slice(key.as_bytes()), Some(Bytes::copy_from_slice(value.as_bytes())))
}

/// `count` writes, `key-i` to a value of some length that begins with `i`.
pub fn many(count: usize) -> Vec<Write> {
    (0..count).map(|i| put(&format!("key-{i:06}"), &format!("{i}-{}", "x".repeat(80)))).collect()
}
