//! One client for looking: brokers, topics, log ends, groups. It sees what `read_committed` hides and never creates a
//! topic by asking for it. Shared by the clients of an application.

use std::sync::Arc;
use std::time::{Duration, Instant};

use engine::broker::{BrokerError, BrokerErrorKind, Watermarks};
use engine::record::TopicPartition;
use rdkafka::error::RDKafkaErrorCode;

use crate::native::{Client, ClusterMetadata, DescribedGroup, Failure, TopicMetadata};

/// What the first answer of a broker says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterInfo {
    /// `None` where the broker does not tell.
    pub cluster_id: Option<String>,
    /// `host:port` of each broker.
    pub brokers: Vec<String>,
}

/// A failed try to reach a broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectAttempt {
    /// From 1 on.
    pub attempt: u32,
    pub elapsed: Duration,
    /// Why, for example `127.0.0.1:9092/bootstrap: Connect to ipv4#127.0.0.1:9092 failed: Connection refused`.
    pub reason: String,
}

/// A topic to ask for when only the brokers matter: asking for all would load the names of the whole cluster.
const PROBE: &str = "__consumer_offsets";

/// Stream threads ask for log ends between two batches, so the answer is waited for in short pieces; they ask again.
pub(crate) const WATERMARKS_TIMEOUT: Duration = Duration::from_secs(5);

/// The client for looking.
pub(crate) struct MetadataClient {
    client: Client,
    bootstrap_servers: String,
    request_timeout: Duration,
}

impl MetadataClient {
    pub fn new(client: Client, bootstrap_servers: &str, request_timeout: Duration) -> Arc<Self> {
        Arc::new(Self { client, bootstrap_servers: bootstrap_servers.into(), request_timeout })
    }

    /// Tries until a broker answers or `timeout` is over; `retry` is told of every failed try.
    pub fn wait_for_broker(
        &self,
        timeout: Duration,
        retry: &mut dyn FnMut(&ConnectAttempt),
    ) -> Result<ClusterInfo, BrokerError> {
        let started = Instant::now();
        // Every answer lists the brokers, whether the topic that it was asked for exists or not.
        let probe = self.client.topic(PROBE).map_err(|failure| self.error(failure, "connect"))?;
        for attempt in 1.. {
            // A short try, so that the reason is shown soon; librdkafka reconnects meanwhile by itself.
            let rest = timeout.saturating_sub(started.elapsed());
            let tried = Instant::now();
            let result = self.client.metadata(Some(&probe), rest.min(Duration::from_secs(2)));
            // Connection errors are events of the client.
            self.client.poll(Duration::ZERO);
            let failure = match result {
                Ok(cluster) => {
                    let rest = timeout.saturating_sub(started.elapsed()).min(Duration::from_secs(1));
                    return Ok(ClusterInfo { cluster_id: self.client.cluster_id(rest), brokers: cluster.brokers });
                }
                Err(failure) => failure,
            };
            let reason = match self.client.events().last_error() {
                Some((_, reason)) => reason,
                None => failure.detail.clone(),
            };
            let elapsed = started.elapsed();
            if elapsed >= timeout || !self.is_worth_a_retry(&failure) {
                return Err(BrokerError::new(
                    if self.is_worth_a_retry(&failure) { BrokerErrorKind::Retriable } else { failure.kind() },
                    format!("connect to bootstrap.servers {}", self.bootstrap_servers),
                    format!(
                        "no broker answered within {} ms ({attempt} tries): {reason}; check the address and that a \
                         broker runs there",
                        elapsed.as_millis()
                    ),
                ));
            }
            retry(&ConnectAttempt { attempt, elapsed, reason });
            // A try that fails at once is not repeated at once.
            std::thread::sleep(Duration::from_millis(500).saturating_sub(tried.elapsed()).min(rest));
        }
        unreachable!("the tries end by time")
    }

    fn is_worth_a_retry(&self, failure: &Failure) -> bool {
        !failure.fatal && failure.kind() == BrokerErrorKind::Retriable
    }

    fn error(&self, failure: Failure, what: impl Into<String>) -> BrokerError {
        // Its events are served by whoever asks; the reason of a failed connection is among them.
        self.client.poll(Duration::ZERO);
        self.client.error(failure, format!("{} (brokers {})", what.into(), self.bootstrap_servers))
    }

    /// All topics of the cluster.
    pub fn cluster(&self) -> Result<ClusterMetadata, BrokerError> {
        self.client.metadata(None, self.request_timeout).map_err(|failure| self.error(failure, "list topics"))
    }

    /// One topic; `None` when it does not exist. A topic that is just being created is waited for.
    pub fn topic(&self, name: &str) -> Result<Option<TopicMetadata>, BrokerError> {
        let what = || format!("describe topic {name}");
        let handle = self.client.topic(name).map_err(|failure| self.error(failure, what()))?;
        let deadline = Instant::now() + self.request_timeout;
        loop {
            let rest = deadline.saturating_duration_since(Instant::now());
            let answer = self.client.metadata(Some(&handle), rest).map_err(|failure| self.error(failure, what()))?;
            let Some(topic) = answer.topics.into_iter().find(|topic| topic.name == name) else { return Ok(None) };
            match topic.error {
                None => return Ok(Some(topic)),
                Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => return Ok(None),
                Some(RDKafkaErrorCode::LeaderNotAvailable) if !rest.is_zero() => {
                    std::thread::sleep(Duration::from_millis(20));
                }
                Some(code) => return Err(self.error(Failure::of_code(code), what())),
            }
        }
    }

    /// The ids of topics, in the order asked; `None` where a topic does not exist or the broker does not tell.
    pub fn topic_ids(&self, names: &[&str]) -> Result<Vec<Option<String>>, BrokerError> {
        self.client
            .topic_ids(names, self.request_timeout)
            .map_err(|failure| self.error(failure, format!("ask the ids of topics {}", names.join(", "))))
    }

    /// Waits until each of the topic's partitions has a leader, for a bounded time; whether they have.
    pub fn wait_until_available(&self, name: &str, timeout: Duration) -> Result<bool, BrokerError> {
        let deadline = Instant::now() + timeout;
        loop {
            if self.topic(name)?.is_some_and(|topic| topic.available) {
                return Ok(true);
            }
            if Instant::now() >= deadline {
                return Ok(false);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The members of a consumer group, within `timeout`.
    pub fn describe_group(&self, group: &str, timeout: Duration) -> Result<DescribedGroup, BrokerError> {
        self.client
            .describe_group(group, timeout)
            .map_err(|failure| self.error(failure, format!("ask for the members of group {group}")))
    }

    /// Log start and log end, open transactions included.
    pub fn watermarks(&self, partition: &TopicPartition) -> Result<Watermarks, BrokerError> {
        self.client
            .watermarks(&partition.topic, partition.partition, self.request_timeout.min(WATERMARKS_TIMEOUT))
            .map(|(low, high)| Watermarks { low, high })
            .map_err(|failure| self.error(failure, format!("ask the log end of {partition}")))
    }
}
