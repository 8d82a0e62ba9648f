//! Notices that sources were saved. Looks at the files again and again rather than being told by the system, which
//! works on every file system, and answers once it was quiet for a moment, since a save is often several changes.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use engine::record::Timestamp;

use crate::toolchain::Place;

/// How long nothing may change before a change is told, in milliseconds.
const QUIET_MS: i64 = 60;
/// A file's time counts as that of its save where it is not older than this, in milliseconds.
const SAVE_MAX_AGE_MS: i64 = 1_000;
/// Folders in folders.
const DEPTH_MAX: usize = 32;

/// What a file looks like from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// Of the last change, in nanoseconds since the epoch.
    modified_ns: u128,
    size_bytes: u64,
}

pub type Snapshot = BTreeMap<PathBuf, Stamp>;

/// Files that were saved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    pub files: Vec<PathBuf>,
    /// When the last of them was.
    pub saved_ms: Timestamp,
}

/// Watches places.
#[derive(Debug, Default)]
pub struct Watch {
    places: Vec<Place>,
    debounce: Debounce,
}

impl Watch {
    /// Watches these places from now on, as they are now.
    pub fn settle(&mut self, places: Vec<Place>) {
        self.debounce = Debounce::at(snapshot(&places));
        self.places = places;
    }

    pub fn places(&self) -> &[Place] {
        &self.places
    }

    /// What was saved since, once it was quiet for a moment.
    pub fn look(&mut self, now_ms: Timestamp) -> Option<Change> {
        self.debounce.look(snapshot(&self.places), now_ms)
    }
}

/// Turns many looks into one change. Pure.
#[derive(Debug, Default)]
struct Debounce {
    /// As it was told last.
    settled: Snapshot,
    /// As it was at the last look.
    seen: Snapshot,
    /// When a look found something else than the one before it, and nothing was told since.
    moved_ms: Option<Timestamp>,
}

impl Debounce {
    fn at(snapshot: Snapshot) -> Self {
        Self { settled: snapshot.clone(), seen: snapshot, moved_ms: None }
    }

    fn look(&mut self, snapshot: Snapshot, now_ms: Timestamp) -> Option<Change> {
        if snapshot != self.seen {
            self.seen = snapshot;
            self.moved_ms = Some(now_ms);
            return None;
        }
        let moved_ms = self.moved_ms.filter(|moved_ms| now_ms - moved_ms >= QUIET_MS)?;
        self.moved_ms = None;
        let (settled, seen) = (&self.settled, &self.seen);
        let all = settled.keys().chain(seen.keys().filter(|path| !settled.contains_key(*path)));
        let files: Vec<PathBuf> = all.filter(|path| settled.get(*path) != seen.get(*path)).cloned().collect();
        let latest = files.iter().filter_map(|file| seen.get(file)).map(|stamp| stamp.modified_ms()).max();
        let is_new = |saved_ms: &Timestamp| (moved_ms - SAVE_MAX_AGE_MS..=moved_ms).contains(saved_ms);
        let saved_ms = latest.filter(is_new).unwrap_or(moved_ms);
        self.settled = self.seen.clone();
        // It may be again as it was.
        (!files.is_empty()).then_some(Change { files, saved_ms })
    }
}

impl Stamp {
    fn modified_ms(self) -> Timestamp {
        i64::try_from(self.modified_ns / 1_000_000).unwrap_or(i64::MAX)
    }
}

/// The files of the places. One that cannot be looked at counts as one that is not there: the build says why.
fn snapshot(places: &[Place]) -> Snapshot {
    let mut snapshot = Snapshot::new();
    for place in places {
        match place {
            Place::File(path) => add(path, &mut snapshot),
            Place::Folder(folder) => walk(folder, 0, &mut snapshot),
        }
    }
    snapshot
}

fn walk(folder: &Path, depth: usize, snapshot: &mut Snapshot) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        let Ok(kind) = entry.file_type() else { continue };
        if is_no_source(&name.to_string_lossy()) {
            continue;
        }
        if !kind.is_dir() {
            add(&path, snapshot);
        } else if depth < DEPTH_MAX && name != "target" {
            walk(&path, depth + 1, snapshot);
        }
    }
}

fn add(path: &Path, snapshot: &mut Snapshot) {
    let Ok(metadata) = fs::metadata(path) else { return };
    if metadata.is_file() {
        let modified = metadata.modified().unwrap_or(UNIX_EPOCH);
        let modified_ns = modified.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_nanos());
        snapshot.insert(path.to_owned(), Stamp { modified_ns, size_bytes: metadata.len() });
    }
}

/// What editors and builds leave beside the sources.
fn is_no_source(name: &str) -> bool {
    name.starts_with('.')
        || name.starts_with('#')
        || [".wasm", ".part", ".swp", ".tmp", "~"].iter().any(|end| name.ends_with(end))
        // Vim tries with a file of this name whether a folder can be written.
        || name == "4913"
}

#[cfg(test)]
mod tests;
