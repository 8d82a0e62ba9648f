//! `sandbar deploy`: hands a module and its manifest to a running host, which swaps it in without a stop. Checks the
//! module before it goes out; what fits the running version is the host's to say.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

pub mod client;
pub mod version;

use super::client::{Client, HostArguments};
use crate::components;
use crate::config::{Manifest, Overrides};
use crate::exit::UsageError;
use crate::runtime;
use crate::terminal::{Format, Terminal, print_line, tell};
use crate::versions::VersionState;
use version::Version;

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The manifest of the new version
    #[arg(short, long, default_value = "sandbar.toml", value_name = "PATH")]
    file: PathBuf,

    #[command(flatten)]
    host: HostArguments,

    /// Only say what would become of it
    #[arg(long)]
    dry_run: bool,

    /// Why, for the history
    #[arg(long, value_name = "TEXT")]
    why: Option<String>,

    /// A store that may go, with all that is in it; may be given several times
    #[arg(long, value_name = "NAME")]
    drop_store: Vec<String>,

    /// Do not roll it back by itself when it fails more often than the version before
    #[arg(long)]
    no_probation: bool,

    #[command(flatten)]
    wait: WaitArguments,
}

/// Whether a command ends before the version is active.
#[derive(Debug, clap::Args)]
pub struct WaitArguments {
    /// Wait until it is active; an error where it ends elsewhere
    #[arg(long)]
    wait: bool,

    /// How long to wait at most
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = runtime::parse_duration, requires = "wait")]
    timeout: Duration,
}

/// A manifest with its module, as they are on disk.
pub struct Package {
    pub application: String,
    pub manifest: String,
    pub module: Vec<u8>,
    /// The one of the file beside the module, as text.
    pub signature: Option<String>,
}

impl Package {
    /// Reads and checks both.
    ///
    /// # Errors
    /// What is wrong with the manifest, or why the module is refused.
    pub fn read(path: &Path) -> Result<Self> {
        // As the host that runs it would read it.
        let manifest = Manifest::load(path, &Overrides::of_environment(&[]))?;
        if !manifest.tables.is_empty() {
            let message = format!("{} is a manifest of tables, which have no module to deploy", path.display());
            return Err(UsageError(message).into());
        }
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let module = manifest.path_of("module");
        let limit_bytes = usize::try_from(manifest.count("module.max.bytes")).unwrap_or(usize::MAX);
        // Whether somebody trusted has signed it is for the host to say.
        let (bytes, signature) = components::read_signed(&module, limit_bytes, None)?;
        sandbox::check_with_limit(&bytes, limit_bytes)
            .with_context(|| format!("the module {} was refused", module.display()))?;
        let signature = signature.map(|signature| signature.to_string());
        let application = manifest.application_id().to_owned();
        Ok(Self { application, manifest: text, module: bytes, signature })
    }
}

/// Deploys.
///
/// # Errors
/// What is wrong with the module or the manifest, all points in which the host finds that it does not fit, or that no
/// host can be reached.
pub fn run(arguments: &Arguments, terminal: Terminal) -> Result<()> {
    let package = Package::read(&arguments.file)?;
    let client = Client::new(&arguments.host.url);
    let who = who();
    let deploy = client::Deploy {
        application: &package.application,
        module: &package.module,
        manifest: Some(&package.manifest),
        signature: package.signature.as_deref(),
        why: arguments.why.as_deref(),
        who: who.as_deref(),
        drop_stores: &arguments.drop_store,
        dry_run: arguments.dry_run,
        no_probation: arguments.no_probation,
    };
    let version = client::deploy(&client, &deploy)?;
    if arguments.dry_run {
        show(&version, &format!("{} would be deployed", version.short_digest()), terminal);
        return Ok(());
    }
    finish(&client, &package.application, version, &arguments.wait, terminal)
}

/// The user, for the history.
pub fn who() -> Option<String> {
    let named = ["USER", "LOGNAME"].into_iter().filter_map(|name| std::env::var(name).ok());
    named.into_iter().find(|name| !name.is_empty())
}

/// Shows a version that is on its way, and waits for it where that is asked for.
///
/// # Errors
/// Where it was refused or rolled back.
pub fn finish(
    client: &Client,
    application: &str,
    version: Version,
    wait: &WaitArguments,
    terminal: Terminal,
) -> Result<()> {
    let version = if wait.wait {
        client::wait(client, application, version, wait.timeout, &mut |version| {
            if terminal.format == Format::Text {
                tell(&headline(version));
            }
        })?
    } else {
        version
    };
    show(&version, &headline(&version), terminal);
    Ok(())
}

/// What became of it in one line.
pub fn headline(version: &Version) -> String {
    // The kind is how it came the first time.
    let kind = version.kind.as_deref().filter(|_| !version.came_back());
    let kind = kind.map_or_else(String::new, |kind| format!(", by a {}", kind.to_lowercase()));
    let again = if version.came_back() && version.state == VersionState::Active { " again" } else { "" };
    let tasks = match version.tasks.len() {
        0 => String::new(),
        tasks => format!(", {} of {tasks} tasks run it", version.tasks_on_it()),
    };
    let reason = version.reason().filter(|_| version.state != VersionState::Active);
    let reason = reason.map_or_else(String::new, |reason| format!(": {reason}"));
    let (name, digest, state) = (version.name(), version.short_digest(), version.state.as_str());
    format!("{name} ({digest}) is {state}{again}{kind}{tasks}{reason}")
}

fn show(version: &Version, headline: &str, terminal: Terminal) {
    match terminal.format {
        Format::Json => print_line(&version.json.to_string()),
        Format::Text => {
            print_line(&crate::text::escape(headline));
            version.effects().iter().for_each(|line| print_line(&crate::text::escape(&format!("  {line}"))));
        }
    }
}

#[cfg(test)]
mod tests;
