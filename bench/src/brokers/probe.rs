//! What is done to a broker, the same to each: records in, records out, one record there and back, transactions.
//! Through the host's own clients on librdkafka (idempotent, acknowledged, `read_committed`). A topic's metadata is
//! asked before its first record and a reader starts at a number, or the clients would wait half a second of their own.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use engine::broker::{ClientSupplier, NewTopic, Producer, ProducerRecord, SendError};
use engine::record::TopicPartition;
use kafka::{KafkaClients, KafkaClientsConfig};

const LIMIT: Duration = Duration::from_secs(300);
pub const RECORD_BYTES: usize = 100;

pub struct Probe {
    clients: KafkaClients,
}

fn properties(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

impl Probe {
    /// Clients that fill batches, for rates.
    pub fn for_rates(address: &str) -> Result<Self> {
        Self::new(address, &[])
    }

    /// Clients that do not wait for more to send, for delays.
    pub fn for_delays(address: &str) -> Result<Self> {
        Self::new(address, &[("producer.linger.ms", "0")])
    }

    fn new(address: &str, pairs: &[(&str, &str)]) -> Result<Self> {
        let mut config = KafkaClientsConfig::new(address, "bench-broker");
        config.properties = properties(pairs);
        Ok(Self { clients: KafkaClients::new(config)? })
    }

    pub fn create_topic(&self, name: &str, partitions: i32) -> Result<()> {
        let name = name.to_owned();
        let topic = NewTopic { name, partitions, replication_factor: 1, configs: BTreeMap::new() };
        Ok(self.clients.admin()?.create_topic(&topic)?)
    }

    /// Produces so many records, spread over the partitions; how long it took until the last was acknowledged.
    pub fn produce(&self, topic: &str, partitions: i32, records: u64, bytes: usize) -> Result<Duration> {
        let name: Arc<str> = topic.into();
        let value = vec![b'v'; bytes];
        let mut producer = self.clients.producer(0, None)?;
        // The client learns the topic, connects and gets its id with a first record.
        send(&mut *producer, &name, 0, &value)?;
        producer.flush(LIMIT)?;
        let began = Instant::now();
        for index in 1..records {
            let partition = (index / 64 % partitions as u64) as i32;
            send(&mut *producer, &name, partition, &value)?;
        }
        producer.flush(LIMIT)?;
        Ok(began.elapsed())
    }

    /// Reads so many records from the beginning; how long it took from the first fetch on.
    pub fn consume(&self, topic: &str, partitions: i32, records: u64) -> Result<Duration> {
        let mut reader = self.clients.restore_consumer(0)?;
        let name: Arc<str> = topic.into();
        let all: Vec<_> = (0..partitions).map(|partition| TopicPartition::new(Arc::clone(&name), partition)).collect();
        reader.watermarks(&all)?;
        let began = Instant::now();
        for partition in &all {
            reader.assign(partition, 0)?;
        }
        let mut read = 0;
        while read < records {
            ensure!(began.elapsed() < LIMIT, "{read} of {records} records of {topic} after {} s", LIMIT.as_secs());
            let batches = reader.poll(Duration::from_millis(100), 10_000)?;
            read += batches.iter().map(|batch| batch.records.len() as u64).sum::<u64>();
        }
        Ok(began.elapsed())
    }

    /// Sends a record and waits until it is read, again and again: the time of each.
    pub fn there_and_back(&self, topic: &str, times: usize) -> Result<Vec<Duration>> {
        let name: Arc<str> = topic.into();
        let mut producer = self.clients.producer(0, None)?;
        let mut reader = self.clients.restore_consumer(0)?;
        reader.assign(&TopicPartition::new(Arc::clone(&name), 0), 0)?;
        let mut found = Vec::with_capacity(times);
        // The first ones connect.
        for number in 0..times + 20 {
            let began = Instant::now();
            send(&mut *producer, &name, 0, &[b'v'; RECORD_BYTES])?;
            while reader.poll(Duration::from_millis(100), 1)?.is_empty() {
                ensure!(began.elapsed() < LIMIT, "record {number} of {topic} does not come back");
            }
            if number >= 20 {
                found.push(began.elapsed());
            }
            producer.poll(Duration::ZERO)?;
        }
        producer.flush(LIMIT)?;
        Ok(found)
    }

    /// Transactions of ten records, one after the other: the time of each from its begin to its committed end.
    pub fn transactions(&self, topic: &str, times: usize) -> Result<Vec<Duration>> {
        let name: Arc<str> = topic.into();
        let mut producer = self.clients.producer(0, Some("bench-broker"))?;
        producer.init_transactions(LIMIT)?;
        let mut found = Vec::with_capacity(times);
        for number in 0..times + 10 {
            let began = Instant::now();
            producer.begin_transaction()?;
            for _ in 0..10 {
                send(&mut *producer, &name, 0, &[b'v'; RECORD_BYTES])?;
            }
            producer.commit_transaction(LIMIT)?;
            if number >= 10 {
                found.push(began.elapsed());
            }
        }
        Ok(found)
    }
}

fn send(producer: &mut dyn Producer, topic: &Arc<str>, partition: i32, value: &[u8]) -> Result<()> {
    let record = ProducerRecord {
        topic,
        partition: Some(partition),
        timestamp: 1_700_000_000_000,
        key: None,
        value: Some(value),
        headers: &[],
    };
    let began = Instant::now();
    loop {
        match producer.send(record) {
            Ok(()) => return Ok(()),
            Err(SendError::QueueFull) if began.elapsed() < LIMIT => producer.poll(Duration::from_millis(10))?,
            Err(SendError::QueueFull) => bail!("nothing of {topic} is acknowledged any more"),
            Err(SendError::Failed(error)) => return Err(error.into()),
        }
    }
}
