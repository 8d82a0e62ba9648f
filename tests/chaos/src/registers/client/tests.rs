//! What clients read from answers.

use serde_json::json;

use super::*;

#[test]
fn a_write_that_was_sent_twice_is_in_doubt_where_one_of_its_answers_is() {
    let answer = |status: u16, kind: &str| {
        let document = json!({ "type": format!("urn:sandbar:problem:{kind}") });
        Answer { status, document, says_when: false }
    };
    let acknowledged = || Answer { status: 202, ..Answer::default() };
    let (unknown, nothing) = (|| answer(503, "write-unknown"), || answer(503, "write-unavailable"));
    let (silence, strange) = (Answer::default, || answer(500, "internal"));
    for (first, second, expected) in [
        (unknown(), nothing(), Some(Outcome::Doubtful)),
        (nothing(), unknown(), Some(Outcome::Doubtful)),
        (silence(), nothing(), Some(Outcome::Doubtful)),
        (nothing(), nothing(), Some(Outcome::Nothing)),
        (unknown(), acknowledged(), Some(Outcome::Acknowledged)),
        (acknowledged(), unknown(), Some(Outcome::Acknowledged)),
        (strange(), nothing(), None),
        (nothing(), strange(), None),
    ] {
        let found = outcome_of(&of_two(first.clone(), second.clone()));
        assert_eq!(found, expected, "{first:?} {second:?}");
    }
}

#[test]
fn values_are_read_as_hosts_show_them() {
    for (shown, text) in [("NTowMDAwMDAwMQ==", "5:00000001"), ("", ""), ("YWI=", "ab"), ("YWJj", "abc"), ("?", "?")] {
        assert_eq!(text_of_base64(shown), text);
    }
}
