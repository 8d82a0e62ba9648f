//! The search for the record whose outputs a topic refuses although they were checked: one bad record fails its whole
//! batch, and every report in it says the same (R20). So the work is done again with one record in each transaction,
//! and the one that is refused alone is given up. Notes what is known of the search; `recovery` begins it, and the
//! thread's turns carry it out.

use std::collections::BTreeMap;

use crate::record::{Offset, TopicPartition};

/// So many searches in a row may find nothing: then it is no record that is refused, but what schedules forward.
const VAIN_SEARCHES_MAX: u32 = 3;

/// Searches that are further apart than this are not in a row.
const IN_A_ROW_MS: u64 = 600_000;

/// A record, by its place.
pub(super) type Place = (TopicPartition, Offset);

/// What is known.
#[derive(Debug, Default)]
pub(super) struct Search {
    /// Records before these offsets are processed alone.
    until: BTreeMap<TopicPartition, Offset>,
    /// The one record of the open transaction.
    suspect: Option<Place>,
    /// The last one that was found.
    found: Option<Place>,
    /// Searches that found nothing, and when the last one began (monotonic).
    vain: u32,
    begun_ms: u64,
}

impl Search {
    pub fn is_on(&self) -> bool {
        !self.until.is_empty()
    }

    /// Begins with the work that was refused, which ends at these offsets. False when that would lead to nothing.
    pub fn begin(&mut self, until: BTreeMap<TopicPartition, Offset>, now_ms: u64) -> bool {
        let in_a_row = self.begun_ms > 0 && now_ms.saturating_sub(self.begun_ms) < IN_A_ROW_MS;
        self.vain = if in_a_row { self.vain } else { 0 };
        self.begun_ms = now_ms;
        self.vain += 1;
        self.suspect = None;
        self.until = until;
        self.vain <= VAIN_SEARCHES_MAX && self.is_on()
    }

    /// A record was processed alone, and its transaction is open.
    pub fn suspect(&mut self, place: Place) {
        self.suspect = Some(place);
    }

    /// The transaction was refused: its only record is the one. `None` when nothing was processed in it, or when the
    /// record was given up before and is refused all the same.
    pub fn convict(&mut self) -> Option<Place> {
        let place = self.suspect.take().filter(|place| self.found.as_ref() != Some(place))?;
        self.found = Some(place.clone());
        self.vain = 0;
        Some(place)
    }

    /// What is uncommitted is dropped.
    pub fn recycled(&mut self) {
        self.suspect = None;
    }

    /// A commit was completed. `committed` is where a partition of this thread is; others are left to their owners.
    pub fn committed(&mut self, committed: impl Fn(&TopicPartition) -> Option<Offset>) {
        self.suspect = None;
        self.until.retain(|partition, until| committed(partition).is_some_and(|offset| offset < *until));
    }

    /// The tasks are given up.
    pub fn end(&mut self) {
        self.until.clear();
        self.suspect = None;
    }
}

#[cfg(test)]
mod tests;
