//! Every way in which the engine fails, and one match that says for each what is to be done and who is to blame.
//! Nothing else in the engine decides that.

use crate::broker::{BrokerError, BrokerErrorKind};
use crate::internal_topics::TopicRole;
use crate::processor::ProcessorError;
use crate::record::{Offset, Timestamp, TopicPartition};
use crate::state::StoreError;
use crate::state::changelog::ChangelogError;
use crate::task::TaskState;
use crate::topology::{TaskId, TopologyError};

/// What is to be done about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remedy {
    /// Try the same again after a pause, for at most `task.timeout.ms`.
    Retry,
    /// Poll for the new assignment, then decide again. Nothing was committed.
    Rebalance,
    /// Drop what is uncommitted, make the producer anew and go on from the last commit (R5).
    Recycle,
    /// As `Recycle`, with the version of the processor that came before.
    RollBack,
    /// This thread is no longer who it was: close every task dirty and join the group anew.
    TaskMigrated,
    /// Wipe the store, restore it from its changelog and go on from the last commit (R12).
    TaskCorrupted,
    /// Commit nothing and process nothing until there is space again (C8).
    Pause,
    /// Stop the application.
    Fatal,
}

/// Whose fault an error is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blame {
    /// The processor, or the record that it got.
    Guest,
    Broker,
    Disk,
    /// The engine itself.
    Host,
    /// Settings, topics or directories that do not fit.
    Operator,
}

/// A failure of the engine: what was tried on what.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EngineError {
    #[error(transparent)]
    Broker(#[from] BrokerError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Topology(#[from] TopologyError),

    /// A call failed as a whole; none of its records is committed.
    #[error("task {task}, {partition}, offset {first_offset}{}, module {digest}: {error}", up_to(*first_offset, *last_offset))]
    Processing {
        task: TaskId,
        partition: TopicPartition,
        first_offset: Offset,
        last_offset: Offset,
        digest: String,
        error: Box<ProcessorError>,
    },
    /// The processor refused a record.
    #[error("task {task}, {partition}, offset {offset}, module {digest}: the processor refused the record: {reason}")]
    Refused { task: TaskId, partition: TopicPartition, offset: Offset, digest: String, reason: String },
    #[error("task {task}, punctuation {schedule} at {time}, module {digest}: {error}")]
    Punctuation { task: TaskId, schedule: u32, time: Timestamp, digest: String, error: Box<ProcessorError> },
    #[error("task {task}, module {digest}: {error}")]
    Start { task: TaskId, digest: String, error: Box<ProcessorError> },
    #[error(
        "task {task}, {partition}, offset {offset}: the record has the timestamp {timestamp}; expected milliseconds since the epoch, or -1 for none"
    )]
    InvalidTimestamp { task: TaskId, partition: TopicPartition, offset: Offset, timestamp: Timestamp },

    /// The processor fails at one record after the other.
    #[error(
        "task {task}, {partition}, offset {offset}, module {digest}: the processor failed at {times} records in a row, so the fault is hardly theirs; those before it were given up; mend the module, or raise processing.exception.consecutive.max: {error}"
    )]
    ConsecutiveFailures {
        task: TaskId,
        partition: TopicPartition,
        offset: Offset,
        digest: String,
        times: u32,
        error: Box<ProcessorError>,
    },
    /// Schedules fail one after the other.
    #[error(
        "{error}; it is the failure number {times} in a row without a schedule that succeeded; mend the module, or raise processing.exception.consecutive.max"
    )]
    ConsecutivePunctuations { times: u32, error: Box<EngineError> },
    /// A version does worse than the one before by more than its probation allows.
    #[error("task {task}: version {version} goes back to the one before: {reason}")]
    PastProbation { task: TaskId, version: u64, reason: String },
    /// A processor does not take rows of an older version over.
    #[error(transparent)]
    Migration(#[from] Box<MigrationError>),
    /// A newer version has taken rows over and changed them since.
    #[error(
        "store {store} of task {task} has rows of schema version {found}, which a newer version has written since it took them over, and this one has {own}; deploy a version that has {found} or more"
    )]
    NewerRows { task: TaskId, store: String, found: u32, own: u32 },
    /// Rows were not taken over, and the generation that has them is not open.
    #[error(
        "store {store} of task {task} has rows of schema version {found}, which were not taken over yet, and this version has {own}"
    )]
    OlderRows { task: TaskId, store: String, found: u32, own: u32 },
    /// Nothing says whether the rows of a store are taken over.
    #[error(
        "the committed offsets of task {task} do not say which schema the rows of store {store} have, as somebody else has set them, and it has rows of version {own}: to go on with those, set accept.missing.offsets for one start; to process everything again, reset the application"
    )]
    UnknownSchema { task: TaskId, store: String, own: u32 },
    #[error("task {task}: there is no topic for dead letters; set errors.dead.letter.queue.topic.name")]
    NoDeadLetterTopic { task: TaskId },
    /// A dead letter cannot be written, and nothing may be dropped instead (E4).
    #[error(
        "task {task}, {subject}: the dead letter topic {topic} would refuse the dead letter ({fault}); correct the topic, or set the handler to fail or continue; the record became a dead letter because: {error}"
    )]
    DeadLetterRefused { task: TaskId, subject: String, topic: String, fault: String, error: Box<ProcessorError> },

    /// An output could not be handed to the producer.
    #[error("task {task}, output to {topic}: {error}")]
    Send { task: TaskId, topic: String, error: BrokerError },

    #[error("topics do not exist: {}; create them first", .topics.join(", "))]
    MissingTopics { topics: Vec<String> },
    #[error("internal topic {topic} cannot be used: {}; correct or delete it (its data is the only copy of the state if the state directory is lost)", .faults.join(", "))]
    InternalTopic { topic: String, faults: Vec<String> },
    #[error(
        "errors.dead.letter.queue.topic.name is {topic}, whose cleanup.policy is {policy}: compaction keeps the last record of a key only, and a dead letter has the key of its record, so that some would be lost unseen; set cleanup.policy=delete, with retention.ms=-1"
    )]
    CompactedDeadLetters { topic: String, policy: String },
    #[error(
        "source topic {topic} had {expected} partitions when the application began and has at least {found} now: stores are split by the old count, so move an application that has some to new topics, or give it a new id; one without stores takes the new partitions on with its next start"
    )]
    PartitionsAdded { topic: String, expected: i32, found: i32 },
    #[error("{}", topic_changed(.topic, *.role, .known, .found.as_deref()))]
    TopicChanged { topic: String, role: TopicRole, known: String, found: Option<String> },
    #[error("{partition} was assigned but belongs to no source of the topology")]
    UnexpectedPartition { partition: TopicPartition },
    #[error("task {task} got {} but not {} within {waited_ms} ms; its sources must be assigned together: set partition.assignment.strategy=range", names(.held), names(.missing))]
    IncompleteTask { task: TaskId, held: Vec<TopicPartition>, missing: Vec<TopicPartition>, waited_ms: u64 },

    #[error(
        "store {store} of task {task} is at offset {stored} of its changelog {changelog}, which ends at {end}: the changelog was deleted or recreated; reset the application, or remove the local state and set accept.lost.changelogs to accept the loss"
    )]
    ChangelogRegressed { task: TaskId, store: String, changelog: TopicPartition, stored: Offset, end: Offset },
    #[error(
        "store {store} of task {task} has read its topic {changelog} up to offset {stored}, which ends at {end}: the topic was deleted or recreated, or lost records; remove the local state to load it again"
    )]
    SourceRegressed { task: TaskId, store: String, changelog: TopicPartition, stored: Offset, end: Offset },
    #[error(
        "the committed offsets of task {task} belong to a state that reaches offset {committed} of the changelog {changelog}, which ends at {end}: the changelog was deleted or made anew, and store {store} would begin empty in the middle of its input; reset the application, its group too, to process everything again, or accept the loss with accept.lost.changelogs"
    )]
    ChangelogLost { task: TaskId, store: String, changelog: TopicPartition, committed: Offset, end: Offset },
    #[error(
        "store {store} of task {task} holds entries that its changelog {changelog} does not know, since they were written with logging.enabled = false: set that again, or remove the local state to begin with what the changelog has"
    )]
    UnloggedContent { task: TaskId, store: String, changelog: TopicPartition },
    #[error(
        "restoring store {store} of task {task} stands at offset {position} of {changelog} since {stalled_ms} ms and should reach {target}; a transaction on it may be hanging"
    )]
    RestoreStalled {
        task: TaskId,
        store: String,
        changelog: TopicPartition,
        position: Offset,
        target: Offset,
        stalled_ms: u64,
    },
    #[error(transparent)]
    Changelog(#[from] ChangelogError),
    #[error("task {task} has state (store {store}, {evidence}) but the group has no committed offset for {}; processing from the start would count everything again: restore the group's offsets, reset the application, or accept it with accept.missing.offsets", names(.partitions))]
    CommittedOffsetsMissing { task: TaskId, store: String, evidence: String, partitions: Vec<TopicPartition> },
    #[error("{partition} has no committed offset and auto.offset.reset is none")]
    NoStartOffset { partition: TopicPartition },
    #[error(
        "{operation}: {detail}; records were removed before they were processed, or the topic was recreated: set the group's offsets, or reset the application"
    )]
    OffsetOutOfRange { operation: String, detail: String },
    /// As `OffsetOutOfRange` where every store can be loaded again from its source topic.
    #[error("{operation}: {detail}; records were removed before the table had read them, so it is loaded again")]
    TableOvertaken { operation: String, detail: String },

    #[error("gave up after {waited_ms} ms: {error}")]
    TimedOut { waited_ms: u64, error: Box<EngineError> },
    #[error("gave up after {times} attempts without a commit: {error}")]
    Recycled { times: u32, error: Box<EngineError> },
    #[error("commit of thread {thread} failed in stage {stage}: {error}")]
    Commit { thread: usize, stage: &'static str, error: Box<EngineError> },
    #[error("task {task} cannot move from {from} to {to}")]
    IllegalMove { task: TaskId, from: TaskState, to: TaskState },
    #[error(
        "another process runs with the identity of this host and has taken its transactional id {transactional_id}: was the state directory copied? Stop one of the two and give it a state directory of its own ({error})"
    )]
    FencedByAnother { thread: usize, transactional_id: String, error: Box<EngineError> },
    #[error("exactly_once_v2 needs a transactional id for thread {thread}")]
    NoTransactionalId { thread: usize },
}

/// Rows that a processor's `migrate` does not take over.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "task {task}, store {store}, rows {first_key:?} to {last_key:?} ({rows}), module {digest}: migrate from schema version {from_version} to {to_version} fails: {error}"
)]
pub struct MigrationError {
    pub task: TaskId,
    /// Of the processor.
    pub version: u64,
    pub store: String,
    pub from_version: u32,
    pub to_version: u32,
    /// For people, shortened.
    pub first_key: String,
    pub last_key: String,
    pub rows: usize,
    pub digest: String,
    pub error: ProcessorError,
}

fn up_to(first: Offset, last: Offset) -> String {
    if first == last { String::new() } else { format!(" to {last}") }
}

fn names(partitions: &[TopicPartition]) -> String {
    partitions.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// Another topic under a known name, or none. Says what to do, since the program cannot know what is wanted.
fn topic_changed(topic: &str, role: TopicRole, known: &str, found: Option<&str>) -> String {
    let what = match found {
        Some(found) => format!("was deleted and created anew (topic id {known} before, {found} now)"),
        None => format!("was deleted (topic id {known})"),
    };
    match role {
        TopicRole::Source => format!(
            "source topic {topic} {what}: the group's offsets belong to the old one; give the application a new id, or \
             remove its changelogs and state directories to begin anew"
        ),
        TopicRole::Changelog => format!(
            "changelog {topic} {what}: the state that the group's offsets belong to is not in it; give the application \
             a new id, or remove its changelogs, state directories and offsets to begin anew"
        ),
    }
}

impl EngineError {
    /// What is to be done about it.
    pub fn remedy(&self) -> Remedy {
        self.classify().0
    }

    /// Whose fault it is.
    pub fn blame(&self) -> Blame {
        self.classify().1
    }

    /// The one place that decides about errors.
    fn classify(&self) -> (Remedy, Blame) {
        match self {
            Self::Broker(error) | Self::Send { error, .. } => (broker_remedy(error.kind), broker_blame(error.kind)),
            Self::Store(error) => store_remedy(error),
            Self::Processing { error, .. } | Self::Punctuation { error, .. } | Self::Start { error, .. } => {
                processor_remedy(error)
            }
            Self::Refused { .. }
            | Self::InvalidTimestamp { .. }
            | Self::ConsecutiveFailures { .. }
            | Self::ConsecutivePunctuations { .. } => (Remedy::Fatal, Blame::Guest),
            Self::PastProbation { .. } => (Remedy::RollBack, Blame::Guest),
            Self::Migration(migration) => match processor_remedy(&migration.error) {
                (Remedy::Fatal, Blame::Guest) => (Remedy::RollBack, Blame::Guest),
                other => other,
            },
            // The host is about to hear of the version that has them.
            Self::NewerRows { .. } | Self::OlderRows { .. } => (Remedy::Retry, Blame::Operator),
            Self::Commit { error, .. } => error.classify(),
            Self::TimedOut { error, .. } | Self::Recycled { error, .. } => (Remedy::Fatal, error.blame()),
            Self::Topology(_)
            | Self::MissingTopics { .. }
            | Self::InternalTopic { .. }
            | Self::CompactedDeadLetters { .. }
            | Self::PartitionsAdded { .. }
            | Self::TopicChanged { .. }
            | Self::IncompleteTask { .. }
            | Self::ChangelogRegressed { .. }
            | Self::SourceRegressed { .. }
            | Self::ChangelogLost { .. }
            | Self::UnloggedContent { .. }
            | Self::Changelog(_)
            | Self::CommittedOffsetsMissing { .. }
            | Self::NoStartOffset { .. }
            | Self::UnknownSchema { .. }
            | Self::OffsetOutOfRange { .. }
            | Self::FencedByAnother { .. }
            | Self::NoDeadLetterTopic { .. }
            | Self::DeadLetterRefused { .. }
            | Self::NoTransactionalId { .. } => (Remedy::Fatal, Blame::Operator),
            Self::TableOvertaken { .. } => (Remedy::TaskMigrated, Blame::Operator),
            Self::RestoreStalled { .. } => (Remedy::Fatal, Blame::Broker),
            Self::UnexpectedPartition { .. } | Self::IllegalMove { .. } => (Remedy::Fatal, Blame::Host),
        }
    }
}

fn broker_remedy(kind: BrokerErrorKind) -> Remedy {
    match kind {
        BrokerErrorKind::Retriable => Remedy::Retry,
        BrokerErrorKind::Rebalanced => Remedy::Rebalance,
        BrokerErrorKind::Abortable => Remedy::Recycle,
        BrokerErrorKind::Fenced => Remedy::TaskMigrated,
        BrokerErrorKind::UnknownTopic
        | BrokerErrorKind::TopicExists
        | BrokerErrorKind::Rejected
        | BrokerErrorKind::Unauthorized
        | BrokerErrorKind::OffsetOutOfRange
        | BrokerErrorKind::Fatal => Remedy::Fatal,
    }
}

fn broker_blame(kind: BrokerErrorKind) -> Blame {
    match kind {
        BrokerErrorKind::UnknownTopic | BrokerErrorKind::Unauthorized | BrokerErrorKind::OffsetOutOfRange => {
            Blame::Operator
        }
        BrokerErrorKind::Rejected => Blame::Guest,
        _ => Blame::Broker,
    }
}

fn processor_remedy(error: &ProcessorError) -> (Remedy, Blame) {
    match error {
        ProcessorError::Store(error) => store_remedy(error),
        ProcessorError::HostPanic(_) => (Remedy::Fatal, Blame::Host),
        _ => (Remedy::Fatal, Blame::Guest),
    }
}

fn store_remedy(error: &StoreError) -> (Remedy, Blame) {
    match error {
        StoreError::Corrupt { .. } => (Remedy::TaskCorrupted, Blame::Disk),
        StoreError::NoSpace { .. } => (Remedy::Pause, Blame::Disk),
        // A task that moves between two threads of a host is held by the old one for a moment.
        StoreError::Locked { .. } => (Remedy::Retry, Blame::Operator),
        StoreError::Foreign { .. } => (Remedy::Fatal, Blame::Operator),
        StoreError::Io { .. } => (Remedy::Fatal, Blame::Disk),
        // Views are for queries; a task that meets this reads what it has closed itself.
        StoreError::Closed { .. } => (Remedy::Fatal, Blame::Host),
        StoreError::Undeclared { .. } => (Remedy::Fatal, Blame::Guest),
    }
}

#[cfg(test)]
mod tests;
