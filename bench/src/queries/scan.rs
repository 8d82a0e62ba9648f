//! Part (c): all entries of the store as lines, beside an iterator over the same entries in RocksDB by itself, in this
//! process.

use std::ops::{Bound, ControlFlow};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use e2e::http::{self, Client};
use engine::partitioner::partition_for_key;
use engine::record::Offset;
use engine::state::{KeyRange, ReadView, StateStore, StoreProvider, Write};
use engine::topology::{StoreBackend, TaskId};

use super::Plan;
use super::bed::{APPLICATION, Bed, LIMIT, PARTITIONS, STORE, key, value};
use crate::drive::Stores;
use crate::measure::{cpu_time, cpu_time_of, spread};
use crate::show;
use crate::workload::Work;

/// Entries of a batch that is written to a store.
const BATCH: u64 = 1_000;

/// One scan.
struct Scan {
    entries: u64,
    bytes: u64,
    wall: Duration,
    /// Of the process that read the store.
    cpu: Duration,
}

impl Scan {
    fn entries_per_second(&self) -> f64 {
        self.entries as f64 / self.wall.as_secs_f64()
    }
}

/// The table.
///
/// # Errors
/// When a scan does not have every entry.
pub fn run(plan: &Plan, bed: &Bed) -> Result<()> {
    let folder = bed.folder().join("raw");
    let raw_stores = RawStores::filled(&folder, plan.keys)?;
    let (mut lines, mut raw) = (Vec::new(), Vec::new());
    for _ in 0..plan.rounds {
        lines.push(of_host(bed, plan.keys)?);
        raw.push(raw_stores.scan(plan.keys)?);
    }
    println!("\n## (c) all {} entries, as lines and in RocksDB by itself\n", plan.keys);
    println!(
        "| what | k entries/s | MB/s | CPU µs/entry | of the iterator's rate |\n| --- | ---: | ---: | ---: | ---: |"
    );
    let ratio = spread(lines.iter().zip(&raw).map(|(one, raw)| one.entries_per_second() / raw.entries_per_second()));
    for (name, scans, ratio) in [("NDJSON of one host", &lines, ratio), ("iterator over RocksDB", &raw, None)] {
        let of = |figure: &dyn Fn(&Scan) -> f64| spread(scans.iter().map(figure));
        println!(
            "| {name} | {} | {} | {} | {} |",
            show(of(&|scan| scan.entries_per_second() / 1_000.0), 0),
            show(of(&|scan| scan.bytes as f64 / 1e6 / scan.wall.as_secs_f64()), 1),
            show(of(&|scan| scan.cpu.as_secs_f64() * 1e6 / scan.entries as f64), 2),
            show(ratio, 2)
        );
    }
    Ok(())
}

fn of_host(bed: &Bed, keys: u64) -> Result<Scan> {
    let path = format!("/v1/apps/{APPLICATION}/stores/{STORE}/entries?key_format=utf8&value_format=json");
    let request = http::request("GET", &path, &[("accept", "application/x-ndjson")], b"");
    let process = bed.process_id()?.to_string();
    let (cpu, started) = (cpu_time_of(&process)?, Instant::now());
    let (mut lines, mut bytes, mut end) = (0, 0, Vec::new());
    let head = Client::new(bed.address()?, LIMIT).stream(&request, |part| {
        lines += part.iter().filter(|&&byte| byte == b'\n').count() as u64;
        bytes += part.len() as u64;
        end.extend_from_slice(&part[part.len().saturating_sub(2_000)..]);
        end.drain(..end.len().saturating_sub(4_000));
    })?;
    let (wall, cpu) = (started.elapsed(), cpu_time_of(&process)?.saturating_sub(cpu));
    let end = String::from_utf8_lossy(&end);
    let last = end.lines().last().unwrap_or_default();
    let document: serde_json::Value = serde_json::from_str(last).unwrap_or_default();
    ensure!(head.status == 200 && document.get("end").is_some(), "the scan ended with {} {last}", head.status);
    let entries = lines - 1;
    ensure!(entries == keys, "{entries} of {keys} entries came");
    Ok(Scan { entries, bytes, wall, cpu })
}

/// The same entries, by partition.
struct RawStores {
    opened: Vec<Box<dyn StateStore>>,
    _stores: Stores,
}

impl RawStores {
    fn filled(folder: &std::path::Path, keys: u64) -> Result<Self> {
        let stores = Stores::fresh(folder, "raw")?;
        let topology = Work::Count(StoreBackend::Persistent).topology();
        let spec = topology.sub_topologies.iter().flat_map(|part| &part.stores).next().context("a store")?;
        let open = |partition| stores.open(TaskId { sub_topology: 0, partition }, spec);
        let mut opened: Vec<Box<dyn StateStore>> = (0..PARTITIONS).map(open).collect::<Result<_, _>>()?;
        let mut waiting: Vec<Vec<Write>> = opened.iter().map(|_| Vec::new()).collect();
        for number in 0..keys {
            let key = Bytes::from(key(number));
            let partition = usize::try_from(partition_for_key(&key, PARTITIONS))?;
            waiting[partition].push((key, Some(Bytes::from(value(number)))));
            if waiting[partition].len() as u64 == BATCH {
                opened[partition].write(&waiting[partition], Some(number as Offset))?;
                waiting[partition].clear();
            }
        }
        for (store, writes) in opened.iter_mut().zip(&waiting) {
            store.write(writes, Some(keys as Offset))?;
            store.flush()?;
        }
        Ok(Self { opened, _stores: stores })
    }

    /// The partitions one after the other, on one thread.
    fn scan(&self, keys: u64) -> Result<Scan> {
        let views: Vec<Arc<dyn ReadView>> = self.opened.iter().map(|store| store.read_view()).collect();
        let (cpu, started) = (cpu_time()?, Instant::now());
        let (mut entries, mut bytes) = (0, 0);
        let everything = KeyRange { lower: Bound::Unbounded, upper: Bound::Unbounded };
        for view in views {
            view.scan(everything, false, &mut |key, value| {
                entries += 1;
                bytes += (key.len() + value.len()) as u64;
                ControlFlow::Continue(())
            })?;
        }
        let (wall, cpu) = (started.elapsed(), cpu_time()?.saturating_sub(cpu));
        ensure!(entries == keys, "{entries} of {keys} entries are in the stores");
        Ok(Scan { entries, bytes, wall, cpu })
    }
}
