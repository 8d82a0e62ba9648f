//! Lines in and out: what is printed is taken back, and what cannot be read is told by its field.

use super::*;

const NOW: Timestamp = 42;

fn formats(key_format: DataFormat, value_format: DataFormat) -> DataFormats {
    DataFormats { key_format, value_format }
}

fn utf8(text: &str) -> Result<NewRecord, String> {
    read(text, &formats(DataFormat::Utf8, DataFormat::Utf8), NOW)
}

#[test]
fn fields_that_are_absent_have_their_defaults() {
    let record = utf8("{}").expect("readable");
    assert_eq!(record, NewRecord { timestamp: NOW, ..NewRecord::default() });
    let record = utf8(r#"{"key":null,"value":"v","timestamp":7,"partition":3}"#).expect("readable");
    assert_eq!((record.key, record.value), (None, Some(Bytes::from_static(b"v"))));
    assert_eq!((record.timestamp, record.partition), (7, Some(3)));
}

#[test]
fn json_values_keep_their_bytes() {
    let line = r#"{"key":"k","value":{"z":1.50,"a":"x"}}"#;
    let record = read(line, &formats(DataFormat::Utf8, DataFormat::Json), NOW).expect("readable");
    assert_eq!(record.value.as_deref(), Some(br#"{"z":1.50,"a":"x"}"#.as_slice()));
}

#[test]
fn headers_may_be_a_list_or_an_object() {
    let list = utf8(r#"{"headers":[["a","1"],["a",null],["b",{"base64":"/w=="}]]}"#).expect("readable");
    let expected = |key: &'static str, value: Option<&'static [u8]>| Header {
        key: Bytes::from_static(key.as_bytes()),
        value: value.map(Bytes::from_static),
    };
    assert_eq!(list.headers, [expected("a", Some(b"1")), expected("a", None), expected("b", Some(&[0xff]))]);
    let object = utf8(r#"{"headers":{"a":"1"}}"#).expect("readable");
    assert_eq!(object.headers, [expected("a", Some(b"1"))]);
}

#[test]
fn what_cannot_be_read_is_told_by_its_field() {
    for (line, expected) in [
        ("{", "EOF"),
        ("[1]", "expected a JSON object, found \"[1]\""),
        ("not json", "expected a JSON object"),
        (r#"{"valeu":"x"}"#, "unknown field `valeu`"),
        (r#"{"value":{"a":1}}"#, "value: expected utf8 as text, found {\"a\":1}; for JSON use --value-format json"),
        (r#"{"timestamp":-1}"#, "timestamp: expected milliseconds since the epoch, 0 or more, found -1"),
        (r#"{"timestamp":"x"}"#, "invalid type"),
        (r#"{"value":"a","value_base64":"YQ=="}"#, "exclude each other"),
        (r#"{"value_base64":"?"}"#, "value_base64: expected base64"),
        (r#"{"headers":{"a":1}}"#, "header a: expected text"),
        (r#"{"headers":[["a"]]}"#, "headers: expected an object, or a list of [name, value]"),
        (r#"{"key":"a",}"#, "trailing comma at column 12"),
    ] {
        let error = utf8(line).map(|_| ()).expect_err(line);
        assert!(error.contains(expected), "{line}: {error}");
    }
}

#[test]
fn what_is_printed_is_taken_back() {
    let record = TopicRecord {
        partition: 1,
        offset: 9,
        timestamp: 1000,
        key: Some(Bytes::from_static(&[0xff, 0])),
        value: Some(Bytes::from_static(b"null")),
        headers: vec![Header { key: Bytes::from_static(b"h"), value: Some(Bytes::from_static(&[0xfe])) }],
    };
    for value_format in [DataFormat::Utf8, DataFormat::Json, DataFormat::I64, DataFormat::Hex] {
        let formats = formats(DataFormat::Utf8, value_format);
        let line = write("t", &record, &formats).expect("writable");
        let back = read(&line, &formats, NOW).expect("readable");
        assert_eq!((back.key, back.value), (record.key.clone(), record.value.clone()), "{line}");
        assert_eq!((back.headers, back.timestamp), (record.headers.clone(), record.timestamp), "{line}");
    }
    let tombstone = TopicRecord { key: None, value: None, timestamp: NO_TIMESTAMP, headers: Vec::new(), ..record };
    let line = write("t", &tombstone, &formats(DataFormat::Utf8, DataFormat::Utf8)).expect("writable");
    assert_eq!(line, r#"{"topic":"t","partition":1,"offset":9,"key":null,"value":null}"#);
}
