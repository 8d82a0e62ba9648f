//! Fetches: woken by an append, held back by `fetch.min.bytes`, ended at the end, refused out of range, never stuck on
//! a record larger than the fetch.

use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, bail};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::Message;

use crate::check::{Context, Outcome};
use crate::client::{self, Isolation, PATIENCE, expect_equal, expect_refused};

/// The next record; an end of partition is passed over.
fn next(consumer: &BaseConsumer) -> Result<(i64, Vec<u8>)> {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        match consumer.poll(Duration::from_millis(50)) {
            Some(Ok(record)) => return Ok((record.offset(), record.payload().unwrap_or_default().to_vec())),
            None | Some(Err(KafkaError::PartitionEOF(_))) => {}
            Some(Err(error)) => return Err(error.into()),
        }
    }
    bail!("no record within {PATIENCE:?}")
}

/// A consumer that has read the first record of partition 0 and waits at its end.
fn waiting_consumer(check: &Context, topic: &str, settings: &[(&str, &str)]) -> Result<BaseConsumer> {
    let consumer = check.clients.consumer(Isolation::Committed, settings)?;
    consumer.fetch_metadata(Some(topic), PATIENCE)?;
    consumer.assign(&client::offsets(topic, &[(0, 0)])?)?;
    next(&consumer)?;
    Ok(consumer)
}

pub fn woken(check: &Context) -> Outcome {
    let topic = check.numbers(1)?;
    let consumer = waiting_consumer(check, &topic, &[("fetch.wait.max.ms", "8000")])?;
    let sender = check.sender(&[])?;
    for number in 0..3 {
        // Long enough for the consumer's next fetch to wait at the broker.
        std::thread::sleep(Duration::from_millis(300));
        let started = Instant::now();
        sender.put(&topic, 0, &format!("late {number}"))?;
        let (offset, _) = next(&consumer)?;
        expect_equal("offset", number + 1, offset)?;
        let took = started.elapsed();
        if took > Duration::from_secs(3) {
            bail!("expected the append to wake the fetch, found the record after {took:?} of at most 8 s");
        }
    }
    Ok(())
}

pub fn minimum_bytes(check: &Context) -> Outcome {
    let topic = check.topic(1, &[])?;
    let sender = check.sender(&[])?;
    sender.put(&topic, 0, &"x".repeat(200_000))?;
    sender.flush()?;
    let settings = [("fetch.wait.max.ms", "2000"), ("fetch.min.bytes", "100000")];
    let consumer = waiting_consumer(check, &topic, &settings)?;
    std::thread::sleep(Duration::from_millis(200));
    let started = Instant::now();
    sender.put(&topic, 0, "small")?;
    next(&consumer)?;
    let took = started.elapsed();
    if !(Duration::from_millis(700)..Duration::from_secs(6)).contains(&took) {
        bail!("a small record: expected it once fetch.wait.max.ms (2 s) is over, found it after {took:?}");
    }
    std::thread::sleep(Duration::from_millis(200));
    let started = Instant::now();
    sender.put(&topic, 0, &"x".repeat(200_000))?;
    next(&consumer)?;
    let took = started.elapsed();
    if took > Duration::from_millis(1_500) {
        bail!("a record above fetch.min.bytes: expected it at once, found it after {took:?}");
    }
    Ok(())
}

pub fn out_of_range(check: &Context) -> Outcome {
    let topic = check.numbers(10)?;
    for (reset, expected) in [("earliest", 0), ("latest", 10)] {
        let consumer = check.clients.consumer(Isolation::Committed, &[("auto.offset.reset", reset)])?;
        consumer.fetch_metadata(Some(&topic), PATIENCE)?;
        consumer.assign(&client::offsets(&topic, &[(0, 1_000)])?)?;
        if reset == "latest" {
            let deadline = Instant::now() + PATIENCE;
            while !matches!(consumer.poll(Duration::from_millis(50)), Some(Err(KafkaError::PartitionEOF(0)))) {
                if Instant::now() > deadline {
                    bail!("no end of partition after a reset to the end");
                }
            }
            let sender = check.sender(&[])?;
            sender.put(&topic, 0, "after the reset")?;
            sender.flush()?;
        }
        let (offset, _) = next(&consumer)?;
        expect_equal(&format!("offset after a reset to {reset}"), expected, offset)?;
    }
    let consumer = check.clients.consumer(Isolation::Committed, &[])?;
    consumer.fetch_metadata(Some(&topic), PATIENCE)?;
    consumer.assign(&client::offsets(&topic, &[(0, 1_000)])?)?;
    expect_refused("a read beyond the end", next(&consumer), &[Code::AutoOffsetReset, Code::OffsetOutOfRange])
}

pub fn many_partitions(check: &Context) -> Outcome {
    let topic = check.topic(20, &[])?;
    let sender = check.sender(&[])?;
    for partition in 0..20 {
        sender.put_numbers(&topic, partition, 0, 1_000)?;
    }
    sender.flush()?;
    let settings = [("max.partition.fetch.bytes", "2000"), ("fetch.max.bytes", "10000"), ("message.max.bytes", "1000")];
    let records = check.clients.read_with(&topic, Isolation::Committed, &settings)?;
    expect_equal("records", 20_000, records.len())?;
    let mut next = [0i64; 20];
    for record in &records {
        let slot = next.get_mut(usize::try_from(record.partition())?).ok_or_else(|| anyhow!("a 21st partition"))?;
        expect_equal("the next offset of its partition", *slot, record.offset())?;
        *slot += 1;
    }
    Ok(())
}

pub fn larger_than_fetch(check: &Context) -> Outcome {
    let topic = check.topic(1, &[])?;
    let sender = check.sender(&[])?;
    for _ in 0..3 {
        sender.put(&topic, 0, &"x".repeat(500_000))?;
        sender.flush()?;
    }
    let settings = [("max.partition.fetch.bytes", "1000"), ("fetch.max.bytes", "1000"), ("message.max.bytes", "1000")];
    let records = check.clients.read_with(&topic, Isolation::Committed, &settings)?;
    expect_equal("records", 3, records.len())
}

pub fn from_the_middle(check: &Context) -> Outcome {
    let topic = check.topic(1, &[])?;
    let sender = check.sender(&[("compression.type", "lz4"), ("linger.ms", "50")])?;
    sender.put_numbers(&topic, 0, 0, 1_000)?;
    sender.flush()?;
    let consumer = check.clients.consumer(Isolation::Committed, &[])?;
    consumer.fetch_metadata(Some(&topic), PATIENCE)?;
    for start in [0, 1, 499, 999] {
        // Inside a batch the client drops what comes before the offset that it asked for.
        consumer.assign(&client::offsets(&topic, &[(0, start)])?)?;
        expect_equal("first record", (start, start.to_string().into_bytes()), next(&consumer)?)?;
    }
    Ok(())
}
