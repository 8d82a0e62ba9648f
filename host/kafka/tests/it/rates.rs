//! Raw rates of the adapter, printed on demand: set `SANDBAR_RATES=<records>` and run with `--nocapture`. Never a
//! judgement: a timed test says more of the machine than of the code.

use std::time::{Duration, Instant};

use engine::broker::{ClientSupplier, ProducerRecord, SendError, StartOffset};
use engine::record::TopicPartition;

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
    let (Some(cluster), Ok(records)) = (Cluster::real(), std::env::var("SANDBAR_RATES")) else { return };
    let records: usize = records.parse().expect("a number");
    let partitions = 4;
    let (input, output) = (cluster.topic("rates-in", partitions), cluster.topic("rates-out", partitions));
    let clients = cluster.clients(&unique("rates"));
    let value = [b'x'; 90];

    let mut producer = clients.producer(0, None).expect("producer");
    let (started, cpu) = (Instant::now(), cpu_seconds());
    for i in 0..records {
        let key = (i as u64).to_be_bytes();
        let record = ProducerRecord {
            topic: &input,
            partition: Some((i % 4) as i32),
            timestamp: 1_700_000_000_000,
            key: Some(&key),
            value: Some(&value),
            headers: &[],
        };
        while let Err(error) = producer.send(record) {
            assert_eq!(error, SendError::QueueFull);
            producer.poll(Duration::from_millis(10)).expect("poll");
        }
    }
    producer.flush(PATIENCE).expect("flush");
    report("produce", records, started, cpu);

    for max_records in [500, 10_000] {
        let mut member = Member::join(&clients, 0, &input);
        member.start = StartOffset::At(0);
        member.consumer.subscribe(&[input.clone()]).expect("subscribe");
        member.poll_until_owned(4);
        let (started, cpu, mut seen) = (Instant::now(), cpu_seconds(), member.values.len());
        while seen < records {
            let polled = member.consumer.poll(Duration::from_millis(100), max_records).expect("poll");
            seen += polled.records.iter().map(|group| group.records.len()).sum::<usize>();
        }
        report(&format!("consume, at most {max_records} a poll"), records, started, cpu);
    }

    let mut member = Member::join(&clients, 0, &input);
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
                    topic: &output,
                    partition: Some(group.partition.partition),
                    timestamp: record.timestamp,
                    key: record.key.as_deref(),
                    value: record.value.as_deref(),
                    headers: &[],
                };
                while let Err(error) = producer.send(copy) {
                    assert_eq!(error, SendError::QueueFull);
                    producer.poll(Duration::from_millis(10)).expect("poll");
                }
            }
        }
        producer.poll(Duration::ZERO).expect("poll");
    }
    producer.flush(PATIENCE).expect("flush");
    report("consume -> produce", records, started, cpu);
}
