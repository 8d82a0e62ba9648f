//! The ends of transactions in one partition's log: writing their markers, and telling a reader which of the batches
//! that it gets were aborted. What is open and what was aborted is derived from the log alone.

use bytes::Bytes;

use super::{AbortedTransaction, LogLimits, PartitionLog, TransactionOwner};
use crate::core::batch::build::marker_batch;
use crate::core::batch::{self, BatchHeader, HEADER_BYTES, Marker};
use crate::core::refusal::{ErrorCode, Refusal};

impl PartitionLog {
    /// Writes the marker that ends a producer's transaction here, whether or not it wrote anything; its offset.
    ///
    /// # Errors
    /// A failed write; the transaction is open as before then.
    pub fn append_marker(
        &mut self,
        owner: TransactionOwner,
        marker: Marker,
        limits: &LogLimits,
        now_ms: i64,
    ) -> Result<i64, Refusal> {
        let offset = self.next_offset;
        let bytes = marker_batch(owner.producer_id, owner.epoch, marker, now_ms);
        let stamped = batch::stamp(&bytes, offset, super::LEADER_EPOCH, None);
        let (Some(stamped), Some(mut header)) = (stamped, BatchHeader::read(&bytes)) else {
            return Err(Refusal::new(ErrorCode::UnknownServerError, "a marker without a header was built"));
        };
        header.base_offset = offset;
        self.write(&header, &[&stamped, bytes.get(HEADER_BYTES..).unwrap_or_default()], bytes.len(), limits)?;
        self.segment_began_ms.get_or_insert(now_ms);
        let aborted = self.producers.note(&header, offset, now_ms, Some(marker));
        if let Some(segment) = self.segments.last_mut() {
            segment.aborted.extend(aborted);
        }
        self.summarize_when_grown();
        Ok(offset)
    }

    /// The aborted transactions with records between `offset` and the end of `records`, which were read from there.
    pub(super) fn aborted_in(&self, offset: i64, records: &Bytes) -> Vec<AbortedTransaction> {
        let Some(end) = end_of(records) else { return Vec::new() };
        let mut found = Vec::new();
        for segment in self.segments.iter().filter(|segment| segment.next_offset > offset) {
            let from = segment.aborted.partition_point(|aborted| aborted.last_offset < offset);
            for aborted in segment.aborted.iter().skip(from) {
                if aborted.first_offset < end {
                    found.push(*aborted);
                }
                // What was aborted later begins at the last stable offset of that time or after it.
                if aborted.last_stable_offset >= end {
                    found.sort_by_key(|aborted| aborted.first_offset);
                    return found;
                }
            }
        }
        found.sort_by_key(|aborted| aborted.first_offset);
        found
    }
}

/// The offset after the last of some whole batches.
fn end_of(batches: &Bytes) -> Option<i64> {
    let mut at = 0;
    let mut end = None;
    while let Some(header) = batches.get(at..).and_then(BatchHeader::read)
        && let Some(size) = header.size()
    {
        end = Some(header.last_offset() + 1);
        at += size;
    }
    end
}
