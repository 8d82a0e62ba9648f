//! A dead letter as its headers tell it (KIP-1034 and our own). The added headers begin at the last
//! `__streams.errors.exception`; what stands before is the source record's own, even where it has such a name. A header
//! that cannot be read is named as a fault and taken as absent. Pure.

use std::fmt;
use std::str::FromStr;

use bytes::Bytes;
use engine::dead_letter::DeadLetterReason;
pub use engine::dead_letter::header;
use engine::processor::Reads;
use engine::record::{Header, Headers, Timestamp};
use kafka::topics::TopicRecord;

use super::position::Position;
use crate::config::is_kafka_name;
use crate::text;

/// The reasons that this version writes.
pub fn reasons() -> [&'static str; 7] {
    DeadLetterReason::ALL.map(DeadLetterReason::as_str)
}

/// What could not be processed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    Record(Position),
    Punctuation {
        schedule: Option<u32>,
        time: Option<Timestamp>,
    },
    /// Neither can be told.
    Unknown,
}

/// A dead letter. What is absent or cannot be read is `None`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    pub position: Position,
    /// Of the dead letter, which is the source's where `source_timestamp` says nothing else.
    pub timestamp: Timestamp,
    pub key: Option<Bytes>,
    pub value: Option<Bytes>,
    /// Those of the source record, in order.
    pub own_headers: Headers,
    pub subject: Subject,
    pub exception: String,
    pub message: Option<String>,
    pub backtrace: Option<String>,
    pub reason: Option<String>,
    pub application: Option<String>,
    pub task: Option<String>,
    pub module: Option<String>,
    pub cpu_us: Option<u64>,
    pub stream_time: Option<Timestamp>,
    pub wall_clock_time: Option<Timestamp>,
    /// The timestamp of writes that name none.
    pub write_time: Option<Timestamp>,
    pub source_timestamp: Option<Timestamp>,
    /// Limits and topics that the call was judged by, `key=value` a line.
    pub settings: Option<String>,
    pub reads: Option<Bytes>,
    /// Added headers that this version does not know.
    pub other_headers: Headers,
    /// What could not be read, and why.
    pub faults: Vec<String>,
}

/// A record of the topic that is no dead letter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0} is no dead letter: it has no header {name}", name = header::EXCEPTION)]
pub struct NoDeadLetter(pub Position);

impl DeadLetter {
    /// Reads the headers of a record.
    ///
    /// # Errors
    /// When it has none of a dead letter.
    pub fn of(topic: &str, record: TopicRecord) -> Result<Self, NoDeadLetter> {
        let position = Position { topic: topic.to_owned(), partition: record.partition, offset: record.offset };
        let begins = record.headers.iter().rposition(|header| header.key == header::EXCEPTION);
        let Some(begins) = begins else { return Err(NoDeadLetter(position)) };
        let mut own_headers = record.headers;
        let behind = own_headers.split_off(begins);
        // Whoever copied the dead letter may have added headers of its own.
        let (added, foreign): (Headers, Headers) = behind.into_iter().partition(|one| header::is_added(&one.key));
        own_headers.extend(foreign);
        let mut added = Added { headers: added, faults: Vec::new() };
        let subject = added.subject();
        let mut letter = Self {
            position,
            timestamp: record.timestamp,
            key: record.key,
            value: record.value,
            own_headers,
            subject,
            exception: added.text(header::EXCEPTION).unwrap_or_default(),
            message: added.text(header::MESSAGE),
            backtrace: added.text(header::STACKTRACE).filter(|text| !text.is_empty()),
            reason: added.text(header::REASON),
            application: added.text(header::APPLICATION),
            task: added.text(header::TASK),
            module: added.text(header::MODULE),
            cpu_us: added.number(header::CPU_US),
            stream_time: added.number(header::STREAM_TIME),
            wall_clock_time: added.number(header::WALL_CLOCK_TIME),
            write_time: added.number(header::WRITE_TIME),
            source_timestamp: added.number(header::TIMESTAMP),
            settings: added.text(header::SETTINGS),
            reads: added.bytes(header::READS),
            other_headers: Headers::new(),
            faults: Vec::new(),
        };
        (letter.other_headers, letter.faults) = (added.headers, added.faults);
        Ok(letter)
    }

    /// When it failed; where that is not told, the dead letter's timestamp.
    pub fn time(&self) -> Timestamp {
        self.wall_clock_time.unwrap_or(self.timestamp)
    }

    /// The source record, where there is one.
    pub fn source(&self) -> Option<&Position> {
        match &self.subject {
            Subject::Record(source) => Some(source),
            Subject::Punctuation { .. } | Subject::Unknown => None,
        }
    }

    /// Whether the dead letter lacks some of what the call has read.
    pub fn reads_are_truncated(&self) -> bool {
        self.reads.as_ref().is_none_or(|bytes| Reads::decode(bytes).is_ok_and(|reads| reads.truncated))
    }

    /// What the exception says, where there is no message of its own.
    pub fn told(&self) -> &str {
        self.message.as_deref().unwrap_or(&self.exception)
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Record(source) => source.fmt(f),
            Self::Punctuation { schedule: Some(schedule), .. } => write!(f, "punctuation of schedule {schedule}"),
            Self::Punctuation { schedule: None, .. } => f.write_str("punctuation"),
            Self::Unknown => f.write_str("unknown"),
        }
    }
}

/// The added headers that are not read yet.
struct Added {
    headers: Headers,
    faults: Vec<String>,
}

impl Added {
    /// The last value of a name; takes all of them.
    fn bytes(&mut self, name: &str) -> Option<Bytes> {
        let mut last: Option<Header> = None;
        self.headers.retain(|one| {
            let found = one.key == name;
            if found {
                last = Some(one.clone());
            }
            !found
        });
        last?.value
    }

    fn text(&mut self, name: &str) -> Option<String> {
        let bytes = self.bytes(name)?;
        match std::str::from_utf8(&bytes) {
            Ok(text) => Some(text.to_owned()),
            Err(error) => {
                let readable = String::from_utf8_lossy(&bytes).into_owned();
                let excerpt = text::short(&readable, text::LINE_MAX_CHARACTERS);
                self.faults.push(format!("{name}: not UTF-8 text at byte {}: {excerpt}", error.valid_up_to()));
                None
            }
        }
    }

    fn number<T: FromStr>(&mut self, name: &str) -> Option<T> {
        let text = self.text(name)?;
        let number = text.parse().ok();
        if number.is_none() {
            self.faults.push(format!("{name}: expected a number, found {}", text::short(&text, 40)));
        }
        number
    }

    fn has(&self, name: &str) -> bool {
        self.headers.iter().any(|one| one.key == name)
    }

    fn subject(&mut self) -> Subject {
        let places = [header::TOPIC, header::PARTITION, header::OFFSET].map(|name| self.has(name));
        let punctuation = self.has(header::SCHEDULE) || self.has(header::PUNCTUATION_TIME);
        let (topic, partition, offset) =
            (self.text(header::TOPIC), self.number(header::PARTITION), self.number(header::OFFSET));
        let (schedule, time) = (self.number(header::SCHEDULE), self.number(header::PUNCTUATION_TIME));
        match (topic, partition, offset) {
            (Some(topic), Some(partition), Some(offset)) => {
                if is_kafka_name(&topic) && partition >= 0 && offset >= 0 {
                    return Subject::Record(Position { topic, partition, offset });
                }
                let found = format!("{}@{partition}:{offset}", text::short(&topic, text::LINE_MAX_CHARACTERS));
                self.faults.push(format!("{}: no place of a record: {found}", header::TOPIC));
            }
            _ if places == [false; 3] && punctuation => return Subject::Punctuation { schedule, time },
            _ => self.faults.push(format!("{}: topic, partition and offset are not all there", header::TOPIC)),
        }
        Subject::Unknown
    }
}

#[cfg(test)]
pub(super) mod tests;
