//! Compaction: of the closed segments of a log, only the last record of each key stays (Kafka's `LogCleaner`). A
//! `CleaningPass` first maps the keys of what was not cleaned yet to their last offsets, then goes through all segments
//! up to there from the front and replaces those in which something changes. When the map is full, the pass takes the
//! batches up to there only, and the next one goes on behind them, be it within a segment: each gets further by a batch
//! at least.
//!
//! Always true: offsets stay as they are, and a reader inside of a gap gets the next record. Nothing at or beyond the
//! last stable offset is touched, nor the segment that is written. A tombstone goes `delete.retention.ms` after the
//! pass that removed what it deletes. Control batches, the last batch of a living producer and the log's last batch
//! stay, if need be without records. The log is locked for the read of a chunk and for the swap of a segment, never in
//! between; a segment that is gone or was changed in the meantime is left alone.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;

use super::retention::CleanupLimits;
use super::segment::Segment;
use super::{LogLimits, PartitionLog, whole_batches};
use crate::core::batch::rewrite::{self, Retained};
use crate::core::batch::{BatchHeader, DecodedBatch};
use crate::core::producer_state::{ProducerEntry, ProducerStates};
use crate::core::storage::{SegmentReplacement, StorageError};
use crate::core::topics::Partition;

/// How much of a segment is read at once.
const CHUNK_BYTES: usize = 1024 * 1024;
/// What a key costs in the map beside its bytes.
const KEY_OVERHEAD_BYTES: usize = 48;
/// The dirty ratio's unit.
const MILLION: u64 = 1_000_000;

/// A closed segment as it was when a pass began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct SegmentIdentity {
    base_offset: i64,
    size: u64,
}

/// What a pass over a log would do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cleanable {
    /// The part that was not cleaned yet, in parts of a million.
    pub dirty_millionths: u64,
    /// A record waits for longer than `max.compaction.lag.ms`.
    pub is_overdue: bool,
    /// Closed segments that a pass may touch, and how many of them from the front were cleaned before.
    segments: usize,
    cleaned: usize,
    /// Where the part that was not cleaned begins: the offset, and a place in its segment at or before it.
    dirty_from: (i64, u64),
}

/// Whether a batch of this producer at this offset belongs to an aborted transaction.
pub type AbortedPredicate = Box<dyn Fn(i64, i64) -> bool + Send>;

/// What one step of a pass did.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// Looked at this many bytes; there is more to do.
    Worked(usize),
    /// Has to write or to swap files: `change_files` is to be called next, while the topic cannot go away.
    MustChangeFiles,
    Done,
}

/// What a pass achieved.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PassReport {
    pub replaced_segments: u64,
    pub freed_bytes: u64,
}

/// One segment on its way.
struct Current {
    identity: SegmentIdentity,
    position: u64,
    /// The segment as it will be.
    next: Segment,
    replacement: Option<Box<dyn SegmentReplacement>>,
    /// Read to its end.
    is_finished: bool,
    /// Something changes, but the replacement was not begun.
    must_begin: bool,
}

/// One cleaning of one log, in steps.
pub struct CleaningPass {
    partition: Arc<Partition>,
    delete_retention_ms: i64,
    index_interval_bytes: u64,
    now_ms: i64,
    is_aborted: AbortedPredicate,
    /// The last offset of each key from `dirty_from` to `dirty_end`.
    latest: BTreeMap<Box<[u8]>, i64>,
    latest_bytes: usize,
    latest_bytes_max: usize,
    /// The offset of the first batch that was not cleaned before, and a place in its segment at or before it.
    dirty_from: (i64, u64),
    /// The first batch that found the map full. It and all after it stay as they are.
    dirty_end: i64,
    /// The base offset of the last batch of each living producer.
    last_batches: BTreeMap<i64, i64>,
    /// The log's end, when no record follows the closed segments.
    log_end: Option<i64>,
    to_map: VecDeque<SegmentIdentity>,
    to_clean: VecDeque<SegmentIdentity>,
    current: Option<Current>,
    report: PassReport,
}

impl PartitionLog {
    /// Whether a cleaning is worth it by now; `None` when it is not.
    pub fn cleanable(&self, now_ms: i64, cleanup: &CleanupLimits) -> Option<Cleanable> {
        self.cleanable_below(self.bounds().last_stable_offset, now_ms, cleanup)
    }

    fn cleanable_below(&self, stable: i64, now_ms: i64, cleanup: &CleanupLimits) -> Option<Cleanable> {
        if !cleanup.compact {
            return None;
        }
        let youngest_ms = now_ms.saturating_sub(cleanup.min_compaction_lag_ms);
        let cleaned = self.segments.iter().take_while(|segment| segment.is_cleaned).count();
        let is_too_young = |segment: &Segment| {
            !segment.is_cleaned && cleanup.min_compaction_lag_ms > 0 && segment.max_timestamp > youngest_ms
        };
        let pairs = self.segments.iter().zip(self.segments.iter().skip(1));
        let segments = pairs.take_while(|(segment, next)| next.base_offset <= stable && !is_too_young(segment)).count();
        let size = |segments: &[Segment]| segments.iter().map(|segment| segment.size).sum::<u64>();
        let dirty = self.segments.get(cleaned..segments).filter(|dirty| !dirty.is_empty())?;
        let dirty_from = self.dirty_from(dirty.first()?);
        let dirty_bytes = size(dirty).saturating_sub(dirty_from.1);
        let all_bytes = size(self.segments.get(..segments).unwrap_or_default());
        let dirty_millionths = dirty_bytes.saturating_mul(MILLION).checked_div(all_bytes)?;
        let lag_max_ms = cleanup.max_compaction_lag_ms.max(cleanup.min_compaction_lag_ms);
        let oldest = dirty.iter().map(|segment| segment.first_timestamp).filter(|&first| first >= 0).min();
        let is_overdue = oldest.is_some_and(|oldest| now_ms.saturating_sub(oldest) > lag_max_ms);
        let is_worth_it = dirty_millionths > cleanup.min_dirty_millionths || is_overdue;
        is_worth_it.then_some(Cleanable { dirty_millionths, is_overdue, segments, cleaned, dirty_from })
    }

    /// Where the part of a segment begins that was not cleaned: the offset, and a place at or before it.
    fn dirty_from(&self, segment: &Segment) -> (i64, u64) {
        match segment.base_offset < self.cleaned_to && self.cleaned_to < segment.next_offset {
            true => (self.cleaned_to, segment.position_before(self.cleaned_to)),
            false => (segment.base_offset, 0),
        }
    }

    /// What was aborted up to the last stable offset.
    fn aborted_predicate(&self) -> AbortedPredicate {
        let mut ranges: BTreeMap<i64, Vec<(i64, i64)>> = BTreeMap::new();
        for aborted in self.segments.iter().flat_map(|segment| &segment.aborted) {
            ranges.entry(aborted.producer_id).or_default().push((aborted.first_offset, aborted.last_offset));
        }
        // Transactions of one producer follow each other.
        Box::new(move |producer_id, offset| {
            let Some(ranges) = ranges.get(&producer_id) else { return false };
            let place = ranges.partition_point(|&(_, last)| last < offset);
            ranges.get(place).is_some_and(|&(first, _)| first <= offset)
        })
    }

    fn closed_place(&self, identity: SegmentIdentity) -> Option<usize> {
        let place = self.segments.binary_search_by_key(&identity.base_offset, |segment| segment.base_offset).ok()?;
        let is_same = self.segments.get(place).is_some_and(|segment| segment.size == identity.size);
        (is_same && place + 1 < self.segments.len()).then_some(place)
    }

    /// Whole batches of a closed segment from `position` on, at least one; `None` when the segment is not there any
    /// more.
    fn closed_batches(&self, identity: SegmentIdentity, position: u64) -> Result<Option<Bytes>, StorageError> {
        let Some(segment) = self.closed_place(identity).and_then(|place| self.segments.get(place)) else {
            return Ok(None);
        };
        let mut bytes = self.read_segment(segment, position, CHUNK_BYTES)?;
        if whole_batches(&bytes, i64::MAX) == 0 {
            let size = BatchHeader::read(&bytes).and_then(|header| header.size());
            bytes = self.read_segment(segment, position, size.unwrap_or(0))?;
        }
        match whole_batches(&bytes, i64::MAX) {
            0 => {
                let name = self.store.segment_name(segment.base_offset);
                Err(self.broken("clean", format!("the batch at byte {position} of {name} is damaged")))
            }
            whole => Ok(Some(bytes.slice(..whole))),
        }
    }

    /// The producers as they stood at a closed segment's end, if its summary says so.
    fn summarized_producers(&self, identity: SegmentIdentity) -> Option<ProducerStates> {
        let summary = self.store.read_summary(identity.base_offset).ok()??;
        let (segment, states) = Segment::from_summary(identity.base_offset, identity.size, &summary)?;
        (segment.size == identity.size).then_some(states)
    }

    /// Writes a closed segment's summary again. Without one, the segment is scanned at the next start.
    fn keep_summary(&mut self, place: usize, states: Option<&ProducerStates>) {
        let Some((segment, states)) = self.segments.get(place).zip(states) else { return };
        let Ok(summary) = segment.summary(states) else { return };
        if let Err(error) = self.store.write_summary(segment.base_offset, &summary) {
            tracing::warn!(%error, "a cleaned segment has no summary and will be scanned at the next start");
        }
    }

    /// Puts a segment's replacement in its place.
    fn swap_segment(
        &mut self,
        identity: SegmentIdentity,
        mut next: Segment,
        replacement: Box<dyn SegmentReplacement>,
    ) -> Result<bool, StorageError> {
        let Some(place) = self.closed_place(identity) else { return Ok(false) };
        // Markers stay, and so does what readers must know of them.
        next.aborted = self.segments.get(place).map(|segment| segment.aborted.clone()).unwrap_or_default();
        let states = self.summarized_producers(identity);
        self.store.replace_segment(identity.base_offset, replacement)?;
        // The first segment stays even if it is empty: its name says where the log begins.
        if next.size == 0 && place > 0 {
            self.segments.remove(place);
            self.store.remove_segment(identity.base_offset)?;
            return Ok(true);
        }
        if let Some(segment) = self.segments.get_mut(place) {
            *segment = next;
        }
        self.keep_summary(place, states.as_ref());
        Ok(true)
    }

    /// Notes that nothing below offset `end` had to change in a segment.
    fn mark_cleaned(&mut self, identity: SegmentIdentity, end: i64) {
        let Some(place) = self.closed_place(identity) else { return };
        let Some(segment) = self.segments.get_mut(place).filter(|segment| !segment.is_cleaned) else { return };
        if segment.next_offset > end {
            self.cleaned_to = end;
            return;
        }
        segment.is_cleaned = true;
        let states = self.summarized_producers(identity);
        self.keep_summary(place, states.as_ref());
    }
}

impl CleaningPass {
    /// Begins a cleaning; `None` when none is worth it.
    pub fn begin(partition: &Arc<Partition>, limits: &LogLimits, now_ms: i64, latest_bytes_max: usize) -> Option<Self> {
        let log = partition.log();
        let cleanable = log.cleanable(now_ms, &limits.cleanup)?;
        let identity = |segment: &Segment| SegmentIdentity { base_offset: segment.base_offset, size: segment.size };
        let to_clean: VecDeque<SegmentIdentity> = log.segments.iter().take(cleanable.segments).map(identity).collect();
        let last_batch = |(id, entry): (i64, &ProducerEntry)| entry.batches.back().map(|place| (id, place.base_offset));
        let is_last_empty = log.segments.last().is_some_and(|segment| segment.size == 0);
        Some(Self {
            partition: Arc::clone(partition),
            delete_retention_ms: limits.cleanup.delete_retention_ms,
            index_interval_bytes: limits.index_interval_bytes,
            now_ms,
            is_aborted: log.aborted_predicate(),
            latest: BTreeMap::new(),
            latest_bytes: 0,
            latest_bytes_max,
            dirty_from: cleanable.dirty_from,
            dirty_end: i64::MAX,
            last_batches: log.producers.entries().filter_map(last_batch).collect(),
            log_end: is_last_empty.then_some(log.next_offset),
            to_map: to_clean.iter().skip(cleanable.cleaned).copied().collect(),
            to_clean,
            current: None,
            report: PassReport::default(),
        })
    }

    pub fn partition(&self) -> &Arc<Partition> {
        &self.partition
    }

    pub fn report(&self) -> PassReport {
        self.report
    }

    /// Goes on with the pass, by one chunk of a segment.
    ///
    /// # Errors
    /// A failed read or write, a damaged batch. The log is as before; the pass is of no use any more.
    pub fn step(&mut self) -> Result<Step, StorageError> {
        if let Some(current) = self.current.take() {
            return match current.must_begin || current.is_finished {
                true => {
                    self.current = Some(current);
                    Ok(Step::MustChangeFiles)
                }
                false => self.map_or_clean(current),
            };
        }
        let is_mapping = !self.to_map.is_empty();
        let next = if is_mapping { self.to_map.front().copied() } else { self.to_clean.pop_front() };
        let Some(identity) = next else { return Ok(Step::Done) };
        let (dirty_offset, dirty_position) = self.dirty_from;
        let current = Current {
            identity,
            position: if is_mapping && identity.base_offset <= dirty_offset { dirty_position } else { 0 },
            next: Segment::new(identity.base_offset),
            replacement: None,
            is_finished: false,
            must_begin: false,
        };
        self.map_or_clean(current)
    }

    fn map_or_clean(&mut self, mut current: Current) -> Result<Step, StorageError> {
        let is_mapping = !self.to_map.is_empty();
        if current.position >= current.identity.size {
            if is_mapping {
                self.finish_mapping(current.identity);
                return Ok(Step::Worked(0));
            }
            if let Some(replacement) = &mut current.replacement {
                replacement.sync()?;
            }
            current.is_finished = true;
            self.current = Some(current);
            return Ok(Step::MustChangeFiles);
        }
        let found = self.partition.log().closed_batches(current.identity, current.position)?;
        let Some(batches) = found else {
            // Removed in the meantime: nothing of it is missed.
            if is_mapping {
                self.finish_mapping(current.identity);
            }
            return Ok(Step::Worked(0));
        };
        if is_mapping {
            self.map(&batches);
            if self.dirty_end < i64::MAX {
                self.finish_mapping(current.identity);
                return Ok(Step::Worked(batches.len()));
            }
        } else {
            self.clean(&mut current, &batches)?;
        }
        if !current.must_begin {
            current.position += batches.len() as u64;
        }
        self.current = Some(current);
        Ok(Step::Worked(batches.len()))
    }

    /// A segment is in the map as far as it fits; when the map is full, this segment is the pass's last one.
    fn finish_mapping(&mut self, identity: SegmentIdentity) {
        self.to_map.pop_front();
        if self.is_map_full() {
            self.to_map.clear();
            self.to_clean.retain(|other| other.base_offset <= identity.base_offset);
        }
    }

    /// Whatever the bound, one batch always fits, so that every pass gets further.
    fn is_map_full(&self) -> bool {
        !self.latest.is_empty() && self.latest_bytes >= self.latest_bytes_max
    }

    /// The batches of a chunk with their headers; the chunk's reader has checked that they are whole.
    fn walk(batches: &[u8]) -> Vec<(BatchHeader, &[u8])> {
        let mut found = Vec::new();
        let mut rest = batches;
        while let Some(header) = BatchHeader::read(rest)
            && let Some((batch, tail)) = header.size().and_then(|size| rest.split_at_checked(size))
        {
            found.push((header, batch));
            rest = tail;
        }
        found
    }

    fn is_batch_aborted(&self, header: &BatchHeader) -> bool {
        header.is_transactional() && !header.is_control() && (self.is_aborted)(header.producer_id, header.base_offset)
    }

    /// Maps a chunk up to the batch that finds the map full, which becomes `dirty_end`.
    fn map(&mut self, batches: &[u8]) {
        for (header, batch) in Self::walk(batches) {
            let is_cleaned = header.base_offset < self.dirty_from.0;
            if is_cleaned || header.is_control() || self.is_batch_aborted(&header) {
                continue;
            }
            if self.is_map_full() {
                self.dirty_end = header.base_offset;
                return;
            }
            // Records that cannot be read stay, and do not stand for their keys.
            let Ok(decoded) = DecodedBatch::decode(batch, &header) else { continue };
            for record in decoded.records() {
                let Some(key) = record.key else { continue };
                match self.latest.get_mut(key) {
                    Some(offset) => *offset = record.offset,
                    None => {
                        self.latest_bytes += key.len() + KEY_OVERHEAD_BYTES;
                        self.latest.insert(key.into(), record.offset);
                    }
                }
            }
        }
    }

    /// Cleans a chunk; asks for a replacement when the first change is found.
    fn clean(&mut self, current: &mut Current, batches: &[u8]) -> Result<(), StorageError> {
        let mut kept = Vec::new();
        let mut notes = Vec::new();
        for (header, batch) in Self::walk(batches) {
            let retained = self.judge(&header, batch);
            if retained != Retained::Whole && current.replacement.is_none() {
                current.must_begin = true;
                return Ok(());
            }
            let bytes = match &retained {
                Retained::Whole => batch,
                Retained::Rewritten(bytes) => bytes,
                Retained::Nothing => continue,
            };
            kept.extend_from_slice(bytes);
            notes.extend(BatchHeader::read(bytes).map(|header| (header, bytes.len())));
        }
        if let Some(replacement) = &mut current.replacement {
            replacement.append(&kept)?;
            for (header, size) in notes {
                current.next.note(&header, size, self.index_interval_bytes);
            }
        }
        Ok(())
    }

    /// What stays of a batch.
    fn judge(&self, header: &BatchHeader, batch: &[u8]) -> Retained {
        if header.is_control() || header.base_offset >= self.dirty_end {
            return Retained::Whole;
        }
        let horizon_ms = header.delete_horizon_ms();
        let retained = match header.record_count == 0 || self.is_batch_aborted(header) {
            true => Retained::Nothing,
            false => {
                let new_horizon_ms = self.now_ms.saturating_add(self.delete_retention_ms);
                let retained = rewrite::retain(batch, header, new_horizon_ms, |record| {
                    let is_latest = |key| self.latest.get(key).is_none_or(|&latest| record.offset >= latest);
                    let is_kept =
                        record.value.is_some() || horizon_ms.is_none_or(|horizon_ms| self.now_ms < horizon_ms);
                    record.key.is_some_and(is_latest) && is_kept
                });
                retained.unwrap_or(Retained::Whole)
            }
        };
        if retained != Retained::Nothing || !self.must_stay(header) {
            return retained;
        }
        match header.record_count {
            0 => Retained::Whole,
            _ => Retained::Rewritten(rewrite::without_records(header)),
        }
    }

    /// Whether a batch stays even without records: it is where its producer, or the whole log, ends.
    fn must_stay(&self, header: &BatchHeader) -> bool {
        self.log_end == Some(header.last_offset().saturating_add(1))
            || (header.has_producer() && self.last_batches.get(&header.producer_id) == Some(&header.base_offset))
    }

    /// Begins the replacement of the current segment, or puts it in place. The topic must not go away meanwhile.
    pub fn change_files(&mut self) -> Result<(), StorageError> {
        let Some(mut current) = self.current.take() else { return Ok(()) };
        let partition = Arc::clone(&self.partition);
        let mut log = partition.log();
        if current.must_begin {
            if log.closed_place(current.identity).is_some() {
                current.replacement = Some(log.store.begin_replacement(current.identity.base_offset)?);
                current.position = 0;
                current.must_begin = false;
                self.current = Some(current);
            }
            return Ok(());
        }
        let Some(replacement) = current.replacement else {
            log.mark_cleaned(current.identity, self.dirty_end);
            return Ok(());
        };
        let freed_bytes = current.identity.size.saturating_sub(current.next.size);
        let is_cleaned = current.next.next_offset <= self.dirty_end;
        current.next.is_cleaned = is_cleaned;
        if log.swap_segment(current.identity, current.next, replacement)? {
            if !is_cleaned {
                log.cleaned_to = self.dirty_end;
            }
            self.report.replaced_segments += 1;
            self.report.freed_bytes += freed_bytes;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
