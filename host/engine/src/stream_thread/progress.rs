//! The progress report of a stream thread: plain values that the thread publishes from time to time and that any
//! thread may read. Never a reference into a task.

use std::sync::{Mutex, PoisonError};

use crate::record::{Offset, Timestamp, TopicPartition};
use crate::task::TaskState;
pub use crate::task::stream_task::MigrationReport;
use crate::topology::TaskId;

/// The states of a stream thread (Kafka Streams' `StreamThread.State`, without the ones that nobody waits for).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum ThreadState {
    /// `run_once` was not called yet.
    #[default]
    Created,
    /// It waits for its first assignment.
    Starting,
    /// Some of its tasks are not running yet.
    PartitionsAssigned,
    /// All of its tasks are running; it may have none.
    Running,
    /// It was closed, or stopped by an error.
    Dead,
}

/// How far a thread is. Counters start at 0 with the thread.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ThreadReport {
    pub thread: usize,
    pub state: ThreadState,
    pub records_processed: u64,
    /// Bytes of keys and values of the processed records.
    pub bytes_processed: u64,
    pub batches_processed: u64,
    pub records_sent: u64,
    pub records_restored: u64,
    /// Rows of an older schema that were taken over.
    pub rows_migrated: u64,
    pub punctuations: u64,
    pub commits: u64,
    /// How often the thread dropped uncommitted work and went back to the last commit.
    pub recycles: u64,
    /// Monotonic time of the last processed record, restored record or task change.
    pub last_activity_ms: u64,
    /// The fault that the thread is trying to get over, and since when (monotonic time).
    pub trouble: Option<(String, u64)>,
    pub tasks: Vec<TaskReport>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TaskReport {
    pub task: TaskId,
    pub state: TaskState,
    pub stream_time: Option<Timestamp>,
    pub uncommitted_bytes: usize,
    /// The version of the processor that it runs.
    pub version: u64,
    pub partitions: Vec<PartitionReport>,
    /// The records that were left to restore when it was promoted from a standby task; `None` where it was not.
    pub promoted_with: Option<u64>,
    /// The changelogs that are being restored.
    pub restores: Vec<RestoreReport>,
    /// How far it is with taking older rows over; `None` where it has none.
    pub migration: Option<MigrationReport>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionReport {
    pub partition: TopicPartition,
    /// Records that wait in the queue.
    pub buffered: usize,
    /// The next offset to be processed.
    pub next_offset: Option<Offset>,
    pub committed_offset: Option<Offset>,
    /// The end of the log when it was last asked for.
    pub end_offset: Option<Offset>,
    /// The offset at which the task began to run its version.
    pub version_since: Option<Offset>,
}

impl PartitionReport {
    /// Records of the partition that are not processed yet, as far as known.
    pub fn lag(&self) -> Option<u64> {
        // A commit may be past the last record, where the markers of transactions follow it, and nothing is left before
        // one.
        let next = self.next_offset?.max(self.committed_offset.unwrap_or(Offset::MIN));
        Some((self.end_offset? - next).max(0) as u64)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestoreReport {
    pub store: String,
    pub changelog: TopicPartition,
    pub start_offset: Offset,
    pub position: Offset,
    pub target: Offset,
    pub records: u64,
}

impl RestoreReport {
    /// Offsets that are still to be read; some of them may hold no record.
    pub fn remaining(&self) -> u64 {
        (self.target - self.position).max(0) as u64
    }
}

impl ThreadReport {
    /// Records that are not processed yet over all partitions; `None` while one of them is unknown.
    pub fn lag(&self) -> Option<u64> {
        self.tasks.iter().flat_map(|task| &task.partitions).map(PartitionReport::lag).sum()
    }

    /// Whether every task is running.
    pub fn all_running(&self) -> bool {
        self.state == ThreadState::Running
    }
}

/// The place where a thread publishes its report.
#[derive(Debug, Default)]
pub struct SharedProgress(Mutex<ThreadReport>);

impl SharedProgress {
    /// The report as it was last published.
    pub fn read(&self) -> ThreadReport {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn publish(&self, report: ThreadReport) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = report;
    }
}

#[cfg(test)]
mod tests;
