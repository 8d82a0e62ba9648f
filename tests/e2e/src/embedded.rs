//! A running `sandbar broker` as a child process: its address, its end by a signal. One that a test forgets is killed
//! with the value; its folder stays.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::repository;
use crate::topics::Broker;

/// A broker process.
pub struct EmbeddedBroker {
    child: Child,
    /// What it printed as its address.
    pub address: String,
    folder: PathBuf,
    log: PathBuf,
}

impl EmbeddedBroker {
    /// Starts the broker of a folder and waits for its address.
    ///
    /// # Errors
    /// When it ends before it has one; what it said is in the error.
    pub fn start(folder: &Path, arguments: &[&str]) -> Result<Self> {
        let log = folder.with_extension("broker.log");
        let file = File::create(&log).with_context(|| format!("cannot create {}", log.display()))?;
        let mut child = Command::new(repository::sandbar()?)
            .arg("broker")
            .arg("--dir")
            .arg(folder)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(file)
            .spawn()
            .context("cannot start sandbar broker")?;
        let stdout = child.stdout.take().context("sandbar broker has no standard output")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        let broker = Self { child, address: line.trim().to_owned(), folder: folder.to_owned(), log };
        ensure!(!broker.address.is_empty(), "sandbar broker printed no address:\n{}", broker.log());
        Ok(broker)
    }

    /// The same broker by its folder, for `sandbar topics`.
    pub fn by_folder(&self) -> Broker {
        Broker::Embedded(self.folder.clone())
    }

    /// The same broker by its address.
    pub fn by_address(&self) -> Broker {
        Broker::Kafka(self.address.clone())
    }

    pub fn process_id(&self) -> u32 {
        self.child.id()
    }

    /// What it said on standard error so far.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Ends it with SIGTERM and waits for it.
    ///
    /// # Errors
    /// When it does not end within half a minute.
    pub fn terminate(&mut self) -> Result<ExitStatus> {
        let status = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status()?;
        ensure!(status.success(), "cannot signal process {}", self.child.id());
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if Instant::now() >= deadline {
                bail!("sandbar broker did not end:\n{}", self.log());
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Ends it with SIGKILL.
    ///
    /// # Errors
    /// When the process cannot be waited for.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for EmbeddedBroker {
    fn drop(&mut self) {
        // Both fail when the process has ended already, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
