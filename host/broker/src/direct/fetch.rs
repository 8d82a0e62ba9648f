//! Reading a partition: whole batches from the core, decoded once into records that share the batch's bytes, handed
//! out in portions. Positions move over gaps.

use std::collections::VecDeque;

use bytes::Bytes;
use engine::record::{Header, Offset, Record};

use super::Connection;
use crate::core::batch::{BatchHeader, Records};
use crate::core::log::IsolationLevel;
use crate::core::refusal::Refusal;

/// Decodes the records at or above `from` and returns the offset after the last batch.
pub(super) fn decode(batches: &Bytes, from: Offset, take: &mut dyn FnMut(Record)) -> Offset {
    let mut at = 0;
    let mut next = from;
    while let Some(header) = batches.get(at..).and_then(BatchHeader::read)
        && let Some(size) = header.size()
        && let Some(batch) = batches.get(at..at + size)
    {
        for view in Records::new(batch, &header).filter(|view| view.offset >= from && !header.is_control()) {
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
            self.fetched_to = decode(&fetched.records, self.fetched_to, &mut |record| ahead.push_back(record));
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
