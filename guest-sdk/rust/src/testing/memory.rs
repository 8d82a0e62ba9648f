//! The host in memory: ordered maps for stores, schedules with Kafka Streams' rules for missed intervals, a wall clock
//! that only the test moves. It rolls a failed call back as the real host does.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::ops::Bound as Edge;

use crate::bindings::sandbar::processor::context::PunctuationType;
use crate::bindings::sandbar::processor::state::{Bound, Page};
use crate::bindings::sandbar::processor::types::{Columns, NullableColumns, TaskId};
use crate::host::Host;

pub(super) type Entries = BTreeMap<Vec<u8>, Vec<u8>>;

/// How often a processor called its host: what batching saves.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HostCalls {
    /// Single reads.
    pub get: u32,
    /// Reads of many keys.
    pub get_many: u32,
    /// Writes of many keys.
    pub put_many: u32,
    /// Pages of ranges and prefixes.
    pub pages: u32,
}

/// A schedule and when it fires next.
#[derive(Debug, Clone, Copy)]
struct Schedule {
    interval_ms: i64,
    kind: PunctuationType,
    next_ms: i64,
}

impl Schedule {
    /// The next time after a punctuation at `now_ms`: one interval on, or past all intervals that were missed (Kafka
    /// Streams' `PunctuationSchedule.next`).
    fn advance(&mut self, now_ms: i64) {
        let next_ms = self.next_ms + self.interval_ms;
        self.next_ms = if now_ms < next_ms {
            next_ms
        } else {
            self.next_ms + ((now_ms - self.next_ms) / self.interval_ms + 1) * self.interval_ms
        };
    }
}

/// An entry before the running call wrote it.
struct Overwritten {
    store: u32,
    key: Vec<u8>,
    before: Option<Vec<u8>>,
}

#[derive(Default)]
pub(super) struct MemoryHost {
    pub(super) application_id: String,
    pub(super) task: Cell<(u32, u32)>,
    pub(super) config: BTreeMap<String, String>,
    pub(super) stream_time: Cell<Option<i64>>,
    pub(super) wall_clock_ms: Cell<i64>,
    pub(super) calls: Cell<HostCalls>,
    /// Stores in the order of their declaration.
    pub(super) names: RefCell<Vec<String>>,
    pub(super) stores: RefCell<Vec<Entries>>,
    /// The last write's timestamp of every key, as it would stand in the changelog.
    pub(super) timestamps: RefCell<BTreeMap<(u32, Vec<u8>), i64>>,
    /// What the running call overwrote, in order.
    journal: RefCell<Vec<Overwritten>>,
    schedules: RefCell<BTreeMap<u32, Schedule>>,
    schedules_before: RefCell<BTreeMap<u32, Schedule>>,
    last_schedule: Cell<u32>,
}

impl MemoryHost {
    pub(super) fn new() -> Self {
        Self { application_id: "test".to_owned(), ..Self::default() }
    }

    fn count(&self, change: impl FnOnce(&mut HostCalls)) {
        let mut calls = self.calls.get();
        change(&mut calls);
        self.calls.set(calls);
    }

    /// Starts a call that can be rolled back.
    pub(super) fn begin_call(&self) {
        self.journal.borrow_mut().clear();
        *self.schedules_before.borrow_mut() = self.schedules.borrow().clone();
    }

    /// Leaves everything as it was before the call.
    pub(super) fn roll_back(&self) {
        let mut stores = self.stores.borrow_mut();
        for Overwritten { store, key, before } in self.journal.take().into_iter().rev() {
            match before {
                Some(value) => stores[store as usize].insert(key, value),
                None => stores[store as usize].remove(&key),
            };
        }
        *self.schedules.borrow_mut() = self.schedules_before.take();
    }

    /// Whether a stream-time punctuation is due at this time.
    pub(super) fn is_due(&self, kind: PunctuationType, now_ms: i64) -> bool {
        self.schedules.borrow().values().any(|schedule| schedule.kind == kind && schedule.next_ms <= now_ms)
    }

    /// Takes the schedule that has been due the longest and advances it.
    pub(super) fn take_due(&self, kind: PunctuationType, now_ms: i64) -> Option<u32> {
        let mut schedules = self.schedules.borrow_mut();
        let due = schedules.iter_mut().filter(|(_, schedule)| schedule.kind == kind && schedule.next_ms <= now_ms);
        let (&id, schedule) = due.min_by_key(|(id, schedule)| (schedule.next_ms, **id))?;
        schedule.advance(now_ms);
        Some(id)
    }

    fn page<'a>(entries: impl Iterator<Item = (&'a Vec<u8>, &'a Vec<u8>)>, limit: u32) -> Page {
        let mut page = Page::default();
        for (key, value) in entries {
            if page.keys.len() == limit as usize {
                page.more = true;
                break;
            }
            page.keys.push(key);
            page.values.push(value);
        }
        page
    }
}

fn edge(bound: &Bound) -> Edge<&[u8]> {
    match bound {
        Bound::Unbounded => Edge::Unbounded,
        Bound::Included(key) => Edge::Included(key),
        Bound::Excluded(key) => Edge::Excluded(key),
    }
}

/// `BTreeMap::range` panics on a range that ends before it starts; a store has no entries there.
fn is_empty_range(lower: Edge<&[u8]>, upper: Edge<&[u8]>) -> bool {
    match (lower, upper) {
        (Edge::Included(lower), Edge::Included(upper)) => lower > upper,
        (Edge::Included(lower) | Edge::Excluded(lower), Edge::Included(upper) | Edge::Excluded(upper)) => {
            lower >= upper
        }
        _ => false,
    }
}

impl Host for MemoryHost {
    fn open(&self, name: &str) -> Result<u32, String> {
        match self.names.borrow().iter().position(|other| other == name) {
            Some(index) => Ok(index as u32),
            None => Err(format!("the store {name} is not declared")),
        }
    }

    fn get(&self, store: u32, key: &[u8]) -> Option<Vec<u8>> {
        self.count(|calls| calls.get += 1);
        self.stores.borrow()[store as usize].get(key).cloned()
    }

    fn get_many(&self, store: u32, keys: &Columns) -> NullableColumns {
        self.count(|calls| calls.get_many += 1);
        let stores = self.stores.borrow();
        let mut values = NullableColumns::default();
        for index in 0..keys.len() {
            values.push(stores[store as usize].get(keys.get(index)).map(Vec::as_slice));
        }
        values
    }

    fn put_many(&self, store: u32, keys: &Columns, values: &NullableColumns, timestamps: &[i64]) {
        self.count(|calls| calls.put_many += 1);
        let entries = &mut self.stores.borrow_mut()[store as usize];
        for (index, &timestamp) in timestamps.iter().enumerate() {
            let key = keys.get(index).to_vec();
            self.timestamps.borrow_mut().insert((store, key.clone()), timestamp);
            let before = match values.get(index) {
                Some(value) => entries.insert(key.clone(), value.to_vec()),
                None => entries.remove(&key),
            };
            self.journal.borrow_mut().push(Overwritten { store, key, before });
        }
    }

    fn range(&self, store: u32, lower: &Bound, upper: &Bound, reverse: bool, limit: u32) -> Page {
        self.count(|calls| calls.pages += 1);
        let (lower, upper) = (edge(lower), edge(upper));
        if is_empty_range(lower, upper) {
            return Page::default();
        }
        let stores = self.stores.borrow();
        let entries = stores[store as usize].range::<[u8], _>((lower, upper));
        if reverse { Self::page(entries.rev(), limit) } else { Self::page(entries, limit) }
    }

    fn prefix(&self, store: u32, prefix: &[u8], after: Option<&[u8]>, reverse: bool, limit: u32) -> Page {
        self.count(|calls| calls.pages += 1);
        let stores = self.stores.borrow();
        let entries = stores[store as usize].iter().filter(|(key, _)| key.starts_with(prefix));
        if reverse {
            Self::page(entries.rev().filter(|(key, _)| after.is_none_or(|after| key.as_slice() < after)), limit)
        } else {
            Self::page(entries.filter(|(key, _)| after.is_none_or(|after| key.as_slice() > after)), limit)
        }
    }

    fn approximate_entries(&self, store: u32) -> u64 {
        self.stores.borrow()[store as usize].len() as u64
    }

    fn application_id(&self) -> String {
        self.application_id.clone()
    }

    fn task(&self) -> TaskId {
        let (sub_topology, partition) = self.task.get();
        TaskId { sub_topology, partition }
    }

    fn stream_time(&self) -> Option<i64> {
        self.stream_time.get()
    }

    fn wall_clock_time(&self) -> i64 {
        self.wall_clock_ms.get()
    }

    fn schedule(&self, interval_ms: u64, kind: PunctuationType) -> u32 {
        let interval_ms = i64::try_from(interval_ms).unwrap_or(i64::MAX);
        let next_ms = match kind {
            PunctuationType::StreamTime => 0,
            PunctuationType::WallClockTime => self.wall_clock_ms.get().saturating_add(interval_ms),
        };
        let id = self.last_schedule.get() + 1;
        self.last_schedule.set(id);
        self.schedules.borrow_mut().insert(id, Schedule { interval_ms, kind, next_ms });
        id
    }

    fn cancel(&self, schedule: u32) {
        self.schedules.borrow_mut().remove(&schedule);
    }

    fn config(&self, key: &str) -> Option<String> {
        self.config.get(key).cloned()
    }
}
