//! A store: one database with one column family. The first byte of a key tells metadata (0) from the user's keys (1),
//! so that data and changelog offset share a batch and a write buffer, and are written out together.

use std::ops::{Bound, ControlFlow};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use engine::record::Offset;
use engine::state::{KeyRange, ReadView, StateStore, StoreError, Visit, Write};
use engine::topology::{StoreSpec, TaskId};
use rocksdb::{
    ColumnFamilyDescriptor, DB, DBRawIterator, DEFAULT_COLUMN_FAMILY_NAME, ErrorKind, FlushOptions, ReadOptions,
    ReadTier, WriteBatch, WriteOptions,
};

use crate::bulk::Bulk;
use crate::error::StoreName;
use crate::open_stores::OpenStore;
use crate::options::SharedOptions;

pub(crate) const USER: u8 = 1;
const AFTER_USER: u8 = 2;
pub(crate) const CHANGELOG_OFFSET: &[u8] = b"\0changelog.offset";
const SCHEMA_VERSION: &[u8] = b"\0schema.version";
const METADATA_ENTRIES: u64 = 2;
/// No changelog offset is below 0.
const UNKNOWN: Offset = -1;

/// How long `open` waits for a query that still reads the same store, closed a moment ago.
const REOPEN_TIMEOUT: Duration = Duration::from_secs(5);

/// An open store.
pub(crate) struct RocksStore {
    /// While the store is loaded. Goes first: it waits for its thread.
    bulk: Option<Bulk>,
    /// Where a load makes its files.
    bulk_folder: PathBuf,
    // The only strong reference that lasts: views hold weak ones, so that closing the store closes the database.
    database: Arc<Database>,
    view: Arc<RocksView>,
    write_options: WriteOptions,
    /// Reused for the prefixed keys of a batch.
    key: Vec<u8>,
}

pub(crate) struct Database {
    /// Before the database, which they name nothing of: what may be read without the disk.
    in_memory: ReadOptions,
    /// What the database says, or `UNKNOWN` where it has to be asked. Never ahead of it.
    changelog_offset: AtomicI64,
    pub(crate) db: DB,
    // Declared after the database, and so given back after it was closed.
    _open: OpenStore,
    pub(crate) name: StoreName,
    // The cache and the write buffers must outlive the database.
    pub(crate) shared: Arc<SharedOptions>,
}

/// A view that fails, instead of reading, once the store is closed.
struct RocksView {
    database: Weak<Database>,
    name: StoreName,
}

impl RocksStore {
    /// The database, for a load's own tests.
    #[cfg(test)]
    pub(crate) fn database(&self) -> Arc<Database> {
        Arc::clone(&self.database)
    }

    /// A load makes its files in `bulk_folder`, which is on the same disk.
    pub fn open(
        path: &Path,
        bulk_folder: PathBuf,
        task: TaskId,
        store: &StoreSpec,
        shared: Arc<SharedOptions>,
    ) -> Result<Self, StoreError> {
        let name = StoreName { store: store.name.to_string(), task };
        std::fs::create_dir_all(path).map_err(|error| name.file_error("create its directory", &error))?;
        check_files(path, &name)?;
        let (db, open) = open_database(path, &name, &shared)?;
        let mut in_memory = ReadOptions::default();
        in_memory.set_read_tier(ReadTier::BlockCache);
        let changelog_offset = AtomicI64::new(UNKNOWN);
        let database = Database { in_memory, changelog_offset, db, _open: open, name: name.clone(), shared };
        let database = Arc::new(database);
        database.check_schema_version(path, store.version)?;
        let mut write_options = WriteOptions::default();
        write_options.disable_wal(true);
        let view = Arc::new(RocksView { database: Arc::downgrade(&database), name });
        Ok(Self { bulk: None, bulk_folder, database, view, write_options, key: Vec::new() })
    }
}

/// A database whose pointer to its manifest is gone would be created anew over its own tables: an empty store that
/// looks like a fresh one.
fn check_files(path: &Path, name: &StoreName) -> Result<(), StoreError> {
    if path.join("CURRENT").exists() {
        return Ok(());
    }
    let entries = std::fs::read_dir(path).map_err(|error| name.io("list its directory", error.to_string()))?;
    let table = entries.flatten().find(|entry| {
        let file = entry.file_name();
        let file = file.to_string_lossy();
        file.ends_with(".sst") || file.starts_with("MANIFEST-")
    });
    match table {
        Some(entry) => Err(name.corrupt(format!(
            "{} has no file CURRENT but {}",
            path.display(),
            entry.file_name().to_string_lossy()
        ))),
        None => Ok(()),
    }
}

fn open_database(path: &Path, name: &StoreName, shared: &SharedOptions) -> Result<(DB, OpenStore), StoreError> {
    let path =
        &path.canonicalize().map_err(|error| name.io("find its directory", format!("{}: {error}", path.display())))?;
    let Some(open) = OpenStore::enter(path, REOPEN_TIMEOUT) else {
        let detail = format!("a query has read it for {REOPEN_TIMEOUT:?} after it was closed");
        return Err(StoreError::Locked { path: path.display().to_string(), detail });
    };
    let family = ColumnFamilyDescriptor::new(DEFAULT_COLUMN_FAMILY_NAME, shared.database().clone());
    let db =
        DB::open_cf_descriptors(shared.database(), path, [family]).map_err(|error| name.open_error(path, &error))?;
    Ok((db, open))
}

impl Database {
    /// How many table files begin a merge.
    pub(crate) fn set_merge_trigger(&self, files: &str) -> Result<(), StoreError> {
        let options = [("level0_file_num_compaction_trigger", files)];
        self.db.set_options(&options).map_err(|error| self.name.error("set an option", &error))
    }

    fn check_schema_version(&self, path: &Path, version: u32) -> Result<(), StoreError> {
        let found = self.db.get_pinned(SCHEMA_VERSION).map_err(|error| self.name.error("read its version", &error))?;
        let Some(found) = found else {
            let mut write_options = WriteOptions::default();
            write_options.disable_wal(true);
            return self
                .db
                .put_opt(SCHEMA_VERSION, version.to_be_bytes(), &write_options)
                .map_err(|error| self.name.error("write its version", &error));
        };
        let found = <[u8; 4]>::try_from(&*found)
            .map(u32::from_be_bytes)
            .map_err(|_| self.name.corrupt(format!("its schema version has {} bytes instead of 4", found.len())))?;
        if found == version {
            return Ok(());
        }
        Err(StoreError::Foreign {
            path: path.display().to_string(),
            detail: format!(
                "holds version {found} of store {}, the module declares version {version}: deploy a module that \
                 declares version {found}, or give the application a new id",
                self.name.store
            ),
        })
    }

    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        let found = with_prefix(key, |key| self.db.get_pinned(key));
        match found {
            Ok(value) => Ok(value.map(|value| Bytes::copy_from_slice(&value))),
            Err(error) => Err(self.name.error("get", &error)),
        }
    }

    /// `None` where the disk would have to be read.
    fn get_in_memory(&self, key: &[u8]) -> Result<Option<Option<Bytes>>, StoreError> {
        match with_prefix(key, |key| self.db.get_pinned_opt(key, &self.in_memory)) {
            Ok(value) => Ok(Some(value.map(|value| Bytes::copy_from_slice(&value)))),
            Err(error) if error.kind() == ErrorKind::Incomplete => Ok(None),
            Err(error) => Err(self.name.error("get", &error)),
        }
    }

    fn get_many(&self, keys: &[&[u8]], found: &mut dyn FnMut(usize, Option<&[u8]>)) -> Result<(), StoreError> {
        let length: usize = keys.iter().map(|key| key.len() + 1).sum();
        let mut buffer = Vec::with_capacity(length);
        for key in keys {
            buffer.push(USER);
            buffer.extend_from_slice(key);
        }
        let mut rest = buffer.as_slice();
        let prefixed: Vec<&[u8]> = keys
            .iter()
            .map(|key| {
                let (key, tail) = rest.split_at(key.len() + 1);
                rest = tail;
                key
            })
            .collect();
        let sorted = prefixed.is_sorted();
        let Some(family) = self.db.cf_handle(DEFAULT_COLUMN_FAMILY_NAME) else {
            return Err(self.name.io("get many", "the default column family is not open"));
        };
        let values = self.db.batched_multi_get_cf(family, prefixed.iter().copied(), sorted);
        for (index, value) in values.into_iter().enumerate() {
            let value = value.map_err(|error| self.name.error("get many", &error))?;
            found(index, value.as_deref());
        }
        Ok(())
    }

    /// `fill_cache` is false for queries: the blocks of a long scan would push out those that processing needs.
    fn scan(
        &self,
        range: KeyRange<'_>,
        reverse: bool,
        fill_cache: bool,
        visit: &mut Visit<'_>,
    ) -> Result<(), StoreError> {
        let lower = match range.lower {
            Bound::Unbounded => vec![USER],
            Bound::Included(key) => prefixed(key),
            Bound::Excluded(key) => successor(key),
        };
        let upper = match range.upper {
            Bound::Unbounded => vec![AFTER_USER],
            Bound::Excluded(key) => prefixed(key),
            Bound::Included(key) => successor(key),
        };
        if lower >= upper {
            return Ok(());
        }
        let mut options = ReadOptions::default();
        options.set_iterate_lower_bound(lower);
        options.set_iterate_upper_bound(upper);
        options.fill_cache(fill_cache);
        let mut entries: DBRawIterator<'_> = self.db.raw_iterator_opt(options);
        if reverse {
            entries.seek_to_last()
        } else {
            entries.seek_to_first()
        }
        while let Some((key, value)) = entries.item() {
            let key = key.get(1..).unwrap_or_default();
            if visit(key, value) == ControlFlow::Break(()) {
                return Ok(());
            }
            if reverse { entries.prev() } else { entries.next() }
        }
        entries.status().map_err(|error| self.name.error("scan", &error))
    }

    /// Asked for by every query, so it is kept beside the database once it is known.
    fn changelog_offset(&self) -> Result<Option<Offset>, StoreError> {
        match self.changelog_offset.load(Ordering::Acquire) {
            UNKNOWN => {}
            known => return Ok(Some(known)),
        }
        let read = self.read_changelog_offset()?;
        if let Some(offset) = read {
            // Not over what was written meanwhile.
            let _ = self.changelog_offset.compare_exchange(UNKNOWN, offset, Ordering::AcqRel, Ordering::Relaxed);
        }
        Ok(read)
    }

    /// The database has another offset than before, or may have.
    pub(crate) fn set_changelog_offset(&self, offset: Option<Offset>) {
        self.changelog_offset.store(offset.unwrap_or(UNKNOWN), Ordering::Release);
    }

    fn read_changelog_offset(&self) -> Result<Option<Offset>, StoreError> {
        let found = self
            .db
            .get_pinned(CHANGELOG_OFFSET)
            .map_err(|error| self.name.error("read its changelog offset", &error))?;
        found
            .map(|bytes| {
                <[u8; 8]>::try_from(&*bytes).map(Offset::from_be_bytes).map_err(|_| {
                    self.name.corrupt(format!("its changelog offset has {} bytes instead of 8", bytes.len()))
                })
            })
            .transpose()
    }

    fn approximate_entries(&self) -> u64 {
        // An estimate that cannot be had is none.
        let keys = self.db.property_int_value("rocksdb.estimate-num-keys").ok().flatten().unwrap_or(0);
        keys.saturating_sub(METADATA_ENTRIES)
    }
}

fn prefixed(key: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(key.len() + 2);
    bytes.push(USER);
    bytes.extend_from_slice(key);
    bytes
}

/// The smallest key above `key`.
fn successor(key: &[u8]) -> Vec<u8> {
    let mut bytes = prefixed(key);
    bytes.push(0);
    bytes
}

/// Calls `read` with the stored form of a key; short ones need no allocation.
fn with_prefix<T>(key: &[u8], read: impl FnOnce(&[u8]) -> T) -> T {
    let mut short = [0; 64];
    match short.get_mut(..=key.len()) {
        Some(stored) => {
            if let Some((first, rest)) = stored.split_first_mut() {
                *first = USER;
                rest.copy_from_slice(key);
            }
            read(stored)
        }
        None => read(&prefixed(key)),
    }
}

impl StateStore for RocksStore {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.database.get(key)
    }

    fn get_many(&self, keys: &[&[u8]], found: &mut dyn FnMut(usize, Option<&[u8]>)) -> Result<(), StoreError> {
        self.database.get_many(keys, found)
    }

    fn scan(&self, range: KeyRange<'_>, reverse: bool, visit: &mut Visit<'_>) -> Result<(), StoreError> {
        self.database.scan(range, reverse, true, visit)
    }

    fn write(&mut self, writes: &[Write], changelog_offset: Option<Offset>) -> Result<(), StoreError> {
        if writes.is_empty() && changelog_offset.is_none() {
            return Ok(());
        }
        if let Some(bulk) = &mut self.bulk {
            return bulk.write(writes, changelog_offset);
        }
        let mut batch = WriteBatch::default();
        for (key, value) in writes {
            self.key.clear();
            self.key.push(USER);
            self.key.extend_from_slice(key);
            match value {
                Some(value) => batch.put(&self.key, value),
                None => batch.delete(&self.key),
            }
        }
        if let Some(offset) = changelog_offset {
            batch.put(CHANGELOG_OFFSET, offset.to_be_bytes());
        }
        self.database
            .db
            .write_opt(batch, &self.write_options)
            .map_err(|error| self.database.name.error("write", &error))?;
        if changelog_offset.is_some() {
            self.database.set_changelog_offset(changelog_offset);
        }
        // Whoever writes waits. The same batch may be written again where that fails.
        if self.database.shared.is_over_budget() { self.flush() } else { Ok(()) }
    }

    fn changelog_offset(&self) -> Result<Option<Offset>, StoreError> {
        match self.bulk.as_ref().and_then(Bulk::offset) {
            Some(offset) => Ok(Some(offset)),
            None => self.database.changelog_offset(),
        }
    }

    fn begin_bulk(&mut self) -> Result<(), StoreError> {
        if self.bulk.is_none() {
            // What comes later must not be older than what is in the write buffer.
            self.flush()?;
            self.bulk = Some(Bulk::begin(Arc::clone(&self.database), self.bulk_folder.clone())?);
        }
        Ok(())
    }

    fn end_bulk(&mut self) -> Result<(), StoreError> {
        if let Some(bulk) = &mut self.bulk {
            bulk.end()?;
            // The files brought their offsets with them. Not "unknown", which somebody who has read an older one could
            // fill.
            self.database.set_changelog_offset(self.database.read_changelog_offset()?);
            self.bulk = None;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), StoreError> {
        if let Some(bulk) = &mut self.bulk {
            bulk.write_out()?;
        }
        let mut options = FlushOptions::default();
        options.set_wait(true);
        self.database.db.flush_opt(&options).map_err(|error| self.database.name.error("flush", &error))
    }

    fn read_view(&self) -> Arc<dyn ReadView> {
        Arc::clone(&self.view) as Arc<dyn ReadView>
    }

    fn approximate_entries(&self) -> u64 {
        self.database.approximate_entries()
    }
}

impl RocksView {
    fn database(&self) -> Result<Arc<Database>, StoreError> {
        let closed = || StoreError::Closed { store: self.name.store.clone(), task: self.name.task };
        self.database.upgrade().ok_or_else(closed)
    }
}

impl ReadView for RocksView {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.database()?.get(key)
    }

    fn get_in_memory(&self, key: &[u8]) -> Result<Option<Option<Bytes>>, StoreError> {
        self.database()?.get_in_memory(key)
    }

    fn scan(&self, range: KeyRange<'_>, reverse: bool, visit: &mut Visit<'_>) -> Result<(), StoreError> {
        self.database()?.scan(range, reverse, false, visit)
    }

    fn changelog_offset(&self) -> Result<Option<Offset>, StoreError> {
        self.database()?.changelog_offset()
    }

    fn approximate_entries(&self) -> u64 {
        self.database().map_or(0, |database| database.approximate_entries())
    }
}
