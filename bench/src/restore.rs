//! How fast a store is restored: the engine's own restore into RocksDB, beside a raw `read_committed` reader of the
//! same changelog that drops what it reads, by turns. The changelog is written by a transactional producer, once. Needs
//! `SANDBAR_KAFKA_BOOTSTRAP` of a fresh broker.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use engine::broker::{ClientSupplier, NewTopic, ProducerRecord};
use engine::record::TopicPartition;
use engine::stream_thread::{ProcessingGuarantee, StreamsConfig};
use engine::topology::{StoreBackend, changelog_topic};
use kafka::KafkaClients;
use sandbox::{Runtime, RuntimeConfig};

use crate::drive::{Drive, Stores};
use crate::measure::{self, Sample, measure, spread};
use crate::sandbox_tax::{Place, processors};
use crate::workload::{INPUT, OUTPUT, Work};
use crate::{cpu, rate, real_kafka, setting, show};

const APPLICATION: &str = "bench-restore";
const RECORDS_A_TRANSACTION: u64 = 10_000;
const LIMIT: Duration = Duration::from_secs(600);

/// The table.
pub fn run() -> Result<()> {
    let bootstrap = std::env::var("SANDBAR_KAFKA_BOOTSTRAP").context("needs SANDBAR_KAFKA_BOOTSTRAP")?;
    let rounds = setting("SANDBAR_BENCH_ROUNDS", 5)?;
    let records = setting("SANDBAR_BENCH_RESTORE_RECORDS", 5_000_000)?;
    let keys = setting("SANDBAR_BENCH_RESTORE_KEYS", 1_000_000)?;
    let runtime = Runtime::new(RuntimeConfig::default())?;
    println!("load {} at the start", measure::load_average()?);
    let clients = real_kafka::clients(&bootstrap, APPLICATION)?;
    let filled = Instant::now();
    fill(&clients, records, keys)?;
    println!("{records} records of {keys} keys written in {:.1} s\n", filled.elapsed().as_secs_f64());
    println!("## restore beside a raw read_committed reader, {rounds} rounds by turns, median (min–max)\n");
    let cases = [Into::Rocks, Into::RocksByBatches, Into::Memory];
    let (mut raw, mut restored) = (Vec::new(), [Vec::new(), Vec::new(), Vec::new()]);
    for _ in 0..rounds {
        raw.push(read(&clients, records)?);
        for (samples, into) in restored.iter_mut().zip(cases) {
            samples.push(restore(&runtime, &clients, into, records)?);
        }
    }
    println!("| what | k rec/s | CPU µs/rec | of the raw reader's rate |\n| --- | ---: | ---: | ---: |");
    println!("| raw reader | {} | {} | 1 |", show(rate(&raw), 0), show(cpu(&raw), 2));
    let names = ["restore into RocksDB", "the same by batches, without bulk loading", "restore into memory"];
    for (name, samples) in names.into_iter().zip(&restored) {
        let pairs = samples.iter().zip(&raw);
        let ratio = spread(pairs.map(|(one, raw)| one.records_per_second() / raw.records_per_second()));
        println!("| {name} | {} | {} | {} |", show(rate(samples), 0), show(cpu(samples), 2), show(ratio, 2));
    }
    println!("\nload {} at the end", measure::load_average()?);
    Ok(())
}

fn changelog() -> Arc<str> {
    changelog_topic(APPLICATION, "counts").into()
}

/// Keys in an order that looks random; each has a value of about 100 bytes.
fn fill(clients: &KafkaClients, records: u64, keys: u64) -> Result<()> {
    let configs = [("cleanup.policy", "compact"), ("message.timestamp.type", "CreateTime")];
    // In one segment, which is never compacted while it is written: every round reads the same.
    let configs = configs.into_iter().chain([("segment.bytes", "2000000000")]);
    let configs: std::collections::BTreeMap<_, _> = configs.map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
    let mut admin = clients.admin()?;
    for (name, configs) in [(INPUT, None), (OUTPUT, None), (&*changelog(), Some(configs))] {
        let configs = configs.unwrap_or_default();
        admin.create_topic(&NewTopic { name: name.to_owned(), partitions: 1, replication_factor: 1, configs })?;
    }
    let topic = changelog();
    let mut producer = clients.producer(0, Some("bench-restore-fill"))?;
    producer.init_transactions(LIMIT)?;
    for index in 0..records {
        if index % RECORDS_A_TRANSACTION == 0 {
            producer.begin_transaction()?;
        }
        let key = format!("k{:09}", index.wrapping_mul(0x9E37_79B9_7F4A_7C15) % keys);
        let value = format!("{index:0100}");
        let record = ProducerRecord {
            topic: &topic,
            partition: Some(0),
            timestamp: 1_357_020_000_000 + index as i64,
            key: Some(key.as_bytes()),
            value: Some(value.as_bytes()),
            headers: &[],
        };
        real_kafka::send(&mut *producer, record)?;
        if index % RECORDS_A_TRANSACTION == RECORDS_A_TRANSACTION - 1 || index + 1 == records {
            producer.flush(LIMIT)?;
            producer.commit_transaction(LIMIT)?;
        }
    }
    Ok(())
}

/// Reads the changelog to its end and drops it.
fn read(clients: &KafkaClients, records: u64) -> Result<Sample> {
    let partition = TopicPartition::new(changelog(), 0);
    let mut reader = clients.restore_consumer(0)?;
    measure(|| {
        let end = reader.watermarks(std::slice::from_ref(&partition))?[0].high;
        reader.assign(&partition, 0)?;
        let (mut read, started) = (0, Instant::now());
        while reader.position(&partition)? < Some(end) {
            ensure!(started.elapsed() < LIMIT, "{read} of {records} records read in {LIMIT:?}");
            for polled in reader.poll(Duration::from_millis(100), 2_000)? {
                read += polled.records.len() as u64;
            }
        }
        ensure!(read == records, "{read} of {records} records were there");
        Ok(read)
    })
}

/// Where the records go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Into {
    Rocks,
    RocksByBatches,
    Memory,
}

/// Lets the engine restore its store from nothing; ends when the task runs.
fn restore(runtime: &Runtime, clients: &Arc<KafkaClients>, into: Into, records: u64) -> Result<Sample> {
    let backend = if into == Into::Memory { StoreBackend::InMemory } else { StoreBackend::Persistent };
    let state_dir = std::env::temp_dir().join(format!("sandbar-bench-{}", std::process::id()));
    let clients: Arc<dyn ClientSupplier> = Arc::clone(clients) as Arc<dyn ClientSupplier>;
    let drive = Drive {
        application_id: APPLICATION.to_owned(),
        threads: 1,
        config: StreamsConfig {
            processing_guarantee: ProcessingGuarantee::AtLeastOnce,
            // Nothing was ever processed.
            accept_missing_offsets: true,
            ..StreamsConfig::default()
        },
        clients,
        processors: processors(runtime, Work::Count(backend), Place::Native)?,
        stores: Arc::new(Stores::fresh(&state_dir, APPLICATION)?.without_bulk_loading(into == Into::RocksByBatches)),
        metrics: Arc::default(),
        records: 0,
        limit: LIMIT,
    };
    let prepared = drive.prepare()?;
    let sample = prepared.restore()?;
    std::fs::remove_dir_all(&state_dir)?;
    ensure!(sample.records == records, "{} of {records} records were restored", sample.records);
    Ok(sample)
}

impl crate::drive::Prepared {
    /// Runs until every task is running; measures that, from the assignment on.
    fn restore(mut self) -> Result<Sample> {
        let [thread] = &mut self.threads[..] else { return Err(anyhow!("one thread is measured")) };
        // Joining the group and opening the stores are the same whatever there is to restore.
        let (started, mut first) = (Instant::now(), 0);
        while first == 0 && !self.progress[0].read().all_running() {
            first = thread.run_once()?.records_restored;
            ensure!(started.elapsed() < LIMIT, "nothing was restored in {LIMIT:?}");
        }
        let sample = measure(|| {
            let mut restored = first;
            while !self.progress[0].read().all_running() {
                restored += thread.run_once()?.records_restored;
                ensure!(started.elapsed() < LIMIT, "{restored} records restored in {LIMIT:?}");
            }
            Ok(restored)
        })?;
        thread.close(engine::stream_thread::CloseMode::Dirty)?;
        Ok(sample)
    }
}
