//! A deployment on the host that was asked for it, from the bytes to the swap: signature, component, grants, topology
//! and state beside the version that runs, compiler, a try on empty stores, and only then the topic. Whatever is
//! refused before that has changed nothing.

use std::path::Path;
use std::sync::Arc;

use anyhow::anyhow;
use bytes::Bytes;
use engine::error::EngineError;
use engine::query::{Registration, Role};
use engine::topology::change::Change;
use engine::version::{Rows, rehearse_migrations, warm_up};
use serde_json::json;

use super::converging::Back;
use super::{Before, Deployments, Former, Running, Start, compare, lock, moved};
use crate::config::{ConfigError, Manifest, Overrides};
use crate::runtime::loader::Loaded;
use crate::runtime::status::Phase;
use crate::runtime::topics;
use crate::versions::{
    AppendError, ChangeKind, LogError, ModuleDigest, NewVersion, Signature, SignatureError, TrustedKeys, Version,
    VersionManifest, VersionState,
};

/// What is to be deployed.
#[derive(Debug, Clone, Default)]
pub struct DeployRequest {
    pub module: Bytes,
    /// The text of a manifest; without one the tables of the active version stay.
    pub manifest: Option<String>,
    /// What of the environment and of flags counts for the manifest too; nothing, where it comes from somewhere else.
    pub overrides: Overrides,
    /// The detached signature in base64.
    pub signature: Option<String>,
    pub who: String,
    pub why: String,
    /// Everything but the change itself.
    pub dry_run: bool,
    /// Stores that the new version does not have and whose content is given up.
    pub dropped_stores: Vec<String>,
    /// It is confirmed at once.
    pub without_probation: bool,
}

/// What is to be gone back to.
#[derive(Debug, Clone, Default)]
pub struct RollbackRequest {
    /// The version before the active one where it is not named.
    pub to: Option<u64>,
    pub who: String,
    pub why: String,
    /// Stores that the other version does not have and whose content is given up.
    pub dropped_stores: Vec<String>,
}

/// What came of a deployment.
#[derive(Debug, Clone)]
pub struct Deployed {
    /// As it is in the topic, or would be.
    pub version: Version,
    /// Nothing was to be done: it is active already.
    pub is_known: bool,
    /// What becomes of each store, in a word.
    pub changes: Vec<(String, &'static str)>,
    /// What it means beside that, one sentence each.
    pub notes: Vec<String>,
}

/// Why nothing was deployed.
#[derive(Debug, thiserror::Error)]
pub enum DeployError {
    #[error("the application is not running: {0}")]
    NotRunning(String),
    #[error("another deployment of this application is on its way; wait for it")]
    Busy,
    #[error("{0}")]
    Conflict(String),
    #[error(transparent)]
    Signature(#[from] SignatureError),
    #[error("the manifest does not fit: {0}")]
    Manifest(#[from] ConfigError),
    /// The module is none, or is too much for its limits.
    #[error("{0}")]
    Module(String),
    /// Every point at which it does not fit the version that runs.
    #[error("it does not fit version {running}, which runs: {}", .points.join("; "))]
    Incompatible { running: u64, points: Vec<String> },
    #[error("it fails when it is tried on empty stores: {0}")]
    WarmUp(String),
    #[error("there is no version {0}")]
    NoVersion(u64),
    #[error("{0}")]
    NothingToReturnTo(String),
    #[error(transparent)]
    Log(#[from] LogError),
    #[error("the versions topic could not be written: {0}")]
    Append(String),
    #[error("{0}")]
    Host(String),
}

impl From<AppendError> for DeployError {
    fn from(error: AppendError) -> Self {
        match error {
            AppendError::Conflict { .. } => Self::Conflict(error.to_string()),
            AppendError::Log(error) => Self::Log(error),
            error => Self::Append(error.to_string()),
        }
    }
}

/// Points at which a version does not fit the one that runs.
#[derive(Debug, thiserror::Error)]
#[error("it does not fit: {}", .0.join("; "))]
pub(super) struct Misfits(Vec<String>);

/// A version that nothing stands against.
struct Prepared {
    loaded: Arc<Loaded>,
    kind: ChangeKind,
    changes: Vec<(String, &'static str)>,
    notes: Vec<String>,
}

impl Deployments {
    /// Deploys a version, or says why not; then nothing has changed. Blocks while the module is compiled.
    ///
    /// # Errors
    /// See `DeployError`.
    pub fn deploy(&self, request: &DeployRequest) -> Result<Deployed, DeployError> {
        let Ok(_deploying) = self.deploying.try_lock() else { return Err(DeployError::Busy) };
        // Short, unless a version of another host is being compiled.
        let _changing = lock(&self.changing);
        let running = self.ready()?;
        let digest = ModuleDigest::of(&request.module);
        let signature = self.verify(&digest, request.signature.as_deref())?;
        self.refresh()?;
        self.settle_before(&running)?;
        let table = self.table();
        let active = table.active_version().map_err(|error| DeployError::Host(error.to_string()))?;
        let active = active.ok_or_else(|| DeployError::NotRunning("it has no version yet".to_owned()))?;
        let manifest = request.manifest.as_ref().map(|text| self.parse(text, &request.overrides)).transpose()?;
        let tables = manifest.as_ref().map_or_else(|| active.manifest.clone(), VersionManifest::of);
        if active.is_same(&digest, &tables) {
            return Ok(Deployed { version: active.clone(), is_known: true, changes: Vec::new(), notes: Vec::new() });
        }
        let started_ms = self.now_ms();
        let Prepared { loaded, kind, changes, mut notes } = self.prepare(&running, request, &tables)?;
        let of_host = manifest.map(|manifest| manifest.host_keys_unlike(&self.manifest).join(", "));
        if let Some(keys) = of_host.filter(|keys| !keys.is_empty()) {
            notes.push(format!(
                "{keys} of this manifest are a host's, which reads them at its start: they do not count now"
            ));
        }
        let number = table.next_number();
        let version = Version::new(NewVersion {
            number,
            module: digest,
            manifest: tables,
            who: request.who.clone(),
            when_ms: started_ms,
            why: request.why.clone(),
            kind,
            signature,
        });
        let host = |error: anyhow::Error| DeployError::Host(format!("{error:#}"));
        let ready = moved(version, VersionState::Ready, self.now_ms(), "").map_err(host)?;
        if request.dry_run {
            return Ok(Deployed { version: ready, is_known: false, changes, notes });
        }
        let version = moved(ready, VersionState::Swapping, self.now_ms(), "").map_err(host)?;
        // Compiling takes its time, and threads go back by themselves.
        self.settle_before(&running)?;
        let before = Before::of(&running.former(number, true), request.without_probation);
        self.append_new(table.revision(), &loaded, &version, before)?;
        let text = format!("version {number} takes over by a {}", kind.as_str());
        self.terminal.notice("version", &text, json!({ "version": number, "kind": kind.as_str(), "by": request.who }));
        self.switch_to(&running, number, loaded, kind, !request.without_probation);
        Ok(Deployed { version, is_known: false, changes, notes })
    }

    /// Goes back to a version that ran before. The one before the active one is warm where this host has seen it.
    ///
    /// # Errors
    /// See `DeployError`; nothing has changed then.
    pub fn roll_back(&self, request: &RollbackRequest) -> Result<Deployed, DeployError> {
        let Ok(_deploying) = self.deploying.try_lock() else { return Err(DeployError::Busy) };
        // Short, unless a version of another host is being compiled.
        let _changing = lock(&self.changing);
        let running = self.ready()?;
        self.refresh()?;
        self.settle_before(&running)?;
        let table = self.table();
        let active = table.active().ok_or_else(|| DeployError::NotRunning("it has no version yet".to_owned()))?;
        let target = lock(&running.target).clone();
        let number = request.to.or(active.previous).ok_or_else(|| {
            let number = active.number;
            DeployError::NothingToReturnTo(format!(
                "version {number} came after none that could be returned to; name one"
            ))
        })?;
        let version = table.version(number).ok_or(DeployError::NoVersion(number))?;
        if number == active.number {
            return Ok(Deployed { version: version.clone(), is_known: true, changes: Vec::new(), notes: Vec::new() });
        }
        let mut former = target.former;
        let before = former.pop().filter(|before| before.number == number);
        let loaded = match &before {
            Some(before) => Arc::clone(&before.loaded),
            None => self.load_version(version).map_err(refused)?.ok_or_else(stopping)?,
        };
        // What the active version has and that one has not was not there when that one ran.
        let (kind, change) = compare(&target.loaded, &loaded, &request.dropped_stores)
            .map_err(|points| DeployError::Incompatible { running: active.number, points })?;
        let changes = effects(&loaded, &change);
        // Another one than the version before was chosen by somebody who knows it.
        let (before, former) = match before {
            Some(before) => (before, former),
            None => (Former { number, loaded, on_probation: false }, Vec::new()),
        };
        let why = if request.why.is_empty() { "taken back by hand".to_owned() } else { request.why.clone() };
        let reason = if request.who.is_empty() { why.clone() } else { format!("{why} ({})", request.who) };
        self.write_rollback(active.number, &Back::to(&before, &former), &reason)
            .map_err(|error| DeployError::Append(format!("{error:#}")))?;
        self.tell_rollback(active.number, number, &why);
        let is_warm = running.versions.previous().is_some_and(|previous| previous.number == number);
        if kind == ChangeKind::Swap && is_warm && running.versions.roll_back(active.number, &reason) {
            self.gone_back(&running, before, former);
        } else if kind == ChangeKind::Swap {
            self.switch_to(&running, number, before.loaded, kind, before.on_probation);
        } else {
            let Former { number, loaded, on_probation } = before;
            self.restart(&running, Start { number, loaded, former, on_probation });
        }
        let version = self.table().version(number).cloned().ok_or(DeployError::NoVersion(number))?;
        Ok(Deployed { version, is_known: false, changes, notes: change.notes })
    }

    /// What the threads have given up by themselves is written down before anything is changed that rests on it.
    fn settle_before(&self, running: &Running) -> Result<(), DeployError> {
        self.hear(running).map_err(|error| DeployError::Host(format!("{error:#}")))?;
        self.ready()?;
        let (target, wanted) = (lock(&running.target).number, running.versions.target_number());
        let active = self.table().active().map(|active| active.number);
        if target != wanted || active.is_some_and(|active| active != target) {
            let what = "the application is about to go over to another version; try again";
            return Err(DeployError::Conflict(what.to_owned()));
        }
        Ok(())
    }

    /// What the application runs, where it runs at all.
    fn ready(&self) -> Result<Arc<Running>, DeployError> {
        match self.running() {
            Some(running) if !self.is_restarting() => Ok(running),
            Some(_) => Err(DeployError::Busy),
            None => Err(DeployError::NotRunning(match self.status.phase() {
                Phase::Stopping | Phase::Stopped => "it was stopped".to_owned(),
                Phase::Failed(reason) => format!("it has failed: {reason}"),
                Phase::Starting(_) | Phase::Running => "it is starting".to_owned(),
            })),
        }
    }

    /// The signature in the form in which it is kept, checked where this host asks for one.
    pub(super) fn verify(&self, digest: &ModuleDigest, signature: Option<&str>) -> Result<Option<String>, DeployError> {
        let signature = signature.map(str::parse::<Signature>).transpose()?;
        if let Some(keys) = TrustedKeys::of(&self.manifest)? {
            keys.verify(digest, signature.as_ref())?;
        }
        Ok(signature.map(|signature| signature.to_string()))
    }

    /// The manifest of a request. Its paths mean nothing here.
    fn parse(&self, text: &str, overrides: &Overrides) -> Result<Manifest, DeployError> {
        let manifest = Manifest::parse(Path::new("the deployed manifest"), text, overrides)?;
        if manifest.application_id() != self.application_id {
            let (found, own) = (manifest.application_id(), &self.application_id);
            return Err(DeployError::Manifest(manifest.fault_at(
                "application.id",
                format!("it is the manifest of {found:?}, and the version is for {own:?}"),
            )));
        }
        Ok(manifest)
    }

    /// Everything that can be found out without changing anything.
    fn prepare(
        &self,
        running: &Running,
        request: &DeployRequest,
        tables: &VersionManifest,
    ) -> Result<Prepared, DeployError> {
        let manifest = tables.apply_to(&self.manifest)?;
        let name = "to be deployed";
        let loaded =
            self.loader.load(&manifest, name, request.module.clone()).map_err(refused)?.ok_or_else(stopping)?;
        let loaded = Arc::new(Loaded { tables: tables.clone(), ..loaded });
        let number = running.versions.target_number();
        let old = Arc::clone(&lock(&running.target).loaded);
        let (kind, change) = compare(&old, &loaded, &request.dropped_stores)
            .map_err(|points| DeployError::Incompatible { running: number, points })?;
        let application_id: Arc<str> = self.application_id.as_str().into();
        warm_up(&loaded.version(0), &application_id, self.now_ms())
            .map_err(|error| DeployError::WarmUp(error.to_string()))?;
        let mut notes = change.notes.clone();
        if !change.migrations.is_empty() {
            let rows = self.rehearse(&loaded, &change).map_err(|error| match error {
                error @ EngineError::Migration(_) => {
                    DeployError::Incompatible { running: number, points: vec![error.to_string()] }
                }
                error => DeployError::Host(error.to_string()),
            })?;
            notes.push(format!(
                "migrate was tried on the {rows} rows of this host; they are taken over before anything is processed"
            ));
        }
        if kind == ChangeKind::Restart {
            self.check_restart(&old, &loaded, &change).map_err(|error| match error.downcast::<Misfits>() {
                Ok(Misfits(points)) => DeployError::Incompatible { running: number, points },
                Err(error) => DeployError::Host(format!("{error:#}")),
            })?;
        }
        let changes = effects(&loaded, &change);
        Ok(Prepared { loaded, kind, changes, notes })
    }

    /// Tries migrations on the rows that this host has, without keeping what comes of it. Returns how many there were.
    fn rehearse(&self, loaded: &Loaded, change: &Change) -> Result<u64, EngineError> {
        let registrations = self.status.wired().map(|wired| wired.queries.registrations()).unwrap_or_default();
        let active = registrations.into_iter().filter(|registration| registration.role == Role::Active);
        let rows: Vec<Rows> = active.map(|Registration { store, task, view, .. }| Rows { store, task, view }).collect();
        rehearse_migrations(&loaded.version(0), &change.migrations, &rows, &|| self.stop.is_raised())
    }

    /// Whether the threads could be started with it: its topics are there, and fit. Creates changelogs of new stores,
    /// and on the embedded broker missing topics, which harm nobody where nothing comes of it.
    ///
    /// # Errors
    /// `Misfits`, or what is wrong with the topics.
    pub(super) fn check_restart(&self, old: &Loaded, new: &Loaded, change: &Change) -> anyhow::Result<()> {
        if self.is_embedded {
            let partitions = new.manifest.integer("embedded.partitions");
            topics::create_missing(&self.clients, new.topology(), partitions, self.terminal)?;
        }
        let stopping = || anyhow!("the host is stopping");
        let prepare = |loaded: &Loaded| {
            topics::look(&loaded.manifest, &self.clients, loaded.topology(), &self.folder, &self.stop)?
                .ok_or_else(stopping)
        };
        let mut counts = prepare(new)?.counts;
        if change.recounted.is_empty() {
            return Ok(());
        }
        counts.0.extend(prepare(old)?.counts.0);
        change
            .check_task_counts(old.topology(), new.topology(), &counts)
            .map_err(|points| anyhow!(Misfits(points.iter().map(ToString::to_string).collect())))
    }
}

/// What becomes of each store of either version.
fn effects(new: &Loaded, change: &Change) -> Vec<(String, &'static str)> {
    let stores = new.topology().sub_topologies.iter().flat_map(|part| &part.stores);
    let kept = stores.map(|store| {
        let is_migrated = change.migrations.iter().any(|migration| migration.store == store.name);
        let effect = match change.created.contains(&store.name) {
            true => "created",
            false if is_migrated => "migrated",
            false => "kept",
        };
        (format!("store {}", store.name), effect)
    });
    let dropped = change.removed.iter().map(|store| (format!("store {store}"), "dropped"));
    kept.chain(dropped).collect()
}

fn refused(error: anyhow::Error) -> DeployError {
    match error.downcast::<LogError>() {
        Ok(error) => DeployError::Log(error),
        Err(error) => DeployError::Module(format!("{error:#}")),
    }
}

fn stopping() -> DeployError {
    DeployError::Host("the host is stopping".to_owned())
}
