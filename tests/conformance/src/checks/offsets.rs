//! Offsets: listed by kind and by time, committed with metadata, and log starts moved by DeleteRecords.

use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::RDKafkaErrorCode as Code;
use rdkafka::message::Message;
use rdkafka::producer::BaseRecord;
use rdkafka::{Offset, TopicPartitionList};

use crate::check::{Context, Outcome};
use crate::client::{self, Isolation, PATIENCE, expect_equal, expect_refused};
use crate::raw::OffsetSpec;

/// Records with the timestamps 1000, 2000, … of one partition.
fn timed(check: &Context, codec: &str, count: i64) -> Result<String> {
    let topic = check.topic(1, &[])?;
    let sender = check.sender(&[("compression.type", codec), ("linger.ms", "50")])?;
    for number in 1..=count {
        let value = format!("{number} {}", "compressible ".repeat(5));
        sender.send(BaseRecord::to(&topic).partition(0).payload(value.as_bytes()).timestamp(number * 1_000))?;
    }
    sender.flush()?;
    Ok(topic)
}

fn offset_for_time(consumer: &BaseConsumer, topic: &str, time: i64) -> Result<Offset> {
    let mut times = TopicPartitionList::new();
    times.add_partition_offset(topic, 0, Offset::Offset(time))?;
    let found = consumer.offsets_for_times(times, PATIENCE)?;
    let element = found.find_partition(topic, 0).ok_or_else(|| anyhow!("no answer for the partition"))?;
    element.error()?;
    Ok(element.offset())
}

fn times(check: &Context, codec: &str) -> Outcome {
    let topic = timed(check, codec, 100)?;
    let consumer = check.clients.consumer(Isolation::Committed, &[])?;
    for (time, offset) in [(0, 0), (1_000, 0), (1_001, 1), (50_000, 49), (50_500, 50), (100_000, 99)] {
        let found = offset_for_time(&consumer, &topic, time)?;
        expect_equal(&format!("offset for time {time}"), Offset::Offset(offset), found)?;
    }
    expect_equal("offset for a time after all", Offset::End, offset_for_time(&consumer, &topic, 100_001)?)
}

pub fn for_times(check: &Context) -> Outcome {
    times(check, "none")
}

pub fn for_times_compressed(check: &Context) -> Outcome {
    for codec in ["gzip", "snappy", "lz4", "zstd"] {
        times(check, codec).with_context(|| format!("codec {codec}"))?;
    }
    Ok(())
}

pub fn listed(check: &Context) -> Outcome {
    let topic = timed(check, "none", 3)?;
    let sender = check.sender(&[])?;
    sender.send(BaseRecord::to(&topic).partition(0).payload(b"older".as_slice()).timestamp(500))?;
    sender.flush()?;
    let transactional = check.transactional()?;
    transactional.begin()?;
    transactional.put(&topic, 0, "open")?;
    transactional.flush()?;
    let list = |spec, committed| check.clients.list_offset(&topic, 0, spec, committed);
    for committed in [Isolation::Uncommitted, Isolation::Committed] {
        expect_equal("earliest", 0, list(OffsetSpec::Earliest, committed)?.0)?;
    }
    expect_equal("latest, uncommitted", 5, list(OffsetSpec::Latest, Isolation::Uncommitted)?.0)?;
    expect_equal("latest, committed, a transaction open", 4, list(OffsetSpec::Latest, Isolation::Committed)?.0)?;
    transactional.commit()?;
    check.clients.settle(&topic)?;
    expect_equal("latest, committed, after the marker", 6, list(OffsetSpec::Latest, Isolation::Committed)?.0)
}

pub fn max_timestamp(check: &Context) -> Outcome {
    let list = |topic: &str| check.clients.list_offset(topic, 0, OffsetSpec::MaxTimestamp, Isolation::Uncommitted);
    for codec in ["none", "lz4"] {
        let topic = timed(check, codec, 3)?;
        let sender = check.sender(&[("compression.type", codec)])?;
        sender.send(BaseRecord::to(&topic).partition(0).payload(b"older".as_slice()).timestamp(500))?;
        sender.flush()?;
        expect_equal(&format!("offset and time of the newest, codec {codec}"), (2, 3_000), list(&topic)?)?;
    }
    let empty = check.topic(1, &[])?;
    expect_equal("newest of an empty partition", (-1, -1), list(&empty)?)
}

/// A consumer of a group that only commits.
fn committer(check: &Context, group: &str) -> Result<BaseConsumer> {
    check.clients.consumer(Isolation::Committed, &[("group.id", group)])
}

pub fn committed(check: &Context) -> Outcome {
    let topic = check.topic(2, &[])?;
    let group = check.name("group");
    let consumer = committer(check, &group)?;
    let list = client::offsets(&topic, &[(0, 17)])?;
    if let Some(mut element) = list.find_partition(&topic, 0) {
        element.set_metadata("what was done so far: a, b and ü");
    }
    consumer.commit(&list, CommitMode::Sync)?;
    let other = committer(check, &group)?;
    let found = other.committed_offsets(client::offsets(&topic, &[(0, -1001), (1, -1001)])?, PATIENCE)?;
    let first = found.find_partition(&topic, 0).ok_or_else(|| anyhow!("no answer for partition 0"))?;
    let second = found.find_partition(&topic, 1).ok_or_else(|| anyhow!("no answer for partition 1"))?;
    expect_equal("offset", Offset::Offset(17), first.offset())?;
    expect_equal("metadata", "what was done so far: a, b and ü", first.metadata())?;
    expect_equal("offset of a partition without", Offset::Invalid, second.offset())?;
    consumer.commit(&client::offsets(&topic, &[(0, 5)])?, CommitMode::Sync)?;
    expect_equal("offset after going back", vec![5, -1001], check.clients.committed(&group, &topic, 2)?)?;
    let missing = consumer.commit(&client::offsets(&check.name("missing"), &[(0, 5)])?, CommitMode::Sync);
    expect_refused("commit for no topic", missing.map_err(Into::into), &[Code::UnknownTopicOrPartition])
}

pub fn metadata_too_large(check: &Context) -> Outcome {
    let topic = check.topic(1, &[])?;
    let consumer = committer(check, &check.name("group"))?;
    let list = client::offsets(&topic, &[(0, 17)])?;
    if let Some(mut element) = list.find_partition(&topic, 0) {
        element.set_metadata("x".repeat(5_000));
    }
    let result = consumer.commit(&list, CommitMode::Sync).map_err(Into::into);
    expect_refused("metadata of 5,000 bytes", result, &[Code::OffsetMetadataTooLarge])
}

pub fn delete_records(check: &Context) -> Outcome {
    let topic = check.numbers(100)?;
    expect_equal("log start", vec![(0, 40)], check.clients.delete_records(&topic, &[(0, 40)])?)?;
    expect_equal("bounds", (40, 100), check.clients.bounds(&topic, 0, Isolation::Committed)?)?;
    let records = check.clients.read(&topic, Isolation::Committed)?;
    expect_equal("first offset", Some(40), records.first().map(Message::offset))?;
    expect_equal("records", 60, records.len())?;
    // Below the log start nothing changes.
    expect_equal("log start, again", vec![(0, 40)], check.clients.delete_records(&topic, &[(0, 10)])?)?;
    let beyond = check.clients.delete_records(&topic, &[(0, 101)]);
    expect_refused("delete beyond the end", beyond, &[Code::OffsetOutOfRange])?;
    expect_equal("log start, all", vec![(0, 100)], check.clients.delete_records(&topic, &[(0, -1)])?)?;
    expect_equal("bounds of all deleted", (100, 100), check.clients.bounds(&topic, 0, Isolation::Committed)?)?;
    let sender = check.sender(&[])?;
    sender.put(&topic, 0, "next")?;
    let offsets: Vec<i64> = sender.flush()?.iter().map(|delivery| delivery.offset).collect();
    expect_equal("offset of the next record", vec![100], offsets)
}

pub fn delete_records_of_compacted(check: &Context) -> Outcome {
    let topic = check.topic(1, &[("cleanup.policy", "compact")])?;
    let sender = check.sender(&[])?;
    sender.send(BaseRecord::to(&topic).partition(0).key(b"k".as_slice()).payload(b"v".as_slice()))?;
    sender.flush()?;
    let refused = check.clients.delete_records(&topic, &[(0, 1)]);
    expect_refused("delete records of a compacted topic", refused, &[Code::PolicyViolation])
}

/// A commit that carries the record's leader epoch makes the next consumer ask OffsetForLeaderEpoch whether the log
/// was truncated below it.
pub fn leader_epoch(check: &Context) -> Outcome {
    let topic = check.numbers(100)?;
    let group = check.name("group");
    let settings = [("group.id", group.as_str()), ("session.timeout.ms", "6000"), ("heartbeat.interval.ms", "500")];
    for expected in [0, 50] {
        let mut all = settings.to_vec();
        all.push(("auto.offset.reset", if expected == 0 { "earliest" } else { "error" }));
        let consumer = check.clients.consumer(Isolation::Committed, &all)?;
        consumer.subscribe(&[&topic])?;
        let deadline = std::time::Instant::now() + PATIENCE;
        let mut next = expected;
        while next < expected + 50 {
            if std::time::Instant::now() > deadline {
                anyhow::bail!("expected 50 records from {expected}, found those up to {next}");
            }
            match consumer.poll(Duration::from_millis(100)) {
                None => {}
                Some(Ok(record)) => {
                    expect_equal("offset", next, record.offset())?;
                    next += 1;
                    if next == expected + 50 {
                        consumer.commit_message(&record, CommitMode::Sync)?;
                    }
                }
                Some(Err(error)) => return Err(error.into()),
            }
        }
    }
    expect_equal("committed offset", vec![100], check.clients.committed(&group, &topic, 1)?)
}
