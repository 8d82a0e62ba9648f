//! The campaigns' own Kafka clients, beside the host's: a loader that writes entries at a steady rate, a reader that
//! reads topics as any `read_committed` consumer does, and the ends of logs. They hide no error but those that a broker
//! causes by being away, which is what a campaign does to it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Sender, TryRecvError, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, anyhow, bail, ensure};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Header, Message, OwnedHeaders};
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer, ProducerContext, ThreadedProducer};
use rdkafka::{ClientConfig, ClientContext, Offset, TopicPartitionList};

use crate::checker::LogEnd;
use crate::workload::{Input, Output, PLACE_HEADER, Plan};

/// How long a broker may take for an answer, its restart included.
pub const PATIENCE: Duration = Duration::from_secs(60);

fn config(bootstrap: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", bootstrap)
        .set("reconnect.backoff.ms", "20")
        .set("reconnect.backoff.max.ms", "500")
        .set("topic.metadata.refresh.fast.interval.ms", "100")
        .set("allow.auto.create.topics", "false");
    config
}

/// Counts failed deliveries: an idempotent producer that retries without end must have none.
#[derive(Clone, Default)]
struct Failures(Arc<AtomicU64>);

impl ClientContext for Failures {}

impl ProducerContext for Failures {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if result.is_err() {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Writes the entries of a plan, partition by partition in turns, at a steady rate, until it is told to stop.
pub struct Loader {
    thread: JoinHandle<Result<u64>>,
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
}

/// What a loader writes, and how fast.
#[derive(Debug, Clone)]
pub struct Load {
    pub bootstrap: String,
    pub topic: String,
    pub plan: Plan,
    /// The place of the first one in each partition.
    pub first: u64,
    /// Entries of each partition at least, those before the first included.
    pub entries: u64,
    /// Of all partitions together.
    pub per_second: u64,
}

impl Loader {
    pub fn start(load: Load) -> Self {
        let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopped, counted) = (Arc::clone(&stop), Arc::clone(&sent));
        Self { thread: thread::spawn(move || load.run(&stopped, &counted)), stop, sent }
    }

    /// How many entries of each partition may have been written by now; none beyond them has.
    pub fn sent(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.sent)
    }

    /// Has it end after the entries that it must write, and gives how many are in each partition.
    ///
    /// # Errors
    /// When a record could not be written.
    pub fn finish(self) -> Result<u64> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| anyhow!("the loader panicked"))?
    }
}

impl Load {
    fn run(&self, stop: &AtomicBool, sent: &AtomicU64) -> Result<u64> {
        const TURN: Duration = Duration::from_millis(20);
        let failures = Failures::default();
        let mut config = config(&self.bootstrap);
        config.set("enable.idempotence", "true").set("linger.ms", "5").set("message.timeout.ms", "0");
        let producer: ThreadedProducer<Failures> = config.create_with_context(failures.clone())?;
        let started = Instant::now();
        let mut seq = self.first;
        let more = |seq| seq < self.entries || !stop.load(Ordering::Relaxed);
        while more(seq) {
            let due = started.elapsed().as_secs_f64() * self.per_second as f64 / f64::from(self.plan.partitions);
            while more(seq) && ((seq - self.first) as f64) < due {
                sent.store(seq + 1, Ordering::SeqCst);
                (0..self.plan.partitions).try_for_each(|partition| self.send(&producer, partition, seq))?;
                seq += 1;
            }
            thread::sleep(TURN);
        }
        producer.flush(PATIENCE).context("the loader's last records")?;
        let failed = failures.0.load(Ordering::Relaxed);
        ensure!(failed == 0, "{failed} entries could not be written");
        Ok(seq)
    }

    fn send(&self, producer: &ThreadedProducer<Failures>, partition: u32, seq: u64) -> Result<()> {
        let entry = self.plan.entry(partition, seq);
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).context("the clock is before 1970")?;
        let input = Input { partition, seq, timestamp: i64::try_from(now.as_millis())?, entry };
        let (key, value, place) = (entry.key.text(), input.value(), input.place());
        let headers = OwnedHeaders::new().insert(Header { key: PLACE_HEADER, value: Some(&place) });
        let mut record = BaseRecord::to(&self.topic)
            .partition(i32::try_from(partition)?)
            .key(key.as_bytes())
            .payload(&value[..])
            .timestamp(input.timestamp)
            .headers(headers);
        loop {
            match producer.send(record) {
                Ok(()) => return Ok(()),
                // The broker is away: the queue is full until it is back.
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => record = back,
                Err((error, _)) => return Err(error).context("send an entry"),
            }
            thread::sleep(Duration::from_millis(5));
        }
    }
}

/// A consumer outside of any group, of all partitions of some topics from their beginning.
pub struct Reader {
    consumer: BaseConsumer,
    topics: Vec<String>,
    partitions: u32,
    deadline: Option<Instant>,
}

impl Reader {
    /// # Errors
    /// When the client cannot be made.
    pub fn new(bootstrap: &str, topics: &[String], partitions: u32) -> Result<Self> {
        let consumer: BaseConsumer = config(bootstrap)
            .set("group.id", "chaos-reader")
            .set("isolation.level", "read_committed")
            .set("enable.auto.commit", "false")
            .set("auto.offset.reset", "error")
            .set("fetch.wait.max.ms", "50")
            .create()
            .context("create a reader")?;
        let mut list = TopicPartitionList::new();
        for topic in topics {
            for partition in 0..i32::try_from(partitions)? {
                list.add_partition_offset(topic, partition, Offset::Offset(0))?;
            }
        }
        consumer.assign(&list)?;
        Ok(Self { consumer, topics: topics.to_vec(), partitions, deadline: None })
    }

    /// Passes on what has come, for about `time`: the index of its topic and the record.
    ///
    /// # Errors
    /// What the visitor returned, or an error of the client other than that the broker is away.
    pub fn read(&self, time: Duration, mut visit: impl FnMut(usize, &BorrowedMessage<'_>) -> Result<()>) -> Result<()> {
        let until = Instant::now() + time;
        loop {
            let rest = until.saturating_duration_since(Instant::now());
            match self.consumer.poll(rest) {
                None if rest.is_zero() => return Ok(()),
                None => {}
                Some(Ok(record)) => {
                    let topic = self.topics.iter().position(|topic| topic == record.topic());
                    visit(topic.context("a record of another topic")?, &record)?;
                }
                Some(Err(error)) if is_away(&error) => {}
                Some(Err(error)) => return Err(error).context("read"),
            }
            if rest.is_zero() {
                return Ok(());
            }
        }
    }

    /// Reads until the positions have passed the log ends, which open transactions can prevent.
    ///
    /// # Errors
    /// As `read`, or after two minutes without success.
    pub fn read_to_end(
        &mut self,
        ends: &[LogEnd],
        mut visit: impl FnMut(usize, &BorrowedMessage<'_>) -> Result<()>,
    ) -> Result<()> {
        let deadline = *self.deadline.get_or_insert_with(|| Instant::now() + 2 * PATIENCE);
        loop {
            let missing = self.behind(ends)?;
            let Some(missing) = missing else { return Ok(()) };
            if Instant::now() > deadline {
                bail!("the reader does not come to the end of {missing}");
            }
            self.read(Duration::from_millis(100), &mut visit)?;
        }
    }

    /// A partition that is not read to its end.
    fn behind(&self, ends: &[LogEnd]) -> Result<Option<String>> {
        let positions = self.consumer.position()?;
        for topic in &self.topics {
            for partition in 0..i32::try_from(self.partitions)? {
                let name = format!("{topic}-{partition}");
                let end = ends.iter().find(|end| end.partition == name).map_or(0, |end| end.last_stable);
                let at = positions.find_partition(topic, partition).and_then(|found| found.offset().to_raw());
                // A position is unset before the first record, which is right for an empty log only.
                if at.unwrap_or(0).max(0) < end {
                    return Ok(Some(name));
                }
            }
        }
        Ok(None)
    }
}

/// Errors that a client gets over by itself.
fn is_away(error: &KafkaError) -> bool {
    let codes = [
        RDKafkaErrorCode::BrokerTransportFailure,
        RDKafkaErrorCode::AllBrokersDown,
        RDKafkaErrorCode::Resolve,
        RDKafkaErrorCode::NotLeaderForPartition,
        RDKafkaErrorCode::LeaderNotAvailable,
        RDKafkaErrorCode::UnknownTopicOrPartition,
        RDKafkaErrorCode::OperationTimedOut,
    ];
    error.rdkafka_error_code().is_some_and(|code| codes.contains(&code))
}

/// A `read_committed` reader of the two outputs on a thread of its own; it reads while the campaign runs.
pub struct Witness {
    ends: Sender<Vec<LogEnd>>,
    thread: JoinHandle<Result<Seen>>,
}

/// What a witness saw: the outputs by topic and partition, and when something came from which input partition.
#[derive(Debug, Default)]
pub struct Seen {
    pub outputs: [Vec<Vec<Output>>; 2],
    /// Times since the start, to the millisecond and without repetition, by the entry's partition.
    pub arrivals_ms: Vec<Vec<u64>>,
}

impl Seen {
    pub fn new(partitions: u32) -> Self {
        let none = || vec![Vec::new(); partitions as usize];
        Self { outputs: [none(), none()], arrivals_ms: vec![Vec::new(); partitions as usize] }
    }

    /// # Errors
    /// When the record is no output.
    pub fn add(&mut self, topic: usize, record: &BorrowedMessage<'_>, at_ms: Option<u64>) -> Result<()> {
        let (key, value) = (record.key().unwrap_or_default(), record.payload().unwrap_or_default());
        let output = Output::parse(record.offset(), key, value)
            .with_context(|| format!("{}-{} offset {}", record.topic(), record.partition(), record.offset()))?;
        let partition = usize::try_from(record.partition())?;
        let place = self.outputs.get_mut(topic).and_then(|topic| topic.get_mut(partition));
        place.context("a partition that should not be there")?.push(output);
        if let (Some(at_ms), Some(times)) = (at_ms, self.arrivals_ms.get_mut(output.origin as usize))
            && times.last() != Some(&at_ms)
        {
            times.push(at_ms);
        }
        Ok(())
    }
}

impl Witness {
    /// Starts to read; times are counted from `started`.
    ///
    /// # Errors
    /// When the client cannot be made.
    pub fn start(bootstrap: &str, topics: &[String], partitions: u32, started: Instant) -> Result<Self> {
        let mut reader = Reader::new(bootstrap, topics, partitions)?;
        let (sender, receiver) = channel();
        let thread = thread::spawn(move || {
            let mut seen = Seen::new(partitions);
            let at_ms = || Some(u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX));
            loop {
                match receiver.try_recv() {
                    Ok(ends) => {
                        let ends: Vec<LogEnd> = ends;
                        reader.read_to_end(&ends, |topic, record| seen.add(topic, record, at_ms()))?;
                        return Ok(seen);
                    }
                    Err(TryRecvError::Disconnected) => return Ok(seen),
                    Err(TryRecvError::Empty) => {}
                }
                reader.read(Duration::from_millis(100), |topic, record| seen.add(topic, record, at_ms()))?;
            }
        });
        Ok(Self { ends: sender, thread })
    }

    /// Has it read to these ends, and gives what it saw.
    ///
    /// # Errors
    /// When it failed on the way, or does not come to the ends.
    pub fn finish(self, ends: &[LogEnd]) -> Result<Seen> {
        // It has ended early only with an error, which comes below.
        let _ = self.ends.send(ends.to_vec());
        self.thread.join().map_err(|_| anyhow!("the witness panicked"))?
    }
}

/// Where the partitions of topics end, for readers of committed records and in truth.
///
/// # Errors
/// When the broker does not answer.
pub fn log_ends(bootstrap: &str, topics: &[(String, u32)]) -> Result<Vec<LogEnd>> {
    let bounds = |isolation: &str| -> Result<BaseConsumer> {
        Ok(config(bootstrap).set("group.id", "chaos-ends").set("isolation.level", isolation).create()?)
    };
    let (committed, all) = (bounds("read_committed")?, bounds("read_uncommitted")?);
    let mut ends = Vec::new();
    for (topic, partitions) in topics {
        for partition in 0..i32::try_from(*partitions)? {
            let of = |consumer: &BaseConsumer| consumer.fetch_watermarks(topic, partition, PATIENCE);
            let last_stable = of(&committed).with_context(|| format!("ends of {topic}-{partition}"))?.1;
            let end = of(&all).with_context(|| format!("ends of {topic}-{partition}"))?.1;
            ends.push(LogEnd { partition: format!("{topic}-{partition}"), last_stable, end });
        }
    }
    Ok(ends)
}
