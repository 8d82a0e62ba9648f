//! One simulated host: its stream threads, its state directory and what it offers to queries. It is started, crashed
//! and closed by the world; it never acts by itself.

use std::sync::Arc;

use broker::direct::{ClientOptions, DirectBroker, DirectClients};
use engine::broker::ClientSupplier;
use engine::clock::Clock;
use engine::error::EngineError;
use engine::internal_topics;
use engine::metrics::{EngineMetrics, Metric};
use engine::query::QueryRegistry;
use engine::record::TopicPartition;
use engine::standby::{StandbyThread, StandbyThreadOptions};
use engine::stream_thread::{CloseMode, RunOnce, SharedProgress, StreamThread, StreamThreadOptions};
use engine::task::TaskState;
use engine::testing::{CrashStores, ManualClock};
use engine::topology::{TaskId, Topology, changelog_topic};
use engine::version::{Versions, older_generations};

use crate::deployments::Deployments;
use crate::scenario::Scenario;
use crate::tally::{LATEST, TALLIES};
use crate::workload::source_topic;

/// The application id of all hosts.
pub const APPLICATION: &str = "app";

/// One thread and when it may run again.
struct Thread {
    thread: StreamThread,
    progress: Arc<SharedProgress>,
    not_before_ms: u64,
}

/// The standby thread and when it may run again.
struct Standby {
    thread: StandbyThread,
    not_before_ms: u64,
}

/// The topology with what its tasks may still have to migrate, by what the group has committed, as a host finds it.
fn with_older_generations(
    broker: &DirectBroker,
    clients: &DirectClients,
    scenario: &Scenario,
    declared: &Topology,
) -> Result<Topology, EngineError> {
    if declared.sub_topologies.iter().flat_map(|part| &part.stores).all(|store| store.version == 1) {
        return Ok(declared.clone());
    }
    let partitions: Vec<TopicPartition> = (0..scenario.topics)
        .flat_map(|topic| (0..scenario.partitions).map(move |n| TopicPartition::new(source_topic(topic), n)))
        .collect();
    let committed = clients.consumer(0)?.committed(&partitions)?;
    let committed =
        partitions.iter().zip(&committed).filter_map(|(partition, found)| Some((partition, found.as_ref()?)));
    let found = older_generations(declared, committed).into_iter();
    // Only the first has no mark, and is named after the store.
    let exists = |store: &str| broker.core().topic(&changelog_topic(APPLICATION, store)).is_some();
    let older = found.filter(|found| found.is_certain || exists(&found.generation.store));
    Ok(declared.with_older_generations(&older.map(|found| found.generation).collect::<Vec<_>>()))
}

/// One host.
pub struct Host {
    pub name: String,
    pub stores: CrashStores,
    pub queries: Arc<QueryRegistry>,
    threads: Vec<Thread>,
    /// Beside the stream threads, where standby tasks are kept.
    standby: Option<Standby>,
    metrics: Arc<EngineMetrics>,
    /// What its process runs; `None` before the first.
    pub versions: Option<Arc<Versions>>,
    /// Not running, and until which step.
    pub down_until: Option<u64>,
    /// Standing still until this step.
    pub stalled_until: u64,
}

impl Host {
    pub fn new(name: String) -> Self {
        Self {
            name,
            stores: CrashStores::new(),
            queries: Arc::new(QueryRegistry::new([TALLIES.into(), LATEST.into()])),
            threads: Vec::new(),
            standby: None,
            metrics: Arc::new(EngineMetrics::new()),
            versions: None,
            down_until: Some(0),
            stalled_until: 0,
        }
    }

    pub fn is_up(&self) -> bool {
        self.down_until.is_none()
    }

    pub fn thread_count(&self) -> usize {
        self.threads.len() + usize::from(self.standby.is_some())
    }

    /// Records that standby tasks have read, and standby tasks that became active, in all its processes.
    pub fn standby_counts(&self) -> (u64, u64) {
        (self.metrics.get(Metric::StandbyRecords), self.metrics.get(Metric::StandbyPromotions))
    }

    /// Starts a process on the state directory. Fails when the broker cannot be asked; try again then.
    pub fn start(
        &mut self,
        broker: &DirectBroker,
        clock: &ManualClock,
        scenario: &Scenario,
        deployments: &Deployments,
    ) -> Result<(), EngineError> {
        let clients = broker.clients(ClientOptions {
            protocol: scenario.protocol,
            session_timeout_ms: 6_000,
            heartbeat_interval_ms: 500,
            rebalance_timeout_ms: 10_000,
            fetch_bytes: scenario.fetch_bytes,
            producer_queue_records: scenario.producer_queue_records,
            transaction_timeout_ms: scenario.config.transaction_timeout_ms as i32,
            ..ClientOptions::new(self.name.clone(), APPLICATION)
        });
        let versions = deployments.start();
        let declared = versions.target().processors.topology().clone();
        let topology = Arc::new(with_older_generations(broker, &clients, scenario, &declared)?);
        let mut admin = clients.admin()?;
        let counts = internal_topics::prepare(&mut *admin, APPLICATION, &topology, -1)?;
        let (counts, clients): (_, Arc<dyn ClientSupplier>) = (Arc::new(counts), Arc::new(clients));
        let standby_tasks = Arc::default();
        let mut threads = Vec::new();
        let mut standby = None;
        for thread in 0..scenario.threads {
            let progress = Arc::new(SharedProgress::default());
            let options = StreamThreadOptions {
                thread,
                application_id: APPLICATION.into(),
                transactional_id: Some(format!("{APPLICATION}-{}-{thread}", self.name)),
                config: scenario.config.clone(),
                clients: Arc::clone(&clients),
                topology: Arc::clone(&topology),
                versions: Arc::clone(&versions),
                stores: Arc::new(self.stores.clone()),
                standby_tasks: Arc::clone(&standby_tasks),
                clock: Arc::new(clock.clone()),
                partition_counts: Arc::clone(&counts),
                sink_limits: Arc::default(),
                queries: Arc::clone(&self.queries),
                metrics: Arc::clone(&self.metrics),
                progress: Arc::clone(&progress),
            };
            if standby.is_none() && scenario.num_standby_replicas > 0 {
                let replicas = scenario.num_standby_replicas;
                let beside = StandbyThreadOptions::beside(&options, scenario.threads, &self.name, replicas);
                let beside = StandbyThreadOptions { metrics: Arc::clone(&self.metrics), ..beside };
                standby = Some(Standby { thread: StandbyThread::new(beside)?, not_before_ms: 0 });
            }
            threads.push(Thread { thread: StreamThread::new(options)?, progress, not_before_ms: 0 });
        }
        (self.threads, self.standby) = (threads, standby);
        self.versions = Some(versions);
        self.down_until = None;
        Ok(())
    }

    /// Runs one thread for one turn; `None` when it is to wait.
    pub fn run(&mut self, thread: usize, clock: &ManualClock) -> Option<Result<RunOnce, EngineError>> {
        let now_ms = clock.monotonic_ms();
        if thread == self.threads.len() {
            return self.run_standby(now_ms);
        }
        let thread = self.threads.get_mut(thread)?;
        if now_ms < thread.not_before_ms {
            return None;
        }
        let turn = thread.thread.run_once();
        if let Ok(turn) = &turn {
            thread.not_before_ms = now_ms + turn.wait_ms;
        }
        Some(turn)
    }

    /// The thread after the last stream thread. Nothing that happens to it may stop the application; for the purpose of
    /// the simulation it is idle, as its copies are never waited for.
    fn run_standby(&mut self, now_ms: u64) -> Option<Result<RunOnce, EngineError>> {
        let standby = self.standby.as_mut()?;
        if now_ms < standby.not_before_ms {
            return None;
        }
        match standby.thread.run_once() {
            Ok(turn) => standby.not_before_ms = now_ms + turn.wait_ms,
            // Its client is gone for good. Without a crash that is not expected to happen.
            Err(error) => return Some(Err(error)),
        }
        Some(Ok(RunOnce::default()))
    }

    /// Ends the process in good order. An error means that something was dropped.
    pub fn close(&mut self, until: u64) -> Result<(), EngineError> {
        let mut result = Ok(());
        for mut thread in self.threads.drain(..) {
            result = result.and(thread.thread.close(CloseMode::Clean));
        }
        if let Some(mut standby) = self.standby.take() {
            standby.thread.close(CloseMode::Clean);
        }
        self.down_until = Some(until);
        result
    }

    /// The process is gone, whatever it was doing. Its stores are what the disk has of them.
    pub fn crash(&mut self, seed: &mut engine::testing::Seed, until: u64) {
        self.stores.crash(seed);
        self.threads.clear();
        self.standby = None;
        self.queries = Arc::new(QueryRegistry::new([TALLIES.into(), LATEST.into()]));
        self.down_until = Some(until);
    }

    /// Whether all tasks of all threads run; a thread may have none.
    pub fn is_running(&self) -> bool {
        let reports = self.threads.iter().map(|thread| thread.progress.read());
        { reports }
            .all(|report| report.tasks.iter().all(|task| task.state == TaskState::Running && task.migration.is_none()))
    }

    /// The tasks that run, as the threads have reported them, each with the thread.
    pub fn running_tasks(&self) -> Vec<(TaskId, String)> {
        let mut running = Vec::new();
        for (index, thread) in self.threads.iter().enumerate() {
            let tasks = thread.progress.read().tasks;
            let tasks = tasks.into_iter().filter(|task| task.state == TaskState::Running);
            running.extend(tasks.map(|task| (task.task, format!("{}-{index}", self.name))));
        }
        running
    }

    /// Whether all tasks run this version.
    pub fn runs_version(&self, number: u64) -> bool {
        let reports = self.threads.iter().map(|thread| thread.progress.read());
        { reports }.all(|report| report.tasks.iter().all(|task| task.version == number))
    }

    /// Whether a thread says in its trouble that it waits for this.
    pub fn waits_for(&self, text: &str) -> bool {
        let mut reports = self.threads.iter().map(|thread| thread.progress.read());
        reports.any(|report| report.trouble.is_some_and(|(trouble, _)| trouble.contains(text)))
    }

    /// Rows that its tasks have taken over from older schemas.
    pub fn rows_migrated(&self) -> u64 {
        self.metrics.get(Metric::RowsMigrated)
    }

    /// Times that a thread dropped its work because of a version that went past its probation.
    pub fn rollbacks(&self) -> u32 {
        self.metrics.get(Metric::VersionRollbacks) as u32
    }

    /// What its threads do, for people.
    pub fn describe(&self) -> String {
        let describe = |thread: &Thread| {
            let report = thread.progress.read();
            let tasks = report.tasks.iter().map(|task| format!("{} {:?}", task.task, task.state));
            let trouble = report.trouble.map_or_else(String::new, |(error, _)| format!(", {error}"));
            format!("{:?} with [{}]{trouble}", report.state, tasks.collect::<Vec<_>>().join(", "))
        };
        self.threads.iter().map(describe).collect::<Vec<_>>().join(" and ")
    }

    /// Commits that the broker refused: in the middle of a rebalance, for example, when a process that is closing
    /// has no more say.
    pub fn refused_commits(&self) -> u32 {
        self.metrics.get(Metric::CommitsFailed) as u32
    }
}
