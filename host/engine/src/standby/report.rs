//! What the standby thread says of itself: plain values that it publishes from time to time and any thread may read.

use std::sync::{Mutex, PoisonError};

use crate::record::{Offset, TopicPartition};
use crate::topology::TaskId;

/// How far the standby tasks of this host are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StandbyReport {
    /// What the thread is trying to get over; no single task's fault.
    pub trouble: Option<String>,
    /// Changelog records applied since the thread began.
    pub records: u64,
    pub tasks: Vec<StandbyTaskReport>,
}

/// Where a standby task stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StandbyState {
    /// Waits until fewer others are catching up, or until a stream thread has closed the task.
    Waiting,
    /// Has not reached the end that its changelogs had when it began.
    CatchingUp,
    /// Applies what comes.
    Following,
    /// Kept off after an error; tried again from time to time.
    Off,
}

impl StandbyState {
    pub fn name(self) -> &'static str {
        match self {
            Self::Waiting => "WAITING",
            Self::CatchingUp => "CATCHING_UP",
            Self::Following => "FOLLOWING",
            Self::Off => "OFF",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StandbyTaskReport {
    pub task: TaskId,
    pub state: StandbyState,
    /// Why the task is kept off.
    pub error: Option<String>,
    pub stores: Vec<StandbyStoreReport>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StandbyStoreReport {
    pub store: String,
    pub changelog: TopicPartition,
    /// The next offset to be read.
    pub position: Offset,
    /// The end of the changelog when it was last asked for.
    pub end: Offset,
}

impl StandbyStoreReport {
    /// Offsets that are still to be read; some of them may hold no record.
    pub fn lag(&self) -> u64 {
        (self.end - self.position).max(0).unsigned_abs()
    }
}

impl StandbyReport {
    /// Offsets that are still to be read, over all stores.
    pub fn lag(&self) -> u64 {
        self.tasks.iter().flat_map(|task| &task.stores).map(StandbyStoreReport::lag).sum()
    }
}

/// The place where the standby thread publishes its report.
#[derive(Debug, Default)]
pub struct SharedStandbyReport(Mutex<StandbyReport>);

impl SharedStandbyReport {
    /// The report as it was last published.
    pub fn read(&self) -> StandbyReport {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Says that the thread has ended with an error, and keeps nothing until there is a new one.
    pub fn publish_failure(&self, error: String) {
        let records = self.read().records;
        self.publish(StandbyReport { trouble: Some(error), records, tasks: Vec::new() });
    }

    /// Puts a report in the place of the last one.
    pub fn publish(&self, report: StandbyReport) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = report;
    }
}
