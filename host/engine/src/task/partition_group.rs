//! A task's record queues: which record comes next (the one with the lowest timestamp among the queues' heads), the
//! batch that it begins, and the stream time. What is taken for a batch stays in its queue until `complete`, so a
//! failed call changes nothing here. Never calls a processor.

use crate::error::EngineError;
use crate::record::{HeaderColumns, InputBatch, NO_TIMESTAMP, Offset, Record, Timestamp, TopicPartition};
use crate::task::record_queue::{Idling, RecordQueue};
use crate::topology::TaskId;

/// What bounds a batch.
#[derive(Debug, Clone, Copy)]
pub struct BatchLimits {
    pub max_records: usize,
    pub max_bytes: usize,
}

/// A batch that was built but not processed: what `complete` needs, and what errors name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchInfo {
    queue: usize,
    pub count: usize,
    pub first_offset: Offset,
    pub last_offset: Offset,
    /// The stream time after the batch.
    pub stream_time: Timestamp,
    partition_time: Timestamp,
    /// Bytes of keys and values.
    pub bytes: usize,
    header_bytes: usize,
    headers: usize,
    key_bytes: usize,
}

/// The queues of a task, in the order of its declared sources.
#[derive(Debug)]
pub struct PartitionGroup {
    task: TaskId,
    queues: Vec<RecordQueue>,
    /// The highest timestamp processed over all partitions, `NO_TIMESTAMP` before the first. Never goes back.
    stream_time: Timestamp,
    max_task_idle_ms: i64,
}

fn record_bytes(record: &Record) -> (usize, usize) {
    (record.key.as_ref().map_or(0, |key| key.len()), record.value.as_ref().map_or(0, |value| value.len()))
}

fn header_bytes(record: &Record) -> usize {
    let bytes = |header: &crate::record::Header| header.key.len() + header.value.as_ref().map_or(0, |v| v.len());
    record.headers.iter().map(bytes).sum()
}

impl PartitionGroup {
    pub fn new(task: TaskId, partitions: &[TopicPartition], max_task_idle_ms: i64) -> Self {
        let queues = partitions.iter().cloned().map(RecordQueue::new).collect();
        Self { task, queues, stream_time: NO_TIMESTAMP, max_task_idle_ms }
    }

    pub fn queues(&self) -> &[RecordQueue] {
        &self.queues
    }

    pub fn queues_mut(&mut self) -> &mut [RecordQueue] {
        &mut self.queues
    }

    pub fn queue_mut(&mut self, partition: &TopicPartition) -> Option<&mut RecordQueue> {
        self.queues.iter_mut().find(|queue| queue.partition == *partition)
    }

    /// The stream time; `None` before the first timestamp.
    pub fn stream_time(&self) -> Option<Timestamp> {
        (self.stream_time >= 0).then_some(self.stream_time)
    }

    /// Records that wait in all queues.
    pub fn buffered(&self) -> usize {
        self.queues.iter().map(RecordQueue::len).sum()
    }

    /// Takes the stream time from the partition times that were committed.
    pub fn reset_stream_time(&mut self) {
        self.stream_time = self.queues.iter().map(RecordQueue::partition_time).max().unwrap_or(NO_TIMESTAMP);
    }

    /// The queues that must be asked for their end before the task can decide whether to wait for them.
    pub fn to_ask(&self) -> impl Iterator<Item = usize> {
        let waiting = self.max_task_idle_ms >= 0 && self.queues.len() > 1 && self.buffered() > 0;
        let empty = self.queues.iter().enumerate().filter(move |(_, queue)| waiting && queue.is_empty());
        empty.map(|(index, _)| index)
    }

    /// Reports the consumer's position in a queue's partition and the end of its log.
    pub fn set_end(&mut self, queue: usize, position: Offset, end_offset: Offset, now_ms: u64) {
        let idle_until_ms = now_ms.saturating_add(self.max_task_idle_ms.max(0).unsigned_abs());
        if let Some(queue) = self.queues.get_mut(queue) {
            queue.set_end(position, end_offset, idle_until_ms);
        }
    }

    /// Whether the next record may be taken (KIP-695): some queue has one, and each empty queue is known to be caught
    /// up and was waited for `max.task.idle.ms`, by the monotonic clock (R23).
    pub fn is_ready(&self, now_ms: u64) -> bool {
        if self.queues.iter().all(RecordQueue::is_empty) {
            return false;
        }
        self.max_task_idle_ms < 0 || self.queues.iter().all(|queue| queue.idling(now_ms) == Idling::Ready)
    }

    /// The queue with the lowest head timestamp, the first declared one of equals.
    fn choose(&self, except: Option<usize>) -> Option<(Timestamp, usize)> {
        let heads = self.queues.iter().enumerate().filter(|(index, _)| Some(*index) != except);
        heads.filter_map(|(index, queue)| queue.head_timestamp().map(|timestamp| (timestamp, index))).min()
    }

    /// The batch that begins with the next record: consecutive records of one queue, cut by `limits`, where the head
    /// of another queue comes first, and right after the record that brings the stream time to `due`. The records
    /// stay in the queue. `None` when all queues are empty.
    pub fn next_batch(
        &self,
        limits: BatchLimits,
        due: Option<Timestamp>,
    ) -> Result<Option<(InputBatch, BatchInfo)>, EngineError> {
        let Some((_, chosen)) = self.choose(None) else { return Ok(None) };
        let info = self.measure(chosen, limits, due)?;
        let queue = &self.queues[chosen];
        Ok(Some((build(&queue.partition, queue.records.iter().take(info.count), &info), info)))
    }

    /// Decides where the batch of a queue ends.
    fn measure(&self, chosen: usize, limits: BatchLimits, due: Option<Timestamp>) -> Result<BatchInfo, EngineError> {
        let other = self.choose(Some(chosen));
        let queue = &self.queues[chosen];
        let max_records = queue.piece().map_or(limits.max_records, |piece| piece.min(limits.max_records)).max(1);
        let mut info = self.no_records_of(chosen);
        let first_offset = info.first_offset;
        for record in &queue.records {
            let invalid = record.timestamp < NO_TIMESTAMP;
            if invalid && info.count == 0 {
                return Err(EngineError::InvalidTimestamp {
                    task: self.task,
                    partition: queue.partition.clone(),
                    offset: record.offset,
                    timestamp: record.timestamp,
                });
            }
            let (key_bytes, value_bytes) = record_bytes(record);
            let header_bytes = if record.headers.is_empty() { 0 } else { header_bytes(record) };
            let bytes = info.bytes + info.header_bytes + key_bytes + value_bytes + header_bytes;
            let full = info.count == max_records
                || bytes > limits.max_bytes
                || record.offset - first_offset > Offset::from(u32::MAX);
            let overtaken = other.is_some_and(|other| other < (record.timestamp, chosen));
            if info.count > 0 && (invalid || full || overtaken) {
                break;
            }
            info.count += 1;
            info.last_offset = record.offset;
            info.bytes += key_bytes + value_bytes;
            info.key_bytes += key_bytes;
            info.header_bytes += header_bytes;
            info.headers += record.headers.len();
            info.partition_time = info.partition_time.max(record.timestamp);
            info.stream_time = info.stream_time.max(record.timestamp);
            if due.is_some_and(|due| info.stream_time >= due) {
                break;
            }
        }
        Ok(info)
    }

    /// The batch was processed: its records leave their queue and its times become the task's.
    pub fn complete(&mut self, info: &BatchInfo) {
        self.stream_time = info.stream_time;
        if let Some(queue) = self.queues.get_mut(info.queue) {
            queue.complete(info.count, info.last_offset, info.partition_time);
        }
    }

    /// The first record, where that may not be processed because of its timestamp: a batch that changes no time.
    pub fn first_alone(&self) -> Option<BatchInfo> {
        let (_, chosen) = self.choose(None)?;
        Some(BatchInfo { count: 1, ..self.no_records_of(chosen) })
    }

    /// The batch of a queue before its first record is taken.
    fn no_records_of(&self, chosen: usize) -> BatchInfo {
        let queue = &self.queues[chosen];
        let first_offset = queue.records.front().map_or(queue.next_offset, |record| record.offset);
        BatchInfo {
            queue: chosen,
            count: 0,
            first_offset,
            last_offset: first_offset,
            stream_time: self.stream_time,
            partition_time: queue.partition_time,
            bytes: 0,
            header_bytes: 0,
            headers: 0,
            key_bytes: 0,
        }
    }

    /// The records of a batch that was built and not completed are processed in these pieces, one after the other.
    pub fn split(&mut self, info: &BatchInfo, pieces: &[usize]) {
        if let Some(queue) = self.queues.get_mut(info.queue) {
            queue.split(pieces);
        }
    }

    /// Whether a batch is a piece of one that failed.
    pub fn is_piece(&self, info: &BatchInfo) -> bool {
        self.queues.get(info.queue).is_some_and(|queue| queue.piece().is_some())
    }

    /// A record of a batch that was built and not completed.
    pub fn record_in(&self, info: &BatchInfo, index: usize) -> Option<&Record> {
        if index >= info.count {
            return None;
        }
        self.queues.get(info.queue)?.records.get(index)
    }

    /// The offset of a record of a batch that was built and not completed.
    pub fn offset_in(&self, info: &BatchInfo, index: usize) -> Option<Offset> {
        self.record_in(info, index).map(|record| record.offset)
    }

    /// The partition of a batch.
    pub fn partition_of(&self, info: &BatchInfo) -> &TopicPartition {
        &self.queues[info.queue].partition
    }
}

/// Builds the columns in one go, each with its exact capacity.
fn build<'a>(partition: &TopicPartition, records: impl Iterator<Item = &'a Record>, info: &BatchInfo) -> InputBatch {
    let mut batch = InputBatch {
        topic: partition.topic.clone(),
        partition: partition.partition,
        base_offset: info.first_offset,
        ..InputBatch::default()
    };
    batch.offset_deltas.reserve_exact(info.count);
    batch.timestamps.reserve_exact(info.count);
    batch.keys.ends.reserve_exact(info.count);
    batch.keys.bytes.reserve_exact(info.key_bytes);
    batch.values.ends.reserve_exact(info.count);
    batch.values.bytes.reserve_exact(info.bytes - info.key_bytes);
    for record in records {
        // `measure` has kept the difference within 32 bits.
        batch.offset_deltas.push((record.offset - info.first_offset) as u32);
        batch.timestamps.push(record.timestamp);
        batch.keys.push(record.key.as_deref());
        batch.values.push(record.value.as_deref());
        if info.headers > 0 {
            push_headers(&mut batch.headers, record);
        }
    }
    batch
}

fn push_headers(columns: &mut HeaderColumns, record: &Record) {
    columns.counts.push(record.headers.len() as u32);
    for header in &record.headers {
        columns.keys.push(&header.key);
        columns.values.push(header.value.as_deref());
    }
}

#[cfg(test)]
mod tests;
