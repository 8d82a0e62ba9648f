//! Opens a log from its store: segments from their summaries as far as those reach, the rest by a scan of the batches.
//! Only the tail of the last segment may be torn (a write cut short, with no whole batch in it); it is cut there and
//! the loss is reported. Damage anywhere else is an error and nothing is changed.

use std::sync::Arc;

use super::segment::Segment;
use super::{LogLimits, PartitionLog, SCAN_BYTES};
use crate::core::batch::{self, BatchHeader, HEADER_BYTES};
use crate::core::producer_state::{ProducerStates, UNKNOWN_MS};
use crate::core::storage::{LogStore, StorageError};

/// What was cut from a log's tail when it was opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovery {
    /// For example `votes-0`.
    pub log: Arc<str>,
    pub segment: i64,
    pub kept_bytes: u64,
    pub cut_bytes: u64,
    /// The log end after the cut.
    pub next_offset: i64,
}

pub fn open(
    name: Arc<str>,
    mut store: Box<dyn LogStore>,
    log_start_offset: i64,
    limits: &LogLimits,
) -> Result<(PartitionLog, Option<Recovery>), StorageError> {
    let mut found = store.segments()?;
    if found.is_empty() {
        store.create_segment(log_start_offset)?;
        found.push((log_start_offset, 0));
    }
    let mut segments: Vec<Segment> = Vec::with_capacity(found.len());
    let mut producers = ProducerStates::default();
    let mut recovery = None;
    let mut summarized_bytes = 0;
    let last = found.len() - 1;
    for (at, &(base_offset, size)) in found.iter().enumerate() {
        let damaged = |detail: String| StorageError {
            operation: "open",
            subject: format!("segment {base_offset} of the log of {name} ({})", store.segment_name(base_offset)),
            detail,
        };
        if let Some(previous) = segments.last()
            && base_offset < previous.next_offset
        {
            return Err(damaged(format!("the segment before it ends at offset {}", previous.next_offset)));
        }
        let summary = store.read_summary(base_offset)?;
        let is_summarized = summary.is_some();
        let known = summary.and_then(|bytes| Segment::from_summary(base_offset, size, &bytes));
        let is_stale = is_summarized && known.is_none();
        let mut segment = match known {
            Some((segment, states)) => {
                producers = states;
                segment
            }
            None => Segment::new(base_offset),
        };
        summarized_bytes = segment.size;
        scan(store.as_ref(), &mut segment, size, at == last, &mut producers, limits)?;
        if segment.size < size {
            if at < last || has_whole_batch(store.as_ref(), &segment, size)? {
                return Err(damaged(say_damage(&segment, size, found.get(at + 1).map(|(next, _)| *next))));
            }
            store.truncate(base_offset, segment.size)?;
            recovery = Some(Recovery {
                log: Arc::clone(&name),
                segment: base_offset,
                kept_bytes: segment.size,
                cut_bytes: size - segment.size,
                next_offset: segment.next_offset,
            });
        }
        if is_stale && let Ok(summary) = segment.summary(&producers) {
            // Left in place it would be taken for true once the segment has grown beyond what it says. When it cannot
            // be written (a full disk), the stale one is gone all the same.
            match store.write_summary(base_offset, &summary) {
                Ok(()) => summarized_bytes = segment.size,
                Err(error) => tracing::warn!(%error, "a segment has no summary and will be scanned at the next start"),
            }
        }
        segments.push(segment);
    }
    let log = assemble(name, store, segments, log_start_offset, producers, summarized_bytes);
    Ok((log, recovery))
}

fn assemble(
    name: Arc<str>,
    store: Box<dyn LogStore>,
    segments: Vec<Segment>,
    log_start_offset: i64,
    producers: ProducerStates,
    summarized_bytes: u64,
) -> PartitionLog {
    let next_offset = segments.last().map_or(log_start_offset, |segment| segment.next_offset).max(log_start_offset);
    let first_offset = segments.first().map_or(log_start_offset, |segment| segment.base_offset);
    let log_start_offset = log_start_offset.max(first_offset).min(next_offset);
    PartitionLog {
        name,
        store,
        segments,
        log_start_offset,
        next_offset,
        producers,
        summarized_bytes,
        segment_began_ms: None,
        cleaned_to: 0,
    }
}

/// What is wrong with a segment, and what to do; `next` is where the segment after it begins.
fn say_damage(segment: &Segment, size: u64, next: Option<i64>) -> String {
    format!(
        "damaged at byte {} of {size}; nothing was changed: put the file back from a copy, or cut it there to go on \
         without the records from offset {} to {}",
        segment.size,
        segment.next_offset,
        next.map_or(String::from("the end"), |next| (next - 1).to_string())
    )
}

/// Whether there is a whole batch anywhere behind the segment's known part. A write cut short is the last one and
/// leaves none, whatever it was; nothing that the damaged place says of itself is trusted.
fn has_whole_batch(store: &dyn LogStore, segment: &Segment, size: u64) -> Result<bool, StorageError> {
    let length = usize::try_from(size - segment.size).unwrap_or(usize::MAX);
    let rest = store.read(segment.base_offset, segment.size, length)?;
    let is_batch = |at: usize| {
        let bytes = rest.get(at..).unwrap_or_default();
        let header = BatchHeader::read(bytes).filter(|header| header.magic == 2);
        let whole = header.and_then(|header| Some((header, bytes.get(..header.size()?)?)));
        whole.is_some_and(|(header, batch)| batch::is_intact(batch, &header))
    };
    Ok((0..rest.len()).any(is_batch))
}

/// Reads the batches that the segment does not know yet, up to the first one that is not whole. Only closed segments
/// are cleaned, so in the last one every batch begins where the one before it ends: its offset is not in its checksum.
fn scan(
    store: &dyn LogStore,
    segment: &mut Segment,
    size: u64,
    is_last: bool,
    producers: &mut ProducerStates,
    limits: &LogLimits,
) -> Result<(), StorageError> {
    let mut want = SCAN_BYTES;
    while segment.size < size {
        let chunk = store.read(segment.base_offset, segment.size, want)?;
        let mut at = 0;
        let mut needed = 0;
        while let Some(header) = chunk.get(at..).and_then(BatchHeader::read) {
            let Some(batch_size) = header.size() else { return Ok(()) };
            let Some(bytes) = chunk.get(at..at + batch_size) else {
                needed = batch_size;
                break;
            };
            let is_in_place = match is_last {
                true => header.base_offset == segment.next_offset,
                false => header.base_offset >= segment.next_offset,
            };
            if !is_in_place || !batch::is_intact(bytes, &header) {
                return Ok(());
            }
            segment.note(&header, batch_size, limits.index_interval_bytes);
            let marker = batch::marker(bytes, &header);
            segment.aborted.extend(producers.note(&header, header.base_offset, UNKNOWN_MS, marker));
            at += batch_size;
        }
        // A batch that reaches beyond the segment's end is torn, and so are fewer bytes than a header.
        let left = size - segment.size;
        if (needed as u64) > left || (at == 0 && needed == 0) || left < HEADER_BYTES as u64 {
            return Ok(());
        }
        want = needed.max(SCAN_BYTES);
    }
    Ok(())
}
