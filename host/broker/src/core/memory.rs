//! Storage in memory: for the simulation and for unit tests. Keeps exactly what the disk would keep, so that a core
//! opened again on the same `MemoryStorage` sees a restart; `fill_disk` makes every write fail.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::metadata::{MetadataImage, MetadataRecord, TopicId};
use super::storage::{LogStore, SegmentReplacement, Storage, StorageError};

#[derive(Debug, Default)]
struct MemorySegment {
    bytes: Vec<u8>,
    summary: Option<Bytes>,
}

/// What all of it is on.
#[derive(Debug)]
struct Disk {
    /// Writes that still fit.
    room: AtomicU64,
    writes: AtomicU64,
}

impl Default for Disk {
    fn default() -> Self {
        Self { room: AtomicU64::new(u64::MAX), writes: AtomicU64::new(0) }
    }
}

type SharedLog = Arc<Mutex<BTreeMap<i64, MemorySegment>>>;

/// What is written beside segments, by their base offsets.
type Staged = Arc<Mutex<BTreeMap<i64, Vec<u8>>>>;

/// Everything a broker would keep, in memory. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct MemoryStorage {
    image: Arc<Mutex<MetadataImage>>,
    logs: Arc<Mutex<BTreeMap<(TopicId, i32), SharedLog>>>,
    disk: Arc<Disk>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl MemoryStorage {
    pub fn new() -> Self {
        Self::default()
    }

    /// From now on every write fails (or works again), as on a full disk.
    pub fn fill_disk(&self, full: bool) {
        self.fill_disk_after(if full { 0 } else { u64::MAX });
    }

    /// Only so many writes more succeed.
    pub fn fill_disk_after(&self, writes: u64) {
        self.disk.room.store(writes, Ordering::Relaxed);
    }

    /// How often something was written, in vain or not.
    pub fn write_count(&self) -> u64 {
        self.disk.writes.load(Ordering::Relaxed)
    }

    /// How many partitions have a log.
    pub fn log_count(&self) -> usize {
        lock(&self.logs).len()
    }

    /// Appends bytes behind the core's back, as a write cut short by a crash leaves them.
    pub fn tear(&self, topic: TopicId, partition: i32, torn: &[u8]) {
        let logs = lock(&self.logs);
        if let Some(log) = logs.get(&(topic, partition))
            && let Some((_, segment)) = lock(log).iter_mut().next_back()
        {
            segment.bytes.extend_from_slice(torn);
        }
    }
}

fn check_space(disk: &Disk, operation: &'static str, subject: String) -> Result<(), StorageError> {
    disk.writes.fetch_add(1, Ordering::Relaxed);
    let room = disk.room.load(Ordering::Relaxed);
    if room != u64::MAX {
        disk.room.store(room.saturating_sub(1), Ordering::Relaxed);
    }
    if room == 0 {
        return Err(StorageError { operation, subject, detail: "no space left".into() });
    }
    Ok(())
}

impl Storage for MemoryStorage {
    fn load_metadata(&self) -> Result<MetadataImage, StorageError> {
        Ok(lock(&self.image).clone())
    }

    fn append_metadata(&self, records: &[MetadataRecord]) -> Result<(), StorageError> {
        check_space(&self.disk, "append to", "the metadata in memory".into())?;
        let mut image = lock(&self.image);
        records.iter().for_each(|record| image.apply(record));
        Ok(())
    }

    fn open_log(&self, topic: TopicId, name: &str, partition: i32) -> Result<Box<dyn LogStore>, StorageError> {
        let segments = Arc::clone(lock(&self.logs).entry((topic, partition)).or_default());
        let (staged, disk) = (Staged::default(), Arc::clone(&self.disk));
        Ok(Box::new(MemoryLog { name: format!("{name}-{partition}"), segments, staged, disk }))
    }

    fn remove_topic(&self, topic: TopicId, _name: &str) -> Result<(), StorageError> {
        lock(&self.logs).retain(|(id, _), _| *id != topic);
        Ok(())
    }
}

struct MemoryLog {
    name: String,
    segments: SharedLog,
    staged: Staged,
    disk: Arc<Disk>,
}

struct MemoryReplacement {
    base_offset: i64,
    staged: Staged,
    disk: Arc<Disk>,
}

impl SegmentReplacement for MemoryReplacement {
    fn append(&mut self, bytes: &[u8]) -> Result<(), StorageError> {
        check_space(&self.disk, "append to", format!("the replacement of segment {}", self.base_offset))?;
        lock(&self.staged).entry(self.base_offset).or_default().extend_from_slice(bytes);
        Ok(())
    }

    fn sync(&mut self) -> Result<(), StorageError> {
        Ok(())
    }
}

impl Drop for MemoryReplacement {
    fn drop(&mut self) {
        lock(&self.staged).remove(&self.base_offset);
    }
}

impl MemoryLog {
    fn missing(&self, operation: &'static str, base_offset: i64) -> StorageError {
        StorageError { operation, subject: self.segment_name(base_offset), detail: "no such segment".into() }
    }

    fn with<T>(
        &self,
        operation: &'static str,
        base_offset: i64,
        work: impl FnOnce(&mut MemorySegment) -> T,
    ) -> Result<T, StorageError> {
        let mut segments = lock(&self.segments);
        let segment = segments.get_mut(&base_offset).ok_or_else(|| self.missing(operation, base_offset))?;
        Ok(work(segment))
    }
}

impl LogStore for MemoryLog {
    fn segment_name(&self, base_offset: i64) -> String {
        format!("segment {base_offset} of {} in memory", self.name)
    }

    fn segments(&self) -> Result<Vec<(i64, u64)>, StorageError> {
        Ok(lock(&self.segments).iter().map(|(&base, segment)| (base, segment.bytes.len() as u64)).collect())
    }

    fn create_segment(&mut self, base_offset: i64) -> Result<(), StorageError> {
        check_space(&self.disk, "create", format!("segment {base_offset} of {}", self.name))?;
        lock(&self.segments).entry(base_offset).or_default();
        Ok(())
    }

    fn append(&mut self, base_offset: i64, position: u64, parts: &[&[u8]]) -> Result<(), StorageError> {
        check_space(&self.disk, "append to", format!("segment {base_offset} of {}", self.name))?;
        self.with("append to", base_offset, |segment| {
            segment.bytes.truncate(position as usize);
            parts.iter().for_each(|part| segment.bytes.extend_from_slice(part));
        })
    }

    fn read(&self, base_offset: i64, position: u64, length: usize) -> Result<Bytes, StorageError> {
        self.with("read", base_offset, |segment| {
            let start = (position as usize).min(segment.bytes.len());
            let end = start.saturating_add(length).min(segment.bytes.len());
            Bytes::copy_from_slice(segment.bytes.get(start..end).unwrap_or_default())
        })
    }

    fn truncate(&mut self, base_offset: i64, length: u64) -> Result<(), StorageError> {
        self.with("truncate", base_offset, |segment| segment.bytes.truncate(length as usize))
    }

    fn begin_replacement(&self, base_offset: i64) -> Result<Box<dyn SegmentReplacement>, StorageError> {
        lock(&self.staged).insert(base_offset, Vec::new());
        let (staged, disk) = (Arc::clone(&self.staged), Arc::clone(&self.disk));
        Ok(Box::new(MemoryReplacement { base_offset, staged, disk }))
    }

    fn replace_segment(
        &mut self,
        base_offset: i64,
        replacement: Box<dyn SegmentReplacement>,
    ) -> Result<(), StorageError> {
        check_space(&self.disk, "replace", format!("segment {base_offset} of {}", self.name))?;
        let bytes = lock(&self.staged).remove(&base_offset);
        drop(replacement);
        let bytes = bytes.ok_or_else(|| self.missing("replace", base_offset))?;
        self.with("replace", base_offset, |segment| *segment = MemorySegment { bytes, summary: None })
    }

    fn remove_segment(&mut self, base_offset: i64) -> Result<(), StorageError> {
        lock(&self.segments).remove(&base_offset);
        Ok(())
    }

    fn write_summary(&mut self, base_offset: i64, summary: &[u8]) -> Result<(), StorageError> {
        let space = check_space(&self.disk, "summarize", self.segment_name(base_offset));
        let summary = space.is_ok().then(|| Bytes::copy_from_slice(summary));
        self.with("summarize", base_offset, |segment| segment.summary = summary)?;
        space
    }

    fn read_summary(&self, base_offset: i64) -> Result<Option<Bytes>, StorageError> {
        self.with("read the summary of", base_offset, |segment| segment.summary.clone())
    }
}
