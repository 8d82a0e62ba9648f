//! `make demo`: a majority vote over a year of weather reports, on the embedded broker, with a kill -9 of the host and
//! its broker amid the work, and another version of the module that takes over and is taken back while reports flow.
//! Succeeds only when every vote counts what the expected table does, is decided by the rule of the version that it
//! says it is of, and every report was answered exactly once. Leaves its broker and state in `target/demo` for a look.

use std::io::{IsTerminal, Write};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use e2e::host::{Host, Options, get, wait_until};
use e2e::repository;
use e2e::topics::{self, Broker, Record, Values};
use e2e::votes::{self, Comparison, Vote};
use e2e::weather::{self, Report, format_time};

const APPLICATION: &str = "majority-vote";
const REPORTS_TOPIC: &str = "reports";
const VOTES_TOPIC: &str = "votes";
/// The store of the latest reports by object.
const STORE: &str = "latest";
const PROCESSING_LIMIT: Duration = Duration::from_secs(240);
const SWAP_LIMIT: Duration = Duration::from_secs(60);
const DIFFERENCES_SHOWN: usize = 10;

const COMMITTED_BEFORE_THE_KILL: u64 = 5_000;

/// The reports that come slice by slice, while versions change.
const FLOWING_REPORTS: usize = 30_000;
const FLOWING_SLICES: usize = 30;
const SLICE_INTERVAL: Duration = Duration::from_millis(200);
/// Reports flow for so long between two changes.
const BETWEEN_CHANGES: Duration = Duration::from_secs(2);

fn main() -> Result<ExitCode> {
    let started = Instant::now();
    let folder = repository::target().join("demo");
    if folder.exists() {
        std::fs::remove_dir_all(&folder).with_context(|| format!("cannot empty {}", folder.display()))?;
    }
    let manifest = repository::example("majority-vote").join("sandbar.toml");
    let comparison = run(&folder, &manifest)?;
    for difference in comparison.differences.iter().take(DIFFERENCES_SHOWN) {
        println!("  {difference}");
    }
    if comparison.differences.len() > DIFFERENCES_SHOWN {
        println!("  … and {} more", comparison.differences.len() - DIFFERENCES_SHOWN);
    }
    println!(
        "\n{:.0} s; the broker's files and the stores are in {}",
        started.elapsed().as_secs_f64(),
        folder.display()
    );
    println!("{} of {} equal", comparison.equal, comparison.expected);
    Ok(if comparison.differences.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn run(folder: &Path, manifest: &Path) -> Result<Comparison> {
    let expected = votes::expected()?;
    let reports = weather::reports()?;
    println!("{} reports: is there rain, fog, wind? Three airports of New York City, each hour of 2013", reports.len());

    let broker = Broker::Embedded(folder.join("broker"));
    let state_dir = folder.join("state");
    let options = Options::new(manifest, &broker, APPLICATION, &state_dir);
    let mut host = Host::start_ready(&options).context("the host did not start")?;
    println!("host with the embedded broker at {}", host.url);

    let (at_once, flowing) = reports.split_at(reports.len() - FLOWING_REPORTS);
    load(folder, &broker, at_once)?;
    let committed = wait_until(PROCESSING_LIMIT, || {
        let committed = host.application()?.committed(REPORTS_TOPIC);
        ensure!(committed >= COMMITTED_BEFORE_THE_KILL, "{committed} reports are committed");
        Ok(committed)
    })?;
    host.kill()?;
    println!("kill -9 of the host, and of the broker in it, with {committed} of {} reports committed", at_once.len());
    let mut host = Host::start_ready(&options).context("the host did not start again")?;
    println!("host started again at {}", host.url);
    await_processed(&host, at_once.len())?;
    swap_while_reports_flow(&host, &broker, flowing)?;
    let records = await_votes(&host, &broker, reports.len())?;
    ensure!(
        records.len() == reports.len(),
        "{} reports have {} answers: some were lost or given twice",
        reports.len(),
        records.len()
    );
    println!("{} reports, {} answers: none lost, none twice", reports.len(), records.len());
    check_versions(&host, &records)?;
    show_votes(&records)?;
    show_store(&host)?;
    let status = host.terminate()?;
    println!("\nhost ended with {status}");
    // What the two versions count is the same, and who decided is checked above.
    let mut found = votes::last_of_each(&records)?;
    found.values_mut().for_each(|vote| vote.state = has_majority(vote));
    Ok(votes::compare(&expected, &found))
}

/// The rule of the first version, and of the second.
fn has_majority(vote: &Vote) -> bool {
    vote.yes * 2 > vote.agents
}

fn has_two_thirds(vote: &Vote) -> bool {
    vote.yes * 3 > vote.agents * 2
}

/// Reports come slice by slice; meanwhile the version that needs two thirds takes over, and is taken back.
fn swap_while_reports_flow(host: &Host, broker: &Broker, reports: &[Report]) -> Result<()> {
    let per_second = reports.len() as f64 / (FLOWING_SLICES as f64 * SLICE_INTERVAL.as_secs_f64());
    println!("{} reports follow, about {per_second:.0} in a second", reports.len());
    thread::scope(|scope| {
        let producer = scope.spawn(|| flow(broker, reports));
        thread::sleep(BETWEEN_CHANGES);
        let manifest = repository::example("majority-vote").join("two-thirds.toml");
        let deployed = change(host, &["deploy", "-f", &manifest.display().to_string()], 2)?;
        println!("`sandbar deploy -f two-thirds.toml`: version 2 votes in every task after {deployed:?}");
        thread::sleep(BETWEEN_CHANGES);
        let rolled_back = change(host, &["rollback", "--why", "half of them is enough"], 1)?;
        println!("`sandbar rollback`: version 1 votes in every task after {rolled_back:?}");
        producer.join().unwrap_or_else(|_| anyhow::bail!("the producer panicked"))
    })
}

/// Sends the reports through one producer, slice by slice.
fn flow(broker: &Broker, reports: &[Report]) -> Result<()> {
    let mut producer = producer(broker)?.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    let mut lines = producer.stdin.take().context("the producer has no standard input")?;
    for slice in reports.chunks(reports.len().div_ceil(FLOWING_SLICES)) {
        let text: String = slice.iter().map(|report| report.to_line() + "\n").collect();
        lines.write_all(text.as_bytes()).context("the producer takes no more")?;
        thread::sleep(SLICE_INTERVAL);
    }
    drop(lines);
    let status = producer.wait()?;
    ensure!(status.success(), "sandbar topics produce ended with {status}");
    Ok(())
}

/// Runs a command that changes the version, and waits until all tasks run that.
fn change(host: &Host, words: &[&str], version: u64) -> Result<Duration> {
    let started = Instant::now();
    let output = Command::new(repository::sandbar()?).args(words).args(["--url", &host.url]).output()?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "sandbar {} ended with {}: {errors}", words.join(" "), output.status);
    wait_until(SWAP_LIMIT, || {
        let (_, body) = host.get(&format!("/v1/apps/{APPLICATION}/versions/{version}"))?;
        let tasks = body["tasks"].as_array().map_or(&[][..], Vec::as_slice);
        ensure!(!tasks.is_empty() && tasks.iter().all(|task| task["version"] == version), "not yet: {body}");
        Ok(())
    })?;
    Ok(Duration::from_millis(started.elapsed().as_millis() as u64))
}

/// Every vote is decided by the rule of the version whose module it names.
fn check_versions(host: &Host, records: &[Record]) -> Result<()> {
    let module = |number: u64| -> Result<String> {
        let (_, body) = host.get(&format!("/v1/apps/{APPLICATION}/versions/{number}"))?;
        Ok(body["module"].as_str().with_context(|| format!("no module in {body}"))?.chars().take(12).collect())
    };
    let (first, second) = (module(1)?, module(2)?);
    let (mut by_second, mut otherwise) = (0, 0);
    for record in records {
        let headers = record.headers.as_array().map_or(&[][..], Vec::as_slice);
        let named = headers.iter().find(|header| header[0] == "__sandbar.module").and_then(|header| header[1].as_str());
        let named = named.with_context(|| format!("no module in {record:?}"))?;
        let (_, _, vote) = votes::parse(record)?;
        let is_second = named == second;
        ensure!(is_second || named == first, "a vote of an unknown module: {record:?}");
        let rule = if is_second { has_two_thirds } else { has_majority };
        ensure!(vote.state == rule(&vote), "a vote that its version would not give: {record:?}");
        by_second += usize::from(is_second);
        otherwise += usize::from(vote.state != has_majority(&vote));
    }
    ensure!(by_second > 0 && otherwise > 0, "version 2 has decided nothing otherwise: {by_second}, {otherwise}");
    println!(
        "{} votes by version 1, {by_second} by version 2, which decided {otherwise} of them otherwise; each names its \
         module in a header",
        records.len() - by_second
    );
    Ok(())
}

/// Loads the reports in order of event time, with the progress of `sandbar topics produce`.
fn load(folder: &Path, broker: &Broker, reports: &[Report]) -> Result<()> {
    let file = folder.join("reports.ndjson");
    let lines: String = reports.iter().map(|report| report.to_line() + "\n").collect();
    std::fs::write(&file, lines).with_context(|| format!("cannot write {}", file.display()))?;
    let status = producer(broker)?.arg(&file).status().context("cannot start sandbar topics produce")?;
    ensure!(status.success(), "sandbar topics produce ended with {status}");
    Ok(())
}

/// A producer of reports, from a file or its standard input.
fn producer(broker: &Broker) -> Result<Command> {
    let mut command = Command::new(repository::sandbar()?);
    command.args(["topics", "produce", "--value-format", "json"]).args(broker.flags()).arg(REPORTS_TOPIC);
    Ok(command)
}

/// Waits until every report is processed and committed, and reads the votes.
fn await_votes(host: &Host, broker: &Broker, reports: usize) -> Result<Vec<Record>> {
    await_processed(host, reports)?;
    topics::read(broker, VOTES_TOPIC, Values::Json)
}

fn await_processed(host: &Host, reports: usize) -> Result<()> {
    wait_until(PROCESSING_LIMIT, || {
        let committed = host.application()?.committed(REPORTS_TOPIC);
        progress(&format!("processed {committed} of {reports} reports"));
        ensure!(committed >= reports as u64, "{committed} of {reports} reports are processed");
        Ok(())
    })?;
    println!("{}processed {reports} reports", if std::io::stdout().is_terminal() { "\r\x1b[K" } else { "" });
    Ok(())
}

/// Shows how each object ended, and the first changes.
fn show_votes(records: &[Record]) -> Result<()> {
    println!("\nlast vote of each object:");
    let votes = votes::last_of_each(records)?;
    for object in ["fog", "rain", "wind"] {
        let last = votes.iter().rev().find(|((name, _), _)| name == object);
        let ((_, at_ms), vote) = last.with_context(|| format!("there is no vote on {object}"))?;
        println!("  {object:5} {:5} {} of {} at {}", vote.state, vote.yes, vote.agents, format_time(*at_ms));
    }
    println!("first changes of rain:");
    let rain: Vec<_> = votes.iter().filter(|((name, _), _)| name == "rain").collect();
    for pair in rain.windows(2).filter(|pair| pair[0].1.state != pair[1].1.state).take(4) {
        let ((_, at_ms), vote) = pair[1];
        println!(
            "  at {at_ms}: {} ({} of {})",
            if vote.state { "it rains" } else { "it is dry" },
            vote.yes,
            vote.agents
        );
    }
    Ok(())
}

/// Asks the store by REST, as any HTTP client can.
fn show_store(host: &Host) -> Result<()> {
    let url = format!("{}/v1/apps/{APPLICATION}/stores/{STORE}/entries", host.url);
    let (status, body) = get(&url)?;
    println!("\nGET {url}\n{status}");
    for entry in body["entries"].as_array().with_context(|| format!("the answer has no entries: {body}"))? {
        println!("  {entry}");
    }
    Ok(())
}

/// On a terminal, a line that the next one replaces; elsewhere only what is done is told.
fn progress(text: &str) {
    let mut out = std::io::stdout();
    if out.is_terminal() {
        // A closed terminal is no reason to stop.
        let _ = write!(out, "\r  {text}\x1b[K").and_then(|()| out.flush());
    }
}
