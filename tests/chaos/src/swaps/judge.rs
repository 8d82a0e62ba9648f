//! The verdict on a campaign of swaps: compares outputs, stores and committed offsets with the counts that follow from
//! the input, and asks of every output whether it carries the version that its offset was switched to. Pure; it is
//! itself tested by recordings with one defect each (`self_test`).

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use serde::Deserialize;

use super::commits::Commit;
use crate::checker::{ByPartition, LogEnd};
use crate::findings::Findings;
use crate::workload::Key;

/// An output: the version that made it, and the record that it is the answer to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Output {
    pub offset: i64,
    /// When the log had it, in milliseconds, where the topic takes such times.
    pub appended_ms: i64,
    pub origin: u32,
    pub seq: u64,
    pub key: Key,
    /// Records of the key, this one included.
    pub count: u64,
    /// The label of its version.
    pub label: u64,
}

/// The value as the guest `versions` writes it.
#[derive(Deserialize)]
struct Value<'a> {
    version: &'a str,
    count: u64,
    partition: u32,
    offset: u64,
}

impl Output {
    /// # Errors
    /// When the bytes are no output.
    pub fn parse(offset: i64, appended_ms: i64, key: &[u8], value: &[u8]) -> Result<Self> {
        let Value { version, count, partition: origin, offset: seq } =
            serde_json::from_slice(value).context("an output that is no answer of the guest")?;
        let label = version.parse().with_context(|| format!("{version:?} is no label"))?;
        Ok(Self { offset, appended_ms, origin, seq, key: Key::parse(key)?, count, label })
    }
}

/// A version as the hosts list it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Known {
    /// What its outputs say.
    pub label: u64,
    /// It is one that forwards nothing or too much, which is seen only after a while: as long as it ran, an entry may
    /// have no output or several.
    pub spoils: bool,
}

/// What a host said by REST: a task runs this version, in this partition since that offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Shown {
    pub partition: u32,
    pub version: u64,
    pub since: i64,
}

/// The counts of a store, as one side shows them.
#[derive(Debug, Clone, Default)]
pub struct Counts {
    pub name: String,
    /// The partitions that it must hold, all of them and no others.
    pub partitions: Vec<u32>,
    pub rows: BTreeMap<Key, u64>,
}

/// What a campaign left behind.
#[derive(Debug, Clone, Default)]
pub struct Recording {
    /// The keys of the entries, by partition and offset.
    pub input: ByPartition<Key>,
    pub outputs: ByPartition<Output>,
    /// The outputs as a concurrent reader of committed records saw them.
    pub witnessed: ByPartition<Output>,
    /// By partition of the input, in their order.
    pub commits: ByPartition<Commit>,
    pub versions: BTreeMap<u64, Known>,
    pub shown: Vec<Shown>,
    pub ends: Vec<LogEnd>,
    pub counts: Vec<Counts>,
    /// The counts that a migration has read, and the offsets up to which they were counted.
    pub older: Option<Counts>,
    pub migrated_at: Vec<usize>,
}

/// What was found.
#[derive(Debug, Clone, Default)]
pub struct Verdict {
    pub findings: Findings,
    pub records: u64,
    /// How often a partition was switched to another version.
    pub switches: u64,
    /// Entries that a version which spoils outputs had.
    pub spoiled: u64,
    /// Words of hosts that were compared with committed offsets.
    pub compared: u64,
}

impl Verdict {
    fn found(&mut self, kind: &'static str, what: impl FnOnce() -> String) {
        self.findings.found(kind, what);
    }
}

/// Judges a recording.
pub fn judge(recording: &Recording) -> Verdict {
    let mut verdict = Verdict::default();
    for LogEnd { partition, last_stable, end } in &recording.ends {
        if last_stable != end {
            verdict.found("hanging", || format!("{partition} can be read to {last_stable}, its end is {end}"));
        }
    }
    let model = Model::of(&recording.input);
    verdict.records = recording.input.iter().map(|entries| entries.len() as u64).sum();
    let versions = versions_of(recording, &mut verdict);
    let seen = check_outputs(recording, &model, &versions, &mut verdict);
    check_all_there(recording, &versions, &seen, &mut verdict);
    recording.counts.iter().for_each(|counts| check_counts(counts, &model, &mut verdict));
    if let Some(older) = &recording.older {
        let until = |(entries, at): (&Vec<Key>, &usize)| entries[..(*at).min(entries.len())].to_vec();
        let before: ByPartition<Key> = recording.input.iter().zip(&recording.migrated_at).map(until).collect();
        let model = Model::of(&before);
        check_counts(older, &model, &mut verdict);
    }
    check_witness(recording, &mut verdict);
    check_shown(recording, &mut verdict);
    verdict
}

/// What must come of the input.
struct Model {
    /// By partition and offset: which record of its key it is.
    count: ByPartition<u64>,
    last: BTreeMap<Key, u64>,
}

impl Model {
    fn of(input: &[Vec<Key>]) -> Self {
        let mut last: BTreeMap<Key, u64> = BTreeMap::new();
        let mut count = |key: &Key| {
            let count = last.entry(*key).or_default();
            *count += 1;
            *count
        };
        let count = input.iter().map(|entries| entries.iter().map(&mut count).collect()).collect();
        Self { count, last }
    }
}

/// The version of every entry by the commit that covers it; none where nothing was committed for it.
fn versions_of(recording: &Recording, verdict: &mut Verdict) -> ByPartition<Option<u64>> {
    let none: Vec<Commit> = Vec::new();
    let of_partition = |(partition, entries): (usize, &Vec<Key>)| {
        let commits = recording.commits.get(partition).unwrap_or(&none);
        let mut versions = vec![None; entries.len()];
        let mut before = Commit::default();
        for commit in commits {
            check_commit(partition, &before, commit, verdict);
            let (from, to) = (before.offset.max(0).cast_unsigned(), commit.offset.max(0).cast_unsigned());
            let (from, to) = (usize::try_from(from).unwrap_or(usize::MAX), usize::try_from(to).unwrap_or(usize::MAX));
            if let Some(places) = versions.get_mut(from..to.min(entries.len())) {
                // An application that has had one version only need not say which.
                places.fill(Some(commit.version.map_or(1, |(number, _)| number)));
            }
            before = *commit;
        }
        versions
    };
    recording.input.iter().enumerate().map(of_partition).collect()
}

/// A version begins exactly where the one before it has ended.
fn check_commit(partition: usize, before: &Commit, commit: &Commit, verdict: &mut Verdict) {
    let place = || format!("partition {partition}, committed {commit:?} after {before:?}");
    if commit.offset < before.offset {
        verdict.found("gone back", place);
    }
    let Some((number, since)) = commit.version else {
        if before.version.is_some() {
            verdict.found("wrong switch", place);
        }
        return;
    };
    let is_other = before.version.map(|(before, _)| before) != Some(number);
    verdict.switches += u64::from(is_other && before.version.is_some());
    // The same version again, after one that has committed nothing, begins anew or has never ended.
    let goes_on = !is_other && before.version.is_some_and(|(_, before)| before == since);
    if !goes_on && since != before.offset {
        verdict.found("wrong switch", place);
    }
}

/// Judges the outputs one by one, and gives how often each entry is in them.
fn check_outputs(
    recording: &Recording,
    model: &Model,
    versions: &[Vec<Option<u64>>],
    verdict: &mut Verdict,
) -> ByPartition<u32> {
    let mut seen: Vec<Vec<u32>> = recording.input.iter().map(|entries| vec![0; entries.len()]).collect();
    for (partition, records) in recording.outputs.iter().enumerate() {
        let mut highest: Vec<Option<u64>> = vec![None; seen.len()];
        for record in records {
            let place = || format!("partition {partition} offset {}: {record:?}", record.offset);
            let (origin, seq) = (record.origin as usize, usize::try_from(record.seq).unwrap_or(usize::MAX));
            let Some(key) = recording.input.get(origin).and_then(|entries| entries.get(seq)) else {
                verdict.found("foreign", place);
                continue;
            };
            let count = model.count[origin][seq];
            if (*key, count) != (record.key, record.count) {
                verdict.found("wrong", || format!("{}, expected the count {count} of {key:?}", place()));
            }
            let spoils = check_version(recording, versions[origin][seq], record, verdict);
            seen[origin][seq] += 1;
            if seen[origin][seq] > 1 {
                if !spoils {
                    verdict.found("duplicated", place);
                }
            } else if highest[origin].is_some_and(|highest| highest > record.seq) {
                verdict.found("reordered", || format!("{} comes after {:?}", place(), highest[origin]));
            }
            highest[origin] = highest[origin].max(Some(record.seq));
        }
    }
    seen
}

/// Whether it is of a version that spoils outputs.
fn check_version(recording: &Recording, version: Option<u64>, record: &Output, verdict: &mut Verdict) -> bool {
    let place = || format!("{}/{} was answered as {record:?}", record.origin, record.seq);
    let Some(version) = version else {
        verdict.found("torn", || format!("{}, and its offset is not committed", place()));
        return false;
    };
    let Some(known) = recording.versions.get(&version) else {
        verdict.found("wrong version", || format!("{}, its offset is of version {version}, unknown to hosts", place()));
        return false;
    };
    if known.label != record.label {
        verdict.found("wrong version", || {
            format!("{}, its offset was switched to version {version}, which says {}", place(), known.label)
        });
    }
    known.spoils
}

fn check_all_there(recording: &Recording, versions: &[Vec<Option<u64>>], seen: &[Vec<u32>], verdict: &mut Verdict) {
    for (origin, (versions, seen)) in versions.iter().zip(seen).enumerate() {
        for (seq, (version, seen)) in versions.iter().zip(seen).enumerate() {
            let known = version.and_then(|version| recording.versions.get(&version));
            if known.is_some_and(|known| known.spoils) {
                verdict.spoiled += 1;
            } else if *seen == 0 {
                verdict.found("lost", || format!("entry {origin}/{seq} of version {version:?} is in no output"));
            }
        }
    }
}

fn check_counts(counts: &Counts, model: &Model, verdict: &mut Verdict) {
    let Counts { name, partitions, rows } = counts;
    let expected = model.last.iter().filter(|(key, _)| partitions.contains(&key.partition));
    for (key, count) in expected {
        let row = rows.get(key);
        if row != Some(count) {
            verdict.found("stale", || format!("{name}: {key:?} is {row:?}, expected {count}"));
        }
    }
    let is_expected = |key: &Key| partitions.contains(&key.partition) && model.last.contains_key(key);
    for (key, count) in rows.iter().filter(|(key, _)| !is_expected(key)) {
        verdict.found("stale", || format!("{name}: {key:?} is {count}, expected nothing"));
    }
}

/// What was once readable stays, and nothing comes in between.
fn check_witness(recording: &Recording, verdict: &mut Verdict) {
    for (partition, records) in recording.outputs.iter().enumerate() {
        let other = recording.witnessed.get(partition).map_or(&[][..], Vec::as_slice);
        if let Some(at) = records.iter().zip(other).position(|(record, other)| record != other) {
            let (found, seen) = (records[at], other[at]);
            verdict.found("unstable", || format!("partition {partition}: seen was {seen:?}, there is {found:?}"));
        } else if records.len() != other.len() {
            let (found, seen) = (records.len(), other.len());
            verdict.found("unstable", || format!("partition {partition}: {seen} records were seen, there are {found}"));
        }
    }
}

/// A host says of a version what is committed of it. One that has committed nothing leaves no trace to compare with.
fn check_shown(recording: &Recording, verdict: &mut Verdict) {
    for shown in &recording.shown {
        let commits = recording.commits.get(shown.partition as usize);
        let of_version = commits.into_iter().flatten().filter_map(|commit| commit.version);
        let starts: Vec<i64> =
            of_version.filter(|(number, _)| *number == shown.version).map(|(_, since)| since).collect();
        if starts.is_empty() {
            continue;
        }
        verdict.compared += 1;
        if !starts.contains(&shown.since) {
            verdict.found("wrong report", || format!("a host said {shown:?}, committed is {starts:?}"));
        }
    }
}

#[cfg(test)]
mod tests;
