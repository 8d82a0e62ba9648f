//! Row X1, before anything else: the checker finds every kind of defect that is put into a recording, and nothing in
//! one without. Recordings are made from a seed as a host without faults would leave them.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};

use crate::checker::{self, Defect, Dump, LogEnd, Recording};
use crate::poison::{DeadLetter, Poison};
use crate::random::{Random, scatter};
use crate::workload::{Balance, Input, Output, PLACE_HEADER, Plan};

/// Puts one defect into a recording.
type PutIn = fn(&mut Recording, &mut Random);

/// The defects of the row, two of which only Kafka itself could cause.
const KINDS: [(Defect, PutIn); 13] = [
    (Defect::Lost, drop_entry),
    (Defect::Duplicated, duplicate),
    (Defect::Reordered, swap),
    (Defect::Torn, tear),
    (Defect::Wrong, falsify),
    (Defect::Stale, make_stale),
    (Defect::Hanging, hang),
    (Defect::Unstable, forget),
    (Defect::NoLetter, lose_letter),
    (Defect::ManyLetters, double_letter),
    (Defect::FalseLetter, falsify_letter),
    (Defect::CameThrough, let_through),
    (Defect::Reordered, swap_letters),
];

/// What the self-test found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    pub kinds: usize,
    pub seeds: u64,
    pub clean_runs: u64,
}

/// Runs every kind of defect with every seed, and as many runs without a defect.
///
/// # Errors
/// The first defect that was not found as what it is, or the first false alarm.
pub fn run(seeds: u64) -> Result<Outcome> {
    for seed in 0..seeds {
        let mut random = Random::new(seed);
        let clean = recording(&mut random);
        let verdict = checker::check(&clean);
        ensure!(verdict.is_clean(), "a false alarm with seed {seed}: {verdict}");
        for (defect, put_in) in KINDS {
            let mut recording = clean.clone();
            put_in(&mut recording, &mut random);
            let verdict = checker::check(&recording);
            let found: Vec<_> = verdict.counts().collect();
            ensure!(found == [(defect, 1)], "expected one {} with seed {seed}, found {verdict}", defect.name());
        }
    }
    Ok(Outcome { kinds: KINDS.len(), seeds, clean_runs: seeds })
}

/// What a campaign without any fault leaves behind.
fn recording(random: &mut Random) -> Recording {
    let partitions = u32::try_from(random.between(1, 8)).unwrap_or(1);
    let keys = u32::try_from(random.between(1, 20)).unwrap_or(1);
    let plan = Plan { seed: random.next(), partitions, keys, poison_one_in: 3, preloaded: 0 };
    let mut recording = Recording { input_topic: "entries".to_owned(), ..Recording::default() };
    for output in &mut recording.outputs {
        *output = vec![Vec::new(); partitions as usize];
    }
    for partition in 0..partitions {
        let entries = usize::try_from(random.between(20, 120)).unwrap_or(20);
        let input: Vec<Input> = plan
            .entries(partition)
            .take(entries)
            .zip(0..)
            .map(|(entry, seq)| Input { partition, seq, timestamp: 1_000 + seq.cast_signed(), entry })
            .collect();
        recording.input.push(input);
    }
    process(&mut recording, random);
    recording.witnessed = recording.outputs.clone();
    let first_half = partitions / 2;
    for (name, range) in [("host 1", 0..first_half), ("host 2", first_half..partitions), ("all", 0..partitions)] {
        let rows = recording.changelog.iter().filter(|(key, _)| range.contains(&key.partition));
        let rows = rows.map(|(key, balance)| (*key, *balance)).collect();
        recording.dumps.push(Dump { name: name.to_owned(), partitions: range.collect(), rows });
    }
    let ends = 0..random.between(1, 5);
    recording.ends = ends.map(|number| LogEnd { partition: format!("t-{number}"), last_stable: 9, end: 9 }).collect();
    recording
}

/// The partitions take turns; transactions leave gaps in the offsets.
fn process(recording: &mut Recording, random: &mut Random) {
    let mut next = vec![0; recording.input.len()];
    let mut offsets: BTreeMap<(usize, usize), i64> = BTreeMap::new();
    let mut ledger: BTreeMap<_, Balance> = BTreeMap::new();
    loop {
        let open: Vec<usize> = (0..next.len()).filter(|at| next[*at] < recording.input[*at].len()).collect();
        if open.is_empty() {
            break;
        }
        let partition = open[random.index(open.len())];
        let input = recording.input[partition][next[partition]];
        next[partition] += 1;
        let key = input.entry.key;
        if let Some(poison) = input.entry.poison {
            let offset = i64::try_from(recording.dead_letters.len()).unwrap_or(i64::MAX);
            recording.dead_letters.push(letter(&input, poison, offset));
            continue;
        }
        let balance = ledger.entry(key).or_default();
        balance.add(input.entry.amount);
        let scattered = usize::try_from(scatter(u64::from(key.number))).unwrap_or(0) % recording.input.len();
        for (topic, to) in [partition, scattered].into_iter().enumerate() {
            let offset = offsets.entry((topic, to)).or_insert(-1);
            *offset += 1 + i64::from(random.one_in(10));
            let output = Output { offset: *offset, origin: input.partition, seq: input.seq, key, balance: *balance };
            recording.outputs[topic][to].push(output);
        }
    }
    recording.changelog = ledger;
}

/// The dead letter of an entry, in the one partition of the topic.
fn letter(input: &Input, poison: Poison, offset: i64) -> DeadLetter {
    DeadLetter {
        partition: 0,
        offset,
        topic: "entries".to_owned(),
        origin: input.partition,
        seq: input.seq,
        reason: poison.reason().to_owned(),
        key: input.entry.key.text().into_bytes(),
        value: input.value(),
        timestamp: input.timestamp,
        headers: vec![(PLACE_HEADER.to_owned(), input.place())],
    }
}

/// A place in an output: topic, partition, index.
fn place(recording: &Recording, random: &mut Random, records: usize) -> (usize, usize, usize) {
    loop {
        let topic = random.index(2);
        let partition = random.index(recording.outputs[topic].len());
        let length = recording.outputs[topic][partition].len();
        if length >= records {
            return (topic, partition, random.index(length - records + 1));
        }
    }
}

/// Changes a partition of an output as it is and as it was seen.
fn change(recording: &mut Recording, topic: usize, partition: usize, run: impl Fn(&mut Vec<Output>)) {
    run(&mut recording.outputs[topic][partition]);
    run(&mut recording.witnessed[topic][partition]);
}

fn drop_entry(recording: &mut Recording, random: &mut Random) {
    let (topic, partition, at) = place(recording, random, 1);
    let Output { origin, seq, .. } = recording.outputs[topic][partition][at];
    for outputs in recording.outputs.iter_mut().chain(&mut recording.witnessed) {
        outputs.iter_mut().for_each(|records| records.retain(|record| (record.origin, record.seq) != (origin, seq)));
    }
}

fn duplicate(recording: &mut Recording, random: &mut Random) {
    let (topic, partition, at) = place(recording, random, 1);
    let behind = at + 1 + random.index(recording.outputs[topic][partition].len() - at);
    change(recording, topic, partition, |records| records.insert(behind, records[at]));
}

fn swap(recording: &mut Recording, random: &mut Random) {
    loop {
        let (topic, partition, at) = place(recording, random, 2);
        let records = &recording.outputs[topic][partition];
        // Entries of different partitions have no order.
        if records[at].origin == records[at + 1].origin {
            return change(recording, topic, partition, |records| records.swap(at, at + 1));
        }
    }
}

fn tear(recording: &mut Recording, random: &mut Random) {
    let (topic, partition, at) = place(recording, random, 1);
    change(recording, topic, partition, |records| {
        records.remove(at);
    });
}

fn falsify(recording: &mut Recording, random: &mut Random) {
    let (topic, partition, at) = place(recording, random, 1);
    let count = random.one_in(2);
    change(recording, topic, partition, |records| match count {
        true => records[at].balance.count += 1,
        false => records[at].balance.sum -= 1,
    });
}

fn make_stale(recording: &mut Recording, random: &mut Random) {
    let dumps = recording.dumps.iter_mut().map(|dump| &mut dump.rows);
    let mut places: Vec<_> = dumps.chain([&mut recording.changelog]).filter(|rows| !rows.is_empty()).collect();
    let at = random.index(places.len());
    let rows = &mut *places[at];
    let Some(key) = rows.keys().nth(random.index(rows.len())).copied() else { return };
    if random.one_in(2) {
        rows.remove(&key);
    } else if let Some(balance) = rows.get_mut(&key) {
        balance.count -= 1;
    }
}

fn hang(recording: &mut Recording, random: &mut Random) {
    let at = random.index(recording.ends.len());
    recording.ends[at].last_stable -= 1;
}

fn forget(recording: &mut Recording, random: &mut Random) {
    let (topic, partition, at) = place(recording, random, 1);
    recording.witnessed[topic][partition].remove(at);
}

fn lose_letter(recording: &mut Recording, random: &mut Random) {
    let at = random.index(recording.dead_letters.len());
    recording.dead_letters.remove(at);
}

/// Behind all others, so that no other poison changes its place.
fn double_letter(recording: &mut Recording, random: &mut Random) {
    let at = random.index(recording.dead_letters.len());
    recording.dead_letters.push(recording.dead_letters[at].clone());
}

fn falsify_letter(recording: &mut Recording, random: &mut Random) {
    let at = random.index(recording.dead_letters.len());
    match random.below(8) {
        0 => recording.dead_letters[at].reason = "deadline".to_owned(),
        1 => recording.dead_letters[at].value.push(0),
        2 => recording.dead_letters[at].key.push(b'0'),
        3 => recording.dead_letters[at].topic.push('s'),
        4 => recording.dead_letters[at].timestamp += 1,
        5 => recording.dead_letters[at].headers[0].1.push('0'),
        6 => recording.dead_letters[at].headers.clear(),
        // A healthy entry that was given up.
        _ => {
            let (topic, partition, at) = place(recording, random, 1);
            let Output { origin, seq, .. } = recording.outputs[topic][partition][at];
            let input = recording.input[origin as usize][usize::try_from(seq).unwrap_or(0)];
            recording.dead_letters.push(letter(&input, Poison::Trap, 0));
        }
    }
}

/// One output more, of an entry that is poison.
fn let_through(recording: &mut Recording, random: &mut Random) {
    let at = random.index(recording.dead_letters.len());
    let DeadLetter { origin, seq, .. } = recording.dead_letters[at];
    let key = recording.input[origin as usize][usize::try_from(seq).unwrap_or(0)].entry.key;
    let (topic, partition) = (random.index(2), random.index(recording.input.len()));
    let output = Output { offset: 1_000_000, origin, seq, key, balance: Balance::default() };
    change(recording, topic, partition, |records| records.push(output));
}

fn swap_letters(recording: &mut Recording, random: &mut Random) {
    let letters = &mut recording.dead_letters;
    loop {
        let at = random.index(letters.len());
        // The next one of the same partition, so that one is out of order and none in between.
        let next = letters.iter().skip(at + 1).position(|letter| letter.origin == letters[at].origin);
        if let Some(next) = next {
            return letters.swap(at, at + 1 + next);
        }
    }
}
