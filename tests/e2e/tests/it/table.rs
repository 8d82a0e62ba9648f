//! Topics served as tables, without a module: every flight of 2013 from two hosts of which one is killed, and what
//! makes a table: tombstones, records without a key, backends, copies, and the refusals of what cannot be one.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use e2e::embedded::EmbeddedBroker;
use e2e::flights::Flights;
use e2e::host::{Host, Options, wait_committed, wait_until};
use e2e::topics::{self, Broker, Values};
use e2e::{kafka, repository};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(90);
const PARTITIONS: u32 = 4;

/// An application that serves topics, on some hosts.
struct Tables {
    id: String,
    broker: Broker,
    folder: PathBuf,
    manifest: PathBuf,
}

impl Tables {
    /// `manifest` is what follows the application id; `{id}` in it stands for that.
    fn new(name: &str, broker: Broker, manifest: &str) -> Result<Self> {
        let id = repository::unique(name);
        let folder = repository::scratch(&id)?;
        let path = folder.join("sandbar.toml");
        fs::write(&path, format!("application.id = \"{id}\"\n{}", manifest.replace("{id}", &id)))?;
        Ok(Self { id, broker, folder, manifest: path })
    }

    fn topic(&self, name: &str) -> String {
        format!("{}-{name}", self.id)
    }

    fn start(&self, state: &str, standbys: u32) -> Result<Host> {
        let state_dir = self.folder.join(state);
        let options = Options::new(&self.manifest, &self.broker, &self.id, &state_dir)
            .set("num.standby.replicas", &standbys.to_string())
            // Bytes that a killed host had not made durable are read again; a minute's worth would hide what is not.
            .set("statestore.flush.interval.ms", "500")
            .set("kafka.consumer.session.timeout.ms", "6000")
            .set("kafka.consumer.heartbeat.interval.ms", "1000");
        Host::start_ready(&options)
    }

    fn produce(&self, topic: &str, lines: &str) -> Result<()> {
        topics::produce(&self.broker, &self.topic(topic), Values::Json, lines)
    }

    /// What a host answers for one key; `None` where it is nowhere.
    fn get(&self, host: &Host, store: &str, key: &str) -> Result<Option<Value>> {
        wait_until(LIMIT, || match host.get(&format!("/v1/apps/{}/stores/{store}/keys/{key}", self.id))? {
            (200, body) => Ok(Some(body["value"].clone())),
            (404, _) => Ok(None),
            (status, body) => Err(anyhow::anyhow!("{key} of {store}: {status} {body}")),
        })
    }

    /// Waits until a key has this value, or is gone.
    fn wait_value(&self, host: &Host, store: &str, key: &str, value: Option<&Value>) -> Result<()> {
        wait_until(LIMIT, || {
            let found = self.get(host, store, key)?;
            ensure!(found.as_ref() == value, "{key} of {store} is {found:?} instead of {value:?}");
            Ok(())
        })
    }
}

fn line(key: &str, value: &Value) -> String {
    json!({ "key": key, "value": value }).to_string() + "\n"
}

fn dropped(host: &Host) -> Result<u64> {
    let (_, metrics) = host.get("/metrics")?;
    let text = metrics.as_str().context("the metrics are text")?;
    let values = text.lines().filter(|line| line.starts_with("sandbar_dropped_records_total"));
    Ok(values.filter_map(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok()).sum())
}

/// Both tables of the flights, whole by pages and some keys one by one.
fn check_flights(tables: &Tables, host: &Host, model: &[(&str, BTreeMap<String, Value>)]) -> Result<()> {
    for (store, expected) in model {
        let found = host.store(store)?;
        ensure!(found.len() == expected.len(), "{store}: {} entries instead of {}", found.len(), expected.len());
        ensure!(found == *expected, "{store}: some entries are not those of the file");
        for (key, value) in expected.iter().step_by(expected.len() / 50) {
            let found = tables.get(host, store, key)?;
            ensure!(found.as_ref() == Some(value), "{key} of {store}: {found:?} instead of {value}");
        }
    }
    Ok(())
}

/// Waits until the hosts run all tasks, evenly.
fn wait_shared(hosts: &[&Host], tasks: usize) -> Result<()> {
    wait_until(LIMIT, || {
        for host in hosts {
            let running = host.application()?.running_tasks().len();
            ensure!(running == tasks / hosts.len(), "{} runs {running} of {tasks} tasks", host.url);
        }
        Ok(())
    })
}

#[test]
fn every_flight_is_found_on_real_kafka() -> Result<()> {
    let manifest = "[table.flights]\ntopic = \"{id}-flights\"\nvalue.format = \"json\"\n\
                    [table.aircraft]\ntopic = \"{id}-aircraft\"\nvalue.format = \"json\"\n";
    let tables = Tables::new("table-flights", kafka::broker()?, manifest)?;
    let flights = Flights::read()?;
    ensure!(flights.len() == 336_776 && flights.without_tail_number() == 2_512);
    topics::create(&tables.broker, &tables.topic("flights"), PARTITIONS)?;
    // A compacted topic takes no record without a key.
    topics::create(&tables.broker, &tables.topic("aircraft"), PARTITIONS)?;
    tables.produce("flights", &flights.lines_by_id())?;
    tables.produce("aircraft", &flights.lines_by_tail_number())?;
    let mut model = [("flights", flights.by_id()), ("aircraft", flights.by_tail_number())];

    let started = Instant::now();
    let mut first = tables.start("first", 0)?;
    let restored = first.application()?.records_restored();
    println!("{}: ready after {:.1} s with {restored} records", tables.id, started.elapsed().as_secs_f64());
    ensure!(restored == 2 * 336_776 - 2_512, "{restored} records were loaded");
    ensure!(dropped(&first)? == 2_512, "records without a key are counted");
    ensure!(first.log().contains("records without a key are left out"), "{}", first.log());
    check_flights(&tables, &first, &model)?;

    // Two hosts share the partitions; either answers for all. One is killed.
    let mut second = tables.start("second", 0)?;
    wait_shared(&[&first, &second], 8)?;
    check_flights(&tables, &first, &model)?;
    check_flights(&tables, &second, &model)?;
    second.kill()?;
    wait_shared(&[&first], 8)?;
    check_flights(&tables, &first, &model)?;

    // What has come since a host ended is all that it reads.
    ensure!(first.terminate()?.success(), "{}", first.log());
    let changed: Vec<String> = model[0].1.keys().step_by(337).cloned().collect();
    let value = json!({ "carrier": "new" });
    let lines: String = changed.iter().map(|key| line(key, &value)).collect();
    tables.produce("flights", &lines)?;
    model[0].1.extend(changed.iter().map(|key| (key.clone(), value.clone())));
    let started = Instant::now();
    let first = tables.start("first", 0)?;
    let restored = first.application()?.records_restored();
    println!("{}: ready again after {:.1} s with {restored} records", tables.id, started.elapsed().as_secs_f64());
    ensure!(restored == changed.len() as u64, "{restored} records were read instead of {}", changed.len());
    check_flights(&tables, &first, &model)
}

/// Puts, overwrites, deletes; a compacted topic and a plain one; a restart with the state and without it.
fn deletes_are_deletes(broker: Broker) -> Result<()> {
    let manifest = "[table.compacted]\ntopic = \"{id}-compacted\"\nvalue.format = \"json\"\n\
                    [table.plain]\ntopic = \"{id}-plain\"\nvalue.format = \"json\"\n";
    let tables = Tables::new("table-deletes", broker, manifest)?;
    topics::create_compacted(&tables.broker, &tables.topic("compacted"), PARTITIONS)?;
    topics::create(&tables.broker, &tables.topic("plain"), PARTITIONS)?;
    let before: String = (0..200).map(|number| line(&format!("k{number}"), &json!(1))).collect();
    let after: String = (0..200).map(|number| line(&format!("k{}", number * 2), &Value::Null)).collect();
    let names = ["compacted", "plain"];
    for name in names {
        tables.produce(name, &before)?;
    }
    let mut host = tables.start("state", 0)?;
    for name in names {
        tables.wait_value(&host, name, "k10", Some(&json!(1)))?;
        tables.produce(name, &(line("k1", &json!(2)) + &after))?;
    }
    let expected: BTreeMap<String, Value> =
        (0..200).filter(|n| n % 2 == 1).map(|n| (format!("k{n}"), json!(if n == 1 { 2 } else { 1 }))).collect();
    for name in names {
        tables.wait_value(&host, name, "k198", None)?;
        tables.wait_value(&host, name, "k1", Some(&json!(2)))?;
        wait_committed(&[&host], &tables.topic(name), 401, LIMIT)?;
        ensure!(host.store(name)? == expected, "{name}: {:?}", host.store(name)?);
    }
    ensure!(host.terminate()?.success(), "{}", host.log());
    let mut host = tables.start("state", 0)?;
    ensure!(host.application()?.records_restored() == 0, "a clean end leaves nothing to read");
    for name in names {
        ensure!(host.store(name)? == expected, "{name} after a restart");
    }
    host.kill()?;
    let host = tables.start("another", 0)?;
    for name in names {
        ensure!(host.store(name)? == expected, "{name} from the topic alone");
    }
    Ok(())
}

#[test]
fn deletes_are_deletes_on_the_embedded_broker() -> Result<()> {
    let folder = repository::scratch(&repository::unique("table-broker"))?;
    let broker = EmbeddedBroker::start(&folder, &[])?;
    deletes_are_deletes(broker.by_address())
}

#[test]
fn deletes_are_deletes_on_real_kafka() -> Result<()> {
    deletes_are_deletes(kafka::broker()?)
}

#[test]
fn a_copy_on_another_host_answers_and_takes_over() -> Result<()> {
    let manifest = "[table.kept]\ntopic = \"{id}-kept\"\nvalue.format = \"json\"\n";
    let tables = Tables::new("table-standby", kafka::broker()?, manifest)?;
    topics::create(&tables.broker, &tables.topic("kept"), PARTITIONS)?;
    let lines: String = (0..1000).map(|number| line(&format!("k{number}"), &json!(number))).collect();
    tables.produce("kept", &lines)?;
    let (first, mut second) = (tables.start("first", 1)?, tables.start("second", 1)?);
    wait_shared(&[&first, &second], 4)?;
    wait_until(LIMIT, || {
        for (host, other) in [(&first, &second), (&second, &first)] {
            let (warm, active) = (host.application()?.following_tasks(), other.application()?.running_tasks());
            ensure!(warm == active, "{warm:?} are warm instead of {active:?}");
        }
        Ok(())
    })?;
    let restored = first.application()?.records_restored();
    second.kill()?;
    // Long before the group has noticed: half of the partitions are answered for by copies.
    for number in (0..1000).step_by(10) {
        let path = format!("/v1/apps/{}/stores/kept/keys/k{number}?standby=true&max_lag=0", tables.id);
        let (status, body) = first.get(&path)?;
        ensure!(status == 200 && body["value"] == json!(number), "k{number}: {status} {body}");
    }
    wait_shared(&[&first], 4)?;
    ensure!(first.application()?.records_restored() == restored, "the copies had everything: {}", first.log());
    tables.produce("kept", &line("k7", &json!("new")))?;
    tables.wait_value(&first, "kept", "k7", Some(&json!("new")))?;
    ensure!(first.store("kept")?.len() == 1000);
    Ok(())
}

#[test]
fn topics_are_served_by_the_command_alone() -> Result<()> {
    let folder = repository::scratch(&repository::unique("serve-topic"))?;
    let broker = EmbeddedBroker::start(&folder.join("broker"), &[])?;
    let address = broker.by_address();
    let (id, state) = (repository::unique("served"), folder.join("state"));
    for topic in ["notes", "numbers"] {
        topics::create(&address, topic, 2)?;
    }
    topics::produce(&address, "notes", Values::Text, "{\"key\":\"a\",\"value\":\"Hello\"}\n{\"value\":\"no key\"}\n")?;
    topics::produce(&address, "numbers", Values::I64, "{\"key\":\"a\",\"value\":42}\n")?;
    let start = || {
        let options = Options::serving(&["notes", "numbers"], &address, &id, &state)
            .flag("--backend=memory")
            .set("table.numbers.value.format", "i64");
        Host::start_ready(&options)
    };
    let mut host = start()?;
    let get = |host: &Host, path: &str| host.get(&format!("/v1/apps/{id}/stores/{path}"));
    ensure!(get(&host, "notes/keys/a")?.1["value"] == json!("Hello"));
    ensure!(get(&host, "numbers/keys/a")?.1["value"] == json!(42));
    ensure!(get(&host, "notes/keys/b")?.0 == 404);
    ensure!(dropped(&host)? == 1, "one record has no key");
    let application = host.application()?.body;
    ensure!(application["table"] == json!(true) && application["module"].is_null(), "{application}");
    let store = &application["topology"][0]["stores"][0];
    ensure!(store["backend"] == "memory" && store["source_backed"] == json!(true), "{store}");
    ensure!(host.log().contains("serving topic notes at http://"), "{}", host.log());
    // What is in memory comes from the topic at each start.
    ensure!(host.terminate()?.success(), "{}", host.log());
    let host = start()?;
    ensure!(host.application()?.records_restored() == 2, "both records with a key are read again");
    ensure!(get(&host, "notes/keys/a")?.1["value"] == json!("Hello"));
    let found = topics::run(&address, "list", &[], "")?;
    let list = String::from_utf8(found.stdout)?;
    ensure!(!list.contains("changelog"), "nothing is made for a table:\n{list}");
    Ok(())
}

/// A start that must fail: its exit code, and words of its message.
fn fails(options: &Options<'_>, code: i32, words: &[&str]) -> Result<()> {
    let mut host = Host::start(options)?;
    let status = host.wait(Duration::from_secs(60))?;
    let log = host.log();
    ensure!(status.code() == Some(code), "{status}:\n{log}");
    for word in words {
        ensure!(log.contains(word), "`{word}` is missing in:\n{log}");
    }
    Ok(())
}

#[test]
fn what_cannot_be_a_table_is_refused() -> Result<()> {
    let folder = repository::scratch(&repository::unique("table-bad"))?;
    let (embedded, real) = (Broker::Embedded(folder.join("broker")), kafka::broker()?);
    let (id, state, nowhere) = (repository::unique("bad"), folder.join("state"), repository::unique("nowhere"));
    for (broker, state) in [(&embedded, &state), (&real, &folder.join("state-of-kafka"))] {
        let missing = Options::serving(&[&nowhere], broker, &id, state);
        fails(&missing, 1, &[&nowhere, "do not exist"])?;
    }
    fails(&Options::serving(&["t"], &embedded, &id, &state).flag("--backend=disk"), 2, &["--backend disk", "rocksdb"])?;
    fails(&Options::serving(&["t"], &embedded, &id, &state).flag("--value-format=avro"), 2, &["avro", "utf8"])?;
    fails(&Options::serving(&["t", "t"], &embedded, &id, &state), 2, &["topic t is named twice"])?;
    fails(&Options::serving(&["no/topic"], &embedded, &id, &state), 2, &["no/topic"])?;
    for (manifest, words) in [
        ("module = \"a.wasm\"\n[table.t]\n", &["sandbar.toml:2:1", "a module or tables"][..]),
        ("[table.t]\n[table.t]\n", &["sandbar.toml:3:", "not valid TOML"]),
        ("[table.t]\n[table.u]\ntopic = \"t\"\n", &["sandbar.toml:4:1", "served by table.t already"]),
        ("[table.t]\nkey.format = \"avro\"\n", &["sandbar.toml:3:1", "expected one of"]),
        ("[table.t]\nbackend = \"disk\"\n", &["sandbar.toml:3:1", "expected one of"]),
        ("processing.guarantee = \"exactly_once_v2\"\n[table.t]\n", &["sandbar.toml:2:1", "leave the key out"]),
    ] {
        let tables = Tables::new("table-bad", embedded.clone(), manifest)?;
        fails(&Options::new(&tables.manifest, &embedded, &id, &state), 2, words)?;
    }
    Ok(())
}
