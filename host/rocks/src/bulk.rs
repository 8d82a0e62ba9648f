//! Bulk loading for a restore: writes are gathered in memory and go into the database as sorted table files, where the
//! last one of a key wins, past its write buffer. A file holds the changelog offset that belongs to it and becomes part
//! of the database in one step, so a crash leaves an older state with its own offset, as with batches. A thread writes
//! the files out while the next one is gathered. What is gathered and what is in the database are together always the
//! state of the gathered offset; a write that fails keeps everything, to be tried again.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use engine::record::Offset;
use engine::state::{StoreError, Write};
use rocksdb::{IngestExternalFileOptions, SstFileWriter};

use crate::store::{CHANGELOG_OFFSET, Database, USER};

/// What a write takes beside its bytes, sorting included.
const ENTRY_OVERHEAD_BYTES: usize = 96;

/// Files that wait to be merged with the rest of the database; more make reads slow, and finally writes stop.
const UNMERGED_FILES_MAX: u64 = 20;
/// How long such files are waited for before one more is added all the same.
const MERGE_PATIENCE: Duration = Duration::from_secs(5);

/// As many unmerged files as begin a merge while a store is loaded: one merge of many costs less than many of a few.
const MERGE_TRIGGER_LOADING: &str = "12";
/// RocksDB's own default.
const MERGE_TRIGGER: &str = "4";

/// How many stores are being loaded, and the memory that they share.
#[derive(Debug)]
pub(crate) struct BulkBudget {
    bytes: usize,
    loading: AtomicUsize,
}

impl BulkBudget {
    pub fn new(bytes: usize) -> Self {
        Self { bytes, loading: AtomicUsize::new(0) }
    }

    /// What one store gathers for a file. With one on its way out and the next one waiting for it, three times that is
    /// in memory.
    fn share(&self) -> usize {
        self.bytes / (3 * self.loading.load(Relaxed).max(1))
    }
}

#[derive(Debug, Default)]
struct Gathered {
    /// In the order in which they came.
    writes: Vec<Write>,
    bytes: usize,
    offset: Option<Offset>,
}

/// A file on its way out. What it is made of stays here until it is known to be written.
struct Writing {
    gathered: Arc<Gathered>,
    thread: JoinHandle<Result<(), StoreError>>,
}

/// A load on its way.
pub(crate) struct Bulk {
    database: Arc<Database>,
    gathered: Gathered,
    writing: Option<Writing>,
    /// Where files are made, on the database's own disk.
    folder: PathBuf,
    files: u64,
}

impl Bulk {
    pub fn begin(database: Arc<Database>, folder: PathBuf) -> Result<Self, StoreError> {
        fs::create_dir_all(&folder).map_err(|error| database.name.file_error("make the folder of a load", &error))?;
        database.set_merge_trigger(MERGE_TRIGGER_LOADING)?;
        database.shared.bulk.loading.fetch_add(1, Relaxed);
        Ok(Self { database, gathered: Gathered::default(), writing: None, folder, files: 0 })
    }

    /// The offset of what is gathered, if anything is.
    pub fn offset(&self) -> Option<Offset> {
        self.gathered.offset.or(self.writing.as_ref().and_then(|writing| writing.gathered.offset))
    }

    pub fn write(&mut self, writes: &[Write], offset: Option<Offset>) -> Result<(), StoreError> {
        // A file that failed is gathered again. Nothing is added to it before it is written, or a full disk would fill
        // the memory.
        if self.writing.is_none() && self.gathered.bytes >= self.database.shared.bulk.share() {
            self.write_out()?;
        }
        for (key, value) in writes {
            self.gathered.bytes += key.len() + value.as_ref().map_or(0, Bytes::len) + ENTRY_OVERHEAD_BYTES;
        }
        self.gathered.writes.extend_from_slice(writes);
        self.gathered.offset = offset.or(self.gathered.offset);
        let share = self.database.shared.bulk.share();
        let is_writing = self.writing.as_ref().is_some_and(|writing| !writing.thread.is_finished());
        // Whoever loads should rather gather more than wait, within bounds.
        if self.gathered.bytes < share || (is_writing && self.gathered.bytes < 2 * share) {
            return Ok(());
        }
        self.finish_writing()?;
        self.start_writing()
    }

    /// Writes out everything. After an error the same call may be tried again.
    pub fn write_out(&mut self) -> Result<(), StoreError> {
        self.finish_writing()?;
        if self.gathered.offset.is_none() && self.gathered.writes.is_empty() {
            return Ok(());
        }
        self.start_writing()?;
        self.finish_writing()
    }

    /// Writes out everything and gives the database its usual settings back.
    pub fn end(&mut self) -> Result<(), StoreError> {
        self.write_out()?;
        self.database.set_merge_trigger(MERGE_TRIGGER)
    }

    fn start_writing(&mut self) -> Result<(), StoreError> {
        self.files += 1;
        let path = self.folder.join(format!("{}.sst", self.files));
        let gathered = Arc::new(std::mem::take(&mut self.gathered));
        let (database, entries) = (Arc::clone(&self.database), Arc::clone(&gathered));
        let write = move || {
            // Whatever there is of a file that failed; the next attempt has another name.
            write_file(&database, &entries, &path).inspect_err(|_| drop(fs::remove_file(&path)))
        };
        match std::thread::Builder::new().name("store-load".into()).spawn(write) {
            Ok(thread) => {
                self.writing = Some(Writing { gathered, thread });
                Ok(())
            }
            Err(error) => {
                self.take_back(gathered);
                Err(self.database.name.file_error("start a thread", &error))
            }
        }
    }

    /// Waits for the file on its way. If that failed, its writes are gathered again.
    fn finish_writing(&mut self) -> Result<(), StoreError> {
        let Some(Writing { gathered, thread }) = self.writing.take() else { return Ok(()) };
        let panicked = |_| Err(self.database.name.io("write a table file", "the thread panicked"));
        let written = thread.join().unwrap_or_else(panicked);
        if written.is_err() {
            self.take_back(gathered);
        }
        written
    }

    /// Below what was gathered since, which is newer.
    fn take_back(&mut self, older: Arc<Gathered>) {
        self.gathered.bytes += older.bytes;
        self.gathered.offset = self.gathered.offset.or(older.offset);
        // The order decides which one wins.
        self.gathered.writes.splice(0..0, older.writes.iter().cloned());
    }
}

impl Drop for Bulk {
    fn drop(&mut self) {
        if let Some(writing) = self.writing.take() {
            // The database must not be closed, or its folder moved, under the thread. What it could not write is lost
            // with the rest of what was gathered, as in a crash.
            let _ = writing.thread.join();
        }
        self.database.shared.bulk.loading.fetch_sub(1, Relaxed);
        // Empty but for what a failure left; the next start removes that too.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn write_file(database: &Database, gathered: &Gathered, path: &std::path::Path) -> Result<(), StoreError> {
    let failed = |error: rocksdb::Error| database.name.error("write a table file", &error);
    let mut writer = SstFileWriter::create(database.shared.database());
    writer.open(path).map_err(failed)?;
    // Metadata sorts before all keys of users.
    if let Some(offset) = gathered.offset {
        writer.put(CHANGELOG_OFFSET, offset.to_be_bytes()).map_err(failed)?;
    }
    let mut stored = Vec::new();
    for (key, value) in last_of_each_key(&gathered.writes) {
        stored.clear();
        stored.push(USER);
        stored.extend_from_slice(key);
        match value {
            Some(value) => writer.put(&stored, value).map_err(failed)?,
            None => writer.delete(&stored).map_err(failed)?,
        }
    }
    writer.finish().map_err(failed)?;
    wait_for_merges(database);
    let mut options = IngestExternalFileOptions::default();
    options.set_move_files(true);
    database.db.ingest_external_file_opts(&options, vec![path]).map_err(|error| database.name.error("load", &error))
}

/// The last write of each key, by key. Most comparisons are settled by the first bytes, which stand in the sorted list
/// itself, since the keys lie all over the memory.
fn last_of_each_key(writes: &[Write]) -> impl Iterator<Item = &Write> {
    let mut order: Vec<(u64, u32)> =
        writes.iter().zip(0..).map(|((key, _), index)| (first_bytes(key), index)).collect();
    let key = |index: u32| writes.get(index as usize).map(|(key, _)| key);
    order.sort_unstable_by(|one, other| {
        one.0.cmp(&other.0).then_with(|| key(one.1).cmp(&key(other.1))).then_with(|| one.1.cmp(&other.1))
    });
    let mut order = order.into_iter().peekable();
    std::iter::from_fn(move || {
        loop {
            let (first, index) = order.next()?;
            let write = writes.get(index as usize)?;
            let newer = order.peek().is_some_and(|next| {
                next.0 == first && writes.get(next.1 as usize).is_some_and(|(key, _)| *key == write.0)
            });
            if !newer {
                return Some(write);
            }
        }
    })
}

/// The first eight bytes as a number that sorts like them; shorter keys are filled with zeros.
fn first_bytes(key: &[u8]) -> u64 {
    let mut bytes = [0; 8];
    let length = key.len().min(bytes.len());
    if let (Some(first), Some(taken)) = (bytes.get_mut(..length), key.get(..length)) {
        first.copy_from_slice(taken);
    }
    u64::from_be_bytes(bytes)
}

fn wait_for_merges(database: &Database) {
    const GLANCE: Duration = Duration::from_millis(20);
    let deadline = Instant::now() + MERGE_PATIENCE;
    let unmerged = || database.db.property_int_value("rocksdb.num-files-at-level0").ok().flatten().unwrap_or(0);
    while unmerged() >= UNMERGED_FILES_MAX && Instant::now() < deadline {
        std::thread::sleep(GLANCE);
    }
}

#[cfg(test)]
mod tests;
