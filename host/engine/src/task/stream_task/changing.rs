//! A task's change from one version of its processor to another, at a commit boundary: the old instance stays until the
//! new one has started, so that a version which cannot start changes nothing. Which version is wanted is `version`'s.

use std::sync::Arc;

use super::StreamTask;
use crate::error::EngineError;
use crate::metrics::Metric;
use crate::processor::ProcessorError;
use crate::record::{Offset, Timestamp, TopicPartition};
use crate::task::TaskState;
use crate::task::offset_metadata::VersionMark;
use crate::version::ProcessorVersion;

impl StreamTask {
    /// The number of the version that it runs, or will run once it is running.
    pub fn version(&self) -> u64 {
        self.version.number
    }

    /// The offset at which a partition began to be processed by that.
    pub fn version_since(&self, partition: &TopicPartition) -> Option<Offset> {
        self.version_starts.get(partition).copied()
    }

    /// Whether it is at a commit boundary: nothing of it is uncommitted, and it is running.
    pub fn may_swap(&self) -> bool {
        self.state == TaskState::Running
            && self.migration.is_none()
            && !self.commit_needed
            && !self.initial_commit
            && !self.collector.is_full()
    }

    /// Replaces the instance by one of another version. On an error the old one goes on, and nothing has changed.
    /// Records of a batch that is cut in pieces stay cut: what failed in the old version comes alone to the new one.
    pub fn swap(&mut self, version: Arc<ProcessorVersion>, wall_clock_ms: Timestamp) -> Result<(), ProcessorError> {
        let old_version = std::mem::replace(&mut self.version, version);
        let old_processor = self.processor.take();
        let old_config = self
            .context
            .as_mut()
            .map(|context| std::mem::replace(&mut context.config, Arc::clone(&self.version.config)));
        let (was_fresh, old_reads) = (self.fresh, std::mem::take(&mut self.init_reads));
        if let Err(error) = self.start_processor(wall_clock_ms) {
            self.version = old_version;
            self.processor = old_processor;
            (self.fresh, self.init_reads) = (was_fresh, old_reads);
            if let (Some(context), Some(config)) = (&mut self.context, old_config) {
                context.config = config;
            }
            return Err(error);
        }
        self.wants_fresh = false;
        self.failures_in_a_row = 0;
        self.failed_punctuations_in_a_row = 0;
        self.resume_at_ms = 0;
        self.begin_version();
        self.set_provenance();
        // The offsets that are committed next say so, also where no record comes.
        self.commit_needed = true;
        self.options.metrics.add(Metric::TasksSwapped, 1);
        Ok(())
    }

    /// Notes what the committed metadata of a partition says of the version.
    pub(super) fn note_version(&mut self, partition: &TopicPartition, start: Offset, mark: Option<VersionMark>) {
        match mark {
            Some(mark) if mark.number == self.version.number => {
                self.version_starts.insert(partition.clone(), mark.since);
            }
            // An application that has had one version only need not say which.
            mark => {
                self.version_unmarked |= mark.is_some();
                self.version_starts.insert(partition.clone(), start);
            }
        }
    }

    /// Takes the version that is wanted, where that has changed since the task was made.
    pub(super) fn take_wanted_version(&mut self) {
        let wanted = self.options.versions.target();
        if wanted.number != self.version.number {
            self.version = wanted;
            self.begin_version();
        }
        self.set_provenance();
    }

    fn set_provenance(&mut self) {
        if self.options.config.provenance {
            self.collector.set_provenance(self.version.processors.digest());
        }
    }

    fn begin_version(&mut self) {
        self.version_unmarked = true;
        let starts = self.group.queues().iter().map(|queue| (queue.partition.clone(), queue.next_offset()));
        self.version_starts = starts.collect();
    }

    /// What a commit at `offset` says of the version.
    pub(super) fn version_mark(&self, partition: &TopicPartition, offset: Offset) -> VersionMark {
        VersionMark { number: self.version.number, since: self.version_since(partition).unwrap_or(offset) }
    }

    /// Counts what a call has done. Fails when the version has gone past the bounds of its probation by that, so that
    /// what it did last is not committed.
    pub(super) fn tally(&self, records: u64, outputs: usize) -> Result<(), EngineError> {
        self.version.tally.processed(records, outputs as u64);
        self.past_probation(self.options.versions.past_bounds(self.version.number))
    }

    /// Counts a failed call; an error where it is one too many for a version on probation.
    pub(super) fn count_failed(&self, error: &ProcessorError) -> Result<(), EngineError> {
        self.past_probation(self.options.versions.failed(&self.version, error))
    }

    /// Counts what is about to be given up; an error where it is not to be, since another version gets it.
    pub(super) fn count_given_up(&self, error: &ProcessorError) -> Result<(), EngineError> {
        self.past_probation(self.options.versions.gave_up(&self.version, error))
    }

    fn past_probation(&self, reason: Option<String>) -> Result<(), EngineError> {
        match reason {
            Some(reason) => Err(EngineError::PastProbation { task: self.id, version: self.version.number, reason }),
            None => Ok(()),
        }
    }
}
