//! Reads the records of a topic as they are committed, partition after partition, so that the order is the same each
//! time. Ends where each partition ended when it was reached; waits for nothing.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use anyhow::{Result, bail};
use kafka::KafkaClients;
use kafka::topics::{PartitionBounds, ReadFrom, ReadOptions, TopicReader, TopicRecord};

use super::no_topic;
use super::position::Position;

const POLL_RECORDS: usize = 1000;
const POLL_TIMEOUT: Duration = Duration::from_millis(500);

/// A reader of one topic.
pub struct Scan<'a> {
    clients: &'a KafkaClients,
    topic: &'a str,
    /// Partitions that are still to be read.
    ahead: VecDeque<PartitionBounds>,
    reader: Option<TopicReader>,
}

impl<'a> Scan<'a> {
    /// All records that are there.
    ///
    /// # Errors
    /// When the topic does not exist, or the broker fails.
    pub fn of(clients: &'a KafkaClients, topic: &'a str) -> Result<Self> {
        Ok(Self::between(clients, topic, bounds(clients, topic)?))
    }

    /// The records between these bounds, and what came behind them meanwhile.
    pub fn between(clients: &'a KafkaClients, topic: &'a str, bounds: Vec<PartitionBounds>) -> Self {
        let ahead = bounds.into_iter().filter(|bounds| bounds.start < bounds.stable_end).collect();
        Self { clients, topic, ahead, reader: None }
    }

    /// The next records, all of one partition; `None` at the end.
    ///
    /// # Errors
    /// When the broker fails.
    pub fn next(&mut self) -> Result<Option<Vec<TopicRecord>>> {
        loop {
            if let Some(reader) = self.reader.as_mut().filter(|reader| !reader.is_done()) {
                let records = reader.poll(POLL_TIMEOUT, POLL_RECORDS)?;
                if !records.is_empty() {
                    return Ok(Some(records));
                }
                continue;
            }
            let Some(PartitionBounds { partition, start, .. }) = self.ahead.pop_front() else { return Ok(None) };
            let options = ReadOptions {
                partitions: vec![partition],
                from: ReadFrom::Offsets(BTreeMap::from([(partition, start)])),
                follow: false,
            };
            self.reader = Some(self.clients.topic_reader(self.topic, &options)?);
        }
    }

    /// Leaves the partition that is being read.
    pub fn skip_partition(&mut self) {
        self.reader = None;
    }
}

/// What can be read of each partition.
///
/// # Errors
/// When the topic does not exist, or the broker fails.
pub fn bounds(clients: &KafkaClients, topic: &str) -> Result<Vec<PartitionBounds>> {
    clients.partition_bounds(topic).map_err(|error| no_topic(topic, error))
}

/// The record at a position.
///
/// # Errors
/// When there is none.
pub fn one(clients: &KafkaClients, position: &Position) -> Result<TopicRecord> {
    let bounds = bounds(clients, &position.topic)?;
    let Some(found) = bounds.iter().find(|bounds| bounds.partition == position.partition) else {
        bail!("{position}: the topic has the partitions 0 to {}", bounds.len().saturating_sub(1));
    };
    if !(found.start..found.stable_end).contains(&position.offset) {
        bail!("{position}: the partition holds the offsets from {} to before {}", found.start, found.stable_end);
    }
    let from_there = PartitionBounds { start: position.offset, ..*found };
    let mut scan = Scan::between(clients, &position.topic, vec![from_there]);
    let first = scan.next()?.and_then(|records| records.into_iter().next());
    match first {
        Some(record) if record.offset == position.offset => Ok(record),
        // A transaction's end, an aborted record, or one that was compacted away.
        _ => bail!("{position}: there is no committed record at this offset"),
    }
}
