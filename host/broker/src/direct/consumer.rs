//! `DirectConsumer`: membership, positions and pauses of one group member. Events come before records; records come
//! from the partitions in turn, so that none starves.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use engine::broker::{
    BrokerError, BrokerErrorKind, Consumer, GroupMetadata, OffsetAndMetadata, PartitionRecords, Polled, StartOffset,
};
use engine::record::{Offset, TopicPartition};

use super::fetch::Position;
use super::membership::Membership;
use super::{Connection, Operation, names, to_error};
use crate::core::group::offsets::OffsetToCommit;
use crate::core::refusal::{ErrorCode, Refusal};

pub(super) struct DirectConsumer {
    connection: Connection,
    membership: Membership,
    positions: BTreeMap<TopicPartition, Position>,
    paused: BTreeSet<TopicPartition>,
    /// The partition that was read last.
    last_read: Option<TopicPartition>,
}

impl DirectConsumer {
    pub(super) fn new(connection: Connection) -> Self {
        Self {
            membership: Membership::new(connection.clone()),
            connection,
            positions: BTreeMap::new(),
            paused: BTreeSet::new(),
            last_read: None,
        }
    }

    fn position_of(&mut self, partition: &TopicPartition) -> Result<&mut Position, BrokerError> {
        self.positions.get_mut(partition).ok_or_else(|| not_assigned(partition))
    }

    /// The partitions that may be read, beginning after the one that was read last.
    fn turn(&self) -> Vec<TopicPartition> {
        let (before, after): (Vec<_>, Vec<_>) = self
            .positions
            .keys()
            .filter(|partition| !self.paused.contains(*partition))
            .cloned()
            .partition(|partition| self.last_read.as_ref().is_some_and(|last| partition <= last));
        after.into_iter().chain(before).collect()
    }
}

fn not_assigned(partition: &TopicPartition) -> BrokerError {
    BrokerError::new(BrokerErrorKind::Fatal, format!("use {partition}"), "it is not assigned to this consumer")
}

impl Consumer for DirectConsumer {
    fn subscribe(&mut self, topics: &[Arc<str>]) -> Result<(), BrokerError> {
        self.membership.subscribe(topics);
        Ok(())
    }

    fn poll(&mut self, _timeout: Duration, max_records: usize) -> Result<Polled, BrokerError> {
        self.connection.call(Operation::Poll, String::new, || Ok(()))?;
        if let Some(event) = self.membership.serve()? {
            return Ok(Polled { records: Vec::new(), events: vec![event] });
        }
        let mut polled = Polled::default();
        let mut left = max_records;
        for partition in self.turn() {
            if left == 0 {
                break;
            }
            let connection = self.connection.clone();
            let read = self.position_of(&partition)?.read(&connection, &partition.topic, partition.partition, left);
            let records = read.map_err(|refusal| to_error(format!("fetch {partition}"), &refusal))?;
            if let (Some(first), Some(last)) = (records.first(), records.last()) {
                self.connection
                    .faults()
                    .note(&self.connection.name, &format!("{partition} {}..={}", first.offset, last.offset));
                left -= records.len();
                self.last_read = Some(partition.clone());
                polled.records.push(PartitionRecords { partition, records });
            }
        }
        Ok(polled)
    }

    fn assign(&mut self, partitions: &[(TopicPartition, StartOffset)]) -> Result<(), BrokerError> {
        for (partition, start) in partitions {
            let log = self.connection.core().partition(&partition.topic, partition.partition);
            let bounds = log.map_err(|refusal| to_error(format!("assign {partition}"), &refusal))?.bounds();
            let offset = match start {
                StartOffset::At(offset) => *offset,
                StartOffset::Earliest => bounds.log_start_offset,
                StartOffset::Latest => bounds.high_watermark,
            };
            self.connection.faults().note(&self.connection.name, &format!("assign {partition}@{offset}"));
            self.positions.insert(partition.clone(), Position::at(offset));
        }
        self.membership.assigned(partitions.iter().map(|(partition, _)| partition));
        Ok(())
    }

    fn unassign(&mut self, partitions: &[TopicPartition]) -> Result<(), BrokerError> {
        self.connection.faults().note(&self.connection.name, &format!("unassign {}", names(partitions)));
        for partition in partitions {
            self.positions.remove(partition);
            self.paused.remove(partition);
        }
        self.membership.unassigned(partitions);
        Ok(())
    }

    fn pause(&mut self, partitions: &[TopicPartition]) -> Result<(), BrokerError> {
        for partition in partitions {
            self.position_of(partition)?;
            self.paused.insert(partition.clone());
        }
        Ok(())
    }

    fn resume(&mut self, partitions: &[TopicPartition]) -> Result<(), BrokerError> {
        for partition in partitions {
            self.position_of(partition)?;
            self.paused.remove(partition);
        }
        Ok(())
    }

    fn seek(&mut self, partition: &TopicPartition, offset: Offset) -> Result<(), BrokerError> {
        *self.position_of(partition)? = Position::at(offset);
        Ok(())
    }

    fn position(&mut self, partition: &TopicPartition) -> Result<Option<Offset>, BrokerError> {
        let position = self.position_of(partition)?;
        Ok(position.polled.then_some(position.next))
    }

    fn end_offset(&mut self, partition: &TopicPartition) -> Result<Option<Offset>, BrokerError> {
        Ok(self.position_of(partition)?.end)
    }

    fn committed(&mut self, partitions: &[TopicPartition]) -> Result<Vec<Option<OffsetAndMetadata>>, BrokerError> {
        let (core, group) = (self.connection.core(), &self.connection.options.group);
        self.connection.call(
            Operation::Committed,
            || names(partitions),
            || {
                // A reader of committed records waits for the end of transactions that are going to change the answer
                // (KIP-447).
                let is_unstable =
                    |partition: &&TopicPartition| core.is_offset_unstable(group, &partition.topic, partition.partition);
                if let Some(partition) = partitions.iter().find(is_unstable) {
                    let detail = format!("the offset of {partition} waits for the end of a transaction");
                    return Err(Refusal::new(ErrorCode::UnstableOffsetCommit, detail));
                }
                let committed = |partition: &TopicPartition| {
                    let found = core.committed_offset(group, &partition.topic, partition.partition);
                    let found = found.filter(|_| !self.connection.faults().are_offsets_forgotten())?;
                    Some(OffsetAndMetadata { offset: found.offset, metadata: found.metadata })
                };
                Ok(partitions.iter().map(committed).collect())
            },
        )
    }

    fn commit(&mut self, offsets: &[(TopicPartition, OffsetAndMetadata)]) -> Result<(), BrokerError> {
        if let Some((partition, _)) = offsets.iter().find(|(partition, _)| !self.membership.owns(partition)) {
            return Err(not_assigned(partition));
        }
        let to_commit = offsets.iter().map(|(partition, committed)| OffsetToCommit {
            topic: partition.topic.to_string(),
            partition: partition.partition,
            offset: committed.offset,
            leader_epoch: -1,
            metadata: committed.metadata.clone(),
        });
        let detail = || {
            let each = offsets.iter().map(|(partition, committed)| format!("{partition}@{}", committed.offset));
            each.collect::<Vec<_>>().join(" ")
        };
        let identity = self.membership.identity();
        self.connection.call(Operation::Commit, detail, || {
            let (core, now_ms) = (self.connection.core(), self.connection.now_ms());
            let results =
                core.commit_offsets(now_ms, &self.connection.options.group, &identity, to_commit.collect())?;
            results.into_iter().collect()
        })
    }

    fn group_metadata(&mut self) -> Result<GroupMetadata, BrokerError> {
        let metadata = self.membership.metadata();
        if metadata.generation_id < 0 {
            let operation = format!("group metadata of {}", metadata.group_id);
            return Err(BrokerError::new(BrokerErrorKind::Rebalanced, operation, "the consumer is no member now"));
        }
        Ok(metadata)
    }

    fn close(&mut self) -> Result<(), BrokerError> {
        self.positions.clear();
        self.membership.leave()
    }
}
