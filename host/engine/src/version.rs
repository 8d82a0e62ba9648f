//! Which version of the processor the tasks of an application run. Owns the version that is wanted, the one that a
//! rollback returns to, and the count of what a version does while it is on probation. Never touches a task: stream
//! threads ask at a commit boundary, and a task that runs another version than the wanted one is swapped there.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::processor::{ProcessorError, ProcessorSupplier};

mod generations;
mod probation;
mod rehearsal;
mod warm_up;
pub use generations::{Found, has_current_rows, older_generations};
pub use probation::{Probation, VersionTally};
pub use rehearsal::{Rows, rehearse_migrations};
pub use warm_up::warm_up;

/// A processor with its settings, as it was deployed once.
pub struct ProcessorVersion {
    /// Counted by the deployments of an application, from 1.
    pub number: u64,
    pub processors: Arc<dyn ProcessorSupplier>,
    /// The manifest's `[config]` table, for the processor.
    pub config: Arc<BTreeMap<String, String>>,
    /// What it has done since it is wanted.
    pub tally: VersionTally,
}

impl ProcessorVersion {
    pub fn new(
        number: u64,
        processors: Arc<dyn ProcessorSupplier>,
        config: Arc<BTreeMap<String, String>>,
    ) -> Arc<Self> {
        Arc::new(Self { number, processors, config, tally: VersionTally::default() })
    }
}

/// A version that was given up, by the host itself or by its operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RolledBack {
    pub number: u64,
    /// The version that is wanted since; `None` where there is none with this topology, and the tasks stand still.
    pub to: Option<u64>,
    pub reason: String,
}

/// A version that another one has taken over from.
struct Former {
    version: Arc<ProcessorVersion>,
    /// The one that it was still on.
    probation: Option<Probation>,
}

struct State {
    target: Arc<ProcessorVersion>,
    /// What a rollback returns to: the last one first, which is the version before the wanted one. Where that was not
    /// confirmed, the last version that was is behind it. So they are two at most.
    former: Vec<Former>,
    /// Of the wanted one; `None` once it is confirmed.
    probation: Option<Probation>,
    /// What the last confirmed version does, for the probation to compare with.
    before: Rates,
    /// Since the last deployment.
    rollbacks: Vec<RolledBack>,
}

impl State {
    /// Whether the wanted version was given up, and there was none to return to.
    fn is_given_up(&self) -> bool {
        self.rollbacks.last().is_some_and(|back| back.to.is_none())
    }
}

/// How often a version fails, per record.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Rates {
    /// Calls that crashed.
    pub crashes: f64,
    /// Records and punctuations that it made be given up.
    pub given_up: f64,
    /// Records that it forwards; `None` where too little is known.
    pub outputs: Option<f64>,
}

/// The versions that the stream threads of an application choose from, and whether they are to run at all. All of them
/// have the sources, sinks and stores of the first: another topology is another start.
pub struct Versions {
    state: Mutex<State>,
    /// The number of the wanted version, to be looked at in every turn.
    target_number: AtomicU64,
    /// The number of the version that is on probation, to be looked at with every batch; 0 where there is none.
    probation_number: AtomicU64,
    /// Nothing is processed for now.
    is_paused: AtomicBool,
    /// A task has rows of an older schema that the threads have not open.
    misses_older_rows: AtomicBool,
}

impl Versions {
    /// With one version, which needs no probation.
    pub fn new(first: Arc<ProcessorVersion>) -> Self {
        let target_number = AtomicU64::new(first.number);
        let state = State {
            target: first,
            former: Vec::new(),
            probation: None,
            before: Rates::default(),
            rollbacks: Vec::new(),
        };
        Self {
            state: Mutex::new(state),
            target_number,
            probation_number: AtomicU64::new(0),
            is_paused: AtomicBool::new(false),
            misses_older_rows: AtomicBool::new(false),
        }
    }

    /// With one version that nothing came before, as after a start with another topology. When it is given up the tasks
    /// stand still until somebody starts something else.
    pub fn on_probation(first: Arc<ProcessorVersion>, probation: Probation) -> Self {
        let versions = Self::new(first);
        let mut state = versions.state();
        state.probation = Some(probation);
        versions.publish(&state);
        drop(state);
        versions
    }

    /// With one version for ever, as tests and benchmarks have it.
    pub fn only(processors: Arc<dyn ProcessorSupplier>, config: Arc<BTreeMap<String, String>>) -> Arc<Self> {
        Arc::new(Self::new(ProcessorVersion::new(1, processors, config)))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What tasks are to run.
    pub fn target(&self) -> Arc<ProcessorVersion> {
        Arc::clone(&self.state().target)
    }

    pub fn target_number(&self) -> u64 {
        self.target_number.load(Relaxed)
    }

    /// The version that a rollback would return to.
    pub fn previous(&self) -> Option<Arc<ProcessorVersion>> {
        self.state().former.last().map(|former| Arc::clone(&former.version))
    }

    /// Whether the wanted version is on probation.
    pub fn is_on_probation(&self) -> bool {
        self.state().probation.is_some()
    }

    /// Wants another version. The one before is what a rollback returns to; where that is on probation it is on it
    /// again then, and the last confirmed one is next. Without a probation the new one is confirmed at once.
    pub fn deploy(&self, version: Arc<ProcessorVersion>, probation: Option<Probation>) {
        let mut state = self.state();
        self.want(&mut state, version, probation, true);
    }

    /// As `deploy`, if this version is wanted still: what comes next rests on it, and threads may have gone back since.
    /// False where it is not; nothing has changed then.
    pub fn deploy_after(
        &self,
        expected: u64,
        version: Arc<ProcessorVersion>,
        probation: Option<Probation>,
        is_kept: bool,
    ) -> bool {
        let mut state = self.state();
        let is_expected = state.target.number == expected;
        if is_expected {
            self.want(&mut state, version, probation, is_kept);
        }
        is_expected
    }

    /// One that is not kept was given up somewhere else, and is nothing to return to.
    fn want(&self, state: &mut State, version: Arc<ProcessorVersion>, probation: Option<Probation>, is_kept: bool) {
        let number = version.number;
        let replaced = std::mem::replace(&mut state.target, version);
        let was_given_up = state.is_given_up();
        state.rollbacks.clear();
        // One that was given up here neither.
        let is_kept = is_kept && !was_given_up;
        match (is_kept, state.probation) {
            (true, None) => {
                state.before = replaced.tally.rates();
                state.former.clear();
            }
            // It takes the place of the one before it that was not confirmed either.
            (true, Some(_)) => state.former.retain(|former| former.probation.is_none()),
            (false, _) => state.former.retain(|former| former.version.number < number),
        }
        if is_kept {
            let probation = state.probation;
            state.former.push(Former { version: replaced, probation });
        }
        state.probation = probation;
        // The tasks stood still because there was nothing to return to.
        if was_given_up {
            self.is_paused.store(false, Relaxed);
        }
        self.publish(state);
    }

    fn publish(&self, state: &State) {
        self.target_number.store(state.target.number, Relaxed);
        self.probation_number.store(state.probation.map_or(0, |_| state.target.number), Relaxed);
    }

    /// Ends the probation of a version. False when it is not the wanted one.
    pub fn confirm(&self, number: u64) -> bool {
        let mut state = self.state();
        let is_target = state.target.number == number;
        if is_target {
            state.probation = None;
            self.publish(&state);
        }
        is_target
    }

    /// Returns to the previous version, or pauses where there is none and the version is on probation. False when it is
    /// not the wanted one, or when it is confirmed and there is nothing to return to.
    pub fn roll_back(&self, number: u64, reason: &str) -> bool {
        let mut state = self.state();
        if state.target.number != number {
            return false;
        }
        let previous = state.former.pop();
        if previous.is_none() && state.probation.is_none() {
            return false;
        }
        let to = previous.as_ref().map(|previous| previous.version.number);
        state.rollbacks.push(RolledBack { number, to, reason: reason.to_owned() });
        match previous {
            Some(Former { version, probation }) => (state.target, state.probation) = (version, probation),
            None => {
                state.probation = None;
                self.is_paused.store(true, Relaxed);
            }
        }
        self.publish(&state);
        true
    }

    /// Whether tasks are to process nothing for now. What they have done is committed all the same.
    pub fn is_paused(&self) -> bool {
        self.is_paused.load(Relaxed)
    }

    /// Whether tasks stand still because the wanted version was given up and there is none to return to: none is to be
    /// started, as that would fail too.
    pub fn is_given_up(&self) -> bool {
        self.is_paused() && self.state().is_given_up()
    }

    /// Lets the tasks stand still, or go on. One that was given up goes on at the word of its operator, and is on no
    /// probation any more.
    pub fn pause(&self, paused: bool) {
        let mut state = self.state();
        if !paused && state.is_given_up() {
            state.rollbacks.clear();
        }
        self.is_paused.store(paused, Relaxed);
    }

    /// Whether a task waits for rows of an older schema that the threads have not open: they are to be started again.
    pub fn misses_older_rows(&self) -> bool {
        self.misses_older_rows.load(Relaxed)
    }

    /// Notes that.
    pub fn miss_older_rows(&self) {
        self.misses_older_rows.store(true, Relaxed);
    }

    /// The last rollback, until the next deployment.
    pub fn rolled_back(&self) -> Option<RolledBack> {
        self.state().rollbacks.last().cloned()
    }

    /// The rollbacks since the last deployment, in their order.
    pub fn rollbacks(&self) -> Vec<RolledBack> {
        self.state().rollbacks.clone()
    }

    /// Why the wanted version is past the bounds of its probation; `None` where it is within them, is on none, or is
    /// not the one asked about.
    pub fn past_bounds(&self, number: u64) -> Option<String> {
        if self.probation_number.load(Relaxed) != number {
            return None;
        }
        let state = self.state();
        let probation = state.probation.as_ref().filter(|_| state.target.number == number)?;
        probation.judge(&state.target.tally, &state.before)
    }

    /// Counts a failed call of a version and judges it.
    pub fn failed(&self, version: &ProcessorVersion, error: &ProcessorError) -> Option<String> {
        self.of_number(version, |tally| tally.failed(error));
        self.judge(version, error)
    }

    /// Counts a record or a punctuation that is about to be given up because of a version, and judges that.
    pub fn gave_up(&self, version: &ProcessorVersion, error: &ProcessorError) -> Option<String> {
        self.of_number(version, VersionTally::gave_up);
        self.judge(version, error)
    }

    /// A task may run a version that was wanted again since, as another one of the same number, which is judged.
    fn of_number(&self, version: &ProcessorVersion, count: impl FnOnce(&VersionTally)) {
        let target = self.target();
        count(if target.number == version.number { &target.tally } else { &version.tally });
    }

    /// A version that is not wanted any more has no say about a record: whoever takes over gets it.
    fn judge(&self, version: &ProcessorVersion, error: &ProcessorError) -> Option<String> {
        if self.target_number() != version.number {
            return Some(format!("another version was about to take over when it failed: {error}"));
        }
        // Another thread was faster.
        if self.is_given_up() {
            return Some(format!("it was given up already when it failed: {error}"));
        }
        let reason = self.past_bounds(version.number)?;
        Some(format!("{reason}; the last failure: {error}"))
    }
}

#[cfg(test)]
mod tests;
