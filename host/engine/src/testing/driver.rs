//! `TopologyTestDriver`: an application of one stream thread over a mock broker, driven record by record. It runs
//! the real stream thread and its tasks; only broker and time are not real. Every call leaves the thread idle.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::Arc;

use bytes::Bytes;

use super::{ManualClock, MockBroker};
use crate::broker::ClientSupplier;
use crate::clock::Clock;
use crate::error::EngineError;
use crate::internal_topics;
use crate::metrics::EngineMetrics;
use crate::partitioner::partition_for_key;
use crate::processor::ProcessorSupplier;
use crate::query::{QueryError, QueryRegistry, ScanQuery};
use crate::record::{Headers, Record, Timestamp};
use crate::state::memory::MemoryStoreProvider;
use crate::state::{KeyRange, StoreProvider};
use crate::stream_thread::{CloseMode, SharedProgress, StreamThread, StreamThreadOptions, StreamsConfig};
use crate::topology::PartitionCounts;
use crate::version::Versions;

/// Turns after which a thread that finds more and more to do is called stuck.
const TURNS_MAX: u32 = 10_000;

/// What a driver is made of.
pub struct DriverOptions {
    pub processors: Arc<dyn ProcessorSupplier>,
    /// Of every source and sink topic.
    pub partitions: i32,
    pub config: StreamsConfig,
    /// The manifest's `[config]` table.
    pub processor_config: BTreeMap<String, String>,
    pub stores: Arc<dyn StoreProvider>,
    /// The wall clock at the start.
    pub wall_clock_ms: Timestamp,
}

impl DriverOptions {
    /// One partition, in-memory stores, default settings.
    pub fn new(processors: Arc<dyn ProcessorSupplier>) -> Self {
        Self {
            processors,
            partitions: 1,
            config: StreamsConfig::default(),
            processor_config: BTreeMap::new(),
            stores: Arc::new(MemoryStoreProvider),
            wall_clock_ms: 1_000_000,
        }
    }
}

/// Drives an application in a test.
pub struct TopologyTestDriver {
    options: DriverOptions,
    partition_counts: Arc<PartitionCounts>,
    broker: MockBroker,
    clock: ManualClock,
    queries: Arc<QueryRegistry>,
    metrics: Arc<EngineMetrics>,
    thread: StreamThread,
    /// How many records of each output partition were read.
    read: BTreeMap<(String, i32), usize>,
}

/// The application id of every driver.
pub const DRIVER_APPLICATION_ID: &str = "test";

impl TopologyTestDriver {
    /// Creates the topics and starts the application.
    ///
    /// # Errors
    /// Whatever stops it before its first record: a faulty topology, a processor that does not start.
    pub fn new(options: DriverOptions) -> Result<Self, EngineError> {
        let broker = MockBroker::new();
        let declared = options.processors.topology();
        for topic in declared.source_topics().iter().chain(&declared.sink_topics()) {
            broker.create_topic(topic, options.partitions);
        }
        let mut admin = broker.admin()?;
        let counts = internal_topics::prepare(&mut *admin, DRIVER_APPLICATION_ID, declared, -1)?;
        let partition_counts = Arc::new(counts);
        let stores = declared.sub_topologies.iter().flat_map(|sub_topology| &sub_topology.stores);
        let queries = Arc::new(QueryRegistry::new(stores.map(|store| Arc::clone(&store.name)).collect::<Vec<_>>()));
        let clock = ManualClock::new(options.wall_clock_ms);
        let metrics = Arc::new(EngineMetrics::new());
        let thread = start(&options, &partition_counts, &broker, &clock, &queries, &metrics)?;
        let read = BTreeMap::new();
        let mut driver = Self { options, partition_counts, broker, clock, queries, metrics, thread, read };
        driver.run()?;
        Ok(driver)
    }

    /// Appends a record, to the partition of its key, and lets the application process it.
    ///
    /// # Errors
    /// What stops the application, as when the processor refuses the record.
    pub fn pipe_input(
        &mut self,
        topic: &str,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        timestamp: Timestamp,
    ) -> Result<(), EngineError> {
        let partition = key.map_or(0, |key| partition_for_key(key, self.options.partitions));
        self.pipe_to_partition(topic, partition, key, value, timestamp, Headers::new())
    }

    /// Appends a record to a partition and lets the application process it.
    ///
    /// # Errors
    /// As `pipe_input`.
    pub fn pipe_to_partition(
        &mut self,
        topic: &str,
        partition: i32,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        timestamp: Timestamp,
        headers: Headers,
    ) -> Result<(), EngineError> {
        self.broker.append(topic, partition, key, value, timestamp, headers);
        self.run()
    }

    /// The records of a topic that were not read yet, partition by partition.
    pub fn read_output(&mut self, topic: &str) -> Vec<Record> {
        let mut unread = Vec::new();
        for partition in 0..self.options.partitions {
            let read = self.read.entry((topic.to_owned(), partition)).or_default();
            let records = self.broker.records(topic, partition);
            unread.extend_from_slice(&records[*read..]);
            *read = records.len();
        }
        unread
    }

    /// Lets wall-clock time pass, and the schedules that it makes due run.
    ///
    /// # Errors
    /// As `pipe_input`.
    pub fn advance_wall_clock_ms(&mut self, ms: u64) -> Result<(), EngineError> {
        self.clock.advance_ms(ms);
        self.run()
    }

    /// Waits for the next commit, so that stores show what was processed.
    ///
    /// # Errors
    /// As `pipe_input`.
    pub fn commit(&mut self) -> Result<(), EngineError> {
        self.advance_wall_clock_ms(self.options.config.commit_interval_ms)
    }

    /// The committed value of a key, in any partition that has it.
    ///
    /// # Errors
    /// An unknown store, or one that is not there.
    pub fn store_value(&self, store: &str, key: &[u8]) -> Result<Option<Bytes>, QueryError> {
        let mut found = None;
        for registration in self.queries.registrations().iter().filter(|registration| &*registration.store == store) {
            found = found.or(self.queries.get(store, registration.task.partition, key, None)?.value);
        }
        Ok(found)
    }

    /// All committed entries of a store, in key order.
    ///
    /// # Errors
    /// An unknown store, or one that is not there.
    pub fn store_entries(&self, store: &str) -> Result<Vec<(Bytes, Bytes)>, QueryError> {
        let page = self.queries.scan(ScanQuery {
            store,
            partitions: None,
            range: KeyRange::ALL,
            reverse: false,
            limit: NonZeroUsize::MAX,
            resume: None,
            max_lag: None,
            filter: None,
        })?;
        Ok(page.entries.into_iter().map(|entry| (entry.key, entry.value)).collect())
    }

    /// Ends the application, cleanly or as a crash would, and starts it again on the same topics. In-memory stores
    /// are restored from their changelogs.
    ///
    /// # Errors
    /// What stops it before its first record.
    pub fn restart(&mut self, mode: CloseMode) -> Result<(), EngineError> {
        self.thread.close(mode)?;
        self.broker.assign_on_subscribe(true);
        self.thread =
            start(&self.options, &self.partition_counts, &self.broker, &self.clock, &self.queries, &self.metrics)?;
        self.run()
    }

    /// The broker, to look into topics and to let calls fail.
    pub fn broker(&self) -> &MockBroker {
        &self.broker
    }

    pub fn wall_clock_ms(&self) -> Timestamp {
        self.clock.wall_clock_ms()
    }

    pub fn metrics(&self) -> &EngineMetrics {
        &self.metrics
    }

    /// Runs the thread until it finds nothing to do.
    fn run(&mut self) -> Result<(), EngineError> {
        let mut idle = 0;
        for _ in 0..TURNS_MAX {
            let turn = self.thread.run_once()?;
            self.clock.advance_ms(turn.wait_ms);
            idle = if turn.is_idle() { idle + 1 } else { 0 };
            // One turn takes an event, the next one acts on it.
            if idle == 5 {
                return Ok(());
            }
        }
        panic!("the application does not come to rest within {TURNS_MAX} turns");
    }
}

fn start(
    options: &DriverOptions,
    partition_counts: &Arc<PartitionCounts>,
    broker: &MockBroker,
    clock: &ManualClock,
    queries: &Arc<QueryRegistry>,
    metrics: &Arc<EngineMetrics>,
) -> Result<StreamThread, EngineError> {
    StreamThread::new(StreamThreadOptions {
        thread: 0,
        application_id: DRIVER_APPLICATION_ID.into(),
        transactional_id: Some(format!("{DRIVER_APPLICATION_ID}-0")),
        config: options.config.clone(),
        clients: Arc::new(broker.clone()),
        topology: Arc::clone(options.processors.topology()),
        versions: Versions::only(Arc::clone(&options.processors), Arc::new(options.processor_config.clone())),
        stores: Arc::clone(&options.stores),
        standby_tasks: Arc::default(),
        clock: Arc::new(clock.clone()),
        partition_counts: Arc::clone(partition_counts),
        sink_limits: Arc::default(),
        queries: Arc::clone(queries),
        metrics: Arc::clone(metrics),
        progress: Arc::new(SharedProgress::default()),
    })
}

#[cfg(test)]
mod tests;
