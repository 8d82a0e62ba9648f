//! `sandbar stores get|scan|count|owner|watch`: asks the REST interface of a running host and prints what it says.
//! Reads no state itself, so that an answer is always the committed state that every other client sees.

use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use serde_json::Value;

use crate::terminal::{Format, Terminal, print_line};

mod watch;

use super::client::{Client, HostArguments};
use crate::formats::percent_encode as encode;

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Print the value of one key
    Get {
        #[command(flatten)]
        at: At,
        #[command(flatten)]
        reading: Reading,
        /// The key, in the store's key format
        key: String,
    },
    /// Print the entries of a store in key order, one a line
    Scan {
        #[command(flatten)]
        at: At,
        #[command(flatten)]
        reading: Reading,
        /// Only entries whose value has something at a place: a JSON pointer, `=` and a value, as /status=PAID
        #[arg(long, value_name = "POINTER=VALUE")]
        r#where: Option<String>,
        /// First key
        #[arg(long)]
        from: Option<String>,
        /// End of the range, not included
        #[arg(long)]
        to: Option<String>,
        /// Only keys that start with this
        #[arg(long, conflicts_with_all = ["from", "to"])]
        prefix: Option<String>,
        /// Backwards
        #[arg(long)]
        reverse: bool,
        /// At most so many entries
        #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
        limit: Option<u64>,
    },
    /// Print about how many entries a store has, over all its partitions
    Count {
        #[command(flatten)]
        at: At,
    },
    /// Print the partition of a key, and the hosts that process it and keep it warm
    Owner {
        #[command(flatten)]
        at: At,
        /// The key, in the store's key format
        key: String,
    },
    /// Print the committed changes of a store as they come, until the host stops
    Watch {
        #[command(flatten)]
        at: At,
        /// Only this key
        #[arg(long)]
        key: Option<String>,
        /// Only keys that start with this
        #[arg(long, conflicts_with = "key")]
        prefix: Option<String>,
        /// Where to begin: a position that was printed before, `beginning` or `end`
        #[arg(long, value_name = "POSITION", default_value = "end")]
        from: String,
    },
}

#[derive(Debug, Args)]
pub struct At {
    #[command(flatten)]
    host: HostArguments,
    /// Application; not needed where the host runs only one
    #[arg(long)]
    app: Option<String>,
    /// Show keys as utf8, json, i32, i64, f64, base64 or hex instead of the store's own format
    #[arg(long)]
    key_format: Option<String>,
    /// Show values so
    #[arg(long)]
    value_format: Option<String>,
    /// The store
    store: String,
}

/// Who may answer, and how new the answer has to be.
#[derive(Debug, Args)]
pub struct Reading {
    /// Let copies answer too: one on the host that is asked, or where the host that processes a partition does not
    #[arg(long)]
    standby: bool,
    /// How many changelog offsets such a copy may lack at most
    #[arg(long, value_name = "OFFSETS", requires = "standby")]
    max_lag: Option<u64>,
    /// The consistency token of an earlier answer: this one has to be at least as new
    #[arg(long, value_name = "TOKEN")]
    min_position: Option<String>,
}

impl Reading {
    fn query(&self) -> Vec<(&'static str, String)> {
        let standby = self.standby.then(|| ("standby", "true".to_owned()));
        let max_lag = self.max_lag.map(|offsets| ("max_lag", offsets.to_string()));
        let min_position = self.min_position.clone().map(|token| ("min_position", token));
        [standby, max_lag, min_position].into_iter().flatten().collect()
    }
}

/// Runs the command.
///
/// # Errors
/// What the host answered, or that it cannot be reached.
pub fn run(command: &Command, terminal: Terminal) -> Result<()> {
    match command {
        Command::Get { at, reading, key } => get(at, reading, key, terminal),
        Command::Scan { at, reading, r#where, from, to, prefix, reverse, limit } => {
            let mut query = at.formats();
            query.extend(reading.query());
            query.extend(r#where.iter().map(|condition| ("where", condition.clone())));
            query.extend(from.iter().map(|key| ("from", key.clone())));
            query.extend(to.iter().map(|key| ("to", key.clone())));
            query.extend(prefix.iter().map(|key| ("prefix", key.clone())));
            if *reverse {
                query.push(("reverse", "true".to_owned()));
            }
            scan(at, &query, *limit, terminal)
        }
        Command::Count { at } => count(at, terminal),
        Command::Owner { at, key } => owner(at, key, terminal),
        Command::Watch { at, key, prefix, from } => {
            let mut query = at.formats();
            query.extend(key.iter().map(|key| ("key", key.clone())));
            query.extend(prefix.iter().map(|prefix| ("prefix", prefix.clone())));
            query.push(("from", from.clone()));
            watch::run(&at.of_store("changes")?, &query, terminal)
        }
    }
}

fn get(at: &At, reading: &Reading, key: &str, terminal: Terminal) -> Result<()> {
    let Question { client, path } = at.of_store(&format!("keys/{}", encode(key)))?;
    let query = [at.formats(), reading.query()].concat();
    let answer = client.get(&path, &query)?;
    match terminal.format {
        Format::Json => print_line(&answer.to_string()),
        Format::Text => print_line(&bare(&answer["value"])),
    }
    Ok(())
}

fn scan(at: &At, query: &[(&str, String)], limit: Option<u64>, terminal: Terminal) -> Result<()> {
    let Question { client, path } = at.of_store("entries")?;
    client.entries(&path, query, limit, |entry| match terminal.format {
        Format::Json => print_line(&entry.to_string()),
        Format::Text => print_line(&format!("{}\t{}", bare(&entry["key"]), bare(&entry["value"]))),
    })
}

fn count(at: &At, terminal: Terminal) -> Result<()> {
    let Question { client, path } = at.of_store("count")?;
    let answer = client.get(&path, &[])?;
    match terminal.format {
        Format::Json => print_line(&answer.to_string()),
        Format::Text => {
            let entries = answer["approximate_entries"].as_u64().context("the host's answer has no count")?;
            print_line(&entries.to_string());
        }
    }
    Ok(())
}

fn owner(at: &At, key: &str, terminal: Terminal) -> Result<()> {
    let Question { client, path } = at.of_store("owner")?;
    let mut query = vec![("key", key.to_owned())];
    query.extend(at.key_format.iter().map(|format| ("key_format", format.clone())));
    let answer = client.get(&path, &query)?;
    match terminal.format {
        Format::Json => print_line(&answer.to_string()),
        Format::Text => owner_lines(&answer).iter().for_each(|line| print_line(line)),
    }
    Ok(())
}

/// The partition, then the hosts with what they do for it. A partition that nobody processes at the moment has no
/// active one.
fn owner_lines(answer: &Value) -> Vec<String> {
    let host = |role: &str, route: &Value| format!("{role}\t{}\t{}", bare(&route["host_id"]), bare(&route["endpoint"]));
    let active = Some(&answer["active"]).filter(|route| route.is_object()).map(|route| host("active", route));
    let standbys = answer["standbys"].as_array().into_iter().flatten().map(|route| host("standby", route));
    [format!("partition\t{}", answer["partition"])].into_iter().chain(active).chain(standbys).collect()
}

/// Whom to ask, and for what.
struct Question {
    client: Client,
    path: String,
}

/// Text without its quotes; everything else as JSON.
fn bare(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

impl At {
    /// A question about the store.
    fn of_store(&self, what: &str) -> Result<Question> {
        let client = Client::new(&self.host.url);
        let application = client.application(self.app.as_deref())?;
        let path = format!("/v1/apps/{}/stores/{}/{what}", encode(&application), encode(&self.store));
        Ok(Question { client, path })
    }

    fn formats(&self) -> Vec<(&'static str, String)> {
        let key = self.key_format.iter().map(|format| ("key_format", format.clone()));
        let value = self.value_format.iter().map(|format| ("value_format", format.clone()));
        key.chain(value).collect()
    }
}

#[cfg(test)]
mod tests;
