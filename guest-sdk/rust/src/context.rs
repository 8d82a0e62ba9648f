//! `Context`: the task as a processor sees it, and what all handles of a processor share during a call. Times come from
//! the host; what was scheduled by a record that fails is cancelled again.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

pub use crate::bindings::sandbar::processor::context::PunctuationType;
pub use crate::bindings::sandbar::processor::types::TaskId;
use crate::host::Host;
use crate::sink::Outputs;
use crate::{Error, Result};

/// Identifies a schedule of the task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ScheduleId(pub(crate) u32);

/// Which of the processor's functions runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Idle,
    Init,
    Process,
    Punctuate,
}

/// What the handles of one processor share.
pub(crate) struct Shared {
    pub(crate) host: Rc<dyn Host>,
    pub(crate) outputs: RefCell<Outputs>,
    phase: Cell<Phase>,
    /// The timestamp of the running record or punctuation.
    timestamp: Cell<i64>,
    /// The highest timestamp of the running batch up to the running record.
    batch_time: Cell<Option<i64>>,
    /// What the host said of the stream time before the call, once asked.
    call_time: Cell<Option<Option<i64>>>,
    scheduled: RefCell<Vec<u32>>,
    cancelled: RefCell<Vec<u32>>,
    /// Whether either of them holds anything: nearly no record schedules, so the common path asks this alone.
    schedules_changed: Cell<bool>,
}

impl Shared {
    pub(crate) fn new(host: Rc<dyn Host>) -> Self {
        Self {
            host,
            outputs: RefCell::default(),
            phase: Cell::new(Phase::Idle),
            timestamp: Cell::new(0),
            batch_time: Cell::new(None),
            call_time: Cell::new(None),
            scheduled: RefCell::default(),
            cancelled: RefCell::default(),
            schedules_changed: Cell::new(false),
        }
    }

    pub(crate) fn begin_call(&self, phase: Phase, timestamp: i64) {
        self.phase.set(phase);
        self.timestamp.set(timestamp);
        self.batch_time.set(None);
        self.call_time.set(None);
    }

    pub(crate) fn end_call(&self) {
        self.phase.set(Phase::Idle);
    }

    pub(crate) fn begin_record(&self, timestamp: i64) {
        self.timestamp.set(timestamp);
        if timestamp >= 0 && self.batch_time.get().is_none_or(|time| time < timestamp) {
            self.batch_time.set(Some(timestamp));
        }
    }

    /// Keeps the schedule changes of a record that succeeded.
    pub(crate) fn keep_schedules(&self) {
        if self.schedules_changed.take() {
            self.scheduled.borrow_mut().clear();
            for schedule in self.cancelled.take() {
                self.host.cancel(schedule);
            }
        }
    }

    /// Undoes the schedule changes of a record that failed.
    pub(crate) fn undo_schedules(&self) {
        if self.schedules_changed.take() {
            for schedule in self.scheduled.take() {
                self.host.cancel(schedule);
            }
            self.cancelled.borrow_mut().clear();
        }
    }

    /// The time of what is running, for outputs and writes; an error outside of a call.
    pub(crate) fn timestamp(&self) -> Result<i64> {
        match self.phase.get() {
            Phase::Idle => Err(Error::new("stores are written only while one of the processor's functions runs")),
            _ => Ok(self.timestamp.get()),
        }
    }

    pub(crate) fn forwarding_timestamp(&self) -> Result<i64> {
        match self.phase.get() {
            Phase::Process | Phase::Punctuate => Ok(self.timestamp.get()),
            Phase::Init | Phase::Idle => Err(Error::new("records are forwarded only from process and punctuate")),
        }
    }

    /// Whether the host undoes everything when the processor fails now, so that nothing needs an undo here.
    pub(crate) fn call_is_one_record(&self) -> bool {
        matches!(self.phase.get(), Phase::Init | Phase::Punctuate)
    }

    fn stream_time(&self) -> Option<i64> {
        let before = self.call_time.get().unwrap_or_else(|| {
            let time = self.host.stream_time();
            self.call_time.set(Some(time));
            time
        });
        before.max(self.batch_time.get())
    }
}

/// The task that runs the processor. All times are milliseconds since the epoch.
pub struct Context {
    shared: Rc<Shared>,
}

impl Context {
    pub(crate) fn new(shared: Rc<Shared>) -> Self {
        Self { shared }
    }

    /// The highest timestamp that the task has seen, the running record included; `None` before the first record.
    pub fn stream_time(&self) -> Option<i64> {
        self.shared.stream_time()
    }

    /// The host's wall clock at the start of the running call; it does not move within one.
    pub fn wall_clock_time(&self) -> i64 {
        self.shared.host.wall_clock_time()
    }

    /// Asks for [`punctuate`](crate::Processor::punctuate) calls. Stream-time schedules are aligned to the epoch and
    /// fire first with the first record; wall-clock ones fire after one interval. An interval below 1 ms is an error.
    pub fn schedule(&mut self, interval: Duration, kind: PunctuationType) -> Result<ScheduleId> {
        let interval_ms = u64::try_from(interval.as_millis()).unwrap_or(u64::MAX);
        if interval_ms == 0 {
            return Err(Error::new(format_args!("a schedule needs an interval of at least 1 ms, found {interval:?}")));
        }
        let schedule = self.shared.host.schedule(interval_ms, kind);
        self.shared.scheduled.borrow_mut().push(schedule);
        self.shared.schedules_changed.set(true);
        Ok(ScheduleId(schedule))
    }

    /// Ends a schedule.
    pub fn cancel(&mut self, schedule: ScheduleId) {
        self.shared.cancelled.borrow_mut().push(schedule.0);
        self.shared.schedules_changed.set(true);
    }

    /// A value of the manifest's `[config]` table.
    pub fn config(&self, key: &str) -> Option<String> {
        self.shared.host.config(key)
    }

    /// The application's id.
    pub fn application_id(&self) -> String {
        self.shared.host.application_id()
    }

    /// The task: sub-topology and partition.
    pub fn task(&self) -> TaskId {
        self.shared.host.task()
    }
}
