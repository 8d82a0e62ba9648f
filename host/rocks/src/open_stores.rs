//! Which databases this process has open. A path is here from before its database is opened until after it was closed,
//! so a second opening waits for the first to end. RocksDB's own lock comes too late for that: an opening that is going
//! to be refused has already moved the other database's info log aside, and fails on it when that one cleans up.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

// Of the process and not of a provider: a provider may end before the last query of its stores does.
static OPEN: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());
static CLOSED: Condvar = Condvar::new();

fn open_paths() -> MutexGuard<'static, BTreeSet<PathBuf>> {
    // The set is whole between any two statements, so a panic elsewhere does not spoil it.
    OPEN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A path that is in use as long as this lives.
#[derive(Debug)]
pub(crate) struct OpenStore(PathBuf);

impl OpenStore {
    /// Waits at most `timeout` for an earlier owner of the path to be gone; `None` when it is still there then.
    pub fn enter(path: &Path, timeout: Duration) -> Option<Self> {
        let (mut open, _) = CLOSED
            .wait_timeout_while(open_paths(), timeout, |open| open.contains(path))
            .unwrap_or_else(PoisonError::into_inner);
        open.insert(path.to_owned()).then(|| Self(path.to_owned()))
    }
}

impl Drop for OpenStore {
    fn drop(&mut self) {
        open_paths().remove(&self.0);
        CLOSED.notify_all();
    }
}

#[cfg(test)]
mod tests;
