//! What a writer wants to append, made into records: modules cut into parts that the topic takes, versions and the
//! active one as JSON, and tombstones for modules that are no longer kept. Pure. Refuses what would leave a table that
//! no host could run.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use engine::broker::BrokerError;
use serde::Serialize;

use super::digest::ModuleDigest;
use super::key::Key;
use super::log::LogError;
use super::modules::{CHUNK_BYTES_MAX, ModuleIndex};
use super::table::{Revision, VersionTable};
use super::version::{Active, Version};

/// More than a record takes on its way beside its value: its key, and the head of its batch.
const RECORD_OVERHEAD_BYTES: usize = 1_024;

/// One thing to append.
#[derive(Debug, Clone)]
pub enum Entry {
    /// A module's bytes, whole; one that is there already is written again, which mends it where it is damaged.
    Module(Bytes),
    /// A new version, or one that has moved on.
    Version(Version),
    Active(Active),
}

/// Why nothing was appended.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// Another host was faster. The table is up to date: decide again.
    #[error("topic {topic}: another host deploys or has deployed ({expected} was expected, {found} found); look again")]
    Conflict { topic: Arc<str>, expected: Revision, found: Revision },
    #[error("topic {topic}: {reason}")]
    Invalid { topic: Arc<str>, reason: String },
    #[error(
        "topic {topic}: {key} takes {bytes} bytes, more than the {limit} that the topic takes; raise its max.message.bytes"
    )]
    TooLarge { topic: Arc<str>, key: Key, bytes: usize, limit: usize },
    /// It may have been written or not; the broker did not say and could not be asked.
    #[error("topic {topic}: it is not known whether the version was written: {error}; look again before another try")]
    Unknown { topic: Arc<str>, error: BrokerError },
    #[error(transparent)]
    Log(#[from] LogError),
}

/// A record to write; without a value it deletes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PlannedRecord {
    pub key: Key,
    pub value: Option<Bytes>,
}

/// The records that append `entries` to what `table` has, in a topic that takes batches of `message_bytes_max`.
pub(super) fn plan(
    table: &VersionTable,
    entries: &[Entry],
    message_bytes_max: usize,
) -> Result<Vec<PlannedRecord>, AppendError> {
    let limit = message_bytes_max.saturating_sub(RECORD_OVERHEAD_BYTES).max(1);
    let mut modules: BTreeMap<ModuleDigest, &Bytes> = BTreeMap::new();
    let (mut versions, mut active): (Vec<&Version>, Option<&Active>) = (Vec::new(), None);
    for entry in entries {
        match entry {
            Entry::Module(bytes) => drop(modules.insert(ModuleDigest::of(bytes), bytes)),
            Entry::Version(version) => versions.push(version),
            Entry::Active(one) => active = Some(one),
        }
    }
    check(table, &modules, &versions, active)?;
    let mut records = Vec::new();
    for (digest, bytes) in &modules {
        records.extend(module_records(table, *digest, bytes, limit));
    }
    for version in &versions {
        records.push(document(table, Key::Version(version.number), version, limit)?);
    }
    if let Some(active) = active {
        records.push(document(table, Key::Active, active, limit)?);
    }
    if !modules.is_empty() {
        let outdated = table.outdated_modules(&versions, active).into_iter();
        let is_written =
            |key: &Key| matches!(key, Key::Module(digest) | Key::Chunk(digest, _) if modules.contains_key(digest));
        records.extend(outdated.filter(|key| !is_written(key)).map(|key| PlannedRecord { key, value: None }));
    }
    Ok(records)
}

/// A module that nobody can fetch, or a version that contradicts what it was, would stop every host.
fn check(
    table: &VersionTable,
    modules: &BTreeMap<ModuleDigest, &Bytes>,
    versions: &[&Version],
    active: Option<&Active>,
) -> Result<(), AppendError> {
    let invalid = |reason: String| Err(AppendError::Invalid { topic: Arc::clone(table.topic()), reason });
    if versions.is_empty() && active.is_none() {
        return invalid("there is no version to append".to_owned());
    }
    if modules.values().any(|bytes| bytes.is_empty()) {
        return invalid("the module is empty".to_owned());
    }
    for version in versions {
        let number = version.number;
        if number == 0 || versions.iter().filter(|other| other.number == number).count() > 1 {
            return invalid(format!("version {number} is none, or is there twice"));
        }
        match table.version(number) {
            Some(known) if !known.is_same(&version.module, &version.manifest) => {
                return invalid(format!("version {number} is another one already"));
            }
            None if !modules.contains_key(&version.module) && !table.has_module(&version.module) => {
                return invalid(format!("version {number} has the module {}, which is not there", version.module));
            }
            _ => {}
        }
    }
    let Some(active) = active else { return Ok(()) };
    let written = versions.iter().copied().find(|version| version.number == active.number);
    match written.or_else(|| table.version(active.number)) {
        None => invalid(format!("there is no version {} that could be active", active.number)),
        Some(version) if !modules.contains_key(&version.module) && !table.has_module(&version.module) => invalid(
            format!("version {} cannot be active: its module {} is not kept any more", version.number, version.module),
        ),
        Some(_) => Ok(()),
    }
}

fn module_records(table: &VersionTable, digest: ModuleDigest, bytes: &Bytes, limit: usize) -> Vec<PlannedRecord> {
    let chunk_bytes = CHUNK_BYTES_MAX.min(limit);
    let starts = (0..bytes.len()).step_by(chunk_bytes);
    let chunks = starts.map(|start| bytes.slice(start..bytes.len().min(start + chunk_bytes)));
    let mut records: Vec<PlannedRecord> = (0..)
        .zip(chunks)
        .map(|(at, chunk)| PlannedRecord { key: Key::Chunk(digest, at), value: Some(chunk) })
        .collect();
    let chunks = u32::try_from(records.len()).unwrap_or(u32::MAX);
    let index = ModuleIndex { bytes: bytes.len() as u64, chunks };
    let index = Bytes::from(serde_json::json!(index).to_string());
    records.push(PlannedRecord { key: Key::Module(digest), value: Some(index) });
    // Of an earlier time, when the topic took less and there were more parts.
    records.extend(table.chunks_from(&digest, chunks).into_iter().map(|key| PlannedRecord { key, value: None }));
    records
}

fn document(
    table: &VersionTable,
    key: Key,
    value: &impl Serialize,
    limit: usize,
) -> Result<PlannedRecord, AppendError> {
    let topic = || Arc::clone(table.topic());
    let json = serde_json::to_vec(value)
        .map_err(|error| AppendError::Invalid { topic: topic(), reason: format!("{key}: {error}") })?;
    if json.len() > limit {
        return Err(AppendError::TooLarge { topic: topic(), key, bytes: json.len(), limit });
    }
    Ok(PlannedRecord { key, value: Some(json.into()) })
}

#[cfg(test)]
mod tests;
