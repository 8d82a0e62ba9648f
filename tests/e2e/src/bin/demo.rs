//! `make demo`: a majority vote over a year of weather reports, on the embedded broker, with a kill -9 of the host and
//! its broker amid the work, checked against the expected table. Succeeds only when every vote is equal and every
//! report was answered exactly once. Leaves its broker and state in `target/demo` for a look.

use std::io::{IsTerminal, Write};
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use e2e::host::{Host, Options, get, wait_until};
use e2e::repository;
use e2e::topics::{self, Broker, Record, Values};
use e2e::votes::{self, Comparison};
use e2e::weather::{self, format_time};

const APPLICATION: &str = "majority-vote";
const REPORTS_TOPIC: &str = "reports";
const VOTES_TOPIC: &str = "votes";
/// The store of the latest reports by object.
const STORE: &str = "latest";
const PROCESSING_LIMIT: Duration = Duration::from_secs(240);
const DIFFERENCES_SHOWN: usize = 10;

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

    let (first_half, second_half) = reports.split_at(reports.len() / 2);
    load(folder, &broker, first_half)?;
    load(folder, &broker, second_half)?;
    let committed = host.application()?.committed(REPORTS_TOPIC);
    host.kill()?;
    println!("kill -9 of the host, and of the broker in it, with {committed} of {} reports committed", reports.len());
    let mut host = Host::start_ready(&options).context("the host did not start again")?;
    println!("host started again at {}", host.url);
    let records = await_votes(&host, &broker, reports.len())?;
    ensure!(
        records.len() == reports.len(),
        "{} reports have {} answers: some were lost or given twice",
        reports.len(),
        records.len()
    );
    println!("{} reports, {} answers: none lost, none twice", reports.len(), records.len());
    show_votes(&records)?;
    show_store(&host)?;
    let status = host.terminate()?;
    println!("\nhost ended with {status}");
    Ok(votes::compare(&expected, &votes::last_of_each(&records)?))
}

/// Loads the reports in order of event time, with the progress of `sandbar topics produce`.
fn load(folder: &Path, broker: &Broker, reports: &[weather::Report]) -> Result<()> {
    let file = folder.join("reports.ndjson");
    let lines: String = reports.iter().map(|report| report.to_line() + "\n").collect();
    std::fs::write(&file, lines).with_context(|| format!("cannot write {}", file.display()))?;
    let status = Command::new(repository::sandbar()?)
        .args(["topics", "produce", "--value-format", "json"])
        .args(broker.flags())
        .arg(REPORTS_TOPIC)
        .arg(&file)
        .status()
        .context("cannot start sandbar topics produce")?;
    ensure!(status.success(), "sandbar topics produce ended with {status}");
    Ok(())
}

/// Waits until every report is processed and committed, and reads the votes.
fn await_votes(host: &Host, broker: &Broker, reports: usize) -> Result<Vec<Record>> {
    let started = Instant::now();
    wait_until(PROCESSING_LIMIT, || {
        let committed = host.application()?.committed(REPORTS_TOPIC);
        progress(&format!("processed {committed} of {reports} reports"));
        ensure!(committed >= reports as u64, "{committed} of {reports} reports are processed");
        Ok(())
    })?;
    done(&format!("processed {reports} reports"), started, reports);
    topics::read(broker, VOTES_TOPIC, Values::Json)
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

fn done(text: &str, started: Instant, records: usize) {
    let seconds = started.elapsed().as_secs_f64();
    let clear = if std::io::stdout().is_terminal() { "\r\x1b[K" } else { "" };
    println!("{clear}{text} in {seconds:.2} s ({:.0} records/s)", records as f64 / seconds);
}
