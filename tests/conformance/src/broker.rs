//! The brokers under test, each a process with a fresh folder and a port of its own: the embedded one, which is this
//! binary's `serve-broker`, and real Kafka by `scripts/kafka.sh`. A broker can be stopped, killed and started again on
//! the same folder and port; dropping it ends it and removes the folder.

use std::io::{BufRead, BufReader, Read};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ::broker::{EmbeddedBroker, EmbeddedBrokerOptions};
use anyhow::{Context as _, Result, anyhow, bail};

use crate::{client, member};

/// What makes real Kafka do in a test's time what it otherwise does every few minutes. None changes what it does, but for
/// topics that come into being by themselves.
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

/// How long Kafka may take from its first answer to the end of its start.
const KAFKA_START: Duration = Duration::from_secs(120);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Embedded,
    Kafka,
}

/// A running broker.
pub struct Broker {
    kind: Kind,
    port: u16,
    dir: PathBuf,
    /// The embedded broker's process, and the pipe whose end tells it to stop.
    process: Mutex<Option<(Child, ChildStdin)>>,
}

impl Broker {
    pub fn start(kind: Kind) -> Result<Self> {
        let port = free_port()?;
        let dir = std::env::temp_dir().join(format!("sandbar-conformance-{}-{port}", std::process::id()));
        let broker = Self { kind, port, dir, process: Mutex::new(None) };
        broker.start_again()?;
        Ok(broker)
    }

    pub fn bootstrap(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The name for output.
    pub fn name(&self) -> Result<String> {
        match self.kind {
            Kind::Embedded => Ok("embedded".to_owned()),
            Kind::Kafka => Ok(format!("kafka {}", kafka_version()?)),
        }
    }

    /// Starts it on the folder and port that it had.
    pub fn start_again(&self) -> Result<()> {
        if self.kind == Kind::Kafka {
            let before = self.starts();
            self.kafka("start")?;
            return client::wait_until("Kafka has started", KAFKA_START, || {
                Ok(if self.starts() > before { Ok(()) } else { Err("no line of it in its log".to_owned()) })
            });
        }
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

    /// How often Kafka has said in its log that it started. It answers earlier than that: after a kill it serves as the
    /// leader that it was, until its own controller has let its former life expire.
    fn starts(&self) -> usize {
        let log = std::fs::read_to_string(self.dir.join("server.log")).unwrap_or_default();
        log.matches("Kafka Server started").count()
    }

    /// Whether clients must be kept away until `start_again` is through. What a lone Kafka is asked before, it does as
    /// the leader of its former life; a transaction that ends then may lose its markers and stay open for ever.
    pub fn starts_unready(&self) -> bool {
        self.kind == Kind::Kafka
    }

    /// Ends it in an orderly way.
    pub fn stop(&self) -> Result<()> {
        if self.kind == Kind::Kafka {
            return self.kafka("stop");
        }
        if let Some((mut child, stdin)) = self.process().take() {
            drop(stdin);
            child.wait()?;
        }
        Ok(())
    }

    /// Ends it by SIGKILL.
    pub fn kill(&self) -> Result<()> {
        if self.kind == Kind::Kafka {
            return self.kafka("kill");
        }
        if let Some((mut child, _)) = self.process().take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    /// Sends a signal to its process.
    pub fn signal(&self, name: &str) -> Result<()> {
        let process = match self.kind {
            Kind::Kafka => std::fs::read_to_string(self.dir.join("pid"))?.trim().parse()?,
            Kind::Embedded => {
                self.process().as_ref().map(|(child, _)| child.id()).ok_or_else(|| anyhow!("no broker runs"))?
            }
        };
        member::signal(process, name)
    }

    fn process(&self) -> MutexGuard<'_, Option<(Child, ChildStdin)>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn kafka(&self, verb: &str) -> Result<()> {
        let output = Command::new(repository().join("scripts/kafka.sh"))
            .arg(verb)
            .env("SANDBAR_KAFKA_PORT", self.port.to_string())
            .env("SANDBAR_KAFKA_DATA", &self.dir)
            .env("SANDBAR_KAFKA_SETTINGS", KAFKA_SETTINGS)
            .stdin(Stdio::null())
            .output()
            .context("run scripts/kafka.sh")?;
        if !output.status.success() {
            bail!("scripts/kafka.sh {verb} failed: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(())
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // A broker that cannot be ended is reported and left: there is nobody to return the error to.
        let ended = match self.kind {
            Kind::Kafka => self.kafka("clean"),
            Kind::Embedded => self.kill().and_then(|()| Ok(std::fs::remove_dir_all(&self.dir)?)),
        };
        if let Err(error) = ended {
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

pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn kafka_version() -> Result<String> {
    let pom = std::fs::read_to_string(repository().join("scripts/kafka/pom.xml"))?;
    let version = pom.split_once("<kafka.version>").and_then(|(_, rest)| rest.split_once('<'));
    version.map(|(version, _)| version.to_owned()).ok_or_else(|| anyhow!("scripts/kafka/pom.xml names no version"))
}

/// A port with a free neighbour (Kafka's controller takes it), below those that the system gives to clients.
fn free_port() -> Result<u16> {
    let first = u16::try_from(std::process::id() % 4000)? * 2;
    (0..4000u16)
        .map(|step| 20_000 + (first + step * 2) % 8000)
        .find(|port| {
            let free = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
            free(*port) && free(*port + 1)
        })
        .ok_or_else(|| anyhow!("no two neighbouring free ports from 20000 to 28000"))
}
