//! The brokers under test, each a process with a fresh folder and a port of its own: the embedded one, which is this
//! binary's `serve-broker`, and real Kafka by `scripts/kafka.sh`. A broker can be stopped, killed and started again on
//! the same folder and port; dropping it ends it and removes the folder.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

use ::broker::{EmbeddedBroker, EmbeddedBrokerOptions};
use anyhow::{Context as _, Result, anyhow, bail};
use e2e::own_kafka::{self, OwnKafka};

use crate::member;

/// What makes real Kafka do in a test's time what it otherwise does every few minutes. None changes what it does, but
/// for topics that come into being by themselves.
const KAFKA_SETTINGS: &str = "\
auto.create.topics.enable=true
broker.session.timeout.ms=6000
broker.heartbeat.interval.ms=500
log.cleaner.backoff.ms=200
log.retention.check.interval.ms=300
log.initial.task.delay.ms=300
log.flush.start.offset.checkpoint.interval.ms=200
transaction.abort.timed.out.transaction.cleanup.interval.ms=300
group.consumer.session.timeout.ms=6000
group.consumer.min.session.timeout.ms=6000
group.consumer.heartbeat.interval.ms=500
group.consumer.min.heartbeat.interval.ms=500
";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Embedded,
    Kafka,
}

/// A running broker.
pub enum Broker {
    Embedded(Embedded),
    Kafka(OwnKafka),
}

/// The embedded broker in a process of its own.
pub struct Embedded {
    port: u16,
    dir: PathBuf,
    /// The process, and the pipe whose end tells it to stop.
    process: Mutex<Option<(Child, ChildStdin)>>,
}

impl Broker {
    pub fn start(kind: Kind) -> Result<Self> {
        if kind == Kind::Kafka {
            return Ok(Self::Kafka(OwnKafka::start("conformance", KAFKA_SETTINGS, None)?));
        }
        let port = own_kafka::free_ports()?;
        let dir = std::env::temp_dir().join(format!("sandbar-conformance-{}-{port}", std::process::id()));
        let embedded = Embedded { port, dir, process: Mutex::new(None) };
        embedded.start_again()?;
        Ok(Self::Embedded(embedded))
    }

    pub fn bootstrap(&self) -> String {
        match self {
            Self::Kafka(kafka) => kafka.bootstrap(),
            Self::Embedded(embedded) => format!("127.0.0.1:{}", embedded.port),
        }
    }

    /// The name for output.
    pub fn name(&self) -> Result<String> {
        match self {
            Self::Embedded(_) => Ok("embedded".to_owned()),
            Self::Kafka(_) => Ok(format!("kafka {}", own_kafka::version()?)),
        }
    }

    /// Starts it on the folder and port that it had.
    pub fn start_again(&self) -> Result<()> {
        match self {
            Self::Kafka(kafka) => kafka.start_again(),
            Self::Embedded(embedded) => embedded.start_again(),
        }
    }

    /// Whether clients must be kept away until `start_again` is through. What a lone Kafka is asked before, it does as
    /// the leader of its former life; a transaction that ends then may lose its markers and stay open for ever.
    pub fn starts_unready(&self) -> bool {
        matches!(self, Self::Kafka(_))
    }

    /// Whether it says of itself that it forgot how a transaction ended.
    pub fn forgot_markers(&self, transactional_id: &str) -> bool {
        matches!(self, Self::Kafka(kafka) if kafka.forgot_markers(transactional_id))
    }

    /// Ends it in an orderly way.
    pub fn stop(&self) -> Result<()> {
        match self {
            Self::Kafka(kafka) => kafka.stop(),
            Self::Embedded(embedded) => {
                if let Some((mut child, stdin)) = embedded.process().take() {
                    drop(stdin);
                    child.wait()?;
                }
                Ok(())
            }
        }
    }

    /// Ends it by SIGKILL.
    pub fn kill(&self) -> Result<()> {
        match self {
            Self::Kafka(kafka) => kafka.kill(),
            Self::Embedded(embedded) => embedded.kill(),
        }
    }

    /// Sends a signal to its process.
    pub fn signal(&self, name: &str) -> Result<()> {
        let process = match self {
            Self::Kafka(kafka) => kafka.process_id()?,
            Self::Embedded(embedded) => {
                embedded.process().as_ref().map(|(child, _)| child.id()).ok_or_else(|| anyhow!("no broker runs"))?
            }
        };
        member::signal(process, name)
    }
}

impl Embedded {
    fn start_again(&self) -> Result<()> {
        std::fs::create_dir_all(&self.dir).with_context(|| format!("create {}", self.dir.display()))?;
        let mut child = Command::new(std::env::current_exe()?)
            .arg("serve-broker")
            .arg(&self.dir)
            .arg(self.port.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("start the embedded broker's process")?;
        let stdin = child.stdin.take().ok_or_else(|| anyhow!("the broker's process has no stdin"))?;
        let stdout = child.stdout.take().ok_or_else(|| anyhow!("the broker's process has no stdout"))?;
        *self.process() = Some((child, stdin));
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        if !line.starts_with("listening") {
            bail!("the embedded broker did not start; its reason is above");
        }
        Ok(())
    }

    fn kill(&self) -> Result<()> {
        if let Some((mut child, _)) = self.process().take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    fn process(&self) -> MutexGuard<'_, Option<(Child, ChildStdin)>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        // A broker that cannot be ended is reported and left: there is nobody to return the error to.
        if let Err(error) = self.kill().and_then(|()| Ok(std::fs::remove_dir_all(&self.dir)?)) {
            eprintln!("conformance: cannot end the broker on {}: {error:#}", self.dir.display());
        }
    }
}

/// Serves a folder until the parent closes this process's stdin, or dies.
pub fn serve(dir: &Path, port: u16) -> Result<()> {
    let broker = EmbeddedBroker::start(dir, &EmbeddedBrokerOptions { port, ..embedded_options() })?;
    println!("listening {}", broker.address());
    let mut rest = Vec::new();
    std::io::stdin().read_to_end(&mut rest)?;
    broker.shutdown();
    Ok(())
}

/// The counterpart of `KAFKA_SETTINGS`.
fn embedded_options() -> EmbeddedBrokerOptions {
    EmbeddedBrokerOptions { auto_create_topics: true, ..EmbeddedBrokerOptions::default() }
}
