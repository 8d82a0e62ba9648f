//! Subscriptions to a store on several hosts: every committed change once and in order while hosts are killed, and from
//! a position on another host without a gap; only what was asked for; and an end with the host.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use e2e::embedded::EmbeddedBroker;
use e2e::host::{Host, wait_until};
use e2e::topics::{self, Record, Values};
use e2e::{kafka, repository};
use serde_json::Value;

use crate::count::{Count, LIMIT};

const PARTITIONS: u32 = 4;
const KEYS: usize = 200;
const ROUNDS: usize = 12;

/// A change as it was told.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Change {
    partition: u64,
    offset: u64,
    key: String,
    count: u64,
}

/// A client that listens on a thread of its own.
struct Subscriber {
    lines: Receiver<Value>,
    changes: Vec<Change>,
    /// The latest.
    position: String,
}

impl Subscriber {
    /// Subscribes, and waits for the first sign of life: what is committed after it is told.
    fn new(count: &Count, host: &Host, query: &str) -> Result<Self> {
        let url = format!("{}/v1/apps/{}/stores/counts/changes?{query}", host.url, count.id);
        let agent = ureq::Agent::config_builder().http_status_as_error(false).build().new_agent();
        let mut response = agent.get(&url).header("accept", "application/x-ndjson").call()?;
        if response.status() != 200 {
            bail!("{url}: {} {}", response.status(), response.body_mut().read_to_string()?);
        }
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            // A host that is killed breaks the answer off, which ends it as well.
            for line in BufReader::new(response.into_body().into_reader()).lines().map_while(Result::ok) {
                let Ok(line) = serde_json::from_str(&line) else { return };
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let mut subscriber = Self { lines, changes: Vec::new(), position: String::new() };
        ensure!(subscriber.listen(LIMIT, |subscriber| !subscriber.position.is_empty())?, "{url}: no sign of life");
        Ok(subscriber)
    }

    /// Listens until it has heard enough; false when the answer ends before.
    fn listen(&mut self, limit: Duration, enough: impl Fn(&Self) -> bool) -> Result<bool> {
        let deadline = Instant::now() + limit;
        while !enough(self) {
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => self.take(&line)?,
                Err(RecvTimeoutError::Disconnected) => return Ok(false),
                Err(RecvTimeoutError::Timeout) => bail!("after {limit:?}: {} changes", self.changes.len()),
            }
        }
        Ok(true)
    }

    fn take(&mut self, line: &Value) -> Result<()> {
        self.position = line["position"].as_str().with_context(|| format!("no position: {line}"))?.to_owned();
        if let Some(offset) = line["offset"].as_u64() {
            self.changes.push(Change {
                partition: line["partition"].as_u64().context("no partition")?,
                offset,
                key: line["key"].as_str().context("no key")?.to_owned(),
                count: line["value"].as_u64().with_context(|| format!("no count: {line}"))?,
            });
        }
        Ok(())
    }

    /// Whether every key has been told with its last count.
    fn has_all(&self, model: &BTreeMap<String, u64>) -> bool {
        let told: BTreeMap<&str, u64> = self.changes.iter().map(|change| (change.key.as_str(), change.count)).collect();
        model.iter().all(|(key, count)| told.get(key.as_str()) == Some(count))
    }
}

/// The committed records of the store's changelog.
fn changelog(count: &Count) -> Result<Vec<Change>> {
    let records = topics::read(&count.broker, &format!("{}-counts-changelog", count.id), Values::I64)?;
    let change = |Record { partition, offset, key, value, .. }: Record| {
        let key = key.as_str().context("a key that is no text")?.to_owned();
        Ok(Change { partition, offset, key, count: value.as_u64().context("a value that is no count")? })
    };
    records.into_iter().map(change).collect()
}

/// What was told is what was committed, each once, in order; and counts only grow, so nothing of it was aborted.
fn check(told: &[Change], committed: &[Change]) -> Result<()> {
    let (mut next, mut counts) = (BTreeMap::new(), BTreeMap::new());
    for change in told {
        let last = next.insert(change.partition, change.offset);
        ensure!(last < Some(change.offset), "{change:?} was told after offset {last:?}");
        let before = counts.insert(&change.key, change.count);
        ensure!(before < Some(change.count), "{change:?} was told after {before:?}");
    }
    let (told, committed): (BTreeSet<_>, BTreeSet<_>) = (told.iter().collect(), committed.iter().collect());
    let lost: Vec<_> = committed.difference(&told).take(5).collect();
    let invented: Vec<_> = told.difference(&committed).take(5).collect();
    ensure!(lost.is_empty() && invented.is_empty(), "not told: {lost:?}; not committed: {invented:?}");
    Ok(())
}

/// Kills the host that serves a subscription amid the work; another host goes on with it.
fn changes_go_on_after_a_kill(mut count: Count) -> Result<()> {
    let mut first = count.host("first", 0)?;
    let mut second = count.host("second", 0)?;
    let mut on_killed = Subscriber::new(&count, &first, "")?;
    let mut on_other = Subscriber::new(&count, &second, "from=beginning")?;
    let mut of_key = Subscriber::new(&count, &second, "key=key7")?;
    let mut of_prefix = Subscriber::new(&count, &second, "prefix=key1")?;
    // One after the other, so that there are many commits.
    let rounds: Vec<String> = (0..ROUNDS).map(|_| count.more(KEYS, 10)).collect();
    std::thread::scope(|scope| {
        let producing = scope.spawn(|| rounds.iter().try_for_each(|lines| count.produce(lines)));
        let heard = on_killed.listen(LIMIT, |subscriber| subscriber.changes.len() >= 300)?;
        ensure!(heard, "the subscription ended by itself");
        first.kill()?;
        producing.join().map_err(|_| anyhow::anyhow!("the producing thread panicked"))?
    })?;
    // What was on its way is heard, and then it ends.
    let ended = !on_killed.listen(LIMIT, |_| false)?;
    ensure!(ended, "the killed host still tells changes");
    let told_by_killed = on_killed.changes.len();
    let mut resumed = Subscriber::new(&count, &second, &format!("from={}", on_killed.position))?;
    let more = count.more(KEYS, 20);
    count.produce(&more)?;
    count.wait_processed(&[&second])?;
    for subscriber in [&mut on_other, &mut resumed] {
        subscriber.listen(LIMIT, |subscriber| subscriber.has_all(&count.model))?;
    }
    let committed = wait_until(LIMIT, || {
        let committed = changelog(&count)?;
        ensure!(committed.len() == on_other.changes.len(), "{} changes are committed", committed.len());
        Ok(committed)
    })?;
    check(&on_other.changes, &committed).context("the other host's subscription")?;
    on_killed.changes.append(&mut resumed.changes);
    check(&on_killed.changes, &committed).context("the subscription that was taken up again")?;
    println!("{}: {} changes, {told_by_killed} of them before the kill", count.id, committed.len());

    let only = |of: &dyn Fn(&str) -> bool| -> Vec<Change> {
        committed.iter().filter(|change| of(&change.key)).cloned().collect()
    };
    for (subscriber, expected) in
        [(&mut of_key, only(&|key| key == "key7")), (&mut of_prefix, only(&|key| key.starts_with("key1")))]
    {
        subscriber.listen(LIMIT, |subscriber| subscriber.changes.len() >= expected.len())?;
        check(&subscriber.changes, &expected).context("a part of the keys")?;
    }

    // Nobody waits for subscribers.
    let since = Instant::now();
    let status = second.terminate()?;
    ensure!(status.success() && since.elapsed() < Duration::from_secs(8), "{status} after {:?}", since.elapsed());
    ensure!(!on_other.listen(Duration::from_secs(5), |_| false)?, "the answer goes on without a host");
    Ok(())
}

#[test]
fn changes_go_on_after_a_kill_on_the_embedded_broker() -> Result<()> {
    let folder = repository::scratch(&repository::unique("changes-broker"))?;
    let broker = EmbeddedBroker::start(Path::new(&folder), &[])?;
    changes_go_on_after_a_kill(Count::new("changes", broker.by_address(), PARTITIONS)?)
}

#[test]
fn changes_go_on_after_a_kill_on_real_kafka() -> Result<()> {
    changes_go_on_after_a_kill(Count::new("changes-kafka", kafka::broker()?, PARTITIONS)?)
}
