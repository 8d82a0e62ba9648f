//! A stream thread: one consumer, one producer and a set of tasks, driven by calls of `run_once`. Owns the order of
//! a turn (poll, process, punctuate, commit) and what is done about each error. Never looks into records or stores,
//! never waits except in its clients' calls.

use std::sync::Arc;
use std::time::Duration;

use crate::broker::{BrokerErrorKind, Consumer, Producer};
use crate::error::{EngineError, Remedy};
use crate::restore::StoreChangelogReader;
use crate::task::streams_producer::StreamsProducer;
use crate::task_manager::{CommitNow, TaskManager};

#[cfg(test)]
pub(crate) mod fixture;
mod options;
mod progress;
mod recovery;
mod reporting;
mod search;

pub use options::{AutoOffsetReset, ProcessingGuarantee, StreamThreadOptions, StreamsConfig};
pub use progress::{
    MigrationReport, PartitionReport, RestoreReport, SharedProgress, TaskReport, ThreadReport, ThreadState,
};

use recovery::Recovery;
use reporting::Reporting;
use search::Search;

/// What one turn did, and when the next one is worth it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RunOnce {
    pub records_processed: u64,
    pub records_restored: u64,
    /// Rows of an older schema that were taken over.
    pub rows_migrated: u64,
    pub punctuations: u64,
    /// Calls of the processor that failed.
    pub failed_calls: u64,
    pub committed: bool,
    /// An error was met and is being remedied.
    pub troubled: bool,
    /// How long the caller should wait before the next turn, because a call failed and will be tried again.
    pub wait_ms: u64,
}

impl RunOnce {
    /// Whether the turn found nothing to do.
    pub fn is_idle(&self) -> bool {
        self.records_processed == 0
            && self.records_restored == 0
            && self.rows_migrated == 0
            && self.punctuations == 0
            && self.failed_calls == 0
            && !self.committed
            && !self.troubled
    }
}

/// How a thread is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseMode {
    /// Commit what was processed, flush the stores, leave the group. After a failed call that is everything before
    /// the call.
    Clean,
    /// Drop what is uncommitted, leave the group.
    Dirty,
}

/// How long a poll may wait while the producer's queue is full, or stores are on their way from another thread: short,
/// to go on soon, but no spinning while a broker is away.
const HELD_BACK_POLL_MS: u64 = 10;

/// A thread that was not run for longer than this asks whether it is still a member before it writes: a third of the
/// shortest session timeout in use (6 s).
const STOOD_STILL_MS: u64 = 2_000;

/// How long one call may wait for the end of the transaction that an older producer of the same id has left open.
const INIT_TRANSACTIONS_SLICE: Duration = Duration::from_secs(2);

/// One consumer, one producer and the tasks of their partitions.
pub struct StreamThread {
    options: Arc<StreamThreadOptions>,
    /// `None` between the loss of a membership and the next attempt to join.
    consumer: Option<Box<dyn Consumer>>,
    /// `None` after doubt, until it is made anew (R5).
    producer: Option<StreamsProducer>,
    /// A producer whose transactions are being initialised. While the broker is away that is tried again with the same
    /// client, in slices, so that the thread can be stopped meanwhile.
    initialising: Option<Box<dyn Producer>>,
    manager: TaskManager,
    recovery: Recovery,
    search: Search,
    reporting: Reporting,
    /// How many batches each task may process before the thread looks at the time again; adapted by what happens.
    batches_per_round: u32,
    /// When the consumer was polled last, monotonic.
    last_poll_ms: u64,
    /// It was not polled for so long that the group may have given its partitions to others.
    stood_still: bool,
    closed: bool,
}

impl StreamThread {
    /// Makes the restore client; joins the group with the first `run_once`.
    pub fn new(options: StreamThreadOptions) -> Result<Self, EngineError> {
        let options = Arc::new(options);
        if options.config.processing_guarantee == ProcessingGuarantee::ExactlyOnceV2
            && options.transactional_id.is_none()
        {
            return Err(EngineError::NoTransactionalId { thread: options.thread });
        }
        let restore_consumer = options.clients.restore_consumer(options.thread)?;
        let reader = StoreChangelogReader::new(restore_consumer, options.config.transaction_timeout_ms)
            .accepting_lost_changelogs(options.config.accept_lost_changelogs);
        let now_ms = options.clock.monotonic_ms();
        Ok(Self {
            consumer: None,
            producer: None,
            initialising: None,
            manager: TaskManager::new(Arc::clone(&options), reader, now_ms),
            recovery: Recovery::default(),
            search: Search::default(),
            reporting: Reporting::new(now_ms),
            batches_per_round: 1,
            last_poll_ms: now_ms,
            stood_still: false,
            closed: false,
            options,
        })
    }

    /// One turn: poll, process, punctuate, commit. An error is final: close the thread and stop the application.
    /// Whatever has a remedy is remedied here.
    pub fn run_once(&mut self) -> Result<RunOnce, EngineError> {
        let mut turn = RunOnce::default();
        let result = self.turn(&mut turn);
        let result = match result {
            Ok(()) => {
                self.recovery.succeeded(&turn);
                Ok(turn)
            }
            Err(error) => {
                self.remedy(error).map(|wait_ms| RunOnce { wait_ms: wait_ms.max(turn.wait_ms), troubled: true, ..turn })
            }
        };
        self.publish(&turn, result.as_ref().err());
        result
    }

    /// The order of everything.
    fn turn(&mut self, turn: &mut RunOnce) -> Result<(), EngineError> {
        self.ensure_clients()?;
        self.poll(turn)?;
        if !self.confirm_membership(turn)? {
            return Ok(());
        }
        self.bring_up(turn)?;
        self.migrate(turn)?;
        loop {
            self.swap()?;
            let records_processed = self.process(turn)?;
            let punctuations = self.punctuate(turn)?;
            let committed = self.commit(turn)?;
            if records_processed == 0 || !self.adapt(punctuations > 0 || committed) {
                return self.manager.maybe_flush(self.options.clock.monotonic_ms());
            }
        }
    }

    /// Fills the queues and answers rebalances. Waits only when there is nothing else to do.
    fn poll(&mut self, turn: &mut RunOnce) -> Result<(), EngineError> {
        let timeout = self.poll_timeout();
        let now_ms = self.options.clock.monotonic_ms();
        let (Some(consumer), Some(producer)) = (self.consumer.as_deref_mut(), self.producer.as_mut()) else {
            return Ok(());
        };
        if now_ms.saturating_sub(self.last_poll_ms) >= STOOD_STILL_MS {
            self.stood_still = self.options.config.processing_guarantee == ProcessingGuarantee::AtLeastOnce;
        }
        producer.set_now(now_ms, self.options.clock.wall_clock_ms());
        producer.serve(Duration::ZERO)?;
        self.manager.pause_full_partitions(consumer)?;
        match consumer.poll(timeout, self.options.config.max_poll_records) {
            Ok(polled) => {
                self.last_poll_ms = now_ms;
                self.manager.add_records(polled.records)?;
                self.manager.add_events(polled.events);
                // Only now: a consumer that was fenced says so after it has said that it lost its partitions, and a new
                // producer would fence the host that took them over.
                producer.check_abandoned()?;
            }
            // A broker that is away is no reason to stop, however long it takes; what is here can be processed.
            Err(error) if error.kind == BrokerErrorKind::Retriable => {
                self.recovery.trouble(&error.into(), now_ms);
                turn.troubled = true;
                turn.wait_ms = self.options.config.retry_backoff_ms;
            }
            Err(error) if error.kind == BrokerErrorKind::OffsetOutOfRange => {
                let (operation, detail) = (error.operation, error.detail);
                return Err(match self.options.topology.has_tables_only() {
                    true => EngineError::TableOvertaken { operation, detail },
                    false => EngineError::OffsetOutOfRange { operation, detail },
                });
            }
            Err(error) => return Err(error.into()),
        }
        if self.manager.answer_events(producer, consumer, now_ms)? {
            self.reporting.joined(true);
            self.reporting.tasks_changed();
        }
        Ok(())
    }

    /// A thread that stood still, because its machine slept for example, may be a member of the group no more and not
    /// know it yet. Its producer is not fenced under at-least-once, so it would write stale values over those of the
    /// new owner in the changelogs. It asks the group first. False when there is no answer yet.
    fn confirm_membership(&mut self, turn: &mut RunOnce) -> Result<bool, EngineError> {
        let Some(consumer) = self.consumer.as_deref_mut().filter(|_| self.stood_still) else { return Ok(true) };
        match self.manager.commit_again(consumer) {
            Ok(()) => {
                self.stood_still = false;
                Ok(true)
            }
            Err(error) if error.remedy() == Remedy::Retry => {
                self.recovery.trouble(&error, self.options.clock.monotonic_ms());
                turn.troubled = true;
                turn.wait_ms = self.options.config.retry_backoff_ms;
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// How long a poll may wait: not at all while there is work, else until something is due.
    fn poll_timeout(&self) -> Duration {
        let (now_ms, wall_clock_ms) = (self.options.clock.monotonic_ms(), self.options.clock.wall_clock_ms());
        let manager = &self.manager;
        if manager.is_processable(now_ms)
            || manager.is_committing()
            || manager.is_bringing_up()
            || manager.is_swapping()
            || manager.is_migrating()
        {
            return Duration::ZERO;
        }
        let mut timeout_ms = self.options.config.poll_ms;
        if manager.is_held_back() || manager.is_waiting_for_stores() {
            timeout_ms = timeout_ms.min(HELD_BACK_POLL_MS);
        }
        if let Some(due) = manager.next_wall_clock_punctuation() {
            timeout_ms = timeout_ms.min(due.saturating_sub(wall_clock_ms).max(0) as u64);
        }
        if let Some(until_commit_ms) = manager.until_commit_ms(now_ms) {
            timeout_ms = timeout_ms.min(until_commit_ms);
        }
        Duration::from_millis(timeout_ms)
    }

    /// Takes tasks that do not run yet further, a slice of their restore included.
    fn bring_up(&mut self, turn: &mut RunOnce) -> Result<(), EngineError> {
        let Some(consumer) = self.consumer.as_deref_mut() else { return Ok(()) };
        let (now_ms, wall_clock_ms) = (self.options.clock.monotonic_ms(), self.options.clock.wall_clock_ms());
        let timeout = Duration::from_millis(self.options.config.poll_ms);
        turn.records_restored += self.manager.bring_up(consumer, timeout, now_ms, wall_clock_ms)?;
        Ok(())
    }

    /// Lets tasks with rows of an older schema take some over.
    fn migrate(&mut self, turn: &mut RunOnce) -> Result<(), EngineError> {
        let clock = &self.options.clock;
        turn.rows_migrated += self.manager.migrate(clock.monotonic_ms(), clock.wall_clock_ms())?;
        Ok(())
    }

    /// One round over the tasks. Returns how many records were processed.
    fn process(&mut self, turn: &mut RunOnce) -> Result<u64, EngineError> {
        let (Some(consumer), Some(producer)) = (self.consumer.as_deref_mut(), self.producer.as_mut()) else {
            return Ok(0);
        };
        let (now_ms, wall_clock_ms) = (self.options.clock.monotonic_ms(), self.options.clock.wall_clock_ms());
        self.manager.look_for_more(consumer, now_ms)?;
        let processed = if self.search.is_on() {
            let (processed, place) = self.manager.process_one(producer, now_ms, wall_clock_ms)?;
            place.into_iter().for_each(|place| self.search.suspect(place));
            processed
        } else {
            self.manager.process(self.batches_per_round, producer, now_ms, wall_clock_ms)?
        };
        turn.records_processed += processed.records;
        turn.punctuations += processed.punctuations;
        turn.failed_calls += processed.failed_calls;
        self.reporting.processed(&processed);
        self.manager.resume_partitions(consumer)?;
        Ok(processed.records)
    }

    fn punctuate(&mut self, turn: &mut RunOnce) -> Result<u64, EngineError> {
        let Some(producer) = self.producer.as_mut() else { return Ok(0) };
        // A transaction in which the search is on holds the work of one record.
        if self.search.is_on() {
            return Ok(0);
        }
        let punctuations = self.manager.punctuate(producer, self.options.clock.wall_clock_ms())?;
        turn.punctuations += punctuations;
        self.reporting.punctuated(punctuations);
        Ok(punctuations)
    }

    fn commit(&mut self, turn: &mut RunOnce) -> Result<bool, EngineError> {
        let (Some(consumer), Some(producer)) = (self.consumer.as_deref_mut(), self.producer.as_mut()) else {
            return Ok(false);
        };
        let clock = &self.options.clock;
        let committed = self.manager.maybe_commit(producer, consumer, clock.monotonic_ms(), clock.wall_clock_ms())?;
        if committed {
            turn.committed = true;
            self.search.committed(|partition| self.manager.committed_offset(partition));
            self.reporting.committed();
        }
        self.check_commit_time()?;
        Ok(committed)
    }

    /// Gives tasks that stand at a commit boundary the version that is wanted.
    fn swap(&mut self) -> Result<(), EngineError> {
        // A search repeats work of the version that did it first.
        if self.search.is_on() {
            return Ok(());
        }
        if self.manager.maybe_swap(self.options.clock.wall_clock_ms())? > 0 {
            self.reporting.tasks_changed();
        }
        Ok(())
    }

    /// Adapts how much is done between two looks at the time, as Kafka Streams does: more while records flow, half
    /// after a commit or a punctuation. False when the consumer must be polled first.
    fn adapt(&mut self, interrupted: bool) -> bool {
        let since_poll_ms = self.options.clock.monotonic_ms().saturating_sub(self.last_poll_ms);
        let must_poll = since_poll_ms > self.options.config.max_poll_interval_ms / 2;
        if must_poll || interrupted {
            self.batches_per_round = (self.batches_per_round / 2).max(1);
        } else {
            self.batches_per_round = self.batches_per_round.saturating_add(1);
        }
        !must_poll
    }

    /// Ends the thread. A clean close that fails still closes everything, dirty, and returns why.
    pub fn close(&mut self, mode: CloseMode) -> Result<(), EngineError> {
        if self.closed {
            return Ok(());
        }
        self.closed = true;
        let mut result = Ok(());
        if mode == CloseMode::Clean {
            // Tasks whose commit did not succeed are closed dirty.
            result = self.commit_before_close();
            result = result.and(self.manager.close_all(true));
        }
        result = result.and(self.manager.close_all(false));
        if let Some(mut producer) = self.producer.take() {
            let timeout = Duration::from_millis(self.options.config.commit_timeout_ms);
            result = result.and(producer.abort(timeout).map_err(EngineError::from));
        }
        if let Some(mut consumer) = self.consumer.take() {
            result = result.and(consumer.close().map_err(EngineError::from));
        }
        self.publish_final();
        result
    }

    /// Commits at the end. A rebalance that is going on must come to its end first, since the group takes no offsets
    /// meanwhile; what it takes away is committed and closed on the way.
    fn commit_before_close(&mut self) -> Result<(), EngineError> {
        /// Ends the loop where the clock stands still.
        const POLLS_MAX: u32 = 100;
        const POLL_TIMEOUT: Duration = Duration::from_millis(50);
        let deadline_ms = self.options.clock.monotonic_ms() + self.options.config.commit_timeout_ms;
        let (Some(consumer), Some(producer)) = (self.consumer.as_deref_mut(), self.producer.as_mut()) else {
            return Ok(());
        };
        for _ in 0..POLLS_MAX {
            if self.manager.commit_now(producer, consumer)? != CommitNow::Rebalanced
                || self.options.clock.monotonic_ms() >= deadline_ms
            {
                break;
            }
            let polled = consumer.poll(POLL_TIMEOUT, 1)?;
            self.manager.add_records(polled.records)?;
            self.manager.add_events(polled.events);
            self.manager.answer_events(producer, consumer, self.options.clock.monotonic_ms())?;
        }
        Ok(())
    }

    /// Makes what recovery has dropped: the producer first, so that older ones are fenced before a restore looks at
    /// the ends of the changelogs (R9).
    fn ensure_clients(&mut self) -> Result<(), EngineError> {
        let options = &self.options;
        if self.producer.is_none() {
            let exactly_once = options.config.processing_guarantee == ProcessingGuarantee::ExactlyOnceV2;
            let id = options.transactional_id.as_deref().filter(|_| exactly_once);
            let mut producer = match self.initialising.take() {
                Some(producer) => producer,
                None => options.clients.producer(options.thread, id)?,
            };
            if exactly_once && let Err(error) = producer.init_transactions(INIT_TRANSACTIONS_SLICE) {
                if error.kind == BrokerErrorKind::Retriable {
                    self.initialising = Some(producer);
                }
                return Err(error.into());
            }
            self.producer = Some(StreamsProducer::new(producer, exactly_once));
        }
        if self.consumer.is_none() {
            let mut consumer = options.clients.consumer(options.thread)?;
            consumer.subscribe(&options.topology.source_topics())?;
            self.consumer = Some(consumer);
            self.reporting.joined(false);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
