//! A try of a version before any task runs it: an instance for each sub-topology, its `init`, and a batch without
//! records, on empty stores of its own. What comes of it is thrown away.

use std::sync::Arc;

use super::ProcessorVersion;
use crate::processor::{ProcessorContext, ProcessorError};
use crate::record::InputBatch;
use crate::state::memory::MemoryStoreProvider;
use crate::state::{StoreProvider, TaskStore};
use crate::topology::TaskId;

/// Tries a version.
///
/// # Errors
/// What an instance fails at.
pub fn warm_up(
    version: &ProcessorVersion,
    application_id: &Arc<str>,
    wall_clock_ms: i64,
) -> Result<(), ProcessorError> {
    let topology = Arc::clone(version.processors.topology());
    for (number, part) in (0..).zip(&topology.sub_topologies) {
        let task = TaskId { sub_topology: number, partition: 0 };
        let open = |spec| Ok(TaskStore::new(Clone::clone(spec), MemoryStoreProvider.open(task, spec)?, 0));
        let stores = part.stores.iter().map(open).collect::<Result<Vec<_>, ProcessorError>>()?;
        let mut context = ProcessorContext::new(task, Arc::clone(application_id), Arc::clone(&version.config), stores);
        let mut processor = version.processors.create(task)?;
        context.begin_call(None, wall_clock_ms, wall_clock_ms);
        let (mut context, started) = processor.init(context);
        started?;
        context.complete_call();
        for source in &part.sources {
            context.begin_call(None, wall_clock_ms, wall_clock_ms);
            let batch = InputBatch { topic: Arc::clone(&source.topic), ..InputBatch::default() };
            let (called, outcome) = processor.process(context, batch);
            context = called;
            outcome?;
            context.complete_call();
        }
    }
    Ok(())
}
