//! The interface `state`: the task's stores. Columns from the guest are checked before the engine sees them; what it
//! reads is counted value by value before it is copied, and pages are made in pieces, so that the host never holds much
//! more than the budget allows.

use std::ops::Bound;

use engine::columns::{Columns, ColumnsError, NullableColumns};
use engine::processor::{Page, ProcessorError};
use engine::state::KeyRange;
use wasmtime::Result;

use crate::bindings::{state, types};
use crate::guest_log::escape;
use crate::task_state::{Reading, TaskState};

/// Entries that one scan of the engine returns.
const SCAN_PIECE_ENTRIES: usize = 256;
/// A page ends early above this size, with `more` set.
const PAGE_MAX_BYTES: usize = 8 << 20;

impl state::Host for TaskState {
    fn open(&mut self, name: String) -> Result<Result<u32, String>> {
        let context = self.context("state.open")?;
        match context.store(&name) {
            Ok(store) => {
                self.opened(store);
                Ok(Ok(store.0))
            }
            Err(engine::state::StoreError::Undeclared { declared, .. }) => {
                let name = escape(&name, 100);
                Ok(Err(format!("store {name} is not declared; declared are: {declared}")))
            }
            Err(error) => Err(ProcessorError::Store(error).into()),
        }
    }

    fn get(&mut self, store: u32, key: Vec<u8>) -> Result<Option<Vec<u8>>> {
        let (context, store) = self.store("state.get", store)?;
        let value = context.get(store, &key).map_err(ProcessorError::Store)?;
        self.budget.operations(1, &self.limits)?;
        let Some(value) = value else { return Ok(None) };
        self.budget.read(value.len(), &self.limits)?;
        Ok(Some(value.into()))
    }

    fn get_many(&mut self, store: u32, keys: types::Columns) -> Result<types::NullableColumns> {
        let keys = Columns::from(keys);
        keys.validate().map_err(|error| malformed("state.get-many", "keys", &error))?;
        self.budget.operations(keys.len(), &self.limits)?;
        let Reading { context, store, budget, limits } = self.reading("state.get-many", store)?;
        // A larger answer than the instance's memory has no place there, nor one that 32 bits cannot count.
        let (mut answer_bytes, memory_max_bytes) = (0_u64, limits.memory_max_bytes.min(u64::from(u32::MAX)));
        let take = |bytes: usize| {
            budget.read(bytes, limits)?;
            answer_bytes = answer_bytes.saturating_add(bytes as u64);
            if answer_bytes > memory_max_bytes {
                return Err(ProcessorError::Memory { limit_bytes: limits.memory_max_bytes });
            }
            Ok(())
        };
        Ok(context.get_many(store, &keys, take)?.into())
    }

    fn put(&mut self, store: u32, key: Vec<u8>, value: Option<Vec<u8>>) -> Result<()> {
        self.budget.operations(1, &self.limits)?;
        self.budget.write(key.len() + value.as_ref().map_or(0, Vec::len), &self.limits)?;
        let (context, store) = self.store("state.put", store)?;
        context.put(store, &key, value.as_deref(), None).map_err(ProcessorError::Store)?;
        Ok(())
    }

    fn put_many(
        &mut self,
        store: u32,
        keys: types::Columns,
        values: types::NullableColumns,
        timestamps: Vec<i64>,
    ) -> Result<()> {
        const NAME: &str = "state.put-many";
        let (keys, values) = (Columns::from(keys), NullableColumns::from(values));
        keys.validate().map_err(|error| malformed(NAME, "keys", &error))?;
        values.validate().map_err(|error| malformed(NAME, "values", &error))?;
        let count = |what, found| ColumnsError::Count { what, expected: keys.len(), found };
        if values.len() != keys.len() {
            return Err(malformed(NAME, "values", &count("one value per key", values.len())).into());
        }
        if !timestamps.is_empty() && timestamps.len() != keys.len() {
            return Err(malformed(NAME, "timestamps", &count("one timestamp per key", timestamps.len())).into());
        }
        if let Some(position) = timestamps.iter().position(|&timestamp| timestamp < 0) {
            let found = timestamps[position];
            let message = format!("{NAME}: timestamp {found} of item {position} is negative");
            return Err(ProcessorError::Output(message).into());
        }
        self.budget.operations(keys.len(), &self.limits)?;
        self.budget.write(keys.bytes.len() + values.bytes.len(), &self.limits)?;
        let (context, store) = self.store(NAME, store)?;
        context.put_many(store, &keys, &values, &timestamps).map_err(ProcessorError::Store)?;
        Ok(())
    }

    fn range(
        &mut self,
        store: u32,
        lower: state::Bound,
        upper: state::Bound,
        reverse: bool,
        limit: u32,
    ) -> Result<state::Page> {
        let (mut lower, mut upper) = (bound(lower), bound(upper));
        self.pages("state.range", store, limit, |state, piece, last| {
            if let Some(last) = last {
                let next = Bound::Excluded(last.to_vec());
                if reverse { upper = next } else { lower = next }
            }
            let (context, store) = state.store("state.range", store)?;
            let range = KeyRange { lower: as_slice(&lower), upper: as_slice(&upper) };
            Ok(context.range(store, range, reverse, piece).map_err(ProcessorError::Store)?)
        })
    }

    fn prefix(
        &mut self,
        store: u32,
        prefix: Vec<u8>,
        after: Option<Vec<u8>>,
        reverse: bool,
        limit: u32,
    ) -> Result<state::Page> {
        self.pages("state.prefix", store, limit, |state, piece, last| {
            let (context, store) = state.store("state.prefix", store)?;
            let after = last.or(after.as_deref());
            Ok(context.prefix(store, &prefix, after, reverse, piece).map_err(ProcessorError::Store)?)
        })
    }

    fn approximate_entries(&mut self, store: u32) -> Result<u64> {
        let (context, store) = self.store("state.approximate-entries", store)?;
        Ok(context.approximate_entries(store))
    }
}

impl TaskState {
    /// Collects a page of at most `limit` entries in pieces; `scan(piece, last)` reads up to `piece` entries after
    /// the key `last`.
    fn pages(
        &mut self,
        import: &'static str,
        store: u32,
        limit: u32,
        mut scan: impl FnMut(&mut Self, usize, Option<&[u8]>) -> Result<Page>,
    ) -> Result<state::Page> {
        // A wrong handle is an error also where nothing is read.
        self.store(import, store)?;
        let limit = limit as usize;
        let mut page = Page::default();
        while page.keys.len() < limit {
            let wanted = SCAN_PIECE_ENTRIES.min(limit - page.keys.len());
            let last = page.keys.len().checked_sub(1).map(|item| page.keys.get(item));
            let piece = scan(self, wanted, last)?;
            self.budget.scan(piece.keys.len(), &self.limits)?;
            self.budget.read(piece.keys.bytes.len() + piece.values.bytes.len(), &self.limits)?;
            // An empty piece that promises more would loop for ever.
            let more = piece.more && !piece.keys.is_empty();
            if page.keys.is_empty() {
                page = piece;
            } else {
                piece.keys.iter().for_each(|key| page.keys.push(key));
                piece.values.iter().for_each(|value| page.values.push(value));
            }
            page.more = more;
            if !more || page.keys.bytes.len() + page.values.bytes.len() >= PAGE_MAX_BYTES {
                break;
            }
        }
        Ok(state::Page { keys: page.keys.into(), values: page.values.into(), more: page.more })
    }
}

fn bound(bound: state::Bound) -> Bound<Vec<u8>> {
    match bound {
        state::Bound::Unbounded => Bound::Unbounded,
        state::Bound::Included(key) => Bound::Included(key),
        state::Bound::Excluded(key) => Bound::Excluded(key),
    }
}

fn as_slice(bound: &Bound<Vec<u8>>) -> Bound<&[u8]> {
    bound.as_ref().map(Vec::as_slice)
}

fn malformed(import: &str, what: &str, error: &ColumnsError) -> ProcessorError {
    ProcessorError::Output(format!("{import}: {what}: {error}"))
}
