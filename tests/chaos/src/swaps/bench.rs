//! What a swap costs: the pause of each task between the last record of the old version and the first of the new one,
//! beside the same gap at commits without a swap; how long a deployment takes until all tasks run it, for a small and a
//! large module; how long the way back takes. Times of records are those at which the broker appended them.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::Campaign;
use super::deploying::padded;
use super::judge::Recording;
use crate::campaign::Options;
use crate::results::{Slice, percentile};

/// How much is measured.
#[derive(Debug, Clone, Copy)]
pub struct Amount {
    pub swaps: u64,
    pub deploys: u64,
}

/// Gaps between two records that follow each other in a partition, in milliseconds.
#[derive(Debug, Clone, Default)]
pub struct Gaps {
    /// At commits with which another version takes over.
    pub swap: Vec<u64>,
    /// At all other commits.
    pub commit: Vec<u64>,
}

/// The gaps of a recording whose outputs have the times of the log.
pub fn gaps(recording: &Recording) -> Gaps {
    let mut appended: Vec<Vec<i64>> = recording.input.iter().map(|entries| vec![-1; entries.len()]).collect();
    for record in recording.outputs.iter().flatten() {
        let place = appended
            .get_mut(record.origin as usize)
            .and_then(|times| times.get_mut(usize::try_from(record.seq).unwrap_or(usize::MAX)));
        if let Some(place) = place {
            *place = record.appended_ms;
        }
    }
    let mut gaps = Gaps::default();
    for (times, commits) in appended.iter().zip(&recording.commits) {
        let with_records = commits.windows(2).filter(|pair| pair[0].offset < pair[1].offset);
        let mut number_before = None;
        for pair in with_records {
            let at = usize::try_from(pair[0].offset).unwrap_or(0);
            let number = pair[1].version.map(|(number, _)| number);
            let is_swap = number_before.is_some() && number_before != Some(number);
            number_before = Some(number);
            let (Some(&before), Some(&after)) = (at.checked_sub(1).and_then(|at| times.get(at)), times.get(at)) else {
                continue;
            };
            if before >= 0 && after >= 0 {
                let gap = u64::try_from(after - before).unwrap_or(0);
                if is_swap { gaps.swap.push(gap) } else { gaps.commit.push(gap) }
            }
        }
    }
    gaps
}

/// Times of one kind, in microseconds.
type Times = BTreeMap<&'static str, Vec<u64>>;

/// Measures under a steady load, and prints a table in Markdown.
///
/// # Errors
/// When something could not be carried through, or the judge found a defect.
pub fn run(options: &Options, amount: Amount, slice: &mut Slice) -> Result<()> {
    let mut times = Times::new();
    let mut campaign = Campaign::start(options, options.hosts)?;
    campaign.go_on(Duration::from_secs(5))?;
    swaps(&mut campaign, amount.swaps, &mut times)?;
    deploys(&mut campaign, amount.deploys, &mut times)?;
    campaign.quiet()?;
    let recording = campaign.record()?;
    let gaps = gaps(&recording);
    println!("| what | count | p50 | p99 | max |\n| --- | --- | --- | --- | --- |");
    let ms = |values: &[u64], percent| percentile(values, percent).unwrap_or(0);
    for (name, values) in [("gap at a swap", &gaps.swap), ("gap at a commit without one", &gaps.commit)] {
        let (count, p50, p99, max) = (values.len(), ms(values, 50), ms(values, 99), ms(values, 100));
        println!("| {name}, ms | {count} | {p50} | {p99} | {max} |");
    }
    for (name, values) in &times {
        let at = |percent| ms(values, percent) as f64 / 1_000.0;
        println!("| {name}, ms | {} | {:.1} | {:.1} | {:.1} |", values.len(), at(50), at(99), at(100));
    }
    rates(&recording, &gaps);
    campaign.finish(slice)
}

/// Entries per second that were answered, by the time at which the log had the answers.
fn rates(recording: &Recording, gaps: &Gaps) {
    let mut by_second: BTreeMap<i64, u64> = BTreeMap::new();
    for record in recording.outputs.iter().flatten() {
        *by_second.entry(record.appended_ms / 1_000).or_default() += 1;
    }
    // The first and the last second are no whole ones.
    let counts: Vec<u64> = by_second.values().copied().skip(1).take(by_second.len().saturating_sub(2)).collect();
    let of = |percent| percentile(&counts, percent).unwrap_or(0);
    println!(
        "\nanswers per second: least {}, p50 {}, most {}; {} tasks swapped",
        of(0),
        of(50),
        of(100),
        gaps.swap.len()
    );
}

/// One swap in a second, each of which all tasks go through.
fn swaps(campaign: &mut Campaign, count: u64, times: &mut Times) -> Result<()> {
    for _ in 0..count {
        campaign.go_on(Duration::from_millis(700))?;
        let started = Instant::now();
        let number = campaign.swap()?;
        let us = campaign.wait_tasks(number, started)?;
        times.entry("a module that was compiled before, from the deploy to all tasks").or_default().push(us);
    }
    Ok(())
}

/// Modules that nobody has compiled before, of two sizes, and the way back from each.
fn deploys(campaign: &mut Campaign, count: u64, times: &mut Times) -> Result<()> {
    const SIZES: [(&str, usize); 2] = [
        ("100 kB, new, from the deploy to all tasks", 100_000),
        ("12 MB, new, from the deploy to all tasks", 12_000_000),
    ];
    for _ in 0..count {
        for (name, bytes) in SIZES {
            campaign.go_on(Duration::from_secs(2))?;
            let module = campaign.next_module();
            let module = padded(&module, bytes, &mut campaign.random);
            let version = campaign.version(module, &[]);
            let started = Instant::now();
            let number = campaign.deploy_good(&version)?;
            let us = campaign.wait_tasks(number, started).context(name)?;
            times.entry(name).or_default().push(us);
            campaign.go_on(Duration::from_secs(1))?;
            let started = Instant::now();
            let answer = campaign.deployer.roll_back()?.answer;
            let number = answer.document["number"].as_u64().with_context(|| format!("no way back: {answer:?}"))?;
            let us = campaign.wait_tasks(number, started)?;
            times.entry("the way back, from the request to all tasks").or_default().push(us);
        }
    }
    Ok(())
}
