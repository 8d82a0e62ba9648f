//! The one real Kafka broker of a test run, started by the repository's own script when the first test asks for it.
//! It goes on after the run; `make test` stops it. A machine on which it cannot start fails the tests that need it.

use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context, Result, anyhow, bail};

use crate::repository;
use crate::topics::Broker;

/// The broker's address, once it answers.
///
/// # Errors
/// What the script said when it could not start the broker.
pub fn broker() -> Result<Broker> {
    static STARTED: OnceLock<Result<String, String>> = OnceLock::new();
    match STARTED.get_or_init(|| start().map_err(|error| format!("{error:#}"))) {
        Ok(address) => Ok(Broker::Kafka(address.clone())),
        Err(error) => Err(anyhow!("{error}")),
    }
}

fn start() -> Result<String> {
    script("start")?;
    Ok(script("bootstrap")?.trim().to_owned())
}

fn script(verb: &str) -> Result<String> {
    let path = repository::root().join("scripts/kafka.sh");
    let output = Command::new(&path).arg(verb).output().with_context(|| format!("cannot run {}", path.display()))?;
    if !output.status.success() {
        bail!("kafka.sh {verb} ended with {}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
