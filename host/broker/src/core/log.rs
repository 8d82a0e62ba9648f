//! One partition's log: raw record batches in segments, their offsets, timestamps and producers. What `append` has
//! answered is in the store before; offsets only grow and never repeat; a failed append leaves the log as it was.
//! Single node: the high watermark is the log end. Records go away at the front (`retention`, `DeleteRecords`) or, in
//! closed segments of compacted topics, one by one (`compaction`); the others keep their offsets.

pub mod compaction;
mod markers;
mod recovery;
pub mod retention;
pub mod segment;

use std::sync::Arc;

use bytes::Bytes;

use super::batch::{self, BatchHeader, DecodedBatch, HEADER_BYTES};
use super::producer_state::{ProducerStates, SequenceCheck};
use super::refusal::{ErrorCode, Refusal};
use super::storage::{LogStore, StorageError};
use retention::CleanupLimits;
use segment::Segment;

pub use super::producer_state::AbortedTransaction;
pub use recovery::Recovery;

/// The leader epoch of every partition: there is one broker and it never hands over.
pub const LEADER_EPOCH: i32 = 0;

/// How many bytes an open segment grows before it is summarized again; bounds what a start has to scan.
const SUMMARY_INTERVAL_BYTES: u64 = 8 * 1024 * 1024;

/// How much of a log is read at once to look for something.
const SCAN_BYTES: usize = 256 * 1024;

/// How much is read at once to find a batch by its header: an index run and a little more.
const LOOK_BYTES: usize = 8 * 1024;

/// A topic's settings as the log needs them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLimits {
    pub max_message_bytes: usize,
    pub segment_bytes: u64,
    pub index_interval_bytes: u64,
    /// `message.timestamp.type=LogAppendTime`.
    pub log_append_time: bool,
    /// `cleanup.policy` has `compact`.
    pub require_keys: bool,
    pub timestamp_before_max_ms: i64,
    pub timestamp_after_max_ms: i64,
    pub cleanup: CleanupLimits,
}

impl Default for LogLimits {
    fn default() -> Self {
        Self {
            max_message_bytes: 1_048_588,
            segment_bytes: 64 * 1024 * 1024,
            index_interval_bytes: 4096,
            log_append_time: false,
            require_keys: false,
            timestamp_before_max_ms: i64::MAX,
            timestamp_after_max_ms: 3_600_000,
            cleanup: CleanupLimits::default(),
        }
    }
}

/// Which records a reader may see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IsolationLevel {
    ReadUncommitted,
    ReadCommitted,
}

/// A batch that is well-formed and small enough for its topic. To check it takes time, since it is decompressed.
#[derive(Debug, Clone, Copy)]
pub struct CheckedBatch<'a> {
    bytes: &'a [u8],
    header: BatchHeader,
}

impl<'a> CheckedBatch<'a> {
    pub fn new(bytes: &'a [u8], limits: &LogLimits) -> Result<Self, Refusal> {
        if bytes.len() > limits.max_message_bytes {
            let detail = format!("a batch of {} bytes, max.message.bytes is {}", bytes.len(), limits.max_message_bytes);
            return Err(Refusal::new(ErrorCode::MessageTooLarge, detail));
        }
        Ok(Self { bytes, header: batch::check(bytes, limits.require_keys)? })
    }
}

/// Whose transaction a batch may belong to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TransactionOwner {
    pub producer_id: i64,
    pub epoch: i16,
}

/// Where an appended batch stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    pub base_offset: i64,
    /// The broker's time when the topic asks for it, else -1.
    pub log_append_time: i64,
    pub log_start_offset: i64,
    /// The batch was in the log already; nothing was written.
    pub duplicate: bool,
}

/// The bounds of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogBounds {
    pub log_start_offset: i64,
    pub high_watermark: i64,
    /// The first offset of the oldest open transaction, else the high watermark.
    pub last_stable_offset: i64,
}

/// What a read found: whole batches, the first of which holds the asked offset or follows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    pub records: Bytes,
    pub bounds: LogBounds,
    /// In the order of their first offsets; empty for uncommitted reads.
    pub aborted: Vec<AbortedTransaction>,
}

/// One partition's log.
pub struct PartitionLog {
    name: Arc<str>,
    store: Box<dyn LogStore>,
    /// Ascending; never empty.
    segments: Vec<Segment>,
    log_start_offset: i64,
    next_offset: i64,
    producers: ProducerStates,
    /// How far the last segment's summary reaches.
    summarized_bytes: u64,
    /// When the last segment got its first batch, by the broker's clock; unknown after a restart.
    segment_began_ms: Option<i64>,
    /// How far into the first segment that is not cleaned as a whole the cleanings got; not known after a restart.
    cleaned_to: i64,
}

impl std::fmt::Debug for PartitionLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PartitionLog").field("name", &self.name).field("next_offset", &self.next_offset).finish()
    }
}

impl PartitionLog {
    /// Opens a log from what its store holds. A torn tail is cut and reported.
    ///
    /// # Errors
    /// When the store fails, or when a batch before the last segment is damaged: such a log is left as it is.
    pub fn open(
        name: Arc<str>,
        store: Box<dyn LogStore>,
        log_start_offset: i64,
        limits: &LogLimits,
    ) -> Result<(Self, Option<Recovery>), StorageError> {
        recovery::open(name, store, log_start_offset, limits)
    }

    pub fn bounds(&self) -> LogBounds {
        LogBounds {
            log_start_offset: self.log_start_offset,
            high_watermark: self.next_offset,
            // What was deleted of an open transaction holds nobody back.
            last_stable_offset: self
                .producers
                .first_open_offset()
                .map_or(self.next_offset, |first| first.max(self.log_start_offset)),
        }
    }

    /// Bytes kept.
    pub fn size_bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.size).sum()
    }

    pub fn segment_count(&self) -> usize {
        self.segments.len()
    }

    pub fn producers(&self) -> &ProducerStates {
        &self.producers
    }

    /// Forgets idempotent producers that wrote nothing in the last `expiration_ms`.
    pub fn expire_producers(&mut self, now_ms: i64, expiration_ms: i64) {
        self.producers.expire(now_ms, expiration_ms);
    }

    /// Appends exactly one batch as a client sent it, outside of any transaction.
    ///
    /// # Errors
    /// A damaged or invalid batch, one above `max.message.bytes`, a timestamp outside the topic's bounds, a gap in the
    /// producer's sequence, a transactional batch, a failed write. Nothing was appended then.
    pub fn append(&mut self, batch: &[u8], limits: &LogLimits, now_ms: i64) -> Result<Appended, Refusal> {
        let checked = CheckedBatch::new(batch, limits).map_err(|refusal| self.refused(refusal))?;
        self.append_checked(&checked, limits, now_ms, None)
    }

    /// As `append`, for a batch that was checked before, without the log's lock. It may belong to the open transaction
    /// of `owner`: the caller has checked then that this partition is part of it, and keeps it from ending meanwhile.
    pub fn append_checked(
        &mut self,
        checked: &CheckedBatch<'_>,
        limits: &LogLimits,
        now_ms: i64,
        owner: Option<TransactionOwner>,
    ) -> Result<Appended, Refusal> {
        self.append_batch(checked, limits, now_ms, owner).map_err(|refusal| self.refused(refusal))
    }

    /// A refusal that says where the batch would have gone.
    fn refused(&self, refusal: Refusal) -> Refusal {
        let detail = format!("append to {} at offset {}: {}", self.name, self.next_offset, refusal.detail);
        Refusal::new(refusal.code, detail)
    }

    fn append_batch(
        &mut self,
        checked: &CheckedBatch<'_>,
        limits: &LogLimits,
        now_ms: i64,
        owner: Option<TransactionOwner>,
    ) -> Result<Appended, Refusal> {
        let CheckedBatch { bytes: batch, mut header } = *checked;
        check_owner(&header, owner)?;
        if let SequenceCheck::Duplicate(place) = self.producers.check(&header)? {
            let log_append_time = if limits.log_append_time { place.timestamp } else { -1 };
            let log_start_offset = self.log_start_offset;
            return Ok(Appended { base_offset: place.base_offset, log_append_time, log_start_offset, duplicate: true });
        }
        let append_time = limits.log_append_time.then_some(now_ms);
        match append_time {
            Some(time) => header.max_timestamp = time,
            None => check_timestamps(&header, limits, now_ms)?,
        }
        header.base_offset = self.next_offset;
        if header.base_offset.checked_add(i64::from(header.record_count)).is_none() {
            return Err(Refusal::new(ErrorCode::KafkaStorageError, "the partition has no offset left"));
        }
        let stamped = batch::stamp(batch, header.base_offset, LEADER_EPOCH, append_time)
            .ok_or_else(|| Refusal::new(ErrorCode::CorruptMessage, "the batch has no header"))?;
        self.write(&header, &[&stamped, batch.get(HEADER_BYTES..).unwrap_or_default()], batch.len(), limits)?;
        self.segment_began_ms.get_or_insert(now_ms);
        self.producers.note(&header, header.base_offset, now_ms, None);
        self.summarize_when_grown();
        Ok(Appended {
            base_offset: header.base_offset,
            log_append_time: append_time.unwrap_or(-1),
            log_start_offset: self.log_start_offset,
            duplicate: false,
        })
    }

    fn summarize_when_grown(&mut self) {
        if self.segments.last().is_some_and(|segment| segment.size - self.summarized_bytes >= SUMMARY_INTERVAL_BYTES) {
            self.summarize();
        }
    }

    /// Writes a batch at the log end, in a new segment when the last one is full.
    fn write(
        &mut self,
        header: &BatchHeader,
        parts: &[&[u8]],
        size: usize,
        limits: &LogLimits,
    ) -> Result<(), StorageError> {
        let full = |segment: &Segment| {
            segment.size > 0
                && (segment.size + size as u64 > limits.segment_bytes
                    || limits.cleanup.ends_segment(segment.first_timestamp, header.max_timestamp))
        };
        if self.segments.last().is_none_or(full) {
            self.roll()?;
        }
        let Some(segment) = self.segments.last_mut() else {
            return Err(self.broken("append to", "the log has no segment"));
        };
        self.store.append(segment.base_offset, segment.size, parts)?;
        segment.note(header, size, limits.index_interval_bytes);
        self.next_offset = header.last_offset() + 1;
        Ok(())
    }

    fn roll(&mut self) -> Result<(), StorageError> {
        self.store.create_segment(self.next_offset)?;
        self.summarize();
        self.segments.push(Segment::new(self.next_offset));
        self.summarized_bytes = 0;
        self.segment_began_ms = None;
        Ok(())
    }

    /// Keeps what was derived from the last segment. A summary is a cache: without it the segment is scanned at the
    /// next start.
    pub fn summarize(&mut self) {
        let Some(segment) = self.segments.last().filter(|segment| segment.size > self.summarized_bytes) else { return };
        self.summarized_bytes = segment.size;
        let Ok(summary) = segment.summary(&self.producers) else { return };
        if let Err(error) = self.store.write_summary(segment.base_offset, &summary) {
            tracing::warn!(%error, "a segment has no summary and will be scanned at the next start");
        }
    }

    fn broken(&self, operation: &'static str, detail: impl Into<String>) -> StorageError {
        StorageError { operation, subject: format!("the log of {}", self.name), detail: detail.into() }
    }

    /// Reads whole batches from `offset` on, about `max_bytes` of them. With `at_least_one`, the first batch comes
    /// even if it is larger.
    ///
    /// # Errors
    /// `OffsetOutOfRange` outside of log start and log end; a failed read.
    pub fn read(
        &self,
        offset: i64,
        max_bytes: usize,
        at_least_one: bool,
        isolation: IsolationLevel,
    ) -> Result<Fetched, Refusal> {
        let bounds = self.bounds();
        if offset < bounds.log_start_offset || offset > bounds.high_watermark {
            let detail = format!(
                "read {} at offset {offset}: the log has {} to {}",
                self.name, bounds.log_start_offset, bounds.high_watermark
            );
            return Err(Refusal::new(ErrorCode::OffsetOutOfRange, detail));
        }
        let end = match isolation {
            IsolationLevel::ReadUncommitted => bounds.high_watermark,
            IsolationLevel::ReadCommitted => bounds.last_stable_offset,
        };
        let records =
            if offset < end { self.read_batches(offset, max_bytes, at_least_one, end)? } else { Bytes::new() };
        let aborted = match isolation {
            IsolationLevel::ReadCommitted => self.aborted_in(offset, &records),
            IsolationLevel::ReadUncommitted => Vec::new(),
        };
        Ok(Fetched { records, bounds, aborted })
    }

    fn read_batches(&self, offset: i64, max_bytes: usize, at_least_one: bool, end: i64) -> Result<Bytes, Refusal> {
        let first = self.segments.partition_point(|segment| segment.base_offset <= offset).saturating_sub(1);
        for segment in self.segments.get(first..).unwrap_or_default() {
            if segment.next_offset <= offset || segment.size == 0 {
                continue;
            }
            let (found, header) = self.batch_with(segment, offset)?;
            let first_size = header.size().unwrap_or(HEADER_BYTES);
            let wanted = if at_least_one { max_bytes.max(first_size) } else { max_bytes };
            if wanted < first_size || header.base_offset >= end {
                return Ok(Bytes::new());
            }
            let bytes = self.read_segment(segment, found, wanted)?;
            let whole = whole_batches(&bytes, end);
            if whole == 0 {
                let detail = format!(
                    "read {} at offset {offset}: the batch at byte {found} of {} is damaged; read on behind it, or put \
                     the file back from a copy",
                    self.name,
                    self.store.segment_name(segment.base_offset)
                );
                return Err(Refusal::new(ErrorCode::CorruptMessage, detail));
            }
            return Ok(bytes.slice(..whole));
        }
        Ok(Bytes::new())
    }

    /// Bytes of a segment, none of them beyond its end: after a failed append there may be more in the store.
    fn read_segment(&self, segment: &Segment, position: u64, length: usize) -> Result<Bytes, StorageError> {
        let left = usize::try_from(segment.size.saturating_sub(position)).unwrap_or(usize::MAX);
        self.store.read(segment.base_offset, position, length.min(left))
    }

    /// Place and header of the first batch that ends at `offset` or after it. It lies at most one index run after
    /// the place where the index points to; the run's headers are read with one look at the store.
    fn batch_with(&self, segment: &Segment, offset: i64) -> Result<(u64, BatchHeader), StorageError> {
        let mut start = segment.position_before(offset);
        let mut window = Bytes::new();
        let mut at = 0;
        loop {
            let header = match window.get(at..).and_then(BatchHeader::read) {
                Some(header) => header,
                None => {
                    start += at as u64;
                    at = 0;
                    window = self.read_segment(segment, start, LOOK_BYTES)?;
                    BatchHeader::read(&window).ok_or_else(|| {
                        let detail = format!("no batch of segment {} holds offset {offset}", segment.base_offset);
                        self.broken("read", detail)
                    })?
                }
            };
            if header.last_offset() >= offset {
                return Ok((start + at as u64, header));
            }
            at += header.size().ok_or_else(|| self.broken("read", format!("no batch at byte {start}+{at}")))?;
        }
    }

    /// The header of the batch at `position`.
    fn batch_at(&self, segment: &Segment, position: u64) -> Result<(u64, BatchHeader), StorageError> {
        let bytes = self.store.read(segment.base_offset, position, HEADER_BYTES)?;
        BatchHeader::read(&bytes).filter(|header| header.size().is_some()).map(|header| (position, header)).ok_or_else(
            || {
                let detail = format!("no batch at byte {position} of segment {}", segment.base_offset);
                self.broken("read", detail)
            },
        )
    }

    /// The first offset whose record has this timestamp or a later one, with that record's timestamp; `None` when
    /// there is none.
    pub fn offset_for_timestamp(&self, timestamp: i64) -> Result<Option<(i64, i64)>, Refusal> {
        for segment in self.segments.iter().filter(|segment| segment.max_timestamp >= timestamp) {
            for (start, end) in segment.runs_at_or_after(timestamp) {
                if let Some(found) = self.find_timestamp(segment, start, end, timestamp)? {
                    return Ok(Some(found));
                }
            }
        }
        Ok(None)
    }

    /// The record with the highest timestamp, the first one of them (`ListOffsets` -3).
    pub fn offset_of_max_timestamp(&self) -> Result<Option<(i64, i64)>, Refusal> {
        match self.segments.iter().map(Segment::max_record_timestamp).max() {
            Some(max) if max >= 0 => self.offset_for_timestamp(max),
            _ => Ok(None),
        }
    }

    fn find_timestamp(
        &self,
        segment: &Segment,
        start: u64,
        end: u64,
        timestamp: i64,
    ) -> Result<Option<(i64, i64)>, StorageError> {
        let mut position = start;
        while position < end {
            let (at, header) = self.batch_at(segment, position)?;
            let size = header.size().unwrap_or(HEADER_BYTES);
            position = at + size as u64;
            if header.max_timestamp < timestamp || header.last_offset() < self.log_start_offset {
                continue;
            }
            let batch = self.store.read(segment.base_offset, at, size)?;
            let decoded = match DecodedBatch::decode(&batch, &header) {
                Ok(decoded) => decoded,
                // Records that nobody can read, but the batch says that one of them is late enough.
                Err(_) => {
                    let first = header.base_offset.max(self.log_start_offset);
                    return Ok(Some((first, header.base_timestamp.max(timestamp).min(header.max_timestamp))));
                }
            };
            let found = decoded
                .records()
                .find(|record| record.timestamp >= timestamp && record.offset >= self.log_start_offset);
            let found = found.map(|record| (record.offset, record.timestamp));
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    /// Moves the log start up to `offset` and drops the segments that lie wholly before it. A start that is not
    /// higher changes nothing. The caller has checked the bounds and kept the new start.
    pub fn advance_log_start(&mut self, offset: i64) -> Result<(), StorageError> {
        self.log_start_offset = self.log_start_offset.max(offset.min(self.next_offset));
        // A segment reaches to the next one, even if the records at its end were compacted away: the first segment's
        // name must never lie above the log start.
        while let [first, next, ..] = self.segments.as_slice()
            && next.base_offset <= self.log_start_offset
        {
            self.store.remove_segment(first.base_offset)?;
            self.segments.remove(0);
        }
        Ok(())
    }
}

fn check_owner(header: &BatchHeader, owner: Option<TransactionOwner>) -> Result<(), Refusal> {
    if !header.is_transactional() {
        return Ok(());
    }
    match owner {
        Some(owner) if (owner.producer_id, owner.epoch) == (header.producer_id, header.producer_epoch) => Ok(()),
        Some(owner) => {
            let detail = format!(
                "producer {} epoch {}, but the transaction belongs to producer {} epoch {}",
                header.producer_id, header.producer_epoch, owner.producer_id, owner.epoch
            );
            let code = match owner.producer_id == header.producer_id {
                true => ErrorCode::InvalidProducerEpoch,
                false => ErrorCode::InvalidProducerIdMapping,
            };
            Err(Refusal::new(code, detail))
        }
        None => {
            let detail = format!("producer {} has no open transaction here", header.producer_id);
            Err(Refusal::new(ErrorCode::InvalidTxnState, detail))
        }
    }
}

fn check_timestamps(header: &BatchHeader, limits: &LogLimits, now_ms: i64) -> Result<(), Refusal> {
    let invalid = |detail: String| Err(Refusal::new(ErrorCode::InvalidTimestamp, detail));
    if header.max_timestamp.saturating_sub(now_ms) > limits.timestamp_after_max_ms {
        return invalid(format!(
            "timestamp {} is more than message.timestamp.after.max.ms={} after the broker's time {now_ms}",
            header.max_timestamp, limits.timestamp_after_max_ms
        ));
    }
    if header.base_timestamp >= 0 && now_ms.saturating_sub(header.base_timestamp) > limits.timestamp_before_max_ms {
        return invalid(format!(
            "timestamp {} is more than message.timestamp.before.max.ms={} before the broker's time {now_ms}",
            header.base_timestamp, limits.timestamp_before_max_ms
        ));
    }
    Ok(())
}

/// How many bytes of whole, undamaged batches below offset `end` there are at the front.
fn whole_batches(bytes: &[u8], end: i64) -> usize {
    let mut whole = 0;
    while let Some(header) = bytes.get(whole..).and_then(BatchHeader::read)
        && let Some(size) = header.size()
        && header.base_offset < end
        && bytes.get(whole..whole + size).is_some_and(|batch| batch::is_intact(batch, &header))
    {
        whole += size;
    }
    whole
}

#[cfg(test)]
mod tests;
