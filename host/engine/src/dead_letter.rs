//! A dead letter: the record that could not be processed, as it came, with headers that say what happened, by the names
//! of KIP-1034 (`ExceptionHandlerUtils`) and our own. Builds and sizes it; `task::record_collector` sends it.

use std::fmt;

use crate::processor::{CallReport, ProcessorError, Reads};
use crate::record::{OutputBatch, Record, Timestamp, TopicPartition};
use crate::topology::TaskId;

/// The names of the headers that are added. The first six are Kafka Streams'.
pub mod header {
    pub const EXCEPTION: &str = "__streams.errors.exception";
    pub const MESSAGE: &str = "__streams.errors.message";
    pub const STACKTRACE: &str = "__streams.errors.stacktrace";
    pub const TOPIC: &str = "__streams.errors.topic";
    pub const PARTITION: &str = "__streams.errors.partition";
    pub const OFFSET: &str = "__streams.errors.offset";
    /// A `DeadLetterReason`.
    pub const REASON: &str = "__sandbar.reason";
    pub const APPLICATION: &str = "__sandbar.application";
    pub const TASK: &str = "__sandbar.task";
    pub const MODULE: &str = "__sandbar.module.sha256";
    /// CPU time of the call, in microseconds.
    pub const CPU_US: &str = "__sandbar.cpu-us";
    /// The times that the call saw, in milliseconds since the epoch.
    pub const STREAM_TIME: &str = "__sandbar.stream-time";
    pub const WALL_CLOCK_TIME: &str = "__sandbar.wall-clock-time";
    /// The timestamp of writes that name none.
    pub const WRITE_TIME: &str = "__sandbar.write-time";
    /// The source's timestamp where the dead letter has another.
    pub const TIMESTAMP: &str = "__sandbar.timestamp";
    /// `key=value` lines of the settings that the instance had beside the defaults.
    pub const SETTINGS: &str = "__sandbar.settings";
    /// The schedule and the time of a punctuation that failed.
    pub const SCHEDULE: &str = "__sandbar.schedule";
    pub const PUNCTUATION_TIME: &str = "__sandbar.time";
    /// `Reads` in their encoding.
    pub const READS: &str = "__sandbar.reads";
    /// Where a record that was sent back was a dead letter.
    pub const REDRIVEN: &str = "__sandbar.redriven";

    /// Whether a header was added by a dead letter or by what was done with it.
    pub fn is_added(name: &[u8]) -> bool {
        name.starts_with(b"__streams.errors.") || name.starts_with(b"__sandbar.")
    }
}

/// Why a record is a dead letter, in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeadLetterReason {
    Refused,
    Trap,
    Deadline,
    Memory,
    Limit,
    Output,
    TooLarge,
}

impl DeadLetterReason {
    pub const ALL: [Self; 7] =
        [Self::Refused, Self::Trap, Self::Deadline, Self::Memory, Self::Limit, Self::Output, Self::TooLarge];

    /// The reason of a failure.
    pub fn of(error: &ProcessorError) -> Self {
        match error {
            ProcessorError::Returned(_) => Self::Refused,
            ProcessorError::Deadline { .. } => Self::Deadline,
            ProcessorError::Memory { .. } => Self::Memory,
            ProcessorError::Limit { .. } => Self::Limit,
            ProcessorError::Production { too_large: true, .. } => Self::TooLarge,
            ProcessorError::Output(_) | ProcessorError::Production { .. } => Self::Output,
            // The last three never become dead letters.
            ProcessorError::Trap { .. }
            | ProcessorError::Store(_)
            | ProcessorError::Start(_)
            | ProcessorError::HostPanic(_) => Self::Trap,
        }
    }

    /// As the header says it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Trap => "trap",
            Self::Deadline => "deadline",
            Self::Memory => "memory",
            Self::Limit => "limit",
            Self::Output => "output",
            Self::TooLarge => "too-large",
        }
    }

    /// The exception that the header names, after which its message stands.
    fn exception(self) -> &'static str {
        match self {
            Self::Refused => "sandbar.RecordRefused",
            Self::Trap => "sandbar.Trap",
            Self::Deadline => "sandbar.DeadlineExceeded",
            Self::Memory => "sandbar.OutOfMemory",
            Self::Limit => "sandbar.LimitExceeded",
            Self::Output => "sandbar.InvalidOutput",
            Self::TooLarge => "sandbar.RecordTooLarge",
        }
    }
}

/// What could not be processed.
#[derive(Debug, Clone, Copy)]
pub enum Subject<'a> {
    Record { partition: &'a TopicPartition, record: &'a Record },
    Punctuation { schedule: u32, time: Timestamp },
}

impl Subject<'_> {
    fn timestamp(&self) -> Timestamp {
        match self {
            Self::Record { record, .. } => record.timestamp,
            Self::Punctuation { time, .. } => *time,
        }
    }
}

impl fmt::Display for Subject<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Record { partition, record } => write!(f, "{partition}, offset {}", record.offset),
            Self::Punctuation { schedule, time } => write!(f, "schedule {schedule} due at {time}"),
        }
    }
}

/// Everything that a dead letter says beside the record.
#[derive(Debug, Clone)]
pub struct DeadLetter<'a> {
    pub subject: Subject<'a>,
    pub error: &'a ProcessorError,
    pub report: &'a CallReport,
    pub task: TaskId,
    pub application_id: &'a str,
    pub digest: &'a str,
    /// The times that the call saw.
    pub stream_time: Option<Timestamp>,
    pub write_time: Timestamp,
    pub wall_clock_ms: Timestamp,
    pub settings: &'a [(String, String)],
    pub reads: &'a Reads,
}

/// How much a dead letter says, for topics that take no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    Whole,
    /// Without what is only there to repeat the call: the reads and the stack.
    WithoutDetails,
    /// And with the beginning of the message only, and no settings.
    Brief,
}

impl Form {
    /// From the most to the least.
    pub const ALL: [Self; 3] = [Self::Whole, Self::WithoutDetails, Self::Brief];

    /// Bytes of a message in a header; the whole is in no log.
    fn text_max_bytes(self) -> usize {
        if self == Self::Brief { 100 } else { 8 << 10 }
    }
}

impl DeadLetter<'_> {
    /// That of its subject, or the time of the call where that is 0: Kafka's clients replace 0 by the wall clock (T6),
    /// and so would hide it.
    pub fn timestamp(&self) -> Timestamp {
        let own = self.subject.timestamp();
        if own > 0 { own } else { self.stream_time.unwrap_or(self.wall_clock_ms).max(0) }
    }

    /// The dead letter as one record for a sink. With `now` it has the time at which it is written, where its topic
    /// does not take the record's own, which is then in a header.
    pub fn to_output(&self, sink: u32, form: Form, now: bool) -> OutputBatch {
        let details = form == Form::Whole;
        let mut output = OutputBatch { sinks: vec![sink], ..OutputBatch::default() };
        let mut headers: Vec<(&[u8], Option<Vec<u8>>)> = Vec::new();
        let (key, value) = match self.subject {
            Subject::Record { record, .. } => (record.key.as_deref(), record.value.as_deref()),
            Subject::Punctuation { .. } => (None, None),
        };
        output.keys.push(key);
        output.values.push(value);
        output.timestamps.push(if now { self.wall_clock_ms } else { self.timestamp() });
        if let Subject::Record { record, .. } = self.subject {
            headers.extend(record.headers.iter().map(|one| (&one.key[..], one.value.as_deref().map(<[u8]>::to_vec))));
        }
        let text = |text: &str| Some(text.as_bytes().to_vec());
        for (name, value) in self.added(form, self.subject.timestamp() != output.timestamps[0]) {
            headers.push((name.as_bytes(), text(&value)));
        }
        headers.push((header::STACKTRACE.as_bytes(), text(if details { &self.report.backtrace } else { "" })));
        if details {
            headers.push((header::READS.as_bytes(), Some(self.reads.encode())));
        }
        output.headers.counts.push(headers.len() as u32);
        for (name, value) in headers {
            output.headers.keys.push(name);
            output.headers.values.push(value.as_deref());
        }
        output
    }

    fn added(&self, form: Form, other_timestamp: bool) -> Vec<(&'static str, String)> {
        let reason = DeadLetterReason::of(self.error);
        let message = match self.error {
            ProcessorError::Returned(reason) => reason.clone(),
            other => other.to_string(),
        };
        let message = &message[..message.floor_char_boundary(form.text_max_bytes())];
        let mut added = vec![
            (header::EXCEPTION, format!("{}: {message}", reason.exception())),
            (header::MESSAGE, message.to_owned()),
        ];
        match self.subject {
            Subject::Record { partition, record } => added.extend([
                (header::TOPIC, partition.topic.to_string()),
                (header::PARTITION, partition.partition.to_string()),
                (header::OFFSET, record.offset.to_string()),
            ]),
            Subject::Punctuation { schedule, time } => {
                added.extend([(header::SCHEDULE, schedule.to_string()), (header::PUNCTUATION_TIME, time.to_string())]);
            }
        }
        added.extend([
            (header::REASON, reason.as_str().to_owned()),
            (header::APPLICATION, self.application_id.to_owned()),
            (header::TASK, self.task.to_string()),
            (header::MODULE, self.digest.to_owned()),
            (header::CPU_US, self.report.cpu_us.to_string()),
        ]);
        if let Some(stream_time) = self.stream_time {
            added.push((header::STREAM_TIME, stream_time.to_string()));
        }
        added.push((header::WRITE_TIME, self.write_time.to_string()));
        added.push((header::WALL_CLOCK_TIME, self.wall_clock_ms.to_string()));
        if let (Subject::Record { record, .. }, true) = (self.subject, other_timestamp) {
            added.push((header::TIMESTAMP, record.timestamp.to_string()));
        }
        if !self.settings.is_empty() && form != Form::Brief {
            let lines: Vec<String> = self.settings.iter().map(|(key, value)| format!("{key}={value}")).collect();
            added.push((header::SETTINGS, lines.join("\n")));
        }
        added
    }
}

#[cfg(test)]
mod tests;
