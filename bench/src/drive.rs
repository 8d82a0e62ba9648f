//! Runs stream threads until they have processed and committed a number of records, as the host does: one OS thread
//! each, nothing shared in the data path. Knows neither broker nor processor.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, anyhow};
use bytes::Bytes;
use engine::broker::ClientSupplier;
use engine::clock::Clock;
use engine::internal_topics;
use engine::metrics::EngineMetrics;
use engine::processor::ProcessorSupplier;
use engine::query::QueryRegistry;
use engine::record::Offset;
use engine::state::memory::MemoryStoreProvider;
use engine::state::{KeyRange, ReadView, StateStore, StoreError, StoreProvider, Visit, Write};
use engine::stream_thread::{CloseMode, SharedProgress, StreamThread, StreamThreadOptions, StreamsConfig};
use engine::topology::{StoreBackend, StoreSpec, TaskId};
use engine::version::Versions;
use rocks::{RocksOptions, RocksStoreProvider};

use crate::measure::thread_cpu_time;

/// The machine's clock.
pub struct MachineClock {
    start: Instant,
}

impl MachineClock {
    pub fn new() -> Self {
        Self { start: Instant::now() }
    }
}

impl Clock for MachineClock {
    fn monotonic_ms(&self) -> u64 {
        self.start.elapsed().as_millis() as u64
    }

    fn wall_clock_ms(&self) -> i64 {
        SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |time| time.as_millis() as i64)
    }
}

/// RocksDB for persistent stores, memory for the others.
pub struct Stores {
    memory: MemoryStoreProvider,
    rocks: RocksStoreProvider,
    by_batches: bool,
}

/// A store that is not told of a bulk load.
struct ByBatches(Box<dyn StateStore>);

impl StateStore for ByBatches {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.0.get(key)
    }

    fn get_many(&self, keys: &[&[u8]], found: &mut dyn FnMut(usize, Option<&[u8]>)) -> Result<(), StoreError> {
        self.0.get_many(keys, found)
    }

    fn scan(&self, range: KeyRange<'_>, reverse: bool, visit: &mut Visit<'_>) -> Result<(), StoreError> {
        self.0.scan(range, reverse, visit)
    }

    fn write(&mut self, writes: &[Write], changelog_offset: Option<Offset>) -> Result<(), StoreError> {
        self.0.write(writes, changelog_offset)
    }

    fn changelog_offset(&self) -> Result<Option<Offset>, StoreError> {
        self.0.changelog_offset()
    }

    fn flush(&mut self) -> Result<(), StoreError> {
        self.0.flush()
    }

    fn read_view(&self) -> Arc<dyn ReadView> {
        self.0.read_view()
    }

    fn approximate_entries(&self) -> u64 {
        self.0.approximate_entries()
    }
}

impl Stores {
    /// Stores below `state_dir`, which is emptied first.
    pub fn fresh(state_dir: &Path, application_id: &str) -> Result<Self> {
        if state_dir.exists() {
            std::fs::remove_dir_all(state_dir).with_context(|| format!("empty {}", state_dir.display()))?;
        }
        let rocks = RocksStoreProvider::open(RocksOptions::new(state_dir, application_id))?;
        Ok(Self { memory: MemoryStoreProvider, rocks, by_batches: false })
    }

    /// Restores into RocksDB by ordinary batches, where that is asked for.
    pub fn without_bulk_loading(self, by_batches: bool) -> Self {
        Self { by_batches, ..self }
    }
}

impl StoreProvider for Stores {
    fn open(&self, task: TaskId, store: &StoreSpec) -> Result<Box<dyn StateStore>, StoreError> {
        match store.backend {
            StoreBackend::Persistent => {
                let opened = self.rocks.open(task, store)?;
                Ok(if self.by_batches { Box::new(ByBatches(opened)) } else { opened })
            }
            StoreBackend::InMemory => self.memory.open(task, store),
        }
    }

    fn wipe(&self, task: TaskId, store: &StoreSpec) -> Result<(), StoreError> {
        match store.backend {
            StoreBackend::Persistent => self.rocks.wipe(task, store),
            StoreBackend::InMemory => self.memory.wipe(task, store),
        }
    }
}

/// One application to drive.
pub struct Drive {
    pub application_id: String,
    pub threads: usize,
    pub config: StreamsConfig,
    pub clients: Arc<dyn ClientSupplier>,
    pub processors: Arc<dyn ProcessorSupplier>,
    pub stores: Arc<Stores>,
    /// The counters of all threads together.
    pub metrics: Arc<EngineMetrics>,
    /// How many records there are.
    pub records: u64,
    /// After this long the run has failed.
    pub limit: Duration,
}

impl Drive {
    /// Creates internal topics and the threads; what is left is the measured part.
    pub fn prepare(self) -> Result<Prepared> {
        let mut admin = self.clients.admin()?;
        let counts = internal_topics::prepare(&mut *admin, &self.application_id, self.processors.topology(), 1)?;
        let clock: Arc<dyn Clock> = Arc::new(MachineClock::new());
        let versions = Versions::only(Arc::clone(&self.processors), Arc::default());
        let progress: Vec<Arc<SharedProgress>> = (0..self.threads).map(|_| Arc::default()).collect();
        let threads = (0..self.threads)
            .map(|thread| {
                StreamThread::new(StreamThreadOptions {
                    thread,
                    application_id: self.application_id.as_str().into(),
                    transactional_id: Some(format!("{}-bench-{thread}", self.application_id)),
                    config: self.config.clone(),
                    clients: Arc::clone(&self.clients),
                    topology: Arc::clone(self.processors.topology()),
                    versions: Arc::clone(&versions),
                    stores: Arc::clone(&self.stores) as Arc<dyn StoreProvider>,
                    standby_tasks: Arc::default(),
                    clock: Arc::clone(&clock),
                    partition_counts: Arc::new(counts.clone()),
                    sink_limits: Arc::default(),
                    queries: Arc::new(QueryRegistry::new(Vec::new())),
                    metrics: Arc::clone(&self.metrics),
                    progress: Arc::clone(&progress[thread]),
                })
                .map_err(anyhow::Error::from)
            })
            .collect::<Result<Vec<_>>>()?;
        Ok(Prepared { threads, progress, records: self.records, limit: self.limit })
    }
}

/// Threads that are ready to go.
pub struct Prepared {
    pub threads: Vec<StreamThread>,
    /// What each of them says of itself.
    pub progress: Vec<Arc<SharedProgress>>,
    records: u64,
    limit: Duration,
}

impl Prepared {
    /// Runs until every record is processed, then commits and closes. Returns the number processed.
    pub fn run(self) -> Result<u64> {
        self.run_by_thread().map(|(processed, _)| processed)
    }

    /// The same, with the CPU time of the stream threads alone.
    pub fn run_by_thread(self) -> Result<(u64, Duration)> {
        let processed = AtomicU64::new(0);
        let cpu_ns = AtomicU64::new(0);
        let failed = AtomicBool::new(false);
        let (wanted, limit, start) = (self.records, self.limit, Instant::now());
        let turn = |mut thread: StreamThread| -> Result<()> {
            while processed.load(Ordering::Relaxed) < wanted && !failed.load(Ordering::Relaxed) {
                let done = thread.run_once()?;
                processed.fetch_add(done.records_processed, Ordering::Relaxed);
                if start.elapsed() > limit {
                    let found = processed.load(Ordering::Relaxed);
                    return Err(anyhow!("{found} of {wanted} records processed after {} s", limit.as_secs()));
                }
                if done.wait_ms > 0 {
                    std::thread::sleep(Duration::from_millis(done.wait_ms));
                }
            }
            thread.close(CloseMode::Clean)?;
            // The thread has done nothing else.
            cpu_ns.fetch_add(u64::try_from(thread_cpu_time()?.as_nanos())?, Ordering::Relaxed);
            Ok(())
        };
        std::thread::scope(|scope| {
            let handles: Vec<_> = self
                .threads
                .into_iter()
                .map(|thread| scope.spawn(|| turn(thread).inspect_err(|_| failed.store(true, Ordering::Relaxed))))
                .collect();
            handles.into_iter().try_for_each(|handle| handle.join().map_err(|_| anyhow!("a stream thread panicked"))?)
        })?;
        Ok((processed.into_inner(), Duration::from_nanos(cpu_ns.into_inner())))
    }
}
