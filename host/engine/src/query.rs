//! Queries over the committed state of the tasks of this process. Stream threads register a read view for each
//! store they open; anybody asks. The registry's lock is held to look views up, never while one is read, and no
//! query reaches a task or what it has not committed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use bytes::Bytes;

use crate::record::{Offset, TopicPartition};
use crate::state::{ReadView, StoreError};
use crate::topology::TaskId;

mod scan;

pub use scan::{Filter, QueryEntry, QueryPage, ResumeKey, ScanQuery, merge_pages};

/// Whether a task processes or keeps a warm copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Active,
    Standby,
}

/// Whether a store can be asked yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Availability {
    /// Nobody has asked yet how far its changelog goes, so that nothing can be said of what it lacks.
    Opened,
    /// Changelog offsets: the next one to restore, and the one at which restoring ends.
    Restoring {
        position: Offset,
        target: Offset,
    },
    /// A copy that has had everything once and follows its changelog since; its next offset, and the end as far as it
    /// knows.
    Following {
        position: Offset,
        end: Offset,
    },
    Running,
}

/// As `max_lag` of a query: any copy may answer that has had everything once, however far it is behind since. One that
/// is still being filled may not: what it lacks are not the latest changes, but anything.
pub const ANY_FOLLOWING: u64 = u64::MAX;

/// Up to where the committed state of a task reflects its source partitions: the committed offsets, once the stores
/// have what was committed with them (Kafka Streams' `Position`). Shared by the stores of a task; written by its
/// thread, read by queries.
#[derive(Debug, Default)]
pub struct SourcePositions(RwLock<Option<Arc<[SourcePosition]>>>);

/// A source partition and the offset that follows the last record of it that is reflected.
pub type SourcePosition = (TopicPartition, Offset);

impl SourcePositions {
    /// What was reflected before stays true for as long as the stores are open.
    pub fn set(&self, positions: impl IntoIterator<Item = SourcePosition>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Some(positions.into_iter().collect());
    }

    /// A store was emptied, so that nothing is known any more.
    pub fn clear(&self) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// `None` while nobody can tell.
    pub fn get(&self) -> Option<Arc<[SourcePosition]>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// A store of a task, as registered.
#[derive(Clone)]
pub struct Registration {
    pub store: Arc<str>,
    pub task: TaskId,
    pub role: Role,
    pub availability: Availability,
    pub view: Arc<dyn ReadView>,
    pub sources: Arc<SourcePositions>,
}

/// Names one registration, so that a task that closes late never removes its successor's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct RegistrationId(u64);

/// A registration that ends with this, unless another has taken its place by then.
pub struct HeldRegistration {
    queries: Arc<QueryRegistry>,
    id: RegistrationId,
}

impl HeldRegistration {
    pub fn new(queries: &Arc<QueryRegistry>, id: RegistrationId) -> Self {
        Self { queries: Arc::clone(queries), id }
    }
}

impl Drop for HeldRegistration {
    fn drop(&mut self) {
        self.queries.unregister(self.id);
    }
}

/// Why a query has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QueryError {
    #[error("store {store} is not declared; declared are: {declared}")]
    UnknownStore { store: String, declared: String },
    /// No task of this process holds the partition, or any partition where none was named.
    #[error("{} of store {store} is not assigned to this host", of_partition(*partition))]
    NotAssigned { store: String, partition: Option<i32> },
    /// Ask again later.
    #[error("partition {partition} of store {store} was opened just now; how much is to be restored is not known yet")]
    Opened { store: String, partition: i32 },
    /// Ask again later, or allow stale answers from a standby.
    #[error("partition {partition} of store {store} is being restored: {position} of {target}")]
    Restoring { store: String, partition: i32, position: Offset, target: Offset },
    #[error(transparent)]
    Store(#[from] StoreError),
}

fn of_partition(partition: Option<i32>) -> String {
    partition.map_or_else(|| "any partition".to_owned(), |partition| format!("partition {partition}"))
}

/// The answer to a query for one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyAnswer {
    pub value: Option<Bytes>,
    /// The value is at least as new as this.
    pub position: PartitionPosition,
    /// The value is no newer than this: who has seen it has seen no more.
    pub seen: PartitionPosition,
}

/// The answer to a query for several keys of one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeysAnswer {
    pub values: Vec<Option<Bytes>>,
    /// As for one key.
    pub position: PartitionPosition,
    pub seen: PartitionPosition,
}

/// From where an answer comes and how new it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionPosition {
    pub partition: i32,
    pub role: Role,
    /// The answer reflects all changelog records below this offset, and maybe later ones. `None` for a store
    /// without a changelog or before its first commit.
    pub changelog_offset: Option<Offset>,
    /// How many offsets of its changelog the copy lacked, as far as it knew; 0 for an active task that runs.
    pub lag: u64,
    /// The answer reflects these source partitions below their offsets, and maybe later records. `None` for a copy that
    /// follows a changelog, which does not say it.
    pub sources: Option<Arc<[SourcePosition]>>,
}

#[derive(Default)]
struct Registered {
    by_store: BTreeMap<Arc<str>, BTreeMap<i32, (RegistrationId, Registration)>>,
    last_id: u64,
}

/// The stores of this process that can be asked. Shared by the stream threads and whoever serves queries.
pub struct QueryRegistry {
    declared: BTreeSet<Arc<str>>,
    registered: RwLock<Registered>,
}

impl QueryRegistry {
    /// A registry of an application with these stores.
    pub fn new(declared: impl IntoIterator<Item = Arc<str>>) -> Self {
        Self { declared: declared.into_iter().collect(), registered: RwLock::default() }
    }

    // The map is only ever changed by single inserts and removals, so a poisoned lock is no sign of damage.
    fn read(&self) -> RwLockReadGuard<'_, Registered> {
        self.registered.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Registered> {
        self.registered.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a store that was opened. It takes the place of an older registration of the same partition.
    pub fn register(&self, registration: Registration) -> RegistrationId {
        let mut registered = self.write();
        registered.last_id += 1;
        let id = RegistrationId(registered.last_id);
        let partitions = registered.by_store.entry(Arc::clone(&registration.store)).or_default();
        partitions.insert(registration.task.partition, (id, registration));
        id
    }

    /// Removes a registration before its store is closed. Without effect when another has taken its place.
    pub fn unregister(&self, id: RegistrationId) {
        for partitions in self.write().by_store.values_mut() {
            partitions.retain(|_, (registered, _)| *registered != id);
        }
    }

    /// Reports how far restoring has come, or that the task runs.
    pub fn set_availability(&self, id: RegistrationId, availability: Availability) {
        let mut registered = self.write();
        let registrations = registered.by_store.values_mut().flat_map(BTreeMap::values_mut);
        if let Some((_, registration)) = { registrations }.find(|(registered, _)| *registered == id) {
            registration.availability = availability;
        }
    }

    /// Everything that is registered, by store and partition.
    pub fn registrations(&self) -> Vec<Registration> {
        let registered = self.read();
        registered.by_store.values().flat_map(BTreeMap::values).map(|(_, registration)| registration.clone()).collect()
    }

    /// The declared stores, in order.
    pub fn declared_stores(&self) -> impl Iterator<Item = &Arc<str>> {
        self.declared.iter()
    }

    /// As `get` where nothing has to be read from a disk; `None` where that is not known.
    pub fn get_in_memory(
        &self,
        store: &str,
        partition: i32,
        key: &[u8],
        max_lag: Option<u64>,
    ) -> Result<Option<KeyAnswer>, QueryError> {
        let registration = self.local(store, Some(&[partition]), max_lag.is_some())?.remove(0);
        available(&registration, max_lag)?;
        let before = position(&registration)?;
        let Some(value) = registration.view.get_in_memory(key)? else { return Ok(None) };
        Ok(Some(KeyAnswer { value, position: before, seen: position(&registration)? }))
    }

    /// The values of several keys in one partition, as `get`.
    pub fn get_many(
        &self,
        store: &str,
        partition: i32,
        keys: &[&[u8]],
        max_lag: Option<u64>,
    ) -> Result<KeysAnswer, QueryError> {
        let registration = self.local(store, Some(&[partition]), max_lag.is_some())?.remove(0);
        available(&registration, max_lag)?;
        let before = position(&registration)?;
        let values = keys.iter().map(|key| registration.view.get(key)).collect::<Result<_, _>>()?;
        Ok(KeysAnswer { values, position: before, seen: position(&registration)? })
    }

    /// How far the partitions are that could answer: what is looked at before anything is read.
    pub fn positions(
        &self,
        store: &str,
        partitions: &[i32],
        max_lag: Option<u64>,
    ) -> Result<Vec<PartitionPosition>, QueryError> {
        let registrations = match self.local(store, Some(partitions), max_lag.is_some()) {
            Err(QueryError::NotAssigned { .. }) => return Ok(Vec::new()),
            registrations => registrations?,
        };
        registrations.iter().filter(|one| available(one, max_lag).is_ok()).map(position).collect()
    }

    /// The value of a key in one partition. With `max_lag` copies may answer that lack at most so many offsets.
    pub fn get(&self, store: &str, partition: i32, key: &[u8], max_lag: Option<u64>) -> Result<KeyAnswer, QueryError> {
        let registration = self.local(store, Some(&[partition]), max_lag.is_some())?.remove(0);
        available(&registration, max_lag)?;
        // The offset first: what is committed in between makes the answer newer than it says, never older.
        let before = position(&registration)?;
        let value = registration.view.get(key)?;
        Ok(KeyAnswer { value, position: before, seen: position(&registration)? })
    }

    /// The registrations that a query may read; at least one.
    fn local(
        &self,
        store: &str,
        partitions: Option<&[i32]>,
        allow_standby: bool,
    ) -> Result<Vec<Registration>, QueryError> {
        if !self.declared.contains(store) {
            let declared: Vec<&str> = self.declared.iter().map(|name| &**name).collect();
            let declared = if declared.is_empty() { "none".to_owned() } else { declared.join(", ") };
            return Err(QueryError::UnknownStore { store: store.to_owned(), declared });
        }
        let registered = self.read();
        let found: Vec<Registration> = { registered.by_store.get(store).into_iter().flatten() }
            .filter(|(number, (_, registration))| {
                partitions.is_none_or(|asked| asked.contains(number))
                    && (allow_standby || registration.role == Role::Active)
            })
            .map(|(_, (_, registration))| registration.clone())
            .collect();
        if found.is_empty() {
            let partition = partitions.and_then(|asked| asked.first().copied());
            return Err(QueryError::NotAssigned { store: store.to_owned(), partition });
        }
        Ok(found)
    }
}

/// What a copy lacks, as far as it knows.
fn lag(registration: &Registration) -> u64 {
    match registration.availability {
        Availability::Running => 0,
        Availability::Opened => u64::MAX,
        Availability::Following { position, end } if registration.role == Role::Standby => {
            (end - position).max(0).unsigned_abs()
        }
        // A bulk load gathers what was read before a view can see it, so the store itself says how far that is.
        Availability::Following { position, end: target } | Availability::Restoring { position, target } => {
            let stored = registration.view.changelog_offset().ok().flatten().unwrap_or(0);
            (target - position.min(stored)).max(0).unsigned_abs()
        }
    }
}

fn available(registration: &Registration, max_lag: Option<u64>) -> Result<(), QueryError> {
    match registration.availability {
        Availability::Running => Ok(()),
        Availability::Opened => {
            Err(QueryError::Opened { store: registration.store.to_string(), partition: registration.task.partition })
        }
        Availability::Following { .. } if max_lag.is_some_and(|most| lag(registration) <= most) => Ok(()),
        Availability::Restoring { .. }
            if max_lag.is_some_and(|most| most != ANY_FOLLOWING && lag(registration) <= most) =>
        {
            Ok(())
        }
        Availability::Restoring { position, target } | Availability::Following { position, end: target } => {
            Err(QueryError::Restoring {
                store: registration.store.to_string(),
                partition: registration.task.partition,
                position,
                target,
            })
        }
    }
}

fn position(registration: &Registration) -> Result<PartitionPosition, QueryError> {
    Ok(PartitionPosition {
        partition: registration.task.partition,
        role: registration.role,
        sources: registration.sources.get(),
        changelog_offset: registration.view.changelog_offset()?,
        lag: lag(registration),
    })
}

#[cfg(test)]
mod tests;
