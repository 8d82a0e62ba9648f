//! Makes the parts of an application out of its manifest and its clients: what REST sees of it, the way of writes, the
//! routes to other hosts, the options of its threads. Starts nothing but the thread of the writes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use engine::assignment::logged_tasks;
use engine::broker::{BrokerError, BrokerErrorKind, ClientSupplier, TopicDescription};
use engine::metrics::EngineMetrics;
use engine::query::QueryRegistry;
use engine::standby::StandbyThreadOptions;
use engine::state::StoreProvider;
use engine::stream_thread::{SharedProgress, StreamThreadOptions};
use engine::topology::{PartitionCounts, Topology};
use engine::version::Versions;
use kafka::KafkaClients;

use super::clock::HostClock;
use super::settings;
use super::status::{Routing, StandbyStatus, Wired};
use super::stop::Stop;
use super::stores::Stores;
use super::writer::Writer;
use crate::app;
use crate::config::Manifest;
use crate::rest::peers::Peers;
use crate::rest::writes::Writes;
use crate::routes::RouteFinder;

/// What a topology has before its clients are there.
pub fn wire(manifest: &Manifest, topology: &Arc<Topology>, counts: PartitionCounts, digest: Option<String>) -> Wired {
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
        deployments: None,
    }
}

/// The way of REST writes, where a store takes any.
///
/// # Errors
/// When the machine gives no thread, or no broker says in time what the topics take.
pub fn writes(
    manifest: &Manifest,
    topology: &Topology,
    counts: &PartitionCounts,
    clients: &Arc<KafkaClients>,
    stop: &Stop,
) -> Result<Option<Arc<Writes>>> {
    let deadline = Instant::now() + Duration::from_millis(manifest.count("default.api.timeout.ms"));
    let pause = Duration::from_millis(manifest.count("retry.backoff.ms"));
    let described = |topic: &str| loop {
        match clients.describe_topic(topic) {
            Err(error) if error.kind == BrokerErrorKind::Retriable && Instant::now() < deadline => {
                tracing::warn!(topic, %error, "cannot tell yet what the topic takes of a record");
            }
            described => return described,
        }
        if stop.wait(pause) {
            return Ok(None);
        }
    };
    let targets = app::write_targets(manifest, topology, counts, |topic| record_bytes_max(described(topic)))?;
    if targets.is_empty() {
        return Ok(None);
    }
    let clients: Arc<dyn ClientSupplier> = Arc::clone(clients) as _;
    let writer = Writer::start(clients, stop)?;
    Ok(Some(Arc::new(Writes { targets, writer, outcomes: Default::default() })))
}

/// What a topic takes of one record. Where the broker does not say, the producer's own bound holds; that it could not
/// be asked is no such answer.
fn record_bytes_max(described: Result<Option<TopicDescription>, BrokerError>) -> Result<Option<usize>> {
    let Some(topic) = described? else { return Ok(None) };
    let Some(text) = topic.configs.get("max.message.bytes") else { return Ok(None) };
    let bytes = text.parse().with_context(|| format!("max.message.bytes of topic {} is {text:?}", topic.name))?;
    Ok(Some(bytes))
}

/// How the other hosts of the application are found.
///
/// # Errors
/// When no client can be made.
pub fn routing(
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
pub fn standby_options(
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

/// One for each stream thread.
///
/// # Errors
/// When the environment names a failpoint that does not exist.
pub fn stream_thread_options(
    manifest: &Manifest,
    wired: &Wired,
    clients: Arc<KafkaClients>,
    versions: Arc<Versions>,
    stores: Arc<Stores>,
) -> Result<Vec<StreamThreadOptions>> {
    let config = settings::streams_config(manifest);
    let host_id = stores.host_id().to_owned();
    let clients: Arc<dyn ClientSupplier> = clients;
    let stores: Arc<dyn StoreProvider> = stores;
    #[cfg(feature = "failpoints")]
    let (clients, stores) = crate::failpoints::wrap(clients, stores)?;
    let clock = Arc::new(HostClock::default());
    let standby_tasks = Arc::default();
    let parts = wired.threads.iter().zip(&wired.metrics).enumerate();
    let options = parts.map(|(thread, (progress, metrics))| StreamThreadOptions {
        thread,
        application_id: manifest.application_id().into(),
        transactional_id: Some(settings::transactional_id(manifest.application_id(), &host_id, thread)),
        config: config.clone(),
        clients: Arc::clone(&clients),
        topology: Arc::clone(&wired.topology),
        versions: Arc::clone(&versions),
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

#[cfg(test)]
mod tests;
