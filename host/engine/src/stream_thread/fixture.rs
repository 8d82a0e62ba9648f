//! A stream thread over the mock broker, for unit tests of the runtime: it wires the parts and drives turns. Panics
//! are its way to report.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use bytes::Bytes;

use crate::broker::ClientSupplier;
use crate::error::EngineError;
use crate::internal_topics::{self, KnownTopics};
use crate::metrics::EngineMetrics;
use crate::processor::ProcessorSupplier;
use crate::query::QueryRegistry;
use crate::record::{Offset, Timestamp, TopicPartition};
use crate::state::memory::MemoryStoreProvider;
use crate::state::{KeyRange, ReadView, StateStore, StoreError, StoreProvider, Visit, Write};
use crate::stream_thread::{RunOnce, SharedProgress, StreamThread, StreamThreadOptions, StreamsConfig};
use crate::testing::{Count, ManualClock, MockBroker, NativeSupplier, topology};
use crate::topic_limits::SharedSinkLimits;
use crate::topology::{StoreSpec, TaskId};
use crate::version::Versions;

pub(crate) const APPLICATION: &str = "app";

/// The parts of an application with one thread.
pub(crate) struct Fixture {
    pub broker: MockBroker,
    pub clock: ManualClock,
    pub config: StreamsConfig,
    pub processors: Arc<dyn ProcessorSupplier>,
    pub stores: Arc<dyn StoreProvider>,
    pub queries: Arc<QueryRegistry>,
    pub metrics: Arc<EngineMetrics>,
    pub progress: Arc<SharedProgress>,
}

impl Fixture {
    /// Counts the records of topic `in` in the store `counts` and forwards the counts to `out`.
    pub fn counting(partitions: i32) -> Self {
        let processors = NativeSupplier::new(topology(&["in"], &["counts"], &["out"]), |_| Count);
        Self::new(Arc::new(processors), partitions)
    }

    /// Sources and sinks of the supplier get `partitions` partitions.
    pub fn new(processors: Arc<dyn ProcessorSupplier>, partitions: i32) -> Self {
        let broker = MockBroker::new();
        let declared = processors.topology();
        for topic in declared.source_topics().iter().chain(&declared.sink_topics()) {
            broker.create_topic(topic, partitions);
        }
        let stores = declared.sub_topologies.iter().flat_map(|sub| &sub.stores).map(|store| store.name.clone());
        let queries = Arc::new(QueryRegistry::new(stores.collect::<Vec<_>>()));
        Self {
            broker,
            clock: ManualClock::new(1_000_000),
            config: StreamsConfig::default(),
            processors,
            stores: Arc::new(MemoryStoreProvider),
            queries,
            metrics: Arc::new(EngineMetrics::new()),
            progress: Arc::new(SharedProgress::default()),
        }
    }

    pub fn options(&self) -> StreamThreadOptions {
        let mut admin = self.broker.admin().expect("the mock has an admin client");
        let known = KnownTopics::default();
        let topology = self.processors.topology();
        let prepared = internal_topics::prepare_known(&mut *admin, APPLICATION, topology, -1, &known);
        let prepared = prepared.expect("the topics can be prepared");
        StreamThreadOptions {
            thread: 0,
            application_id: APPLICATION.into(),
            transactional_id: Some("app-0".to_owned()),
            config: self.config.clone(),
            clients: Arc::new(self.broker.clone()),
            topology: Arc::clone(topology),
            versions: Versions::only(Arc::clone(&self.processors), Arc::default()),
            stores: Arc::clone(&self.stores),
            standby_tasks: Arc::default(),
            clock: Arc::new(self.clock.clone()),
            partition_counts: Arc::new(prepared.counts),
            sink_limits: Arc::new(SharedSinkLimits::new(prepared.limits)),
            queries: Arc::clone(&self.queries),
            metrics: Arc::clone(&self.metrics),
            progress: Arc::clone(&self.progress),
        }
    }

    pub fn thread(&self) -> StreamThread {
        StreamThread::new(self.options()).expect("the thread can be made")
    }

    /// Appends records with keys to partition `partition` of `in`, with timestamps that ascend from 0 on.
    pub fn produce(&self, partition: i32, keys: &[&str]) {
        for (index, key) in keys.iter().enumerate() {
            self.append("in", partition, key, "", index as Timestamp);
        }
    }

    pub fn append(&self, topic: &str, partition: i32, key: &str, value: &str, timestamp: Timestamp) {
        let (key, value) = (Some(key.as_bytes()), Some(value.as_bytes()));
        self.broker.append(topic, partition, key, value, timestamp, Vec::new());
    }

    /// The records of a topic's partition as `key=value`, counts in figures.
    pub fn texts(&self, topic: &str, partition: i32) -> Vec<String> {
        let text = |bytes: Option<Bytes>| match bytes {
            None => "null".to_owned(),
            Some(bytes) if bytes.len() == 8 && bytes[0] == 0 => crate::testing::number(&bytes).to_string(),
            Some(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        };
        let records = self.broker.records(topic, partition).into_iter();
        records.map(|record| format!("{}={}", text(record.key), text(record.value))).collect()
    }

    pub fn committed(&self, topic: &str, partition: i32) -> Option<Offset> {
        self.broker.committed(&TopicPartition::new(topic, partition)).map(|committed| committed.offset)
    }

    /// The committed count of a key, by query.
    pub fn count(&self, partition: i32, key: &str) -> Option<u64> {
        let answer = self.queries.get("counts", partition, key.as_bytes(), None).expect("the store can be asked");
        answer.value.map(|value| crate::testing::number(&value))
    }

    /// Turns until one is idle, moving the clock by 10 ms after each; then past the commit interval until idle again.
    pub fn settle(&self, thread: &mut StreamThread) -> Result<(), EngineError> {
        for _ in 0..2 {
            self.turns(thread, 100)?;
            self.clock.advance_ms(self.config.commit_interval_ms);
        }
        self.turns(thread, 100)
    }

    fn turns(&self, thread: &mut StreamThread, max: u32) -> Result<(), EngineError> {
        let mut idle = 0;
        for _ in 0..max {
            let turn: RunOnce = thread.run_once()?;
            self.clock.advance_ms(10.max(turn.wait_ms));
            idle = if turn.is_idle() { idle + 1 } else { 0 };
            if idle == 5 {
                return Ok(());
            }
        }
        panic!("the thread does not come to rest")
    }
}

/// Where a planned store failure happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum At {
    Open,
    Get,
    Write,
}

/// Stores that fail where they are told to, each time once.
#[derive(Clone)]
pub(crate) struct FaultyStores {
    inner: Arc<dyn StoreProvider>,
    planned: Arc<Mutex<Vec<(At, StoreError)>>>,
    wiped: Arc<AtomicUsize>,
}

impl FaultyStores {
    pub fn new(inner: impl StoreProvider + 'static) -> Self {
        Self { inner: Arc::new(inner), planned: Arc::default(), wiped: Arc::default() }
    }

    pub fn fail(&self, at: At, error: StoreError) {
        self.planned.lock().expect("no test panics while it holds the lock").push((at, error));
    }

    pub fn wiped(&self) -> usize {
        self.wiped.load(Relaxed)
    }

    fn due(&self, at: At) -> Result<(), StoreError> {
        let mut planned = self.planned.lock().expect("no test panics while it holds the lock");
        match planned.iter().position(|(where_, _)| *where_ == at) {
            Some(index) => Err(planned.remove(index).1),
            None => Ok(()),
        }
    }
}

impl StoreProvider for FaultyStores {
    fn open(&self, task: TaskId, store: &StoreSpec) -> Result<Box<dyn StateStore>, StoreError> {
        self.due(At::Open)?;
        Ok(Box::new(FaultyStore { store: self.inner.open(task, store)?, faults: self.clone() }))
    }

    fn wipe(&self, task: TaskId, store: &StoreSpec) -> Result<(), StoreError> {
        self.wiped.fetch_add(1, Relaxed);
        self.inner.wipe(task, store)
    }
}

struct FaultyStore {
    store: Box<dyn StateStore>,
    faults: FaultyStores,
}

impl StateStore for FaultyStore {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.faults.due(At::Get)?;
        self.store.get(key)
    }

    fn get_many(&self, keys: &[&[u8]], found: &mut dyn FnMut(usize, Option<&[u8]>)) -> Result<(), StoreError> {
        self.faults.due(At::Get)?;
        self.store.get_many(keys, found)
    }

    fn scan(&self, range: KeyRange<'_>, reverse: bool, visit: &mut Visit<'_>) -> Result<(), StoreError> {
        self.store.scan(range, reverse, visit)
    }

    fn write(&mut self, writes: &[Write], changelog_offset: Option<Offset>) -> Result<(), StoreError> {
        self.faults.due(At::Write)?;
        self.store.write(writes, changelog_offset)
    }

    fn changelog_offset(&self) -> Result<Option<Offset>, StoreError> {
        self.store.changelog_offset()
    }

    fn flush(&mut self) -> Result<(), StoreError> {
        self.store.flush()
    }

    fn read_view(&self) -> Arc<dyn ReadView> {
        self.store.read_view()
    }

    fn approximate_entries(&self) -> u64 {
        self.store.approximate_entries()
    }
}

/// The task of a partition of the only sub-topology.
pub(crate) fn task(partition: i32) -> TaskId {
    TaskId { sub_topology: 0, partition }
}
