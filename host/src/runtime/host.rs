//! The process: REST, signals, a thread for each application, and how it all ends. An application that fails among
//! several ends alone; the process ends when all have ended. Knows nothing of what an application does.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::json;

use super::application::Application;
use super::apps_directory::{AppsDirectory, Watch};
use super::brokers::Broker;
use super::shared::{RunOptions, Shared};
use super::status::Applications;
use super::stop::{self, Stop};
use super::{lives, settings};
use crate::config::Manifest;
use crate::exit::{self, FailedApplication, FailedApplications, UsageError};
use crate::rest;
use crate::terminal::{self, Terminal};

/// Runs applications until they are told to stop, are idle, or fail. One alone ends the process with its failure; one
/// of several does not, and the others go on. Keys that belong to the process must be the same in all manifests.
///
/// # Errors
/// Why one could not start or what it failed of; of several, which failed and why, once all have ended.
pub fn run(manifests: Vec<Manifest>, options: RunOptions, terminal: Terminal) -> Result<()> {
    run_beside(manifests, options, None, terminal)
}

/// What a command that runs applications beside its own work shares with them.
pub struct Beside {
    /// Ends them; the command listens to signals itself.
    pub stop: Stop,
    /// Gets the address of the REST interface.
    pub listening: Sender<SocketAddr>,
    /// The embedded broker, which goes on when they end.
    pub broker: Option<Arc<Broker>>,
}

/// As `run`, for a command that does something else meanwhile.
///
/// # Errors
/// As `run`.
pub fn run_beside(
    manifests: Vec<Manifest>,
    options: RunOptions,
    beside: Option<Beside>,
    terminal: Terminal,
) -> Result<()> {
    let first = manifests.first().ok_or_else(|| UsageError("there is no application to run".to_owned()))?;
    let stop = beside.as_ref().map_or_else(Stop::default, |beside| beside.stop.below());
    let applications = Arc::new(Applications::new(manifests.iter().map(Manifest::application_id)));
    let services = Services::start(first, &applications, &stop, beside.as_ref(), terminal)?;
    let own_module = options.own_module;
    let shared = Arc::new(Shared::new(first, options, terminal));
    if let Some(broker) = beside.and_then(|beside| beside.broker) {
        shared.lend(broker);
    }
    let is_alone = manifests.len() == 1;
    let parts = manifests.into_iter().zip(applications.all());
    let runs = parts.map(|(manifest, status)| Application {
        endpoint: settings::endpoint(&manifest, services.port),
        place: shared.idle.enter(),
        status,
        stop: stop.below(),
        terminal: if is_alone { terminal } else { terminal.of_application(manifest.application_id()) },
        shared: Arc::clone(&shared),
        own_module,
        manifest,
    });
    let failures = run_all(runs.map(Arc::new).collect());
    stop.raise();
    shared.end();
    services.end();
    outcome(failures, applications.all().len())
}

/// Runs the applications of a folder, which come and go with its files, until the process is told to stop or all that
/// are there have ended. `manifests` are those of the folder at the start.
///
/// # Errors
/// As `run`, of those that are there at the end.
pub fn run_folder(manifests: Vec<Manifest>, watch: Watch, options: RunOptions, terminal: Terminal) -> Result<()> {
    let first = manifests.first().ok_or_else(|| UsageError("there is no application to run".to_owned()))?.clone();
    let stop = Stop::default();
    let applications = Arc::new(Applications::default());
    // Before anybody can ask whether all of them are ready.
    for manifest in &manifests {
        applications.enter(manifest.application_id());
    }
    let services = Services::start(&first, &applications, &stop, None, terminal)?;
    let shared = Arc::new(Shared::new(&first, options, terminal));
    let home = Home { applications, port: services.port, stop: stop.clone(), shared: Arc::clone(&shared), terminal };
    let (failures, count) = AppsDirectory::new(home, first, watch).run(manifests);
    stop.raise();
    shared.end();
    services.end();
    outcome(failures, count)
}

/// What a process gives each of its applications.
pub(super) struct Home {
    pub applications: Arc<Applications>,
    /// Of the REST interface.
    pub port: u16,
    pub stop: Stop,
    pub shared: Arc<Shared>,
    pub terminal: Terminal,
}

/// What an application failed of.
pub(super) struct Failure {
    pub application: Arc<Application>,
    pub error: anyhow::Error,
}

/// Runs each until all have ended.
fn run_all(applications: Vec<Arc<Application>>) -> Vec<Failure> {
    let is_alone = applications.len() == 1;
    let (sender, ended) = channel();
    for application in applications {
        lives::begin(application, is_alone, &sender);
    }
    drop(sender);
    ended.iter().filter_map(|(application, result)| Some(Failure { application, error: result.err()? })).collect()
}

/// How the process ends.
fn outcome(mut failures: Vec<Failure>, applications: usize) -> Result<()> {
    if applications == 1 {
        return failures.pop().map_or(Ok(()), |failure| Err(failure.error));
    }
    if failures.is_empty() {
        return Ok(());
    }
    failures.sort_by_key(|failure| failure.application.place);
    let failed = failures.iter().map(|Failure { application, error }| FailedApplication {
        application: application.manifest.application_id().to_owned(),
        manifest: application.manifest.path.clone(),
        reason: terminal::causes(error).join(": "),
        code: exit::number_of(error),
    });
    Err(FailedApplications { applications, failed: failed.collect() }.into())
}

/// REST and signals: what serves while applications start, run and end.
struct Services {
    /// Where REST listens, also when the manifest leaves the choice to the machine.
    port: u16,
    runtime: tokio::runtime::Runtime,
    rest: tokio::task::JoinHandle<std::io::Result<()>>,
    stop: tokio::sync::watch::Sender<bool>,
}

impl Services {
    fn start(
        manifest: &Manifest,
        applications: &Arc<Applications>,
        stop: &Stop,
        beside: Option<&Beside>,
        terminal: Terminal,
    ) -> Result<Self> {
        let listener = rest::bind(manifest.text("application.server"))?;
        let address = listener.local_addr().context("cannot ask for the REST address")?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            // Reads of stores: enough that slow ones do not hold up the others, few enough for a small machine.
            .max_blocking_threads(64)
            .thread_name("rest")
            .enable_all()
            .build()
            .context("cannot start the threads of the REST interface")?;
        match beside {
            // Who does not wait for the address does not need it.
            Some(beside) => _ = beside.listening.send(address),
            None => stop::on_signals(runtime.handle(), stop, stop::FAREWELL).context("cannot listen to signals")?,
        }
        let (sender, receiver) = tokio::sync::watch::channel(false);
        let rest = runtime.spawn(rest::serve(listener, rest::router(Arc::clone(applications)), receiver));
        terminal.notice("rest", &format!("REST at http://{address}"), json!({ "address": address.to_string() }));
        if !address.ip().is_loopback() {
            let text = format!("{address} is reachable from other machines, and there is no authentication yet");
            terminal.notice("warning", &text, json!({ "warning": text }));
        }
        if address.ip().is_unspecified() && manifest.optional_text("advertised.listener").is_none() {
            let text =
                format!("other hosts cannot reach this one at {address} to pass on queries: set advertised.listener");
            terminal.notice("warning", &text, json!({ "warning": text }));
        }
        Ok(Self { port: address.port(), runtime, rest, stop: sender })
    }

    /// Lets open requests end. Queries that still read a store are left behind.
    fn end(self) {
        self.stop.send_replace(true);
        if let Ok(Err(error)) = self.runtime.block_on(self.rest) {
            tracing::error!(%error, "the REST interface failed");
        }
        self.runtime.shutdown_timeout(Duration::from_secs(1));
    }
}

#[cfg(test)]
mod tests;
