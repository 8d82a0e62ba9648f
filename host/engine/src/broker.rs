//! The seam to the broker: consumer, restore consumer, membership, producer and admin, as the engine needs them. All
//! calls are synchronous and bounded; a rebalance is an event that `poll` returns, never a callback. Adapters: `kafka`
//! (librdkafka) and `broker::direct` (the embedded broker's core, for simulation).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::record::{Header, Offset, Record, Timestamp, TopicPartition};

/// What a failed broker call asks of its caller. Named by remedy, as in Kafka's own client errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BrokerErrorKind {
    /// Try the same call again after a pause.
    Retriable,
    /// The member's generation is over (IllegalGeneration, RebalanceInProgress, UnknownMember): poll for the new
    /// assignment, then decide again. Nothing was committed.
    Rebalanced,
    /// Abort the transaction, drop uncommitted work and resume from the committed offsets.
    Abortable,
    /// Another client took this identity: close every task dirty and join anew.
    Fenced,
    /// The topic or partition does not exist.
    UnknownTopic,
    /// The topic exists already.
    TopicExists,
    /// The broker refused this record or request as it is; the same bytes will be refused again.
    Rejected,
    /// The credentials do not allow it.
    Unauthorized,
    /// The stored offset is outside the log.
    OffsetOutOfRange,
    /// No remedy but a new client.
    Fatal,
}

/// A failed broker call: what was tried on what, and what came back.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{operation}: {detail}")]
pub struct BrokerError {
    pub kind: BrokerErrorKind,
    /// For example `commit offsets of group carrier-count`.
    pub operation: String,
    pub detail: String,
}

impl BrokerError {
    pub fn new(kind: BrokerErrorKind, operation: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { kind, operation: operation.into(), detail: detail.into() }
    }
}

/// Consecutive records of one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionRecords {
    pub partition: TopicPartition,
    pub records: Vec<Record>,
}

/// A change of the group's assignment. Only the named partitions change (cooperative rebalancing); an eager
/// assignor simply revokes everything first. The engine must answer each event with `Consumer::assign` or
/// `Consumer::unassign` before the rebalance goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RebalanceEvent {
    Assigned(Vec<TopicPartition>),
    /// Still owned until `unassign`: commit first.
    Revoked(Vec<TopicPartition>),
    /// Already owned by others: commit nothing.
    Lost(Vec<TopicPartition>),
}

/// What one poll returned.
#[derive(Debug, Default)]
pub struct Polled {
    pub records: Vec<PartitionRecords>,
    pub events: Vec<RebalanceEvent>,
}

/// An offset to commit or that was committed: the next offset to process, with the task's metadata (stream time).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OffsetAndMetadata {
    pub offset: Offset,
    pub metadata: String,
}

/// Where a newly assigned partition starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartOffset {
    /// From this offset on; out of range is an error, never a silent reset.
    At(Offset),
    Earliest,
    Latest,
}

/// The identity under which offsets are committed in a transaction (KIP-447). Taken at commit time (R6).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupMetadata {
    pub group_id: String,
    pub generation_id: i32,
    pub member_id: String,
    pub group_instance_id: Option<String>,
}

/// A member of the application's consumer group. Records are read with `read_committed`.
pub trait Consumer: Send {
    /// Joins the group for these topics.
    fn subscribe(&mut self, topics: &[Arc<str>]) -> Result<(), BrokerError>;

    /// Serves the group and returns what has come, waiting at most `timeout` when there is nothing. At most
    /// `max_records` records. Must be called within `max.poll.interval.ms` even when everything is paused.
    fn poll(&mut self, timeout: Duration, max_records: usize) -> Result<Polled, BrokerError>;

    /// Accepts assigned partitions and begins to fetch them at the given offsets.
    fn assign(&mut self, partitions: &[(TopicPartition, StartOffset)]) -> Result<(), BrokerError>;

    /// Gives partitions up. Records of theirs that were fetched are dropped.
    fn unassign(&mut self, partitions: &[TopicPartition]) -> Result<(), BrokerError>;

    /// Stops fetching without giving up the partitions. Idempotent.
    fn pause(&mut self, partitions: &[TopicPartition]) -> Result<(), BrokerError>;

    fn resume(&mut self, partitions: &[TopicPartition]) -> Result<(), BrokerError>;

    /// Moves the fetch position of an assigned partition.
    fn seek(&mut self, partition: &TopicPartition, offset: Offset) -> Result<(), BrokerError>;

    /// The offset after the last one that `poll` has passed, control records included (R19); `None` when nothing
    /// was polled yet.
    fn position(&mut self, partition: &TopicPartition) -> Result<Option<Offset>, BrokerError>;

    /// The end of the partition's log as the last fetch reported it, without asking the broker; `None` when that is
    /// not known.
    fn end_offset(&mut self, partition: &TopicPartition) -> Result<Option<Offset>, BrokerError> {
        let _ = partition;
        Ok(None)
    }

    /// The group's committed offsets, in the order asked, `None` where there is none.
    fn committed(&mut self, partitions: &[TopicPartition]) -> Result<Vec<Option<OffsetAndMetadata>>, BrokerError>;

    /// Commits and waits for the answer (at-least-once only; transactions use the producer).
    fn commit(&mut self, offsets: &[(TopicPartition, OffsetAndMetadata)]) -> Result<(), BrokerError>;

    /// The membership at this moment; a generation below 0 is an error (R7).
    fn group_metadata(&mut self) -> Result<GroupMetadata, BrokerError>;

    /// Leaves the group.
    fn close(&mut self) -> Result<(), BrokerError>;
}

/// Log start and log end of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Watermarks {
    pub low: Offset,
    /// The log end, open transactions included (R9), not the last stable offset.
    pub high: Offset,
}

/// Reads changelogs with `read_committed`, outside any group.
pub trait RestoreConsumer: Send {
    /// The bounds of each partition, in the order asked.
    fn watermarks(&mut self, partitions: &[TopicPartition]) -> Result<Vec<Watermarks>, BrokerError>;

    /// The last stable offset of each partition, in the order asked: the end that can be read while transactions are
    /// open. Where that is not known, the log end.
    fn stable_ends(&mut self, partitions: &[TopicPartition]) -> Result<Vec<Offset>, BrokerError> {
        Ok(self.watermarks(partitions)?.into_iter().map(|log| log.high).collect())
    }

    /// Begins to read a partition from an offset on, beside those already read.
    fn assign(&mut self, partition: &TopicPartition, offset: Offset) -> Result<(), BrokerError>;

    fn unassign(&mut self, partition: &TopicPartition) -> Result<(), BrokerError>;

    fn poll(&mut self, timeout: Duration, max_records: usize) -> Result<Vec<PartitionRecords>, BrokerError>;

    /// The next offset to be read; moves past control records (R9).
    fn position(&mut self, partition: &TopicPartition) -> Result<Option<Offset>, BrokerError>;
}

/// A member of the application's group, as the group describes it to anybody who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupMember {
    pub member_id: String,
    /// What the member calls itself; `assignment::MemberName` is in it when it is a host of the application.
    pub client_id: String,
    /// From where it is connected, as the broker sees it.
    pub host: String,
    pub assigned: Vec<TopicPartition>,
}

/// Looks at the application's group from outside; never a member of it.
pub trait Membership: Send {
    /// All members with what each of them has; `None` while the group is rebalancing, when nobody can tell.
    fn members(&mut self) -> Result<Option<Vec<GroupMember>>, BrokerError>;
}

/// A record to send; borrowed, the producer copies what it keeps.
#[derive(Debug, Clone, Copy)]
pub struct ProducerRecord<'a> {
    pub topic: &'a Arc<str>,
    /// `None` = Kafka's default partitioner (murmur2 of the key; sticky where there is no key).
    pub partition: Option<i32>,
    /// 0 or more.
    pub timestamp: Timestamp,
    pub key: Option<&'a [u8]>,
    pub value: Option<&'a [u8]>,
    pub headers: &'a [Header],
}

/// Why a record was not taken by the producer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The producer's queue is full: poll it and send the same record again. Backpressure, not a failure.
    #[error("the producer's queue is full")]
    QueueFull,
    #[error(transparent)]
    Failed(#[from] BrokerError),
}

/// The producer of one stream thread. Idempotent, acks=all.
pub trait Producer: Send {
    fn send(&mut self, record: ProducerRecord<'_>) -> Result<(), SendError>;

    /// Serves delivery reports for at most `timeout`; while anything is in flight it also sends at once what lingers,
    /// and ends early when nothing is any more. Returns the first failed delivery since the last call, with topic and
    /// partition in the message; after one the producer is in doubt and must be recycled (R5, T4).
    fn poll(&mut self, timeout: Duration) -> Result<(), BrokerError>;

    /// Records sent whose delivery report has not come.
    fn in_flight(&self) -> usize;

    /// Waits until nothing is in flight (by the in-flight count, T3), at most `timeout`.
    fn flush(&mut self, timeout: Duration) -> Result<(), BrokerError>;

    /// The highest acknowledged offset of each partition since the last call; clears the account.
    fn take_acknowledged(&mut self) -> BTreeMap<TopicPartition, Offset>;

    /// Fences older producers of the same transactional id (waits for their transaction to end).
    fn init_transactions(&mut self, timeout: Duration) -> Result<(), BrokerError>;

    fn begin_transaction(&mut self) -> Result<(), BrokerError>;

    fn send_offsets(
        &mut self,
        offsets: &[(TopicPartition, OffsetAndMetadata)],
        group: &GroupMetadata,
        timeout: Duration,
    ) -> Result<(), BrokerError>;

    fn commit_transaction(&mut self, timeout: Duration) -> Result<(), BrokerError>;

    fn abort_transaction(&mut self, timeout: Duration) -> Result<(), BrokerError>;
}

/// What the broker says of a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicDescription {
    pub name: String,
    /// What tells the topic from an earlier one of the same name; `None` where the broker does not say.
    pub id: Option<String>,
    pub partitions: i32,
    /// Effective settings, for example `cleanup.policy`.
    pub configs: BTreeMap<String, String>,
}

/// A topic to create.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewTopic {
    pub name: String,
    pub partitions: i32,
    /// -1 = the broker's default.
    pub replication_factor: i32,
    pub configs: BTreeMap<String, String>,
}

/// Topics: look and create. Never alters what exists (T15).
pub trait Admin: Send {
    /// Descriptions in the order asked, `None` where a topic does not exist.
    fn describe_topics(&mut self, names: &[&str]) -> Result<Vec<Option<TopicDescription>>, BrokerError>;

    /// Creates a topic; `TopicExists` when it is there already.
    fn create_topic(&mut self, topic: &NewTopic) -> Result<(), BrokerError>;
}

/// Makes the clients of one application (Kafka Streams' `KafkaClientSupplier`).
pub trait ClientSupplier: Send + Sync {
    /// A group member for the stream thread `thread`.
    fn consumer(&self, thread: usize) -> Result<Box<dyn Consumer>, BrokerError>;

    fn restore_consumer(&self, thread: usize) -> Result<Box<dyn RestoreConsumer>, BrokerError>;

    /// A reader of changelogs for the subscription `number`, beside the stream threads. It holds little in advance,
    /// since it goes on only as fast as somebody takes what it reads.
    fn subscription_consumer(&self, number: usize) -> Result<Box<dyn RestoreConsumer>, BrokerError> {
        self.restore_consumer(number)
    }

    /// A producer for the stream thread; transactional when an id is given.
    fn producer(&self, thread: usize, transactional_id: Option<&str>) -> Result<Box<dyn Producer>, BrokerError>;

    fn admin(&self) -> Result<Box<dyn Admin>, BrokerError>;

    fn membership(&self) -> Result<Box<dyn Membership>, BrokerError>;
}
