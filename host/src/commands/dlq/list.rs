//! `sandbar dlq list`: one line for each dead letter, or for each kind of them.

use std::collections::BTreeMap;

use anyhow::Result;
use engine::record::Timestamp;
use serde_json::{Value, json};

use super::filter::Filter;
use super::letter::{DeadLetter, Subject};
use super::scan::Scan;
use super::{Place, moment};
use crate::terminal::{Format, Terminal, print_line};
use crate::text;

#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    filter: Filter,
    /// The topic
    topic: Option<String>,
    /// Stop after so many
    #[arg(short = 'n', long, value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
    /// Count them by reason, module and source topic
    #[arg(long, conflicts_with = "limit")]
    summary: bool,
}

/// Characters of a module's digest that tell it from others.
const DIGEST_CHARACTERS: usize = 12;
/// For texts that are words, such as a reason.
const WORD_MAX_CHARACTERS: usize = 60;

/// Runs the command.
///
/// # Errors
/// When the topic is not there, or the broker fails.
pub fn run(arguments: &Arguments, terminal: Terminal) -> Result<()> {
    let (connected, topic) = arguments.place.open(arguments.topic.as_deref(), terminal)?;
    let mut scan = Scan::of(&connected.clients, &topic)?;
    let mut summary = Summary::default();
    let mut left = arguments.limit.unwrap_or(u64::MAX);
    while let Some(records) = scan.next()? {
        for record in records {
            match DeadLetter::of(&topic, record) {
                Ok(letter) if !arguments.filter.wants(&letter) => continue,
                Ok(letter) if arguments.summary => summary.add(&letter),
                Ok(letter) => print_line(&line(&letter, terminal.format)),
                // What is no dead letter passes no filter, but whoever looks at all should know of it.
                Err(_) if !arguments.filter.is_empty() => continue,
                Err(_) if arguments.summary => summary.others += 1,
                Err(error) => print_line(&match terminal.format {
                    Format::Text => format!("{}\t\t\t\t\tno dead letter", error.0),
                    Format::Json => json!({ "position": error.0.to_string(), "fault": error.to_string() }).to_string(),
                }),
            }
            left -= 1;
            if left == 0 {
                return Ok(());
            }
        }
    }
    if arguments.summary {
        summary.print(terminal.format);
    }
    Ok(())
}

/// A dead letter in one line.
fn line(letter: &DeadLetter, format: Format) -> String {
    let word = |text: Option<&str>| text::short(text.unwrap_or("-"), WORD_MAX_CHARACTERS);
    match format {
        Format::Text => [
            letter.position.to_string(),
            moment::show(letter.time()),
            word(letter.reason.as_deref()),
            letter.subject.to_string(),
            word(letter.task.as_deref()),
            text::short(letter.told(), text::LINE_MAX_CHARACTERS),
        ]
        .join("\t"),
        Format::Json => fields(letter).to_string(),
    }
}

/// What a dead letter tells but for its record, its backtrace and its reads.
pub fn fields(letter: &DeadLetter) -> Value {
    let mut fields = json!({
        "position": letter.position.to_string(),
        "time": letter.time(),
        "reason": letter.reason,
        "application": letter.application,
        "task": letter.task,
        "module": letter.module,
        "exception": letter.exception,
        "message": letter.message,
    });
    let subject = match &letter.subject {
        Subject::Record(source) => ("source", json!(source.to_string())),
        Subject::Punctuation { schedule, time } => ("punctuation", json!({ "schedule": schedule, "time": time })),
        Subject::Unknown => ("source", Value::Null),
    };
    fields[subject.0] = subject.1;
    if !letter.faults.is_empty() {
        fields["faults"] = json!(letter.faults);
    }
    fields
}

/// How many there are of each kind.
#[derive(Debug, Default)]
struct Summary {
    /// By reason, module and source topic.
    kinds: BTreeMap<(String, String, String), Kind>,
    /// Records that are no dead letters.
    others: u64,
}

#[derive(Debug)]
struct Kind {
    count: u64,
    first: Timestamp,
    last: Timestamp,
}

impl Summary {
    fn add(&mut self, letter: &DeadLetter) {
        let word = |text: Option<&str>, most: usize| text::short(text.unwrap_or("-"), most);
        let source = match &letter.subject {
            Subject::Record(source) => source.topic.clone(),
            Subject::Punctuation { .. } => "(punctuation)".to_owned(),
            Subject::Unknown => "(unknown)".to_owned(),
        };
        let reason = word(letter.reason.as_deref(), WORD_MAX_CHARACTERS);
        let key = (reason, word(letter.module.as_deref(), 64), source);
        let time = letter.time();
        let kind = self.kinds.entry(key).or_insert(Kind { count: 0, first: time, last: time });
        kind.count += 1;
        kind.first = kind.first.min(time);
        kind.last = kind.last.max(time);
    }

    fn print(&self, format: Format) {
        let mut kinds: Vec<_> = self.kinds.iter().collect();
        kinds.sort_by_key(|(_, kind)| std::cmp::Reverse(kind.count));
        for ((reason, module, source), Kind { count, first, last }) in kinds {
            print_line(&match format {
                Format::Text => {
                    let digest: String = module.chars().take(DIGEST_CHARACTERS).collect();
                    let (first, last) = (moment::show(*first), moment::show(*last));
                    format!("{count}\t{reason}\t{digest}\t{source}\t{first}\t{last}")
                }
                Format::Json => json!({
                    "count": count, "reason": reason, "module": module, "source": source, "first": first, "last": last,
                })
                .to_string(),
            });
        }
        if self.others > 0 {
            print_line(&match format {
                Format::Text => format!("{}\tno dead letter", self.others),
                Format::Json => json!({ "count": self.others, "fault": "no dead letter" }).to_string(),
            });
        }
    }
}
