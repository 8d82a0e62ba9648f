//! Queries over the committed state of the tasks of this process. Stream threads register a read view for each
//! store they open; anybody asks. The registry's lock is held to look views up, never while one is read, and no
//! query reaches a task or what it has not committed.

use std::collections::{BTreeMap, BTreeSet};
use std::iter::Peekable;
use std::num::NonZeroUsize;
use std::ops::Bound;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use bytes::Bytes;

use crate::record::Offset;
use crate::state::{KeyRange, Page, PageBuilder, ReadView, StoreError};
use crate::topology::TaskId;

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
    Running,
}

/// A store of a task, as registered.
#[derive(Clone)]
pub struct Registration {
    pub store: Arc<str>,
    pub task: TaskId,
    pub role: Role,
    pub availability: Availability,
    pub view: Arc<dyn ReadView>,
}

/// Names one registration, so that a task that closes late never removes its successor's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct RegistrationId(u64);

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
    pub position: PartitionPosition,
}

/// From where an answer comes and how new it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartitionPosition {
    pub partition: i32,
    pub role: Role,
    /// The answer reflects all changelog records below this offset, and maybe later ones. `None` for a store
    /// without a changelog or before its first commit.
    pub changelog_offset: Option<Offset>,
    /// How many offsets of its changelog the copy lacked, as far as it knew; 0 for an active task that runs.
    pub lag: u64,
}

/// Where the next page begins: after this key of this partition, in the order of the scan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResumeKey {
    pub key: Bytes,
    pub partition: i32,
}

/// One entry of a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueryEntry {
    pub partition: i32,
    pub key: Bytes,
    pub value: Bytes,
}

/// A page over the local partitions, merged in key order; equal keys in the order of their partitions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueryPage {
    pub entries: Vec<QueryEntry>,
    /// Pass it to the same query for the next page; `None` when this is the last one.
    pub resume: Option<ResumeKey>,
    /// The partitions that were read, in order.
    pub positions: Vec<PartitionPosition>,
    /// Local partitions that are missing from the answer because they are being restored.
    pub restoring: Vec<i32>,
}

/// A scan over the local partitions of a store.
#[derive(Debug, Clone, Copy)]
pub struct ScanQuery<'a> {
    pub store: &'a str,
    /// `None` asks all local partitions, else those of these that are here.
    pub partitions: Option<&'a [i32]>,
    pub range: KeyRange<'a>,
    pub reverse: bool,
    pub limit: NonZeroUsize,
    pub resume: Option<&'a ResumeKey>,
    /// With it copies may answer that lack at most so many offsets of their changelog: standby tasks, and active ones
    /// that are being restored.
    pub max_lag: Option<u64>,
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

    /// The value of a key in one partition. With `max_lag` copies may answer that lack at most so many offsets.
    pub fn get(&self, store: &str, partition: i32, key: &[u8], max_lag: Option<u64>) -> Result<KeyAnswer, QueryError> {
        let registration = self.local(store, Some(&[partition]), max_lag.is_some())?.remove(0);
        available(&registration, max_lag)?;
        // The offset first: what is committed in between makes the answer newer than it says, never older.
        let position = position(&registration)?;
        Ok(KeyAnswer { value: registration.view.get(key)?, position })
    }

    /// A page of a range. Partitions that are being restored are left out and named.
    pub fn scan(&self, query: ScanQuery<'_>) -> Result<QueryPage, QueryError> {
        let registrations = self.local(query.store, query.partitions, query.max_lag.is_some())?;
        let mut page = QueryPage { entries: Vec::new(), resume: None, positions: Vec::new(), restoring: Vec::new() };
        let mut sources = Vec::new();
        for registration in &registrations {
            if available(registration, query.max_lag).is_err() {
                page.restoring.push(registration.task.partition);
                continue;
            }
            page.positions.push(position(registration)?);
            sources.push(read_source(registration, &query)?);
        }
        merge(sources, query.reverse, query.limit, &mut page);
        Ok(page)
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
        Availability::Restoring { position, target } => (target - position).max(0).unsigned_abs(),
    }
}

fn available(registration: &Registration, max_lag: Option<u64>) -> Result<(), QueryError> {
    match registration.availability {
        Availability::Running => Ok(()),
        Availability::Opened => {
            Err(QueryError::Opened { store: registration.store.to_string(), partition: registration.task.partition })
        }
        Availability::Restoring { .. } if max_lag.is_some_and(|most| lag(registration) <= most) => Ok(()),
        Availability::Restoring { position, target } => Err(QueryError::Restoring {
            store: registration.store.to_string(),
            partition: registration.task.partition,
            position,
            target,
        }),
    }
}

fn position(registration: &Registration) -> Result<PartitionPosition, QueryError> {
    Ok(PartitionPosition {
        partition: registration.task.partition,
        role: registration.role,
        changelog_offset: registration.view.changelog_offset()?,
        lag: lag(registration),
    })
}

/// Entries in the order of a scan, and whether more follow that are not known yet.
struct Source<I: Iterator<Item = QueryEntry>> {
    entries: Peekable<I>,
    more: bool,
}

/// One partition's page, whose entries are copied as they are taken.
fn read_source(
    registration: &Registration,
    query: &ScanQuery<'_>,
) -> Result<Source<impl Iterator<Item = QueryEntry> + use<>>, QueryError> {
    let partition = registration.task.partition;
    let range = match query.resume {
        // Equal keys come in the order of their partitions, so later ones may still hold the key itself.
        Some(resume) if partition > resume.partition => from(query.range, &resume.key, query.reverse),
        Some(resume) => query.range.after(&resume.key, query.reverse),
        None => query.range,
    };
    let mut page = PageBuilder::new(query.limit.get());
    registration.view.scan(range, query.reverse, &mut |key, value| page.offer(key, value))?;
    let Page { keys, values, more } = page.finish();
    let count = keys.len();
    let entry = move |index: usize| QueryEntry {
        partition,
        key: Bytes::copy_from_slice(keys.get(index)),
        value: Bytes::copy_from_slice(values.get(index)),
    };
    Ok(Source { entries: (0..count).map(entry).peekable(), more })
}

/// The part of the range that begins with the key `first` in the order asked.
fn from<'a>(mut range: KeyRange<'a>, first: &'a [u8], reverse: bool) -> KeyRange<'a> {
    if reverse {
        if range.after(first, true).upper == Bound::Excluded(first) && range.upper != Bound::Excluded(first) {
            range.upper = Bound::Included(first);
        }
    } else if range.after(first, false).lower == Bound::Excluded(first) && range.lower != Bound::Excluded(first) {
        range.lower = Bound::Included(first);
    }
    range
}

/// Takes entries in key order, equal keys in the order of their partitions, until the limit or the end of what is known.
fn merge<I: Iterator<Item = QueryEntry>>(
    mut sources: Vec<Source<I>>,
    reverse: bool,
    limit: NonZeroUsize,
    page: &mut QueryPage,
) {
    loop {
        // What follows the end of a cut source is not known, so nothing may be taken past it.
        let cut = sources.iter_mut().any(|source| source.more && source.entries.peek().is_none());
        let next = sources.iter_mut().filter_map(|Source { entries, .. }| {
            let QueryEntry { key, partition, .. } = entries.peek()?;
            Some(((key.clone(), *partition), entries))
        });
        let next = next.reduce(|best, other| {
            let ((best_key, best_partition), (key, partition)) = (&best.0, &other.0);
            let by_key = if reverse { best_key.cmp(key) } else { key.cmp(best_key) };
            if by_key.then(partition.cmp(best_partition)).is_lt() { other } else { best }
        });
        match next {
            Some((_, entries)) if !cut && page.entries.len() < limit.get() => page.entries.extend(entries.next()),
            rest => {
                if cut || rest.is_some() {
                    let last = page.entries.last();
                    page.resume = last.map(|last| ResumeKey { key: last.key.clone(), partition: last.partition });
                }
                return;
            }
        }
    }
}

/// Merges pages of one query that several hosts have answered, each for its own partitions, as if one had read them all.
pub fn merge_pages(pages: Vec<QueryPage>, reverse: bool, limit: NonZeroUsize) -> QueryPage {
    let mut merged = QueryPage { entries: Vec::new(), resume: None, positions: Vec::new(), restoring: Vec::new() };
    let mut sources = Vec::new();
    for page in pages {
        merged.positions.extend(page.positions);
        merged.restoring.extend(page.restoring);
        sources.push(Source { entries: page.entries.into_iter().peekable(), more: page.resume.is_some() });
    }
    merged.positions.sort_by_key(|position| position.partition);
    merged.restoring.sort_unstable();
    merge(sources, reverse, limit, &mut merged);
    merged
}

#[cfg(test)]
mod tests;
