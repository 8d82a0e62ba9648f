//! A host in this process, on a thread of its own, that ends with the command. The embedded broker is the command's:
//! it goes on when the host failed and is started again.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::thread::JoinHandle;

use anyhow::{Context, Result, anyhow};

use crate::config::Manifest;
use crate::runtime::brokers::Broker;
use crate::runtime::stop::Stop;
use crate::runtime::{self, Beside, OwnModule, RunOptions};
use crate::terminal::Terminal;

/// As a process's first thread has.
const STACK_BYTES: usize = 8 << 20;

/// What hosts are started with.
pub struct HostStarter {
    embedded: Option<(PathBuf, Arc<Broker>)>,
    stop: Stop,
    terminal: Terminal,
}

/// A host that was started.
pub struct OwnHost {
    thread: JoinHandle<Result<()>>,
    listening: Receiver<SocketAddr>,
    address: Option<SocketAddr>,
}

impl HostStarter {
    /// Starts the embedded broker of the folder, where there is to be one.
    ///
    /// # Errors
    /// When the folder cannot be used.
    pub fn new(embedded: Option<&Path>, stop: Stop, terminal: Terminal) -> Result<Self> {
        let start = |folder: &Path| -> Result<_> {
            std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
            Ok((folder.to_owned(), Arc::new(Broker::embedded(folder, terminal)?)))
        };
        Ok(Self { embedded: embedded.map(start).transpose()?, stop, terminal })
    }

    /// Starts a host.
    ///
    /// # Errors
    /// When there is no thread for it.
    pub fn start(&self, manifest: Manifest) -> Result<OwnHost> {
        let (sender, listening) = channel();
        let (folder, broker) = self.embedded.clone().unzip();
        let beside = Beside { stop: self.stop.clone(), listening: sender, broker };
        let options = RunOptions { embedded: folder, until_idle: None, own_module: OwnModule::New };
        let terminal = self.terminal;
        let life = move || runtime::run_beside(vec![manifest], options, Some(beside), terminal);
        let thread = std::thread::Builder::new().name("host".to_owned()).stack_size(STACK_BYTES).spawn(life);
        let thread = thread.context("cannot start the thread of the host")?;
        Ok(OwnHost { thread, listening, address: None })
    }
}

impl OwnHost {
    /// Where its REST interface is, once it is known.
    pub fn address(&mut self) -> Option<SocketAddr> {
        match self.listening.try_recv() {
            Ok(address) => self.address = Some(address),
            Err(TryRecvError::Empty | TryRecvError::Disconnected) => {}
        }
        self.address
    }

    pub fn has_ended(&self) -> bool {
        self.thread.is_finished()
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// What it failed of.
    pub fn wait(self) -> Result<()> {
        self.thread.join().unwrap_or_else(|_| Err(anyhow!("the thread of the host panicked, which is a defect of it")))
    }
}
