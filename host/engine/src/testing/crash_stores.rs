//! `CrashStores`: the state directory of one simulated host. Stores survive a close whole and a crash as an older
//! prefix of their writes, never older than the last flush, as a disk store without a write-ahead log does. A store can
//! be open once only, each generation has a place of its own, the disk can be full, a store can turn out to be damaged,
//! and whoever drives the host may be asked before every write whether the process still lives.

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
    /// Its bytes are damaged: found out by whoever uses it next, and for good.
    damaged: bool,
}

/// Asked before every write with the task and the store, while nothing is locked: whether the process lives.
pub type MayWrite = dyn Fn(TaskId, &str) -> bool + Send + Sync;

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
    may_write: Option<Arc<MayWrite>>,
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

    /// Has this asked before every write from now on. A write of a dead process has no effect.
    pub fn ask_before_writes(&self, may_write: Arc<MayWrite>) {
        self.state().may_write = Some(may_write);
    }

    /// Damages one of the stores, if there is any: its next use fails until it is wiped. Returns which.
    pub fn damage_any(&self, seed: &mut Seed) -> Option<(TaskId, String)> {
        let mut state = self.state();
        let count = state.disks.len() as u64;
        let chosen = (count > 0).then(|| seed.below(count) as usize)?;
        let (place, disk) = state.disks.iter_mut().nth(chosen)?;
        disk.damaged = true;
        Some(place.clone())
    }

    /// Takes back all damage that nobody has met.
    pub fn repair(&self) {
        self.state().disks.values_mut().for_each(|disk| disk.damaged = false);
    }

    /// What each store has on the disk for good, damaged ones left out.
    pub fn durable_contents(&self) -> Vec<((TaskId, String), Content)> {
        let state = self.state();
        let sound = state.disks.iter().filter(|(_, disk)| !disk.damaged);
        sound.map(|(place, disk)| (place.clone(), disk.durable.clone())).collect()
    }

    /// What a generation of a store would hold after a clean close; `None` when it was never opened.
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
        let place = (task, store.generation().to_string());
        let disk = state.disks.entry(place.clone()).or_default();
        if disk.open {
            let path = format!("{task}/{}", store.name);
            return Err(StoreError::Locked { path, detail: "another thread has it open".to_owned() });
        }
        if disk.damaged {
            return Err(damaged(task, &store.name));
        }
        disk.open = true;
        let live = MemoryStore::with_content(disk.durable.clone());
        Ok(Box::new(CrashStore { stores: self.clone(), place, task, name: store.name.to_string(), live, crashes }))
    }

    fn wipe(&self, task: TaskId, store: &StoreSpec) -> Result<(), StoreError> {
        self.state().disks.remove(&(task, store.generation().to_string()));
        Ok(())
    }
}

fn damaged(task: TaskId, store: &str) -> StoreError {
    StoreError::Corrupt { store: store.to_owned(), task, detail: "the simulated disk has damaged it".to_owned() }
}

struct CrashStore {
    stores: CrashStores,
    /// Its task and its generation.
    place: (TaskId, String),
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
        state.disks.get_mut(&self.place).map(|disk| work(disk, full))
    }

    fn check_damage(&self) -> Result<(), StoreError> {
        match self.on_disk(|disk, _| disk.damaged) {
            Some(true) => Err(damaged(self.task, &self.name)),
            Some(false) | None => Ok(()),
        }
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
        self.check_damage()?;
        StateStore::get(&self.live, key)
    }

    fn get_many(&self, keys: &[&[u8]], found: &mut dyn FnMut(usize, Option<&[u8]>)) -> Result<(), StoreError> {
        self.check_damage()?;
        self.live.get_many(keys, found)
    }

    fn scan(&self, range: KeyRange<'_>, reverse: bool, visit: &mut Visit<'_>) -> Result<(), StoreError> {
        StateStore::scan(&self.live, range, reverse, visit)
    }

    fn write(&mut self, writes: &[Write], changelog_offset: Option<Offset>) -> Result<(), StoreError> {
        let may_write = self.stores.state().may_write.clone();
        if may_write.is_some_and(|may_write| !may_write(self.task, &self.name)) {
            return Err(StoreError::Io {
                store: self.name.clone(),
                task: self.task,
                operation: "write",
                detail: "this process has crashed".to_owned(),
            });
        }
        self.check_damage()?;
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
        self.check_damage()?;
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
