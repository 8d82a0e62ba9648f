//! Row X1 for swaps: the judge finds every kind of defect that is put into a recording, and nothing in one without.
//! Recordings are made from a seed as hosts without faults would leave them.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};

use super::commits::Commit;
use super::judge::{Counts, Known, Output, Recording, Shown, judge};
use crate::checker::LogEnd;
use crate::random::Random;
use crate::self_test::Outcome;
use crate::workload::{Key, Plan};

/// Puts one defect into a recording.
type PutIn = fn(&mut Recording, &mut Random);

const KINDS: [(&str, PutIn); 13] = [
    ("lost", drop_entry),
    ("duplicated", duplicate),
    ("reordered", swap),
    ("wrong", falsify),
    ("wrong version", relabel),
    ("wrong switch", switch_early),
    ("wrong switch", forget_mark),
    ("wrong report", misreport),
    ("torn", uncommit),
    ("stale", make_stale),
    ("hanging", hang),
    ("unstable", forget),
    ("foreign", add_foreign),
];

/// Runs every kind of defect with every seed, and as many runs without a defect.
///
/// # Errors
/// The first defect that was not found as what it is, or the first false alarm.
pub fn run(seeds: u64) -> Result<Outcome> {
    for seed in 0..seeds {
        let mut random = Random::new(seed);
        let clean = recording(&mut random);
        let findings = judge(&clean).findings;
        ensure!(findings.counts.is_empty(), "a false alarm with seed {seed}: {findings:?}");
        for (kind, put_in) in KINDS {
            let mut recording = clean.clone();
            put_in(&mut recording, &mut random);
            let findings = judge(&recording).findings;
            let found: Vec<_> = findings.counts.iter().map(|(kind, count)| (*kind, *count)).collect();
            ensure!(found == [(kind, 1)], "expected one {kind} with seed {seed}, found {findings:?}");
        }
    }
    Ok(Outcome { kinds: KINDS.len(), seeds, clean_runs: seeds })
}

/// What a campaign without any fault leaves behind.
fn recording(random: &mut Random) -> Recording {
    let partitions = u32::try_from(random.between(1, 8)).unwrap_or(1);
    let keys = u32::try_from(random.between(1, 20)).unwrap_or(1);
    let plan = Plan { seed: random.next(), partitions, keys, poison_one_in: 0, preloaded: 0 };
    let versions = random.between(2, 6);
    let mut recording = Recording { outputs: vec![Vec::new(); partitions as usize], ..Recording::default() };
    recording.versions = (1..=versions).map(|number| (number, Known { label: 100 + number, spoils: false })).collect();
    for partition in 0..partitions {
        let entries = usize::try_from(random.between(60, 120)).unwrap_or(60);
        recording.input.push(plan.entries(partition).take(entries).map(|entry| entry.key).collect());
        let commits = commits_of(random, entries, versions);
        let shown = commits.iter().filter_map(|commit| commit.version);
        recording.shown.extend(shown.map(|(version, since)| Shown { partition, version, since }));
        recording.commits.push(commits);
    }
    recording.shown.sort_unstable();
    recording.shown.dedup();
    process(&mut recording, random);
    recording.witnessed = recording.outputs.clone();
    let ends = 0..random.between(1, 5);
    recording.ends = ends.map(|number| LogEnd { partition: format!("t-{number}"), last_stable: 9, end: 9 }).collect();
    recording
}

/// Commits of one to five entries each; every version takes over once.
fn commits_of(random: &mut Random, entries: usize, versions: u64) -> Vec<Commit> {
    let entries = i64::try_from(entries).unwrap_or(i64::MAX);
    let (mut offset, mut mark) = (0, (1, 0));
    let mut commits = Vec::new();
    while offset < entries {
        let target = 1 + offset.cast_unsigned() * versions / entries.cast_unsigned();
        if target != mark.0 {
            mark = (target, offset);
            // A swap is committed also where no record comes.
            if random.one_in(3) {
                commits.push(Commit { offset, version: Some(mark), ..Commit::default() });
            }
        }
        offset = (offset + i64::try_from(random.between(1, 5)).unwrap_or(1)).min(entries);
        commits.push(Commit { offset, version: Some(mark), ..Commit::default() });
    }
    commits
}

/// The partitions take turns; transactions leave gaps in the offsets.
fn process(recording: &mut Recording, random: &mut Random) {
    let partitions = recording.input.len();
    let mut next = vec![0; partitions];
    let mut offsets = vec![-1_i64; partitions];
    let mut rows: BTreeMap<Key, u64> = BTreeMap::new();
    loop {
        let open: Vec<usize> = (0..partitions).filter(|at| next[*at] < recording.input[*at].len()).collect();
        if open.is_empty() {
            break;
        }
        let origin = open[random.index(open.len())];
        let seq = next[origin];
        next[origin] += 1;
        let key = recording.input[origin][seq];
        let count = rows.entry(key).or_default();
        *count += 1;
        let to = key.number as usize % partitions;
        offsets[to] += 1 + i64::from(random.one_in(10));
        let output = Output {
            offset: offsets[to],
            appended_ms: 0,
            origin: key.partition,
            seq: seq as u64,
            key,
            count: *count,
            label: 100 + version_at(recording, origin, seq),
        };
        recording.outputs[to].push(output);
    }
    let all: Vec<u32> = (0..u32::try_from(partitions).unwrap_or(0)).collect();
    let half: BTreeMap<Key, u64> = rows.iter().filter(|(key, _)| key.partition == 0).map(|(k, v)| (*k, *v)).collect();
    recording.counts = vec![
        Counts { name: "the changelog".to_owned(), partitions: all, rows },
        Counts { name: "host 0".to_owned(), partitions: vec![0], rows: half },
    ];
}

fn version_at(recording: &Recording, partition: usize, seq: usize) -> u64 {
    let commit = recording.commits[partition].iter().find(|commit| commit.offset > seq as i64);
    commit.and_then(|commit| commit.version).map_or(0, |(number, _)| number)
}

/// A place in the outputs with so many records behind each other.
fn place(recording: &Recording, random: &mut Random, records: usize) -> (usize, usize) {
    loop {
        let partition = random.index(recording.outputs.len());
        let length = recording.outputs[partition].len();
        if length >= records {
            return (partition, random.index(length - records + 1));
        }
    }
}

/// Changes a partition of the outputs as it is and as it was seen.
fn change(recording: &mut Recording, partition: usize, run: impl Fn(&mut Vec<Output>)) {
    run(&mut recording.outputs[partition]);
    run(&mut recording.witnessed[partition]);
}

fn drop_entry(recording: &mut Recording, random: &mut Random) {
    let (partition, at) = place(recording, random, 1);
    change(recording, partition, |records| {
        records.remove(at);
    });
}

fn duplicate(recording: &mut Recording, random: &mut Random) {
    let (partition, at) = place(recording, random, 1);
    let behind = at + 1 + random.index(recording.outputs[partition].len() - at);
    change(recording, partition, |records| records.insert(behind, records[at]));
}

fn swap(recording: &mut Recording, random: &mut Random) {
    loop {
        let (partition, at) = place(recording, random, 2);
        let records = &recording.outputs[partition];
        // Entries of different partitions have no order.
        if records[at].origin == records[at + 1].origin {
            return change(recording, partition, |records| records.swap(at, at + 1));
        }
    }
}

fn falsify(recording: &mut Recording, random: &mut Random) {
    let (partition, at) = place(recording, random, 1);
    change(recording, partition, |records| records[at].count += 1);
}

/// An output of the version before or after the right one.
fn relabel(recording: &mut Recording, random: &mut Random) {
    let (partition, at) = place(recording, random, 1);
    let up = recording.outputs[partition][at].label == 101 || random.one_in(2);
    change(recording, partition, |records| {
        let label = &mut records[at].label;
        *label = if up { *label + 1 } else { *label - 1 };
    });
}

/// The mark of a version says an offset before the one at which the version before it ended.
fn switch_early(recording: &mut Recording, random: &mut Random) {
    let partition = random.index(recording.commits.len());
    let commits = &mut recording.commits[partition];
    let (number, since) = commits[commits.len() - 1].version.unwrap_or((0, 0));
    for commit in commits.iter_mut().filter(|commit| commit.version == Some((number, since))) {
        commit.version = Some((number, since - 1));
    }
    for shown in
        recording.shown.iter_mut().filter(|shown| (shown.partition as usize, shown.version) == (partition, number))
    {
        shown.since = since - 1;
    }
}

/// A commit that does not say which version it is of, behind one that does.
fn forget_mark(recording: &mut Recording, random: &mut Random) {
    let partition = random.index(recording.commits.len());
    let commits = &mut recording.commits[partition];
    if let Some(last) = commits.last().copied() {
        commits.push(Commit { version: None, ..last });
    }
}

fn misreport(recording: &mut Recording, random: &mut Random) {
    let at = random.index(recording.shown.len());
    recording.shown[at].since += 1;
}

/// The last commit of a partition is short of its last entry.
fn uncommit(recording: &mut Recording, random: &mut Random) {
    let partition = random.index(recording.commits.len());
    let commits = &mut recording.commits[partition];
    let end = commits.last().map_or(0, |commit| commit.offset);
    commits.iter_mut().filter(|commit| commit.offset == end).for_each(|commit| commit.offset -= 1);
}

fn make_stale(recording: &mut Recording, random: &mut Random) {
    let at = random.index(recording.counts.len());
    let rows = &mut recording.counts[at].rows;
    let Some(key) = rows.keys().nth(random.index(rows.len())).copied() else { return };
    if random.one_in(2) {
        rows.remove(&key);
    } else if let Some(count) = rows.get_mut(&key) {
        *count -= 1;
    }
}

fn hang(recording: &mut Recording, random: &mut Random) {
    let at = random.index(recording.ends.len());
    recording.ends[at].last_stable -= 1;
}

fn forget(recording: &mut Recording, random: &mut Random) {
    let (partition, at) = place(recording, random, 1);
    recording.witnessed[partition].remove(at);
}

/// An answer to an entry that nobody wrote.
fn add_foreign(recording: &mut Recording, random: &mut Random) {
    let (partition, at) = place(recording, random, 1);
    let output = Output { seq: 1_000_000, offset: 1_000_000, ..recording.outputs[partition][at] };
    change(recording, partition, |records| records.push(output));
}
