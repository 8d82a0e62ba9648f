//! A commit as an enum of stages, for both guarantees (R3). A commit is a value: it says where it stands, `advance`
//! takes it as far as it gets, and a stage that failed with a remedy of trying again is entered again. Between its
//! beginning and its end no task of the thread processes anything.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::broker::Consumer;
use crate::error::EngineError;
use crate::record::Timestamp;
use crate::stream_thread::ProcessingGuarantee;
use crate::task::stream_task::{StreamTask, TaskOffsets};
use crate::task::streams_producer::StreamsProducer;
use crate::topology::TaskId;

/// How long one step waits for delivery reports before it returns to the caller, who has a consumer to poll.
const DRAIN_SLICE: Duration = Duration::from_millis(10);

/// The stages of a commit, in their order.
///
/// ```text
/// SendOutputs ─┬─▶ DrainOutputs ─┬─▶ WriteChangelogs ─▶ Drain ─┬─▶ CommitOffsets ───────────────────┬─▶ WriteStores ─▶
/// Completed
///              └─────────────────┘                             └─▶ SendOffsets ─▶ CommitTransaction ┘
///                       at least once: upper ways; exactly once: lower ways
/// ```
/// A crash may leave changelogs that are ahead of the offsets. Whoever goes on from there does the records in between
/// again on the newer state, and its outputs differ from those of the first time. So under at-least-once the first ones
/// must be there before the changelogs are written; a transaction needs no such order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum CommitStage {
    /// Outputs that found no room are handed to the producer.
    SendOutputs,
    /// The outputs are acknowledged.
    DrainOutputs,
    /// The overlays' entries are sent to the changelogs.
    WriteChangelogs,
    /// Everything that was sent is acknowledged.
    Drain,
    /// The source offsets are committed with the group.
    CommitOffsets,
    /// The source offsets join the transaction.
    SendOffsets,
    CommitTransaction,
    /// The overlays move into their stores, each with its changelog offset in the same batch.
    WriteStores,
    Completed,
}

impl CommitStage {
    /// The stage that comes next; none after `Completed`.
    pub fn next(self, guarantee: ProcessingGuarantee) -> Option<Self> {
        Some(match (self, guarantee) {
            (Self::SendOutputs, ProcessingGuarantee::AtLeastOnce) => Self::DrainOutputs,
            (Self::SendOutputs, ProcessingGuarantee::ExactlyOnceV2) | (Self::DrainOutputs, _) => Self::WriteChangelogs,
            (Self::WriteChangelogs, _) => Self::Drain,
            (Self::Drain, ProcessingGuarantee::AtLeastOnce) => Self::CommitOffsets,
            (Self::Drain, ProcessingGuarantee::ExactlyOnceV2) => Self::SendOffsets,
            (Self::SendOffsets, _) => Self::CommitTransaction,
            (Self::CommitOffsets | Self::CommitTransaction, _) => Self::WriteStores,
            (Self::WriteStores, _) => Self::Completed,
            (Self::Completed, _) => return None,
        })
    }

    /// The name for traces and errors.
    pub fn name(self) -> &'static str {
        match self {
            Self::SendOutputs => "send outputs",
            Self::DrainOutputs => "drain outputs",
            Self::WriteChangelogs => "write changelogs",
            Self::Drain => "drain",
            Self::CommitOffsets => "commit offsets",
            Self::SendOffsets => "send offsets",
            Self::CommitTransaction => "commit transaction",
            Self::WriteStores => "write stores",
            Self::Completed => "completed",
        }
    }

    /// Whether the offsets are committed, so that the stores' writes must follow.
    pub fn is_decided(self) -> bool {
        matches!(self, Self::WriteStores | Self::Completed)
    }
}

/// What a commit works on.
pub struct CommitParts<'a> {
    pub thread: usize,
    pub tasks: &'a mut BTreeMap<TaskId, StreamTask>,
    pub producer: &'a mut StreamsProducer,
    pub consumer: &'a mut dyn Consumer,
    pub wall_clock_ms: Timestamp,
    /// How long a transaction call may take.
    pub timeout: Duration,
}

/// A commit on its way.
#[derive(Debug)]
pub struct Commit {
    guarantee: ProcessingGuarantee,
    stage: CommitStage,
    /// The tasks it covers, with their offsets once these are known.
    tasks: BTreeMap<TaskId, TaskOffsets>,
    /// When it began, monotonic.
    pub started_ms: u64,
}

impl Commit {
    pub fn new(guarantee: ProcessingGuarantee, tasks: impl IntoIterator<Item = TaskId>, now_ms: u64) -> Self {
        let tasks = tasks.into_iter().map(|task| (task, Vec::new())).collect();
        Self { guarantee, stage: CommitStage::SendOutputs, tasks, started_ms: now_ms }
    }

    pub fn stage(&self) -> CommitStage {
        self.stage
    }

    /// Whether the task is part of it.
    pub fn covers(&self, task: TaskId) -> bool {
        self.tasks.contains_key(&task)
    }

    /// Leaves a task out that was closed meanwhile.
    pub fn remove(&mut self, task: TaskId) {
        self.tasks.remove(&task);
    }

    /// Goes on as far as possible. True when it is completed; false when it waits for the producer. An error leaves
    /// it in the stage that failed; only after `Retry`, `Rebalance` and `Pause` may it be advanced again.
    pub fn advance(&mut self, parts: &mut CommitParts<'_>) -> Result<bool, EngineError> {
        while self.stage != CommitStage::Completed {
            let done = self.run_stage(parts).map_err(|error| EngineError::Commit {
                thread: parts.thread,
                stage: self.stage.name(),
                error: Box::new(error),
            })?;
            if !done {
                return Ok(false);
            }
            let Some(next) = self.stage.next(self.guarantee) else { break };
            tracing::trace!(thread = parts.thread, from = self.stage.name(), to = next.name(), "commit");
            self.stage = next;
        }
        Ok(true)
    }

    fn run_stage(&mut self, parts: &mut CommitParts<'_>) -> Result<bool, EngineError> {
        match self.stage {
            CommitStage::SendOutputs => {
                self.each_task(parts, |task, producer, wall_clock_ms| task.send_outputs(producer, wall_clock_ms))
            }
            CommitStage::WriteChangelogs => self.each_task(parts, |task, producer, _| task.write_changelogs(producer)),
            CommitStage::DrainOutputs | CommitStage::Drain => Ok(parts.producer.drain(DRAIN_SLICE)?),
            CommitStage::CommitOffsets => {
                self.find_offsets(parts)?;
                let offsets: Vec<_> = self.tasks.values().flatten().cloned().collect();
                if !offsets.is_empty() {
                    parts.consumer.commit(&offsets)?;
                }
                Ok(true)
            }
            CommitStage::SendOffsets => {
                self.find_offsets(parts)?;
                let offsets: Vec<_> = self.tasks.values().flatten().cloned().collect();
                if !offsets.is_empty() {
                    // Taken now and not at assignment (R6); the adapter refuses a generation below 0 (R7).
                    let group = parts.consumer.group_metadata()?;
                    parts.producer.send_offsets(&offsets, &group, parts.timeout)?;
                }
                Ok(true)
            }
            CommitStage::CommitTransaction => {
                parts.producer.commit_transaction(parts.timeout)?;
                Ok(true)
            }
            CommitStage::WriteStores => {
                self.write_stores(parts)?;
                Ok(true)
            }
            CommitStage::Completed => Ok(true),
        }
    }

    fn each_task(
        &self,
        parts: &mut CommitParts<'_>,
        mut run: impl FnMut(&mut StreamTask, &mut StreamsProducer, Timestamp) -> Result<bool, EngineError>,
    ) -> Result<bool, EngineError> {
        for id in self.tasks.keys() {
            if let Some(task) = parts.tasks.get_mut(id)
                && !run(task, parts.producer, parts.wall_clock_ms)?
            {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn find_offsets(&mut self, parts: &mut CommitParts<'_>) -> Result<(), EngineError> {
        for (id, offsets) in &mut self.tasks {
            if let Some(task) = parts.tasks.get(id) {
                *offsets = task.offsets_to_commit(parts.consumer, parts.producer)?;
            }
        }
        Ok(())
    }

    /// Every task gets its turn even when one of them fails, because the offsets of all are committed.
    fn write_stores(&self, parts: &mut CommitParts<'_>) -> Result<(), EngineError> {
        let mut result = Ok(());
        for (id, offsets) in &self.tasks {
            if let Some(task) = parts.tasks.get_mut(id) {
                task.offsets_committed(offsets);
                let written = task.write_stores(parts.producer);
                result = result.and(written);
            }
        }
        if result.is_ok() {
            parts.producer.forget_acknowledged();
        }
        result
    }
}

#[cfg(test)]
mod tests;
