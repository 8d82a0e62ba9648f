//! Parts (a) and (b): the engine over the embedded broker's core, called directly, with a native processor and with
//! the same work in a module. The ratio of their CPU time is the sandbox tax. One stream thread, no network, no disk
//! but RocksDB's.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use broker::core::CoreOptions;
use broker::core::batch::build::NewRecord;
use broker::core::memory::MemoryStorage;
use broker::direct::{ClientOptions, DirectBroker, Faults};
use engine::broker::{ClientSupplier, NewTopic};
use engine::processor::ProcessorSupplier;
use engine::record::TopicPartition;
use engine::stream_thread::StreamsConfig;
use engine::testing::{Count, NativeSupplier, PassThrough};
use engine::topology::Topology;
use sandbox::{Limits, Runtime};

use crate::drive::{Drive, MachineClock, Stores};
use crate::measure::{Sample, measure};
use crate::workload::{INPUT, Input, OUTPUT, PARTITIONS, Work, input};

/// Where a processor runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    Native,
    Sandbox,
}

/// The folder of the built guests.
pub fn guests_dir() -> PathBuf {
    let default = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target/guests");
    std::env::var_os("SANDBAR_GUESTS").map_or_else(default, PathBuf::from)
}

/// The processors of a run.
pub fn processors(runtime: &Runtime, work: Work, place: Place) -> Result<Arc<dyn ProcessorSupplier>> {
    if place == Place::Native {
        return Ok(match work {
            Work::PassThrough => Arc::new(NativeSupplier::new(work.topology(), |_| PassThrough)),
            Work::Count(_) => Arc::new(NativeSupplier::new(work.topology(), |_| Count)),
        });
    }
    guest(runtime, work.guest(), work.topology())
}

/// The processors of a guest.
pub fn guest(runtime: &Runtime, name: &str, topology: Topology) -> Result<Arc<dyn ProcessorSupplier>> {
    let path = guests_dir().join(name).with_extension("wasm");
    let bytes =
        std::fs::read(&path).with_context(|| format!("read the guest {}: run `make guests` first", path.display()))?;
    let module = runtime.load(&bytes)?;
    Ok(module.supplier(Arc::new(topology), Limits::default()))
}

/// A broker with these topics and `records` records of input.
pub fn filled_broker(records: u64, topics: &[&str], input: impl Fn(u64) -> Input) -> Result<DirectBroker> {
    let storage = Arc::new(MemoryStorage::new());
    let broker = DirectBroker::open(CoreOptions::default(), storage, Arc::new(MachineClock::new()), Faults::none())?;
    let mut admin = broker.clients(ClientOptions::new("bench", "fill")).admin()?;
    for &name in topics {
        admin.create_topic(&NewTopic {
            name: name.to_owned(),
            partitions: PARTITIONS,
            replication_factor: 1,
            configs: std::collections::BTreeMap::new(),
        })?;
    }
    let mut waiting: Vec<Vec<Input>> = (0..PARTITIONS).map(|_| Vec::new()).collect();
    let flush = |partition: usize, inputs: &mut Vec<Input>| -> Result<()> {
        let records: Vec<NewRecord<'_>> = inputs
            .iter()
            .map(|input| NewRecord {
                timestamp: input.timestamp,
                key: Some(input.key.as_bytes()),
                value: Some(input.value.as_bytes()),
                headers: &[],
            })
            .collect();
        broker
            .append(&TopicPartition::new(INPUT, partition as i32), &records)
            .map_err(|refusal| anyhow::anyhow!("fill the input topic: {refusal}"))?;
        inputs.clear();
        Ok(())
    };
    for index in 0..records {
        let input = input(index);
        let partition = input.partition as usize;
        waiting[partition].push(input);
        if waiting[partition].len() == 500 {
            flush(partition, &mut waiting[partition])?;
        }
    }
    for (partition, inputs) in waiting.iter_mut().enumerate() {
        flush(partition, inputs)?;
    }
    Ok(broker)
}

/// One measured run.
pub fn run(runtime: &Runtime, work: Work, place: Place, batch: usize, records: u64) -> Result<Sample> {
    let broker = filled_broker(records, &[INPUT, OUTPUT], input)?;
    let application_id = "bench";
    let state_dir = std::env::temp_dir().join(format!("sandbar-bench-{}", std::process::id()));
    let drive = Drive {
        application_id: application_id.to_owned(),
        threads: 1,
        config: StreamsConfig { batch_max_records: batch, ..StreamsConfig::default() },
        clients: Arc::new(broker.clients(ClientOptions::new("bench", application_id))),
        processors: processors(runtime, work, place)?,
        stores: Arc::new(Stores::fresh(&state_dir, application_id)?),
        metrics: Arc::default(),
        records,
        limit: Duration::from_secs(300),
    };
    let prepared = drive.prepare()?;
    let sample = measure(|| prepared.run())?;
    std::fs::remove_dir_all(&state_dir).with_context(|| format!("remove {}", state_dir.display()))?;
    Ok(sample)
}
