//! The broker of a command: a real one by its addresses, or the embedded one of a folder, which is started here
//! unless another process already runs it. Beyond this file nobody knows which it is.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use anyhow::{Context, Result};
use broker::{EmbeddedBroker, EmbeddedBrokerOptions};
use kafka::{ClusterInfo, KafkaClients, KafkaClientsConfig};
use serde_json::json;

use super::spawn::spawn;
use super::stop::Stop;
use crate::exit::{UnreachableError, UsageError};
use crate::terminal::Terminal;

/// Of the thread that waits for a broker.
const STACK_BYTES: usize = 2 << 20;

/// Which broker the command line names.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct BrokerArguments {
    /// Use the embedded broker of this folder (one machine, for trials and tests)
    #[arg(long, value_name = "DIR", conflicts_with = "brokers")]
    pub embedded: Option<PathBuf>,

    /// Addresses of a Kafka cluster, `host:port`, several joined by commas [env: SANDBAR_BROKERS]
    #[arg(short, long, value_name = "BROKERS")]
    brokers: Option<String>,

    // An argument of its own, so that `--embedded` does not conflict with what somebody has exported.
    #[arg(long, value_name = "BROKERS", hide = true, env = "SANDBAR_BROKERS")]
    brokers_of_environment: Option<String>,
}

impl BrokerArguments {
    /// The addresses of a cluster, if the command line or else the environment names one. A flag wins over the
    /// environment, whichever flag it is.
    pub fn brokers(&self) -> Option<&str> {
        let environment = self.brokers_of_environment.as_deref().filter(|_| self.embedded.is_none());
        self.brokers.as_deref().or(environment)
    }
}

/// Whether a command makes the folder of an embedded broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Folder {
    MayBeNew,
    /// For commands that only make sense with what is there already: a path with a mistake in it leaves no folder
    /// behind.
    MustExist,
}

/// A broker to talk to. Dropping it stops an embedded broker that was started here.
pub struct Broker {
    pub bootstrap_servers: String,
    pub is_embedded: bool,
    embedded: Option<EmbeddedBroker>,
}

impl Drop for Broker {
    fn drop(&mut self) {
        if self.embedded.is_some() {
            kafka::broker_ends();
        }
    }
}

impl Broker {
    /// The embedded broker of a folder.
    ///
    /// # Errors
    /// When the folder cannot be used.
    pub fn embedded(folder: &Path, terminal: Terminal) -> Result<Self> {
        if let Some(address) = broker::running_at(folder) {
            let address = address.to_string();
            let text = format!("embedded broker of {} at {address} (another process runs it)", folder.display());
            terminal.notice("broker", &text, json!({ "address": address, "embedded": true, "started": false }));
            return Ok(Self { bootstrap_servers: address, is_embedded: true, embedded: None });
        }
        let embedded = start(folder, &EmbeddedBrokerOptions::default(), terminal)?;
        let text = what_it_is(folder, embedded.address());
        let address = embedded.address().to_string();
        terminal.notice("broker", &text, json!({ "address": address, "embedded": true, "started": true }));
        Ok(Self { bootstrap_servers: address, is_embedded: true, embedded: Some(embedded) })
    }

    /// A cluster at these addresses.
    pub fn cluster(bootstrap_servers: &str) -> Self {
        Self { bootstrap_servers: bootstrap_servers.to_owned(), is_embedded: false, embedded: None }
    }

    /// The broker that the command line names.
    ///
    /// # Errors
    /// When it names none, the folder must exist and is no broker's, or the embedded one does not start.
    pub fn of(arguments: &BrokerArguments, folder: Folder, terminal: Terminal) -> Result<Self> {
        match (&arguments.embedded, arguments.brokers()) {
            (Some(path), _) if folder == Folder::MustExist && !broker::disk::is_of_broker(path) => {
                let message = format!("there is no broker in {}; correct --embedded", path.display());
                Err(UnreachableError(message).into())
            }
            (Some(path), _) => Self::embedded(path, terminal),
            (None, Some(brokers)) => Ok(Self::cluster(brokers)),
            (None, None) => Err(no_broker()),
        }
    }
}

/// Starts the embedded broker of a folder, and shows what it had to cut from torn files.
///
/// # Errors
/// When the folder or the address cannot be used.
pub fn start(folder: &Path, options: &EmbeddedBrokerOptions, terminal: Terminal) -> Result<EmbeddedBroker> {
    let embedded = EmbeddedBroker::start(folder, options)
        .with_context(|| format!("cannot start the embedded broker in {}", folder.display()))?;
    for repair in embedded.repairs() {
        terminal.notice("warning", &format!("warning: {repair}"), json!({ "warning": repair }));
    }
    Ok(embedded)
}

/// Says what an embedded broker is, and what it is not.
pub fn what_it_is(folder: &Path, address: SocketAddr) -> String {
    format!(
        "embedded broker of {} at {address}: a single node for trials and tests; set bootstrap.servers for a Kafka \
         cluster",
        folder.display()
    )
}

/// The error of a command line without a broker.
pub fn no_broker() -> anyhow::Error {
    let message = "no broker: name a cluster with -b HOST:PORT (or bootstrap.servers in the manifest), or use the \
                   embedded broker of a folder with --embedded DIR";
    UsageError(message.to_owned()).into()
}

/// Waits for the first answer of the broker and shows why it takes long. `None` when the wish to stop came first.
///
/// # Errors
/// When no broker answered within `timeout`.
pub fn connect(
    config: KafkaClientsConfig,
    timeout: Duration,
    stop: &Stop,
    terminal: Terminal,
) -> Result<Option<(Arc<KafkaClients>, ClusterInfo)>> {
    let clients = KafkaClients::new(config).map_err(|error| UsageError(error.to_string()))?;
    let clients = Arc::new(clients);
    let (sender, receiver) = channel();
    let waiting = Arc::clone(&clients);
    // On a thread of its own, so that a signal is not kept waiting for the client's time-outs.
    let spawned = spawn("connect", STACK_BYTES, move || {
        let answer = waiting.wait_for_broker(timeout, &mut |attempt| {
            let text = format!("waiting for a broker ({} s): {}", attempt.elapsed.as_secs(), attempt.reason);
            let fields = json!({ "attempt": attempt.attempt, "reason": attempt.reason });
            terminal.notice("connecting", &text, fields);
        });
        let _ = sender.send(answer);
    });
    spawned.context("cannot start a thread")?;
    loop {
        match receiver.recv_timeout(Duration::from_millis(20)) {
            Ok(Ok(cluster)) => return Ok(Some((clients, cluster))),
            Ok(Err(error)) => return Err(UnreachableError(error.to_string()).into()),
            Err(RecvTimeoutError::Timeout) if stop.is_raised() => return Ok(None),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => {
                anyhow::bail!("the thread that connects to the broker ended early")
            }
        }
    }
}
