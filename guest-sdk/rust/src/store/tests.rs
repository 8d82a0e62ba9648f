//! Stores against a model: random scripts of reads, writes and scans, of which some records fail, in batches of
//! several sizes. Whatever a record reads and what remains at the end must be what a plain ordered map says.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::prelude::*;
use crate::testing::{TestDriver, TestRecord};

#[derive(Debug, Clone, Serialize, Deserialize)]
enum Step {
    Put(String, i64),
    Delete(String),
    Get(String),
    Range {
        from: Option<String>,
        to: Option<String>,
        reverse: bool,
    },
    Prefix {
        prefix: String,
        reverse: bool,
    },
    /// Reads while it writes: the walk must not see it.
    DeleteAll,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Script {
    steps: Vec<Step>,
    fails: bool,
}

/// What the steps saw, in order.
type Seen = Vec<(String, i64)>;

#[sandbar::processor(source = "scripts")]
struct Runner {
    #[store(prefetch)]
    entries: Store<String, i64>,
    #[sink]
    seen: Sink<(), Json<Seen>>,
}

impl Processor for Runner {
    type Key = String;
    type Value = Json<Script>;

    fn process(&mut self, record: Record<String, Json<Script>>, _context: &mut Context) -> Result<()> {
        let mut seen = Seen::new();
        let entries = &self.entries;
        for step in record.value.steps {
            match step {
                Step::Put(key, value) => entries.put(&key, &value)?,
                Step::Delete(key) => entries.delete(&key)?,
                Step::Get(key) => seen.push((key.clone(), entries.get(&key)?.unwrap_or(-1))),
                Step::Range { from, to, reverse } => {
                    let walk = entries.range(from.as_deref(), to.as_deref());
                    for entry in if reverse { walk.reverse() } else { walk } {
                        seen.push(entry?);
                    }
                }
                Step::Prefix { prefix, reverse } => {
                    let walk = entries.prefix(prefix);
                    for entry in if reverse { walk.reverse() } else { walk } {
                        seen.push(entry?);
                    }
                }
                Step::DeleteAll => {
                    for entry in entries.all() {
                        let (key, value) = entry?;
                        entries.delete(&key)?;
                        entries.put(&format!("{key}{key}"), &value)?;
                        entries.delete(&format!("{key}{key}"))?;
                        seen.push((key, value));
                    }
                }
            }
        }
        self.seen.forward(&(), &seen)?;
        ensure!(!record.value.fails, "told to fail");
        Ok(())
    }
}

fn run_model(entries: &mut BTreeMap<String, i64>, script: &Script) -> Seen {
    let mut seen = Seen::new();
    let mut extend = |mut found: Seen, reverse: bool| {
        if reverse {
            found.reverse();
        }
        seen.extend(found);
    };
    for step in &script.steps {
        match step {
            Step::Put(key, value) => drop(entries.insert(key.clone(), *value)),
            Step::Delete(key) => drop(entries.remove(key)),
            Step::Get(key) => extend(vec![(key.clone(), entries.get(key).copied().unwrap_or(-1))], false),
            Step::Range { from, to, reverse } => {
                let inside = |key: &String| {
                    from.as_ref().is_none_or(|from| key >= from) && to.as_ref().is_none_or(|to| key <= to)
                };
                let found = entries.iter().filter(|(key, _)| inside(key));
                extend(found.map(|(key, value)| (key.clone(), *value)).collect(), *reverse);
            }
            Step::Prefix { prefix, reverse } => {
                let found = entries.iter().filter(|(key, _)| key.starts_with(prefix));
                extend(found.map(|(key, value)| (key.clone(), *value)).collect(), *reverse);
            }
            Step::DeleteAll => extend(std::mem::take(entries).into_iter().collect(), false),
        }
    }
    seen
}

/// A small generator of its own (SplitMix64): the test needs the same scripts for a seed on every machine.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % limit
    }

    fn key(&mut self) -> String {
        let length = 1 + self.below(3);
        (0..length).map(|_| char::from(b'a' + self.below(3) as u8)).collect()
    }

    fn step(&mut self) -> Step {
        let reverse = self.below(2) == 0;
        match self.below(20) {
            0..9 => Step::Put(self.key(), self.below(1_000) as i64),
            9..12 => Step::Delete(self.key()),
            12..16 => Step::Get(self.key()),
            16..18 => {
                let end = |random: &mut Self| (random.below(4) > 0).then(|| random.key());
                Step::Range { from: end(self), to: end(self), reverse }
            }
            18 => Step::Prefix { prefix: self.key(), reverse },
            _ if self.below(4) == 0 => Step::DeleteAll,
            _ => Step::Prefix { prefix: String::new(), reverse },
        }
    }

    fn script(&mut self) -> Script {
        let steps = (0..1 + self.below(8)).map(|_| self.step()).collect();
        Script { steps, fails: self.below(4) == 0 }
    }
}

#[test]
fn stores_agree_with_a_plain_map() -> Result<()> {
    for seed in 0..150 {
        let mut random = Random(seed);
        let scripts: Vec<(String, Script)> = (0..40).map(|_| (random.key(), random.script())).collect();
        let mut entries = BTreeMap::new();
        let mut expected = Vec::new();
        for (_, script) in &scripts {
            let before = entries.clone();
            let seen = run_model(&mut entries, script);
            if script.fails {
                entries = before;
            } else {
                expected.push(seen);
            }
        }
        for batch_records in [1, 3, 40] {
            let mut driver = TestDriver::<Runner>::builder().batch_records(batch_records).start()?;
            let records = scripts
                .iter()
                .zip(0..)
                .map(|((key, script), time)| TestRecord::new::<String, Json<_>>(key, script, time));
            let refused = driver.pipe_all(records.collect::<Result<_>>()?)?;
            let failing: Vec<usize> =
                scripts.iter().enumerate().filter(|(_, (_, s))| s.fails).map(|(at, _)| at).collect();
            assert_eq!(refused.iter().map(|refused| refused.index).collect::<Vec<_>>(), failing, "seed {seed}");
            let seen: Vec<Seen> = driver.read(|p| &p.seen).into_iter().map(|seen| seen.value).collect();
            assert_eq!(seen, expected, "seed {seed}, batches of {batch_records}");
            let left: BTreeMap<String, i64> = driver.store(|p| &p.entries).entries().into_iter().collect();
            assert_eq!(left, entries, "seed {seed}, batches of {batch_records}");
        }
    }
    Ok(())
}

/// Writes values of the length the record says.
#[sandbar::processor(source = "sizes")]
struct Large {
    #[store]
    values: Store<String, Vec<u8>>,
}

impl Processor for Large {
    type Key = String;
    type Value = i32;

    fn process(&mut self, record: Record<String, i32>, _context: &mut Context) -> Result<()> {
        let length = usize::try_from(record.value.abs())?;
        self.values.put(&record.key, &vec![b'x'; length])?;
        ensure!(record.value >= 0, "negative");
        Ok(())
    }
}

#[test]
fn large_writes_leave_early_and_stay_undoable() -> Result<()> {
    let mut driver = TestDriver::<Large>::new()?;
    let record = |key: &str, size: i32| TestRecord::new::<String, i32>(key, &size, 1);
    let records = [("a", 700_000), ("b", 700_000), ("a", -900_000), ("b", -1), ("c", 1)];
    let refused = driver.pipe_all(records.iter().map(|(key, size)| record(key, *size)).collect::<Result<_>>()?)?;

    assert_eq!(refused.len(), 2);
    let values = driver.store(|p| &p.values);
    let sizes: Vec<usize> = values.entries().iter().map(|(_, value)| value.len()).collect();
    assert_eq!(sizes, [700_000, 700_000, 1]);
    // a and b went out together at the record boundary after the buffer was full, c at the end.
    assert_eq!(driver.host_calls().put_many, 2);
    Ok(())
}
