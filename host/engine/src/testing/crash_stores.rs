//! `CrashStores`: the state directory of one simulated host. Stores survive a close whole and a crash as an older
//! prefix of their writes, never older than the last flush, as a disk store without a write-ahead log does. A store can be
//! open once only, and the disk can be full.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::Seed;
use crate::record::Offset;
use crate::state::memory::{Content, MemoryStore};
use crate::state::{KeyRange, ReadView, StateStore, StoreError, StoreProvider, Visit, Write};
use crate::topology::{StoreSpec, TaskId};

/// One batch of writes with the offset it sets.
type Batch = (Vec<Write>, Option<Offset>);

/// One store as the disk has it.
#[derive(Default)]
struct Disk {
    durable: Content,
    /// Written since, the oldest first.
    unflushed: Vec<Batch>,
    open: bool,
}

impl Disk {
    fn flush(&mut self, batches: usize) {
        for (writes, offset) in self.unflushed.drain(..batches) {
            self.durable.apply(&writes, offset);
        }
    }
}

#[derive(Default)]
struct State {
    disks: BTreeMap<(TaskId, String), Disk>,
    full: bool,
    /// How often the host has crashed; stores opened before are dead.
    crashes: u64,
}

/// The stores of one host. Its clones are the same directory.
#[derive(Clone, Default)]
pub struct CrashStores {
    state: Arc<Mutex<State>>,
}

impl CrashStores {
    /// An empty state directory.
    pub fn new() -> Self {
        Self::default()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The process died: every store keeps what was flushed and some of what was written after it. Stores that are
    /// still open can be dropped, and change nothing any more.
    pub fn crash(&self, seed: &mut Seed) {
        let mut state = self.state();
        state.crashes += 1;
        state.full = false;
        for disk in state.disks.values_mut() {
            let kept = seed.below(disk.unflushed.len() as u64 + 1) as usize;
            disk.flush(kept);
            disk.unflushed.clear();
            disk.open = false;
        }
    }

    /// Removes everything, as an operator would; no store is open.
    pub fn remove_all(&self) {
        self.state().disks.clear();
    }

    /// From now on every write fails for want of space, or works again.
    pub fn fill_disk(&self, full: bool) {
        self.state().full = full;
    }

    /// What a store would hold after a clean close; `None` when it was never opened.
    pub fn content(&self, task: TaskId, store: &str) -> Option<Content> {
        let state = self.state();
        let disk = state.disks.get(&(task, store.to_owned()))?;
        let mut content = disk.durable.clone();
        disk.unflushed.iter().for_each(|(writes, offset)| content.apply(writes, *offset));
        Some(content)
    }
}

impl StoreProvider for CrashStores {
    fn open(&self, task: TaskId, store: &StoreSpec) -> Result<Box<dyn StateStore>, StoreError> {
        let mut state = self.state();
        let crashes = state.crashes;
        let disk = state.disks.entry((task, store.name.to_string())).or_default();
        if disk.open {
            let path = format!("{task}/{}", store.name);
            return Err(StoreError::Locked { path, detail: "another thread has it open".to_owned() });
        }
        disk.open = true;
        let live = MemoryStore::with_content(disk.durable.clone());
        Ok(Box::new(CrashStore { stores: self.clone(), task, name: store.name.to_string(), live, crashes }))
    }

    fn wipe(&self, task: TaskId, store: &StoreSpec) -> Result<(), StoreError> {
        self.state().disks.remove(&(task, store.name.to_string()));
        Ok(())
    }
}

struct CrashStore {
    stores: CrashStores,
    task: TaskId,
    name: String,
    live: MemoryStore,
    /// How often the host had crashed when it was opened.
    crashes: u64,
}

impl CrashStore {
    /// Works on the disk, unless the process has died meanwhile.
    fn on_disk<T>(&self, work: impl FnOnce(&mut Disk, bool) -> T) -> Option<T> {
        let mut state = self.stores.state();
        let full = state.full;
        if state.crashes != self.crashes {
            return None;
        }
        state.disks.get_mut(&(self.task, self.name.clone())).map(|disk| work(disk, full))
    }
}

impl Drop for CrashStore {
    fn drop(&mut self) {
        self.on_disk(|disk, _| {
            disk.flush(disk.unflushed.len());
            disk.open = false;
        });
    }
}

impl StateStore for CrashStore {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        StateStore::get(&self.live, key)
    }

    fn get_many(&self, keys: &[&[u8]], found: &mut dyn FnMut(usize, Option<&[u8]>)) -> Result<(), StoreError> {
        self.live.get_many(keys, found)
    }

    fn scan(&self, range: KeyRange<'_>, reverse: bool, visit: &mut Visit<'_>) -> Result<(), StoreError> {
        StateStore::scan(&self.live, range, reverse, visit)
    }

    fn write(&mut self, writes: &[Write], changelog_offset: Option<Offset>) -> Result<(), StoreError> {
        let written = self.on_disk(|disk, full| {
            if full {
                return false;
            }
            disk.unflushed.push((writes.to_vec(), changelog_offset));
            true
        });
        match written {
            Some(false) => Err(StoreError::NoSpace {
                store: self.name.clone(),
                task: self.task,
                detail: "the simulated disk is full".to_owned(),
            }),
            Some(true) | None => self.live.write(writes, changelog_offset),
        }
    }

    fn changelog_offset(&self) -> Result<Option<Offset>, StoreError> {
        StateStore::changelog_offset(&self.live)
    }

    fn flush(&mut self) -> Result<(), StoreError> {
        self.on_disk(|disk, _| disk.flush(disk.unflushed.len()));
        Ok(())
    }

    fn read_view(&self) -> Arc<dyn ReadView> {
        self.live.read_view()
    }

    fn approximate_entries(&self) -> u64 {
        StateStore::approximate_entries(&self.live)
    }
}

#[cfg(test)]
mod tests;
