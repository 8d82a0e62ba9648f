//! `Store`: a typed handle to a state store of the task. Reads come from the call's cache or the host, writes stay in
//! the cache until the call ends. A handle is a field of the processor and cheap to clone; it never keeps entries from
//! one call to the next.

use std::cell::{Cell, RefCell};
use std::marker::PhantomData;
use std::rc::Rc;

use crate::context::Shared;
use crate::host::Host;
use crate::{Error, Result, Serde};

mod cache;
mod entries;

use cache::StoreCache;
pub use entries::Entries;
use entries::Span;

/// A store with keys of `K` and values of `V`, ordered by the keys' bytes.
pub struct Store<K, V> {
    cell: Rc<StoreCell>,
    types: PhantomData<fn() -> (K, V)>,
}

/// What all handles to one store share.
pub(crate) struct StoreCell {
    name: Box<str>,
    prefetch: bool,
    /// The host's number for the store, known once `init` has opened it.
    id: Cell<Option<u32>>,
    cache: RefCell<StoreCache>,
    key: RefCell<Vec<u8>>,
    shared: Rc<Shared>,
}

impl StoreCell {
    pub(crate) fn new(name: &str, prefetch: bool, shared: Rc<Shared>) -> Self {
        Self {
            name: name.into(),
            prefetch,
            id: Cell::new(None),
            cache: RefCell::default(),
            key: RefCell::default(),
            shared,
        }
    }

    pub(crate) fn open(&self) -> Result<(), String> {
        self.id.set(Some(self.shared.host.open(&self.name)?));
        Ok(())
    }

    fn id(&self) -> u32 {
        // Store handles are only reachable through a processor, whose functions run after `open`.
        self.id.get().unwrap_or(u32::MAX)
    }

    fn with_cache<T>(&self, run: impl FnOnce(&mut StoreCache, &dyn Host, u32) -> T) -> T {
        run(&mut self.cache.borrow_mut(), &*self.shared.host, self.id())
    }

    pub(crate) fn prefetch<'k>(&self, keys: impl Iterator<Item = &'k [u8]>) {
        if self.prefetch {
            self.with_cache(|cache, host, id| cache.prefetch(host, id, keys));
        }
    }

    pub(crate) fn begin_record(&self) {
        let mut cache = self.cache.borrow_mut();
        if cache.is_over_limit() {
            cache.flush(&*self.shared.host, self.id());
            cache.clear();
        }
        cache.begin_record();
    }

    pub(crate) fn undo_record(&self) {
        self.cache.borrow_mut().undo_record();
    }

    pub(crate) fn flush(&self) {
        self.with_cache(|cache, host, id| {
            cache.flush(host, id);
            cache.clear();
        });
    }

    pub(crate) fn clear(&self) {
        self.cache.borrow_mut().clear();
    }

    fn error(&self, what: &str, error: Error) -> Error {
        Error::new(format_args!("{what} store {}: {error}", self.name))
    }

    /// Runs with the key's bytes in a buffer that is used again and again.
    fn with_key<K: Serde, T>(&self, key: &K::View, run: impl FnOnce(&[u8]) -> Result<T>) -> Result<T> {
        let mut buffer = self.key.take();
        buffer.clear();
        let result = match K::encode(key, &mut buffer) {
            Ok(true) => run(&buffer),
            Ok(false) => Err(self.error("a key for", Error::new("is null"))),
            Err(error) => Err(self.error("a key for", error)),
        };
        self.key.replace(buffer);
        result
    }
}

impl<K: Serde, V: Serde> Store<K, V> {
    pub(crate) fn new(cell: Rc<StoreCell>) -> Self {
        Self { cell, types: PhantomData }
    }

    /// The value of a key, writes of this and earlier records of the batch included. An error means that the stored
    /// bytes are not a `V`.
    pub fn get(&self, key: &K::View) -> Result<Option<V::Owned>> {
        self.cell.with_key::<K, _>(key, |key| {
            self.cell.with_cache(|cache, host, id| match cache.get(host, id, key) {
                None => Ok(None),
                Some(bytes) => {
                    V::decode_owned(Some(bytes)).map(Some).map_err(|error| self.cell.error("a value of", error))
                }
            })
        })
    }

    /// Writes a value with the timestamp of the running record. A null value deletes.
    pub fn put(&self, key: &K::View, value: &V::View) -> Result<()> {
        let timestamp = self.cell.shared.timestamp()?;
        self.cell.with_key::<K, _>(key, |key| {
            self.cell.with_cache(|cache, host, id| {
                cache
                    .put(key, timestamp, |buffer| V::encode(value, buffer))
                    .map_err(|error| self.cell.error("a value for", error))?;
                if cache.is_over_limit() && self.cell.shared.call_is_one_record() {
                    cache.flush(host, id);
                    cache.clear();
                }
                Ok(())
            })
        })
    }

    /// Deletes a key.
    pub fn delete(&self, key: &K::View) -> Result<()> {
        let timestamp = self.cell.shared.timestamp()?;
        self.cell
            .with_key::<K, _>(key, |key| self.cell.with_cache(|cache, _, _| cache.put(key, timestamp, |_| Ok(false))))
    }

    /// All entries, in byte order of the keys.
    pub fn all(&self) -> Entries<K, V> {
        Entries::new(self.cell.clone(), Span::Range { from: None, to: None })
    }

    /// The entries from one key to another, both included, `None` for no bound, in byte order of the keys.
    pub fn range(&self, from: Option<&K::View>, to: Option<&K::View>) -> Entries<K, V> {
        let bound = |key: Option<&K::View>| -> Result<Option<Vec<u8>>> {
            let Some(key) = key else { return Ok(None) };
            let mut bytes = Vec::new();
            if K::encode(key, &mut bytes)? { Ok(Some(bytes)) } else { Ok(None) }
        };
        let span = match (bound(from), bound(to)) {
            (Ok(from), Ok(to)) => Span::Range { from, to },
            (Err(error), _) | (_, Err(error)) => Span::Invalid(self.cell.error("a bound for", error).message().into()),
        };
        Entries::new(self.cell.clone(), span)
    }

    /// The entries whose key's bytes start with `prefix`.
    pub fn prefix(&self, prefix: impl AsRef<[u8]>) -> Entries<K, V> {
        Entries::new(self.cell.clone(), Span::Prefix(prefix.as_ref().to_vec()))
    }

    /// A guess at the number of entries, without the writes of the running batch.
    pub fn approximate_entries(&self) -> u64 {
        self.cell.shared.host.approximate_entries(self.cell.id())
    }

    /// The name in the topology.
    pub fn name(&self) -> &str {
        &self.cell.name
    }
}

impl<K, V> Clone for Store<K, V> {
    fn clone(&self) -> Self {
        Self { cell: self.cell.clone(), types: PhantomData }
    }
}

#[cfg(test)]
mod tests;
