//! What is left of a partition.

use super::*;

fn lag(next_offset: Offset, committed_offset: Option<Offset>, end_offset: Option<Offset>) -> Option<u64> {
    let partition = TopicPartition::new("topic", 0);
    let next_offset = Some(next_offset);
    PartitionReport { partition, buffered: 0, next_offset, committed_offset, end_offset, version_since: None }.lag()
}

#[test]
fn records_are_left_from_the_next_one_to_the_end() {
    assert_eq!(lag(7, Some(5), Some(10)), Some(3));
    assert_eq!(lag(7, None, Some(10)), Some(3));
    assert_eq!(lag(7, Some(7), None), None, "the end is not known");
    assert_eq!(lag(12, None, Some(10)), Some(0), "the end is an old one");
}

#[test]
fn a_transactions_marker_at_the_end_is_no_record() {
    assert_eq!(lag(300, Some(301), Some(301)), Some(0));
}
