//! Topics: created, refused, deleted, made again, given more partitions, made by a producer.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use rdkafka::consumer::Consumer;
use rdkafka::error::RDKafkaErrorCode as Code;

use crate::check::{Context, Outcome};
use crate::client::{self, Isolation, PATIENCE, expect_equal, expect_refused, wait_until};
use crate::raw;

pub fn create(check: &Context) -> Outcome {
    let topic = check.topic(3, &[])?;
    expect_equal("partitions", 3, check.clients.partitions(&topic)?)?;
    for partition in 0..3 {
        expect_equal(
            "bounds of a new partition",
            (0, 0),
            check.clients.bounds(&topic, partition, Isolation::Committed)?,
        )?;
    }
    let metadata = check.clients.native().fetch_metadata(None, PATIENCE)?;
    expect_equal("listed", true, metadata.topics().iter().any(|other| other.name() == topic))
}

pub fn refusals(check: &Context) -> Outcome {
    let topic = check.topic(1, &[])?;
    let again = check.clients.create_topic(&topic, 1, &[]);
    expect_refused("create a topic that is there", again, &[Code::TopicAlreadyExists])?;
    let odd = check.clients.create_topic("no/slash", 1, &[]);
    expect_refused("create a topic with a slash in its name", odd, &[Code::InvalidTopic])?;
    let long = check.clients.create_topic(&"x".repeat(250), 1, &[]);
    expect_refused("create a topic with a name of 250 characters", long, &[Code::InvalidTopic])?;
    let setting = check.clients.create_topic(&check.name("odd"), 1, &[("cleanup.policy", "sweep")]);
    expect_refused("create a topic with an unknown policy", setting, &[Code::InvalidConfig])?;
    let unknown = check.clients.create_topic(&check.name("odd"), 1, &[("no.such.setting", "1")]);
    expect_refused("create a topic with an unknown setting", unknown, &[Code::InvalidConfig])?;
    let missing = check.clients.delete_topic(&check.name("missing"));
    expect_refused("delete a topic that is not there", missing, &[Code::UnknownTopicOrPartition])
}

pub fn delete_and_recreate(check: &Context) -> Outcome {
    let topic = check.numbers(100)?;
    let group = check.name("group");
    raw::alter_group_offsets(check.clients.native(), &group, &client::offsets(&topic, &[(0, 70)])?)?;
    expect_equal("committed offset before", vec![70], check.clients.committed(&group, &topic, 1)?)?;
    let first = raw::topic_id(check.clients.native(), &topic)?;
    check.clients.delete_topic(&topic)?;
    wait_until("the topic is gone", PATIENCE, || {
        Ok(match check.clients.partitions(&topic) {
            Err(error) if client::code_of(&error) == Some(Code::UnknownTopicOrPartition) => Ok(()),
            found => Err(format!("{found:?}")),
        })
    })?;
    check.clients.create_topic(&topic, 2, &[])?;
    let second = raw::topic_id(check.clients.native(), &topic)?;
    expect_equal("a new topic id", true, first != second && !second.is_empty())?;
    expect_equal("bounds", (0, 0), check.clients.bounds(&topic, 0, Isolation::Uncommitted)?)?;
    expect_equal("records", 0, check.clients.read(&topic, Isolation::Uncommitted)?.len())?;
    wait_until("the committed offset is gone", PATIENCE, || {
        let found = check.clients.committed(&group, &topic, 1)?;
        Ok(if found == [-1001] { Ok(()) } else { Err(format!("{found:?}")) })
    })?;
    let sender = check.sender(&[])?;
    sender.put_numbers(&topic, 1, 0, 10)?;
    expect_equal("records delivered", 10, sender.flush()?.len())
}

pub fn ids(check: &Context) -> Outcome {
    let (one, two) = (check.topic(1, &[])?, check.topic(1, &[])?);
    let id = |topic: &str| raw::topic_id(check.clients.native(), topic);
    expect_equal("ids of two topics differ", true, id(&one)? != id(&two)?)?;
    expect_equal("an id stays", id(&one)?, id(&one)?)
}

pub fn create_partitions(check: &Context) -> Outcome {
    let topic = check.numbers(10)?;
    check.clients.create_partitions(&topic, 4)?;
    expect_equal("partitions", 4, check.clients.partitions(&topic)?)?;
    let sender = check.sender(&[])?;
    sender.put_numbers(&topic, 3, 10, 10)?;
    sender.flush()?;
    let mut values = client::values(&check.clients.read(&topic, Isolation::Committed)?);
    values.sort_by_key(|value| value.parse::<u32>().unwrap_or(u32::MAX));
    expect_equal("values", (0..20).map(|number: u32| number.to_string()).collect::<Vec<_>>(), values)?;
    let fewer = check.clients.create_partitions(&topic, 2);
    expect_refused("fewer partitions", fewer, &[Code::InvalidPartitions])?;
    let same = check.clients.create_partitions(&topic, 4);
    expect_refused("as many partitions", same, &[Code::InvalidPartitions])?;
    let missing = check.clients.create_partitions(&check.name("missing"), 2);
    expect_refused("partitions of no topic", missing, &[Code::UnknownTopicOrPartition])
}

pub fn auto_create(check: &Context) -> Outcome {
    let topic = check.name("made-by-a-producer");
    let sender = check.sender(&[])?;
    sender.send(rdkafka::producer::BaseRecord::to(&topic).payload(b"first".as_slice()))?;
    sender.flush()?;
    let read = check.clients.read(&topic, Isolation::Committed)?;
    expect_equal("values", vec!["first".to_owned()], client::values(&read))
}

pub fn unknown(check: &Context) -> Outcome {
    let topic = check.name("missing");
    let consumer = check.clients.consumer(Isolation::Committed, &[("topic.metadata.propagation.max.ms", "500")])?;
    consumer.assign(&client::offsets(&topic, &[(0, 0)])?)?;
    let started = Instant::now();
    let found = loop {
        match consumer.poll(Duration::from_millis(100)) {
            Some(found) => break found.map(|_| ()),
            None if started.elapsed() > PATIENCE => bail!("no error for a topic that is not there"),
            None => {}
        }
    };
    let result: Result<()> = found.map_err(Into::into);
    expect_refused("read a topic that is not there", result, &[Code::UnknownTopicOrPartition, Code::UnknownTopic])?;
    expect_refused("its partitions", check.clients.partitions(&topic), &[Code::UnknownTopicOrPartition])
}
