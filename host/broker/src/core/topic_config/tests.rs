//! Settings: known names, bounds, what the log takes from them.

use super::*;

fn configs(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

#[test]
fn every_default_is_a_valid_value() {
    for definition in DEFINITIONS {
        check(definition.name, definition.default).unwrap_or_else(|refusal| panic!("{}: {refusal}", definition.name));
    }
    assert!(DEFINITIONS.is_sorted_by_key(|definition| definition.name));
}

#[test]
fn defaults_of_the_log_agree_with_the_table() {
    assert_eq!(log_limits(&BTreeMap::new()), LogLimits::default());
}

#[test]
fn bad_settings_are_refused_with_their_name() {
    for (name, value) in [
        ("cleanup.polcy", "compact"),
        ("cleanup.policy", "shrink"),
        ("retention.ms", "-2"),
        ("retention.ms", "a week"),
        ("max.message.bytes", "3000000000"),
        ("min.cleanable.dirty.ratio", "1.5"),
        ("preallocate", "yes"),
        ("message.timestamp.type", "AppendTime"),
    ] {
        let refusal = check(name, value).unwrap_err();
        assert_eq!(refusal.code, ErrorCode::InvalidConfig);
        assert!(refusal.detail.contains(name), "{refusal}");
    }
}

#[test]
fn a_value_that_no_answer_could_hold_is_refused() {
    let name = "follower.replication.throttled.replicas";
    check(name, &"x".repeat(VALUE_BYTES_MAX)).unwrap();
    let refusal = check(name, &"x".repeat(VALUE_BYTES_MAX + 1)).unwrap_err();
    assert!(refusal.detail.contains(name), "{refusal}");
}

#[test]
fn the_log_takes_what_is_set() {
    let limits = log_limits(&configs(&[
        ("cleanup.policy", "compact,delete"),
        ("max.message.bytes", "10"),
        ("message.timestamp.type", "LogAppendTime"),
        ("segment.bytes", "1000"),
    ]));
    assert!(limits.require_keys && limits.log_append_time);
    assert_eq!((limits.max_message_bytes, limits.segment_bytes), (10, 1_000));
}
