//! One partition's segments as files. Positions come from the core; a failed append is cut off again, and if even that
//! fails the next append overwrites it. A segment's replacement is written to a file beside it, which takes its name in
//! one step; what is left of one is removed when the log is opened. With `fsync`, a segment's bytes and its name are
//! synced before the call that wrote them is done; a replacement's name only before the next one takes its place.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, IoSlice, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;

use super::{storage_error, sync_dir};
use crate::core::storage::{LogStore, SegmentReplacement, StorageError};

/// Files that one partition keeps open beside the one that is written.
const OPEN_FILES_MAX: usize = 3;
/// Files that all partitions keep open. Beyond it they open a file for each use, which is slow, but a thousand
/// partitions work under a limit of a thousand file handles, half of them left to connections.
pub(crate) const ALL_OPEN_FILES_MAX: usize = 512;

/// The extension of a segment's replacement.
const REPLACEMENT: &str = "cleaned";

/// How many files the partitions of a folder hold open.
pub type OpenFiles = Arc<AtomicUsize>;

/// An open file that counts itself.
struct CountedFile {
    file: File,
    open_files: OpenFiles,
}

impl CountedFile {
    fn new(file: File, open_files: &OpenFiles) -> Self {
        open_files.fetch_add(1, Ordering::Relaxed);
        Self { file, open_files: Arc::clone(open_files) }
    }
}

impl Drop for CountedFile {
    fn drop(&mut self) {
        self.open_files.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The files of one partition.
pub struct DiskLog {
    dir: PathBuf,
    fsync: bool,
    open_files: OpenFiles,
    files: RefCell<BTreeMap<i64, CountedFile>>,
    /// The file and place where the operating system's cursor stands, to save a seek.
    cursor: Option<(i64, u64)>,
}

/// Whether a partition's folder has a segment.
pub fn has_segment(dir: &Path) -> bool {
    let is_segment = |entry: fs::DirEntry| entry.path().extension().is_some_and(|extension| extension == "log");
    fs::read_dir(dir).is_ok_and(|mut entries| entries.any(|entry| entry.is_ok_and(is_segment)))
}

impl DiskLog {
    pub fn open(dir: PathBuf, fsync: bool, open_files: OpenFiles) -> Result<Self, StorageError> {
        fs::create_dir_all(&dir).map_err(|error| storage_error("make the folder", &dir, &error))?;
        remove_replacements(&dir).map_err(|error| storage_error("remove what a cleaning left in", &dir, &error))?;
        if fsync {
            // The last segment goes on to be written, and it may have been made when `fsync` was off.
            sync_dir(&dir).map_err(|error| storage_error("sync", &dir, &error))?;
        }
        Ok(Self { dir, fsync, open_files, files: RefCell::new(BTreeMap::new()), cursor: None })
    }

    fn path(&self, base_offset: i64, extension: &str) -> PathBuf {
        self.dir.join(format!("{base_offset:020}.{extension}"))
    }

    fn error(&self, operation: &'static str, base_offset: i64, error: &io::Error) -> StorageError {
        storage_error(operation, &self.path(base_offset, "log"), error)
    }

    fn keep_budget(&self, files: &mut BTreeMap<i64, CountedFile>) {
        if self.open_files.load(Ordering::Relaxed) > ALL_OPEN_FILES_MAX {
            files.clear();
        }
    }

    fn with_file<T>(&self, base_offset: i64, work: impl FnOnce(&mut File) -> io::Result<T>) -> io::Result<T> {
        let mut files = self.files.borrow_mut();
        if !files.contains_key(&base_offset) {
            let file = File::options().read(true).write(true).open(self.path(base_offset, "log"))?;
            // The last segment is the one that is written: it goes last.
            while files.len() > OPEN_FILES_MAX {
                files.pop_first();
            }
            files.insert(base_offset, CountedFile::new(file, &self.open_files));
        }
        let file = files.get_mut(&base_offset).ok_or_else(|| io::Error::other("the file was closed"))?;
        let result = work(&mut file.file);
        self.keep_budget(&mut files);
        result
    }
}

/// A replacement that was not finished when the process ended is worth nothing.
fn remove_replacements(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == REPLACEMENT) {
            fs::remove_file(&path)?;
        }
    }
    Ok(())
}

fn remove_if_present(path: &Path) -> Result<(), StorageError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(storage_error("remove", path, &error)),
        _ => Ok(()),
    }
}

/// A replacement in the making; its file goes with it unless it was renamed.
struct FileReplacement {
    path: PathBuf,
    file: File,
    fsync: bool,
}

impl SegmentReplacement for FileReplacement {
    fn append(&mut self, bytes: &[u8]) -> Result<(), StorageError> {
        self.file.write_all(bytes).map_err(|error| storage_error("write", &self.path, &error))
    }

    fn sync(&mut self) -> Result<(), StorageError> {
        if !self.fsync {
            return Ok(());
        }
        self.file.sync_data().map_err(|error| storage_error("sync", &self.path, &error))
    }
}

impl Drop for FileReplacement {
    fn drop(&mut self) {
        // What cannot be removed now is removed when the log is opened.
        drop(fs::remove_file(&self.path));
    }
}

impl LogStore for DiskLog {
    fn segment_name(&self, base_offset: i64) -> String {
        self.path(base_offset, "log").display().to_string()
    }

    fn segments(&self) -> Result<Vec<(i64, u64)>, StorageError> {
        let list = || -> io::Result<Vec<(i64, u64)>> {
            let mut segments = Vec::new();
            for entry in fs::read_dir(&self.dir)? {
                let entry = entry?;
                let name = entry.file_name();
                let base = name.to_str().and_then(|name| name.strip_suffix(".log")).and_then(|base| base.parse().ok());
                if let Some(base) = base {
                    segments.push((base, entry.metadata()?.len()));
                }
            }
            segments.sort_unstable();
            Ok(segments)
        };
        list().map_err(|error| storage_error("list", &self.dir, &error))
    }

    fn create_segment(&mut self, base_offset: i64) -> Result<(), StorageError> {
        let path = self.path(base_offset, "log");
        // A file may be left from an attempt whose first batch could not be written.
        let made = File::options().create(true).truncate(true).read(true).write(true).open(&path);
        let file = made.map_err(|error| storage_error("make", &path, &error))?;
        if self.fsync
            && let Err(error) = sync_dir(&self.dir)
        {
            // The segment before it may grow beyond this one's name: left there, it would keep the log from being
            // opened. On a disk that cannot even remove it, the next attempt takes it over.
            drop(fs::remove_file(&path));
            return Err(storage_error("sync", &self.dir, &error));
        }
        self.cursor = None;
        let mut files = self.files.borrow_mut();
        files.insert(base_offset, CountedFile::new(file, &self.open_files));
        self.keep_budget(&mut files);
        Ok(())
    }

    fn append(&mut self, base_offset: i64, position: u64, parts: &[&[u8]]) -> Result<(), StorageError> {
        let is_open = self.files.borrow().contains_key(&base_offset);
        let at_place = is_open && self.cursor == Some((base_offset, position));
        self.cursor = None;
        let fsync = self.fsync;
        let written = self.with_file(base_offset, |file| {
            if !at_place {
                file.seek(SeekFrom::Start(position))?;
            }
            let mut slices: Vec<IoSlice<'_>> = parts.iter().map(|part| IoSlice::new(part)).collect();
            let written = write_all_vectored(file, &mut slices).and_then(|()| match fsync {
                true => file.sync_data(),
                false => Ok(()),
            });
            if written.is_err() {
                drop(file.set_len(position));
            }
            written
        });
        written.map_err(|error| self.error("append to", base_offset, &error))?;
        let length: usize = parts.iter().map(|part| part.len()).sum();
        self.cursor = Some((base_offset, position + length as u64));
        Ok(())
    }

    fn read(&self, base_offset: i64, position: u64, length: usize) -> Result<Bytes, StorageError> {
        let read = self.with_file(base_offset, |file| {
            let mut bytes = vec![0; length];
            let mut filled = 0;
            while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
                match file.read_at(rest, position + filled as u64) {
                    Ok(0) => break,
                    Ok(count) => filled += count,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
            bytes.truncate(filled);
            Ok(Bytes::from(bytes))
        });
        read.map_err(|error| self.error("read", base_offset, &error))
    }

    fn truncate(&mut self, base_offset: i64, length: u64) -> Result<(), StorageError> {
        self.cursor = None;
        self.with_file(base_offset, |file| file.set_len(length))
            .map_err(|error| self.error("truncate", base_offset, &error))
    }

    fn begin_replacement(&self, base_offset: i64) -> Result<Box<dyn SegmentReplacement>, StorageError> {
        let path = self.path(base_offset, REPLACEMENT);
        let file = File::create(&path).map_err(|error| storage_error("make", &path, &error))?;
        Ok(Box::new(FileReplacement { path, file, fsync: self.fsync }))
    }

    fn replace_segment(
        &mut self,
        base_offset: i64,
        replacement: Box<dyn SegmentReplacement>,
    ) -> Result<(), StorageError> {
        // A summary of the old bytes must never meet the new ones. Syncing here also keeps replacements in order.
        remove_if_present(&self.path(base_offset, "summary"))?;
        if self.fsync {
            sync_dir(&self.dir).map_err(|error| storage_error("sync", &self.dir, &error))?;
        }
        let path = self.path(base_offset, "log");
        fs::rename(self.path(base_offset, REPLACEMENT), &path)
            .map_err(|error| storage_error("replace", &path, &error))?;
        // An open handle would go on reading the old bytes.
        self.files.borrow_mut().remove(&base_offset);
        drop(replacement);
        Ok(())
    }

    fn remove_segment(&mut self, base_offset: i64) -> Result<(), StorageError> {
        self.files.borrow_mut().remove(&base_offset);
        remove_if_present(&self.path(base_offset, "summary"))?;
        remove_if_present(&self.path(base_offset, "log"))?;
        Ok(())
    }

    fn write_summary(&mut self, base_offset: i64, summary: &[u8]) -> Result<(), StorageError> {
        // A write cut short leaves less than its checksum covers, and so no summary.
        let path = self.path(base_offset, "summary");
        fs::write(&path, summary).map_err(|error| storage_error("write", &path, &error))
    }

    fn read_summary(&self, base_offset: i64) -> Result<Option<Bytes>, StorageError> {
        let path = self.path(base_offset, "summary");
        match fs::read(&path) {
            Ok(bytes) => Ok(Some(Bytes::from(bytes))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(storage_error("read", &path, &error)),
        }
    }
}

fn write_all_vectored(file: &mut File, mut slices: &mut [IoSlice<'_>]) -> io::Result<()> {
    IoSlice::advance_slices(&mut slices, 0);
    while !slices.is_empty() {
        match file.write_vectored(slices) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => IoSlice::advance_slices(&mut slices, count),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
