//! Reading and showing a version.

use serde_json::json;

use super::*;

fn whole() -> Value {
    json!({
        "number": 3, "module": "0123456789abcdef", "state": "ROLLED_BACK", "kind": "swap", "who": "ada",
        "when_ms": 1_700_000_000_000_i64, "why": "faster", "signature": null, "unheard": 1,
        "moves": [
            { "state": "ACTIVE", "when_ms": 5, "reason": null },
            { "state": "ROLLED_BACK", "when_ms": 9, "reason": "12 of 12 records\u{1b}[31m failed" },
        ],
        "changes": [
            { "what": "store counts", "effect": "kept" },
            { "what": "store old", "effect": "dropped" },
            { "what": "store last", "effect": "kept" },
        ],
        "tasks": [
            { "task": "0_0", "version": 3, "partitions": [{ "topic": "in", "partition": 0, "since": 7, "next_offset": 7 }] },
            { "task": "0_1", "version": 2, "partitions": [{ "topic": "in", "partition": 1, "since": 0, "next_offset": 9 }] },
        ],
    })
}

#[test]
fn a_version_is_a_row_with_the_reason_before_the_why() {
    let version = Version::of(whole()).expect("a version");
    assert_eq!(
        version.row(),
        "3\tROLLED_BACK\tswap\t0123456789ab\t2023-11-14T22:13:20.000Z\tada\t12 of 12 records\\u{1b}[31m failed"
    );
    assert_eq!(version.effects(), ["kept: store counts, store last", "dropped: store old"]);
    assert_eq!(version.tasks_on_it(), 1);
    assert_eq!(version.json["unheard"], 1);
}

#[test]
fn little_is_enough_for_a_version() {
    let version = Version::of(json!({ "module": "ab", "state": "READY" })).expect("a version");
    assert_eq!(version.row(), "-\tREADY\t-\tab\t-\t-\t-");
    assert_eq!(version.name(), "the version");
    assert!(Version::of(json!({ "module": "ab", "state": "ready" })).is_err(), "that is no state");
    assert!(Version::of(json!({ "apps": [] })).is_err());
}

#[test]
fn a_version_has_processed_when_a_task_got_past_its_switch() {
    let mut json = whole();
    assert!(!Version::of(json.clone()).expect("a version").has_processed(), "only the other version's task did");
    json["tasks"][0]["partitions"][0]["next_offset"] = 8.into();
    assert!(Version::of(json.clone()).expect("a version").has_processed());
    json["tasks"][0]["partitions"][0]["next_offset"] = Value::Null;
    assert!(!Version::of(json).expect("a version").has_processed());
}
