//! A standby task: the logged stores of a task on a host that does not process it, written by its changelogs alone.
//! Each batch carries its offset, as in a restore (R13), so the copy can be closed, killed or promoted at any point.
//! Never reads from a broker itself.

use std::sync::Arc;

use super::handover::{OpenStore, OpenStores, StandbyClaim, WholeCopy};
use super::report::{StandbyState, StandbyStoreReport, StandbyTaskReport};
use crate::broker::{PartitionRecords, Watermarks};
use crate::error::EngineError;
use crate::query::{Availability, HeldRegistration, QueryRegistry, Registration, RegistrationId, Role};
use crate::record::{Offset, TopicPartition};
use crate::restore::{RestoreStart, check_content, regressed, restore_start};
use crate::state::changelog::{to_writes, warn_of_dropped};
use crate::state::{StateStore, StoreProvider};
use crate::task::stream_task::open_or_wipe;
use crate::topology::{StoreSpec, TaskId};

/// A task whose positions do not move for this long waits for others: a transaction is open on its changelog.
const STANDS_STILL_MS: u64 = 5_000;

/// One store of the task.
struct StandbyStore {
    spec: StoreSpec,
    changelog: TopicPartition,
    backend: Box<dyn StateStore>,
    registration: Option<RegistrationId>,
    /// The next offset to be read.
    position: Offset,
    /// The end of the changelog when it was last asked for.
    end: Offset,
    /// The end when the task began.
    target: Offset,
    /// It has had everything once, maybe in an earlier life of it in this process.
    whole: bool,
    /// That it leaves out records without a key was said.
    dropped_reported: bool,
}

impl StandbyStore {
    fn new(spec: StoreSpec, changelog: TopicPartition, backend: Box<dyn StateStore>) -> Self {
        Self {
            spec,
            changelog,
            backend,
            registration: None,
            position: 0,
            end: 0,
            target: 0,
            whole: false,
            dropped_reported: false,
        }
    }

    fn availability(&self) -> Availability {
        match self.whole {
            true => Availability::Following { position: self.position, end: self.end },
            false => Availability::Restoring { position: self.position, target: self.end },
        }
    }
}

/// What a look at the bounds of its changelogs says of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bounds {
    Within,
    /// A changelog was cut above the position, or ends below it: begin the task anew, which decides what to do.
    Outside,
}

/// A task that is kept warm.
pub(super) struct StandbyTask {
    id: TaskId,
    queries: Arc<QueryRegistry>,
    stores: Vec<StandbyStore>,
    caught_up: bool,
    /// When a position moved last (monotonic).
    moved_ms: u64,
    /// The last field: it ends after the stores are closed. Gone with a hand-over.
    claim: Option<StandbyClaim>,
}

impl StandbyTask {
    /// Opens the stores, each with its changelog; wipes those that are corrupt. They are not read before `begin`.
    pub fn open(
        id: TaskId,
        claim: StandbyClaim,
        logged: &[(StoreSpec, TopicPartition)],
        provider: &dyn StoreProvider,
        queries: &Arc<QueryRegistry>,
    ) -> Result<Self, EngineError> {
        let (queries, claim) = (Arc::clone(queries), Some(claim));
        let mut task = Self { id, queries, stores: Vec::new(), caught_up: false, moved_ms: 0, claim };
        for (spec, changelog) in logged {
            let backend = open_or_wipe(provider, id, spec)?;
            task.stores.push(StandbyStore::new(spec.clone(), changelog.clone(), backend));
        }
        Ok(task)
    }

    pub fn changelogs(&self) -> Vec<TopicPartition> {
        self.stores.iter().map(|store| store.changelog.clone()).collect()
    }

    /// Decides by R11 where to begin with each changelog, and offers the stores to queries. `logs` are the bounds of
    /// the changelogs in their order.
    pub fn begin(&mut self, logs: &[Watermarks], provider: &dyn StoreProvider, now_ms: u64) -> Result<(), EngineError> {
        let id = self.id;
        for index in 0..self.stores.len() {
            let (Some(store), Some(&log)) = (self.stores.get(index), logs.get(index)) else { continue };
            let stored = store.backend.changelog_offset()?;
            check_content(id, &store.spec.name, &store.changelog, stored, &*store.backend.read_view())?;
            let position = match restore_start(stored, log) {
                RestoreStart::Complete => log.high,
                RestoreStart::From(position) => position,
                RestoreStart::WipeAndFrom(position) => {
                    tracing::warn!(task = %id, store = %store.spec.name, changelog = %store.changelog, stored,
                        log_start = position, "changelog was cut above the standby store, wiping the store");
                    self.wipe(index, provider)?;
                    position
                }
                RestoreStart::Regressed => {
                    let of_source = store.spec.is_source_backed();
                    let stored = stored.unwrap_or(0);
                    return Err(regressed(id, &store.spec.name, &store.changelog, of_source, stored, log.high));
                }
            };
            let Some(store) = self.stores.get_mut(index) else { continue };
            (store.position, store.end, store.target) = (position, log.high, log.high);
            // A store that was wiped meanwhile has no offset.
            let stored = store.backend.changelog_offset()?;
            store.whole = self.claim.as_ref().is_some_and(|claim| claim.take_whole(&store.spec.name, stored));
            store.registration = Some(self.queries.register(Registration {
                store: Arc::clone(&store.spec.name),
                task: id,
                role: Role::Standby,
                availability: store.availability(),
                view: store.backend.read_view(),
                sources: Arc::default(),
            }));
        }
        self.moved_ms = now_ms;
        self.see_caught_up();
        Ok(())
    }

    fn wipe(&mut self, index: usize, provider: &dyn StoreProvider) -> Result<(), EngineError> {
        let StandbyStore { spec, changelog, backend, .. } = self.stores.remove(index);
        drop(backend);
        provider.wipe(self.id, &spec)?;
        let backend = provider.open(self.id, &spec)?;
        self.stores.insert(index, StandbyStore::new(spec, changelog, backend));
        Ok(())
    }

    /// Where each changelog is to be read.
    pub fn positions(&self) -> impl Iterator<Item = (&TopicPartition, Offset)> {
        self.stores.iter().map(|store| (&store.changelog, store.position))
    }

    /// Whether the stores have reached the ends that the changelogs had when the task began.
    pub fn is_caught_up(&self) -> bool {
        self.caught_up
    }

    /// Whether it is on its way to that. One that waits for the end of a transaction is not, so that it does not hold
    /// up others.
    pub fn is_catching_up(&self, now_ms: u64) -> bool {
        !self.caught_up && now_ms.saturating_sub(self.moved_ms) < STANDS_STILL_MS
    }

    /// Whether a stream thread waits for the task.
    pub fn is_wanted(&self) -> bool {
        self.claim.as_ref().is_some_and(StandbyClaim::is_wanted)
    }

    /// Applies records of one of its changelogs. Returns how many, and how many had no key and no place.
    pub fn apply(&mut self, polled: &PartitionRecords) -> Result<(u64, u64), EngineError> {
        let Some(store) = self.stores.iter_mut().find(|store| store.changelog == polled.partition) else {
            return Ok((0, 0));
        };
        let Some(last) = polled.records.last() else { return Ok((0, 0)) };
        let (writes, dropped) = to_writes(&polled.partition, &polled.records, store.spec.is_source_backed())?;
        store.backend.write(&writes, Some(last.offset + 1))?;
        if dropped > 0 && !std::mem::replace(&mut store.dropped_reported, true) {
            warn_of_dropped(self.id, &polled.partition, dropped);
        }
        Ok((writes.len() as u64, dropped))
    }

    /// The reader has passed everything before this offset, control records included.
    pub fn passed(&mut self, changelog: &TopicPartition, position: Offset, now_ms: u64) {
        let store = self.stores.iter_mut().find(|store| store.changelog == *changelog);
        if let Some(store) = store.filter(|store| store.position < position) {
            store.position = position;
            self.moved_ms = now_ms;
        }
        self.see_caught_up();
    }

    fn see_caught_up(&mut self) {
        self.caught_up |= self.stores.iter().all(|store| store.position >= store.target);
        if self.caught_up {
            self.stores.iter_mut().for_each(|store| store.whole = true);
        }
    }

    /// Takes the bounds of a changelog as they are now.
    pub fn look(&mut self, changelog: &TopicPartition, log: Watermarks) -> Bounds {
        let Some(store) = self.stores.iter_mut().find(|store| store.changelog == *changelog) else {
            return Bounds::Within;
        };
        store.end = log.high;
        let within = log.low <= store.position && store.position <= log.high;
        if within { Bounds::Within } else { Bounds::Outside }
    }

    /// Moves the stored offsets past the control records that were read since the last record.
    fn store_positions(&mut self) -> Result<(), EngineError> {
        for store in &mut self.stores {
            if store.backend.changelog_offset()?.unwrap_or(0) < store.position {
                store.backend.write(&[], Some(store.position))?;
            }
        }
        Ok(())
    }

    /// Makes durable what was applied (R4).
    pub fn flush(&mut self) -> Result<(), EngineError> {
        self.store_positions()?;
        for store in &mut self.stores {
            store.backend.flush()?;
        }
        Ok(())
    }

    /// Ends the standby task and gives its open stores to the stream thread that wants them.
    pub fn hand_over(mut self) {
        if let Err(error) = self.store_positions() {
            tracing::debug!(task = %self.id, %error, "the promoted task restores from an older offset");
        }
        // For whoever opens them next, if the stream thread does not want them any more.
        self.note_whole();
        let queries = Arc::clone(&self.queries);
        let open = |store: StandbyStore| {
            let registration = store.registration.map(|id| HeldRegistration::new(&queries, id));
            let (position, end) = (store.position, store.end);
            let copy = registration.filter(|_| store.whole);
            let copy = copy.map(|registration| WholeCopy { position, end, registration });
            OpenStore { copy, name: store.spec.name, backend: store.backend }
        };
        let stores: OpenStores = std::mem::take(&mut self.stores).into_iter().map(open).collect();
        if let Some(claim) = self.claim.take() {
            claim.hand_over(stores);
        }
    }

    /// Closes the stores and keeps the hold on the task, so that nobody opens what is about to be wiped.
    pub fn close(mut self) -> Option<StandbyClaim> {
        self.unregister();
        self.note_whole();
        self.stores.clear();
        self.claim.take()
    }

    fn note_whole(&self) {
        for store in self.stores.iter().filter(|store| store.whole) {
            // Without its offset it is a store of which nothing is known.
            if let (Some(claim), Ok(Some(offset))) = (&self.claim, store.backend.changelog_offset()) {
                claim.note_whole(&store.spec.name, offset);
            }
        }
    }

    fn unregister(&mut self) {
        for registration in self.stores.iter_mut().filter_map(|store| store.registration.take()) {
            self.queries.unregister(registration);
        }
    }

    /// Tells queries how far the stores are, and says the same for the report.
    pub fn report(&self) -> StandbyTaskReport {
        let stores = self.stores.iter().map(|store| {
            if let Some(registration) = store.registration {
                self.queries.set_availability(registration, store.availability());
            }
            StandbyStoreReport {
                store: store.spec.name.to_string(),
                changelog: store.changelog.clone(),
                position: store.position,
                end: store.end,
            }
        });
        let stores = stores.collect();
        let state = if self.caught_up { StandbyState::Following } else { StandbyState::CatchingUp };
        StandbyTaskReport { task: self.id, state, error: None, stores }
    }
}

impl Drop for StandbyTask {
    fn drop(&mut self) {
        self.unregister();
        self.note_whole();
    }
}
