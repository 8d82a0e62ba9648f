//! Executing the answer to a rebalance, action by action. An action that fails stays at the head of the list and is
//! tried again in the next turn; a later event is planned only when the answer to the one before it is complete.

use std::sync::Arc;

use super::plan::{Action, Facts, plan};
use super::{Start, TaskManager};
use crate::broker::{Consumer, RebalanceEvent, StartOffset};
use crate::error::EngineError;
use crate::metrics::Metric;
use crate::record::TopicPartition;
use crate::stream_thread::AutoOffsetReset;
use crate::task::stream_task::StreamTask;
use crate::task::streams_producer::StreamsProducer;

impl TaskManager {
    /// Takes the events of a poll.
    pub fn add_events(&mut self, events: Vec<RebalanceEvent>) {
        self.options.metrics.add(Metric::Rebalances, events.len() as u64);
        self.events.extend(events);
    }

    /// Answers the events that came, as far as possible. True when anything was done.
    pub fn answer_events(
        &mut self,
        producer: &mut StreamsProducer,
        consumer: &mut dyn Consumer,
        now_ms: u64,
    ) -> Result<bool, EngineError> {
        let mut answered = false;
        loop {
            if self.actions.is_empty() {
                let Some(event) = self.events.front() else { return Ok(answered) };
                tracing::info!(thread = self.options.thread, ?event, "rebalance");
                let tasks = self.tasks.keys().copied().collect();
                let facts = Facts {
                    topology: &self.options.topology,
                    counts: &self.options.partition_counts,
                    assigned: &self.assigned,
                    tasks: &tasks,
                };
                self.actions = plan(event, &facts)?.into();
                self.events.pop_front();
            }
            while let Some(action) = self.actions.front().cloned() {
                self.execute(action, producer, consumer, now_ms)?;
                self.actions.pop_front();
                answered = true;
            }
        }
    }

    fn execute(
        &mut self,
        action: Action,
        producer: &mut StreamsProducer,
        consumer: &mut dyn Consumer,
        now_ms: u64,
    ) -> Result<(), EngineError> {
        match action {
            Action::Assign(partitions) => self.assign(&partitions, consumer),
            Action::Pause(partitions) => Ok(consumer.pause(&partitions)?),
            Action::Create(id, partitions) => {
                let mut task = StreamTask::new(id, &partitions, self.options.clone());
                for partition in &partitions {
                    match self.starts.remove(partition) {
                        Some((start, committed)) => task.set_start(partition, start, committed.as_ref()),
                        // It was held since an earlier task of this id was closed with records in its queue, which
                        // the consumer has passed.
                        None => task.rewind(),
                    }
                    if let Some(records) = self.early.remove(partition) {
                        task.add_records(partition, records);
                    }
                }
                // They stay paused until the task runs.
                task.group_mut().queues_mut().iter_mut().for_each(|queue| queue.paused = true);
                self.held.remove(&id);
                self.options.metrics.add(Metric::TasksCreated, 1);
                self.tasks.insert(id, task);
                Ok(())
            }
            Action::Hold(id) => {
                self.held.entry(id).or_insert(now_ms);
                Ok(())
            }
            Action::Release(id) => {
                self.held.remove(&id);
                Ok(())
            }
            Action::Commit(_) => {
                // All tasks commit: under exactly-once they share the transaction, and otherwise it costs little.
                // A task whose commit did not succeed is closed dirty by what follows.
                self.commit_now(producer, consumer).map(|_| ())
            }
            Action::CloseClean(id) => {
                // Without its last commit it is closed dirty.
                if self.tasks.get(&id).is_some_and(StreamTask::commit_needed) {
                    producer.abandon();
                }
                self.close_clean(id)
            }
            Action::CloseDirty(id) => {
                producer.abandon();
                self.close_dirty(id)
            }
            Action::Unassign(partitions) => {
                producer.check_before_unassign()?;
                consumer.unassign(&partitions)?;
                for partition in &partitions {
                    self.assigned.remove(partition);
                    self.starts.remove(partition);
                    self.early.remove(partition);
                }
                Ok(())
            }
        }
    }

    /// Begins to fetch partitions where the group stands.
    fn assign(&mut self, partitions: &[TopicPartition], consumer: &mut dyn Consumer) -> Result<(), EngineError> {
        let starts = self.find_starts(partitions, consumer)?;
        let offsets: Vec<(TopicPartition, StartOffset)> =
            starts.iter().map(|(partition, (offset, _))| (partition.clone(), StartOffset::At(*offset))).collect();
        consumer.assign(&offsets)?;
        for (partition, start) in starts {
            self.assigned.insert(partition.clone());
            self.starts.insert(partition, start);
        }
        Ok(())
    }

    /// Where partitions start: at the group's committed offsets, else by `auto.offset.reset`. That is resolved to an
    /// offset here, so that it can be committed before anything is processed. One that backs a store waits at its end,
    /// where nothing is fetched: the store's own offset says where it goes on, and so it does not matter whether the
    /// committed one has expired or is gone from the log.
    pub(super) fn find_starts(
        &mut self,
        partitions: &[TopicPartition],
        consumer: &mut dyn Consumer,
    ) -> Result<Vec<(TopicPartition, Start)>, EngineError> {
        if partitions.is_empty() {
            return Ok(Vec::new());
        }
        let committed = consumer.committed(partitions)?;
        let topology = Arc::clone(&self.options.topology);
        let (tables, others): (Vec<_>, Vec<_>) =
            partitions.iter().zip(&committed).partition(|(partition, _)| topology.is_source_backed(&partition.topic));
        let tables: Vec<TopicPartition> = tables.into_iter().map(|(partition, _)| partition.clone()).collect();
        let new = others.into_iter().filter(|(_, committed)| committed.is_none());
        let new: Vec<TopicPartition> = new.map(|(partition, _)| partition.clone()).collect();
        if let (AutoOffsetReset::None, Some(partition)) = (self.options.config.auto_offset_reset, new.first()) {
            return Err(EngineError::NoStartOffset { partition: partition.clone() });
        }
        let mut logs = self.reader.watermarks(&new)?.into_iter();
        let mut ends = self.reader.stable_ends(&tables)?.into_iter();
        let latest = self.options.config.auto_offset_reset == AutoOffsetReset::Latest;
        let mut starts = Vec::with_capacity(partitions.len());
        for (partition, committed) in partitions.iter().zip(committed) {
            let start = match &committed {
                _ if topology.is_source_backed(&partition.topic) => ends.next().unwrap_or(0),
                Some(committed) => committed.offset,
                None => logs.next().map_or(0, |log| if latest { log.high } else { log.low }),
            };
            starts.push((partition.clone(), (start, committed)));
        }
        Ok(starts)
    }
}
