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

use super::deploying::DeployError;
use super::{Deployments, Running, State, Target, compare, lock, moved};
use crate::runtime::clock::HostClock;
use crate::runtime::loader::{Loaded, Loader};
use crate::runtime::retrying::until_answered;
use crate::runtime::status::Status;
use crate::runtime::stop::Stop;
use crate::terminal::Terminal;
use crate::versions::{
    AppendError, ChangeKind, LogError, ModuleDigest, NewVersion, Version, VersionLog, VersionLogOptions, VersionState,
};

/// What the threads of an application are to be started with.
pub struct Start {
    pub number: u64,
    pub loaded: Arc<Loaded>,
    /// What a rollback goes to.
    pub previous: Option<(u64, Arc<Loaded>)>,
    pub on_probation: bool,
}

/// What `open` needs to know.
pub struct Opening<'a> {
    pub clients: &'a Arc<KafkaClients>,
    /// The state directory of the application.
    pub folder: PathBuf,
    pub is_embedded: bool,
    pub host: &'a str,
    pub status: &'a Arc<Status>,
    pub stop: &'a Stop,
    pub terminal: Terminal,
}

/// Reads the versions topic and decides what this host starts with. `None` when the wish to stop came first.
///
/// # Errors
/// When the topic cannot be read, or the version cannot be run.
pub fn open(own: Loaded, loader: Loader, opening: &Opening<'_>) -> Result<Option<(Arc<Deployments>, Start)>> {
    let Opening { clients, folder, is_embedded, host, status, stop, terminal } = opening;
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
    let Some(start) = deployments.first(Arc::new(own))? else { return Ok(None) };
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
    fn first(&self, own: Arc<Loaded>) -> Result<Option<Start>> {
        for _ in 0..super::converging::CONFLICTS_MAX {
            let table = self.table();
            let Some(active) = table.active_version()? else {
                let version = self.new_version(1, &own, ChangeKind::Restart)?;
                match self.write_first(&own, version, None)? {
                    true => return Ok(Some(Start { number: 1, loaded: own, previous: None, on_probation: false })),
                    false => continue,
                }
            };
            if active.is_same(&own.digest, &own.tables) {
                return self.start_active(active, Some(own));
            }
            if let Some(known) = table.find(&own.digest, &own.tables) {
                let (own, active_number) = (known.number, active.number);
                let text = format!(
                    "{} is version {own} of the application; version {active_number} is active and runs instead; \
                     deploy it to have it run",
                    self.manifest.path.display()
                );
                self.terminal.notice("other-version", &text, json!({ "own": own, "active": active_number }));
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
        let previous = (own.digest != running.digest).then_some((active.number, running));
        if !self.write_first(&own, version, previous.as_ref().map(|(number, _)| *number))? {
            return Ok(None);
        }
        let text = format!("{} is new: it is version {number} from now on", self.manifest.path.display());
        self.terminal.notice("version", &text, json!({ "version": number, "by": self.host }));
        let on_probation = previous.is_some();
        Ok(Some(Start { number, loaded: own, previous, on_probation }))
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
        let said = table.active();
        let age_ms = said.map_or(i64::MAX, |said| self.now_ms().saturating_sub(said.when_ms));
        let is_young = u64::try_from(age_ms).unwrap_or(0) < loaded.manifest.count("probation.ms");
        let before = said.and_then(|said| said.previous).filter(|_| is_young).and_then(|number| table.version(number));
        let previous = match before.map(|before| (before.number, self.load_version(before))) {
            Some((number, Ok(Some(previous)))) => Some((number, previous)),
            Some((_, Ok(None))) => return Ok(None),
            Some((number, Err(error))) => {
                tracing::warn!(version = number, error = format!("{error:#}"), "cannot be returned to");
                None
            }
            None => None,
        };
        let on_probation = previous.is_some();
        Ok(Some(Start { number: active.number, loaded, previous, on_probation }))
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
    fn write_first(&self, own: &Loaded, version: Version, previous: Option<u64>) -> Result<bool> {
        match self.append_new(self.table().revision(), own, &version, previous) {
            Ok(()) => Ok(true),
            Err(AppendError::Conflict { .. }) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// What the engine's threads are to ask for their version, from now on that of this start.
    pub fn begin(&self, start: &Start, stop: &Stop) -> Arc<Versions> {
        let Start { number, loaded, previous, on_probation } = start;
        let version = loaded.version(*number);
        let probation = self.probation(&loaded.manifest);
        // One with other topics, stores or settings of the threads cannot be returned to by a swap.
        let is_alike = |previous: &Loaded| matches!(compare(previous, loaded, &[]), Ok((ChangeKind::Swap, _)));
        let alike = previous.as_ref().filter(|(_, previous)| is_alike(previous));
        let versions = match (alike, on_probation) {
            (_, false) => Versions::new(version),
            (None, true) => Versions::on_probation(version, probation),
            (Some((before, previous)), true) => {
                let versions = Versions::new(previous.version(*before));
                versions.deploy(version, Some(probation));
                versions
            }
        };
        let versions = Arc::new(versions);
        let target = Target { is_told: !on_probation, ..Target::new(*number, Arc::clone(loaded), previous.clone()) };
        let running = Running { versions: Arc::clone(&versions), stop: stop.clone(), target: Mutex::new(target) };
        lock(&self.state).running = Some(Arc::new(running));
        versions
    }

    /// The threads have ended.
    pub fn end(&self) {
        lock(&self.state).running = None;
    }

    /// What comes after a life of the threads: another one, or nothing. A version
    /// that could not be started is taken back, where there is one to go back to that can read its rows.
    ///
    /// # Errors
    /// Why the application has ended.
    pub fn after(&self, start: &Start, result: Result<()>) -> Result<Option<Start>> {
        let (next, failure) = {
            let mut state = lock(&self.state);
            (state.next.take(), state.failure.take())
        };
        if let Some(failure) = failure {
            return Err(failure);
        }
        let Err(error) = result else { return Ok(next) };
        let Some((number, loaded)) = start.previous.clone().filter(|_| start.on_probation && !self.stop.is_raised())
        else {
            return Err(error);
        };
        if !self.may_go_back(&loaded, &start.loaded).unwrap_or(false) {
            return Err(error);
        }
        let reason = format!("it could not be started: {error:#}");
        self.tell_rollback(start.number, number, &reason);
        self.write_rollback(start.number, number, &reason).context(reason)?;
        Ok(Some(Start { number, loaded, previous: None, on_probation: false }))
    }
}
