//! A new version whose stored rows have another schema: they are taken over before anything is processed, and where
//! they cannot be, nothing changes. On both brokers, under exactly-once.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::host::{Host, get, wait_until};
use serde_json::{Value, json};

use super::versions::{Versions, on_both};

const LIMIT: Duration = Duration::from_secs(60);

/// Waits until a store has `expected` for each of the twenty keys.
fn wait_for_counts(host: &Host, store: &str, expected: &Value) -> Result<()> {
    wait_until(LIMIT, || {
        let rows = host.store(store)?;
        let all = rows.len() == 20 && rows.values().all(|value| value == expected);
        ensure!(all, "expected {expected} for each key: {rows:?}\n{}", host.log());
        Ok(())
    })
}

fn deployed(answer: Result<Value, String>) -> Result<Value> {
    answer.map_err(|why| anyhow::anyhow!(why))
}

#[test]
fn rows_of_another_schema_are_taken_over_and_the_counts_go_on() -> Result<()> {
    on_both(|mut versions| {
        let first = versions.manifest("a", "tally", "")?;
        let second = versions.manifest("b", "tally-v2", "")?;
        let mut host = versions.host("one", &first)?;
        versions.produce(3)?;
        wait_for_counts(&host, "counts", &json!(3))?;
        let dry = deployed(versions.deploy(&host, &second, &["--dry-run"])?)?;
        ensure!(dry["changes"].to_string().contains("migrated"), "{dry}");
        ensure!(dry["notes"].to_string().contains("tried on the 20 rows"), "{dry}");
        let taken = deployed(versions.deploy(&host, &second, &[])?)?;
        ensure!(taken["number"] == 2 && taken["kind"] == "restart", "{taken}");
        versions.wait_running(&host, 2)?;
        versions.produce(1)?;
        wait_for_counts(&host, "counts", &json!({ "count": 4 }))?;
        // The rows that the first version had are there still, to be looked at.
        let older = host.entries("counts@1", "&value_format=i64")?;
        ensure!(older.len() == 20 && older.values().all(|value| value == 3), "{older:?}");

        let back = versions.sandbar(&host, &["rollback"])?;
        let refusal = String::from_utf8_lossy(&back.stderr).into_owned();
        ensure!(!back.status.success() && refusal.contains("schema version"), "{refusal}");
        versions.produce(1)?;
        wait_for_counts(&host, "counts", &json!({ "count": 5 }))?;

        host.kill()?;
        // With the first module in its manifest, and without its directory.
        let other = versions.host("another", &first)?;
        versions.wait_running(&other, 2)?;
        versions.produce(1)?;
        wait_for_counts(&other, "counts", &json!({ "count": 6 }))?;
        let settings = versions.manifest("c", "tally-v2", "one = \"more\"\n")?;
        let swapped = deployed(versions.deploy(&other, &settings, &[])?)?;
        ensure!(swapped["kind"] == "swap", "nothing is left to be taken over: {swapped}");
        versions.wait_running(&other, 3)?;
        versions.produce(1)?;
        wait_for_counts(&other, "counts", &json!({ "count": 7 }))
    })
}

#[test]
fn a_store_more_is_filled_by_init_once() -> Result<()> {
    on_both(|mut versions| {
        let first = versions.manifest("a", "tally", "")?;
        let second = versions.manifest("b", "tally-filled", "")?;
        let mut host = versions.host("one", &first)?;
        versions.produce(3)?;
        wait_for_counts(&host, "counts", &json!(3))?;
        let taken = deployed(versions.deploy(&host, &second, &[])?)?;
        ensure!(taken["kind"] == "restart" && taken["changes"].to_string().contains("created"), "{taken}");
        versions.wait_running(&host, 2)?;
        let wait_for_doubles = |host: &Host, expected: i64| {
            wait_until(LIMIT, || {
                let mut rows = host.entries("doubles", "&key_format=utf8")?;
                ensure!(rows.remove("filled") == Some(json!(1)), "{rows:?}");
                let all = rows.len() == 20 && rows.values().all(|value| value == expected);
                ensure!(all, "expected {expected} for each key: {rows:?}\n{}", host.log());
                Ok(())
            })
        };
        // Before a record has come.
        wait_for_doubles(&host, 6)?;
        versions.produce(1)?;
        wait_for_doubles(&host, 8)?;
        host.kill()?;
        // Without its directory, and with instances that look whether all is filled.
        let other = versions.host("another", &second)?;
        versions.wait_running(&other, 2)?;
        wait_for_doubles(&other, 8)?;
        versions.produce(1)?;
        wait_for_doubles(&other, 10)
    })
}

/// What the migration does at a row of that key, and what is said of it.
const FRAGILE: [(&str, &str); 4] = [
    ("trap", "this row is one too many"),
    ("loop", "processor.deadline.ms"),
    ("refuse", "it is refused"),
    ("curious", "the module called context.config in `migrate`"),
];

#[test]
fn rows_that_cannot_be_taken_over_leave_everything_as_it_was() -> Result<()> {
    for (key, words) in FRAGILE {
        let mut versions = Versions::new(None)?;
        let host = versions.host("one", &versions.manifest("a", "tally", "")?)?;
        versions.produce(2)?;
        versions.produce_key(key)?;
        wait_until(LIMIT, || {
            ensure!(host.store("counts")?.len() == 21, "not all rows are there");
            Ok(())
        })?;
        let before = host.store("counts")?;
        let fragile = versions.manifest(key, "tally-v2-fragile", "")?;
        let refusal = versions.deploy(&host, &fragile, &[])?.err().with_context(|| format!("{key} was taken"))?;
        ensure!(refusal.contains("migrate from schema version 1 to 2 fails"), "{key}: {refusal}");
        ensure!(refusal.contains(words), "{key}: {refusal}");
        ensure!(host.store("counts")? == before, "the store has changed");
        let (_, body) = get(&format!("{}/v1/apps/{}/versions", host.url, versions.id))?;
        ensure!(body["versions"].as_array().map(Vec::len) == Some(1), "{body}");
    }
    Ok(())
}

/// The host that was asked can only try the rows that it has itself.
#[test]
fn rows_of_another_host_that_cannot_be_taken_over_take_the_version_back_on_all() -> Result<()> {
    on_both(|mut versions| {
        let first = versions.manifest("a", "tally", "")?;
        let fragile = versions.manifest("b", "tally-v2-fragile", "")?;
        let (one, two) = (versions.host("one", &first)?, versions.host("two", &first)?);
        versions.produce(2)?;
        let partition = versions.produce_key("trap")?;
        let task = format!("0_{partition}");
        // Which of them has it is the group's choice.
        let asked = wait_until(LIMIT, || {
            let tasks = [one.application()?.running_tasks(), two.application()?.running_tasks()];
            ensure!(tasks.iter().all(|tasks| tasks.len() == 2), "not shared: {tasks:?}");
            Ok(if tasks[0].contains(&task) { &two } else { &one })
        })?;
        wait_until(LIMIT, || {
            ensure!(asked.store("counts")?.len() == 21, "not all rows are there");
            Ok(())
        })?;
        let taken = deployed(versions.deploy(asked, &fragile, &[])?)?;
        ensure!(taken["number"] == 2, "{taken}");
        let back = versions.wait_state(asked, 2, "ROLLED_BACK")?;
        ensure!(back["moves"].to_string().contains("this row is one too many"), "{back}");
        for host in [&one, &two] {
            versions.wait_running(host, 1)?;
        }
        versions.produce(1)?;
        wait_until(LIMIT, || {
            let rows = one.store("counts")?;
            let with = |count: u64| rows.values().filter(|value| **value == count).count();
            ensure!((rows.len(), with(1), with(3)) == (21, 1, 20), "{rows:?}");
            Ok(())
        })
    })
}
