//! What becomes of state when a new version of an application replaces the running one: the comparison of the two
//! declarations. Pure: it sees nothing but them, finds everything at once, and never lets through a change after which
//! rows would be lost, or read as what they are not, without anybody having said so.

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use super::{PartitionCounts, StoreBackend, StoreChangelog, StoreSpec, SubTopology, TopicBinding, Topology};

mod incompatibility;
pub use incompatibility::Incompatibility;
use incompatibility::names;

/// How a new version takes over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ChangeKind {
    /// Task by task at a commit boundary. Sources, sinks and stores are the same; schema versions may be higher.
    Swap,
    /// The application's stream threads close clean and start again with the new topology.
    Restart,
}

/// A store whose rows the new version takes over by its `migrate`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreMigration {
    pub store: Arc<str>,
    /// The schema version of the rows that are there.
    pub from: u32,
    /// The one that the new version declares.
    pub to: u32,
}

/// What a new version changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    pub kind: ChangeKind,
    pub migrations: Vec<StoreMigration>,
    /// Stores that only the new version has.
    pub created: Vec<Arc<str>>,
    /// Stores that only the running version has, named to be dropped.
    pub removed: Vec<Arc<str>>,
    /// Sub-topologies that keep stores while their sources change: before anything is closed, `check_task_counts` has
    /// to find that they keep their tasks.
    pub recounted: Vec<u32>,
    /// What the change means beside that, one sentence each, for whoever deploys.
    pub notes: Vec<String>,
}

/// Compares a new version's declaration with the running one's. `can_migrate` says whether the new version has a
/// `migrate`; `dropped_stores` are the stores that whoever deploys gives up.
///
/// # Errors
/// Every point at which the new version does not fit, in the order of the declaration.
pub fn compare(
    running: &Topology,
    new: &Topology,
    can_migrate: bool,
    dropped_stores: &[String],
) -> Result<Change, Vec<Incompatibility>> {
    let change = Change {
        kind: ChangeKind::Swap,
        migrations: Vec::new(),
        created: Vec::new(),
        removed: Vec::new(),
        recounted: Vec::new(),
        notes: Vec::new(),
    };
    let mut comparison = Comparison { running, new, change, faults: Vec::new() };
    comparison.sub_topologies();
    comparison.dropped(dropped_stores);
    comparison.stores(can_migrate, dropped_stores);
    comparison.sources();
    comparison.sinks();
    comparison.dead_letters();
    comparison.forgetful_stores();
    let Comparison { change, faults, .. } = comparison;
    if faults.is_empty() { Ok(change) } else { Err(faults) }
}

impl Change {
    /// Whether sub-topologies whose sources change keep the tasks that their stores belong to. `counts` has the
    /// partitions of the source topics of both versions.
    ///
    /// # Errors
    /// Every sub-topology that does not.
    pub fn check_task_counts(
        &self,
        running: &Topology,
        new: &Topology,
        counts: &PartitionCounts,
    ) -> Result<(), Vec<Incompatibility>> {
        let mut faults = Vec::new();
        for &sub_topology in &self.recounted {
            let (before, after) = (running.task_count(sub_topology, counts), new.task_count(sub_topology, counts));
            let (Some(old), Some(part)) = (running.sub_topology(sub_topology), new.sub_topology(sub_topology)) else {
                continue;
            };
            // A task with rows but without a committed offset of any source would be taken for one that lost it.
            let stay = old.sources.iter().filter(|source| reads(part, &source.topic));
            let kept = stay.map(|source| counts.of(&source.topic)).max().unwrap_or(0);
            if after != before || kept != before {
                faults.push(Incompatibility::TaskCount { sub_topology, running: before, kept, found: after });
            }
        }
        if faults.is_empty() { Ok(()) } else { Err(faults) }
    }
}

struct Comparison<'a> {
    running: &'a Topology,
    new: &'a Topology,
    change: Change,
    faults: Vec<Incompatibility>,
}

impl Comparison<'_> {
    fn restart(&mut self) {
        self.change.kind = ChangeKind::Restart;
    }

    fn note(&mut self, note: fmt::Arguments<'_>) {
        self.change.notes.push(note.to_string());
    }

    fn sub_topologies(&mut self) {
        let (running, found) = (self.running.sub_topologies.len(), self.new.sub_topologies.len());
        if running != found {
            self.faults.push(Incompatibility::SubTopologies { running, found });
        }
    }

    fn dropped(&mut self, dropped_stores: &[String]) {
        for store in dropped_stores.iter().collect::<BTreeSet<_>>() {
            if find_store(self.running, store).is_none() {
                let stores = stores(self.running).map(|(_, store)| store.name.to_string()).collect();
                self.faults.push(Incompatibility::UnknownDropped { store: store.clone(), stores });
            } else if find_store(self.new, store).is_some() {
                self.faults.push(Incompatibility::DeclaredDropped { store: store.clone() });
            }
        }
    }

    fn stores(&mut self, can_migrate: bool, dropped_stores: &[String]) {
        let (before, after) = (self.running, self.new);
        for (running, old) in stores(before) {
            let store = || old.name.to_string();
            match find_store(after, &old.name) {
                Some((found, spec)) => {
                    if running != found {
                        self.faults.push(Incompatibility::StoreMoved { store: store(), running, found });
                    }
                    self.schema(old, spec, can_migrate);
                    self.place(old, spec);
                }
                None if dropped_stores.iter().any(|dropped| **dropped == *old.name) => {
                    self.restart();
                    self.note(format_args!("store {} is dropped: nothing reads its rows any more", old.name));
                    self.change.removed.push(Arc::clone(&old.name));
                }
                None => self.faults.push(Incompatibility::StoreRemoved { store: store() }),
            }
        }
        for (_, spec) in stores(after).filter(|(_, spec)| find_store(before, &spec.name).is_none()) {
            self.restart();
            self.note(format_args!(
                "store {} is new: it begins empty, unless its changelog is there from an earlier version",
                spec.name
            ));
            self.change.created.push(Arc::clone(&spec.name));
        }
        // A task knows its stores by their places.
        let order = |topology: &Topology| stores(topology).map(|(_, spec)| spec.name.clone()).collect::<Vec<_>>();
        if order(before) != order(after) {
            self.restart();
        }
    }

    /// What the rows are.
    fn schema(&mut self, old: &StoreSpec, spec: &StoreSpec, can_migrate: bool) {
        let (store, running, found) = (old.name.to_string(), old.version, spec.version);
        match found.cmp(&running) {
            Ordering::Less => self.faults.push(Incompatibility::VersionLowered { store, running, found }),
            Ordering::Equal => self.formats(old, spec),
            Ordering::Greater => {
                if let StoreChangelog::Source(topic) = &old.changelog {
                    let topic = topic.to_string();
                    self.faults.push(Incompatibility::SourceBacked { store, topic, running, found });
                } else if can_migrate {
                    let (store, from, to) = (Arc::clone(&old.name), running, found);
                    self.change.migrations.push(StoreMigration { store, from, to });
                } else {
                    self.faults.push(Incompatibility::NoMigration { store, running, found });
                }
            }
        }
    }

    fn formats(&mut self, old: &StoreSpec, spec: &StoreSpec) {
        for (what, running, found) in
            [("key", &old.key_format, &spec.key_format), ("value", &old.value_format, &spec.value_format)]
        {
            if running != found {
                let (store, version) = (old.name.to_string(), old.version);
                let (running, found) = (running.to_string(), found.to_string());
                self.faults.push(Incompatibility::Format { store, what, version, running, found });
            }
        }
    }

    /// Where the rows are, and what they are restored from.
    fn place(&mut self, old: &StoreSpec, spec: &StoreSpec) {
        if old.changelog != spec.changelog {
            let effect = match (&old.changelog, &spec.changelog) {
                // A task that moves to another host, or back to this one, would begin with other rows.
                (StoreChangelog::Internal, StoreChangelog::Off) => "its rows would be gone where its task goes next",
                (StoreChangelog::Off, _) => "its rows would be missing where its task goes next",
                _ => "it would be restored to something else than it holds",
            };
            let (store, running, found) = (old.name.to_string(), backing(&old.changelog), backing(&spec.changelog));
            self.faults.push(Incompatibility::Changelog { store, running, found, effect });
        } else if old.backend != spec.backend {
            let (running, found) = (kept(old.backend), kept(spec.backend));
            if spec.is_logged() {
                self.restart();
                self.note(format_args!(
                    "store {} is {found} instead of {running}: it is restored from its changelog as a whole",
                    old.name
                ));
            } else {
                let store = old.name.to_string();
                self.faults.push(Incompatibility::Backend { store, running, found });
            }
        }
    }

    fn sources(&mut self) {
        let (before, after) = (self.running, self.new);
        let mut moved = BTreeSet::new();
        for (running, part) in before.sub_topologies.iter().enumerate() {
            for source in &part.sources {
                let place = after.sub_topologies.iter().position(|part| reads(part, &source.topic));
                if let Some(found) = place.filter(|&found| found != running) {
                    moved.insert(running);
                    let topic = source.topic.to_string();
                    self.faults.push(Incompatibility::SourceMoved { topic, running, found });
                }
            }
        }
        for (index, (old, part)) in before.sub_topologies.iter().zip(&after.sub_topologies).enumerate() {
            let sorted = |sources: &[TopicBinding]| {
                let pairs = sources.iter().map(|source| (source.name.clone(), source.topic.clone()));
                pairs.collect::<BTreeSet<_>>()
            };
            if sorted(&old.sources) != sorted(&part.sources) {
                self.restart();
                self.note_sources(old, part);
                self.state_of(index, old, part, moved.contains(&index));
            }
        }
    }

    fn note_sources(&mut self, old: &SubTopology, part: &SubTopology) {
        for source in &old.sources {
            match part.sources.iter().find(|other| other.topic == source.topic) {
                None => self.note(format_args!(
                    "source topic {} is not read any more: a version that reads it again goes on from the group's \
                     committed offsets, while it has them",
                    source.topic
                )),
                Some(other) if other.name != source.name => self.note(format_args!(
                    "the source of topic {} is named {} instead of {}",
                    source.topic, other.name, source.name
                )),
                Some(_) => {}
            }
        }
        for source in part.sources.iter().filter(|source| !reads(old, &source.topic)) {
            self.note(format_args!(
                "source topic {} is new: it is read from where auto.offset.reset says, unless the group has committed \
                 offsets of it",
                source.topic
            ));
        }
    }

    /// The sources of a sub-topology have changed: whether those stores that stay may.
    fn state_of(&mut self, index: usize, old: &SubTopology, part: &SubTopology, is_moved: bool) {
        let stays = |store: &&StoreSpec| part.stores.iter().any(|spec| spec.name == store.name);
        let stores: Vec<String> = old.stores.iter().filter(stays).map(|store| store.name.to_string()).collect();
        let same_topics = old.sources.iter().all(|source| reads(part, &source.topic))
            && part.sources.iter().all(|source| reads(old, &source.topic));
        if stores.is_empty() || same_topics {
            return;
        }
        if old.sources.iter().any(|source| reads(part, &source.topic)) {
            self.change.recounted.push(index as u32);
        } else if !is_moved && self.running.sub_topologies.len() == self.new.sub_topologies.len() {
            let (running, found) = (topics(&old.sources), topics(&part.sources));
            self.faults.push(Incompatibility::SourcesReplaced { sub_topology: index, stores, running, found });
        }
    }

    fn sinks(&mut self) {
        let (before, after) = (self.running, self.new);
        for (index, (old, part)) in before.sub_topologies.iter().zip(&after.sub_topologies).enumerate() {
            // A record goes to a sink by its place.
            if old.sinks != part.sinks {
                self.restart();
                let shown = |sinks: &[TopicBinding]| {
                    let name = |sink: &TopicBinding| {
                        if sink.name == sink.topic {
                            sink.name.to_string()
                        } else {
                            format!("{} ({})", sink.name, sink.topic)
                        }
                    };
                    names(&sinks.iter().map(name).collect::<Vec<_>>())
                };
                let (old, found) = (shown(&old.sinks), shown(&part.sinks));
                self.note(format_args!("the sinks of sub-topology {index} are {found} instead of {old}"));
            }
        }
    }

    fn dead_letters(&mut self) {
        let (running, found) = (self.running.dead_letter_topic.as_deref(), self.new.dead_letter_topic.as_deref());
        if running != found {
            let (running, found) = (running.unwrap_or("no topic"), found.unwrap_or("no topic"));
            self.restart();
            self.note(format_args!("dead letters go to {found} instead of {running}"));
        }
    }

    /// Stores that nothing but the memory of the process holds, which a restart ends.
    fn forgetful_stores(&mut self) {
        if self.change.kind == ChangeKind::Swap {
            return;
        }
        for (_, store) in stores(self.running) {
            let stays = find_store(self.new, &store.name).is_some();
            if stays && store.backend == StoreBackend::InMemory && !store.is_logged() {
                self.note(format_args!(
                    "store {} is in memory without a changelog: the restart empties it",
                    store.name
                ));
            }
        }
    }
}

/// All stores with their sub-topologies.
fn stores(topology: &Topology) -> impl Iterator<Item = (usize, &StoreSpec)> {
    let parts = topology.sub_topologies.iter().enumerate();
    parts.flat_map(|(index, part)| part.stores.iter().map(move |store| (index, store)))
}

fn find_store<'a>(topology: &'a Topology, name: &str) -> Option<(usize, &'a StoreSpec)> {
    stores(topology).find(|(_, store)| *store.name == *name)
}

fn reads(part: &SubTopology, topic: &str) -> bool {
    part.sources.iter().any(|source| *source.topic == *topic)
}

fn topics(bindings: &[TopicBinding]) -> Vec<String> {
    bindings.iter().map(|binding| binding.topic.to_string()).collect()
}

fn kept(backend: StoreBackend) -> &'static str {
    match backend {
        StoreBackend::Persistent => "persistent",
        StoreBackend::InMemory => "in memory",
    }
}

fn backing(changelog: &StoreChangelog) -> String {
    match changelog {
        StoreChangelog::Internal => "its changelog".to_owned(),
        StoreChangelog::Source(topic) => format!("the source topic {topic}"),
        StoreChangelog::Off => "no topic (logging.enabled = false)".to_owned(),
    }
}

#[cfg(test)]
mod tests;
