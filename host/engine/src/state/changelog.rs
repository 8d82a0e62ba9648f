//! The format of changelog records, as Kafka Streams writes them for key-value stores: the plain key, the plain
//! value (null = deleted), the record timestamp of the write, no headers, in the partition of the task
//! (`ProcessorStateManager`, `ProcessorContextImpl.logChange`). A changelog of Kafka Streams can be restored and the
//! other way round. Never reads or sends anything itself.

use super::{DirtyEntry, Write};
use crate::record::{Offset, Record, Timestamp, TopicPartition};

/// Why a changelog record cannot be restored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChangelogError {
    /// Kafka Streams refuses it as well (`StoreChangelogReader`): a key-value store has no place for it.
    #[error(
        "changelog {partition} has a record without a key at offset {offset}; something else than this application writes to that topic"
    )]
    NullKey { partition: TopicPartition, offset: Offset },
}

/// The fields of a changelog record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChangelogRecord<'a> {
    pub key: &'a [u8],
    pub value: Option<&'a [u8]>,
    pub timestamp: Timestamp,
}

/// The changelog record of an uncommitted write.
pub fn to_record(entry: DirtyEntry<'_>) -> ChangelogRecord<'_> {
    ChangelogRecord { key: entry.key, value: entry.value.map(|value| &value[..]), timestamp: entry.timestamp }
}

/// The write that restores a changelog record. Shares the record's bytes.
pub fn to_write(partition: &TopicPartition, record: &Record) -> Result<Write, ChangelogError> {
    match &record.key {
        Some(key) => Ok((key.clone(), record.value.clone())),
        None => Err(ChangelogError::NullKey { partition: partition.clone(), offset: record.offset }),
    }
}

#[cfg(test)]
mod tests;
