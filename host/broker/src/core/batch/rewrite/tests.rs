//! Rewritten batches: what stays is as it was, in every codec; horizons are set once and keep timestamps true.

use super::*;
use crate::core::batch::build::{NewRecord, ProducerStamp, batch_of};
use crate::core::batch::{is_intact, stamp};

const CODECS: [Codec; 5] = [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd];

/// Four records at offsets 100 to 103; the third is a tombstone.
fn batch(codec: Codec, append_time: Option<i64>) -> Vec<u8> {
    let headers: [(&[u8], Option<&[u8]>); 1] = [(b"h", Some(b"1"))];
    let record = |timestamp, key, value| NewRecord { timestamp, key: Some(key), value, headers: &headers };
    let records = [
        record(1_000, b"a".as_slice(), Some(b"one".as_slice())),
        record(5_000, b"b", Some(b"two")),
        record(900, b"c", None),
        record(2_000, b"d", Some(b"four")),
    ];
    let producer = ProducerStamp { producer_id: 7, epoch: 2, base_sequence: 40, transactional: true };
    let built = compressed(&batch_of(Some(producer), &records), codec);
    let mut bytes = stamp(&built, 100, 0, append_time).unwrap().to_vec();
    bytes.extend_from_slice(&built[HEADER_BYTES..]);
    bytes
}

fn rewritten(batch: &[u8], horizon_ms: i64, keep: impl FnMut(&RecordView<'_>) -> bool) -> (BatchHeader, Vec<u8>) {
    match retain(batch, &BatchHeader::read(batch).unwrap(), horizon_ms, keep).unwrap() {
        Retained::Rewritten(bytes) => (BatchHeader::read(&bytes).unwrap(), bytes),
        other => panic!("{other:?}"),
    }
}

/// Offset, timestamp, key and value of each record, with the count of its headers.
type Seen = (i64, i64, Vec<u8>, Option<Vec<u8>>, usize);

fn seen(batch: &[u8]) -> Vec<Seen> {
    let header = BatchHeader::read(batch).unwrap();
    assert!(is_intact(batch, &header));
    let decoded = DecodedBatch::decode(batch, &header).unwrap();
    let view = |record: RecordView<'_>| {
        let (key, value) = (record.key.unwrap().to_vec(), record.value.map(<[u8]>::to_vec));
        (record.offset, record.timestamp, key, value, record.headers().len())
    };
    decoded.records().map(view).collect()
}

#[test]
fn what_stays_is_as_it_was() {
    for (codec, append_time) in CODECS.into_iter().flat_map(|codec| [(codec, None), (codec, Some(77))]) {
        let before = batch(codec, append_time);
        let old = BatchHeader::read(&before).unwrap();
        let expected: Vec<Seen> = seen(&before).into_iter().filter(|record| record.0 != 101).collect();
        let (header, after) = rewritten(&before, 9_000, |record| record.offset != 101);
        assert_eq!(seen(&after), expected, "{codec:?}");
        assert_eq!((header.base_offset, header.last_offset(), header.record_count), (100, 103, 3));
        assert_eq!((header.producer_id, header.producer_epoch, header.base_sequence), (7, 2, 40));
        assert_eq!((header.last_sequence(), header.is_transactional()), (43, true));
        assert_eq!((header.compression(), header.is_log_append_time()), (codec as i16, append_time.is_some()));
        assert_eq!(header.max_timestamp, append_time.unwrap_or(2_000));
        assert_eq!((old.delete_horizon_ms(), header.delete_horizon_ms()), (None, Some(9_000)));
        // A later pass does not move the horizon.
        let again = retain(&after, &header, 99_000, |_| true).unwrap();
        assert_eq!(again, Retained::Whole);
        let (header, after) = rewritten(&after, 99_000, |record| record.offset != 103);
        assert_eq!((header.delete_horizon_ms(), seen(&after)), (Some(9_000), expected[..2].to_vec()));
    }
}

#[test]
fn nothing_is_rewritten_without_need() {
    for codec in CODECS {
        let bytes = batch(codec, None);
        let header = BatchHeader::read(&bytes).unwrap();
        assert_eq!(retain(&bytes, &header, 1, |_| false).unwrap(), Retained::Nothing);
        // A tombstone alone makes a rewrite, once; without one, a whole batch stays as it is.
        let (_, without) = rewritten(&bytes, 1, |record| record.value.is_some());
        let header = BatchHeader::read(&without).unwrap();
        assert_eq!(header.delete_horizon_ms(), None);
        assert_eq!(retain(&without, &header, 1, |_| true).unwrap(), Retained::Whole);
    }
}

#[test]
fn an_empty_batch_keeps_its_place_and_its_producer() {
    for codec in CODECS {
        let before = batch(codec, Some(77));
        let after = without_records(&BatchHeader::read(&before).unwrap());
        let header = BatchHeader::read(&after).unwrap();
        assert_eq!((after.len(), seen(&after).len(), header.record_count), (HEADER_BYTES, 0, 0));
        assert_eq!((header.base_offset, header.last_offset(), header.last_sequence()), (100, 103, 43));
        assert_eq!((header.compression(), header.is_transactional(), header.is_log_append_time()), (0, true, true));
        assert_eq!(header.max_timestamp, 77);
    }
}

#[test]
fn records_that_cannot_be_read_are_an_error() {
    let mut bytes = batch(Codec::Gzip, None);
    bytes[HEADER_BYTES + 20] ^= 0xff;
    let header = BatchHeader::read(&bytes).unwrap();
    assert!(matches!(retain(&bytes, &header, 1, |_| true), Err(CodecError::Damaged { .. })));
    let plain = batch(Codec::None, None);
    let mut header = BatchHeader::read(&plain).unwrap();
    header.record_count = 5;
    assert!(matches!(retain(&plain, &header, 1, |_| true), Err(CodecError::Damaged { .. })));
}

#[test]
fn kafka_protocol_reads_what_is_rewritten() {
    let (_, after) = rewritten(&batch(Codec::None, None), 9_000, |record| record.offset != 100);
    let set = kafka_protocol::records::RecordBatchDecoder::decode(&mut bytes::Bytes::from(after)).unwrap();
    let found: Vec<(i64, i64)> = set.records.iter().map(|record| (record.offset, record.timestamp)).collect();
    assert_eq!(found, [(101, 5_000), (102, 900), (103, 2_000)]);
}
