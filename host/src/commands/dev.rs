//! `sandbar dev`: builds a guest crate, runs its application, and swaps each new module into it while its sources are
//! edited. What fails is told, and the version that runs goes on. Starts a host in this process unless one is named.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::build::{Builder, CrateArguments};
use crate::config::{Manifest, Overrides};
use crate::runtime::brokers::BrokerArguments;
use crate::runtime::stop::{self, Stop};
use crate::terminal::Terminal;

mod cycle;
mod own_host;
mod told;
mod watch;

use cycle::Cycle;

/// The manifest beside a crate.
const MANIFEST: &str = "sandbar.toml";
/// What a host of ours keeps, beside the manifest.
const OWN_FOLDER: &str = ".sandbar/dev";

#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    how: CrateArguments,

    /// The manifest; without it, the sandbar.toml beside the crate
    #[arg(short, long, value_name = "PATH")]
    file: Option<PathBuf>,

    /// Swap in the host at this REST address, instead of starting one
    #[arg(long, value_name = "URL", conflicts_with_all = ["embedded", "brokers", "state_dir", "listen", "set"])]
    url: Option<String>,

    // Without one, the embedded broker of `.sandbar/dev/broker` beside the manifest, also where the manifest names a
    // cluster: code that is being written is not let loose on that by accident.
    #[command(flatten)]
    broker: BrokerArguments,

    /// Folder of the state stores; `.sandbar/dev/state` beside the manifest, unless a broker is named
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,

    /// Address of the REST interface
    #[arg(long, value_name = "HOST:PORT")]
    listen: Option<String>,

    /// Set a key of the manifest
    #[arg(short = 'X', value_name = "KEY=VALUE")]
    set: Vec<String>,
}

/// The folder of the embedded broker, and what departs from the manifest.
struct Surroundings {
    embedded: Option<PathBuf>,
    overrides: Overrides,
}

impl Surroundings {
    fn of(arguments: &Arguments, manifest: &Path) -> Self {
        let own = manifest.parent().unwrap_or(Path::new(".")).join(OWN_FOLDER);
        let named = arguments.broker.brokers();
        let embedded = match (&arguments.broker.embedded, named) {
            (Some(folder), _) => Some(folder.clone()),
            (None, Some(_)) => None,
            (None, None) => Some(own.join("broker")),
        };
        let mut overrides = Overrides::of_environment(&arguments.set);
        if let Some(brokers) = named {
            overrides.flag("--brokers", "bootstrap.servers", brokers);
        }
        if let Some(listen) = &arguments.listen {
            overrides.flag("--listen", "application.server", listen);
        }
        // The state of one cluster is none of another.
        let is_ours = arguments.broker.embedded.is_none() && named.is_none() && arguments.url.is_none();
        match &arguments.state_dir {
            Some(folder) => overrides.flag("--state-dir", "state.dir", folder.display()),
            None if is_ours => overrides.flag("--state-dir", "state.dir", own.join("state").display()),
            None => {}
        }
        Self { embedded, overrides }
    }

    fn manifest(&self, path: &Path) -> Result<Manifest> {
        Ok(Manifest::load(path, &self.overrides)?)
    }
}

/// Works until a signal.
///
/// # Errors
/// When there is no crate, no toolchain or no broker, or the host did not end in good order.
pub fn run(arguments: &Arguments, terminal: Terminal) -> Result<()> {
    let builder = Builder::find(&arguments.how, terminal)?;
    let path = arguments.file.clone().unwrap_or_else(|| builder.folder().join(MANIFEST));
    let surroundings = Surroundings::of(arguments, &path);
    let stop = Stop::default();
    let signals = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("signals")
        .enable_all()
        .build()
        .context("cannot start the thread that listens to signals")?;
    // A host that was named goes on.
    let farewell = if arguments.url.is_some() { "stopping" } else { stop::FAREWELL };
    stop::on_signals(signals.handle(), &stop, farewell).context("cannot listen to signals")?;
    Cycle::new(builder, path, surroundings, arguments.url.as_deref(), stop, terminal)?.run()
}

#[cfg(test)]
mod tests;
