//! RocksDB's errors, mapped once to what the engine does about them.

use std::path::Path;

use engine::state::StoreError;
use engine::topology::TaskId;
use rocksdb::ErrorKind;

/// Which store, for every error of it.
#[derive(Debug, Clone)]
pub(crate) struct StoreName {
    pub store: String,
    pub task: TaskId,
}

impl StoreName {
    pub fn corrupt(&self, detail: impl Into<String>) -> StoreError {
        StoreError::Corrupt { store: self.store.clone(), task: self.task, detail: detail.into() }
    }

    pub fn io(&self, operation: &'static str, detail: impl Into<String>) -> StoreError {
        StoreError::Io { store: self.store.clone(), task: self.task, operation, detail: detail.into() }
    }

    /// What a failed call of the file system asks for.
    pub fn file_error(&self, operation: &'static str, error: &std::io::Error) -> StoreError {
        match error.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
                StoreError::NoSpace { store: self.store.clone(), task: self.task, detail: error.to_string() }
            }
            _ => self.io(operation, error.to_string()),
        }
    }

    /// What a failed call of RocksDB asks for.
    pub fn error(&self, operation: &'static str, error: &rocksdb::Error) -> StoreError {
        let detail = error.to_string();
        let lower = detail.to_lowercase();
        // RocksDB's C interface passes texts only; these are the ones of its Status subcodes and of strerror.
        if lower.contains("no space left on device") || lower.contains("disk quota exceeded") {
            return StoreError::NoSpace { store: self.store.clone(), task: self.task, detail };
        }
        match error.kind() {
            ErrorKind::Corruption => self.corrupt(detail),
            ErrorKind::IOError | ErrorKind::NotFound if misses_data(&lower) => self.corrupt(detail),
            _ => self.io(operation, detail),
        }
    }

    /// As `error`, for opening: RocksDB's own lock means that the store is still open somewhere.
    pub fn open_error(&self, path: &Path, error: &rocksdb::Error) -> StoreError {
        let detail = error.to_string();
        if is_lock(&detail) {
            return StoreError::Locked { path: path.display().to_string(), detail };
        }
        match error.kind() {
            // A manifest or options file that cannot be read shows as one of these too.
            ErrorKind::InvalidArgument | ErrorKind::NotSupported => self.corrupt(detail),
            _ => self.error("open", error),
        }
    }
}

/// Whether a file that the manifest names is not there, by an error's text in lower case. The info log holds no data: a
/// store is not wiped because of it.
fn misses_data(lower: &str) -> bool {
    let is_info_log =
        |word: &str| word.rsplit('/').next().is_some_and(|file| file == "log" || file.starts_with("log."));
    lower.contains("no such file") && !lower.split([' ', ':']).any(is_info_log)
}

fn is_lock(detail: &str) -> bool {
    detail.contains("lock hold by current process") || detail.contains("While lock file") || detail.contains("LOCK:")
}

#[cfg(test)]
mod tests;
