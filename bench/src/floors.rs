//! What the parts cost that nobody can do without: librdkafka and RocksDB by themselves, and the engine with native
//! processors, one thread each, at-least-once. How far above them a pipeline is says where time can still be won.

use anyhow::{Context, Result};
use bytes::Bytes;
use engine::record::Offset;
use engine::state::{StateStore, StoreProvider, Write};
use engine::stream_thread::StreamsConfig;
use engine::topology::{StoreBackend, TaskId};
use sandbox::Runtime;

use crate::drive::Stores;
use crate::measure::{Sample, measure};
use crate::real_kafka;
use crate::sandbox_tax::Place;
use crate::workload::{Work, input};

/// Entries of a batch that is written to a store.
const BATCH: usize = 1_000;

/// A part and its runs.
pub struct Floor {
    pub name: String,
    pub samples: Vec<Sample>,
}

/// Measures all of them by turns, on the input that is there already.
pub fn run(runtime: &Runtime, bootstrap: &str, records: u64, rounds: u64) -> Result<Vec<Floor>> {
    real_kafka::make_output(bootstrap)?;
    let mut floors: Vec<Floor> = Vec::new();
    for round in 0..rounds {
        let mut add = |name: String, sample: Sample| match floors.iter_mut().find(|floor| floor.name == name) {
            Some(floor) => floor.samples.push(sample),
            None => floors.push(Floor { name, samples: vec![sample] }),
        };
        let run = |what: &str| format!("floor-{what}-{round}");
        add("librdkafka, consume".into(), real_kafka::raw_consume(bootstrap, &run("consume"), records)?);
        add("librdkafka, produce".into(), real_kafka::raw_produce(bootstrap, &run("produce"), records)?);
        add("librdkafka, consume and produce".into(), real_kafka::raw(bootstrap, &run("both"), records)?);
        add(format!("RocksDB, write {BATCH} counts a batch"), rocks_writes(records)?);
        for (index, work) in Work::ALL.into_iter().enumerate() {
            let (id, config) = (run(&format!("engine-{index}")), StreamsConfig::default());
            let sample = real_kafka::run(runtime, bootstrap, &id, work, Place::Native, config, records)?;
            add(format!("engine, native {work}"), sample);
        }
    }
    Ok(floors)
}

/// Counts of the input's keys, written as a commit writes them.
fn rocks_writes(records: u64) -> Result<Sample> {
    let folder = std::env::temp_dir().join(format!("sandbar-bench-floor-{}", std::process::id()));
    let stores = Stores::fresh(&folder, "floor")?;
    let topology = Work::Count(StoreBackend::Persistent).topology();
    let spec = topology.sub_topologies.iter().flat_map(|part| &part.stores).next().context("the count has a store")?;
    let mut store: Box<dyn StateStore> = stores.open(TaskId { sub_topology: 0, partition: 0 }, spec)?;
    let entry =
        |index: u64| -> Write { (Bytes::from(input(index).key), Some(Bytes::copy_from_slice(&index.to_be_bytes()))) };
    // Made before, since making them is not what is measured.
    let batches: Vec<Vec<Write>> =
        (0..100).map(|batch| (0..BATCH).map(|at| entry((batch * BATCH + at) as u64)).collect()).collect();
    let sample = measure(|| {
        let mut written = 0;
        for batch in batches.iter().cycle() {
            store.write(batch, Some(written as Offset))?;
            written += batch.len() as u64;
            if written >= records {
                break;
            }
        }
        store.flush()?;
        Ok(written)
    })?;
    drop(store);
    drop(stores);
    std::fs::remove_dir_all(&folder)?;
    Ok(sample)
}
