//! The format of changelog records, as Kafka Streams writes them for key-value stores: the plain key, the plain
//! value (null = deleted), the record timestamp of the write, no headers, in the partition of the task
//! (`ProcessorStateManager`, `ProcessorContextImpl.logChange`). A changelog of Kafka Streams can be restored and the
//! other way round. Never reads or sends anything itself.

use super::{DirtyEntry, Write};
use crate::record::{Offset, Record, Timestamp, TopicPartition};
use crate::topology::TaskId;

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

/// The writes that restore records of one partition, and how many records were left out. A source topic is written by
/// others, who may send records without a key: they say nothing of the store (Kafka Streams' `KTableSource`).
pub fn to_writes(
    partition: &TopicPartition,
    records: &[Record],
    is_source: bool,
) -> Result<(Vec<Write>, u64), ChangelogError> {
    let mut writes = Vec::with_capacity(records.len());
    for record in records.iter().filter(|record| record.key.is_some() || !is_source) {
        writes.push(to_write(partition, record)?);
    }
    let dropped = (records.len() - writes.len()) as u64;
    Ok((writes, dropped))
}

/// Says once what is counted from then on.
pub fn warn_of_dropped(task: TaskId, partition: &TopicPartition, dropped: u64) {
    tracing::warn!(%task, %partition, dropped,
        "records without a key are left out of the table; further ones are only counted in sandbar_dropped_records_total");
}

#[cfg(test)]
mod tests;
