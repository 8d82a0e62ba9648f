//! A stream thread: one consumer, one producer and a set of tasks, driven by calls of `run_once`. Owns the order of
//! a turn (poll, process, punctuate, commit) and what is done about each error. Never looks into records or stores.

use crate::error::EngineError;

mod options;
mod progress;

pub use options::{AutoOffsetReset, ProcessingGuarantee, StreamThreadOptions, StreamsConfig};
pub use progress::{PartitionReport, RestoreReport, SharedProgress, TaskReport, ThreadReport, ThreadState};

/// What one turn did, and when the next one is worth it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RunOnce {
    pub records_processed: u64,
    pub records_restored: u64,
    pub punctuations: u64,
    pub committed: bool,
    /// How long the caller should wait before the next turn, because a call failed and will be tried again.
    pub wait_ms: u64,
}

/// How a thread is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseMode {
    /// Commit what was processed, flush the stores, leave the group.
    Clean,
    /// Drop what is uncommitted, leave the group.
    Dirty,
}

/// One consumer, one producer and the tasks of their partitions.
pub struct StreamThread {
    options: StreamThreadOptions,
}

impl StreamThread {
    /// Makes the clients and joins the group. Nothing is read or written before the first `run_once`.
    pub fn new(options: StreamThreadOptions) -> Result<Self, EngineError> {
        Ok(Self { options })
    }

    /// One turn: poll, process, punctuate, commit. An error is final: close the thread and stop the application.
    pub fn run_once(&mut self) -> Result<RunOnce, EngineError> {
        let _ = &self.options.thread;
        Ok(RunOnce::default())
    }

    /// Ends the thread. A clean close that fails still closes everything, dirty, and returns why.
    pub fn close(&mut self, mode: CloseMode) -> Result<(), EngineError> {
        let _ = mode;
        Ok(())
    }
}
