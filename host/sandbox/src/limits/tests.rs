//! The table of limit keys.

use super::*;

#[test]
fn every_field_has_one_key_and_its_default_is_allowed() {
    let mut limits = Limits::default();
    for (position, key) in Limits::keys().enumerate() {
        limits.set(key.key, key.default).unwrap();
        assert_eq!(limits, Limits::default(), "{} sets a field that is not its own", key.key);
        limits.set(key.key, key.default + 1).unwrap();
        assert_ne!(limits, Limits::default(), "{} sets nothing", key.key);
        limits = Limits::default();
        assert!(Limits::keys().skip(position + 1).all(|other| other.key != key.key));
    }
}

#[test]
fn a_wrong_key_or_value_is_refused() {
    let mut limits = Limits::default();
    let unknown = limits.set("processor.memory.max", 1).unwrap_err();
    assert_eq!(unknown.to_string(), "no limit has the key processor.memory.max");
    let small = limits.set("processor.deadline.ms", 0).unwrap_err();
    assert_eq!(small.to_string(), "processor.deadline.ms must be at least 1, not 0");
    let large = limits.set("processor.memory.max.bytes", 1 << 40).unwrap_err();
    assert_eq!(large.to_string(), "processor.memory.max.bytes must be at most 4294967296, not 1099511627776");
    assert_eq!(limits, Limits::default());
}

#[test]
fn a_budget_ends_above_its_limit() {
    let limits = Limits { state_max_operations: 10, ..Limits::default() };
    let mut budget = Budget::default();
    budget.operations(10, &limits).unwrap();
    let error = budget.operations(1, &limits).unwrap_err();
    assert_eq!(
        error.to_string(),
        "limit state operations = 10 exceeded (11); raise it with the key processor.state.max.operations"
    );
}
