//! Where a record stands, as `TOPIC@PARTITION:OFFSET`, and ranges of that. Topics cannot hold the two signs. Pure.

use std::fmt;
use std::str::FromStr;

use engine::record::Offset;

use crate::config::is_kafka_name;

/// The form, for messages.
const FORM: &str = "TOPIC@PARTITION:OFFSET";

/// One record.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    pub topic: String,
    pub partition: i32,
    pub offset: Offset,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}:{}", self.topic, self.partition, self.offset)
    }
}

impl FromStr for Position {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |detail: &str| format!("{text:?}: expected {FORM}, {detail}");
        let (topic, rest) = text.split_once('@').ok_or_else(|| wrong("found no '@'"))?;
        let (partition, offset) = rest.split_once(':').ok_or_else(|| wrong("found no ':' behind the partition"))?;
        Ok(Self {
            topic: topic_of(topic).ok_or_else(|| wrong("found no name of a topic"))?,
            partition: number(partition).ok_or_else(|| wrong("the partition is no number"))?,
            offset: number(offset).ok_or_else(|| wrong("the offset is no number"))?,
        })
    }
}

/// Source records: a topic, one partition of it, or offsets of that, both ends included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceRange {
    pub topic: String,
    pub partition: Option<i32>,
    pub from: Offset,
    pub to: Offset,
}

impl FromStr for SourceRange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |detail: &str| format!("expected TOPIC, TOPIC@PARTITION or TOPIC@PARTITION:FROM-TO, {detail}");
        let (topic, rest) = text.split_once('@').map_or((text, None), |(topic, rest)| (topic, Some(rest)));
        let topic = topic_of(topic).ok_or_else(|| wrong("found no name of a topic"))?;
        let all = Self { topic, partition: None, from: 0, to: Offset::MAX };
        let Some(rest) = rest else { return Ok(all) };
        let (partition, offsets) = rest.split_once(':').map_or((rest, None), |(one, rest)| (one, Some(rest)));
        let partition = Some(number(partition).ok_or_else(|| wrong("the partition is no number"))?);
        let Some(offsets) = offsets else { return Ok(Self { partition, ..all }) };
        let offset = |text: &str| number(text).ok_or_else(|| wrong("an offset is no number"));
        let (from, to) = match offsets.split_once('-') {
            None => (offset(offsets)?, offset(offsets)?),
            Some((from, "")) => (offset(from)?, Offset::MAX),
            Some((from, to)) => (offset(from)?, offset(to)?),
        };
        if to < from {
            return Err(wrong("the range ends before it begins"));
        }
        Ok(Self { partition, from, to, ..all })
    }
}

impl SourceRange {
    pub fn contains(&self, source: &Position) -> bool {
        self.topic == source.topic
            && self.partition.is_none_or(|partition| partition == source.partition)
            && (self.from..=self.to).contains(&source.offset)
    }
}

fn topic_of(text: &str) -> Option<String> {
    is_kafka_name(text).then(|| text.to_owned())
}

/// A number from 0 on, without a sign.
pub fn number<T: FromStr>(text: &str) -> Option<T> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests;
