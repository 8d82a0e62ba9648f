//! The form of a record on a line of NDJSON, for reading and writing. What `topics read` prints, `topics produce`
//! takes back unchanged. Pure.

use bytes::Bytes;
use engine::record::{Header, Headers, NO_TIMESTAMP, Timestamp};
use kafka::topics::{NewRecord, TopicRecord};
use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};

use super::DataFormats;
use crate::formats::DataFormat;

/// The form, for `--help`.
pub const HELP: &str = "\
Write records, one JSON object a line, into a topic

Fields of a line, all optional:
  key, value                 in --key-format and --value-format; null is no key, or a tombstone
  key_base64, value_base64   instead, for bytes that do not fit the format
  timestamp                  milliseconds since the epoch; the present time where it is absent
  headers                    an object, or a list of [name, value]; a value is text, null or {\"base64\": \"…\"}
  partition                  Kafka's default partitioner where it is absent
topic and offset, as `topics read` prints them, are taken and not used.";

/// A line to write.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct InputLine<'a> {
    // An `Option` of a raw value would take null for an absent field.
    #[serde(borrow, default)]
    key: Option<&'a RawValue>,
    #[serde(borrow, default)]
    value: Option<&'a RawValue>,
    key_base64: Option<String>,
    value_base64: Option<String>,
    timestamp: Option<Timestamp>,
    headers: Option<InputHeaders>,
    partition: Option<i32>,
    #[serde(rename = "topic")]
    _topic: Option<String>,
    #[serde(rename = "offset")]
    _offset: Option<i64>,
}

#[derive(Debug, Deserialize)]
#[serde(
    untagged,
    expecting = "headers: expected an object, or a list of [name, value] with text, null or {\"base64\": \"…\"} as value"
)]
enum InputHeaders {
    List(Vec<(String, Option<HeaderValue>)>),
    Object(serde_json::Map<String, serde_json::Value>),
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
enum HeaderValue {
    Text(String),
    Bytes { base64: String },
}

/// Reads a line.
///
/// # Errors
/// Names the field, what was expected and what was found.
pub fn read(text: &str, formats: &DataFormats, now_ms: Timestamp) -> Result<NewRecord, String> {
    // serde would take a list for the fields in their order.
    if !text.trim_start().starts_with('{') {
        let start: String = text.chars().take(20).collect();
        return Err(format!("expected a JSON object, found {start:?}"));
    }
    let line: InputLine<'_> = serde_json::from_str(text).map_err(|error| {
        // To serde_json every line is the first one; which it is in the file, the caller knows.
        error.to_string().replace(" at line 1 column ", " at column ")
    })?;
    let timestamp = line.timestamp.unwrap_or(now_ms);
    if timestamp < 0 {
        return Err(format!("timestamp: expected milliseconds since the epoch, 0 or more, found {timestamp}"));
    }
    Ok(NewRecord {
        partition: line.partition,
        timestamp,
        key: bytes("key", line.key, line.key_base64.as_deref(), formats.key_format)?,
        value: bytes("value", line.value, line.value_base64.as_deref(), formats.value_format)?,
        headers: line.headers.map_or_else(|| Ok(Headers::new()), headers)?,
    })
}

fn bytes(
    what: &str,
    written: Option<&RawValue>,
    base64: Option<&str>,
    format: DataFormat,
) -> Result<Option<Bytes>, String> {
    let written = written.filter(|written| written.get() != "null");
    let read = match (written, base64) {
        (None, None) => return Ok(None),
        (Some(_), Some(_)) => return Err(format!("{what} and {what}_base64 exclude each other")),
        (None, Some(text)) => DataFormat::Base64.read(text).map_err(|error| format!("{what}_base64: {error}"))?,
        (Some(written), None) => format.read_json(written).map_err(|error| {
            let hint =
                if format == DataFormat::Utf8 { format!("; for JSON use --{what}-format json") } else { String::new() };
            format!("{what}: {error}{hint}")
        })?,
    };
    Ok(Some(read.into()))
}

fn headers(input: InputHeaders) -> Result<Headers, String> {
    let list = match input {
        InputHeaders::List(list) => list,
        InputHeaders::Object(object) => object
            .into_iter()
            .map(|(name, value)| match serde_json::from_value(value) {
                Ok(value) => Ok((name, value)),
                Err(_) => Err(format!("header {name}: expected text, null or {{\"base64\": \"…\"}}")),
            })
            .collect::<Result<_, String>>()?,
    };
    list.into_iter()
        .map(|(name, value)| {
            let value = match value {
                None => None,
                Some(HeaderValue::Text(text)) => Some(Bytes::from(text)),
                Some(HeaderValue::Bytes { base64 }) => {
                    Some(DataFormat::Base64.read(&base64).map_err(|error| format!("header {name}: {error}"))?.into())
                }
            };
            Ok(Header { key: Bytes::from(name), value })
        })
        .collect()
}

/// A line that is printed. The fields keep this order.
#[derive(Debug, Serialize)]
struct OutputLine<'a> {
    topic: &'a str,
    partition: i32,
    offset: i64,
    /// Absent where the record has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    timestamp: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_base64: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value_base64: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    headers: Vec<(String, Option<HeaderValue>)>,
}

/// Writes a record. Bytes that do not fit the format appear in base64 under a name of their own, so that nothing is
/// lost.
///
/// # Errors
/// When a header's name is not text, which JSON cannot hold.
pub fn write(topic: &str, record: &TopicRecord, formats: &DataFormats) -> Result<String, String> {
    let (key, key_base64) = shown(record.key.as_ref(), formats.key_format)?;
    let (value, value_base64) = shown(record.value.as_ref(), formats.value_format)?;
    let line = OutputLine {
        topic,
        partition: record.partition,
        offset: record.offset,
        timestamp: Some(record.timestamp).filter(|timestamp| *timestamp != NO_TIMESTAMP),
        key,
        key_base64,
        value,
        value_base64,
        headers: record.headers.iter().map(shown_header).collect::<Result<_, _>>()?,
    };
    serde_json::to_string(&line).map_err(|error| error.to_string())
}

/// Bytes in a format, or else in base64.
pub type Shown = (Option<Box<RawValue>>, Option<Box<RawValue>>);

/// Shows bytes in a format. Those that do not fit it are the second of the pair, in base64; no bytes at all are null.
///
/// # Errors
/// When JSON cannot be written.
pub fn shown(bytes: Option<&Bytes>, format: DataFormat) -> Result<Shown, String> {
    let null = || to_raw_value(&()).map_err(|error| error.to_string());
    let Some(bytes) = bytes else { return Ok((Some(null()?), None)) };
    match format.show(bytes) {
        // The JSON document `null` would read as no value at all.
        Ok(shown) if shown.get() != "null" => Ok((Some(shown), None)),
        _ => Ok((None, Some(DataFormat::Base64.show(bytes)?))),
    }
}

fn shown_header(header: &Header) -> Result<(String, Option<HeaderValue>), String> {
    let name = String::from_utf8(header.key.to_vec()).map_err(|_| "a header's name is not UTF-8 text".to_owned())?;
    let value = header.value.as_ref().map(|value| match std::str::from_utf8(value) {
        Ok(text) => HeaderValue::Text(text.to_owned()),
        Err(_) => {
            use base64::Engine as _;
            HeaderValue::Bytes { base64: base64::engine::general_purpose::STANDARD.encode(value) }
        }
    });
    Ok((name, value))
}

#[cfg(test)]
mod tests;
