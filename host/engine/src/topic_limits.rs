//! What a topic takes of a record: its size, whether it must have a key, its timestamp. Kafka refuses a whole batch for
//! one record that does not fit (R20), so outputs are checked by these before they are sent (R18). Pure: reads
//! settings that somebody else has asked for. A setting that the broker does not tell bounds nothing.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::record::{Header, Timestamp};

/// The bounds of one topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TopicLimits {
    /// `max.message.bytes`, which Kafka compares with a batch as it arrives. What a record comes to compressed is not
    /// known before it is sent, so it is compared with the record uncompressed.
    pub message_max_bytes: usize,
    /// `cleanup.policy` names `compact`: a record needs a key.
    pub is_compacted: bool,
    /// `message.timestamp.before.max.ms` and `message.timestamp.after.max.ms`: how far from the broker's clock.
    pub timestamp_before_max_ms: i64,
    pub timestamp_after_max_ms: i64,
}

/// Why a topic would refuse a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicRefusal {
    pub too_large: bool,
    pub fault: String,
}

/// The bounds of the topics that an application writes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SinkLimits(pub BTreeMap<Arc<str>, TopicLimits>);

/// The bounds as they were asked for last; one for all threads of an application.
#[derive(Debug, Default)]
pub struct SharedSinkLimits(Mutex<SinkLimits>);

impl SharedSinkLimits {
    pub fn new(limits: SinkLimits) -> Self {
        Self(Mutex::new(limits))
    }

    pub fn get(&self) -> SinkLimits {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn set(&self, limits: SinkLimits) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = limits;
    }
}

impl SinkLimits {
    /// The bounds of a topic; none where nothing is known of it.
    pub fn of(&self, topic: &str) -> TopicLimits {
        self.0.get(topic).copied().unwrap_or_default()
    }
}

impl Default for TopicLimits {
    fn default() -> Self {
        Self {
            message_max_bytes: usize::MAX,
            is_compacted: false,
            timestamp_before_max_ms: i64::MAX,
            timestamp_after_max_ms: i64::MAX,
        }
    }
}

/// The header of a record batch (Kafka's `DefaultRecordBatch.RECORD_BATCH_OVERHEAD`).
const BATCH_OVERHEAD_BYTES: usize = 61;

/// More than a record in a batch takes beside its key, value and headers.
const RECORD_FRAME_MAX_BYTES: usize = 32;

impl TopicLimits {
    /// From a topic's settings.
    pub fn of_configs(configs: &BTreeMap<String, String>) -> Self {
        let number = |key: &str| configs.get(key).and_then(|value| value.parse::<i64>().ok());
        let appends = configs.get("message.timestamp.type").is_some_and(|kind| kind == "LogAppendTime");
        // With append time the broker sets the timestamp and looks at none.
        let bound = |key| number(key).filter(|_| !appends).unwrap_or(i64::MAX);
        Self {
            message_max_bytes: number("max.message.bytes").and_then(|max| max.try_into().ok()).unwrap_or(usize::MAX),
            is_compacted: configs.get("cleanup.policy").is_some_and(|policy| policy.contains("compact")),
            timestamp_before_max_ms: bound("message.timestamp.before.max.ms"),
            timestamp_after_max_ms: bound("message.timestamp.after.max.ms"),
        }
    }

    /// The settings that `of_configs` makes these bounds of.
    pub fn to_configs(&self) -> Vec<(&'static str, String)> {
        let mut configs = Vec::new();
        if self.message_max_bytes != usize::MAX {
            configs.push(("max.message.bytes", self.message_max_bytes.to_string()));
        }
        if self.is_compacted {
            configs.push(("cleanup.policy", "compact".to_owned()));
        }
        let bounds = [
            ("message.timestamp.before.max.ms", self.timestamp_before_max_ms),
            ("message.timestamp.after.max.ms", self.timestamp_after_max_ms),
        ];
        configs.extend(bounds.into_iter().filter(|&(_, max)| max != i64::MAX).map(|(key, max)| (key, max.to_string())));
        configs
    }

    /// Whether records with these bounds need no look one by one: all keys there, all of them together within the
    /// size, and the oldest and the newest timestamp within the topic's.
    pub fn take_all(&self, no_null_key: bool, bytes: usize, times: (Timestamp, Timestamp), now_ms: Timestamp) -> bool {
        (no_null_key || !self.is_compacted)
            && bytes <= self.message_max_bytes
            && self.takes_timestamp(times.0, now_ms)
            && self.takes_timestamp(times.1, now_ms)
    }

    /// Key and value of a record without headers may have so many bytes together.
    pub fn entry_max_bytes(&self) -> usize {
        self.message_max_bytes.saturating_sub(BATCH_OVERHEAD_BYTES + RECORD_FRAME_MAX_BYTES)
    }

    /// Whether the topic takes a timestamp.
    pub fn takes_timestamp(&self, timestamp: Timestamp, now_ms: Timestamp) -> bool {
        now_ms.saturating_sub(timestamp) <= self.timestamp_before_max_ms
            && timestamp.saturating_sub(now_ms) <= self.timestamp_after_max_ms
    }

    /// Why the topic would refuse a record of `bytes` (`batch_bytes`), if it would.
    pub fn refusal(
        &self,
        has_key: bool,
        bytes: usize,
        timestamp: Timestamp,
        now_ms: Timestamp,
    ) -> Option<TopicRefusal> {
        let refusal = |too_large, fault| Some(TopicRefusal { too_large, fault });
        if bytes > self.message_max_bytes {
            let max = self.message_max_bytes;
            return refusal(true, format!("it has {bytes} bytes, max.message.bytes of the topic is {max}"));
        }
        if self.is_compacted && !has_key {
            return refusal(false, "it has no key, and the topic is compacted".to_owned());
        }
        let (before, after) = (now_ms.saturating_sub(timestamp), timestamp.saturating_sub(now_ms));
        let bounds = [
            (before, self.timestamp_before_max_ms, "before", "message.timestamp.before.max.ms"),
            (after, self.timestamp_after_max_ms, "after", "message.timestamp.after.max.ms"),
        ];
        let (found, max, side, key) = bounds.into_iter().find(|(found, max, ..)| found > max)?;
        refusal(false, format!("its timestamp {timestamp} is {found} ms {side} the clock, {key} of the topic is {max}"))
    }
}

/// The bytes of a batch with this one record, uncompressed (Kafka's `DefaultRecord.sizeInBytes`).
pub fn batch_bytes(key: Option<&[u8]>, value: Option<&[u8]>, headers: &[Header]) -> usize {
    let field = |bytes: Option<&[u8]>| varint_bytes(bytes.map_or(1, <[u8]>::len)) + bytes.map_or(0, <[u8]>::len);
    let headers: usize = headers.iter().map(|one| field(Some(&one.key)) + field(one.value.as_deref())).sum::<usize>()
        + varint_bytes(headers.len());
    // Attributes, and the differences of timestamp and offset to those of the batch, which are 0.
    let body = 3 + field(key) + field(value) + headers;
    BATCH_OVERHEAD_BYTES + varint_bytes(body) + body
}

/// What a length takes as a zigzag varint.
fn varint_bytes(length: usize) -> usize {
    let bits = usize::BITS - (length << 1).leading_zeros();
    bits.max(1).div_ceil(7) as usize
}

#[cfg(test)]
mod tests;
