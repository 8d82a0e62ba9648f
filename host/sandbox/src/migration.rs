//! The optional interface `migration`: whether a module exports it in the right shape, and one call of it. What comes
//! back is checked row by row before anybody sees it; the module sees its rows and nothing else.

use engine::columns::{Columns, ColumnsError, NullableColumns};
use engine::processor::ProcessorError;
use wasmtime::component::types::ComponentItem;
use wasmtime::component::{ComponentExportIndex, Func, InstancePre};
use wasmtime::{AsContext, Store};

use crate::bindings::types;
use crate::check::MIGRATION;
use crate::limits::Limits;
use crate::random::Seed;
use crate::task_state::TaskState;

/// Store, version, keys and values.
type Parameters<'a> = (&'a str, u32, &'a types::Columns, &'a types::Columns);
type Answer = (Result<types::NullableColumns, String>,);

/// Finds `migrate` in a module that exports the interface; the error names the function that is not there.
pub(crate) fn find(pre: &InstancePre<TaskState>) -> wasmtime::Result<Option<ComponentExportIndex>> {
    let component = pre.component();
    let Some(interface) = component.get_export_index(None, MIGRATION) else { return Ok(None) };
    match component.get_export(Some(&interface), "migrate") {
        Some((ComponentItem::ComponentFunc(_), index)) => Ok(Some(index)),
        _ => Err(wasmtime::format_err!("its interface {MIGRATION} has no function `migrate`")),
    }
}

/// Checks the parameters and the result of the function.
pub(crate) fn check(migrate: Func, store: impl AsContext) -> wasmtime::Result<()> {
    let typed = migrate.typed::<Parameters<'_>, Answer>(store);
    typed.map(drop).map_err(|error| error.context(format!("`migrate` of its interface {MIGRATION}")))
}

/// One call of `migrate`.
pub(crate) struct Migration<'a> {
    store: &'a str,
    from_version: u32,
    keys: types::Columns,
    values: types::Columns,
}

impl<'a> Migration<'a> {
    pub fn new(store: &'a str, from_version: u32, keys: &Columns, values: &Columns) -> Self {
        let (keys, values) = (keys.clone().into(), values.clone().into());
        Self { store, from_version, keys, values }
    }

    /// The same rows see the same randomness.
    pub fn seed(&self, seed: Seed) -> Seed {
        seed.bytes(self.store.as_bytes()).number(i64::from(self.from_version)).bytes(&self.keys.bytes)
    }

    /// Makes the call; a module without the function answers with an error of its own.
    pub fn call(
        &self,
        migrate: Option<Func>,
        store: &mut Store<TaskState>,
    ) -> wasmtime::Result<Result<types::NullableColumns, String>> {
        let Some(migrate) = migrate else { return Ok(Err(format!("the module does not export {MIGRATION}"))) };
        let migrate = migrate.typed::<Parameters<'_>, Answer>(&*store)?;
        let (answer,) = migrate.call(store, (self.store, self.from_version, &self.keys, &self.values))?;
        Ok(answer)
    }

    /// Checks the answer: well-formed, and a value or a null for each row.
    pub fn check(&self, values: types::NullableColumns, limits: &Limits) -> Result<NullableColumns, ProcessorError> {
        let values = NullableColumns::from(values);
        let (found, limit) = (values.bytes.len() as u64, limits.state_max_write_bytes);
        if found > limit {
            let (name, key) = ("migrated bytes", "processor.state.max.write.bytes");
            return Err(ProcessorError::Limit { name, key, limit, found });
        }
        let (expected, found) = (self.keys.ends.len(), values.len());
        let malformed = |error: ColumnsError| ProcessorError::Output(error.to_string());
        if found != expected {
            return Err(malformed(ColumnsError::Count { what: "one value per row", expected, found }));
        }
        values.validate().map_err(malformed)?;
        Ok(values)
    }

    /// Says which call it was, where the error has room for it.
    pub fn name(&self, error: ProcessorError) -> ProcessorError {
        let (store, version, rows) = (self.store, self.from_version, self.keys.ends.len());
        let named =
            |message: String| format!("migrate of {rows} rows of store {store} from version {version}: {message}");
        match error {
            ProcessorError::Returned(message) => ProcessorError::Returned(named(message)),
            ProcessorError::Trap { message, backtrace } => ProcessorError::Trap { message: named(message), backtrace },
            ProcessorError::Output(message) => ProcessorError::Output(named(message)),
            other => other,
        }
    }
}
