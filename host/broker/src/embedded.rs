//! The broker as a host embeds it: folder, core and wire put together, started and stopped as one.

use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::core::cleaner::CleanerOptions;
use crate::core::group::GroupOptions;
use crate::core::log::Recovery;
use crate::core::storage::StorageError;
use crate::core::{Core, CoreOptions};
use crate::disk::{self, DiskError, DiskStorage};
use crate::wire::{self, Server, ServerError, WireOptions};

/// How long a broker that was found has to say who it is.
const ASK_TIMEOUT: Duration = Duration::from_millis(500);

/// Options of an embedded broker. All limits and their defaults, options and fixed ones, with Kafka's names where it
/// has them:
///
/// | limit | default | beyond it |
/// | --- | --- | --- |
/// | `connections_max` (`max.connections`) | 2000 | closed at once; fewer if the process may not open as many files |
/// | `request_bytes_max` (`socket.request.max.bytes`) | 104857600 | the connection is closed |
/// | a request other than Produce | 16777216 | the connection is closed |
/// | array elements and tagged fields of a request | 200000 | the connection is closed |
/// | a string of a request | 32767 | the connection is closed |
/// | silence inside of a request, or while an answer is sent | 30 s | the connection is closed |
/// | silence between requests (`connections.max.idle.ms`) | 600 s | the connection is closed |
/// | records of a fetch (`fetch.max.bytes`) | 57671680 | the answer ends there |
/// | wait of a fetch | 300 s | answered with what there is |
/// | a record batch (`max.message.bytes`, a topic's setting) | 1048588 | the batch is refused |
/// | a record batch when it is decompressed, or 16 times its size if that is more | 67108864 | the batch is refused |
/// | partitions of a topic | 10000 | the topic is refused |
/// | members of a group (`groups.max_members`, `group.max.size`) | 10000 | the join is refused |
/// | session of a member (`group.min.session.timeout.ms`, `group.max.session.timeout.ms`) | 6 s to 1800 s | the join is refused |
/// | metadata of a committed offset (`offset.metadata.max.bytes`) | 4096 | the offset is refused |
/// | time of a transaction (`transaction.max.timeout.ms`) | 900 s | the producer is refused |
/// | silence of a producer (`producer.id.expiration.ms`) | 86400 s | its sequence is forgotten |
/// | disuse of a transactional id (`transactional.id.expiration.ms`) | 604800 s | it is forgotten |
/// | log files held open | 512 | opened for each use |
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EmbeddedBrokerOptions {
    /// Loopback, unless the caller has made sure that everybody who can reach another address may do everything: there
    /// is no authentication.
    pub listen: IpAddr,
    /// 0 = the port of the folder's last start if it is free, else any.
    pub port: u16,
    /// Partitions of topics that are made without a count (`num.partitions`).
    pub default_partitions: i32,
    /// Topics come into being when a client asks for them (`auto.create.topics.enable`).
    pub auto_create_topics: bool,
    /// Every acknowledged write survives a power cut, at a high price. Without it, it survives the process only.
    pub fsync: bool,
    pub groups: GroupOptions,
    /// When and with what means logs are cleaned.
    pub cleaner: CleanerOptions,
    /// More connections are closed at once.
    pub connections_max: usize,
    /// The largest request (`socket.request.max.bytes`).
    pub request_bytes_max: usize,
}

impl Default for EmbeddedBrokerOptions {
    fn default() -> Self {
        let wire = WireOptions::default();
        let core = CoreOptions::default();
        Self {
            listen: wire.listen,
            port: 0,
            default_partitions: core.default_partitions,
            auto_create_topics: wire.auto_create_topics,
            fsync: false,
            groups: core.groups,
            cleaner: core.cleaner,
            connections_max: wire.connections_max,
            request_bytes_max: wire.request_bytes_max,
        }
    }
}

/// Why an embedded broker could not start.
#[derive(Debug, thiserror::Error)]
pub enum EmbeddedBrokerError {
    #[error(transparent)]
    Disk(#[from] DiskError),
    #[error("open the broker in {dir}")]
    Open { dir: PathBuf, source: StorageError },
    #[error(transparent)]
    Server(#[from] ServerError),
}

/// A running broker. Dropping it stops it; its folder keeps everything.
#[derive(Debug)]
pub struct EmbeddedBroker {
    server: Server,
    core: Arc<Core>,
    repairs: Vec<String>,
}

impl EmbeddedBroker {
    /// Opens the folder and serves it.
    ///
    /// # Errors
    /// The folder is in use, of a newer format or damaged; the port is in use.
    pub fn start(dir: &Path, options: &EmbeddedBrokerOptions) -> Result<Self, EmbeddedBrokerError> {
        let storage = Arc::new(DiskStorage::open(dir, options.fsync)?);
        let core_options = CoreOptions {
            default_partitions: options.default_partitions,
            topic_id_seed: storage.topic_id_seed(),
            groups: options.groups.clone(),
            cleaner: options.cleaner.clone(),
            ..CoreOptions::default()
        };
        let (core, recoveries) = Core::open(core_options, Arc::clone(&storage) as Arc<_>)
            .map_err(|source| EmbeddedBrokerError::Open { dir: dir.to_owned(), source })?;
        let repairs = storage.repairs().iter().cloned().chain(recoveries.iter().map(repair_of)).collect();
        let core = Arc::new(core);
        let wire_options = WireOptions {
            listen: options.listen,
            port: options.port,
            auto_create_topics: options.auto_create_topics,
            connections_max: options.connections_max,
            request_bytes_max: options.request_bytes_max,
            cluster_id: storage.cluster_id().to_owned(),
            log_dir: std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned()).join("logs").display().to_string(),
            ..WireOptions::default()
        };
        let server = listen(dir, &core, wire_options)?;
        // On a full disk the broker still serves; other processes only do not find it by its folder.
        if let Err(error) = storage.write_listener(server.address()) {
            tracing::warn!(%error, address = %server.address(), "the broker's address could not be written down");
        }
        tracing::info!(
            address = %server.address(),
            dir = %dir.display(),
            "embedded single-node broker, for trials and tests; set bootstrap.servers for a real Kafka"
        );
        Ok(Self { server, core, repairs })
    }

    /// Where clients on this machine connect: `bootstrap.servers`.
    pub fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// What was cut from the files at the start, one sentence a file. The broker says it nowhere else: show it.
    pub fn repairs(&self) -> &[String] {
        &self.repairs
    }

    /// The broker's state, for callers in the same process.
    pub fn core(&self) -> &Arc<Core> {
        &self.core
    }

    /// Stops serving and closes the folder.
    pub fn shutdown(self) {
        drop(self);
    }
}

impl Drop for EmbeddedBroker {
    fn drop(&mut self) {
        self.server.shutdown();
        self.core.summarize_logs();
    }
}

fn repair_of(recovery: &Recovery) -> String {
    format!(
        "cut {} bytes from the end of {}, which now ends at offset {}: a write was not finished when the broker last \
         stopped",
        recovery.cut_bytes, recovery.log, recovery.next_offset
    )
}

fn listen(dir: &Path, core: &Arc<Core>, options: WireOptions) -> Result<Server, ServerError> {
    let last = disk::remembered_listener(dir).map(|address| address.port());
    if options.port == 0
        && let Some(port) = last
    {
        let again = WireOptions { port, ..options.clone() };
        match Server::start(Arc::clone(core), again) {
            Err(ServerError::PortInUse { .. }) => {}
            started => return started,
        }
    }
    Server::start(Arc::clone(core), options)
}

/// The address of a broker that runs on this folder, in this or another process; `None` when none does.
pub fn running_at(dir: &Path) -> Option<SocketAddr> {
    let address = disk::remembered_listener(dir)?;
    let cluster_id = disk::remembered_cluster_id(dir)?;
    // A folder that was copied from another machine may name an address of that one. Only an address of this machine
    // can be bound.
    UdpSocket::bind((address.ip(), 0)).ok()?;
    // The port may be another program's by now: only this folder's broker knows this cluster id.
    let stream = TcpStream::connect_timeout(&address, ASK_TIMEOUT).ok()?;
    stream.set_read_timeout(Some(ASK_TIMEOUT)).ok()?;
    stream.set_write_timeout(Some(ASK_TIMEOUT)).ok()?;
    (wire::ask_cluster_id(stream)? == cluster_id).then_some(address)
}

#[cfg(test)]
mod tests;
