//! Declaring the topology: the handles a processor asks for are what the module declares to the host. Sink and store
//! numbers are positions in the order of declaration, which is the order of the fields.

use std::borrow::Borrow;
use std::rc::Rc;

use crate::bindings::sandbar::processor::types;
use crate::context::Shared;
use crate::migration::Migration;
use crate::sink::Sink;
use crate::store::{Store, StoreCell};
use crate::{Result, Serde};

/// Makes a processor with its handles. Written by [`#[sandbar::processor]`](macro@crate::processor); write it by hand
/// where names are computed.
pub trait Declare: Sized + 'static {
    /// Declares sources, stores and sinks, and keeps their handles. Nothing can be asked of the host yet.
    fn declare(declaration: &mut Declaration) -> Self;
}

/// Collects what a processor reads, keeps and writes.
pub struct Declaration {
    pub(crate) shared: Rc<Shared>,
    pub(crate) stores: Vec<Rc<StoreCell>>,
    pub(crate) topology: types::SubTopology,
    pub(crate) migrations: Vec<Migration>,
}

impl Declaration {
    pub(crate) fn new(shared: Rc<Shared>) -> Self {
        Self { shared, stores: Vec::new(), topology: types::SubTopology::default(), migrations: Vec::new() }
    }

    /// Adds a source. The manifest binds its name to a topic; without a binding the topic has this name.
    pub fn source(&mut self, name: &str) {
        self.topology.sources.push(types::Source { name: name.into(), options: Vec::new() });
    }

    /// Adds a sink. Bound like a source.
    pub fn sink(&mut self, name: &str) -> SinkBuilder<'_> {
        SinkBuilder { declaration: self, name: name.into() }
    }

    /// Adds a key-value store.
    pub fn store(&mut self, name: &str) -> StoreBuilder<'_> {
        StoreBuilder { declaration: self, name: name.into(), version: 1, prefetch: false }
    }

    /// Says how rows that version `from` of the store's schema has written, with values of `Old`, become rows of the
    /// version that is declared: `with` gets a row's key and its old value and gives the new one, or `None` to delete
    /// the row. It sees nothing else, and gives the same for the same row. An error ends the deploy and changes
    /// nothing.
    pub fn migrates<Old: Serde, K: Serde, V: Serde>(
        &mut self,
        store: &Store<K, V>,
        from: u32,
        with: impl for<'a> Fn(K::Item<'a>, Old::Item<'a>) -> Result<Option<V::Owned>> + 'static,
    ) where
        V::Owned: Borrow<V::View>,
    {
        self.migrations.push(Migration::new::<Old, K, V>(store.name(), from, with));
    }
}

/// A sink that is being declared.
#[must_use]
pub struct SinkBuilder<'a> {
    declaration: &'a mut Declaration,
    name: String,
}

impl SinkBuilder<'_> {
    /// The handle.
    pub fn build<K: Serde, V: Serde>(self) -> Sink<K, V> {
        let sinks = &mut self.declaration.topology.sinks;
        let index = sinks.len() as u32;
        sinks.push(types::Sink { name: self.name, options: Vec::new() });
        Sink::new(index, self.declaration.shared.clone())
    }
}

/// A store that is being declared.
#[must_use]
pub struct StoreBuilder<'a> {
    declaration: &'a mut Declaration,
    name: String,
    version: u32,
    prefetch: bool,
}

impl StoreBuilder<'_> {
    /// The version of the stored schema, 1 unless given. A deploy that raises it needs a migration from the version
    /// before, see [`Declaration::migrates`].
    pub fn version(mut self, version: u32) -> Self {
        self.version = version;
        self
    }

    /// Fetches the entries of all record keys of a batch by one call before the first record. For stores whose keys
    /// have the same bytes as the records' keys.
    pub fn prefetch_keys(mut self) -> Self {
        self.prefetch = true;
        self
    }

    /// The handle.
    pub fn build<K: Serde, V: Serde>(self) -> Store<K, V> {
        let Self { declaration, name, version, prefetch } = self;
        let cell = Rc::new(StoreCell::new(&name, prefetch, declaration.shared.clone()));
        declaration.topology.stores.push(types::StoreDeclaration {
            name,
            kind: "key-value".into(),
            key_format: K::FORMAT.into(),
            value_format: V::FORMAT.into(),
            version,
            options: Vec::new(),
        });
        declaration.stores.push(cell.clone());
        Store::new(cell)
    }
}
