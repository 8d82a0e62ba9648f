//! Reads changelogs from given offsets with `read_committed`, outside any group: it names the application's group id,
//! which librdkafka asks for, but never joins it and never commits. Log ends come from a second client that sees open
//! transactions too (R9).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use engine::broker::{BrokerError, PartitionRecords, RestoreConsumer, Watermarks};
use engine::record::{Offset, TopicPartition};
use rdkafka::bindings as sys;
use rdkafka::error::RDKafkaErrorCode;

use crate::fetch::Fetcher;
use crate::metadata::MetadataClient;
use crate::native::{Client, Failure, PartitionList};

/// The engine's restore consumer over librdkafka's.
pub(crate) struct PartitionReader {
    fetcher: Fetcher,
    client: Arc<Client>,
    metadata: Arc<MetadataClient>,
    /// Where each partition that is read began.
    assigned: BTreeMap<TopicPartition, Offset>,
    known_topics: BTreeSet<Arc<str>>,
    request_timeout: Duration,
}

impl PartitionReader {
    pub fn new(client: Client, metadata: Arc<MetadataClient>, request_timeout: Duration) -> Result<Self, BrokerError> {
        let client = Arc::new(client);
        let fetcher = Fetcher::new(Arc::clone(&client))?;
        Ok(Self {
            fetcher,
            client,
            metadata,
            assigned: BTreeMap::new(),
            known_topics: BTreeSet::new(),
            request_timeout,
        })
    }

    fn error(&self, failure: Failure, what: String) -> BrokerError {
        self.client.error(failure, format!("{what} ({})", self.client.events().name()))
    }

    /// Loads the topic's metadata into this client: without it the first fetch waits for half a second.
    fn know(&mut self, topic: &Arc<str>) -> Result<(), BrokerError> {
        if self.known_topics.contains(topic) {
            return Ok(());
        }
        let what = || format!("look up topic {topic}");
        let handle = self.client.topic(topic).map_err(|failure| self.error(failure, what()))?;
        self.client.metadata(Some(&handle), self.request_timeout).map_err(|failure| self.error(failure, what()))?;
        self.known_topics.insert(Arc::clone(topic));
        Ok(())
    }

    fn one(&self, partition: &TopicPartition, offset: Offset, what: &str) -> Result<PartitionList, BrokerError> {
        let mut list = PartitionList::new();
        list.add(&partition.topic, partition.partition, offset, &[])
            .map_err(|failure| self.error(failure, format!("{what} {partition}")))?;
        Ok(list)
    }

    /// The last stable offset of a partition: the end that this reader can reach.
    pub fn stable_end(&mut self, partition: &TopicPartition) -> Result<Offset, BrokerError> {
        self.know(&partition.topic)?;
        self.client
            .watermarks(&partition.topic, partition.partition, self.request_timeout)
            .map(|(_, high)| high)
            .map_err(|failure| self.error(failure, format!("ask the last stable offset of {partition}")))
    }
}

impl RestoreConsumer for PartitionReader {
    fn watermarks(&mut self, partitions: &[TopicPartition]) -> Result<Vec<Watermarks>, BrokerError> {
        partitions.iter().map(|partition| self.metadata.watermarks(partition)).collect()
    }

    fn stable_ends(&mut self, partitions: &[TopicPartition]) -> Result<Vec<Offset>, BrokerError> {
        partitions.iter().map(|partition| self.stable_end(partition)).collect()
    }

    fn assign(&mut self, partition: &TopicPartition, offset: Offset) -> Result<(), BrokerError> {
        self.know(&partition.topic)?;
        let what = || format!("read {partition} from offset {offset}");
        if self.assigned.contains_key(partition) {
            let list = self.one(partition, offset, "seek")?;
            self.client.seek(&list, self.request_timeout).map_err(|failure| self.error(failure, what()))?;
            if let Some(code) = list.first_error().and_then(|entry| entry.error) {
                return Err(self.error(Failure::of_code(code), what()));
            }
        } else {
            let list = self.one(partition, offset, "assign")?;
            self.client.incremental_assign(&list).map_err(|failure| self.error(failure, what()))?;
        }
        self.assigned.insert(partition.clone(), offset);
        Ok(())
    }

    fn unassign(&mut self, partition: &TopicPartition) -> Result<(), BrokerError> {
        if self.assigned.remove(partition).is_none() {
            return Ok(());
        }
        let list = self.one(partition, 0, "unassign")?;
        self.client
            .incremental_unassign(&list)
            .map_err(|failure| self.error(failure, format!("stop to read {partition}")))
    }

    fn poll(&mut self, timeout: Duration, max_records: usize) -> Result<Vec<PartitionRecords>, BrokerError> {
        self.fetcher.poll(timeout, max_records)
    }

    fn position(&mut self, partition: &TopicPartition) -> Result<Option<Offset>, BrokerError> {
        let Some(begin) = self.assigned.get(partition) else { return Ok(None) };
        let list = self.one(partition, 0, "ask the position of")?;
        let what = || format!("ask the position of {partition}");
        self.client.position(&list).map_err(|failure| self.error(failure, what()))?;
        match list.entries().first() {
            Some(entry) => match entry.error {
                Some(code) => Err(self.error(Failure::of_code(code), what())),
                None if entry.offset >= 0 => Ok(Some(entry.offset)),
                None => Ok(Some(*begin)),
            },
            None => Err(self.error(Failure::of_code(RDKafkaErrorCode::UnknownPartition), what())),
        }
    }
}

impl Drop for PartitionReader {
    fn drop(&mut self) {
        // Without it the fetches of the assignment outlive the reader for a while. Nothing depends on the answer.
        if let Err(failure) = self.client.assign(None) {
            tracing::debug!(client = self.client.events().name(), detail = failure.detail, "unassign before close");
        }
    }
}

/// The offset that stands for "none" in librdkafka's lists.
pub(crate) const BEGINNING: Offset = sys::RD_KAFKA_OFFSET_BEGINNING as Offset;
