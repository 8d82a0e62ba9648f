//! What the applications of a process share: the sandbox, the memory of their stores, the embedded broker, and how the
//! process was told to run. Made once and handed to each of them; none of it stops with one of them.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Result;
use rocks::RocksMemory;

use super::brokers::{self, Broker};
use super::deployments::OwnModule;
use super::idle::IdleVotes;
use super::settings;
use crate::components::Sandbox;
use crate::config::Manifest;
use crate::terminal::Terminal;

/// What a run is told beside its manifests.
#[derive(Debug, Clone)]
pub struct RunOptions {
    /// Folder of the embedded broker, where that is asked for.
    pub embedded: Option<PathBuf>,
    pub until_idle: Option<Duration>,
    pub own_module: OwnModule,
}

/// See the module's head.
pub struct Shared {
    pub sandbox: Arc<Sandbox>,
    pub memory: RocksMemory,
    pub options: RunOptions,
    pub idle: IdleVotes,
    terminal: Terminal,
    /// Once somebody needed it.
    embedded: Mutex<Option<Arc<Broker>>>,
}

impl Shared {
    /// By the manifest of any of them: the keys that belong to the process are the same in all.
    pub fn new(manifest: &Manifest, options: RunOptions, terminal: Terminal) -> Self {
        Self {
            sandbox: Arc::default(),
            memory: settings::rocks_memory(manifest),
            options,
            idle: IdleVotes::default(),
            terminal,
            embedded: Mutex::default(),
        }
    }

    /// The broker of an application. The embedded one is started by the first that needs it, while the others wait.
    ///
    /// # Errors
    /// When none is named, or the embedded one does not start.
    pub fn broker(&self, manifest: &Manifest) -> Result<Arc<Broker>> {
        match (&self.options.embedded, manifest.bootstrap_servers()) {
            (Some(folder), _) => {
                let mut embedded = self.embedded.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(broker) = &*embedded {
                    return Ok(Arc::clone(broker));
                }
                let broker = Arc::new(Broker::embedded(folder, self.terminal)?);
                *embedded = Some(Arc::clone(&broker));
                Ok(broker)
            }
            (None, Some(servers)) => Ok(Arc::new(Broker::cluster(&servers))),
            (None, None) => Err(brokers::no_broker()),
        }
    }

    /// Takes an embedded broker that is there already.
    pub fn lend(&self, broker: Arc<Broker>) {
        *self.embedded.lock().unwrap_or_else(PoisonError::into_inner) = Some(broker);
    }

    /// Ends the embedded broker, once no application needs it any more; one that was lent goes on.
    pub fn end(&self) {
        self.embedded.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}
