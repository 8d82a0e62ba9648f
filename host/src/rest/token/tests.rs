//! A token says what was seen, survives its way through text, and is refused where it says nothing.

use std::sync::Arc;

use engine::query::{PartitionPosition, Role};
use engine::record::{Offset, TopicPartition};

use super::Token;

fn position(partition: i32, changelog_offset: Option<Offset>, sources: &[(&str, Offset)]) -> PartitionPosition {
    let sources: Vec<_> =
        sources.iter().map(|&(topic, offset)| (TopicPartition::new(topic, partition), offset)).collect();
    let sources = (!sources.is_empty()).then(|| Arc::from(sources));
    PartitionPosition { partition, role: Role::Active, changelog_offset, lag: 0, sources }
}

fn text(token: &Token) -> String {
    token.write().expect("it is short")
}

#[test]
fn a_token_of_very_many_partitions_is_not_made() {
    let mut token = Token::new("votes");
    (0..700).for_each(|at| token.add("counts", &position(at, Some(1_000_000), &[("in", 2_000_000)])));
    assert_eq!(Token::read(&text(&token), "votes").expect("its own text"), token);
    (0..9_000).for_each(|at| token.add_source("in", at, 2_000_000));
    assert_eq!(token.write(), None);
    let part = token.about("counts", &["in"], &[3, 8_000]);
    assert!(text(&part).len() < 60);
    assert!(!part.is_reached("counts", &["in"], &position(8_000, None, &[("in", 1)])));
}

#[test]
fn what_a_copy_has_read_is_not_asked_of_the_one_that_wrote_it() {
    let copy = PartitionPosition { role: Role::Standby, ..position(0, Some(9), &[]) };
    let mut token = Token::new("votes");
    token.add("counts", &copy);
    assert!(token.is_reached("counts", &["in"], &position(0, Some(8), &[("in", 5)])));
}

#[test]
fn a_token_survives_its_text_and_grows() {
    let mut token = Token::new("votes");
    token.add("counts", &position(2, Some(7), &[("in", 40)]));
    token.add("counts", &position(2, Some(5), &[("in", 50)]));
    token.add_source("in", 3, 9);
    let read = Token::read(&text(&token), "votes").expect("its own text");
    assert_eq!(read, token);
    assert_eq!(read.changelog("counts").and_then(|offsets| offsets.get(&2)), Some(&7), "never lowered");
    let mut other = Token::new("votes");
    other.add_source("in", 2, 60);
    other.merge(&read);
    let expected = position(2, Some(7), &[("in", 60)]);
    assert!(other.is_reached("counts", &["in"], &expected));
    assert!(!other.is_reached("counts", &["in"], &position(2, Some(6), &[("in", 60)])));
    assert!(!other.is_reached("counts", &["in"], &position(2, Some(7), &[("in", 59)])));
}

#[test]
fn a_token_asks_only_for_what_concerns_the_store() {
    let mut token = Token::new("votes");
    token.add("counts", &position(0, Some(7), &[("in", 40)]));
    assert!(token.is_reached("counts", &["in"], &position(1, None, &[])), "another partition");
    assert!(token.is_reached("counts", &["elsewhere"], &position(0, Some(7), &[])), "another part of the topology");
    assert!(token.is_reached("other", &[], &position(0, None, &[])), "another store");
    assert!(!token.is_reached("counts", &["in"], &position(0, Some(9), &[])), "a copy that knows no sources");
}

#[test]
fn what_is_no_token_is_refused() {
    let mut whole = Token::new("votes");
    whole.add("counts", &position(2, Some(i64::MAX), &[("in", 40)]));
    let token = text(&whole);
    let foreign = Token::read(&token, "other").expect_err("of another application");
    assert_eq!(foreign.detail, "the token is of another application than other");
    for text in ["", "x", "%%%", "e30", &token[1..], &token[..token.len() - 1], &"A".repeat(20_000)] {
        let refused = Token::read(text, "votes").expect_err(text);
        assert_eq!((refused.status.as_u16(), refused.kind), (400, "bad-token"), "{text}");
    }
}
