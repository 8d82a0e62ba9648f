//! Row Q3's verdict: compares what clients were told with what is in the topics. Each key belongs to one client, which
//! does one thing after the other, so its own order of events is the truth. Pure, and tested by histories with one
//! defect each.

use std::collections::BTreeMap;

use anyhow::{Context, Result};

use crate::findings::Findings;

/// The number of a key.
pub type Key = u32;

/// Values of a key are numbered from 1; a delete has a number too.
pub type Number = u64;

/// The bytes of a value, which name its key.
pub fn value_text(key: Key, number: Number) -> String {
    format!("{key}:{number:08}")
}

/// Key and number of a value.
///
/// # Errors
/// When it is none that a client wrote.
pub fn parse_value(text: &str) -> Result<(Key, Number)> {
    let (key, number) = text.split_once(':').with_context(|| format!("`{text}` is no value"))?;
    Ok((key.parse()?, number.parse()?))
}

/// How a write ended for the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Acknowledged,
    /// It may have been taken or not.
    Doubtful,
    /// The host said that nothing was written.
    Nothing,
}

/// Which read it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// With the consistency token of a write or of a later answer.
    Fresh,
    /// The entry of a write that was waited for.
    Applied,
    /// Without any token.
    Plain,
}

/// What happened to a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    Write {
        key: Key,
        number: Number,
        delete: bool,
        outcome: Outcome,
    },
    Read {
        kind: Kind,
        key: Key,
        /// The write that the answer must reflect, 0 for none.
        at_least: Number,
        /// `None` where the host said that there is no such key.
        found: Option<String>,
        at_ms: u64,
    },
    /// Under one idempotency key two answers came that name different records.
    TwoOutcomes {
        key: Key,
        number: Number,
    },
    /// An answer that nobody should ever get.
    Strange(String),
}

/// What the topics have, and what hosts have at the end.
#[derive(Debug, Clone, Default)]
pub struct Topics {
    /// How often each write is in the source topic; deletes are counted by key, as they have no value.
    pub writes: BTreeMap<(Key, Number), u64>,
    pub deletes: BTreeMap<Key, u64>,
    /// When a `read_committed` reader saw a value in the changelog.
    pub committed_ms: BTreeMap<(Key, Number), u64>,
    /// The last record of each key.
    pub last: BTreeMap<Key, Option<Number>>,
    /// What hosts showed at the end, each with its name.
    pub shown: Vec<(String, BTreeMap<Key, Number>)>,
}

pub const STALE: &str = "reads older than asked for";
pub const APPLIED: &str = "wrong entries of applied writes";
pub const UNCOMMITTED: &str = "uncommitted reads";
pub const FOREIGN: &str = "foreign answers";
pub const LOST: &str = "lost writes";
pub const REPEATED: &str = "repeated writes";
pub const DISOWNED: &str = "writes that were denied and done";
pub const OUTCOMES: &str = "two outcomes of one idempotency key";
pub const ENDS: &str = "wrong states at the end";
pub const STRANGE: &str = "strange answers";

/// Judges the clients' histories. A read without a token must show nothing that a reader of committed records sees
/// later than `slack_ms` after it; `None` does not judge that.
pub fn judge(clients: &[Vec<Event>], topics: &Topics, slack_ms: Option<u64>) -> Findings {
    let mut findings = Findings::default();
    let mut deletes: BTreeMap<Key, (u64, u64)> = BTreeMap::new();
    for events in clients {
        let mut written: BTreeMap<Key, Vec<(Number, bool)>> = BTreeMap::new();
        for event in events {
            match event {
                Event::Write { key, number, delete, outcome } => {
                    if *outcome != Outcome::Nothing {
                        written.entry(*key).or_default().push((*number, *delete));
                    }
                    if *delete {
                        let (least, most) = deletes.entry(*key).or_default();
                        *least += u64::from(*outcome == Outcome::Acknowledged);
                        *most += u64::from(*outcome != Outcome::Nothing);
                    } else {
                        judge_write((*key, *number), *outcome, topics, &mut findings);
                    }
                }
                Event::Read { kind, key, at_least, found, at_ms } => {
                    let writes = written.get(key).map_or(&[][..], Vec::as_slice);
                    let read = Read { kind: *kind, key: *key, at_least: *at_least, at_ms: *at_ms };
                    read.judge(found.as_deref(), writes, topics, slack_ms, &mut findings);
                }
                Event::TwoOutcomes { key, number } => findings.found(OUTCOMES, || value_text(*key, *number)),
                Event::Strange(what) => findings.found(STRANGE, || what.clone()),
            }
        }
    }
    for (key, (least, most)) in deletes {
        let count = topics.deletes.get(&key).copied().unwrap_or(0);
        let text = || format!("key {key} has {count} deletes, acknowledged were {least}, sent {most}");
        if count < least {
            findings.found(LOST, text);
        } else if count > most {
            findings.found(REPEATED, text);
        }
    }
    judge_ends(topics, &mut findings);
    findings
}

/// A write that was acknowledged is in the topic once.
fn judge_write(write: (Key, Number), outcome: Outcome, topics: &Topics, findings: &mut Findings) {
    let count = topics.writes.get(&write).copied().unwrap_or(0);
    let text = || format!("{} is {count} times in the topic", value_text(write.0, write.1));
    match (outcome, count) {
        (Outcome::Acknowledged, 0) => findings.found(LOST, text),
        (Outcome::Nothing, 1..) => findings.found(DISOWNED, text),
        (_, 2..) => findings.found(REPEATED, text),
        _ => {}
    }
}

/// A read without what it found.
struct Read {
    kind: Kind,
    key: Key,
    at_least: Number,
    at_ms: u64,
}

impl Read {
    fn judge(
        &self,
        found: Option<&str>,
        writes: &[(Number, bool)],
        topics: &Topics,
        slack_ms: Option<u64>,
        findings: &mut Findings,
    ) {
        let Self { kind, key, at_least, at_ms } = *self;
        let what = || format!("{kind:?} read of {key} at {at_ms} ms, at least {at_least}, found {found:?}");
        let number = match found.map(parse_value) {
            None => None,
            Some(Ok((of_key, number))) if of_key == key && writes.contains(&(number, false)) => Some(number),
            Some(_) => return findings.found(FOREIGN, what),
        };
        let is_there = match number {
            Some(number) => number >= at_least,
            // Before the first write, or after a delete.
            None => at_least == 0 || writes.iter().any(|(number, delete)| *delete && *number >= at_least),
        };
        if !is_there {
            let kind = if kind == Kind::Applied { APPLIED } else { STALE };
            findings.found(kind, what);
        }
        if let (Some(number), Some(slack_ms)) = (number, slack_ms) {
            let committed = topics.committed_ms.get(&(key, number));
            if committed.is_none_or(|committed_ms| *committed_ms > at_ms + slack_ms) {
                findings.found(UNCOMMITTED, || format!("{}, committed {committed:?}", what()));
            }
        }
    }
}

/// In the end every host shows what the topic says.
fn judge_ends(topics: &Topics, findings: &mut Findings) {
    let last = topics.last.iter().filter_map(|(key, number)| Some((*key, (*number)?)));
    let expected: BTreeMap<Key, Number> = last.collect();
    for (name, shown) in &topics.shown {
        let keys = expected.keys().chain(shown.keys()).copied().collect::<std::collections::BTreeSet<_>>();
        for key in keys.into_iter().filter(|key| expected.get(key) != shown.get(key)) {
            let (found, expected) = (shown.get(&key), expected.get(&key));
            findings.found(ENDS, || format!("{name}: key {key} is {found:?}, expected {expected:?}"));
        }
    }
}

#[cfg(test)]
mod tests;
