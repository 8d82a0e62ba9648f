//! Tables: topics that are served as read-only key-value stores, without a module. A table is a sub-topology of one
//! source and one store that the source topic itself backs, with a processor of its own: key to value, no value
//! deletes. It writes nothing to a broker but the group's offsets, and those only tell others how far it is.

use std::sync::Arc;

use crate::processor::{Processor, ProcessorContext, ProcessorError, ProcessorSupplier, ScheduleId};
use crate::record::{InputBatch, Outcome, Timestamp};
use crate::topology::{StoreBackend, StoreChangelog, StoreSpec, SubTopology, TaskId, TopicBinding, Topology};

/// One topic to serve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableSpec {
    /// The name under which it is queried.
    pub store: Arc<str>,
    pub topic: Arc<str>,
    pub backend: StoreBackend,
    /// How people see keys and values, as in `StoreSpec`.
    pub key_format: Arc<str>,
    pub value_format: Arc<str>,
}

impl TableSpec {
    fn sub_topology(&self) -> SubTopology {
        let store = StoreSpec {
            name: Arc::clone(&self.store),
            backend: self.backend,
            changelog: StoreChangelog::Source(Arc::clone(&self.topic)),
            version: 1,
            key_format: Arc::clone(&self.key_format),
            value_format: Arc::clone(&self.value_format),
            older_generation_of: None,
        };
        let source = TopicBinding { name: Arc::clone(&self.store), topic: Arc::clone(&self.topic) };
        SubTopology { sources: vec![source], stores: vec![store], sinks: Vec::new() }
    }
}

/// The topology of an application that serves these tables, each a sub-topology in their order.
pub fn topology(tables: &[TableSpec]) -> Topology {
    Topology { sub_topologies: tables.iter().map(TableSpec::sub_topology).collect(), ..Topology::default() }
}

/// Makes the processors of tables.
pub struct TableSupplier {
    topology: Arc<Topology>,
}

impl TableSupplier {
    pub fn new(topology: Arc<Topology>) -> Self {
        Self { topology }
    }
}

impl ProcessorSupplier for TableSupplier {
    fn topology(&self) -> &Arc<Topology> {
        &self.topology
    }

    fn digest(&self) -> &str {
        "table"
    }

    fn create(&self, _task: TaskId) -> Result<Box<dyn Processor>, ProcessorError> {
        Ok(Box::new(Table))
    }
}

/// Puts every record into the one store of its task. Records without a key are passed over; the task counts them.
#[derive(Debug, Clone, Copy)]
struct Table;

impl Processor for Table {
    fn init(&mut self, context: ProcessorContext) -> (ProcessorContext, Result<(), ProcessorError>) {
        (context, Ok(()))
    }

    fn process(
        &mut self,
        mut context: ProcessorContext,
        batch: InputBatch,
    ) -> (ProcessorContext, Result<Outcome, ProcessorError>) {
        let result = put_all(&mut context, &batch).map(|()| Outcome::default());
        (context, result)
    }

    fn punctuate(
        &mut self,
        context: ProcessorContext,
        _schedule: ScheduleId,
        _time: Timestamp,
    ) -> (ProcessorContext, Result<Outcome, ProcessorError>) {
        (context, Ok(Outcome::default()))
    }
}

fn put_all(context: &mut ProcessorContext, batch: &InputBatch) -> Result<(), ProcessorError> {
    let store = context.store_at(0)?;
    for (index, &timestamp) in batch.timestamps.iter().enumerate() {
        if let Some(key) = batch.keys.get(index) {
            context.put(store, key, batch.values.get(index), Some(timestamp))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
