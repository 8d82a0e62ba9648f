//! A dead letter topic that cannot be written (E4), on a real Kafka: the application stops and names the topic, nothing
//! is dropped and nothing of the bad record is committed, and once the topic takes records again a start processes
//! everything.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::host::{Host, Options, wait_committed};
use e2e::own_kafka::OwnKafka;
use e2e::topics::{self, Broker, Values};
use e2e::{kafka, repository, tools};
use serde_json::{Value, json};

/// librdkafka waits 30 s for a topic that it does not find.
const LIMIT: Duration = Duration::from_secs(90);

/// The `hello` example, which refuses values that are null, with topics of its own and one for dead letters.
struct Place {
    id: String,
    broker: Broker,
    address: String,
    folder: PathBuf,
}

impl Place {
    /// `settings` are those of the dead letter topic.
    fn new(name: &str, broker: Broker, settings: &[&str]) -> Result<Self> {
        let id = repository::unique(name);
        let folder = repository::scratch(&id)?;
        let Broker::Kafka(address) = broker.clone() else { unreachable!("a real Kafka is known by its address") };
        let place = Self { id, broker, address, folder };
        topics::create(&place.broker, &place.topic("greetings"), 1)?;
        topics::create(&place.broker, &place.topic("answers"), 1)?;
        topics::create_with(&place.broker, &place.dead_letters(), 1, settings)?;
        Ok(place)
    }

    fn topic(&self, name: &str) -> String {
        format!("{}-{name}", self.id)
    }

    fn dead_letters(&self) -> String {
        self.topic("dead-letters")
    }

    fn start(&self, flags: &[&str]) -> Result<Host> {
        let manifest = repository::example("hello").join("sandbar.toml");
        let state_dir = self.folder.join("state");
        let mut options = Options::new(&manifest, &self.broker, &self.id, &state_dir)
            .set("sources.greetings.topic", &self.topic("greetings"))
            .set("sinks.answers.topic", &self.topic("answers"))
            .set("errors.dead.letter.queue.topic.name", &self.dead_letters());
        for flag in flags {
            options = options.flag(flag);
        }
        Host::start(&options)
    }

    /// A host that has processed the first greeting, which was a good one.
    fn running(&self) -> Result<Host> {
        self.greet("a", Some("Hello"))?;
        let mut host = self.start(&[])?;
        host.wait_ready(LIMIT)?;
        wait_committed(&[&host], &self.topic("greetings"), 1, LIMIT)?;
        Ok(host)
    }

    fn greet(&self, key: &str, value: Option<&str>) -> Result<()> {
        let line = json!({ "key": key, "value": value }).to_string();
        topics::produce(&self.broker, &self.topic("greetings"), Values::Text, &line)
    }

    /// A good one, a bad one, a good one.
    fn greet_badly(&self) -> Result<()> {
        self.greet("b", Some("Hi"))?;
        self.greet("c", None)?;
        self.greet("d", Some("Hey"))
    }

    fn tool(&self, class: &str, arguments: &[&str]) -> Result<()> {
        tools::java(class, &[&["--bootstrap-server", &self.address], arguments].concat(), "").map(drop)
    }

    fn set(&self, setting: &str) -> Result<()> {
        let topic = self.dead_letters();
        let arguments = ["--entity-type", "topics", "--entity-name", &topic, "--alter", "--add-config", setting];
        self.tool("kafka.admin.ConfigCommand", &arguments)
    }

    /// The host ends by itself with these words and the topic's name in its error; nothing of the bad record is there.
    fn stops(&self, mut host: Host, words: &[&str]) -> Result<()> {
        let status = host.wait(LIMIT)?;
        let log = host.log();
        ensure!(status.code() == Some(1), "it ended with {status}:\n{log}");
        let error =
            log.lines().filter(|line| line.starts_with("error:") || line.contains("caused by")).collect::<String>();
        for word in words.iter().copied().chain([&*self.dead_letters()]) {
            ensure!(error.contains(word), "`{word}` is missing in:\n{log}");
        }
        let answers = self.keys("answers")?;
        ensure!(!answers.contains(&json!("d")), "it went on without the dead letter: {answers:?}");
        Ok(())
    }

    /// Everything is processed once by a start now.
    fn is_made_up_for(&self, answers: &[&str]) -> Result<()> {
        let mut host = self.start(&["--until-idle", "1s"])?;
        let status = host.wait(LIMIT)?;
        ensure!(status.success(), "{}", host.log());
        ensure!(self.keys("answers")? == answers, "the answers are {:?}", self.keys("answers")?);
        let letters = topics::read(&self.broker, &self.dead_letters(), Values::Text)?;
        let found: Vec<_> = letters.iter().map(|letter| (letter.key.clone(), letter.value.clone())).collect();
        ensure!(found == [(json!("c"), Value::Null)], "the dead letters are {found:?}");
        Ok(())
    }

    fn keys(&self, topic: &str) -> Result<Vec<Value>> {
        let records = topics::read(&self.broker, &self.topic(topic), Values::Text)?;
        Ok(records.into_iter().map(|record| record.key).collect())
    }
}

#[test]
fn a_dead_letter_topic_that_is_deleted_stops_the_application_and_nothing_is_dropped() -> Result<()> {
    let place = Place::new("dlq-deleted", kafka::broker()?, &[])?;
    let host = place.running()?;
    place.tool("org.apache.kafka.tools.TopicCommand", &["--delete", "--topic", &place.dead_letters()])?;
    place.greet_badly()?;
    place.stops(host, &[])?;
    // Nor does it start without.
    place.stops(place.start(&[])?, &[])?;
    topics::create(&place.broker, &place.dead_letters(), 1)?;
    place.is_made_up_for(&["a", "b", "d"])
}

#[test]
fn a_dead_letter_topic_that_takes_no_such_record_stops_the_application_and_nothing_is_dropped() -> Result<()> {
    let place = Place::new("dlq-small", kafka::broker()?, &["max.message.bytes=150"])?;
    let host = place.running()?;
    place.greet_badly()?;
    place.stops(host, &["would refuse the dead letter", "max.message.bytes of the topic is 150"])?;
    place.stops(place.start(&[])?, &["would refuse the dead letter"])?;
    place.set("max.message.bytes=100000")?;
    place.is_made_up_for(&["a", "b", "d"])
}

#[test]
fn a_dead_letter_topic_that_changes_its_mind_stops_the_application_and_nothing_is_dropped() -> Result<()> {
    let place = Place::new("dlq-shrunk", kafka::broker()?, &[])?;
    let host = place.running()?;
    place.set("max.message.bytes=150")?;
    place.greet_badly()?;
    place.stops(host, &[])?;
    place.set("max.message.bytes=100000")?;
    place.is_made_up_for(&["a", "b", "d"])
}

#[test]
fn a_dead_letter_topic_that_is_denied_stops_the_application_and_nothing_is_dropped() -> Result<()> {
    // Whatever nobody is denied is allowed, to the broker itself too.
    let settings = "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer\n\
                    allow.everyone.if.no.acl.found=true\n";
    let own = OwnKafka::start("denied", settings, None)?;
    let place = Place::new("dlq-denied", Broker::Kafka(own.bootstrap()), &[])?;
    let host = place.running()?;
    let topic = place.dead_letters();
    let rule = ["--deny-principal", "User:ANONYMOUS", "--operation", "Write", "--topic", &topic];
    place.tool("org.apache.kafka.tools.AclCommand", &[&["--add"], &rule[..]].concat())?;
    place.greet_badly()?;
    place.stops(host, &[])?;
    place.tool("org.apache.kafka.tools.AclCommand", &[&["--remove", "--force"], &rule[..]].concat())?;
    place.is_made_up_for(&["a", "b", "d"])
}
