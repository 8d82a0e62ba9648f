//! The record batch, format version 2 (KIP-98; field order from Kafka's `DefaultRecordBatch`): reading its header,
//! checking a batch that a client sent, walking its records, and stamping what the broker adds. A batch is kept as it
//! came; only base offset and leader epoch (outside the CRC) change, or the append time where a topic asks for it.
//! Compressed records are seen through `DecodedBatch`, bounded in memory.

pub mod build;
pub mod codec;
pub mod rewrite;

use std::borrow::Cow;

use codec::{Codec, CodecError};

use super::refusal::{ErrorCode, Refusal};

/// Bytes before the first record.
pub const HEADER_BYTES: usize = 61;
/// Bytes before the part that `batch_length` counts.
pub const LENGTH_PREFIX_BYTES: usize = 12;
/// Where the bytes that the CRC covers begin.
const CRC_FROM: usize = 21;

const COMPRESSION_MASK: i16 = 0x07;
const LOG_APPEND_TIME: i16 = 0x08;
const TRANSACTIONAL: i16 = 0x10;
const CONTROL: i16 = 0x20;
/// The base timestamp is the delete horizon (KIP-534).
const DELETE_HORIZON: i16 = 0x40;

/// The header of a record batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchHeader {
    pub base_offset: i64,
    /// Bytes after this field.
    pub batch_length: i32,
    pub leader_epoch: i32,
    pub magic: i8,
    pub crc: u32,
    pub attributes: i16,
    pub last_offset_delta: i32,
    pub base_timestamp: i64,
    pub max_timestamp: i64,
    pub producer_id: i64,
    pub producer_epoch: i16,
    pub base_sequence: i32,
    pub record_count: i32,
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at + N)?.try_into().ok()
}

impl BatchHeader {
    /// Reads a header; `None` when there are fewer than `HEADER_BYTES` bytes. Nothing is checked.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        Some(Self {
            base_offset: i64::from_be_bytes(array(bytes, 0)?),
            batch_length: i32::from_be_bytes(array(bytes, 8)?),
            leader_epoch: i32::from_be_bytes(array(bytes, 12)?),
            magic: i8::from_be_bytes(array(bytes, 16)?),
            crc: u32::from_be_bytes(array(bytes, 17)?),
            attributes: i16::from_be_bytes(array(bytes, 21)?),
            last_offset_delta: i32::from_be_bytes(array(bytes, 23)?),
            base_timestamp: i64::from_be_bytes(array(bytes, 27)?),
            max_timestamp: i64::from_be_bytes(array(bytes, 35)?),
            producer_id: i64::from_be_bytes(array(bytes, 43)?),
            producer_epoch: i16::from_be_bytes(array(bytes, 51)?),
            base_sequence: i32::from_be_bytes(array(bytes, 53)?),
            record_count: i32::from_be_bytes(array(bytes, 57)?),
        })
    }

    /// The whole batch in bytes, or `None` when the length field cannot be true.
    pub fn size(&self) -> Option<usize> {
        let length = usize::try_from(self.batch_length).ok()?;
        (length >= HEADER_BYTES - LENGTH_PREFIX_BYTES).then_some(length + LENGTH_PREFIX_BYTES)
    }

    pub fn last_offset(&self) -> i64 {
        self.base_offset.saturating_add(i64::from(self.last_offset_delta))
    }

    /// The sequence of the last record; sequences go round after `i32::MAX` (Kafka's `incrementSequence`).
    pub fn last_sequence(&self) -> i32 {
        add_sequence(self.base_sequence, self.last_offset_delta)
    }

    /// 0 = none, 1 gzip, 2 snappy, 3 lz4, 4 zstd.
    pub fn compression(&self) -> i16 {
        self.attributes & COMPRESSION_MASK
    }

    pub fn is_log_append_time(&self) -> bool {
        self.attributes & LOG_APPEND_TIME != 0
    }

    pub fn is_transactional(&self) -> bool {
        self.attributes & TRANSACTIONAL != 0
    }

    pub fn is_control(&self) -> bool {
        self.attributes & CONTROL != 0
    }

    /// When tombstones of this batch may go, once a cleaning has said so.
    pub fn delete_horizon_ms(&self) -> Option<i64> {
        (self.attributes & DELETE_HORIZON != 0).then_some(self.base_timestamp)
    }

    pub fn has_producer(&self) -> bool {
        self.producer_id >= 0
    }
}

/// How a transaction ended, as its control record says (Kafka's `ControlRecordType`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Marker {
    Abort,
    Commit,
}

/// What a whole control batch says; `None` when it is none, or not about a transaction.
pub fn marker(batch: &[u8], header: &BatchHeader) -> Option<Marker> {
    if !header.is_control() {
        return None;
    }
    let key = Records::new(batch, header).next()?.key?;
    match i16::from_be_bytes(array(key, 2)?) {
        0 => Some(Marker::Abort),
        1 => Some(Marker::Commit),
        _ => None,
    }
}

/// `sequence + delta`, going round from `i32::MAX` to 0.
pub fn add_sequence(sequence: i32, delta: i32) -> i32 {
    let sum = i64::from(sequence) + i64::from(delta);
    (sum % (i64::from(i32::MAX) + 1)) as i32
}

/// True when `bytes` is one whole batch whose CRC holds.
pub fn is_intact(bytes: &[u8], header: &BatchHeader) -> bool {
    header.magic == 2
        && header.size() == Some(bytes.len())
        && bytes.get(CRC_FROM..).is_some_and(|covered| crc32c::crc32c(covered) == header.crc)
}

/// Checks that `bytes` is exactly one well-formed batch as a producer may send it: version 2, true length, true CRC,
/// counts that agree, and records that fill it exactly, compressed or not.
pub fn check(bytes: &[u8], require_keys: bool) -> Result<BatchHeader, Refusal> {
    let invalid = |detail: String| Refusal::new(ErrorCode::InvalidRecord, detail);
    let corrupt = |detail: String| Refusal::new(ErrorCode::CorruptMessage, detail);
    let header = BatchHeader::read(bytes)
        .ok_or_else(|| corrupt(format!("a record batch has at least {HEADER_BYTES} bytes, found {}", bytes.len())))?;
    if header.magic != 2 {
        let detail = format!("record batches of version 2 only, found version {}", header.magic);
        return Err(Refusal::new(ErrorCode::UnsupportedForMessageFormat, detail));
    }
    match header.size() {
        Some(size) if size == bytes.len() => {}
        Some(size) if size < bytes.len() => {
            return Err(invalid(format!(
                "exactly one record batch a partition in a request, found {} bytes after the first",
                bytes.len() - size
            )));
        }
        _ => {
            return Err(corrupt(format!(
                "the batch says that {} bytes follow its length, found {}",
                header.batch_length,
                bytes.len() - LENGTH_PREFIX_BYTES
            )));
        }
    }
    if !is_intact(bytes, &header) {
        return Err(corrupt(format!("the checksum of the batch of {} records does not hold", header.record_count)));
    }
    if header.record_count <= 0 || header.last_offset_delta != header.record_count - 1 {
        return Err(invalid(format!(
            "{} records with a last offset delta of {}",
            header.record_count, header.last_offset_delta
        )));
    }
    if header.is_control() {
        return Err(invalid("a client may not write control batches".into()));
    }
    if header.has_producer() && (header.base_sequence < 0 || header.producer_epoch < 0) {
        return Err(invalid(format!(
            "producer {} with epoch {} and sequence {}",
            header.producer_id, header.producer_epoch, header.base_sequence
        )));
    }
    let decoded = DecodedBatch::decode(bytes, &header).map_err(|error| match error {
        CodecError::Unknown(_) => invalid(error.to_string()),
        CodecError::TooLarge { .. } => Refusal::new(ErrorCode::MessageTooLarge, error.to_string()),
        CodecError::Damaged { .. } => corrupt(error.to_string()),
    })?;
    check_records(decoded.records(), &header, require_keys)?;
    Ok(header)
}

fn check_records(mut records: Records<'_>, header: &BatchHeader, require_keys: bool) -> Result<(), Refusal> {
    let invalid = |detail: String| Refusal::new(ErrorCode::InvalidRecord, detail);
    for index in 0..header.record_count {
        let Some(record) = records.next() else {
            return Err(invalid(format!("record {index} of {} is malformed", header.record_count)));
        };
        if record.offset_delta != index {
            return Err(invalid(format!("record {index} has offset delta {}", record.offset_delta)));
        }
        if require_keys && record.key.is_none() {
            return Err(invalid(format!("record {index} has no key, but the topic is compacted")));
        }
    }
    match records.rest.len() {
        0 => Ok(()),
        left => Err(invalid(format!("{left} bytes after the last of {} records", header.record_count))),
    }
}

/// A batch whose records can be walked, whatever its codec.
#[derive(Debug)]
pub struct DecodedBatch<'a> {
    header: BatchHeader,
    body: Cow<'a, [u8]>,
}

impl<'a> DecodedBatch<'a> {
    /// `batch` is one whole batch and `header` its header. Borrows what is not compressed.
    pub fn decode(batch: &'a [u8], header: &BatchHeader) -> Result<Self, CodecError> {
        let body = batch.get(HEADER_BYTES..).unwrap_or_default();
        let codec = Codec::of(header.compression())?;
        let body = codec.decompress(body, codec::decompressed_bytes_max(body.len()))?;
        Ok(Self { header: *header, body })
    }

    pub fn records(&self) -> Records<'_> {
        Records { header: self.header, rest: &self.body, left: self.header.record_count }
    }
}

/// One record of a batch; borrows the batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordView<'a> {
    pub offset_delta: i32,
    pub offset: i64,
    pub timestamp: i64,
    pub key: Option<&'a [u8]>,
    pub value: Option<&'a [u8]>,
    header_count: usize,
    headers: &'a [u8],
    /// The record without its length.
    encoded: &'a [u8],
}

impl<'a> RecordView<'a> {
    /// Name and value of each header, in order.
    pub fn headers(&self) -> Vec<(&'a [u8], Option<&'a [u8]>)> {
        let mut rest = self.headers;
        (0..self.header_count).filter_map(|_| Some((take_nullable(&mut rest)??, take_nullable(&mut rest)?))).collect()
    }
}

/// The records of one batch. Ends early at the first malformed record.
#[derive(Debug)]
pub struct Records<'a> {
    header: BatchHeader,
    rest: &'a [u8],
    left: i32,
}

impl<'a> Records<'a> {
    /// `batch` is one whole batch and `header` its header; compressed batches have no records here (see
    /// `DecodedBatch`).
    pub fn new(batch: &'a [u8], header: &BatchHeader) -> Self {
        let rest = batch.get(HEADER_BYTES..).unwrap_or_default();
        let left = if header.compression() == 0 { header.record_count } else { 0 };
        Self { header: *header, rest, left }
    }

    fn parse(&mut self) -> Option<RecordView<'a>> {
        let length = usize::try_from(take_varint(&mut self.rest)?).ok()?;
        let encoded = take(&mut self.rest, length)?;
        let mut body = encoded;
        take(&mut body, 1)?;
        let timestamp_delta = take_varint(&mut body)?;
        let offset_delta = i32::try_from(take_varint(&mut body)?).ok()?;
        let key = take_nullable(&mut body)?;
        let value = take_nullable(&mut body)?;
        let header_count = usize::try_from(take_varint(&mut body)?).ok()?;
        let headers = body;
        for _ in 0..header_count {
            take_nullable(&mut body)??;
            take_nullable(&mut body)?;
        }
        if !body.is_empty() {
            return None;
        }
        let timestamp = match self.header.is_log_append_time() {
            true => self.header.max_timestamp,
            false => self.header.base_timestamp.saturating_add(timestamp_delta),
        };
        let offset = self.header.base_offset.saturating_add(i64::from(offset_delta));
        Some(RecordView { offset_delta, offset, timestamp, key, value, header_count, headers, encoded })
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = RecordView<'a>;

    fn next(&mut self) -> Option<RecordView<'a>> {
        if self.left == 0 {
            return None;
        }
        self.left -= 1;
        let record = self.parse();
        if record.is_none() {
            self.left = 0;
        }
        record
    }
}

fn take<'a>(bytes: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (head, tail) = bytes.split_at_checked(count)?;
    *bytes = tail;
    Some(head)
}

/// A zigzag variable-length integer of at most ten bytes.
fn take_varint(bytes: &mut &[u8]) -> Option<i64> {
    let mut value = 0u64;
    for shift in (0..70).step_by(7) {
        let (&byte, tail) = bytes.split_first()?;
        *bytes = tail;
        value |= u64::from(byte & 0x7f).checked_shl(shift).unwrap_or(0);
        if byte & 0x80 == 0 {
            return Some((value >> 1) as i64 ^ -((value & 1) as i64));
        }
    }
    None
}

/// Bytes with their length before them, -1 for none; the outer `None` is malformed.
fn take_nullable<'a>(bytes: &mut &'a [u8]) -> Option<Option<&'a [u8]>> {
    match take_varint(bytes)? {
        -1 => Some(None),
        length => Some(Some(take(bytes, usize::try_from(length).ok()?)?)),
    }
}

/// The header bytes of a batch as the broker keeps it: base offset and leader epoch set, and the append time with a
/// new CRC where `append_time` is given. The rest of the batch follows unchanged.
pub fn stamp(
    batch: &[u8],
    base_offset: i64,
    leader_epoch: i32,
    append_time: Option<i64>,
) -> Option<[u8; HEADER_BYTES]> {
    let mut head: [u8; HEADER_BYTES] = array(batch, 0)?;
    head[0..8].copy_from_slice(&base_offset.to_be_bytes());
    head[12..16].copy_from_slice(&leader_epoch.to_be_bytes());
    if let Some(time) = append_time {
        let attributes = i16::from_be_bytes([head[21], head[22]]) | LOG_APPEND_TIME;
        head[21..23].copy_from_slice(&attributes.to_be_bytes());
        head[35..43].copy_from_slice(&time.to_be_bytes());
        let crc = crc32c::crc32c_append(crc32c::crc32c(&head[CRC_FROM..]), batch.get(HEADER_BYTES..)?);
        head[17..21].copy_from_slice(&crc.to_be_bytes());
    }
    Some(head)
}

#[cfg(test)]
mod tests;
