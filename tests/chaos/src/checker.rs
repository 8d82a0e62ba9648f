//! The verdict on a campaign: compares what was recorded (input, outputs, what a concurrent reader saw, log ends,
//! changelog, dumps of the stores) with the ledger computed from the input. Pure; it knows nothing of how the records
//! came to be, and it is itself tested by recordings with one defect each.

use std::collections::BTreeMap;
use std::fmt;

use crate::poison::DeadLetter;
use crate::workload::{Balance, Input, Key, OUTPUTS, Output};

/// Records of a topic by partition, in the order of their offsets.
pub type ByPartition<T> = Vec<Vec<T>>;

/// What a campaign left behind.
#[derive(Debug, Clone, Default)]
pub struct Recording {
    pub input: ByPartition<Input>,
    /// The topic of the input, as dead letters name it.
    pub input_topic: String,
    /// The outputs as a `read_committed` reader finds them afterwards.
    pub outputs: [ByPartition<Output>; 2],
    /// The outputs as the concurrent reader saw them.
    pub witnessed: [ByPartition<Output>; 2],
    pub ends: Vec<LogEnd>,
    /// The changelog's latest records.
    pub changelog: BTreeMap<Key, Balance>,
    pub dumps: Vec<Dump>,
    /// The dead letters in the order of their topic's partitions and offsets.
    pub dead_letters: Vec<DeadLetter>,
}

/// Where a partition ends for `read_committed` readers, and where it ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogEnd {
    pub partition: String,
    pub last_stable: i64,
    pub end: i64,
}

/// A store as hosts showed it.
#[derive(Debug, Clone, Default)]
pub struct Dump {
    /// Whose it is, for the report.
    pub name: String,
    /// The partitions that it must hold, all of them and no others.
    pub partitions: Vec<u32>,
    pub rows: BTreeMap<Key, Balance>,
}

/// A kind of defect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Defect {
    /// An entry without an output.
    Lost,
    /// An output that is there again.
    Duplicated,
    /// An output after one of a later entry.
    Reordered,
    /// An entry that is in one output and not in the other.
    Torn,
    /// An output with another balance than the model's.
    Wrong,
    /// A row of a store or changelog that is not the model's.
    Stale,
    /// A partition that `read_committed` readers cannot read to its end.
    Hanging,
    /// The concurrent reader saw something else than is there.
    Unstable,
    /// A record that belongs to no entry.
    Foreign,
    /// Poison without a dead letter.
    NoLetter,
    /// Poison with several.
    ManyLetters,
    /// A dead letter that says something else than the poison is, or that belongs to none.
    FalseLetter,
    /// An output of poison.
    CameThrough,
}

impl Defect {
    pub const ALL: [Self; 13] = [
        Self::Lost,
        Self::Duplicated,
        Self::Reordered,
        Self::Torn,
        Self::Wrong,
        Self::Stale,
        Self::Hanging,
        Self::Unstable,
        Self::Foreign,
        Self::NoLetter,
        Self::ManyLetters,
        Self::FalseLetter,
        Self::CameThrough,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Lost => "lost",
            Self::Duplicated => "duplicated",
            Self::Reordered => "reordered",
            Self::Torn => "torn",
            Self::Wrong => "wrong",
            Self::Stale => "stale",
            Self::Hanging => "hanging",
            Self::Unstable => "unstable",
            Self::Foreign => "foreign",
            Self::NoLetter => "without a dead letter",
            Self::ManyLetters => "with several dead letters",
            Self::FalseLetter => "false dead letters",
            Self::CameThrough => "poison that came through",
        }
    }
}

mod letters;

/// How many examples of each defect are kept.
const EXAMPLES: usize = 5;

/// What was found.
#[derive(Debug, Clone, Default)]
pub struct Verdict {
    /// Entries in the input.
    pub records: u64,
    counts: BTreeMap<Defect, u64>,
    examples: BTreeMap<Defect, Vec<String>>,
}

impl Verdict {
    pub fn count(&self, defect: Defect) -> u64 {
        self.counts.get(&defect).copied().unwrap_or(0)
    }

    pub fn is_clean(&self) -> bool {
        self.counts.is_empty()
    }

    /// All that was found, by kind.
    pub fn counts(&self) -> impl Iterator<Item = (Defect, u64)> + '_ {
        self.counts.iter().map(|(defect, count)| (*defect, *count))
    }

    fn found(&mut self, defect: Defect, what: impl FnOnce() -> String) {
        *self.counts.entry(defect).or_default() += 1;
        let examples = self.examples.entry(defect).or_default();
        if examples.len() < EXAMPLES {
            examples.push(what());
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} records", self.records)?;
        for defect in Defect::ALL {
            let count = self.count(defect);
            // The promise is said even where it was kept.
            if count > 0 || matches!(defect, Defect::Lost | Defect::Duplicated | Defect::Torn) {
                write!(f, ", {count} {}", defect.name())?;
            }
        }
        for (defect, examples) in &self.examples {
            for example in examples {
                write!(f, "\n  {}: {example}", defect.name())?;
            }
        }
        Ok(())
    }
}

/// The ledger of the input: each entry's balance, and each key's last one.
struct Model {
    /// By partition and seq; nothing for poison.
    after: Vec<Vec<Option<(Key, Balance)>>>,
    last: BTreeMap<Key, Balance>,
}

impl Model {
    fn of(input: &[Vec<Input>]) -> Self {
        let mut last: BTreeMap<Key, Balance> = BTreeMap::new();
        let fold = |entry: &Input| {
            if entry.entry.poison.is_some() {
                return None;
            }
            let balance = last.entry(entry.entry.key).or_default();
            balance.add(entry.entry.amount);
            Some((entry.entry.key, *balance))
        };
        let mut fold = fold;
        let after = input.iter().map(|partition| partition.iter().map(&mut fold).collect()).collect();
        Self { after, last }
    }

    fn of_partitions(&self, partitions: &[u32]) -> BTreeMap<Key, Balance> {
        let of_them = self.last.iter().filter(|(key, _)| partitions.contains(&key.partition));
        of_them.map(|(key, balance)| (*key, *balance)).collect()
    }
}

/// Judges a recording.
pub fn check(recording: &Recording) -> Verdict {
    let mut verdict = Verdict::default();
    check_ends(recording, &mut verdict);
    check_input(recording, &mut verdict);
    let model = Model::of(&recording.input);
    let seen: Vec<Vec<Vec<u32>>> = recording
        .outputs
        .iter()
        .zip(OUTPUTS)
        .map(|(output, topic)| check_output(topic, output, &model, &mut verdict))
        .collect();
    check_both(&seen, &model, &mut verdict);
    letters::check(recording, &mut verdict);
    let partitions: Vec<u32> = (0..u32::try_from(recording.input.len()).unwrap_or(u32::MAX)).collect();
    check_rows("the changelog", &model.of_partitions(&partitions), &recording.changelog, &mut verdict);
    for dump in &recording.dumps {
        check_rows(&dump.name, &model.of_partitions(&dump.partitions), &dump.rows, &mut verdict);
    }
    check_witness(recording, &mut verdict);
    verdict
}

fn check_ends(recording: &Recording, verdict: &mut Verdict) {
    for LogEnd { partition, last_stable, end } in &recording.ends {
        if last_stable != end {
            verdict.found(Defect::Hanging, || format!("{partition} can be read to {last_stable}, its end is {end}"));
        }
    }
}

/// The loader's own work: partition and seq of an entry are where it stands. All else is measured by it.
fn check_input(recording: &Recording, verdict: &mut Verdict) {
    for (partition, entries) in recording.input.iter().enumerate() {
        verdict.records += entries.len() as u64;
        for (seq, entry) in entries.iter().enumerate() {
            if entry.partition as usize != partition || entry.seq != seq as u64 {
                verdict.found(Defect::Foreign, || format!("the input's {partition}/{seq} is {entry:?}"));
            }
        }
    }
}

/// Judges one output by itself, and gives how often each entry is in it.
fn check_output(topic: &str, output: &ByPartition<Output>, model: &Model, verdict: &mut Verdict) -> Vec<Vec<u32>> {
    let mut seen: Vec<Vec<u32>> = model.after.iter().map(|entries| vec![0; entries.len()]).collect();
    for (partition, records) in output.iter().enumerate() {
        // The highest seq of each origin in this partition.
        let mut highest: Vec<Option<u64>> = vec![None; model.after.len()];
        for record in records {
            let place =
                || format!("{topic}-{partition} offset {}: entry {}/{}", record.offset, record.origin, record.seq);
            let (origin, seq) = (record.origin as usize, usize::try_from(record.seq).unwrap_or(usize::MAX));
            let expected = model.after.get(origin).and_then(|entries| entries.get(seq)).copied();
            let (key, balance) = match expected {
                Some(Some(expected)) => expected,
                Some(None) => {
                    verdict.found(Defect::CameThrough, place);
                    continue;
                }
                None => {
                    verdict.found(Defect::Foreign, place);
                    continue;
                }
            };
            if (key, balance) != (record.key, record.balance) {
                let found = (record.key, record.balance);
                verdict
                    .found(Defect::Wrong, || format!("{}: expected {balance:?} of {key:?}, found {found:?}", place()));
            }
            seen[origin][seq] += 1;
            if seen[origin][seq] > 1 {
                verdict.found(Defect::Duplicated, place);
            } else if highest[origin].is_some_and(|highest| highest > record.seq) {
                verdict.found(Defect::Reordered, || format!("{} comes after {:?}", place(), highest[origin]));
            }
            highest[origin] = highest[origin].max(Some(record.seq));
        }
    }
    seen
}

/// Each entry that is no poison is in both outputs.
fn check_both(seen: &[Vec<Vec<u32>>], model: &Model, verdict: &mut Verdict) {
    let [first, second] = seen else { return };
    for (origin, (first, second)) in first.iter().zip(second).enumerate() {
        for (seq, (first, second)) in first.iter().zip(second).enumerate() {
            match (first, second) {
                _ if model.after[origin][seq].is_none() => {}
                (0, 0) => verdict.found(Defect::Lost, || format!("entry {origin}/{seq} is in no output")),
                (0, _) | (_, 0) => verdict.found(Defect::Torn, || {
                    format!("entry {origin}/{seq} is {first} times in {}, {second} times in {}", OUTPUTS[0], OUTPUTS[1])
                }),
                _ => {}
            }
        }
    }
}

fn check_rows(name: &str, expected: &BTreeMap<Key, Balance>, found: &BTreeMap<Key, Balance>, verdict: &mut Verdict) {
    for (key, balance) in expected {
        let row = found.get(key);
        if row != Some(balance) {
            verdict.found(Defect::Stale, || format!("{name}: {key:?} is {row:?}, expected {balance:?}"));
        }
    }
    for (key, balance) in found.iter().filter(|(key, _)| !expected.contains_key(key)) {
        verdict.found(Defect::Stale, || format!("{name}: {key:?} is {balance:?}, expected nothing"));
    }
}

/// What was once readable stays, and nothing comes in between.
fn check_witness(recording: &Recording, verdict: &mut Verdict) {
    for ((output, witnessed), topic) in recording.outputs.iter().zip(&recording.witnessed).zip(OUTPUTS) {
        for (partition, records) in output.iter().enumerate() {
            let other = witnessed.get(partition).map_or(&[][..], Vec::as_slice);
            let differs = records.iter().zip(other).position(|(record, other)| record != other);
            if let Some(at) = differs {
                verdict.found(Defect::Unstable, || {
                    format!("{topic}-{partition}: seen was {:?}, there is {:?}", other[at], records[at])
                });
            } else if records.len() != other.len() {
                verdict.found(Defect::Unstable, || {
                    format!("{topic}-{partition}: {} records were seen, there are {}", other.len(), records.len())
                });
            }
        }
    }
}

#[cfg(test)]
mod tests;
