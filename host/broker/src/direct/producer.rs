//! `DirectProducer`: an idempotent producer, transactional when it has an id. Records wait for `poll` or `flush`, which
//! send one batch a partition. A batch keeps its sequence numbers when it is sent twice; one that was given up leaves
//! the producer in doubt, and everything after it fails until the producer is made anew (R5). So does an end of a
//! transaction whose answer was lost.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use engine::broker::{
    BrokerError, BrokerErrorKind, GroupMetadata, OffsetAndMetadata, Producer, ProducerRecord, SendError,
};
use engine::partitioner::partition_for_key;
use engine::record::{Offset, TopicPartition};

use super::faults::Delivery;
use super::faults::Operation;
use super::{Connection, DelayedEnd, lock, names, to_error};
use crate::core::batch::add_sequence;
use crate::core::batch::build::{BatchBuilder, NewRecord, ProducerStamp};
use crate::core::group::MemberIdentity;
use crate::core::group::offsets::OffsetToCommit;
use crate::core::refusal::Refusal;
use crate::core::transaction::TransactionalProducer;

/// How long a delayed batch stays in flight at least.
const DELAY_MS: i64 = 20;

/// Bytes after which a batch is closed and the next one begins; far below `max.message.bytes`.
const BATCH_BYTES: usize = 256 << 10;

/// What is on its way to one partition.
#[derive(Debug, Default)]
struct Lane {
    /// Closed batches with their record counts, the oldest first.
    closed: Vec<(Bytes, usize)>,
    open: Option<BatchBuilder>,
    next_sequence: i32,
    /// Not before this time.
    held_until_ms: i64,
}

/// A transactional id and where its transaction stands.
#[derive(Debug)]
struct Transaction {
    id: String,
    /// Between `begin_transaction` and its end.
    is_begun: bool,
    /// What the coordinator was told of.
    partitions: BTreeSet<TopicPartition>,
    has_offsets: bool,
}

pub(super) struct DirectProducer {
    connection: Connection,
    transaction: Option<Transaction>,
    producer_id: i64,
    epoch: i16,
    lanes: BTreeMap<TopicPartition, Lane>,
    in_flight: usize,
    acknowledged: BTreeMap<TopicPartition, Offset>,
    /// The first failure that nobody was told of.
    failed: Option<BrokerError>,
    /// Set with the first failure for good.
    in_doubt: bool,
    /// The next partition for a record without a key.
    next_partition: i32,
}

impl DirectProducer {
    pub(super) fn new(connection: Connection, producer_id: i64, epoch: i16) -> Self {
        Self {
            connection,
            transaction: None,
            producer_id,
            epoch,
            lanes: BTreeMap::new(),
            in_flight: 0,
            acknowledged: BTreeMap::new(),
            failed: None,
            in_doubt: false,
            next_partition: 0,
        }
    }

    /// One that gets its producer id from `init_transactions`.
    pub(super) fn transactional(connection: Connection, id: &str) -> Self {
        let transaction =
            Transaction { id: id.to_owned(), is_begun: false, partitions: BTreeSet::new(), has_offsets: false };
        Self { transaction: Some(transaction), ..Self::new(connection, -1, -1) }
    }

    fn target(&mut self, record: &ProducerRecord<'_>) -> Result<TopicPartition, BrokerError> {
        let operation = || format!("send to {}", record.topic);
        let Some(topic) = self.connection.core().topic(record.topic) else {
            return Err(BrokerError::new(BrokerErrorKind::UnknownTopic, operation(), "it does not exist"));
        };
        if record.timestamp < 0 {
            let detail = format!("timestamp {} is below 0", record.timestamp);
            return Err(BrokerError::new(BrokerErrorKind::Rejected, operation(), detail));
        }
        let count = topic.partitions.len() as i32;
        let partition = match (record.partition, record.key) {
            (Some(partition), _) if (0..count).contains(&partition) => partition,
            (Some(partition), _) => {
                let detail = format!("partition {partition} of {count} does not exist");
                return Err(BrokerError::new(BrokerErrorKind::UnknownTopic, operation(), detail));
            }
            (None, Some(key)) => partition_for_key(key, count),
            (None, None) => {
                self.next_partition = (self.next_partition + 1) % count;
                self.next_partition
            }
        };
        Ok(TopicPartition { topic: topic.name, partition })
    }

    /// Sends what waits. `even_held` does not respect delays: the caller waits.
    fn deliver(&mut self, even_held: bool) {
        let now_ms = self.connection.now_ms();
        for (partition, lane) in &mut self.lanes {
            lane.close();
            if !even_held && now_ms < lane.held_until_ms {
                continue;
            }
            if !lane.closed.is_empty()
                && let Some(transaction) = &mut self.transaction
                && let Err(error) = transaction.add(&self.connection, (self.producer_id, self.epoch), partition)
            {
                self.in_doubt |= error.kind != BrokerErrorKind::Retriable;
                if self.in_doubt || even_held {
                    self.failed.get_or_insert(error);
                }
                continue;
            }
            let transactional_id = self.transaction.as_ref().map(|transaction| transaction.id.as_str());
            while let Some((batch, records)) = lane.closed.first().cloned() {
                let detail = format!("{records} to {partition}");
                let delivery = match self.connection.faults().decide_delivery(&self.connection.name, &detail) {
                    Delivery::Later if even_held => Delivery::Now,
                    delivery => delivery,
                };
                if delivery == Delivery::Later {
                    lane.held_until_ms = now_ms + DELAY_MS;
                    break;
                }
                lane.closed.remove(0);
                self.in_flight -= records;
                match deliver_batch(&self.connection, transactional_id, partition, &batch, delivery, self.in_doubt) {
                    Ok(base_offset) => {
                        self.acknowledged.insert(partition.clone(), base_offset + records as Offset - 1);
                    }
                    Err(error) => {
                        self.in_doubt = true;
                        self.failed.get_or_insert(error);
                    }
                }
            }
        }
    }

    fn first_failure(&mut self) -> Result<(), BrokerError> {
        self.failed.take().map_or(Ok(()), Err)
    }

    fn no_transaction(&self, operation: &str) -> BrokerError {
        let operation = format!("{operation} of producer {}", self.producer_id);
        BrokerError::new(BrokerErrorKind::Fatal, operation, "it has no transaction open")
    }

    /// Ends the transaction. A client never sends an end for a transaction that the coordinator was not told of.
    fn end(&mut self, commit: bool) -> Result<(), BrokerError> {
        let what = if commit { "commit transaction" } else { "abort transaction" };
        let Some(transaction) = self.transaction.as_mut().filter(|transaction| transaction.is_begun) else {
            return Err(self.no_transaction(what));
        };
        let is_known = !transaction.partitions.is_empty() || transaction.has_offsets;
        transaction.is_begun = false;
        transaction.partitions.clear();
        transaction.has_offsets = false;
        if !is_known {
            return Ok(());
        }
        let (id, producer_id, epoch) = (transaction.id.clone(), self.producer_id, self.epoch);
        let connection = &self.connection;
        let producer = TransactionalProducer { transactional_id: &id, producer_id, epoch };
        let run = || connection.core().end_transaction(connection.now_ms(), &producer, commit);
        let delay = |ms: u64| {
            let due_ms = connection.now_ms() + ms as i64;
            let end = DelayedEnd { due_ms, transactional_id: id.clone(), producer_id, epoch, commit };
            lock(&connection.broker.shared.delayed).push(end);
        };
        let ended = connection.call_or_delay(Operation::EndTransaction, || format!("{what} {id}"), run, delay);
        self.in_doubt |= ended.is_err();
        ended.map(drop)
    }
}

impl Transaction {
    /// Tells the coordinator of a partition before its first batch.
    fn add(
        &mut self,
        connection: &Connection,
        (producer_id, epoch): (i64, i16),
        partition: &TopicPartition,
    ) -> Result<(), BrokerError> {
        if self.partitions.contains(partition) {
            return Ok(());
        }
        let producer = TransactionalProducer { transactional_id: &self.id, producer_id, epoch };
        let place = [(&*partition.topic, partition.partition)];
        let add = || {
            let core = connection.core();
            let results = core.add_partitions_to_transaction(connection.now_ms(), &producer, &place)?;
            results.into_iter().collect::<Result<Vec<()>, Refusal>>()
        };
        connection.call(Operation::AddPartitions, || format!("{partition} to {}", self.id), add)?;
        self.partitions.insert(partition.clone());
        Ok(())
    }
}

impl Lane {
    /// Drops what was not sent and takes its sequence numbers back.
    fn purge(&mut self) {
        let open = self.open.take().map_or(0, |batch| batch.len());
        let dropped = self.closed.drain(..).map(|(_, records)| records).sum::<usize>() + open;
        let before = i64::from(self.next_sequence) - dropped as i64;
        self.next_sequence = before.rem_euclid(i64::from(i32::MAX) + 1) as i32;
    }

    fn close(&mut self) {
        if let Some(batch) = self.open.take() {
            let records = batch.len();
            self.closed.push((batch.finish(), records));
        }
    }
}

/// Sends one batch as its delivery says; the offset of its first record.
fn deliver_batch(
    connection: &Connection,
    transactional_id: Option<&str>,
    partition: &TopicPartition,
    batch: &[u8],
    delivery: Delivery,
    in_doubt: bool,
) -> Result<Offset, BrokerError> {
    let operation = || format!("deliver to {partition} by {}", connection.name);
    // A batch after one that was given up would leave a gap in the sequence; librdkafka fails it as well.
    if in_doubt {
        let detail = "an earlier batch was given up";
        return Err(BrokerError::new(BrokerErrorKind::Fatal, operation(), detail));
    }
    let append = || -> Result<Offset, Refusal> {
        let (core, now_ms) = (connection.core(), connection.now_ms());
        let (topic, index) = (&*partition.topic, partition.partition);
        match transactional_id {
            Some(id) => Ok(core.append_in_transaction(now_ms, id, topic, index, batch)?.1.base_offset),
            None => Ok(core.partition(topic, index)?.append(batch, now_ms)?.base_offset),
        }
    };
    if delivery == Delivery::Dead {
        return Err(BrokerError::new(BrokerErrorKind::Fatal, operation(), "this host has crashed"));
    }
    if let Delivery::GivenUp { appended } = delivery {
        if appended {
            // The client never learns what came of it.
            let _ = append();
        }
        let detail = "delivery.timeout.ms is over and no reply came";
        return Err(BrokerError::new(BrokerErrorKind::Abortable, operation(), detail));
    }
    if delivery == Delivery::Twice {
        append().map_err(|refusal| to_error(operation(), &refusal))?;
    }
    append().map_err(|refusal| to_error(operation(), &refusal))
}

impl Producer for DirectProducer {
    fn send(&mut self, record: ProducerRecord<'_>) -> Result<(), SendError> {
        if self.in_flight >= self.connection.options.producer_queue_records {
            return Err(SendError::QueueFull);
        }
        if self.transaction.as_ref().is_some_and(|transaction| !transaction.is_begun) {
            return Err(self.no_transaction("send").into());
        }
        let partition = self.target(&record)?;
        let lane = match self.lanes.entry(partition) {
            Entry::Occupied(lane) => lane.into_mut(),
            Entry::Vacant(lane) => lane.insert(Lane::default()),
        };
        let stamp = ProducerStamp {
            producer_id: self.producer_id,
            epoch: self.epoch,
            base_sequence: lane.next_sequence,
            transactional: self.transaction.is_some(),
        };
        let headers: Vec<(&[u8], Option<&[u8]>)> =
            record.headers.iter().map(|header| (&header.key[..], header.value.as_deref())).collect();
        let batch = lane.open.get_or_insert_with(|| BatchBuilder::new(Some(stamp)));
        batch.push(&NewRecord { timestamp: record.timestamp, key: record.key, value: record.value, headers: &headers });
        let full = batch.size_bytes() >= BATCH_BYTES;
        lane.next_sequence = add_sequence(lane.next_sequence, 1);
        if full {
            lane.close();
        }
        self.in_flight += 1;
        Ok(())
    }

    fn poll(&mut self, _timeout: Duration) -> Result<(), BrokerError> {
        self.deliver(false);
        self.first_failure()
    }

    fn in_flight(&self) -> usize {
        self.in_flight
    }

    fn flush(&mut self, _timeout: Duration) -> Result<(), BrokerError> {
        self.deliver(true);
        self.first_failure()
    }

    fn take_acknowledged(&mut self) -> BTreeMap<TopicPartition, Offset> {
        std::mem::take(&mut self.acknowledged)
    }

    fn init_transactions(&mut self, _timeout: Duration) -> Result<(), BrokerError> {
        let Some(transaction) = &self.transaction else { return Err(self.no_transaction("init transactions")) };
        let (connection, id) = (&self.connection, &transaction.id);
        let timeout_ms = connection.options.transaction_timeout_ms;
        let run = || connection.core().init_transactional_producer(connection.now_ms(), id, timeout_ms, None);
        let (owner, _) = connection.call(Operation::InitProducerId, || id.clone(), run)?;
        (self.producer_id, self.epoch) = (owner.producer_id, owner.epoch);
        self.lanes.clear();
        self.in_flight = 0;
        Ok(())
    }

    fn begin_transaction(&mut self) -> Result<(), BrokerError> {
        match &mut self.transaction {
            Some(transaction) if !transaction.is_begun && self.producer_id >= 0 => {
                transaction.is_begun = true;
                Ok(())
            }
            _ => Err(BrokerError::new(
                BrokerErrorKind::Fatal,
                format!("begin transaction of producer {}", self.producer_id),
                "it is not transactional, not initialised, or has a transaction open",
            )),
        }
    }

    fn send_offsets(
        &mut self,
        offsets: &[(TopicPartition, OffsetAndMetadata)],
        group: &GroupMetadata,
        _timeout: Duration,
    ) -> Result<(), BrokerError> {
        let (producer_id, epoch) = (self.producer_id, self.epoch);
        let Some(transaction) = self.transaction.as_mut().filter(|transaction| transaction.is_begun) else {
            return Err(self.no_transaction("send offsets"));
        };
        let connection = &self.connection;
        let producer = TransactionalProducer { transactional_id: &transaction.id, producer_id, epoch };
        let member = MemberIdentity {
            generation: group.generation_id,
            member_id: group.member_id.clone(),
            instance_id: group.group_instance_id.clone(),
        };
        let to_commit = offsets.iter().map(|(partition, offset)| OffsetToCommit {
            topic: partition.topic.to_string(),
            partition: partition.partition,
            offset: offset.offset,
            leader_epoch: -1,
            metadata: offset.metadata.clone(),
        });
        let to_commit: Vec<_> = to_commit.collect();
        let add = || connection.core().add_offsets_to_transaction(connection.now_ms(), &producer, &group.group_id);
        connection.call(Operation::AddPartitions, || format!("group {} to {}", group.group_id, transaction.id), add)?;
        transaction.has_offsets = true;
        let producer = TransactionalProducer { transactional_id: &transaction.id, producer_id, epoch };
        let run = || {
            let (core, now_ms) = (connection.core(), connection.now_ms());
            let results = core.commit_transaction_offsets(now_ms, &producer, &group.group_id, &member, to_commit)?;
            results.into_iter().collect::<Result<Vec<()>, Refusal>>()
        };
        let detail = || names(offsets.iter().map(|(partition, _)| partition));
        connection.call(Operation::SendOffsets, detail, run).map(drop)
    }

    fn commit_transaction(&mut self, timeout: Duration) -> Result<(), BrokerError> {
        self.flush(timeout)?;
        self.end(true)
    }

    fn abort_transaction(&mut self, _timeout: Duration) -> Result<(), BrokerError> {
        self.lanes.values_mut().for_each(Lane::purge);
        self.in_flight = 0;
        self.failed = None;
        self.end(false)
    }
}
