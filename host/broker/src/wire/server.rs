//! Listens, starts a thread a connection, keeps the group clock and runs the cleaner. Owns every thread it starts:
//! `shutdown` ends them.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::park::{Alarm, FetchParks, GroupParks};
use super::{connection, handles};
use crate::core::Core;
use crate::core::group::Outcome;

/// How often idempotent producers that are long silent are forgotten.
const PRODUCER_EXPIRY_INTERVAL: Duration = Duration::from_secs(600);
/// How long something that is due and cannot be done is left alone.
const RETRY_INTERVAL: Duration = Duration::from_millis(100);
/// The least time between two storage errors in the log.
const STORAGE_ERROR_LOG_INTERVAL_MS: i64 = 5_000;
/// Requests decode without recursion; a small stack lets a thousand idle clients cost little.
const CONNECTION_STACK_BYTES: usize = 512 * 1024;

/// What the wire is told once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WireOptions {
    /// Loopback, unless the caller has made sure that everybody who can reach another address may do everything.
    pub listen: IpAddr,
    /// 0 = any free port.
    pub port: u16,
    /// `socket.request.max.bytes`.
    pub request_bytes_max: usize,
    /// More connections than this are closed at once.
    pub connections_max: usize,
    /// `connections.max.idle.ms`.
    pub idle_timeout: Duration,
    /// A client that takes no bytes, or stops inside of a request, for this long is cut off.
    pub stall_timeout: Duration,
    /// `auto.create.topics.enable`.
    pub auto_create_topics: bool,
    pub cluster_id: String,
    /// What tools are told as the folder of the records.
    pub log_dir: String,
}

impl Default for WireOptions {
    fn default() -> Self {
        Self {
            listen: IpAddr::V4(Ipv4Addr::LOCALHOST),
            port: 0,
            request_bytes_max: 104_857_600,
            connections_max: 2_000,
            idle_timeout: Duration::from_secs(600),
            stall_timeout: Duration::from_secs(30),
            auto_create_topics: false,
            cluster_id: String::from("sandbar"),
            log_dir: String::from("memory"),
        }
    }
}

/// Why the wire could not start.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    #[error("listen on {address}: the port is in use by another process; give another port, or 0 for any")]
    PortInUse { address: SocketAddr },
    #[error("listen on {}: no interface of this machine has this address", address.ip())]
    NotHere { address: SocketAddr },
    #[error("listen on {address}")]
    Listen { address: SocketAddr, source: io::Error },
    #[error("start a thread of the broker")]
    Thread(#[source] io::Error),
}

/// What all connections share.
pub(super) struct Shared {
    pub core: Arc<Core>,
    pub options: WireOptions,
    pub address: SocketAddr,
    pub fetches: FetchParks,
    pub groups: GroupParks,
    pub group_clock: Alarm,
    /// Wakes the cleaner to stop.
    cleaner_clock: Alarm,
    pub stopping: AtomicBool,
    /// When a storage error was logged last, in milliseconds of the group clock.
    storage_error_logged_ms: AtomicI64,
    /// When the broker started, by both clocks.
    started: (Instant, i64),
    connections: Mutex<BTreeMap<u64, Arc<TcpStream>>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn wall_clock_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
}

impl Shared {
    pub fn new(core: Arc<Core>, options: WireOptions, address: SocketAddr) -> Self {
        Self {
            core,
            options,
            address,
            fetches: FetchParks::default(),
            groups: GroupParks::default(),
            group_clock: Alarm::default(),
            cleaner_clock: Alarm::default(),
            stopping: AtomicBool::new(false),
            storage_error_logged_ms: AtomicI64::new(i64::MIN),
            started: (Instant::now(), wall_clock_ms()),
            connections: Mutex::new(BTreeMap::new()),
        }
    }

    /// Milliseconds since the epoch.
    pub fn now_ms(&self) -> i64 {
        wall_clock_ms()
    }

    /// The same by a clock that never jumps, so that sessions do not end because somebody set the time.
    pub fn group_now_ms(&self) -> i64 {
        self.started.1.saturating_add(self.started.0.elapsed().as_millis() as i64)
    }

    /// Lets one storage error in a while through to the log: on a full disk every retry of every producer fails.
    pub fn may_log_storage_error(&self) -> bool {
        let now_ms = self.group_now_ms();
        let last_ms = self.storage_error_logged_ms.load(Ordering::Relaxed);
        if now_ms < last_ms.saturating_add(STORAGE_ERROR_LOG_INTERVAL_MS) {
            return false;
        }
        let taken =
            self.storage_error_logged_ms.compare_exchange(last_ms, now_ms, Ordering::Relaxed, Ordering::Relaxed);
        taken.is_ok()
    }

    /// Hands out the answers of a group call and lets the group clock look at its deadlines again.
    pub fn deliver(&self, outcome: Outcome) {
        self.groups.deliver(outcome);
        self.group_clock.ring();
    }

    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }
}

/// A listening broker.
pub struct Server {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("address", &self.shared.address).finish_non_exhaustive()
    }
}

impl Server {
    /// Listens and serves until `shutdown`.
    pub fn start(core: Arc<Core>, mut options: WireOptions) -> Result<Self, ServerError> {
        let allowed = handles::connections_allowed(options.connections_max, handles::raise_limit());
        if allowed < options.connections_max {
            tracing::warn!(
                wanted = options.connections_max,
                allowed,
                "the limit of open files (ulimit -n) allows fewer connections than the broker's options"
            );
            options.connections_max = allowed;
        }
        let address = SocketAddr::new(options.listen, options.port);
        let listener = TcpListener::bind(address).map_err(|source| match source.kind() {
            io::ErrorKind::AddrInUse => ServerError::PortInUse { address },
            io::ErrorKind::AddrNotAvailable => ServerError::NotHere { address },
            _ => ServerError::Listen { address, source },
        })?;
        let address = listener.local_addr().map_err(|source| ServerError::Listen { address, source })?;
        let shared = Arc::new(Shared::new(core, options, address));
        let mut server = Self { shared, threads: Vec::new() };
        let shared = Arc::clone(&server.shared);
        server.spawn("broker-groups", move || keep_group_clock(&shared))?;
        let shared = Arc::clone(&server.shared);
        server.spawn("broker-cleaner", move || keep_clean(&shared))?;
        let shared = Arc::clone(&server.shared);
        server.spawn("broker-accept", move || accept(&shared, &listener))?;
        Ok(server)
    }

    fn spawn(&mut self, name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), ServerError> {
        let thread = std::thread::Builder::new().name(name.into()).spawn(work).map_err(ServerError::Thread)?;
        self.threads.push(thread);
        Ok(())
    }

    /// Where a client on this machine connects.
    pub fn address(&self) -> SocketAddr {
        reachable(self.shared.address)
    }

    /// Stops listening, closes every connection and waits for the threads.
    pub fn shutdown(&mut self) {
        if self.shared.stopping.swap(true, Ordering::SeqCst) {
            return;
        }
        self.shared.group_clock.ring();
        self.shared.cleaner_clock.ring();
        // The accepting thread sleeps in `accept`: a connection wakes it.
        drop(TcpStream::connect_timeout(&self.address(), Duration::from_secs(1)));
        for thread in self.threads.drain(..) {
            drop(thread.join());
        }
        self.shared.fetches.notify_all();
        self.shared.groups.abandon_all();
        for stream in locked(&self.shared.connections).values() {
            drop(stream.shutdown(Shutdown::Both));
        }
        // Connection threads are detached; each leaves the table as its last act.
        let deadline = Instant::now() + Duration::from_secs(5);
        while !locked(&self.shared.connections).is_empty() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// The address in its form for clients of this machine: one that stands for every interface is none to connect to.
fn reachable(listening: SocketAddr) -> SocketAddr {
    let ip = match listening.ip() {
        ip if !ip.is_unspecified() => ip,
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
    };
    SocketAddr::new(ip, listening.port())
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shutdown();
    }
}

fn accept(shared: &Arc<Shared>, listener: &TcpListener) {
    let mut number = 0u64;
    loop {
        let accepted = listener.accept();
        if shared.is_stopping() {
            return;
        }
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file handles, or the client was gone already: go on, but not in a hot loop.
                tracing::warn!(%error, "the broker could not accept a connection");
                std::thread::sleep(Duration::from_millis(50));
                continue;
            }
        };
        number += 1;
        if let Err(error) = begin(shared, number, stream, peer) {
            tracing::warn!(%error, %peer, "the broker refused a connection");
        }
    }
}

fn begin(shared: &Arc<Shared>, number: u64, stream: TcpStream, peer: SocketAddr) -> io::Result<()> {
    let present = locked(&shared.connections).len();
    if present >= shared.options.connections_max {
        return Err(io::Error::other(format!("{present} connections are open, the most that are allowed")));
    }
    stream.set_nodelay(true)?;
    stream.set_write_timeout(Some(shared.options.stall_timeout))?;
    stream.set_read_timeout(Some(shared.options.stall_timeout))?;
    let stream = Arc::new(stream);
    locked(&shared.connections).insert(number, Arc::clone(&stream));
    let entry = Entry { shared: Arc::clone(shared), number };
    let name = format!("broker-{number}");
    // When the thread cannot start, its closure is dropped and with it the entry.
    std::thread::Builder::new().name(name).stack_size(CONNECTION_STACK_BYTES).spawn(move || {
        let entry = entry;
        connection::serve(&entry.shared, stream, peer);
    })?;
    Ok(())
}

/// A connection's place in the table; leaves it when its thread ends, however it ends.
struct Entry {
    shared: Arc<Shared>,
    number: u64,
}

impl Drop for Entry {
    fn drop(&mut self) {
        locked(&self.shared.connections).remove(&self.number);
    }
}

/// Closes, removes and compacts segments. A thread of its own, since sessions must not wait for it.
fn keep_clean(shared: &Shared) {
    while !shared.is_stopping() {
        let now_ms = shared.now_ms();
        let cleaning = shared.core.clean(now_ms);
        for error in &cleaning.errors {
            if shared.may_log_storage_error() {
                tracing::warn!(%error, "a log could not be cleaned; it is tried again");
            }
        }
        if cleaning.next_ms > now_ms {
            let wait = Duration::from_millis((cleaning.next_ms - now_ms) as u64);
            shared.cleaner_clock.sleep_until(Instant::now() + wait);
        }
    }
}

/// Expires sessions, rebalances and transactions, exactly when the next one is due.
fn keep_group_clock(shared: &Shared) {
    let mut expire_at = Instant::now() + PRODUCER_EXPIRY_INTERVAL;
    tick(shared);
    while !shared.is_stopping() {
        let now_ms = shared.group_now_ms();
        let due_ms = next_deadline(shared);
        if due_ms.is_some_and(|due_ms| due_ms <= now_ms) {
            tick(shared);
            // Guards against a hot loop where a deadline stays in the past: a transaction that waits for the disk.
            if next_deadline(shared).is_some_and(|due_ms| due_ms <= now_ms) {
                shared.group_clock.sleep_until(Instant::now() + RETRY_INTERVAL);
            }
            continue;
        }
        if Instant::now() >= expire_at {
            shared.core.expire_producers(shared.now_ms());
            tick(shared);
            expire_at = Instant::now() + PRODUCER_EXPIRY_INTERVAL;
        }
        let wait_ms = due_ms.map_or(i64::MAX, |due_ms| due_ms - now_ms).min(60_000);
        let wait = Instant::now() + Duration::from_millis(wait_ms.max(1) as u64);
        shared.group_clock.sleep_until(wait.min(expire_at));
    }
}

fn next_deadline(shared: &Shared) -> Option<i64> {
    [shared.core.next_group_deadline(), shared.core.next_transaction_deadline()].into_iter().flatten().min()
}

fn tick(shared: &Shared) {
    let now_ms = shared.group_now_ms();
    shared.groups.deliver(shared.core.tick_groups(now_ms));
    for (topic, partition) in shared.core.tick_transactions(now_ms) {
        shared.fetches.notify(topic, partition);
    }
}
