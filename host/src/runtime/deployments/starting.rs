//! Which version an application starts with: the active one of the versions topic. What this host's own manifest names
//! is deployed when the topic does not know it, as with a new jar of a Kafka Streams application, and is left alone
//! when it is an older version.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use engine::broker::ClientSupplier;
use engine::version::Versions;
use kafka::KafkaClients;
use serde_json::json;

use super::converging::Back;
use super::deploying::DeployError;
use super::{Before, Deployments, Former, Running, State, Target, compare, dropped_of, lock, moved};
use crate::exit;
use crate::runtime::clock::HostClock;
use crate::runtime::loader::{Loaded, Loader};
use crate::runtime::retrying::until_answered;
use crate::runtime::status::Status;
use crate::runtime::stop::Stop;
use crate::terminal::Terminal;
use crate::versions::{
    AppendError, ChangeKind, LogError, ModuleDigest, NewVersion, Version, VersionLog, VersionLogOptions, VersionState,
    VersionTable,
};

/// What the threads of an application are to be started with.
pub struct Start {
    pub number: u64,
    pub loaded: Arc<Loaded>,
    /// What it goes back to, the last one first.
    pub former: Vec<Former>,
    pub on_probation: bool,
}

/// When the module that a host's manifest names is to run in place of the active one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OwnModule {
    /// When it was never deployed, as a new jar would.
    #[default]
    New,
    /// Its file has changed since the application ended: as a deployment, so not where it was taken back.
    Changed,
    /// Its operator says so, whatever ran before; stores that it does not have are let go.
    Always,
}

/// What `open` needs to know.
pub struct Opening<'a> {
    pub clients: &'a Arc<KafkaClients>,
    /// The state directory of the application.
    pub folder: PathBuf,
    pub is_embedded: bool,
    pub host: &'a str,
    pub own_module: OwnModule,
    pub status: &'a Arc<Status>,
    pub stop: &'a Stop,
    pub terminal: Terminal,
}

/// Reads the versions topic and decides what this host starts with. `None` when the wish to stop came first.
///
/// # Errors
/// When the topic cannot be read, or the version cannot be run.
pub fn open(own: Loaded, loader: Loader, opening: &Opening<'_>) -> Result<Option<(Arc<Deployments>, Start)>> {
    let Opening { clients, folder, is_embedded, host, own_module, status, stop, terminal } = opening;
    let manifest = own.manifest.clone();
    let Some(log) = open_log(&own, clients, stop)? else { return Ok(None) };
    let deployments = Deployments {
        application_id: manifest.application_id().to_owned(),
        host: (*host).to_owned(),
        manifest,
        loader,
        clients: Arc::clone(clients),
        folder: folder.clone(),
        is_embedded: *is_embedded,
        stop: (*stop).clone(),
        status: Arc::clone(status),
        terminal: *terminal,
        clock: HostClock::default(),
        table: Mutex::new(Arc::clone(log.table())),
        log: Mutex::new(log),
        state: Mutex::new(State::default()),
        deploying: Mutex::default(),
        changing: Mutex::default(),
        is_troubled: Default::default(),
    };
    let Some(start) = deployments.first(Arc::new(own), *own_module)? else { return Ok(None) };
    Ok(Some((Arc::new(deployments), start)))
}

/// The log, tried again while the broker asks for it.
fn open_log(own: &Loaded, clients: &Arc<KafkaClients>, stop: &Stop) -> Result<Option<VersionLog>> {
    let manifest = &own.manifest;
    let options = VersionLogOptions {
        application_id: manifest.application_id().to_owned(),
        replication_factor: i32::try_from(manifest.integer("replication.factor")).unwrap_or(-1),
        timeout: Duration::from_millis(manifest.count("request.timeout.ms")),
        clock: Arc::new(HostClock::default()),
    };
    until_answered(manifest, stop, "read the versions of the application", LogError::is_retriable, || {
        let clients: Arc<dyn ClientSupplier> = Arc::clone(clients) as _;
        VersionLog::open(clients, options.clone())
    })
}

impl Deployments {
    /// What to start with, written down where it is new.
    fn first(&self, own: Arc<Loaded>, own_module: OwnModule) -> Result<Option<Start>> {
        for _ in 0..super::converging::CONFLICTS_MAX {
            let table = self.table();
            let Some(active) = table.active_version()? else {
                let version = self.new_version(1, &own, ChangeKind::Restart)?;
                match self.write_first(&own, version, Before { is_confirmed: true, ..Before::default() })? {
                    true => return Ok(Some(Start { number: 1, loaded: own, former: Vec::new(), on_probation: false })),
                    false => continue,
                }
            };
            if active.is_same(&own.digest, &own.tables) {
                return self.start_active(active, Some(own));
            }
            let known = known(&table, &own, active);
            let was_taken_back = known.is_some_and(|known| known.state() == VersionState::RolledBack);
            let is_wanted = match own_module {
                OwnModule::Always => true,
                OwnModule::Changed => !was_taken_back,
                OwnModule::New => false,
            };
            if is_wanted {
                let drops_stores = own_module == OwnModule::Always;
                match self.deploy_whatever_ran(active, Arc::clone(&own), drops_stores)? {
                    Some(start) => return Ok(Some(start)),
                    None => continue,
                }
            }
            if let Some(known) = known {
                self.tell_other(known, &own, active);
                return self.start_active(active, None);
            }
            let Some(running) = self.load_version(active)? else { return Ok(None) };
            match self.deploy_at_start(active, running, Arc::clone(&own))? {
                Some(start) => return Ok(Some(start)),
                None => continue,
            }
        }
        bail!("other hosts write to the versions topic all the time")
    }

    /// The module of this host's manifest was never deployed. `None` when another host was faster.
    fn deploy_at_start(&self, active: &Version, running: Arc<Loaded>, own: Arc<Loaded>) -> Result<Option<Start>> {
        let (kind, change) = compare(&running, &own, &[]).map_err(|points| {
            anyhow!(DeployError::Incompatible { running: active.number, points })
                .context(format!("{} cannot take over", self.manifest.path.display()))
        })?;
        if kind == ChangeKind::Restart {
            self.check_restart(&running, &own, &change)?;
        }
        let number = self.table().next_number();
        let version = self.new_version(number, &own, kind)?;
        // Other settings of the same module are what its operator has just chosen: nothing is to take them back.
        let is_other = own.digest != running.digest;
        let former = if is_other { self.former_at_start(active, running) } else { Vec::new() };
        if !self.write_first(&own, version, Before::of(&former, !is_other))? {
            return Ok(None);
        }
        let text = format!("{} is new: it is version {number} from now on", self.manifest.path.display());
        self.terminal.notice("version", &text, json!({ "version": number, "by": self.host }));
        Ok(Some(Start { number, loaded: own, former, on_probation: is_other }))
    }

    /// The module of this host's manifest is to run, as its operator says, also where it ran before or the active one
    /// cannot be run. `None` when another host was faster.
    fn deploy_whatever_ran(&self, active: &Version, own: Arc<Loaded>, drops_stores: bool) -> Result<Option<Start>> {
        let mut kind = ChangeKind::Restart;
        match self.load_version(active) {
            Ok(None) => return Ok(None),
            Ok(Some(running)) => {
                // As with a way back, what the other one does not have is let go.
                let dropped = if drops_stores { dropped_of(&running, &own) } else { Vec::new() };
                let compared = compare(&running, &own, &dropped);
                let (compared, change) = compared.map_err(|points| {
                    anyhow!(DeployError::Incompatible { running: active.number, points })
                        .context(format!("{} cannot take over", self.manifest.path.display()))
                })?;
                kind = compared;
                if kind == ChangeKind::Restart {
                    self.check_restart(&running, &own, &change)?;
                }
            }
            Err(error) if error.downcast_ref::<LogError>().is_some_and(LogError::is_retriable) => return Err(error),
            // What cannot be loaded cannot be compared; the rows say for themselves whether they can be read.
            Err(error) => {
                tracing::warn!(version = active.number, error = format!("{error:#}"), "cannot be compared with");
            }
        }
        let number = self.table().next_number();
        let version = self.new_version(number, &own, kind)?;
        if !self.write_first(&own, version, Before { is_confirmed: true, ..Before::default() })? {
            return Ok(None);
        }
        let before = active.number;
        let text = format!("{} is version {number} from now on, in place of {before}", self.manifest.path.display());
        self.terminal.notice("version", &text, json!({ "version": number, "by": self.host }));
        Ok(Some(Start { number, loaded: own, former: Vec::new(), on_probation: false }))
    }

    /// What this host's manifest names ran before, and something else is active.
    fn tell_other(&self, known: &Version, own: &Loaded, active: &Version) {
        let (number, active) = (known.number, active.number);
        let what = match known.is_same(&own.digest, &own.tables) {
            true => format!("is version {number} of the application"),
            false => format!("has the module of version {number} of the application, with other settings"),
        };
        let text = format!(
            "{} {what}; version {active} is active and runs instead; `sandbar run --deploy`, or `sandbar deploy` while \
             it runs, has this one run",
            self.manifest.path.display()
        );
        self.terminal.notice("other-version", &text, json!({ "own": number, "active": active }));
    }

    /// The active version, with what a rollback goes to while its probation lasts.
    fn start_active(&self, active: &Version, own: Option<Arc<Loaded>>) -> Result<Option<Start>> {
        let loaded = match own {
            Some(own) => own,
            None => match self.load_version(active)? {
                Some(loaded) => loaded,
                None => return Ok(None),
            },
        };
        let table = self.table();
        let said = table.active().filter(|said| !said.is_confirmed);
        let mut former = Vec::new();
        let confirmed = said.and_then(|said| said.confirmed_before.or(said.previous));
        former.extend(confirmed.and_then(|number| self.load_former(number, false)));
        let other = said.filter(|said| said.confirmed_before.is_some()).and_then(|said| said.previous);
        former.extend(other.and_then(|number| self.load_former(number, true)));
        if self.stop.is_raised() {
            return Ok(None);
        }
        let on_probation = !former.is_empty();
        Ok(Some(Start { number: active.number, loaded, former, on_probation }))
    }

    /// What a version that takes over from the active one at a start could go back to.
    fn former_at_start(&self, active: &Version, running: Arc<Loaded>) -> Vec<Former> {
        let table = self.table();
        let said = table.active().filter(|said| said.number == active.number && !said.is_confirmed);
        let confirmed = said.and_then(|said| said.confirmed_before.or(said.previous));
        let mut former: Vec<Former> =
            confirmed.and_then(|number| self.load_former(number, false)).into_iter().collect();
        former.push(Former { number: active.number, loaded: running, on_probation: said.is_some() });
        former
    }

    /// A version that could be gone back to; one that cannot be loaded is none, with a word in the log.
    fn load_former(&self, number: u64, on_probation: bool) -> Option<Former> {
        let table = self.table();
        match self.load_version(table.version(number)?) {
            Ok(loaded) => loaded.map(|loaded| Former { number, loaded, on_probation }),
            Err(error) => {
                tracing::warn!(version = number, error = format!("{error:#}"), "cannot be returned to");
                None
            }
        }
    }

    fn new_version(&self, number: u64, own: &Loaded, kind: ChangeKind) -> Result<Version> {
        let now_ms = self.now_ms();
        let version = Version::new(NewVersion {
            number,
            module: ModuleDigest::of(&own.bytes),
            manifest: own.tables.clone(),
            who: self.host.clone(),
            when_ms: now_ms,
            why: format!("started with {}", self.manifest.path.display()),
            kind,
            signature: own.signature.as_ref().map(|signature| signature.to_string()),
        });
        let version = moved(version, VersionState::Ready, now_ms, "")?;
        moved(version, VersionState::Swapping, now_ms, "")
    }

    /// False when another host was faster.
    fn write_first(&self, own: &Loaded, version: Version, before: Before) -> Result<bool> {
        match self.append_new(self.table().revision(), own, &version, before) {
            Ok(()) => Ok(true),
            Err(AppendError::Conflict { .. }) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// What the engine's threads are to ask for their version, from now on that of this start.
    pub fn begin(&self, start: &Start, stop: &Stop) -> Arc<Versions> {
        let Start { number, loaded, former, on_probation } = start;
        // One with other topics, stores or settings of the threads cannot be returned to by a swap.
        let is_alike = |other: &Loaded| matches!(compare(other, loaded, &[]), Ok((ChangeKind::Swap, _)));
        let others = former.iter().rev().take_while(|former| *on_probation && is_alike(&former.loaded)).count();
        let former_alike = former[former.len() - others..].iter();
        let mut all = former_alike
            .map(|former| (former.number, &former.loaded, former.on_probation))
            .chain([(*number, loaded, *on_probation)])
            .map(|(number, loaded, on_probation)| {
                (loaded.version(number), on_probation.then(|| self.probation(&loaded.manifest)))
            });
        let versions = match all.next() {
            Some((version, Some(probation))) => Versions::on_probation(version, probation),
            Some((version, None)) => Versions::new(version),
            // There is one at least.
            None => Versions::new(loaded.version(*number)),
        };
        all.for_each(|(version, probation)| versions.deploy(version, probation));
        let versions = Arc::new(versions);
        let target = Target { is_told: !on_probation, ..Target::new(*number, Arc::clone(loaded), former.clone()) };
        let running = Running { versions: Arc::clone(&versions), stop: stop.clone(), target: Mutex::new(target) };
        let mut state = lock(&self.state);
        versions.pause(state.is_paused);
        state.running = Some(Arc::new(running));
        versions
    }

    /// The threads have ended.
    pub fn end(&self) {
        let mut state = lock(&self.state);
        state.ended = state.running.take();
    }

    /// What comes after a life of the threads: another one, or nothing. A version
    /// that could not be started is taken back, where there is one to go back to that can read its rows.
    ///
    /// # Errors
    /// Why the application has ended.
    pub fn after(&self, result: Result<()>) -> Result<Option<Start>> {
        let (next, failure, ended) = {
            let mut state = lock(&self.state);
            (state.next.take(), state.failure.take(), state.ended.take())
        };
        if let Some(failure) = failure {
            return Err(failure);
        }
        let Err(error) = result else { return Ok(next) };
        if let Some(next) = next {
            tracing::warn!(
                error = format!("{error:#}"),
                "the threads failed while another version was about to take over"
            );
            return Ok(Some(next));
        }
        let may_go_back = |ended: &Arc<Running>| ended.may_go_back() && !self.stop.is_raised() && is_of_version(&error);
        let Some(ended) = ended.filter(may_go_back) else { return Err(error) };
        let Target { number, loaded, mut former, is_told, .. } = lock(&ended.target).clone();
        // What failed later than at its start was judged by the threads, and what they have given up by themselves is
        // for the next start to find out.
        let was_starting = !is_told && ended.versions.target_number() == number;
        let Some(before) = former.pop().filter(|_| was_starting) else { return Err(error) };
        match self.may_go_back(&before.loaded, &loaded) {
            Ok(true) => {}
            Ok(false) => return Err(error),
            Err(why) => return Err(error.context(format!("and nobody can say whether it may go back: {why:#}"))),
        }
        let reason = format!("it could not be started: {error:#}");
        self.tell_rollback(number, before.number, &reason);
        self.write_rollback(number, &Back::to(&before, &former), &reason).context(reason)?;
        let Former { number, loaded, on_probation } = before;
        Ok(Some(Start { number, loaded, former, on_probation }))
    }
}

/// Whether another version could fare better: not where the broker, the disk or an address is the reason.
fn is_of_version(error: &anyhow::Error) -> bool {
    ![exit::BROKER, exit::STATE, exit::ADDRESS].contains(&exit::number_of(error))
}

/// The version that has this host's module, if it ran before: the same settings first. Other settings of the active one
/// are new, whoever had others of an older one.
fn known<'a>(table: &'a VersionTable, own: &Loaded, active: &Version) -> Option<&'a Version> {
    let same = table.find(&own.digest, &own.tables);
    let of_module = || table.versions().values().rev().find(|version| version.module == own.digest);
    same.or_else(|| of_module().filter(|_| active.module != own.digest))
}
