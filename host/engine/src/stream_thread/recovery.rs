//! What a stream thread does about an error: by its remedy, and within bounds. Remedies that keep failing end in an
//! error of their own.

use super::{RunOnce, StreamThread};
use crate::broker::{BrokerError, BrokerErrorKind};
use crate::error::{EngineError, Remedy};
use crate::exception_handlers::ExceptionHandler;
use crate::internal_topics::{topic_limits, written_topics};
use crate::metrics::Metric;
use crate::processor::ProcessorError;
use crate::state::StoreError;
use crate::stream_thread::ProcessingGuarantee;
use crate::topology::TaskId;

/// How often uncommitted work is dropped without one successful commit in between.
const RECYCLES_MAX: u32 = 10;

/// How often the group is joined anew without one successful commit in between: two hosts that fence each other must
/// end loudly.
const REJOINS_MAX: u32 = 3;

/// How long a thread waits for space on the disk before it looks again.
const NO_SPACE_WAIT_MS: u64 = 1_000;

/// What the thread is trying to get over.
#[derive(Debug, Default)]
pub(super) struct Recovery {
    /// The last error with a remedy, and since when there is trouble (monotonic).
    trouble: Option<(String, u64)>,
    /// Since when calls are tried again (monotonic).
    retrying_since_ms: Option<u64>,
    /// Since the last commit.
    recycles: u32,
    rejoins: u32,
    /// A poll failed in the running turn.
    polled_in_vain: bool,
    /// There is no space on the disk.
    pub(super) out_of_space: bool,
    pub(super) recycles_total: u64,
}

impl Recovery {
    /// Notes an error that does not end the turn.
    pub(super) fn trouble(&mut self, error: &EngineError, now_ms: u64) {
        self.polled_in_vain = true;
        self.note(error, now_ms);
    }

    /// True when it is another trouble than before.
    fn note(&mut self, error: &EngineError, now_ms: u64) -> bool {
        let since = self.trouble.as_ref().map_or(now_ms, |(_, since)| *since);
        let text = error.to_string();
        let new = self.trouble.as_ref().is_none_or(|(known, _)| *known != text);
        self.trouble = Some((text, since));
        new
    }

    /// A turn came to its end.
    pub(super) fn succeeded(&mut self, turn: &RunOnce) {
        self.retrying_since_ms = None;
        self.out_of_space = false;
        if !std::mem::take(&mut self.polled_in_vain) {
            self.trouble = None;
        }
        if turn.committed {
            self.recycles = 0;
            self.rejoins = 0;
        }
    }

    pub(super) fn current_trouble(&self) -> Option<(String, u64)> {
        self.trouble.clone()
    }
}

/// The store that an error calls corrupt.
fn corrupt_store(error: &EngineError) -> Option<(TaskId, String)> {
    match error {
        EngineError::Commit { error, .. } => corrupt_store(error),
        EngineError::Store(StoreError::Corrupt { task, store, .. }) => Some((*task, store.clone())),
        EngineError::Processing { error, .. }
        | EngineError::Punctuation { error, .. }
        | EngineError::Start { error, .. } => met_by_call(error),
        EngineError::Migration(migration) => met_by_call(&migration.error),
        _ => None,
    }
}

/// The store that a call of the processor has found corrupt.
fn met_by_call(error: &ProcessorError) -> Option<(TaskId, String)> {
    match error {
        ProcessorError::Store(StoreError::Corrupt { task, store, .. }) => Some((*task, store.clone())),
        _ => None,
    }
}

/// The version that has gone past the bounds of its probation, or cannot take rows over, and why.
fn past_probation(error: &EngineError) -> Option<(u64, String)> {
    match error {
        EngineError::Commit { error, .. } => past_probation(error),
        EngineError::PastProbation { version, reason, .. } => Some((*version, reason.clone())),
        EngineError::Migration(migration) => Some((migration.version, migration.to_string())),
        _ => None,
    }
}

impl StreamThread {
    /// Does what an error asks for. Returns how long to wait before the next turn, or the error that ends the thread.
    pub(super) fn remedy(&mut self, error: EngineError) -> Result<u64, EngineError> {
        let now_ms = self.options.clock.monotonic_ms();
        let remedy = match error.remedy() {
            Remedy::Fatal if self.is_refused(&error) && self.look_for_the_refused(&error, now_ms) => Remedy::Recycle,
            remedy => remedy,
        };
        // What is tried every second until there is space again is told once.
        if remedy != Remedy::Fatal && (self.recovery.note(&error, now_ms) || remedy != Remedy::Pause) {
            tracing::warn!(thread = self.options.thread, %error, ?remedy, "trouble");
        }
        self.recovery.out_of_space = remedy == Remedy::Pause;
        match remedy {
            Remedy::Fatal => Err(error),
            Remedy::Retry | Remedy::Rebalance => {
                let since = *self.recovery.retrying_since_ms.get_or_insert(now_ms);
                let waited_ms = now_ms.saturating_sub(since);
                if waited_ms >= self.options.config.task_timeout_ms {
                    return Err(EngineError::TimedOut { waited_ms, error: Box::new(error) });
                }
                Ok(self.options.config.retry_backoff_ms)
            }
            Remedy::Pause => Ok(NO_SPACE_WAIT_MS),
            Remedy::Recycle => self.recycle(error),
            Remedy::RollBack => self.roll_back(error),
            Remedy::TaskMigrated => self.rejoin(error),
            Remedy::TaskCorrupted => self.revive(error),
        }
    }

    /// Whether a topic has refused a batch although its outputs were checked, and a handler answers for that.
    fn is_refused(&self, error: &EngineError) -> bool {
        let refused = match error {
            EngineError::Commit { error, .. } => return self.is_refused(error),
            EngineError::Broker(error) | EngineError::Send { error, .. } => error.kind == BrokerErrorKind::Rejected,
            _ => false,
        };
        refused && self.options.config.exception_handlers.production != ExceptionHandler::Fail
    }

    /// Has the refused work done again so that the record shows whose outputs do not fit (R20). A topic may take less
    /// than when it was asked, and then the check finds it; else the records are processed alone. False when there is
    /// nothing left to try.
    fn look_for_the_refused(&mut self, error: &EngineError, now_ms: u64) -> bool {
        let before = self.options.sink_limits.get();
        if let Err(error) = self.ask_topics() {
            tracing::warn!(thread = self.options.thread, %error, "cannot ask what topics take; the limits stay");
        } else if self.options.sink_limits.get() != before {
            return true;
        }
        if !self.search.is_on() {
            return self.search.begin(self.manager.uncommitted_ends(), now_ms);
        }
        let Some(place) = self.search.convict() else { return false };
        self.manager.condemn(place, &error.to_string());
        true
    }

    fn ask_topics(&self) -> Result<(), EngineError> {
        let (application_id, topology) = (&*self.options.application_id, &self.options.topology);
        let topics = written_topics(application_id, topology);
        let names: Vec<&str> = topics.iter().map(|topic| &**topic).collect();
        let found = self.options.clients.admin()?.describe_topics(&names)?;
        self.options.sink_limits.set(topic_limits(&topics, found.iter().flatten()));
        Ok(())
    }

    /// Drops everything uncommitted and the producer; the tasks go on from the last commit (R5).
    fn recycle(&mut self, error: EngineError) -> Result<u64, EngineError> {
        self.recovery.recycles += 1;
        self.recovery.recycles_total += 1;
        self.options.metrics.add(Metric::Recycles, 1);
        if self.recovery.recycles > RECYCLES_MAX {
            return Err(EngineError::Recycled { times: RECYCLES_MAX, error: Box::new(error) });
        }
        self.search.recycled();
        self.producer = None;
        self.manager.suspend_all()?;
        Ok(self.options.config.retry_backoff_ms)
    }

    /// Returns to the version before; what the failing one has not committed is dropped.
    fn roll_back(&mut self, error: EngineError) -> Result<u64, EngineError> {
        if let Some((version, reason)) = past_probation(&error) {
            // Another thread may have done it already.
            let is_first = self.options.versions.roll_back(version, &reason);
            // There is nothing to return to, and it would fail in the same way again.
            if !is_first && self.options.versions.target_number() == version && !self.options.versions.is_paused() {
                return Err(error);
            }
            tracing::warn!(thread = self.options.thread, version, reason, is_first, "rolled back");
            self.options.metrics.add(Metric::VersionRollbacks, 1);
        }
        self.recycle(error)
    }

    /// Closes every task without writing, drops both clients, and joins anew in the next turn. A transactional id is
    /// this thread's alone, so unless the coordinator has ended the transaction because of its age, whoever fenced it
    /// has a copy of this host's identity. The older one gives way for good: coming back, it would only fence the other
    /// in turn, for ever.
    fn rejoin(&mut self, error: EngineError) -> Result<u64, EngineError> {
        let (now_ms, wall_clock_ms) = (self.options.clock.monotonic_ms(), self.options.clock.wall_clock_ms());
        let age_ms = self.producer.as_ref().and_then(|producer| producer.transaction_age_ms(now_ms, wall_clock_ms));
        if age_ms.is_some_and(|age_ms| age_ms < self.options.config.transaction_timeout_ms) {
            let transactional_id = self.options.transactional_id.clone().unwrap_or_default();
            let thread = self.options.thread;
            return Err(EngineError::FencedByAnother { thread, transactional_id, error: Box::new(error) });
        }
        self.recovery.rejoins += 1;
        if self.recovery.rejoins > REJOINS_MAX {
            return Err(EngineError::Recycled { times: REJOINS_MAX, error: Box::new(error) });
        }
        self.producer = None;
        self.search.end();
        let closed = self.manager.close_all(false);
        if let Some(mut consumer) = self.consumer.take() {
            // The membership is gone; leaving is a courtesy that may fail.
            if let Err(error) = consumer.close() {
                tracing::info!(thread = self.options.thread, %error, "leaving the group failed");
            }
        }
        closed.map(|()| self.options.config.retry_backoff_ms)
    }

    /// Wipes a corrupt store; its task begins again. Under exactly-once the open transaction holds its work, so all
    /// tasks of the thread go back to the last commit.
    fn revive(&mut self, error: EngineError) -> Result<u64, EngineError> {
        let Some((task, store)) = corrupt_store(&error) else { return Err(error) };
        self.recovery.recycles += 1;
        if self.recovery.recycles > RECYCLES_MAX {
            return Err(EngineError::Recycled { times: RECYCLES_MAX, error: Box::new(error) });
        }
        let in_transaction = self.options.config.processing_guarantee == ProcessingGuarantee::ExactlyOnceV2;
        if in_transaction {
            self.producer = None;
            self.search.recycled();
            self.manager.suspend_all()?;
        }
        self.manager.revive(task, &store)?;
        Ok(0)
    }

    /// A commit whose outcome is open for too long is in doubt under exactly-once (R5), and hopeless otherwise.
    pub(super) fn check_commit_time(&self) -> Result<(), EngineError> {
        let config = &self.options.config;
        let limit_ms = match config.processing_guarantee {
            ProcessingGuarantee::ExactlyOnceV2 => config.commit_timeout_ms,
            ProcessingGuarantee::AtLeastOnce => config.task_timeout_ms,
        };
        let taken_ms = self.manager.undecided_commit_ms(self.options.clock.monotonic_ms()).unwrap_or(0);
        if taken_ms < limit_ms {
            return Ok(());
        }
        let stage = self.manager.commit_stage().unwrap_or("unknown");
        let operation = format!("commit of thread {}", self.options.thread);
        let detail = format!("still in stage {stage} after {taken_ms} ms, limit {limit_ms} ms");
        Err(BrokerError::new(BrokerErrorKind::Abortable, operation, detail).into())
    }
}
