//! The exit codes, documented in the command's help: what a script may tell apart. Nothing else chooses a code.

use std::fmt;
use std::path::PathBuf;
use std::process::ExitCode;

use broker::EmbeddedBrokerError;
use broker::disk::DiskError;
use broker::wire::ServerError;
use serde_json::Value;

use crate::config::ConfigError;

/// What the codes mean, for `--help`.
pub const HELP: &str = "\
Exit codes:
  0    done
  1    the command or the application failed
  2    wrong usage, or a manifest that was refused
  3    the broker cannot be reached or refused the request
  4    the module was refused, or a version of it was rolled back
  5    the state directory or the broker's folder is in use, cannot be written, belongs to
       something else or has a newer format
  6    the address to listen on is taken
  130  a second signal ended the process at once";

const FAILED: u8 = 1;
const USAGE: u8 = 2;
pub const BROKER: u8 = 3;
const MODULE: u8 = 4;
pub const STATE: u8 = 5;
pub const ADDRESS: u8 = 6;
/// As shells report a process that SIGINT ended.
pub const SECOND_SIGNAL: i32 = 130;

/// Marks an error of the command line's own making, such as two flags that exclude each other.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct UsageError(pub String);

/// Marks an address that could not be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {detail}; {hint}")]
pub struct AddressError {
    pub address: String,
    pub detail: String,
    pub hint: &'static str,
}

/// Marks a module that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ModuleError(pub String);

/// Marks a state directory that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct StateDirectoryError(pub String);

/// Marks a failure to reach a broker, after all retries.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct UnreachableError(pub String);

/// Marks what a host refused, with the reasons of its problem document.
#[derive(Debug, thiserror::Error)]
#[error("{detail}{}", Points(incompatibilities))]
pub struct RefusedError {
    /// Of HTTP.
    pub status: u16,
    pub detail: String,
    /// Every point in which a version does not fit the running one.
    pub incompatibilities: Vec<String>,
}

/// Marks a version that was rolled back, or that never became active.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct VersionError(pub String);

/// A line for each point.
struct Points<'a>(&'a [String]);

impl fmt::Display for Points<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|point| write!(f, "\n  {point}"))
    }
}

/// HTTP's status for a version that does not fit.
const UNPROCESSABLE: u16 = 422;

impl RefusedError {
    /// By the status and the document of an answer.
    pub fn of(status: u16, problem: &Value) -> Self {
        let detail = problem["detail"].as_str().or_else(|| problem["title"].as_str());
        let points = problem["incompatibilities"].as_array().into_iter().flatten();
        // A point is a text, or has one beside its parts.
        let text = |point: &Value| {
            let text = point.as_str().or_else(|| point["detail"].as_str());
            text.map_or_else(|| point.to_string(), str::to_owned)
        };
        Self {
            status,
            detail: detail.unwrap_or("no reason given").to_owned(),
            incompatibilities: points.map(text).collect(),
        }
    }
}

/// Marks that some of several applications failed, each with its reason.
#[derive(Debug, thiserror::Error)]
#[error("{} of {applications} applications failed{}", failed.len(), Listed(failed))]
pub struct FailedApplications {
    pub applications: usize,
    pub failed: Vec<FailedApplication>,
}

/// One of several that failed.
#[derive(Debug)]
pub struct FailedApplication {
    pub application: String,
    pub manifest: PathBuf,
    pub reason: String,
    /// The code that it would have ended with alone.
    pub code: u8,
}

/// A line for each.
struct Listed<'a>(&'a [FailedApplication]);

impl fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for FailedApplication { application, manifest, reason, .. } in self.0 {
            write!(f, "\n  {application} ({}): {reason}", manifest.display())?;
        }
        Ok(())
    }
}

impl FailedApplications {
    /// What they have in common.
    fn code(&self) -> Option<u8> {
        let first = self.failed.first()?.code;
        self.failed.iter().all(|one| one.code == first).then_some(first)
    }
}

/// The code of the first cause that has one.
pub fn code_of(error: &anyhow::Error) -> ExitCode {
    ExitCode::from(number_of(error))
}

/// As `code_of`, as a number.
pub fn number_of(error: &anyhow::Error) -> u8 {
    error.chain().find_map(code_of_cause).unwrap_or(FAILED)
}

fn code_of_cause(cause: &(dyn std::error::Error + 'static)) -> Option<u8> {
    if cause.is::<ConfigError>() || cause.is::<UsageError>() {
        return Some(USAGE);
    }
    if cause.is::<AddressError>() {
        return Some(ADDRESS);
    }
    if cause.is::<UnreachableError>() || cause.is::<engine::broker::BrokerError>() {
        return Some(BROKER);
    }
    if cause.is::<StateDirectoryError>() {
        return Some(STATE);
    }
    if cause.is::<sandbox::LoadError>() || cause.is::<ModuleError>() || cause.is::<VersionError>() {
        return Some(MODULE);
    }
    if cause.downcast_ref::<RefusedError>().is_some_and(|refused| refused.status == UNPROCESSABLE) {
        return Some(MODULE);
    }
    if let Some(failed) = cause.downcast_ref::<FailedApplications>() {
        return failed.code();
    }
    if let Some(error) = cause.downcast_ref::<EmbeddedBrokerError>() {
        return code_of_embedded_broker(error);
    }
    match cause.downcast_ref::<engine::state::StoreError>() {
        Some(engine::state::StoreError::Locked { .. } | engine::state::StoreError::Foreign { .. }) => Some(STATE),
        _ => None,
    }
}

fn code_of_embedded_broker(error: &EmbeddedBrokerError) -> Option<u8> {
    match error {
        EmbeddedBrokerError::Disk(
            DiskError::InUse { .. }
            | DiskError::NewerFormat { .. }
            | DiskError::Format { .. }
            | DiskError::Damaged { .. }
            | DiskError::ForeignFolder { .. },
        ) => Some(STATE),
        EmbeddedBrokerError::Server(ServerError::PortInUse { .. } | ServerError::NotHere { .. }) => Some(ADDRESS),
        _ => None,
    }
}
