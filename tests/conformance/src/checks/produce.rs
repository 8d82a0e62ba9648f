//! What a producer sends is what a consumer gets: all of it, in order, with headers, keys, nulls and timestamps, in
//! each codec, up to the topic's size.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, anyhow, bail};
use rdkafka::error::RDKafkaErrorCode as Code;
use rdkafka::message::{Headers, Message, OwnedMessage, Timestamp};
use rdkafka::producer::BaseRecord;

use crate::check::{Context, Outcome};
use crate::client::{self, Isolation, expect_equal, expect_refused};

pub fn many_records(check: &Context) -> Outcome {
    const RECORDS: usize = 300_000;
    let topic = check.topic(3, &[])?;
    // With more than one request under way, a producer without idempotence that repeats a refused one, because a new
    // partition has no leader yet, overtakes itself.
    let sender = check.sender(&[("linger.ms", "5"), ("max.in.flight.requests.per.connection", "1")])?;
    let filler = "x".repeat(90);
    for number in 0..RECORDS {
        sender.put(&topic, i32::try_from(number % 3)?, &format!("{number} {filler}"))?;
    }
    let deliveries = sender.flush()?;
    expect_equal("acknowledged", RECORDS, deliveries.len())?;
    let mut next = [0usize, 1, 2];
    for record in check.clients.read(&topic, Isolation::Committed)? {
        let slot = next.get_mut(usize::try_from(record.partition())?).ok_or_else(|| anyhow!("a fourth partition"))?;
        let value = String::from_utf8_lossy(record.payload().unwrap_or_default()).into_owned();
        expect_equal("the next value of its partition", Some(slot.to_string().as_str()), value.split(' ').next())?;
        *slot += 3;
    }
    expect_equal("every partition's end", [RECORDS, RECORDS + 1, RECORDS + 2], next)
}

pub fn contents(check: &Context) -> Outcome {
    let topic = check.topic(1, &[])?;
    let sender = check.sender(&[])?;
    let headers = client::headers(&[("a", Some(b"1")), ("a", Some(b"2")), ("null", None), ("", Some(b""))]);
    sender.send(
        BaseRecord::to(&topic).partition(0).key(b"key".as_slice()).payload(b"value".as_slice()).headers(headers),
    )?;
    sender.send(BaseRecord::to(&topic).partition(0).payload(b"no key".as_slice()))?;
    sender.send(BaseRecord::to(&topic).partition(0).key(b"no value".as_slice()))?;
    sender.send(BaseRecord::to(&topic).partition(0).key(b"".as_slice()).payload(b"".as_slice()))?;
    sender.flush()?;
    let records = check.clients.read(&topic, Isolation::Committed)?;
    let parts = |record: &OwnedMessage| (record.key().map(<[u8]>::to_vec), record.payload().map(<[u8]>::to_vec));
    let some = |text: &str| Some(text.as_bytes().to_vec());
    let expected =
        vec![(some("key"), some("value")), (None, some("no key")), (some("no value"), None), (some(""), some(""))];
    expect_equal("keys and values", expected, records.iter().map(parts).collect())?;
    let headers = records.first().and_then(Message::headers).ok_or_else(|| anyhow!("the headers are gone"))?;
    let found: Vec<(&str, Option<&[u8]>)> = headers.iter().map(|header| (header.key, header.value)).collect();
    let expected: Vec<(&str, Option<&[u8]>)> =
        vec![("a", Some(b"1")), ("a", Some(b"2")), ("null", None), ("", Some(b""))];
    expect_equal("headers", expected, found)
}

pub fn create_time(check: &Context) -> Outcome {
    let topic = check.topic(1, &[])?;
    let sender = check.sender(&[])?;
    let times = [1_000, 999, 1_700_000_000_000, 5];
    for time in times {
        sender.send(BaseRecord::to(&topic).partition(0).payload(b"x".as_slice()).timestamp(time))?;
    }
    sender.flush()?;
    let records = check.clients.read(&topic, Isolation::Committed)?;
    let found: Vec<Timestamp> = records.iter().map(Message::timestamp).collect();
    expect_equal("timestamps", times.map(Timestamp::CreateTime).to_vec(), found)
}

pub fn log_append_time(check: &Context) -> Outcome {
    let topic = check.topic(1, &[("message.timestamp.type", "LogAppendTime")])?;
    let before = now_ms()?;
    let sender = check.sender(&[("compression.type", "gzip")])?;
    for _ in 0..10 {
        sender.send(BaseRecord::to(&topic).partition(0).payload(b"x".as_slice()).timestamp(1_000))?;
    }
    sender.flush()?;
    let after = now_ms()?;
    let records = check.clients.read(&topic, Isolation::Committed)?;
    expect_equal("records", 10, records.len())?;
    for record in &records {
        match record.timestamp() {
            Timestamp::LogAppendTime(time) if (before - 5..=after + 5).contains(&time) => {}
            found => bail!("timestamp: expected LogAppendTime from {before} to {after}, found {found:?}"),
        }
    }
    Ok(())
}

pub fn future_timestamp(check: &Context) -> Outcome {
    let topic = check.topic(1, &[])?;
    let sender = check.sender(&[])?;
    let future = now_ms()? + Duration::from_secs(7_200).as_millis() as i64;
    sender.send(BaseRecord::to(&topic).partition(0).payload(b"x".as_slice()).timestamp(future))?;
    expect_refused("a record two hours ahead", sender.flush(), &[Code::InvalidTimestamp])
}

fn codec(check: &Context, codec: &str) -> Outcome {
    const RECORDS: usize = 5_000;
    let topic = check.topic(1, &[])?;
    let sender = check.sender(&[("compression.type", codec), ("linger.ms", "20")])?;
    let value = |number: usize| format!("{number} {}", "compressible ".repeat(10));
    for number in 0..RECORDS {
        sender.put(&topic, 0, &value(number))?;
    }
    sender.flush()?;
    let found = client::values(&check.clients.read(&topic, Isolation::Committed)?);
    expect_equal("records", RECORDS, found.len())?;
    let differs = found.iter().enumerate().find(|(number, found)| **found != value(*number));
    expect_equal("the first that differs", None, differs)
}

pub fn gzip(check: &Context) -> Outcome {
    codec(check, "gzip")
}

pub fn snappy(check: &Context) -> Outcome {
    codec(check, "snappy")
}

pub fn lz4(check: &Context) -> Outcome {
    codec(check, "lz4")
}

pub fn zstd(check: &Context) -> Outcome {
    codec(check, "zstd")
}

pub fn large_record(check: &Context) -> Outcome {
    const BYTES: usize = 8 * 1024 * 1024;
    let topic = check.topic(1, &[("max.message.bytes", "9000000")])?;
    let small = check.topic(1, &[])?;
    let sender = check.sender(&[("message.max.bytes", "20000000")])?;
    let value: Vec<u8> = (0..BYTES).map(|at| (at % 251) as u8).collect();
    sender.send(BaseRecord::to(&topic).partition(0).payload(value.as_slice()))?;
    sender.flush().context("8 MB where 9 MB may be")?;
    let records = check.clients.read(&topic, Isolation::Committed)?;
    expect_equal("records", 1, records.len())?;
    let same = records.first().and_then(Message::payload) == Some(value.as_slice());
    expect_equal("the value is the one sent", true, same)?;
    sender.send(BaseRecord::to(&small).partition(0).payload(value.as_slice()))?;
    expect_refused("8 MB where 1 MB may be", sender.flush(), &[Code::MessageSizeTooLarge])?;
    sender.send(BaseRecord::to(&topic).partition(0).payload(vec![0u8; 9_100_000].as_slice()))?;
    expect_refused("9.1 MB where 9 MB may be", sender.flush(), &[Code::MessageSizeTooLarge])?;
    sender.put(&small, 0, "small")?;
    sender.flush().map(drop)
}

pub fn key_on_compacted(check: &Context) -> Outcome {
    let topic = check.topic(1, &[("cleanup.policy", "compact")])?;
    for codec in ["none", "lz4"] {
        let sender = check.sender(&[("compression.type", codec)])?;
        sender.put(&topic, 0, "no key, and long enough to be worth compressing: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa")?;
        let what = format!("a record without a key on a compacted topic, codec {codec}");
        expect_refused(&what, sender.flush(), &[Code::InvalidRecord])?;
        sender.send(BaseRecord::to(&topic).partition(0).key(b"k".as_slice()).payload(b"v".as_slice()))?;
        sender.flush()?;
    }
    Ok(())
}

pub fn acks(check: &Context) -> Outcome {
    let topic = check.topic(1, &[])?;
    for acks in ["0", "1", "all"] {
        let sender = check.sender(&[("acks", acks)])?;
        sender.put_numbers(&topic, 0, 0, 100)?;
        sender.flush()?;
        if acks == "0" {
            // Nobody said that they arrived.
            client::wait_until("records sent with acks=0", client::PATIENCE, || {
                let (_, end) = check.clients.bounds(&topic, 0, Isolation::Committed)?;
                Ok(if end == 100 { Ok(()) } else { Err(format!("end {end}")) })
            })?;
        }
    }
    expect_equal("records", 300, check.clients.read(&topic, Isolation::Committed)?.len())
}

fn now_ms() -> Result<i64> {
    Ok(i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis())?)
}
