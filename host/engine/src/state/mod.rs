//! The seam to a state store, and everything of ours in front of it: the dirty overlay with savepoints, the
//! changelog's record format and the in-memory store. The truth of a store's changelog offset is the store itself:
//! `write` sets it in the same batch as the data, and nothing else does.

use std::ops::{Bound, ControlFlow};
use std::sync::Arc;

use bytes::Bytes;

use crate::columns::Columns;
use crate::record::Offset;
use crate::topology::{StoreSpec, TaskId};

pub mod changelog;
pub mod memory;
mod overlay;
mod slot_table;
mod task_store;

pub use overlay::{DirtyEntry, ENTRY_OVERHEAD_BYTES, Known, Overlay};
pub(crate) use task_store::PageBuilder;
pub use task_store::{PAGE_MAX_BYTES, TaskStore};

/// Why a store call failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// Stored bytes are damaged: wipe this store and restore it (R12).
    #[error("store {store} of task {task} is corrupt: {detail}")]
    Corrupt { store: String, task: TaskId, detail: String },
    /// The disk is full: pause, commit nothing, try again later (C8).
    #[error("no space left for store {store} of task {task}: {detail}")]
    NoSpace { store: String, task: TaskId, detail: String },
    /// Another process or host holds the directory.
    #[error("{path} is locked by another process: {detail}")]
    Locked { path: String, detail: String },
    /// The directory belongs to another application or a format this version does not read.
    #[error("{path} {detail}")]
    Foreign { path: String, detail: String },
    /// A view outlived its store: the task has moved or is being closed, and the query may be asked again.
    #[error("store {store} of task {task} was closed while it was read; its task may have moved")]
    Closed { store: String, task: TaskId },
    #[error("store {store} of task {task}: {operation}: {detail}")]
    Io { store: String, task: TaskId, operation: &'static str, detail: String },
    /// No store of this name was declared.
    #[error("store {store} is not declared; declared are: {declared}")]
    Undeclared { store: String, declared: String },
}

/// A range of keys in byte order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyRange<'a> {
    pub lower: Bound<&'a [u8]>,
    pub upper: Bound<&'a [u8]>,
}

/// A page of a range: entries in the order asked; `more` when a limit ended it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    pub keys: Columns,
    pub values: Columns,
    pub more: bool,
}

/// The first key after all keys that start with `prefix`; `None` when there is none (all bytes are 255).
pub fn prefix_end(prefix: &[u8]) -> Option<Vec<u8>> {
    let kept = prefix.iter().rposition(|&byte| byte != u8::MAX)?;
    let mut end = prefix[..=kept].to_vec();
    end[kept] += 1;
    Some(end)
}

/// Visits an entry of a scan; `Break` ends the scan.
pub type Visit<'a> = dyn FnMut(&[u8], &[u8]) -> ControlFlow<()> + 'a;

/// One write: a key with its new value, `None` to delete it.
pub type Write = (Bytes, Option<Bytes>);

/// A task's partition of a store, without what is uncommitted. One thread writes; any thread may read through a
/// read view.
pub trait StateStore: Send {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError>;

    /// Calls `found` once for each key, in order, with its index and value.
    fn get_many(&self, keys: &[&[u8]], found: &mut dyn FnMut(usize, Option<&[u8]>)) -> Result<(), StoreError>;

    /// Visits the entries of a range in key order, or backwards.
    fn scan(&self, range: KeyRange<'_>, reverse: bool, visit: &mut Visit<'_>) -> Result<(), StoreError>;

    /// Applies the writes in order and sets the changelog offset (the next one to restore from) in one atomic
    /// batch. `None` leaves the offset as it is.
    fn write(&mut self, writes: &[Write], changelog_offset: Option<Offset>) -> Result<(), StoreError>;

    /// The next changelog offset to restore from; `None` for a new store.
    fn changelog_offset(&self) -> Result<Option<Offset>, StoreError>;

    /// Says that many writes follow, each with its offset, and that nobody reads until `end_bulk`: the store may gather
    /// them. A crash before that leaves an older state with its own offset, as ever. No effect where it began already.
    fn begin_bulk(&mut self) -> Result<(), StoreError> {
        Ok(())
    }

    /// Ends what `begin_bulk` began; everything can be read afterwards. After an error nothing is lost, and the same
    /// call may be tried again.
    fn end_bulk(&mut self) -> Result<(), StoreError> {
        Ok(())
    }

    /// Makes everything written durable (R4: called on a timer, and on a clean close).
    fn flush(&mut self) -> Result<(), StoreError>;

    /// A view for queries that outlives the call and shares no lock with the writer for longer than one lookup.
    fn read_view(&self) -> Arc<dyn ReadView>;

    fn approximate_entries(&self) -> u64;
}

/// Committed state for queries, from any thread. Each scan sees one moment.
pub trait ReadView: Send + Sync {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError>;

    /// As `get` where no disk is needed to answer; `None` where one may be.
    fn get_in_memory(&self, key: &[u8]) -> Result<Option<Option<Bytes>>, StoreError> {
        self.get(key).map(Some)
    }

    fn scan(&self, range: KeyRange<'_>, reverse: bool, visit: &mut Visit<'_>) -> Result<(), StoreError>;

    /// The changelog offset that this view reflects.
    fn changelog_offset(&self) -> Result<Option<Offset>, StoreError>;

    fn approximate_entries(&self) -> u64;
}

/// Opens the stores of tasks. Shared by the stream threads of an application.
pub trait StoreProvider: Send + Sync {
    /// Opens or creates a store of a task. `Corrupt` is answered by `wipe`, then `open` again.
    fn open(&self, task: TaskId, store: &StoreSpec) -> Result<Box<dyn StateStore>, StoreError>;

    /// Removes the local data of a closed store (rename aside first, R12).
    fn wipe(&self, task: TaskId, store: &StoreSpec) -> Result<(), StoreError>;
}
