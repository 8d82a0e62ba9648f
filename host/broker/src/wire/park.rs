//! Threads that wait: fetches for records, joins and syncs for their group. A waiting thread sleeps on a condition of
//! its own; nobody polls.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::core::group::{GroupAnswer, Outcome, Waiter};
use crate::core::metadata::TopicId;

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A place where one thread waits for one value.
#[derive(Debug)]
pub struct Slot<T> {
    value: Mutex<Option<T>>,
    filled: Condvar,
}

impl<T> Default for Slot<T> {
    fn default() -> Self {
        Self { value: Mutex::new(None), filled: Condvar::new() }
    }
}

impl<T> Slot<T> {
    pub fn fill(&self, value: T) {
        *locked(&self.value) = Some(value);
        self.filled.notify_all();
    }

    /// Waits at most `timeout` and takes the value.
    pub fn take(&self, timeout: Duration) -> Option<T> {
        let value = locked(&self.value);
        let waited = self.filled.wait_timeout_while(value, timeout, |value| value.is_none());
        let (mut value, _) = waited.unwrap_or_else(PoisonError::into_inner);
        value.take()
    }
}

/// Waiting fetches by partition.
type ParkedFetches = BTreeMap<(TopicId, i32), Vec<Arc<Slot<()>>>>;

/// Fetches that wait for records, by partition.
#[derive(Debug, Default)]
pub struct FetchParks {
    parked: Mutex<ParkedFetches>,
    /// Registrations; lets a produce pass by without the lock while nobody waits.
    count: AtomicUsize,
}

impl FetchParks {
    /// Registers a fetch. To be done before the last look at the logs, so that no append is missed.
    pub fn enter(&self, partitions: &[(TopicId, i32)], slot: &Arc<Slot<()>>) {
        self.count.fetch_add(1, Ordering::SeqCst);
        let mut parked = locked(&self.parked);
        for partition in partitions {
            parked.entry(*partition).or_default().push(Arc::clone(slot));
        }
    }

    pub fn leave(&self, partitions: &[(TopicId, i32)], slot: &Arc<Slot<()>>) {
        let mut parked = locked(&self.parked);
        for partition in partitions {
            if let Some(slots) = parked.get_mut(partition) {
                slots.retain(|other| !Arc::ptr_eq(other, slot));
                if slots.is_empty() {
                    parked.remove(partition);
                }
            }
        }
        self.count.fetch_sub(1, Ordering::SeqCst);
    }

    /// Wakes every fetch: the broker stops.
    pub fn notify_all(&self) {
        locked(&self.parked).values().flatten().for_each(|slot| slot.fill(()));
    }

    /// Wakes the fetches of a partition.
    pub fn notify(&self, topic: TopicId, partition: i32) {
        if self.count.load(Ordering::SeqCst) == 0 {
            return;
        }
        if let Some(slots) = locked(&self.parked).get(&(topic, partition)) {
            slots.iter().for_each(|slot| slot.fill(()));
        }
    }
}

/// Group requests that wait for their answer.
#[derive(Debug, Default)]
pub struct GroupParks {
    slots: Mutex<BTreeMap<Waiter, Arc<Slot<Option<GroupAnswer>>>>>,
    next: Mutex<Waiter>,
}

impl GroupParks {
    pub fn enter(&self) -> (Waiter, Arc<Slot<Option<GroupAnswer>>>) {
        let mut next = locked(&self.next);
        *next += 1;
        let slot = Arc::new(Slot::default());
        locked(&self.slots).insert(*next, Arc::clone(&slot));
        (*next, slot)
    }

    pub fn leave(&self, waiter: Waiter) {
        locked(&self.slots).remove(&waiter);
    }

    /// Ends every wait without an answer: the broker stops.
    pub fn abandon_all(&self) {
        for slot in std::mem::take(&mut *locked(&self.slots)).into_values() {
            slot.fill(None);
        }
    }

    /// Hands out answers. One whose request is gone is dropped: its client is gone too.
    pub fn deliver(&self, outcome: Outcome) {
        let mut slots = locked(&self.slots);
        for (waiter, answer) in outcome.answers {
            if let Some(slot) = slots.remove(&waiter) {
                slot.fill(Some(answer));
            }
        }
    }
}

/// A thread's alarm clock that others can set off early.
#[derive(Debug, Default)]
pub struct Alarm {
    slot: Slot<()>,
}

impl Alarm {
    pub fn ring(&self) {
        self.slot.fill(());
    }

    /// Sleeps until `until` or until it rings.
    pub fn sleep_until(&self, until: Instant) {
        self.slot.take(until.saturating_duration_since(Instant::now()));
    }
}
