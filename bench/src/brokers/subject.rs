//! The two brokers as processes: `sandbar broker` on a folder of its own, and real Kafka by `scripts/kafka.sh`. Starts
//! them, ends them, and reads what they cost from /proc.

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::measure;

const START_LIMIT: Duration = Duration::from_secs(120);

/// How a broker is ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Clean,
    Killed,
}

impl End {
    fn signal(self) -> &'static str {
        match self {
            Self::Clean => "-TERM",
            Self::Killed => "-KILL",
        }
    }
}

/// A broker that can be started again and again on the same data.
pub enum Subject {
    Embedded { binary: PathBuf, dir: PathBuf, running: Option<(Child, SocketAddr)> },
    Kafka { script: PathBuf, data: PathBuf, running: Option<(u32, SocketAddr)> },
}

impl Subject {
    /// The embedded broker on an empty folder.
    pub fn embedded(binary: &Path, dir: &Path) -> Result<Self> {
        if dir.exists() {
            std::fs::remove_dir_all(dir).with_context(|| format!("empty {}", dir.display()))?;
        }
        Ok(Self::Embedded { binary: binary.to_owned(), dir: dir.to_owned(), running: None })
    }

    /// Real Kafka, with the settings that `scripts/kafka.sh` reads from the environment.
    pub fn kafka(script: &Path) -> Result<Self> {
        let data = std::env::var_os("SANDBAR_KAFKA_DATA").context("SANDBAR_KAFKA_DATA is not set")?;
        let subject = Self::Kafka { script: script.to_owned(), data: data.into(), running: None };
        subject.script("clean")?;
        Ok(subject)
    }

    pub fn name(&self) -> &'static str {
        match self {
            Self::Embedded { .. } => "embedded",
            Self::Kafka { .. } => "Kafka 4.3.1",
        }
    }

    fn script(&self, verb: &str) -> Result<String> {
        let Self::Kafka { script, .. } = self else { return Ok(String::new()) };
        let output = Command::new(script).arg(verb).output().with_context(|| format!("run {}", script.display()))?;
        ensure!(output.status.success(), "kafka.sh {verb}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    /// Starts it and returns how long it took until it answered a first request.
    pub fn start(&mut self) -> Result<Duration> {
        let began = Instant::now();
        match self {
            Self::Embedded { binary, dir, running } => {
                let mut child = Command::new(&*binary)
                    .args(["broker", "--dir"])
                    .arg(&*dir)
                    .stdin(Stdio::null())
                    .stdout(Stdio::piped())
                    .stderr(Stdio::null())
                    .spawn()
                    .with_context(|| format!("start {}", binary.display()))?;
                let mut line = String::new();
                let stdout = child.stdout.take().context("no standard output")?;
                BufReader::new(stdout).read_line(&mut line)?;
                let address = line.trim().parse().with_context(|| format!("the address {line:?} of sandbar broker"))?;
                wait_for_answer(address, began)?;
                *running = Some((child, address));
            }
            Self::Kafka { .. } => {
                self.script("start")?;
                let address = self.script("bootstrap")?.parse().context("the address of kafka.sh")?;
                let Self::Kafka { data, running, .. } = self else { return Ok(Duration::ZERO) };
                let path = data.join("pid");
                let text = std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
                let process = text.trim().parse().with_context(|| format!("{} holds {text:?}", path.display()))?;
                *running = Some((process, address));
            }
        }
        Ok(began.elapsed())
    }

    fn process(&self) -> Result<(String, SocketAddr)> {
        match self {
            Self::Embedded { running: Some((child, address)), .. } => Ok((child.id().to_string(), *address)),
            Self::Kafka { running: Some((process, address)), .. } => Ok((process.to_string(), *address)),
            _ => bail!("{} does not run", self.name()),
        }
    }

    pub fn address(&self) -> Result<String> {
        Ok(self.process()?.1.to_string())
    }

    /// CPU time of the broker so far.
    pub fn cpu(&self) -> Result<Duration> {
        measure::cpu_time_of(&self.process()?.0)
    }

    /// A line of the broker's /proc/…/status, in MiB.
    pub fn memory_mib(&self, name: &str) -> Result<f64> {
        Ok(measure::memory_kb_of(&self.process()?.0, name)? as f64 / 1024.0)
    }

    /// Ends it; its data stays.
    pub fn end(&mut self, end: End) -> Result<()> {
        match self {
            Self::Embedded { running, .. } => {
                let Some((mut child, _)) = running.take() else { return Ok(()) };
                let status = Command::new("kill").args([end.signal(), &child.id().to_string()]).status()?;
                ensure!(status.success(), "cannot signal the embedded broker");
                child.wait()?;
            }
            Self::Kafka { .. } => {
                self.script(if end == End::Clean { "stop" } else { "kill" })?;
                if let Self::Kafka { running, .. } = self {
                    *running = None;
                }
            }
        }
        Ok(())
    }
}

impl Drop for Subject {
    fn drop(&mut self) {
        // The figures are printed by then; what is left of the data says where it is.
        let cleaned = self.end(End::Killed).and_then(|()| match self {
            Self::Embedded { dir, .. } => Ok(std::fs::remove_dir_all(dir)?),
            Self::Kafka { .. } => self.script("clean").map(drop),
        });
        if let Err(error) = cleaned {
            eprintln!("{}: {error:#}", self.name());
        }
    }
}

fn wait_for_answer(address: SocketAddr, began: Instant) -> Result<()> {
    loop {
        let answer = TcpStream::connect(address).ok().and_then(broker::wire::ask_cluster_id);
        if answer.is_some() {
            return Ok(());
        }
        ensure!(began.elapsed() < START_LIMIT, "{address} does not answer");
        std::thread::sleep(Duration::from_micros(200));
    }
}
