//! From a consumer's queue to records: takes what is there, copies the bytes of one poll into one shared buffer and
//! cuts it into records by partition. Errors that librdkafka mixes with the messages are kept apart and never lost.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use engine::broker::{BrokerError, PartitionRecords};
use engine::record::{Header, Headers, Record, TopicPartition};

use crate::native::{Client, ConsumerQueue, Message, Messages};

/// The fetching side of a consumer. The queue is dropped before the client, which the fields' order ensures.
pub(crate) struct Fetcher {
    queue: ConsumerQueue,
    messages: Messages,
    /// Every topic name that was seen, so that its partitions share one string.
    topics: Vec<Arc<str>>,
    /// Errors that came together with records, for the next poll.
    errors: VecDeque<BrokerError>,
    client: Arc<Client>,
}

impl Fetcher {
    pub fn new(client: Arc<Client>) -> Result<Self, BrokerError> {
        let queue = client
            .consumer_queue()
            .map_err(|failure| failure.during(format!("open the queue of consumer {}", client.events().name())))?;
        Ok(Self { queue, messages: Messages::new(), topics: Vec::new(), errors: VecDeque::new(), client })
    }

    /// Up to `max_records` records; waits for at most `timeout` while there is nothing at all, neither a record nor a
    /// rebalance nor an error.
    pub fn poll(&mut self, timeout: Duration, max_records: usize) -> Result<Vec<PartitionRecords>, BrokerError> {
        if let Some(error) = self.errors.pop_front() {
            return Err(error);
        }
        self.client.check_fatal("poll")?;
        let max_records = max_records.max(1);
        let mut taken = self.client.consume(&self.queue, Duration::ZERO, max_records, &mut self.messages);
        if taken == 0 && !timeout.is_zero() && !self.client.events().has_rebalances() {
            // The batch call waits until it is full, so wait for one message and then take what came with it. It also
            // returns early after it has served something else.
            let deadline = Instant::now() + timeout;
            loop {
                let rest = deadline.saturating_duration_since(Instant::now());
                taken = self.client.consume(&self.queue, rest, 1, &mut self.messages);
                if taken > 0 || rest.is_zero() || self.client.events().has_rebalances() {
                    break;
                }
                self.client.check_fatal("poll")?;
            }
            if taken > 0 && max_records > 1 {
                self.client.consume(&self.queue, Duration::ZERO, max_records - 1, &mut self.messages);
            }
        }
        let records = self.cut();
        match self.errors.pop_front() {
            Some(error) if records.is_empty() => Err(error),
            Some(error) => {
                self.errors.push_front(error);
                Ok(records)
            }
            None => Ok(records),
        }
    }

    /// Keeps an error for the next poll.
    pub fn defer(&mut self, error: BrokerError) {
        self.errors.push_front(error);
    }

    fn cut(&mut self) -> Vec<PartitionRecords> {
        let mut groups: Vec<PartitionRecords> = Vec::new();
        if self.messages.is_empty() {
            return groups;
        }
        let buffer = self.copy();
        let mut cut = Cut { buffer, start: 0 };
        // The partition that the latest message belonged to: handle, partition, index of its group.
        let mut latest: Option<(usize, i32, usize)> = None;
        let expected = self.messages.len();
        for message in self.messages.iter() {
            if let Some(failure) = message.failure() {
                let error = consumer_error(&self.client, &message, failure);
                self.errors.push_back(error);
                continue;
            }
            let index = match latest {
                Some((topic, partition, index))
                    if topic == message.topic_handle() && partition == message.partition() =>
                {
                    index
                }
                _ => {
                    let topic = intern(&mut self.topics, &message.topic());
                    let partition = TopicPartition { topic, partition: message.partition() };
                    let index = match groups.iter().position(|group| group.partition == partition) {
                        Some(index) => index,
                        None => {
                            groups.push(PartitionRecords {
                                partition,
                                records: Vec::with_capacity(if groups.is_empty() { expected } else { 0 }),
                            });
                            groups.len() - 1
                        }
                    };
                    latest = Some((message.topic_handle(), message.partition(), index));
                    index
                }
            };
            let record = cut.record(&message);
            if let Some(group) = groups.get_mut(index) {
                group.records.push(record);
            }
        }
        self.messages.clear();
        groups
    }

    /// Key, value and headers of all messages, one after the other.
    fn copy(&self) -> Bytes {
        let mut length = 0;
        for message in self.messages.iter().filter(|message| message.failure().is_none()) {
            length += message.key().map_or(0, <[u8]>::len) + message.value().map_or(0, <[u8]>::len);
            message.for_each_header(|name, value| length += name.len() + value.map_or(0, <[u8]>::len));
        }
        let mut buffer = BytesMut::with_capacity(length);
        for message in self.messages.iter().filter(|message| message.failure().is_none()) {
            buffer.extend_from_slice(message.key().unwrap_or_default());
            buffer.extend_from_slice(message.value().unwrap_or_default());
            message.for_each_header(|name, value| {
                buffer.extend_from_slice(name);
                buffer.extend_from_slice(value.unwrap_or_default());
            });
        }
        buffer.freeze()
    }
}

/// Walks through the copied bytes in the order in which they were copied.
struct Cut {
    buffer: Bytes,
    start: usize,
}

impl Cut {
    fn take(&mut self, bytes: &[u8]) -> Bytes {
        let start = self.start;
        self.start += bytes.len();
        self.buffer.slice(start..self.start)
    }

    fn record(&mut self, message: &Message<'_>) -> Record {
        let key = message.key().map(|key| self.take(key));
        let value = message.value().map(|value| self.take(value));
        let mut headers = Headers::new();
        message.for_each_header(|name, value| {
            let key = self.take(name);
            headers.push(Header { key, value: value.map(|value| self.take(value)) });
        });
        Record { offset: message.offset(), timestamp: message.timestamp(), key, value, headers }
    }
}

fn intern(topics: &mut Vec<Arc<str>>, name: &str) -> Arc<str> {
    if let Some(known) = topics.iter().find(|known| ***known == *name) {
        return Arc::clone(known);
    }
    let topic: Arc<str> = name.into();
    topics.push(Arc::clone(&topic));
    topic
}

fn consumer_error(client: &Client, message: &Message<'_>, failure: crate::native::Failure) -> BrokerError {
    let topic = message.topic();
    let operation = match (topic.is_empty(), message.partition() >= 0) {
        (true, _) => "poll".to_string(),
        (false, false) => format!("poll topic {topic}"),
        (false, true) if message.offset() >= 0 => {
            format!("fetch from {topic}-{} at offset {}", message.partition(), message.offset())
        }
        (false, true) => format!("fetch from {topic}-{}", message.partition()),
    };
    client.error(failure, operation)
}
