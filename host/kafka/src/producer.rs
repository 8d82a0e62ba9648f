//! The producer of a stream thread: idempotent, acknowledged by all replicas. The result of every send and every
//! delivery report is looked at; the first failed one puts the producer in doubt. Nothing is retried by this layer.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use engine::broker::{
    BrokerError, BrokerErrorKind, GroupMetadata, OffsetAndMetadata, Producer, ProducerRecord, SendError,
};
use engine::record::{Offset, TopicPartition};
use rdkafka::error::RDKafkaErrorCode;

use crate::native::{Client, Failure, GroupMember, NativeRecord, PartitionList, TopicHandle};

/// The engine's producer over librdkafka's. The topics are dropped before the client, which the fields' order ensures.
pub(crate) struct RecordProducer {
    topics: Vec<(Arc<str>, TopicHandle)>,
    /// Index of the topic of the latest record.
    latest: usize,
    sent: u64,
    transactional_id: Option<String>,
    client: Client,
}

impl RecordProducer {
    pub fn new(client: Client, transactional_id: Option<&str>) -> Self {
        Self { topics: Vec::new(), latest: 0, sent: 0, transactional_id: transactional_id.map(Into::into), client }
    }

    fn error(&self, failure: Failure, what: impl Into<String>) -> BrokerError {
        let what = what.into();
        let name = self.client.events().name();
        match &self.transactional_id {
            Some(id) => self.client.error(failure, format!("{what} ({name}, transactional id {id})")),
            None => self.client.error(failure, format!("{what} ({name})")),
        }
    }

    fn topic(&mut self, name: &Arc<str>) -> Result<usize, BrokerError> {
        let same = |known: &Arc<str>| Arc::ptr_eq(known, name) || **known == **name;
        if self.topics.get(self.latest).is_some_and(|(known, _)| same(known)) {
            return Ok(self.latest);
        }
        if let Some(index) = self.topics.iter().position(|(known, _)| same(known)) {
            self.latest = index;
            return Ok(index);
        }
        let handle = self.client.topic(name).map_err(|failure| self.error(failure, format!("send to {name}")))?;
        self.topics.push((Arc::clone(name), handle));
        self.latest = self.topics.len() - 1;
        Ok(self.latest)
    }

    fn name_of(&self, handle: usize) -> Arc<str> {
        self.topics
            .iter()
            .find(|(_, known)| known.id() == handle)
            .map_or_else(|| Arc::from("(unknown topic)"), |(name, _)| Arc::clone(name))
    }

    fn check_deliveries(&self) -> Result<(), BrokerError> {
        self.client.check_fatal(&format!("produce ({})", self.client.events().name()))?;
        match self.client.events().take_first_failure() {
            None => Ok(()),
            Some((topic, partition, mut failure)) => {
                if failure.code == RDKafkaErrorCode::KafkaStorageError {
                    failure.detail.push_str("; the disk of the broker may be full");
                }
                let topic = self.name_of(topic);
                let operation = if partition >= 0 {
                    format!("deliver a record to {topic}-{partition}")
                } else {
                    format!("deliver a record to topic {topic}")
                };
                Err(self.error(failure, operation))
            }
        }
    }

    /// A request of a transaction whose answer was lost may still wait somewhere on its way, and a broker without
    /// KIP-890 for this client would let it act on the next transaction of the same epoch. librdkafka has repeated it,
    /// so that the transaction itself has a certain end; but none may follow it on this producer (R5). The end must not
    /// be called a failure: a host with a bad network would count such ends against itself, and give up while it gets
    /// on.
    fn check_answers(&self) -> Result<(), BrokerError> {
        let lost = self.client.events().lost_answers();
        if lost == 0 || keeps_producer() {
            return Ok(());
        }
        let what = format!("begin a transaction ({})", self.client.events().name());
        let detail = format!("{lost} requests of the last one were repeated because their answers were lost");
        Err(BrokerError::new(BrokerErrorKind::Abortable, what, detail))
    }

    /// Fails what is outstanding, so that the producer can be dropped at once.
    pub fn purge(&mut self) {
        if let Err(failure) = self.client.purge() {
            tracing::debug!(client = self.client.events().name(), detail = failure.detail, "purge before close");
        }
        // Serves the reports of the purged records; what is still on the wire goes with the client.
        if self.client.flush(Duration::ZERO).is_err() {
            tracing::debug!(
                client = self.client.events().name(),
                in_flight = self.in_flight(),
                "dropped with records in flight"
            );
        }
    }
}

/// librdkafka takes timestamp 0 for "now" (T6) and has no other way to say 0, so the first millisecond of 1970 is
/// written as the second.
fn native_timestamp(timestamp: i64) -> i64 {
    timestamp.max(1)
}

/// Whether a kill campaign wants to see what happens without that rule.
fn keeps_producer() -> bool {
    cfg!(feature = "failpoints") && std::env::var_os("SANDBAR_KEEP_PRODUCER").is_some()
}

fn rejected(operation: String, detail: String) -> SendError {
    SendError::Failed(BrokerError::new(BrokerErrorKind::Rejected, operation, detail))
}

impl Producer for RecordProducer {
    fn send(&mut self, record: ProducerRecord<'_>) -> Result<(), SendError> {
        let describe = || match record.partition {
            Some(partition) => format!("send to {}-{partition}", record.topic),
            None => format!("send to {}", record.topic),
        };
        if record.timestamp < 0 {
            return Err(rejected(describe(), format!("timestamp {} is below 0", record.timestamp)));
        }
        if record.partition.is_some_and(|partition| partition < 0) {
            return Err(rejected(describe(), "the partition is below 0".into()));
        }
        let index = self.topic(record.topic)?;
        let Some((_, handle)) = self.topics.get(index) else {
            return Err(rejected(describe(), "the topic has no handle".into()));
        };
        let native = NativeRecord {
            partition: record.partition.unwrap_or(-1),
            timestamp: native_timestamp(record.timestamp),
            key: record.key,
            value: record.value,
        };
        let headers = record.headers.iter().map(|header| (header.key.as_ref(), header.value.as_deref()));
        match self.client.send(handle, native, headers) {
            Ok(()) => {
                self.sent += 1;
                Ok(())
            }
            Err(failure) if failure.code == RDKafkaErrorCode::QueueFull => Err(SendError::QueueFull),
            Err(mut failure) => {
                if failure.code == RDKafkaErrorCode::MessageSizeTooLarge {
                    let bytes = record.key.map_or(0, <[u8]>::len) + record.value.map_or(0, <[u8]>::len);
                    failure.detail = format!(
                        "{}: a key and value of {bytes} bytes pass the producer's message.max.bytes; raise it here and \
                         as max.message.bytes of the topic",
                        failure.detail
                    );
                }
                Err(SendError::Failed(self.error(failure, describe())))
            }
        }
    }

    fn poll(&mut self, timeout: Duration) -> Result<(), BrokerError> {
        if timeout.is_zero() || self.in_flight() == 0 {
            self.client.poll(timeout);
        } else {
            // An expired wait is told by the in-flight count.
            self.client.flush(timeout).ok();
        }
        self.check_deliveries()
    }

    fn in_flight(&self) -> usize {
        usize::try_from(self.sent.saturating_sub(self.client.events().delivered())).unwrap_or(usize::MAX)
    }

    fn flush(&mut self, timeout: Duration) -> Result<(), BrokerError> {
        let deadline = Instant::now() + timeout;
        // librdkafka's flush can return before the last report was counted when something else was served.
        while self.in_flight() > 0 {
            let rest = deadline.saturating_duration_since(Instant::now());
            let flushed = self.client.flush(rest);
            self.check_deliveries()?;
            if self.in_flight() > 0 && rest.is_zero() {
                let count = self.in_flight();
                let code = flushed.err().map_or(RDKafkaErrorCode::OperationTimedOut, |failure| failure.code);
                let detail = format!("{count} records were not acknowledged within {} ms", timeout.as_millis());
                let failure = Failure { retriable: true, ..Failure::with_detail(code, detail) };
                return Err(self.error(failure, "flush"));
            }
        }
        self.check_deliveries()
    }

    fn take_acknowledged(&mut self) -> BTreeMap<TopicPartition, Offset> {
        let mut acknowledged = BTreeMap::new();
        for (topic, partition, offset) in self.client.events().take_acknowledged() {
            acknowledged.insert(TopicPartition { topic: self.name_of(topic), partition }, offset);
        }
        acknowledged
    }

    fn init_transactions(&mut self, timeout: Duration) -> Result<(), BrokerError> {
        self.client.init_transactions(timeout).map_err(|failure| self.error(failure, "init transactions"))
    }

    fn begin_transaction(&mut self) -> Result<(), BrokerError> {
        self.check_answers()?;
        self.client.begin_transaction().map_err(|failure| self.error(failure, "begin a transaction"))
    }

    fn send_offsets(
        &mut self,
        offsets: &[(TopicPartition, OffsetAndMetadata)],
        group: &GroupMetadata,
        timeout: Duration,
    ) -> Result<(), BrokerError> {
        let what = || format!("send offsets of group {} to the transaction", group.group_id);
        // A generation below 0 is accepted by a live group (R7), so it must not reach the broker.
        if group.generation_id < 0 {
            return Err(BrokerError::new(
                BrokerErrorKind::Abortable,
                what(),
                format!("generation {} means that the group is not joined", group.generation_id),
            ));
        }
        let mut list = PartitionList::new();
        for (partition, offset) in offsets {
            list.add(&partition.topic, partition.partition, offset.offset, offset.metadata.as_bytes())
                .map_err(|failure| self.error(failure, what()))?;
        }
        let member = GroupMember {
            group_id: group.group_id.clone(),
            generation_id: group.generation_id,
            member_id: group.member_id.clone(),
        };
        self.client
            .send_offsets(&list, &member, group.group_instance_id.as_deref(), timeout)
            .map_err(|failure| self.error(failure, what()))
    }

    fn commit_transaction(&mut self, timeout: Duration) -> Result<(), BrokerError> {
        self.client.commit_transaction(timeout).map_err(|failure| self.error(failure, "commit the transaction"))?;
        self.check_deliveries()
    }

    fn abort_transaction(&mut self, timeout: Duration) -> Result<(), BrokerError> {
        // Draining first keeps the sequence numbers whole; an abort with records in flight can stall (T2).
        let started = Instant::now();
        let drained = self.client.flush(timeout / 2);
        if let Err(failure) = drained {
            tracing::debug!(client = self.client.events().name(), detail = failure.detail, "drain before abort");
        }
        let rest = timeout.saturating_sub(started.elapsed());
        let aborted =
            self.client.abort_transaction(rest).map_err(|failure| self.error(failure, "abort the transaction"));
        // The failures of the aborted records are what the abort is for.
        self.client.events().take_first_failure();
        self.client.events().take_acknowledged();
        aborted
    }
}

impl Drop for RecordProducer {
    fn drop(&mut self) {
        if self.in_flight() > 0 {
            self.purge();
        }
    }
}
