//! One application of the process, from manifest to clean end: module, broker, topics, stores, stream threads. Owns the
//! order in which they start and stop. Every wait of it ends when the wish to stop is raised, and nothing of it is held
//! any more when `run` has returned, except by threads that did not end in time.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail};
use engine::broker::ClientSupplier;
use engine::error::EngineError;
use engine::internal_topics::Prepared;
use engine::metrics::Metric;
use engine::stream_thread::{StreamThreadOptions, ThreadReport};
use engine::table::TableSupplier;
use engine::topic_limits::SharedSinkLimits;
use engine::topology::Topology;
use engine::version::Versions;
use kafka::KafkaClients;
use serde_json::json;

use super::brokers::Broker;
use super::deployments::{self, Deployments, Opening, OwnModule, Start};
use super::loader::Loader;
use super::shared::Shared;
use super::standby::Standby;
use super::status::{Phase, Status, Wired};
use super::stop::Stop;
use super::stores::Stores;
use super::supervisor::{Idleness, Supervisor};
use super::threads::StreamThreads;
use super::topics::{self, TopicWatch};
use super::{brokers, generations, settings, wiring};
use crate::app;
use crate::config::Manifest;
use crate::rest::changes::Changelogs;
use crate::terminal::Terminal;

/// A clean end that takes longer than this is given up: what was not committed is processed again.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);

/// The clients of an application, and the broker that they talk to.
struct Connected {
    clients: Arc<KafkaClients>,
    is_embedded: bool,
    _broker: Arc<Broker>,
}

/// One life of the threads: what they were started with, and what ends them.
struct Round<'a> {
    /// With what belongs to the version.
    manifest: &'a Manifest,
    stop: &'a Stop,
    /// `None` where there are no versions.
    deployments: Option<&'a Arc<Deployments>>,
}

/// What the threads run.
struct Runs {
    topology: Arc<Topology>,
    versions: Arc<Versions>,
    usage: Option<Arc<sandbox::Usage>>,
    digest: Option<String>,
}

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
    pub own_module: OwnModule,
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

        if !manifest.tables.is_empty() {
            return self.serve_tables(&stores);
        }
        status.set_phase(Phase::Starting("loading the module"));
        let loader = Loader::new(&shared.sandbox, stop, *terminal);
        let Some(own) = loader.load_own(manifest)? else { return Ok(()) };
        let Some(connected) = self.connect(own.topology(), &stores)? else { return Ok(()) };

        status.set_phase(Phase::Starting("reading the versions"));
        let opening = Opening {
            clients: &connected.clients,
            folder: stores.path(),
            is_embedded: connected.is_embedded,
            host: &self.endpoint,
            own_module: self.own_module,
            status,
            stop,
            terminal: *terminal,
        };
        let Some((deployments, start)) = deployments::open(own, loader, &opening)? else { return Ok(()) };
        deployments.watch(stop)?;
        self.run_versions(start, &deployments, connected, &stores)
    }

    /// Runs a version after the other, as long as one asks for a start of the threads that its swap could not do.
    fn run_versions(
        &self,
        mut start: Start,
        deployments: &Arc<Deployments>,
        mut connected: Connected,
        stores: &Arc<Stores>,
    ) -> Result<()> {
        loop {
            let stop = self.stop.below();
            let round = Round { manifest: &start.loaded.manifest, stop: &stop, deployments: Some(deployments) };
            let versions = deployments.begin(&start, &stop);
            let runs = Runs {
                topology: Arc::clone(start.loaded.topology()),
                versions,
                usage: Some(Arc::clone(start.loaded.supplier.usage())),
                digest: Some(start.loaded.digest.to_string()),
            };
            let result = self.process(&round, &connected, runs, stores);
            deployments.end();
            start = match deployments.after(result)? {
                Some(next) => next,
                None => return Ok(()),
            };
            if self.stop.is_raised() {
                return Ok(());
            }
            // Its clients are told which topics they read together.
            let Some(again) = self.connect(start.loaded.topology(), stores)? else { return Ok(()) };
            connected = again;
        }
    }

    /// A manifest without a module: its tables, which have no versions.
    fn serve_tables(&self, stores: &Arc<Stores>) -> Result<()> {
        let Self { manifest, stop, .. } = self;
        let topology = Arc::new(app::tables(manifest));
        topology.validate(manifest.application_id()).map_err(EngineError::from)?;
        let Some(connected) = self.connect(&topology, stores)? else { return Ok(()) };
        let supplier = Arc::new(TableSupplier::new(Arc::clone(&topology)));
        let versions = Versions::only(supplier, Arc::new(manifest.config.clone()));
        let round = Round { manifest, stop, deployments: None };
        self.process(&round, &connected, Runs { topology, versions, usage: None, digest: None }, stores)
    }

    /// The clients of the application. `None` when the wish to stop came first.
    fn connect(&self, topology: &Topology, stores: &Stores) -> Result<Option<Connected>> {
        let Self { manifest, status, stop, terminal, shared, .. } = self;
        status.set_phase(Phase::Starting("connecting to the broker"));
        let broker = shared.broker(manifest)?;
        let timeout = Duration::from_millis(manifest.count("default.api.timeout.ms"));
        let config = settings::clients_config(manifest, topology, &broker.bootstrap_servers);
        let Some((clients, cluster)) = brokers::connect(config, timeout, stop, *terminal)? else { return Ok(None) };
        if let Some(cluster_id) = &cluster.cluster_id {
            stores.check_cluster(cluster_id)?;
        }
        Ok(Some(Connected { clients, is_embedded: broker.is_embedded, _broker: broker }))
    }

    /// Everything is there: prepares the topics, wires the parts, and processes.
    fn process(&self, round: &Round<'_>, connected: &Connected, runs: Runs, stores: &Arc<Stores>) -> Result<()> {
        let Self { endpoint, status, terminal, .. } = self;
        let &Round { manifest, stop, deployments, .. } = round;
        let Connected { clients, is_embedded, .. } = connected;
        let Runs { topology, versions, usage, digest } = runs;
        status.set_phase(Phase::Starting("checking topics"));
        // A table without its topic is a mistake more likely than a wish.
        if *is_embedded && manifest.tables.is_empty() {
            topics::create_missing(clients, &topology, manifest.integer("embedded.partitions"), *terminal)?;
        }
        let prepared = topics::prepare(manifest, clients, &topology, &stores.path(), stop)?;
        let Some(prepared) = prepared else { return Ok(()) };
        let Some((topology, prepared)) = self.find_older_rows(round, clients, topology, prepared, stores)? else {
            return Ok(());
        };
        // A batch of several records must not be larger than any of its topics takes.
        if let Some(least) = prepared.limits.0.values().map(|limits| limits.message_max_bytes).min() {
            clients.bound_batches(least);
        }
        clients.name_host(stores.host_id(), endpoint);
        let routing = wiring::routing(manifest, &topology, &prepared.counts, clients, stores.host_id())?;
        let writes = wiring::writes(manifest, &topology, &prepared.counts, clients, stop)?;
        let readers: Arc<dyn ClientSupplier> = clients.clone();
        let wired = Wired {
            usage,
            routing: Some(routing),
            writes,
            changelogs: Some(Changelogs::new(readers, stop.clone())),
            sink_limits: Arc::new(SharedSinkLimits::new(prepared.limits.clone())),
            deployments: deployments.cloned(),
            ..wiring::wire(manifest, &topology, prepared.counts.clone(), digest)
        };
        status.wire(wired.clone());
        self.tell_tables();
        let watch = TopicWatch::start(Arc::clone(clients), manifest.application_id(), topology, prepared, stop)?;
        let threads =
            wiring::stream_thread_options(manifest, &wired, Arc::clone(clients), versions, Arc::clone(stores))?;
        let standby = wiring::standby_options(manifest, &wired, &threads, stores.host_id());
        let standby = standby.map(|options| Standby::start(options, stop)).transpose()?;
        let result = self.run_threads(round, threads, &watch);
        // It may have failed before it raised the wish.
        stop.raise();
        if let Some(standby) = standby {
            standby.wait(CLOSE_TIMEOUT);
        }
        result
    }

    /// Rows of older schemas are read too, from their own changelogs. `None` when the wish to stop came first.
    fn find_older_rows(
        &self,
        round: &Round<'_>,
        clients: &KafkaClients,
        topology: Arc<Topology>,
        prepared: Prepared,
        stores: &Stores,
    ) -> Result<Option<(Arc<Topology>, Prepared)>> {
        let (manifest, stop) = (round.manifest, round.stop);
        let found = generations::with_older_generations(manifest, clients, &topology, &prepared.counts, stop)?;
        let Some(found) = found else { return Ok(None) };
        if *found == *topology {
            return Ok(Some((topology, prepared)));
        }
        let prepared = topics::prepare(manifest, clients, &found, &stores.path(), stop)?;
        Ok(prepared.map(|prepared| (found, prepared)))
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

    fn run_threads(&self, round: &Round<'_>, threads: Vec<StreamThreadOptions>, topics: &TopicWatch) -> Result<()> {
        let Self { status, terminal, .. } = self;
        let stop = round.stop;
        let mut threads = StreamThreads::start(threads, stop)?;
        status.set_phase(Phase::Running);
        let idle = Supervisor::new(status, *terminal, self.idleness()).watch(&mut threads, topics, stop);
        if let Some(reason) = threads.failure().and_then(|failure| topics.reason_of(failure)) {
            threads.explain(reason.into());
        }
        match threads.failure() {
            Some(_) if round.deployments.is_some_and(|deployments| deployments.may_return()) => {
                status.set_phase(Phase::Stopping)
            }
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
        // Not an end, if it is only to start again.
        if round.deployments.is_some_and(|deployments| deployments.is_restarting()) {
            return Ok(());
        }
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
