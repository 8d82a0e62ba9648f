//! The assignment of a member, as the brokers hand it on.

use super::assigned_partitions;

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
