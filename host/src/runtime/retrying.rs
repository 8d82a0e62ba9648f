//! Calls of a start that wait for a broker: tried again while they fail for its sake alone, within the time that a
//! start may take, and given up with the wish to stop. Decides nothing about what is called.

use std::fmt::Display;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::stop::Stop;
use crate::config::Manifest;
use crate::exit::UnreachableError;

/// Calls until there is an answer. `what` says what cannot be done yet, `is_retriable` whether an error is that of the
/// broker. `None` when the wish to stop came first.
///
/// # Errors
/// The first error that is not retriable, or that no broker has answered within `default.api.timeout.ms`.
pub fn until_answered<T, E: Display + Into<anyhow::Error>>(
    manifest: &Manifest,
    stop: &Stop,
    what: &str,
    is_retriable: impl Fn(&E) -> bool,
    mut call: impl FnMut() -> Result<T, E>,
) -> Result<Option<T>> {
    let deadline = Instant::now() + Duration::from_millis(manifest.count("default.api.timeout.ms"));
    loop {
        match call() {
            Ok(answer) => return Ok(Some(answer)),
            Err(error) if is_retriable(&error) && Instant::now() < deadline => {
                tracing::warn!(%error, "cannot {what} yet");
            }
            Err(error) if is_retriable(&error) => return Err(UnreachableError(error.to_string()).into()),
            Err(error) => return Err(error.into()),
        }
        if stop.wait(Duration::from_millis(manifest.count("retry.backoff.ms"))) {
            return Ok(None);
        }
    }
}
