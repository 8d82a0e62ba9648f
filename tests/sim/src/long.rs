//! Many schedules in slices: each slice becomes a line of a results file, so that a run that was stopped goes on after
//! its last whole slice. A slice that was played by another version of the sources counts all the same; its line says
//! by which.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;

use sim::campaign::{Campaign, schedules};

/// Schedules of a slice.
const SLICE: u64 = 2_000;

const HEADER: &str = "from\tto\tfailed\tversion\tplayed\tfaults\tcommit\tseeds that failed";

/// Plays what the file has not, up to this number. False when any slice of the file has a failure.
pub fn play(path: &Path, to: u64) -> Result<bool, String> {
    let fault = |error: std::io::Error| format!("{}: {error}", path.display());
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => format!("{HEADER}\n"),
        Err(error) => return Err(fault(error)),
    };
    std::fs::write(path, &text).map_err(fault)?;
    let mut from = next(&text)?;
    // That of the sources which were compiled, if they have not changed since.
    let version = version();
    let mut file = OpenOptions::new().append(true).open(path).map_err(fault)?;
    while from < to {
        let end = (from + SLICE).min(to);
        let campaign = Campaign::play(&schedules(from, end), usize::MAX);
        writeln!(file, "{}", line(from, end, &version, &campaign)).map_err(fault)?;
        println!("{end} of {to} schedules, {} of this slice failed", campaign.failures.len());
        println!("{}", campaign.describe_failures());
        from = end;
    }
    let text = std::fs::read_to_string(path).map_err(fault)?;
    let failed: u64 = rows(&text).map(|row| field(&row, 2)).sum::<Result<u64, String>>()?;
    println!("simulation: {} schedules, {failed} failed, {}", next(&text)?, path.display());
    Ok(failed == 0)
}

fn rows(text: &str) -> impl Iterator<Item = Vec<&str>> {
    text.lines().skip(1).map(|line| line.split('\t').collect())
}

fn field(row: &[&str], index: usize) -> Result<u64, String> {
    let text = row.get(index).copied().unwrap_or_default();
    text.parse().map_err(|_| format!("expected a number in column {}, found {text:?}", index + 1))
}

/// The first schedule that is not in the file.
fn next(text: &str) -> Result<u64, String> {
    rows(text).last().map_or(Ok(0), |row| field(&row, 1))
}

fn line(from: u64, to: u64, version: &str, campaign: &Campaign) -> String {
    let commit: BTreeMap<&str, u64> = campaign.coverage.iter().map(|(place, count)| (place.as_str(), *count)).collect();
    let mut seeds = String::new();
    for failure in &campaign.failures {
        // Writing to a string cannot fail.
        let _ = write!(seeds, "{} {} ", failure.kind, failure.seed);
    }
    let played: BTreeMap<&str, u64> = campaign.played.iter().map(|(kind, count)| (kind.name(), *count)).collect();
    let parts = [join(&played), join(&campaign.counts), join(&commit)];
    format!("{from}\t{to}\t{}\t{}\t{}\t{}", campaign.failures.len(), version, parts.join("\t"), seeds.trim_end())
}

fn join(counts: &BTreeMap<&str, u64>) -> String {
    counts.iter().map(|(name, count)| format!("{name} {count}")).collect::<Vec<_>>().join(", ")
}

/// The commit of the sources, with a plus when they have changed since.
fn version() -> String {
    let git = |arguments: &[&str]| {
        let output = Command::new("git").args(arguments).output();
        output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default()
    };
    let commit = git(&["rev-parse", "--short=12", "HEAD"]);
    let changed = !git(&["status", "--porcelain", "--", "host", "tests/sim/src"]).is_empty();
    if commit.is_empty() { "unknown".to_owned() } else { format!("{commit}{}", if changed { "+" } else { "" }) }
}
