//! Reading a partition: whole batches from the core, decoded once into records that share the batch's bytes, handed
//! out in portions. Positions move over gaps, markers and aborted records.

use std::collections::{BTreeSet, VecDeque};

use bytes::Bytes;
use engine::record::{Header, Offset, Record};

use super::Connection;
use crate::core::batch::{BatchHeader, Marker, Records, marker};
use crate::core::log::{AbortedTransaction, Fetched, IsolationLevel};
use crate::core::refusal::Refusal;

/// Which producers' batches are to be skipped, batch after batch (Kafka's client does it in `CompletedFetch`).
struct Aborted<'a> {
    /// In the order of their first offsets.
    waiting: &'a [AbortedTransaction],
    producers: BTreeSet<i64>,
}

impl Aborted<'_> {
    fn covers(&mut self, batch: &[u8], header: &BatchHeader) -> bool {
        while let Some((first, rest)) = self.waiting.split_first()
            && first.first_offset <= header.last_offset()
        {
            self.producers.insert(first.producer_id);
            self.waiting = rest;
        }
        if marker(batch, header) == Some(Marker::Abort) {
            self.producers.remove(&header.producer_id);
        }
        header.is_transactional() && self.producers.contains(&header.producer_id)
    }
}

/// Decodes the records at or above `from`, without the aborted ones, and returns the offset after the last batch.
pub(super) fn decode(fetched: &Fetched, from: Offset, take: &mut dyn FnMut(Record)) -> Offset {
    let batches: &Bytes = &fetched.records;
    let mut aborted = Aborted { waiting: &fetched.aborted, producers: BTreeSet::new() };
    let mut at = 0;
    let mut next = from;
    while let Some(header) = batches.get(at..).and_then(BatchHeader::read)
        && let Some(size) = header.size()
        && let Some(batch) = batches.get(at..at + size)
    {
        let skipped = aborted.covers(batch, &header) || header.is_control();
        for view in Records::new(batch, &header).filter(|view| view.offset >= from && !skipped) {
            let share = |bytes: Option<&[u8]>| bytes.map(|bytes| batches.slice_ref(bytes));
            let headers = view.headers().into_iter();
            take(Record {
                offset: view.offset,
                timestamp: view.timestamp,
                key: share(view.key),
                value: share(view.value),
                headers: headers
                    .map(|(key, value)| Header { key: batches.slice_ref(key), value: share(value) })
                    .collect(),
            });
        }
        next = next.max(header.last_offset() + 1);
        at += size;
    }
    next
}

/// Where a client stands in a partition, with what it has fetched ahead.
#[derive(Debug, Default)]
pub(super) struct Position {
    /// The offset after the last record handed out.
    pub(super) next: Offset,
    /// Whether anything was polled since the position was set.
    pub(super) polled: bool,
    /// The end of the log when it was read last.
    pub(super) end: Option<Offset>,
    fetched: VecDeque<Record>,
    /// The offset after what was fetched.
    fetched_to: Offset,
}

impl Position {
    pub(super) fn at(offset: Offset) -> Self {
        Self { next: offset, polled: false, end: None, fetched: VecDeque::new(), fetched_to: offset }
    }

    /// The next records, at most `max_records`.
    pub(super) fn read(
        &mut self,
        connection: &Connection,
        topic: &str,
        partition: i32,
        max_records: usize,
    ) -> Result<Vec<Record>, Refusal> {
        if self.fetched.is_empty() {
            let log = connection.core().partition(topic, partition)?;
            let bytes = connection.options.fetch_bytes;
            let fetched = log.read(self.fetched_to, bytes, true, IsolationLevel::ReadCommitted)?;
            self.end = Some(fetched.bounds.high_watermark);
            let ahead = &mut self.fetched;
            self.fetched_to = decode(&fetched, self.fetched_to, &mut |record| ahead.push_back(record));
        }
        self.polled = true;
        let count = self.fetched.len().min(max_records);
        let records: Vec<Record> = self.fetched.drain(..count).collect();
        self.next = match (self.fetched.front(), records.last()) {
            (None, _) => self.fetched_to,
            (Some(_), Some(last)) => last.offset + 1,
            (Some(_), None) => self.next,
        };
        Ok(records)
    }
}
