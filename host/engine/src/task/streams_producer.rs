//! The producer of a stream thread with what its tasks must not repeat: when a transaction begins, which offsets were
//! acknowledged, and when everything sent has arrived (Kafka Streams' `StreamsProducer`). Any failed delivery is
//! reported as doubt, whatever the client calls it.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::broker::{
    BrokerError, BrokerErrorKind, GroupMetadata, OffsetAndMetadata, Producer, ProducerRecord, SendError,
};
use crate::record::{Offset, Timestamp, TopicPartition};

/// Owns the producer and the state of its transaction.
pub struct StreamsProducer {
    producer: Box<dyn Producer>,
    transactional: bool,
    in_transaction: bool,
    /// The time of the thread's turn, and of the one in which the latest transaction began: monotonic and wall clock.
    now_ms: (u64, Timestamp),
    began_ms: (u64, Timestamp),
    /// The open transaction, or what is on its way without one, has work of a task that was closed dirty.
    abandoned: bool,
    /// The highest acknowledged offset of each partition since the last commit of its task.
    acknowledged: BTreeMap<TopicPartition, Offset>,
    pub records_sent: u64,
}

/// A delivery that failed leaves a hole, so trying the same producer again is never right (R5, T4). A client that can
/// do nothing more is no reason to stop either: a new one goes on from the last commit.
fn in_doubt(mut error: BrokerError) -> BrokerError {
    if matches!(error.kind, BrokerErrorKind::Retriable | BrokerErrorKind::Rebalanced | BrokerErrorKind::Fatal) {
        error.kind = BrokerErrorKind::Abortable;
    }
    error
}

impl StreamsProducer {
    /// Takes a producer; under exactly-once its transactions are initialised already.
    pub fn new(producer: Box<dyn Producer>, transactional: bool) -> Self {
        Self {
            producer,
            transactional,
            in_transaction: false,
            now_ms: (0, 0),
            began_ms: (0, 0),
            abandoned: false,
            acknowledged: BTreeMap::new(),
            records_sent: 0,
        }
    }

    /// Tells it the time, monotonic and by the wall clock.
    pub fn set_now(&mut self, now_ms: u64, wall_clock_ms: Timestamp) {
        self.now_ms = (now_ms, wall_clock_ms);
    }

    /// How old the open transaction is, if there is one, by the clock on which it is older: the monotonic one stands
    /// still while the machine sleeps, and the broker's goes on.
    pub fn transaction_age_ms(&self, now_ms: u64, wall_clock_ms: Timestamp) -> Option<u64> {
        let (began_ms, began_wall_clock_ms) = self.began_ms;
        let by_wall_clock_ms = wall_clock_ms.saturating_sub(began_wall_clock_ms).max(0).unsigned_abs();
        self.in_transaction.then(|| now_ms.saturating_sub(began_ms).max(by_wall_clock_ms))
    }

    /// Sends a record, in a transaction where the guarantee asks for one.
    pub fn send(&mut self, record: ProducerRecord<'_>) -> Result<(), SendError> {
        self.begin()?;
        match self.producer.send(record) {
            Ok(()) => {
                self.records_sent += 1;
                Ok(())
            }
            Err(SendError::QueueFull) => Err(SendError::QueueFull),
            Err(SendError::Failed(error)) => Err(SendError::Failed(in_doubt(error))),
        }
    }

    /// Sees to it that the open transaction is never committed: what a task that is closed dirty has sent is in it, and
    /// its offsets are not. Without transactions it is what is still on its way, and would reach a changelog behind the
    /// back of the task's next owner, who has read that to its end. From here on every call says that the producer must
    /// be made anew (R5).
    pub fn abandon(&mut self) {
        self.abandoned |= if self.transactional { self.in_transaction } else { self.producer.in_flight() > 0 };
    }

    /// Fails where the producer must be made anew before partitions go to somebody else, who may begin to write at
    /// once.
    pub fn check_before_unassign(&self) -> Result<(), BrokerError> {
        if self.transactional { Ok(()) } else { self.check_abandoned() }
    }

    /// Fails once `abandon` has found something.
    pub fn check_abandoned(&self) -> Result<(), BrokerError> {
        if !self.abandoned {
            return Ok(());
        }
        let (what, detail) = if self.transactional {
            ("go on with the transaction", "it has work of a task that was dropped")
        } else {
            ("go on with the producer", "it sends work of a task that was dropped")
        };
        Err(BrokerError::new(BrokerErrorKind::Abortable, what, detail))
    }

    fn begin(&mut self) -> Result<(), BrokerError> {
        self.check_abandoned()?;
        if self.transactional && !self.in_transaction {
            self.producer.begin_transaction()?;
            self.in_transaction = true;
            self.began_ms = self.now_ms;
        }
        Ok(())
    }

    /// Serves delivery reports. An error is doubt.
    pub fn poll(&mut self, timeout: Duration) -> Result<(), BrokerError> {
        self.serve(timeout)?;
        self.check_abandoned()
    }

    /// As `poll`, and without a word on what a dropped task has left: the consumer is asked first why it was dropped.
    pub fn serve(&mut self, timeout: Duration) -> Result<(), BrokerError> {
        self.producer.poll(timeout).map_err(in_doubt)
    }

    /// Serves delivery reports until nothing is in flight; false when none came for `patience`. The client's own
    /// `flush` would tell a failed delivery and an expired wait by the same error.
    pub fn drain(&mut self, patience: Duration) -> Result<bool, BrokerError> {
        let mut before = self.producer.in_flight();
        while before > 0 {
            self.poll(patience)?;
            let left = self.producer.in_flight();
            if left >= before {
                return Ok(false);
            }
            before = left;
        }
        // The last report may have come after failures were looked for.
        self.poll(Duration::ZERO)?;
        for (partition, offset) in self.producer.take_acknowledged() {
            let known = self.acknowledged.entry(partition).or_insert(offset);
            *known = offset.max(*known);
        }
        Ok(true)
    }

    pub fn in_flight(&self) -> usize {
        self.producer.in_flight()
    }

    /// The highest acknowledged offset of a partition since `forget`.
    pub fn acknowledged(&self, partition: &TopicPartition) -> Option<Offset> {
        self.acknowledged.get(partition).copied()
    }

    /// Forgets the account of acknowledged offsets, once stores hold them.
    pub fn forget_acknowledged(&mut self) {
        self.acknowledged.clear();
    }

    /// Adds offsets to the transaction. An error other than a rebalance is doubt.
    pub fn send_offsets(
        &mut self,
        offsets: &[(TopicPartition, OffsetAndMetadata)],
        group: &GroupMetadata,
        timeout: Duration,
    ) -> Result<(), BrokerError> {
        self.begin()?;
        self.producer.send_offsets(offsets, group, timeout).map_err(in_doubt)
    }

    /// Commits the open transaction, if there is one. An error is doubt: it may have been committed or not.
    pub fn commit_transaction(&mut self, timeout: Duration) -> Result<(), BrokerError> {
        self.check_abandoned()?;
        if self.in_transaction {
            self.producer.commit_transaction(timeout).map_err(in_doubt)?;
            self.in_transaction = false;
        }
        Ok(())
    }

    /// Aborts what is open, for an orderly end. The producer is not used afterwards.
    pub fn abort(&mut self, timeout: Duration) -> Result<(), BrokerError> {
        if self.in_transaction {
            self.in_transaction = false;
            return match self.producer.abort_transaction(timeout) {
                // Whoever fenced it has aborted it.
                Err(error) if error.kind == BrokerErrorKind::Fenced => Ok(()),
                aborted => aborted,
            };
        }
        Ok(())
    }
}
