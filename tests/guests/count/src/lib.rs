//! Counts the records of each key in a store, as 8-byte big-endian numbers, and forwards every new count; records
//! without a key are skipped. What the engine's native `Count` does, so that the two can be compared.

use std::cell::Cell;
use std::collections::HashMap;

use sandbar::bindings::exports::sandbar::processor::processor::Guest;
use sandbar::bindings::sandbar::processor::state;
use sandbar::bindings::sandbar::processor::types::{
    Columns, InputBatch, NullableColumns, Outcome, OutputBatch, Sink, Source, StoreDeclaration, SubTopology, TaskId,
    Topology,
};

thread_local! {
    static STORE: Cell<u32> = const { Cell::new(0) };
}

struct Count;

impl Guest for Count {
    fn describe() -> Topology {
        let store = StoreDeclaration {
            name: "counts".to_owned(),
            kind: "key-value".to_owned(),
            key_format: "utf8".to_owned(),
            value_format: "i64".to_owned(),
            version: 1,
            options: Vec::new(),
        };
        let sub_topology = SubTopology {
            sources: vec![Source { name: "in".to_owned(), options: Vec::new() }],
            stores: vec![store],
            sinks: vec![Sink { name: "out".to_owned(), options: Vec::new() }],
        };
        Topology { sub_topologies: vec![sub_topology], options: Vec::new() }
    }

    fn init(_task: TaskId) -> Result<(), String> {
        STORE.set(state::open("counts")?);
        Ok(())
    }

    fn process(batch: InputBatch) -> Result<Outcome, String> {
        let mut outputs = OutputBatch::default();
        // The distinct keys of the batch, in the order of their first record.
        let mut keys = Columns::default();
        let mut slots: HashMap<&[u8], usize> = HashMap::new();
        let mut slot_of_record = Vec::with_capacity(batch.timestamps.len());
        for index in 0..batch.timestamps.len() {
            let Some(key) = item(&batch.keys, index) else { continue };
            let next = slots.len();
            let slot = *slots.entry(key).or_insert_with(|| {
                push(&mut keys, key);
                next
            });
            slot_of_record.push((index, slot));
        }
        let values = state::get_many(STORE.get(), &keys);
        let mut counts: Vec<i64> = (0..keys.ends.len()).map(|slot| number(item(&values, slot))).collect();
        for (index, slot) in slot_of_record {
            counts[slot] += 1;
            let key = item(&batch.keys, index).unwrap_or_default();
            outputs.keys.bytes.extend_from_slice(key);
            outputs.keys.ends.push(outputs.keys.bytes.len() as u32);
            outputs.values.bytes.extend_from_slice(&counts[slot].to_be_bytes());
            outputs.values.ends.push(outputs.values.bytes.len() as u32);
            outputs.timestamps.push(batch.timestamps[index].max(0));
        }
        let mut values = NullableColumns::default();
        for count in &counts {
            values.bytes.extend_from_slice(&count.to_be_bytes());
            values.ends.push(values.bytes.len() as u32);
        }
        state::put_many(STORE.get(), &keys, &values, &[]);
        Ok(Outcome { outputs, refused: Vec::new() })
    }

    fn punctuate(_schedule: u32, _time: i64) -> Result<Outcome, String> {
        Ok(Outcome::default())
    }
}

fn item(columns: &NullableColumns, index: usize) -> Option<&[u8]> {
    if !columns.nulls.is_empty() && columns.nulls.binary_search(&(index as u32)).is_ok() {
        return None;
    }
    let start = if index == 0 { 0 } else { columns.ends[index - 1] as usize };
    Some(&columns.bytes[start..columns.ends[index] as usize])
}

fn push(columns: &mut Columns, item: &[u8]) {
    columns.bytes.extend_from_slice(item);
    columns.ends.push(columns.bytes.len() as u32);
}

fn number(bytes: Option<&[u8]>) -> i64 {
    bytes.and_then(|bytes| bytes.try_into().ok()).map_or(0, i64::from_be_bytes)
}

sandbar::bindings::__export_module!(Count with_types_in sandbar::bindings);
