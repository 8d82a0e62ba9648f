//! Batches as a cleaning leaves them: without some of their records. What stays keeps its offset, its timestamp and its
//! bytes; the batch keeps base offset, last offset, producer and sequence, so that nothing but the removed records is
//! missed (KIP-98, KIP-534; Kafka's `MemoryRecords.filterTo`).

use super::build::put_varint;
use super::codec::{Codec, CodecError};
use super::{
    BatchHeader, COMPRESSION_MASK, CRC_FROM, DELETE_HORIZON, DecodedBatch, HEADER_BYTES, LENGTH_PREFIX_BYTES,
    RecordView, take, take_varint,
};

/// A batch after records were taken out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Retained {
    /// Nothing changes: the bytes that are there stay.
    Whole,
    Rewritten(Vec<u8>),
    /// No record is left.
    Nothing,
}

/// Takes the records out that `keep` refuses. With `new_horizon_ms`, a batch that keeps tombstones and has no delete
/// horizon yet gets this one.
pub fn retain(
    batch: &[u8],
    header: &BatchHeader,
    new_horizon_ms: i64,
    mut keep: impl FnMut(&RecordView<'_>) -> bool,
) -> Result<Retained, CodecError> {
    let decoded = DecodedBatch::decode(batch, header)?;
    let all: Vec<RecordView<'_>> = decoded.records().collect();
    if all.len() != header.record_count as usize {
        let detail = format!("{} records, of which {} can be read", header.record_count, all.len());
        return Err(CodecError::Damaged { codec: Codec::of(header.compression())?, detail });
    }
    let kept: Vec<RecordView<'_>> = all.into_iter().filter(|record| keep(record)).collect();
    if kept.is_empty() {
        return Ok(Retained::Nothing);
    }
    let keeps_tombstones = kept.iter().any(|record| record.value.is_none());
    let horizon_ms = (keeps_tombstones && header.delete_horizon_ms().is_none()).then_some(new_horizon_ms);
    if kept.len() == header.record_count as usize && horizon_ms.is_none() {
        return Ok(Retained::Whole);
    }
    let mut next = *header;
    next.record_count = kept.len() as i32;
    if let Some(horizon_ms) = horizon_ms {
        next.base_timestamp = horizon_ms;
        next.attributes |= DELETE_HORIZON;
    }
    if !header.is_log_append_time() {
        next.max_timestamp = kept.iter().map(|record| record.timestamp).max().unwrap_or(header.max_timestamp);
    }
    let mut body = Vec::with_capacity(batch.len());
    for record in &kept {
        put_record(&mut body, record, header.base_timestamp, next.base_timestamp);
    }
    let codec = Codec::of(header.compression())?;
    Ok(Retained::Rewritten(match codec.compress(&body) {
        Some(compressed) => assemble(&next, &compressed),
        None => {
            next.attributes &= !COMPRESSION_MASK;
            assemble(&next, &body)
        }
    }))
}

/// The batch without any record: its offsets, its producer and its sequence are still there.
pub fn without_records(header: &BatchHeader) -> Vec<u8> {
    let mut next = *header;
    next.record_count = 0;
    next.base_timestamp = -1;
    next.attributes &= !(COMPRESSION_MASK | DELETE_HORIZON);
    assemble(&next, &[])
}

/// Writes a record whose timestamp counts from another base.
fn put_record(body: &mut Vec<u8>, record: &RecordView<'_>, old_base: i64, new_base: i64) {
    let parts = (old_base != new_base).then(|| split_timestamp(record.encoded)).flatten();
    let Some((attributes, delta, rest)) = parts else {
        put_varint(body, record.encoded.len() as i64);
        body.extend_from_slice(record.encoded);
        return;
    };
    let mut head = attributes.to_vec();
    put_varint(&mut head, old_base.saturating_add(delta).saturating_sub(new_base));
    put_varint(body, (head.len() + rest.len()) as i64);
    body.extend_from_slice(&head);
    body.extend_from_slice(rest);
}

/// A record's attributes, its timestamp delta and what follows.
fn split_timestamp(encoded: &[u8]) -> Option<(&[u8], i64, &[u8])> {
    let mut rest = encoded;
    let attributes = take(&mut rest, 1)?;
    let delta = take_varint(&mut rest)?;
    Some((attributes, delta, rest))
}

/// A whole batch: length and CRC are made true, everything else is the header's.
fn assemble(header: &BatchHeader, body: &[u8]) -> Vec<u8> {
    let length = (HEADER_BYTES - LENGTH_PREFIX_BYTES + body.len()) as i32;
    let mut bytes = Vec::with_capacity(HEADER_BYTES + body.len());
    bytes.extend_from_slice(&header.base_offset.to_be_bytes());
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(&header.leader_epoch.to_be_bytes());
    bytes.extend_from_slice(&header.magic.to_be_bytes());
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(&header.attributes.to_be_bytes());
    bytes.extend_from_slice(&header.last_offset_delta.to_be_bytes());
    bytes.extend_from_slice(&header.base_timestamp.to_be_bytes());
    bytes.extend_from_slice(&header.max_timestamp.to_be_bytes());
    bytes.extend_from_slice(&header.producer_id.to_be_bytes());
    bytes.extend_from_slice(&header.producer_epoch.to_be_bytes());
    bytes.extend_from_slice(&header.base_sequence.to_be_bytes());
    bytes.extend_from_slice(&header.record_count.to_be_bytes());
    bytes.extend_from_slice(body);
    let crc = crc32c::crc32c(&bytes[CRC_FROM..]);
    bytes[17..21].copy_from_slice(&crc.to_be_bytes());
    bytes
}

/// An uncompressed batch in another codec.
#[cfg(test)]
pub fn compressed(batch: &[u8], codec: Codec) -> bytes::Bytes {
    let mut header = BatchHeader::read(batch).unwrap();
    header.attributes |= codec as i16;
    assemble(&header, &codec.compress(&batch[HEADER_BYTES..]).unwrap()).into()
}

#[cfg(test)]
mod tests;
