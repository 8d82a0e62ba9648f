//! Topics: looks at them, creates them, and deletes records where somebody asks for it by offset. Never alters or
//! deletes a topic that exists (T15: librdkafka's only way to alter resets every setting that it is not told).

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::{Duration, Instant};

use engine::broker::{Admin, BrokerError, BrokerErrorKind, NewTopic, TopicDescription};
use engine::record::Offset;
use rdkafka::TopicPartitionList;
use rdkafka::admin::{AdminClient, AdminOptions, ResourceSpecifier, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use crate::error::kind_of;
use crate::metadata::MetadataClient;

/// The new log start of each partition that was asked for, or why the broker kept its records: one may be refused while
/// another is done.
pub type NewStarts = BTreeMap<i32, Result<Offset, BrokerError>>;

/// The engine's admin over librdkafka's.
pub(crate) struct TopicAdmin {
    client: AdminClient<DefaultClientContext>,
    metadata: Arc<MetadataClient>,
    bootstrap_servers: String,
    request_timeout: Duration,
}

impl TopicAdmin {
    pub fn new(
        client: AdminClient<DefaultClientContext>,
        metadata: Arc<MetadataClient>,
        bootstrap_servers: &str,
        request_timeout: Duration,
    ) -> Self {
        Self { client, metadata, bootstrap_servers: bootstrap_servers.into(), request_timeout }
    }

    fn options(&self) -> AdminOptions {
        AdminOptions::new()
            .request_timeout(Some(self.request_timeout))
            // The broker answers once its controller has done it, not before.
            .operation_timeout(Some(self.request_timeout))
    }

    fn operation(&self, what: &str) -> String {
        format!("{what} (brokers {})", self.bootstrap_servers)
    }

    fn code_error(&self, code: RDKafkaErrorCode, what: &str) -> BrokerError {
        BrokerError::new(kind_of(code), self.operation(what), code.to_string())
    }

    fn run<T>(&self, what: &str, request: impl Future<Output = Result<Vec<T>, KafkaError>>) -> Result<T, BrokerError> {
        // librdkafka answers every request within its own timeout; the grace is for a client that cannot.
        let answer = block_on(request, self.request_timeout + Duration::from_secs(5));
        let failed = |kind, detail: String| BrokerError::new(kind, self.operation(what), detail);
        match answer {
            None => Err(failed(BrokerErrorKind::Retriable, "no answer in time".into())),
            Some(Err(error)) => {
                let kind = error.rdkafka_error_code().map_or(BrokerErrorKind::Fatal, kind_of);
                Err(failed(kind, error.to_string()))
            }
            Some(Ok(results)) => results
                .into_iter()
                .next()
                .ok_or_else(|| failed(BrokerErrorKind::Fatal, "the broker answered without a result".into())),
        }
    }

    /// Deletes the records of a topic below an offset in each partition that is named.
    pub fn delete_records(&self, topic: &str, offsets: &BTreeMap<i32, Offset>) -> Result<NewStarts, BrokerError> {
        let mut list = TopicPartitionList::with_capacity(offsets.len());
        for (partition, offset) in offsets {
            let what = format!("delete the records of {topic}-{partition} below offset {offset}");
            if *offset < 0 || topic.contains('\0') {
                return Err(self.code_error(RDKafkaErrorCode::InvalidArgument, &what));
            }
            list.add_partition_offset(topic, *partition, rdkafka::Offset::Offset(*offset)).map_err(|error| {
                BrokerError::new(BrokerErrorKind::Rejected, self.operation(&what), error.to_string())
            })?;
        }
        let options = self.options();
        let request = async { Ok(vec![self.client.delete_records(&list, &options).await?]) };
        let answered = self.run(&format!("delete records of topic {topic}"), request)?;
        let answers = answered.elements().into_iter().map(|answer| {
            let what = format!("delete records of {topic}-{}", answer.partition());
            let start = match (answer.error(), answer.offset()) {
                (Ok(()), rdkafka::Offset::Offset(start)) => Ok(start),
                (Err(error), _) => {
                    Err(self.code_error(error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Unknown), &what))
                }
                // The client's own words for an end that is no number.
                (Ok(()), _) => Err(self.code_error(RDKafkaErrorCode::BadMessage, &what)),
            };
            (answer.partition(), start)
        });
        Ok(answers.collect())
    }

    fn configs(&self, topic: &str) -> Result<BTreeMap<String, String>, BrokerError> {
        let what = format!("describe the settings of topic {topic}");
        let resource = [ResourceSpecifier::Topic(topic)];
        let options = self.options();
        let result = self.run(&what, self.client.describe_configs(&resource, &options))?;
        let resource = result.map_err(|code| self.code_error(code, &what))?;
        Ok(resource.entries.into_iter().filter_map(|entry| entry.value.map(|value| (entry.name, value))).collect())
    }
}

impl Admin for TopicAdmin {
    fn describe_topics(&mut self, names: &[&str]) -> Result<Vec<Option<TopicDescription>>, BrokerError> {
        let mut descriptions = Vec::with_capacity(names.len());
        if names.is_empty() {
            return Ok(descriptions);
        }
        let topics = names.iter().map(|name| self.metadata.topic(name)).collect::<Result<Vec<_>, _>>()?;
        // Asked afterwards: a topic that was created in between would be known without its id, and then be taken for
        // any.
        let ids = self.metadata.topic_ids(names)?;
        for ((name, topic), id) in names.iter().zip(topics).zip(ids) {
            descriptions.push(match topic {
                None => None,
                Some(topic) => Some(TopicDescription {
                    name: (*name).into(),
                    id,
                    partitions: topic.partitions,
                    configs: self.configs(name)?,
                }),
            });
        }
        Ok(descriptions)
    }

    fn create_topic(&mut self, topic: &NewTopic) -> Result<(), BrokerError> {
        let what = format!("create topic {} with {} partitions", topic.name, topic.partitions);
        if topic.name.contains('\0') {
            return Err(self.code_error(RDKafkaErrorCode::InvalidTopic, &what));
        }
        let mut request = rdkafka::admin::NewTopic::new(
            &topic.name,
            topic.partitions,
            TopicReplication::Fixed(topic.replication_factor),
        );
        for (key, value) in &topic.configs {
            request = request.set(key, value);
        }
        let options = self.options();
        match self.run(&what, self.client.create_topics([&request], &options))? {
            Ok(_) => {
                // The controller has it; the brokers hear of it a little later.
                if !self.metadata.wait_until_available(&topic.name, self.request_timeout)? {
                    return Err(BrokerError::new(
                        BrokerErrorKind::Retriable,
                        self.operation(&what),
                        "the topic was created but its partitions have no leader yet",
                    ));
                }
                Ok(())
            }
            Err((_, code)) => Err(self.code_error(code, &what)),
        }
    }
}

/// Wakes the thread that waits.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Waits for a future whose other end is a thread of librdkafka's; `None` when the time is over.
fn block_on<F: Future>(future: F, timeout: Duration) -> Option<F::Output> {
    let mut future = pin!(future);
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut context = Context::from_waker(&waker);
    let deadline = Instant::now() + timeout;
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return Some(output);
        }
        let rest = deadline.saturating_duration_since(Instant::now());
        if rest.is_zero() {
            return None;
        }
        std::thread::park_timeout(rest);
    }
}
