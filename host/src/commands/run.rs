//! `sandbar run`: runs an application until a signal, until it is idle, or until it fails.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;

use crate::config::{Manifest, Overrides};
use crate::runtime::brokers::BrokerArguments;
use crate::runtime::{self, RunOptions};
use crate::terminal::Terminal;

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The manifest
    #[arg(short, long, default_value = "sandbar.toml", value_name = "PATH")]
    file: PathBuf,

    #[command(flatten)]
    broker: BrokerArguments,

    /// Leave when every record is processed and nothing came for this long, for example 5s
    #[arg(long, value_name = "DURATION", value_parser = runtime::parse_duration)]
    until_idle: Option<Duration>,

    /// Folder of the state stores
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,

    /// Address of the REST interface
    #[arg(long, value_name = "HOST:PORT")]
    listen: Option<String>,

    /// Set a key of the manifest
    #[arg(short = 'X', value_name = "KEY=VALUE")]
    set: Vec<String>,
}

/// Runs the application.
///
/// # Errors
/// Why it could not start or what it failed of.
pub fn run(arguments: &Arguments, terminal: Terminal) -> Result<()> {
    let mut overrides = Overrides::of_environment(&arguments.set);
    if let Some(brokers) = arguments.broker.brokers() {
        overrides.flag("--brokers", "bootstrap.servers", brokers);
    }
    if let Some(state_dir) = &arguments.state_dir {
        overrides.flag("--state-dir", "state.dir", state_dir.display());
    }
    if let Some(listen) = &arguments.listen {
        overrides.flag("--listen", "application.server", listen);
    }
    let manifest = Manifest::load(&arguments.file, &overrides)?;
    let options = RunOptions { embedded: arguments.broker.embedded.clone(), until_idle: arguments.until_idle };
    runtime::run(&manifest, &options, terminal)
}
