//! `DirectProducer`: an idempotent producer. Records wait for `poll` or `flush`, which send one batch a partition. A
//! batch keeps its sequence numbers when it is sent twice; one that was given up leaves the producer in doubt, and
//! everything after it fails until the producer is made anew (R5). Transactions come with the core's.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::time::Duration;

use bytes::Bytes;
use engine::broker::{
    BrokerError, BrokerErrorKind, GroupMetadata, OffsetAndMetadata, Producer, ProducerRecord, SendError,
};
use engine::partitioner::partition_for_key;
use engine::record::{Offset, TopicPartition};

use super::faults::Delivery;
use super::{Connection, to_error};
use crate::core::batch::add_sequence;
use crate::core::batch::build::{BatchBuilder, NewRecord, ProducerStamp};
use crate::core::refusal::Refusal;

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

pub(super) struct DirectProducer {
    connection: Connection,
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
                match deliver_batch(&self.connection, partition, &batch, delivery, self.in_doubt) {
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

    fn no_transactions(&self, operation: &str) -> BrokerError {
        let operation = format!("{operation} of producer {}", self.producer_id);
        BrokerError::new(BrokerErrorKind::Fatal, operation, "the embedded broker has no transactions yet")
    }
}

impl Lane {
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
        let log = connection.core().partition(&partition.topic, partition.partition)?;
        Ok(log.append(batch, connection.now_ms())?.base_offset)
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
        let partition = self.target(&record)?;
        let lane = match self.lanes.entry(partition) {
            Entry::Occupied(lane) => lane.into_mut(),
            Entry::Vacant(lane) => lane.insert(Lane::default()),
        };
        let stamp = ProducerStamp {
            producer_id: self.producer_id,
            epoch: self.epoch,
            base_sequence: lane.next_sequence,
            transactional: false,
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
        Err(self.no_transactions("init transactions"))
    }

    fn begin_transaction(&mut self) -> Result<(), BrokerError> {
        Err(self.no_transactions("begin transaction"))
    }

    fn send_offsets(
        &mut self,
        _offsets: &[(TopicPartition, OffsetAndMetadata)],
        _group: &GroupMetadata,
        _timeout: Duration,
    ) -> Result<(), BrokerError> {
        Err(self.no_transactions("send offsets"))
    }

    fn commit_transaction(&mut self, _timeout: Duration) -> Result<(), BrokerError> {
        Err(self.no_transactions("commit transaction"))
    }

    fn abort_transaction(&mut self, _timeout: Duration) -> Result<(), BrokerError> {
        Err(self.no_transactions("abort transaction"))
    }
}
