//! Tests of `offset_metadata`, against bytes made by hand from Kafka Streams' format.

use super::*;

#[test]
fn partition_times_are_written_as_kafka_streams_does() {
    for (time, text) in [(-1, "Av//////////"), (0, "AgAAAAAAAAAA"), (1_700_000_000_123, "AgAAAYvP5Wh7")] {
        assert_eq!(encode(time), text);
        assert_eq!(decode(text), time);
    }
}

#[test]
fn older_versions_and_processor_metadata_are_read() {
    assert_eq!(decode("AQAAAYvP5Wh7"), 1_700_000_000_123);
    assert_eq!(decode("AgAAAAAAAAAFAAAAAW1ldGE="), 5);
}

#[test]
fn what_is_not_ours_says_nothing() {
    for text in ["", "Ag", "AgAAAAAAAAA", "AgAA AAAAAAA", "AwAAAAAAAAAF", "Av/////////5", "hello, world", "äöü"] {
        assert_eq!(decode(text), NO_TIMESTAMP, "{text}");
    }
}
