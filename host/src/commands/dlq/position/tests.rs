//! Positions are read back as they are printed, and what is none is told.

use super::*;

fn at(topic: &str, partition: i32, offset: Offset) -> Position {
    Position { topic: topic.to_owned(), partition, offset }
}

#[test]
fn a_position_is_read_as_it_is_printed() {
    for position in [at("orders-dlq", 0, 0), at("a.b_c-1", 17, Offset::MAX)] {
        assert_eq!(position.to_string().parse(), Ok(position));
    }
    assert_eq!(at("t", 1, 2).to_string(), "t@1:2");
}

#[test]
fn what_is_no_position_is_told() {
    for (text, expected) in [
        ("orders", "found no '@'"),
        ("orders@1", "found no ':'"),
        ("@1:2", "no name of a topic"),
        ("or ders@1:2", "no name of a topic"),
        ("orders@x:2", "the partition is no number"),
        ("orders@-1:2", "the partition is no number"),
        ("orders@99999999999:2", "the partition is no number"),
        ("orders@1:", "the offset is no number"),
        ("orders@1:+2", "the offset is no number"),
        ("orders@1:2:3", "the offset is no number"),
    ] {
        let error = text.parse::<Position>().expect_err(text);
        assert!(error.contains(expected) && error.contains(text), "{text}: {error}");
    }
}

#[test]
fn a_source_is_a_topic_a_partition_or_offsets() {
    let covers = |range: &str, partition, offset| {
        range.parse::<SourceRange>().expect(range).contains(&at("orders", partition, offset))
    };
    assert!(covers("orders", 3, 9) && !covers("order", 3, 9));
    assert!(covers("orders@3", 3, 9) && !covers("orders@2", 3, 9));
    assert!(covers("orders@3:9", 3, 9) && !covers("orders@3:9", 3, 10));
    assert!(covers("orders@3:5-9", 3, 9) && covers("orders@3:5-9", 3, 5) && !covers("orders@3:5-9", 3, 4));
    assert!(covers("orders@3:5-", 3, 500) && !covers("orders@3:5-", 3, 4));
    for text in ["", "a b", "orders@", "orders@x", "orders@1:", "orders@1:-5", "orders@1:9-5", "orders@1:a-b"] {
        assert!(text.parse::<SourceRange>().is_err_and(|error| error.contains("TOPIC@PARTITION:FROM-TO")), "{text}");
    }
}
