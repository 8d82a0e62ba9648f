//! The majority vote over real reports: two hosts on real Kafka with a kill and a lost state directory, and the same,
//! smaller, on the embedded broker with kills and restarts of the process that it lives in.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::host::{Host, Options, wait_committed, wait_until};
use e2e::topics::{self, Broker, Values};
use e2e::votes::{self, Votes};
use e2e::weather::{self, Report};
use e2e::{kafka, repository};
use serde_json::{Value, json};

const PARTITIONS: u32 = 4;
const LIMIT: Duration = Duration::from_secs(90);

/// An application of its own on a broker that others use too.
struct Vote {
    id: String,
    broker: Broker,
    folder: PathBuf,
    manifest: PathBuf,
}

impl Vote {
    fn new(name: &str, broker: impl FnOnce(&std::path::Path) -> Result<Broker>) -> Result<Self> {
        let id = repository::unique(name);
        let folder = repository::scratch(&id)?;
        let broker = broker(&folder)?;
        let vote = Self { id, broker, folder, manifest: repository::example("majority-vote").join("sandbar.toml") };
        for topic in ["reports", "votes", "summaries"] {
            topics::create(&vote.broker, &vote.topic(topic), PARTITIONS)?;
        }
        Ok(vote)
    }

    fn topic(&self, name: &str) -> String {
        format!("{}-{name}", self.id)
    }

    /// Starts a host with a state directory of this name.
    fn host(&self, state: &str) -> Result<Host> {
        let state_dir = self.folder.join(state);
        let options = Options::new(&self.manifest, &self.broker, &self.id, &state_dir)
            .set("sources.reports.topic", &self.topic("reports"))
            .set("sinks.votes.topic", &self.topic("votes"))
            .set("sinks.summaries.topic", &self.topic("summaries"))
            .set("commit.interval.ms", "200")
            // A killed host is noticed after the shortest time that brokers allow.
            .set("kafka.consumer.session.timeout.ms", "6000")
            .set("kafka.consumer.heartbeat.interval.ms", "1000");
        Host::start_ready(&options)
    }

    fn produce(&self, reports: &[Report]) -> Result<()> {
        let lines: String = reports.iter().map(|report| report.to_line() + "\n").collect();
        topics::produce(&self.broker, &self.topic("reports"), Values::Json, &lines)
    }

    fn wait_committed(&self, hosts: &[&Host], records: usize) -> Result<()> {
        wait_committed(hosts, &self.topic("reports"), records as u64, LIMIT)
    }

    /// That the last vote on each object and hour is the expected one.
    fn check_votes(&self, expected: &Votes) -> Result<()> {
        let found = votes::last_of_each(&topics::read(&self.broker, &self.topic("votes"), Values::Json)?)?;
        let comparison = votes::compare(expected, &found);
        ensure!(
            comparison.differences.is_empty(),
            "{} of {} equal; {:#?}",
            comparison.equal,
            comparison.expected,
            &comparison.differences[..comparison.differences.len().min(10)]
        );
        Ok(())
    }
}

/// The reports before the given hour's end, and what must come of them.
fn first_hours(hours: usize) -> Result<(Vec<Report>, Votes)> {
    let mut reports = weather::reports()?;
    let times: BTreeSet<i64> = reports.iter().map(|report| report.at_ms).collect();
    let last = *times.iter().nth(hours - 1).ok_or_else(|| anyhow::anyhow!("there are fewer than {hours} hours"))?;
    reports.retain(|report| report.at_ms <= last);
    let mut expected = votes::expected()?;
    expected.retain(|(_, at_ms), _| *at_ms <= last);
    Ok((reports, expected))
}

/// What the store of the latest reports must hold after these.
fn latest(reports: &[Report]) -> BTreeMap<String, Value> {
    let mut store: BTreeMap<String, Value> = BTreeMap::new();
    for report in reports {
        let agents = store.entry(report.object.to_owned()).or_insert_with(|| json!({}));
        agents[&report.agent] = json!({ "state": report.state, "at_ms": report.at_ms });
    }
    store
}

fn all_tasks() -> BTreeSet<String> {
    (0..PARTITIONS).map(|partition| format!("0_{partition}")).collect()
}

/// Waits until the hosts run all tasks, each on one of them, and gives each host's.
fn wait_all_tasks(hosts: &[&Host]) -> Result<Vec<BTreeSet<String>>> {
    wait_until(LIMIT, || {
        let tasks: Vec<_> = hosts.iter().map(|host| Ok(host.application()?.running_tasks())).collect::<Result<_>>()?;
        let together: usize = tasks.iter().map(BTreeSet::len).sum();
        let union: BTreeSet<String> = tasks.iter().flatten().cloned().collect();
        ensure!(union == all_tasks() && together == union.len(), "the hosts run {tasks:?}");
        Ok(tasks)
    })
}

#[test]
fn two_hosts_on_real_kafka_survive_a_kill_and_a_lost_state_directory() -> Result<()> {
    let reports = weather::reports()?;
    let vote = Vote::new("vote", |_| kafka::broker())?;
    let mut first = vote.host("first")?;
    let mut second = vote.host("second")?;
    // A cooperative group moves tasks in two steps; between them the second host is ready and has none.
    wait_until(LIMIT, || {
        let tasks = wait_all_tasks(&[&first, &second])?;
        ensure!(tasks.iter().all(|tasks| tasks.len() == 2), "the tasks are not shared out evenly: {tasks:?}");
        Ok(())
    })?;

    let half = reports.len() / 2;
    vote.produce(&reports[..half])?;
    vote.wait_committed(&[&first, &second], half)?;

    // The host with the work is killed, amid the rest of it.
    if second.application()?.committed(&vote.topic("reports")) == 0 {
        std::mem::swap(&mut first, &mut second);
    }
    vote.produce(&reports[half..])?;
    second.kill()?;
    wait_all_tasks(&[&first])?;
    vote.wait_committed(&[&first], reports.len())?;
    // The killed host does not come back, so the broker gives its open transaction up after the transaction's timeout,
    // and hides what came behind it until then.
    let expected = votes::expected()?;
    wait_until(LIMIT, || vote.check_votes(&expected))?;
    assert_eq!(first.store("latest")?, latest(&reports));

    let status = first.terminate()?;
    ensure!(status.success(), "SIGTERM ended the host with {status}:\n{}", first.log());
    std::fs::remove_dir_all(&first.state_dir)?;
    let restarted = vote.host("third")?;
    wait_all_tasks(&[&restarted])?;
    let application = restarted.application()?;
    let restored = application.body["restoring"]["records_restored"].as_u64();
    ensure!(restored > Some(0), "nothing was restored: {}", application.body);
    wait_until(Duration::from_secs(10), || {
        ensure!(restarted.log().contains("records/s"), "the restore's rate is not told:\n{}", restarted.log());
        Ok(())
    })?;
    assert_eq!(restarted.store("latest")?, latest(&reports));
    Ok(())
}

#[test]
fn a_killed_host_on_the_embedded_broker_goes_on_where_it_was() -> Result<()> {
    let (reports, expected) = first_hours(600)?;
    let vote = Vote::new("embedded-kill", |folder| Ok(Broker::Embedded(folder.join("broker"))))?;
    let third = reports.len() / 3;

    let mut host = vote.host("state")?;
    vote.produce(&reports[..third])?;
    vote.wait_committed(&[&host], third)?;
    // With it dies the broker, between records that are processed and a commit.
    vote.produce(&reports[third..2 * third])?;
    host.kill()?;

    let mut host = vote.host("state")?;
    vote.produce(&reports[2 * third..])?;
    vote.wait_committed(&[&host], reports.len())?;
    vote.check_votes(&expected)?;
    assert_eq!(host.store("latest")?, latest(&reports));
    ensure!(host.terminate()?.success(), "SIGTERM failed:\n{}", host.log());

    // A clean end leaves nothing to restore and nothing to repeat.
    let before = topics::read(&vote.broker, &vote.topic("votes"), Values::Json)?.len();
    let restarted = vote.host("state")?;
    wait_all_tasks(&[&restarted])?;
    let application = restarted.application()?;
    assert_eq!(application.body["restoring"]["records_restored"], 0, "{}", application.body);
    assert_eq!(restarted.store("latest")?, latest(&reports));
    assert_eq!(topics::read(&vote.broker, &vote.topic("votes"), Values::Json)?.len(), before);
    Ok(())
}

#[test]
fn a_lost_state_directory_is_restored_from_the_embedded_broker() -> Result<()> {
    let (reports, _) = first_hours(200)?;
    let vote = Vote::new("embedded-restore", |folder| Ok(Broker::Embedded(folder.join("broker"))))?;
    let mut host = vote.host("state")?;
    vote.produce(&reports)?;
    vote.wait_committed(&[&host], reports.len())?;
    ensure!(host.terminate()?.success(), "SIGTERM failed:\n{}", host.log());

    std::fs::remove_dir_all(vote.folder.join("state"))?;
    let restarted = vote.host("state")?;
    wait_all_tasks(&[&restarted])?;
    assert_eq!(restarted.store("latest")?, latest(&reports));
    Ok(())
}

#[test]
fn until_idle_ends_by_itself_with_everything_committed() -> Result<()> {
    let (reports, expected) = first_hours(50)?;
    let vote = Vote::new("until-idle", |folder| Ok(Broker::Embedded(folder.join("broker"))))?;
    vote.produce(&reports)?;
    let state_dir = vote.folder.join("state");
    let mut options = Options::new(&vote.manifest, &vote.broker, &vote.id, &state_dir)
        .set("sources.reports.topic", &vote.topic("reports"))
        .set("sinks.votes.topic", &vote.topic("votes"))
        .set("sinks.summaries.topic", &vote.topic("summaries"));
    options.arguments.extend(["--until-idle".into(), "1s".into()]);
    let mut host = Host::start(&options)?;
    let status = host.wait(LIMIT)?;
    ensure!(status.success(), "ended with {status}:\n{}", host.log());
    vote.check_votes(&expected)
}
