//! Any host answers for the whole application: three of them, asked all the while that one is killed and comes back. An
//! answer is right or may be tried again; it is never wrong, and never says that there is nothing.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use e2e::embedded::EmbeddedBroker;
use e2e::host::{Host, get, request};
use e2e::topics::{self, Values};
use e2e::{kafka, repository};
use serde_json::{Value, json};

use crate::count::Count;

const PARTITIONS: u32 = 9;
const KEYS: usize = 900;

/// What a series of questions got.
#[derive(Debug, Default)]
struct Asked {
    right: u64,
    again: u64,
    /// The longest time in which nothing was answered.
    silence: Duration,
}

/// Lets copies answer, but none that lacks anything.
const STANDBY: &str = "standby=true&max_lag=0";

/// Asks hosts for keys and for everything until it is told to stop.
fn ask_on(count: &Count, urls: &[String], parameters: &str, stop: &AtomicBool) -> Result<Asked> {
    let (mut asked, mut answered) = (Asked::default(), Instant::now());
    for number in 0.. {
        if stop.load(Ordering::Relaxed) {
            return Ok(asked);
        }
        let url = &urls[number % urls.len()];
        let right = match number % 20 {
            0 => ask_all(count, url, parameters)?,
            _ => ask_key(count, url, parameters, number * 7 % KEYS)?,
        };
        if right {
            asked.right += 1;
            asked.silence = asked.silence.max(answered.elapsed());
            answered = Instant::now();
        } else {
            asked.again += 1;
        }
    }
    Ok(asked)
}

/// False where the host says to try again.
fn ask_key(count: &Count, url: &str, parameters: &str, number: usize) -> Result<bool> {
    let key = format!("key{number}");
    match get(&format!("{url}/v1/apps/{}/stores/counts/keys/{key}?{parameters}", count.id))? {
        (200, body) => {
            ensure!(body["value"] == json!(count.model[&key]), "{key} of {url}: {body}");
            Ok(true)
        }
        (503, _) => Ok(false),
        (status, body) => bail!("{key} of {url}: {status} {body}"),
    }
}

/// All entries by pages of a hundred; they must be all, in order.
fn ask_all(count: &Count, url: &str, parameters: &str) -> Result<bool> {
    let mut found: Vec<(String, Value)> = Vec::new();
    let mut cursor = String::new();
    loop {
        let (status, body) =
            get(&format!("{url}/v1/apps/{}/stores/counts/entries?limit=100&{parameters}{cursor}", count.id))?;
        match status {
            200 => {}
            503 => return Ok(false),
            _ => bail!("entries of {url}: {status} {body}"),
        }
        for entry in body["entries"].as_array().context("no entries")? {
            found.push((entry["key"].as_str().context("no key")?.to_owned(), entry["value"].clone()));
        }
        match body["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    let expected: Vec<(String, Value)> = count.model.iter().map(|(key, count)| (key.clone(), json!(count))).collect();
    ensure!(found == expected, "{} entries of {url} instead of {}", found.len(), expected.len());
    Ok(true)
}

/// Runs something while two hosts are asked.
fn while_asked<T>(
    count: &Count,
    hosts: [&Host; 2],
    parameters: &str,
    run: impl FnOnce() -> Result<T>,
) -> Result<(T, Asked)> {
    let urls: Vec<String> = hosts.iter().map(|host| host.url.clone()).collect();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let asking = scope.spawn(|| ask_on(count, &urls, parameters, &stop));
        let done = run();
        stop.store(true, Ordering::Relaxed);
        let asked = asking.join().map_err(|_| anyhow::anyhow!("the asking thread panicked"))??;
        Ok((done?, asked))
    })
}

/// What one host streams of all of them is the changelog, of which the last value of each key counts.
fn check_changelog(count: &Count, host: &Host) -> Result<()> {
    let mut changelog: BTreeMap<String, Value> = BTreeMap::new();
    for record in topics::read(&count.broker, &format!("{}-counts-changelog", count.id), Values::I64)? {
        changelog.insert(record.key.as_str().context("a key that is no text")?.to_owned(), record.value);
    }
    let url = format!("{}/v1/apps/{}/stores/counts/entries", host.url, count.id);
    let (status, text) = request("GET", &url, &[("Accept", "application/x-ndjson")], "")?;
    ensure!(status == 200, "{status} {text}");
    let lines: Vec<Value> =
        { text.as_str().context("no lines")?.lines() }.map(serde_json::from_str).collect::<Result<_, _>>()?;
    let (last, entries) = lines.split_last().context("no line")?;
    ensure!(last["end"]["entries"] == changelog.len(), "{last}");
    let found: Vec<(&str, &Value)> =
        entries.iter().map(|entry| (entry["key"].as_str().unwrap_or_default(), &entry["value"])).collect();
    let expected: Vec<(&str, &Value)> = changelog.iter().map(|(key, value)| (key.as_str(), value)).collect();
    ensure!(found == expected, "{} entries are not the {} of the changelog", found.len(), expected.len());
    Ok(())
}

fn any_host_answers(mut count: Count, standbys: u32) -> Result<()> {
    let parameters = if standbys > 0 { STANDBY } else { "" };
    let lines = count.more(KEYS, 3);
    count.produce(&lines)?;
    let (first, second) = (count.host("first", standbys)?, count.host("second", standbys)?);
    let mut third = count.host("third", standbys)?;
    count.wait_processed(&[&first, &second, &third])?;
    for host in [&first, &second, &third] {
        ensure!(ask_all(&count, &host.url, parameters)?, "everything is settled, and {} says to try again", host.url);
        for number in 0..100 {
            ensure!(
                ask_key(&count, &host.url, parameters, number)?,
                "everything is settled, and {} says to try again",
                host.url
            );
        }
        let (status, body) = host.get(&format!("/v1/apps/{}/stores/counts/keys/nobody", count.id))?;
        ensure!(status == 404, "a key that is nowhere: {status} {body}");
        let (_, body) = host.get(&format!("/v1/apps/{}/instances", count.id))?;
        ensure!(body["instances"].as_array().is_some_and(|hosts| hosts.len() == 3), "{body}");
    }
    let ((), killed) = while_asked(&count, [&first, &second], parameters, || {
        third.kill()?;
        count.wait_processed(&[&first, &second])
    })?;
    let (third, back) = while_asked(&count, [&first, &second], parameters, || {
        let third = count.host("third", standbys)?;
        count.wait_processed(&[&first, &second, &third])?;
        Ok(third)
    })?;
    println!("{}: while a host was killed {killed:?}, while it came back {back:?}", count.id);
    ensure!(killed.right > 0 && back.right > 0, "nothing was answered");
    check_changelog(&count, &first)?;
    ensure!(ask_all(&count, &third.url, parameters)?, "everything is settled, and {} says to try again", third.url);
    Ok(())
}

#[test]
fn any_host_answers_on_the_embedded_broker() -> Result<()> {
    let folder = repository::scratch(&repository::unique("routing-broker"))?;
    let broker = EmbeddedBroker::start(Path::new(&folder), &[])?;
    any_host_answers(Count::new("routing", broker.by_address(), PARTITIONS)?, 0)
}

#[test]
fn any_host_answers_on_real_kafka() -> Result<()> {
    any_host_answers(Count::new("routing-kafka", kafka::broker()?, PARTITIONS)?, 1)
}
