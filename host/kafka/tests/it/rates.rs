//! Raw rates of the adapter, printed on demand: set `SANDBAR_RATES=<records>` and run with `--nocapture`. Never a
//! judgement: a timed test says more of the machine than of the code.

use std::sync::Arc;
use std::time::{Duration, Instant};

use engine::broker::{ClientSupplier, Producer, ProducerRecord, SendError, StartOffset};
use engine::record::TopicPartition;
use kafka::KafkaClients;

use crate::cluster::{Cluster, Member, PATIENCE, unique};

/// CPU time of this process, user and system, in seconds.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after = stat.rsplit(')').next().unwrap_or_default();
    let ticks: f64 = after.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<f64>().ok()).sum();
    ticks / 100.0
}

fn report(what: &str, records: usize, started: Instant, cpu: f64) {
    let (wall, cpu) = (started.elapsed().as_secs_f64(), cpu_seconds() - cpu);
    eprintln!(
        "{what}: {:.0} k records/s, {:.2} us CPU a record ({records} records, {wall:.2} s)",
        records as f64 / wall / 1e3,
        cpu * 1e6 / records as f64
    );
}

#[test]
fn rates() {
    let Ok(records) = std::env::var("SANDBAR_RATES") else { return };
    let records: usize = records.parse().expect("a number");
    for (broker, cluster) in [("real Kafka", Cluster::real()), ("embedded broker", Some(Cluster::embedded()))] {
        if let Some(cluster) = cluster {
            eprintln!("{broker}");
            rates_on(&cluster, records);
        }
    }
}

fn rates_on(cluster: &Cluster, records: usize) {
    let partitions = 4;
    let (input, output) = (cluster.topic("rates-in", partitions), cluster.topic("rates-out", partitions));
    let clients = cluster.clients(&unique("rates"));
    let mut producer = clients.producer(0, None).expect("producer");
    produce(&mut *producer, &input, records);
    consume(&clients, &input, records);
    consume_and_produce(&clients, &mut *producer, &input, &output, records);
}

fn produce(producer: &mut dyn Producer, input: &Arc<str>, records: usize) {
    let value = [b'x'; 90];
    let (started, cpu) = (Instant::now(), cpu_seconds());
    for i in 0..records {
        let key = (i as u64).to_be_bytes();
        let record = ProducerRecord {
            topic: input,
            partition: Some((i % 4) as i32),
            timestamp: 1_700_000_000_000,
            key: Some(&key),
            value: Some(&value),
            headers: &[],
        };
        send(producer, record);
    }
    producer.flush(PATIENCE).expect("flush");
    report("produce", records, started, cpu);
}

fn send(producer: &mut dyn Producer, record: ProducerRecord<'_>) {
    while let Err(error) = producer.send(record) {
        assert_eq!(error, SendError::QueueFull);
        producer.poll(Duration::from_millis(10)).expect("poll");
    }
}

fn consume(clients: &KafkaClients, input: &Arc<str>, records: usize) {
    for max_records in [500, 10_000] {
        let mut member = Member::join(clients, 0, input);
        member.start = StartOffset::At(0);
        member.poll_until_owned(4);
        let (started, cpu, mut seen) = (Instant::now(), cpu_seconds(), member.values.len());
        while seen < records {
            let polled = member.consumer.poll(Duration::from_millis(100), max_records).expect("poll");
            seen += polled.records.iter().map(|group| group.records.len()).sum::<usize>();
        }
        report(&format!("consume, at most {max_records} a poll"), records, started, cpu);
    }
}

fn consume_and_produce(
    clients: &KafkaClients,
    producer: &mut dyn Producer,
    input: &Arc<str>,
    output: &Arc<str>,
    records: usize,
) {
    let mut member = Member::join(clients, 0, input);
    member.start = StartOffset::At(0);
    member.poll_until_owned(4);
    for partition in 0..4 {
        member.consumer.seek(&TopicPartition::new(input.clone(), partition), 0).expect("seek");
    }
    let (started, cpu, mut seen) = (Instant::now(), cpu_seconds(), 0);
    while seen < records {
        let polled = member.consumer.poll(Duration::from_millis(100), 1000).expect("poll");
        for group in polled.records {
            for record in group.records {
                seen += 1;
                let copy = ProducerRecord {
                    topic: output,
                    partition: Some(group.partition.partition),
                    timestamp: record.timestamp,
                    key: record.key.as_deref(),
                    value: record.value.as_deref(),
                    headers: &[],
                };
                send(producer, copy);
            }
        }
        producer.poll(Duration::ZERO).expect("poll");
    }
    producer.flush(PATIENCE).expect("flush");
    report("consume -> produce", records, started, cpu);
}
