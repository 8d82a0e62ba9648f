//! Part (c): the same work on a real broker, beside a raw loop that consumes and produces through librdkafka without
//! an engine: the floor. Needs `SANDBAR_KAFKA_BOOTSTRAP`. CPU time is that of this process, librdkafka's threads
//! included, the broker's not.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, bail};
use engine::broker::{
    BrokerErrorKind, ClientSupplier, NewTopic, PartitionRecords, Producer, ProducerRecord, RebalanceEvent, SendError,
    StartOffset,
};
use engine::stream_thread::StreamsConfig;
use kafka::{KafkaClients, KafkaClientsConfig};
use sandbox::Runtime;

use crate::drive::{Drive, Stores};
use crate::measure::{Sample, measure};
use crate::sandbox_tax::{Place, processors};
use crate::workload::{INPUT, Input, OUTPUT, PARTITIONS, Work, input};

const LIMIT: Duration = Duration::from_secs(300);

/// The clients of a new application; every run has a group of its own, so that each reads the whole input.
pub fn clients(bootstrap: &str, application_id: &str) -> Result<Arc<KafkaClients>> {
    Ok(Arc::new(KafkaClients::new(KafkaClientsConfig::new(bootstrap, application_id))?))
}

pub fn send(producer: &mut dyn Producer, record: ProducerRecord<'_>) -> Result<()> {
    loop {
        match producer.send(record) {
            Ok(()) => return Ok(()),
            Err(SendError::QueueFull) => producer.poll(Duration::from_millis(10))?,
            Err(SendError::Failed(error)) => return Err(error.into()),
        }
    }
}

fn new_topic(name: &str) -> NewTopic {
    NewTopic { name: name.to_owned(), partitions: PARTITIONS, replication_factor: 1, configs: BTreeMap::new() }
}

/// Makes a topic that must not be there yet, and writes it.
pub fn fill_topic(bootstrap: &str, name: &str, inputs: impl Iterator<Item = Input>) -> Result<()> {
    let clients = clients(bootstrap, "bench-fill")?;
    match clients.admin()?.create_topic(&new_topic(name)) {
        Err(error) if error.kind == BrokerErrorKind::TopicExists => {
            bail!("the topic {name} exists already; run the benchmark on a fresh broker");
        }
        created => created?,
    }
    let topic: Arc<str> = name.into();
    let mut producer = clients.producer(0, None)?;
    for input in inputs {
        send(&mut *producer, input.record(&topic))?;
    }
    Ok(producer.flush(LIMIT)?)
}

/// Makes the topic that raw loops and engines write.
pub fn make_output(bootstrap: &str) -> Result<()> {
    match clients(bootstrap, "bench-fill")?.admin()?.create_topic(&new_topic(OUTPUT)) {
        Err(error) if error.kind != BrokerErrorKind::TopicExists => Err(error.into()),
        _ => Ok(()),
    }
}

/// Creates the topics and writes the input, once for all runs.
pub fn fill(bootstrap: &str, records: u64) -> Result<()> {
    make_output(bootstrap)?;
    fill_topic(bootstrap, INPUT, (0..records).map(input))
}

/// Reads the first `records` of the input as a group of its own, without an engine.
fn consume(
    bootstrap: &str,
    run: &str,
    records: u64,
    mut each: impl FnMut(&PartitionRecords) -> Result<()>,
) -> Result<u64> {
    let mut consumer = clients(bootstrap, run)?.consumer(0)?;
    consumer.subscribe(&[INPUT.into()])?;
    let (mut done, start) = (0, Instant::now());
    while done < records {
        if start.elapsed() > LIMIT {
            return Err(anyhow!("{done} of {records} records after {} s", LIMIT.as_secs()));
        }
        let polled = consumer.poll(Duration::from_millis(100), 1_000)?;
        for event in polled.events {
            match event {
                RebalanceEvent::Assigned(partitions) => {
                    let starts: Vec<_> =
                        partitions.into_iter().map(|partition| (partition, StartOffset::Earliest)).collect();
                    consumer.assign(&starts)?;
                }
                RebalanceEvent::Revoked(partitions) | RebalanceEvent::Lost(partitions) => {
                    consumer.unassign(&partitions)?;
                }
            }
        }
        for batch in &polled.records {
            each(batch)?;
            done += batch.records.len() as u64;
        }
    }
    consumer.close()?;
    Ok(done)
}

/// Consumes the input, one thread, and does nothing with it.
pub fn raw_consume(bootstrap: &str, run: &str, records: u64) -> Result<Sample> {
    measure(|| consume(bootstrap, run, records, |_| Ok(())))
}

/// Produces the input's records to the output, one thread; they are made before.
pub fn raw_produce(bootstrap: &str, run: &str, records: u64) -> Result<Sample> {
    let output: Arc<str> = OUTPUT.into();
    let mut producer = clients(bootstrap, run)?.producer(0, None)?;
    // Few enough to stay in memory, which is not what is measured.
    let inputs: Vec<Input> = (0..100_000).map(input).collect();
    measure(|| {
        for input in inputs.iter().cycle().take(usize::try_from(records)?) {
            send(&mut *producer, input.record(&output))?;
        }
        producer.flush(LIMIT)?;
        Ok(records)
    })
}

/// Consumes the input and produces it to the output, one thread, nothing between.
pub fn raw(bootstrap: &str, run: &str, records: u64) -> Result<Sample> {
    let output: Arc<str> = OUTPUT.into();
    let mut producer = clients(bootstrap, run)?.producer(0, None)?;
    measure(|| {
        let done = consume(bootstrap, run, records, |batch| {
            for record in &batch.records {
                let record = ProducerRecord {
                    topic: &output,
                    partition: Some(batch.partition.partition),
                    timestamp: record.timestamp,
                    key: record.key.as_deref(),
                    value: record.value.as_deref(),
                    headers: &[],
                };
                send(&mut *producer, record)?;
            }
            Ok(producer.poll(Duration::ZERO)?)
        })?;
        producer.flush(LIMIT)?;
        Ok(done)
    })
}

/// One measured run of the engine on the broker, with one stream thread.
pub fn run(
    runtime: &Runtime,
    bootstrap: &str,
    application_id: &str,
    work: Work,
    place: Place,
    config: StreamsConfig,
    records: u64,
) -> Result<Sample> {
    let state_dir = std::env::temp_dir().join(format!("sandbar-bench-{}", std::process::id()));
    let drive = Drive {
        application_id: application_id.to_owned(),
        threads: 1,
        config,
        clients: clients(bootstrap, application_id)?,
        processors: processors(runtime, work, place)?,
        stores: Arc::new(Stores::fresh(&state_dir, application_id)?),
        metrics: Arc::default(),
        records,
        limit: LIMIT,
    };
    let prepared = drive.prepare()?;
    let sample = measure(|| prepared.run())?;
    std::fs::remove_dir_all(&state_dir)?;
    Ok(sample)
}
