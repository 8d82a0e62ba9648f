//! Records and where they stand: topic partitions, offsets, timestamps, headers. Plain data; the meaning of keys and
//! values is the processor's. A batch (`InputBatch`, `OutputBatch`) is a run of records in columns.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use crate::columns::{Columns, ColumnsError, NullableColumns};

/// A position in a partition's log.
pub type Offset = i64;

/// Milliseconds since the epoch; `NO_TIMESTAMP` where a record has none.
pub type Timestamp = i64;

/// The timestamp of a record that has none.
pub const NO_TIMESTAMP: Timestamp = -1;

/// One partition of one topic.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicPartition {
    pub topic: Arc<str>,
    pub partition: i32,
}

impl TopicPartition {
    pub fn new(topic: impl Into<Arc<str>>, partition: i32) -> Self {
        Self { topic: topic.into(), partition }
    }
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.topic, self.partition)
    }
}

/// One header of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    pub key: Bytes,
    pub value: Option<Bytes>,
}

/// A record's headers, in order; names may repeat.
pub type Headers = Vec<Header>;

/// A record as the consumer returned it. The byte strings share the buffer of their poll.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    pub offset: Offset,
    pub timestamp: Timestamp,
    pub key: Option<Bytes>,
    pub value: Option<Bytes>,
    pub headers: Headers,
}

/// The headers of all records of a batch: `counts[i]` headers belong to record `i`; `counts` is empty when no
/// record has any.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HeaderColumns {
    pub counts: Vec<u32>,
    pub keys: Columns,
    pub values: NullableColumns,
}

/// Consecutive records of one source partition, in offset order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct InputBatch {
    pub topic: Arc<str>,
    pub partition: i32,
    pub base_offset: Offset,
    /// Offset of record `i` is `base_offset + offset_deltas[i]`.
    pub offset_deltas: Vec<u32>,
    pub timestamps: Vec<Timestamp>,
    pub keys: NullableColumns,
    pub values: NullableColumns,
    pub headers: HeaderColumns,
}

/// Records that a processor forwards. An empty `sinks` means sink 0 for all, an empty `partitions` the default
/// partitioner for all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OutputBatch {
    pub sinks: Vec<u32>,
    pub partitions: Vec<i32>,
    pub timestamps: Vec<Timestamp>,
    pub keys: NullableColumns,
    pub values: NullableColumns,
    pub headers: HeaderColumns,
}

/// A record that the processor refused; it left no state change and no output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Index in the input batch.
    pub index: u32,
    pub reason: String,
}

/// What one call of a processor produced.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcome {
    pub outputs: OutputBatch,
    pub refused: Vec<Refusal>,
}

impl InputBatch {
    pub fn len(&self) -> usize {
        self.timestamps.len()
    }

    pub fn is_empty(&self) -> bool {
        self.timestamps.is_empty()
    }

    /// The offset of record `index`.
    pub fn offset(&self, index: usize) -> Offset {
        self.base_offset + Offset::from(self.offset_deltas[index])
    }
}

impl OutputBatch {
    pub fn len(&self) -> usize {
        self.timestamps.len()
    }

    pub fn is_empty(&self) -> bool {
        self.timestamps.is_empty()
    }

    /// Checks a batch that came from outside: every column has one item per record and is well formed. Sinks,
    /// partitions and timestamps are checked by the record collector, which knows their bounds.
    pub fn validate(&self) -> Result<(), ColumnsError> {
        let expected = self.timestamps.len();
        let count = |what, found| {
            if found == expected { Ok(()) } else { Err(ColumnsError::Count { what, expected, found }) }
        };
        count("keys", self.keys.len())?;
        count("values", self.values.len())?;
        if !self.sinks.is_empty() {
            count("sinks", self.sinks.len())?;
        }
        if !self.partitions.is_empty() {
            count("partitions", self.partitions.len())?;
        }
        self.keys.validate()?;
        self.values.validate()?;
        self.headers.validate(expected)
    }
}

impl HeaderColumns {
    /// Checks headers that came from outside for a batch of `records` records.
    pub fn validate(&self, records: usize) -> Result<(), ColumnsError> {
        self.keys.validate()?;
        self.values.validate()?;
        if !self.counts.is_empty() && self.counts.len() != records {
            return Err(ColumnsError::Count { what: "header counts", expected: records, found: self.counts.len() });
        }
        let total: u64 = self.counts.iter().map(|&count| u64::from(count)).sum();
        for (what, found) in [("header keys", self.keys.len()), ("header values", self.values.len())] {
            if found as u64 != total {
                return Err(ColumnsError::Count { what, expected: total as usize, found });
            }
        }
        Ok(())
    }
}
