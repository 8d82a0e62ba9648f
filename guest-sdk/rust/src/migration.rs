//! Migrations: how rows that an older version of a module has stored become rows of this one. Each turns a row's key
//! and old value into its new value, and sees nothing else of the task.

use std::borrow::Borrow;

use crate::bindings::sandbar::processor::types::{Columns, NullableColumns};
use crate::serdes::excerpt;
use crate::{Error, Result, Serde};

/// A row's key and old value; appends the new one. `false` deletes the row.
type Row = Box<dyn Fn(&[u8], &[u8], &mut Vec<u8>) -> Result<bool>>;

/// The way of one store's rows from one older version of its schema.
pub(crate) struct Migration {
    pub(crate) store: Box<str>,
    pub(crate) from: u32,
    row: Row,
}

impl Migration {
    pub(crate) fn new<Old: Serde, K: Serde, V: Serde>(
        store: &str,
        from: u32,
        with: impl for<'a> Fn(K::Item<'a>, Old::Item<'a>) -> Result<Option<V::Owned>> + 'static,
    ) -> Self
    where
        V::Owned: Borrow<V::View>,
    {
        let row = move |key: &[u8], value: &[u8], new: &mut Vec<u8>| {
            let key = K::decode(Some(key)).map_err(|error| part("the key", error))?;
            let value = Old::decode(Some(value)).map_err(|error| part("the value", error))?;
            match with(key, value)? {
                Some(value) => V::encode(value.borrow(), new).map_err(|error| part("the new value", error)),
                None => Ok(false),
            }
        };
        Self { store: store.into(), from, row: Box::new(row) }
    }
}

/// The contract's `migrate`.
pub(crate) fn migrate(
    migrations: &[Migration],
    store: &str,
    from_version: u32,
    keys: &Columns,
    values: &Columns,
) -> Result<NullableColumns> {
    let fits = |migration: &&Migration| &*migration.store == store && migration.from == from_version;
    let migration = migrations.iter().find(fits).ok_or_else(|| unknown(migrations, store, from_version))?;
    let mut new = NullableColumns::with_capacity(keys.len(), values.bytes.len());
    for index in 0..keys.len() {
        let (key, value) = (keys.get(index), values.get(index));
        let is_kept = (migration.row)(key, value, &mut new.bytes)
            .map_err(|error| error.context(format_args!("store {store}: the row of key {}", excerpt(key))))?;
        new.close_item(is_kept);
    }
    Ok(new)
}

/// "the value is not …": one sentence of the part and its fault.
fn part(part: &str, error: Error) -> Error {
    Error::new(format_args!("{part} {error}"))
}

fn unknown(migrations: &[Migration], store: &str, from_version: u32) -> Error {
    let known = migrations.iter().map(|migration| format!("{} from version {}", migration.store, migration.from));
    let known: Vec<String> = known.collect();
    let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
    Error::new(format_args!("it has no migration of store {store} from version {from_version}; it has: {known}"))
}
