//! What a broker still knows after an orderly restart and after a SIGKILL. Each check has a half before and one after.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::Message;
use rdkafka::producer::BaseRecord;

use super::transactions::FENCED;
use crate::check::{After, Context};
use crate::client::{self, Isolation, PATIENCE, Sender, expect_equal, expect_refused, values};
use crate::member::{Member, wait_for_shares};
use crate::raw;

/// How long a group may take to share its partitions while every other check of the suite runs beside it: a member that
/// missed one rebalance waits for the group to notice, and joins the next.
const REBALANCE_PATIENCE: Duration = Duration::from_secs(120);

pub fn records(check: &Context) -> Result<After> {
    let topic = check.topic(4, &[])?;
    let sender = check.sender(&[("compression.type", "lz4")])?;
    for number in 0..20_000 {
        let value = format!("value {number}");
        let record = BaseRecord::to(&topic).partition(number % 4).payload(value.as_bytes());
        sender.send(record.key(b"key".as_slice()).timestamp(1_000 + i64::from(number)))?;
    }
    sender.flush()?;
    let before = check.clients.read(&topic, Isolation::Committed)?;
    Ok(Box::new(move |check| {
        let after = check.clients.read(&topic, Isolation::Committed)?;
        let sorted = |records: &[rdkafka::message::OwnedMessage]| {
            let place = |record: &rdkafka::message::OwnedMessage| (record.partition(), record.offset());
            let mut all: Vec<_> = records
                .iter()
                .map(|record| (place(record), record.timestamp(), record.payload().map(<[u8]>::to_vec)))
                .collect();
            all.sort_unstable_by_key(|(place, _, _)| *place);
            all
        };
        expect_equal("records", 20_000, after.len())?;
        expect_equal("each is what it was", true, sorted(&before) == sorted(&after))?;
        sender.put(&topic, 0, "next")?;
        let offsets: Vec<i64> = sender.flush()?.iter().map(|delivery| delivery.offset).collect();
        expect_equal("offset of the next record", vec![5_000], offsets)
    }))
}

pub fn topics(check: &Context) -> Result<After> {
    let topic = check.topic(3, &[("cleanup.policy", "compact"), ("retention.ms", "12345")])?;
    raw::alter_topic_incrementally(check.clients.native(), &topic, &[raw::Change::Set("max.message.bytes", "4321")])?;
    check.clients.create_partitions(&topic, 5)?;
    let id = raw::topic_id(check.clients.native(), &topic)?;
    let deleted = check.numbers(10)?;
    check.clients.delete_topic(&deleted)?;
    Ok(Box::new(move |check| {
        expect_equal("partitions", 5, check.clients.partitions(&topic)?)?;
        expect_equal("topic id", id, raw::topic_id(check.clients.native(), &topic)?)?;
        let settings = check.clients.topic_settings(&topic)?;
        for (name, value) in [("cleanup.policy", "compact"), ("retention.ms", "12345"), ("max.message.bytes", "4321")] {
            expect_equal(name, Some(&(value.to_owned(), false)), settings.get(name))?;
        }
        expect_refused("the deleted topic", check.clients.partitions(&deleted), &[Code::UnknownTopicOrPartition])
    }))
}

pub fn log_start(check: &Context) -> Result<After> {
    let topic = check.numbers(100)?;
    check.clients.delete_records(&topic, &[(0, 60)])?;
    // Kafka writes log starts down now and then, not at once.
    std::thread::sleep(Duration::from_millis(700));
    Ok(Box::new(move |check| {
        expect_equal("bounds", (60, 100), check.clients.bounds(&topic, 0, Isolation::Committed)?)?;
        expect_equal("records", 40, check.clients.read(&topic, Isolation::Committed)?.len())
    }))
}

pub fn committed_offsets(check: &Context) -> Result<After> {
    let (topic, group) = (check.topic(3, &[])?, check.name("group"));
    let consumer = check.clients.consumer(Isolation::Committed, &[("group.id", &group)])?;
    let list = client::offsets(&topic, &[(0, 11), (2, 33)])?;
    if let Some(mut element) = list.find_partition(&topic, 0) {
        element.set_metadata("metadata");
    }
    consumer.commit(&list, CommitMode::Sync)?;
    raw::delete_group_offsets(check.clients.native(), &group, &client::offsets(&topic, &[(2, -1001)])?)?;
    Ok(Box::new(move |check| {
        expect_equal("committed offsets", vec![11, -1001, -1001], check.clients.committed(&group, &topic, 3)?)?;
        let consumer = check.clients.consumer(Isolation::Committed, &[("group.id", &group)])?;
        let found = consumer.committed_offsets(client::offsets(&topic, &[(0, -1001)])?, PATIENCE)?;
        let element = found.find_partition(&topic, 0).ok_or_else(|| anyhow!("no answer for partition 0"))?;
        expect_equal("metadata", "metadata", element.metadata())
    }))
}

pub fn ended_transactions(check: &Context) -> Result<After> {
    let (topic, group) = (check.topic(1, &[])?, check.name("group"));
    let consumer = check.clients.consumer(Isolation::Committed, &[("group.id", &group)])?;
    let sender = check.transactional()?;
    for (number, commit) in [(0, true), (10, false), (20, true)] {
        sender.begin()?;
        sender.put_numbers(&topic, 0, number, 3)?;
        sender.send_offsets(&consumer, &client::offsets(&topic, &[(0, number as i64)])?)?;
        if commit { sender.commit()? } else { sender.abort()? }
    }
    sender.begin()?;
    sender.put(&topic, 0, "aborted last")?;
    sender.send_offsets(&consumer, &client::offsets(&topic, &[(0, 99)])?)?;
    sender.abort()?;
    // What a commit answers is decided, even if its markers are not written yet.
    Ok(Box::new(move |check| {
        let found = values(&check.clients.read_settled(&topic)?);
        let found: Vec<&str> = found.iter().map(String::as_str).collect();
        expect_equal("read_committed", vec!["0", "1", "2", "20", "21", "22"], found)?;
        expect_equal("committed offset", vec![20], check.clients.committed(&group, &topic, 1)?)
    }))
}

/// A producer whose open transaction outlives the restart even on a slow machine.
fn patient(check: &Context, id: &str) -> Result<Sender> {
    Sender::transactional(check.bootstrap(), id, &[("transaction.timeout.ms", "600000")])
}

pub fn open_transaction_goes_on(check: &Context) -> Result<After> {
    let (topic, group) = (check.topic(2, &[])?, check.name("group"));
    let consumer = check.clients.consumer(Isolation::Committed, &[("group.id", &group)])?;
    let sender = patient(check, &check.name("id"))?;
    sender.begin()?;
    sender.put(&topic, 0, "before")?;
    sender.flush()?;
    sender.send_offsets(&consumer, &client::offsets(&topic, &[(0, 7)])?)?;
    Ok(Box::new(move |check| {
        expect_equal("last stable offset", 0, check.clients.bounds(&topic, 0, Isolation::Committed)?.1)?;
        expect_equal("log end", 1, check.clients.bounds(&topic, 0, Isolation::Uncommitted)?.1)?;
        expect_equal("committed offset", vec![-1001, -1001], check.clients.committed(&group, &topic, 2)?)?;
        sender.put(&topic, 0, "after")?;
        sender.put(&topic, 1, "another partition")?;
        sender.commit().context("commit after the restart")?;
        expect_equal("records", 3, check.clients.read_settled(&topic)?.len())?;
        client::wait_until("committed offset", PATIENCE, || {
            let found = check.clients.committed(&group, &topic, 2)?;
            Ok(if found == [7, -1001] { Ok(()) } else { Err(format!("{found:?}")) })
        })
    }))
}

pub fn open_transaction_aborts(check: &Context) -> Result<After> {
    let topic = check.topic(1, &[])?;
    let id = check.name("id");
    let sender = patient(check, &id)?;
    sender.begin()?;
    sender.put(&topic, 0, "open")?;
    sender.flush()?;
    drop(sender);
    Ok(Box::new(move |check| {
        expect_equal("last stable offset", 0, check.clients.bounds(&topic, 0, Isolation::Committed)?.1)?;
        patient(check, &id)?;
        expect_equal("records after the same id came back", 0, check.clients.read_settled(&topic)?.len())
    }))
}

/// The timeout is long enough for the broker to be back before it is over: a Kafka whose coordinator ends a transaction
/// before it knows who leads the partitions takes them for deleted, writes no markers and leaves the transaction open
/// for ever.
pub fn open_transaction_times_out(check: &Context) -> Result<After> {
    let topic = check.topic(1, &[])?;
    let sender = Sender::transactional(check.bootstrap(), &check.name("id"), &[("transaction.timeout.ms", "15000")])?;
    sender.begin()?;
    sender.put(&topic, 0, "open")?;
    sender.flush()?;
    drop(sender);
    Ok(Box::new(move |check| {
        expect_equal("records once it has timed out", 0, check.clients.read_settled(&topic)?.len())
    }))
}

pub fn fenced_stays_fenced(check: &Context) -> Result<After> {
    let (topic, id) = (check.topic(1, &[])?, check.name("id"));
    let old = patient(check, &id)?;
    old.begin()?;
    old.put(&topic, 0, "zombie")?;
    old.flush()?;
    let new = Sender::transactional(check.bootstrap(), &id, &[])?;
    Ok(Box::new(move |check| {
        expect_refused("the zombie's commit", old.commit(), FENCED)?;
        new.begin()?;
        new.put(&topic, 0, "new")?;
        new.commit().context("the newer producer")?;
        expect_equal("read_committed", vec!["new".to_owned()], values(&check.clients.read_settled(&topic)?))
    }))
}

pub fn epoch_goes_on(check: &Context) -> Result<After> {
    let (topic, id) = (check.topic(1, &[])?, check.name("id"));
    let old = patient(check, &id)?;
    old.begin()?;
    old.put(&topic, 0, "first")?;
    old.commit()?;
    old.begin()?;
    old.put(&topic, 0, "zombie")?;
    old.flush()?;
    Ok(Box::new(move |check| {
        let new = Sender::transactional(check.bootstrap(), &id, &[])?;
        expect_refused("the zombie's commit", old.commit(), FENCED)?;
        new.begin()?;
        new.put(&topic, 0, "new")?;
        new.commit()?;
        let found = values(&check.clients.read_settled(&topic)?);
        expect_equal("read_committed", vec!["first".to_owned(), "new".to_owned()], found)
    }))
}

/// The next offset that a consumer reads.
fn next(consumer: &BaseConsumer) -> Result<i64> {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        match consumer.poll(Duration::from_millis(50)) {
            Some(Ok(record)) => return Ok(record.offset()),
            // While the broker is away the client says so, and goes on by itself.
            Some(Err(KafkaError::MessageConsumption(Code::AllBrokersDown | Code::BrokerTransportFailure))) | None => {}
            Some(Err(KafkaError::PartitionEOF(_))) => {}
            Some(Err(error)) => return Err(error.into()),
        }
    }
    bail!("no record within {PATIENCE:?}")
}

/// The consumer lives through the restart: no reset, nothing twice, nothing left out.
pub fn consumer_goes_on(check: &Context) -> Result<After> {
    let topic = check.numbers(100)?;
    let consumer = check.clients.consumer(Isolation::Committed, &[])?;
    consumer.fetch_metadata(Some(&topic), PATIENCE)?;
    consumer.assign(&client::offsets(&topic, &[(0, 0)])?)?;
    for expected in 0..100 {
        expect_equal("offset", expected, next(&consumer)?)?;
    }
    Ok(Box::new(move |check| {
        let sender = check.sender(&[])?;
        sender.put_numbers(&topic, 0, 100, 100)?;
        sender.flush()?;
        for expected in 100..200 {
            expect_equal("offset", expected, next(&consumer)?)?;
        }
        Ok(())
    }))
}

/// Members live through the restart, keep or get back their partitions and can commit.
pub fn group_goes_on(check: &Context) -> Result<After> {
    let (topic, group) = (check.topic(4, &[])?, check.name("group"));
    let start = || Member::start(check.bootstrap(), &group, &topic, &[]);
    let (mut first, mut second) = (start()?, start()?);
    wait_for_shares(&mut [&mut first, &mut second], &[2, 2], REBALANCE_PATIENCE)?;
    Ok(Box::new(move |check| {
        let committed = || -> Result<()> {
            client::wait_until("a commit after the restart", REBALANCE_PATIENCE, || {
                wait_for_shares(&mut [&mut first, &mut second], &[2, 2], REBALANCE_PATIENCE)?;
                let partition = first.assigned()?.first().copied().unwrap_or(-1);
                let reply = first.ask(&format!("commit {partition} 77"))?;
                Ok(if reply == "done" { Ok(()) } else { Err(reply) })
            })
        };
        let mut committed = committed;
        committed()?;
        let found = check.clients.committed(&group, &topic, 4)?;
        expect_equal("the offset committed", 1, found.iter().filter(|offset| **offset == 77).count())
    }))
}
