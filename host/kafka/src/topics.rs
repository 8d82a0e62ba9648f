//! Topics for the command line: list them, write records into one, read records out, delete records. Uses the same
//! clients as a stream thread, so what works here works there. Joins no group and commits nothing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use engine::broker::{
    Admin, BrokerError, BrokerErrorKind, NewTopic, Producer, ProducerRecord, RestoreConsumer, SendError,
    TopicDescription,
};
use engine::record::{Header, Headers, Offset, Timestamp, TopicPartition};

pub use crate::admin::NewStarts;
use crate::clients::KafkaClients;
use crate::producer::RecordProducer;
use crate::restore::{BEGINNING, PartitionReader};

/// A topic in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicSummary {
    pub name: String,
    pub partitions: i32,
    /// Records and control records between log start and log end, all partitions together.
    pub log_length: u64,
}

impl KafkaClients {
    /// All topics, by name; those of the broker itself (`__…`) only when asked for.
    pub fn list_topics(&self, internal: bool) -> Result<Vec<TopicSummary>, BrokerError> {
        let metadata = self.metadata()?;
        let mut topics = Vec::new();
        for topic in metadata.cluster()?.topics {
            if topic.error.is_some() || (!internal && topic.name.starts_with("__")) {
                continue;
            }
            let name: Arc<str> = topic.name.as_str().into();
            let mut log_length = 0;
            for partition in 0..topic.partitions {
                let marks = metadata.watermarks(&TopicPartition::new(Arc::clone(&name), partition))?;
                log_length += u64::try_from(marks.high - marks.low).unwrap_or(0);
            }
            topics.push(TopicSummary { name: topic.name, partitions: topic.partitions, log_length });
        }
        topics.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(topics)
    }

    /// A topic with its settings; `None` when it does not exist.
    pub fn describe_topic(&self, name: &str) -> Result<Option<TopicDescription>, BrokerError> {
        Ok(self.topic_admin()?.describe_topics(&[name])?.into_iter().next().flatten())
    }

    /// Creates a topic; `TopicExists` when it is there already.
    pub fn create_topic(&self, topic: &NewTopic) -> Result<(), BrokerError> {
        self.topic_admin()?.create_topic(topic)
    }

    /// A writer into an existing topic.
    pub fn topic_writer(&self, topic: &str) -> Result<TopicWriter, BrokerError> {
        let partitions = self.partitions_of(topic)?;
        let producer = self.record_producer(
            &format!("{}-topic-writer", self.config().application_id),
            None,
            // Somebody waits: a broker that cannot write its log (a full disk) is told within seconds, not after the
            // five minutes for which a stream thread keeps trying.
            &[("message.send.max.retries", "10"), ("retry.backoff.ms", "100")],
        )?;
        Ok(TopicWriter {
            producer,
            topic: topic.into(),
            partitions,
            sent: 0,
            acknowledged: BTreeMap::new(),
            send_timeout: self.config().request_timeout,
        })
    }

    /// A reader of an existing topic.
    pub fn topic_reader(&self, topic: &str, options: &ReadOptions) -> Result<TopicReader, BrokerError> {
        let partitions = self.partitions_of(topic)?;
        let reader = self.partition_reader(&format!("{}-topic-reader", self.config().application_id), &[])?;
        TopicReader::new(reader, self, topic, partitions, options)
    }

    /// A producer of transactions that belong to no application; a later one of the same id ends what an earlier one
    /// left open.
    pub fn transactional_producer(&self, transactional_id: &str) -> Result<Box<dyn Producer>, BrokerError> {
        let client_id = format!("{}-topic-writer", self.config().application_id);
        Ok(Box::new(self.record_producer(&client_id, Some(transactional_id), &[])?))
    }

    /// What readers can see of each partition of an existing topic, in order of the partitions.
    pub fn partition_bounds(&self, topic: &str) -> Result<Vec<PartitionBounds>, BrokerError> {
        let partitions = self.partitions_of(topic)?;
        let metadata = self.metadata()?;
        let mut reader = self.partition_reader(&format!("{}-topic-reader", self.config().application_id), &[])?;
        let topic: Arc<str> = topic.into();
        let bounds = (0..partitions).map(|partition| {
            let source = TopicPartition::new(Arc::clone(&topic), partition);
            let start = metadata.watermarks(&source)?.low;
            Ok(PartitionBounds { partition, start, stable_end: reader.stable_end(&source)? })
        });
        bounds.collect()
    }

    /// Deletes the records of a topic below an offset in each partition that is named.
    pub fn delete_records(&self, topic: &str, offsets: &BTreeMap<i32, Offset>) -> Result<NewStarts, BrokerError> {
        self.topic_admin()?.delete_records(topic, offsets)
    }

    fn partitions_of(&self, topic: &str) -> Result<i32, BrokerError> {
        match self.metadata()?.topic(topic)? {
            Some(topic) => Ok(topic.partitions),
            None => Err(BrokerError::new(
                BrokerErrorKind::UnknownTopic,
                format!("look up topic {topic}"),
                format!("there is no such topic on {}", self.config().bootstrap_servers),
            )),
        }
    }
}

/// What readers see of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartitionBounds {
    pub partition: i32,
    /// The log start.
    pub start: Offset,
    /// The last stable offset: what comes after it belongs to transactions that are still open.
    pub stable_end: Offset,
}

/// A record to write.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NewRecord {
    /// `None` = Kafka's default partitioner.
    pub partition: Option<i32>,
    pub timestamp: Timestamp,
    pub key: Option<Bytes>,
    pub value: Option<Bytes>,
    pub headers: Headers,
}

/// Writes records with backpressure; every acknowledgement is checked.
pub struct TopicWriter {
    producer: RecordProducer,
    topic: Arc<str>,
    partitions: i32,
    sent: u64,
    acknowledged: BTreeMap<TopicPartition, Offset>,
    send_timeout: Duration,
}

impl TopicWriter {
    /// Sends a record; waits while the queue is full, but not longer than the request timeout without progress. An
    /// error names the topic; records after a failed one may or may not be written, so stop and report `written`.
    pub fn send(&mut self, record: &NewRecord) -> Result<(), BrokerError> {
        if let Some(partition) = record.partition.filter(|partition| !(0..self.partitions).contains(partition)) {
            return Err(BrokerError::new(
                BrokerErrorKind::Rejected,
                format!("send to {}-{partition}", self.topic),
                format!("the topic has the partitions 0 to {}", self.partitions - 1),
            ));
        }
        let mut progress = (self.producer.in_flight(), Instant::now());
        loop {
            let outcome = self.producer.send(ProducerRecord {
                topic: &self.topic,
                partition: record.partition,
                timestamp: record.timestamp,
                key: record.key.as_deref(),
                value: record.value.as_deref(),
                headers: &record.headers,
            });
            match outcome {
                Ok(()) => {
                    self.sent += 1;
                    // Serving the reports as they come finds a failure soon and keeps the account small.
                    if self.sent.is_multiple_of(1000) {
                        self.producer.poll(Duration::ZERO)?;
                    }
                    return Ok(());
                }
                Err(SendError::Failed(error)) => return Err(error),
                Err(SendError::QueueFull) => {
                    self.producer.poll(Duration::from_millis(50))?;
                    let in_flight = self.producer.in_flight();
                    if in_flight != progress.0 {
                        progress = (in_flight, Instant::now());
                    } else if progress.1.elapsed() >= self.send_timeout {
                        return Err(BrokerError::new(
                            BrokerErrorKind::Retriable,
                            format!("send to {}", self.topic),
                            format!(
                                "the queue is full and no broker acknowledged a record for {} ms",
                                self.send_timeout.as_millis()
                            ),
                        ));
                    }
                }
            }
        }
    }

    /// Waits until everything sent is acknowledged, at most `timeout`.
    pub fn flush(&mut self, timeout: Duration) -> Result<(), BrokerError> {
        let flushed = self.producer.flush(timeout);
        self.acknowledged.append(&mut self.producer.take_acknowledged());
        flushed
    }

    /// Records that were sent.
    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// Records that were sent and whose fate is not known yet.
    pub fn in_flight(&self) -> usize {
        self.producer.in_flight()
    }

    /// The highest acknowledged offset of each partition, as of the last flush.
    pub fn acknowledged(&self) -> &BTreeMap<TopicPartition, Offset> {
        &self.acknowledged
    }
}

/// Where to begin.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum ReadFrom {
    #[default]
    Beginning,
    /// Only what comes from now on.
    End,
    /// From these offsets, other partitions from the beginning.
    Offsets(BTreeMap<i32, Offset>),
}

/// What to read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReadOptions {
    /// All partitions when empty.
    pub partitions: Vec<i32>,
    pub from: ReadFrom,
    /// Go on at the end and wait for more; else stop at the end as it was when the reader was made.
    pub follow: bool,
}

/// A record that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicRecord {
    pub partition: i32,
    pub offset: Offset,
    pub timestamp: Timestamp,
    pub key: Option<Bytes>,
    pub value: Option<Bytes>,
    pub headers: Vec<Header>,
}

/// Reads committed records.
pub struct TopicReader {
    reader: PartitionReader,
    topic: Arc<str>,
    /// The end of each partition that is not reached yet; empty when following.
    ends: BTreeMap<i32, Offset>,
    follow: bool,
}

impl TopicReader {
    fn new(
        mut reader: PartitionReader,
        clients: &KafkaClients,
        topic: &str,
        count: i32,
        options: &ReadOptions,
    ) -> Result<Self, BrokerError> {
        let topic: Arc<str> = topic.into();
        let partitions: Vec<i32> =
            if options.partitions.is_empty() { (0..count).collect() } else { options.partitions.clone() };
        let metadata = clients.metadata()?;
        let mut ends = BTreeMap::new();
        for partition in partitions {
            if !(0..count).contains(&partition) {
                return Err(BrokerError::new(
                    BrokerErrorKind::UnknownTopic,
                    format!("read {topic}-{partition}"),
                    format!("the topic has the partitions 0 to {}", count - 1),
                ));
            }
            let source = TopicPartition::new(Arc::clone(&topic), partition);
            let low = metadata.watermarks(&source)?.low;
            let end = reader.stable_end(&source)?;
            let start = match &options.from {
                ReadFrom::Beginning => low,
                ReadFrom::End => end,
                ReadFrom::Offsets(offsets) => match offsets.get(&partition) {
                    Some(&offset) if offset < low || offset > end => {
                        return Err(BrokerError::new(
                            BrokerErrorKind::OffsetOutOfRange,
                            format!("read {source} from offset {offset}"),
                            format!("the partition holds the offsets {low} to {end}"),
                        ));
                    }
                    Some(&offset) => offset,
                    None => low,
                },
            };
            if options.follow {
                reader.assign(&source, start)?;
            } else if start < end {
                reader.assign(&source, start)?;
                ends.insert(partition, end);
            }
        }
        Ok(Self { reader, topic, ends, follow: options.follow })
    }

    /// Whether there is nothing more to come.
    pub fn is_done(&self) -> bool {
        !self.follow && self.ends.is_empty()
    }

    /// The next records, at most `max_records`, in offset order within a partition; waits for at most `timeout`. An
    /// empty answer means that nothing came in time; ask `is_done`.
    pub fn poll(&mut self, timeout: Duration, max_records: usize) -> Result<Vec<TopicRecord>, BrokerError> {
        if self.is_done() {
            return Ok(Vec::new());
        }
        let mut records = Vec::new();
        for group in self.reader.poll(timeout, max_records)? {
            let partition = group.partition.partition;
            let end = self.ends.get(&partition).copied();
            for record in group.records {
                // What was written after the reader was made is not asked for.
                if !self.follow && end.is_none_or(|end| record.offset >= end) {
                    continue;
                }
                records.push(TopicRecord {
                    partition,
                    offset: record.offset,
                    timestamp: record.timestamp,
                    key: record.key,
                    value: record.value,
                    headers: record.headers,
                });
            }
        }
        if !self.follow {
            // The position also moves past what is no record: control records and aborted ones.
            let waiting: Vec<i32> = self.ends.keys().copied().collect();
            for partition in waiting {
                let source = TopicPartition::new(Arc::clone(&self.topic), partition);
                let position = self.reader.position(&source)?.unwrap_or(BEGINNING);
                if self.ends.get(&partition).is_some_and(|end| position >= *end) {
                    self.ends.remove(&partition);
                    self.reader.unassign(&source)?;
                }
            }
        }
        Ok(records)
    }
}
