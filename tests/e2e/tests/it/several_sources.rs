//! A stream and a table that meet in one task, on two hosts with two stream threads each: every task gets the same
//! partition of both topics, also when a host comes and goes.

use anyhow::{Result, ensure};
use e2e::host::{Host, Options, wait_committed, wait_until};
use e2e::topics::{self, Values};
use e2e::{kafka, repository};
use serde_json::json;

use crate::count::{LIMIT, tasks_of};

const PARTITIONS: u32 = 6;
const KEYS: usize = 60;

#[test]
fn a_join_runs_on_several_threads_and_hosts_without_a_word_of_advice() -> Result<()> {
    let (id, broker) = (repository::unique("join"), kafka::broker()?);
    let folder = repository::scratch(&id)?;
    let topic = |name: &str| format!("{id}-{name}");
    for name in ["in", "table", "out"] {
        topics::create(&broker, &topic(name), PARTITIONS)?;
    }
    let manifest = folder.join("sandbar.toml");
    let module = repository::guest("join")?;
    std::fs::write(
        &manifest,
        format!(
            "application.id = {id:?}\nmodule = {module:?}\nnum.stream.threads = 2\nsources.in.topic = \"{id}-in\"\n\
             sources.table.topic = \"{id}-table\"\nsinks.out.topic = \"{id}-out\"\nconfig.table = \"{id}-table\"\n"
        ),
    )?;
    let host = |state: &str| Host::start_ready(&Options::new(&manifest, &broker, &id, &folder.join(state)));
    let lines = |what: &str| -> String {
        let line = |number: usize| json!({ "key": format!("k{number}"), "value": format!("{what}{number}") });
        (0..KEYS).map(|number| line(number).to_string() + "\n").collect()
    };
    let shared = |hosts: &[&Host]| {
        wait_until(LIMIT, || {
            let tasks: Vec<usize> = tasks_of(hosts)?.iter().map(|tasks| tasks.len()).collect();
            ensure!(
                tasks.iter().sum::<usize>() == PARTITIONS as usize && !tasks.contains(&0),
                "the hosts run {tasks:?}"
            );
            Ok(())
        })
    };
    let mut first = host("first")?;
    topics::produce(&broker, &topic("table"), Values::Text, &lines("row"))?;
    wait_committed(&[&first], &topic("table"), KEYS as u64, LIMIT)?;
    let second = host("second")?;
    shared(&[&first, &second])?;
    topics::produce(&broker, &topic("in"), Values::Text, &lines("a"))?;
    wait_committed(&[&first, &second], &topic("in"), KEYS as u64, LIMIT)?;
    first.terminate()?;
    shared(&[&second])?;
    topics::produce(&broker, &topic("in"), Values::Text, &lines("b"))?;
    wait_committed(&[&second], &topic("in"), 2 * KEYS as u64, LIMIT)?;
    let found = topics::read(&broker, &topic("out"), Values::Text)?;
    let mut found: Vec<String> = found.iter().filter_map(|record| Some(record.value.as_str()?.to_owned())).collect();
    let mut expected: Vec<String> =
        ["a", "b"].iter().flat_map(|what| (0..KEYS).map(move |number| format!("{what}{number}|row{number}"))).collect();
    found.sort();
    expected.sort();
    ensure!(found == expected, "{} joined records instead of {}", found.len(), expected.len());
    Ok(())
}
