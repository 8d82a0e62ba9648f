//! The records of one source partition that wait to be processed, in offset order, and how far the partition is:
//! the next offset and the partition time. Records leave only after the call that processed them has succeeded.

use std::collections::VecDeque;

use crate::broker::OffsetAndMetadata;
use crate::record::{NO_TIMESTAMP, Offset, Record, Timestamp, TopicPartition};

/// What is known of a partition whose queue is empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CaughtUp {
    /// Not asked yet since the queue ran empty.
    Unknown,
    /// The broker has records that were not fetched.
    Behind,
    /// Nothing is left to fetch, and the task waits for more until this wall-clock time.
    Until(u64),
}

/// Whether an empty queue keeps its task from processing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Idling {
    /// There are records; or the partition is caught up and was waited for long enough.
    Ready,
    /// There may be records at the broker: ask, or fetch.
    Fetch,
    /// The partition is caught up; the task waits for it a little.
    Wait,
}

/// One source partition of a task.
#[derive(Debug)]
pub struct RecordQueue {
    pub partition: TopicPartition,
    pub(super) records: VecDeque<Record>,
    /// The highest timestamp that was processed, `NO_TIMESTAMP` before the first.
    pub(super) partition_time: Timestamp,
    /// The offset after the last processed record, or where the partition starts.
    pub(super) next_offset: Offset,
    /// What the group has committed, as far as this task knows.
    pub committed: Option<OffsetAndMetadata>,
    /// The end of the log when it was last asked for.
    pub end_offset: Option<Offset>,
    /// Whether the consumer was told to fetch no more.
    pub paused: bool,
    caught_up: CaughtUp,
    /// Numbers of records that are processed on their own, because a call with all of them failed: the next one last.
    pieces: Vec<usize>,
}

impl RecordQueue {
    pub fn new(partition: TopicPartition) -> Self {
        Self {
            partition,
            records: VecDeque::new(),
            partition_time: NO_TIMESTAMP,
            next_offset: 0,
            committed: None,
            end_offset: None,
            paused: false,
            caught_up: CaughtUp::Unknown,
            pieces: Vec::new(),
        }
    }

    /// How many records the next call may get at most, because of a failed one; `None` where there was none.
    pub fn piece(&self) -> Option<usize> {
        self.pieces.last().copied()
    }

    /// A call with the first records failed: they are processed in these pieces, whose sum they are.
    pub(super) fn split(&mut self, pieces: &[usize]) {
        let total: usize = pieces.iter().sum();
        self.take_from_pieces(total);
        self.pieces.extend(pieces.iter().rev().filter(|&&piece| piece > 0));
    }

    /// The first records leave the pieces that they are in.
    fn take_from_pieces(&mut self, mut records: usize) {
        while records > 0 {
            match self.pieces.last_mut() {
                Some(piece) if *piece > records => {
                    *piece -= records;
                    return;
                }
                Some(_) => records -= self.pieces.pop().unwrap_or(records),
                None => return,
            }
        }
    }

    pub fn len(&self) -> usize {
        self.records.len()
    }

    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// The offset that the group has committed.
    pub fn committed_offset(&self) -> Option<Offset> {
        self.committed.as_ref().map(|committed| committed.offset)
    }

    /// The offset after the last processed record.
    pub fn next_offset(&self) -> Offset {
        self.next_offset
    }

    pub fn partition_time(&self) -> Timestamp {
        self.partition_time
    }

    /// Drops what waits and starts again at an offset and a partition time.
    pub fn reset(&mut self, offset: Offset, partition_time: Timestamp) {
        self.records.clear();
        self.pieces.clear();
        self.next_offset = offset;
        self.partition_time = partition_time;
        self.caught_up = CaughtUp::Unknown;
    }

    /// Appends records that the consumer returned. Records that are here or were processed already are dropped.
    pub fn add(&mut self, records: Vec<Record>) {
        let expected = self.records.back().map_or(self.next_offset, |last| last.offset + 1);
        self.records.extend(records.into_iter().filter(|record| record.offset >= expected));
        if !self.records.is_empty() {
            self.caught_up = CaughtUp::Unknown;
        }
    }

    /// The timestamp of the first record; one without a timestamp counts as the oldest.
    pub fn head_timestamp(&self) -> Option<Timestamp> {
        self.records.front().map(|record| record.timestamp)
    }

    /// Where the group shall go on: at the first record that waits, else at the consumer's position, which has passed
    /// control records as well (R19).
    pub fn offset_to_commit(&self, position: Option<Offset>) -> Offset {
        match self.records.front() {
            Some(record) => record.offset,
            None => position.unwrap_or(self.next_offset).max(self.next_offset),
        }
    }

    /// Removes the first `count` records, which were processed.
    pub(super) fn complete(&mut self, count: usize, last_offset: Offset, partition_time: Timestamp) {
        self.records.drain(..count);
        self.take_from_pieces(count);
        self.next_offset = last_offset + 1;
        self.partition_time = partition_time;
        if self.records.is_empty() {
            self.caught_up = CaughtUp::Unknown;
        }
    }

    /// Reports the consumer's position and the end of the log. `idle_until_ms` (monotonic) is how long the task waits
    /// for records that are not there yet.
    pub fn set_end(&mut self, position: Offset, end_offset: Offset, idle_until_ms: u64) {
        self.end_offset = Some(end_offset);
        if !self.is_empty() {
            return;
        }
        self.caught_up = match (position >= end_offset, self.caught_up) {
            (false, _) => CaughtUp::Behind,
            // The wait begins when the partition is first seen to be caught up.
            (true, CaughtUp::Until(until)) => CaughtUp::Until(until),
            (true, _) => CaughtUp::Until(idle_until_ms),
        };
    }

    /// Whether the task may process other partitions without this one.
    pub fn idling(&self, now_ms: u64) -> Idling {
        if !self.is_empty() {
            return Idling::Ready;
        }
        match self.caught_up {
            CaughtUp::Unknown | CaughtUp::Behind => Idling::Fetch,
            CaughtUp::Until(until) if now_ms < until => Idling::Wait,
            CaughtUp::Until(_) => Idling::Ready,
        }
    }
}
