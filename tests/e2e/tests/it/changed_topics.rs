//! Topics that change under an application (B5, B6, R22): it stops within seconds with an error that names the topic
//! and says what to do, at run time and at the next start, and another application goes on. Never a silent reset. On
//! both brokers, altered with Kafka's own tools.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use e2e::embedded::EmbeddedBroker;
use e2e::host::{Host, Options, wait_committed};
use e2e::topics::{self, Broker, Values};
use e2e::{kafka, repository, tools};

const LIMIT: Duration = Duration::from_secs(60);
/// The figure that RELIABILITY asks for, and what this machine needs to end a process.
const DETECTED: Duration = Duration::from_secs(13);
const PARTITIONS: u32 = 2;

/// `carrier-count` with topics of its own, running.
struct Place {
    id: String,
    broker: Broker,
    address: String,
    folder: PathBuf,
    _embedded: Option<EmbeddedBroker>,
}

impl Place {
    fn new(name: &str, embedded: bool) -> Result<Self> {
        let id = repository::unique(name);
        let folder = repository::scratch(&id)?;
        let embedded = embedded.then(|| EmbeddedBroker::start(&folder.join("broker"), &[])).transpose()?;
        let broker = embedded.as_ref().map_or_else(kafka::broker, |embedded| Ok(embedded.by_address()))?;
        let Broker::Kafka(address) = broker.clone() else { unreachable!("both are known by address") };
        let place = Self { id, broker, address, folder, _embedded: embedded };
        topics::create(&place.broker, &place.topic("flights"), PARTITIONS)?;
        topics::create(&place.broker, &place.topic("totals"), PARTITIONS)?;
        place.produce(40)?;
        Ok(place)
    }

    fn topic(&self, name: &str) -> String {
        format!("{}-{name}", self.id)
    }

    fn changelog(&self) -> String {
        format!("{}-counts-changelog", self.id)
    }

    fn produce(&self, records: u32) -> Result<()> {
        let lines: String = (0..records).map(|n| format!("{{\"key\":\"c{}\",\"value\":\"x\"}}\n", n % 9)).collect();
        topics::produce(&self.broker, &self.topic("flights"), Values::Text, &lines)
    }

    /// The application by this id, with a state directory of its own.
    fn start(&self, id: &str) -> Result<Host> {
        let (manifest, state) = (repository::example("carrier-count").join("sandbar.toml"), self.folder.join(id));
        let options = Options::new(&manifest, &self.broker, id, &state)
            .set("sources.flights.topic", &self.topic("flights"))
            .set("sinks.totals.topic", &self.topic("totals"));
        Host::start(&options)
    }

    fn running(&self) -> Result<Host> {
        let mut host = self.start(&self.id)?;
        host.wait_ready(LIMIT)?;
        wait_committed(&[&host], &self.topic("flights"), 40, LIMIT)?;
        Ok(host)
    }

    fn tool(&self, class: &str, arguments: &[&str]) -> Result<()> {
        tools::java(class, &[&["--bootstrap-server", &self.address], arguments].concat(), "").map(drop)
    }

    fn topic_tool(&self, arguments: &[&str]) -> Result<()> {
        self.tool("org.apache.kafka.tools.TopicCommand", arguments)
    }

    fn delete(&self, topic: &str) -> Result<()> {
        self.topic_tool(&["--delete", "--topic", topic])
    }

    /// The host ends in time with these words, and so does every later start.
    fn stops(&self, mut host: Host, words: &[&str]) -> Result<()> {
        let changed = Instant::now();
        let status = host.wait(LIMIT)?;
        let taken = changed.elapsed();
        println!("{}: detected and stopped after {taken:.1?}", self.id);
        said(&host, status.code(), words)?;
        ensure!(taken <= DETECTED, "detected after {taken:?}");
        self.refuses(words)
    }

    fn refuses(&self, words: &[&str]) -> Result<()> {
        let mut again = self.start(&self.id)?;
        let status = again.wait(LIMIT)?;
        said(&again, status.code(), words)
    }
}

fn said(host: &Host, code: Option<i32>, words: &[&str]) -> Result<()> {
    let log = host.log();
    ensure!(code == Some(1), "it ended with {code:?}:\n{log}");
    let error = log.lines().filter(|line| line.starts_with("error:") || line.contains("caused by")).collect::<String>();
    for word in words {
        ensure!(error.contains(word), "`{word}` is missing in:\n{log}");
    }
    Ok(())
}

fn on_each(name: &str, test: impl Fn(&Place) -> Result<()>) -> Result<()> {
    test(&Place::new(&format!("{name}-embedded"), true)?)?;
    test(&Place::new(&format!("{name}-kafka"), false)?)
}

#[test]
fn a_source_topic_that_is_made_anew_stops_the_application_and_no_other() -> Result<()> {
    on_each("source-anew", |place| {
        let other_id = format!("{}-other", place.id);
        let other_topic = place.topic("other");
        topics::create(&place.broker, &other_topic, 1)?;
        let (manifest, state) = (repository::example("carrier-count").join("sandbar.toml"), place.folder.join("other"));
        let options = Options::new(&manifest, &place.broker, &other_id, &state)
            .set("sources.flights.topic", &other_topic)
            .set("sinks.totals.topic", &place.topic("totals"));
        let other = Host::start_ready(&options)?;
        let host = place.running()?;
        let flights = place.topic("flights");
        place.delete(&flights)?;
        topics::create(&place.broker, &flights, PARTITIONS)?;
        let words = [&*format!("source topic {flights} was deleted"), "new id"];
        place.stops(host, &words)?;
        ensure!(other.get("/readyz")?.0 == 200, "the other application is not ready");
        Ok(())
    })
}

#[test]
fn partitions_that_are_added_under_state_stop_the_application() -> Result<()> {
    on_each("partitions", |place| {
        let host = place.running()?;
        let flights = place.topic("flights");
        place.topic_tool(&["--alter", "--topic", &flights, "--partitions", "3"])?;
        place.stops(host, &[&format!("source topic {flights} had 2 partitions"), "at least 3 now"])?;
        // Without the state directory the changelog still tells.
        std::fs::remove_dir_all(place.folder.join(&place.id))?;
        place.refuses(&[&format!("source topic {flights} had 2 partitions"), "at least 3 now"])
    })
}

#[test]
fn a_changelog_that_is_deleted_stops_the_application_and_is_not_made_anew() -> Result<()> {
    on_each("changelog-deleted", |place| {
        let host = place.running()?;
        let changelog = place.changelog();
        place.delete(&changelog)?;
        let words = [&*format!("changelog {changelog} was deleted"), "state directories"];
        place.stops(host, &words)?;
        let missing = topics::read(&place.broker, &changelog, Values::Text);
        ensure!(missing.is_err(), "{changelog} was created by a start that was refused");
        // Made anew by somebody else, it still is another one.
        place.topic_tool(&[
            "--create",
            "--topic",
            &changelog,
            "--partitions",
            "2",
            "--replication-factor",
            "1",
            "--config",
            "cleanup.policy=compact",
        ])?;
        place.refuses(&[&format!("changelog {changelog} was deleted and created anew")])?;
        // Without the state directory the committed offsets still tell, whether it is there and empty or is not there.
        std::fs::remove_dir_all(place.folder.join(&place.id))?;
        let words = ["the committed offsets of task", &*changelog, "deleted or made anew"];
        place.refuses(&words)?;
        place.delete(&changelog)?;
        std::fs::remove_dir_all(place.folder.join(&place.id))?;
        place.refuses(&words)
    })
}

#[test]
fn a_changelog_that_deletes_by_age_is_refused() -> Result<()> {
    on_each("changelog-policy", |place| {
        let host = place.running()?;
        let changelog = place.changelog();
        place.tool(
            "kafka.admin.ConfigCommand",
            &[
                "--entity-type",
                "topics",
                "--entity-name",
                &changelog,
                "--alter",
                "--add-config",
                "cleanup.policy=delete,retention.ms=1000",
            ],
        )?;
        let words = [&*format!("internal topic {changelog} cannot be used"), "its cleanup.policy is delete"];
        place.stops(host, &words)
    })
}
