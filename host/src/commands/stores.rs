//! `sandbar stores get|scan`: asks the REST interface of a running host and prints what it says. Reads no state
//! itself, so that an answer is always the committed state that every other client sees.

use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use clap::{Args, Subcommand};
use serde_json::Value;

use crate::exit::UnreachableError;
use crate::formats::percent_encode as encode;
use crate::terminal::{Format, Terminal, print_line};

const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// Entries that one request of a scan asks for.
const PAGE_ENTRIES: u64 = 1000;

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Print the value of one key
    Get {
        #[command(flatten)]
        at: At,
        /// The key, in the store's key format
        key: String,
    },
    /// Print the entries of a store in key order, one a line
    Scan {
        #[command(flatten)]
        at: At,
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
        #[arg(long)]
        limit: Option<u64>,
    },
}

#[derive(Debug, Args)]
pub struct At {
    /// REST address of the host
    #[arg(long, env = "SANDBAR_URL", default_value = "http://127.0.0.1:7070")]
    url: String,
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

/// Runs the command.
///
/// # Errors
/// What the host answered, or that it cannot be reached.
pub fn run(command: &Command, terminal: Terminal) -> Result<()> {
    match command {
        Command::Get { at, key } => get(at, key, terminal),
        Command::Scan { at, from, to, prefix, reverse, limit } => {
            let mut query = at.formats();
            query.extend(from.iter().map(|key| ("from", key.clone())));
            query.extend(to.iter().map(|key| ("to", key.clone())));
            query.extend(prefix.iter().map(|key| ("prefix", key.clone())));
            if *reverse {
                query.push(("reverse", "true".to_owned()));
            }
            scan(at, &query, *limit, terminal)
        }
    }
}

fn get(at: &At, key: &str, terminal: Terminal) -> Result<()> {
    let client = Client::new(&at.url);
    let application = client.application(at)?;
    let path = format!("/v1/apps/{}/stores/{}/keys/{}", encode(&application), encode(&at.store), encode(key));
    let answer = client.get(&path, &at.formats())?;
    match terminal.format {
        Format::Json => print_line(&answer.to_string()),
        Format::Text => print_line(&bare(&answer["value"])),
    }
    Ok(())
}

fn scan(at: &At, query: &[(&str, String)], limit: Option<u64>, terminal: Terminal) -> Result<()> {
    let client = Client::new(&at.url);
    let application = client.application(at)?;
    let path = format!("/v1/apps/{}/stores/{}/entries", encode(&application), encode(&at.store));
    client.entries(&path, query, limit, |entry| match terminal.format {
        Format::Json => print_line(&entry.to_string()),
        Format::Text => print_line(&format!("{}\t{}", bare(&entry["key"]), bare(&entry["value"]))),
    })
}

/// Text without its quotes; everything else as JSON.
fn bare(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

impl At {
    fn formats(&self) -> Vec<(&'static str, String)> {
        let key = self.key_format.iter().map(|format| ("key_format", format.clone()));
        let value = self.value_format.iter().map(|format| ("value_format", format.clone()));
        key.chain(value).collect()
    }
}

/// A host's REST interface.
struct Client {
    url: String,
    agent: ureq::Agent,
}

impl Client {
    fn new(url: &str) -> Self {
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(REQUEST_TIMEOUT))
            // A refusal's body says why.
            .http_status_as_error(false)
            .build();
        Self { url: url.trim_end_matches('/').to_owned(), agent: config.new_agent() }
    }

    /// The application that was named, or the only one of the host.
    fn application(&self, at: &At) -> Result<String> {
        if let Some(application) = &at.app {
            return Ok(application.clone());
        }
        let answer = self.get("/v1/apps", &[])?;
        let names: Vec<&str> =
            answer["apps"].as_array().into_iter().flatten().filter_map(|a| a["id"].as_str()).collect();
        match names.as_slice() {
            [only] => Ok((*only).to_owned()),
            [] => bail!("the host at {} runs no application", self.url),
            several => bail!("the host at {} runs {}; name one with --app", self.url, several.join(", ")),
        }
    }

    /// Shows the entries of all pages.
    fn entries(
        &self,
        path: &str,
        query: &[(&str, String)],
        limit: Option<u64>,
        mut show: impl FnMut(&Value),
    ) -> Result<()> {
        let mut left = limit.unwrap_or(u64::MAX);
        let mut cursor: Option<String> = None;
        while left > 0 {
            let mut query = query.to_vec();
            query.push(("limit", left.min(PAGE_ENTRIES).to_string()));
            query.extend(cursor.iter().map(|cursor| ("cursor", cursor.clone())));
            let page = self.get(path, &query)?;
            let entries = page["entries"].as_array().context("the host's answer has no entries")?;
            entries.iter().for_each(&mut show);
            left -= (entries.len() as u64).min(left);
            cursor = page["next_cursor"].as_str().map(str::to_owned);
            if cursor.is_none() {
                break;
            }
        }
        Ok(())
    }

    fn get(&self, path: &str, query: &[(&str, String)]) -> Result<Value> {
        let url = format!("{}{path}", self.url);
        let pairs = query.iter().map(|(name, value)| (*name, value.as_str()));
        let mut response = self.agent.get(&url).query_pairs(pairs).call().map_err(|error| {
            UnreachableError(format!("no answer from a host at {}: {error}; is it running there? (--url)", self.url))
        })?;
        let status = response.status();
        let body: Value = response.body_mut().read_json().with_context(|| format!("{url} did not answer with JSON"))?;
        if status.is_success() {
            return Ok(body);
        }
        let detail = body["detail"].as_str().or_else(|| body["title"].as_str()).unwrap_or("no reason given");
        Err(anyhow!("{detail}").context(format!("the host refused the query ({})", status.as_u16())))
    }
}

#[cfg(test)]
mod tests;
