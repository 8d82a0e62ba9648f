//! What a broker removes by itself: by age, by size, by key. What stays keeps its offset.

use std::collections::HashMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use rdkafka::message::{Message, OwnedMessage};
use rdkafka::producer::BaseRecord;

use crate::check::{Context, Outcome};
use crate::client::{Isolation, Sender, expect_equal, wait_until};

/// How long the broker's cleaner may take to come round.
const CLEANER: Duration = Duration::from_secs(25);

/// Settings that make the cleaner take what it can get.
const EAGER: [(&str, &str); 3] =
    [("segment.bytes", "1048576"), ("segment.ms", "100"), ("min.cleanable.dirty.ratio", "0.001")];

fn eager(more: &[(&'static str, &'static str)]) -> Vec<(&'static str, &'static str)> {
    [&EAGER, more].concat()
}

fn now_ms() -> Result<i64> {
    Ok(i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis())?)
}

fn wait_for_start(check: &Context, topic: &str, fits: impl Fn(i64) -> bool) -> Outcome {
    wait_until("the log start", CLEANER, || {
        let (start, _) = check.clients.bounds(topic, 0, Isolation::Committed)?;
        Ok(if fits(start) { Ok(()) } else { Err(format!("{start}")) })
    })
}

pub fn retention_bytes(check: &Context) -> Outcome {
    let topic = check.topic(1, &[("segment.bytes", "1048576"), ("retention.bytes", "1500000")])?;
    let sender = check.sender(&[])?;
    for _ in 0..40 {
        sender.put(&topic, 0, &"x".repeat(200_000))?;
        sender.flush()?;
    }
    // Whole segments of about 5 records go, as long as what stays is not below the bound: 8 records or more.
    wait_for_start(check, &topic, |start| (27..=32).contains(&start))?;
    let (start, end) = check.clients.bounds(&topic, 0, Isolation::Committed)?;
    expect_equal("log end", 40, end)?;
    let offsets: Vec<i64> = check.clients.read(&topic, Isolation::Committed)?.iter().map(Message::offset).collect();
    expect_equal("offsets that stayed", (start..40).collect::<Vec<_>>(), offsets)
}

fn put_at(sender: &Sender, topic: &str, key: &str, value: Option<&str>, time: i64) -> Outcome {
    let record = BaseRecord::to(topic).partition(0).key(key.as_bytes()).timestamp(time);
    match value {
        Some(value) => sender.send(record.payload(value.as_bytes())),
        None => sender.send(record),
    }
}

pub fn retention_ms(check: &Context) -> Outcome {
    let topic = check.topic(1, &[("retention.ms", "600000"), ("segment.bytes", "1048576")])?;
    let sender = check.sender(&[])?;
    for _ in 0..100 {
        put_at(&sender, &topic, "k", Some("old"), now_ms()? - 3_600_000)?;
    }
    sender.flush()?;
    wait_for_start(check, &topic, |start| start == 100)?;
    put_at(&sender, &topic, "k", Some("new"), now_ms()?)?;
    sender.flush()?;
    std::thread::sleep(Duration::from_secs(1));
    let offsets: Vec<i64> = check.clients.read(&topic, Isolation::Committed)?.iter().map(Message::offset).collect();
    expect_equal("offsets that stayed", vec![100], offsets)
}

pub fn retention_off(check: &Context) -> Outcome {
    let topic = check.topic(1, &[("retention.ms", "-1"), ("segment.bytes", "1048576"), ("segment.ms", "100")])?;
    let sender = check.sender(&[])?;
    for _ in 0..20 {
        put_at(&sender, &topic, "k", Some(&"x".repeat(200_000)), 1_000)?;
        sender.flush()?;
    }
    std::thread::sleep(Duration::from_secs(2));
    expect_equal("bounds", (0, 20), check.clients.bounds(&topic, 0, Isolation::Committed)?)
}

/// The newest `(offset, value)` of each key.
fn newest(records: &[OwnedMessage]) -> HashMap<Vec<u8>, (i64, Option<Vec<u8>>)> {
    let entry = |record: &OwnedMessage| {
        let value = record.payload().map(<[u8]>::to_vec);
        (record.key().unwrap_or_default().to_vec(), (record.offset(), value))
    };
    records.iter().map(entry).collect()
}

/// Sends a filler now and then, since only what lies below the active segment is cleaned, until `done`.
fn fill_until(
    check: &Context,
    sender: &Sender,
    topic: &str,
    what: &str,
    done: impl Fn(&[OwnedMessage]) -> bool,
) -> Result<Vec<OwnedMessage>> {
    let mut records = Vec::new();
    wait_until(what, CLEANER, || {
        put_at(sender, topic, "filler", Some("x"), now_ms()?)?;
        sender.flush()?;
        std::thread::sleep(Duration::from_millis(250));
        records = check.clients.read(topic, Isolation::Committed)?;
        Ok(if done(&records) { Ok(()) } else { Err(format!("{} records", records.len())) })
    })?;
    Ok(records)
}

fn compacted(check: &Context, codec: &str) -> Outcome {
    let topic = check.topic(1, &eager(&[("cleanup.policy", "compact")]))?;
    let sender = check.sender(&[("compression.type", codec)])?;
    let mut expected: HashMap<Vec<u8>, (i64, Option<Vec<u8>>)> = HashMap::new();
    for number in 0..60_000i64 {
        let (key, value) = (format!("key {}", number % 100), format!("value {number}"));
        expected.insert(key.clone().into_bytes(), (number, Some(value.clone().into_bytes())));
        put_at(&sender, &topic, &key, Some(&value), now_ms()?)?;
    }
    sender.flush()?;
    let few = |records: &[OwnedMessage]| records.len() < 150;
    let records = fill_until(check, &sender, &topic, "60,000 records became about 100", few)?;
    let mut found = newest(&records);
    found.remove(b"filler".as_slice());
    expect_equal("keys", expected.len(), found.len())?;
    let differs = expected.iter().find(|(key, value)| found.get(*key) != Some(value));
    expect_equal("a key whose newest offset or value is another", None, differs)?;
    let offsets: Vec<i64> = records.iter().map(Message::offset).collect();
    expect_equal("offsets ascend", true, offsets.is_sorted())
}

pub fn compaction(check: &Context) -> Outcome {
    compacted(check, "none")
}

pub fn compaction_compressed(check: &Context) -> Outcome {
    for codec in ["gzip", "snappy", "lz4", "zstd"] {
        compacted(check, codec).with_context(|| format!("codec {codec}"))?;
    }
    Ok(())
}

pub fn tombstones(check: &Context) -> Outcome {
    let topic = check.topic(1, &eager(&[("cleanup.policy", "compact"), ("delete.retention.ms", "1500")]))?;
    let sender = check.sender(&[])?;
    for key in ["kept", "deleted"] {
        put_at(&sender, &topic, key, Some("value"), now_ms()?)?;
    }
    put_at(&sender, &topic, "deleted", None, now_ms()?)?;
    sender.flush()?;
    let has = |records: &[OwnedMessage], key: &str, tombstone: bool| {
        records.iter().any(|record| record.key() == Some(key.as_bytes()) && record.payload().is_none() == tombstone)
    };
    let records =
        fill_until(check, &sender, &topic, "the deleted value is gone", |records| !has(records, "deleted", false))?;
    expect_equal("the tombstone is kept for a while", true, has(&records, "deleted", true))?;
    let records =
        fill_until(check, &sender, &topic, "the tombstone is gone", |records| !has(records, "deleted", true))?;
    expect_equal("the other key", true, has(&records, "kept", false))
}

pub fn compact_and_delete(check: &Context) -> Outcome {
    let topic = check.topic(1, &eager(&[("cleanup.policy", "compact,delete"), ("retention.ms", "600000")]))?;
    let sender = check.sender(&[])?;
    for number in 0..100 {
        put_at(&sender, &topic, &format!("old {number}"), Some("x"), now_ms()? - 3_600_000)?;
    }
    sender.flush()?;
    let gone =
        |records: &[OwnedMessage]| records.iter().all(|record| !record.key().unwrap_or_default().starts_with(b"old"));
    fill_until(check, &sender, &topic, "old records are gone, whatever their key", gone)?;
    for number in 0..1_000 {
        put_at(&sender, &topic, "again and again", Some(&number.to_string()), now_ms()?)?;
    }
    sender.flush()?;
    let few = |records: &[OwnedMessage]| records.len() < 100;
    let records = fill_until(check, &sender, &topic, "new records are compacted", few)?;
    let value = newest(&records).get(b"again and again".as_slice()).and_then(|(_, value)| value.clone());
    expect_equal("the newest value", Some(b"999".to_vec()), value)
}

/// An aborted record is no newer value: the committed one before it stays.
pub fn aborted_in_compacted(check: &Context) -> Outcome {
    let topic = check.topic(1, &eager(&[("cleanup.policy", "compact")]))?;
    let sender = check.transactional()?;
    for (value, commit) in [("first", true), ("committed", true), ("aborted", false)] {
        sender.begin()?;
        put_at(&sender, &topic, "key", Some(value), now_ms()?)?;
        if commit { sender.commit()? } else { sender.abort()? }
    }
    check.clients.settle(&topic)?;
    let plain = check.sender(&[])?;
    let cleaned =
        |records: &[OwnedMessage]| !records.iter().any(|record| record.payload() == Some(b"first".as_slice()));
    let records = fill_until(check, &plain, &topic, "the first value is gone", cleaned)?;
    let value = newest(&records).get(b"key".as_slice()).and_then(|(_, value)| value.clone());
    expect_equal("the committed value", Some(b"committed".to_vec()), value)
}

/// What an open transaction wrote, and all that comes after it, is not compacted.
pub fn open_in_compacted(check: &Context) -> Outcome {
    let topic = check.topic(1, &eager(&[("cleanup.policy", "compact")]))?;
    let sender = check.transactional()?;
    sender.begin()?;
    put_at(&sender, &topic, "key", Some("open"), now_ms()?)?;
    sender.flush()?;
    let plain = check.sender(&[])?;
    for _ in 0..8 {
        put_at(&plain, &topic, "key", Some("later"), now_ms()?)?;
        plain.flush()?;
        std::thread::sleep(Duration::from_millis(250));
    }
    let all = check.clients.read(&topic, Isolation::Uncommitted)?;
    expect_equal("records while it is open", 9, all.len())?;
    sender.commit()?;
    check.clients.settle(&topic)?;
    let records = fill_until(check, &plain, &topic, "compacted after the commit", |records| {
        records.iter().filter(|record| record.key() == Some(b"key".as_slice())).count() == 1
    })?;
    let value = newest(&records).get(b"key".as_slice()).and_then(|(_, value)| value.clone());
    expect_equal("the newest value", Some(b"later".to_vec()), value)
}
