//! A task: one partition of one sub-topology with its stores, queues, stream time and schedules. Here are the states
//! of its life and the moves between them; the parts follow in the order in which a record meets them. A task never
//! knows threads, and it meets the consumer only where offsets are read or committed.

use std::fmt;

use crate::error::EngineError;
use crate::topology::TaskId;

pub mod record_queue;

pub mod partition_group;

pub mod punctuation;

pub mod record_collector;

pub mod streams_producer;

pub mod offset_metadata;

pub mod stream_task;

pub mod commit;

/// The states of a task, with Kafka Streams' names (`Task.State`).
///
/// ```text
/// CREATED ──▶ RESTORING ──▶ RUNNING
///    │         ▲    │          │
///    │         │    ▼          │
///    └──────▶ SUSPENDED ◀──────┘
///                  │
///                  ▼
///               CLOSED ──▶ CREATED (revive)
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum TaskState {
    /// Its partitions are assigned, its stores are not open yet.
    #[default]
    Created,
    /// Its stores are open and are being brought up to the end of their changelogs.
    Restoring,
    /// It processes records.
    Running,
    /// It has stopped; nothing uncommitted is left in its stores.
    Suspended,
    /// Its stores are closed.
    Closed,
}

/// Every move that a state allows.
const MOVES: [(TaskState, &[TaskState]); 5] = [
    (TaskState::Created, &[TaskState::Restoring, TaskState::Suspended]),
    (TaskState::Restoring, &[TaskState::Running, TaskState::Suspended]),
    (TaskState::Running, &[TaskState::Suspended]),
    (TaskState::Suspended, &[TaskState::Restoring, TaskState::Closed]),
    (TaskState::Closed, &[TaskState::Created]),
];

impl TaskState {
    /// All states, in the order of a life.
    pub const ALL: [Self; 5] = [Self::Created, Self::Restoring, Self::Running, Self::Suspended, Self::Closed];

    /// Whether a task in this state may go to `next`.
    pub fn allows(self, next: Self) -> bool {
        MOVES.iter().any(|(from, to)| *from == self && to.contains(&next))
    }

    /// The state after the move; an error for one that is not in the table, which is a defect of the engine.
    pub fn moved_to(self, next: Self, task: TaskId) -> Result<Self, EngineError> {
        if !self.allows(next) {
            return Err(EngineError::IllegalMove { task, from: self, to: next });
        }
        tracing::debug!(%task, from = %self, to = %next, "task state");
        Ok(next)
    }
}

impl fmt::Display for TaskState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Created => "CREATED",
            Self::Restoring => "RESTORING",
            Self::Running => "RUNNING",
            Self::Suspended => "SUSPENDED",
            Self::Closed => "CLOSED",
        })
    }
}

#[cfg(test)]
mod tests;
