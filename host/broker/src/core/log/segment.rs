//! One segment of a log: its bounds and a sparse index from offsets and timestamps to byte positions. Derived from the
//! segment's batches alone; a closed segment's is kept as a summary so that it need not be scanned again.

use bytes::{Buf, BufMut};
use serde::{Deserialize, Serialize};

use crate::core::batch::BatchHeader;
use crate::core::producer_state::{AbortedTransaction, ProducerStates};

/// Where a run of batches begins. The run lasts to the next entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IndexEntry {
    pub base_offset: i64,
    pub position: u64,
    /// The highest timestamp of the run.
    pub max_timestamp: i64,
}

/// One segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    pub base_offset: i64,
    pub size: u64,
    /// The offset after its last record.
    pub next_offset: i64,
    pub max_timestamp: i64,
    /// The highest timestamp of its first batch, -1 when it has none.
    pub first_timestamp: i64,
    /// A cleaning has seen it: no key in it had a later record at that time.
    pub is_cleaned: bool,
    pub index: Vec<IndexEntry>,
    /// Transactions whose abort marker is here, in the order of their markers.
    pub aborted: Vec<AbortedTransaction>,
}

#[derive(Serialize, Deserialize)]
struct SummaryHead {
    size: u64,
    next_offset: i64,
    max_timestamp: i64,
    #[serde(default = "no_timestamp")]
    first_timestamp: i64,
    #[serde(default)]
    is_cleaned: bool,
    producers: ProducerStates,
    #[serde(default)]
    aborted: Vec<AbortedTransaction>,
}

fn no_timestamp() -> i64 {
    -1
}

const ENTRY_BYTES: usize = 24;

impl Segment {
    pub fn new(base_offset: i64) -> Self {
        Self {
            base_offset,
            size: 0,
            next_offset: base_offset,
            max_timestamp: -1,
            first_timestamp: -1,
            is_cleaned: false,
            index: Vec::new(),
            aborted: Vec::new(),
        }
    }

    /// Notes a batch of `size` bytes that was appended. A new index entry begins every `interval_bytes`.
    pub fn note(&mut self, header: &BatchHeader, size: usize, interval_bytes: u64) {
        let position = self.size;
        if position == 0 {
            self.first_timestamp = header.max_timestamp;
        }
        // A batch without records holds no time that anybody could ask for.
        let record_timestamp = if header.record_count == 0 { -1 } else { header.max_timestamp };
        match self.index.last_mut() {
            Some(entry) if position - entry.position < interval_bytes => {
                entry.max_timestamp = entry.max_timestamp.max(record_timestamp);
            }
            _ => self.index.push(IndexEntry {
                base_offset: header.base_offset,
                position,
                max_timestamp: record_timestamp,
            }),
        }
        self.size += size as u64;
        self.next_offset = header.last_offset() + 1;
        self.max_timestamp = self.max_timestamp.max(header.max_timestamp);
    }

    /// A position at or before the batch that holds `offset`.
    pub fn position_before(&self, offset: i64) -> u64 {
        let after = self.index.partition_point(|entry| entry.base_offset <= offset);
        after.checked_sub(1).and_then(|at| self.index.get(at)).map_or(0, |entry| entry.position)
    }

    /// The highest timestamp of a record, -1 when there is none.
    pub fn max_record_timestamp(&self) -> i64 {
        self.index.iter().map(|entry| entry.max_timestamp).max().unwrap_or(-1)
    }

    /// The runs that hold a timestamp at or after `timestamp`, as bounds of bytes, in order.
    pub fn runs_at_or_after(&self, timestamp: i64) -> impl Iterator<Item = (u64, u64)> {
        self.index.iter().enumerate().filter(move |(_, entry)| entry.max_timestamp >= timestamp).map(|(at, entry)| {
            let end = self.index.get(at + 1).map_or(self.size, |next| next.position);
            (entry.position, end)
        })
    }

    /// The summary of this segment and of the producers as they stand at its end.
    pub fn summary(&self, producers: &ProducerStates) -> Result<Vec<u8>, serde_json::Error> {
        let head = SummaryHead {
            size: self.size,
            next_offset: self.next_offset,
            max_timestamp: self.max_timestamp,
            first_timestamp: self.first_timestamp,
            is_cleaned: self.is_cleaned,
            producers: producers.clone(),
            aborted: self.aborted.clone(),
        };
        let head = serde_json::to_vec(&head)?;
        let mut body = Vec::with_capacity(head.len() + 4 + self.index.len() * ENTRY_BYTES);
        body.put_u32(head.len() as u32);
        body.put_slice(&head);
        for entry in &self.index {
            body.put_i64(entry.base_offset);
            body.put_u64(entry.position);
            body.put_i64(entry.max_timestamp);
        }
        let mut summary = crc32c::crc32c(&body).to_be_bytes().to_vec();
        summary.extend_from_slice(&body);
        Ok(summary)
    }

    /// Reads a summary back; `None` when it is damaged or reaches beyond `size` bytes. It may end before them.
    pub fn from_summary(base_offset: i64, size: u64, summary: &[u8]) -> Option<(Self, ProducerStates)> {
        let (crc, mut body) = summary.split_at_checked(4)?;
        if crc32c::crc32c(body).to_be_bytes() != crc {
            return None;
        }
        let head_length = body.try_get_u32().ok()? as usize;
        let (head, mut entries) = body.split_at_checked(head_length)?;
        let head: SummaryHead = serde_json::from_slice(head).ok()?;
        if head.size > size {
            return None;
        }
        let mut index = Vec::with_capacity(entries.len() / ENTRY_BYTES);
        while entries.len() >= ENTRY_BYTES {
            index.push(IndexEntry {
                base_offset: entries.get_i64(),
                position: entries.get_u64(),
                max_timestamp: entries.get_i64(),
            });
        }
        let SummaryHead { size, next_offset, max_timestamp, first_timestamp, is_cleaned, producers, aborted } = head;
        let segment =
            Self { base_offset, size, next_offset, max_timestamp, first_timestamp, is_cleaned, index, aborted };
        Some((segment, producers))
    }
}
