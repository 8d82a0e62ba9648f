//! Commands whose outcome breaks the contract, each in one way.

use sandbar::bindings::sandbar::processor::types::{Columns, Headers, NullableColumns, Outcome, OutputBatch, Refusal};

/// Two records, well formed.
fn good() -> OutputBatch {
    let column = || NullableColumns { bytes: b"abcd".to_vec(), ends: vec![2, 4], nulls: Vec::new() };
    OutputBatch { timestamps: vec![1, 2], keys: column(), values: column(), ..OutputBatch::default() }
}

pub fn run(command: &str) -> Option<Result<Outcome, String>> {
    let mut outputs = good();
    let mut refused = Vec::new();
    match command {
        "well-formed" => {}
        "ends-descending" => outputs.values.ends = vec![4, 2],
        "ends-short" => outputs.values.ends = vec![1, 3],
        "ends-beyond" => outputs.values.ends = vec![2, 1_000_000],
        "ends-huge" => outputs.keys.ends = vec![u32::MAX, u32::MAX],
        "nulls-beyond" => outputs.keys.nulls = vec![2],
        "nulls-disorder" => {
            outputs.keys = NullableColumns { bytes: Vec::new(), ends: vec![0, 0], nulls: vec![1, 0] };
        }
        "nulls-twice" => {
            outputs.keys = NullableColumns { bytes: Vec::new(), ends: vec![0, 0], nulls: vec![1, 1] };
        }
        "null-with-bytes" => outputs.keys.nulls = vec![1],
        "keys-missing" => outputs.keys = NullableColumns { bytes: b"ab".to_vec(), ends: vec![2], nulls: Vec::new() },
        "values-missing" => outputs.values = NullableColumns::default(),
        // Only the task knows its sinks and their partitions.
        "sink-undeclared" => outputs.sinks = vec![0, 7],
        "partition-beyond" => outputs.partitions = vec![99, -1],
        "partition-negative" => outputs.partitions = vec![-1, -2],
        "timestamp-negative" => outputs.timestamps = vec![1, -5],
        "timestamps-missing" => outputs.timestamps = Vec::new(),
        "sinks-missing" => outputs.sinks = vec![0],
        "partitions-missing" => outputs.partitions = vec![-1, -1, -1],
        "header-counts" => outputs.headers.counts = vec![1],
        "header-keys" => {
            let values = NullableColumns { bytes: Vec::new(), ends: vec![0], nulls: vec![0] };
            outputs.headers = Headers { counts: vec![1, 0], keys: Columns::default(), values };
        }
        "header-counts-huge" => outputs.headers.counts = vec![u32::MAX, u32::MAX],
        "refused-beyond" => refused.push(Refusal { index: 1, reason: "there is no such record".to_owned() }),
        "refused" => {
            outputs = OutputBatch::default();
            refused.push(Refusal { index: 0, reason: "not\u{7} today".to_owned() });
        }
        _ => return None,
    }
    Some(Ok(Outcome { outputs, refused }))
}
