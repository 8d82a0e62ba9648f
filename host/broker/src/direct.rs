//! The engine's broker traits over the core, called directly: no wire, no threads, time from a clock that is handed
//! in. For the simulation and for benchmarks. Every call passes `faults`, which lets calls fail, loses replies and
//! delays deliveries as its seed says, and is written to a trace whose digest tells whether two runs were the same.
//! A client that is dropped without `close` has crashed: the broker learns of it when its session ends.

mod admin;
mod assignor;
mod consumer;
mod faults;
mod fetch;
mod members;
mod membership;
mod producer;
mod restore_consumer;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use engine::assignment::MemberName;
use engine::broker::{
    Admin, BrokerError, BrokerErrorKind, ClientSupplier, Consumer, Membership, Producer, RestoreConsumer,
};
use engine::clock::Clock;
use engine::record::{Offset, Record, Timestamp, TopicPartition};

use crate::core::batch::build::{BatchBuilder, NewRecord};
use crate::core::group::{GroupAnswer, Outcome, Waiter};
use crate::core::log::IsolationLevel;
use crate::core::refusal::{ErrorCode, Refusal};
use crate::core::storage::{Storage, StorageError};
use crate::core::transaction::TransactionalProducer;
use crate::core::{Core, CoreOptions};

pub use assignor::RebalanceProtocol;
pub use faults::{FaultRates, Faults, Interrupt, Operation};

/// Answers of the core for clients that have not asked for them yet.
#[derive(Default)]
struct Mailbox {
    last: Waiter,
    answers: BTreeMap<Waiter, GroupAnswer>,
}

/// The end of a transaction that is still on its way to the coordinator.
struct DelayedEnd {
    due_ms: Timestamp,
    transactional_id: String,
    producer_id: i64,
    epoch: i16,
    commit: bool,
}

struct Shared {
    core: Mutex<Arc<Core>>,
    /// How often the broker was started.
    starts: AtomicU64,
    storage: Arc<dyn Storage>,
    options: CoreOptions,
    clock: Arc<dyn Clock>,
    mailbox: Mutex<Mailbox>,
    delayed: Mutex<Vec<DelayedEnd>>,
    faults: Faults,
}

/// A broker whose clients call it directly. Its clones are the same broker.
#[derive(Clone)]
pub struct DirectBroker {
    shared: Arc<Shared>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl DirectBroker {
    /// Opens a broker on what its storage holds.
    ///
    /// # Errors
    /// When the storage cannot be read.
    pub fn open(
        options: CoreOptions,
        storage: Arc<dyn Storage>,
        clock: Arc<dyn Clock>,
        faults: Faults,
    ) -> Result<Self, StorageError> {
        let (core, _) = Core::open(options.clone(), Arc::clone(&storage))?;
        let core = Mutex::new(Arc::new(core));
        let mailbox = Mutex::default();
        let starts = AtomicU64::new(1);
        let delayed = Mutex::default();
        Ok(Self { shared: Arc::new(Shared { core, starts, storage, options, clock, mailbox, delayed, faults }) })
    }

    /// Stops the broker and starts it again on its storage: members are forgotten, logs and offsets are not.
    ///
    /// # Errors
    /// When the storage cannot be read.
    pub fn restart(&self) -> Result<(), StorageError> {
        let (core, _) = Core::open(self.shared.options.clone(), Arc::clone(&self.shared.storage))?;
        *lock(&self.shared.core) = Arc::new(core);
        lock(&self.shared.mailbox).answers.clear();
        self.shared.starts.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    /// The state machine behind it.
    pub fn core(&self) -> Arc<Core> {
        Arc::clone(&lock(&self.shared.core))
    }

    /// What goes wrong, and the trace of all calls.
    pub fn faults(&self) -> &Faults {
        &self.shared.faults
    }

    /// The clients of one host.
    pub fn clients(&self, options: ClientOptions) -> DirectClients {
        DirectClients { broker: self.clone(), options: Arc::new(options) }
    }

    /// Appends records past any client, as one batch without a producer id.
    ///
    /// # Errors
    /// What the core refuses.
    pub fn append(&self, partition: &TopicPartition, records: &[NewRecord<'_>]) -> Result<(), Refusal> {
        let mut batch = BatchBuilder::new(None);
        records.iter().for_each(|record| batch.push(record));
        if !batch.is_empty() {
            let log = self.core().partition(&partition.topic, partition.partition)?;
            log.append(&batch.finish(), self.now_ms())?;
        }
        Ok(())
    }

    /// Every record of a partition, read past any client; those of open and aborted transactions too.
    ///
    /// # Errors
    /// What the core refuses.
    pub fn records(&self, partition: &TopicPartition) -> Result<Vec<Record>, Refusal> {
        let log = self.core().partition(&partition.topic, partition.partition)?;
        let mut records = Vec::new();
        let mut offset = log.bounds().log_start_offset;
        while offset < log.bounds().high_watermark {
            let fetched = log.read(offset, 1 << 20, true, IsolationLevel::ReadUncommitted)?;
            offset = fetch::decode(&fetched, offset, &mut |record| records.push(record));
        }
        Ok(records)
    }

    /// Every record of a partition that a reader of committed records sees.
    ///
    /// # Errors
    /// What the core refuses.
    pub fn committed_records(&self, partition: &TopicPartition) -> Result<Vec<Record>, Refusal> {
        Ok(self.committed_records_from(partition, 0)?.0)
    }

    /// What a reader of committed records sees from an offset on, and the offset at which it goes on later.
    ///
    /// # Errors
    /// What the core refuses.
    pub fn committed_records_from(
        &self,
        partition: &TopicPartition,
        offset: Offset,
    ) -> Result<(Vec<Record>, Offset), Refusal> {
        let log = self.core().partition(&partition.topic, partition.partition)?;
        let mut records = Vec::new();
        let mut offset = offset.max(log.bounds().log_start_offset);
        while offset < log.bounds().last_stable_offset {
            let fetched = log.read(offset, 1 << 20, true, IsolationLevel::ReadCommitted)?;
            offset = fetch::decode(&fetched, offset, &mut |record| records.push(record));
        }
        Ok((records, offset))
    }

    /// Lets time pass for the groups and transactions; clients do it with every poll.
    pub fn tick(&self) {
        let core = self.core();
        let outcome = core.tick_groups(self.now_ms());
        self.keep(outcome);
        core.tick_transactions(self.now_ms());
        self.deliver_delayed(&core);
    }

    /// Hands over the requests that were on their way until now. Nobody waits for the replies.
    fn deliver_delayed(&self, core: &Core) {
        let now_ms = self.now_ms();
        let due: Vec<DelayedEnd> = lock(&self.shared.delayed).extract_if(.., |end| end.due_ms <= now_ms).collect();
        for end in due {
            let DelayedEnd { transactional_id, producer_id, epoch, commit, .. } = &end;
            let producer = TransactionalProducer { transactional_id, producer_id: *producer_id, epoch: *epoch };
            let outcome = match core.end_transaction(now_ms, &producer, *commit) {
                Ok(_) => "taken".to_owned(),
                Err(refusal) => refusal.to_string(),
            };
            self.faults()
                .note("network", &format!("a delayed end (commit: {commit}) of {transactional_id}: {outcome}"));
        }
    }

    fn starts(&self) -> u64 {
        self.shared.starts.load(Ordering::SeqCst)
    }

    fn now_ms(&self) -> Timestamp {
        self.shared.clock.wall_clock_ms()
    }

    /// A new name for a request whose answer may come later.
    fn new_waiter(&self) -> Waiter {
        let mut mailbox = lock(&self.shared.mailbox);
        mailbox.last += 1;
        mailbox.last
    }

    fn keep(&self, outcome: Outcome) {
        lock(&self.shared.mailbox).answers.extend(outcome.answers);
    }

    fn take_answer(&self, waiter: Waiter) -> Option<GroupAnswer> {
        lock(&self.shared.mailbox).answers.remove(&waiter)
    }
}

/// How the clients of one host behave.
#[derive(Debug, Clone)]
pub struct ClientOptions {
    /// The name of the host, in member ids and in the trace.
    pub host: String,
    /// The application id.
    pub group: String,
    pub protocol: RebalanceProtocol,
    /// `group.instance.id` prefix for static membership.
    pub group_instance_id: Option<String>,
    pub session_timeout_ms: i32,
    pub heartbeat_interval_ms: i64,
    pub rebalance_timeout_ms: i32,
    /// About how many bytes one read of a partition fetches.
    pub fetch_bytes: usize,
    /// Records that a producer takes before it reports a full queue.
    pub producer_queue_records: usize,
    /// `transaction.timeout.ms`.
    pub transaction_timeout_ms: i32,
}

impl ClientOptions {
    /// Kafka's defaults, for the members of `group` on `host`.
    pub fn new(host: impl Into<String>, group: impl Into<String>) -> Self {
        Self {
            host: host.into(),
            group: group.into(),
            protocol: RebalanceProtocol::Cooperative,
            group_instance_id: None,
            session_timeout_ms: 45_000,
            heartbeat_interval_ms: 3_000,
            rebalance_timeout_ms: 300_000,
            fetch_bytes: 1 << 20,
            producer_queue_records: 100_000,
            transaction_timeout_ms: 10_000,
        }
    }
}

/// Makes the clients of one host.
#[derive(Clone)]
pub struct DirectClients {
    broker: DirectBroker,
    options: Arc<ClientOptions>,
}

/// One client: who it is, and the broker.
#[derive(Clone)]
struct Connection {
    broker: DirectBroker,
    options: Arc<ClientOptions>,
    thread: usize,
    /// Host and thread, for the trace.
    name: Arc<str>,
}

impl DirectClients {
    fn connect(&self, thread: usize) -> Connection {
        let name = format!("{}-{thread}", self.options.host).into();
        Connection { broker: self.broker.clone(), options: Arc::clone(&self.options), thread, name }
    }
}

impl Connection {
    /// The name of the consumer in the group. The host's name stands for its id and its endpoint.
    fn client_id(&self) -> String {
        let Self { options, thread, .. } = self;
        let (host_id, endpoint) = (options.host.clone(), format!("{}:7070", options.host));
        MemberName { host_id, endpoint, thread: *thread }.client_id(&options.group)
    }

    fn now_ms(&self) -> Timestamp {
        self.broker.now_ms()
    }

    fn core(&self) -> Arc<Core> {
        self.broker.core()
    }

    fn faults(&self) -> &Faults {
        self.broker.faults()
    }

    /// Runs a call unless it is to fail; with a lost reply it runs and fails all the same.
    fn call<T>(
        &self,
        operation: Operation,
        detail: impl FnOnce() -> String,
        run: impl FnOnce() -> Result<T, Refusal>,
    ) -> Result<T, BrokerError> {
        self.call_or_delay(operation, detail, run, |_| {})
    }

    /// As `call`; `delay` puts the request aside that arrives so many milliseconds later.
    fn call_or_delay<T>(
        &self,
        operation: Operation,
        detail: impl FnOnce() -> String,
        run: impl FnOnce() -> Result<T, Refusal>,
        delay: impl FnOnce(u64),
    ) -> Result<T, BrokerError> {
        let detail = detail();
        let described = || format!("{operation:?} {detail} by {}", self.name);
        let failed = |text: &str| Err(BrokerError::new(BrokerErrorKind::Retriable, described(), text));
        match self.faults().decide(operation, &self.name, &detail) {
            faults::Verdict::Pass => run().map_err(|refusal| to_error(described(), &refusal)),
            faults::Verdict::Fail(text) => failed(text),
            faults::Verdict::Delay(ms) => {
                delay(ms);
                failed("no reply came in time")
            }
            faults::Verdict::LoseReply => {
                // The client never learns what came of it.
                let _ = run();
                failed("the connection was closed before the reply came")
            }
            faults::Verdict::Dead => {
                Err(BrokerError::new(BrokerErrorKind::Fatal, described(), "this host has crashed"))
            }
        }
    }
}

/// What a refusal of the core asks of a client.
fn to_error(operation: String, refusal: &Refusal) -> BrokerError {
    let kind = match refusal.code {
        ErrorCode::IllegalGeneration | ErrorCode::UnknownMemberId | ErrorCode::RebalanceInProgress => {
            BrokerErrorKind::Rebalanced
        }
        ErrorCode::FencedInstanceId | ErrorCode::InvalidProducerEpoch | ErrorCode::ProducerFenced => {
            BrokerErrorKind::Fenced
        }
        ErrorCode::UnknownTopicOrPartition => BrokerErrorKind::UnknownTopic,
        ErrorCode::TopicAlreadyExists => BrokerErrorKind::TopicExists,
        ErrorCode::OffsetOutOfRange => BrokerErrorKind::OffsetOutOfRange,
        ErrorCode::OutOfOrderSequenceNumber | ErrorCode::UnknownProducerId | ErrorCode::UnsupportedVersion => {
            BrokerErrorKind::Fatal
        }
        ErrorCode::InvalidTxnState | ErrorCode::InvalidProducerIdMapping => BrokerErrorKind::Abortable,
        code if code.is_retriable() && code != ErrorCode::CorruptMessage => BrokerErrorKind::Retriable,
        _ => BrokerErrorKind::Rejected,
    };
    BrokerError::new(kind, operation, refusal.to_string())
}

/// `topic-partition` names with blanks between.
fn names<'a>(partitions: impl IntoIterator<Item = &'a TopicPartition>) -> String {
    partitions.into_iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

impl ClientSupplier for DirectClients {
    fn consumer(&self, thread: usize) -> Result<Box<dyn Consumer>, BrokerError> {
        Ok(Box::new(consumer::DirectConsumer::new(self.connect(thread))))
    }

    fn restore_consumer(&self, thread: usize) -> Result<Box<dyn RestoreConsumer>, BrokerError> {
        Ok(Box::new(restore_consumer::DirectRestoreConsumer::new(self.connect(thread))))
    }

    fn producer(&self, thread: usize, transactional_id: Option<&str>) -> Result<Box<dyn Producer>, BrokerError> {
        let connection = self.connect(thread);
        if let Some(id) = transactional_id {
            return Ok(Box::new(producer::DirectProducer::transactional(connection, id)));
        }
        let init = || connection.core().init_producer_id();
        let (id, epoch) = connection.call(Operation::InitProducerId, || "-".to_owned(), init)?;
        Ok(Box::new(producer::DirectProducer::new(connection, id, epoch)))
    }

    fn admin(&self) -> Result<Box<dyn Admin>, BrokerError> {
        Ok(Box::new(admin::DirectAdmin::new(self.connect(0))))
    }

    fn membership(&self) -> Result<Box<dyn Membership>, BrokerError> {
        Ok(Box::new(members::DirectMembership::new(self.connect(0))))
    }
}

#[cfg(test)]
mod tests;
