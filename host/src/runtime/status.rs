//! What the host says of itself: the phase of each of its applications and, once that is wired, its topology, tasks and
//! stores. Written by the runtime, read by REST and by progress displays; never reaches into a stream thread.

use std::sync::{Arc, PoisonError, RwLock};

use engine::metrics::EngineMetrics;
use engine::query::QueryRegistry;
use engine::standby::{SharedStandbyReport, StandbyReport};
use engine::stream_thread::{SharedProgress, ThreadReport, ThreadState};
use engine::task::TaskState;
use engine::topic_limits::SharedSinkLimits;
use engine::topology::{PartitionCounts, Topology};
use sandbox::Usage;

use super::deployments::Deployments;
use crate::rest::changes::Changelogs;
use crate::rest::peers::Peers;
use crate::rest::writes::Writes;
use crate::routes::RouteFinder;

/// Where an application stands in its life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Phase {
    /// With what it is busy.
    Starting(&'static str),
    Running,
    Stopping,
    /// It has ended in good order.
    Stopped,
    Failed(String),
}

/// The parts that exist once an application is wired.
#[derive(Clone)]
pub struct Wired {
    pub topology: Arc<Topology>,
    pub partition_counts: Arc<PartitionCounts>,
    pub sink_limits: Arc<SharedSinkLimits>,
    pub queries: Arc<QueryRegistry>,
    /// One for each stream thread, as the metrics.
    pub threads: Vec<Arc<SharedProgress>>,
    pub metrics: Vec<Arc<EngineMetrics>>,
    /// Where standbys are asked for.
    pub standby: Option<StandbyStatus>,
    /// `None` where topics are served as tables, without a module.
    pub module_digest: Option<String>,
    /// What the module has used; `None` where there is none.
    pub usage: Option<Arc<Usage>>,
    /// How other hosts are found and asked; `None` where there are none to be asked.
    pub routing: Option<Routing>,
    /// Where writes go; `None` where no store takes any.
    pub writes: Option<Arc<Writes>>,
    /// What subscriptions to changes are served from; `None` where there is no broker.
    pub changelogs: Option<Changelogs>,
    /// The versions of the module; `None` where topics are served as tables.
    pub deployments: Option<Arc<Deployments>>,
}

/// How other hosts of the application are found and asked.
#[derive(Clone)]
pub struct Routing {
    pub finder: Arc<RouteFinder>,
    pub peers: Arc<Peers>,
}

/// What the standby thread publishes.
#[derive(Debug, Clone, Default)]
pub struct StandbyStatus {
    pub report: Arc<SharedStandbyReport>,
    pub metrics: Arc<EngineMetrics>,
}

/// The host's view of an application, shared by whoever shows it.
pub struct Status {
    pub application_id: String,
    is_alone: bool,
    inner: RwLock<Inner>,
}

struct Inner {
    phase: Phase,
    wired: Option<Arc<Wired>>,
    is_released: bool,
    is_leaving: bool,
}

/// The applications of the process, in the order in which they were named. They may come and go while it runs.
#[derive(Default)]
pub struct Applications(RwLock<Vec<Arc<Status>>>);

/// How far restoring is, over all tasks of the host.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Restoring {
    pub tasks_running: usize,
    pub tasks: usize,
    pub records_restored: u64,
    pub offsets_left: u64,
    /// Offsets to be read in all, those already read included.
    pub offsets: u64,
}

/// How far the tasks of this host are with taking over rows of an older schema. They process nothing meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Migrating {
    /// Those that are not done.
    pub tasks: usize,
    pub rows: u64,
    /// A guess.
    pub rows_expected: u64,
}

/// Whether the host can do its work now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Readiness {
    Ready,
    /// Why not, in words for people.
    NotReady(String),
}

impl Status {
    /// Of an application that is the only one of its process.
    pub fn new(application_id: &str) -> Self {
        let phase = Phase::Starting("reading the manifest");
        let inner = Inner { phase, wired: None, is_released: false, is_leaving: false };
        Self { application_id: application_id.to_owned(), is_alone: true, inner: RwLock::new(inner) }
    }

    /// Of an application whose failure is not the end of the process.
    fn beside_others(application_id: &str) -> Self {
        Self { is_alone: false, ..Self::new(application_id) }
    }

    /// Whether it is the only one that its process was ever meant to have.
    pub fn is_alone(&self) -> bool {
        self.is_alone
    }

    /// Says that it ends since it does not belong to the process any more.
    pub fn leave(&self) {
        self.inner.write().unwrap_or_else(PoisonError::into_inner).is_leaving = true;
    }

    /// Whether nobody is to wait for it any more.
    pub fn is_leaving(&self) -> bool {
        self.inner.read().unwrap_or_else(PoisonError::into_inner).is_leaving
    }

    pub fn phase(&self) -> Phase {
        self.inner.read().unwrap_or_else(PoisonError::into_inner).phase.clone()
    }

    /// Why it failed, if it has.
    pub fn failure(&self) -> Option<String> {
        match self.phase() {
            Phase::Failed(reason) => Some(reason),
            _ => None,
        }
    }

    /// The word for having failed. One whose process goes on without it is `ERRORED`.
    pub fn failed_word(&self) -> &'static str {
        if self.is_alone { "failed" } else { "ERRORED" }
    }

    /// Sets the phase. A failure stays: what comes after it is only its clearing up.
    pub fn set_phase(&self, phase: Phase) {
        let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
        if !matches!(inner.phase, Phase::Failed(_)) {
            inner.phase = phase;
        }
    }

    pub fn wire(&self, wired: Wired) {
        self.inner.write().unwrap_or_else(PoisonError::into_inner).wired = Some(Arc::new(wired));
    }

    /// Changes what is known of the parts.
    pub fn rewire(&self, change: impl FnOnce(&mut Wired)) {
        let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(mut wired) = inner.wired.as_deref().cloned() {
            change(&mut wired);
            inner.wired = Some(Arc::new(wired));
        }
    }

    /// Lets go of what an application held that has ended: its stores, clients and tasks. What is left says what it
    /// was.
    pub fn release(&self) {
        let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
        inner.is_released = true;
        inner.wired = inner.wired.as_ref().map(|wired| {
            let stores = wired.queries.declared_stores().cloned();
            Arc::new(Wired {
                queries: Arc::new(QueryRegistry::new(stores)),
                standby: None,
                routing: None,
                writes: None,
                changelogs: None,
                deployments: None,
                ..Wired::clone(wired)
            })
        });
    }

    /// Whether nothing is held any more of an application that has ended.
    pub fn is_released(&self) -> bool {
        self.inner.read().unwrap_or_else(PoisonError::into_inner).is_released
    }

    pub fn wired(&self) -> Option<Arc<Wired>> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner).wired.clone()
    }

    /// Why what runs stands still until another version is deployed; `None` where it does not.
    pub fn given_up(&self) -> Option<String> {
        self.wired()?.deployments.as_ref()?.given_up()
    }

    /// The latest report of each stream thread. Those of an application that has ended have no tasks, whatever they
    /// said last.
    pub fn reports(&self) -> Vec<ThreadReport> {
        let mut reports = self.wired().map(|wired| wired.reports()).unwrap_or_default();
        if self.is_released() {
            for report in &mut reports {
                report.state = ThreadState::Dead;
                report.trouble = None;
                report.tasks.clear();
            }
        }
        reports
    }

    /// The latest report of the standby thread; `None` where no standbys are asked for.
    pub fn standby(&self) -> Option<StandbyReport> {
        self.wired()?.standby.as_ref().map(|standby| standby.report.read())
    }

    pub fn readiness(&self) -> Readiness {
        let not_ready = |reason: String| Readiness::NotReady(reason);
        match self.phase() {
            Phase::Starting(step) => return not_ready(format!("starting: {step}")),
            Phase::Stopping => return not_ready("stopping".to_owned()),
            Phase::Stopped => return not_ready("stopped".to_owned()),
            Phase::Failed(error) => return not_ready(format!("{}: {error}", self.failed_word())),
            Phase::Running => {}
        }
        if let Some(why) = self.given_up() {
            return not_ready(format!("given up: {why}; deploy another version"));
        }
        let reports = self.reports();
        if let Some((trouble, _)) = reports.iter().find_map(|report| report.trouble.as_ref()) {
            return not_ready(format!("waiting: {trouble}"));
        }
        if reports.iter().any(|report| matches!(report.state, ThreadState::Created | ThreadState::Starting)) {
            return not_ready("waiting for the group to assign partitions".to_owned());
        }
        let restoring = Restoring::of(&reports);
        if restoring.tasks_running < restoring.tasks {
            let Restoring { tasks_running, tasks, offsets_left, .. } = restoring;
            return not_ready(format!(
                "restoring: {tasks_running} of {tasks} tasks ready, {offsets_left} offsets to go"
            ));
        }
        if let Some(Migrating { tasks, rows, rows_expected }) = Migrating::of(&reports) {
            return not_ready(format!(
                "migrating: {tasks} tasks have taken over {rows} of about {rows_expected} rows of an older schema"
            ));
        }
        Readiness::Ready
    }
}

impl Applications {
    /// By their ids, of which there is at least one.
    pub fn new<'a>(ids: impl ExactSizeIterator<Item = &'a str>) -> Self {
        let status = if ids.len() == 1 { Status::new } else { Status::beside_others };
        Self(RwLock::new(ids.map(|id| Arc::new(status(id))).collect()))
    }

    /// Those of now.
    pub fn all(&self) -> Vec<Arc<Status>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The one of this id.
    pub fn find(&self, application_id: &str) -> Option<Arc<Status>> {
        let all = self.0.read().unwrap_or_else(PoisonError::into_inner);
        all.iter().find(|status| status.application_id == application_id).cloned()
    }

    /// One that begins its life beside others, in the place of the one of the same id, if that was here before.
    pub fn enter(&self, application_id: &str) -> Arc<Status> {
        let status = Arc::new(Status::beside_others(application_id));
        let mut all = self.0.write().unwrap_or_else(PoisonError::into_inner);
        match all.iter_mut().find(|before| before.application_id == application_id) {
            Some(before) => *before = Arc::clone(&status),
            None => all.push(Arc::clone(&status)),
        }
        status
    }

    /// The application does not belong to the process any more.
    pub fn remove(&self, application_id: &str) {
        let mut all = self.0.write().unwrap_or_else(PoisonError::into_inner);
        all.retain(|status| status.application_id != application_id);
    }
}

impl From<Arc<Status>> for Applications {
    fn from(only: Arc<Status>) -> Self {
        Self(RwLock::new(vec![only]))
    }
}

impl Wired {
    pub fn reports(&self) -> Vec<ThreadReport> {
        self.threads.iter().map(|thread| thread.read()).collect()
    }
}

impl Restoring {
    pub fn of(reports: &[ThreadReport]) -> Self {
        let mut restoring = Self::default();
        for report in reports {
            restoring.records_restored += report.records_restored;
            for task in &report.tasks {
                restoring.tasks += 1;
                restoring.tasks_running += usize::from(task.state == TaskState::Running);
                for restore in &task.restores {
                    restoring.offsets_left += restore.remaining();
                    restoring.offsets += (restore.target - restore.start_offset).max(0).unsigned_abs();
                }
            }
        }
        restoring
    }
}

impl Migrating {
    /// `None` where none does.
    pub fn of(reports: &[ThreadReport]) -> Option<Self> {
        let tasks = reports.iter().flat_map(|report| &report.tasks).filter_map(|task| task.migration);
        let mut all = Self { tasks: 0, rows: 0, rows_expected: 0 };
        for migration in tasks {
            all.tasks += 1;
            all.rows += migration.rows;
            all.rows_expected += migration.rows_expected;
        }
        (all.tasks > 0).then_some(all)
    }
}

#[cfg(test)]
mod tests;
