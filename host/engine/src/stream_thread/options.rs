//! What a stream thread is made of: the settings with their Kafka Streams names and defaults, and the parts that the
//! host hands in. Plain data; the host reads and checks the manifest.

use std::sync::Arc;

use crate::broker::ClientSupplier;
use crate::clock::Clock;
use crate::exception_handlers::ExceptionHandlers;
use crate::metrics::EngineMetrics;
use crate::query::QueryRegistry;
use crate::standby::StandbyTasks;
use crate::state::StoreProvider;
use crate::stream_thread::progress::SharedProgress;
use crate::topic_limits::SharedSinkLimits;
use crate::topology::{PartitionCounts, Topology};
use crate::version::Versions;

/// `processing.guarantee`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ProcessingGuarantee {
    /// Nothing is lost; after a failure, records since the last commit are processed again.
    #[default]
    AtLeastOnce,
    /// Input offsets, outputs and changelog records are committed in one transaction.
    ExactlyOnceV2,
}

/// `auto.offset.reset`: where a partition starts when the group has committed nothing for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AutoOffsetReset {
    #[default]
    Earliest,
    Latest,
    /// Stop with an error instead.
    None,
}

/// The settings of a stream thread. Names are Kafka Streams' keys with underscores.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamsConfig {
    pub processing_guarantee: ProcessingGuarantee,
    /// How long processing may go on before its results are committed.
    pub commit_interval_ms: u64,
    /// How long a poll may wait when there is nothing to do.
    pub poll_ms: u64,
    /// Most records that one poll returns.
    pub max_poll_records: usize,
    /// The consumer is polled at least twice in this time.
    pub max_poll_interval_ms: u64,
    /// A partition with this many records in its queue is paused.
    pub buffered_records_per_partition: usize,
    /// How long a task waits for an empty partition once that is known to be caught up, so that records of several
    /// partitions are processed in the order of their timestamps; -1 never waits, not even for data that the broker
    /// has (KIP-695).
    pub max_task_idle_ms: i64,
    /// `auto.offset.reset`.
    pub auto_offset_reset: AutoOffsetReset,
    /// Most records of a batch.
    pub batch_max_records: usize,
    /// Most bytes of a batch's keys, values and headers; a larger record travels alone.
    pub batch_max_bytes: usize,
    /// Uncommitted bytes of all stores of the thread; passing it commits early.
    pub statestore_uncommitted_max_bytes: usize,
    /// Bytes of clean entries that the stores of the thread keep in memory.
    pub statestore_cache_max_bytes: usize,
    /// How often the stores make durable what was committed (R4).
    pub statestore_flush_interval_ms: u64,
    /// How long a failing call is tried again before the application stops.
    pub task_timeout_ms: u64,
    /// How long a commit may take under exactly-once, or while partitions are revoked, before it counts as in doubt
    /// (R5, R8).
    pub commit_timeout_ms: u64,
    /// The pause after a failed attempt.
    pub retry_backoff_ms: u64,
    /// Most records that one slice of a restore reads while other tasks of the thread are running.
    pub restore_max_records: usize,
    /// `transaction.timeout.ms` of the application's producers; a restore that stands still for twice as long fails.
    pub transaction_timeout_ms: u64,
    /// How long "no committed offset" is asked again when the task has state, before it is believed (R11).
    pub missing_offsets_timeout_ms: u64,
    /// The operator's word that a task with state and without committed offsets shall start by `auto_offset_reset`.
    pub accept_missing_offsets: bool,
    /// Whether stores may begin with a changelog that ends before the state to which the committed offsets belong.
    pub accept_lost_changelogs: bool,
    /// What is done about records that cannot be processed.
    pub exception_handlers: ExceptionHandlers,
    /// Whether every output says in a header which module made it.
    pub provenance: bool,
    /// For the benchmark of what savepoints cost, and no setting of a host: calls are made without, and the first one
    /// that fails stops the application, since nothing of it can be undone.
    pub without_savepoints: bool,
}

impl Default for StreamsConfig {
    fn default() -> Self {
        Self {
            processing_guarantee: ProcessingGuarantee::AtLeastOnce,
            commit_interval_ms: 1_000,
            poll_ms: 100,
            max_poll_records: 1_000,
            max_poll_interval_ms: 300_000,
            buffered_records_per_partition: 1_000,
            max_task_idle_ms: 0,
            auto_offset_reset: AutoOffsetReset::Earliest,
            batch_max_records: 500,
            batch_max_bytes: 1 << 20,
            statestore_uncommitted_max_bytes: 32 << 20,
            statestore_cache_max_bytes: 64 << 20,
            statestore_flush_interval_ms: 60_000,
            task_timeout_ms: 300_000,
            commit_timeout_ms: 5_000,
            retry_backoff_ms: 100,
            restore_max_records: 10_000,
            transaction_timeout_ms: 10_000,
            missing_offsets_timeout_ms: 60_000,
            accept_missing_offsets: false,
            accept_lost_changelogs: false,
            exception_handlers: ExceptionHandlers::default(),
            provenance: false,
            without_savepoints: false,
        }
    }
}

/// Everything that a stream thread needs.
pub struct StreamThreadOptions {
    /// The number of the thread within its application, for client ids and logs.
    pub thread: usize,
    pub application_id: Arc<str>,
    /// Required under exactly-once: stable over restarts and different for each thread (R1).
    pub transactional_id: Option<String>,
    pub config: StreamsConfig,
    pub clients: Arc<dyn ClientSupplier>,
    /// Sources, stores and sinks; the same in all of the versions.
    pub topology: Arc<Topology>,
    /// What the tasks run; one for the stream threads of an application.
    pub versions: Arc<Versions>,
    pub stores: Arc<dyn StoreProvider>,
    /// Who has which stores open; one for the stream threads and the standby thread of a process.
    pub standby_tasks: Arc<StandbyTasks>,
    pub clock: Arc<dyn Clock>,
    /// What `internal_topics::prepare` returned.
    pub partition_counts: Arc<PartitionCounts>,
    /// What it returned for the topics that are written, and what they say later.
    pub sink_limits: Arc<SharedSinkLimits>,
    /// Where committed state is offered to queries.
    pub queries: Arc<QueryRegistry>,
    /// The thread's counters; one for each thread.
    pub metrics: Arc<EngineMetrics>,
    /// Where the thread publishes its progress; keep a clone to read it.
    pub progress: Arc<SharedProgress>,
}
