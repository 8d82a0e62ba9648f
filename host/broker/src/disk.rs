//! The folder behind the broker. What was answered is in the files before, so it survives `kill -9` of the process.
//! What was answered while `fsync` was on survives a power cut too: before the answer, the bytes are synced, and so is
//! every folder in which a file or a folder that they need was made or renamed. A removal is not synced: undone by a
//! power cut, it leaves what the next start removes again or what lies before the log's start. Summaries and `listener`
//! are no part of the promise. One process at a time: the folder is locked. A folder of a newer format is refused and
//! not touched.
//!
//! ```text
//! lock                     held while the broker runs
//! format.json              format version and cluster id
//! listener                 the address of the last start
//! metadata.log             topics, settings, offsets, ids: one checked line a change
//! logs/NAME-ID/PARTITION/  00000000000000000000.log, .summary
//! ```

pub mod journal;
mod log;

use std::collections::BTreeSet;
use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::core::metadata::{MetadataImage, MetadataRecord, TopicId};
use crate::core::storage::{LogStore, Storage, StorageError};
use journal::Journal;
#[cfg(test)]
pub(crate) use log::ALL_OPEN_FILES_MAX;
use log::{DiskLog, OpenFiles};

/// The format this code writes; it reads this one and older ones. Version 2 has transactions and cleaned segments.
pub const FORMAT_VERSION: u32 = 2;

/// How long a lock that somebody else holds is asked for.
const LOCK_PATIENCE: Duration = Duration::from_millis(500);

/// Why a folder could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    #[error(
        "open the broker's folder {dir}: another process uses it{}; stop it, or use that broker",
        address.map(|address| format!(" (a broker at {address})")).unwrap_or_default()
    )]
    InUse { dir: PathBuf, address: Option<SocketAddr> },
    #[error(
        "open the broker's folder {dir}: format {found}, this program knows up to {FORMAT_VERSION}; use a newer one"
    )]
    NewerFormat { dir: PathBuf, found: u32 },
    #[error("read {path}: {detail}; it is not a broker's folder, or the file is damaged")]
    Format { path: PathBuf, detail: String },
    #[error(
        "read {path}: {detail}; nothing was changed: put the file back from a copy, use the program that wrote it, or \
         start with another folder"
    )]
    Damaged { path: PathBuf, detail: String },
    #[error("open the broker's folder {dir}: it has {entry:?}, which no broker made; use an empty folder or a new one")]
    ForeignFolder { dir: PathBuf, entry: String },
    #[error("{operation} {path}")]
    Io { operation: &'static str, path: PathBuf, source: io::Error },
    #[error(transparent)]
    Storage(#[from] StorageError),
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Format {
    version: u32,
    #[serde(default)]
    cluster_id: String,
}

/// Storage in a folder.
#[derive(Debug)]
pub struct DiskStorage {
    dir: PathBuf,
    cluster_id: String,
    fsync: bool,
    journal: Mutex<Journal>,
    open_files: OpenFiles,
    repairs: Vec<String>,
    /// Held open: the lock ends with it.
    _lock: File,
}

fn io_error(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> DiskError {
    let path = path.to_owned();
    move |source| DiskError::Io { operation, path, source }
}

fn storage_error(operation: &'static str, path: &Path, error: &io::Error) -> StorageError {
    StorageError { operation, subject: path.display().to_string(), detail: error.to_string() }
}

impl DiskStorage {
    /// Opens or makes the folder and locks it.
    pub fn open(dir: &Path, fsync: bool) -> Result<Self, DiskError> {
        make_dir(dir, fsync)?;
        if !["lock", "format.json", "metadata.log"].iter().any(|name| dir.join(name).exists()) {
            // Before anything is written into it.
            check_is_empty(dir)?;
        }
        let lock = lock(dir)?;
        let format = open_format(dir)?;
        let logs = dir.join("logs");
        fs::create_dir_all(&logs).map_err(io_error("make the folder", &logs))?;
        let journal = Journal::open(&dir.join("metadata.log"), fsync)?;
        let repairs = journal.repair().into_iter().collect();
        let storage = Self {
            dir: dir.to_owned(),
            cluster_id: format.cluster_id.clone(),
            fsync,
            journal: Mutex::new(journal),
            open_files: OpenFiles::default(),
            repairs,
            _lock: lock,
        };
        storage.remove_leftovers()?;
        if format.version < FORMAT_VERSION {
            // Before anything is written that an older program would take for damage; not before the folder was found
            // to be whole, so that the older program can still open one that is refused here.
            let format = Format { version: FORMAT_VERSION, cluster_id: storage.cluster_id.clone() };
            write_format(&dir.join("format.json"), &format)?;
        }
        if fsync {
            storage.sync_names()?;
        }
        Ok(storage)
    }

    /// Makes sure of the names of all files and folders above the partitions', also of those that were made when
    /// `fsync` was off or by a start that was cut short.
    fn sync_names(&self) -> Result<(), DiskError> {
        let logs = self.dir.join("logs");
        let topics = fs::read_dir(&logs).map_err(io_error("list", &logs))?;
        for topic in topics {
            let topic = topic.map_err(io_error("list", &logs))?;
            let path = topic.path();
            if topic.file_name().to_str().and_then(topic_number).is_some() {
                sync_dir(&path).map_err(io_error("sync", &path))?;
            }
        }
        for dir in [&logs, &self.dir] {
            sync_dir(dir).map_err(io_error("sync", dir))?;
        }
        Ok(())
    }

    pub fn cluster_id(&self) -> &str {
        &self.cluster_id
    }

    /// What was cut when the folder was opened, one sentence a file.
    pub fn repairs(&self) -> &[String] {
        &self.repairs
    }

    /// A number that differs between folders, for topic ids.
    pub fn topic_id_seed(&self) -> u64 {
        self.cluster_id.get(..16).and_then(|half| u64::from_str_radix(half, 16).ok()).unwrap_or(1).max(1)
    }

    fn journal(&self) -> MutexGuard<'_, Journal> {
        self.journal.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn topic_dir(&self, topic: TopicId, name: &str) -> PathBuf {
        self.dir.join("logs").join(topic_dir_name(topic, name))
    }

    /// Whether the metadata has this partition: its log was made before.
    fn is_kept(&self, topic: TopicId, name: &str, partition: i32) -> bool {
        let journal = self.journal();
        journal.image().topics.get(name).is_some_and(|kept| kept.id == topic && partition < kept.partitions)
    }

    /// Removes folders of topics that do not exist: their deletion or their creation was cut short. Refuses to when
    /// they hold records of topics that the metadata should know: then it is the metadata that was lost.
    fn remove_leftovers(&self) -> Result<(), DiskError> {
        let logs = self.dir.join("logs");
        let (known, next_topic) = {
            let journal = self.journal();
            let image = journal.image();
            let known = image.topics.iter().map(|(name, topic)| topic_dir_name(topic.id, name));
            (known.collect::<BTreeSet<String>>(), image.next_topic)
        };
        let mut leftovers = Vec::new();
        for entry in fs::read_dir(&logs).map_err(io_error("list", &logs))? {
            let entry = entry.map_err(io_error("list", &logs))?;
            let path = entry.path();
            let name = entry.file_name();
            let Some(number) = name.to_str().and_then(topic_number) else {
                tracing::warn!(path = %path.display(), "not a topic's folder; it is left alone");
                continue;
            };
            if name.to_str().is_some_and(|name| known.contains(name)) {
                continue;
            }
            // The number of a deleted topic stays taken; one that is not taken yet belongs to a creation cut short,
            // which cannot have records.
            if number > next_topic && holds_records(&path).map_err(io_error("list", &path))? {
                let detail = format!("it does not know the topic whose records are in {}", path.display());
                return Err(DiskError::Damaged { path: self.dir.join("metadata.log"), detail });
            }
            leftovers.push(path);
        }
        for path in leftovers {
            tracing::info!(path = %path.display(), "removing what is left of a topic that does not exist");
            fs::remove_dir_all(&path).map_err(io_error("remove", &path))?;
        }
        Ok(())
    }

    /// Remembers the address, for other processes and for the next start.
    pub fn write_listener(&self, address: SocketAddr) -> Result<(), DiskError> {
        // Nothing to write, and so nothing to fail, on a full disk.
        if remembered_listener(&self.dir) == Some(address) {
            return Ok(());
        }
        let path = self.dir.join("listener");
        replace_file(&path, format!("{address}\n").as_bytes()).map(drop).map_err(io_error("write", &path))
    }
}

/// Readable, unique, and short enough for every file system: topic names may be longer than a file name with an id.
fn topic_dir_name(topic: TopicId, name: &str) -> String {
    let head: String = name.chars().take(100).collect();
    format!("{head}-{:032x}", topic.0)
}

/// The number in the id of the topic that a folder belongs to; `None` for a folder of another kind.
fn topic_number(dir_name: &str) -> Option<u64> {
    let (_, id) = dir_name.rsplit_once('-')?;
    // The upper half of the id is the broker's.
    (id.len() == 32).then(|| u128::from_str_radix(id, 16).ok().map(|id| id as u64))?
}

/// Whether a topic's folder has records, or had some: a log whose first records were deleted does not begin at 0.
fn holds_records(topic_dir: &Path) -> io::Result<bool> {
    for partition in fs::read_dir(topic_dir)? {
        for file in fs::read_dir(partition?.path())? {
            let file = file?;
            let name = file.file_name();
            let base = name.to_str().and_then(|name| name.strip_suffix(".log"));
            if base.is_some_and(|base| base.bytes().any(|digit| digit != b'0')) || file.metadata()?.len() > 0 {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

fn lock(dir: &Path) -> Result<File, DiskError> {
    let path = dir.join("lock");
    let file = File::options().create(true).truncate(false).write(true).open(&path).map_err(io_error("open", &path))?;
    match try_lock_for(&file, LOCK_PATIENCE) {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            Err(DiskError::InUse { dir: dir.to_owned(), address: remembered_listener(dir) })
        }
        Err(TryLockError::Error(source)) => Err(DiskError::Io { operation: "lock", path, source }),
    }
}

/// Tries for a while: a process that is being forked off holds copies of its parent's files until it becomes another
/// program, and with them a lock that its parent has given up.
fn try_lock_for(file: &File, patience: Duration) -> Result<(), TryLockError> {
    let deadline = Instant::now() + patience;
    loop {
        match file.try_lock() {
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(5)),
            tried => return tried,
        }
    }
}

/// The address of the last start, whether or not it still runs.
pub fn remembered_listener(dir: &Path) -> Option<SocketAddr> {
    fs::read_to_string(dir.join("listener")).ok()?.trim().parse().ok()
}

/// Whether a folder is a broker's, in whatever state its files are.
pub fn is_of_broker(dir: &Path) -> bool {
    ["format.json", "metadata.log"].iter().any(|name| dir.join(name).exists())
}

/// The cluster id of a folder.
pub fn remembered_cluster_id(dir: &Path) -> Option<String> {
    let text = fs::read(dir.join("format.json")).ok()?;
    serde_json::from_slice::<Format>(&text).ok().map(|format| format.cluster_id)
}

fn open_format(dir: &Path) -> Result<Format, DiskError> {
    let path = dir.join("format.json");
    match fs::read(&path) {
        Ok(text) => {
            let format: Format = serde_json::from_slice(&text)
                .map_err(|error| DiskError::Format { path: path.clone(), detail: error.to_string() })?;
            if format.version > FORMAT_VERSION {
                return Err(DiskError::NewerFormat { dir: dir.to_owned(), found: format.version });
            }
            Ok(format)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if dir.join("metadata.log").exists() {
                let detail = String::from("it is missing beside a metadata.log");
                return Err(DiskError::Format { path, detail });
            }
            check_is_empty(dir)?;
            let format = Format { version: FORMAT_VERSION, cluster_id: new_cluster_id()? };
            write_format(&path, &format)?;
            Ok(format)
        }
        Err(source) => Err(DiskError::Io { operation: "read", path, source }),
    }
}

fn write_format(path: &Path, format: &Format) -> Result<(), DiskError> {
    let text = serde_json::to_vec(format)
        .map_err(|error| DiskError::Format { path: path.to_owned(), detail: error.to_string() })?;
    replace_file(path, &text).map(drop).map_err(io_error("write", path))
}

fn new_cluster_id() -> Result<String, DiskError> {
    let source = Path::new("/dev/urandom");
    let mut bytes = [0u8; 16];
    File::open(source).and_then(|mut file| file.read_exact(&mut bytes)).map_err(io_error("read", source))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// A folder that is not a broker's yet must not be anybody else's: what is in its `logs` would be taken for topics.
fn check_is_empty(dir: &Path) -> Result<(), DiskError> {
    for entry in fs::read_dir(dir).map_err(io_error("list", dir))? {
        let name = entry.map_err(io_error("list", dir))?.file_name();
        let name = name.to_string_lossy();
        // Left by a first start that was cut short, or by the file system and the desktop.
        let is_nothing = ["lock", "format.new", "lost+found"].contains(&name.as_ref()) || name.starts_with('.');
        if !is_nothing {
            return Err(DiskError::ForeignFolder { dir: dir.to_owned(), entry: name.into_owned() });
        }
    }
    Ok(())
}

/// Makes a folder and those above it that are missing; with `fsync`, makes sure of their names.
fn make_dir(dir: &Path, fsync: bool) -> Result<(), DiskError> {
    let is_missing = |dir: &&Path| !dir.as_os_str().is_empty() && !dir.exists();
    let missing: Vec<&Path> = dir.ancestors().take_while(is_missing).collect();
    fs::create_dir_all(dir).map_err(io_error("make the folder", dir))?;
    for parent in missing.into_iter().filter_map(Path::parent).filter(|_| fsync) {
        let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
        sync_dir(parent).map_err(io_error("sync", parent))?;
    }
    Ok(())
}

/// Makes sure of the names in a folder: without this, a file that was made, renamed or synced may lose its name in a
/// power cut.
fn sync_dir(dir: &Path) -> io::Result<()> {
    #[cfg(test)]
    tests::syncs::note(dir)?;
    File::open(dir)?.sync_all()
}

/// Writes a file as a whole: the old one or the new one is there, never a half. Gives back the new one, open. Which of
/// the two it is after a power cut is sure only once its folder was synced.
fn replace_file(path: &Path, bytes: &[u8]) -> io::Result<File> {
    let next = path.with_extension("new");
    let write = || {
        let mut file = File::options().create(true).truncate(true).read(true).write(true).open(&next)?;
        file.write_all(bytes)?;
        file.sync_data()?;
        fs::rename(&next, path)?;
        Ok(file)
    };
    let written = write();
    if written.is_err() {
        // A half-written file would keep a full disk full; where even this fails, the next attempt overwrites it.
        drop(fs::remove_file(&next));
    }
    written
}

impl Storage for DiskStorage {
    fn load_metadata(&self) -> Result<MetadataImage, StorageError> {
        Ok(self.journal().image().clone())
    }

    fn append_metadata(&self, records: &[MetadataRecord]) -> Result<(), StorageError> {
        self.journal().append(records)
    }

    fn open_log(&self, topic: TopicId, name: &str, partition: i32) -> Result<Box<dyn LogStore>, StorageError> {
        let topic_dir = self.topic_dir(topic, name);
        let dir = topic_dir.join(partition.to_string());
        let is_kept = self.is_kept(topic, name, partition);
        if is_kept && !log::has_segment(&dir) {
            return Err(StorageError {
                operation: "open",
                subject: dir.display().to_string(),
                detail:
                    "the records of this partition are gone; put the folder back from a copy, or put an empty file \
                         00000000000000000000.log into it to go on without them"
                        .into(),
            });
        }
        let log = DiskLog::open(dir, self.fsync, Arc::clone(&self.open_files))?;
        if self.fsync && !is_kept {
            for dir in [&topic_dir, &self.dir.join("logs")] {
                sync_dir(dir).map_err(|error| storage_error("sync", dir, &error))?;
            }
        }
        Ok(Box::new(log))
    }

    fn remove_topic(&self, topic: TopicId, name: &str) -> Result<(), StorageError> {
        let dir = self.topic_dir(topic, name);
        match fs::remove_dir_all(&dir) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(storage_error("remove", &dir, &error)),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
