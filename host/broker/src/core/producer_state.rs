//! What a partition knows of its idempotent producers: of each its epoch and its last five batches, enough to answer a
//! repeated batch with its old offset and to refuse a gap (KIP-98, KIP-360; Kafka's `ProducerStateManager`). Derived
//! from the log alone, and so are its open transactions: from a producer's first transactional batch to its marker.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use super::batch::{BatchHeader, Marker, add_sequence};
use super::refusal::{ErrorCode, Refusal};

/// The time of a write that is known from the log alone: records may carry any time, so they do not tell.
pub const UNKNOWN_MS: i64 = -1;

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
    /// When it last wrote, by the broker's clock; `UNKNOWN_MS` after a restart, until the next look at the clock.
    pub last_write_ms: i64,
}

/// What to do with a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SequenceCheck {
    Append,
    /// It is in the log already.
    Duplicate(BatchPlace),
}

/// A transaction that was aborted in a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct AbortedTransaction {
    pub producer_id: i64,
    pub first_offset: i64,
    /// The offset of its marker.
    pub last_offset: i64,
    /// The last stable offset after its marker: nothing below it can still be aborted.
    pub last_stable_offset: i64,
}

/// The producers of one partition.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProducerStates {
    producers: BTreeMap<i64, ProducerEntry>,
    /// The first offset of each producer's open transaction.
    #[serde(default)]
    open: BTreeMap<i64, i64>,
}

impl ProducerStates {
    pub fn entries(&self) -> impl Iterator<Item = (i64, &ProducerEntry)> {
        self.producers.iter().map(|(&id, entry)| (id, entry))
    }

    /// The first offset of the oldest open transaction.
    pub fn first_open_offset(&self) -> Option<i64> {
        self.open.values().min().copied()
    }

    /// The first offset of a producer's open transaction.
    pub fn open_offset(&self, producer_id: i64) -> Option<i64> {
        self.open.get(&producer_id).copied()
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
        if self.open.contains_key(&id) && !header.is_transactional() {
            let detail = format!("producer {id} has a transaction open here, but its batch is outside of it");
            return Err(Refusal::new(ErrorCode::InvalidTxnState, detail));
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

    /// Notes a batch that is in the log at `base_offset`; `marker` is what it says if it is a control batch. Returns
    /// the transaction that it aborted.
    pub fn note(
        &mut self,
        header: &BatchHeader,
        base_offset: i64,
        now_ms: i64,
        marker: Option<Marker>,
    ) -> Option<AbortedTransaction> {
        if !header.has_producer() || (header.is_control() && marker.is_none()) {
            return None;
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
        if let Some(marker) = marker {
            return self.end_transaction(header, base_offset, marker);
        }
        if header.is_transactional() {
            self.open.entry(header.producer_id).or_insert(base_offset);
        }
        entry.batches.push_back(BatchPlace {
            first_sequence: header.base_sequence,
            last_sequence: header.last_sequence(),
            base_offset,
            timestamp: header.max_timestamp,
        });
        if entry.batches.len() > WINDOW_BATCHES {
            entry.batches.pop_front();
        }
        None
    }

    fn end_transaction(&mut self, header: &BatchHeader, offset: i64, marker: Marker) -> Option<AbortedTransaction> {
        let first_offset = self.open.remove(&header.producer_id)?;
        let aborted = AbortedTransaction {
            producer_id: header.producer_id,
            first_offset,
            last_offset: offset,
            last_stable_offset: self.first_open_offset().unwrap_or(offset + 1),
        };
        (marker == Marker::Abort).then_some(aborted)
    }

    /// Forgets producers that wrote nothing in the last `expiration_ms` and have no transaction open. A producer whose
    /// last write has no known time counts as one that writes now.
    pub fn expire(&mut self, now_ms: i64, expiration_ms: i64) {
        let open = &self.open;
        self.producers.retain(|id, entry| {
            if entry.last_write_ms == UNKNOWN_MS {
                entry.last_write_ms = now_ms;
            }
            open.contains_key(id) || entry.last_write_ms >= now_ms.saturating_sub(expiration_ms)
        });
    }
}

#[cfg(test)]
mod tests;
