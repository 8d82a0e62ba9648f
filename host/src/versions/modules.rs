//! Modules in parts: where the parts of one lie in the topic, and how its bytes are put together again. Pure. Bytes
//! that do not have the digest of their key are never handed out.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use engine::record::{Offset, Record};
use serde::{Deserialize, Serialize};

use super::digest::ModuleDigest;
use super::key::Key;

/// The size of a part at most: far below what topics take by default.
pub const CHUNK_BYTES_MAX: usize = 512 << 10;

/// A module that cannot be put together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "topic {topic}, key {key}: expected {expected}, found {found}; the module cannot be used until a version with it is \
     deployed again"
)]
pub struct DamagedModule {
    pub topic: Arc<str>,
    pub key: Key,
    pub expected: String,
    pub found: String,
}

/// The value of a module's own key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModuleIndex {
    pub bytes: u64,
    pub chunks: u32,
}

/// Where a part lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Chunk {
    offset: Offset,
    bytes: usize,
}

/// What the topic has of a module.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct StoredModule {
    index: Option<ModuleIndex>,
    chunks: BTreeMap<u32, Chunk>,
}

impl StoredModule {
    /// Notes a part, or with `None` that it was deleted.
    pub fn set_chunk(&mut self, index: u32, offset: Offset, bytes: Option<usize>) {
        match bytes {
            Some(bytes) => self.chunks.insert(index, Chunk { offset, bytes }),
            None => self.chunks.remove(&index),
        };
    }

    pub fn set_index(&mut self, index: Option<ModuleIndex>) {
        self.index = index;
    }

    pub fn is_empty(&self) -> bool {
        self.index.is_none() && self.chunks.is_empty()
    }

    /// Every key that is there.
    pub fn keys(&self, digest: ModuleDigest) -> Vec<Key> {
        let index = self.index.map(|_| Key::Module(digest));
        index.into_iter().chain(self.chunks_from(digest, 0)).collect()
    }

    pub fn chunks_from(&self, digest: ModuleDigest, first: u32) -> Vec<Key> {
        self.chunks.range(first..).map(|(index, _)| Key::Chunk(digest, *index)).collect()
    }

    /// The parts of the module, where they are complete. `problem` is what is wrong with its index.
    pub fn parts(
        &self,
        topic: &Arc<str>,
        digest: ModuleDigest,
        problem: Option<&str>,
    ) -> Result<StoredParts, DamagedModule> {
        let damaged =
            |key, expected: String, found: String| DamagedModule { topic: Arc::clone(topic), key, expected, found };
        let Some(index) = self.index else {
            let found =
                problem.map_or_else(|| "nothing (modules of old versions are deleted)".to_owned(), str::to_owned);
            return Err(damaged(Key::Module(digest), "the module's size".to_owned(), found));
        };
        let mut offsets = BTreeMap::new();
        let mut bytes = 0;
        for at in 0..index.chunks {
            let Some(chunk) = self.chunks.get(&at) else {
                let expected = format!("part {} of {}", u64::from(at) + 1, index.chunks);
                return Err(damaged(Key::Chunk(digest, at), expected, "nothing".to_owned()));
            };
            offsets.insert(chunk.offset, at);
            bytes += chunk.bytes as u64;
        }
        if bytes != index.bytes {
            let (expected, found) = (format!("{} bytes", index.bytes), format!("{bytes} in {} parts", index.chunks));
            return Err(damaged(Key::Module(digest), expected, found));
        }
        Ok(StoredParts { topic: Arc::clone(topic), digest, index, offsets, found: BTreeMap::new() })
    }
}

/// The parts of a module while they are read again.
#[derive(Debug, Clone)]
pub struct StoredParts {
    topic: Arc<str>,
    digest: ModuleDigest,
    index: ModuleIndex,
    /// The part at each offset that is still to be read.
    offsets: BTreeMap<Offset, u32>,
    found: BTreeMap<u32, Bytes>,
}

impl StoredParts {
    /// Size of the module in bytes.
    #[cfg(test)]
    pub fn bytes(&self) -> u64 {
        self.index.bytes
    }

    /// From the first offset to the one after the last that has to be read.
    pub(super) fn range(&self) -> (Offset, Offset) {
        let (first, last) = (self.offsets.keys().next(), self.offsets.keys().next_back());
        (first.copied().unwrap_or(0), last.map_or(0, |last| last + 1))
    }

    /// Takes a record; others than those of the parts are passed over.
    pub(super) fn take(&mut self, record: &Record) {
        let Some(&index) = self.offsets.get(&record.offset) else { return };
        let is_part = record.key.as_deref().and_then(Key::parse) == Some(Key::Chunk(self.digest, index));
        if let (true, Some(value)) = (is_part, &record.value) {
            self.offsets.remove(&record.offset);
            self.found.insert(index, value.clone());
        }
    }

    /// The module's bytes.
    ///
    /// # Errors
    /// When a part is missing, or the bytes are not those of the digest.
    pub(super) fn assemble(self) -> Result<Bytes, DamagedModule> {
        let Self { topic, digest, index, offsets, found, .. } = self;
        if let Some(missing) = offsets.values().min() {
            let expected = format!("part {} of {}", u64::from(*missing) + 1, index.chunks);
            return Err(DamagedModule {
                topic,
                key: Key::Chunk(digest, *missing),
                expected,
                found: "nothing".to_owned(),
            });
        }
        let bytes = match found.len() {
            1 => found.into_values().next().unwrap_or_default(),
            _ => found.into_values().collect::<Vec<Bytes>>().concat().into(),
        };
        let found = ModuleDigest::of(&bytes);
        if found != digest {
            let (expected, found) =
                (format!("bytes with the sha-256 {digest}"), format!("{} with {found}", bytes.len()));
            return Err(DamagedModule { topic, key: Key::Module(digest), expected, found });
        }
        Ok(bytes)
    }
}
