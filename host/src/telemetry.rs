//! Logs: where the lines of `tracing` go and which of them. Written once, at the start of a command; a filter that
//! cannot be read is an error, not a silent default.

use std::io::IsTerminal;

use anyhow::Context;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt;

use crate::terminal::Format;

/// The environment variable that holds the filter, for example `SANDBAR_LOG=info,kafka=debug`.
pub const FILTER_VARIABLE: &str = "SANDBAR_LOG";

/// librdkafka warns again and again while a broker is away; the host itself says once what it waits for.
const DEFAULT_FILTER: &str = "warn,guest=info,librdkafka=error";

/// Sends log lines to standard error, as JSON where the command's output is JSON.
///
/// # Errors
/// When the filter cannot be read.
pub fn start(filter: Option<&str>, format: Format) -> anyhow::Result<()> {
    let filter = filter.unwrap_or(DEFAULT_FILTER);
    let filter = EnvFilter::try_new(filter).with_context(|| {
        format!("cannot read the log filter {filter:?} (expected for example \"info,kafka=debug\")")
    })?;
    let lines = fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        // It would go where the line could not be written, and end the thread that has nowhere to say it.
        .log_internal_errors(false);
    let started = match format {
        Format::Text => lines.try_init(),
        Format::Json => lines.json().try_init(),
    };
    started.map_err(|error| anyhow::anyhow!("cannot start the log: {error}"))
}
