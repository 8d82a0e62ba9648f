//! Tests of `topic_limits`: sizes as Kafka counts them, and each bound by its name.

use super::*;
use bytes::Bytes;

fn configs(settings: &[(&str, &str)]) -> BTreeMap<String, String> {
    settings.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect()
}

#[test]
fn a_batch_of_one_record_is_as_large_as_kafka_makes_it() {
    let headers = [Header { key: Bytes::from_static(b"h"), value: Some(Bytes::from_static(b"12")) }];
    // Batch header, length, attributes and two zero deltas, then each field behind its length.
    assert_eq!(batch_bytes(None, None, &[]), 61 + 1 + 3 + 1 + 1 + 1);
    assert_eq!(batch_bytes(Some(b"key"), Some(b"value"), &headers), 61 + 1 + 3 + 4 + 6 + 1 + 2 + 3);
    // A length of 64 is 128 in zigzag, which takes a second byte.
    assert_eq!(batch_bytes(None, Some(&[0; 64]), &[]), 61 + 2 + 3 + 1 + 2 + 64 + 1);
    assert_eq!(batch_bytes(None, Some(&[0; 63]), &[]), 61 + 2 + 3 + 1 + 1 + 63 + 1);
}

#[test]
fn what_the_broker_does_not_tell_bounds_nothing() {
    let none = TopicLimits::of_configs(&configs(&[]));
    assert_eq!(none, TopicLimits::default());
    assert_eq!(none.refusal(false, 1 << 40, 0, i64::MAX), None);
    assert_eq!(SinkLimits::default().of("t"), TopicLimits::default());
}

#[test]
fn each_bound_refuses_by_its_name() {
    let limits = TopicLimits::of_configs(&configs(&[
        ("max.message.bytes", "100"),
        ("cleanup.policy", "compact,delete"),
        ("message.timestamp.before.max.ms", "1000"),
        ("message.timestamp.after.max.ms", "50"),
    ]));
    let told = limits.to_configs().into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
    assert_eq!(TopicLimits::of_configs(&told), limits);
    let fault = |has_key, bytes, timestamp| limits.refusal(has_key, bytes, timestamp, 10_000).map(|one| one.fault);
    assert_eq!(fault(true, 100, 10_050), None);
    assert_eq!(fault(true, 100, 9_000), None);
    assert_eq!(fault(true, 101, 0).as_deref(), Some("it has 101 bytes, max.message.bytes of the topic is 100"));
    assert_eq!(fault(false, 1, 10_000).as_deref(), Some("it has no key, and the topic is compacted"));
    let late = "its timestamp 8999 is 1001 ms before the clock, message.timestamp.before.max.ms of the topic is 1000";
    assert_eq!(fault(true, 1, 8_999).as_deref(), Some(late));
    let early = "its timestamp 10051 is 51 ms after the clock, message.timestamp.after.max.ms of the topic is 50";
    assert_eq!(fault(true, 1, 10_051).as_deref(), Some(early));
    for (all, no_null_key, bytes, times) in [
        (true, true, 100, (9_000, 10_050)),
        (false, false, 1, (10_000, 10_000)),
        (false, true, 101, (10_000, 10_000)),
        (false, true, 1, (8_999, 10_000)),
        (false, true, 1, (10_000, 10_051)),
    ] {
        assert_eq!(limits.take_all(no_null_key, bytes, times, 10_000), all, "{no_null_key} {bytes} {times:?}");
    }
}

#[test]
fn a_topic_that_sets_the_time_itself_looks_at_none() {
    let limits = TopicLimits::of_configs(&configs(&[
        ("message.timestamp.type", "LogAppendTime"),
        ("message.timestamp.after.max.ms", "50"),
    ]));
    assert_eq!(limits.refusal(true, 1, i64::MAX, 0), None);
}

#[test]
fn lengths_have_the_bytes_of_the_protocol() {
    for (length, bytes) in [(0, 1), (1, 1), (63, 1), (64, 2), (8191, 2), (8192, 3), (1 << 20, 4)] {
        assert_eq!(varint_bytes(length), bytes, "{length}");
    }
}
