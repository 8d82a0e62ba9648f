//! The write-back cache of one store for the time of one call into the module. It holds encoded bytes only: keys and
//! values in one buffer, found through a small hash table. Reads that the host answered and writes that it does not
//! know yet live in the same slots; a journal of the running record undoes its writes. Nothing outlives the call, since
//! the host may roll a call back after it returned.

use std::ops::Range;

use crate::bindings::sandbar::processor::types::{Columns, NullableColumns};
use crate::host::Host;

/// Above this many buffered bytes the writes go to the host at the next record boundary, so that a batch of large
/// values does not fill the module's memory.
const BUFFER_LIMIT_BYTES: usize = 1 << 20;

/// Where a slot's value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Value {
    /// Not asked for yet; the host knows.
    Unknown,
    Absent,
    Present {
        start: u32,
        end: u32,
    },
}

#[derive(Debug, Clone, Copy)]
struct Slot {
    hash: u64,
    key_start: u32,
    key_end: u32,
    value: Value,
    /// Written here and not yet sent to the host.
    dirty: bool,
    timestamp: i64,
    /// The last record that wrote it, to journal a slot once a record.
    written_by: u64,
}

/// What a slot was before the running record wrote it.
#[derive(Debug, Clone, Copy)]
struct Undo {
    slot: u32,
    value: Value,
    dirty: bool,
    timestamp: i64,
}

/// See the module's head. Slots and table positions are `u32`: a wasm memory cannot hold more.
#[derive(Debug, Default)]
pub(crate) struct StoreCache {
    buffer: Vec<u8>,
    slots: Vec<Slot>,
    /// Open addressing: 0 is empty, otherwise slot index + 1. The length is a power of two.
    table: Vec<u32>,
    journal: Vec<Undo>,
    record: u64,
    /// The slot that was asked for last: a write mostly follows a read of the same key.
    last: usize,
}

/// A multiply-rotate hash (the scheme of FxHash) over 8-byte words. Collisions chosen by a sender can only slow one
/// batch, which the host's deadline bounds.
fn hash(key: &[u8]) -> u64 {
    const FACTOR: u64 = 0x517c_c1b7_2722_0a95;
    let mix = |state: u64, word: u64| (state.rotate_left(5) ^ word).wrapping_mul(FACTOR);
    let mut state = mix(0, key.len() as u64);
    let mut words = key.chunks_exact(8);
    for word in &mut words {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(word);
        state = mix(state, u64::from_le_bytes(bytes));
    }
    let rest = words.remainder();
    if !rest.is_empty() {
        let mut bytes = [0; 8];
        bytes[..rest.len()].copy_from_slice(rest);
        state = mix(state, u64::from_le_bytes(bytes));
    }
    state ^ (state >> 32)
}

fn range(start: u32, end: u32) -> Range<usize> {
    start as usize..end as usize
}

impl StoreCache {
    /// The slot of a key, made when there is none.
    fn slot(&mut self, key: &[u8]) -> usize {
        if let Some(slot) = self.slots.get(self.last)
            && &self.buffer[range(slot.key_start, slot.key_end)] == key
        {
            return self.last;
        }
        self.last = self.find_or_insert(key);
        self.last
    }

    fn find_or_insert(&mut self, key: &[u8]) -> usize {
        if (self.slots.len() + 1) * 2 > self.table.len() {
            self.grow();
        }
        let hash = hash(key);
        let mask = self.table.len() - 1;
        let mut position = hash as usize & mask;
        loop {
            match self.table[position] {
                0 => break,
                entry => {
                    let slot = &self.slots[entry as usize - 1];
                    if slot.hash == hash && &self.buffer[range(slot.key_start, slot.key_end)] == key {
                        return entry as usize - 1;
                    }
                }
            }
            position = (position + 1) & mask;
        }
        let key_start = self.buffer.len() as u32;
        self.buffer.extend_from_slice(key);
        self.slots.push(Slot {
            hash,
            key_start,
            key_end: self.buffer.len() as u32,
            value: Value::Unknown,
            dirty: false,
            timestamp: 0,
            written_by: 0,
        });
        self.table[position] = self.slots.len() as u32;
        self.slots.len() - 1
    }

    fn grow(&mut self) {
        let length = (self.table.len() * 2).max(64);
        self.table.clear();
        self.table.resize(length, 0);
        for (index, slot) in self.slots.iter().enumerate() {
            let mut position = slot.hash as usize & (length - 1);
            while self.table[position] != 0 {
                position = (position + 1) & (length - 1);
            }
            self.table[position] = index as u32 + 1;
        }
    }

    fn append(&mut self, bytes: &[u8]) -> Value {
        let start = self.buffer.len() as u32;
        self.buffer.extend_from_slice(bytes);
        Value::Present { start, end: self.buffer.len() as u32 }
    }

    /// The value of a key, asked from the host once a call.
    pub(crate) fn get(&mut self, host: &dyn Host, store: u32, key: &[u8]) -> Option<&[u8]> {
        let index = self.slot(key);
        if self.slots[index].value == Value::Unknown {
            self.slots[index].value = match host.get(store, key) {
                Some(bytes) => self.append(&bytes),
                None => Value::Absent,
            };
        }
        match self.slots[index].value {
            Value::Present { start, end } => Some(&self.buffer[range(start, end)]),
            Value::Absent | Value::Unknown => None,
        }
    }

    /// Writes a key. `encode` appends the value's bytes and says whether there is one; its error leaves no trace.
    pub(crate) fn put<E>(
        &mut self,
        key: &[u8],
        timestamp: i64,
        encode: impl FnOnce(&mut Vec<u8>) -> Result<bool, E>,
    ) -> Result<(), E> {
        let index = self.slot(key);
        let start = self.buffer.len();
        let value = match encode(&mut self.buffer) {
            Ok(true) => Value::Present { start: start as u32, end: self.buffer.len() as u32 },
            Ok(false) => Value::Absent,
            Err(error) => {
                self.buffer.truncate(start);
                return Err(error);
            }
        };
        let slot = &mut self.slots[index];
        if slot.written_by != self.record {
            let Slot { value, dirty, timestamp, .. } = *slot;
            self.journal.push(Undo { slot: index as u32, value, dirty, timestamp });
            slot.written_by = self.record;
        }
        slot.value = value;
        slot.dirty = true;
        slot.timestamp = timestamp;
        Ok(())
    }

    /// Starts a record: what is written from now on can be undone.
    pub(crate) fn begin_record(&mut self) {
        self.journal.clear();
        self.record += 1;
    }

    /// Undoes the writes of the running record.
    pub(crate) fn undo_record(&mut self) {
        for undo in self.journal.drain(..) {
            let slot = &mut self.slots[undo.slot as usize];
            slot.value = undo.value;
            slot.dirty = undo.dirty;
            slot.timestamp = undo.timestamp;
        }
    }

    pub(crate) fn is_over_limit(&self) -> bool {
        self.buffer.len() > BUFFER_LIMIT_BYTES
    }

    /// Fetches the values of all these keys with one call.
    pub(crate) fn prefetch<'k>(&mut self, host: &dyn Host, store: u32, keys: impl Iterator<Item = &'k [u8]>) {
        let known = self.slots.len();
        for key in keys {
            self.slot(key);
        }
        let count = self.slots.len() - known;
        if count == 0 {
            return;
        }
        let mut wanted = Columns::with_capacity(count, self.buffer.len());
        for slot in &self.slots[known..] {
            wanted.push(&self.buffer[range(slot.key_start, slot.key_end)]);
        }
        let values = host.get_many(store, &wanted);
        let base = self.buffer.len() as u32;
        self.buffer.extend_from_slice(&values.bytes);
        let mut start = base;
        let mut nulls = values.nulls.iter().copied().peekable();
        for (index, (&end, slot)) in values.ends.iter().zip(&mut self.slots[known..]).enumerate() {
            slot.value = if nulls.next_if_eq(&(index as u32)).is_some() {
                Value::Absent
            } else {
                Value::Present { start, end: base + end }
            };
            start = base + end;
        }
    }

    /// Sends the writes of all finished records to the host; those of the running record stay here, undoable.
    pub(crate) fn flush_finished(&mut self, host: &dyn Host, store: u32) {
        let mut writes = Writes::with_capacity(self.slots.len());
        for undo in &mut self.journal {
            if undo.dirty {
                let slot = &self.slots[undo.slot as usize];
                writes.push(&self.buffer, slot, undo.value, undo.timestamp);
                undo.dirty = false;
            }
        }
        for slot in &mut self.slots {
            if slot.dirty && slot.written_by != self.record {
                writes.push(&self.buffer, slot, slot.value, slot.timestamp);
                slot.dirty = false;
            }
        }
        writes.send(host, store);
    }

    /// Sends all writes to the host, those of the running record too: after it, or where it cannot be undone alone.
    pub(crate) fn flush(&mut self, host: &dyn Host, store: u32) {
        self.begin_record();
        self.flush_finished(host, store);
    }

    /// Forgets everything; unsent writes are lost.
    pub(crate) fn clear(&mut self) {
        if self.slots.len() * 8 < self.table.len() {
            // A small batch after a large one: emptying its few positions beats wiping the whole table.
            let mask = self.table.len() - 1;
            for (index, slot) in self.slots.iter().enumerate() {
                let mut position = slot.hash as usize & mask;
                while self.table[position] != index as u32 + 1 {
                    position = (position + 1) & mask;
                }
                self.table[position] = 0;
            }
        } else {
            self.table.fill(0);
        }
        self.slots.clear();
        self.buffer.clear();
        self.journal.clear();
    }

    /// The running record's own writes for which `wanted` holds, in key order, `None` where it deleted.
    pub(crate) fn record_writes(&self, wanted: impl Fn(&[u8]) -> bool) -> Vec<(Vec<u8>, Option<Vec<u8>>)> {
        let mut writes: Vec<_> = self
            .journal
            .iter()
            .map(|undo| &self.slots[undo.slot as usize])
            .filter(|slot| wanted(&self.buffer[range(slot.key_start, slot.key_end)]))
            .map(|slot| {
                let value = match slot.value {
                    Value::Present { start, end } => Some(self.buffer[range(start, end)].to_vec()),
                    Value::Absent | Value::Unknown => None,
                };
                (self.buffer[range(slot.key_start, slot.key_end)].to_vec(), value)
            })
            .collect();
        writes.sort_unstable();
        writes
    }
}

/// The columns of one `put-many`.
struct Writes {
    keys: Columns,
    values: NullableColumns,
    timestamps: Vec<i64>,
}

impl Writes {
    fn with_capacity(items: usize) -> Self {
        Self {
            keys: Columns::with_capacity(items, 0),
            values: NullableColumns::with_capacity(items, 0),
            timestamps: Vec::with_capacity(items),
        }
    }

    fn push(&mut self, buffer: &[u8], slot: &Slot, value: Value, timestamp: i64) {
        self.keys.push(&buffer[range(slot.key_start, slot.key_end)]);
        self.values.push(match value {
            Value::Present { start, end } => Some(&buffer[range(start, end)]),
            Value::Absent | Value::Unknown => None,
        });
        self.timestamps.push(timestamp);
    }

    fn send(self, host: &dyn Host, store: u32) {
        if self.keys.len() > 0 {
            host.put_many(store, &self.keys, &self.values, &self.timestamps);
        }
    }
}

#[cfg(test)]
mod tests;
