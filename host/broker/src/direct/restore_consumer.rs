//! `DirectRestoreConsumer`: reads changelogs outside any group.

use std::collections::BTreeMap;
use std::time::Duration;

use engine::broker::{BrokerError, BrokerErrorKind, PartitionRecords, RestoreConsumer, Watermarks};
use engine::record::{Offset, TopicPartition};

use super::fetch::Position;
use super::{Connection, Operation, names, to_error};

pub(super) struct DirectRestoreConsumer {
    connection: Connection,
    positions: BTreeMap<TopicPartition, Position>,
}

impl DirectRestoreConsumer {
    pub(super) fn new(connection: Connection) -> Self {
        Self { connection, positions: BTreeMap::new() }
    }
}

impl RestoreConsumer for DirectRestoreConsumer {
    fn watermarks(&mut self, partitions: &[TopicPartition]) -> Result<Vec<Watermarks>, BrokerError> {
        self.connection.call(
            Operation::Watermarks,
            || names(partitions),
            || {
                let bounds = |partition: &TopicPartition| {
                    let bounds = self.connection.core().partition(&partition.topic, partition.partition)?.bounds();
                    Ok(Watermarks { low: bounds.log_start_offset, high: bounds.high_watermark })
                };
                partitions.iter().map(bounds).collect()
            },
        )
    }

    fn stable_ends(&mut self, partitions: &[TopicPartition]) -> Result<Vec<Offset>, BrokerError> {
        self.connection.call(
            Operation::Watermarks,
            || names(partitions),
            || {
                let end = |partition: &TopicPartition| {
                    let log = self.connection.core().partition(&partition.topic, partition.partition)?;
                    Ok(log.bounds().last_stable_offset)
                };
                partitions.iter().map(end).collect()
            },
        )
    }

    fn assign(&mut self, partition: &TopicPartition, offset: Offset) -> Result<(), BrokerError> {
        let log = self.connection.core().partition(&partition.topic, partition.partition);
        log.map_err(|refusal| to_error(format!("restore {partition}"), &refusal))?;
        self.positions.insert(partition.clone(), Position::at(offset));
        Ok(())
    }

    fn unassign(&mut self, partition: &TopicPartition) -> Result<(), BrokerError> {
        self.positions.remove(partition);
        Ok(())
    }

    fn poll(&mut self, _timeout: Duration, max_records: usize) -> Result<Vec<PartitionRecords>, BrokerError> {
        let connection = self.connection.clone();
        let positions = &mut self.positions;
        connection.call(Operation::RestorePoll, || names(positions.keys()), || Ok(()))?;
        // A slow broker is no error.
        if connection.faults().restores_nothing() {
            return Ok(Vec::new());
        }
        let mut left = max_records;
        let mut polled = Vec::new();
        for (partition, position) in positions {
            if left == 0 {
                break;
            }
            let records = match position.read(&connection, &partition.topic, partition.partition, left) {
                Ok(records) => records,
                // What others have read would be lost with it; the next poll meets it again.
                Err(_) if !polled.is_empty() => break,
                Err(refusal) => return Err(to_error(format!("restore {partition}"), &refusal)),
            };
            left -= records.len();
            if !records.is_empty() {
                polled.push(PartitionRecords { partition: partition.clone(), records });
            }
        }
        Ok(polled)
    }

    fn position(&mut self, partition: &TopicPartition) -> Result<Option<Offset>, BrokerError> {
        match self.positions.get(partition) {
            Some(position) => Ok(Some(position.next)),
            None => {
                Err(BrokerError::new(BrokerErrorKind::Fatal, format!("position of {partition}"), "it is not assigned"))
            }
        }
    }
}
