//! The state directory: `<state.dir>/<application id>/<task>/rocksdb/<store>`, as Kafka Streams lays it out. A store
//! that follows a source topic is below `rocksdb-source/<topic>` instead, since its offset means nothing for another
//! topic. Beside the tasks the directory holds a lock, an identity and what is being removed. Names from outside never
//! leave it.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use engine::state::StoreError;
use engine::topology::{StoreChangelog, StoreSpec, TaskId};

use crate::options::RocksOptions;

/// The version of the directory's layout and of the stores' own keys. A newer one is refused.
pub const FORMAT_VERSION: u32 = 1;

const LOCK: &str = ".lock";
const IDENTITY: &str = ".identity";
const HOST_ID: &str = ".host-id";
const REMOVED: &str = ".removed";

/// 64 random bits: enough that no two hosts of an application ever meet.
const HOST_ID_DIGITS: usize = 16;

/// How long a lock that somebody else holds is asked for.
const LOCK_PATIENCE: Duration = Duration::from_millis(500);

/// The directory of one application, locked.
pub(crate) struct StateDirectory {
    path: PathBuf,
    application_id: String,
    host_id: String,
    removals: AtomicU64,
    // The lock lasts as long as the file is open.
    _lock: File,
}

/// Who a directory belongs to, one `key = value` a line.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Identity {
    format_version: u32,
    application_id: String,
    cluster_id: Option<String>,
}

impl StateDirectory {
    pub fn open(options: &RocksOptions) -> Result<Self, StoreError> {
        check_name("application id", &options.application_id, &options.state_dir)?;
        let path = options.state_dir.join(&options.application_id);
        fs::create_dir_all(&path).map_err(|error| directory_error(&path, "create", &error))?;
        let lock = lock(&path)?;
        let application_id = options.application_id.clone();
        let removals = AtomicU64::new(0);
        let mut directory = Self { path, application_id, host_id: String::new(), removals, _lock: lock };
        directory.check_identity(options.cluster_id.as_deref())?;
        directory.host_id = directory.read_or_make_host_id()?;
        directory.finish_removals();
        Ok(directory)
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn host_id(&self) -> &str {
        &self.host_id
    }

    pub fn store_path(&self, task: TaskId, store: &StoreSpec) -> Result<PathBuf, StoreError> {
        // Of one version of the schema: rows of another one have a folder of their own.
        let generation = store.generation();
        check_name("store", &generation, &self.path)?;
        let folder = self.path.join(task.to_string());
        let folder = match &store.changelog {
            StoreChangelog::Source(topic) => {
                // A topic's name may begin with a dot; the folder must not hide or point elsewhere.
                let topic = format!("topic-{topic}");
                check_folder("topic", &topic, FOLDER_MAX_BYTES, &self.path)?;
                folder.join("rocksdb-source").join(topic)
            }
            StoreChangelog::Internal | StoreChangelog::Off => folder.join("rocksdb"),
        };
        Ok(folder.join(&*generation))
    }

    /// A place for passing files of a store; what is left there is removed by the next start.
    pub fn scratch_path(&self, task: TaskId, store: &str) -> Result<PathBuf, StoreError> {
        check_name("store", store, &self.path)?;
        let number = self.removals.fetch_add(1, Ordering::Relaxed);
        Ok(self.path.join(REMOVED).join(format!("{task}-{store}-{}-{number}-load", std::process::id())))
    }

    /// Checks whose directory it is; without a cluster, whether it is the application's.
    pub fn check_identity(&self, cluster_id: Option<&str>) -> Result<(), StoreError> {
        let path = self.path.join(IDENTITY);
        let foreign = |detail: String| StoreError::Foreign { path: self.path.display().to_string(), detail };
        let wanted = Identity {
            format_version: FORMAT_VERSION,
            application_id: self.application_id.clone(),
            cluster_id: cluster_id.map(str::to_owned),
        };
        let mut text = String::new();
        match File::open(&path).and_then(|mut file| file.read_to_string(&mut text)) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if self.has_tasks()? {
                    return Err(foreign(format!(
                        "holds stores but no file {IDENTITY}: it was not written by this program; choose another \
                         state.dir, or remove the directory to restore its stores from their changelogs"
                    )));
                }
                return self.write_identity(&wanted);
            }
            Err(error) => return Err(directory_error(&path, "read", &error)),
        }
        let found = Identity::parse(&text).map_err(|fault| {
            foreign(format!("has an unreadable {IDENTITY} ({fault}); remove the directory to restore its stores"))
        })?;
        if found.format_version > FORMAT_VERSION {
            return Err(foreign(format!(
                "has format version {}, this program reads up to {FORMAT_VERSION}: run a newer version, or remove the \
                 directory to restore its stores from their changelogs",
                found.format_version
            )));
        }
        if found.application_id != wanted.application_id {
            return Err(foreign(format!(
                "belongs to application {}, not to {}: choose another state.dir",
                found.application_id, wanted.application_id
            )));
        }
        match (&found.cluster_id, &wanted.cluster_id) {
            (Some(found), Some(wanted)) if found != wanted => Err(foreign(format!(
                "follows the changelogs of cluster {found}, but the brokers belong to cluster {wanted}: choose another \
                 state.dir, or remove the directory to restore its stores"
            ))),
            (None, Some(_)) => self.write_identity(&wanted),
            _ => Ok(()),
        }
    }

    fn write_identity(&self, identity: &Identity) -> Result<(), StoreError> {
        self.replace(IDENTITY, &identity.to_text())
    }

    /// Written beside and renamed, so that a crash leaves the old file or the new one.
    fn replace(&self, name: &str, text: &str) -> Result<(), StoreError> {
        let path = self.path.join(name);
        let draft = self.path.join(format!("{name}.new"));
        let write = || -> io::Result<()> {
            let mut file = File::create(&draft)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            fs::rename(&draft, &path)?;
            sync_directory(&self.path)
        };
        write().map_err(|error| directory_error(&path, "write", &error))
    }

    /// The id lives in the directory, so a host that comes back with its state fences its own predecessor at once (R1).
    fn read_or_make_host_id(&self) -> Result<String, StoreError> {
        let path = self.path.join(HOST_ID);
        match fs::read_to_string(&path) {
            Ok(text) => {
                let id = text.trim();
                let legal = id.len() == HOST_ID_DIGITS && id.bytes().all(|byte| byte.is_ascii_hexdigit());
                if legal {
                    return Ok(id.to_owned());
                }
                let (path, detail) = (
                    self.path.display().to_string(),
                    format!("has an unreadable {HOST_ID} ({id:?}); remove that file to get a new one"),
                );
                Err(StoreError::Foreign { path, detail })
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let id = new_host_id().map_err(|error| directory_error(&path, "make", &error))?;
                self.replace(HOST_ID, &id)?;
                Ok(id)
            }
            Err(error) => Err(directory_error(&path, "read", &error)),
        }
    }

    fn has_tasks(&self) -> Result<bool, StoreError> {
        let entries = fs::read_dir(&self.path).map_err(|error| directory_error(&self.path, "list", &error))?;
        for entry in entries {
            let entry = entry.map_err(|error| directory_error(&self.path, "list", &error))?;
            if !entry.file_name().to_string_lossy().starts_with('.') {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Takes a store away in one step, then deletes it: a crash leaves it whole or gone, never half (R12).
    pub fn wipe(&self, task: TaskId, store: &StoreSpec) -> Result<(), StoreError> {
        let path = self.store_path(task, store)?;
        let removed = self.path.join(REMOVED);
        fs::create_dir_all(&removed).map_err(|error| directory_error(&removed, "create", &error))?;
        let number = self.removals.fetch_add(1, Ordering::Relaxed);
        let aside = removed.join(format!("{task}-{}-{}-{number}", store.generation(), std::process::id()));
        match fs::rename(&path, &aside) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(directory_error(&path, "move aside", &error)),
        }
        if let Some(parent) = path.parent() {
            sync_directory(parent).map_err(|error| directory_error(parent, "sync", &error))?;
        }
        sync_directory(&removed).map_err(|error| directory_error(&removed, "sync", &error))?;
        // The store is gone already; its bytes go in the background, or at the next start.
        delete_in_background(aside);
        Ok(())
    }

    fn finish_removals(&self) {
        let path = self.path.join(REMOVED);
        let unread = |error: io::Error| {
            if error.kind() != io::ErrorKind::NotFound {
                tracing::warn!(path = %path.display(), %error, "removed stores could not be listed; tried again at the next start");
            }
        };
        match fs::read_dir(&path) {
            Ok(entries) => entries.for_each(|entry| match entry {
                Ok(entry) => delete_in_background(entry.path()),
                Err(error) => unread(error),
            }),
            Err(error) => unread(error),
        }
    }
}

fn new_host_id() -> io::Result<String> {
    let mut bytes = [0u8; HOST_ID_DIGITS / 2];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn delete_in_background(path: PathBuf) {
    let name = path.display().to_string();
    let delete = move || {
        if let Err(error) = fs::remove_dir_all(&path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(path = %path.display(), %error, "a removed store could not be deleted; tried again at the next start");
        }
    };
    if let Err(error) = std::thread::Builder::new().name("state-cleaner".into()).spawn(delete) {
        tracing::warn!(path = name, %error, "no thread to delete a removed store; tried again at the next start");
    }
}

fn lock(directory: &Path) -> Result<File, StoreError> {
    let path = directory.join(LOCK);
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .read(true)
        .open(&path)
        .map_err(|error| directory_error(&path, "open", &error))?;
    match try_lock_for(&file, LOCK_PATIENCE) {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            let mut reader = &file;
            // The holder's number is a help only; the lock is what counts.
            let holder = match reader.read_to_string(&mut holder) {
                Ok(_) if !holder.trim().is_empty() => format!("process {}", holder.trim()),
                _ => "another process".into(),
            };
            return Err(StoreError::Locked {
                path: directory.display().to_string(),
                detail: format!("{holder} runs this application on it; stop it, or give this one its own state.dir"),
            });
        }
        Err(TryLockError::Error(error)) => return Err(directory_error(&path, "lock", &error)),
    }
    let note = || -> io::Result<()> {
        file.set_len(0)?;
        (&file).write_all(format!("{}\n", std::process::id()).as_bytes())
    };
    note().map_err(|error| directory_error(&path, "write", &error))?;
    Ok(file)
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

fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

fn directory_error(path: &Path, operation: &'static str, error: &io::Error) -> StoreError {
    let detail = format!("{}: {error}", path.display());
    let (store, task) = ("(state directory)".to_string(), TaskId::default());
    if error.kind() == io::ErrorKind::StorageFull || error.kind() == io::ErrorKind::QuotaExceeded {
        return StoreError::NoSpace { store, task, detail };
    }
    StoreError::Io { store, task, operation, detail }
}

/// What file systems allow for one folder.
const FOLDER_MAX_BYTES: usize = 255;
/// Leaves room for what is added to a name.
const NAME_MAX_BYTES: usize = 200;

/// Names become folders: only what Kafka allows in a topic's name, and nothing that points elsewhere or hides.
fn check_name(what: &str, name: &str, directory: &Path) -> Result<(), StoreError> {
    check_folder(what, name, NAME_MAX_BYTES, directory)
}

fn check_folder(what: &str, name: &str, max_bytes: usize, directory: &Path) -> Result<(), StoreError> {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if !name.is_empty() && name.len() <= max_bytes && !name.starts_with('.') && name.chars().all(legal) {
        return Ok(());
    }
    Err(StoreError::Io {
        store: name.into(),
        task: TaskId::default(),
        operation: "name a folder",
        detail: format!(
            "{what} {name:?} cannot be a folder below {}: at most {max_bytes} of the characters a-z A-Z 0-9 . _ -, not \
             beginning with a dot",
            directory.display()
        ),
    })
}

impl Identity {
    fn to_text(&self) -> String {
        let mut text = format!("format.version = {}\napplication.id = {}\n", self.format_version, self.application_id);
        if let Some(cluster_id) = &self.cluster_id {
            text.push_str(&format!("cluster.id = {cluster_id}\n"));
        }
        text
    }

    /// Unknown keys are left alone: a newer minor version may have written them.
    fn parse(text: &str) -> Result<Self, String> {
        let (mut format_version, mut application_id, mut cluster_id) = (None, None, None);
        for line in text.lines().filter(|line| !line.trim().is_empty()) {
            let (key, value) = line.split_once('=').ok_or_else(|| format!("line {line:?} has no ="))?;
            match key.trim() {
                "format.version" => {
                    let number = value.trim().parse().map_err(|_| format!("format.version {value:?} is no number"))?;
                    format_version = Some(number);
                }
                "application.id" => application_id = Some(value.trim().to_string()),
                "cluster.id" => cluster_id = Some(value.trim().to_string()),
                _ => {}
            }
        }
        Ok(Self {
            format_version: format_version.ok_or("format.version is missing")?,
            application_id: application_id.ok_or("application.id is missing")?,
            cluster_id,
        })
    }
}

#[cfg(test)]
mod tests;
