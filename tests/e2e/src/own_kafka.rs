//! A real Kafka of one's own, by `scripts/kafka.sh` with a fresh folder and ports of its own: it can be stopped, killed
//! and started again on both. Dropping it ends it and removes the folder.

use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};

use crate::host::wait_until;
use crate::repository;

/// How long Kafka may take from its first answer to the end of its start.
const START_LIMIT: Duration = Duration::from_secs(120);

/// A broker process.
pub struct OwnKafka {
    port: u16,
    dir: PathBuf,
    settings: String,
    /// The port that the second listener has its clients come back to, where there is one.
    advertised_port: Option<u16>,
}

impl OwnKafka {
    /// Starts it with further lines for `server.properties`. Where an advertised port is given, there is a second
    /// listener (`proxied_port`) that tells its clients to connect to that port: whoever stands there is between them.
    ///
    /// # Errors
    /// What the script said when it does not start.
    pub fn start(name: &str, settings: &str, advertised_port: Option<u16>) -> Result<Self> {
        let port = free_ports()?;
        let dir = std::env::temp_dir().join(format!("sandbar-{name}-{}-{port}", std::process::id()));
        let kafka = Self { port, dir, settings: settings.to_owned(), advertised_port };
        kafka.start_again()?;
        Ok(kafka)
    }

    pub fn bootstrap(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The second listener's own port.
    pub fn proxied_port(&self) -> u16 {
        self.port + 2
    }

    /// Starts it on the folder and ports that it had, and waits until its start is through.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start_again(&self) -> Result<()> {
        let before = self.starts();
        self.script("start")?;
        wait_until(START_LIMIT, || {
            ensure!(self.starts() > before, "Kafka does not say in its log that it has started");
            Ok(())
        })
    }

    /// How often Kafka has said in its log that it started. It answers earlier than that: after a kill it serves as the
    /// leader that it was, until its own controller has let its former life expire.
    fn starts(&self) -> usize {
        let log = std::fs::read_to_string(self.dir.join("server.log")).unwrap_or_default();
        log.matches("Kafka Server started").count()
    }

    /// Whether its log says that it forgot the markers of a transaction. A lone Kafka that ends a transaction while its
    /// controller lets its former life expire finds its own partitions without a leader and takes them for deleted
    /// (`TransactionMarkerChannelManager.addTxnMarkersToBrokerQueue`). The transaction then stays open for ever, or
    /// ends with the next one of its producer: nothing that a client does helps.
    pub fn forgot_markers(&self, transactional_id: &str) -> bool {
        let log = std::fs::read_to_string(self.dir.join("server.log")).unwrap_or_default();
        tells_forgotten_markers(&log, transactional_id)
    }

    /// Ends it in an orderly way.
    ///
    /// # Errors
    /// What the script said.
    pub fn stop(&self) -> Result<()> {
        self.script("stop")
    }

    /// Ends it by SIGKILL.
    ///
    /// # Errors
    /// What the script said.
    pub fn kill(&self) -> Result<()> {
        self.script("kill")
    }

    /// The id of its process.
    ///
    /// # Errors
    /// When it does not run.
    pub fn process_id(&self) -> Result<u32> {
        Ok(std::fs::read_to_string(self.dir.join("pid"))?.trim().parse()?)
    }

    fn script(&self, verb: &str) -> Result<()> {
        let mut command = Command::new(repository::root().join("scripts/kafka.sh"));
        command
            .arg(verb)
            .env("SANDBAR_KAFKA_PORT", self.port.to_string())
            .env("SANDBAR_KAFKA_DATA", &self.dir)
            .env("SANDBAR_KAFKA_SETTINGS", &self.settings)
            .stdin(Stdio::null());
        if let Some(port) = self.advertised_port {
            command.env("SANDBAR_KAFKA_PROXY_PORT", port.to_string());
        }
        let output = command.output().context("run scripts/kafka.sh")?;
        if !output.status.success() {
            bail!("scripts/kafka.sh {verb} failed: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(())
    }
}

fn tells_forgotten_markers(log: &str, transactional_id: &str) -> bool {
    let sent =
        format!("while trying to send transaction markers for {transactional_id}, these partitions are likely deleted");
    log.contains(&sent)
}

impl Drop for OwnKafka {
    fn drop(&mut self) {
        // A broker that cannot be ended is reported and left: there is nobody to return the error to.
        if let Err(error) = self.script("clean") {
            eprintln!("cannot end the broker on {}: {error:#}", self.dir.display());
        }
    }
}

/// The version that the script runs.
///
/// # Errors
/// When its list of jars names none.
pub fn version() -> Result<String> {
    let pom = std::fs::read_to_string(repository::root().join("scripts/kafka/pom.xml"))?;
    let version = pom.split_once("<kafka.version>").and_then(|(_, rest)| rest.split_once('<'));
    version.map(|(version, _)| version.to_owned()).ok_or_else(|| anyhow!("scripts/kafka/pom.xml names no version"))
}

/// A port whose next two are free as well (for Kafka's controller and its second listener), below those that the system
/// gives to clients.
///
/// # Errors
/// When there are none.
pub fn free_ports() -> Result<u16> {
    let first = u16::try_from(std::process::id() % 2000)? * 4;
    let free = |port: u16| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
    (0..2000u16)
        .map(|step| 20_000 + (first + step * 4) % 8000)
        .find(|port| (0..3).all(|next| free(port + next)))
        .ok_or_else(|| anyhow!("no three neighbouring free ports from 20000 to 28000"))
}

#[cfg(test)]
mod tests;
