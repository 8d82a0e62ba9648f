//! The seam to a processor: user logic that turns input batches into state changes and outputs. A processor sees
//! only what is moved into the call (`ProcessorContext`) and gives it back; it never holds a reference to a task.
//! Adapters: `sandbox` and native Rust processors (tests, and the baseline of the benchmark).

use std::sync::Arc;

use crate::columns::{Columns, NullableColumns};
use crate::record::{InputBatch, Outcome, Timestamp};
use crate::state::StoreError;
use crate::topology::{TaskId, Topology};

mod context;
mod reads;
pub use context::{Page, ProcessorContext, PunctuationType, ScheduleId, ScheduleRequest, StoreIndex};
pub use reads::{Read, Reads, ReadsError};

/// Why a call of a processor failed. Every kind undoes the whole call.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProcessorError {
    /// The processor itself returned an error for the whole call.
    #[error("the processor returned an error: {0}")]
    Returned(String),
    /// It crashed; the instance is gone.
    #[error("the processor crashed: {message}")]
    Trap { message: String, backtrace: String },
    #[error("the call ran longer than {limit_ms} ms; raise it with the key processor.deadline.ms")]
    Deadline { limit_ms: u64 },
    #[error("memory limit of {limit_bytes} bytes reached; raise it with the key processor.memory.max.bytes")]
    Memory { limit_bytes: u64 },
    /// Another bound: host calls, output bytes, log lines, schedules.
    #[error("limit {name} = {limit} exceeded ({found}); raise it with the key {key}")]
    Limit { name: &'static str, key: &'static str, limit: u64, found: u64 },
    /// The outcome breaks the contract.
    #[error("malformed output: {0}")]
    Output(String),
    /// The outcome keeps the contract, but Kafka would refuse one of its records, and its whole batch with it (R20).
    #[error("an output that Kafka would refuse: {fault}")]
    Production { fault: String, too_large: bool },
    /// The host's own storage failed under the call; no fault of the processor.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The instance could not be made.
    #[error("the processor could not start: {0}")]
    Start(String),
    /// The host itself panicked while it served the processor (S16); no fault of a record.
    #[error("the host panicked while it ran the processor, which is a defect of the host: {0}")]
    HostPanic(String),
}

impl ProcessorError {
    /// Whether the call did not end in good order. What a processor says in good order is its own judgement of a
    /// record; a crash may as well come from what earlier ones have left in its memory.
    pub fn is_crash(&self) -> bool {
        !matches!(self, Self::Returned(_) | Self::Production { .. })
    }
}

/// What is known of the last call beside its result.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CallReport {
    /// CPU time of the thread inside the call, where it was measured.
    pub cpu_us: u64,
    /// The processor's own stack where the call failed, one frame a line; empty where there is none.
    pub backtrace: String,
}

/// One instance, owned by one task. After a call that is undone it is dropped, never reused.
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

    /// Takes rows over that an older version of the processor has stored: rows of `store` under version `from_version`
    /// of its schema become rows of the version that this processor declares. Answers with the new values in the order
    /// of the keys, null where a row is deleted; keys stay. Pure: there is no context, and the same rows always give
    /// the same answer. May be called before `init`. A call without rows succeeds if the processor migrates that store
    /// from that version at all.
    ///
    /// # Errors
    /// What any call may fail with; rows that cannot be taken over are the processor's own error.
    fn migrate(
        &mut self,
        store: &str,
        from_version: u32,
        _keys: &Columns,
        _values: &Columns,
    ) -> Result<NullableColumns, ProcessorError> {
        Err(no_migration(store, from_version))
    }

    /// What the last call cost and where it failed. A call with a context that is recording is always measured.
    fn report(&self) -> CallReport {
        CallReport::default()
    }
}

/// Makes the instances of an application (Kafka Streams' `ProcessorSupplier`).
pub trait ProcessorSupplier: Send + Sync {
    /// What the processor declares; the same for every instance.
    fn topology(&self) -> &Arc<Topology>;

    /// Identifies the code in errors and logs, for example the module's sha-256.
    fn digest(&self) -> &str;

    /// Settings of the instances that differ from the defaults, for whoever repeats a call elsewhere.
    fn settings(&self) -> Vec<(String, String)> {
        Vec::new()
    }

    /// Whether the instances have a `migrate`. Which stores and versions it knows, only a call tells.
    fn can_migrate(&self) -> bool {
        false
    }

    fn create(&self, task: TaskId) -> Result<Box<dyn Processor>, ProcessorError>;
}

/// The answer of a processor that migrates nothing.
pub(crate) fn no_migration(store: &str, from_version: u32) -> ProcessorError {
    ProcessorError::Returned(format!("it has no migration of store {store} from version {from_version}"))
}
