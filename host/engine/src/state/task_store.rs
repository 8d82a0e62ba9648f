//! `TaskStore`: a task's partition of one store, as the task and its processor see it: the overlay in front of the
//! backend. Reads merge both; writes go to the overlay only; `commit` is the one way into the backend while a task
//! is running. Never produces a changelog record and never decides when to commit.

use std::ops::{Bound, ControlFlow};
use std::sync::Arc;

use bytes::Bytes;

use super::overlay::{DirtyEntry, Known, Overlay};
use super::{KeyRange, Page, ReadView, StateStore, StoreError, Write, prefix_end};
use crate::columns::{Columns, NullableColumns};
use crate::record::{Offset, Timestamp};
use crate::topology::StoreSpec;

/// Where a page is cut even when its limit is not reached, so that one call never copies a whole store.
pub const PAGE_MAX_BYTES: usize = 8 << 20;

/// Keys for which the backend is asked at once.
const BACKEND_PIECE_KEYS: usize = 64;

/// One store of one task.
pub struct TaskStore {
    spec: StoreSpec,
    overlay: Overlay,
    backend: Box<dyn StateStore>,
    cache_hits: u64,
    cache_misses: u64,
    /// What the changelog takes of an entry, key and value together.
    entry_max_bytes: usize,
    /// The bytes of an entry that it would not take, written since the last savepoint.
    too_large: Option<usize>,
}

impl TaskStore {
    /// Wraps an opened store. `cache_max_bytes` bounds its clean entries (its share of `statestore.cache.max.bytes`).
    pub fn new(spec: StoreSpec, backend: Box<dyn StateStore>, cache_max_bytes: usize) -> Self {
        Self {
            spec,
            overlay: Overlay::new(cache_max_bytes),
            backend,
            cache_hits: 0,
            cache_misses: 0,
            entry_max_bytes: usize::MAX,
            too_large: None,
        }
    }

    /// Sets what the changelog takes of an entry, key and value together.
    pub fn set_entry_max_bytes(&mut self, entry_max_bytes: usize) {
        self.entry_max_bytes = entry_max_bytes;
    }

    pub fn entry_max_bytes(&self) -> usize {
        self.entry_max_bytes
    }

    /// The size of an entry that is larger, written since the last savepoint, and the bound.
    pub fn too_large(&self) -> Option<(usize, usize)> {
        self.too_large.map(|bytes| (bytes, self.entry_max_bytes))
    }

    pub fn spec(&self) -> &StoreSpec {
        &self.spec
    }

    pub fn get(&mut self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        if let Known::Value(value) = self.overlay.get(key) {
            self.cache_hits += 1;
            return Ok(value.cloned());
        }
        self.cache_misses += 1;
        let value = self.backend.get(key)?;
        self.overlay.cache(key, value.clone());
        Ok(value)
    }

    /// The values of `keys` in their order; the backend is asked for those that are not in memory. `take` is called
    /// with the bytes of each value before that is copied, in no certain order; its error ends the call, so that a
    /// short list of keys with large values never makes a larger answer than it allows.
    ///
    /// # Errors
    /// What the backend or `take` says.
    pub fn get_many<E: From<StoreError>>(
        &mut self,
        keys: &Columns,
        mut take: impl FnMut(usize) -> Result<(), E>,
    ) -> Result<NullableColumns, E> {
        let mut values = NullableColumns::default();
        values.ends.reserve(keys.len());
        // All keys up to the first unknown one need no second look.
        for (index, key) in keys.iter().enumerate() {
            match self.overlay.get(key) {
                Known::Value(value) => {
                    take(value.map_or(0, Bytes::len))?;
                    values.push(value.map(Bytes::as_ref));
                }
                Known::Unknown => {
                    self.cache_hits += index as u64;
                    return self.get_rest(keys, index, values, take);
                }
            }
        }
        self.cache_hits += keys.len() as u64;
        Ok(values)
    }

    fn get_rest<E: From<StoreError>>(
        &mut self,
        keys: &Columns,
        first_unknown: usize,
        mut values: NullableColumns,
        mut take: impl FnMut(usize) -> Result<(), E>,
    ) -> Result<NullableColumns, E> {
        // What is shared with the overlay costs nothing here.
        let mut rest: Vec<Option<Bytes>> = vec![None; keys.len() - first_unknown];
        let mut unknown: Vec<(&[u8], usize)> = Vec::new();
        for (place, value_there) in rest.iter_mut().enumerate() {
            let key = keys.get(first_unknown + place);
            match self.overlay.get(key) {
                Known::Value(value) => {
                    take(value.map_or(0, Bytes::len))?;
                    *value_there = value.cloned();
                }
                Known::Unknown => unknown.push((key, place)),
            }
        }
        self.cache_hits += (rest.len() - unknown.len()) as u64;
        self.cache_misses += unknown.len() as u64;
        // The backend gets each key once, in its own order, and few at a time: it may hold all that it is asked for.
        unknown.sort_unstable();
        let same: Vec<&[(&[u8], usize)]> = unknown.chunk_by(|left, right| left.0 == right.0).collect();
        for piece in same.chunks(BACKEND_PIECE_KEYS) {
            let asked: Vec<&[u8]> = piece.iter().map(|same| same[0].0).collect();
            let mut taken = Ok(());
            self.backend.get_many(&asked, &mut |index, value| {
                for _ in piece[index] {
                    taken = std::mem::replace(&mut taken, Ok(())).and_then(|()| take(value.map_or(0, <[u8]>::len)));
                }
                if taken.is_ok() {
                    let value = value.map(Bytes::copy_from_slice);
                    piece[index].iter().for_each(|&(_, place)| rest[place].clone_from(&value));
                }
            })?;
            taken?;
        }
        rest.iter().for_each(|value| values.push(value.as_deref()));
        for same in same {
            self.overlay.cache(same[0].0, rest[same[0].1].take());
        }
        Ok(values)
    }

    /// Writes an entry, `None` deletes it. `timestamp` is that of the changelog record.
    pub fn put(&mut self, key: &[u8], value: Option<&[u8]>, timestamp: Timestamp) {
        let bytes = key.len() + value.map_or(0, <[u8]>::len);
        if bytes > self.entry_max_bytes {
            self.too_large = Some(bytes);
        }
        self.overlay.put(key, value.map(Bytes::copy_from_slice), timestamp);
    }

    /// At most `limit` entries of a range, in key order or backwards, at most about `PAGE_MAX_BYTES`.
    pub fn range(&mut self, range: KeyRange<'_>, reverse: bool, limit: usize) -> Result<Page, StoreError> {
        let mut page = PageBuilder::new(limit);
        if range.is_empty() {
            return Ok(page.finish());
        }
        if self.overlay.is_clean() {
            self.backend.scan(range, reverse, &mut |key, value| page.offer(key, value))?;
            return Ok(page.finish());
        }
        let dirty = self.overlay.dirty_range(range);
        if reverse {
            merge(&*self.backend, range, true, dirty.rev(), &mut page)?;
        } else {
            merge(&*self.backend, range, false, dirty, &mut page)?;
        }
        Ok(page.finish())
    }

    /// At most `limit` entries whose key starts with `prefix`, after the key `after` in the order asked.
    pub fn prefix(
        &mut self,
        prefix: &[u8],
        after: Option<&[u8]>,
        reverse: bool,
        limit: usize,
    ) -> Result<Page, StoreError> {
        let end = prefix_end(prefix);
        let range = KeyRange::of_prefix(prefix, end.as_deref());
        let range = match after {
            Some(after) => range.after(after, reverse),
            None => range,
        };
        self.range(range, reverse, limit)
    }

    /// A guess at the number of entries; uncommitted ones are not counted.
    pub fn approximate_entries(&self) -> u64 {
        self.backend.approximate_entries()
    }

    /// Marks the state to which `rollback` returns. Savepoints nest.
    pub fn savepoint(&mut self) {
        self.too_large = None;
        self.overlay.savepoint();
    }

    /// Undoes the writes since the innermost savepoint and removes it.
    pub fn rollback(&mut self) {
        self.overlay.rollback();
    }

    /// Removes the innermost savepoint and keeps its writes.
    pub fn release(&mut self) {
        self.overlay.release();
    }

    /// The uncommitted writes for the changelog: each key once, in the order in which they became dirty.
    pub fn dirty_entries(&self) -> impl Iterator<Item = DirtyEntry<'_>> {
        self.overlay.dirty_entries()
    }

    /// Whether anything is uncommitted.
    pub fn is_dirty(&self) -> bool {
        !self.overlay.is_clean()
    }

    pub fn uncommitted_bytes(&self) -> usize {
        self.overlay.uncommitted_bytes()
    }

    pub fn cached_bytes(&self) -> usize {
        self.overlay.cached_bytes()
    }

    /// Look-ups that memory answered and those that the backend had to answer, since the store was opened.
    pub fn cache_hits_and_misses(&self) -> (u64, u64) {
        (self.cache_hits, self.cache_misses)
    }

    /// Gives the store another share of `statestore.cache.max.bytes`.
    pub fn set_cache_max_bytes(&mut self, cache_max_bytes: usize) {
        self.overlay.set_cache_max_bytes(cache_max_bytes);
    }

    /// Moves the uncommitted writes into the backend, with the changelog offset that follows their records, in one
    /// batch. Called once the changelog records and the source offsets are committed (R3). After an error the
    /// writes are still uncommitted: the same call may be tried again.
    pub fn commit(&mut self, changelog_offset: Option<Offset>) -> Result<(), StoreError> {
        if self.overlay.is_clean() && changelog_offset.is_none() {
            return Ok(());
        }
        let backend = &mut self.backend;
        self.overlay.commit(|writes| backend.write(writes, changelog_offset))
    }

    /// Drops the uncommitted writes and every savepoint.
    pub fn abort(&mut self) {
        self.overlay.abort();
    }

    /// Applies changelog records past the overlay, for restore and standby. The store has no uncommitted writes.
    pub fn restore(&mut self, writes: &[Write], changelog_offset: Offset) -> Result<(), StoreError> {
        debug_assert!(self.overlay.is_clean(), "restore into store {} with uncommitted writes", self.spec.name);
        self.overlay.drop_clean();
        self.backend.write(writes, Some(changelog_offset))
    }

    /// The next changelog offset to restore from; `None` for a new store.
    pub fn changelog_offset(&self) -> Result<Option<Offset>, StoreError> {
        self.backend.changelog_offset()
    }

    /// Says that a long restore follows, during which nobody reads.
    pub fn begin_bulk(&mut self) -> Result<(), StoreError> {
        self.backend.begin_bulk()
    }

    /// The restore is over. After an error the same call may be tried again.
    pub fn end_bulk(&mut self) -> Result<(), StoreError> {
        self.backend.end_bulk()
    }

    /// Makes what is committed durable.
    pub fn flush(&mut self) -> Result<(), StoreError> {
        self.backend.flush()
    }

    /// A view of the committed state for queries.
    pub fn read_view(&self) -> Arc<dyn ReadView> {
        self.backend.read_view()
    }

    /// Drops what is uncommitted and gives the backend back, for wiping or handing on.
    pub fn into_backend(self) -> (StoreSpec, Box<dyn StateStore>) {
        (self.spec, self.backend)
    }
}

/// Fills a page up to its limits.
pub(crate) struct PageBuilder {
    page: Page,
    limit: usize,
    bytes_max: usize,
}

impl PageBuilder {
    pub(crate) fn new(limit: usize) -> Self {
        Self { page: Page::default(), limit, bytes_max: PAGE_MAX_BYTES }
    }

    /// Another bound for keys and values together; the entry that passes it is the last.
    pub(crate) fn bytes_max(self, bytes_max: usize) -> Self {
        Self { bytes_max, ..self }
    }

    /// Notes that there may be more than what was offered.
    pub(crate) fn cut(&mut self) {
        self.page.more = true;
    }

    pub(crate) fn finish(self) -> Page {
        self.page
    }

    /// Takes an entry, or notes that there is more.
    pub(crate) fn offer(&mut self, key: &[u8], value: &[u8]) -> ControlFlow<()> {
        let bytes = self.page.keys.bytes.len() + self.page.values.bytes.len();
        if self.page.keys.len() >= self.limit || bytes >= self.bytes_max {
            self.page.more = true;
            return ControlFlow::Break(());
        }
        self.page.keys.push(key);
        self.page.values.push(value);
        ControlFlow::Continue(())
    }
}

/// Merges dirty entries, in the order of the scan, over the entries of the backend.
fn merge<'a>(
    backend: &dyn StateStore,
    range: KeyRange<'_>,
    reverse: bool,
    dirty: impl Iterator<Item = DirtyEntry<'a>>,
    page: &mut PageBuilder,
) -> Result<(), StoreError> {
    let mut dirty = dirty.peekable();
    let mut ended = false;
    backend.scan(range, reverse, &mut |key, value| {
        while let Some(entry) = dirty.next_if(|entry| precedes_or_equals(entry.key, key, reverse)) {
            let flow = match entry.value {
                Some(value) => page.offer(entry.key, value),
                None => ControlFlow::Continue(()),
            };
            ended |= flow.is_break();
            // The dirty entry stands for the backend's one.
            if ended || entry.key == key {
                return flow;
            }
        }
        let flow = page.offer(key, value);
        ended |= flow.is_break();
        flow
    })?;
    while !ended {
        let Some(entry) = dirty.next() else { break };
        if let Some(value) = entry.value {
            ended = page.offer(entry.key, value).is_break();
        }
    }
    Ok(())
}

fn precedes_or_equals(left: &[u8], right: &[u8], reverse: bool) -> bool {
    if reverse { left >= right } else { left <= right }
}

impl<'a> KeyRange<'a> {
    /// Every key.
    pub const ALL: Self = Self { lower: Bound::Unbounded, upper: Bound::Unbounded };

    /// The keys that start with `prefix`; `end` is `prefix_end(prefix)`.
    pub fn of_prefix(prefix: &'a [u8], end: Option<&'a [u8]>) -> Self {
        Self { lower: Bound::Included(prefix), upper: end.map_or(Bound::Unbounded, Bound::Excluded) }
    }

    /// The part of the range that follows the key `after` in the order asked.
    pub fn after(mut self, after: &'a [u8], reverse: bool) -> Self {
        if reverse {
            let narrower = match self.upper {
                Bound::Unbounded => true,
                Bound::Included(upper) | Bound::Excluded(upper) => after <= upper,
            };
            if narrower {
                self.upper = Bound::Excluded(after);
            }
        } else {
            let narrower = match self.lower {
                Bound::Unbounded => true,
                Bound::Included(lower) | Bound::Excluded(lower) => after >= lower,
            };
            if narrower {
                self.lower = Bound::Excluded(after);
            }
        }
        self
    }

    /// Whether no key can be in the range, for example because it is the wrong way round.
    pub fn is_empty(&self) -> bool {
        match (self.lower, self.upper) {
            (Bound::Unbounded, _) => self.upper == Bound::Excluded(&[]),
            (_, Bound::Unbounded) => false,
            (Bound::Included(lower), Bound::Included(upper)) => lower > upper,
            (Bound::Included(lower) | Bound::Excluded(lower), Bound::Included(upper) | Bound::Excluded(upper)) => {
                lower >= upper
            }
        }
    }

    /// Whether the key is in the range.
    pub fn contains(&self, key: &[u8]) -> bool {
        let above = match self.lower {
            Bound::Unbounded => true,
            Bound::Included(lower) => key >= lower,
            Bound::Excluded(lower) => key > lower,
        };
        above
            && match self.upper {
                Bound::Unbounded => true,
                Bound::Included(upper) => key <= upper,
                Bound::Excluded(upper) => key < upper,
            }
    }
}

#[cfg(test)]
mod tests;
