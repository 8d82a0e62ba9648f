//! Writes of REST clients on their way to source topics: one thread with one idempotent producer for all of them,
//! acknowledged by all replicas. What waits is sent together and waited for together. A write whose acknowledgement did
//! not come is told as unknown, never as failed or done: the broker may have it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use engine::broker::{BrokerError, BrokerErrorKind, ClientSupplier, Producer, ProducerRecord, SendError};
use engine::record::{Header, Offset, Timestamp, TopicPartition};
use tokio::sync::oneshot;

use super::spawn::spawn;
use super::stop::Stop;

/// Requests that may wait for the thread, and the bytes of their records.
const WAITING_MAX: usize = 4_096;
const WAITING_BYTES_MAX: usize = 64 << 20;
/// Requests that are sent together.
const TOGETHER_MAX: usize = 1_000;
/// Between two looks at the wish to stop.
const IDLE: Duration = Duration::from_millis(50);
/// How long a request may wait before it is sent, and acknowledgements may take: together less than an answer may.
const WAIT_TIMEOUT: Duration = Duration::from_secs(8);
const FLUSH_TIMEOUT: Duration = Duration::from_secs(10);
const STACK_BYTES: usize = 1 << 20;
/// The place among the stream threads that the producer's name shows.
const THREAD: usize = 1_000;

/// One record to write.
#[derive(Debug, Clone)]
pub struct WriteRecord {
    pub topic: Arc<str>,
    pub partition: i32,
    pub timestamp: Timestamp,
    pub key: Vec<u8>,
    /// `None` deletes.
    pub value: Option<Vec<u8>>,
    pub headers: Vec<Header>,
}

impl WriteRecord {
    /// About as many as it takes on its way and in the log.
    pub fn bytes(&self) -> usize {
        const AROUND: usize = 70;
        let header = |header: &Header| header.key.len() + header.value.as_ref().map_or(0, |value| value.len()) + 4;
        AROUND
            + self.key.len()
            + self.value.as_ref().map_or(0, Vec::len)
            + self.headers.iter().map(header).sum::<usize>()
    }
}

/// For each partition that was written, an offset that follows the records.
pub type Written = BTreeMap<TopicPartition, Offset>;

/// Why records were not written, or may not have been.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// The records will never be taken as they are.
    #[error("{0}")]
    Refused(String),
    /// Nothing was sent.
    #[error("{0}")]
    Unavailable(String),
    /// The broker may have the records or not.
    #[error("{0}; whether the write was taken is not known")]
    Unknown(String),
}

struct Job {
    records: Vec<WriteRecord>,
    /// Nobody waits for it any more from then on, so that it must not be sent.
    expires: Instant,
    /// Gives the bytes back.
    held: Held,
    done: oneshot::Sender<Result<Written, WriteError>>,
}

/// The way to the thread.
pub struct Writer {
    jobs: SyncSender<Job>,
    waiting_bytes: Arc<AtomicUsize>,
}

/// Bytes that wait.
struct Held {
    bytes: usize,
    of: Arc<AtomicUsize>,
}

impl Held {
    fn new(bytes: usize, of: &Arc<AtomicUsize>) -> Option<Self> {
        let held = Self { bytes, of: Arc::clone(of) };
        // Dropping it takes them off again.
        (of.fetch_add(bytes, Ordering::Relaxed) + bytes <= WAITING_BYTES_MAX).then_some(held)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.of.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl Writer {
    /// Starts the thread; it ends with the wish to stop.
    ///
    /// # Errors
    /// When the machine gives no thread.
    pub fn start(clients: Arc<dyn ClientSupplier>, stop: &Stop) -> Result<Self> {
        let (jobs, waiting) = sync_channel(WAITING_MAX);
        let stop = stop.clone();
        let writing = move || run(&*clients, &waiting, &stop);
        spawn("rest-writer", STACK_BYTES, writing).context("cannot start the thread of REST writes")?;
        Ok(Self { jobs, waiting_bytes: Arc::default() })
    }

    /// Writes records and waits for their acknowledgement.
    ///
    /// # Errors
    /// Whether they were refused, not sent, or may have been written.
    pub async fn write(&self, records: Vec<WriteRecord>) -> Result<Written, WriteError> {
        let (done, outcome) = oneshot::channel();
        let bytes = records.iter().map(WriteRecord::bytes).sum();
        let held = Held::new(bytes, &self.waiting_bytes)
            .ok_or_else(|| WriteError::Unavailable(format!("{WAITING_BYTES_MAX} bytes are waiting already")))?;
        let job = Job { records, expires: Instant::now() + WAIT_TIMEOUT, held, done };
        self.jobs.try_send(job).map_err(|error| match error {
            TrySendError::Full(_) => WriteError::Unavailable(format!("{WAITING_MAX} writes are waiting already")),
            TrySendError::Disconnected(_) => WriteError::Unavailable("the host is stopping".to_owned()),
        })?;
        outcome.await.unwrap_or_else(|_| Err(WriteError::Unknown("the host is stopping".to_owned())))
    }
}

fn run(clients: &dyn ClientSupplier, waiting: &Receiver<Job>, stop: &Stop) {
    let mut producer: Option<Box<dyn Producer>> = None;
    while !stop.is_raised() {
        let first = match waiting.recv_timeout(IDLE) {
            Ok(job) => job,
            Err(RecvTimeoutError::Timeout) => continue,
            Err(RecvTimeoutError::Disconnected) => return,
        };
        let mut jobs = vec![first];
        jobs.extend(waiting.try_iter().take(TOGETHER_MAX - 1));
        let mut made = match producer.take() {
            Some(producer) => producer,
            None => match clients.producer(THREAD, None) {
                Ok(producer) => producer,
                Err(error) => {
                    let error = WriteError::Unavailable(error.to_string());
                    jobs.into_iter().for_each(|job| tell(job.done, Err(error.clone())));
                    continue;
                }
            },
        };
        // A producer in doubt is not used again.
        if write(&mut *made, jobs) {
            producer = Some(made);
        }
    }
}

/// Nobody listens any more where the client has gone.
fn tell(done: oneshot::Sender<Result<Written, WriteError>>, outcome: Result<Written, WriteError>) {
    let _ = done.send(outcome);
}

/// Sends jobs together; false when the producer is in doubt.
fn write(producer: &mut dyn Producer, jobs: Vec<Job>) -> bool {
    let deadline = Instant::now() + FLUSH_TIMEOUT;
    let mut sent = Vec::new();
    let mut fault: Option<BrokerError> = None;
    let mut held = Vec::new();
    for Job { records, expires, held: bytes, done } in jobs {
        if expires <= Instant::now() {
            tell(done, Err(WriteError::Unavailable("the broker is too slow for so many writes".to_owned())));
            continue;
        }
        if let Some(fault) = &fault {
            tell(done, Err(WriteError::Unavailable(fault.to_string())));
            continue;
        }
        match records.iter().try_for_each(|record| send(producer, record, deadline)) {
            Ok(()) => {
                held.push(bytes);
                sent.push((records, done));
            }
            // Only the record is at fault, and those after it are as good as before.
            Err(error) if error.kind == BrokerErrorKind::Rejected && records.len() == 1 => {
                tell(done, Err(WriteError::Refused(error.to_string())));
            }
            Err(error) => {
                tell(done, Err(WriteError::Unknown(error.to_string())));
                fault = Some(error);
            }
        }
    }
    let left = deadline.saturating_duration_since(Instant::now());
    let outcome = producer.flush(left).and_then(|()| producer.poll(Duration::ZERO));
    let acknowledged = producer.take_acknowledged();
    for (records, done) in sent {
        let outcome = match &outcome {
            Ok(()) => written(&records, &acknowledged),
            Err(error) => Err(WriteError::Unknown(error.to_string())),
        };
        tell(done, outcome);
    }
    fault.is_none() && outcome.is_ok()
}

fn send(producer: &mut dyn Producer, record: &WriteRecord, deadline: Instant) -> Result<(), BrokerError> {
    loop {
        let sending = ProducerRecord {
            topic: &record.topic,
            partition: Some(record.partition),
            timestamp: record.timestamp,
            key: Some(&record.key),
            value: record.value.as_deref(),
            headers: &record.headers,
        };
        match producer.send(sending) {
            Ok(()) => return Ok(()),
            Err(SendError::Failed(error)) => return Err(error),
            Err(SendError::QueueFull) if Instant::now() < deadline => producer.poll(Duration::from_millis(10))?,
            Err(SendError::QueueFull) => {
                let operation = format!("send to {}-{}", record.topic, record.partition);
                return Err(BrokerError::new(BrokerErrorKind::Retriable, operation, "the producer's queue stays full"));
            }
        }
    }
}

/// The offset that follows the last record of the partition that was sent together with these.
fn written(records: &[WriteRecord], acknowledged: &BTreeMap<TopicPartition, Offset>) -> Result<Written, WriteError> {
    let offset = |record: &WriteRecord| {
        let partition = TopicPartition::new(Arc::clone(&record.topic), record.partition);
        match acknowledged.get(&partition) {
            Some(offset) => Ok((partition, offset + 1)),
            None => Err(WriteError::Unknown(format!("no record of {partition} was acknowledged"))),
        }
    };
    records.iter().map(offset).collect()
}

#[cfg(test)]
mod tests;
