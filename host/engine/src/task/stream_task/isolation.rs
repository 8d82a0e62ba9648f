//! What a task does about a call that failed: the batch is processed again in halves, or cut where the processor says
//! that it refuses a record, until the record stands alone; then the exception handlers decide about that record only.
//! The others are processed once and in order. No instance goes on that has seen what was undone, and a record is given
//! up for a crash only if a fresh instance crashes at it too, so that what an earlier record left in an instance's
//! memory is no reason.

use std::sync::Arc;

use super::{CallTimes, FailedCall, Failure, StreamTask};
use crate::dead_letter::{DeadLetter, DeadLetterReason, Subject};
use crate::error::EngineError;
use crate::exception_handlers::ExceptionHandler;
use crate::metrics::Metric;
use crate::processor::{CallReport, ProcessorContext, ProcessorError, Reads, ScheduleId};
use crate::record::{Refusal, Timestamp};
use crate::task::partition_group::BatchInfo;
use crate::task::streams_producer::StreamsProducer;

/// Failures in a row after which a task pauses before it goes on, at first for `PAUSE_MS` and then twice as long each
/// time (S8): one bad record after the other costs an instance each.
const FREE_FAILURES: u32 = 10;
const PAUSE_MS: u64 = 10;
const PAUSE_MAX_MS: u64 = 1_000;

/// Where a batch is cut after a call with all of it has failed.
fn pieces(records: usize, refused: &[Refusal]) -> Vec<usize> {
    let mut indexes: Vec<usize> = refused.iter().map(|refusal| refusal.index as usize).collect();
    indexes.retain(|&index| index < records);
    indexes.sort_unstable();
    indexes.dedup();
    if records == 1 {
        return vec![1];
    }
    if indexes.is_empty() {
        return vec![records / 2, records - records / 2];
    }
    let mut pieces = Vec::with_capacity(2 * indexes.len() + 1);
    let mut start = 0;
    for index in indexes {
        pieces.extend([index - start, 1]);
        start = index + 1;
    }
    pieces.push(records - start);
    pieces
}

impl StreamTask {
    /// Answers a failed call: cuts the batch, or decides about the one record that it was called with.
    pub(super) fn isolate(
        &mut self,
        info: &BatchInfo,
        failed: FailedCall,
        times: CallTimes,
        now_ms: u64,
        producer: &mut StreamsProducer,
    ) -> Result<(), EngineError> {
        let FailedCall { failure, reads, report, was_fresh } = failed;
        let (error, refused) = match failure {
            Failure::NotStarted(error) => return Err(self.not_started(error)),
            Failure::Failed(error) => (error, Vec::new()),
            Failure::Refused(refused) => (ProcessorError::Returned(first_reason(&refused)), refused),
        };
        // What is no record's fault would be none either with a part of the batch.
        let is_no_records =
            matches!(error, ProcessorError::Store(_) | ProcessorError::HostPanic(_) | ProcessorError::Start(_));
        if is_no_records || self.options.config.without_savepoints {
            return Err(self.failed_at(info, error));
        }
        self.options.metrics.add(Metric::ProcessorErrors, u64::from(refused.is_empty()));
        if error.is_crash() {
            self.count_failed(&error)?;
        }
        let alone = info.count == 1 && self.group.is_piece(info);
        if !alone {
            self.group.split(info, &pieces(info.count, &refused));
            return Ok(());
        }
        if error.is_crash() && !was_fresh {
            self.wants_fresh = true;
            return Ok(());
        }
        self.wants_fresh = false;
        self.count_given_up(&error)?;
        self.options.metrics.add(Metric::RecordsRefused, u64::from(!refused.is_empty()));
        self.decide(info, &error, (&reads, &report), times, now_ms, producer)
    }

    /// The handlers' answer about a single record.
    fn decide(
        &mut self,
        info: &BatchInfo,
        error: &ProcessorError,
        (reads, report): (&Reads, &CallReport),
        times: CallTimes,
        now_ms: u64,
        producer: &mut StreamsProducer,
    ) -> Result<(), EngineError> {
        match self.options.config.exception_handlers.handler_of(error) {
            ExceptionHandler::Fail => return Err(self.failed_at(info, error.clone())),
            ExceptionHandler::Continue => self.skip(info, error),
            ExceptionHandler::DeadLetter => {
                // Their bytes are shared, not copied.
                let Some(record) = self.group.record_in(info, 0).cloned() else {
                    return Err(self.failed_at(info, error.clone()));
                };
                let partition = self.group.partition_of(info).clone();
                let subject = Subject::Record { partition: &partition, record: &record };
                self.send_dead_letter(subject, error, (reads, report), times, producer)?;
                self.note_dead_letter(info, error);
            }
        }
        self.group.complete(info);
        self.stream_time_moved = true;
        self.commit_needed = true;
        if error.is_crash() { self.count_failure(info, error, now_ms) } else { Ok(()) }
    }

    /// Failures in a row first slow the task down, and then end the application.
    fn count_failure(&mut self, info: &BatchInfo, error: &ProcessorError, now_ms: u64) -> Result<(), EngineError> {
        self.failures_in_a_row = self.failures_in_a_row.saturating_add(1);
        let times = self.failures_in_a_row;
        if times >= self.options.config.exception_handlers.consecutive_failures_max {
            return Err(EngineError::ConsecutiveFailures {
                task: self.id,
                partition: self.group.partition_of(info).clone(),
                offset: info.last_offset,
                digest: self.version.processors.digest().to_owned(),
                times,
                error: Box::new(error.clone()),
            });
        }
        if let Some(more) = times.checked_sub(FREE_FAILURES) {
            let pause_ms = PAUSE_MS.saturating_mul(1 << more.min(20)).min(PAUSE_MAX_MS);
            self.resume_at_ms = now_ms.saturating_add(pause_ms);
        }
        Ok(())
    }

    /// A record whose timestamp is none: no processor gets to see it.
    pub(super) fn unreadable(
        &mut self,
        error: EngineError,
        producer: &mut StreamsProducer,
        wall_clock_ms: Timestamp,
    ) -> Result<(), EngineError> {
        let handler = self.options.config.exception_handlers.deserialization;
        let (Some(info), true) = (self.group.first_alone(), handler != ExceptionHandler::Fail) else {
            return Err(error);
        };
        let EngineError::InvalidTimestamp { timestamp, .. } = &error else { return Err(error) };
        let text = format!(
            "{}the record has the timestamp {timestamp}; expected milliseconds since the epoch, or -1 for none",
            crate::exception_handlers::DESERIALIZATION
        );
        let stream_time = self.group.stream_time();
        let times = CallTimes { stream_time, write_time: stream_time.unwrap_or(wall_clock_ms), wall_clock_ms };
        let nothing = (&Reads::default(), &CallReport::default());
        self.decide(&info, &ProcessorError::Returned(text), nothing, times, 0, producer)
    }

    /// A schedule that failed: its call is undone, and it is due again at its next time.
    pub(super) fn failed_punctuation(
        &mut self,
        (schedule, time): (ScheduleId, Timestamp),
        failed: FailedCall,
        times: CallTimes,
        producer: &mut StreamsProducer,
    ) -> Result<(), EngineError> {
        let FailedCall { failure, reads, report, .. } = failed;
        let error = match failure {
            Failure::NotStarted(error) => return Err(self.not_started(error)),
            Failure::Failed(error) => error,
            Failure::Refused(_) => ProcessorError::Output("a punctuation cannot refuse records".to_owned()),
        };
        self.options.metrics.add(Metric::ProcessorErrors, 1);
        self.count_failed(&error)?;
        self.count_given_up(&error)?;
        let (options, version) = (self.options.clone(), Arc::clone(&self.version));
        let (task, digest) = (self.id, version.processors.digest());
        let stops = |error: ProcessorError| EngineError::Punctuation {
            task,
            schedule: schedule.0,
            time,
            digest: digest.to_owned(),
            error: Box::new(error),
        };
        match options.config.exception_handlers.handler_of(&error) {
            _ if options.config.without_savepoints => return Err(stops(error)),
            ExceptionHandler::Fail => return Err(stops(error)),
            ExceptionHandler::Continue => {
                tracing::warn!(task = %self.id, schedule = schedule.0, time, digest, %error, "punctuation left out");
            }
            ExceptionHandler::DeadLetter => {
                if !std::mem::replace(&mut self.dead_letter_reported, true) {
                    tracing::warn!(
                        task = %self.id, schedule = schedule.0, time, digest, %error, "first dead letter of the task"
                    );
                }
                let subject = Subject::Punctuation { schedule: schedule.0, time };
                self.send_dead_letter(subject, &error, (&reads, &report), times, producer)?;
            }
        }
        self.failed_punctuations_in_a_row += 1;
        let times = self.failed_punctuations_in_a_row;
        if times >= options.config.exception_handlers.consecutive_failures_max {
            return Err(EngineError::ConsecutivePunctuations { times, error: Box::new(stops(error)) });
        }
        Ok(())
    }

    /// Sends what could not be processed with all that is known of the call.
    fn send_dead_letter(
        &mut self,
        subject: Subject<'_>,
        error: &ProcessorError,
        (reads, report): (&Reads, &CallReport),
        times: CallTimes,
        producer: &mut StreamsProducer,
    ) -> Result<(), EngineError> {
        let (options, version) = (self.options.clone(), Arc::clone(&self.version));
        // What the call was judged by, beside the record.
        let mut settings = version.processors.settings();
        settings.extend(self.collector.settings());
        settings.extend(self.context.iter().flat_map(ProcessorContext::store_settings));
        let letter = DeadLetter {
            subject,
            error,
            report,
            task: self.id,
            application_id: &options.application_id,
            digest: version.processors.digest(),
            stream_time: times.stream_time,
            write_time: times.write_time,
            wall_clock_ms: times.wall_clock_ms,
            settings: &settings,
            reads: &self.init_reads.followed_by(reads),
        };
        self.collector.send_dead_letter(&letter, producer)?;
        options.metrics.add(Metric::DeadLetters, 1);
        Ok(())
    }

    fn skip(&self, info: &BatchInfo, error: &ProcessorError) {
        self.options.metrics.add(Metric::RecordsDropped, 1);
        let partition = self.group.partition_of(info);
        let digest = self.version.processors.digest();
        tracing::warn!(task = %self.id, %partition, offset = info.first_offset, digest, %error, "record left out");
    }

    /// The first of a task is told; the others are counted, and there for everybody to read.
    fn note_dead_letter(&mut self, info: &BatchInfo, error: &ProcessorError) {
        if std::mem::replace(&mut self.dead_letter_reported, true) {
            return;
        }
        let (partition, reason) = (self.group.partition_of(info), DeadLetterReason::of(error).as_str());
        let (digest, offset) = (self.version.processors.digest(), info.first_offset);
        tracing::warn!(task = %self.id, %partition, offset, digest, reason, %error, "first dead letter of the task");
    }

    pub(super) fn not_started(&self, error: ProcessorError) -> EngineError {
        if !matches!(error, ProcessorError::Store(_) | ProcessorError::HostPanic(_))
            && let Err(past) = self.count_failed(&error).and_then(|()| self.count_given_up(&error))
        {
            return past;
        }
        let digest = self.version.processors.digest().to_owned();
        EngineError::Start { task: self.id, digest, error: Box::new(error) }
    }

    fn failed_at(&self, info: &BatchInfo, error: ProcessorError) -> EngineError {
        let (task, partition) = (self.id, self.group.partition_of(info).clone());
        let digest = self.version.processors.digest().to_owned();
        match error {
            ProcessorError::Returned(reason) => {
                EngineError::Refused { task, partition, offset: info.first_offset, digest, reason }
            }
            error => EngineError::Processing {
                task,
                partition,
                first_offset: info.first_offset,
                last_offset: info.last_offset,
                digest,
                error: Box::new(error),
            },
        }
    }
}

fn first_reason(refused: &[Refusal]) -> String {
    let first = refused.iter().min_by_key(|refusal| refusal.index);
    first.map(|refusal| refusal.reason.clone()).unwrap_or_default()
}

#[cfg(test)]
mod tests;
