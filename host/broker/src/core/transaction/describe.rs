//! What administrators see of transactions and producers (KIP-664). Reads only.

use std::collections::BTreeMap;

use super::TransactionState;
use crate::core::refusal::{ErrorCode, Refusal};
use crate::core::{Core, locked, read_locked};

/// A transactional id as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransactionDescription {
    pub transactional_id: String,
    pub state: TransactionState,
    pub producer_id: i64,
    pub epoch: i16,
    pub timeout_ms: i32,
    /// When the open transaction began, -1 when none is open.
    pub started_ms: i64,
    /// Partitions by topic; those of deleted topics are left out.
    pub partitions: BTreeMap<String, Vec<i32>>,
}

/// A producer as a partition knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ActiveProducer {
    pub producer_id: i64,
    pub epoch: i16,
    /// -1 = none.
    pub last_sequence: i32,
    pub last_timestamp: i64,
    /// The first offset of its open transaction, -1 when none is open.
    pub transaction_start_offset: i64,
}

impl Core {
    /// Every transactional id, by name.
    pub fn transactions(&self) -> Vec<TransactionDescription> {
        let known: Vec<String> = read_locked(&self.transactions).keys().cloned().collect();
        known.iter().filter_map(|id| self.describe_transaction(id).ok()).collect()
    }

    /// One transactional id.
    ///
    /// # Errors
    /// `TransactionalIdNotFound`.
    pub fn describe_transaction(&self, id: &str) -> Result<TransactionDescription, Refusal> {
        let found = self.transaction(id).and_then(|one| locked(&one).image.clone());
        let image = found.ok_or_else(|| {
            Refusal::new(ErrorCode::TransactionalIdNotFound, format!("there is no transactional id {id}"))
        })?;
        let mut partitions: BTreeMap<String, Vec<i32>> = BTreeMap::new();
        for &(topic, index) in &image.partitions {
            if let Some(topic) = self.topic_by_id(topic) {
                partitions.entry(topic.name.to_string()).or_default().push(index);
            }
        }
        let is_open = image.state == TransactionState::Ongoing || image.state.is_prepared();
        Ok(TransactionDescription {
            transactional_id: id.to_owned(),
            state: image.state,
            producer_id: image.producer_id,
            epoch: image.epoch,
            timeout_ms: image.timeout_ms,
            started_ms: if is_open { image.started_ms } else { -1 },
            partitions,
        })
    }

    /// The producers that a partition remembers.
    pub fn active_producers(&self, topic: &str, partition: i32) -> Result<Vec<ActiveProducer>, Refusal> {
        let handle = self.partition(topic, partition)?;
        let log = handle.partition.log();
        let producers = log.producers();
        let describe = |(producer_id, entry): (i64, &crate::core::producer_state::ProducerEntry)| ActiveProducer {
            producer_id,
            epoch: entry.epoch,
            last_sequence: entry.batches.back().map_or(-1, |place| place.last_sequence),
            last_timestamp: entry.batches.back().map_or(-1, |place| place.timestamp),
            transaction_start_offset: producers.open_offset(producer_id).unwrap_or(-1),
        };
        Ok(producers.entries().map(describe).collect())
    }
}
