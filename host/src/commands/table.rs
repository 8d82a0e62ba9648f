//! `sandbar serve-topic` and `sandbar table serve`: topics as read-only key-value stores, without a module and without
//! a manifest. Makes the manifest that a file with `[table.<name>]` would be and runs that; knows nothing of its own.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Subcommand;

use crate::config::{Manifest, Overrides, STORE_NAME_MAX_LENGTH, is_kafka_name};
use crate::exit::UsageError;
use crate::runtime::brokers::BrokerArguments;
use crate::runtime::{self, OwnModule, RunOptions};
use crate::terminal::Terminal;

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve topics as read-only key-value stores over REST; the same as `serve-topic`
    Serve(Arguments),
}

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The topics; each becomes a store of its name
    #[arg(required = true, value_name = "TOPIC")]
    topics: Vec<String>,

    #[command(flatten)]
    broker: BrokerArguments,

    /// Consumer group of the hosts that share the topics, and name of the application; `table-TOPIC` where it is absent
    #[arg(long, value_name = "ID")]
    application_id: Option<String>,

    /// Where the data is kept: rocksdb (the default) or memory
    #[arg(long, value_name = "BACKEND")]
    backend: Option<String>,

    /// How keys are shown and asked for: utf8 (the default), json, i32, i64, f64 or bytes
    #[arg(long, value_name = "FORMAT")]
    key_format: Option<String>,

    /// How values are shown
    #[arg(long, value_name = "FORMAT")]
    value_format: Option<String>,

    /// Stream threads of this host
    #[arg(long, value_name = "NUMBER")]
    threads: Option<String>,

    /// Warm copies on other hosts
    #[arg(long, value_name = "NUMBER")]
    standbys: Option<String>,

    /// Folder of the stores
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,

    /// Address of the REST interface
    #[arg(long, value_name = "HOST:PORT")]
    listen: Option<String>,

    /// Set a key of the manifest
    #[arg(short = 'X', value_name = "KEY=VALUE")]
    set: Vec<String>,
}

/// Runs `sandbar table …`.
///
/// # Errors
/// As `serve`.
pub fn run(command: &Command, terminal: Terminal) -> Result<()> {
    match command {
        Command::Serve(arguments) => serve(arguments, terminal),
    }
}

/// Serves the topics until a signal.
///
/// # Errors
/// Why it could not start or what it failed of.
pub fn serve(arguments: &Arguments, terminal: Terminal) -> Result<()> {
    let manifest = manifest(arguments, Overrides::of_environment(&arguments.set))?;
    let options =
        RunOptions { embedded: arguments.broker.embedded.clone(), until_idle: None, own_module: OwnModule::New };
    runtime::run(vec![manifest], options, terminal)
}

/// The manifest of a command line.
fn manifest(arguments: &Arguments, mut overrides: Overrides) -> Result<Manifest> {
    let stores = stores(&arguments.topics)?;
    for (store, topic) in &stores {
        overrides.flag("TOPIC", format!("table.{store}.topic"), topic);
        let fields = [
            ("--backend", "backend", &arguments.backend),
            ("--key-format", "key.format", &arguments.key_format),
            ("--value-format", "value.format", &arguments.value_format),
        ];
        for (flag, field, text) in fields {
            if let Some(text) = text {
                overrides.flag(flag, format!("table.{store}.{field}"), text);
            }
        }
    }
    let state_dir = arguments.state_dir.as_ref().map(|path| path.display().to_string());
    let brokers = arguments.broker.brokers().map(str::to_owned);
    let keys = [
        ("--brokers", "bootstrap.servers", &brokers),
        ("--application-id", "application.id", &arguments.application_id),
        ("--threads", "num.stream.threads", &arguments.threads),
        ("--standbys", "num.standby.replicas", &arguments.standbys),
        ("--state-dir", "state.dir", &state_dir),
        ("--listen", "application.server", &arguments.listen),
    ];
    for (flag, key, text) in keys {
        if let Some(text) = text {
            overrides.flag(flag, key, text);
        }
    }
    // In the place of the file, so that -X and the environment win over it.
    let defaults = format!("application.id = \"{}\"\n", default_application_id(&arguments.topics));
    Ok(Manifest::parse(Path::new("serve-topic"), &defaults, &overrides)?)
}

/// The topics by the names of their stores.
fn stores(topics: &[String]) -> Result<BTreeMap<String, &String>, UsageError> {
    let mut stores: BTreeMap<String, &String> = BTreeMap::new();
    for topic in topics {
        if !is_kafka_name(topic) {
            let expected = "expected a name of letters, digits, '.', '_' and '-' (at most 249)";
            return Err(UsageError(format!("topic {topic:?}: {expected}")));
        }
        let mut store = topic.trim_start_matches('.').to_owned();
        store.truncate(STORE_NAME_MAX_LENGTH);
        match stores.insert(store.clone(), topic) {
            Some(other) if other == topic => return Err(UsageError(format!("topic {topic} is named twice"))),
            Some(other) => {
                let message = format!(
                    "topics {other} and {topic} would both be the store {store}: write a manifest with [table.<name>] to \
                     name them"
                );
                return Err(UsageError(message));
            }
            None => {}
        }
    }
    Ok(stores)
}

/// `table-` and the topics. The characters of topics are those of an application id.
fn default_application_id(topics: &[String]) -> String {
    let mut id = format!("table-{}", topics.join("-"));
    id.truncate(STORE_NAME_MAX_LENGTH);
    id
}

#[cfg(test)]
mod tests;
