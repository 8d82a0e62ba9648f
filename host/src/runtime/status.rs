//! What the host says of itself: the phase of its application and, once that is wired, its topology, tasks and
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

/// The host's view of its application, shared by whoever shows it.
pub struct Status {
    pub application_id: String,
    inner: RwLock<(Phase, Option<Arc<Wired>>)>,
}

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

/// Whether the host can do its work now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Readiness {
    Ready,
    /// Why not, in words for people.
    NotReady(String),
}

impl Status {
    pub fn new(application_id: &str) -> Self {
        let phase = Phase::Starting("reading the manifest");
        Self { application_id: application_id.to_owned(), inner: RwLock::new((phase, None)) }
    }

    pub fn phase(&self) -> Phase {
        self.inner.read().unwrap_or_else(PoisonError::into_inner).0.clone()
    }

    /// Sets the phase. A failure stays: what comes after it is only its clearing up.
    pub fn set_phase(&self, phase: Phase) {
        let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
        if !matches!(inner.0, Phase::Failed(_)) {
            inner.0 = phase;
        }
    }

    pub fn wire(&self, wired: Wired) {
        self.inner.write().unwrap_or_else(PoisonError::into_inner).1 = Some(Arc::new(wired));
    }

    pub fn wired(&self) -> Option<Arc<Wired>> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner).1.clone()
    }

    /// The latest report of each stream thread.
    pub fn reports(&self) -> Vec<ThreadReport> {
        self.wired().map(|wired| wired.reports()).unwrap_or_default()
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
            Phase::Failed(error) => return not_ready(format!("failed: {error}")),
            Phase::Running => {}
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
        Readiness::Ready
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

#[cfg(test)]
mod tests;
