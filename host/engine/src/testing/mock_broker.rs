//! `MockBroker`: topics in memory behind the engine's broker traits, for unit tests of the engine. It records every
//! call, fails those it is told to fail, and hands out rebalances as the test says. It checks what a client may do
//! (a commit of an unassigned partition is refused) but is no model of a broker: that is the embedded broker's core.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use crate::broker::{BrokerError, BrokerErrorKind, GroupMember, OffsetAndMetadata, RebalanceEvent, TopicDescription};
use crate::record::{Headers, Offset, Record, Timestamp, TopicPartition};

/// The calls that are recorded and can be made to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    Subscribe,
    Poll,
    Assign,
    Unassign,
    Pause,
    Resume,
    Seek,
    Position,
    Committed,
    Commit,
    GroupMetadata,
    Close,
    RestoreAssign,
    RestoreUnassign,
    RestorePoll,
    Watermarks,
    Send,
    /// Not a call: the delivery report of a record. A failed one is told by the next `poll` or `flush`.
    Delivery,
    ProducerPoll,
    Flush,
    InitTransactions,
    BeginTransaction,
    SendOffsets,
    CommitTransaction,
    AbortTransaction,
    CreateConsumer,
    CreateRestoreConsumer,
    CreateProducer,
    DescribeTopics,
    CreateTopic,
    Members,
}

/// One recorded call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    pub operation: Operation,
    /// What it was about, for example `reports-0@5`.
    pub detail: String,
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {}", self.operation, self.detail)
    }
}

/// A failure to come.
struct Planned {
    operation: Operation,
    kind: BrokerErrorKind,
    /// How many calls succeed before.
    after: usize,
    /// Whether the call has its effect before it fails: a lost reply.
    takes_effect: bool,
}

/// One topic.
#[derive(Debug, Clone, Default)]
pub(super) struct MockTopic {
    /// The topics that were made before this one.
    pub(super) number: u64,
    pub(super) partitions: Vec<MockLog>,
    pub(super) configs: BTreeMap<String, String>,
}

/// One partition: records with ascending offsets.
#[derive(Debug, Clone, Default)]
pub(super) struct MockLog {
    pub(super) start: Offset,
    pub(super) end: Offset,
    /// Where the first record of a transaction stands that is still open.
    pub(super) open_from: Option<Offset>,
    pub(super) records: Vec<Record>,
}

impl MockLog {
    pub(super) fn append(&mut self, mut record: Record) -> Offset {
        record.offset = self.end;
        self.end += 1;
        self.records.push(record);
        self.end - 1
    }

    /// The end that readers see.
    pub(super) fn stable_end(&self) -> Offset {
        self.open_from.unwrap_or(self.end)
    }

    /// The records from an offset on, as far as readers see them.
    pub(super) fn from(&self, offset: Offset) -> &[Record] {
        let place = |offset| self.records.partition_point(|record| record.offset < offset);
        self.records.get(place(offset)..place(self.stable_end())).unwrap_or_default()
    }
}

#[derive(Default)]
pub(super) struct State {
    pub(super) topics: BTreeMap<String, MockTopic>,
    topics_made: u64,
    pub(super) committed: BTreeMap<TopicPartition, OffsetAndMetadata>,
    pub(super) calls: Vec<Call>,
    planned: Vec<Planned>,
    /// Events for each thread's consumer.
    pub(super) events: BTreeMap<usize, VecDeque<RebalanceEvent>>,
    /// Whether a subscription assigns every partition to the consumer by itself.
    pub(super) assign_on_subscribe: bool,
    pub(super) generation: i32,
    /// Whether sent records stay in flight until `deliver`.
    pub(super) hold_deliveries: bool,
    /// Records that a producer takes before it reports a full queue.
    pub(super) queue_limit: usize,
    pub(super) unauthorized: BTreeSet<String>,
    /// Records with this value are refused on their way, and with them all that are in flight.
    pub(super) refused_value: Option<(String, Vec<u8>)>,
    /// What the group says of its members; `None` while it is rebalancing.
    pub(super) members: Option<Vec<GroupMember>>,
}

/// A broker for unit tests. Its clones are the same broker.
#[derive(Clone)]
pub struct MockBroker {
    state: Arc<Mutex<State>>,
}

impl Default for MockBroker {
    fn default() -> Self {
        Self::new()
    }
}

impl MockBroker {
    /// A broker without topics, whose first consumer is given everything it subscribes to.
    pub fn new() -> Self {
        let state = State { assign_on_subscribe: true, generation: 1, queue_limit: usize::MAX, ..State::default() };
        Self { state: Arc::new(Mutex::new(state)) }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a topic.
    pub fn create_topic(&self, name: &str, partitions: i32) {
        self.state().create_topic(name, partitions, BTreeMap::new());
    }

    /// Removes a topic with its records.
    pub fn delete_topic(&self, name: &str) {
        self.state().topics.remove(name);
    }

    /// Gives a topic more partitions.
    pub fn add_partitions(&self, name: &str, partitions: i32) {
        let mut state = self.state();
        let topic = state.topics.get_mut(name).expect("the topic exists");
        topic.partitions.resize(partitions as usize, MockLog::default());
    }

    /// Changes a setting of a topic.
    pub fn set_topic_config(&self, name: &str, key: &str, value: &str) {
        let mut state = self.state();
        let topic = state.topics.get_mut(name).expect("the topic exists");
        topic.configs.insert(key.to_owned(), value.to_owned());
    }

    /// Appends a record and returns its offset. Panics when the partition does not exist.
    pub fn append(
        &self,
        topic: &str,
        partition: i32,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        timestamp: Timestamp,
        headers: Headers,
    ) -> Offset {
        let record = Record {
            offset: 0,
            timestamp,
            key: key.map(Bytes::copy_from_slice),
            value: value.map(Bytes::copy_from_slice),
            headers,
        };
        self.state().log_mut(topic, partition).append(record)
    }

    /// The records of a partition.
    pub fn records(&self, topic: &str, partition: i32) -> Vec<Record> {
        self.state().log_mut(topic, partition).records.clone()
    }

    /// Leaves a gap of `count` offsets, as compaction and control records do.
    pub fn skip_offsets(&self, topic: &str, partition: i32, count: Offset) {
        self.state().log_mut(topic, partition).end += count;
    }

    /// Hides the records from an offset on, as a transaction does until it ends.
    pub fn open_transaction(&self, topic: &str, partition: i32, from: Option<Offset>) {
        self.state().log_mut(topic, partition).open_from = from;
    }

    /// Removes the records below an offset, as retention does.
    pub fn delete_records(&self, topic: &str, partition: i32, before: Offset) {
        let mut state = self.state();
        let log = state.log_mut(topic, partition);
        log.start = before;
        log.records.retain(|record| record.offset >= before);
    }

    /// What the topics are, as `describe_topics` says it.
    pub fn topics(&self) -> Vec<TopicDescription> {
        self.state().topics.iter().map(|(name, topic)| topic.describe(name)).collect()
    }

    /// The group's committed offset.
    pub fn committed(&self, partition: &TopicPartition) -> Option<OffsetAndMetadata> {
        self.state().committed.get(partition).cloned()
    }

    /// Sets a committed offset past any client.
    pub fn set_committed(&self, partition: TopicPartition, offset: Option<OffsetAndMetadata>) {
        let mut state = self.state();
        match offset {
            Some(offset) => state.committed.insert(partition, offset),
            None => state.committed.remove(&partition),
        };
    }

    /// The calls since the last time they were asked for.
    pub fn take_calls(&self) -> Vec<Call> {
        std::mem::take(&mut self.state().calls)
    }

    /// Lets the next call of an operation fail without effect.
    pub fn fail(&self, operation: Operation, kind: BrokerErrorKind) {
        self.plan(operation, kind, 0, false);
    }

    /// Lets a call of an operation fail without effect, after `after` that succeed.
    pub fn fail_after(&self, after: usize, operation: Operation, kind: BrokerErrorKind) {
        self.plan(operation, kind, after, false);
    }

    /// Lets the next call of an operation take effect and then fail: its reply is lost.
    pub fn lose_reply(&self, operation: Operation, kind: BrokerErrorKind) {
        self.plan(operation, kind, 0, true);
    }

    fn plan(&self, operation: Operation, kind: BrokerErrorKind, after: usize, takes_effect: bool) {
        self.state().planned.push(Planned { operation, kind, after, takes_effect });
    }

    /// Whether every planned failure has happened.
    pub fn failures_are_spent(&self) -> bool {
        self.state().planned.is_empty()
    }

    /// Gives the consumer of a thread a rebalance event with its next poll, in a new generation.
    pub fn rebalance(&self, thread: usize, event: RebalanceEvent) {
        let mut state = self.state();
        state.generation += 1;
        state.events.entry(thread).or_default().push_back(event);
    }

    /// Chooses whether a subscription assigns every partition by itself (the default) or waits for `rebalance`.
    pub fn assign_on_subscribe(&self, yes: bool) {
        self.state().assign_on_subscribe = yes;
    }

    /// Keeps sent records in flight until the next `flush`, or until it is turned off.
    pub fn hold_deliveries(&self, yes: bool) {
        self.state().hold_deliveries = yes;
    }

    /// Bounds the records that a producer keeps in flight.
    pub fn limit_producer_queue(&self, records: usize) {
        self.state().queue_limit = records;
    }

    /// What the group says of its members; `None` while it is rebalancing.
    pub fn set_members(&self, members: Option<Vec<GroupMember>>) {
        self.state().members = members;
    }

    /// Refuses records of a topic with this value, and every record that is in flight beside one, though the settings
    /// of the topic allow them.
    pub fn refuse_value(&self, topic: &str, value: &[u8]) {
        self.state().refused_value = Some((topic.to_owned(), value.to_vec()));
    }

    /// Refuses the credentials for a topic.
    pub fn deny(&self, topic: &str) {
        self.state().unauthorized.insert(topic.to_owned());
    }
}

impl MockTopic {
    pub(super) fn describe(&self, name: &str) -> TopicDescription {
        TopicDescription {
            name: name.to_owned(),
            id: Some(format!("id-{}", self.number)),
            partitions: self.partitions.len() as i32,
            configs: self.configs.clone(),
        }
    }
}

impl State {
    pub(super) fn create_topic(&mut self, name: &str, partitions: i32, configs: BTreeMap<String, String>) {
        let partitions = vec![MockLog::default(); partitions as usize];
        self.topics.insert(name.to_owned(), MockTopic { number: self.topics_made, partitions, configs });
        self.topics_made += 1;
    }

    pub(super) fn log_mut(&mut self, topic: &str, partition: i32) -> &mut MockLog {
        self.find_log(&TopicPartition::new(topic, partition)).expect("the partition exists")
    }

    pub(super) fn find_log(&mut self, partition: &TopicPartition) -> Option<&mut MockLog> {
        let topic = self.topics.get_mut(&*partition.topic)?;
        topic.partitions.get_mut(usize::try_from(partition.partition).ok()?)
    }

    /// Records a call and runs it, unless it is to fail.
    pub(super) fn call<T>(
        &mut self,
        operation: Operation,
        detail: String,
        run: impl FnOnce(&mut Self) -> Result<T, BrokerError>,
    ) -> Result<T, BrokerError> {
        self.calls.push(Call { operation, detail: detail.clone() });
        let Some(planned) = self.due(operation) else { return run(self) };
        if planned.takes_effect {
            run(self)?;
        }
        Err(BrokerError::new(planned.kind, format!("{operation:?} {detail}"), "planned failure"))
    }

    /// The failure that is due for this call, if any.
    fn due(&mut self, operation: Operation) -> Option<Planned> {
        let mut due = None;
        for (index, planned) in self.planned.iter_mut().enumerate().filter(|(_, p)| p.operation == operation) {
            if planned.after > 0 {
                planned.after -= 1;
            } else if due.is_none() {
                due = Some(index);
            }
        }
        due.map(|index| self.planned.remove(index))
    }

    /// The failure of a delivery, if one is due.
    pub(super) fn failed_delivery(&mut self, partition: &TopicPartition) -> Option<BrokerError> {
        let planned = self.due(Operation::Delivery)?;
        Some(BrokerError::new(planned.kind, format!("deliver to {partition}"), "planned failure"))
    }
}
