//! Keeping this host and the versions topic of one mind: what other hosts have deployed is run here, what this host has
//! given up is written there, and a version that has proved itself is confirmed.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use engine::stream_thread::TaskReport;
use engine::task::TaskState;
use engine::version::RolledBack;
use serde_json::json;

use super::{
    Before, Deployments, Former, LOOK_INTERVAL, Running, Start, Target, compare, dropped_of, has_migrated, lock, moved,
};
use crate::exit::ModuleError;
use crate::runtime::loader::Loaded;
use crate::runtime::spawn::spawn;
use crate::runtime::stop::Stop;
use crate::versions::{Active, AppendError, ChangeKind, Entry, LogError, Version, VersionManifest, VersionState};

const STACK_BYTES: usize = 4 << 20;

/// After so long any host says that a version is active, whose own deployer may be gone.
const SPEAKS_FOR_OTHERS_AFTER: Duration = Duration::from_secs(10);

/// How often an append is tried again that another host came before.
pub(super) const CONFLICTS_MAX: u32 = 5;

impl Deployments {
    /// Looks at the topic from time to time until the wish to stop.
    ///
    /// # Errors
    /// When the machine gives no thread.
    pub fn watch(self: &Arc<Self>, stop: &Stop) -> Result<()> {
        let (deployments, stop) = (Arc::clone(self), stop.clone());
        let watch = move || {
            while !stop.wait(LOOK_INTERVAL) {
                deployments.look();
            }
        };
        spawn("versions", STACK_BYTES, watch).context("cannot start the thread that watches versions")?;
        Ok(())
    }

    /// Looks once, unless a deployment is on its way.
    pub fn look(&self) {
        let Ok(_changing) = self.changing.try_lock() else { return };
        let Some(running) = self.running() else { return };
        if self.is_restarting() {
            return;
        }
        let refreshed = self.refresh();
        let looked = match refreshed {
            Ok(_) => self.hear(&running).and_then(|()| self.converge(&running)).and_then(|()| {
                self.open_older_rows(&running);
                self.settle(&running)
            }),
            Err(error) => Err(anyhow!(error)),
        };
        match looked {
            Ok(()) => self.trouble_is_over(),
            Err(error) => self.tell_trouble(&format!("{error:#}")),
        }
    }

    /// Rows of an older schema turned up that were not there, or not known of, when the threads were started: they are
    /// started again, with those rows open.
    fn open_older_rows(&self, running: &Running) {
        let stands_still = lock(&running.target).stands_still || running.versions.is_given_up();
        if !running.versions.misses_older_rows() || stands_still || self.is_restarting() {
            return;
        }
        let Target { number, loaded, former, .. } = lock(&running.target).clone();
        let on_probation = running.versions.is_on_probation();
        tracing::info!(version = number, "tasks wait for rows of an older schema, which are opened with a new start");
        self.restart(running, Start { number, loaded, former, on_probation });
    }

    /// Writes down what the threads have given up by themselves.
    pub(super) fn hear(&self, running: &Running) -> Result<()> {
        for back in running.versions.rollbacks() {
            self.hear_of(running, back)?;
        }
        Ok(())
    }

    fn hear_of(&self, running: &Running, RolledBack { number, to, reason }: RolledBack) -> Result<()> {
        let mut target = lock(&running.target).clone();
        // Heard before.
        if target.number != number || target.stands_still || self.is_restarting() {
            return Ok(());
        }
        if let (None, Some(before)) = (to, target.former.last())
            && !self.may_go_back(&before.loaded, &target.loaded)?
        {
            lock(&running.target).stands_still = true;
            let text = format!(
                "version {number} was given up and stands still: it has taken rows over and changed them since, so that no \
                 older version could go on; deploy a corrected one, or resume it: {reason}"
            );
            self.terminal.notice("stands-still", &text, json!({ "version": number, "reason": reason }));
            return Ok(());
        }
        // Otherwise another host gave it up as well and was faster; the tasks of this one have gone back all the same.
        let is_active = self.table().active().is_some_and(|active| active.number == number);
        let before = target.former.pop().filter(|before| to.is_none_or(|to| to == before.number));
        let Some(before) = before else {
            if is_active {
                let why = format!("version {number} was given up, and there is none to go back to: {reason}");
                self.fail(running, anyhow!(why));
            }
            return Ok(());
        };
        self.write_rollback(number, &Back::to(&before, &target.former), &reason)?;
        self.tell_rollback(number, before.number, &reason);
        self.gone_back(running, before.clone(), target.former.clone());
        if to.is_none() {
            let Former { number, loaded, on_probation } = before;
            self.restart(running, Start { number, loaded, former: target.former, on_probation });
        }
        Ok(())
    }

    /// The tasks go back, or have gone already.
    pub(super) fn gone_back(&self, running: &Running, to: Former, former: Vec<Former>) {
        self.show_module(&to.loaded);
        *lock(&running.target) = Target::new(to.number, to.loaded, former);
    }

    pub(super) fn tell_rollback(&self, number: u64, to: u64, reason: &str) {
        let text = format!("version {number} goes back to version {to}: {reason}");
        self.terminal.notice("rolled-back", &text, json!({ "version": number, "to": to, "reason": reason }));
    }

    /// Writes that `number` was taken back in favour of another one. Nothing where another host has done so.
    pub(super) fn write_rollback(&self, number: u64, back: &Back, reason: &str) -> Result<()> {
        let to = back.to;
        for _ in 0..CONFLICTS_MAX {
            let table = self.table();
            if table.active().is_none_or(|active| active.number != number) {
                return Ok(());
            }
            let version =
                |number| table.version(number).cloned().with_context(|| format!("the topic has no version {number}"));
            let now_ms = self.now_ms();
            let mut entries = vec![Entry::Version(moved(version(number)?, VersionState::RolledBack, now_ms, reason)?)];
            let before = version(to)?;
            // One that the other had not taken over from is active still.
            if !matches!(before.state(), VersionState::Active | VersionState::Swapping) {
                let why = format!("version {number} was taken back");
                entries.push(Entry::Version(moved(before, VersionState::Swapping, now_ms, &why)?));
            }
            entries.push(Entry::Active(self.active(to, back.before, reason)));
            match self.append(table.revision(), &entries) {
                Ok(()) => return Ok(()),
                Err(AppendError::Conflict { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        bail!("other hosts write to the versions topic all the time")
    }

    /// Runs what the topic says is active.
    fn converge(&self, running: &Running) -> Result<()> {
        let table = self.table();
        let Some(version) = table.active_version()? else { return Ok(()) };
        let target = running.versions.target_number();
        if version.number == target || self.is_restarting() {
            return Ok(());
        }
        // It was given up here, and stands still or has not been written down yet.
        if lock(&running.target).number == version.number {
            return Ok(());
        }
        let why = table.active().map(|active| active.why.clone()).unwrap_or_default();
        let mut former = lock(&running.target).former.clone();
        let before = former.pop().filter(|before| before.number == version.number);
        // Threads that run another topology are started again.
        let may_swap = running.versions.previous().is_some_and(|before| before.number == version.number);
        if let Some(before) = before
            && may_swap
            && running.versions.roll_back(target, &why)
        {
            self.tell_rollback(target, before.number, &why);
            self.gone_back(running, before, former);
            return Ok(());
        }
        match self.load_version(version) {
            Ok(Some(loaded)) => self.follow(running, version, loaded),
            Ok(None) => {}
            // Whether it can be had is a question of the broker; whether it can be run is not.
            Err(error) if error.downcast_ref::<LogError>().is_some_and(LogError::is_retriable) => return Err(error),
            Err(error) => {
                let why = format!("this host cannot run version {}, which is active, and leaves", version.number);
                self.fail(running, error.context(why));
            }
        }
        Ok(())
    }

    fn follow(&self, running: &Running, version: &Version, loaded: Arc<Loaded>) {
        // Whoever deployed it has said which stores are dropped.
        let target = Arc::clone(&lock(&running.target).loaded);
        let compared = match compare(&target, &loaded, &dropped_of(&target, &loaded)) {
            // Another host has gone back before the newer rows had changed; each task sees to it for itself.
            Err(_) if has_migrated(&loaded, &target) => Ok(ChangeKind::Restart),
            compared => compared.map(|(kind, _)| kind),
        };
        match compared {
            Ok(kind) => {
                let by = if version.who.is_empty() { String::new() } else { format!(", deployed by {}", version.who) };
                let text = format!("version {} takes over{by}", version.number);
                self.terminal.notice("version", &text, json!({ "version": version.number, "by": version.who }));
                let table = self.table();
                let is_confirmed = table.active().is_none_or(|active| active.is_confirmed);
                self.switch_to(running, version.number, loaded, kind, !is_confirmed);
            }
            Err(points) => {
                let why =
                    format!("this host cannot run version {}, which is active: {}", version.number, points.join("; "));
                self.fail(running, anyhow!(why));
            }
        }
    }

    /// The module and manifest of a version, from the topic; signed, where this host asks for that. `None` when the
    /// wish to stop came first.
    pub(super) fn load_version(&self, version: &Version) -> Result<Option<Arc<Loaded>>> {
        self.verify(&version.module, version.signature.as_deref())
            .map_err(|error| ModuleError(format!("the module of version {} was refused: {error}", version.number)))?;
        let manifest = version.manifest.apply_to(&self.manifest)?;
        let bytes = lock(&self.log).module(&version.module)?;
        let name = format!("of version {}", version.number);
        let loaded = self.loader.load(&manifest, &name, bytes)?;
        Ok(loaded.map(|loaded| Arc::new(with_tables(loaded, &version.manifest))))
    }

    /// Says what has come to pass: that the tasks run a version, and that its probation is over.
    fn settle(&self, running: &Running) -> Result<()> {
        let number = running.versions.target_number();
        let reports = self.status.reports();
        let tasks: Vec<_> = reports.iter().flat_map(|report| &report.tasks).collect();
        // A host without tasks has seen none go over.
        let runs =
            |task: &&TaskReport| task.state == TaskState::Running && task.version == number && task.migration.is_none();
        if tasks.is_empty() || !tasks.iter().all(runs) {
            return Ok(());
        }
        let target = lock(&running.target).clone();
        // They have gone back since this look began.
        if target.number != number {
            return Ok(());
        }
        if !target.is_told {
            lock(&running.target).is_told = true;
            let ms = target.since.elapsed().as_millis();
            let text = format!("version {number} runs in {} tasks of this host, after {ms} ms", tasks.len());
            let fields = json!({ "version": number, "tasks": tasks.len(), "ms": ms as u64 });
            self.terminal.notice("swapped", &text, fields);
        }
        self.end_probation(running, &target)?;
        self.write_active(number)
    }

    fn end_probation(&self, running: &Running, target: &Target) -> Result<()> {
        if !running.versions.is_on_probation() {
            return Ok(());
        }
        let table = self.table();
        let is_confirmed = table.active().is_some_and(|active| active.number == target.number && active.is_confirmed);
        // Another host has had enough of its records.
        if is_confirmed {
            running.versions.confirm(target.number);
            return Ok(());
        }
        let manifest = &target.loaded.manifest;
        let records = running.versions.target().tally.records();
        let is_over = target.since.elapsed() >= Duration::from_millis(manifest.count("probation.ms"))
            && records >= manifest.count("probation.records");
        if !is_over {
            return Ok(());
        }
        // First, so that a host that starts later does not put it on probation again.
        if self.write_confirmed(target.number)? && running.versions.confirm(target.number) {
            let number = target.number;
            let text = format!("version {number} is confirmed after {records} records");
            self.terminal.notice("confirmed", &text, json!({ "version": number, "records": records }));
        }
        Ok(())
    }

    /// Writes that a version has come through its probation on this host. False where another host wrote something
    /// meanwhile, so that the next look decides again, or another version is active by now.
    fn write_confirmed(&self, number: u64) -> Result<bool> {
        let table = self.table();
        let Some(active) = table.active().filter(|active| active.number == number) else { return Ok(false) };
        let active = Active { is_confirmed: true, ..active.clone() };
        match self.append(table.revision(), &[Entry::Active(active)]) {
            Ok(()) => Ok(true),
            Err(AppendError::Conflict { .. }) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Writes that the version has taken over, where it is for this host to say.
    fn write_active(&self, number: u64) -> Result<()> {
        let table = self.table();
        let Some(version) = table.version(number).filter(|version| version.state() == VersionState::Swapping) else {
            return Ok(());
        };
        let Some(active) = table.active().filter(|active| active.number == number) else { return Ok(()) };
        let age_ms = self.now_ms().saturating_sub(active.when_ms);
        if active.by != self.host && age_ms < SPEAKS_FOR_OTHERS_AFTER.as_millis() as i64 {
            return Ok(());
        }
        let now_ms = self.now_ms();
        let mut entries = vec![Entry::Version(moved(version.clone(), VersionState::Active, now_ms, "")?)];
        for other in table.versions().values().filter(|other| other.number != number) {
            if matches!(other.state(), VersionState::Active | VersionState::Swapping) {
                let why = format!("version {number} took over");
                entries.push(Entry::Version(moved(other.clone(), VersionState::Superseded, now_ms, &why)?));
            }
        }
        match self.append(table.revision(), &entries) {
            // The table is up to date; the next look decides again.
            Ok(()) | Err(AppendError::Conflict { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// What is gone back to.
pub(super) struct Back {
    pub to: u64,
    pub before: Before,
}

impl Back {
    /// To a version with those before it.
    pub fn to(version: &Former, former: &[Former]) -> Self {
        Self { to: version.number, before: Before::of(former, !version.on_probation) }
    }
}

/// A version's tables are its own, whatever the host's environment and flags add.
fn with_tables(loaded: Loaded, tables: &VersionManifest) -> Loaded {
    Loaded { tables: tables.clone(), ..loaded }
}
