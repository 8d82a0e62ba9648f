//! Offsets committed in a transaction: with it or not at all, not seen before, refused from a stale member.

use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, bail};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::Message;
use rdkafka::producer::{BaseRecord, Producer};

use crate::check::{Context, Outcome};
use crate::client::{self, Isolation, PATIENCE, Sender, expect_equal, expect_refused, wait_until};
use crate::raw::{self, Membership};

/// A consumer in a group, with all partitions of the topic.
fn joined(check: &Context, group: &str, topic: &str) -> Result<BaseConsumer> {
    let settings = [
        ("group.id", group),
        ("session.timeout.ms", "6000"),
        ("heartbeat.interval.ms", "500"),
        ("auto.offset.reset", "earliest"),
    ];
    let consumer = check.clients.consumer(Isolation::Committed, &settings)?;
    consumer.subscribe(&[topic])?;
    let deadline = Instant::now() + PATIENCE;
    while consumer.assignment()?.count() == 0 {
        if Instant::now() > deadline {
            bail!("the consumer got no partitions");
        }
        poll(&consumer)?;
    }
    Ok(consumer)
}

fn poll(consumer: &BaseConsumer) -> Result<()> {
    match consumer.poll(Duration::from_millis(20)) {
        None | Some(Ok(_) | Err(KafkaError::PartitionEOF(_))) => Ok(()),
        Some(Err(error)) => Err(error.into()),
    }
}

fn expect_committed(check: &Context, what: &str, group: &str, topic: &str, expected: i64) -> Outcome {
    wait_until(what, PATIENCE, || {
        let found = check.clients.committed(group, topic, 1)?;
        Ok(if found == [expected] { Ok(()) } else { Err(format!("{found:?} instead of {expected}")) })
    })
}

pub fn commit_and_abort(check: &Context) -> Outcome {
    let (topic, group) = (check.numbers(100)?, check.name("group"));
    let consumer = joined(check, &group, &topic)?;
    let sender = check.transactional()?;
    let mut expected = -1001;
    for (offset, commit) in [(10, true), (20, false), (30, true), (40, false)] {
        sender.begin()?;
        sender.send_offsets(&consumer, &client::offsets(&topic, &[(0, offset)])?)?;
        expect_equal("committed offset while it is open", vec![expected], check.clients.committed(&group, &topic, 1)?)?;
        if commit {
            sender.commit()?;
            expected = offset;
        } else {
            sender.abort()?;
        }
        expect_committed(check, "committed offset", &group, &topic, expected)?;
    }
    Ok(())
}

/// A reader that asks for stable offsets gets none while the transaction is open, and never the old ones. A consumer
/// asks again by itself; the admin call gives the broker's answer.
pub fn stable(check: &Context) -> Outcome {
    let (topic, group) = (check.numbers(100)?, check.name("group"));
    let consumer = joined(check, &group, &topic)?;
    let sender = check.transactional()?;
    sender.begin()?;
    sender.send_offsets(&consumer, &client::offsets(&topic, &[(0, 33)])?)?;
    let list = client::offsets(&topic, &[(0, -1001)])?;
    let ask = || check.clients.group_offsets(&group, &list, true);
    expect_refused("stable offsets while it is open", ask().map_err(Into::into), &[Code::UnstableOffsetCommit])?;
    let wait = Duration::from_millis(1_000);
    let (found, waited) = std::thread::scope(|scope| {
        let asking = scope.spawn(|| {
            let started = Instant::now();
            (consumer.committed_offsets(list.clone(), PATIENCE), started.elapsed())
        });
        std::thread::sleep(wait);
        sender.commit()?;
        asking.join().map_err(|_| anyhow!("the asking thread panicked"))
    })?;
    let offset = found?.find_partition(&topic, 0).map(|element| element.offset());
    expect_equal("the offset that the consumer is given", Some(rdkafka::Offset::Offset(33)), offset)?;
    if waited < wait - Duration::from_millis(200) {
        bail!("expected the consumer to wait for the commit after {wait:?}, found its answer after {waited:?}");
    }
    wait_until("stable offsets after the commit", PATIENCE, || {
        let found = ask();
        Ok(if found == Ok(vec![(topic.clone(), 0, 33)]) { Ok(()) } else { Err(format!("{found:?}")) })
    })
}

pub fn stale(check: &Context) -> Outcome {
    let (topic, group) = (check.numbers(100)?, check.name("group"));
    let consumer = joined(check, &group, &topic)?;
    let Some(now) = raw::membership(&consumer) else { bail!("the consumer has no membership") };
    let cases = [
        ("an older generation", now.generation - 1, now.member.clone(), Code::IllegalGeneration),
        ("a later generation", now.generation + 1, now.member.clone(), Code::IllegalGeneration),
        ("an unknown member", now.generation, "nobody".to_owned(), Code::UnknownMemberId),
    ];
    for (what, generation, member, code) in cases {
        let sender = check.transactional()?;
        sender.begin()?;
        let who = Membership { generation, member };
        let list = client::offsets(&topic, &[(0, 66)])?;
        let refused = raw::send_offsets_as(sender.producer().client(), &group, &who, &list, PATIENCE);
        expect_refused(what, refused.map_err(Into::into), &[code])?;
        sender.abort()?;
        poll(&consumer)?;
    }
    let sender = check.transactional()?;
    sender.begin()?;
    let list = client::offsets(&topic, &[(0, 44)])?;
    raw::send_offsets_as(sender.producer().client(), &group, &now, &list, PATIENCE)?;
    sender.commit()?;
    expect_committed(check, "committed offset", &group, &topic, 44)
}

/// A fenced producer's offsets are refused too, and those that it had sent are dropped.
pub fn fenced(check: &Context) -> Outcome {
    let (topic, group, id) = (check.numbers(100)?, check.name("group"), check.name("id"));
    let consumer = joined(check, &group, &topic)?;
    let old = Sender::transactional(check.bootstrap(), &id, &[])?;
    old.begin()?;
    old.send_offsets(&consumer, &client::offsets(&topic, &[(0, 10)])?)?;
    let new = Sender::transactional(check.bootstrap(), &id, &[])?;
    let refused = old.send_offsets(&consumer, &client::offsets(&topic, &[(0, 20)])?);
    expect_refused("the zombie's offsets", refused, super::transactions::FENCED)?;
    new.begin()?;
    new.send_offsets(&consumer, &client::offsets(&topic, &[(0, 30)])?)?;
    new.commit()?;
    expect_committed(check, "committed offset", &group, &topic, 30)
}

pub fn only_offsets(check: &Context) -> Outcome {
    let (topic, group) = (check.numbers(10)?, check.name("group"));
    let consumer = joined(check, &group, &topic)?;
    let sender = check.transactional()?;
    for offset in 1..=10 {
        sender.begin()?;
        sender.send_offsets(&consumer, &client::offsets(&topic, &[(0, offset)])?)?;
        sender.commit()?;
    }
    expect_committed(check, "committed offset", &group, &topic, 10)
}

/// 40,000 records through transactions, every seventh of them aborted and done again.
pub fn consume_transform_produce(check: &Context) -> Outcome {
    const RECORDS: usize = 40_000;
    let (input, output, group) = (check.numbers(RECORDS)?, check.topic(2, &[])?, check.name("group"));
    let changelog = check.topic(1, &[("cleanup.policy", "compact")])?;
    let consumer = joined(check, &group, &input)?;
    // What was polled while it joined is dropped. It cannot seek before its fetcher has started.
    wait_until("the seek to the start", PATIENCE, || {
        let sought = consumer.seek(&input, 0, rdkafka::Offset::Beginning, PATIENCE);
        Ok(sought.map_err(|error| error.to_string()))
    })?;
    let sender = check.transactional()?;
    let (mut next, mut transactions) = (0i64, 0);
    let deadline = Instant::now() + PATIENCE + PATIENCE;
    while next < RECORDS as i64 {
        if Instant::now() > deadline {
            bail!("only {next} of {RECORDS} records were processed");
        }
        let mut batch = Vec::new();
        while batch.len() < 500 && next + (batch.len() as i64) < RECORDS as i64 {
            match consumer.poll(Duration::from_millis(200)) {
                Some(Ok(record)) => {
                    expect_equal("the next input offset", next + batch.len() as i64, record.offset())?;
                    batch.push(record.payload().unwrap_or_default().to_vec());
                }
                None => break,
                Some(Err(KafkaError::PartitionEOF(_))) => {}
                Some(Err(error)) => return Err(error.into()),
            }
        }
        if batch.is_empty() {
            continue;
        }
        sender.begin()?;
        for (index, value) in batch.iter().enumerate() {
            sender.send(BaseRecord::to(&output).partition((index % 2) as i32).payload(value.as_slice()))?;
        }
        sender.send(
            BaseRecord::to(&changelog).partition(0).key(b"sum".as_slice()).payload(next.to_string().as_bytes()),
        )?;
        sender.flush()?;
        let position = next + batch.len() as i64;
        sender.send_offsets(&consumer, &client::offsets(&input, &[(0, position)])?)?;
        transactions += 1;
        if transactions % 7 == 0 {
            sender.abort()?;
            consumer.seek(&input, 0, rdkafka::Offset::Offset(next), PATIENCE)?;
        } else {
            sender.commit()?;
            next = position;
        }
    }
    let records = check.clients.read_settled(&output)?;
    expect_equal("records out", RECORDS, records.len())?;
    let mut found: Vec<u64> = client::values(&records).iter().filter_map(|value| value.parse().ok()).collect();
    found.sort_unstable();
    found.dedup();
    expect_equal("distinct records out", RECORDS, found.len())?;
    expect_committed(check, "committed offset", &group, &input, RECORDS as i64)
}
