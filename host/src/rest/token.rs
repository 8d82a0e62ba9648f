//! Consistency tokens: how far the state of an application was, partition by partition, when something was answered. A
//! client hands one back, and nothing older is shown to it. The text is opaque to clients and names its application, so
//! that one of another application is refused and not misread. Knows offsets only, and never asks anybody.

use std::collections::BTreeMap;

use axum::http::StatusCode;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use engine::query::{PartitionPosition, Role};
use engine::record::Offset;

use super::Problem;
use crate::formats::fnv1a;

/// The header of answers whose body has no room for a token, and of writes.
pub const HEADER: &str = "sandbar-consistency-token";

/// A request head holds at most 16 KiB, and a token must leave room for the rest: some 1,000 partitions. Of more none
/// is made.
const TEXT_BYTES_MAX: usize = 12 * 1024;
/// The form of the text, so that another one can follow.
const VERSION: u8 = 1;

type Offsets = BTreeMap<i32, Offset>;

/// See the module's head. An offset is the one that follows the last record of which the state knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// A hash of its id.
    application: u64,
    /// By source topic and partition.
    sources: BTreeMap<String, Offsets>,
    /// By store and partition of its changelog.
    changelogs: BTreeMap<String, Offsets>,
}

impl Token {
    pub fn new(application: &str) -> Self {
        Self { application: fnv1a(application.as_bytes()), sources: BTreeMap::new(), changelogs: BTreeMap::new() }
    }

    /// Reads what an answer of this application said.
    ///
    /// # Errors
    /// When it is none, or of another application.
    pub fn read(text: &str, application: &str) -> Result<Self, Problem> {
        let refuse = |detail: String| {
            Problem::new(StatusCode::BAD_REQUEST, "bad-token", "the consistency token cannot be used", detail)
        };
        if text.len() > TEXT_BYTES_MAX {
            return Err(refuse(format!("a token has at most {TEXT_BYTES_MAX} characters, this one {}", text.len())));
        }
        let bytes = URL_SAFE_NO_PAD.decode(text).ok();
        let token = bytes.and_then(|bytes| Self::decode(&bytes));
        let token = token.ok_or_else(|| refuse("expected the consistency token of an earlier answer".to_owned()))?;
        if token.application != fnv1a(application.as_bytes()) {
            return Err(refuse(format!("the token is of another application than {application}")));
        }
        Ok(token)
    }

    /// `None` where it would be too long to be handed back.
    pub fn write(&self) -> Option<String> {
        let mut bytes = vec![VERSION];
        bytes.extend(self.application.to_be_bytes());
        for of in [&self.sources, &self.changelogs] {
            put(&mut bytes, of.len() as u64);
            for (name, offsets) in of {
                put(&mut bytes, name.len() as u64);
                bytes.extend(name.as_bytes());
                put(&mut bytes, offsets.len() as u64);
                for (&partition, &offset) in offsets {
                    put(&mut bytes, u64::from(partition.unsigned_abs()));
                    put(&mut bytes, offset.unsigned_abs());
                }
            }
        }
        let text = URL_SAFE_NO_PAD.encode(bytes);
        (text.len() <= TEXT_BYTES_MAX).then_some(text)
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (&version, rest) = bytes.split_first()?;
        let (application, mut rest) = rest.split_first_chunk::<8>()?;
        if version != VERSION {
            return None;
        }
        let mut read = || {
            let mut of = BTreeMap::new();
            for _ in 0..take(&mut rest)? {
                let length = usize::try_from(take(&mut rest)?).ok()?;
                let (name, after) = rest.split_at_checked(length)?;
                rest = after;
                let mut offsets = Offsets::new();
                for _ in 0..take(&mut rest)? {
                    let partition = i32::try_from(take(&mut rest)?).ok()?;
                    offsets.insert(partition, Offset::try_from(take(&mut rest)?).ok()?);
                }
                of.insert(std::str::from_utf8(name).ok()?.to_owned(), offsets);
            }
            Some(of)
        };
        let (sources, changelogs) = (read()?, read()?);
        rest.is_empty().then_some(Self { application: u64::from_be_bytes(*application), sources, changelogs })
    }

    /// What it says of some partitions of a store and its sources: what another host has to know.
    pub fn about(&self, store: &str, sources: &[&str], partitions: &[i32]) -> Self {
        let of = |all: &BTreeMap<String, Offsets>, names: &[&str]| -> BTreeMap<String, Offsets> {
            let named = all.iter().filter(|(name, _)| names.contains(&name.as_str()));
            let kept = |offsets: &Offsets| -> Offsets {
                offsets.iter().filter(|(at, _)| partitions.contains(at)).map(|(&at, &offset)| (at, offset)).collect()
            };
            named.map(|(name, offsets)| (name.clone(), kept(offsets))).collect()
        };
        Self {
            application: self.application,
            sources: of(&self.sources, sources),
            changelogs: of(&self.changelogs, &[store]),
        }
    }

    /// What is known of a store's changelog.
    pub fn changelog(&self, store: &str) -> Option<&Offsets> {
        self.changelogs.get(store)
    }

    /// Adds how far one partition of a store is.
    pub fn add(&mut self, store: &str, position: &PartitionPosition) {
        for (source, offset) in position.sources.iter().flat_map(|sources| &**sources) {
            self.add_source(&source.topic, source.partition, *offset);
        }
        // A copy that follows counts the ends of transactions, which the task that writes the changelog does not: what
        // it says would never be reached there.
        let offset = position.changelog_offset.filter(|_| position.role == Role::Active);
        if let Some(offset) = offset {
            raise(&mut self.changelogs, store, position.partition, offset);
        }
    }

    /// Adds that the state must know a source partition below an offset.
    pub fn add_source(&mut self, topic: &str, partition: i32, offset: Offset) {
        raise(&mut self.sources, topic, partition, offset);
    }

    /// Adds everything that another one says.
    pub fn merge(&mut self, other: &Self) {
        for (to, from) in [(&mut self.sources, &other.sources), (&mut self.changelogs, &other.changelogs)] {
            for (name, offsets) in from {
                offsets.iter().for_each(|(&partition, &offset)| raise(to, name, partition, offset));
            }
        }
    }

    /// Whether a copy of a store's partition at this position is as new as the token asks for. `sources` are the source
    /// topics of its task: what the token says of others does not concern it.
    pub fn is_reached(&self, store: &str, sources: &[&str], position: &PartitionPosition) -> bool {
        let partition = position.partition;
        let changelog = self.changelogs.get(store).and_then(|offsets| offsets.get(&partition));
        if changelog.is_some_and(|&asked| position.changelog_offset.unwrap_or(0) < asked) {
            return false;
        }
        sources.iter().all(|&topic| {
            let Some(&asked) = self.sources.get(topic).and_then(|offsets| offsets.get(&partition)) else { return true };
            // A copy that does not know how far its sources are cannot say that it is far enough.
            let known = position.sources.iter().flat_map(|known| &**known);
            let mut at = known.filter(|(source, _)| &*source.topic == topic && source.partition == partition);
            at.any(|&(_, offset)| offset >= asked)
        })
    }
}

/// Seven bits a byte, the lowest first.
fn put(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

fn take(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..63).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(number);
        }
    }
    None
}

/// Never lowers what is there.
fn raise(of: &mut BTreeMap<String, Offsets>, name: &str, partition: i32, offset: Offset) {
    // Looking first spares the copy of the name in most cases.
    if let Some(offsets) = of.get_mut(name) {
        let known = offsets.entry(partition).or_insert(offset);
        *known = offset.max(*known);
    } else {
        of.insert(name.to_owned(), BTreeMap::from([(partition, offset)]));
    }
}

#[cfg(test)]
mod tests;
