//! When logs are cleaned: `Core::clean` is called again and again with the time and does a bounded piece of work. Every
//! `interval_ms` it closes segments by age and lets retention remove old ones; between that it compacts one log after
//! the other, the dirtiest first. A log whose cleaning failed is left alone for a while. It never waits for anything
//! but locks, and holds a partition's only for short.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::log::compaction::{CleaningPass, Step};
use super::metadata::{MetadataRecord, TopicId};
use super::storage::StorageError;
use super::topics::{Partition, Topic};
use super::{Core, locked, read_locked};

/// What a pass costs of a call's work beside the bytes that it looks at.
const PASS_COST_BYTES: usize = 64 * 1024;

/// What the cleaner is told once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CleanerOptions {
    /// `log.retention.check.interval.ms` and `log.cleaner.backoff.ms`.
    pub interval_ms: i64,
    /// Bytes that one call of `Core::clean` looks at, about.
    pub work_bytes: usize,
    /// Memory for keys (`log.cleaner.dedupe.buffer.size`); a pass over more keys than fit ends with the batch that
    /// filled it, and the next one goes on there.
    pub key_bytes_max: usize,
    /// How long a log is left alone after an error.
    pub retry_ms: i64,
}

impl Default for CleanerOptions {
    fn default() -> Self {
        Self { interval_ms: 1_000, work_bytes: 16 * 1024 * 1024, key_bytes_max: 32 * 1024 * 1024, retry_ms: 60_000 }
    }
}

/// What one call did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cleaning {
    /// When to call again; not later than now when work is left.
    pub next_ms: i64,
    /// Segments closed by age.
    pub rolled_segments: u64,
    /// Segments that retention removed, and their bytes.
    pub removed_segments: u64,
    pub removed_bytes: u64,
    /// Segments that compaction replaced, and the bytes that this freed.
    pub replaced_segments: u64,
    pub freed_bytes: u64,
    /// Logs whose compaction came to its end.
    pub finished_passes: u64,
    /// What failed. Nothing is lost; it is tried again.
    pub errors: Vec<StorageError>,
}

/// The cleaner between two calls.
#[derive(Default)]
pub(super) struct Cleaner {
    pass: Option<CleaningPass>,
    /// When all logs were looked at last.
    checked_ms: Option<i64>,
    /// Logs that failed, and when they may be tried again.
    retry_at_ms: BTreeMap<(TopicId, i32), i64>,
}

impl Core {
    /// Cleans logs for a bounded while. One caller at a time works, others wait for it.
    pub fn clean(&self, now_ms: i64) -> Cleaning {
        let options = &self.options.cleaner;
        let mut cleaner = locked(&self.cleaner);
        let mut cleaning = Cleaning::default();
        let is_due = |checked_ms: i64| now_ms >= checked_ms.saturating_add(options.interval_ms) || now_ms < checked_ms;
        if cleaner.checked_ms.is_none_or(is_due) {
            cleaner.checked_ms = Some(now_ms);
            cleaner.retry_at_ms.retain(|_, retry_at_ms| *retry_at_ms > now_ms);
            self.keep_all_within_limits(now_ms, &mut cleaning);
        }
        let mut left_bytes = options.work_bytes;
        let mut is_all_clean = false;
        while left_bytes > 0 {
            if cleaner.pass.is_none() {
                cleaner.pass = self.begin_pass(now_ms, &cleaner.retry_at_ms);
            }
            let Some(pass) = &mut cleaner.pass else {
                is_all_clean = true;
                break;
            };
            match self.advance_pass(pass) {
                Ok(Some(bytes)) => left_bytes = left_bytes.saturating_sub(bytes.max(1)),
                Ok(None) => {
                    cleaning.finished_passes += 1;
                    let report = pass.report();
                    cleaning.replaced_segments += report.replaced_segments;
                    cleaning.freed_bytes += report.freed_bytes;
                    cleaner.pass = None;
                    left_bytes = left_bytes.saturating_sub(PASS_COST_BYTES);
                }
                Err(error) => {
                    let partition = pass.partition();
                    // A topic that was deleted in the meantime took its files along.
                    if self.topic_by_id(partition.topic_id).is_some() {
                        let retry_at_ms = now_ms.saturating_add(options.retry_ms);
                        let log = (partition.topic_id, partition.index);
                        cleaner.retry_at_ms.insert(log, retry_at_ms);
                        cleaning.errors.push(error);
                    }
                    cleaner.pass = None;
                }
            }
        }
        cleaning.next_ms = match is_all_clean {
            true => cleaner.checked_ms.unwrap_or(now_ms).saturating_add(options.interval_ms),
            false => now_ms,
        };
        cleaning
    }

    /// One step of a pass: how many bytes it looked at, `None` at its end.
    fn advance_pass(&self, pass: &mut CleaningPass) -> Result<Option<usize>, StorageError> {
        match pass.step()? {
            Step::Worked(bytes) => Ok(Some(bytes)),
            Step::Done => Ok(None),
            Step::MustChangeFiles => {
                // While topics are locked, none is deleted: a file made now would survive its folder's removal.
                let topics = read_locked(&self.topics);
                if topics.name_of(pass.partition().topic_id).is_none() {
                    return Ok(None);
                }
                pass.change_files().map(|()| Some(0))
            }
        }
    }

    /// The log that needs a cleaning most.
    fn begin_pass(&self, now_ms: i64, retry_at_ms: &BTreeMap<(TopicId, i32), i64>) -> Option<CleaningPass> {
        let mut best: Option<(bool, u64, Topic, Arc<Partition>)> = None;
        for topic in self.topics().into_iter().filter(|topic| topic.limits.cleanup.compact) {
            for partition in &topic.partitions {
                if retry_at_ms.contains_key(&(topic.id, partition.index)) {
                    continue;
                }
                let Some(found) = partition.log().cleanable(now_ms, &topic.limits.cleanup) else { continue };
                let is_better = |(is_overdue, dirty, ..): &(bool, u64, Topic, Arc<Partition>)| {
                    (found.is_overdue, found.dirty_millionths) > (*is_overdue, *dirty)
                };
                if best.as_ref().is_none_or(is_better) {
                    let partition = Arc::clone(partition);
                    best = Some((found.is_overdue, found.dirty_millionths, topic.clone(), partition));
                }
            }
        }
        let (_, _, topic, partition) = best?;
        CleaningPass::begin(&partition, &topic.limits, now_ms, self.options.cleaner.key_bytes_max)
    }

    fn keep_all_within_limits(&self, now_ms: i64, cleaning: &mut Cleaning) {
        for topic in self.topics() {
            for partition in &topic.partitions {
                let before = (cleaning.removed_segments, cleaning.removed_bytes);
                if let Err(error) = self.keep_within_limits(now_ms, &topic, partition, cleaning) {
                    cleaning.errors.push(error);
                }
                if cleaning.removed_segments > before.0 {
                    tracing::debug!(
                        topic = %topic.name,
                        partition = partition.index,
                        segments = cleaning.removed_segments - before.0,
                        bytes = cleaning.removed_bytes - before.1,
                        "removed old segments"
                    );
                }
            }
        }
    }

    fn keep_within_limits(
        &self,
        now_ms: i64,
        topic: &Topic,
        partition: &Partition,
        cleaning: &mut Cleaning,
    ) -> Result<(), StorageError> {
        // The new log start is kept by the topic's name: the topic must stay the one that was looked at.
        let topics = read_locked(&self.topics);
        if topics.name_of(topic.id).is_none() {
            return Ok(());
        }
        let mut log = partition.log();
        // On a full disk no segment can be made, but old ones must go all the same, or the disk stays full.
        match log.roll_if_due(now_ms, &topic.limits.cleanup) {
            Ok(is_rolled) => cleaning.rolled_segments += u64::from(is_rolled),
            Err(error) => cleaning.errors.push(error),
        }
        let start = log.retention_start(now_ms, &topic.limits.cleanup, &mut cleaning.errors);
        let Some(offset) = start else { return Ok(()) };
        if offset > log.bounds().log_start_offset {
            let record = MetadataRecord::LogStart { name: topic.name.to_string(), partition: partition.index, offset };
            // The removal must go on, too. The segments that are left say where the log begins as well.
            if let Err(error) = self.storage.append_metadata(&[record]) {
                cleaning.errors.push(error);
            }
        }
        let before = (log.segment_count(), log.size_bytes());
        let removed = log.advance_log_start(offset);
        cleaning.removed_segments += before.0.saturating_sub(log.segment_count()) as u64;
        cleaning.removed_bytes += before.1.saturating_sub(log.size_bytes());
        removed
    }
}

#[cfg(test)]
mod tests;
