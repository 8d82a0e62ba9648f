//! A try of a version's migrations on the rows that are there, before any task runs it: `migrate` is pure, so what it
//! can do with them now it can do then. What comes of it is thrown away.

use std::sync::Arc;

use super::ProcessorVersion;
use crate::columns::Columns;
use crate::error::EngineError;
use crate::processor::ProcessorError;
use crate::state::ReadView;
use crate::task::stream_task::{migrated, migration_error, rows_of_one_call};
use crate::topology::TaskId;
use crate::topology::change::StoreMigration;

/// Bytes of the rows of one call.
const BYTES_MAX: usize = 1 << 20;

/// The rows of a task that are to be taken over.
pub struct Rows {
    pub task: TaskId,
    pub store: Arc<str>,
    pub view: Arc<dyn ReadView>,
}

/// Tries each migration, without rows first and then on all rows of its store. Stops early, without a fault, once
/// `is_stopping`. Returns how many rows it has tried.
///
/// # Errors
/// The first rows that a migration fails at, or that cannot be read.
pub fn rehearse_migrations(
    version: &ProcessorVersion,
    migrations: &[StoreMigration],
    rows: &[Rows],
    is_stopping: &dyn Fn() -> bool,
) -> Result<u64, EngineError> {
    let mut tried = 0;
    for migration in migrations {
        let none = TaskId::default();
        call(version, migration, none, &Columns::default(), &Columns::default())?;
        for rows in rows.iter().filter(|rows| rows.store == migration.store) {
            let mut after: Option<Vec<u8>> = None;
            while !is_stopping() {
                let (keys, values) = rows_of_one_call(&*rows.view, after.as_deref(), BYTES_MAX)?;
                let Some(last) = keys.iter().last().map(<[u8]>::to_vec) else { break };
                call(version, migration, rows.task, &keys, &values)?;
                tried += keys.len() as u64;
                after = Some(last);
            }
        }
    }
    Ok(tried)
}

/// An instance for each call, as the limits of one are meant for a task and not for all of them.
fn call(
    version: &ProcessorVersion,
    migration: &StoreMigration,
    task: TaskId,
    keys: &Columns,
    values: &Columns,
) -> Result<(), EngineError> {
    let called = version
        .processors
        .create(task)
        .and_then(|mut processor| migrated(&mut *processor, &migration.store, migration.from, keys, values));
    called.map(|_| ()).map_err(|error: ProcessorError| migration_error(version, migration, task, keys, error))
}
