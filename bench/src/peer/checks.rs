//! That a run was right: its outputs are read whole and compared with what the input makes of them. Where updates are
//! merged only the last of each key is looked at.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::{Result, ensure};
use kafka::topics::ReadOptions;

use super::pipelines::{Kind, Pipeline};
use super::processes::Side;
use crate::real_kafka;
use crate::workload::{KEYS, input_of, row};

const WINDOW_MS: i64 = 60_000;

type Key = Vec<u8>;

/// Reads the output of a run on the first `records` of its input; the number of outputs. Fewer than one for each record
/// are right only for the side that says it merges them.
pub fn check(bootstrap: &str, pipeline: &Pipeline, side: Side, output: &str, records: u64) -> Result<u64> {
    let mut found: HashMap<Key, (u64, Vec<u8>)> = HashMap::new();
    let clients = real_kafka::clients(bootstrap, "bench-check")?;
    let mut reader = clients.topic_reader(output, &ReadOptions::default())?;
    let mut outputs = 0;
    while !reader.is_done() {
        for record in reader.poll(Duration::from_millis(100), 10_000)? {
            outputs += 1;
            let entry = found.entry(record.key.as_deref().unwrap_or_default().to_vec()).or_default();
            entry.0 += 1;
            entry.1 = record.value.as_deref().unwrap_or_default().to_vec();
        }
    }
    let expected = expected(pipeline, records);
    let is_right = |key: &Key, (times, last): &(u64, Vec<u8>)| match found.get(key) {
        None => false,
        Some((_, value)) if value != last => false,
        Some((outputs, _)) => outputs == times || (side == Side::KafkaStreamsMerging && outputs < times),
    };
    let wrong = expected.iter().filter(|(key, entry)| !is_right(key, entry)).count();
    ensure!(
        wrong == 0 && found.len() == expected.len(),
        "{wrong} of {} keys in {output} are wrong, and {} were found",
        expected.len(),
        found.len()
    );
    Ok(outputs)
}

/// By the output's key: the number of records that make outputs of it, and the last one's value.
fn expected(pipeline: &Pipeline, records: u64) -> HashMap<Key, (u64, Vec<u8>)> {
    let mut expected: HashMap<Key, (u64, Vec<u8>)> = HashMap::new();
    let rows: HashMap<String, String> = if pipeline.kind == Kind::Join {
        (0..KEYS).map(row).map(|row| (row.key, row.value)).collect()
    } else {
        HashMap::new()
    };
    for index in 0..records {
        let input = input_of(pipeline.keys, index);
        let row = rows.get(&input.key).map_or("", String::as_str);
        let mut key = input.key.into_bytes();
        if pipeline.kind == Kind::Window {
            key.extend((input.timestamp - input.timestamp.rem_euclid(WINDOW_MS)).to_be_bytes());
        }
        let entry = expected.entry(key).or_default();
        entry.0 += 1;
        entry.1 = match pipeline.kind {
            Kind::Uppercase => input.value.to_ascii_uppercase().into_bytes(),
            Kind::Count | Kind::Window => entry.0.to_be_bytes().to_vec(),
            Kind::Join => format!("{}|{row}", input.value).into_bytes(),
        };
    }
    expected
}
