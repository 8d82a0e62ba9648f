//! What a condition takes and what it refuses.

use super::*;

fn accepts(condition: &str, value: &str) -> bool {
    Condition::read(condition, DataFormat::Json).expect(condition).accepts(value.as_bytes())
}

#[test]
fn a_condition_compares_text_and_json() {
    assert!(accepts("/status=PAID", r#"{"status":"PAID"}"#));
    assert!(!accepts("/status=PAID", r#"{"status":"paid"}"#));
    assert!(!accepts("/status=PAID", r#"{"other":"PAID"}"#));
    assert!(accepts("/a/0/b=7", r#"{"a":[{"b":7}]}"#) && accepts("/a/0/b=7", r#"{"a":[{"b":"7"}]}"#));
    assert!(!accepts("/a/0/b=\"7\"", r#"{"a":[{"b":7}]}"#) && accepts("/a/0/b=\"7\"", r#"{"a":[{"b":"7"}]}"#));
    assert!(accepts("/gone=null", r#"{"gone":null}"#) && !accepts("/gone=null", "{}"));
    assert!(accepts("=true", "true") && accepts("/x=a=b", r#"{"x":"a=b"}"#) && accepts("/x=", r#"{"x":""}"#));
    assert!(accepts("/a~1b=1", r#"{"a/b":1}"#));
    assert!(!accepts("/a=1", "no json"));
}

#[test]
fn what_is_no_condition_is_refused() {
    for (text, format) in [("", DataFormat::Json), ("/status", DataFormat::Json), ("status=1", DataFormat::Json)] {
        assert!(Condition::read(text, format).is_err(), "{text}");
    }
    assert!(Condition::read("/a=1", DataFormat::I64).is_err());
    for pointer in ["status", "/a~", "/a~2", "/~/b", "/~~0", "~0"] {
        let problem = Condition::read(&format!("{pointer}=1"), DataFormat::Json).expect_err(pointer);
        assert!(problem.kind == "bad-request" && problem.detail.contains(&format!("{pointer:?}")), "{problem:?}");
    }
    assert!(accepts("/~0~1=1", r#"{"~/":1}"#));
}
