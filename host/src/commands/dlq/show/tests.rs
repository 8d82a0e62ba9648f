//! What is shown of a dead letter, and that nothing of it reaches a terminal as it is.

use kafka::topics::TopicRecord;

use super::super::letter::{header, tests::added};
use super::*;

const FORMATS: DataFormats = DataFormats { key_format: DataFormat::Utf8, value_format: DataFormat::Json };

fn one(name: &str, value: &[u8]) -> Header {
    Header { key: Bytes::from(name.to_owned()), value: Some(Bytes::copy_from_slice(value)) }
}

fn letter(value: &[u8], more: Vec<Header>) -> DeadLetter {
    let own = vec![one("trace", b"1"), one("raw", &[0xff, 1])];
    let record = TopicRecord {
        partition: 0,
        offset: 4,
        timestamp: 1000,
        key: Some("k".into()),
        value: Some(Bytes::copy_from_slice(value)),
        headers: [own, added(), more].concat(),
    };
    DeadLetter::of("dlq", record).expect("a dead letter")
}

#[test]
fn everything_is_shown() {
    let more = vec![one(header::STACKTRACE, b"one\ntwo"), one(header::READS, b"12345"), one("__sandbar.new", b"x")];
    let letter = letter(br#"{"z":1.50,"a":2}"#, more);
    let text = lines(&letter, &FORMATS).expect("lines").join("\n");
    for expected in [
        "position        dlq@0:4",
        "time            1970-01-01T00:00:05.000Z",
        "reason          refused",
        "message         no amount",
        "source          orders@2:17",
        "module          3fa9",
        "cpu time        120 us",
        "timestamp       1970-01-01T00:00:01.000Z",
        "reads           5 bytes",
        "other           __sandbar.new: \"x\"",
        "header          trace: \"1\"",
        "header          raw: 0xff01",
        "key             \"k\"",
        "value           {\"z\":1.50,\"a\":2}",
        "backtrace\n  one\n  two",
    ] {
        assert!(text.contains(expected), "{expected} in\n{text}");
    }
    let json: Value = serde_json::from_str(&document(&letter, &FORMATS).expect("a document")).expect("JSON");
    assert_eq!(json["source"], "orders@2:17");
    assert_eq!(json["headers"], json!([["trace", "1"], ["raw", { "base64": "/wE=" }]]));
    assert_eq!((&json["value"], &json["backtrace"]), (&json!({ "z": 1.5, "a": 2 }), &json!("one\ntwo")));
}

#[test]
fn bytes_that_do_not_fit_are_shown_in_base64() {
    let letter = letter(b"{\"cut", Vec::new());
    let text = lines(&letter, &FORMATS).expect("lines").join("\n");
    assert!(text.contains("value_base64    \"eyJjdXQ=\""), "{text}");
}

#[test]
fn hostile_text_does_not_reach_the_terminal() {
    let steer = "\u{1b}]0;owned\u{7}\u{9b}2J\r\n\u{202e}";
    let names = [header::EXCEPTION, header::MESSAGE, header::STACKTRACE, header::REASON, header::TASK, header::TOPIC];
    let mut more: Vec<Header> = names.iter().skip(1).map(|name| one(name, steer.as_bytes())).collect();
    more.push(one(&format!("__sandbar.{steer}"), steer.as_bytes()));
    more.push(one(steer, steer.as_bytes()));
    let letter = letter(format!("\"{}\"", "\u{9b}\u{202e}").as_bytes(), more);
    for line in lines(&letter, &FORMATS).expect("lines") {
        assert!(!line.chars().any(|character| character.is_control() || character == '\u{202e}'), "{line:?}");
    }
    assert!(serde_json::from_str::<Value>(&document(&letter, &FORMATS).expect("a document")).is_ok());
}
