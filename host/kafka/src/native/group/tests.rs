//! The assignment of a member, as the brokers hand it on.

use super::{assigned_partitions, rack_of};

/// Version 0, two topics, no user data.
const ASSIGNMENT: &[u8] =
    b"\0\0\0\0\0\x02\0\x02in\0\0\0\x02\0\0\0\0\0\0\0\x07\0\x05other\0\0\0\x01\0\0\0\x03\xff\xff\xff\xff";

#[test]
fn the_partitions_of_an_assignment_are_read() {
    let expected = [("in", 0), ("in", 7), ("other", 3)].map(|(topic, at)| (topic.to_owned(), at));
    assert_eq!(assigned_partitions(ASSIGNMENT), Some(expected.to_vec()));
    assert_eq!(assigned_partitions(b""), Some(Vec::new()));
}

#[test]
fn an_assignment_that_is_cut_off_is_refused() {
    // What follows the partitions is the assignor's.
    let end = ASSIGNMENT.len() - 4;
    for length in 1..end {
        assert_eq!(assigned_partitions(&ASSIGNMENT[..length]), None, "{length} bytes");
    }
    assert!(assigned_partitions(&ASSIGNMENT[..end]).is_some());
    assert_eq!(assigned_partitions(b"\0\0\xff\xff\xff\xff"), None, "a negative count");
}

/// Version 3, one topic, user data of two bytes, two owned partitions, generation 9.
const SUBSCRIPTION: &[u8] =
    b"\0\x03\0\0\0\x01\0\x02in\0\0\0\x02uu\0\0\0\x01\0\x02in\0\0\0\x02\0\0\0\0\0\0\0\x01\0\0\0\x09\0\x05there";

#[test]
fn the_rack_of_a_subscription_is_read() {
    assert_eq!(rack_of(SUBSCRIPTION).as_deref(), Some("there"));
    let null_data = b"\0\x03\0\0\0\0\xff\xff\xff\xff\0\0\0\0\xff\xff\xff\xff\0\x01r";
    assert_eq!(rack_of(null_data).as_deref(), Some("r"));
}

#[test]
fn a_subscription_without_a_rack_has_none() {
    for length in 0..SUBSCRIPTION.len() {
        assert_eq!(rack_of(&SUBSCRIPTION[..length]), None, "{length} bytes");
    }
    let null = [&SUBSCRIPTION[..SUBSCRIPTION.len() - 7], b"\xff\xff"].concat();
    assert_eq!(rack_of(&null), None);
    let older = [b"\0\x02", &SUBSCRIPTION[2..]].concat();
    assert_eq!(rack_of(&older), None);
}
