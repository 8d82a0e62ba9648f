//! `sandbar stores watch`: prints the changes that a host tells, one a line. Ends with an error that says how to go on,
//! since there is no other end.

use std::io::{ErrorKind, Write};

use anyhow::{Context, Result, anyhow};
use serde_json::Value;

use super::{Question, bare};
use crate::exit::UnreachableError;
use crate::terminal::{Format, Terminal};

/// Prints changes until there are no more.
///
/// # Errors
/// Why there are no more, and the position from which to go on.
pub fn run(question: &Question, query: &[(&str, String)], terminal: Terminal) -> Result<()> {
    let Question { client, path } = question;
    let mut position = None;
    for line in client.lines(path, query)? {
        let line = match line {
            Ok(line) => line,
            Err(error) => return Err(ended(&format!("the answer broke off ({error})"), position.as_deref())),
        };
        match Told::of(&line)? {
            Told::Change { line, position: after } => {
                let text = match terminal.format {
                    Format::Json => line.to_string(),
                    Format::Text => format!("{}\t{}", bare(&line["key"]), bare(&line["value"])),
                };
                if !printed(&text)? {
                    return Ok(());
                }
                position = Some(after);
            }
            Told::Heartbeat { position: after } => position = Some(after),
            Told::Problem(detail) => return Err(anyhow!(detail).context("the host ended the subscription")),
        }
    }
    Err(ended("the host ended the subscription", position.as_deref()))
}

/// Prints a line; false when the reader of our output has gone away, as `head` does.
fn printed(line: &str) -> Result<bool> {
    match writeln!(std::io::stdout().lock(), "{line}") {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(error).context("cannot write the changes"),
    }
}

fn ended(what: &str, position: Option<&str>) -> anyhow::Error {
    let hint = position
        .map_or_else(String::new, |position| format!("; go on, here or at another host, with --from {position}"));
    UnreachableError(format!("{what}{hint}")).into()
}

/// What a line says.
#[derive(Debug, PartialEq)]
enum Told {
    Change { line: Value, position: String },
    Heartbeat { position: String },
    Problem(String),
}

impl Told {
    fn of(line: &str) -> Result<Self> {
        let line: Value = serde_json::from_str(line).with_context(|| format!("the host told no change: {line}"))?;
        if let Some(problem) = line.get("problem") {
            return Ok(Self::Problem(bare(&problem["detail"])));
        }
        let position = line["position"].as_str().context("the host told a change without its position")?.to_owned();
        Ok(if line.get("offset").is_some() { Self::Change { line, position } } else { Self::Heartbeat { position } })
    }
}

#[cfg(test)]
mod tests;
