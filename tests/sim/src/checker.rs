//! The verdict over a run, from what was observed alone. Nothing may be lost and nothing may be out of order; under
//! exactly-once nothing may be counted again, whatever failed; under at-least-once records may be counted again only
//! where a failure allows it, and never more often than there were failures. Stores, changelogs and restored stores
//! must be the same.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::observation::{Observation, Output, Rows, StorePartition};
use crate::tally::{
    LATEST, PAIRED, STREAM_TIME, STREAM_TIME_LOST, TALLIES, TICK, TICK_INTERVAL_MS, Tallied, UNPAIRED, deletes,
};
use crate::workload::{Input, multiplicities};

/// What a run may show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// How often one record may be processed again at most; 0 after a run without failures.
    pub replays: u32,
    /// Whether anybody may have written after it lost its tasks. At-least-once has no fencing: what such a host had
    /// sent already reaches a changelog behind its successor's back, so that copies of a store may differ and a
    /// tally may fall behind, in a later output too. Apart from that outputs are judged as always.
    pub zombies: bool,
}

/// Something that must not be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Violation {
    /// The run itself failed: a thread ended with an error, or nothing went on.
    Failed(String),
    /// A record has no output, or is in no tally.
    Lost { topic: u32, partition: i32, sequence: u32, from: &'static str },
    /// A record was processed more often than the rules allow.
    Repeated { topic: u32, partition: i32, sequence: u32, times: usize, allowed: usize },
    /// An output came before that of an earlier record.
    Reordered { topic: u32, partition: i32, sequence: u32, missing: u32 },
    /// An output that no input explains, or whose tally cannot be.
    Invented { partition: i32, detail: String },
    /// A store's row is not what the inputs make it.
    WrongRow { store: &'static str, partition: i32, key: String, expected: String, found: String },
    /// Two copies of a store differ.
    Differs { store: String, partition: i32, between: &'static str, keys: Vec<String> },
    /// The committed offsets name another version than the wanted one, or an output comes from another one than they
    /// say.
    WrongVersion { topic: u32, partition: i32, offset: Option<i64>, expected: u64, found: u64 },
    /// The offset of a store or of the group is not the end of its log.
    WrongOffset { of: String, expected: i64, found: Option<i64> },
    /// Somebody who read all the time saw something else than what is there at last.
    ReadOtherwise { partition: i32, meanwhile: usize, at_last: usize },
    /// Something went back that never does.
    WentBack { of: String, detail: String },
    /// More than one thread ran a task, for long.
    TwoOwners { task: String, threads: Vec<String> },
    /// What a crash left of a store is not what its changelog says up to the store's offset.
    WrongAfterCrash { store: String, offset: i64, keys: Vec<String> },
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

fn text(key: &[u8]) -> String {
    String::from_utf8_lossy(key).into_owned()
}

/// Everything that is wrong.
pub fn check(observation: &Observation, rules: Rules) -> Vec<Violation> {
    let mut violations = Vec::new();
    check_outputs(observation, rules, &mut violations);
    check_positions(observation, &mut violations);
    check_versions(observation, rules, &mut violations);
    check_readers(observation, &mut violations);
    check_changelogs(observation, &mut violations);
    if rules.zombies {
        return violations;
    }
    check_store_offsets(observation, &mut violations);
    check_tallies(observation, rules, &mut violations);
    check_latest(observation, rules, &mut violations);
    check_copies(observation, &mut violations);
    violations
}

/// The committed offsets name the wanted version, and where nothing is replayed every record from the offset on that
/// they say has been processed by that.
fn check_versions(observation: &Observation, rules: Rules, violations: &mut Vec<Violation>) {
    for (&(topic, partition), mark) in &observation.versions {
        if mark.number != observation.active_version {
            let (expected, found) = (observation.active_version, mark.number);
            violations.push(Violation::WrongVersion { topic, partition, offset: None, expected, found });
        }
        let outputs = observation.outputs.get(&partition).into_iter().flatten();
        let by_others = outputs.filter(|output| output.topic == topic && output.offset >= mark.since);
        for output in by_others.filter(|output| output.version != mark.number && rules.replays == 0) {
            let (offset, expected, found) = (Some(output.offset), mark.number, output.version);
            violations.push(Violation::WrongVersion { topic, partition, offset, expected, found });
        }
    }
}

/// Nobody has read anything that is not there at last, and everything that is.
fn check_readers(observation: &Observation, violations: &mut Vec<Violation>) {
    for (&partition, at_last) in &observation.outputs {
        let meanwhile = observation.read_meanwhile.get(&partition).map_or(&[][..], Vec::as_slice);
        if meanwhile != at_last.as_slice() {
            let (meanwhile, at_last) = (meanwhile.len(), at_last.len());
            violations.push(Violation::ReadOtherwise { partition, meanwhile, at_last });
        }
    }
}

/// A changelog says the same after it was compacted, and so does a store that was filled from it.
fn check_changelogs(observation: &Observation, violations: &mut Vec<Violation>) {
    for ((store, partition), (rows, _)) in &observation.changelogs {
        let place = (store.clone(), *partition);
        let (history, restored) = (observation.histories.get(&place), observation.restored.get(&place));
        for (between, other) in [("changelog and its history", history), ("changelog and restored store", restored)] {
            compare(&place, between, rows, other, violations);
        }
    }
}

fn compare(
    (store, partition): &StorePartition,
    between: &'static str,
    rows: &Rows,
    other: Option<&Rows>,
    violations: &mut Vec<Violation>,
) {
    let empty = Rows::new();
    let other = other.unwrap_or(&empty);
    let keys: BTreeSet<&Vec<u8>> = rows.keys().chain(other.keys()).collect();
    let keys: Vec<String> =
        keys.into_iter().filter(|key| rows.get(*key) != other.get(*key)).map(|key| text(key)).collect();
    if !keys.is_empty() {
        violations.push(Violation::Differs { store: store.clone(), partition: *partition, between, keys });
    }
}

fn check_outputs(observation: &Observation, rules: Rules, violations: &mut Vec<Violation>) {
    let mut inputs: BTreeMap<(i32, u32, u32), &Input> =
        observation.inputs.iter().map(|input| ((input.partition, input.topic, input.sequence), input)).collect();
    for (&partition, outputs) in &observation.outputs {
        // By topic: the sequences seen so far have no gap.
        let mut next: BTreeMap<u32, u32> = BTreeMap::new();
        let mut times: BTreeMap<(u32, u32), usize> = BTreeMap::new();
        for output in outputs {
            let place = (output.topic, output.sequence);
            let known = inputs.contains_key(&(partition, output.topic, output.sequence)) || times.contains_key(&place);
            if !known {
                let detail = format!("no input for {output:?}");
                violations.push(Violation::Invented { partition, detail });
                continue;
            }
            let next = next.entry(output.topic).or_default();
            if output.sequence > *next {
                let (topic, sequence) = place;
                violations.push(Violation::Reordered { topic, partition, sequence, missing: *next });
            }
            *next = (*next).max(output.sequence + 1);
            *times.entry(place).or_default() += 1;
            inputs.remove(&(partition, output.topic, output.sequence));
        }
        let allowed = 1 + rules.replays as usize;
        for ((topic, sequence), times) in times {
            if times > allowed {
                violations.push(Violation::Repeated { topic, partition, sequence, times, allowed });
            }
        }
    }
    for (partition, topic, sequence) in inputs.into_keys() {
        violations.push(Violation::Lost { topic, partition, sequence, from: "outputs" });
    }
    check_output_tallies(observation, rules, violations);
}

/// Each output's tally holds its own record, in its first output once, and where nothing is replayed exactly the
/// records up to it. A first output that has counted its record before means that state was kept of which no output
/// told, so that a result is missing: outputs come before changelogs (R3).
fn check_output_tallies(observation: &Observation, rules: Rules, violations: &mut Vec<Violation>) {
    let inputs: BTreeMap<(u32, i32, u32), &Input> =
        observation.inputs.iter().map(|input| ((input.topic, input.partition, input.sequence), input)).collect();
    let mut running: BTreeMap<&[u8], Tallied> = BTreeMap::new();
    let mut told: BTreeSet<(u32, i32, u32)> = BTreeSet::new();
    for (&partition, outputs) in &observation.outputs {
        for output in outputs {
            let place = (output.topic, partition, output.sequence);
            let Some(input) = inputs.get(&place) else { continue };
            let times = multiplicities(output.tallied.sum)[input.index];
            if told.insert(place) && times > 1 && !rules.zombies {
                let detail = format!("its record is {times} times in its first {output:?}");
                violations.push(Violation::Invented { partition, detail });
            }
            if let Some(detail) = implausible(output, input, rules) {
                violations.push(Violation::Invented { partition, detail });
            }
            let expected = running.entry(&output.key).or_default();
            expected.count += 1;
            expected.sum += input.amount();
            if rules.replays == 0 && *expected != output.tallied {
                let detail = format!("expected {expected:?} after {output:?}");
                violations.push(Violation::Invented { partition, detail });
            }
        }
    }
}

fn implausible(output: &Output, input: &Input, rules: Rules) -> Option<String> {
    if output.key != input.key {
        return Some(format!("key {} in {output:?}", text(&input.key)));
    }
    let counted = multiplicities(output.tallied.sum);
    let total: u64 = counted.iter().map(|&times| u64::from(times)).sum();
    if total != output.tallied.count {
        return Some(format!("{total} records in the sum of {output:?}"));
    }
    // Its own record is in any tally, whatever a zombie has done to the ones before.
    let from = if rules.zombies { input.index } else { 0 };
    if counted[from..=input.index].contains(&0) {
        return Some(format!(
            "a record from the {}. to the {}. of its key is missing in {output:?}",
            from + 1,
            input.index + 1
        ));
    }
    None
}

fn check_tallies(observation: &Observation, rules: Rules, violations: &mut Vec<Violation>) {
    let mut sums: BTreeMap<(i32, &[u8]), Tallied> = BTreeMap::new();
    for ((store, partition), (rows, _)) in &observation.stores {
        if store != TALLIES {
            continue;
        }
        for (key, row) in rows {
            let tallied = Tallied::decode_row(observation.schema, row).unwrap_or_default();
            let total: u64 = multiplicities(tallied.sum).iter().map(|&times| u64::from(times)).sum();
            if total != tallied.count {
                let (expected, found) = (format!("a count of {total}"), format!("{tallied:?}"));
                let (partition, key) = (*partition, text(key));
                violations.push(Violation::WrongRow { store: TALLIES, partition, key, expected, found });
            }
            sums.insert((*partition, key), tallied);
        }
    }
    for input in &observation.inputs {
        let (topic, partition, sequence) = (input.topic, input.partition, input.sequence);
        let tallied = sums.get(&(partition, &input.key)).copied().unwrap_or_default();
        let times = usize::from(multiplicities(tallied.sum)[input.index]);
        let allowed = 1 + rules.replays as usize;
        if times == 0 {
            violations.push(Violation::Lost { topic, partition, sequence, from: TALLIES });
        } else if times > allowed {
            violations.push(Violation::Repeated { topic, partition, sequence, times, allowed });
        }
    }
}

/// The rows of `latest` do not depend on replays: they are those of the last record of each key.
fn check_latest(observation: &Observation, rules: Rules, violations: &mut Vec<Violation>) {
    let mut last: BTreeMap<(i32, &[u8]), u32> = BTreeMap::new();
    let mut stream_times: BTreeMap<i32, i64> = BTreeMap::new();
    for input in &observation.inputs {
        let latest = last.entry((input.partition, &input.key)).or_default();
        *latest = input.sequence.max(*latest);
        let time = stream_times.entry(input.partition).or_insert(input.timestamp);
        *time = input.timestamp.max(*time);
    }
    for ((_, partition), (rows, _)) in observation.stores.iter().filter(|((store, _), _)| store == LATEST) {
        let expected = last.iter().filter(|((of, _), sequence)| of == partition && !deletes(**sequence));
        let expected: BTreeMap<&[u8], u32> = expected.map(|((_, key), sequence)| (*key, *sequence)).collect();
        let keys: BTreeSet<&[u8]> = rows.keys().map(Vec::as_slice).chain(expected.keys().copied()).collect();
        let own = [TICK, STREAM_TIME, STREAM_TIME_LOST, PAIRED, UNPAIRED];
        for key in keys.into_iter().filter(|key| !own.contains(key)) {
            let found = rows.get(key).and_then(|row| Some(u32::from_be_bytes(row.as_slice().try_into().ok()?)));
            let expected = expected.get(key).copied();
            if found != expected {
                let (expected, found) = (format!("{expected:?}"), format!("{found:?}"));
                let (partition, key) = (*partition, text(key));
                violations.push(Violation::WrongRow { store: LATEST, partition, key, expected, found });
            }
        }
        if rules.replays == 0 && rows.contains_key(STREAM_TIME_LOST) {
            let (expected, found) = ("the stream time of the last commit".to_owned(), "another one".to_owned());
            let key = text(STREAM_TIME_LOST);
            violations.push(Violation::WrongRow { store: LATEST, partition: *partition, key, expected, found });
        }
        if rules.replays == 0 && rows.contains_key(UNPAIRED) {
            let (expected, found) = ("in both stores or in none".to_owned(), "in one".to_owned());
            let key = text(PAIRED);
            violations.push(Violation::WrongRow { store: TALLIES, partition: *partition, key, expected, found });
        }
        let tick = rows.get(TICK).and_then(|row| Some(i64::from_be_bytes(row.as_slice().try_into().ok()?)));
        let stream_time = stream_times.get(partition).copied();
        let due = stream_time.map(|time| time - time.rem_euclid(TICK_INTERVAL_MS as i64));
        let in_time = match (tick, due, stream_time) {
            (Some(tick), Some(due), Some(stream_time)) => tick >= due && tick <= stream_time,
            (None, None, None) => true,
            _ => false,
        };
        if !in_time {
            let (expected, found) = (format!("{due:?} to {stream_time:?}"), format!("{tick:?}"));
            let key = text(TICK);
            violations.push(Violation::WrongRow { store: LATEST, partition: *partition, key, expected, found });
        }
    }
}

fn check_copies(observation: &Observation, violations: &mut Vec<Violation>) {
    for ((store, partition), (rows, _)) in &observation.stores {
        let place = (store.clone(), *partition);
        let changelog = observation.changelogs.get(&place).map(|(rows, _)| rows);
        let restored = observation.restored.get(&place);
        for (between, other) in [("store and changelog", changelog), ("store and restored store", restored)] {
            compare(&place, between, rows, other, violations);
        }
    }
}

/// A store has everything that is in its changelog.
fn check_store_offsets(observation: &Observation, violations: &mut Vec<Violation>) {
    for ((store, partition), (_, found)) in &observation.stores {
        let Some((_, ends)) = observation.changelogs.get(&(store.clone(), *partition)) else { continue };
        if !ends.contains(&found.unwrap_or(0)) {
            let of = format!("store {store} of partition {partition}");
            violations.push(Violation::WrongOffset { of, expected: *ends.start(), found: *found });
        }
    }
}

/// The group has processed everything.
fn check_positions(observation: &Observation, violations: &mut Vec<Violation>) {
    for (place @ (topic, partition), ends) in &observation.input_ends {
        let found = observation.committed.get(place).copied().flatten();
        // The start of a partition is committed too.
        if !found.is_some_and(|found| ends.contains(&found)) {
            let of = format!("the group in partition {partition} of topic {topic}");
            violations.push(Violation::WrongOffset { of, expected: *ends.start(), found });
        }
    }
}
