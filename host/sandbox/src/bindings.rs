//! The host's side of `wit/processor.wit`, made from the WIT itself, and the moves between its types and the engine's.
//! Columns change their type here without a copy of their bytes. Nothing here checks what a guest said.

use engine::columns::{Columns, NullableColumns};
use engine::record::{HeaderColumns, InputBatch, Outcome, OutputBatch, Refusal};
use engine::topology::TaskId;

mod generated {
    wasmtime::component::bindgen!({
        path: "../../wit",
        world: "module",
        imports: { default: trappable },
        require_store_data_send: true,
    });
}

pub(crate) use generated::sandbar::processor::{context, log, state, types};
pub(crate) use generated::{Module as Guest, ModuleIndices as GuestIndices};

impl From<types::Columns> for Columns {
    fn from(columns: types::Columns) -> Self {
        Self { bytes: columns.bytes, ends: columns.ends }
    }
}

impl From<Columns> for types::Columns {
    fn from(columns: Columns) -> Self {
        Self { bytes: columns.bytes, ends: columns.ends }
    }
}

impl From<types::NullableColumns> for NullableColumns {
    fn from(columns: types::NullableColumns) -> Self {
        Self { bytes: columns.bytes, ends: columns.ends, nulls: columns.nulls }
    }
}

impl From<NullableColumns> for types::NullableColumns {
    fn from(columns: NullableColumns) -> Self {
        Self { bytes: columns.bytes, ends: columns.ends, nulls: columns.nulls }
    }
}

impl From<types::Headers> for HeaderColumns {
    fn from(headers: types::Headers) -> Self {
        Self { counts: headers.counts, keys: headers.keys.into(), values: headers.values.into() }
    }
}

impl From<HeaderColumns> for types::Headers {
    fn from(headers: HeaderColumns) -> Self {
        Self { counts: headers.counts, keys: headers.keys.into(), values: headers.values.into() }
    }
}

impl From<InputBatch> for types::InputBatch {
    fn from(batch: InputBatch) -> Self {
        Self {
            topic: batch.topic.to_string(),
            // Kafka's partitions are not negative.
            partition: batch.partition.unsigned_abs(),
            base_offset: batch.base_offset,
            offset_deltas: batch.offset_deltas,
            timestamps: batch.timestamps,
            keys: batch.keys.into(),
            values: batch.values.into(),
            headers: batch.headers.into(),
        }
    }
}

impl From<types::OutputBatch> for OutputBatch {
    fn from(batch: types::OutputBatch) -> Self {
        Self {
            sinks: batch.sinks,
            partitions: batch.partitions,
            timestamps: batch.timestamps,
            keys: batch.keys.into(),
            values: batch.values.into(),
            headers: batch.headers.into(),
        }
    }
}

impl From<types::Outcome> for Outcome {
    fn from(outcome: types::Outcome) -> Self {
        let refused = outcome.refused.into_iter();
        Self {
            outputs: outcome.outputs.into(),
            refused: refused.map(|refusal| Refusal { index: refusal.index, reason: refusal.reason }).collect(),
        }
    }
}

impl From<TaskId> for types::TaskId {
    fn from(task: TaskId) -> Self {
        Self { sub_topology: task.sub_topology, partition: task.partition.unsigned_abs() }
    }
}
