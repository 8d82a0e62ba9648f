//! `sandbar dlq`: lists dead letters, shows one, sends them back, removes them. Works on the topic alone, without a
//! host and without the module. What dead letters say was written by guests and by whoever may write the topic: it is
//! escaped and cut before a terminal gets it, and never taken for a name without a check.

use std::collections::BTreeSet;
use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, Subcommand};
use engine::broker::{BrokerError, BrokerErrorKind};

use super::topics::{Connected, Connection};
use crate::config::{Manifest, Overrides};
use crate::exit::UsageError;
use crate::runtime::brokers::Folder;
use crate::terminal::Terminal;

mod filter;
mod letter;
mod list;
pub(super) mod moment;
mod position;
mod purge;
mod redrive;
mod saved;
mod scan;
mod show;
mod target;

pub use letter::{DeadLetter, Subject};
pub use position::Position;
pub use saved::read as read_saved;

/// The key of the manifest that names the topic.
const TOPIC_KEY: &str = "errors.dead.letter.queue.topic.name";

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Print the dead letters of a topic, one a line
    List(list::Arguments),
    /// Print everything that one dead letter says
    Show(show::Arguments),
    /// Send dead letters back to the topics that they came from, in one transaction
    Redrive(redrive::Arguments),
    /// Remove dead letters from the start of their partitions on
    Purge(purge::Arguments),
}

/// Runs the command.
///
/// # Errors
/// What the broker refused, or which dead letter.
pub fn run(command: &Command, terminal: Terminal) -> Result<()> {
    match command {
        Command::List(arguments) => list::run(arguments, terminal),
        Command::Show(arguments) => show::run(arguments, terminal),
        Command::Redrive(arguments) => redrive::run(arguments, terminal),
        Command::Purge(arguments) => purge::run(arguments, terminal),
    }
}

/// Where the dead letters are.
#[derive(Debug, Args)]
pub struct Place {
    #[command(flatten)]
    connection: Connection,

    /// Take the topic, and the brokers where no flag names them, from a manifest
    #[arg(short, long, value_name = "PATH")]
    pub file: Option<PathBuf>,
}

impl Place {
    /// The dead letter at a position.
    ///
    /// # Errors
    /// When there is none, or the broker fails.
    pub fn letter(&self, position: &Position, terminal: Terminal) -> Result<DeadLetter> {
        let (connected, _) = self.open(Some(&position.topic), terminal)?;
        Ok(DeadLetter::of(&position.topic, scan::one(&connected.clients, position)?)?)
    }

    /// The topics that the manifest names as sources and tables; none without a manifest.
    ///
    /// # Errors
    /// What is wrong with the manifest.
    fn source_topics(&self) -> Result<BTreeSet<String>> {
        let Some(manifest) = self.manifest()? else { return Ok(BTreeSet::new()) };
        let tables = manifest.tables.into_values().map(|table| table.topic);
        Ok(manifest.sources.into_values().chain(tables).collect())
    }

    fn manifest(&self) -> Result<Option<Manifest>> {
        let load = |path| Manifest::load(path, &Overrides::of_environment(&[]));
        Ok(self.file.as_deref().map(load).transpose()?)
    }

    /// Reaches the broker; the topic that was named, or else the manifest's.
    fn open(&self, topic: Option<&str>, terminal: Terminal) -> Result<(Connected, String)> {
        let manifest = self.manifest()?;
        let of_manifest = manifest.as_ref().and_then(|manifest| manifest.optional_text(TOPIC_KEY));
        let topic = match (topic, of_manifest, &self.file) {
            (Some(topic), _, _) | (None, Some(topic), _) => topic.to_owned(),
            (None, None, Some(path)) => {
                let message = format!("{} has no {TOPIC_KEY}; set it there, or name the topic", path.display());
                return Err(UsageError(message).into());
            }
            (None, None, None) => {
                let message = format!("no topic: name it, or a manifest that sets {TOPIC_KEY}, with -f sandbar.toml");
                return Err(UsageError(message).into());
            }
        };
        let connected = self.connection.open_for("sandbar-dlq", manifest.as_ref(), Folder::MustExist, terminal)?;
        Ok((connected, topic))
    }
}

/// What dead letters a command is about: the topic, or positions in it.
#[derive(Debug, PartialEq, Eq)]
struct Selected {
    topic: Option<String>,
    positions: Vec<Position>,
}

impl Selected {
    /// Reads arguments that are each a topic or a position.
    fn of(arguments: &[String]) -> Result<Self, UsageError> {
        let mut selected = Self { topic: None, positions: Vec::new() };
        for argument in arguments {
            let topic = if argument.contains('@') {
                let position: Position = argument.parse().map_err(UsageError)?;
                let topic = position.topic.clone();
                if !selected.positions.contains(&position) {
                    selected.positions.push(position);
                }
                topic
            } else {
                argument.clone()
            };
            match &selected.topic {
                Some(other) if *other != topic => {
                    let message = format!("{other} and {topic}: one command takes the dead letters of one topic");
                    return Err(UsageError(message));
                }
                _ => selected.topic = Some(topic),
            }
        }
        Ok(selected)
    }
}

/// A number of things, for people.
fn counted(count: u64, thing: &str) -> String {
    format!("{count} {thing}{}", if count == 1 { "" } else { "s" })
}

/// Says where to look for a topic that is not there.
fn no_topic(topic: &str, error: BrokerError) -> anyhow::Error {
    let unknown = error.kind == BrokerErrorKind::UnknownTopic;
    let error = anyhow::Error::from(error);
    if unknown {
        error.context(format!("cannot read topic {topic}; `sandbar topics list` shows what there is"))
    } else {
        error
    }
}

#[cfg(test)]
mod tests;
