//! `Reads`: what a call read from its stores and its configuration, as they were before it, so that the call can be
//! repeated elsewhere. Bounded in bytes; what did not fit is marked as missing, never left out in silence. Knows its
//! own encoding (a dead letter carries it) and nothing of what the bytes mean.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use bytes::Bytes;

/// One thing that a call read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Read {
    /// What a store had under a key before the call; `None` where it had nothing.
    Entry { store: Bytes, key: Bytes, value: Option<Bytes> },
    /// A scan saw everything between two keys, and what had an entry there was noted one by one.
    Range { store: Bytes, lower: Bound<Bytes>, upper: Bound<Bytes> },
    /// A value of the configuration.
    Config { key: Bytes, value: Option<Bytes> },
    /// What came before was read by `init`, what follows by the call itself.
    EndOfInit,
}

/// The reads of a call in their order, each key once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reads {
    pub reads: Vec<Read>,
    /// There was more than the bound allowed.
    pub truncated: bool,
    bytes: usize,
    max_bytes: usize,
    /// By store, the keys that need no further note: they were read already, or the call has written them itself.
    settled: BTreeMap<Bytes, BTreeSet<Bytes>>,
    /// What the keys that were written take.
    written_bytes: usize,
    /// Keys of the configuration that were noted.
    config_keys: BTreeSet<Bytes>,
}

/// Why bytes are no encoded reads.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadsError {
    #[error("the recorded reads have version {found}, known is {VERSION}")]
    Version { found: u8 },
    #[error("the recorded reads end in the middle of item {item}")]
    Short { item: usize },
    #[error("item {item} of the recorded reads is of the unknown kind {kind}")]
    Kind { item: usize, kind: u8 },
}

const VERSION: u8 = 1;
/// What an item costs beside its bytes.
const ITEM_BYTES: usize = 16;
/// What remembering keys that the call writes may take: they are in no dead letter, so `max_bytes` is not about them.
const WRITTEN_MAX_BYTES: usize = 1 << 20;
/// What a remembered key takes beside its bytes: its place in a set and an allocation of its own.
const WRITTEN_ITEM_BYTES: usize = 96;
/// The length that stands for an absent value.
const ABSENT: u32 = u32::MAX;

const ENTRY: u8 = 1;
const RANGE: u8 = 2;
const CONFIG: u8 = 3;
const END_OF_INIT: u8 = 4;

impl Reads {
    /// Nothing read yet; notes at most about `max_bytes`.
    pub fn new(max_bytes: usize) -> Self {
        Self { max_bytes, ..Self::default() }
    }

    /// Those of a call whose reads nobody has noted.
    pub fn unknown() -> Self {
        Self { truncated: true, ..Self::default() }
    }

    fn note(&mut self, read: Read, bytes: usize) {
        self.bytes = self.bytes.saturating_add(bytes).saturating_add(ITEM_BYTES);
        if self.bytes > self.max_bytes {
            self.truncate();
        }
        if !self.truncated {
            self.reads.push(read);
        }
    }

    /// Ends the notes: what comes after something missing would look complete.
    fn truncate(&mut self) {
        self.truncated = true;
        self.settled.clear();
        self.config_keys.clear();
    }

    /// Remembers a key; gives the store's name and the key to note where it was not known yet.
    fn settle(&mut self, store: &str, key: &[u8]) -> Option<(Bytes, Bytes)> {
        // A name that is there already is not copied again.
        let (store, mut keys) = match self.settled.remove_entry(store.as_bytes()) {
            Some(known) => known,
            None => (Bytes::copy_from_slice(store.as_bytes()), BTreeSet::new()),
        };
        let key = (!keys.contains(key)).then(|| Bytes::copy_from_slice(key));
        keys.extend(key.clone());
        self.settled.insert(store.clone(), keys);
        key.map(|key| (store, key))
    }

    /// A look-up of a key. Noted where neither the key was read before nor the call has written it.
    pub fn entry(&mut self, store: &str, key: &[u8], value: Option<&[u8]>) {
        if self.truncated {
            return;
        }
        if let Some((store, key)) = self.settle(store, key) {
            let bytes = store.len() + key.len() + value.map_or(0, <[u8]>::len);
            // What is above the bound is not even copied.
            let fits = self.bytes.saturating_add(bytes) <= self.max_bytes;
            let value = value.filter(|_| fits).map(Bytes::copy_from_slice);
            self.note(Read::Entry { store, key, value }, bytes);
        }
    }

    /// The call writes a key: what it reads there from now on is its own.
    pub fn written(&mut self, store: &str, key: &[u8]) {
        if self.truncated || self.settle(store, key).is_none() {
            return;
        }
        self.written_bytes = self.written_bytes.saturating_add(key.len()).saturating_add(WRITTEN_ITEM_BYTES);
        if self.written_bytes > WRITTEN_MAX_BYTES {
            self.truncate();
        }
    }

    /// A scan that saw everything between two bounds, after its entries were noted.
    pub fn range(&mut self, store: &str, lower: Bound<&[u8]>, upper: Bound<&[u8]>) {
        if self.truncated {
            return;
        }
        let (lower, upper) = (lower.map(Bytes::copy_from_slice), upper.map(Bytes::copy_from_slice));
        let store = Bytes::copy_from_slice(store.as_bytes());
        let bytes = store.len() + bound_bytes(&lower).len() + bound_bytes(&upper).len();
        self.note(Read::Range { store, lower, upper }, bytes);
    }

    /// A look-up in the configuration.
    pub fn config(&mut self, key: &str, value: Option<&str>) {
        if self.truncated || self.config_keys.contains(key.as_bytes()) {
            return;
        }
        let (bytes, key) = (key.len() + value.map_or(0, str::len), Bytes::copy_from_slice(key.as_bytes()));
        self.config_keys.insert(key.clone());
        let value = value.map(|value| Bytes::copy_from_slice(value.as_bytes()));
        self.note(Read::Config { key, value }, bytes);
    }

    /// These reads as those of `init`, followed by those of a call.
    pub fn followed_by(&self, call: &Self) -> Self {
        let mut all = Self { reads: self.reads.clone(), truncated: self.truncated, ..Self::default() };
        all.reads.push(Read::EndOfInit);
        all.reads.extend(call.reads.iter().cloned());
        all.truncated |= call.truncated;
        all
    }

    /// As bytes: a version, whether it is truncated, then item by item.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![VERSION, u8::from(self.truncated)];
        for read in &self.reads {
            match read {
                Read::Entry { store, key, value } => {
                    bytes.push(ENTRY);
                    put(&mut bytes, Some(store));
                    put(&mut bytes, Some(key));
                    put(&mut bytes, value.as_deref());
                }
                Read::Range { store, lower, upper } => {
                    bytes.push(RANGE);
                    put(&mut bytes, Some(store));
                    for bound in [lower, upper] {
                        bytes.push(bound_kind(bound));
                        put(&mut bytes, Some(bound_bytes(bound)));
                    }
                }
                Read::Config { key, value } => {
                    bytes.push(CONFIG);
                    put(&mut bytes, Some(key));
                    put(&mut bytes, value.as_deref());
                }
                Read::EndOfInit => bytes.push(END_OF_INIT),
            }
        }
        bytes
    }

    /// Reads that `encode` wrote.
    ///
    /// # Errors
    /// Says at which item the bytes stop making sense.
    pub fn decode(bytes: &[u8]) -> Result<Self, ReadsError> {
        let [version, truncated, rest @ ..] = bytes else { return Err(ReadsError::Short { item: 0 }) };
        if *version != VERSION {
            return Err(ReadsError::Version { found: *version });
        }
        let mut decoded = Self { truncated: *truncated != 0, ..Self::default() };
        let mut rest = Rest { bytes: rest, item: 0 };
        while let Some(kind) = rest.kind() {
            let read = match kind {
                ENTRY => Read::Entry { store: rest.present()?, key: rest.present()?, value: rest.value()? },
                RANGE => Read::Range { store: rest.present()?, lower: rest.bound()?, upper: rest.bound()? },
                CONFIG => Read::Config { key: rest.present()?, value: rest.value()? },
                END_OF_INIT => Read::EndOfInit,
                kind => return Err(ReadsError::Kind { item: rest.item, kind }),
            };
            decoded.reads.push(read);
            rest.item += 1;
        }
        Ok(decoded)
    }
}

fn bound_kind(bound: &Bound<Bytes>) -> u8 {
    match bound {
        Bound::Unbounded => 0,
        Bound::Included(_) => 1,
        Bound::Excluded(_) => 2,
    }
}

fn bound_bytes(bound: &Bound<Bytes>) -> &[u8] {
    match bound {
        Bound::Unbounded => &[],
        Bound::Included(key) | Bound::Excluded(key) => key,
    }
}

fn put(bytes: &mut Vec<u8>, value: Option<&[u8]>) {
    // One item is far below 4 GiB: the bound of all of them is.
    let length = value.map_or(ABSENT, |value| value.len() as u32);
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(value.unwrap_or_default());
}

/// What is left of the bytes.
struct Rest<'a> {
    bytes: &'a [u8],
    item: usize,
}

impl Rest<'_> {
    fn kind(&mut self) -> Option<u8> {
        let (&kind, rest) = self.bytes.split_first()?;
        self.bytes = rest;
        Some(kind)
    }

    fn value(&mut self) -> Result<Option<Bytes>, ReadsError> {
        let short = ReadsError::Short { item: self.item };
        let (length, rest) = self.bytes.split_first_chunk::<4>().ok_or(short.clone())?;
        let length = u32::from_le_bytes(*length);
        self.bytes = rest;
        if length == ABSENT {
            return Ok(None);
        }
        let (value, rest) = self.bytes.split_at_checked(length as usize).ok_or(short)?;
        self.bytes = rest;
        Ok(Some(Bytes::copy_from_slice(value)))
    }

    fn present(&mut self) -> Result<Bytes, ReadsError> {
        self.value()?.ok_or(ReadsError::Short { item: self.item })
    }

    fn bound(&mut self) -> Result<Bound<Bytes>, ReadsError> {
        let kind = self.kind().ok_or(ReadsError::Short { item: self.item })?;
        let key = self.present()?;
        match kind {
            0 => Ok(Bound::Unbounded),
            1 => Ok(Bound::Included(key)),
            2 => Ok(Bound::Excluded(key)),
            kind => Err(ReadsError::Kind { item: self.item, kind }),
        }
    }
}

#[cfg(test)]
mod tests;
