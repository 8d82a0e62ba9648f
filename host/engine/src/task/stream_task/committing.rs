//! A task's part in a commit, one function for each stage that concerns it. The order of the stages is `commit`'s.

use std::collections::BTreeMap;

use super::{Processed, StreamTask};
use crate::broker::{BrokerError, BrokerErrorKind, Consumer, OffsetAndMetadata, ProducerRecord, SendError};
use crate::error::EngineError;
use crate::metrics::Metric;
use crate::record::{Offset, Timestamp, TopicPartition};
use crate::state::TaskStore;
use crate::state::changelog::{ChangelogRecord, to_record};
use crate::task::offset_metadata::Committed;
use crate::task::record_collector::send_once_more_when_full;
use crate::task::record_queue::RecordQueue;
use crate::task::streams_producer::StreamsProducer;
use crate::task::{TaskState, offset_metadata};

/// The offsets of a task that a commit covers.
pub type TaskOffsets = Vec<(TopicPartition, OffsetAndMetadata)>;

impl StreamTask {
    /// Whether there is anything to commit. Positions that moved past control records only do not count.
    pub fn commit_needed(&self) -> bool {
        self.state == TaskState::Running && (self.commit_needed || self.initial_commit)
    }

    /// Whether nothing may be processed before the next commit.
    pub fn awaits_initial_commit(&self) -> bool {
        self.state == TaskState::Running && self.initial_commit
    }

    /// Stage `SendOutputs`: true when all outputs are with the producer and no schedule on stream time is due.
    pub fn send_outputs(
        &mut self,
        producer: &mut StreamsProducer,
        wall_clock_ms: Timestamp,
    ) -> Result<bool, EngineError> {
        self.changelog_cursor = (0, 0);
        self.changelogs_written = false;
        self.finish_outputs(producer, wall_clock_ms, &mut Processed::default())
    }

    /// Stage `WriteChangelogs`: sends each dirty entry of each store with a changelog of its own; true when all are
    /// with the producer. Goes on where it stopped when the producer's queue was full. What `init` wrote waits until
    /// the start of the task is committed: a changelog with records, but no committed offset, means that offsets were
    /// lost (R11).
    pub fn write_changelogs(&mut self, producer: &mut StreamsProducer) -> Result<bool, EngineError> {
        if self.initial_commit {
            self.commit_needed |= self.uncommitted_bytes() > 0;
            return Ok(true);
        }
        let Some(context) = &self.context else { return Ok(true) };
        let (mut store_index, mut entry_index) = self.changelog_cursor;
        let mut sent = 0;
        let mut full = false;
        'stores: while let Some(store) = context.stores().get(store_index) {
            if let Some(Some(changelog)) = self.changelogs.get(store_index)
                && !store.spec().is_source_backed()
            {
                for entry in store.dirty_entries().skip(entry_index) {
                    let ChangelogRecord { key, value, timestamp } = to_record(entry);
                    let record = ProducerRecord {
                        topic: &changelog.topic,
                        partition: Some(changelog.partition),
                        timestamp,
                        key: Some(key),
                        value,
                        headers: &[],
                    };
                    match send_once_more_when_full(producer, record) {
                        Ok(()) => {}
                        Err(SendError::QueueFull) => {
                            full = true;
                            break 'stores;
                        }
                        Err(SendError::Failed(error)) => {
                            return Err(EngineError::Send { task: self.id, topic: changelog.topic.to_string(), error });
                        }
                    }
                    entry_index += 1;
                    sent += 1;
                }
            }
            store_index += 1;
            entry_index = 0;
        }
        self.changelog_cursor = (store_index, entry_index);
        self.options.metrics.add(Metric::ChangelogRecords, sent);
        self.changelogs_written = !full;
        Ok(!full)
    }

    /// The offsets that differ from what the group has, with the partition times and how far the changelogs are then.
    pub fn offsets_to_commit(
        &self,
        consumer: &mut dyn Consumer,
        producer: &StreamsProducer,
    ) -> Result<TaskOffsets, EngineError> {
        let mut offsets = Vec::new();
        let mut said = None;
        for queue in self.group.queues() {
            let position = if queue.is_empty() { consumer.position(&queue.partition)? } else { None };
            let offset = queue.offset_to_commit(position);
            if queue.committed_offset() != Some(offset) || self.version_unmarked {
                let said = said.get_or_insert_with(|| self.said_of_all_partitions(producer));
                said.partition_time = queue.partition_time();
                said.version = Some(self.version_mark(&queue.partition, offset));
                said.schema_since = self.schema_start(&queue.partition, offset);
                let metadata = offset_metadata::encode(said);
                offsets.push((queue.partition.clone(), OffsetAndMetadata { offset, metadata }));
            }
        }
        Ok(offsets)
    }

    /// What the commit of each partition says alike.
    fn said_of_all_partitions(&self, producer: &StreamsProducer) -> Committed {
        Committed {
            changelogs: self.changelog_offsets(producer),
            schemas: self.schemas_to_commit(),
            schema_sources: self.schema_sources(),
            migrating: self.migrating_to_commit(),
            ..Committed::default()
        }
    }

    /// How far the changelogs of the stores are once the open commit is through.
    fn changelog_offsets(&self, producer: &StreamsProducer) -> BTreeMap<String, Offset> {
        let mut offsets = BTreeMap::new();
        for (store, changelog) in self.stores().iter().zip(&self.changelogs) {
            let Some(changelog) = changelog else { continue };
            if store.spec().is_source_backed() {
                continue;
            }
            let generation = store.spec().generation();
            let written = producer.acknowledged(changelog).filter(|_| store.is_dirty()).map(|offset| offset + 1);
            if let Some(offset) = written.or_else(|| self.committed_changelog(&generation)) {
                offsets.insert(generation.to_string(), offset);
            }
        }
        offsets
    }

    /// The offsets are committed; what follows cannot fail for the broker's sake any more.
    pub fn offsets_committed(&mut self, offsets: &TaskOffsets) {
        for (partition, committed) in offsets {
            if let Some(queue) = self.group.queue_mut(partition) {
                queue.committed = Some(committed.clone());
            }
        }
        self.initial_commit = false;
        self.version_unmarked = false;
        self.schemas_committed();
    }

    /// Stage `WriteStores`: one write for each store, with the offset that follows its changelog records. A store that
    /// its source topic backs gets the offset that was committed for that. May be repeated after an error. Nothing in a
    /// commit that did not write the changelogs.
    pub fn write_stores(&mut self, producer: &StreamsProducer) -> Result<(), EngineError> {
        if !self.changelogs_written {
            return Ok(());
        }
        let Some(context) = &mut self.context else { return Ok(()) };
        for (store, changelog) in context.stores_mut().iter_mut().zip(&self.changelogs) {
            if store.spec().is_source_backed() {
                let queue = self.group.queues().iter().find(|queue| Some(&queue.partition) == changelog.as_ref());
                store.commit(queue.and_then(RecordQueue::committed_offset))?;
                continue;
            }
            if !store.is_dirty() {
                continue;
            }
            let offset = match changelog {
                Some(changelog) => Some(next_changelog_offset(store, changelog, producer)?),
                None => None,
            };
            store.commit(offset)?;
            if let Some(offset) = offset {
                self.committed_changelogs.insert(store.spec().generation().to_string(), offset);
            }
        }
        self.commit_needed = false;
        self.changelog_cursor = (0, 0);
        self.report_positions();
        Ok(())
    }

    /// Tells queries that the stores have what was committed below the offsets of the group.
    pub(super) fn report_positions(&self) {
        let queues = self.group.queues().iter();
        // A table goes by its stores and not by what the group has.
        let reflected = |queue: &RecordQueue| match self.is_table {
            true => queue.next_offset().min(queue.committed_offset().unwrap_or(Offset::MAX)),
            false => queue.committed_offset().unwrap_or(0),
        };
        self.positions.set(queues.map(|queue| (queue.partition.clone(), reflected(queue))));
    }

    /// Makes durable what was committed.
    pub fn flush_stores(&mut self) -> Result<(), EngineError> {
        Ok(self.stores_mut().iter_mut().try_for_each(TaskStore::flush)?)
    }
}

/// The offset after the last changelog record of the store. Every dirty entry was sent and everything sent was
/// acknowledged, so it is missing only when the producer has lost its account.
fn next_changelog_offset(
    store: &TaskStore,
    changelog: &TopicPartition,
    producer: &StreamsProducer,
) -> Result<i64, EngineError> {
    let acknowledged = producer.acknowledged(changelog);
    acknowledged.map(|offset| offset + 1).ok_or_else(|| {
        let operation = format!("write changelog {changelog} of store {}", store.spec().name);
        BrokerError::new(BrokerErrorKind::Abortable, operation, "no record of it was acknowledged").into()
    })
}
