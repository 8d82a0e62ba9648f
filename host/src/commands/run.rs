//! `sandbar run`: runs an application, or several in one process, until a signal, until they are idle, or until they
//! fail.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;

use crate::config::{ConfigError, Manifest, Overrides, together};
use crate::exit::UsageError;
use crate::runtime::brokers::BrokerArguments;
use crate::runtime::{self, OwnModule, RunOptions, Watch};
use crate::terminal::Terminal;

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The manifest; several run several applications in one process
    #[arg(short, long, default_value = "sandbar.toml", value_name = "PATH")]
    file: Vec<PathBuf>,

    /// Run the application of every *.toml in a folder, and follow the folder: a new file starts an application, a
    /// changed one is deployed, and one that is gone ends its application and keeps its state
    #[arg(long, value_name = "DIR", conflicts_with = "file")]
    apps: Option<PathBuf>,

    #[command(flatten)]
    broker: BrokerArguments,

    /// Leave when every record is processed and nothing came for this long, for example 5s
    #[arg(long, value_name = "DURATION", value_parser = runtime::parse_duration)]
    until_idle: Option<Duration>,

    /// Have the modules of the manifests run, also where other versions of the applications are active; the way out
    /// where the active one ends the application at once. Dropped stores keep what they have
    #[arg(long)]
    deploy: bool,

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
    let options = RunOptions {
        embedded: arguments.broker.embedded.clone(),
        until_idle: arguments.until_idle,
        own_module: if arguments.deploy { OwnModule::Always } else { OwnModule::New },
    };
    let Some(folder) = &arguments.apps else {
        return runtime::run(together(load(&arguments.file, &overrides)?)?, options, terminal);
    };
    if options.until_idle.is_some() {
        return runtime::run(together(load(&manifests_of(folder)?, &overrides)?)?, options, terminal);
    }
    // First, so that whatever changes from now on is seen to have.
    let watch = Watch::open(folder, overrides.clone()).map_err(|error| unreadable(folder, &error))?;
    runtime::run_folder(together(load(&manifests_of(folder)?, &overrides)?)?, watch, options, terminal)
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

/// The manifests of a folder, of which there is at least one at the start: without any, the folder is more likely the
/// wrong one than a wish.
fn manifests_of(folder: &Path) -> Result<Vec<PathBuf>, UsageError> {
    let paths = runtime::manifests_in(folder).map_err(|error| unreadable(folder, &error))?;
    if paths.is_empty() {
        return Err(UsageError(format!("--apps {}: there is no manifest (*.toml) in it", folder.display())));
    }
    Ok(paths)
}

fn unreadable(folder: &Path, error: &std::io::Error) -> UsageError {
    UsageError(format!("--apps {}: cannot read the folder: {error}", folder.display()))
}

#[cfg(test)]
mod tests;
