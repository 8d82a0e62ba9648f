//! Transactions seen by readers, and their producers fenced and timed out.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rdkafka::Offset;
use rdkafka::consumer::Consumer;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::Message;
use rdkafka::producer::Producer;

use crate::check::{Context, Outcome};
use crate::client::{self, Isolation, PATIENCE, Sender, expect_equal, expect_refused, values, wait_until};

/// What a fenced or timed-out producer is told.
pub const FENCED: &[Code] = &[
    Code::Fenced,
    Code::ProducerFenced,
    Code::InvalidProducerEpoch,
    Code::Fatal,
    Code::State,
    Code::InvalidProducerIdMapping,
    Code::InvalidTransactionalState,
];

pub fn commit_and_abort(check: &Context) -> Outcome {
    let topic = check.topic(1, &[])?;
    let sender = check.transactional()?;
    for (number, commit) in [(0, true), (10, false), (20, true), (30, false)] {
        sender.begin()?;
        sender.put_numbers(&topic, 0, number, 3)?;
        if commit { sender.commit()? } else { sender.abort()? }
    }
    let committed = values(&check.clients.read_settled(&topic)?);
    expect_equal(
        "read_committed",
        vec!["0", "1", "2", "20", "21", "22"],
        committed.iter().map(String::as_str).collect(),
    )?;
    let all = check.clients.read(&topic, Isolation::Uncommitted)?;
    expect_equal("records of read_uncommitted", 12, all.len())
}

pub fn open_holds(check: &Context) -> Outcome {
    let topic = check.topic(1, &[])?;
    let plain = check.sender(&[])?;
    plain.put(&topic, 0, "before")?;
    plain.flush()?;
    let sender = check.transactional()?;
    sender.begin()?;
    sender.put(&topic, 0, "open")?;
    sender.flush()?;
    plain.put(&topic, 0, "after")?;
    plain.flush()?;
    expect_equal("last stable offset", 1, check.clients.bounds(&topic, 0, Isolation::Committed)?.1)?;
    expect_equal("log end", 3, check.clients.bounds(&topic, 0, Isolation::Uncommitted)?.1)?;
    let seen = values(&check.clients.read(&topic, Isolation::Committed)?);
    expect_equal("read_committed while it is open", vec!["before".to_owned()], seen)?;
    let seen = check.clients.read(&topic, Isolation::Uncommitted)?;
    expect_equal("records of read_uncommitted while it is open", 3, seen.len())?;
    sender.commit()?;
    let seen = values(&check.clients.read_settled(&topic)?);
    expect_equal("after the commit", vec!["before", "open", "after"], seen.iter().map(String::as_str).collect())
}

pub fn atomic(check: &Context) -> Outcome {
    let topics = [check.topic(3, &[])?, check.topic(2, &[])?];
    let sender = check.transactional()?;
    let fill = || -> Result<()> {
        for (topic, partitions) in topics.iter().zip([3, 2]) {
            for partition in 0..partitions {
                sender.put_numbers(topic, partition, 0, 10)?;
            }
        }
        sender.flush().map(drop)
    };
    let seen = |isolation| -> Result<Vec<usize>> {
        topics.iter().map(|topic| Ok(check.clients.read(topic, isolation)?.len())).collect()
    };
    sender.begin()?;
    fill()?;
    expect_equal("records before the commit", vec![0, 0], seen(Isolation::Committed)?)?;
    sender.commit()?;
    for topic in &topics {
        check.clients.settle(topic)?;
    }
    expect_equal("records after the commit", vec![30, 20], seen(Isolation::Committed)?)?;
    sender.begin()?;
    fill()?;
    sender.abort()?;
    for topic in &topics {
        check.clients.settle(topic)?;
    }
    expect_equal("records after the abort of more", vec![30, 20], seen(Isolation::Committed)?)?;
    expect_equal("records of read_uncommitted", vec![60, 40], seen(Isolation::Uncommitted)?)
}

pub fn interleaved(check: &Context) -> Outcome {
    const ROUNDS: usize = 30;
    let topic = check.topic(1, &[])?;
    let senders = [check.transactional()?, check.transactional()?, check.transactional()?];
    let mut expected = Vec::new();
    for round in 0..ROUNDS {
        for (index, sender) in senders.iter().enumerate() {
            sender.begin()?;
            sender.put(&topic, 0, &format!("{round}-{index}-a"))?;
            sender.flush()?;
        }
        for (index, sender) in senders.iter().enumerate() {
            sender.put(&topic, 0, &format!("{round}-{index}-b"))?;
            sender.flush()?;
        }
        // Ended in another order than begun.
        for (index, sender) in senders.iter().enumerate().rev() {
            if (round + index) % 3 == 0 { sender.abort()? } else { sender.commit()? }
        }
        for half in ["a", "b"] {
            let kept = (0..senders.len()).filter(|index| (round + index) % 3 != 0);
            expected.extend(kept.map(|index| format!("{round}-{index}-{half}")));
        }
    }
    expect_equal("read_committed", expected, values(&check.clients.read_settled(&topic)?))
}

pub fn large_abort(check: &Context) -> Outcome {
    let topic = check.topic(1, &[])?;
    let sender = Sender::transactional(check.bootstrap(), &check.name("id"), &[("compression.type", "lz4")])?;
    for commit in [false, true, false] {
        sender.begin()?;
        sender.put_numbers(&topic, 0, if commit { 0 } else { 1_000_000 }, 20_000)?;
        if commit { sender.commit()? } else { sender.abort()? }
    }
    let seen = values(&check.clients.read_settled(&topic)?);
    expect_equal("records", 20_000, seen.len())?;
    let wrong = seen.iter().enumerate().find(|(number, value)| **value != number.to_string());
    expect_equal("the first that differs", None, wrong)
}

pub fn markers(check: &Context) -> Outcome {
    let topic = check.topic(1, &[])?;
    let sender = check.transactional()?;
    for commit in [true, false, true] {
        sender.begin()?;
        sender.put(&topic, 0, "x")?;
        if commit { sender.commit()? } else { sender.abort()? }
    }
    check.clients.settle(&topic)?;
    let offsets: Vec<i64> = check.clients.read(&topic, Isolation::Committed)?.iter().map(Message::offset).collect();
    expect_equal("offsets of read_committed", vec![0, 4], offsets)?;
    let offsets: Vec<i64> = check.clients.read(&topic, Isolation::Uncommitted)?.iter().map(Message::offset).collect();
    expect_equal("offsets of read_uncommitted", vec![0, 2, 4], offsets)?;
    let consumer = check.clients.consumer(Isolation::Committed, &[])?;
    consumer.fetch_metadata(Some(&topic), PATIENCE)?;
    consumer.assign(&client::offsets(&topic, &[(0, 0)])?)?;
    let deadline = Instant::now() + PATIENCE;
    while !matches!(consumer.poll(Duration::from_millis(50)), Some(Err(KafkaError::PartitionEOF(0)))) {
        if Instant::now() > deadline {
            bail!("no end of partition");
        }
    }
    let position = consumer.position()?.find_partition(&topic, 0).map(|element| element.offset());
    expect_equal("position behind the last marker", Some(Offset::Offset(6)), position)?;
    expect_equal("log end", 6, check.clients.bounds(&topic, 0, Isolation::Uncommitted)?.1)
}

pub fn empty(check: &Context) -> Outcome {
    let topic = check.topic(1, &[])?;
    let sender = check.transactional()?;
    for _ in 0..3 {
        sender.begin()?;
        sender.commit()?;
        sender.begin()?;
        sender.abort()?;
    }
    sender.begin()?;
    sender.put(&topic, 0, "after empty ones")?;
    sender.commit()?;
    expect_equal("records", 1, check.clients.read_settled(&topic)?.len())
}

pub fn fenced_by_init(check: &Context) -> Outcome {
    let (topic, id) = (check.topic(1, &[])?, check.name("id"));
    let old = Sender::transactional(check.bootstrap(), &id, &[])?;
    old.begin()?;
    old.put(&topic, 0, "zombie")?;
    old.flush()?;
    let started = Instant::now();
    let new = Sender::transactional(check.bootstrap(), &id, &[])?;
    check.clients.settle(&topic)?;
    if started.elapsed() > Duration::from_secs(5) {
        bail!("expected the second init to end the open transaction at once, found {:?}", started.elapsed());
    }
    new.begin()?;
    new.put(&topic, 0, "new")?;
    expect_refused("the zombie's commit", old.commit(), FENCED)?;
    new.commit()?;
    expect_equal("read_committed", vec!["new".to_owned()], values(&check.clients.read_settled(&topic)?))?;
    expect_equal("the zombie's fate is fatal", true, old.producer().client().fatal_error().is_some())
}

pub fn fenced_produce(check: &Context) -> Outcome {
    let (topic, id) = (check.topic(1, &[])?, check.name("id"));
    let old = Sender::transactional(check.bootstrap(), &id, &[])?;
    old.begin()?;
    old.put(&topic, 0, "zombie 1")?;
    old.flush()?;
    let new = Sender::transactional(check.bootstrap(), &id, &[])?;
    old.put(&topic, 0, "zombie 2")?;
    expect_refused("the zombie's record", old.flush(), FENCED)?;
    new.begin()?;
    new.put(&topic, 0, "new")?;
    new.commit()?;
    expect_equal("read_committed", vec!["new".to_owned()], values(&check.clients.read_settled(&topic)?))?;
    let all = values(&check.clients.read(&topic, Isolation::Uncommitted)?);
    expect_equal("read_uncommitted", vec!["zombie 1".to_owned(), "new".to_owned()], all)
}

/// A producer whose transactions may last two seconds.
fn short_lived(check: &Context, id: &str) -> Result<Sender> {
    Sender::transactional(check.bootstrap(), id, &[("transaction.timeout.ms", "2000")])
}

pub fn timed_out(check: &Context) -> Outcome {
    let (topic, id) = (check.topic(1, &[])?, check.name("id"));
    let dead = short_lived(check, &id)?;
    dead.begin()?;
    dead.put(&topic, 0, "dead")?;
    dead.flush()?;
    drop(dead);
    let started = Instant::now();
    check.clients.settle(&topic).context("the dead producer's transaction was not ended")?;
    let took = started.elapsed();
    if took < Duration::from_secs(1) {
        bail!("expected the transaction to stay open for its 2 s, found it ended after {took:?}");
    }
    expect_equal("read_committed", 0, check.clients.read(&topic, Isolation::Committed)?.len())?;
    let next = short_lived(check, &id)?;
    next.begin()?;
    next.put(&topic, 0, "next")?;
    next.commit()?;
    expect_equal("read_committed", vec!["next".to_owned()], values(&check.clients.read_settled(&topic)?))
}

pub fn late_commit(check: &Context) -> Outcome {
    let topic = check.topic(1, &[])?;
    let late = short_lived(check, &check.name("id"))?;
    late.begin()?;
    late.put(&topic, 0, "late")?;
    late.flush()?;
    check.clients.settle(&topic)?;
    expect_refused("a commit after the timeout", late.commit(), FENCED)?;
    expect_equal("read_committed", 0, check.clients.read(&topic, Isolation::Committed)?.len())
}

pub fn timeout_bound(check: &Context) -> Outcome {
    let settings = [("transaction.timeout.ms", "1000000")];
    let refused = Sender::transactional(check.bootstrap(), &check.name("id"), &settings).map(drop);
    expect_refused("a transaction timeout above 15 minutes", refused, &[Code::InvalidTransactionTimeout])
}

pub fn topic_deleted(check: &Context) -> Outcome {
    let (doomed, kept) = (check.topic(1, &[])?, check.topic(1, &[])?);
    let sender = check.transactional()?;
    sender.begin()?;
    sender.put(&doomed, 0, "doomed")?;
    sender.put(&kept, 0, "kept")?;
    sender.flush()?;
    check.clients.delete_topic(&doomed)?;
    wait_until("the topic is gone", PATIENCE, || {
        Ok(if check.clients.partitions(&doomed).is_err() { Ok(()) } else { Err("it is there".to_owned()) })
    })?;
    sender.commit().context("commit with one of two topics deleted")?;
    expect_equal("read_committed", vec!["kept".to_owned()], values(&check.clients.read_settled(&kept)?))?;
    sender.begin()?;
    sender.put(&kept, 0, "next")?;
    sender.commit().context("the next transaction")?;
    expect_equal("records", 2, check.clients.read_settled(&kept)?.len())
}

/// A reader that follows while transactions end one after another sees each committed record once and in order.
pub fn followed(check: &Context) -> Outcome {
    const ROUNDS: usize = 100;
    let topic = check.topic(1, &[])?;
    let sender = check.transactional()?;
    let consumer = check.clients.consumer(Isolation::Committed, &[])?;
    consumer.fetch_metadata(Some(&topic), PATIENCE)?;
    consumer.assign(&client::offsets(&topic, &[(0, 0)])?)?;
    let mut found = Vec::new();
    let mut take = |wait| -> Result<usize> {
        match consumer.poll(wait) {
            Some(Ok(record)) => found.push(String::from_utf8_lossy(record.payload().unwrap_or_default()).into_owned()),
            None | Some(Err(KafkaError::PartitionEOF(_))) => {}
            Some(Err(error)) => return Err(error.into()),
        }
        Ok(found.len())
    };
    let expected: Vec<String> = (0..ROUNDS).filter(|round| round % 4 != 3).map(|round| round.to_string()).collect();
    for round in 0..ROUNDS {
        sender.begin()?;
        sender.put(&topic, 0, &round.to_string())?;
        take(Duration::from_millis(1))?;
        if round % 4 == 3 {
            sender.abort()?
        } else {
            sender.commit()?
        }
        take(Duration::from_millis(1))?;
    }
    let deadline = Instant::now() + PATIENCE;
    while take(Duration::from_millis(20))? < expected.len() && Instant::now() < deadline {}
    check.clients.settle(&topic)?;
    take(Duration::from_millis(300))?;
    expect_equal("records", expected, found)
}
