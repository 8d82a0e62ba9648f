//! `sandbar dlq show`: everything that one dead letter says.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Result, anyhow};
use bytes::Bytes;
use engine::processor::Reads;
use engine::record::Header;
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Value, json};

use super::super::topics::DataFormats;
use super::super::topics::line::shown;
use super::letter::{DeadLetter, Subject};
use super::position::Position;
use super::{Place, list, moment, saved, scan};
use crate::formats::DataFormat;
use crate::terminal::{Format, Terminal, print_line};
use crate::text;

#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    formats: DataFormats,
    /// Which one, as `dlq list` prints it: TOPIC@PARTITION:OFFSET
    position: Position,

    /// Write it to a file instead, for `sandbar repro --from-file`
    #[arg(long, value_name = "PATH")]
    save: Option<PathBuf>,
}

/// Runs the command.
///
/// # Errors
/// When there is no dead letter at the position, or the broker fails.
pub fn run(arguments: &Arguments, terminal: Terminal) -> Result<()> {
    let (connected, _) = arguments.place.open(Some(&arguments.position.topic), terminal)?;
    let record = scan::one(&connected.clients, &arguments.position)?;
    let letter = DeadLetter::of(&arguments.position.topic, record.clone())?;
    if let Some(path) = &arguments.save {
        saved::write(path, &arguments.position.topic, &record)?;
        let text = format!("saved {} to {}", letter.position, path.display());
        terminal.notice("saved", &text, json!({ "path": path.display().to_string() }));
        return Ok(());
    }
    match terminal.format {
        Format::Text => lines(&letter, &arguments.formats)?.iter().for_each(|line| print_line(line)),
        Format::Json => print_line(&document(&letter, &arguments.formats)?),
    }
    Ok(())
}

/// What the failed call had read from stores and settings.
fn reads(bytes: &Bytes) -> String {
    match Reads::decode(bytes) {
        Ok(reads) => {
            let rest = if reads.truncated { ", and more that did not fit" } else { "" };
            format!("{} in {} bytes{rest}", reads.reads.len(), bytes.len())
        }
        Err(error) => format!("{} bytes, malformed: {error}", bytes.len()),
    }
}

fn lines(letter: &DeadLetter, formats: &DataFormats) -> Result<Vec<String>> {
    let mut lines = Vec::new();
    let mut tell = |name: &str, text: Option<String>| {
        lines.extend(text.map(|text| format!("{name:<16}{}", text::short(&text, text::WHOLE_MAX_CHARACTERS))));
    };
    let moment = |time: Option<i64>| time.map(moment::show);
    tell("position", Some(letter.position.to_string()));
    tell("time", moment(Some(letter.time())));
    tell("reason", letter.reason.clone());
    tell("exception", Some(letter.exception.clone()));
    tell("message", letter.message.clone());
    tell("source", Some(letter.subject.to_string()));
    if let Subject::Punctuation { time, .. } = letter.subject {
        tell("due", moment(time));
    }
    tell("application", letter.application.clone());
    tell("task", letter.task.clone());
    tell("module", letter.module.clone());
    tell("cpu time", letter.cpu_us.map(|us| format!("{us} us")));
    tell("stream time", moment(letter.stream_time));
    tell("timestamp", Some(moment::show(letter.source_timestamp.unwrap_or(letter.timestamp))));
    tell("reads", letter.reads.as_ref().map(reads));
    for header in &letter.other_headers {
        tell("other", Some(header_line(header)));
    }
    for fault in &letter.faults {
        tell("malformed", Some(fault.clone()));
    }
    for header in &letter.own_headers {
        tell("header", Some(header_line(header)));
    }
    for (name, shown) in sides(letter, formats)? {
        // Not cut: this is what somebody wants to see whole.
        lines.push(format!("{name:<16}{}", text::escape(shown.get())));
    }
    if let Some(backtrace) = &letter.backtrace {
        lines.push("backtrace".to_owned());
        let end = backtrace.char_indices().nth(text::WHOLE_MAX_CHARACTERS).map_or(backtrace.len(), |(end, _)| end);
        lines.extend(backtrace[..end].lines().map(|line| format!("  {}", text::escape(line))));
    }
    Ok(lines)
}

/// As `lines`, with the key and the value as they are where they are JSON.
fn document(letter: &DeadLetter, formats: &DataFormats) -> Result<String> {
    let mut fields = list::fields(letter);
    let pairs = |headers: &[Header]| headers.iter().map(header_value).collect::<Vec<_>>();
    fields["cpu_us"] = json!(letter.cpu_us);
    fields["stream_time"] = json!(letter.stream_time);
    fields["wall_clock_time"] = json!(letter.wall_clock_time);
    fields["timestamp"] = json!(letter.source_timestamp.unwrap_or(letter.timestamp));
    fields["reads"] = json!(letter.reads.as_ref().map(reads));
    fields["backtrace"] = json!(letter.backtrace);
    fields["other_headers"] = json!(pairs(&letter.other_headers));
    fields["headers"] = json!(pairs(&letter.own_headers));
    let mut document: BTreeMap<&str, Box<RawValue>> = BTreeMap::new();
    for (name, value) in fields.as_object().into_iter().flatten() {
        document.insert(name, to_raw_value(value)?);
    }
    document.extend(sides(letter, formats)?);
    Ok(serde_json::to_string(&document)?)
}

/// Key and value in their formats; what does not fit in base64, under a name that says so.
fn sides(letter: &DeadLetter, formats: &DataFormats) -> Result<[(&'static str, Box<RawValue>); 2]> {
    let side = |names: [&'static str; 2], bytes: Option<&Bytes>, format| match shown(bytes, format) {
        Ok((Some(shown), _)) => Ok((names[0], shown)),
        Ok((None, Some(base64))) => Ok((names[1], base64)),
        Ok((None, None)) => Err(anyhow!("{}: {} cannot be shown", letter.position, names[0])),
        Err(error) => Err(anyhow!("{}: {}: {error}", letter.position, names[0])),
    };
    Ok([
        side(["key", "key_base64"], letter.key.as_ref(), formats.key_format)?,
        side(["value", "value_base64"], letter.value.as_ref(), formats.value_format)?,
    ])
}

fn header_value(header: &Header) -> Value {
    let name = String::from_utf8_lossy(&header.key);
    let value = header.value.as_ref().map(|value| match std::str::from_utf8(value) {
        Ok(text) => json!(text),
        Err(_) => json!({ "base64": DataFormat::Base64.show(value).ok() }),
    });
    json!([name, value])
}

fn header_line(header: &Header) -> String {
    let name = String::from_utf8_lossy(&header.key);
    let value = match header.value.as_deref().map(|value| (value, std::str::from_utf8(value))) {
        None => "null".to_owned(),
        Some((_, Ok(text))) => json!(text).to_string(),
        Some((bytes, Err(_))) => format!("0x{}", crate::formats::hex(bytes)),
    };
    format!("{name}: {value}")
}

#[cfg(test)]
mod tests;
