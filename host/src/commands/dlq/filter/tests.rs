//! Each filter takes what it says, and all of them must hold.

use super::super::letter::tests::added;
use super::*;
use kafka::topics::TopicRecord;

fn letter() -> DeadLetter {
    let record = TopicRecord { partition: 0, offset: 0, timestamp: 1000, key: None, value: None, headers: added() };
    DeadLetter::of("dlq", record).expect("a dead letter")
}

fn source(text: &str) -> Filter {
    Filter { source: vec![text.parse().expect(text)], ..Filter::default() }
}

#[test]
fn each_filter_takes_what_it_says() {
    let letter = letter();
    let none = Filter::default;
    let cases = [
        (none(), true),
        (Filter { reason: vec!["trap".into(), "refused".into()], ..none() }, true),
        (Filter { reason: vec!["trap".into()], ..none() }, false),
        (source("orders@2:10-20"), true),
        (source("orders@1"), false),
        (Filter { module: Some("3f".into()), ..none() }, true),
        (Filter { module: Some("fa".into()), ..none() }, false),
        (Filter { since: Some(5000), ..none() }, true),
        (Filter { since: Some(5001), ..none() }, false),
        (Filter { until: Some(5001), ..none() }, true),
        (Filter { until: Some(5000), ..none() }, false),
        (Filter { contains: Some("amount".into()), ..none() }, true),
        (Filter { contains: Some("Amount".into()), ..none() }, false),
        (Filter { contains: Some("amount".into()), since: Some(6000), ..none() }, false),
    ];
    for (filter, expected) in cases {
        assert_eq!(filter.wants(&letter), expected, "{filter:?}");
    }
    assert!(none().is_empty() && !source("orders").is_empty());
}

#[test]
fn what_is_not_told_is_not_found() {
    let mut letter = letter();
    (letter.reason, letter.module) = (None, None);
    letter.subject = super::super::letter::Subject::Unknown;
    assert!(Filter::default().wants(&letter));
    assert!(!Filter { reason: vec!["refused".into()], ..Filter::default() }.wants(&letter));
    assert!(!Filter { module: Some("3".into()), ..Filter::default() }.wants(&letter));
    assert!(!source("orders").wants(&letter));
}

#[test]
fn a_digest_is_hexadecimal() {
    assert_eq!(parse_digest("3FA9"), Ok("3fa9".to_owned()));
    for text in ["", "sha256:3f", "xyz", &"a".repeat(65)] {
        assert!(parse_digest(text).is_err(), "{text}");
    }
}
