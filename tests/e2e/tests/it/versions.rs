//! A new version while records flow: it takes over with the state, a bad one goes back by itself, one that does not fit
//! changes nothing, and other hosts run what is active without being told. On both brokers, under exactly-once.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::host::{Host, Options, get, request, wait_until};
use e2e::topics::{self, Broker, Record, Values};
use e2e::{kafka, repository};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(60);
const PARTITIONS: u32 = 4;
const KEYS: u64 = 20;

/// An application with the guest whose versions are good and bad.
pub(crate) struct Versions {
    pub(crate) id: String,
    pub(crate) broker: Broker,
    pub(crate) folder: PathBuf,
    produced: u64,
}

impl Versions {
    pub(crate) fn new(broker: Option<Broker>) -> Result<Self> {
        let id = repository::unique("versions");
        let folder = repository::scratch(&id)?;
        let broker = broker.unwrap_or_else(|| Broker::Embedded(folder.join("broker")));
        let versions = Self { id, broker, folder, produced: 0 };
        topics::create(&versions.broker, &versions.topic("in"), PARTITIONS)?;
        topics::create(&versions.broker, &versions.topic("out"), PARTITIONS)?;
        Ok(versions)
    }

    /// Another application on the same broker, with manifests in the same folder.
    pub(crate) fn beside(&self) -> Result<Self> {
        let (id, broker, folder) = (repository::unique("beside"), self.broker.clone(), self.folder.clone());
        let versions = Self { id, broker, folder, produced: 0 };
        topics::create(&versions.broker, &versions.topic("in"), PARTITIONS)?;
        topics::create(&versions.broker, &versions.topic("out"), PARTITIONS)?;
        Ok(versions)
    }

    pub(crate) fn topic(&self, name: &str) -> String {
        format!("{}-{name}", self.id)
    }

    /// A manifest of a module with lines for its `[config]`.
    pub(crate) fn manifest(&self, name: &str, module: &str, config: &str) -> Result<PathBuf> {
        let path = self.folder.join(format!("{name}.toml"));
        let module = repository::guest(module)?;
        let is_other = module.ends_with("versions-other-source.wasm");
        let (source, topic) = if is_other { ("in-renamed", "out") } else { ("in", "in") };
        let text = format!(
            "application.id = \"{}\"\nmodule = \"{}\"\nprovenance = true\n\"probation.ms\" = 60000\n\
             [sources.{source}]\ntopic = \"{}\"\n[sinks.out]\ntopic = \"{}\"\n[config]\n{config}",
            self.id,
            module.display(),
            self.topic(topic),
            self.topic("out"),
        );
        std::fs::write(&path, text)?;
        Ok(path)
    }

    pub(crate) fn host(&self, name: &str, manifest: &Path) -> Result<Host> {
        let state_dir = self.folder.join(name);
        // So that the group does not wait for long for a host that was killed.
        let options = Options::new(manifest, &self.broker, &self.id, &state_dir)
            .set("kafka.consumer.session.timeout.ms", "6000")
            .set("kafka.consumer.heartbeat.interval.ms", "1000");
        Host::start_ready(&options)
    }

    /// Sends each key so many times.
    pub(crate) fn produce(&mut self, times: u64) -> Result<()> {
        let lines: Vec<String> =
            (0..times * KEYS).map(|n| json!({ "key": format!("key{}", n % KEYS), "value": "x" }).to_string()).collect();
        topics::produce(&self.broker, &self.topic("in"), Values::Text, &(lines.join("\n") + "\n"))?;
        self.produced += times;
        Ok(())
    }

    /// Sends one record of a key of its own, after which the host may be gone with its broker.
    pub(crate) fn send_key(&self, key: &str) -> Result<()> {
        let line = json!({ "key": key, "value": "x" }).to_string() + "\n";
        topics::produce(&self.broker, &self.topic("in"), Values::Text, &line)
    }

    /// Sends one record of a key of its own. Returns its partition.
    pub(crate) fn produce_key(&self, key: &str) -> Result<u64> {
        self.send_key(key)?;
        let records = topics::read(&self.broker, &self.topic("in"), Values::Text)?;
        let record = records.iter().find(|record| record.key == key).context("the record is not there")?;
        Ok(record.partition)
    }

    pub(crate) fn sandbar(&self, host: &Host, words: &[&str]) -> Result<Output> {
        let mut command = Command::new(repository::sandbar()?);
        command.current_dir(&self.folder).args(words).args(["--url", &host.url, "-o", "json"]);
        command.output().context("cannot start sandbar")
    }

    /// Deploys by command. The error is what the command says.
    pub(crate) fn deploy(&self, host: &Host, manifest: &Path, more: &[&str]) -> Result<Result<Value, String>> {
        let path = manifest.display().to_string();
        let output = self.sandbar(host, &[&["deploy", "-f", &path], more].concat())?;
        if !output.status.success() {
            return Ok(Err(String::from_utf8_lossy(&output.stderr).into_owned()));
        }
        let text = String::from_utf8(output.stdout)?;
        let last = text.lines().last().context("deploy says nothing")?;
        Ok(Ok(serde_json::from_str(last)?))
    }

    pub(crate) fn version(&self, host: &Host, number: u64) -> Result<Value> {
        let (status, body) = get(&format!("{}/v1/apps/{}/versions/{number}", host.url, self.id))?;
        ensure!(status == 200, "{status} {body}");
        Ok(body)
    }

    /// Waits until all tasks of a host run a version.
    pub(crate) fn wait_running(&self, host: &Host, number: u64) -> Result<()> {
        wait_until(LIMIT, || {
            let version = self.version(host, number)?;
            let tasks = version["tasks"].as_array().context("no tasks")?;
            let runs = !tasks.is_empty() && tasks.iter().all(|task| task["version"] == number);
            ensure!(runs, "not all tasks run version {number}: {version}\n{}", host.log());
            Ok(())
        })
    }

    pub(crate) fn wait_state(&self, host: &Host, number: u64, state: &str) -> Result<Value> {
        wait_until(LIMIT, || {
            let version = self.version(host, number)?;
            ensure!(version["state"] == state, "expected {state}: {version}\n{}", host.log());
            Ok(version)
        })
    }

    /// Waits for an output to every record, and checks that each key counts from one on without a gap. Returns the
    /// versions of the outputs of each key, in order.
    pub(crate) fn outputs(&self) -> Result<BTreeMap<String, Vec<String>>> {
        let mut found = BTreeMap::<String, Vec<String>>::new();
        wait_until(LIMIT, || {
            found.clear();
            for Record { key, value, .. } in topics::read(&self.broker, &self.topic("out"), Values::Json)? {
                let versions = found.entry(key.as_str().context("a key is text")?.to_owned()).or_default();
                versions.push(value["version"].as_str().context("an output has a version")?.to_owned());
                ensure!(value["count"] == versions.len(), "{key} after {} outputs: {value}", versions.len());
            }
            let all: usize = found.values().map(Vec::len).sum();
            ensure!(all as u64 == self.produced * KEYS, "{all} outputs of {} records", self.produced * KEYS);
            Ok(())
        })?;
        Ok(found)
    }
}

pub(crate) fn on_both(run: impl Fn(Versions) -> Result<()>) -> Result<()> {
    run(Versions::new(None)?)?;
    run(Versions::new(Some(kafka::broker()?))?)
}

#[test]
fn a_version_takes_over_live_and_comes_back_after_a_kill() -> Result<()> {
    on_both(|mut versions| {
        let a = versions.manifest("a", "versions", "")?;
        let b = versions.manifest("b", "versions-b", "")?;
        let mut host = versions.host("one", &a)?;
        versions.produce(5)?;
        versions.outputs()?;
        let deployed = versions.deploy(&host, &b, &["--why", "a better one"])?.map_err(|why| anyhow::anyhow!(why))?;
        ensure!(deployed["number"] == 2 && deployed["kind"] == "swap", "{deployed}");
        versions.wait_running(&host, 2)?;
        versions.produce(5)?;
        let outputs = versions.outputs()?;
        let expected: Vec<String> = [vec!["a"; 5], vec!["b"; 5]].concat().into_iter().map(str::to_owned).collect();
        ensure!(outputs.values().all(|versions| *versions == expected), "{outputs:?}");
        ensure!(host.application()?.recycles() == 0, "a swap drops nothing");
        versions.wait_state(&host, 2, "ACTIVE")?;
        versions.wait_state(&host, 1, "SUPERSEDED")?;
        // The same again is no deployment.
        let again = versions.deploy(&host, &b, &[])?.map_err(|why| anyhow::anyhow!(why))?;
        ensure!(again["number"] == 2, "{again}");

        host.kill()?;
        // With the old module in its manifest.
        let host = versions.host("one", &a)?;
        versions.wait_running(&host, 2)?;
        versions.produce(5)?;
        let outputs = versions.outputs()?;
        ensure!(outputs.values().all(|versions| versions[10..].iter().all(|one| one == "b")), "{outputs:?}");

        let back = versions.sandbar(&host, &["rollback", "--why", "by hand"])?;
        ensure!(back.status.success(), "{}", String::from_utf8_lossy(&back.stderr));
        versions.wait_running(&host, 1)?;
        versions.produce(1)?;
        let outputs = versions.outputs()?;
        ensure!(outputs.values().all(|versions| versions[15] == "a"), "{outputs:?}");
        let taken_back = versions.wait_state(&host, 2, "ROLLED_BACK")?;
        ensure!(taken_back["moves"].to_string().contains("by hand"), "{taken_back}");
        Ok(())
    })
}

/// What the bad versions do, each with whether it is found before it takes over.
const BAD: [(&str, bool); 9] = [
    ("trap-in-init", true),
    ("error-in-init", true),
    ("trap-first-record", false),
    ("trap-every-record", false),
    ("error-every-call", false),
    ("refuse-every-record", false),
    ("loop-in-process", false),
    ("sink-out-of-range", false),
    ("output-too-large", false),
];

#[test]
fn a_bad_version_goes_back_by_itself_and_leaves_no_trace() -> Result<()> {
    on_both(|mut versions| {
        let host = versions.host("one", &versions.manifest("a", "versions", "")?)?;
        versions.produce(2)?;
        versions.outputs()?;
        let mut number = 1;
        for (behaviour, is_refused) in BAD {
            let bad =
                versions.manifest(behaviour, "versions", &format!("behaviour = \"{behaviour}\"\nlabel = \"bad\"\n"))?;
            let deployed = versions.deploy(&host, &bad, &[])?;
            if is_refused {
                let refusal = deployed.err().context("it was not refused")?;
                ensure!(refusal.contains("tried on empty stores"), "{behaviour}: {refusal}");
                continue;
            }
            number += 1;
            ensure!(deployed.as_ref().is_ok_and(|version| version["number"] == number), "{behaviour}: {deployed:?}");
            versions.wait_running(&host, number).or_else(|error| {
                // It may be gone already.
                versions.wait_state(&host, number, "ROLLED_BACK").map(|_| ()).context(error)
            })?;
            versions.produce(1)?;
            let version = versions.wait_state(&host, number, "ROLLED_BACK").context(behaviour)?;
            let reason = version["moves"].as_array().and_then(|moves| moves.last()).map(|last| last["reason"].clone());
            ensure!(reason.as_ref().is_some_and(Value::is_string), "{behaviour}: no reason in {version}");
            let outputs = versions.outputs().context(behaviour)?;
            ensure!(outputs.values().flatten().all(|version| version == "a"), "{behaviour}: {outputs:?}");
        }
        Ok(())
    })
}

#[test]
fn what_does_not_fit_is_refused_with_every_point_and_changes_nothing() -> Result<()> {
    on_both(|mut versions| {
        let host = versions.host("one", &versions.manifest("a", "versions", "")?)?;
        versions.produce(2)?;
        versions.outputs()?;
        let before = host.store("counts")?;
        for (module, words) in [
            ("versions-other-source", "keep one of them"),
            ("versions-store-less", "--drop-store last"),
            ("versions-other-format", "utf8"),
            ("versions-higher-schema", "migration"),
        ] {
            let manifest = versions.manifest(module, module, "")?;
            let refusal =
                versions.deploy(&host, &manifest, &[])?.err().with_context(|| format!("{module} was taken"))?;
            ensure!(refusal.contains(words), "{module}: {refusal}");
        }
        let url = format!("{}/v1/apps/{}/versions", host.url, versions.id);
        let (status, body) = request("POST", &url, &[("content-type", "application/wasm")], "no module")?;
        ensure!(status == 422, "{status} {body}");
        let headers = [("content-type", "application/wasm"), ("origin", "http://localhost:1")];
        let (status, body) = request("POST", &url, &headers, "no module")?;
        ensure!(status == 403, "{status} {body}");
        let (_, body) = get(&url)?;
        ensure!(body["versions"].as_array().map(Vec::len) == Some(1), "{body}");
        ensure!(host.store("counts")? == before, "the store has changed");
        versions.produce(1)?;
        versions.outputs()?;
        Ok(())
    })
}

#[test]
fn other_stores_start_the_threads_again_in_the_same_process() -> Result<()> {
    on_both(|mut versions| {
        let host = versions.host("one", &versions.manifest("a", "versions", "")?)?;
        versions.produce(2)?;
        versions.outputs()?;
        let more = versions.manifest("more", "versions-store-more", "label = \"more\"\n")?;
        let deployed = versions.deploy(&host, &more, &[])?.map_err(|why| anyhow::anyhow!(why))?;
        ensure!(deployed["kind"] == "restart", "{deployed}");
        versions.wait_running(&host, 2)?;
        versions.produce(1)?;
        let outputs = versions.outputs()?;
        ensure!(outputs.values().all(|versions| versions == &["a", "a", "more"]), "{outputs:?}");
        let less = versions.manifest("less", "versions-store-less", "label = \"less\"\n")?;
        let dropping = ["--drop-store", "last", "--drop-store", "extra"];
        let deployed = versions.deploy(&host, &less, &dropping)?.map_err(|why| anyhow::anyhow!(why))?;
        ensure!(deployed["kind"] == "restart", "{deployed}");
        versions.wait_running(&host, 3)?;
        versions.produce(1)?;
        let outputs = versions.outputs()?;
        ensure!(outputs.values().all(|versions| versions[3] == "less"), "{outputs:?}");
        Ok(())
    })
}

#[test]
fn one_deployment_reaches_every_host_and_the_one_that_joins_later() -> Result<()> {
    on_both(|mut versions| {
        let a = versions.manifest("a", "versions", "")?;
        let b = versions.manifest("b", "versions-b", "")?;
        let one = versions.host("one", &a)?;
        let two = versions.host("two", &a)?;
        versions.produce(2)?;
        versions.outputs()?;
        versions.deploy(&one, &b, &[])?.map_err(|why| anyhow::anyhow!(why))?;
        for host in [&one, &two] {
            versions.wait_running(host, 2)?;
        }
        let three = versions.host("three", &a)?;
        versions.produce(2)?;
        versions.outputs()?;
        let (_, body) = three.get(&format!("/v1/apps/{}/versions", versions.id))?;
        ensure!(body["running"] == 2, "{body}");
        let outputs = versions.outputs()?;
        ensure!(outputs.values().all(|versions| versions == &["a", "a", "b", "b"]), "{outputs:?}");
        Ok(())
    })
}
