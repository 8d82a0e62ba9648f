//! What a partition knows of its idempotent producers: of each its epoch and its last five batches, enough to answer a
//! repeated batch with its old offset and to refuse a gap (KIP-98, KIP-360; Kafka's `ProducerStateManager`). Derived
//! from the log alone. Open transactions will stand here.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use super::batch::{BatchHeader, add_sequence};
use super::refusal::{ErrorCode, Refusal};

/// Batches remembered of a producer: the most a client may have in flight.
pub const WINDOW_BATCHES: usize = 5;

/// One batch that was appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchPlace {
    pub first_sequence: i32,
    pub last_sequence: i32,
    pub base_offset: i64,
    pub timestamp: i64,
}

/// One producer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProducerEntry {
    pub epoch: i16,
    /// The newest last.
    pub batches: VecDeque<BatchPlace>,
    /// When it last wrote, by the broker's clock at run time and by its records after a restart.
    pub last_write_ms: i64,
}

/// What to do with a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SequenceCheck {
    Append,
    /// It is in the log already.
    Duplicate(BatchPlace),
}

/// The producers of one partition.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProducerStates {
    producers: BTreeMap<i64, ProducerEntry>,
}

impl ProducerStates {
    pub fn entries(&self) -> impl Iterator<Item = (i64, &ProducerEntry)> {
        self.producers.iter().map(|(&id, entry)| (id, entry))
    }

    /// Whether a batch of an idempotent producer is next in its sequence.
    pub fn check(&self, header: &BatchHeader) -> Result<SequenceCheck, Refusal> {
        if !header.has_producer() {
            return Ok(SequenceCheck::Append);
        }
        // A producer that the partition does not know may begin anywhere: its earlier records may be deleted.
        let Some(entry) = self.producers.get(&header.producer_id) else { return Ok(SequenceCheck::Append) };
        let id = header.producer_id;
        if header.producer_epoch < entry.epoch {
            let detail = format!(
                "producer {id} has epoch {}, but the partition saw epoch {}",
                header.producer_epoch, entry.epoch
            );
            return Err(Refusal::new(ErrorCode::InvalidProducerEpoch, detail));
        }
        let out_of_order = |expected: i32| {
            let detail = format!("producer {id}: expected sequence {expected}, found {}", header.base_sequence);
            Refusal::new(ErrorCode::OutOfOrderSequenceNumber, detail)
        };
        if header.producer_epoch > entry.epoch {
            return if header.base_sequence == 0 { Ok(SequenceCheck::Append) } else { Err(out_of_order(0)) };
        }
        let repeated = entry.batches.iter().find(|place| {
            place.first_sequence == header.base_sequence && place.last_sequence == header.last_sequence()
        });
        if let Some(place) = repeated {
            return Ok(SequenceCheck::Duplicate(*place));
        }
        let expected = entry.batches.back().map_or(0, |place| add_sequence(place.last_sequence, 1));
        if header.base_sequence == expected { Ok(SequenceCheck::Append) } else { Err(out_of_order(expected)) }
    }

    /// Notes a batch that is in the log at `base_offset`.
    pub fn note(&mut self, header: &BatchHeader, base_offset: i64, now_ms: i64) {
        if !header.has_producer() || header.is_control() {
            return;
        }
        let entry = self.producers.entry(header.producer_id).or_insert_with(|| ProducerEntry {
            epoch: header.producer_epoch,
            batches: VecDeque::new(),
            last_write_ms: now_ms,
        });
        if entry.epoch != header.producer_epoch {
            entry.epoch = header.producer_epoch;
            entry.batches.clear();
        }
        entry.last_write_ms = now_ms;
        entry.batches.push_back(BatchPlace {
            first_sequence: header.base_sequence,
            last_sequence: header.last_sequence(),
            base_offset,
            timestamp: header.max_timestamp,
        });
        if entry.batches.len() > WINDOW_BATCHES {
            entry.batches.pop_front();
        }
    }

    /// Forgets producers that wrote nothing since `before_ms`.
    pub fn expire(&mut self, before_ms: i64) {
        self.producers.retain(|_, entry| entry.last_write_ms >= before_ms);
    }
}

#[cfg(test)]
mod tests;
