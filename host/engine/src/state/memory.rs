//! The in-memory store: an ordered map with its changelog offset, shared with its read views. It holds what was
//! written since it was opened and nothing else, so after a close or a crash its changelog fills it again. A read
//! view holds the lock for one look-up, or for one scan, which its caller keeps to a page.

use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use bytes::Bytes;

use super::{KeyRange, ReadView, StateStore, StoreError, StoreProvider, Visit, Write};
use crate::record::Offset;
use crate::topology::{StoreSpec, TaskId};

/// What a store holds at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Content {
    pub entries: BTreeMap<Bytes, Bytes>,
    pub changelog_offset: Option<Offset>,
}

impl Content {
    /// Applies writes in order, then the offset where there is one.
    pub fn apply(&mut self, writes: &[Write], changelog_offset: Option<Offset>) {
        for (key, value) in writes {
            match value {
                Some(value) => self.entries.insert(key.clone(), value.clone()),
                None => self.entries.remove(key),
            };
        }
        if changelog_offset.is_some() {
            self.changelog_offset = changelog_offset;
        }
    }

    fn scan(&self, range: KeyRange<'_>, reverse: bool, visit: &mut Visit<'_>) {
        // `BTreeMap::range` panics on a range that is the wrong way round.
        if range.is_empty() {
            return;
        }
        let entries = self.entries.range::<[u8], (Bound<&[u8]>, Bound<&[u8]>)>((range.lower, range.upper));
        let mut visit = |(key, value): (&Bytes, &Bytes)| visit(key, value);
        // The flow only says that the visitor has had enough.
        let _: ControlFlow<()> =
            if reverse { entries.rev().try_for_each(&mut visit) } else { { entries }.try_for_each(&mut visit) };
    }
}

/// An open in-memory store; its clone is a read view of the same content.
#[derive(Debug, Clone, Default)]
pub struct MemoryStore {
    content: Arc<RwLock<Content>>,
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// A store that begins with this content.
    pub fn with_content(content: Content) -> Self {
        Self { content: Arc::new(RwLock::new(content)) }
    }

    /// A copy of everything, for tests and checks.
    pub fn content(&self) -> Content {
        self.read().clone()
    }

    // `Content::apply` cannot stop half-way but for lack of memory, so a poisoned lock is no sign of damage.
    fn read(&self) -> RwLockReadGuard<'_, Content> {
        self.content.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl StateStore for MemoryStore {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        Ok(self.read().entries.get(key).cloned())
    }

    fn get_many(&self, keys: &[&[u8]], found: &mut dyn FnMut(usize, Option<&[u8]>)) -> Result<(), StoreError> {
        let content = self.read();
        for (index, &key) in keys.iter().enumerate() {
            found(index, content.entries.get(key).map(Bytes::as_ref));
        }
        Ok(())
    }

    fn scan(&self, range: KeyRange<'_>, reverse: bool, visit: &mut Visit<'_>) -> Result<(), StoreError> {
        self.read().scan(range, reverse, visit);
        Ok(())
    }

    fn write(&mut self, writes: &[Write], changelog_offset: Option<Offset>) -> Result<(), StoreError> {
        let mut content = self.content.write().unwrap_or_else(PoisonError::into_inner);
        content.apply(writes, changelog_offset);
        Ok(())
    }

    fn changelog_offset(&self) -> Result<Option<Offset>, StoreError> {
        Ok(self.read().changelog_offset)
    }

    fn flush(&mut self) -> Result<(), StoreError> {
        Ok(())
    }

    fn read_view(&self) -> Arc<dyn ReadView> {
        Arc::new(self.clone())
    }

    fn approximate_entries(&self) -> u64 {
        self.read().entries.len() as u64
    }
}

impl ReadView for MemoryStore {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        StateStore::get(self, key)
    }

    fn scan(&self, range: KeyRange<'_>, reverse: bool, visit: &mut Visit<'_>) -> Result<(), StoreError> {
        StateStore::scan(self, range, reverse, visit)
    }

    fn changelog_offset(&self) -> Result<Option<Offset>, StoreError> {
        StateStore::changelog_offset(self)
    }

    fn approximate_entries(&self) -> u64 {
        StateStore::approximate_entries(self)
    }
}

/// Opens in-memory stores, always empty.
#[derive(Debug, Clone, Copy, Default)]
pub struct MemoryStoreProvider;

impl StoreProvider for MemoryStoreProvider {
    fn open(&self, _task: TaskId, _store: &StoreSpec) -> Result<Box<dyn StateStore>, StoreError> {
        Ok(Box::new(MemoryStore::new()))
    }

    fn wipe(&self, _task: TaskId, _store: &StoreSpec) -> Result<(), StoreError> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
