//! The versions of an application on this host: which one it runs, what the versions topic says, and the way from one
//! to the other. Whoever deploys, goes back or hears of it from another host comes through here, one at a time. Swaps
//! by telling the engine which version is wanted; where that is not enough, has the application start again in the same
//! process. A host that cannot run the active version ends the application rather than run another one.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use engine::clock::Clock;
use engine::processor::ProcessorSupplier;
use engine::topology::change::{self, Change, ChangeKind as TopologyChange};
use engine::version::{Probation, Versions};
use kafka::KafkaClients;
use serde_json::json;

use super::clock::HostClock;
use super::generations;
use super::loader::{Loaded, Loader};
use super::status::Status;
use super::stop::Stop;
use crate::config::Manifest;
use crate::terminal::Terminal;
use crate::versions::{
    Active, AppendError, ChangeKind, Entry, LogError, Revision, Version, VersionLog, VersionState, VersionTable,
};

mod converging;
mod deploying;
mod starting;

pub use deploying::{DeployError, DeployRequest, Deployed, RollbackRequest};
pub use starting::{Opening, OwnModule, Start, open};

/// How often the topic is looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);

/// See the module's head.
pub struct Deployments {
    application_id: String,
    /// This host, as the topic names it.
    host: String,
    /// What this host was started with, before any version is applied to it.
    manifest: Manifest,
    loader: Loader,
    clients: Arc<KafkaClients>,
    /// The state directory of the application.
    folder: PathBuf,
    is_embedded: bool,
    stop: Stop,
    status: Arc<Status>,
    terminal: Terminal,
    clock: HostClock,
    log: Mutex<VersionLog>,
    /// What that has read, for whoever must not wait for the broker.
    table: Mutex<Arc<VersionTable>>,
    state: Mutex<State>,
    /// Held by a deployment or rollback: another one is refused meanwhile.
    deploying: Mutex<()>,
    /// Held by whoever changes what runs, a deployment or what the topic says.
    changing: Mutex<()>,
    /// Trouble with the topic was told, and has not ended since.
    is_troubled: AtomicBool,
}

#[derive(Default)]
struct State {
    running: Option<Arc<Running>>,
    /// What ran last, where its threads have ended.
    ended: Option<Arc<Running>>,
    /// Its operator lets it process nothing.
    is_paused: bool,
    /// What the application is to start again with.
    next: Option<Start>,
    /// Why it cannot go on.
    failure: Option<anyhow::Error>,
}

/// What the threads of the application run.
struct Running {
    versions: Arc<Versions>,
    /// Ends the threads.
    stop: Stop,
    target: Mutex<Target>,
}

impl Running {
    /// What a version could go back to that takes over from the one of this host, as `Versions` has it too. `is_kept`
    /// where that one was not given up by another host.
    fn former(&self, number: u64, is_kept: bool) -> Vec<Former> {
        let target = lock(&self.target).clone();
        let mut former = target.former;
        if !is_kept || self.versions.is_given_up() {
            former.retain(|former| former.number < number);
            return former;
        }
        let on_probation = self.versions.is_on_probation();
        former.retain(|former| on_probation && !former.on_probation);
        former.push(Former { number: target.number, loaded: target.loaded, on_probation });
        former
    }

    /// Whether the version that is wanted goes back by itself when it fails, and not at once for the second time.
    fn may_go_back(&self) -> bool {
        self.versions.is_on_probation() && !lock(&self.target).former.is_empty()
    }
}

/// A version that another one has taken over from.
#[derive(Clone)]
pub struct Former {
    pub number: u64,
    pub loaded: Arc<Loaded>,
    /// It is again, when it is gone back to.
    pub on_probation: bool,
}

/// The version that is wanted, with what is kept to go back.
#[derive(Clone)]
struct Target {
    number: u64,
    loaded: Arc<Loaded>,
    since: Instant,
    /// What it goes back to, the last one first.
    former: Vec<Former>,
    /// All tasks were seen with it.
    is_told: bool,
    /// It was given up, and its rows are nothing that another one could go on with.
    stands_still: bool,
}

impl Target {
    fn new(number: u64, loaded: Arc<Loaded>, former: Vec<Former>) -> Self {
        Self { number, loaded, since: Instant::now(), former, is_told: false, stands_still: false }
    }
}

/// What the topic says of a version beside the version itself.
#[derive(Debug, Clone, Copy, Default)]
struct Before {
    /// What a rollback goes to.
    previous: Option<u64>,
    /// The last confirmed one, where the previous one is not.
    confirmed_before: Option<u64>,
    is_confirmed: bool,
}

impl Before {
    fn of(former: &[Former], is_confirmed: bool) -> Self {
        match former {
            [] => Self { is_confirmed, ..Self::default() },
            [first, .., last] => {
                Self { previous: Some(last.number), confirmed_before: Some(first.number), is_confirmed }
            }
            [only] => Self { previous: Some(only.number), confirmed_before: None, is_confirmed },
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Deployments {
    /// The versions as the topic has them.
    pub fn table(&self) -> Arc<VersionTable> {
        Arc::clone(&lock(&self.table))
    }

    /// Reads what the topic has got since.
    fn refresh(&self) -> Result<(), LogError> {
        let mut log = lock(&self.log);
        let refreshed = log.refresh();
        *lock(&self.table) = Arc::clone(log.table());
        refreshed.map(drop)
    }

    /// The number of the version that this host wants its tasks to run.
    pub fn target_number(&self) -> Option<u64> {
        self.running().map(|running| running.versions.target_number())
    }

    /// Whether that is on probation.
    pub fn is_on_probation(&self) -> bool {
        self.running().is_some_and(|running| running.versions.is_on_probation())
    }

    /// Lets the tasks of this host stand still, or go on, also after they were started anew in this process. False
    /// while they are not there.
    pub fn pause(&self, paused: bool) -> bool {
        let mut state = lock(&self.state);
        let Some(running) = state.running.clone() else { return false };
        state.is_paused = paused;
        running.versions.pause(paused);
        drop(state);
        lock(&running.target).stands_still &= paused;
        let (event, text) = match paused {
            true => ("paused", "paused: nothing is processed on this host until it is resumed"),
            false => ("unpaused", "resumed"),
        };
        self.terminal.notice(event, text, json!({}));
        true
    }

    /// Whether the operator of this host wants that.
    pub fn is_paused(&self) -> bool {
        lock(&self.state).is_paused
    }

    /// Why the tasks of this host stand still until another version is deployed; `None` where they do not.
    pub fn given_up(&self) -> Option<String> {
        let running = self.running().filter(|running| running.versions.is_given_up())?;
        running.versions.rolled_back().map(|back| format!("version {} was given up: {}", back.number, back.reason))
    }

    /// Whether a failure of what runs is not the end of the application: an earlier version takes over.
    pub fn may_return(&self) -> bool {
        self.running().is_some_and(|running| running.may_go_back())
    }

    /// Ends the application on this host, in good order.
    pub fn stop(&self) {
        self.stop.raise();
    }

    /// Whether the application ends only to start again.
    pub fn is_restarting(&self) -> bool {
        lock(&self.state).next.is_some()
    }

    fn running(&self) -> Option<Arc<Running>> {
        lock(&self.state).running.clone()
    }

    fn now_ms(&self) -> i64 {
        self.clock.wall_clock_ms()
    }

    /// The bounds by which a version is judged after it has taken over.
    fn probation(&self, manifest: &Manifest) -> Probation {
        let factor = manifest.count("probation.output.factor");
        Probation { failures_max: manifest.count("probation.failures.max"), output_factor: factor as f64 }
    }

    /// Has the tasks go over to a version: by a swap where the topology and the settings of the threads are the same,
    /// by a restart of the threads otherwise.
    fn switch_to(&self, running: &Running, number: u64, loaded: Arc<Loaded>, kind: ChangeKind, on_probation: bool) {
        for _ in 0..converging::CONFLICTS_MAX {
            // Threads go back by themselves whenever they must: what they have is where the new version begins.
            if let Err(error) = self.hear(running) {
                self.tell_trouble(&format!("{error:#}"));
            }
            let before = lock(&running.target).number;
            let state = { self.table() }.version(before).map(Version::state);
            let is_kept = state != Some(VersionState::RolledBack);
            let former = running.former(number, is_kept);
            if kind != ChangeKind::Swap {
                self.restart(running, Start { number, loaded, former, on_probation });
                return;
            }
            let probation = on_probation.then(|| self.probation(&loaded.manifest));
            if running.versions.deploy_after(before, loaded.version(number), probation, is_kept) {
                *lock(&running.target) = Target::new(number, Arc::clone(&loaded), former);
                // What stood still for want of another version goes on with this one, unless its operator wants
                // otherwise.
                if lock(&self.state).is_paused {
                    running.versions.pause(true);
                }
                self.show_module(&loaded);
                return;
            }
        }
        self.fail(
            running,
            anyhow!("version {number} cannot take over: the tasks run one that this host does not know of"),
        );
    }

    /// Tells whoever asks for the application what it runs now.
    fn show_module(&self, loaded: &Loaded) {
        let (digest, usage) = (loaded.digest.to_string(), Arc::clone(loaded.supplier.usage()));
        self.status.rewire(|wired| {
            wired.module_digest = Some(digest);
            wired.usage = Some(usage);
        });
    }

    fn restart(&self, running: &Running, start: Start) {
        let number = start.number;
        if !self.of_life(running, |state| state.next = Some(start)) {
            return;
        }
        let text = format!("version {number} has other topics, stores or settings: starting the application again");
        self.terminal.notice("restarting", &text, json!({ "version": number }));
        running.stop.raise();
    }

    /// The application cannot go on: this host leaves the group.
    fn fail(&self, running: &Running, error: anyhow::Error) {
        self.of_life(running, |state| state.failure = Some(error));
        running.stop.raise();
    }

    /// Changes the state while these threads are still what runs: they may have ended while something was looked at.
    fn of_life(&self, running: &Running, change: impl FnOnce(&mut State)) -> bool {
        let mut state = lock(&self.state);
        let is_current = state.running.as_ref().is_some_and(|current| std::ptr::eq(&raw const **current, running));
        if is_current {
            change(&mut state);
        }
        is_current
    }

    /// Whether a version that has taken rows over has changed nothing since that the one before would lack.
    fn may_go_back(&self, before: &Loaded, after: &Loaded) -> Result<bool> {
        if !has_migrated(before, after) {
            return Ok(true);
        }
        let counts = self.status.wired().map(|wired| Arc::clone(&wired.partition_counts)).unwrap_or_default();
        Ok(generations::has_current_rows(&self.clients, before.topology(), &counts)?)
    }

    /// Appends to the topic as it was when its table had this revision.
    fn append(&self, expected: Revision, entries: &[Entry]) -> Result<(), AppendError> {
        let mut log = lock(&self.log);
        let appended = log.append(expected, entries);
        *lock(&self.table) = Arc::clone(log.table());
        appended
    }

    /// Appends a new version with its module, as the active one.
    fn append_new(
        &self,
        expected: Revision,
        loaded: &Loaded,
        version: &Version,
        before: Before,
    ) -> Result<(), AppendError> {
        let active = self.active(version.number, before, &version.why);
        let module = Entry::Module(loaded.bytes.clone());
        self.append(expected, &[module, Entry::Version(version.clone()), Entry::Active(active)])
    }

    fn active(&self, number: u64, before: Before, why: &str) -> Active {
        let Before { previous, confirmed_before, is_confirmed } = before;
        let (when_ms, by, why) = (self.now_ms(), self.host.clone(), why.to_owned());
        Active { number, previous, confirmed_before, is_confirmed, when_ms, by, why }
    }

    /// Tells of trouble with the topic, once until it has ended.
    fn tell_trouble(&self, error: &dyn std::fmt::Display) {
        if !self.is_troubled.swap(true, Ordering::Relaxed) {
            tracing::warn!(application = self.application_id, %error, "cannot follow the versions topic");
        }
    }

    fn trouble_is_over(&self) {
        if self.is_troubled.swap(false, Ordering::Relaxed) {
            tracing::info!(application = self.application_id, "the versions topic can be followed again");
        }
    }
}

/// How a version differs from the one that runs.
///
/// # Errors
/// Every point that does not fit.
fn compare(old: &Loaded, new: &Loaded, dropped_stores: &[String]) -> Result<(ChangeKind, Change), Vec<String>> {
    let change = change::compare(old.topology(), new.topology(), new.supplier.can_migrate(), dropped_stores);
    let change = change.map_err(|points| points.iter().map(ToString::to_string).collect::<Vec<_>>())?;
    let same_threads = old.tables.change_to(&new.tables) == ChangeKind::Swap;
    // Tasks count their stores and sinks by their places in the declaration.
    let same_places = **old.topology() == **new.topology();
    let kind = match change.kind {
        // Where rows are to be taken over the places differ too: a schema's version is one of them.
        TopologyChange::Swap if same_threads && same_places => ChangeKind::Swap,
        TopologyChange::Swap | TopologyChange::Restart => ChangeKind::Restart,
    };
    Ok((kind, change))
}

/// Whether a version has taken rows over that the one before cannot read.
fn has_migrated(before: &Loaded, after: &Loaded) -> bool {
    compare(before, after, &dropped_of(before, after)).is_ok_and(|(_, change)| !change.migrations.is_empty())
}

/// The stores that a version does not have any more.
fn dropped_of(before: &Loaded, after: &Loaded) -> Vec<String> {
    let names = |loaded: &Loaded| -> Vec<String> {
        let stores = loaded.topology().sub_topologies.iter().flat_map(|part| &part.stores);
        stores.map(|store| store.name.to_string()).collect()
    };
    let kept = names(after);
    names(before).into_iter().filter(|store| !kept.contains(store)).collect()
}

/// Moves a version on, with a reason; a move that its table does not have is a defect of ours.
fn moved(mut version: Version, to: VersionState, when_ms: i64, reason: &str) -> Result<Version> {
    version.move_to(to, when_ms, reason).map_err(|error| anyhow!(error))?;
    Ok(version)
}
