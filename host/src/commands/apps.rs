//! `sandbar apps list|show|history|pause|resume|stop`: the applications of a running host, over its REST interface.
//! Keeps no list of its own.

use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use serde_json::Value;

use super::client::{Client, HostArguments};
use super::deploy::client;
use crate::terminal::{Format, Terminal, print_line};
use crate::text;

const REASON_MAX_CHARACTERS: usize = 160;

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Print the applications with their states, one a line
    List {
        #[command(flatten)]
        host: HostArguments,
    },
    /// Print how an application is, and its tasks
    Show(Which),
    /// Print the versions of an application, the newest first
    History(Which),
    /// Let an application process nothing until it is resumed
    Pause(Which),
    /// Let a paused application go on
    Resume(Which),
    /// Stop an application; its state stays
    Stop(Which),
}

#[derive(Debug, Args)]
pub struct Which {
    /// The application; not needed where the host runs only one
    app: Option<String>,
    #[command(flatten)]
    host: HostArguments,
}

/// Runs the command.
///
/// # Errors
/// What the host answered, or that it cannot be reached.
pub fn run(command: &Command, terminal: Terminal) -> Result<()> {
    match command {
        Command::List { host } => {
            let answer = Client::new(&host.url).get("/v1/apps", &[])?;
            let apps = answer["apps"].as_array().context("the host's answer has no applications")?;
            match terminal.format {
                Format::Json => apps.iter().for_each(|app| print_line(&app.to_string())),
                Format::Text => apps.iter().for_each(|app| print_line(&row(app))),
            }
            Ok(())
        }
        Command::Show(which) => {
            let (client, application) = which.find()?;
            let path = format!("/v1/apps/{}", crate::formats::percent_encode(&application));
            let answer = client.get(&path, &[])?;
            match terminal.format {
                Format::Json => print_line(&answer.to_string()),
                Format::Text => lines(&answer).iter().for_each(|line| print_line(line)),
            }
            Ok(())
        }
        Command::History(which) => {
            let (client, application) = which.find()?;
            let (mut versions, _) = client::versions(&client, &application)?;
            versions.sort_by_key(|version| std::cmp::Reverse(version.number));
            versions.iter().for_each(|version| match terminal.format {
                Format::Json => print_line(&version.json.to_string()),
                Format::Text => print_line(&version.row()),
            });
            Ok(())
        }
        Command::Pause(which) => order(which, "pause", terminal),
        Command::Resume(which) => order(which, "resume", terminal),
        Command::Stop(which) => order(which, "stop", terminal),
    }
}

fn order(which: &Which, what: &str, terminal: Terminal) -> Result<()> {
    let (client, application) = which.find()?;
    let answer = client::order(&client, &application, what)?;
    match terminal.format {
        Format::Json => print_line(&answer.to_string()),
        Format::Text => print_line(&ordered(&answer)),
    }
    Ok(())
}

/// Id, and what became of the order.
fn ordered(answer: &Value) -> String {
    let state = match (answer["paused"].as_bool(), answer["stopping"].as_bool()) {
        (Some(true), _) => "paused",
        (Some(false), _) => "resumed",
        (None, Some(true)) => "stopping",
        _ => return row(answer),
    };
    format!("{}\t{state}", text::escape(answer["id"].as_str().unwrap_or("-")))
}

/// Id, state, and what is wrong.
fn row(app: &Value) -> String {
    let [id, state] = ["id", "state"].map(|name| text::escape(app[name].as_str().unwrap_or("-")));
    match app["error"].as_str() {
        Some(error) => format!("{id}\t{state}\t{}", text::short(error, REASON_MAX_CHARACTERS)),
        None => format!("{id}\t{state}"),
    }
}

/// What there is to say of an application, then its tasks.
fn lines(app: &Value) -> Vec<String> {
    let known = [
        "id",
        "state",
        "error",
        "not_ready",
        "version",
        "on_probation",
        "given_up",
        "paused",
        "module",
        "lag",
        "records_processed",
        "records_sent",
    ];
    // What is not so is not worth a line.
    let told = known.into_iter().filter(|name| !matches!(app[*name], Value::Null | Value::Bool(false)));
    let told = told.map(|name| format!("{name}\t{}", bare(&app[name])));
    let threads = app["threads"].as_array().into_iter().flatten();
    let tasks = threads.flat_map(|thread| thread["tasks"].as_array().into_iter().flatten()).map(|task| {
        let version = Some(&task["version"]).filter(|version| !version.is_null());
        let version = version.map_or_else(String::new, |version| format!("\tversion {version}"));
        let partitions = task["partitions"].as_array().into_iter().flatten();
        let lag: Option<u64> = partitions.map(|partition| partition["lag"].as_u64()).sum();
        let lag = lag.map_or_else(String::new, |lag| format!("\tlag {lag}"));
        format!("task\t{}\t{}{version}{lag}", bare(&task["task"]), bare(&task["state"]))
    });
    told.chain(tasks).collect()
}

/// Text without its quotes; everything else as JSON.
fn bare(value: &Value) -> String {
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    text::short(&text, REASON_MAX_CHARACTERS)
}

impl Which {
    fn find(&self) -> Result<(Client, String)> {
        let client = Client::new(&self.host.url);
        let application = client.application(self.app.as_deref())?;
        Ok((client, application))
    }
}

#[cfg(test)]
mod tests;
