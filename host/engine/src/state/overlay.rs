//! The dirty overlay of one store, and the record cache that shares its table. A slot is either dirty (an
//! uncommitted write, with the timestamp for its changelog record) or clean (what the backend is known to hold).
//! Dirty slots are never evicted; the undo log can restore every slot as it was at a savepoint. Never calls the
//! backend: `TaskStore` does.

use std::collections::BTreeMap;
use std::ops::Bound;

use bytes::Bytes;

use super::slot_table::{NO_SLOT, SlotTable, hash};
use super::{KeyRange, Write};
use crate::record::Timestamp;

/// What one entry costs beside its key and value: slot, bucket and the two allocations. Counted so that bounds
/// hold for many tiny entries as well.
pub const ENTRY_OVERHEAD_BYTES: usize = 128;

/// `Slot::dirty_at` of a slot that is not in the list of dirty slots.
const CLEAN: u32 = u32::MAX;

/// `Slot::dirty_at` of a slot that holds nothing.
const FREE: u32 = u32::MAX - 1;

#[derive(Default)]
struct Slot {
    key: Bytes,
    /// `None`: deleted where dirty, known to be absent where clean.
    value: Option<Bytes>,
    timestamp: Timestamp,
    hash: u32,
    /// Position in `Overlay::dirty`, or `CLEAN`, or `FREE`.
    dirty_at: u32,
    /// The savepoint under which the slot's older content is already in the undo log.
    logged_under: u64,
    /// Second-chance bit of the eviction.
    referenced: bool,
}

impl Slot {
    fn bytes(&self) -> usize {
        self.key.len() + self.value.as_ref().map_or(0, Bytes::len) + ENTRY_OVERHEAD_BYTES
    }
}

/// What a slot held before a write.
enum Before {
    Unknown,
    Clean(Option<Bytes>),
    Dirty(Option<Bytes>, Timestamp),
}

struct Undo {
    slot: u32,
    before: Before,
}

struct Savepoint {
    undo_len: usize,
    serial: u64,
}

/// What the overlay knows of a key.
#[derive(Debug, PartialEq, Eq)]
pub enum Known<'a> {
    /// The value that reads must see; `None` when the key is deleted or absent.
    Value(Option<&'a Bytes>),
    /// Ask the backend.
    Unknown,
}

/// An uncommitted write, as its changelog record needs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DirtyEntry<'a> {
    pub key: &'a Bytes,
    /// `None` is a delete: a tombstone in the changelog.
    pub value: Option<&'a Bytes>,
    pub timestamp: Timestamp,
}

/// Uncommitted writes and cached clean entries of one store.
pub struct Overlay {
    slots: Vec<Slot>,
    free: Vec<u32>,
    table: SlotTable,
    /// Dirty slots in the order in which they became dirty.
    dirty: Vec<u32>,
    /// The dirty keys in order; built by the first scan after a commit, kept up to date until the next one.
    ordered: Option<BTreeMap<Bytes, u32>>,
    undo: Vec<Undo>,
    savepoints: Vec<Savepoint>,
    last_serial: u64,
    dirty_bytes: usize,
    clean_bytes: usize,
    cache_max_bytes: usize,
    /// Where the eviction goes on.
    hand: usize,
}

impl Overlay {
    /// An empty overlay whose clean entries may take `cache_max_bytes`; 0 keeps none.
    pub fn new(cache_max_bytes: usize) -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            table: SlotTable::new(),
            dirty: Vec::new(),
            ordered: None,
            undo: Vec::new(),
            savepoints: Vec::new(),
            last_serial: 0,
            dirty_bytes: 0,
            clean_bytes: 0,
            cache_max_bytes,
            hand: 0,
        }
    }

    /// Bytes of uncommitted writes, with `ENTRY_OVERHEAD_BYTES` for each.
    pub fn uncommitted_bytes(&self) -> usize {
        self.dirty_bytes
    }

    /// Bytes of clean entries, with `ENTRY_OVERHEAD_BYTES` for each.
    pub fn cached_bytes(&self) -> usize {
        self.clean_bytes
    }

    pub fn dirty_len(&self) -> usize {
        self.dirty.len()
    }

    pub fn is_clean(&self) -> bool {
        self.dirty.is_empty()
    }

    /// Sets the bound of the clean entries and evicts down to it.
    pub fn set_cache_max_bytes(&mut self, cache_max_bytes: usize) {
        self.cache_max_bytes = cache_max_bytes;
        self.evict();
    }

    fn find(&self, key: &[u8], key_hash: u32) -> u32 {
        self.table.find(key_hash, |slot| self.slots[slot as usize].key == key)
    }

    /// What is known of a key without asking the backend.
    pub fn get(&mut self, key: &[u8]) -> Known<'_> {
        match self.find(key, hash(key)) {
            NO_SLOT => Known::Unknown,
            slot => {
                let slot = &mut self.slots[slot as usize];
                slot.referenced = true;
                Known::Value(slot.value.as_ref())
            }
        }
    }

    /// Writes an entry; `None` deletes it. The last write of a key decides value and timestamp.
    pub fn put(&mut self, key: &[u8], value: Option<Bytes>, timestamp: Timestamp) {
        let key_hash = hash(key);
        let found = self.find(key, key_hash);
        let is_new = found == NO_SLOT;
        let slot = if is_new { self.add_slot(Bytes::copy_from_slice(key), key_hash) } else { found };
        let entry = &mut self.slots[slot as usize];
        let bytes_before = entry.bytes();
        let was_clean = entry.dirty_at == CLEAN;
        // The undo log takes the old value over, so that no write copies one.
        let old = std::mem::replace(&mut entry.value, value);
        if let Some(savepoint) = self.savepoints.last()
            && entry.logged_under != savepoint.serial
        {
            entry.logged_under = savepoint.serial;
            let before = match (is_new, was_clean) {
                (true, _) => Before::Unknown,
                (false, true) => Before::Clean(old),
                (false, false) => Before::Dirty(old, entry.timestamp),
            };
            self.undo.push(Undo { slot, before });
        }
        entry.timestamp = timestamp;
        entry.referenced = true;
        self.dirty_bytes += entry.bytes();
        if was_clean {
            if !is_new {
                self.clean_bytes -= bytes_before;
            }
            entry.dirty_at = self.dirty.len() as u32;
            self.dirty.push(slot);
            if let Some(ordered) = &mut self.ordered {
                ordered.insert(entry.key.clone(), slot);
            }
        } else {
            self.dirty_bytes -= bytes_before;
        }
    }

    /// Remembers what the backend answered for a key that was `Unknown`.
    pub fn cache(&mut self, key: &[u8], value: Option<Bytes>) {
        let bytes = key.len() + value.as_ref().map_or(0, Bytes::len) + ENTRY_OVERHEAD_BYTES;
        if bytes > self.cache_max_bytes {
            return;
        }
        let key_hash = hash(key);
        if self.find(key, key_hash) != NO_SLOT {
            return;
        }
        let slot = self.add_slot(Bytes::copy_from_slice(key), key_hash);
        self.slots[slot as usize].value = value;
        self.clean_bytes += bytes;
        self.evict();
    }

    /// Marks the state to which `rollback` returns. Savepoints nest.
    pub fn savepoint(&mut self) {
        self.last_serial += 1;
        self.savepoints.push(Savepoint { undo_len: self.undo.len(), serial: self.last_serial });
    }

    /// Undoes every write since the innermost savepoint and removes it. Without one, nothing happens.
    pub fn rollback(&mut self) {
        let Some(savepoint) = self.savepoints.pop() else { return };
        while self.undo.len() > savepoint.undo_len {
            if let Some(undo) = self.undo.pop() {
                self.undo_write(undo);
            }
        }
        self.evict();
    }

    /// Removes the innermost savepoint and keeps its writes.
    pub fn release(&mut self) {
        self.savepoints.pop();
        if self.savepoints.is_empty() {
            self.undo.clear();
        }
    }

    /// The uncommitted writes, each key once, in the order in which they first became dirty.
    pub fn dirty_entries(&self) -> impl Iterator<Item = DirtyEntry<'_>> {
        self.dirty.iter().map(|&slot| {
            let slot = &self.slots[slot as usize];
            DirtyEntry { key: &slot.key, value: slot.value.as_ref(), timestamp: slot.timestamp }
        })
    }

    /// Hands the uncommitted writes to `write`, without a copy of any. When it succeeds they become clean entries and
    /// every savepoint ends; when it fails nothing has changed.
    pub fn commit<E>(&mut self, write: impl FnOnce(&[Write]) -> Result<(), E>) -> Result<(), E> {
        let slots = &mut self.slots;
        let take = |&slot: &u32| {
            let entry = &mut slots[slot as usize];
            (std::mem::take(&mut entry.key), entry.value.take())
        };
        let writes: Vec<Write> = self.dirty.iter().map(take).collect();
        let written = write(&writes);
        for (&slot, (key, value)) in self.dirty.iter().zip(writes) {
            let entry = &mut self.slots[slot as usize];
            entry.key = key;
            entry.value = value;
        }
        if written.is_ok() {
            self.mark_committed();
        }
        written
    }

    fn mark_committed(&mut self) {
        for slot in std::mem::take(&mut self.dirty) {
            let entry = &mut self.slots[slot as usize];
            entry.dirty_at = CLEAN;
            self.clean_bytes += entry.bytes();
        }
        self.end_dirty();
        self.evict();
    }

    /// Drops the uncommitted writes and every savepoint; clean entries stay.
    pub fn abort(&mut self) {
        for slot in std::mem::take(&mut self.dirty) {
            self.remove_slot(slot);
        }
        self.end_dirty();
    }

    /// Drops the clean entries, for when the backend was written past the overlay.
    pub fn drop_clean(&mut self) {
        let bound = std::mem::replace(&mut self.cache_max_bytes, 0);
        self.evict();
        self.cache_max_bytes = bound;
    }

    /// The dirty entries of a range in key order (`next_back` for the reverse), deletes included.
    pub fn dirty_range(&mut self, range: KeyRange<'_>) -> impl DoubleEndedIterator<Item = DirtyEntry<'_>> {
        let (dirty, slots) = (&self.dirty, &self.slots);
        let ordered = self
            .ordered
            .get_or_insert_with(|| dirty.iter().map(|&slot| (slots[slot as usize].key.clone(), slot)).collect());
        // `BTreeMap::range` panics on a range that is the wrong way round.
        let bounds = if range.is_empty() { None } else { Some((range.lower, range.upper)) };
        let found = bounds.map(|bounds| ordered.range::<[u8], (Bound<&[u8]>, Bound<&[u8]>)>(bounds));
        found.into_iter().flatten().map(|(key, &slot)| {
            let slot = &slots[slot as usize];
            DirtyEntry { key, value: slot.value.as_ref(), timestamp: slot.timestamp }
        })
    }

    fn end_dirty(&mut self) {
        self.dirty.clear();
        self.dirty_bytes = 0;
        self.ordered = None;
        self.undo.clear();
        self.savepoints.clear();
    }

    fn undo_write(&mut self, undo: Undo) {
        let entry = &mut self.slots[undo.slot as usize];
        self.dirty_bytes -= entry.bytes();
        entry.logged_under = 0;
        if let Before::Dirty(value, timestamp) = undo.before {
            entry.value = value;
            entry.timestamp = timestamp;
            self.dirty_bytes += entry.bytes();
            return;
        }
        // The slot became dirty under this savepoint, and whatever became dirty after it is undone already.
        debug_assert_eq!(entry.dirty_at as usize + 1, self.dirty.len());
        self.dirty.pop();
        if let Some(ordered) = &mut self.ordered {
            ordered.remove(&entry.key);
        }
        entry.dirty_at = CLEAN;
        match undo.before {
            Before::Clean(value) => {
                entry.value = value;
                self.clean_bytes += entry.bytes();
            }
            _ => self.remove_slot(undo.slot),
        }
    }

    fn add_slot(&mut self, key: Bytes, key_hash: u32) -> u32 {
        let entry = Slot { key, hash: key_hash, dirty_at: CLEAN, ..Slot::default() };
        let slot = match self.free.pop() {
            Some(slot) => {
                self.slots[slot as usize] = entry;
                slot
            }
            None => {
                self.slots.push(entry);
                (self.slots.len() - 1) as u32
            }
        };
        self.table.insert(key_hash, slot);
        slot
    }

    /// Frees a slot; the caller has taken its bytes off the account.
    fn remove_slot(&mut self, slot: u32) {
        let freed = Slot { dirty_at: FREE, ..Slot::default() };
        let entry = std::mem::replace(&mut self.slots[slot as usize], freed);
        self.table.remove(entry.hash, slot);
        self.free.push(slot);
    }

    /// Evicts clean entries until they fit, giving each that was used since the last round a second chance.
    fn evict(&mut self) {
        while self.clean_bytes > self.cache_max_bytes {
            if self.hand >= self.slots.len() {
                self.hand = 0;
            }
            let slot = self.hand as u32;
            let entry = &mut self.slots[self.hand];
            self.hand += 1;
            if entry.dirty_at != CLEAN || std::mem::take(&mut entry.referenced) {
                continue;
            }
            self.clean_bytes -= entry.bytes();
            self.remove_slot(slot);
        }
    }
}

#[cfg(test)]
mod tests;
