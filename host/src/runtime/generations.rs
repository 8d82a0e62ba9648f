//! The rows that an application's tasks still have of older schemas, as its start finds them: by what the group has
//! committed, and by the changelogs that are there. Writes nothing.

use std::sync::Arc;

use anyhow::Result;
use engine::broker::{BrokerError, BrokerErrorKind, ClientSupplier, OffsetAndMetadata};
use engine::record::TopicPartition;
use engine::topology::generations::OlderGeneration;
use engine::topology::{PartitionCounts, Topology};
use engine::version::{self, Found, older_generations};
use kafka::KafkaClients;

use super::retrying::until_answered;
use super::stop::Stop;
use crate::config::Manifest;

/// The topology with what a migration has to read. `None` when the wish to stop came first.
///
/// # Errors
/// When no broker answers in time, or refuses.
pub fn with_older_generations(
    manifest: &Manifest,
    clients: &KafkaClients,
    topology: &Arc<Topology>,
    counts: &PartitionCounts,
    stop: &Stop,
) -> Result<Option<Arc<Topology>>> {
    let mut stores = topology.sub_topologies.iter().flat_map(|part| &part.stores);
    if stores.all(|store| store.version <= 1) {
        return Ok(Some(Arc::clone(topology)));
    }
    let is_retriable = |error: &BrokerError| error.kind == BrokerErrorKind::Retriable;
    let older = until_answered(manifest, stop, "look for rows of older schemas", is_retriable, || {
        find(manifest.application_id(), clients, topology, counts)
    })?;
    Ok(older.map(|older| Arc::new(topology.with_older_generations(&older))))
}

fn find(
    application_id: &str,
    clients: &KafkaClients,
    topology: &Topology,
    counts: &PartitionCounts,
) -> Result<Vec<OlderGeneration>, BrokerError> {
    let committed = committed(clients, topology, counts)?;
    let found = older_generations(topology, committed.iter().map(|(partition, found)| (partition, found)));
    let mut older = Vec::with_capacity(found.len());
    for found in found {
        if found.is_certain || may_have_rows(application_id, clients, topology, &found)? {
            older.push(found.generation);
        }
    }
    Ok(older)
}

/// What the group has committed of the sources.
fn committed(
    clients: &KafkaClients,
    topology: &Topology,
    counts: &PartitionCounts,
) -> Result<Vec<(TopicPartition, OffsetAndMetadata)>, BrokerError> {
    let of_topic = |topic: Arc<str>| {
        let count = counts.of(&topic);
        (0..count).map(move |partition| TopicPartition::new(Arc::clone(&topic), partition))
    };
    let partitions: Vec<TopicPartition> = topology.source_topics().into_iter().flat_map(of_topic).collect();
    // It joins no group: that is what a poll would do.
    let found = clients.consumer(0)?.committed(&partitions)?;
    Ok(partitions.into_iter().zip(found).filter_map(|(partition, found)| Some((partition, found?))).collect())
}

/// Whether tasks can go on with the rows of an older topology.
///
/// # Errors
/// When the broker does not say.
pub fn has_current_rows(
    clients: &KafkaClients,
    topology: &Topology,
    counts: &PartitionCounts,
) -> Result<bool, BrokerError> {
    let committed = committed(clients, topology, counts)?;
    Ok(version::has_current_rows(topology, committed.iter().map(|(partition, found)| (partition, found))))
}

/// Whether a store that no commit speaks of has been there: its changelog is, or it never had one.
fn may_have_rows(
    application_id: &str,
    clients: &KafkaClients,
    topology: &Topology,
    found: &Found,
) -> Result<bool, BrokerError> {
    let declared = topology.with_older_generations(std::slice::from_ref(&found.generation));
    let mut stores = declared.sub_topologies.iter().flat_map(|part| &part.stores);
    let older = stores.find(|store| store.name == found.generation.name());
    let Some(changelog) = older.and_then(|store| store.changelog_topic(application_id)) else { return Ok(true) };
    let described = clients.admin()?.describe_topics(&[&*changelog])?;
    Ok(described.iter().any(Option::is_some))
}
