//! `ChangeReader`: the thread of a subscription. Reads a changelog over all partitions from a position on, and sends
//! what is of interest as text. It goes only as fast as the client takes it, ends when the client is gone or takes
//! nothing for a minute, and ends with the host at once.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use axum::body::Bytes;
use axum::http::StatusCode;
use bytes::BytesMut;
use engine::broker::{BrokerError, BrokerErrorKind, ClientSupplier, PartitionRecords, RestoreConsumer};
use engine::record::{Offset, Record, TopicPartition};
use tokio::sync::mpsc::Sender;
use tokio::sync::mpsc::error::TrySendError;

use super::position::write_from;
use super::text::Change;
use super::{Start, Subscription};
use crate::rest::Problem;
use crate::runtime::stop::Stop;

/// So often a client hears something, whether there are changes or not.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(10);
/// A client that takes nothing for so long is given up. It can go on from its last position.
const STALL_LIMIT: Duration = Duration::from_secs(60);
/// How long the thread waits for changes before it looks whether anybody still listens.
const POLL_TIMEOUT: Duration = Duration::from_millis(100);
const POLL_RECORDS: usize = 500;
/// Between two tries of what did not work, or has no space.
const PAUSE: Duration = Duration::from_millis(20);
/// A piece of the answer is sent when it is that large, or when nothing more is there.
pub const CHUNK_BYTES: usize = 64 << 10;

/// There is nobody any more to send to.
#[derive(Debug)]
pub struct Ended;

/// Where the pieces of an answer go.
pub struct Outlet {
    sender: Sender<Bytes>,
    stop: Stop,
    stall_limit: Duration,
}

impl Outlet {
    pub fn new(sender: Sender<Bytes>, stop: Stop) -> Self {
        Self::with_stall_limit(sender, stop, STALL_LIMIT)
    }

    pub(super) fn with_stall_limit(sender: Sender<Bytes>, stop: Stop, stall_limit: Duration) -> Self {
        Self { sender, stop, stall_limit }
    }

    fn is_over(&self) -> bool {
        self.stop.is_raised() || self.sender.is_closed()
    }

    /// Waits for space.
    pub(super) fn send(&self, chunk: Bytes) -> Result<(), Ended> {
        let since = Instant::now();
        let mut chunk = chunk;
        loop {
            match self.sender.try_send(chunk) {
                Ok(()) => return Ok(()),
                Err(TrySendError::Closed(_)) => return Err(Ended),
                Err(TrySendError::Full(_)) if since.elapsed() >= self.stall_limit => {
                    tracing::info!(limit_s = self.stall_limit.as_secs(), "a subscriber takes nothing and is cut off");
                    return Err(Ended);
                }
                Err(TrySendError::Full(back)) => chunk = back,
            }
            if self.stop.wait(PAUSE) {
                return Err(Ended);
            }
        }
    }
}

/// See the module's head.
pub struct ChangeReader {
    consumer: Box<dyn RestoreConsumer>,
    subscription: Subscription,
    /// The offset of the next change of each partition.
    offsets: BTreeMap<i32, Offset>,
}

impl ChangeReader {
    /// Begins to read where the subscription says.
    ///
    /// # Errors
    /// When the changelog cannot be read, or not from there any more.
    pub fn open(clients: &dyn ClientSupplier, number: usize, subscription: Subscription) -> Result<Self, Problem> {
        let unavailable = |error: BrokerError| problem_of(&error);
        let mut consumer = clients.subscription_consumer(number).map_err(unavailable)?;
        let offsets = starts(&mut *consumer, &subscription)?;
        for (&partition, &offset) in &offsets {
            let source = TopicPartition { topic: subscription.topic.clone(), partition };
            consumer.assign(&source, offset).map_err(unavailable)?;
        }
        Ok(Self { consumer, subscription, offsets })
    }

    /// Reads until nobody listens, the host stops or the changelog cannot be read any more; the last is told.
    pub fn run(mut self, outlet: Outlet) {
        let ended = self.follow(&outlet);
        if let Err(Some(problem)) = ended {
            let mut out = BytesMut::new();
            self.subscription.text.problem(&mut out, &problem);
            // Where nobody listens nobody has to be told.
            let _ = outlet.send(out.freeze());
        }
        // The answer ends here; to close the broker's client may take longer.
        drop(outlet);
    }

    fn follow(&mut self, outlet: &Outlet) -> Result<(), Option<Problem>> {
        let mut heartbeat = Instant::now();
        while !outlet.is_over() {
            if Instant::now() >= heartbeat {
                let mut out = BytesMut::new();
                self.subscription.text.heartbeat(&mut out, &write_from(&self.offsets));
                outlet.send(out.freeze()).map_err(|Ended| None)?;
                heartbeat = Instant::now() + HEARTBEAT_INTERVAL;
            }
            match self.consumer.poll(POLL_TIMEOUT, POLL_RECORDS) {
                Ok(groups) if groups.is_empty() => {}
                Ok(groups) => self.send(groups, outlet)?,
                // What was read stays read, so it goes on without a gap when the broker is back.
                Err(error) if error.kind == BrokerErrorKind::Retriable => std::thread::sleep(PAUSE),
                Err(error) => return Err(Some(problem_of(&error))),
            }
        }
        Ok(())
    }

    /// Sends the changes among these records. Nothing is sent of a change that cannot be shown, nor after it.
    fn send(&mut self, groups: Vec<PartitionRecords>, outlet: &Outlet) -> Result<(), Option<Problem>> {
        let mut out = BytesMut::new();
        let mut shown = Ok(());
        'groups: for group in groups {
            for record in group.records {
                shown = self.show(group.partition.partition, &record, &mut out);
                if shown.is_err() {
                    break 'groups;
                }
                if out.len() >= CHUNK_BYTES {
                    outlet.send(out.split().freeze()).map_err(|Ended| None)?;
                }
            }
        }
        if !out.is_empty() {
            outlet.send(out.freeze()).map_err(|Ended| None)?;
        }
        shown.map_err(Some)
    }

    fn show(&mut self, partition: i32, record: &Record, out: &mut BytesMut) -> Result<(), Problem> {
        let Subscription { filter, formats, text, .. } = &self.subscription;
        // A record without a key is of nobody who writes changelogs, and no change.
        if let Some(key) = record.key.as_deref().filter(|key| filter.takes(key)) {
            let value = record.value.as_deref().map(|value| formats.show("value", formats.value, value)).transpose();
            let change = Change {
                partition,
                offset: record.offset,
                key: formats.show("key", formats.key, key)?,
                value: value?,
                timestamp: record.timestamp,
            };
            self.offsets.insert(partition, record.offset + 1);
            return text.change(out, &change, &write_from(&self.offsets));
        }
        self.offsets.insert(partition, record.offset + 1);
        Ok(())
    }
}

/// The offset from which each partition is read.
fn starts(consumer: &mut dyn RestoreConsumer, subscription: &Subscription) -> Result<BTreeMap<i32, Offset>, Problem> {
    let source = |partition| TopicPartition { topic: subscription.topic.clone(), partition };
    let sources: Vec<TopicPartition> = (0..subscription.partitions).map(source).collect();
    let bounds = consumer.watermarks(&sources).map_err(|error| problem_of(&error))?;
    let ends = match subscription.start {
        Start::Beginning => Vec::new(),
        Start::End | Start::Position(_) => consumer.stable_ends(&sources).map_err(|error| problem_of(&error))?,
    };
    let mut starts = BTreeMap::new();
    for (index, (source, bounds)) in sources.iter().zip(&bounds).enumerate() {
        let end = ends.get(index).copied().unwrap_or(bounds.low);
        let start = match &subscription.start {
            Start::Beginning => bounds.low,
            Start::End => end,
            Start::Position(offsets) => match offsets.get(&source.partition) {
                None => end,
                Some(&offset) if (bounds.low..=bounds.high).contains(&offset) => offset,
                Some(&offset) => {
                    return Err(expired(format!(
                        "{source} holds the offsets {} to {}, and the position says {offset}; read the store anew and \
                         subscribe from there",
                        bounds.low, bounds.high
                    )));
                }
            },
        };
        starts.insert(source.partition, start);
    }
    Ok(starts)
}

fn expired(detail: String) -> Problem {
    Problem::new(StatusCode::GONE, "position-expired", "the changelog does not hold the position any more", detail)
}

fn problem_of(error: &BrokerError) -> Problem {
    match error.kind {
        BrokerErrorKind::OffsetOutOfRange => expired(error.to_string()),
        _ => Problem::unavailable("changelog-unavailable", "the changelog cannot be read", error.to_string()),
    }
}
