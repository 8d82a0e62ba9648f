//! Several applications in one process: each counts right, through kills too, and one whose module traps is ERRORED
//! with its reason while the other goes on.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use e2e::embedded::EmbeddedBroker;
use e2e::host::{Host, Options, wait_until};
use e2e::topics::{self, Broker, Values};
use e2e::{kafka, repository};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(90);
const PARTITIONS: u32 = 2;

/// Applications in one folder, with a manifest each.
struct Place {
    folder: PathBuf,
    broker: Broker,
    manifests: Vec<PathBuf>,
}

/// An application that counts records by key, and what it must have counted.
struct Counting {
    id: String,
    model: BTreeMap<String, u64>,
}

impl Place {
    fn new(name: &str, broker: Option<Broker>) -> Result<Self> {
        let folder = repository::scratch(&repository::unique(name))?;
        let broker = broker.unwrap_or_else(|| Broker::Embedded(folder.join("broker")));
        Ok(Self { folder, broker, manifests: Vec::new() })
    }

    /// Adds the manifest of a test guest, whose topics have the id in front of their names.
    fn add(&mut self, id: &str, guest: &str, topics: &[(&str, &str)]) -> Result<PathBuf> {
        let mut text = format!("application.id = {id:?}\nmodule = {:?}\n", repository::guest(guest)?);
        // A killed host is noticed after the shortest time that brokers allow.
        text += "kafka.\"consumer.session.timeout.ms\" = 6000\nkafka.\"consumer.heartbeat.interval.ms\" = 1000\n";
        for (table, name) in topics {
            text += &format!("{table}.{name}.topic = \"{id}-{name}\"\n");
            topics::create(&self.broker, &format!("{id}-{name}"), PARTITIONS)?;
        }
        let path = self.folder.join(format!("{id}.toml"));
        fs::write(&path, text)?;
        self.manifests.push(path.clone());
        Ok(path)
    }

    fn counting(&mut self, name: &str) -> Result<Counting> {
        let id = repository::unique(name);
        self.add(&id, "count", &[("sources", "in"), ("sinks", "out")])?;
        Ok(Counting { id, model: BTreeMap::new() })
    }

    /// An application that does what its records say.
    fn probe(&mut self) -> Result<String> {
        let id = repository::unique("probe");
        self.add(&id, "probe", &[("sources", "commands"), ("sinks", "answers")])?;
        Ok(id)
    }

    fn state_dir(&self) -> PathBuf {
        self.folder.join("state")
    }

    fn host(&self) -> Result<Host> {
        Host::start(&Options::several(&self.manifests, &self.broker, &self.state_dir()))
    }
}

impl Counting {
    /// Counts each of some keys so many times more.
    fn produce(&mut self, broker: &Broker, times: usize) -> Result<()> {
        let mut lines = String::new();
        for index in 0..times * 7 {
            let key = format!("{}-{}", self.id, index % 7);
            lines += &(json!({ "key": key, "value": "x" }).to_string() + "\n");
            *self.model.entry(key).or_default() += 1;
        }
        topics::produce(broker, &format!("{}-in", self.id), Values::Text, &lines)
    }

    /// Waits until the store has exactly what was produced, and nothing of another application.
    fn wait_counted(&self, host: &Host) -> Result<()> {
        let expected: BTreeMap<String, Value> = self.model.iter().map(|(key, n)| (key.clone(), json!(n))).collect();
        wait_until(LIMIT, || {
            let found = host.entries_of(&self.id, "counts", "")?;
            ensure!(found == expected, "{}: {found:?} instead of {expected:?}\n{}", self.id, host.log());
            Ok(())
        })
    }

    /// Every count was told once, in order.
    fn check_outputs(&self, broker: &Broker) -> Result<()> {
        let produced: u64 = self.model.values().sum();
        let records = wait_until(Duration::from_secs(40), || {
            let records = topics::read(broker, &format!("{}-out", self.id), Values::I64)?;
            ensure!(records.len() as u64 == produced, "{} of {produced} counts of {}", records.len(), self.id);
            Ok(records)
        })?;
        let mut told: BTreeMap<String, u64> = BTreeMap::new();
        for record in records {
            let count = told.entry(record.key.as_str().context("a text")?.to_owned()).or_default();
            *count += 1;
            ensure!(record.value == json!(*count), "{:?} instead of {count}", record);
        }
        ensure!(told == self.model, "{told:?} instead of {:?}", self.model);
        Ok(())
    }
}

fn both_brokers() -> Result<[Option<Broker>; 2]> {
    Ok([None, Some(kafka::broker()?)])
}

#[test]
fn two_applications_of_a_process_count_right_through_a_kill_and_a_clean_end() -> Result<()> {
    for broker in both_brokers()? {
        let mut place = Place::new("applications", broker)?;
        let mut applications = [place.counting("first")?, place.counting("second")?];
        for application in &mut applications {
            application.produce(&place.broker, 50)?;
        }
        let mut host = place.host()?;
        host.wait_ready(LIMIT)?;
        for application in &mut applications {
            application.wait_counted(&host)?;
        }
        let [first, second] = &mut applications;
        first.produce(&place.broker, 200)?;
        second.produce(&place.broker, 300)?;
        host.kill()?;

        let mut host = place.host()?;
        host.wait_ready(LIMIT)?;
        for application in &mut applications {
            application.produce(&place.broker, 10)?;
            application.wait_counted(&host)?;
        }
        for application in &applications {
            let folder = place.state_dir().join(&application.id);
            ensure!(folder.is_dir(), "{} is not there", folder.display());
        }
        let asked = Instant::now();
        let status = host.terminate()?;
        ensure!(status.success() && asked.elapsed() < Duration::from_secs(15), "{status}\n{}", host.log());
        for application in &applications {
            let ended = format!("[{}] stopped (told to)", application.id);
            ensure!(host.log().contains(&ended), "`{ended}` is missing in:\n{}", host.log());
        }
        let committed = host.log().matches("everything committed").count();
        ensure!(committed == 2, "{committed} of 2 committed everything:\n{}", host.log());
        // The embedded broker ended with the host; the next command starts it again.
        for application in &applications {
            application.check_outputs(&place.broker)?;
        }
    }
    Ok(())
}

/// Files below a folder that a process has open.
fn open_files(process: u32, folder: &Path) -> Result<Vec<PathBuf>> {
    let mut open = Vec::new();
    for entry in fs::read_dir(format!("/proc/{process}/fd"))? {
        // It may be closed meanwhile.
        let Ok(target) = fs::read_link(entry?.path()) else { continue };
        if target.starts_with(folder) {
            open.push(target);
        }
    }
    Ok(open)
}

/// How many threads of a process have this name.
fn threads_named(process: u32, name: &str) -> Result<usize> {
    let mut found = 0;
    for entry in fs::read_dir(format!("/proc/{process}/task"))? {
        let name_of_it = fs::read_to_string(entry?.path().join("comm")).unwrap_or_default();
        found += usize::from(name_of_it.trim() == name);
    }
    Ok(found)
}

#[test]
fn one_that_traps_is_errored_and_the_other_goes_on() -> Result<()> {
    for broker in both_brokers()? {
        let mut place = Place::new("errored", broker)?;
        let probe = place.probe()?;
        let mut counting = place.counting("victim")?;
        let mut host = place.host()?;
        host.wait_ready(LIMIT)?;
        counting.produce(&place.broker, 20)?;
        counting.wait_counted(&host)?;
        // Some libraries name threads after those that made them.
        let threads = threads_named(host.process_id(), "stream-0")?;
        ensure!(threads >= 2, "{threads} stream threads");
        let state = place.state_dir().join(&probe).canonicalize()?;
        ensure!(!open_files(host.process_id(), &state)?.is_empty(), "the probe has its state open");

        let command = json!({ "key": "panic", "value": "on purpose" }).to_string();
        topics::produce(&place.broker, &format!("{probe}-commands"), Values::Text, &command)?;
        let error = wait_until(LIMIT, || {
            let shown = host.application_of(&probe)?.body;
            ensure!(shown["state"] == json!("ERRORED"), "{shown}");
            Ok(shown["error"].as_str().context("a reason")?.to_owned())
        })?;
        for word in [format!("{probe}-commands-"), "offset 0".to_owned()] {
            ensure!(error.contains(&word), "`{word}` is missing in {error}");
        }
        let (_, apps) = host.get("/v1/apps")?;
        let listed = json!([
            { "id": probe, "state": "ERRORED", "error": error },
            { "id": counting.id, "state": "running" },
        ]);
        ensure!(apps["apps"] == listed, "{apps}");
        check_health(&host, &probe, &counting.id)?;
        // What it held is free, and the other one has kept its own.
        wait_until(LIMIT, || {
            let open = open_files(host.process_id(), &state)?;
            ensure!(open.is_empty(), "still open: {open:?}");
            let left = threads_named(host.process_id(), "stream-0")?;
            ensure!((1..threads).contains(&left), "{left} of {threads} threads are left");
            Ok(())
        })?;

        counting.produce(&place.broker, 100)?;
        counting.wait_counted(&host)?;
        let status = host.terminate()?;
        ensure!(status.code() == Some(1), "{status}\n{}", host.log());
        let log = host.log();
        ensure!(log.contains(&format!("[{}] stopped (told to)", counting.id)), "{log}");
        let (_, summary) = log.split_once("error: 1 of 2 applications failed").context("a summary")?;
        ensure!(summary.contains(&format!("{probe} (")) && !summary.contains(&counting.id), "{summary}");
        counting.check_outputs(&place.broker)?;
    }
    Ok(())
}

/// The host lives; it is not ready, with the name of the one that failed; the other one is.
fn check_health(host: &Host, failed: &str, other: &str) -> Result<()> {
    ensure!(host.get("/livez")?.0 == 200);
    let (status, body) = host.get("/readyz")?;
    let detail = body["detail"].as_str().unwrap_or_default();
    ensure!(status == 503 && detail.starts_with(&format!("{failed}: ERRORED: ")), "{status} {body}");
    ensure!(!detail.contains(other), "{detail}");
    ensure!(host.get(&format!("/readyz?app={other}"))?.0 == 200);
    let (_, metrics) = host.get("/metrics")?;
    let metrics = metrics.as_str().context("text")?;
    for sample in [format!("sandbar_ready{{app=\"{failed}\"}} 0"), format!("sandbar_ready{{app=\"{other}\"}} 1")] {
        ensure!(metrics.contains(&sample), "{sample} is missing in {metrics}");
    }
    Ok(())
}

#[test]
fn one_whose_broker_is_away_holds_up_nobody() -> Result<()> {
    let mut place = Place::new("broker-away", None)?;
    let broker = EmbeddedBroker::start(&place.folder.join("broker"), &[])?;
    let mut counting = place.counting("near")?;
    counting.produce(&place.broker, 5)?;
    let near = fs::read_to_string(&place.manifests[0])?;
    fs::write(&place.manifests[0], format!("bootstrap.servers = {:?}\n{near}", broker.address))?;
    let away = place.folder.join("away.toml");
    let settings = "application.id = \"away\"\nbootstrap.servers = \"127.0.0.1:1\"\ndefault.api.timeout.ms = 8000\n";
    fs::write(&away, format!("{settings}module = {:?}\n", repository::guest("count")?))?;
    place.manifests.insert(0, away);

    let state_dir = place.state_dir();
    let nowhere = Broker::OfManifest;
    let mut host = Host::start(&Options::several(&place.manifests, &nowhere, &state_dir))?;
    counting.wait_counted(&host)?;
    let state = host.application_of("away")?.body["state"].clone();
    ensure!(state == json!("starting"), "{state}");
    wait_until(LIMIT, || {
        let shown = host.application_of("away")?.body;
        ensure!(shown["state"] == json!("ERRORED"), "{shown}");
        ensure!(shown["error"].as_str().is_some_and(|error| error.contains("127.0.0.1:1")), "{shown}");
        Ok(())
    })?;
    counting.produce(&place.broker, 5)?;
    counting.wait_counted(&host)?;
    let status = host.terminate()?;
    ensure!(status.code() == Some(3), "the code that its failure would have had alone: {status}\n{}", host.log());
    Ok(())
}
