//! Standby tasks on the broker's core: whole hosts, with kills, in one thread and on a clock of their own.

use std::collections::BTreeMap;
use std::sync::Arc;

use broker::core::CoreOptions;
use broker::core::admin::NewTopic;
use broker::core::batch::build::NewRecord;
use broker::core::memory::MemoryStorage;
use broker::direct::{ClientOptions, DirectBroker, Faults};
use engine::broker::ClientSupplier;
use engine::internal_topics;
use engine::metrics::{EngineMetrics, Metric};
use engine::query::QueryRegistry;
use engine::record::TopicPartition;
use engine::standby::{SharedStandbyReport, StandbyState, StandbyThread, StandbyThreadOptions};
use engine::stream_thread::{
    CloseMode, ProcessingGuarantee, SharedProgress, StreamThread, StreamThreadOptions, StreamsConfig,
};
use engine::task::TaskState;
use engine::testing::{Count, CrashStores, ManualClock, NativeSupplier, Seed, number, topology};
use engine::topology::TaskId;
use engine::version::Versions;

const PARTITIONS: i32 = 4;
const STEP_MS: u64 = 20;
/// Far more than a session's end and a restore take.
const STEPS_MAX: u32 = 3_000;

/// A process with one stream thread and a standby thread.
struct Process {
    stream: StreamThread,
    standby: StandbyThread,
    queries: Arc<QueryRegistry>,
    progress: Arc<SharedProgress>,
    report: Arc<SharedStandbyReport>,
    metrics: Arc<EngineMetrics>,
}

struct Host {
    name: &'static str,
    stores: CrashStores,
    process: Option<Process>,
}

struct World {
    clock: ManualClock,
    broker: DirectBroker,
    hosts: Vec<Host>,
    seed: Seed,
    /// How often each key was produced.
    model: BTreeMap<String, u64>,
    guarantee: ProcessingGuarantee,
}

impl World {
    fn new(seed: u64, guarantee: ProcessingGuarantee) -> Self {
        let clock = ManualClock::new(1_000);
        let (storage, faults) = (Arc::new(MemoryStorage::new()), Faults::none());
        let broker = DirectBroker::open(CoreOptions::default(), storage, Arc::new(clock.clone()), faults);
        let broker = broker.expect("a broker");
        for topic in ["in", "out"] {
            let topic = NewTopic { name: topic.to_owned(), partitions: PARTITIONS, configs: BTreeMap::default() };
            broker.core().create_topic(&topic, false).expect("a topic");
        }
        let hosts = ["h0", "h1"].map(|name| Host { name, stores: CrashStores::new(), process: None });
        let (seed, model) = (Seed::new(seed), BTreeMap::new());
        Self { clock, broker, hosts: hosts.into(), seed, model, guarantee }
    }

    fn start(&mut self, host: usize) {
        let options = ClientOptions {
            session_timeout_ms: 6_000,
            heartbeat_interval_ms: 500,
            rebalance_timeout_ms: 10_000,
            ..ClientOptions::new(self.hosts[host].name, "app")
        };
        let clients = self.broker.clients(options);
        let supplier = NativeSupplier::new(topology(&["in"], &["counts"], &["out"]), |_| Count);
        let processors: Arc<dyn engine::processor::ProcessorSupplier> = Arc::new(supplier);
        let mut admin = clients.admin().expect("an admin client");
        let counts = internal_topics::prepare(&mut *admin, "app", processors.topology(), -1).expect("topics");
        let host = &mut self.hosts[host];
        let (queries, progress) = (Arc::new(QueryRegistry::new(["counts".into()])), Arc::default());
        let metrics = Arc::new(EngineMetrics::new());
        let config = StreamsConfig {
            processing_guarantee: self.guarantee,
            commit_interval_ms: 100,
            statestore_flush_interval_ms: 2_000,
            ..StreamsConfig::default()
        };
        let stream = StreamThreadOptions {
            thread: 0,
            application_id: "app".into(),
            transactional_id: Some(format!("app-{}-0", host.name)),
            config,
            clients: Arc::new(clients),
            topology: Arc::clone(processors.topology()),
            versions: Versions::only(processors, Arc::default()),
            stores: Arc::new(host.stores.clone()),
            standby_tasks: Arc::default(),
            clock: Arc::new(self.clock.clone()),
            partition_counts: Arc::new(counts),
            sink_limits: Arc::default(),
            queries: Arc::clone(&queries),
            metrics: Arc::clone(&metrics),
            progress: Arc::clone(&progress),
        };
        let standby = StandbyThreadOptions::beside(&stream, 1, host.name, 1);
        let report = Arc::clone(&standby.report);
        let standby = StandbyThread::new(standby).expect("a standby thread");
        let stream = StreamThread::new(stream).expect("a stream thread");
        host.process = Some(Process { stream, standby, queries, progress, report, metrics });
    }

    /// The process is gone, whatever it was doing; its disk has what it has.
    fn kill(&mut self, host: usize) {
        let host = &mut self.hosts[host];
        host.stores.crash(&mut self.seed);
        host.process = None;
    }

    fn step(&mut self) {
        for process in self.hosts.iter_mut().filter_map(|host| host.process.as_mut()) {
            process.stream.run_once().expect("the stream thread goes on");
            process.standby.run_once().expect("the standby thread goes on");
        }
        self.clock.advance_ms(STEP_MS);
    }

    fn steps_until(&mut self, what: &str, done: impl Fn(&Self) -> bool) {
        for _ in 0..STEPS_MAX {
            self.step();
            if done(self) {
                return;
            }
        }
        let reports: Vec<_> =
            self.processes().map(|process| (process.progress.read(), process.report.read())).collect();
        panic!("it takes too long: {what}: {reports:#?}");
    }

    fn processes(&self) -> impl Iterator<Item = &Process> {
        self.hosts.iter().filter_map(|host| host.process.as_ref())
    }

    fn produce(&mut self, records: u64) {
        for _ in 0..records {
            let key = format!("key{}", self.seed.below(100));
            let partition = key.bytes().map(i32::from).sum::<i32>() % PARTITIONS;
            let record = NewRecord { timestamp: 0, key: Some(key.as_bytes()), value: Some(b"x"), headers: &[] };
            self.broker.append(&TopicPartition::new("in", partition), &[record]).expect("it is appended");
            *self.model.entry(key).or_default() += 1;
        }
    }

    /// All tasks run somewhere and have processed everything.
    fn has_processed_everything(&self) -> bool {
        let ends = |partition| {
            let log = self.broker.core().partition("in", partition).expect("a partition");
            log.bounds().high_watermark
        };
        let reports: Vec<_> = self.processes().map(|process| process.progress.read()).collect();
        let tasks = reports.iter().flat_map(|report| &report.tasks);
        let done = tasks.filter(|task| task.state == TaskState::Running && task.uncommitted_bytes == 0);
        let committed = done.flat_map(|task| &task.partitions);
        let done =
            committed.filter(|partition| partition.committed_offset == Some(ends(partition.partition.partition)));
        done.count() == PARTITIONS as usize
    }

    /// Every task has a warm copy that has read everything.
    fn is_warm(&self) -> bool {
        let reports: Vec<_> = self.processes().map(|process| process.report.read()).collect();
        let tasks: Vec<_> = reports.iter().flat_map(|report| &report.tasks).collect();
        let warm = |task: &&engine::standby::StandbyTaskReport| {
            let ends = |changelog: &TopicPartition| {
                let log = self.broker.core().partition(&changelog.topic, changelog.partition).expect("a partition");
                log.bounds().high_watermark
            };
            task.state == StandbyState::Following
                && task.stores.iter().all(|store| store.position == ends(&store.changelog))
        };
        tasks.len() == PARTITIONS as usize && tasks.iter().copied().filter(warm).count() == tasks.len()
    }

    /// What each task's store of a host would hold after a clean close.
    fn content(&self, host: usize) -> BTreeMap<String, u64> {
        let mut content = BTreeMap::new();
        for partition in 0..PARTITIONS {
            let store = self.hosts[host].stores.content(TaskId { sub_topology: 0, partition }, "counts");
            for (key, value) in store.map(|store| store.entries).unwrap_or_default() {
                let earlier = content.insert(String::from_utf8_lossy(&key).into_owned(), number(&value));
                assert_eq!(earlier, None, "a key is in one partition");
            }
        }
        content
    }

    /// Store, standby and outputs are what the input makes them.
    fn check(&self) {
        for (key, &count) in &self.model {
            let partition = key.bytes().map(i32::from).sum::<i32>() % PARTITIONS;
            let found: Vec<u64> = self
                .processes()
                .filter_map(|process| process.queries.get("counts", partition, key.as_bytes(), None).ok()?.value)
                .map(|value| number(&value))
                .collect();
            assert_eq!(found, [count], "{key}: one active store has it");
        }
        for host in 0..self.hosts.len() {
            assert_eq!(self.content(host), self.model, "{} has everything, active or warm", self.hosts[host].name);
        }
        let mut outputs: BTreeMap<String, Vec<u64>> = BTreeMap::new();
        for partition in 0..PARTITIONS {
            let records = self.broker.committed_records(&TopicPartition::new("out", partition)).expect("records");
            for record in records {
                let key = String::from_utf8_lossy(&record.key.unwrap_or_default()).into_owned();
                outputs.entry(key).or_default().push(number(&record.value.unwrap_or_default()));
            }
        }
        for (key, counts) in outputs {
            assert_eq!(counts, (1..=self.model[&key]).collect::<Vec<_>>(), "{key}");
        }
    }

    fn metric(&self, metric: Metric) -> u64 {
        self.processes().map(|process| process.metrics.get(metric)).sum()
    }
}

#[test]
fn killed_again_and_again_the_warm_host_takes_over_with_few_records_to_restore() {
    let mut world = World::new(5, ProcessingGuarantee::ExactlyOnceV2);
    world.start(0);
    world.start(1);
    world.produce(3_000);
    world.steps_until("everything is processed and warm", |world| world.has_processed_everything() && world.is_warm());
    world.check();
    let (mut restored, mut promoted) = (Vec::new(), 0);
    for round in 0..10 {
        // Amid the work, so that the copy lags and a transaction is open.
        world.produce(300);
        (0..world.seed.below(8)).for_each(|_| world.step());
        let killed = round % 2;
        world.kill(killed);
        let before = (world.metric(Metric::RestoredRecords), world.metric(Metric::StandbyPromotions));
        world.steps_until("the survivor has all tasks", World::has_processed_everything);
        restored.push(world.metric(Metric::RestoredRecords) - before.0);
        promoted += world.metric(Metric::StandbyPromotions) - before.1;
        world.start(killed);
        world.steps_until("both are warm again", |world| world.has_processed_everything() && world.is_warm());
        world.check();
    }
    println!("records restored in each takeover: {restored:?}; tasks promoted: {promoted}");
    assert_eq!(promoted, 20, "every task of a killed host was promoted");
    // Of thousands in the changelogs: what the dead host committed last and the copy had not read.
    assert!(restored.iter().all(|&records| records <= 300), "{restored:?}");
}

#[test]
fn a_demoted_task_is_kept_warm_from_where_it_is() {
    for guarantee in [ProcessingGuarantee::ExactlyOnceV2, ProcessingGuarantee::AtLeastOnce] {
        let mut world = World::new(7, guarantee);
        world.start(0);
        world.produce(2_000);
        world.steps_until("one host does it all", World::has_processed_everything);
        world.start(1);
        // Work goes on while two of four tasks move.
        for _ in 0..50 {
            world.produce(10);
            world.step();
        }
        world.steps_until("both are warm", |world| world.has_processed_everything() && world.is_warm());
        world.check();
        let first = world.hosts[0].process.as_ref().expect("it runs").report.read();
        assert_eq!(first.tasks.len(), 2, "{first:?}");
        // The changelog of a task has some 500 records; none is read that the task wrote or restored itself.
        assert!(first.records < 300, "{} records were read", first.records);
        for host in &mut world.hosts {
            let mut process = host.process.take().expect("it runs");
            process.stream.close(CloseMode::Clean).expect("a clean end");
            process.standby.close(CloseMode::Clean);
        }
        // Both come back with what they had: nothing is restored and next to nothing read.
        world.start(0);
        world.start(1);
        world.steps_until("both are warm again", |world| world.has_processed_everything() && world.is_warm());
        world.check();
        assert_eq!(world.metric(Metric::RestoredRecords), 0, "{guarantee:?}");
        let read: u64 = world.processes().map(|process| process.report.read().records).sum();
        assert_eq!(read, 0, "{guarantee:?}");
    }
}
