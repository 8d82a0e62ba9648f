//! Writes by REST: they reach the state by way of the processor, on whichever host; who wrote reads what it wrote; and
//! what is not committed is never seen.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use e2e::embedded::EmbeddedBroker;
use e2e::host::{Host, Options, request, wait_until};
use e2e::topics::{self, Broker, Values};
use e2e::{kafka, repository};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(60);
const PARTITIONS: u32 = 9;

/// An application that keeps the last value of every key.
struct Register {
    id: String,
    broker: Broker,
    folder: PathBuf,
    manifest: PathBuf,
}

impl Register {
    fn new(name: &str, broker: Broker) -> Result<Self> {
        let id = repository::unique(name);
        let folder = repository::scratch(&id)?;
        let manifest = folder.join("sandbar.toml");
        let module = repository::guest("register")?;
        std::fs::write(
            &manifest,
            format!(
                "application.id = {id:?}\nmodule = {module:?}\nsources.in.topic = \"{id}-in\"\n\
                 stores.values.write.source = \"in\"\nstores.values.write.conditional = true\n"
            ),
        )?;
        topics::create(&broker, &format!("{id}-in"), PARTITIONS)?;
        Ok(Self { id, broker, folder, manifest })
    }

    fn host(&self, state: &str, commit_interval_ms: u64) -> Result<Host> {
        let state_dir = self.folder.join(state);
        let options = Options::new(&self.manifest, &self.broker, &self.id, &state_dir)
            .set("commit.interval.ms", &commit_interval_ms.to_string());
        Host::start_ready(&options)
    }

    /// The key's address: keys and values are bytes in the module, and text here.
    fn url(&self, host: &Host, key: &str, query: &str) -> String {
        let formats = "key_format=utf8";
        format!("{}/v1/apps/{}/stores/values/keys/{key}?{formats}{query}", host.url, self.id)
    }

    fn put(&self, host: &Host, key: &str, query: &str, headers: &[(&str, &str)], value: &str) -> Result<(u16, Value)> {
        request("PUT", &self.url(host, key, query), headers, value)
    }

    fn get(&self, host: &Host, key: &str, query: &str) -> Result<(u16, Value)> {
        request("GET", &self.url(host, key, &format!("&value_format=utf8{query}")), &[], "")
    }
}

/// Waits until the hosts share all tasks.
fn wait_shared(hosts: &[&Host]) -> Result<()> {
    wait_until(LIMIT, || {
        let tasks: Vec<usize> =
            hosts.iter().map(|host| Ok(host.application()?.running_tasks().len())).collect::<Result<_>>()?;
        ensure!(tasks.iter().sum::<usize>() == PARTITIONS as usize && !tasks.contains(&0), "the hosts run {tasks:?}");
        Ok(())
    })
}

#[test]
fn who_writes_reads_it_on_any_host_and_conditions_have_one_winner() -> Result<()> {
    let register = Register::new("register", kafka::broker()?)?;
    let hosts = [register.host("a", 100)?, register.host("b", 100)?, register.host("c", 100)?];
    let hosts: Vec<&Host> = hosts.iter().collect();
    wait_shared(&hosts)?;
    for number in 0..150 {
        let (key, value) = (format!("k{}", number % 20), format!("v{number}"));
        let (status, written) = register.put(hosts[number % 3], &key, "", &[], &value)?;
        ensure!(status == 202, "{status} {written}");
        let token = written["consistency_token"].as_str().context("no token")?;
        let (status, read) = register.get(hosts[(number + 1) % 3], &key, &format!("&min_position={token}"))?;
        ensure!(status == 200 && read["value"] == *value, "{key} is {value}: {status} {read}");
    }

    // Two writers that saw the same version: the processor lets one of them win.
    let (_, seen) = register.get(hosts[0], "k0", "")?;
    let version = format!("\"{}\"", seen["version"].as_str().context("no version")?);
    let condition = [("If-Match", version.as_str())];
    let mut winners = Vec::new();
    for (host, value) in [(hosts[0], "mine"), (hosts[1], "yours")] {
        let (status, answer) = register.put(host, "k0", "&wait=applied", &condition, value)?;
        ensure!(status == 200 && answer["applied"] == true, "{status} {answer}");
        let (_, now) = register.get(host, "k0", "")?;
        winners.push(now["value"].clone());
    }
    ensure!(winners == [json!("mine"), json!("mine")], "the first one wins and stays: {winners:?}");

    // The same write, sent to every host, is one record.
    let before = topics::read(&register.broker, &format!("{}-in", register.id), Values::Text)?.len();
    for host in &hosts {
        let (status, answer) = register.put(host, "once", "", &[("Idempotency-Key", "once-1")], "1")?;
        ensure!(status == 202, "{status} {answer}");
    }
    let after = topics::read(&register.broker, &format!("{}-in", register.id), Values::Text)?.len();
    ensure!(after == before + 1, "{} records of one write", after - before);

    let (status, answer) = request("DELETE", &register.url(hosts[2], "once", "&wait=applied"), &[], "")?;
    ensure!(status == 200 && answer["entry"].is_null(), "{status} {answer}");
    let (status, answer) = register.get(hosts[0], "once", "")?;
    ensure!(status == 404, "{status} {answer}");
    Ok(())
}

#[test]
fn what_is_not_committed_is_never_seen() -> Result<()> {
    const INTERVAL: Duration = Duration::from_secs(4);
    let register = Register::new("uncommitted", kafka::broker()?)?;
    let host = register.host("a", INTERVAL.as_millis() as u64)?;
    let (status, first) = register.put(&host, "k", "&wait=applied&timeout_ms=10000", &[], "committed")?;
    ensure!(status == 200, "{status} {first}");
    // A commit has just been; the next one is an interval away.
    let begun = Instant::now();
    let (_, second) = register.put(&host, "k", "", &[], "open")?;
    let token = second["consistency_token"].as_str().context("no token")?;
    let processed =
        || -> Result<u64> { Ok(host.application()?.body["records_processed"].as_u64().unwrap_or_default()) };
    let (mut seen_processed, mut asked) = (false, 0);
    while begun.elapsed() < INTERVAL / 2 {
        let (status, read) = register.get(&host, "k", "")?;
        ensure!(status == 200 && read["value"] == "committed", "an uncommitted value was shown: {status} {read}");
        let (status, refused) = register.get(&host, "k", &format!("&min_position={token}&timeout_ms=0"))?;
        ensure!(status == 412, "a position that is not committed: {status} {refused}");
        seen_processed |= processed()? >= 2;
        asked += 1;
    }
    ensure!(asked > 10, "asked {asked} times only");
    println!("asked {asked} times; the record was processed meanwhile: {seen_processed}");
    let (status, read) = register.get(&host, "k", &format!("&min_position={token}&timeout_ms=20000"))?;
    ensure!(status == 200 && read["value"] == "open", "{status} {read}");
    Ok(())
}

#[test]
fn the_majority_vote_takes_reports_by_rest() -> Result<()> {
    let folder = repository::scratch(&repository::unique("vote-rest"))?;
    let broker = EmbeddedBroker::start(Path::new(&folder), &[])?;
    let (broker, id) = (broker.by_address(), repository::unique("vote-rest"));
    let manifest = repository::example("majority-vote").join("sandbar.toml");
    let mut options = Options::new(&manifest, &broker, &id, &folder);
    for (kind, name) in [("sources", "reports"), ("sinks", "votes"), ("sinks", "summaries")] {
        topics::create(&broker, &format!("{id}-{name}"), 3)?;
        options = options.set(&format!("{kind}.{name}.topic"), &format!("{id}-{name}"));
    }
    let state_dir = folder.join("state");
    let host = Host::start_ready(&Options { state_dir: &state_dir, ..options })?;
    let url = format!("{}/v1/apps/{id}/stores/latest/keys/fog?wait=applied", host.url);
    for (agent, state, at_ms) in [("EWR", true, 10), ("JFK", true, 20), ("EWR", false, 30)] {
        let report = json!({ "agent": agent, "state": state, "at_ms": at_ms }).to_string();
        let (status, answer) = request("PUT", &url, &[], &report)?;
        ensure!(status == 200 && answer["entry"]["value"][agent]["at_ms"] == at_ms, "{status} {answer}");
    }
    let votes = topics::read(&broker, &format!("{id}-votes"), Values::Json)?;
    let last = &votes.last().context("no vote went out")?.value;
    ensure!((&last["yes"], &last["agents"]) == (&json!(1), &json!(2)), "the vote on it, as of any report: {last}");
    let (status, answer) = request("DELETE", &url, &[], "")?;
    ensure!(status == 200 && answer["entry"].is_null(), "{status} {answer}");
    let (status, _) = request("GET", url.trim_end_matches("?wait=applied"), &[], "")?;
    ensure!(status == 404, "{status}");
    Ok(())
}
