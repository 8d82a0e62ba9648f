//! `ProcessorContext`: what a call may touch, as one owned value that is moved into the call and back: the task's
//! stores, the times of the call, schedule requests and config. Every call runs between `begin_call` and
//! `complete_call` or `fail_call`; the latter leaves no trace of the call in stores or schedules.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;

use crate::columns::{Columns, NullableColumns};
use crate::processor::Reads;
use crate::record::Timestamp;
use crate::state::{KeyRange, StoreError, TaskStore, prefix_end};
use crate::topology::TaskId;

pub use crate::state::Page;

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
    /// The timestamp of writes that name none.
    write_timestamp: Timestamp,
    /// In the order of the declaration: `StoreIndex` counts here.
    stores: Vec<TaskStore>,
    requests: Vec<ScheduleRequest>,
    next_schedule: u32,
    /// What `next_schedule` was when the call began.
    first_schedule_of_call: u32,
    /// Whether `fail_call` ended the last call.
    last_call_undone: bool,
    /// What the running call has read, where that is wanted.
    reads: Option<Box<Reads>>,
    /// For a benchmark: the writes of a failed call stay.
    without_savepoints: bool,
}

/// The task's side: what surrounds a call.
impl ProcessorContext {
    /// The context of a task. `stores` are in the order of their declaration.
    pub fn new(
        task: TaskId,
        application_id: Arc<str>,
        config: Arc<BTreeMap<String, String>>,
        stores: Vec<TaskStore>,
    ) -> Self {
        Self {
            task,
            application_id,
            stream_time: None,
            wall_clock_ms: 0,
            config,
            write_timestamp: 0,
            stores,
            requests: Vec::new(),
            next_schedule: 0,
            first_schedule_of_call: 0,
            last_call_undone: false,
            reads: None,
            without_savepoints: false,
        }
    }

    /// Leaves out the savepoints: whoever asks for it must give up a task of which a call has failed.
    #[must_use]
    pub fn leave_out_savepoints(self, without_savepoints: bool) -> Self {
        Self { without_savepoints, ..self }
    }

    /// A new instance follows: it numbers its schedules anew, so that those of `init` have the same numbers in each.
    pub fn restart_schedule_ids(&mut self) {
        self.next_schedule = 0;
    }

    /// Notes what the next call reads, at most about `max_bytes` of it, until `take_reads`.
    pub fn record_reads(&mut self, max_bytes: usize) {
        self.reads = Some(Box::new(Reads::new(max_bytes)));
    }

    /// What was read since `record_reads`; nothing where that was not asked for.
    pub fn take_reads(&mut self) -> Reads {
        self.reads.take().map_or_else(Reads::default, |reads| *reads)
    }

    /// Whether the reads of the running call are noted.
    pub fn is_recording(&self) -> bool {
        self.reads.is_some()
    }

    /// Sets the times of the next call and a savepoint in every store. `write_timestamp` is for writes that name no
    /// timestamp: the stream time with the records of this call, 0 or more.
    pub fn begin_call(&mut self, stream_time: Option<Timestamp>, write_timestamp: Timestamp, wall_clock_ms: Timestamp) {
        self.stream_time = stream_time;
        self.write_timestamp = write_timestamp.max(0);
        self.wall_clock_ms = wall_clock_ms;
        self.requests.clear();
        self.first_schedule_of_call = self.next_schedule;
        if !self.without_savepoints {
            self.stores.iter_mut().for_each(TaskStore::savepoint);
        }
    }

    /// The call succeeded: keeps its writes and returns the schedule changes that it asked for, in order.
    pub fn complete_call(&mut self) -> Vec<ScheduleRequest> {
        self.stores.iter_mut().for_each(TaskStore::release);
        self.last_call_undone = false;
        std::mem::take(&mut self.requests)
    }

    /// The call failed: undoes its writes, its schedule changes and the ids it took.
    pub fn fail_call(&mut self) {
        self.stores.iter_mut().for_each(TaskStore::rollback);
        self.requests.clear();
        self.next_schedule = self.first_schedule_of_call;
        self.last_call_undone = true;
    }

    /// Whether the call before the running one left no trace: it failed, refused records, or gave what the task could
    /// not use. A processor that keeps books of its own goes back to where they were.
    pub fn last_call_undone(&self) -> bool {
        self.last_call_undone
    }

    /// Why a changelog would refuse an entry that the call has written, if one would.
    pub fn too_large_entry(&self) -> Option<String> {
        let found = |store: &TaskStore| store.too_large().map(|(bytes, max)| (store.spec().clone(), bytes, max));
        let (spec, bytes, max) = self.stores.iter().find_map(found)?;
        let (store, changelog) = (&spec.name, spec.changelog_topic(&self.application_id).unwrap_or_default());
        Some(format!(
            "an entry of store {store} has {bytes} bytes with its key, and max.message.bytes of its changelog {changelog} \
             leaves room for {max}"
        ))
    }

    /// What a call's entries are held against, as settings: `store.<name>.entry.max.bytes`.
    pub fn store_settings(&self) -> Vec<(String, String)> {
        let bound = |store: &TaskStore| {
            let max_bytes = Some(store.entry_max_bytes()).filter(|max_bytes| *max_bytes != usize::MAX)?;
            Some((format!("store.{}.entry.max.bytes", store.spec().name), max_bytes.to_string()))
        };
        self.stores.iter().filter_map(bound).collect()
    }

    /// The task's stores, in the order of their declaration.
    pub fn stores(&self) -> &[TaskStore] {
        &self.stores
    }

    pub fn stores_mut(&mut self) -> &mut [TaskStore] {
        &mut self.stores
    }

    pub fn into_stores(self) -> Vec<TaskStore> {
        self.stores
    }

    /// Bytes of uncommitted writes in all stores.
    pub fn uncommitted_bytes(&self) -> usize {
        self.stores.iter().map(TaskStore::uncommitted_bytes).sum()
    }

    /// The stores of the processor. Older generations stand behind them, and are none of its business.
    fn declared(&self) -> impl Iterator<Item = &TaskStore> {
        self.stores.iter().filter(|store| !store.spec().is_older_generation())
    }

    fn at(&mut self, store: StoreIndex) -> Result<&mut TaskStore, StoreError> {
        let index = self.store_at(store.0)?;
        Ok(&mut self.stores[index.0 as usize])
    }

    fn undeclared(&self, store: String) -> StoreError {
        let names: Vec<&str> = self.declared().map(|store| &*store.spec().name).collect();
        let declared = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        StoreError::Undeclared { store, declared }
    }
}

/// The processor's side: what a call may do.
impl ProcessorContext {
    /// The store with this name; `Undeclared` names those that exist.
    pub fn store(&self, name: &str) -> Result<StoreIndex, StoreError> {
        match self.declared().position(|store| &*store.spec().name == name) {
            Some(index) => Ok(StoreIndex(index as u32)),
            None => Err(self.undeclared(name.to_owned())),
        }
    }

    /// The store at a position of the declaration.
    pub fn store_at(&self, index: u32) -> Result<StoreIndex, StoreError> {
        if self.stores.get(index as usize).is_none_or(|store| store.spec().is_older_generation()) {
            return Err(self.undeclared(format!("with index {index}")));
        }
        Ok(StoreIndex(index))
    }

    pub fn get(&mut self, store: StoreIndex, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        let value = self.at(store)?.get(key)?;
        self.note_entry(store, key, value.as_deref());
        Ok(value)
    }

    /// The values of `keys` in their order. `take` is called with the bytes of each before it is copied, and its error
    /// ends the call.
    pub fn get_many<E: From<StoreError>>(
        &mut self,
        store: StoreIndex,
        keys: &Columns,
        take: impl FnMut(usize) -> Result<(), E>,
    ) -> Result<NullableColumns, E> {
        let values = self.at(store)?.get_many(keys, take)?;
        if self.reads.is_some() {
            keys.iter().zip(values.iter()).for_each(|(key, value)| self.note_entry(store, key, value));
        }
        Ok(values)
    }

    /// A value of the manifest's `[config]` table.
    pub fn config_value(&mut self, key: &str) -> Option<String> {
        let value = self.config.get(key).cloned();
        if let Some(reads) = &mut self.reads {
            reads.config(key, value.as_deref());
        }
        value
    }

    fn note_entry(&mut self, store: StoreIndex, key: &[u8], value: Option<&[u8]>) {
        if let (Some(reads), Some(store)) = (&mut self.reads, self.stores.get(store.0 as usize)) {
            reads.entry(&store.spec().name, key, value);
        }
    }

    fn note_written(&mut self, store: StoreIndex, key: &[u8]) {
        if let (Some(reads), Some(store)) = (&mut self.reads, self.stores.get(store.0 as usize)) {
            reads.written(&store.spec().name, key);
        }
    }

    /// Notes the entries of a page and how much of the range it covers.
    fn note_page(&mut self, store: StoreIndex, range: KeyRange<'_>, reverse: bool, page: &Page) {
        let (Some(reads), Some(store)) = (&mut self.reads, self.stores.get(store.0 as usize)) else { return };
        let name = &store.spec().name;
        let mut last = None;
        for (key, value) in page.keys.iter().zip(page.values.iter()) {
            reads.entry(name, key, Some(value));
            last = Some(key);
        }
        match last.filter(|_| page.more) {
            Some(last) if reverse => reads.range(name, Bound::Included(last), range.upper),
            Some(last) => reads.range(name, range.lower, Bound::Included(last)),
            None => reads.range(name, range.lower, range.upper),
        }
    }

    /// Writes one entry; the changelog record gets `timestamp`, the stream time where that is `None` or below 0.
    pub fn put(
        &mut self,
        store: StoreIndex,
        key: &[u8],
        value: Option<&[u8]>,
        timestamp: Option<Timestamp>,
    ) -> Result<(), StoreError> {
        let timestamp = timestamp.filter(|&timestamp| timestamp >= 0).unwrap_or(self.write_timestamp);
        self.at(store)?.put(key, value, timestamp);
        self.note_written(store, key);
        Ok(())
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
        let (write_timestamp, index_of) = (self.write_timestamp, store);
        let store = self.at(store)?;
        for (index, (key, value)) in keys.iter().zip(values.iter()).enumerate() {
            let given = timestamps.get(index).copied().filter(|&timestamp| timestamp >= 0);
            store.put(key, value, given.unwrap_or(write_timestamp));
        }
        if self.reads.is_some() {
            keys.iter().for_each(|key| self.note_written(index_of, key));
        }
        Ok(())
    }

    pub fn range(
        &mut self,
        store: StoreIndex,
        range: KeyRange<'_>,
        reverse: bool,
        limit: usize,
    ) -> Result<Page, StoreError> {
        let page = self.at(store)?.range(range, reverse, limit)?;
        self.note_page(store, range, reverse, &page);
        Ok(page)
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
        let end = prefix_end(prefix);
        let range = KeyRange::of_prefix(prefix, end.as_deref());
        let range = match after {
            Some(after) => range.after(after, reverse),
            None => range,
        };
        self.range(store, range, reverse, limit)
    }

    /// A guess at the number of entries; 0 for a store that is not declared.
    pub fn approximate_entries(&self, store: StoreIndex) -> u64 {
        self.stores.get(store.0 as usize).map_or(0, TaskStore::approximate_entries)
    }

    /// Adds a schedule of at least 1 ms; it counts once the call has succeeded.
    pub fn schedule(&mut self, interval_ms: u64, kind: PunctuationType) -> ScheduleId {
        let id = ScheduleId(self.next_schedule);
        self.next_schedule += 1;
        self.requests.push(ScheduleRequest::Add { id, interval_ms: interval_ms.max(1), kind });
        id
    }

    pub fn cancel(&mut self, schedule: ScheduleId) {
        self.requests.push(ScheduleRequest::Cancel(schedule));
    }

    /// How many schedule changes the running call has asked for; whoever runs foreign code bounds it.
    pub fn schedule_requests(&self) -> usize {
        self.requests.len()
    }
}

#[cfg(test)]
mod tests;
