//! What the versions' topic says, folded from its records in their order: the versions, which one is active, and where
//! the modules lie. Pure. A record that makes no sense changes nothing but is kept as a problem, so that a host that
//! runs goes on with what it has; what depends on such a record is an error, never taken for missing.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use engine::record::{Offset, Record};

use super::digest::ModuleDigest;
use super::key::Key;
use super::manifest::VersionManifest;
use super::modules::{DamagedModule, ModuleIndex, StoredModule, StoredParts};
use super::version::{Active, Version};

/// How many modules are kept beside those of the active version and the one before it: those of the newest versions.
pub const MODULES_KEPT: usize = 10;

/// How much of the topic a table has seen: what a writer expects to find unchanged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Revision(Option<Offset>);

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(offset) => write!(f, "offset {offset}"),
            None => f.write_str("the beginning"),
        }
    }
}

/// A record under one of our keys that makes no sense.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    pub topic: Arc<str>,
    pub offset: Offset,
    pub key: Key,
    pub reason: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { topic, offset, key, reason } = self;
        write!(f, "topic {topic}, offset {offset}, key {key}: {reason}")
    }
}

/// Why nobody can say which version is active.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ActiveError {
    #[error(
        "{0}; nothing else says which version is active: only hosts of the application may write the topic. Deploy again \
         to mend it"
    )]
    Problem(Problem),
    #[error("topic {topic} has versions up to {newest}, but does not say which one is active; deploy again to mend it")]
    Unknown { topic: Arc<str>, newest: u64 },
    #[error("topic {topic} says that version {number} is active, but does not have it; deploy again to mend it")]
    Missing { topic: Arc<str>, number: u64 },
}

/// The versions of an application as its topic has them.
#[derive(Debug, Clone)]
pub struct VersionTable {
    topic: Arc<str>,
    versions: BTreeMap<u64, Version>,
    active: Option<Active>,
    modules: BTreeMap<ModuleDigest, StoredModule>,
    problems: BTreeMap<Key, Problem>,
    revision: Revision,
    ignored: u64,
}

impl VersionTable {
    /// An empty one. The topic's name is for messages.
    pub fn new(topic: impl Into<Arc<str>>) -> Self {
        Self {
            topic: topic.into(),
            versions: BTreeMap::new(),
            active: None,
            modules: BTreeMap::new(),
            problems: BTreeMap::new(),
            revision: Revision::default(),
            ignored: 0,
        }
    }

    /// Takes the next record. One with a key of something else is left to whoever knows it.
    pub fn apply(&mut self, record: &Record) {
        let Some(key) = record.key.as_deref().and_then(Key::parse) else {
            self.ignored += 1;
            return;
        };
        self.revision = Revision(Some(record.offset));
        let result = match (key, record.value.as_deref()) {
            (Key::Chunk(digest, index), value) => {
                let bytes = value.map(<[u8]>::len);
                self.modules.entry(digest).or_default().set_chunk(index, record.offset, bytes);
                Ok(())
            }
            (Key::Module(digest), value) => self.set_index(digest, value),
            // Neither is ever deleted by a host.
            (Key::Version(_) | Key::Active, None) => Err("it was deleted, which no host does".to_owned()),
            (Key::Version(number), Some(json)) => {
                Version::read(number, json).map(|version| drop(self.versions.insert(number, version)))
            }
            (Key::Active, Some(json)) => read_active(json).map(|active| self.active = Some(active)),
        };
        if let Key::Chunk(digest, _) | Key::Module(digest) = key
            && self.modules.get(&digest).is_some_and(StoredModule::is_empty)
        {
            self.modules.remove(&digest);
        }
        match result {
            Ok(()) => drop(self.problems.remove(&key)),
            Err(reason) => {
                let problem = Problem { topic: Arc::clone(&self.topic), offset: record.offset, key, reason };
                self.problems.insert(key, problem);
            }
        }
    }

    fn set_index(&mut self, digest: ModuleDigest, value: Option<&[u8]>) -> Result<(), String> {
        let index = value.map(serde_json::from_slice::<ModuleIndex>).transpose().map_err(|error| error.to_string())?;
        self.modules.entry(digest).or_default().set_index(index);
        Ok(())
    }

    /// The name of the topic.
    pub fn topic(&self) -> &Arc<str> {
        &self.topic
    }

    /// What a writer expects to be unchanged.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    #[cfg(test)]
    /// Whether nothing was ever deployed. A topic with garbage only is not empty.
    pub fn is_empty(&self) -> bool {
        self.revision == Revision::default()
    }

    /// The versions by their numbers.
    pub fn versions(&self) -> &BTreeMap<u64, Version> {
        &self.versions
    }

    pub fn version(&self, number: u64) -> Option<&Version> {
        self.versions.get(&number)
    }

    /// The newest version with this module and these tables, if they were ever deployed.
    pub fn find(&self, module: &ModuleDigest, manifest: &VersionManifest) -> Option<&Version> {
        self.versions.values().rev().find(|version| version.is_same(module, manifest))
    }

    /// The number that the next version gets: above every number there ever was, readable or not.
    pub fn next_number(&self) -> u64 {
        self.newest().saturating_add(1)
    }

    fn newest(&self) -> u64 {
        let of_problem = |key: &Key| if let Key::Version(number) = key { Some(*number) } else { None };
        let problems = self.problems.keys().filter_map(of_problem);
        let active = self.active.iter().map(|active| active.number);
        self.versions.keys().copied().chain(problems).chain(active).max().unwrap_or(0)
    }

    /// Which version is active, as it was last said.
    pub fn active(&self) -> Option<&Active> {
        self.active.as_ref()
    }

    /// The version that the application runs; `None` where nothing was ever deployed.
    ///
    /// # Errors
    /// When there is something, but it does not say which version is active or does not have it. The first deploy must
    /// not be repeated then.
    pub fn active_version(&self) -> Result<Option<&Version>, ActiveError> {
        let topic = || Arc::clone(&self.topic);
        let problem = |key: Key| self.problems.get(&key).cloned().map(ActiveError::Problem);
        match &self.active {
            Some(Active { number, .. }) => match self.versions.get(number) {
                Some(version) => Ok(Some(version)),
                None => Err(problem(Key::Version(*number))
                    .unwrap_or_else(|| ActiveError::Missing { topic: topic(), number: *number })),
            },
            None => match (problem(Key::Active), self.newest()) {
                (Some(problem), _) => Err(problem),
                (None, 0) => Ok(None),
                (None, newest) => Err(ActiveError::Unknown { topic: topic(), newest }),
            },
        }
    }

    /// The records that make no sense, by their keys. Each stands until a good one of its key comes; the last good one
    /// counts as long.
    pub fn problems(&self) -> impl Iterator<Item = &Problem> {
        self.problems.values()
    }

    #[cfg(test)]
    /// Records with keys of something else.
    pub fn ignored(&self) -> u64 {
        self.ignored
    }

    /// Whether every part of a module is there. That they are the right ones shows when they are read.
    pub fn has_module(&self, digest: &ModuleDigest) -> bool {
        self.module_parts(digest).is_ok()
    }

    /// Where the parts of a module lie.
    ///
    /// # Errors
    /// Which part is missing or does not fit.
    pub fn module_parts(&self, digest: &ModuleDigest) -> Result<StoredParts, DamagedModule> {
        let none = StoredModule::default();
        let module = self.modules.get(digest).unwrap_or(&none);
        let problem = self.problems.get(&Key::Module(*digest));
        module.parts(&self.topic, *digest, problem.map(|problem| &*problem.reason))
    }

    /// Keys of modules, and of parts of them, that no longer need to be kept once these versions are written and
    /// `active` is the one that runs.
    pub(super) fn outdated_modules(&self, written: &[&Version], active: Option<&Active>) -> Vec<Key> {
        let mut versions: BTreeMap<u64, &Version> =
            self.versions.iter().map(|(number, version)| (*number, version)).collect();
        versions.extend(written.iter().map(|version| (version.number, *version)));
        let active = active.or(self.active.as_ref());
        let numbers = |active: &&Active| [Some(active.number), active.previous, active.confirmed_before];
        let named = active.iter().flat_map(numbers).flatten();
        let named = named.filter_map(|number| versions.get(&number));
        let newest = versions.values().rev().take(MODULES_KEPT);
        let on_their_way = versions.values().filter(|version| version.state().is_on_its_way());
        let kept: BTreeSet<ModuleDigest> =
            named.chain(newest).chain(on_their_way).map(|version| version.module).collect();
        let outdated = self.modules.iter().filter(|(digest, _)| !kept.contains(digest));
        outdated.flat_map(|(digest, module)| module.keys(*digest)).collect()
    }

    /// The parts of a module from this index on, which a shorter list of parts leaves over.
    pub(super) fn chunks_from(&self, digest: &ModuleDigest, first: u32) -> Vec<Key> {
        let module = self.modules.get(digest);
        module.map(|module| module.chunks_from(*digest, first)).unwrap_or_default()
    }
}

fn read_active(json: &[u8]) -> Result<Active, String> {
    let active: Active = serde_json::from_slice(json).map_err(|error| error.to_string())?;
    if active.number == 0 { Err("versions begin with 1".to_owned()) } else { Ok(active) }
}

#[cfg(test)]
mod tests;
