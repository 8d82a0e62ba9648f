//! What happens to a host in the middle of a turn: it crashes between two stages of a commit or between two calls, or
//! it stands still there while the others go on, and then goes on itself as if nothing had been.

use engine::topology::TaskId;

use super::World;

/// What is going to happen to a host.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// Crash so many calls after a commit has entered this stage.
    pub crash_at: Option<(&'static str, u64)>,
    /// Stand still so many calls after a commit has entered this stage.
    pub stall_at: Option<(&'static str, u64)>,
    /// Stand still after so many calls.
    pub stall_after: Option<u64>,
    /// Where the commits of its threads stand, and whose store was written last in this stage.
    commits: Vec<(usize, String, Option<TaskId>)>,
}

/// The stages that a commit enters, under exactly-once.
const EXACTLY_ONCE_STAGES: [&str; 6] =
    ["write changelogs", "drain", "send offsets", "commit transaction", "write stores", "completed"];

/// The stages that a commit enters, under at-least-once.
const AT_LEAST_ONCE_STAGES: [&str; 6] =
    ["drain outputs", "write changelogs", "drain", "commit offsets", "write stores", "completed"];

impl Plan {
    fn commit_of(&mut self, thread: usize) -> &mut (usize, String, Option<TaskId>) {
        let known = self.commits.iter().position(|(of, ..)| *of == thread);
        let index = known.unwrap_or_else(|| {
            self.commits.push((thread, "completed".to_owned(), None));
            self.commits.len() - 1
        });
        &mut self.commits[index]
    }
}

impl World {
    /// One of the stages of a commit.
    pub(super) fn any_stage(&self) -> &'static str {
        let stages = if self.scenario.is_exactly_once() { EXACTLY_ONCE_STAGES } else { AT_LEAST_ONCE_STAGES };
        stages[self.below(stages.len() as u64) as usize]
    }

    /// The running thread's commit has entered a stage. The engine is in the middle of its trace here, so nobody else
    /// can run: what is planned happens with one of the next calls.
    pub(crate) fn stage_entered(&self, stage: &str) {
        let mut state = self.state.borrow_mut();
        let Some(&(host, thread)) = state.running.last() else { return };
        let plan = &mut state.plans[host];
        let (_, entered, written) = plan.commit_of(thread);
        stage.clone_into(entered);
        *written = None;
        if plan.stall_at.is_some_and(|(at, _)| at == stage) {
            plan.stall_after = plan.stall_at.take().map(|(_, calls)| calls);
        }
        if let Some((_, calls)) = plan.crash_at.take_if(|(at, _)| *at == stage) {
            self.broker.faults().crash_after(&self.name(host), calls);
        }
    }

    /// The running thread writes a store.
    pub(crate) fn store_written(&self, task: TaskId) {
        let mut state = self.state.borrow_mut();
        let Some(&(host, thread)) = state.running.last() else { return };
        if self.broker.faults().is_crashed(&self.name(host)) {
            let (_, stage, written) = state.plans[host].commit_of(thread);
            if stage == "write stores" && written.is_some_and(|written| written != task) {
                let place = "crash between the stores of two tasks".to_owned();
                *state.coverage.entry(place).or_default() += 1;
            }
            return;
        }
        state.plans[host].commit_of(thread).2 = Some(task);
    }

    /// A client of a host, or its disk, is about to be called.
    pub(crate) fn interrupted(&self, who: &str) {
        let stalls = {
            let mut state = self.state.borrow_mut();
            let Some(&(host, thread)) = state.running.last() else { return };
            if !who.starts_with(&format!("{}-", self.name(host))) {
                return;
            }
            let plan = &mut state.plans[host];
            match plan.stall_after {
                Some(0) => {
                    plan.stall_after = None;
                    Some((host, thread))
                }
                Some(calls) => {
                    plan.stall_after = Some(calls - 1);
                    None
                }
                None => None,
            }
        };
        if let Some((host, thread)) = stalls {
            self.stand_still(host, thread);
        }
    }

    /// The host stands still in the middle of a call and the others go on.
    fn stand_still(&self, host: usize, thread: usize) {
        if self.state.borrow().running.len() > 1 || self.broker.faults().is_crashed(&self.name(host)) {
            return;
        }
        let mut stage = self.state.borrow_mut().plans[host].commit_of(thread).1.clone();
        if stage == "completed" {
            "no commit".clone_into(&mut stage);
        }
        *self.state.borrow_mut().coverage.entry(format!("stall in {stage}")).or_default() += 1;
        self.count("stall");
        self.note(&self.name(host), &format!("stands still in the middle of a call, in {stage}"));
        let steps = 450 + self.below(300);
        for _ in 0..steps {
            self.misfortune();
            self.produce_some();
            if let Err(violation) = self.turn() {
                self.state.borrow_mut().violation.get_or_insert(violation);
                return;
            }
        }
        self.note(&self.name(host), "goes on");
    }

    /// Takes down where in a commit a host has crashed.
    pub(super) fn count_crash(&self, host: usize, thread: usize) {
        let mut state = self.state.borrow_mut();
        let (_, stage, written) = state.plans[host].commit_of(thread).clone();
        let place = match (stage.as_str(), written) {
            ("completed", _) => "crash outside of a commit".to_owned(),
            ("write stores", Some(_)) => "crash after a write of a store".to_owned(),
            _ => format!("crash in {stage}"),
        };
        *state.coverage.entry(place).or_default() += 1;
    }
}
