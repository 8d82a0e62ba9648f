//! One application of the process, from manifest to clean end: module, broker, topics, stores, stream threads. Owns the
//! order in which they start and stop. Every wait of it ends when the wish to stop is raised, and nothing of it is held
//! any more when `run` has returned, except by threads that did not end in time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use engine::broker::{BrokerErrorKind, ClientSupplier, NewTopic};
use engine::error::EngineError;
use engine::internal_topics::Prepared;
use engine::metrics::Metric;
use engine::processor::ProcessorSupplier;
use engine::stream_thread::{StreamThreadOptions, ThreadReport};
use engine::table::TableSupplier;
use engine::topic_limits::SharedSinkLimits;
use engine::topology::Topology;
use kafka::KafkaClients;
use serde_json::json;

use super::shared::Shared;
use super::spawn::spawn;
use super::standby::Standby;
use super::status::{Phase, Status, Wired};
use super::stop::Stop;
use super::stores::Stores;
use super::supervisor::{Idleness, Supervisor};
use super::threads::StreamThreads;
use super::topics::{self, TopicWatch};
use super::{brokers, settings, wiring};
use crate::app;
use crate::components::{self, Sandbox};
use crate::config::Manifest;
use crate::rest::changes::Changelogs;
use crate::terminal::Terminal;

/// A clean end that takes longer than this is given up: what was not committed is processed again.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);

/// `max.message.bytes` of a dead letter topic that the embedded broker gets: twice that of the others.
const DEAD_LETTER_MAX_BYTES: u32 = 2 << 20;

/// One application of the process.
pub struct Application {
    pub manifest: Manifest,
    /// Where other hosts reach this one.
    pub endpoint: String,
    /// Its place among those of the process.
    pub place: usize,
    pub status: Arc<Status>,
    /// The wish that this one stops, alone or with all others.
    pub stop: Stop,
    pub terminal: Terminal,
    pub shared: Arc<Shared>,
}

impl Application {
    /// Runs until the wish to stop, until it is idle with all others, or until it fails. The steps of a start return
    /// early when the wish came.
    ///
    /// # Errors
    /// Why it could not start or what it failed of.
    pub fn run(&self) -> Result<()> {
        let Self { manifest, status, stop, terminal, shared, .. } = self;
        // First, since it needs nobody's answer: a second host on the directory is gone before it does anything.
        status.set_phase(Phase::Starting("opening the state directory"));
        let stores = Arc::new(Stores::open(settings::rocks_options(manifest), &shared.memory)?);

        let Some(processors) = load_processors(manifest, status, stop, &shared.sandbox, *terminal)? else {
            return Ok(());
        };
        let topology = Arc::clone(processors.supplier.topology());
        topology.validate(manifest.application_id()).map_err(EngineError::from)?;

        status.set_phase(Phase::Starting("connecting to the broker"));
        let broker = shared.broker(manifest)?;
        let timeout = Duration::from_millis(manifest.count("default.api.timeout.ms"));
        let config = settings::clients_config(manifest, &topology, &broker.bootstrap_servers);
        let Some((clients, cluster)) = brokers::connect(config, timeout, stop, *terminal)? else { return Ok(()) };
        if let Some(cluster_id) = &cluster.cluster_id {
            stores.check_cluster(cluster_id)?;
        }

        status.set_phase(Phase::Starting("checking topics"));
        // A table without its topic is a mistake more likely than a wish.
        if broker.is_embedded && manifest.tables.is_empty() {
            create_missing_topics(&clients, &topology, manifest.integer("embedded.partitions"), *terminal)?;
        }
        let prepared = topics::prepare(manifest, &clients, &topology, &stores.path(), stop)?;
        let Some(prepared) = prepared else { return Ok(()) };
        self.process(&clients, processors, &stores, prepared)
    }

    /// Everything is there: wires it, and processes.
    fn process(
        &self,
        clients: &Arc<KafkaClients>,
        Processors { supplier: processors, usage }: Processors,
        stores: &Arc<Stores>,
        prepared: Prepared,
    ) -> Result<()> {
        let Self { manifest, endpoint, status, stop, .. } = self;
        let topology = Arc::clone(processors.topology());
        // A batch of several records must not be larger than any of its topics takes.
        if let Some(least) = prepared.limits.0.values().map(|limits| limits.message_max_bytes).min() {
            clients.bound_batches(least);
        }
        clients.name_host(stores.host_id(), endpoint);
        let routing = wiring::routing(manifest, &topology, &prepared.counts, clients, stores.host_id())?;
        let writes = wiring::writes(manifest, &topology, &prepared.counts, clients, stop)?;
        let readers: Arc<dyn ClientSupplier> = clients.clone();
        let digest = manifest.tables.is_empty().then(|| processors.digest().to_owned());
        let wired = Wired {
            usage,
            routing: Some(routing),
            writes,
            changelogs: Some(Changelogs::new(readers, stop.clone())),
            sink_limits: Arc::new(SharedSinkLimits::new(prepared.limits.clone())),
            ..wiring::wire(manifest, &topology, prepared.counts.clone(), digest)
        };
        status.wire(wired.clone());
        self.tell_tables();
        let watch = TopicWatch::start(Arc::clone(clients), manifest.application_id(), topology, prepared, stop)?;
        let threads =
            wiring::stream_thread_options(manifest, &wired, Arc::clone(clients), processors, Arc::clone(stores))?;
        let standby = wiring::standby_options(manifest, &wired, &threads, stores.host_id());
        let standby = standby.map(|options| Standby::start(options, stop)).transpose()?;
        let result = self.run_threads(threads, &watch);
        // It may have failed before it raised the wish.
        stop.raise();
        if let Some(standby) = standby {
            standby.wait(CLOSE_TIMEOUT);
        }
        result
    }

    /// Where the tables are to be found.
    fn tell_tables(&self) {
        let Self { manifest, endpoint, terminal, .. } = self;
        for (store, table) in &manifest.tables {
            let url = format!("http://{endpoint}/v1/apps/{}/stores/{store}", manifest.application_id());
            let text = format!("serving topic {} at {url}/keys/… and {url}/entries", table.topic);
            terminal.notice("table", &text, json!({ "topic": table.topic, "store": store, "url": url }));
        }
    }

    fn run_threads(&self, threads: Vec<StreamThreadOptions>, topics: &TopicWatch) -> Result<()> {
        let Self { status, stop, terminal, .. } = self;
        let mut threads = StreamThreads::start(threads, stop)?;
        status.set_phase(Phase::Running);
        let idle = Supervisor::new(status, *terminal, self.idleness()).watch(&mut threads, topics, stop);
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
        let uncommitted = tasks_closed_dirty(status) - uncommitted_before;
        self.tell_end(idle, reports.iter().map(|report| report.records_processed).sum(), uncommitted);
        Ok(())
    }

    fn tell_end(&self, idle: bool, processed: u64, uncommitted: u64) {
        let why = if idle { "idle" } else { "told to" };
        let committed = match uncommitted {
            0 => "everything committed".to_owned(),
            tasks => format!(
                "{tasks} tasks without their last commit: their last records are processed again at the next start"
            ),
        };
        let text = format!("stopped ({why}): processed {processed} records, {committed}");
        let fields = json!({ "reason": why, "records_processed": processed, "tasks_uncommitted": uncommitted });
        self.terminal.notice("stopped", &text, fields);
    }

    fn idleness(&self) -> Idleness<'_> {
        Idleness { after: self.shared.options.until_idle, votes: &self.shared.idle, application: self.place }
    }
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
        && partitions.all(|one| {
            one.committed_offset
                .map_or(report.records_processed == 0, |at| one.next_offset.is_some_and(|next| next <= at))
        })
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
    sandbox: &Arc<Sandbox>,
    terminal: Terminal,
) -> Result<Option<Processors>> {
    if !manifest.tables.is_empty() {
        let topology = Arc::new(app::tables(manifest));
        return Ok(Some(Processors { supplier: Arc::new(TableSupplier::new(topology)), usage: None }));
    }
    status.set_phase(Phase::Starting("loading the module"));
    let Some(module) = load_module(manifest, stop, sandbox, terminal)? else { return Ok(None) };
    let topology = Arc::new(app::bind(manifest, module.declaration())?);
    let supplier = module.supplier(topology, manifest.limits());
    let usage = Some(Arc::clone(supplier.usage()));
    Ok(Some(Processors { supplier, usage }))
}

/// Loads the module on a thread of its own, so that a signal need not wait for the compiler.
fn load_module(
    manifest: &Manifest,
    stop: &Stop,
    sandbox: &Arc<Sandbox>,
    terminal: Terminal,
) -> Result<Option<sandbox::Module>> {
    let request = components::LoadRequest {
        path: manifest.path_of("module"),
        cache_dir: settings::cache_dir(manifest),
        module_max_bytes: usize::try_from(manifest.count("module.max.bytes")).unwrap_or(usize::MAX),
        limits: manifest.limits(),
        compile_limits: settings::compile_limits(manifest),
        given_up: Arc::default(),
    };
    let given_up = Arc::clone(&request.given_up);
    let (sender, receiver) = channel();
    let sandbox = Arc::clone(sandbox);
    let load = move || {
        // Nobody listens any more when the wish to stop came first.
        let _ = sender.send(components::load(&request, &sandbox, terminal));
    };
    spawn("load", 4 << 20, load).context("cannot start a thread")?;
    loop {
        match receiver.recv_timeout(Duration::from_millis(20)) {
            Ok(loaded) => return loaded.map(Some),
            Err(RecvTimeoutError::Timeout) if stop.is_raised() => {
                given_up.store(true, Ordering::Relaxed);
                return Ok(None);
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => bail!("the thread that loads the module ended early"),
        }
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
        let mut configs = BTreeMap::new();
        // A dead letter is as old as its record, which must not be the reason that nobody sees it.
        if topology.dead_letter_topic.as_ref() == Some(&name) {
            configs.insert("retention.ms".to_owned(), "-1".to_owned());
            // A dead letter is larger than its record.
            configs.insert("max.message.bytes".to_owned(), DEAD_LETTER_MAX_BYTES.to_string());
        }
        let topic = NewTopic {
            name: name.to_string(),
            partitions: i32::try_from(partitions).unwrap_or(i32::MAX),
            replication_factor: -1,
            configs,
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
