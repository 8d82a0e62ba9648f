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

/// What `open` needs to know.
pub struct Opening<'a> {
    pub clients: &'a Arc<KafkaClients>,
    /// The state directory of the application.
    pub folder: PathBuf,
    pub is_embedded: bool,
    pub host: &'a str,
    /// What this host's manifest names is to run, whatever did before.
    pub deploys_own: bool,
    pub status: &'a Arc<Status>,
    pub stop: &'a Stop,
    pub terminal: Terminal,
}

/// Reads the versions topic and decides what this host starts with. `None` when the wish to stop came first.
///
/// # Errors
/// When the topic cannot be read, or the version cannot be run.
pub fn open(own: Loaded, loader: Loader, opening: &Opening<'_>) -> Result<Option<(Arc<Deployments>, Start)>> {
    let Opening { clients, folder, is_embedded, host, deploys_own, status, stop, terminal } = opening;
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
    let Some(start) = deployments.first(Arc::new(own), *deploys_own)? else { return Ok(None) };
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
    fn first(&self, own: Arc<Loaded>, deploys_own: bool) -> Result<Option<Start>> {
        for _ in 0..super::converging::CONFLICTS_MAX {
            let table = self.table();
            let Some(active) = table.active_version()? else {
                let version = self.new_version(1, &own, ChangeKind::Restart)?;
                match self.write_first(&own, version, Before { previous: None, is_confirmed: true })? {
                    true => return Ok(Some(Start { number: 1, loaded: own, former: Vec::new(), on_probation: false })),
                    false => continue,
                }
            };
            if active.is_same(&own.digest, &own.tables) {
                return self.start_active(active, Some(own));
            }
            if deploys_own {
                match self.deploy_whatever_ran(active, Arc::clone(&own))? {
                    Some(start) => return Ok(Some(start)),
                    None => continue,
                }
            }
            if let Some(known) = known(&table, &own, active) {
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
        let former = Former { number: active.number, loaded: running, on_probation: false };
        let former = if is_other { vec![former] } else { Vec::new() };
        let previous = former.last().map(|former| former.number);
        if !self.write_first(&own, version, Before { previous, is_confirmed: !is_other })? {
            return Ok(None);
        }
        let text = format!("{} is new: it is version {number} from now on", self.manifest.path.display());
        self.terminal.notice("version", &text, json!({ "version": number, "by": self.host }));
        Ok(Some(Start { number, loaded: own, former, on_probation: is_other }))
    }

    /// The module of this host's manifest is to run, as its operator says, also where it ran before or the active one
    /// cannot be run. `None` when another host was faster.
    fn deploy_whatever_ran(&self, active: &Version, own: Arc<Loaded>) -> Result<Option<Start>> {
        let mut kind = ChangeKind::Restart;
        match self.load_version(active) {
            Ok(None) => return Ok(None),
            Ok(Some(running)) => {
                // As with a way back, what the other one does not have is let go.
                let compared = compare(&running, &own, &dropped_of(&running, &own));
                let (compared, change) = compared.map_err(|points| {
                    anyhow!(DeployError::Incompatible { running: active.number, points })
                        .context(format!("{} cannot take over", self.manifest.path.display()))
                })?;
                kind = compared;
                if kind == ChangeKind::Restart {
                    self.check_restart(&running, &own, &change)?;
                }
            }
            // What cannot be loaded cannot be compared; the rows say for themselves whether they can be read.
            Err(error) => {
                tracing::warn!(version = active.number, error = format!("{error:#}"), "cannot be compared with");
            }
        }
        let number = self.table().next_number();
        let version = self.new_version(number, &own, kind)?;
        if !self.write_first(&own, version, Before { previous: None, is_confirmed: true })? {
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
        let before = said.and_then(|said| said.previous).and_then(|number| table.version(number));
        let former = match before.map(|before| (before.number, self.load_version(before))) {
            // What came before that one is not read.
            Some((number, Ok(Some(loaded)))) => vec![Former { number, loaded, on_probation: false }],
            Some((_, Ok(None))) => return Ok(None),
            Some((number, Err(error))) => {
                tracing::warn!(version = number, error = format!("{error:#}"), "cannot be returned to");
                Vec::new()
            }
            None => Vec::new(),
        };
        let on_probation = !former.is_empty();
        Ok(Some(Start { number: active.number, loaded, former, on_probation }))
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
        let Some(ended) = ended.filter(|ended| ended.may_go_back() && !self.stop.is_raised()) else {
            return Err(error);
        };
        let Target { number, loaded, mut former, is_told, .. } = lock(&ended.target).clone();
        // What the threads have given up by themselves is for the next start to find out.
        let Some(before) = former.pop().filter(|_| ended.versions.target_number() == number) else { return Err(error) };
        if !self.may_go_back(&before.loaded, &loaded).unwrap_or(false) {
            return Err(error);
        }
        let what = if is_told { "the application failed with it" } else { "it could not be started" };
        let reason = format!("{what}: {error:#}");
        self.tell_rollback(number, before.number, &reason);
        self.write_rollback(number, &Back::to(&before, &former), &reason).context(reason)?;
        let Former { number, loaded, on_probation } = before;
        Ok(Some(Start { number, loaded, former, on_probation }))
    }
}

/// The version that has this host's module, if it ran before: the same settings first. Other settings of the active one
/// are new, whoever had others of an older one.
fn known<'a>(table: &'a VersionTable, own: &Loaded, active: &Version) -> Option<&'a Version> {
    let same = table.find(&own.digest, &own.tables);
    let of_module = || table.versions().values().rev().find(|version| version.module == own.digest);
    same.or_else(|| of_module().filter(|_| active.module != own.digest))
}
