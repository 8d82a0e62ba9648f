//! The clients of a `MockBroker`: consumer, restore consumer, producer and admin of a stream thread, and the
//! supplier that makes them. Each locks the broker for one call.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::mock_broker::{MockBroker, MockTopic, Operation, State};
use crate::broker::{
    Admin, BrokerError, BrokerErrorKind, ClientSupplier, Consumer, GroupMember, GroupMetadata, Membership, NewTopic,
    OffsetAndMetadata, PartitionRecords, Polled, Producer, ProducerRecord, RebalanceEvent, RestoreConsumer, SendError,
    StartOffset, TopicDescription, Watermarks,
};
use crate::partitioner::partition_for_key;
use crate::record::{Offset, Record, TopicPartition};

fn names<'a>(partitions: impl IntoIterator<Item = &'a TopicPartition>) -> String {
    partitions.into_iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

fn unknown(partition: &TopicPartition) -> BrokerError {
    BrokerError::new(BrokerErrorKind::UnknownTopic, format!("use {partition}"), "it does not exist")
}

fn read(
    state: &mut State,
    positions: &mut BTreeMap<TopicPartition, Offset>,
    skipped: &BTreeSet<TopicPartition>,
    mut max_records: usize,
) -> Result<Vec<PartitionRecords>, BrokerError> {
    let mut polled = Vec::new();
    for (partition, position) in positions.iter_mut().filter(|(partition, _)| !skipped.contains(*partition)) {
        let log = state.find_log(partition).ok_or_else(|| unknown(partition))?;
        if *position < log.start || *position > log.end {
            return Err(BrokerError::new(
                BrokerErrorKind::OffsetOutOfRange,
                format!("fetch {partition} at {position}"),
                format!("the log is {} to {}", log.start, log.end),
            ));
        }
        let found = log.from(*position);
        let records: Vec<Record> = found.iter().take(max_records).cloned().collect();
        max_records -= records.len();
        // A position moves over gaps too, once everything before them was read.
        *position = if records.len() == found.len() {
            log.stable_end().max(*position)
        } else {
            records.last().map_or(*position, |last| last.offset + 1)
        };
        if !records.is_empty() {
            polled.push(PartitionRecords { partition: partition.clone(), records });
        }
    }
    Ok(polled)
}

struct MockConsumer {
    broker: MockBroker,
    thread: usize,
    positions: BTreeMap<TopicPartition, Offset>,
    polled: BTreeSet<TopicPartition>,
    paused: BTreeSet<TopicPartition>,
}

impl MockConsumer {
    fn owned(&self, partition: &TopicPartition) -> Result<(), BrokerError> {
        if self.positions.contains_key(partition) {
            return Ok(());
        }
        Err(BrokerError::new(BrokerErrorKind::Fatal, format!("use {partition}"), "it is not assigned to this consumer"))
    }
}

impl Consumer for MockConsumer {
    fn subscribe(&mut self, topics: &[Arc<str>]) -> Result<(), BrokerError> {
        let thread = self.thread;
        self.broker.state().call(Operation::Subscribe, topics.join(" "), |state| {
            if state.assign_on_subscribe {
                let partitions: Vec<TopicPartition> = topics
                    .iter()
                    .filter_map(|topic| state.topics.get(&**topic).map(|found| (topic, found.partitions.len())))
                    .flat_map(|(topic, count)| (0..count).map(|n| TopicPartition::new(Arc::clone(topic), n as i32)))
                    .collect();
                state.events.entry(thread).or_default().push_back(RebalanceEvent::Assigned(partitions));
                state.assign_on_subscribe = false;
            }
            Ok(())
        })
    }

    fn poll(&mut self, _timeout: Duration, max_records: usize) -> Result<Polled, BrokerError> {
        let Self { broker, thread, positions, polled, paused } = self;
        broker.state().call(Operation::Poll, String::new(), |state| {
            // One event at a time: the next one comes when this one is answered.
            if let Some(event) = state.events.entry(*thread).or_default().pop_front() {
                return Ok(Polled { records: Vec::new(), events: vec![event] });
            }
            let records = read(state, positions, paused, max_records)?;
            polled.extend(positions.keys().filter(|partition| !paused.contains(*partition)).cloned());
            Ok(Polled { records, events: Vec::new() })
        })
    }

    fn assign(&mut self, partitions: &[(TopicPartition, StartOffset)]) -> Result<(), BrokerError> {
        let positions = &mut self.positions;
        let detail = names(partitions.iter().map(|(partition, _)| partition));
        self.broker.state().call(Operation::Assign, detail, |state| {
            for (partition, start) in partitions {
                let log = state.find_log(partition).ok_or_else(|| unknown(partition))?;
                let offset = match start {
                    StartOffset::At(offset) => *offset,
                    StartOffset::Earliest => log.start,
                    StartOffset::Latest => log.end,
                };
                positions.insert(partition.clone(), offset);
            }
            Ok(())
        })
    }

    fn unassign(&mut self, partitions: &[TopicPartition]) -> Result<(), BrokerError> {
        let Self { broker, positions, polled, paused, .. } = self;
        broker.state().call(Operation::Unassign, names(partitions), |_| {
            for partition in partitions {
                positions.remove(partition);
                polled.remove(partition);
                paused.remove(partition);
            }
            Ok(())
        })
    }

    fn pause(&mut self, partitions: &[TopicPartition]) -> Result<(), BrokerError> {
        partitions.iter().try_for_each(|partition| self.owned(partition))?;
        let paused = &mut self.paused;
        self.broker.state().call(Operation::Pause, names(partitions), |_| {
            paused.extend(partitions.iter().cloned());
            Ok(())
        })
    }

    fn resume(&mut self, partitions: &[TopicPartition]) -> Result<(), BrokerError> {
        partitions.iter().try_for_each(|partition| self.owned(partition))?;
        let paused = &mut self.paused;
        self.broker.state().call(Operation::Resume, names(partitions), |_| {
            paused.retain(|partition| !partitions.contains(partition));
            Ok(())
        })
    }

    fn seek(&mut self, partition: &TopicPartition, offset: Offset) -> Result<(), BrokerError> {
        self.owned(partition)?;
        let positions = &mut self.positions;
        self.broker.state().call(Operation::Seek, format!("{partition}@{offset}"), |_| {
            positions.insert(partition.clone(), offset);
            Ok(())
        })
    }

    fn position(&mut self, partition: &TopicPartition) -> Result<Option<Offset>, BrokerError> {
        self.owned(partition)?;
        let position = self.positions.get(partition).copied().filter(|_| self.polled.contains(partition));
        self.broker.state().call(Operation::Position, partition.to_string(), |_| Ok(position))
    }

    fn committed(&mut self, partitions: &[TopicPartition]) -> Result<Vec<Option<OffsetAndMetadata>>, BrokerError> {
        self.broker.state().call(Operation::Committed, names(partitions), |state| {
            Ok(partitions.iter().map(|partition| state.committed.get(partition).cloned()).collect())
        })
    }

    fn commit(&mut self, offsets: &[(TopicPartition, OffsetAndMetadata)]) -> Result<(), BrokerError> {
        offsets.iter().try_for_each(|(partition, _)| self.owned(partition))?;
        let detail: Vec<String> =
            offsets.iter().map(|(partition, offset)| format!("{partition}@{}", offset.offset)).collect();
        self.broker.state().call(Operation::Commit, detail.join(" "), |state| {
            state.committed.extend(offsets.iter().cloned());
            Ok(())
        })
    }

    fn group_metadata(&mut self) -> Result<GroupMetadata, BrokerError> {
        let member_id = format!("member-{}", self.thread);
        self.broker.state().call(Operation::GroupMetadata, String::new(), |state| {
            let generation_id = state.generation;
            Ok(GroupMetadata { group_id: "group".to_owned(), generation_id, member_id, group_instance_id: None })
        })
    }

    fn close(&mut self) -> Result<(), BrokerError> {
        self.broker.state().call(Operation::Close, String::new(), |_| Ok(()))
    }
}

struct MockRestoreConsumer {
    broker: MockBroker,
    positions: BTreeMap<TopicPartition, Offset>,
}

impl RestoreConsumer for MockRestoreConsumer {
    fn watermarks(&mut self, partitions: &[TopicPartition]) -> Result<Vec<Watermarks>, BrokerError> {
        self.broker.state().call(Operation::Watermarks, names(partitions), |state| {
            let bounds = |partition| {
                let log = state.find_log(partition).ok_or_else(|| unknown(partition))?;
                Ok(Watermarks { low: log.start, high: log.end })
            };
            partitions.iter().map(bounds).collect()
        })
    }

    fn stable_ends(&mut self, partitions: &[TopicPartition]) -> Result<Vec<Offset>, BrokerError> {
        self.broker.state().call(Operation::Watermarks, names(partitions), |state| {
            let end = |partition| Ok(state.find_log(partition).ok_or_else(|| unknown(partition))?.stable_end());
            partitions.iter().map(end).collect()
        })
    }

    fn assign(&mut self, partition: &TopicPartition, offset: Offset) -> Result<(), BrokerError> {
        let positions = &mut self.positions;
        self.broker.state().call(Operation::RestoreAssign, format!("{partition}@{offset}"), |_| {
            positions.insert(partition.clone(), offset);
            Ok(())
        })
    }

    fn unassign(&mut self, partition: &TopicPartition) -> Result<(), BrokerError> {
        let positions = &mut self.positions;
        self.broker.state().call(Operation::RestoreUnassign, partition.to_string(), |_| {
            positions.remove(partition);
            Ok(())
        })
    }

    fn poll(&mut self, _timeout: Duration, max_records: usize) -> Result<Vec<PartitionRecords>, BrokerError> {
        let positions = &mut self.positions;
        self.broker
            .state()
            .call(Operation::RestorePoll, String::new(), |state| read(state, positions, &BTreeSet::new(), max_records))
    }

    fn position(&mut self, partition: &TopicPartition) -> Result<Option<Offset>, BrokerError> {
        Ok(self.positions.get(partition).copied())
    }
}

struct MockProducer {
    broker: MockBroker,
    /// Sent, not yet delivered.
    in_flight: Vec<(TopicPartition, Record)>,
    acknowledged: BTreeMap<TopicPartition, Offset>,
    failed: Option<BrokerError>,
    transaction: Option<Transaction>,
}

#[derive(Default)]
struct Transaction {
    /// What an abort takes out of the logs again.
    records: Vec<(TopicPartition, Offset)>,
    offsets: Vec<(TopicPartition, OffsetAndMetadata)>,
}

impl MockProducer {
    fn deliver(&mut self, even_held: bool) {
        let mut state = self.broker.state();
        if state.hold_deliveries && !even_held {
            return;
        }
        let refused = state.refused_value.clone();
        let is_refused = |(partition, record): &(TopicPartition, Record)| {
            refused
                .as_ref()
                .is_some_and(|(topic, value)| **topic == *partition.topic && record.value.as_deref() == Some(value))
        };
        if self.in_flight.iter().any(is_refused) {
            let operation = format!("deliver {} records", self.in_flight.len());
            self.failed.get_or_insert(BrokerError::new(BrokerErrorKind::Rejected, operation, "invalid record"));
            self.in_flight.clear();
        }
        for (partition, record) in self.in_flight.drain(..) {
            if let Some(error) = state.failed_delivery(&partition) {
                self.failed.get_or_insert(error);
                continue;
            }
            let Some(log) = state.find_log(&partition) else {
                self.failed.get_or_insert(unknown(&partition));
                continue;
            };
            let offset = log.append(record);
            if let Some(transaction) = &mut self.transaction {
                transaction.records.push((partition.clone(), offset));
            }
            self.acknowledged.insert(partition, offset);
        }
    }

    fn target(&self, record: &ProducerRecord<'_>) -> Result<TopicPartition, BrokerError> {
        let state = self.broker.state();
        let operation = || format!("send to {}", record.topic);
        if state.unauthorized.contains(&**record.topic) {
            return Err(BrokerError::new(BrokerErrorKind::Unauthorized, operation(), "the topic is denied"));
        }
        let Some(MockTopic { partitions, configs, .. }) = state.topics.get(&**record.topic) else {
            return Err(BrokerError::new(BrokerErrorKind::UnknownTopic, operation(), "it does not exist"));
        };
        let compacted = configs.get("cleanup.policy").is_some_and(|policy| policy.contains("compact"));
        if compacted && record.key.is_none() || record.timestamp < 0 {
            return Err(BrokerError::new(BrokerErrorKind::Rejected, operation(), "invalid record"));
        }
        let count = partitions.len() as i32;
        let by_key = || record.key.map_or(0, |key| partition_for_key(key, count));
        Ok(TopicPartition::new(Arc::clone(record.topic), record.partition.unwrap_or_else(by_key)))
    }

    fn transactional<T>(
        &mut self,
        operation: Operation,
        detail: String,
        run: impl FnOnce(&mut Option<Transaction>, &mut State) -> T,
    ) -> Result<T, BrokerError> {
        let Self { broker, transaction, .. } = self;
        broker.state().call(operation, detail, |state| Ok(run(transaction, state)))
    }
}

impl Producer for MockProducer {
    fn send(&mut self, record: ProducerRecord<'_>) -> Result<(), SendError> {
        if self.in_flight.len() >= self.broker.state().queue_limit {
            return Err(SendError::QueueFull);
        }
        let partition = self.target(&record)?;
        self.broker.state().call(Operation::Send, partition.to_string(), |_| Ok(()))?;
        let sent = Record {
            offset: 0,
            timestamp: record.timestamp,
            key: record.key.map(Bytes::copy_from_slice),
            value: record.value.map(Bytes::copy_from_slice),
            headers: record.headers.to_vec(),
        };
        self.in_flight.push((partition, sent));
        Ok(())
    }

    fn poll(&mut self, _timeout: Duration) -> Result<(), BrokerError> {
        self.broker.state().call(Operation::ProducerPoll, String::new(), |_| Ok(()))?;
        self.deliver(false);
        self.failed.take().map_or(Ok(()), Err)
    }

    fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    fn flush(&mut self, _timeout: Duration) -> Result<(), BrokerError> {
        let detail = self.in_flight.len().to_string();
        self.broker.state().call(Operation::Flush, detail, |_| Ok(()))?;
        self.deliver(true);
        self.failed.take().map_or(Ok(()), Err)
    }

    fn take_acknowledged(&mut self) -> BTreeMap<TopicPartition, Offset> {
        std::mem::take(&mut self.acknowledged)
    }

    fn init_transactions(&mut self, _timeout: Duration) -> Result<(), BrokerError> {
        self.transactional(Operation::InitTransactions, String::new(), |_, _| ())
    }

    fn begin_transaction(&mut self) -> Result<(), BrokerError> {
        self.transactional(Operation::BeginTransaction, String::new(), |transaction, _| {
            *transaction = Some(Transaction::default());
        })
    }

    fn send_offsets(
        &mut self,
        offsets: &[(TopicPartition, OffsetAndMetadata)],
        group: &GroupMetadata,
        _timeout: Duration,
    ) -> Result<(), BrokerError> {
        let detail = format!("{} generation {}", names(offsets.iter().map(|(p, _)| p)), group.generation_id);
        self.transactional(Operation::SendOffsets, detail, |transaction, _| {
            if let Some(transaction) = transaction {
                transaction.offsets.extend(offsets.iter().cloned());
            }
        })
    }

    fn commit_transaction(&mut self, _timeout: Duration) -> Result<(), BrokerError> {
        self.deliver(true);
        self.transactional(Operation::CommitTransaction, String::new(), |transaction, state| {
            state.committed.extend(transaction.take().unwrap_or_default().offsets);
        })
    }

    fn abort_transaction(&mut self, _timeout: Duration) -> Result<(), BrokerError> {
        self.in_flight.clear();
        self.transactional(Operation::AbortTransaction, String::new(), |transaction, state| {
            for (partition, offset) in transaction.take().unwrap_or_default().records {
                if let Some(log) = state.find_log(&partition) {
                    log.records.retain(|record| record.offset != offset);
                }
            }
        })
    }
}

struct MockAdmin {
    broker: MockBroker,
}

impl Admin for MockAdmin {
    fn describe_topics(&mut self, names: &[&str]) -> Result<Vec<Option<TopicDescription>>, BrokerError> {
        self.broker.state().call(Operation::DescribeTopics, names.join(" "), |state| {
            Ok(names.iter().map(|name| state.topics.get(*name).map(|topic| topic.describe(name))).collect())
        })
    }

    fn create_topic(&mut self, topic: &NewTopic) -> Result<(), BrokerError> {
        self.broker.state().call(Operation::CreateTopic, topic.name.clone(), |state| {
            if state.topics.contains_key(&topic.name) {
                let operation = format!("create topic {}", topic.name);
                return Err(BrokerError::new(BrokerErrorKind::TopicExists, operation, "it exists"));
            }
            state.create_topic(&topic.name, topic.partitions, topic.configs.clone());
            Ok(())
        })
    }
}

struct MockMembership {
    broker: MockBroker,
}

impl Membership for MockMembership {
    fn members(&mut self) -> Result<Option<Vec<GroupMember>>, BrokerError> {
        self.broker.state().call(Operation::Members, String::new(), |state| Ok(state.members.clone()))
    }
}

impl ClientSupplier for MockBroker {
    fn consumer(&self, thread: usize) -> Result<Box<dyn Consumer>, BrokerError> {
        self.state().call(Operation::CreateConsumer, thread.to_string(), |_| Ok(()))?;
        Ok(Box::new(MockConsumer {
            broker: self.clone(),
            thread,
            positions: BTreeMap::new(),
            polled: BTreeSet::new(),
            paused: BTreeSet::new(),
        }))
    }

    fn restore_consumer(&self, thread: usize) -> Result<Box<dyn RestoreConsumer>, BrokerError> {
        self.state().call(Operation::CreateRestoreConsumer, thread.to_string(), |_| Ok(()))?;
        Ok(Box::new(MockRestoreConsumer { broker: self.clone(), positions: BTreeMap::new() }))
    }

    fn producer(&self, thread: usize, transactional_id: Option<&str>) -> Result<Box<dyn Producer>, BrokerError> {
        let detail = format!("{thread} {}", transactional_id.unwrap_or("-"));
        self.state().call(Operation::CreateProducer, detail, |_| Ok(()))?;
        Ok(Box::new(MockProducer {
            broker: self.clone(),
            in_flight: Vec::new(),
            acknowledged: BTreeMap::new(),
            failed: None,
            transaction: None,
        }))
    }

    fn admin(&self) -> Result<Box<dyn Admin>, BrokerError> {
        Ok(Box::new(MockAdmin { broker: self.clone() }))
    }

    fn membership(&self) -> Result<Box<dyn Membership>, BrokerError> {
        Ok(Box::new(MockMembership { broker: self.clone() }))
    }
}
