//! A task's taking over of older rows: before it processes anything, the rows of each store whose schema has a new
//! version go from the older generation through the processor's `migrate` into the newer one, slice by slice, in
//! commits like any other. The older generation is never written, so that a migration which fails, or is given up,
//! has changed nothing; and as `migrate` is pure, a row that is taken twice is the same twice. How far it has come is
//! the last key of the newer generation. Nothing is processed before the end of it is committed.

use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};

use super::StreamTask;
use crate::columns::{Columns, NullableColumns};
use crate::error::{EngineError, MigrationError};
use crate::metrics::Metric;
use crate::processor::{Processor, ProcessorError};
use crate::query::Availability;
use crate::record::{Offset, Timestamp, TopicPartition};
use crate::state::{KeyRange, ReadView, StoreError, TaskStore};
use crate::task::record_queue::RecordQueue;
use crate::topology::TaskId;
use crate::topology::change::StoreMigration;
use crate::version::ProcessorVersion;

/// Rows of one call.
const ROWS_MAX: usize = 512;

/// What is left of a migration.
pub(super) struct Migration {
    /// An instance without `init`, which may read what is not there yet.
    processor: Box<dyn Processor>,
    steps: Vec<Step>,
    phase: Phase,
    rows: u64,
    /// A guess.
    rows_expected: u64,
    started_ms: u64,
}

/// The migration of one store.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Step {
    /// The places of both generations among the stores of the task.
    from: usize,
    to: usize,
    store: String,
    from_version: u32,
    to_version: u32,
}

/// Where a migration stands. `after` is the last key that is done with.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Phase {
    /// What an earlier attempt has left is removed.
    Clearing {
        step: usize,
        after: Option<Vec<u8>>,
    },
    Copying {
        step: usize,
        after: Option<Vec<u8>>,
    },
    /// The end is to be committed.
    Ending,
    /// It is.
    Ended,
}

/// How far the migration of a task is, for its report.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MigrationReport {
    pub rows: u64,
    /// How many there are, by a guess of the stores.
    pub rows_expected: u64,
}

/// How much a task may take over in one turn.
#[derive(Debug, Clone, Copy)]
pub struct MigrationSlice {
    /// The end of the turn (monotonic).
    pub until_ms: u64,
    /// Bytes that may wait for a commit.
    pub uncommitted_max_bytes: usize,
    pub wall_clock_ms: Timestamp,
}

impl StreamTask {
    /// Whether rows are being taken over: nothing is processed meanwhile.
    pub fn is_migrating(&self) -> bool {
        self.migration.is_some()
    }

    /// How far that is.
    pub fn migration_report(&self) -> Option<MigrationReport> {
        let migration = self.migration.as_ref()?;
        Some(MigrationReport { rows: migration.rows, rows_expected: migration.rows_expected.max(migration.rows) })
    }

    /// Whether the end of a migration only waits for its commit.
    pub fn awaits_migration_commit(&self) -> bool {
        self.migration.as_ref().is_some_and(|migration| migration.phase == Phase::Ending)
    }

    /// By store, the version of the schema of its rows where that is not 1, as a commit says it now.
    pub(super) fn schemas_to_commit(&self) -> BTreeMap<String, u32> {
        match &self.migration {
            Some(migration) if !matches!(migration.phase, Phase::Ending | Phase::Ended) => {
                // Those that are not migrated are what they were, and the others still are.
                self.committed_schemas.clone()
            }
            _ => self.own_schemas(),
        }
    }

    /// The version that is taking rows over, as a commit says it now.
    pub(super) fn migrating_to_commit(&self) -> Option<u64> {
        let is_copying = |migration: &&Migration| matches!(migration.phase, Phase::Copying { .. });
        self.migration.as_ref().filter(is_copying).map(|_| self.version.number)
    }

    fn own_schemas(&self) -> BTreeMap<String, u32> {
        let own = |store: &&TaskStore| store.spec().version != 1 && !store.spec().is_older_generation();
        let stores = self.stores().iter().filter(own);
        stores.map(|store| (store.spec().name.to_string(), store.spec().version)).collect()
    }

    /// Where a partition got the schemas that `schemas_to_commit` says, if it had others before, as a commit at
    /// `offset` says it.
    pub(super) fn schema_start(&self, partition: &TopicPartition, offset: Offset) -> Option<Offset> {
        match &self.migration {
            Some(migration) if matches!(migration.phase, Phase::Ending | Phase::Ended) => Some(offset),
            // Back at older rows, there is none.
            _ if self.schemas_to_commit() != self.committed_schemas => None,
            _ => self.schema_starts.get(partition).copied(),
        }
    }

    /// By store, the schema that its rows were taken from at `schema_start`.
    pub(super) fn schema_sources(&self) -> BTreeMap<String, u32> {
        match &self.migration {
            Some(migration) if matches!(migration.phase, Phase::Ending | Phase::Ended) => {
                migration.steps.iter().map(|step| (step.store.clone(), step.from_version)).collect()
            }
            // Back at older rows, there are none.
            _ if self.schemas_to_commit() != self.committed_schemas => BTreeMap::new(),
            _ => self.committed_schema_sources.clone(),
        }
    }

    /// A commit went through that said what `schemas_to_commit` and `migrating_to_commit` say.
    pub(super) fn schemas_committed(&mut self) {
        let starts = self.group.queues().iter().filter_map(|queue| {
            let start = self.schema_start(&queue.partition, queue.committed_offset()?)?;
            Some((queue.partition.clone(), start))
        });
        (self.schema_starts, self.committed_schema_sources) = (starts.collect(), self.schema_sources());
        self.is_schema_known = true;
        self.committed_schemas = self.schemas_to_commit();
        self.committed_migrating = self.migrating_to_commit();
        if let Some(migration) = &mut self.migration
            && migration.phase == Phase::Ending
        {
            migration.phase = Phase::Ended;
        }
    }

    /// Begins to take older rows over where there are any. True when there are.
    ///
    /// # Errors
    /// When the rows are of a schema that this version does not have, or when no instance can be made.
    pub(super) fn begin_migration(&mut self) -> Result<bool, EngineError> {
        let steps = self.plan_migration()?;
        if steps.is_empty() {
            return Ok(false);
        }
        let processor = self.version.processors.create(self.id).map_err(|error| self.not_started(error))?;
        let is_resumed = self.committed_migrating == Some(self.version.number);
        let phase = match is_resumed {
            true => Phase::Copying { step: 0, after: last_key(&mut self.stores_mut()[steps[0].to])? },
            false => Phase::Clearing { step: 0, after: None },
        };
        let rows_expected = steps.iter().map(|step| self.stores()[step.from].approximate_entries()).sum();
        for step in &steps {
            let (task, Step { store, from_version, to_version, .. }) = (self.id, step);
            tracing::info!(%task, store, from_version, to_version, is_resumed, rows_expected, "taking rows over");
        }
        let started_ms = self.options.clock.monotonic_ms();
        self.migration = Some(Migration { processor, steps, phase, rows: 0, rows_expected, started_ms });
        self.report_migration();
        Ok(true)
    }

    /// What is to be migrated, by what the group knows of the rows.
    fn plan_migration(&self) -> Result<Vec<Step>, EngineError> {
        let mut steps = Vec::new();
        if self.initial_commit {
            return Ok(steps);
        }
        let stores = self.stores();
        for (to, store) in stores.iter().enumerate() {
            let spec = store.spec();
            if !spec.has_generations() {
                continue;
            }
            let committed = self.committed_schemas.get(&*spec.name).copied();
            let found = committed.unwrap_or(1);
            // Offsets that somebody else has set do not say which schema the rows have: they may have been taken over
            // long ago.
            if !self.is_schema_known && spec.version > 1 && store.approximate_entries() > 0 {
                if self.options.config.accept_missing_offsets {
                    continue;
                }
                let (store, task, own) = (spec.name.to_string(), self.id, spec.version);
                return Err(EngineError::UnknownSchema { task, store, own });
            }
            if found > spec.version && !self.older_rows_are_current(&spec.name, spec.version) {
                let (store, task, own) = (spec.name.to_string(), self.id, spec.version);
                return Err(EngineError::NewerRows { task, store, found, own });
            }
            if found >= spec.version {
                continue;
            }
            let is_from = |older: &&TaskStore| {
                older.spec().older_generation_of.as_ref() == Some(&spec.name) && older.spec().version == found
            };
            match stores.iter().position(|older| is_from(&older)) {
                Some(from) => steps.push(Step {
                    from,
                    to,
                    store: spec.name.to_string(),
                    from_version: found,
                    to_version: spec.version,
                }),
                // One that the group has not heard of is new. The first schema is not named, but its changelog is.
                None if committed.is_none() && !self.committed_changelogs.contains_key(&*spec.name) => {}
                None => {
                    let (store, task, own) = (spec.name.to_string(), self.id, spec.version);
                    self.options.versions.miss_older_rows();
                    return Err(EngineError::OlderRows { task, store, found, own });
                }
            }
        }
        Ok(steps)
    }

    /// The task may have changed its rows, or told of them: the older ones are not what they were at these offsets any
    /// more, also where no offset has moved since.
    pub(super) fn rows_change(&mut self) {
        self.commit_needed = true;
        if !self.schema_starts.is_empty() {
            self.schema_starts.clear();
            self.version_unmarked = true;
        }
    }

    /// What the group has is read again.
    pub(super) fn forget_schemas(&mut self) {
        self.committed_schemas.clear();
        self.committed_schema_sources.clear();
        self.schema_starts.clear();
        self.committed_migrating = None;
        self.is_schema_known = false;
    }

    /// Whether a store's rows were taken from this schema, and nothing was processed since: these are what they were at
    /// these offsets then. Those of other schemas may be older still.
    fn older_rows_are_current(&self, store: &str, version: u32) -> bool {
        if self.committed_schema_sources.get(store) != Some(&version) {
            return false;
        }
        let at_start = |queue: &RecordQueue| self.schema_starts.get(&queue.partition) == Some(&queue.next_offset());
        self.group.queues().iter().all(at_start)
    }

    /// Takes rows over until the end of the slice. Returns how many.
    ///
    /// # Errors
    /// What `migrate` fails at, or the stores; what is not committed of it is to be dropped.
    pub fn migrate(&mut self, slice: MigrationSlice) -> Result<u64, EngineError> {
        let Some(mut migration) = self.migration.take() else { return Ok(0) };
        if self.options.versions.target_number() != self.version.number {
            self.migration = Some(migration);
            let reason = "another version was about to take over".to_owned();
            return Err(EngineError::PastProbation { task: self.id, version: self.version.number, reason });
        }
        let before = migration.rows;
        let result = self.migrate_slice(&mut migration, slice);
        let rows = migration.rows - before;
        self.options.metrics.add(Metric::RowsMigrated, rows);
        let has_ended = migration.phase == Phase::Ended;
        let (all, ms) = (migration.rows, self.options.clock.monotonic_ms().saturating_sub(migration.started_ms));
        self.migration = Some(migration);
        result?;
        if has_ended {
            // What fails here is tried again.
            self.start_processor(slice.wall_clock_ms).map_err(|error| self.not_started(error))?;
            self.migration = None;
            tracing::info!(task = %self.id, rows = all, ms, "rows are taken over");
            if self.stores().iter().any(TaskStore::is_dirty) {
                self.rows_change();
            }
            self.begin_serving();
        } else {
            self.report_migration();
        }
        Ok(rows)
    }

    fn migrate_slice(&mut self, migration: &mut Migration, slice: MigrationSlice) -> Result<(), EngineError> {
        while !matches!(migration.phase, Phase::Ending | Phase::Ended) {
            if self.uncommitted_bytes() > slice.uncommitted_max_bytes
                || self.options.clock.monotonic_ms() >= slice.until_ms
            {
                break;
            }
            migration.phase = match migration.phase.clone() {
                Phase::Clearing { step, after } => self.clear(migration, step, after)?,
                Phase::Copying { step, after } => self.copy(migration, step, after, slice.wall_clock_ms)?,
                ended => ended,
            };
            // Every commit of it names the offsets too: the group refuses those of a task that is somebody else's now.
            self.version_unmarked = true;
            self.commit_needed = true;
        }
        Ok(())
    }

    /// Removes some rows of a newer generation.
    fn clear(&mut self, migration: &Migration, step: usize, after: Option<Vec<u8>>) -> Result<Phase, EngineError> {
        let Some(&Step { to, .. }) = migration.steps.get(step) else {
            return Ok(Phase::Copying { step: 0, after: None });
        };
        let store = &mut self.stores_mut()[to];
        let lower = after.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        let page = store.range(KeyRange { lower, upper: Bound::Unbounded }, false, ROWS_MAX)?;
        for key in page.keys.iter() {
            store.put(key, None, 0);
        }
        Ok(match page.keys.iter().last() {
            Some(last) => Phase::Clearing { step, after: Some(last.to_vec()) },
            None => Phase::Clearing { step: step + 1, after: None },
        })
    }

    /// Takes some rows over.
    fn copy(
        &mut self,
        migration: &mut Migration,
        step: usize,
        after: Option<Vec<u8>>,
        wall_clock_ms: Timestamp,
    ) -> Result<Phase, EngineError> {
        let Some(current) = migration.steps.get(step).cloned() else { return Ok(Phase::Ending) };
        let max_bytes = self.options.config.batch_max_bytes;
        // All of it is committed, as nobody writes it.
        let view = self.stores()[current.from].read_view();
        let (keys, values) = rows_of_one_call(&*view, after.as_deref(), max_bytes)?;
        let Some(last) = keys.iter().last().map(<[u8]>::to_vec) else {
            let next = step + 1;
            let resumed = match migration.steps.get(next) {
                Some(step) => last_key(&mut self.stores_mut()[step.to])?,
                None => None,
            };
            return Ok(Phase::Copying { step: next, after: resumed });
        };
        let write_time = self.group.stream_time().unwrap_or(wall_clock_ms).max(0);
        let taken = migrated(&mut *migration.processor, &current.store, current.from_version, &keys, &values).and_then(
            |values| {
                let store = &mut self.stores_mut()[current.to];
                store.savepoint();
                for (key, value) in keys.iter().zip(values.iter()) {
                    // A row that is left out is not there.
                    if value.is_some() {
                        store.put(key, value, write_time);
                    }
                }
                let too_large = store.too_large();
                store.release();
                match too_large {
                    Some((bytes, max_bytes)) => Err(ProcessorError::Production {
                        fault: format!("a row of {bytes} bytes, where the changelog takes {max_bytes}"),
                        too_large: true,
                    }),
                    None => Ok(()),
                }
            },
        );
        if let Err(error) = taken {
            let migration = StoreMigration {
                store: current.store.as_str().into(),
                from: current.from_version,
                to: current.to_version,
            };
            return Err(migration_error(&self.version, &migration, self.id, &keys, error));
        }
        migration.rows += keys.len() as u64;
        Ok(Phase::Copying { step, after: Some(last) })
    }

    /// Tells queries that the newer generations are not whole.
    fn report_migration(&self) {
        let (Some(migration), Some(report)) = (&self.migration, self.migration_report()) else { return };
        for step in &migration.steps {
            if let Some(registration) = self.registrations.get(step.to) {
                let position = i64::try_from(report.rows).unwrap_or(i64::MAX);
                let target = i64::try_from(report.rows_expected.max(report.rows + 1)).unwrap_or(i64::MAX);
                self.options.queries.set_availability(registration.id, Availability::Restoring { position, target });
            }
        }
    }
}

/// The answer of `migrate`, one for each row.
///
/// # Errors
/// What it fails at, or that it has another number of answers.
pub(crate) fn migrated(
    processor: &mut dyn Processor,
    store: &str,
    from_version: u32,
    keys: &Columns,
    values: &Columns,
) -> Result<NullableColumns, ProcessorError> {
    let migrated = processor.migrate(store, from_version, keys, values)?;
    if migrated.len() != keys.len() {
        let (found, wanted) = (migrated.len(), keys.len());
        return Err(ProcessorError::Output(format!("migrate answers with {found} values for {wanted} rows")));
    }
    Ok(migrated)
}

/// What is told of rows that were not taken over.
pub(crate) fn migration_error(
    version: &ProcessorVersion,
    migration: &StoreMigration,
    task: TaskId,
    keys: &Columns,
    error: ProcessorError,
) -> EngineError {
    let shown = |key: &[u8]| String::from_utf8_lossy(key).chars().take(64).collect();
    let failed = MigrationError {
        task,
        version: version.number,
        store: migration.store.to_string(),
        from_version: migration.from,
        to_version: migration.to,
        first_key: shown(keys.iter().next().unwrap_or_default()),
        last_key: shown(keys.iter().last().unwrap_or_default()),
        rows: keys.len(),
        digest: version.processors.digest().to_owned(),
        error,
    };
    Box::new(failed).into()
}

/// The rows after a key that `migrate` is given at once: as many as have `max_bytes` together, at least one.
pub(crate) fn rows_of_one_call(
    view: &dyn ReadView,
    after: Option<&[u8]>,
    max_bytes: usize,
) -> Result<(Columns, Columns), StoreError> {
    let (mut keys, mut values) = (Columns::default(), Columns::default());
    let lower = after.map_or(Bound::Unbounded, Bound::Excluded);
    view.scan(KeyRange { lower, upper: Bound::Unbounded }, false, &mut |key, value| {
        let bytes = keys.bytes.len() + values.bytes.len() + key.len() + value.len();
        if keys.len() >= ROWS_MAX || (!keys.is_empty() && bytes > max_bytes) {
            return ControlFlow::Break(());
        }
        keys.push(key);
        values.push(value);
        ControlFlow::Continue(())
    })?;
    Ok((keys, values))
}

fn last_key(store: &mut TaskStore) -> Result<Option<Vec<u8>>, StoreError> {
    let page = store.range(KeyRange::ALL, true, 1)?;
    Ok(page.keys.iter().next().map(<[u8]>::to_vec))
}
