//! The metadata of a committed offset: the partition time, in the bytes of Kafka Streams' `TopicPartitionMetadata`
//! (base64 of a version byte 2, the time as 8 bytes big-endian, and processor metadata, which we leave empty).
//! Stream time is the highest partition time of a task, so that it survives a restart.

use crate::record::{NO_TIMESTAMP, Timestamp};

const VERSION: u8 = 2;
const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// The metadata to commit with an offset.
pub fn encode(partition_time: Timestamp) -> String {
    let mut bytes = [VERSION; 9];
    bytes[1..].copy_from_slice(&partition_time.to_be_bytes());
    let mut text = String::with_capacity(12);
    for group in bytes.chunks_exact(3) {
        let bits = u32::from(group[0]) << 16 | u32::from(group[1]) << 8 | u32::from(group[2]);
        for shift in [18, 12, 6, 0] {
            text.push(char::from(ALPHABET[(bits >> shift) as usize & 63]));
        }
    }
    text
}

/// The partition time of committed metadata; `NO_TIMESTAMP` for metadata of an older or foreign form, as in Kafka
/// Streams: the time is then unknown until the next record.
pub fn decode(metadata: &str) -> Timestamp {
    partition_time(metadata).unwrap_or(NO_TIMESTAMP)
}

fn partition_time(metadata: &str) -> Option<Timestamp> {
    let mut bytes = Vec::with_capacity(9);
    let mut bits: u32 = 0;
    // The first nine bytes are the first twelve characters; what follows belongs to processors.
    for (position, character) in metadata.bytes().take(12).enumerate() {
        let value = ALPHABET.iter().position(|&letter| letter == character)?;
        bits = bits << 6 | value as u32;
        if position % 4 == 3 {
            bytes.extend_from_slice(&bits.to_be_bytes()[1..]);
            bits = 0;
        }
    }
    let (&version, time) = bytes.split_first()?;
    let time = Timestamp::from_be_bytes(time.try_into().ok()?);
    ((1..=VERSION).contains(&version) && time >= NO_TIMESTAMP).then_some(time)
}

#[cfg(test)]
mod tests;
