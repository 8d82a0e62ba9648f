//! A run of an application, from manifest to clean end: module, broker, topics, stores, stream threads, REST. Owns
//! the order in which they start and stop. Every wait of it ends when the wish to stop is raised.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use engine::assignment::logged_tasks;
use engine::broker::{BrokerErrorKind, ClientSupplier, NewTopic};
use engine::error::EngineError;
use engine::metrics::{EngineMetrics, Metric};
use engine::processor::ProcessorSupplier;
use engine::query::QueryRegistry;
use engine::standby::StandbyThreadOptions;
use engine::state::StoreProvider;
use engine::stream_thread::{SharedProgress, StreamThreadOptions, ThreadReport};
use engine::table::TableSupplier;
use engine::topic_limits::SharedSinkLimits;
use engine::topology::{PartitionCounts, Topology};
use kafka::KafkaClients;
use serde_json::json;

pub mod brokers;
mod clock;
mod settings;
mod standby;
pub mod status;
pub mod stop;
mod stores;
mod supervisor;
mod threads;
mod topics;
pub mod writer;

pub use clock::wall_clock_ms;
pub use settings::{cache_dir, compile_limits, parse_duration};

use crate::config::Manifest;
use crate::rest::changes::Changelogs;
use crate::rest::peers::Peers;
use crate::rest::writes::Writes;
use crate::routes::RouteFinder;
use crate::terminal::Terminal;
use crate::{app, components, rest};
use brokers::Broker;
use clock::HostClock;
use standby::Standby;
use status::{Phase, Routing, StandbyStatus, Status, Wired};
use stop::Stop;
use stores::Stores;
use supervisor::Supervisor;
use threads::StreamThreads;
use topics::TopicWatch;
use writer::Writer;

/// A clean end that takes longer than this is given up: what was not committed is processed again.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);

/// What a run is told beside its manifest.
#[derive(Debug, Clone)]
pub struct RunOptions {
    /// Folder of the embedded broker, where that is asked for.
    pub embedded: Option<PathBuf>,
    pub until_idle: Option<Duration>,
}

/// Runs the application until it is told to stop, is idle, or fails.
///
/// # Errors
/// Why it could not start or what it failed of.
pub fn run(manifest: &Manifest, options: &RunOptions, terminal: Terminal) -> Result<()> {
    let stop = Stop::default();
    let status = Arc::new(Status::new(manifest.application_id()));
    let services = Services::start(manifest, &status, &stop, terminal)?;
    let endpoint = settings::endpoint(manifest, services.port);
    let result = application(manifest, options, &endpoint, &status, &stop, terminal);
    if let Err(error) = &result {
        status.set_phase(Phase::Failed(format!("{error:#}")));
    }
    stop.raise();
    services.end();
    result
}

/// REST and signals: what serves while an application starts, runs and ends.
struct Services {
    /// Where REST listens, also when the manifest leaves the choice to the machine.
    port: u16,
    runtime: tokio::runtime::Runtime,
    rest: tokio::task::JoinHandle<std::io::Result<()>>,
    stop: tokio::sync::watch::Sender<bool>,
}

impl Services {
    fn start(manifest: &Manifest, status: &Arc<Status>, stop: &Stop, terminal: Terminal) -> Result<Self> {
        let listener = rest::bind(manifest.text("application.server"))?;
        let address = listener.local_addr().context("cannot ask for the REST address")?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            // Reads of stores: enough that slow ones do not hold up the others, few enough for a small machine.
            .max_blocking_threads(64)
            .thread_name("rest")
            .enable_all()
            .build()
            .context("cannot start the threads of the REST interface")?;
        let farewell = "stopping: committing and leaving the group; a second signal ends at once";
        stop::on_signals(runtime.handle(), stop, farewell).context("cannot listen to signals")?;
        let (sender, receiver) = tokio::sync::watch::channel(false);
        let rest = runtime.spawn(rest::serve(listener, rest::router(Arc::clone(status)), receiver));
        terminal.notice("rest", &format!("REST at http://{address}"), json!({ "address": address.to_string() }));
        if !address.ip().is_loopback() {
            let text = format!("{address} is reachable from other machines, and there is no authentication yet");
            terminal.notice("warning", &text, json!({ "warning": text }));
        }
        if address.ip().is_unspecified() && manifest.optional_text("advertised.listener").is_none() {
            let text =
                format!("other hosts cannot reach this one at {address} to pass on queries: set advertised.listener");
            terminal.notice("warning", &text, json!({ "warning": text }));
        }
        Ok(Self { port: address.port(), runtime, rest, stop: sender })
    }

    /// Lets open requests end. Queries that still read a store are left behind.
    fn end(self) {
        self.stop.send_replace(true);
        if let Ok(Err(error)) = self.runtime.block_on(self.rest) {
            tracing::error!(%error, "the REST interface failed");
        }
        self.runtime.shutdown_timeout(Duration::from_secs(1));
    }
}

/// The steps of a start. Each returns early when the wish to stop came.
fn application(
    manifest: &Manifest,
    options: &RunOptions,
    endpoint: &str,
    status: &Arc<Status>,
    stop: &Stop,
    terminal: Terminal,
) -> Result<()> {
    // First, since it needs nobody's answer: a second host on the directory is gone before it does anything.
    status.set_phase(Phase::Starting("opening the state directory"));
    let stores = Arc::new(Stores::open(settings::rocks_options(manifest))?);

    let Some(Processors { supplier: processors, usage }) = load_processors(manifest, status, stop, terminal)? else {
        return Ok(());
    };
    let topology = Arc::clone(processors.topology());
    topology.validate(manifest.application_id()).map_err(EngineError::from)?;

    status.set_phase(Phase::Starting("connecting to the broker"));
    let broker = broker_of(manifest, options, terminal)?;
    let timeout = Duration::from_millis(manifest.count("default.api.timeout.ms"));
    let config = settings::clients_config(manifest, &topology, &broker.bootstrap_servers);
    let Some((clients, cluster)) = brokers::connect(config, timeout, stop, terminal)? else { return Ok(()) };
    if let Some(cluster_id) = &cluster.cluster_id {
        stores.check_cluster(cluster_id)?;
    }

    status.set_phase(Phase::Starting("checking topics"));
    // A table without its topic is a mistake more likely than a wish.
    if broker.is_embedded && manifest.tables.is_empty() {
        create_missing_topics(&clients, &topology, manifest.integer("embedded.partitions"), terminal)?;
    }
    let prepared = topics::prepare(manifest, &clients, &topology, &stores.path(), stop)?;
    let Some(prepared) = prepared else { return Ok(()) };

    // A batch of several records must not be larger than any of its topics takes.
    if let Some(least) = prepared.limits.0.values().map(|limits| limits.message_max_bytes).min() {
        clients.bound_batches(least);
    }
    clients.name_host(stores.host_id(), endpoint);
    let routing = routing(manifest, &topology, &prepared.counts, &clients, stores.host_id())?;
    let writes = writes(manifest, &topology, &prepared.counts, &clients, stop)?;
    let readers: Arc<dyn ClientSupplier> = clients.clone();
    let digest = manifest.tables.is_empty().then(|| processors.digest().to_owned());
    let wired = Wired {
        usage,
        routing: Some(routing),
        writes,
        changelogs: Some(Changelogs::new(readers, stop.clone())),
        sink_limits: Arc::new(SharedSinkLimits::new(prepared.limits.clone())),
        ..wire(manifest, &topology, prepared.counts.clone(), digest)
    };
    status.wire(wired.clone());
    tell_tables(manifest, endpoint, terminal);
    let watch = TopicWatch::start(Arc::clone(&clients), manifest.application_id(), topology, prepared, stop)?;
    let host_id = stores.host_id().to_owned();
    let threads = stream_thread_options(manifest, &wired, clients, processors, stores)?;
    let standby = standby_options(manifest, &wired, &threads, &host_id);
    let standby = standby.map(|options| Standby::start(options, stop)).transpose()?;
    let result = run_threads(threads, &watch, options, status, stop, terminal);
    // It may have failed before it raised the wish.
    stop.raise();
    if let Some(standby) = standby {
        standby.wait(CLOSE_TIMEOUT);
    }
    drop(broker);
    result
}

/// Where the tables are to be found.
fn tell_tables(manifest: &Manifest, endpoint: &str, terminal: Terminal) {
    for (store, table) in &manifest.tables {
        let url = format!("http://{endpoint}/v1/apps/{}/stores/{store}", manifest.application_id());
        let text = format!("serving topic {} at {url}/keys/… and {url}/entries", table.topic);
        terminal.notice("table", &text, json!({ "topic": table.topic, "store": store, "url": url }));
    }
}

fn run_threads(
    threads: Vec<StreamThreadOptions>,
    topics: &TopicWatch,
    options: &RunOptions,
    status: &Status,
    stop: &Stop,
    terminal: Terminal,
) -> Result<()> {
    let mut threads = StreamThreads::start(threads, stop)?;
    status.set_phase(Phase::Running);
    let idle = Supervisor::new(status, terminal, options.until_idle).watch(&mut threads, topics, stop);
    if let Some(reason) = threads.failure().and_then(|failure| topics.reason_of(failure)) {
        threads.explain(reason.into());
    }
    match threads.failure() {
        Some(error) => status.set_phase(Phase::Failed(format!("{error:#}"))),
        None => status.set_phase(Phase::Stopping),
    }
    let uncommitted_before = tasks_closed_dirty(status);
    stop.raise();
    let ended = !threads.wait(CLOSE_TIMEOUT);
    let reports = status.reports();
    if !ended && !reports.iter().all(is_committed) {
        bail!(
            "{} stream threads could not commit within {} s, most likely because no broker answers; what they had not \
             committed is processed again at the next start",
            threads.running(),
            CLOSE_TIMEOUT.as_secs()
        );
    }
    threads.finish()?;
    let processed: u64 = reports.iter().map(|report| report.records_processed).sum();
    let why = if idle { "idle" } else { "told to" };
    let uncommitted = tasks_closed_dirty(status) - uncommitted_before;
    let committed = match uncommitted {
        0 => "everything committed".to_owned(),
        tasks => {
            format!("{tasks} tasks without their last commit: their last records are processed again at the next start")
        }
    };
    let text = format!("stopped ({why}): processed {processed} records, {committed}");
    let fields = json!({ "reason": why, "records_processed": processed, "tasks_uncommitted": uncommitted });
    terminal.notice("stopped", &text, fields);
    Ok(())
}

/// Tasks that were closed with uncommitted work so far.
fn tasks_closed_dirty(status: &Status) -> u64 {
    let metrics = status.wired().map(|wired| wired.metrics.clone()).unwrap_or_default();
    metrics.iter().map(|metrics| metrics.get(Metric::TasksClosedDirty)).sum()
}

/// Whether a thread that did not end had nothing to commit any more.
fn is_committed(report: &ThreadReport) -> bool {
    let mut partitions = report.tasks.iter().flat_map(|task| &task.partitions);
    let written = report.tasks.iter().any(|task| task.uncommitted_bytes > 0);
    // A partition without a committed offset has none to commit while nothing was processed.
    !written
        && partitions
            .all(|one| one.committed_offset.map_or(report.records_processed == 0, |at| one.next_offset == Some(at)))
}

/// What the application does, and what counts what a module uses.
struct Processors {
    supplier: Arc<dyn ProcessorSupplier>,
    usage: Option<Arc<sandbox::Usage>>,
}

/// The application's module, or nothing but tables. `None` when the wish to stop came first.
fn load_processors(
    manifest: &Manifest,
    status: &Status,
    stop: &Stop,
    terminal: Terminal,
) -> Result<Option<Processors>> {
    if !manifest.tables.is_empty() {
        let topology = Arc::new(app::tables(manifest));
        return Ok(Some(Processors { supplier: Arc::new(TableSupplier::new(topology)), usage: None }));
    }
    status.set_phase(Phase::Starting("loading the module"));
    let Some(module) = load_module(manifest, stop, terminal)? else { return Ok(None) };
    let topology = Arc::new(app::bind(manifest, module.declaration())?);
    let supplier = module.supplier(topology, manifest.limits());
    let usage = Some(Arc::clone(supplier.usage()));
    Ok(Some(Processors { supplier, usage }))
}

/// Loads the module on a thread of its own, so that a signal need not wait for the compiler.
fn load_module(manifest: &Manifest, stop: &Stop, terminal: Terminal) -> Result<Option<sandbox::Module>> {
    let request = components::LoadRequest {
        path: manifest.path_of("module"),
        cache_dir: settings::cache_dir(manifest),
        module_max_bytes: usize::try_from(manifest.count("module.max.bytes")).unwrap_or(usize::MAX),
        limits: manifest.limits(),
        compile_limits: settings::compile_limits(manifest),
    };
    let (sender, receiver) = channel();
    std::thread::Builder::new()
        .name("load".to_owned())
        .stack_size(4 << 20)
        .spawn(move || {
            // Nobody listens any more when the wish to stop came first.
            let _ = sender.send(components::load(&request, terminal));
        })
        .context("cannot start a thread")?;
    loop {
        match receiver.recv_timeout(Duration::from_millis(20)) {
            Ok(loaded) => return loaded.map(Some),
            Err(RecvTimeoutError::Timeout) if stop.is_raised() => return Ok(None),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => bail!("the thread that loads the module ended early"),
        }
    }
}

fn broker_of(manifest: &Manifest, options: &RunOptions, terminal: Terminal) -> Result<Broker> {
    match (&options.embedded, manifest.bootstrap_servers()) {
        (Some(folder), _) => Broker::embedded(folder, terminal),
        (None, Some(servers)) => Ok(Broker::cluster(&servers)),
        (None, None) => Err(brokers::no_broker()),
    }
}

/// The embedded broker gets the source and sink topics that are missing; a real one never.
fn create_missing_topics(
    clients: &KafkaClients,
    topology: &Topology,
    partitions: i64,
    terminal: Terminal,
) -> Result<()> {
    let mut names = topology.source_topics();
    names.extend(topology.sink_topics());
    for name in names {
        if clients.describe_topic(&name)?.is_some() {
            continue;
        }
        let topic = NewTopic {
            name: name.to_string(),
            partitions: i32::try_from(partitions).unwrap_or(i32::MAX),
            replication_factor: -1,
            configs: Default::default(),
        };
        match clients.create_topic(&topic) {
            Ok(()) => {
                let text = format!("created topic {name} with {partitions} partitions");
                terminal.notice("topic-created", &text, json!({ "topic": &*name, "partitions": partitions }));
            }
            Err(error) if error.kind == BrokerErrorKind::TopicExists => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn wire(manifest: &Manifest, topology: &Arc<Topology>, counts: PartitionCounts, digest: Option<String>) -> Wired {
    let stores = topology.sub_topologies.iter().flat_map(|part| &part.stores).map(|store| Arc::clone(&store.name));
    let threads = usize::try_from(manifest.count("num.stream.threads")).unwrap_or(1);
    Wired {
        topology: Arc::clone(topology),
        partition_counts: Arc::new(counts),
        sink_limits: Arc::default(),
        queries: Arc::new(QueryRegistry::new(stores)),
        threads: (0..threads).map(|_| Arc::new(SharedProgress::default())).collect(),
        metrics: (0..threads).map(|_| Arc::new(EngineMetrics::new())).collect(),
        standby: (manifest.count("num.standby.replicas") > 0).then(StandbyStatus::default),
        module_digest: digest,
        usage: None,
        routing: None,
        writes: None,
        changelogs: None,
    }
}

/// The way of REST writes, where a store takes any.
fn writes(
    manifest: &Manifest,
    topology: &Topology,
    counts: &PartitionCounts,
    clients: &Arc<KafkaClients>,
    stop: &Stop,
) -> Result<Option<Arc<Writes>>> {
    // Where the broker does not say, the producer's own bound holds.
    let record_bytes_max = |topic: &str| {
        let described = clients.describe_topic(topic).ok().flatten()?;
        described.configs.get("max.message.bytes")?.parse().ok()
    };
    let targets = app::write_targets(manifest, topology, counts, record_bytes_max);
    if targets.is_empty() {
        return Ok(None);
    }
    let clients: Arc<dyn ClientSupplier> = Arc::clone(clients) as _;
    let writer = Writer::start(clients, stop)?;
    Ok(Some(Arc::new(Writes { targets, writer, outcomes: Default::default() })))
}

/// How the other hosts of the application are found.
fn routing(
    manifest: &Manifest,
    topology: &Arc<Topology>,
    counts: &PartitionCounts,
    clients: &KafkaClients,
    host_id: &str,
) -> Result<Routing> {
    let tasks = logged_tasks(topology, counts);
    let replicas = usize::try_from(manifest.count("num.standby.replicas")).unwrap_or(usize::MAX);
    let finder = RouteFinder::new(host_id, clients, Arc::clone(topology), tasks, replicas)?;
    Ok(Routing { finder: Arc::new(finder), peers: Arc::new(Peers::new(manifest.peer_networks())) })
}

/// The standby thread beside the stream threads, where standbys are asked for.
fn standby_options(
    manifest: &Manifest,
    wired: &Wired,
    threads: &[StreamThreadOptions],
    host_id: &str,
) -> Option<StandbyThreadOptions> {
    let (status, stream) = (wired.standby.as_ref()?, threads.first()?);
    let replicas = usize::try_from(manifest.count("num.standby.replicas")).unwrap_or(usize::MAX);
    Some(StandbyThreadOptions {
        metrics: Arc::clone(&status.metrics),
        report: Arc::clone(&status.report),
        ..StandbyThreadOptions::beside(stream, threads.len(), host_id, replicas)
    })
}

fn stream_thread_options(
    manifest: &Manifest,
    wired: &Wired,
    clients: Arc<KafkaClients>,
    processors: Arc<dyn ProcessorSupplier>,
    stores: Arc<Stores>,
) -> Result<Vec<StreamThreadOptions>> {
    let config = settings::streams_config(manifest);
    let host_id = stores.host_id().to_owned();
    let clients: Arc<dyn ClientSupplier> = clients;
    let stores: Arc<dyn StoreProvider> = stores;
    #[cfg(feature = "failpoints")]
    let (clients, stores) = crate::failpoints::wrap(clients, stores)?;
    let clock = Arc::new(HostClock::default());
    let processor_config = Arc::new(manifest.config.clone());
    let standby_tasks = Arc::default();
    let parts = wired.threads.iter().zip(&wired.metrics).enumerate();
    let options = parts.map(|(thread, (progress, metrics))| StreamThreadOptions {
        thread,
        application_id: manifest.application_id().into(),
        transactional_id: Some(settings::transactional_id(manifest.application_id(), &host_id, thread)),
        config: config.clone(),
        processor_config: Arc::clone(&processor_config),
        clients: Arc::clone(&clients),
        processors: Arc::clone(&processors),
        stores: stores.clone(),
        standby_tasks: Arc::clone(&standby_tasks),
        clock: clock.clone(),
        partition_counts: Arc::clone(&wired.partition_counts),
        sink_limits: Arc::clone(&wired.sink_limits),
        queries: Arc::clone(&wired.queries),
        metrics: Arc::clone(metrics),
        progress: Arc::clone(progress),
    });
    Ok(options.collect())
}
