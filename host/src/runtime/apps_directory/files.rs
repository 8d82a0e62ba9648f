//! The files of a folder of applications: each manifest with its module and signature, read again once they have
//! changed and were then left alone for a moment, since whoever writes does so in several steps. What counts is what
//! is in them: a link that points elsewhere is a change only if something else lies there. Starts nothing.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::components;
use crate::config::{Manifest, Overrides};
use crate::runtime::loader::module_max_bytes;
use crate::versions::{ModuleDigest, Signature};

/// How long a file must be left alone before it is read.
const QUIET: Duration = Duration::from_secs(1);

/// How long a file that is gone may wait for others that are being written: one of them may be the same under another
/// name.
const GONE_MAX: Duration = Duration::from_secs(10);

/// The manifests of a folder, in the order of their names. Hidden ones are not meant: editors and mounts make those.
///
/// # Errors
/// Why the folder cannot be read.
pub fn manifests_in(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let is_hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if !is_hidden && path.extension().is_some_and(|extension| extension == "toml") && !path.is_dir() {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

/// What a manifest, its module and its signature say, whatever the files are called.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Content {
    pub text: String,
    /// `None` where topics are served as tables.
    pub module: Option<ModuleDigest>,
    pub signature: Option<String>,
}

/// A manifest that was read, with what it names.
#[derive(Debug, Clone)]
pub struct Source {
    pub manifest: Manifest,
    pub content: Content,
}

/// A manifest of the folder, or why it is none: the text begins with the file.
pub type Found = Result<Source, String>;

/// Watches a folder.
pub struct Watch {
    folder: PathBuf,
    pub overrides: Overrides,
    files: BTreeMap<PathBuf, File>,
}

/// A manifest's file.
#[derive(Default)]
struct File {
    /// Where its module and the signature are.
    beside: Vec<PathBuf>,
    /// What they looked like last.
    seen: Look,
    /// When they looked different from before, if they were not read since.
    moved: Option<Instant>,
    /// `None` before it was read for the first time.
    found: Option<Found>,
}

/// The manifest and what lies beside it, from outside. Empty where the manifest is not there.
type Look = Vec<Option<Stamp>>;

/// What a file looks like from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size_bytes: u64,
    /// Seconds and nanoseconds.
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Watch {
    /// Reads everything once, as it is.
    ///
    /// # Errors
    /// Why the folder cannot be read.
    pub fn open(folder: &Path, overrides: Overrides) -> io::Result<Self> {
        let mut files = BTreeMap::new();
        for path in manifests_in(folder)? {
            let (beside, found) = read(&path, &overrides);
            let seen = look(&path, &beside);
            // Whoever was writing it is seen at the next look.
            files.insert(path, File { beside, seen, moved: Some(Instant::now()), found: Some(found) });
        }
        Ok(Self { folder: folder.to_owned(), overrides, files })
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// What was read last of each manifest that is there.
    pub fn found(&self) -> impl Iterator<Item = (&Path, &Found)> {
        self.files.iter().filter_map(|(path, file)| Some((path.as_path(), file.found.as_ref()?)))
    }

    /// Whether something has changed that was not read yet.
    pub fn is_moving(&self) -> bool {
        self.files.values().any(|file| file.moved.is_some())
    }

    /// Looks at the files, and reads those that have changed and were quiet since. True when it has, or when one is
    /// gone. While the folder cannot be read, nothing in it counts as gone.
    ///
    /// # Errors
    /// Why the folder cannot be read.
    pub fn look(&mut self, now: Instant) -> io::Result<bool> {
        let listed = manifests_in(&self.folder)?;
        for path in &listed {
            self.files.entry(path.clone()).or_default();
        }
        let is_listed = |path: &PathBuf| listed.binary_search(path).is_ok();
        let mut has_changed = false;
        for (path, file) in &mut self.files {
            let seen = if is_listed(path) { look(path, &file.beside) } else { Look::new() };
            if seen != file.seen {
                (file.seen, file.moved) = (seen, Some(now));
            } else if is_listed(path) && file.has_been_quiet(now, QUIET) {
                has_changed = true;
                file.take(path, &self.overrides, now);
            }
        }
        let are_moving = self.files.iter().any(|(path, file)| is_listed(path) && file.moved.is_some());
        let wait = if are_moving { GONE_MAX } else { QUIET };
        let before = self.files.len();
        self.files.retain(|path, file| is_listed(path) || !file.has_been_quiet(now, wait));
        Ok(has_changed || self.files.len() < before)
    }
}

impl File {
    /// Whether it has changed, and not since so long.
    fn has_been_quiet(&self, now: Instant, time: Duration) -> bool {
        self.moved.is_some_and(|moved| now.saturating_duration_since(moved) >= time)
    }

    /// Reads it, unless it changes meanwhile.
    fn take(&mut self, path: &Path, overrides: &Overrides, now: Instant) {
        let (beside, found) = read(path, overrides);
        let seen = look(path, &beside);
        // What it has named just now may be on its way too.
        let is_settled = beside == self.beside && seen == self.seen;
        (self.beside, self.seen) = (beside, seen);
        if is_settled {
            (self.found, self.moved) = (Some(found), None);
        } else {
            self.moved = Some(now);
        }
    }
}

fn look(path: &Path, beside: &[PathBuf]) -> Look {
    std::iter::once(path).chain(beside.iter().map(PathBuf::as_path)).map(stamp).collect()
}

/// Of what a link points to.
fn stamp(path: &Path) -> Option<Stamp> {
    let metadata = fs::metadata(path).ok()?;
    Some(Stamp {
        device: metadata.dev(),
        inode: metadata.ino(),
        size_bytes: metadata.len(),
        modified: (metadata.mtime(), metadata.mtime_nsec()),
        changed: (metadata.ctime(), metadata.ctime_nsec()),
    })
}

/// Reads a manifest with what it names: where that lies, and what came of it.
fn read(path: &Path, overrides: &Overrides) -> (Vec<PathBuf>, Found) {
    let of_file = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    // Reading a pipe would wait for somebody who writes to it.
    if fs::metadata(path).is_ok_and(|metadata| !metadata.is_file()) {
        return (Vec::new(), Err(of_file(&"it is not a regular file")));
    }
    let text = match Manifest::read(path) {
        Ok(text) => text,
        Err(error) => return (Vec::new(), Err(format!("{:#}", anyhow::Error::from(error)))),
    };
    let manifest = match Manifest::parse(path, &text, overrides) {
        Ok(manifest) => manifest,
        Err(error) => return (Vec::new(), Err(error.to_string())),
    };
    if !manifest.tables.is_empty() {
        return (Vec::new(), Ok(Source { manifest, content: Content { text, ..Content::default() } }));
    }
    let module = manifest.path_of("module");
    let mut signature = module.clone().into_os_string();
    signature.push(".sig");
    let beside = vec![module.clone(), PathBuf::from(signature)];
    // Whether somebody trusted has signed it is for the deployment to say.
    let read = components::read(&module, module_max_bytes(&manifest))
        .and_then(|bytes| Ok((ModuleDigest::of(&bytes), Signature::beside(&module)?)));
    match read {
        Ok((digest, signature)) => {
            let signature = signature.map(|signature| signature.to_string());
            (beside, Ok(Source { manifest, content: Content { text, module: Some(digest), signature } }))
        }
        Err(error) => (beside, Err(of_file(&format!("{error:#}")))),
    }
}

#[cfg(test)]
mod tests;
