//! Clients as the checks use them: a producer that waits for its delivery reports, a reader that reads a topic to its
//! end, and the admin calls in blocking form. Nothing here hides an error; a wait ends with what was still missing.

use std::collections::HashMap;
use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::{ClientContext, DefaultClientContext};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Message, OwnedHeaders, OwnedMessage};
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer, ProducerContext, ThreadedProducer};
use rdkafka::{Offset, TopicPartitionList};

use crate::raw::{self, OffsetSpec};

/// How long anything may take that has no time of its own.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// What every client of the suite starts from.
pub fn config(bootstrap: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", bootstrap)
        .set("reconnect.backoff.ms", "20")
        .set("reconnect.backoff.max.ms", "200")
        .set("retry.backoff.ms", "20")
        .set("topic.metadata.refresh.fast.interval.ms", "50");
    config
}

/// The code inside an error of the client, at whatever depth.
pub fn code_of(error: &anyhow::Error) -> Option<RDKafkaErrorCode> {
    error.chain().find_map(|cause| {
        let own = cause.downcast_ref::<RDKafkaErrorCode>().copied();
        own.or_else(|| cause.downcast_ref::<KafkaError>().and_then(KafkaError::rdkafka_error_code))
    })
}

/// Fails unless `result` is a refusal with one of the codes.
pub fn expect_refused<T>(what: &str, result: Result<T>, codes: &[RDKafkaErrorCode]) -> Result<()> {
    match result {
        Ok(_) => bail!("{what}: expected a refusal with one of {codes:?}, found that it was done"),
        Err(error) => match code_of(&error) {
            Some(code) if codes.contains(&code) => Ok(()),
            _ => Err(error.context(format!("{what}: expected a refusal with one of {codes:?}, found another error"))),
        },
    }
}

/// Fails unless both are equal, naming both.
pub fn expect_equal<T: PartialEq + std::fmt::Debug>(what: &str, expected: T, found: T) -> Result<()> {
    if expected == found { Ok(()) } else { bail!("{what}: expected {expected:?}, found {found:?}") }
}

/// Asks again until the answer is yes; after `limit` fails with the last answer's text.
pub fn wait_until(what: &str, limit: Duration, mut ready: impl FnMut() -> Result<Result<(), String>>) -> Result<()> {
    let started = Instant::now();
    loop {
        match ready()? {
            Ok(()) => return Ok(()),
            Err(found) if started.elapsed() > limit => {
                bail!("{what}: not within {} s, at last {found}", limit.as_secs_f32())
            }
            Err(_) => thread::sleep(Duration::from_millis(30)),
        }
    }
}

/// A list of partitions of one topic with offsets.
pub fn offsets(topic: &str, offsets: &[(i32, i64)]) -> Result<TopicPartitionList> {
    let mut list = TopicPartitionList::new();
    for (partition, offset) in offsets {
        list.add_partition_offset(topic, *partition, Offset::from_raw(*offset))?;
    }
    Ok(list)
}

/// Where a record went, or why it did not.
#[derive(Debug, Clone)]
pub struct Delivery {
    pub offset: i64,
    pub outcome: Result<(), KafkaError>,
}

/// The delivery reports that nobody has taken yet, and whether the client met an error.
#[derive(Debug, Clone, Default)]
pub struct Reports {
    deliveries: Arc<Mutex<Vec<Delivery>>>,
    errors: Arc<Mutex<Vec<String>>>,
}

impl ClientContext for Reports {
    fn error(&self, error: KafkaError, reason: &str) {
        self.errors.lock().unwrap_or_else(PoisonError::into_inner).push(format!("{error}: {reason}"));
    }
}

impl ProducerContext for Reports {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        let (message, outcome) = match result {
            Ok(message) => (message, Ok(())),
            Err((error, message)) => (message, Err(error.clone())),
        };
        let delivery = Delivery { offset: message.offset(), outcome };
        self.deliveries.lock().unwrap_or_else(PoisonError::into_inner).push(delivery);
    }
}

/// A producer, transactional or not.
pub struct Sender {
    producer: ThreadedProducer<Reports>,
    reports: Reports,
}

impl Sender {
    pub fn new(bootstrap: &str, settings: &[(&str, &str)]) -> Result<Self> {
        let reports = Reports::default();
        let mut config = config(bootstrap);
        config.set("linger.ms", "1").set("queue.buffering.max.messages", "200000");
        for (name, value) in settings {
            config.set(*name, *value);
        }
        // The client refuses a longer socket timeout than a transaction may last.
        let socket = settings.iter().find(|(name, _)| *name == "transaction.timeout.ms");
        if let Some(timeout) = socket.and_then(|(_, timeout)| timeout.parse::<u32>().ok()).filter(|ms| *ms < 60_000) {
            config.set("socket.timeout.ms", timeout.to_string()).set("message.timeout.ms", timeout.to_string());
        }
        let producer = config.create_with_context(reports.clone()).context("create a producer")?;
        Ok(Self { producer, reports })
    }

    /// A transactional producer that has its id.
    pub fn transactional(bootstrap: &str, id: &str, settings: &[(&str, &str)]) -> Result<Self> {
        let mut all = vec![("transactional.id", id)];
        all.extend(settings);
        let sender = Self::new(bootstrap, &all)?;
        sender.init()?;
        Ok(sender)
    }

    pub fn producer(&self) -> &ThreadedProducer<Reports> {
        &self.producer
    }

    pub fn init(&self) -> Result<()> {
        self.producer.init_transactions(PATIENCE).context("init transactions")
    }

    /// Hands a record over; waits while the client's queue is full.
    pub fn send(&self, record: BaseRecord<'_, [u8], [u8]>) -> Result<()> {
        let mut record = record;
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.producer.send(record) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back))
                    if Instant::now() < deadline =>
                {
                    record = back;
                    thread::sleep(Duration::from_millis(1));
                }
                Err((error, _)) => return Err(error).context("send"),
            }
        }
    }

    /// One record with a value.
    pub fn put(&self, topic: &str, partition: i32, value: &str) -> Result<()> {
        self.send(BaseRecord::to(topic).partition(partition).payload(value.as_bytes()))
    }

    /// `count` records whose values are `first`, `first + 1`, …
    pub fn put_numbers(&self, topic: &str, partition: i32, first: usize, count: usize) -> Result<()> {
        (first..first + count).try_for_each(|number| self.put(topic, partition, &number.to_string()))
    }

    /// Waits until nothing is in flight and gives the reports, failed ones too.
    pub fn drain(&self) -> Result<Vec<Delivery>> {
        let deadline = Instant::now() + PATIENCE;
        while self.producer.in_flight_count() > 0 {
            if Instant::now() > deadline {
                let last = self.take_errors().pop().unwrap_or_default();
                bail!(
                    "{} records still in flight after {PATIENCE:?}; last error: {last}",
                    self.producer.in_flight_count()
                );
            }
            thread::sleep(Duration::from_micros(200));
        }
        Ok(std::mem::take(&mut *self.reports.deliveries.lock().unwrap_or_else(PoisonError::into_inner)))
    }

    /// As `drain`, but a failed delivery is an error.
    pub fn flush(&self) -> Result<Vec<Delivery>> {
        let deliveries = self.drain()?;
        match deliveries.iter().find_map(|delivery| delivery.outcome.clone().err()) {
            Some(error) => Err(error).context("a record was not delivered"),
            None => Ok(deliveries),
        }
    }

    /// The client's errors since the last call.
    pub fn take_errors(&self) -> Vec<String> {
        std::mem::take(&mut *self.reports.errors.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub fn begin(&self) -> Result<()> {
        self.producer.begin_transaction().context("begin a transaction")
    }

    /// Commits once everything sent was delivered: librdkafka's own flush waits in steps of 100 ms.
    pub fn commit(&self) -> Result<()> {
        self.flush()?;
        self.producer.commit_transaction(PATIENCE).context("commit the transaction")
    }

    pub fn abort(&self) -> Result<()> {
        self.drain()?;
        self.producer.abort_transaction(PATIENCE).context("abort the transaction")
    }

    /// Puts offsets of a live member into the transaction.
    pub fn send_offsets<X: ConsumerContext>(
        &self,
        consumer: &BaseConsumer<X>,
        list: &TopicPartitionList,
    ) -> Result<()> {
        let metadata = consumer.group_metadata().ok_or_else(|| anyhow!("the consumer has no group"))?;
        self.producer.send_offsets_to_transaction(list, &metadata, PATIENCE).context("send offsets to the transaction")
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isolation {
    Committed,
    Uncommitted,
}

/// The calls of a check that need no client of their own.
pub struct Clients {
    pub bootstrap: String,
    admin: AdminClient<DefaultClientContext>,
    /// Reads groups' offsets. librdkafka (2.12) follows a null pointer when such a call is refused by a coordinator
    /// that is not ready and the client is no member of a group itself.
    group_reader: BaseConsumer,
}

impl Clients {
    pub fn new(bootstrap: &str) -> Result<Self> {
        let admin = config(bootstrap).create().context("create an admin client")?;
        let group_reader = config(bootstrap).set("group.id", "conformance-unused").create()?;
        Ok(Self { bootstrap: bootstrap.to_owned(), admin, group_reader })
    }

    pub fn admin(&self) -> &AdminClient<DefaultClientContext> {
        &self.admin
    }

    pub fn native(&self) -> &rdkafka::client::Client<DefaultClientContext> {
        self.admin.inner()
    }

    pub fn options() -> AdminOptions {
        AdminOptions::new().request_timeout(Some(PATIENCE)).operation_timeout(Some(PATIENCE))
    }

    pub fn create_topic(&self, topic: &str, partitions: i32, settings: &[(&str, &str)]) -> Result<()> {
        let mut request = NewTopic::new(topic, partitions, TopicReplication::Fixed(1));
        for (name, value) in settings {
            request = request.set(name, value);
        }
        let results = block_on(self.admin.create_topics([&request], &Self::options()))??;
        single(results, "create the topic")?;
        self.wait_for_leaders(topic, partitions)
    }

    pub fn delete_topic(&self, topic: &str) -> Result<()> {
        single(block_on(self.admin.delete_topics(&[topic], &Self::options()))??, "delete the topic")
    }

    pub fn create_partitions(&self, topic: &str, total: usize) -> Result<()> {
        let request = NewPartitions::new(topic, total);
        single(block_on(self.admin.create_partitions([&request], &Self::options()))??, "create partitions")?;
        self.wait_for_leaders(topic, i32::try_from(total)?)
    }

    /// Deletes the records below each offset and gives the log starts that follow.
    pub fn delete_records(&self, topic: &str, before: &[(i32, i64)]) -> Result<Vec<(i32, i64)>> {
        let list = block_on(self.admin.delete_records(&offsets(topic, before)?, &Self::options()))??;
        list.elements()
            .iter()
            .map(|element| {
                element.error()?;
                Ok((element.partition(), element.offset().to_raw().unwrap_or(i64::MIN)))
            })
            .collect()
    }

    /// The settings of a topic: value, and whether it is the default.
    pub fn topic_settings(&self, topic: &str) -> Result<HashMap<String, (String, bool)>> {
        let resource = [ResourceSpecifier::Topic(topic)];
        let results = block_on(self.admin.describe_configs(&resource, &Self::options()))??;
        let resource = results.into_iter().next().ok_or_else(|| anyhow!("describe configs gave no resource"))??;
        let entries = resource.entries.into_iter();
        Ok(entries.map(|entry| (entry.name, (entry.value.unwrap_or_default(), entry.is_default))).collect())
    }

    /// How many partitions of the topic have a leader. Asks for all topics: a question for one would make it where
    /// topics come into being by themselves.
    pub fn partitions(&self, topic: &str) -> Result<i32> {
        let metadata = self.native().fetch_metadata(None, PATIENCE)?;
        let found = metadata.topics().iter().find(|other| other.name() == topic);
        let found = found.ok_or(RDKafkaErrorCode::UnknownTopicOrPartition)?;
        if let Some(error) = found.error() {
            return Err(RDKafkaErrorCode::from(error).into());
        }
        Ok(i32::try_from(found.partitions().iter().filter(|partition| partition.leader() >= 0).count())?)
    }

    /// Waits until a broker that came back leads all its partitions.
    pub fn wait_for_broker(&self) -> Result<()> {
        wait_until("the broker leads all its partitions", PATIENCE + PATIENCE, || {
            let metadata = match self.native().fetch_metadata(None, Duration::from_secs(5)) {
                Ok(metadata) => metadata,
                Err(error) => return Ok(Err(error.to_string())),
            };
            let led = |topic: &rdkafka::metadata::MetadataTopic| {
                topic.error().is_none() && topic.partitions().iter().all(|partition| partition.leader() >= 0)
            };
            let without = metadata.topics().iter().filter(|topic| !led(topic)).count();
            Ok(if without == 0 { Ok(()) } else { Err(format!("{without} topics without leaders")) })
        })
    }

    /// An offset by ListOffsets. A client whose metadata is old is told so and asks again.
    pub fn list_offset(
        &self,
        topic: &str,
        partition: i32,
        spec: OffsetSpec,
        isolation: Isolation,
    ) -> Result<(i64, i64)> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match raw::list_offset(self.native(), topic, partition, spec, isolation == Isolation::Committed) {
                Err(
                    RDKafkaErrorCode::NotLeaderForPartition
                    | RDKafkaErrorCode::LeaderNotAvailable
                    | RDKafkaErrorCode::FencedLeaderEpoch
                    | RDKafkaErrorCode::UnknownLeaderEpoch,
                ) if Instant::now() < deadline => {
                    thread::sleep(Duration::from_millis(20));
                    self.native().fetch_metadata(None, PATIENCE)?;
                }
                found => return Ok(found?),
            }
        }
    }

    fn wait_for_leaders(&self, topic: &str, partitions: i32) -> Result<()> {
        wait_until(&format!("leaders of {topic}"), PATIENCE, || match self.partitions(topic) {
            Ok(found) if found == partitions => Ok(Ok(())),
            found => Ok(Err(format!("{found:?} of {partitions}"))),
        })
    }

    /// The first offset and the end as this isolation level sees it.
    pub fn bounds(&self, topic: &str, partition: i32, isolation: Isolation) -> Result<(i64, i64)> {
        let (first, _) = self.list_offset(topic, partition, OffsetSpec::Earliest, isolation)?;
        let (end, _) = self.list_offset(topic, partition, OffsetSpec::Latest, isolation)?;
        Ok((first, end))
    }

    /// Waits until no transaction is open in the topic: the last stable offset is the log's end.
    pub fn settle(&self, topic: &str) -> Result<()> {
        let partitions = self.partitions(topic)?;
        wait_until(&format!("all transactions in {topic} ended"), PATIENCE, || {
            for partition in 0..partitions {
                let (_, stable) = self.bounds(topic, partition, Isolation::Committed)?;
                let (_, end) = self.bounds(topic, partition, Isolation::Uncommitted)?;
                if stable != end {
                    return Ok(Err(format!("last stable offset {stable}, log end {end} in partition {partition}")));
                }
            }
            Ok(Ok(()))
        })
    }

    /// All records of a topic that this isolation level sees now.
    pub fn read(&self, topic: &str, isolation: Isolation) -> Result<Vec<OwnedMessage>> {
        self.read_with(topic, isolation, &[])
    }

    /// All committed records, once no transaction is open.
    pub fn read_settled(&self, topic: &str) -> Result<Vec<OwnedMessage>> {
        self.settle(topic)?;
        self.read(topic, Isolation::Committed)
    }

    pub fn read_with(&self, topic: &str, isolation: Isolation, settings: &[(&str, &str)]) -> Result<Vec<OwnedMessage>> {
        let consumer = self.consumer(isolation, settings)?;
        // Knowing the topic before the assignment spares half a second of waiting for it.
        let metadata = consumer.fetch_metadata(Some(topic), PATIENCE)?;
        let partitions = metadata.topics().first().map_or(0, |topic| topic.partitions().len());
        let mut open: Vec<i32> = (0..i32::try_from(partitions)?).collect();
        let starts: Vec<(i32, i64)> = open.iter().map(|partition| (*partition, -2)).collect();
        consumer.assign(&offsets(topic, &starts)?)?;
        let mut records = Vec::new();
        let deadline = Instant::now() + PATIENCE + PATIENCE;
        while !open.is_empty() {
            match consumer.poll(Duration::from_millis(50)) {
                None => {}
                Some(Ok(record)) => records.push(record.detach()),
                Some(Err(KafkaError::PartitionEOF(partition))) => open.retain(|other| *other != partition),
                Some(Err(error)) => return Err(error).with_context(|| format!("read {topic}")),
            }
            if Instant::now() > deadline {
                bail!("read {topic}: {} records, and no end of partitions {open:?}", records.len());
            }
        }
        Ok(records)
    }

    /// A consumer without a group that reports the end of a partition.
    pub fn consumer(&self, isolation: Isolation, settings: &[(&str, &str)]) -> Result<BaseConsumer> {
        let mut config = config(&self.bootstrap);
        let level = if isolation == Isolation::Committed { "read_committed" } else { "read_uncommitted" };
        config
            .set("group.id", "conformance-unused")
            .set("enable.auto.commit", "false")
            .set("isolation.level", level)
            .set("enable.partition.eof", "true")
            .set("auto.offset.reset", "error")
            .set("fetch.wait.max.ms", "100");
        for (name, value) in settings {
            config.set(*name, *value);
        }
        config.create().context("create a consumer")
    }

    /// The offsets that a group has committed; -1001 where there is none. A coordinator that is not ready is asked
    /// again.
    pub fn committed(&self, group: &str, topic: &str, partitions: i32) -> Result<Vec<i64>> {
        let places: Vec<(i32, i64)> = (0..partitions).map(|partition| (partition, -1001)).collect();
        let list = offsets(topic, &places)?;
        let deadline = Instant::now() + PATIENCE;
        let found = loop {
            match self.group_offsets(group, &list, false) {
                Err(
                    RDKafkaErrorCode::NotCoordinator
                    | RDKafkaErrorCode::CoordinatorLoadInProgress
                    | RDKafkaErrorCode::CoordinatorNotAvailable,
                ) if Instant::now() < deadline => thread::sleep(Duration::from_millis(50)),
                found => break found?,
            }
        };
        let mut sorted: Vec<(i32, i64)> = found.into_iter().map(|(_, partition, offset)| (partition, offset)).collect();
        sorted.sort_unstable();
        Ok(sorted.into_iter().map(|(_, offset)| offset).collect())
    }

    /// The broker's own answer on a group's offsets; with `stable` open transactions make it a refusal.
    pub fn group_offsets(
        &self,
        group: &str,
        partitions: &TopicPartitionList,
        stable: bool,
    ) -> raw::Answer<Vec<(String, i32, i64)>> {
        raw::group_offsets(self.group_reader.client(), group, partitions, stable)
    }
}

/// The values of records as text, in the order read.
pub fn values(records: &[OwnedMessage]) -> Vec<String> {
    records.iter().map(|record| String::from_utf8_lossy(record.payload().unwrap_or_default()).into_owned()).collect()
}

/// Headers from pairs; a `None` value is a null one.
pub fn headers(pairs: &[(&str, Option<&[u8]>)]) -> OwnedHeaders {
    pairs
        .iter()
        .fold(OwnedHeaders::new(), |all, (key, value)| all.insert(rdkafka::message::Header { key, value: *value }))
}

/// The one result of a call for one thing.
fn single<T>(results: Vec<Result<T, (String, RDKafkaErrorCode)>>, what: &str) -> Result<()> {
    match results.into_iter().next() {
        Some(Ok(_)) => Ok(()),
        Some(Err((_, code))) => Err(anyhow::Error::new(code).context(what.to_owned())),
        None => bail!("{what}: the broker answered without a result"),
    }
}

/// Wakes the thread that waits.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Waits for a future whose other end is a thread of librdkafka's.
pub fn block_on<F: Future>(future: F) -> Result<F::Output> {
    let mut future = pin!(future);
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut context = std::task::Context::from_waker(&waker);
    let deadline = Instant::now() + PATIENCE + PATIENCE;
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return Ok(output);
        }
        let rest = deadline.saturating_duration_since(Instant::now());
        if rest.is_zero() {
            bail!("an admin call was not answered within {:?}", PATIENCE + PATIENCE);
        }
        thread::park_timeout(rest);
    }
}
