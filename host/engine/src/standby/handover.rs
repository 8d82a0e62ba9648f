//! Who has the stores of a task in this process: a stream thread, the standby thread, or neither. Never both. The
//! standby thread gives a task's stores up, open as they are, to a stream thread that wants them; nobody waits for the
//! other inside a call. Control path only: asked when a task is opened or closed and once a turn of the standby thread.

use std::collections::BTreeMap;
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::query::HeldRegistration;
use crate::record::Offset;
use crate::state::StateStore;
use crate::topology::TaskId;

/// The open stores of a task.
pub type OpenStores = Vec<OpenStore>;

/// An open store on its way to a stream thread.
pub struct OpenStore {
    /// The first field: queries let go of the store before it is closed.
    pub copy: Option<WholeCopy>,
    pub name: Arc<str>,
    pub backend: Box<dyn StateStore>,
}

/// A copy that has had everything once; queries read it while it changes hands.
pub struct WholeCopy {
    /// The next offset of its changelog, and the end as far as it knows.
    pub position: Offset,
    pub end: Offset,
    #[expect(dead_code, reason = "it is held for its end alone, which takes the copy from queries")]
    pub registration: HeldRegistration,
}

/// Where a task's stores are. A task that is not here has none open.
enum Slot {
    Active,
    Standby {
        /// A stream thread waits for it.
        wanted: bool,
    },
    /// Given up by the standby thread, not taken yet.
    HandedOver(OpenStores),
}

#[derive(Default)]
struct Slots {
    by_task: BTreeMap<TaskId, Slot>,
    /// By task and store: the offset of its changelog at which a store last was whole, when it was closed.
    whole: BTreeMap<(TaskId, Arc<str>), Offset>,
    /// Counts what stream threads open, want and close.
    changes: u64,
}

/// The tasks of one application in this process, shared by its stream threads and its standby thread.
#[derive(Default)]
pub struct StandbyTasks(Mutex<Slots>);

impl StandbyTasks {
    // The map is only ever changed by single inserts and removals, so a poisoned lock is no sign of damage.
    fn slots(&self) -> MutexGuard<'_, Slots> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a task for the standby thread; `None` while a stream thread has it.
    pub(super) fn keep(self: &Arc<Self>, task: TaskId) -> Option<StandbyClaim> {
        let mut slots = self.slots();
        if slots.by_task.contains_key(&task) {
            return None;
        }
        slots.by_task.insert(task, Slot::Standby { wanted: false });
        Some(StandbyClaim { tasks: Arc::clone(self), task })
    }

    /// Notes where a store is that has had everything once, before it is closed.
    fn note_whole(&self, task: TaskId, store: &Arc<str>, offset: Offset) {
        self.slots().whole.insert((task, Arc::clone(store)), offset);
    }

    /// Whether a store that was opened again at an offset has had everything once: it lacks nothing of what it had
    /// then. A store in memory begins anew, and so does one that was wiped. The note is gone afterwards: a store that
    /// lacked something does not become whole by coming to that offset again, since what it reads until then may be
    /// compacted.
    fn take_whole(&self, task: TaskId, store: &Arc<str>, offset: Option<Offset>) -> bool {
        let whole = self.slots().whole.remove(&(task, Arc::clone(store)));
        offset.zip(whole).is_some_and(|(offset, whole)| offset >= whole)
    }

    /// Changes whenever a stream thread opens or closes a task.
    pub(super) fn changes(&self) -> u64 {
        self.slots().changes
    }
}

/// The standby thread's hold on a task. Dropped after the task's stores.
pub(super) struct StandbyClaim {
    tasks: Arc<StandbyTasks>,
    task: TaskId,
}

impl StandbyClaim {
    /// Whether a stream thread waits for the task.
    pub fn is_wanted(&self) -> bool {
        matches!(self.tasks.slots().by_task.get(&self.task), Some(Slot::Standby { wanted: true }))
    }

    pub fn note_whole(&self, store: &Arc<str>, offset: Offset) {
        self.tasks.note_whole(self.task, store, offset);
    }

    pub fn take_whole(&self, store: &Arc<str>, offset: Option<Offset>) -> bool {
        self.tasks.take_whole(self.task, store, offset)
    }

    /// Gives the stores to the stream thread that wants them; closes them where none does any more.
    pub fn hand_over(self, stores: OpenStores) {
        let mut slots = self.tasks.slots();
        if let Some(slot @ Slot::Standby { wanted: true }) = slots.by_task.get_mut(&self.task) {
            *slot = Slot::HandedOver(stores);
            return;
        }
        drop(slots);
        drop(stores);
    }
}

impl Drop for StandbyClaim {
    fn drop(&mut self) {
        let mut slots = self.tasks.slots();
        if matches!(slots.by_task.get(&self.task), Some(Slot::Standby { .. })) {
            slots.by_task.remove(&self.task);
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hold {
    Nothing,
    Waiting,
    Held,
}

/// An active task's hold on its stores. Dropped, or released, after the stores were closed.
pub(crate) struct ActiveClaim {
    tasks: Arc<StandbyTasks>,
    task: TaskId,
    hold: Hold,
}

impl ActiveClaim {
    pub fn new(tasks: &Arc<StandbyTasks>, task: TaskId) -> Self {
        Self { tasks: Arc::clone(tasks), task, hold: Hold::Nothing }
    }

    /// Takes the task for a stream thread, with the stores that the standby thread kept open, if it did. `None` while
    /// another thread of the process has it: ask again in the next turn.
    pub fn take(&mut self) -> Option<OpenStores> {
        if self.hold == Hold::Held {
            return Some(Vec::new());
        }
        let mut slots = self.tasks.slots();
        let stores = match slots.by_task.get_mut(&self.task) {
            None => Vec::new(),
            Some(Slot::HandedOver(stores)) => mem::take(stores),
            Some(slot) => {
                if let Slot::Standby { wanted } = slot {
                    *wanted = true;
                }
                self.hold = Hold::Waiting;
                return None;
            }
        };
        slots.by_task.insert(self.task, Slot::Active);
        slots.changes += 1;
        self.hold = Hold::Held;
        Some(stores)
    }

    pub fn note_whole(&self, store: &Arc<str>, offset: Offset) {
        self.tasks.note_whole(self.task, store, offset);
    }

    pub fn take_whole(&self, store: &Arc<str>, offset: Option<Offset>) -> bool {
        self.tasks.take_whole(self.task, store, offset)
    }

    /// Gives the task up, or the wish for it. Its stores are closed.
    pub fn release(&mut self) {
        let mut slots = self.tasks.slots();
        let unused = match (mem::replace(&mut self.hold, Hold::Nothing), slots.by_task.get_mut(&self.task)) {
            (Hold::Held, Some(Slot::Active)) | (Hold::Waiting, Some(Slot::HandedOver(_))) => {
                slots.changes += 1;
                slots.by_task.remove(&self.task)
            }
            (Hold::Waiting, Some(Slot::Standby { wanted })) => {
                *wanted = false;
                None
            }
            _ => None,
        };
        // Closing a store may take long.
        drop(slots);
        drop(unused);
    }
}

impl Drop for ActiveClaim {
    fn drop(&mut self) {
        self.release();
    }
}

#[cfg(test)]
mod tests;
