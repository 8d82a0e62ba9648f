//! The counting application that several tests run on several hosts, with a model of what it must have counted.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::host::{Host, Options, wait_committed, wait_until};
use e2e::repository;
use e2e::topics::{self, Broker, Values};
use serde_json::{Value, json};

pub const LIMIT: Duration = Duration::from_secs(90);

/// An application that counts records by key, on some hosts.
pub struct Count {
    pub id: String,
    pub broker: Broker,
    pub partitions: u32,
    folder: PathBuf,
    manifest: PathBuf,
    /// How often each key was produced.
    pub model: BTreeMap<String, u64>,
}

impl Count {
    pub fn new(name: &str, broker: Broker, partitions: u32) -> Result<Self> {
        let id = repository::unique(name);
        let folder = repository::scratch(&id)?;
        let manifest = repository::example("carrier-count").join("sandbar.toml");
        let count = Self { id, broker, partitions, folder, manifest, model: BTreeMap::new() };
        for topic in ["flights", "totals"] {
            topics::create(&count.broker, &count.topic(topic), partitions)?;
        }
        Ok(count)
    }

    pub fn topic(&self, name: &str) -> String {
        format!("{}-{name}", self.id)
    }

    /// Starts the host of a state directory.
    pub fn host(&self, state: &str, standbys: u32) -> Result<Host> {
        let state_dir = self.folder.join(state);
        let options = Options::new(&self.manifest, &self.broker, &self.id, &state_dir)
            .set("sources.flights.topic", &self.topic("flights"))
            .set("sinks.totals.topic", &self.topic("totals"))
            .set("num.standby.replicas", &standbys.to_string())
            // A killed host is noticed after the shortest time that brokers allow.
            .set("kafka.consumer.session.timeout.ms", "6000")
            .set("kafka.consumer.heartbeat.interval.ms", "1000");
        Host::start_ready(&options)
    }

    /// Counts each of so many keys so many times more in the model. Returns the records that do it.
    pub fn more(&mut self, keys: usize, times: usize) -> String {
        let mut lines = String::new();
        for index in 0..times * keys {
            let key = format!("key{}", index % keys);
            lines += &(json!({ "key": key, "value": "flight" }).to_string() + "\n");
            *self.model.entry(key).or_default() += 1;
        }
        lines
    }

    pub fn produce(&self, lines: &str) -> Result<()> {
        topics::produce(&self.broker, &self.topic("flights"), Values::Text, lines)
    }

    pub fn produced(&self) -> u64 {
        self.model.values().sum()
    }

    /// Waits until the hosts run all tasks and have committed everything.
    pub fn wait_processed(&self, hosts: &[&Host]) -> Result<()> {
        wait_until(LIMIT, || {
            let running: usize = tasks_of(hosts)?.iter().map(BTreeSet::len).sum();
            ensure!(running == self.partitions as usize, "{running} tasks run");
            Ok(())
        })?;
        wait_committed(hosts, &self.topic("flights"), self.produced(), LIMIT)
    }

    /// Every count was told once, in order, and the store of the one host that is left has the last ones.
    pub fn check(&self, host: &Host) -> Result<()> {
        let mut told: BTreeMap<String, Vec<u64>> = BTreeMap::new();
        // What the killed host had sent of an open transaction hides later records until the broker gives that up.
        let records = wait_until(Duration::from_secs(40), || {
            let records = topics::read(&self.broker, &self.topic("totals"), Values::I64)?;
            ensure!(records.len() as u64 >= self.produced(), "{} of {} counts", records.len(), self.produced());
            Ok(records)
        })?;
        for record in records {
            let key = record.key.as_str().with_context(|| format!("{record:?} has no text as key"))?;
            told.entry(key.to_owned()).or_default().push(record.value.as_u64().context("the value is no number")?);
        }
        ensure!(told.len() == self.model.len(), "{} of {} keys were counted", told.len(), self.model.len());
        for (key, counts) in told {
            let expected: Vec<u64> = (1..=self.model[&key]).collect();
            ensure!(counts == expected, "{key}: {counts:?} instead of 1 to {}", self.model[&key]);
        }
        let store: BTreeMap<String, Value> =
            self.model.iter().map(|(key, count)| (key.clone(), json!(count))).collect();
        ensure!(host.store("counts")? == store, "the store is not what was counted");
        Ok(())
    }
}

/// The running tasks of each host.
pub fn tasks_of(hosts: &[&Host]) -> Result<Vec<BTreeSet<String>>> {
    hosts.iter().map(|host| Ok(host.application()?.running_tasks())).collect()
}
