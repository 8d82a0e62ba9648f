//! Where a dead letter's record goes, and whether it can. Pure.

use std::collections::BTreeMap;

use bytes::Bytes;
use engine::broker::TopicDescription;
use engine::record::{Header, Headers, Timestamp};
use engine::topic_limits;

use super::letter::{DeadLetter, Subject, header};

/// A record as it is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redriven {
    pub topic: String,
    /// `None` = by its key.
    pub partition: Option<i32>,
    pub timestamp: Timestamp,
    pub key: Option<Bytes>,
    pub value: Option<Bytes>,
    pub headers: Headers,
}

/// Why a dead letter's record is not sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unsent {
    /// It has none: a punctuation failed, or it does not tell of which record it is.
    NoRecord(String),
    /// The topic would not take it.
    Refused(String),
}

/// The topics that records go to, as they are described; `None` for one that does not exist.
pub type Targets = BTreeMap<String, Option<TopicDescription>>;

/// The topic that a dead letter's record goes to; `None` when it has no record.
pub fn topic_of(letter: &DeadLetter, to: Option<&str>) -> Option<String> {
    let source = letter.source()?;
    Some(to.map_or_else(|| source.topic.clone(), str::to_owned))
}

/// The record that was not processed, as it was, for the partition where it was; `to` is another topic, in which its
/// key decides.
///
/// # Errors
/// Why there is none, or why its topic would refuse it.
pub fn redriven(letter: DeadLetter, to: Option<&str>, targets: &Targets) -> Result<Redriven, Unsent> {
    let Some(topic) = topic_of(&letter, to) else {
        return Err(Unsent::NoRecord(match &letter.subject {
            Subject::Punctuation { .. } => "a punctuation failed, so that there is no record to send".to_owned(),
            _ => "it does not tell of which record it is".to_owned(),
        }));
    };
    if is_state(&topic) {
        return Err(Unsent::Refused(format!(
            "topic {topic} is the state of an application or of the cluster, which nothing is sent to; --to names another"
        )));
    }
    if topic == letter.position.topic {
        return Err(Unsent::Refused(format!("topic {topic} is where the dead letter is; --to names another")));
    }
    let Some(described) = targets.get(&topic).and_then(Option::as_ref) else {
        return Err(Unsent::Refused(format!("topic {topic} does not exist")));
    };
    let source_partition = letter.source().map(|source| source.partition).filter(|_| to.is_none());
    let mut headers = letter.own_headers;
    // Only the last dead letter counts.
    headers.retain(|one| one.key != header::REDRIVEN);
    headers.push(Header {
        key: Bytes::from_static(header::REDRIVEN.as_bytes()),
        value: Some(letter.position.to_string().into()),
    });
    let record = Redriven {
        topic,
        partition: source_partition.filter(|partition| *partition < described.partitions),
        // A client cannot send a record without a timestamp.
        timestamp: letter.source_timestamp.filter(|timestamp| *timestamp >= 0).unwrap_or(letter.timestamp).max(0),
        key: letter.key,
        value: letter.value,
        headers,
    };
    match refusal(&record, &described.configs) {
        Some(detail) => Err(Unsent::Refused(detail)),
        None => Ok(record),
    }
}

/// Whether a topic is a changelog or internal to a cluster, by its name. What a dead letter says is its writer's word,
/// and a record in such a topic would be taken for state.
fn is_state(topic: &str) -> bool {
    topic.ends_with("-changelog") || topic.starts_with("__")
}

/// Why a topic with these settings would refuse the record.
fn refusal(record: &Redriven, configs: &BTreeMap<String, String>) -> Option<String> {
    let topic = &record.topic;
    if record.key.is_none() && configs.get("cleanup.policy").is_some_and(|policy| policy.contains("compact")) {
        return Some(format!("topic {topic} is compacted and takes no record without a key"));
    }
    let most = max_message_bytes(configs)?;
    let bytes = batch_bytes(record);
    (bytes > most).then(|| format!("{bytes} bytes are more than max.message.bytes of topic {topic} takes ({most})"))
}

/// `max.message.bytes` of a topic, where the broker tells it.
pub fn max_message_bytes(configs: &BTreeMap<String, String>) -> Option<u64> {
    configs.get("max.message.bytes")?.parse().ok()
}

/// The size of a record batch that holds the record alone, as the broker measures it.
pub fn batch_bytes(record: &Redriven) -> u64 {
    topic_limits::batch_bytes(record.key.as_deref(), record.value.as_deref(), &record.headers) as u64
}

#[cfg(test)]
mod tests;
