//! `ProcessorContext`: what a call may touch, as one owned value that is moved into the call and back.
//! To be filled in: stores behind their overlays, schedule requests, times and config.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;

use crate::columns::{Columns, NullableColumns};
use crate::record::Timestamp;
use crate::state::{KeyRange, StoreError};
use crate::topology::TaskId;

/// Index of a store in the declaration of its sub-topology.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreIndex(pub u32);

/// Identifies a schedule within its task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ScheduleId(pub u32);

/// What drives a schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PunctuationType {
    StreamTime,
    WallClockTime,
}

/// A schedule change that a call asked for; takes effect when the call succeeds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ScheduleRequest {
    Add { id: ScheduleId, interval_ms: u64, kind: PunctuationType },
    Cancel(ScheduleId),
}

/// What a call may touch. Reads see the writes of the running call.
pub struct ProcessorContext {
    pub task: TaskId,
    pub application_id: Arc<str>,
    /// The highest timestamp seen before the running call.
    pub stream_time: Option<Timestamp>,
    /// The wall clock at the start of the running call.
    pub wall_clock_ms: Timestamp,
    pub config: Arc<BTreeMap<String, String>>,
}

/// A page of a range: entries in the order asked; `more` when the limit ended it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    pub keys: Columns,
    pub values: Columns,
    pub more: bool,
}

#[allow(unused_variables)]
impl ProcessorContext {
    /// The store with this name; `Undeclared` names those that exist.
    pub fn store(&self, name: &str) -> Result<StoreIndex, StoreError> {
        todo!()
    }

    pub fn get(&mut self, store: StoreIndex, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        todo!()
    }

    pub fn get_many(&mut self, store: StoreIndex, keys: &Columns) -> Result<NullableColumns, StoreError> {
        todo!()
    }

    /// Writes one entry; the changelog record gets `timestamp`, the stream time where that is `None`.
    pub fn put(
        &mut self,
        store: StoreIndex,
        key: &[u8],
        value: Option<&[u8]>,
        timestamp: Option<Timestamp>,
    ) -> Result<(), StoreError> {
        todo!()
    }

    /// Writes many entries in order. `timestamps` is empty or has one item per key. The caller has validated the
    /// columns and their counts.
    pub fn put_many(
        &mut self,
        store: StoreIndex,
        keys: &Columns,
        values: &NullableColumns,
        timestamps: &[Timestamp],
    ) -> Result<(), StoreError> {
        todo!()
    }

    pub fn range(
        &mut self,
        store: StoreIndex,
        range: KeyRange<'_>,
        reverse: bool,
        limit: usize,
    ) -> Result<Page, StoreError> {
        todo!()
    }

    /// Entries whose key starts with `prefix`, after the key `after` in the order asked.
    pub fn prefix(
        &mut self,
        store: StoreIndex,
        prefix: &[u8],
        after: Option<&[u8]>,
        reverse: bool,
        limit: usize,
    ) -> Result<Page, StoreError> {
        let _: Bound<()> = Bound::Unbounded;
        todo!()
    }

    pub fn approximate_entries(&self, store: StoreIndex) -> u64 {
        todo!()
    }

    /// Adds a schedule of at least 1 ms; it counts once the call has succeeded.
    pub fn schedule(&mut self, interval_ms: u64, kind: PunctuationType) -> ScheduleId {
        todo!()
    }

    pub fn cancel(&mut self, schedule: ScheduleId) {
        todo!()
    }
}
