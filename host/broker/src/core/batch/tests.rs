//! Batches: what is read is what was built; damage of any byte under the CRC is found.

use super::build::{NewRecord, ProducerStamp, batch_of};
use super::codec::Codec;
use super::rewrite::compressed;
use super::*;

fn three() -> bytes::Bytes {
    let headers: [(&[u8], Option<&[u8]>); 2] = [(b"h", Some(b"1")), (b"h", None)];
    let records = [
        NewRecord { timestamp: 1_000, key: Some(b"a"), value: Some(b"one"), headers: &headers },
        NewRecord { timestamp: 900, key: None, value: None, headers: &[] },
        NewRecord { timestamp: 1_500, key: Some(b""), value: Some(b""), headers: &[] },
    ];
    batch_of(Some(ProducerStamp { producer_id: 7, epoch: 1, base_sequence: 5, transactional: false }), &records)
}

#[test]
fn records_read_as_built() {
    let batch = three();
    let header = check(&batch, false).unwrap();
    assert_eq!((header.producer_id, header.producer_epoch, header.base_sequence), (7, 1, 5));
    assert_eq!((header.record_count, header.last_sequence(), header.max_timestamp), (3, 7, 1_500));
    let records: Vec<_> = Records::new(&batch, &header).collect();
    assert_eq!(records.iter().map(|record| record.timestamp).collect::<Vec<_>>(), [1_000, 900, 1_500]);
    assert_eq!(records[0].headers(), [(&b"h"[..], Some(&b"1"[..])), (&b"h"[..], None)]);
    assert_eq!((records[1].key, records[1].value), (None, None));
    assert_eq!((records[2].key, records[2].value), (Some(&b""[..]), Some(&b""[..])));
}

#[test]
fn kafka_protocol_reads_what_is_built() {
    let batch = three();
    let mut bytes = batch.clone();
    let set = kafka_protocol::records::RecordBatchDecoder::decode(&mut bytes).unwrap();
    assert_eq!(set.records.len(), 3);
    assert_eq!(set.records[0].value.as_deref(), Some(&b"one"[..]));
    assert_eq!(set.records[1].timestamp, 900);
}

#[test]
fn every_flipped_byte_is_found() {
    let batch = three();
    for at in 0..batch.len() {
        let mut damaged = batch.to_vec();
        damaged[at] ^= 0x40;
        let checked = check(&damaged, false);
        // Base offset and leader epoch are the broker's own; nothing else may pass.
        let own = (0..8).contains(&at) || (12..16).contains(&at);
        assert_eq!(checked.is_ok(), own, "byte {at}");
    }
}

#[test]
fn truncated_and_extended_batches_are_refused() {
    let batch = three();
    for length in 0..batch.len() {
        assert!(check(&batch[..length], false).is_err(), "{length} bytes");
    }
    let mut two = batch.to_vec();
    two.extend_from_slice(&batch);
    let refusal = check(&two, false).unwrap_err();
    assert_eq!(refusal.code, ErrorCode::InvalidRecord);
    assert!(refusal.detail.contains("exactly one record batch"), "{refusal}");
}

fn with_crc(mut bytes: Vec<u8>) -> Vec<u8> {
    let crc = crc32c::crc32c(&bytes[CRC_FROM..]);
    bytes[17..21].copy_from_slice(&crc.to_be_bytes());
    bytes
}

#[test]
fn counts_that_lie_under_a_true_checksum_are_refused() {
    let batch = three();
    for count in [0i32, -1, 2, 4, i32::MAX] {
        let mut lying = batch.to_vec();
        lying[57..61].copy_from_slice(&count.to_be_bytes());
        lying[23..27].copy_from_slice(&count.wrapping_sub(1).to_be_bytes());
        assert_eq!(check(&with_crc(lying), false).unwrap_err().code, ErrorCode::InvalidRecord, "{count}");
    }
    let mut control = batch.to_vec();
    control[22] |= CONTROL as u8;
    assert!(check(&with_crc(control), false).unwrap_err().detail.contains("control"));
    let mut codec = batch.to_vec();
    codec[22] |= 7;
    assert!(check(&with_crc(codec), false).unwrap_err().detail.contains("unknown compression 7"));
}

#[test]
fn compacted_topics_want_keys() {
    assert!(check(&three(), true).unwrap_err().detail.contains("record 1 has no key"));
}

#[test]
fn stamping_keeps_the_checksum_true() {
    let batch = three();
    for time in [None, Some(77)] {
        let mut stamped = stamp(&batch, 42, 0, time).unwrap().to_vec();
        stamped.extend_from_slice(&batch[HEADER_BYTES..]);
        let header = check(&stamped, false).unwrap();
        assert_eq!((header.base_offset, header.leader_epoch), (42, 0));
        assert_eq!(header.is_log_append_time(), time.is_some());
        let expected = if time.is_some() { [77; 3] } else { [1_000, 900, 1_500] };
        let found: Vec<i64> = Records::new(&stamped, &header).map(|record| record.timestamp).collect();
        assert_eq!(found, expected);
    }
}

#[test]
fn sequences_go_round() {
    assert_eq!(add_sequence(i32::MAX, 1), 0);
    assert_eq!(add_sequence(i32::MAX - 1, 3), 1);
    assert_eq!(add_sequence(4, 0), 4);
}

const COMPRESSED: [Codec; 4] = [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd];

#[test]
fn compressed_batches_are_checked_like_others() {
    for codec in COMPRESSED {
        let batch = compressed(&three(), codec);
        check(&batch, false).unwrap();
        assert!(check(&batch, true).unwrap_err().detail.contains("record 1 has no key"), "{codec:?}");
        // One record more than there are, one fewer, and a byte after the last.
        for count in [2i32, 4] {
            let mut lying = batch.to_vec();
            lying[57..61].copy_from_slice(&count.to_be_bytes());
            lying[23..27].copy_from_slice(&(count - 1).to_be_bytes());
            assert_eq!(check(&with_crc(lying), false).unwrap_err().code, ErrorCode::InvalidRecord, "{codec:?} {count}");
        }
        let longer = compressed(&[three().as_ref(), b"!"].concat(), codec);
        assert!(check(&longer, false).unwrap_err().detail.contains("1 bytes after the last"), "{codec:?}");
        let mut garbage = batch[..HEADER_BYTES].to_vec();
        garbage.extend_from_slice(b"garbage that no codec takes");
        let length = (garbage.len() - LENGTH_PREFIX_BYTES) as i32;
        garbage[8..12].copy_from_slice(&length.to_be_bytes());
        assert_eq!(check(&with_crc(garbage), false).unwrap_err().code, ErrorCode::CorruptMessage, "{codec:?}");
    }
}

#[test]
fn a_decompression_bomb_is_refused() {
    let value = vec![0; codec::decompressed_bytes_max(0) + 1];
    let bomb = batch_of(None, &[NewRecord { value: Some(&value), ..NewRecord::default() }]);
    for codec in [Codec::Gzip, Codec::Zstd] {
        let bomb = compressed(&bomb, codec);
        assert!(bomb.len() < 1_000_000, "{} bytes", bomb.len());
        let refusal = check(&bomb, false).unwrap_err();
        assert_eq!(refusal.code, ErrorCode::MessageTooLarge, "{codec:?}");
        assert!(refusal.detail.contains("67108864 bytes"), "{refusal}");
    }
}

#[test]
fn stamping_a_compressed_batch_leaves_its_records() {
    for codec in COMPRESSED {
        let batch = compressed(&three(), codec);
        let mut stamped = stamp(&batch, 42, 0, Some(77)).unwrap().to_vec();
        stamped.extend_from_slice(&batch[HEADER_BYTES..]);
        let header = check(&stamped, false).unwrap();
        let decoded = DecodedBatch::decode(&stamped, &header).unwrap();
        let found: Vec<(i64, i64)> = decoded.records().map(|record| (record.offset, record.timestamp)).collect();
        assert_eq!(found, [(42, 77), (43, 77), (44, 77)], "{codec:?}");
    }
}
