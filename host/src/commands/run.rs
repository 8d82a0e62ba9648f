//! `sandbar run`: runs an application, or several in one process, until a signal, until they are idle, or until they
//! fail.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;

use crate::config::{ConfigError, Manifest, Overrides, together};
use crate::exit::UsageError;
use crate::runtime::brokers::BrokerArguments;
use crate::runtime::{self, RunOptions};
use crate::terminal::Terminal;

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The manifest; several run several applications in one process
    #[arg(short, long, default_value = "sandbar.toml", value_name = "PATH")]
    file: Vec<PathBuf>,

    /// Run the application of every *.toml in a folder, as it is at the start
    #[arg(long, value_name = "DIR", conflicts_with = "file")]
    apps: Option<PathBuf>,

    #[command(flatten)]
    broker: BrokerArguments,

    /// Leave when every record is processed and nothing came for this long, for example 5s
    #[arg(long, value_name = "DURATION", value_parser = runtime::parse_duration)]
    until_idle: Option<Duration>,

    /// Folder of the state stores; each application has a folder of its own in it
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,

    /// Address of the REST interface
    #[arg(long, value_name = "HOST:PORT")]
    listen: Option<String>,

    /// Set a key of the manifest
    #[arg(short = 'X', value_name = "KEY=VALUE")]
    set: Vec<String>,
}

/// Runs the applications.
///
/// # Errors
/// Why they could not start or what they failed of.
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
    let manifests = match &arguments.apps {
        Some(folder) => load(&manifests_of(folder)?, &overrides)?,
        None => load(&arguments.file, &overrides)?,
    };
    let options = RunOptions { embedded: arguments.broker.embedded.clone(), until_idle: arguments.until_idle };
    runtime::run(together(manifests)?, options, terminal)
}

/// Reads all of them, so that whatever is wrong with any is told at once.
fn load(paths: &[PathBuf], overrides: &Overrides) -> Result<Vec<Manifest>, ConfigError> {
    let (mut manifests, mut errors) = (Vec::new(), Vec::new());
    for path in paths {
        match Manifest::load(path, overrides) {
            Ok(manifest) => manifests.push(manifest),
            Err(error) => errors.push(error),
        }
    }
    match errors.len() {
        0 => Ok(manifests),
        1 => Err(errors.remove(0)),
        _ => Err(ConfigError::Several { errors }),
    }
}

/// The manifests of a folder, in the order of their names. Hidden ones are not meant: editors and mounts make those.
fn manifests_of(folder: &Path) -> Result<Vec<PathBuf>, UsageError> {
    let unreadable = |error: std::io::Error| {
        let folder = folder.display();
        UsageError(format!("--apps {folder}: cannot read the folder: {error}"))
    };
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        let is_hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if !is_hidden && path.extension().is_some_and(|extension| extension == "toml") && !path.is_dir() {
            paths.push(path);
        }
    }
    if paths.is_empty() {
        return Err(UsageError(format!("--apps {}: there is no manifest (*.toml) in it", folder.display())));
    }
    paths.sort();
    Ok(paths)
}

#[cfg(test)]
mod tests;
