//! A dead letter as a file: the record as the broker has it, all bytes in base64, so that it can be repeated on a
//! machine that reaches no broker. What a file says is checked like what a topic says.

use std::path::Path;

use anyhow::{Context, Result, anyhow};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use engine::record::Header;
use kafka::topics::TopicRecord;
use serde::{Deserialize, Serialize};

use super::letter::DeadLetter;
use super::position::Position;

/// Above any record that a topic takes by default; a file is read whole.
const FILE_MAX_BYTES: u64 = 256 << 20;

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Saved {
    position: String,
    timestamp: i64,
    key: Option<String>,
    value: Option<String>,
    headers: Vec<(String, Option<String>)>,
}

/// Writes the record of a dead letter.
///
/// # Errors
/// When the file cannot be written; one that exists already is not replaced.
pub fn write(path: &Path, topic: &str, record: &TopicRecord) -> Result<()> {
    let text = |bytes: &Bytes| STANDARD.encode(bytes);
    let saved = Saved {
        position: Position { topic: topic.to_owned(), partition: record.partition, offset: record.offset }.to_string(),
        timestamp: record.timestamp,
        key: record.key.as_ref().map(text),
        value: record.value.as_ref().map(text),
        headers: record.headers.iter().map(|one| (text(&one.key), one.value.as_ref().map(text))).collect(),
    };
    let file = std::fs::OpenOptions::new().write(true).create_new(true).open(path);
    let file = file.with_context(|| format!("cannot write {}", path.display()))?;
    serde_json::to_writer_pretty(file, &saved).with_context(|| format!("cannot write {}", path.display()))
}

/// Reads what `write` wrote.
///
/// # Errors
/// Says what in the file is not as expected.
pub fn read(path: &Path) -> Result<DeadLetter> {
    let refused = || format!("{} is no saved dead letter", path.display());
    let found_bytes = std::fs::metadata(path).with_context(|| format!("cannot read {}", path.display()))?.len();
    if found_bytes > FILE_MAX_BYTES {
        return Err(anyhow!("it has {found_bytes} bytes, at most {FILE_MAX_BYTES} are read").context(refused()));
    }
    let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let saved: Saved = serde_json::from_slice(&bytes).with_context(refused)?;
    let position: Position = saved.position.parse().map_err(|error: String| anyhow!(error).context(refused()))?;
    let bytes = |text: String| STANDARD.decode(text).map(Bytes::from).with_context(refused);
    let headers = saved
        .headers
        .into_iter()
        .map(|(key, value)| Ok(Header { key: bytes(key)?, value: value.map(bytes).transpose()? }));
    let record = TopicRecord {
        partition: position.partition,
        offset: position.offset,
        timestamp: saved.timestamp,
        key: saved.key.map(bytes).transpose()?,
        value: saved.value.map(bytes).transpose()?,
        headers: headers.collect::<Result<_>>()?,
    };
    Ok(DeadLetter::of(&position.topic, record)?)
}

#[cfg(test)]
mod tests;
