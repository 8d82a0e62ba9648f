//! Builds record batches: for clients that call the core directly, for tests and for control records.

use bytes::Bytes;

use super::{CONTROL, CRC_FROM, HEADER_BYTES, Marker, TRANSACTIONAL};

/// A record to put into a batch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NewRecord<'a> {
    pub timestamp: i64,
    pub key: Option<&'a [u8]>,
    pub value: Option<&'a [u8]>,
    pub headers: &'a [(&'a [u8], Option<&'a [u8]>)],
}

/// Who sends a batch: an idempotent producer's place in its sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProducerStamp {
    pub producer_id: i64,
    pub epoch: i16,
    pub base_sequence: i32,
    pub transactional: bool,
}

/// Collects records into one batch.
#[derive(Debug)]
pub struct BatchBuilder {
    producer: Option<ProducerStamp>,
    /// Attributes besides those that the producer brings.
    attributes: i16,
    bytes: Vec<u8>,
    body: Vec<u8>,
    count: i32,
    base_timestamp: i64,
    max_timestamp: i64,
}

impl BatchBuilder {
    pub fn new(producer: Option<ProducerStamp>) -> Self {
        Self {
            producer,
            attributes: 0,
            bytes: vec![0; HEADER_BYTES],
            body: Vec::new(),
            count: 0,
            base_timestamp: -1,
            max_timestamp: -1,
        }
    }

    pub fn len(&self) -> usize {
        self.count as usize
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The size of the batch so far.
    pub fn size_bytes(&self) -> usize {
        self.bytes.len()
    }

    pub fn push(&mut self, record: &NewRecord<'_>) {
        if self.count == 0 {
            self.base_timestamp = record.timestamp;
        }
        self.max_timestamp = self.max_timestamp.max(record.timestamp);
        self.body.clear();
        self.body.push(0);
        put_varint(&mut self.body, record.timestamp - self.base_timestamp);
        put_varint(&mut self.body, i64::from(self.count));
        put_nullable(&mut self.body, record.key);
        put_nullable(&mut self.body, record.value);
        put_varint(&mut self.body, record.headers.len() as i64);
        for (name, value) in record.headers {
            put_nullable(&mut self.body, Some(name));
            put_nullable(&mut self.body, *value);
        }
        put_varint(&mut self.bytes, self.body.len() as i64);
        self.bytes.extend_from_slice(&self.body);
        self.count += 1;
    }

    /// The finished batch, its base offset 0.
    pub fn finish(mut self) -> Bytes {
        let (id, epoch, sequence, transactional) = match self.producer {
            Some(stamp) => (stamp.producer_id, stamp.epoch, stamp.base_sequence, stamp.transactional),
            None => (-1, -1, -1, false),
        };
        let attributes = self.attributes | if transactional { TRANSACTIONAL } else { 0 };
        let batch_length = (self.bytes.len() - super::LENGTH_PREFIX_BYTES) as i32;
        let mut head = Vec::with_capacity(HEADER_BYTES);
        head.extend_from_slice(&0i64.to_be_bytes());
        head.extend_from_slice(&batch_length.to_be_bytes());
        head.extend_from_slice(&(-1i32).to_be_bytes());
        head.push(2);
        head.extend_from_slice(&[0; 4]);
        head.extend_from_slice(&attributes.to_be_bytes());
        head.extend_from_slice(&(self.count - 1).to_be_bytes());
        head.extend_from_slice(&self.base_timestamp.to_be_bytes());
        head.extend_from_slice(&self.max_timestamp.to_be_bytes());
        head.extend_from_slice(&id.to_be_bytes());
        head.extend_from_slice(&epoch.to_be_bytes());
        head.extend_from_slice(&sequence.to_be_bytes());
        head.extend_from_slice(&self.count.to_be_bytes());
        self.bytes[..HEADER_BYTES].copy_from_slice(&head);
        let crc = crc32c::crc32c(&self.bytes[CRC_FROM..]);
        self.bytes[17..21].copy_from_slice(&crc.to_be_bytes());
        Bytes::from(self.bytes)
    }
}

/// One batch of these records.
pub fn batch_of(producer: Option<ProducerStamp>, records: &[NewRecord<'_>]) -> Bytes {
    let mut builder = BatchBuilder::new(producer);
    records.iter().for_each(|record| builder.push(record));
    builder.finish()
}

/// The control batch that ends a producer's transaction in a partition. The broker stands in for the coordinator, whose
/// epoch it gives as 0.
pub fn marker_batch(producer_id: i64, epoch: i16, marker: Marker, now_ms: i64) -> Bytes {
    let stamp = ProducerStamp { producer_id, epoch, base_sequence: -1, transactional: true };
    let kind: i16 = match marker {
        Marker::Abort => 0,
        Marker::Commit => 1,
    };
    let mut key = [0; 4];
    key[2..].copy_from_slice(&kind.to_be_bytes());
    let mut builder = BatchBuilder::new(Some(stamp));
    builder.attributes = CONTROL;
    builder.push(&NewRecord { timestamp: now_ms, key: Some(&key), value: Some(&[0; 6]), headers: &[] });
    builder.finish()
}

pub(super) fn put_varint(bytes: &mut Vec<u8>, value: i64) {
    let mut rest = ((value << 1) ^ (value >> 63)) as u64;
    while rest >= 0x80 {
        bytes.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    bytes.push(rest as u8);
}

fn put_nullable(bytes: &mut Vec<u8>, value: Option<&[u8]>) {
    match value {
        None => put_varint(bytes, -1),
        Some(value) => {
            put_varint(bytes, value.len() as i64);
            bytes.extend_from_slice(value);
        }
    }
}
