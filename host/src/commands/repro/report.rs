//! What a repeated call did, beside what the dead letter says: for people as lines, for programs as a JSON object. What
//! the module said is escaped and cut, as everywhere.

use engine::processor::ProcessorError;
use engine::record::OutputBatch;
use engine::replay::{Replayed, ReplayedWrite};
use serde_json::{Value, json};

use super::super::dlq::DeadLetter;
use crate::text;

/// A key or value in a line.
const BYTES_MAX_CHARACTERS: usize = 200;

/// The comparison.
pub struct Report<'a> {
    letter: &'a DeadLetter,
    digest: &'a str,
    replayed: &'a Replayed,
}

/// Whether the call ended as it did then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// The same reason, message and backtrace.
    Reproduced,
    /// The same reason, but another message or backtrace.
    Similar,
    OtherFailure,
    Processed,
}

impl Verdict {
    fn text(self) -> &'static str {
        match self {
            Self::Reproduced => "reproduced: the same reason, message and backtrace",
            Self::Similar => "failed for the same reason, with another message or backtrace",
            Self::OtherFailure => "failed for another reason",
            Self::Processed => "processed: this module does not fail at it",
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Reproduced => "reproduced",
            Self::Similar => "same-reason",
            Self::OtherFailure => "other-reason",
            Self::Processed => "processed",
        }
    }
}

impl<'a> Report<'a> {
    pub fn new(letter: &'a DeadLetter, digest: &'a str, replayed: &'a Replayed) -> Self {
        Self { letter, digest, replayed }
    }

    fn verdict(&self) -> Verdict {
        let Err(error) = &self.replayed.result else { return Verdict::Processed };
        let recorded = self.letter;
        if recorded.reason.as_deref() != Some(super::reason(error)) {
            return Verdict::OtherFailure;
        }
        let backtrace = recorded.backtrace.as_deref().unwrap_or_default();
        // A deadline strikes anywhere in a loop.
        let same_place =
            matches!(error, ProcessorError::Deadline { .. }) || backtrace == self.replayed.report.backtrace;
        match same_place && recorded.message.as_deref() == Some(&message(error)) {
            true => Verdict::Reproduced,
            false => Verdict::Similar,
        }
    }

    /// What the command's error says; `None` where the call went through.
    pub fn failure(&self) -> Option<&'static str> {
        Some(self.verdict()).filter(|verdict| *verdict != Verdict::Processed).map(Verdict::text)
    }

    /// For people.
    pub fn lines(&self) -> Vec<String> {
        let letter = self.letter;
        let mut lines = Vec::new();
        let mut tell = |name: &str, said: &str| {
            lines.push(format!("{name:<16}{}", text::short(said, text::WHOLE_MAX_CHARACTERS)));
        };
        tell("dead letter", &format!("{} of {}", letter.position, letter.subject));
        match letter.module.as_deref() {
            Some(recorded) if recorded == self.digest => tell("module", &format!("{recorded}, as then")),
            recorded => tell("module", &format!("{} instead of {}", self.digest, recorded.unwrap_or("an unknown one"))),
        }
        let reason = letter.reason.as_deref().unwrap_or("unknown");
        tell("then", &format!("{reason}: {}", letter.told()));
        match &self.replayed.result {
            Ok(_) => tell("now", "processed"),
            Err(error) => {
                let place = if self.replayed.in_init { " (in init)" } else { "" };
                tell("now", &format!("{}{place}: {}", super::reason(error), message(error)));
                self.replayed.report.backtrace.lines().for_each(|frame| tell("  at", frame));
            }
        }
        let undone = if self.replayed.result.is_err() { " (undone)" } else { "" };
        for write in &self.replayed.writes {
            tell("write", &format!("{}{undone}", shown_write(write)));
        }
        if let Ok(outcome) = &self.replayed.result {
            (0..outcome.outputs.len()).for_each(|index| tell("output", &shown_output(&outcome.outputs, index)));
        }
        for read in &self.replayed.unknown_reads {
            tell("not recorded", &format!("{read}; it had nothing here"));
        }
        if letter.reads_are_truncated() {
            tell("not recorded", "the dead letter does not have all that the call has read");
        }
        tell("verdict", self.verdict().text());
        lines
    }

    /// For programs.
    pub fn document(&self) -> Value {
        let error = self.replayed.result.as_ref().err();
        let outputs = self.replayed.result.as_ref().map(|outcome| outcome.outputs.clone()).unwrap_or_default();
        json!({
            "position": self.letter.position.to_string(),
            "verdict": self.verdict().word(),
            "module": self.digest,
            "recorded_module": self.letter.module,
            "recorded_reason": self.letter.reason,
            "recorded_message": self.letter.message,
            "reason": error.map(super::reason),
            "message": error.map(message),
            "in_init": self.replayed.in_init,
            "backtrace": self.replayed.report.backtrace,
            "writes": self.replayed.writes.iter().map(shown_write).collect::<Vec<_>>(),
            "outputs": (0..outputs.len()).map(|index| shown_output(&outputs, index)).collect::<Vec<_>>(),
            "not_recorded": self.replayed.unknown_reads,
            "reads_truncated": self.letter.reads_are_truncated(),
        })
    }
}

/// As a dead letter's header says it.
fn message(error: &ProcessorError) -> String {
    match error {
        ProcessorError::Returned(reason) => reason.clone(),
        other => other.to_string(),
    }
}

fn shown(bytes: &[u8]) -> String {
    text::short(&bytes.escape_ascii().to_string(), BYTES_MAX_CHARACTERS)
}

fn shown_write((store, key, value, timestamp): &ReplayedWrite) -> String {
    let value = value.as_ref().map_or_else(|| "deleted".to_owned(), |value| shown(value));
    format!("{store} {} = {value} at {timestamp}", shown(key))
}

fn shown_output(outputs: &OutputBatch, index: usize) -> String {
    let sink = outputs.sinks.get(index).copied().unwrap_or(0);
    let side = |bytes: Option<&[u8]>| bytes.map_or_else(|| "null".to_owned(), shown);
    let (key, value) = (side(outputs.keys.get(index)), side(outputs.values.get(index)));
    format!("sink {sink} {key} = {value} at {}", outputs.timestamps[index])
}
