//! `rustup target add`, with an end: a machine without network must not wait long for it.

use std::ffi::OsStr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::which;

/// Enough for the 20 MB of a target on a slow line.
const LIMIT: Duration = Duration::from_secs(180);
const PAUSE: Duration = Duration::from_millis(50);

/// Adds a target to the toolchain that is active in `folder`.
pub(super) fn add_target(
    target: &str,
    folder: &Path,
    offline: bool,
    path: Option<&OsStr>,
    say: &dyn Fn(&str),
) -> Result<()> {
    let Some(rustup) = which("rustup", path) else { bail!("there is no rustup on the search path") };
    if offline {
        bail!("not tried, since --offline was given");
    }
    say(&format!("adding the target with `rustup target add {target}`"));
    let mut command = Command::new(rustup);
    command.args(["target", "add", target]).current_dir(folder).env("RUSTUP_MAX_RETRIES", "1");
    run(command, LIMIT)
}

/// Runs a command, and ends it at the limit.
fn run(mut command: Command, limit: Duration) -> Result<()> {
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
    let mut child = child.context("cannot start it")?;
    let started = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().context("cannot wait for it")? {
            break status;
        }
        if started.elapsed() > limit {
            child.kill().context("cannot end it")?;
            child.wait().context("cannot wait for it")?;
            bail!("it did not end within {} s", limit.as_secs());
        }
        thread::sleep(PAUSE);
    };
    if status.success() {
        return Ok(());
    }
    let mut text = String::new();
    if let Some(mut stderr) = child.stderr.take() {
        std::io::Read::read_to_string(&mut stderr, &mut text).context("cannot read what it said")?;
    }
    bail!("it failed: {}", last_line(&text))
}

/// The line that says the most: the last one that is marked as an error, otherwise the last one.
fn last_line(text: &str) -> &str {
    let lines = || text.lines().map(str::trim).filter(|line| !line.is_empty());
    lines().rfind(|line| line.starts_with("error")).or_else(|| lines().next_back()).unwrap_or("it said nothing")
}

#[cfg(test)]
mod tests;
