//! The seam to a processor: user logic that turns input batches into state changes and outputs. A processor sees
//! only what is moved into the call (`ProcessorContext`) and gives it back; it never holds a reference to a task.
//! Adapters: `sandbox` and native Rust processors (tests, and the baseline of the benchmark).

use std::sync::Arc;

use crate::record::{InputBatch, Outcome, Timestamp};
use crate::state::StoreError;
use crate::topology::{TaskId, Topology};

mod context;
pub use context::{Page, ProcessorContext, PunctuationType, ScheduleId, ScheduleRequest, StoreIndex};

/// Why a call of a processor failed. Every kind undoes the whole call.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProcessorError {
    /// The processor itself returned an error for the whole call.
    #[error("the processor returned an error: {0}")]
    Returned(String),
    /// It crashed; the instance is gone.
    #[error("the processor crashed: {message}")]
    Trap { message: String, backtrace: String },
    #[error("the call ran longer than {limit_ms} ms")]
    Deadline { limit_ms: u64 },
    #[error("memory limit of {limit_bytes} bytes reached")]
    Memory { limit_bytes: u64 },
    /// Another bound: host calls, output bytes, log lines, schedules.
    #[error("limit {name} = {limit} exceeded ({found}); raise it with the key {key}")]
    Limit { name: &'static str, key: &'static str, limit: u64, found: u64 },
    /// The outcome breaks the contract.
    #[error("malformed output: {0}")]
    Output(String),
    /// The host's own storage failed under the call; no fault of the processor.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The instance could not be made.
    #[error("the processor could not start: {0}")]
    Start(String),
}

/// One instance, owned by one task. After an error other than `Returned` the instance is dropped, never reused.
pub trait Processor: Send {
    /// Called once, before anything else.
    fn init(&mut self, context: ProcessorContext) -> (ProcessorContext, Result<(), ProcessorError>);

    /// Processes consecutive records of one partition.
    fn process(
        &mut self,
        context: ProcessorContext,
        batch: InputBatch,
    ) -> (ProcessorContext, Result<Outcome, ProcessorError>);

    /// Runs a schedule that is due; `time` is what made it so.
    fn punctuate(
        &mut self,
        context: ProcessorContext,
        schedule: ScheduleId,
        time: Timestamp,
    ) -> (ProcessorContext, Result<Outcome, ProcessorError>);
}

/// Makes the instances of an application (Kafka Streams' `ProcessorSupplier`).
pub trait ProcessorSupplier: Send + Sync {
    /// What the processor declares; the same for every instance.
    fn topology(&self) -> &Arc<Topology>;

    /// Identifies the code in errors and logs, for example the module's sha-256.
    fn digest(&self) -> &str;

    fn create(&self, task: TaskId) -> Result<Box<dyn Processor>, ProcessorError>;
}
