//! Old records go by whole segments from the front of the log: by age (`retention.ms`), by size (`retention.bytes`),
//! never at or beyond the last stable offset. Also says when the segment that is written ends by time (`segment.ms`),
//! because only closed segments can go or be cleaned. Ages are those of the records, as Kafka counts them; a segment
//! whose records have no timestamps never gets too old.

use super::{PartitionLog, Segment};
use crate::core::storage::StorageError;

/// What a topic's settings say of cleaning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CleanupLimits {
    /// `cleanup.policy` has `delete`.
    pub delete: bool,
    /// `cleanup.policy` has `compact`.
    pub compact: bool,
    /// -1 = without limit.
    pub retention_ms: i64,
    /// -1 = without limit.
    pub retention_bytes: i64,
    pub segment_ms: i64,
    pub min_compaction_lag_ms: i64,
    pub max_compaction_lag_ms: i64,
    /// `min.cleanable.dirty.ratio` in parts of a million.
    pub min_dirty_millionths: u64,
    pub delete_retention_ms: i64,
}

impl Default for CleanupLimits {
    fn default() -> Self {
        Self {
            delete: true,
            compact: false,
            retention_ms: -1,
            retention_bytes: -1,
            segment_ms: 604_800_000,
            min_compaction_lag_ms: 0,
            max_compaction_lag_ms: i64::MAX,
            min_dirty_millionths: 500_000,
            delete_retention_ms: 86_400_000,
        }
    }
}

impl CleanupLimits {
    /// How long a segment is written.
    fn segment_age_max_ms(&self) -> i64 {
        match self.compact {
            true => self.segment_ms.min(self.max_compaction_lag_ms),
            false => self.segment_ms,
        }
    }

    /// Whether a record of time `timestamp` belongs into a new segment, by the time of the segment's first batch.
    pub(super) fn ends_segment(&self, first_timestamp: i64, timestamp: i64) -> bool {
        first_timestamp >= 0 && timestamp.saturating_sub(first_timestamp) > self.segment_age_max_ms()
    }

    fn is_expired(&self, segment: &Segment, now_ms: i64) -> bool {
        self.retention_ms >= 0
            && segment.max_timestamp >= 0
            && now_ms.saturating_sub(segment.max_timestamp) > self.retention_ms
    }
}

impl PartitionLog {
    /// Closes the segment that is written when it has been written for long enough. True when it did.
    pub fn roll_if_due(&mut self, now_ms: i64, cleanup: &CleanupLimits) -> Result<bool, StorageError> {
        let Some(segment) = self.segments.last().filter(|segment| segment.size > 0) else { return Ok(false) };
        // After a restart the records' own time has to do.
        let first_timestamp = if segment.first_timestamp >= 0 { segment.first_timestamp } else { now_ms };
        let began_ms = *self.segment_began_ms.get_or_insert(first_timestamp.min(now_ms));
        if now_ms.saturating_sub(began_ms) <= cleanup.segment_age_max_ms() {
            return Ok(false);
        }
        self.roll()?;
        Ok(true)
    }

    /// Where the log should begin by its limits; `None` when nothing has to go. When everything has to, the segment
    /// that is written is closed first, so that it can go too. When that fails (a full disk), the reason is added to
    /// `errors` and only the segments before it go: they make the room for the next attempt.
    pub fn retention_start(
        &mut self,
        now_ms: i64,
        cleanup: &CleanupLimits,
        errors: &mut Vec<StorageError>,
    ) -> Option<i64> {
        if !cleanup.delete {
            return None;
        }
        let removable = self.removable_segments(self.bounds().last_stable_offset);
        // What a cleaning has left empty has no age: it goes with an old segment behind it, and is no reason to move
        // the log's start by itself.
        let may_go = |segment: &&Segment| segment.size == 0 || cleanup.is_expired(segment, now_ms);
        let front = self.segments.iter().take(removable).take_while(may_go).enumerate();
        let old = front.filter(|(_, segment)| segment.size > 0).last();
        let mut gone = old.map_or(0, |(place, _)| place + 1);
        if let Ok(most) = u64::try_from(cleanup.retention_bytes) {
            let kept: u64 = self.segments.iter().skip(gone).map(|segment| segment.size).sum();
            let mut excess = kept.saturating_sub(most);
            for segment in self.segments.iter().take(removable).skip(gone) {
                if excess == 0 || segment.size > excess {
                    break;
                }
                excess -= segment.size;
                gone += 1;
            }
        }
        if gone == 0 {
            return None;
        }
        if gone == self.segments.len()
            && let Err(error) = self.roll()
        {
            errors.push(error);
        }
        let first = self.segments.get(gone).or(self.segments.last());
        first.map(|segment| segment.base_offset)
    }

    /// How many segments from the front lie wholly below offset `stable`; an empty last one stays.
    fn removable_segments(&self, stable: i64) -> usize {
        let ends = self.segments.iter().skip(1).map(|next| next.base_offset).chain([self.next_offset]);
        let below = ends.take_while(|&end| end <= stable).count();
        match self.segments.last() {
            Some(last) if last.size == 0 => below.min(self.segments.len() - 1),
            _ => below,
        }
    }
}

#[cfg(test)]
mod tests;
