//! The versions' topic as a log that any host of the application reads and appends to. Appends are compare-and-set: the
//! transactional id of all writers is the same, so that the broker lets one of them through at a time and every other
//! one learns that it came too late. *Invariant: what a table shows is a whole transaction or nothing of it.* A failed
//! call leaves the table as it was, and the next one goes on. Retries nothing by itself and starts no thread.

use std::mem;
use std::slice;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use engine::broker::{
    BrokerError, BrokerErrorKind, ClientSupplier, Producer, ProducerRecord, RestoreConsumer, SendError,
};
use engine::clock::Clock;
use engine::record::{Offset, Record, TopicPartition};
use engine::topology::versions_topic;

use super::append::{AppendError, Entry, PlannedRecord, plan};
use super::digest::ModuleDigest;
use super::key::Key;
use super::modules::DamagedModule;
use super::table::{Revision, VersionTable};
use super::topic;

/// The place among the stream threads that the clients' names show.
const THREAD: usize = 1_001;
const POLL_TIMEOUT: Duration = Duration::from_millis(100);
const POLL_RECORDS: usize = 100;
/// Between two looks for what was just committed.
const OWN_WAIT: Duration = Duration::from_millis(2);
/// What goes into one batch at most, whatever the topic takes.
const BATCH_BYTES_MAX: usize = 900_000;
/// More than a record and its batch take beside key and value.
const RECORD_OVERHEAD_BYTES: usize = 200;

/// How a log is opened.
#[derive(Clone)]
pub struct VersionLogOptions {
    pub application_id: String,
    /// Of the topic, where it has to be created; -1 = the broker's default.
    pub replication_factor: i32,
    /// How long reading to the end, and each step of a transaction, may take.
    pub timeout: Duration,
    /// Stamps records.
    pub clock: Arc<dyn Clock>,
}

/// Why the versions could not be read.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    #[error(transparent)]
    Broker(#[from] BrokerError),
    #[error("topic {topic} cannot hold the versions of the application: {}", .faults.join("; "))]
    Topic { topic: String, faults: Vec<String> },
    #[error(
        "topic {topic} was deleted and created anew (topic id {known} before, {found} now), so it does not have the \
         versions that run; start the hosts again to deploy their modules anew"
    )]
    TopicChanged { topic: String, known: String, found: String },
    #[error(
        "topic {topic} was read to offset {read} and ends at {end}: it was deleted or lost records; start the hosts again \
         to deploy their modules anew"
    )]
    Regressed { topic: Arc<str>, read: Offset, end: Offset },
    #[error("topic {topic} was read to offset {read} only, of {end}, within {waited_ms} ms")]
    Stalled { topic: Arc<str>, read: Offset, end: Offset, waited_ms: u128 },
    #[error(transparent)]
    Module(#[from] DamagedModule),
}

impl LogError {
    /// Whether the same call may succeed later, as nothing is wrong but the broker or its network.
    pub fn is_retriable(&self) -> bool {
        match self {
            Self::Broker(error) => error.kind == BrokerErrorKind::Retriable,
            Self::Stalled { .. } => true,
            Self::Topic { .. } | Self::TopicChanged { .. } | Self::Regressed { .. } | Self::Module(_) => false,
        }
    }
}

/// The versions of an application.
pub struct VersionLog {
    clients: Arc<dyn ClientSupplier>,
    options: VersionLogOptions,
    partition: TopicPartition,
    topic_id: Option<String>,
    /// Made anew after a failure.
    consumer: Option<Box<dyn RestoreConsumer>>,
    /// Asks for the end of the topic, on connections of its own: what reads has a fetch waiting at the broker, which
    /// answers the requests of a connection one after the other.
    observer: Option<Box<dyn RestoreConsumer>>,
    /// The writer of the last append, and what the table was after it. As long as it is that, nobody else has written.
    writer: Option<(Revision, Box<dyn Producer>)>,
    /// The next offset to be read.
    position: Offset,
    /// What is read so far, which may be half of a transaction.
    reading: VersionTable,
    table: Arc<VersionTable>,
}

/// How far a transaction came that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// It was never asked to be committed, so it is not.
    Written,
    /// It may be.
    Committing,
}

impl VersionLog {
    /// Creates the topic where it is missing, verifies it, and reads it to its end.
    ///
    /// # Errors
    /// What is wrong with the topic, or why the broker could not be asked.
    pub fn open(clients: Arc<dyn ClientSupplier>, options: VersionLogOptions) -> Result<Self, LogError> {
        let name = versions_topic(&options.application_id);
        let found = topic::prepare(clients.admin()?.as_mut(), &name, options.replication_factor)?;
        let partition = TopicPartition::new(name, 0);
        let table = VersionTable::new(Arc::clone(&partition.topic));
        let mut log = Self {
            clients,
            options,
            partition,
            topic_id: found.id,
            consumer: None,
            observer: None,
            writer: None,
            position: 0,
            reading: table.clone(),
            table: Arc::new(table),
        };
        log.refresh()?;
        Ok(log)
    }

    /// The versions as of the last call that read. It can be kept and shared; it never changes.
    pub fn table(&self) -> &Arc<VersionTable> {
        &self.table
    }

    /// Reads what has been committed since, and says whether the table is another one now. Costs one request where
    /// nothing was.
    ///
    /// # Errors
    /// When it cannot be read to its end; the table is then the one before.
    pub fn refresh(&mut self) -> Result<bool, LogError> {
        self.read_on(&mut |_| {})
    }

    /// The bytes of a module, read from the topic and checked against its digest. Reads on before, so that it knows
    /// where the parts are.
    ///
    /// # Errors
    /// When the module is not there, is damaged, or cannot be read.
    pub fn module(&mut self, digest: &ModuleDigest) -> Result<Bytes, LogError> {
        self.refresh()?;
        let mut parts = self.table.module_parts(digest)?;
        let (first, end) = parts.range();
        let mut consumer = self.clients.restore_consumer(THREAD)?;
        consumer.assign(&self.partition, first)?;
        self.read(consumer.as_mut(), first, end, &mut |record| parts.take(record), &mut |_| {})?;
        Ok(parts.assemble()?)
    }

    /// Appends in one transaction, if the topic is still as it was at `expected`, which is the revision of the table by
    /// which the caller has decided. After it the table has what was written.
    ///
    /// # Errors
    /// `Conflict` when another host has written meanwhile; otherwise what is wrong with the entries, the topic or the
    /// broker. Nothing is written then, except perhaps with `Unknown`.
    pub fn append(&mut self, expected: Revision, entries: &[Entry]) -> Result<(), AppendError> {
        self.unchanged(expected)?;
        let mut admin = self.clients.admin().map_err(LogError::from)?;
        let topic = topic::check(admin.as_mut(), &self.partition.topic, self.topic_id.as_deref())?;
        // Before any other writer is fenced for it.
        let records = plan(&self.table, entries, topic.message_bytes_max)?;
        // Whoever writes has fenced this one before: it need not fence the others again while it can write itself.
        let mut producer = match self.writer.take() {
            Some((revision, producer)) if revision == expected => producer,
            _ => self.fencing_producer(expected)?,
        };
        self.refresh()?;
        self.unchanged(expected)?;
        let batch_bytes_max = topic.message_bytes_max.min(BATCH_BYTES_MAX);
        let written = self.write(producer.as_mut(), &records, batch_bytes_max);
        let writer = match written {
            Ok(()) => Some(producer),
            Err((stage, error)) => {
                self.settle(producer, stage, error, &records, expected)?;
                None
            }
        };
        match self.read_own(expected) {
            Ok(true) => self.writer = writer.map(|producer| (self.table.revision(), producer)),
            // The next append fences this writer, and so waits until its transaction has ended.
            Ok(false) => {}
            Err(error) => {
                tracing::warn!(topic = %self.partition.topic, %error, "the version is written, but cannot be read yet");
            }
        }
        Ok(())
    }

    /// Reads what was just committed. The broker answers that before readers may have it, and whoever decided by the
    /// table before that would decide by an old one. False when it does not come in time.
    fn read_own(&mut self, expected: Revision) -> Result<bool, LogError> {
        let deadline = Instant::now() + self.options.timeout;
        loop {
            self.refresh()?;
            if self.table.revision() != expected {
                return Ok(true);
            }
            if Instant::now() >= deadline {
                return Ok(false);
            }
            thread::sleep(OWN_WAIT);
        }
    }

    fn unchanged(&self, expected: Revision) -> Result<(), AppendError> {
        let found = self.table.revision();
        if found == expected { Ok(()) } else { Err(self.conflict(expected)) }
    }

    fn conflict(&self, expected: Revision) -> AppendError {
        AppendError::Conflict { topic: Arc::clone(&self.partition.topic), expected, found: self.table.revision() }
    }

    /// A producer that is the only one to write: the transaction of any other is committed or aborted when this
    /// returns, and none of theirs can be committed after it.
    fn fencing_producer(&mut self, expected: Revision) -> Result<Box<dyn Producer>, AppendError> {
        let id = &*self.partition.topic;
        let mut producer = self.clients.producer(THREAD, Some(id)).map_err(LogError::from)?;
        match producer.init_transactions(self.options.timeout) {
            Ok(()) => Ok(producer),
            Err(error) if error.kind == BrokerErrorKind::Fenced => {
                self.refresh()?;
                Err(self.conflict(expected))
            }
            Err(error) => Err(LogError::from(error).into()),
        }
    }

    fn write(
        &self,
        producer: &mut dyn Producer,
        records: &[PlannedRecord],
        batch_bytes_max: usize,
    ) -> Result<(), (Stage, BrokerError)> {
        let written = |error| (Stage::Written, error);
        producer.begin_transaction().map_err(written)?;
        let mut waiting_bytes = 0;
        for record in records {
            let key = record.key.to_string();
            let bytes = key.len() + record.value.as_ref().map_or(0, Bytes::len) + RECORD_OVERHEAD_BYTES;
            // Two records that the topic takes one by one may not fit together.
            if waiting_bytes > 0 && waiting_bytes + bytes > batch_bytes_max {
                producer.flush(self.options.timeout).map_err(written)?;
                waiting_bytes = 0;
            }
            self.send(producer, &key, record.value.as_deref()).map_err(written)?;
            waiting_bytes += bytes;
        }
        producer.flush(self.options.timeout).map_err(written)?;
        producer.commit_transaction(self.options.timeout).map_err(|error| (Stage::Committing, error))
    }

    fn send(&self, producer: &mut dyn Producer, key: &str, value: Option<&[u8]>) -> Result<(), BrokerError> {
        let record = ProducerRecord {
            topic: &self.partition.topic,
            partition: Some(self.partition.partition),
            timestamp: self.options.clock.wall_clock_ms(),
            key: Some(key.as_bytes()),
            value,
            headers: &[],
        };
        match producer.send(record) {
            Ok(()) => Ok(()),
            Err(SendError::Failed(error)) => Err(error),
            Err(SendError::QueueFull) => {
                producer.flush(self.options.timeout)?;
                producer.send(record).map_err(|error| match error {
                    SendError::Failed(error) => error,
                    SendError::QueueFull => {
                        let operation = format!("send to {}", record.topic);
                        BrokerError::new(BrokerErrorKind::Retriable, operation, "the producer's queue stays full")
                    }
                })
            }
        }
    }

    /// Finds out what became of a transaction that failed: `Ok` where it was committed all the same.
    fn settle(
        &mut self,
        mut producer: Box<dyn Producer>,
        stage: Stage,
        error: BrokerError,
        records: &[PlannedRecord],
        expected: Revision,
    ) -> Result<(), AppendError> {
        let fenced = error.kind == BrokerErrorKind::Fenced;
        if stage == Stage::Written && !fenced {
            // The next writer aborts it where this does not.
            if let Err(failed) = producer.abort_transaction(self.options.timeout) {
                tracing::debug!(topic = %self.partition.topic, error = %failed, "abort of a failed transaction");
            }
        }
        drop(producer);
        let unknown =
            |detail: BrokerError| AppendError::Unknown { topic: Arc::clone(&self.partition.topic), error: detail };
        // Whoever has fenced this writer has waited for the end of its transaction; otherwise that is done here.
        if stage == Stage::Committing && !fenced {
            let again = self.clients.producer(THREAD, Some(&*self.partition.topic));
            let ended = again.and_then(|mut producer| producer.init_transactions(self.options.timeout));
            ended.map_err(unknown)?;
        }
        let mut missing: Vec<&PlannedRecord> = records.iter().filter(|record| is_document(record)).collect();
        let looked = self.read_on(&mut |record| missing.retain(|one| !is_of(one, record)));
        match looked {
            Ok(_) if stage == Stage::Committing && missing.is_empty() => Ok(()),
            Ok(_) if fenced || self.table.revision() != expected => Err(self.conflict(expected)),
            Err(_) if stage == Stage::Committing => {
                Err(AppendError::Unknown { topic: Arc::clone(&self.partition.topic), error })
            }
            Ok(_) | Err(_) => Err(LogError::from(error).into()),
        }
    }

    /// Reads to the end of what is committed, and shows the table there.
    fn read_on(&mut self, seen: &mut dyn FnMut(&Record)) -> Result<bool, LogError> {
        let mut consumer = match self.consumer.take() {
            Some(consumer) => consumer,
            None => self.assigned_consumer()?,
        };
        let mut observer = match self.observer.take() {
            Some(observer) => observer,
            None => self.clients.restore_consumer(THREAD)?,
        };
        loop {
            let ends = observer.stable_ends(slice::from_ref(&self.partition))?;
            let end = ends.first().copied().unwrap_or(self.position);
            if end < self.position {
                let topic = Arc::clone(&self.partition.topic);
                return Err(LogError::Regressed { topic, read: self.position, end });
            }
            if end == self.position {
                break;
            }
            // Beyond the end there may be a part of the next transaction, so that its end is asked for then.
            self.read_to(consumer.as_mut(), end, seen)?;
        }
        (self.consumer, self.observer) = (Some(consumer), Some(observer));
        if self.reading.revision() == self.table.revision() {
            return Ok(false);
        }
        self.table = Arc::new(self.reading.clone());
        for problem in self.table.problems() {
            tracing::warn!(%problem, "a record of the versions makes no sense; the host goes on with what it has");
        }
        Ok(true)
    }

    /// Reads to this offset at least, or says what has failed after it kept what came before.
    fn read_to(
        &mut self,
        consumer: &mut dyn RestoreConsumer,
        end: Offset,
        seen: &mut dyn FnMut(&Record),
    ) -> Result<(), LogError> {
        let empty = VersionTable::new(Arc::clone(&self.partition.topic));
        let (mut reading, mut position) = (mem::replace(&mut self.reading, empty), self.position);
        let mut take = |record: &Record| {
            seen(record);
            reading.apply(record);
        };
        let read = self.read(consumer, self.position, end, &mut take, &mut |next| position = next);
        (self.reading, self.position) = (reading, position);
        read
    }

    /// A consumer that goes on where the last one was.
    fn assigned_consumer(&mut self) -> Result<Box<dyn RestoreConsumer>, LogError> {
        let mut consumer = self.clients.restore_consumer(THREAD)?;
        let bounds = consumer.watermarks(slice::from_ref(&self.partition))?;
        // What somebody has deleted at the beginning is gone for everybody.
        let low = bounds.first().map_or(0, |bounds| bounds.low);
        self.position = self.position.max(low);
        consumer.assign(&self.partition, self.position)?;
        Ok(consumer)
    }

    /// Reads from one offset to before another. `reached` learns the next offset after each step.
    fn read(
        &self,
        consumer: &mut dyn RestoreConsumer,
        first: Offset,
        end: Offset,
        take: &mut dyn FnMut(&Record),
        reached: &mut dyn FnMut(Offset),
    ) -> Result<(), LogError> {
        let started = Instant::now();
        let mut position = first;
        while position < end {
            for record in consumer.poll(POLL_TIMEOUT, POLL_RECORDS)?.iter().flat_map(|polled| &polled.records) {
                // A reader that was made anew may begin before what it was asked for.
                if record.offset >= position {
                    take(record);
                    position = record.offset + 1;
                    reached(position);
                }
            }
            // Past markers of transactions, and records that were aborted or compacted away.
            position = position.max(consumer.position(&self.partition)?.unwrap_or(position));
            reached(position);
            if position < end && started.elapsed() >= self.options.timeout {
                let (topic, waited_ms) = (Arc::clone(&self.partition.topic), started.elapsed().as_millis());
                return Err(LogError::Stalled { topic, read: position, end, waited_ms });
            }
        }
        Ok(())
    }
}

/// Whether a record tells a transaction from others: parts of a module are the same whoever writes them.
fn is_document(record: &PlannedRecord) -> bool {
    matches!(record.key, Key::Version(_) | Key::Active)
}

fn is_of(planned: &PlannedRecord, record: &Record) -> bool {
    record.key.as_deref() == Some(planned.key.to_string().as_bytes()) && record.value == planned.value
}

#[cfg(test)]
mod tests;
