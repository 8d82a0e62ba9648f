//! The metadata of a committed offset, in the bytes of Kafka Streams' `TopicPartitionMetadata`: base64 of a version
//! byte 2, the partition time as 8 bytes big-endian, and its `ProcessorMetadata`, a map of names to numbers. Stream
//! time is the highest partition time of a task, so that it survives a restart. The map holds the changelog offset of
//! each store at that commit, under names of our own, since Kafka Streams keeps other numbers under the stores' names:
//! whoever lost the state directory still knows how far a changelog must reach. It also holds which version of the
//! processor the task runs and since which offset, so that a crash in the middle of a swap leaves no doubt, and which
//! version of their schema the rows of its stores have, so that one in the middle of a migration leaves none either.

use std::collections::BTreeMap;

use crate::record::{NO_TIMESTAMP, Offset, Timestamp};

const VERSION: u8 = 2;
const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Brokers take 4,096 characters of metadata (`offset.metadata.max.bytes`), which are so many bytes in base64, with
/// room. Stores that have no place any more are left out.
const BYTES_MAX: usize = 2_800;

/// Begins the names of changelog offsets.
const PREFIX: &str = "sandbar:";

/// Begins the names of schema versions.
const SCHEMA_PREFIX: &str = "sandbar@schema:";

/// Begins the names of the schema versions that rows were taken from.
const SOURCE_PREFIX: &str = "sandbar@from:";

/// Names of the version. No store has them, as those come with a prefix.
const VERSION_NUMBER: &str = "sandbar@version";
const VERSION_START: &str = "sandbar@since";
const SCHEMA_START: &str = "sandbar@schema-since";
const MIGRATING: &str = "sandbar@migrating";

/// Which version a task runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VersionMark {
    pub number: u64,
    /// The offset of the partition with which it began.
    pub since: Offset,
}

/// What a commit says beside its offset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// `NO_TIMESTAMP` for metadata of an older or foreign form, as in Kafka Streams: the time is then unknown until the
    /// next record.
    pub partition_time: Timestamp,
    /// By generation of a store, the offset that follows its last changelog record.
    pub changelogs: BTreeMap<String, Offset>,
    /// `None` where the commit was made without one, by Kafka Streams for example.
    pub version: Option<VersionMark>,
    /// By store, the version of the schema of its rows, where that is not 1.
    pub schemas: BTreeMap<String, u32>,
    /// The offset of the partition at which the rows got these schemas, where they had others before.
    pub schema_since: Option<Offset>,
    /// By store, the version of the schema that its rows were taken from at `schema_since`: that generation is what it
    /// was at that offset, and no other is.
    pub schema_sources: BTreeMap<String, u32>,
    /// The version of the processor that is taking rows over into newer generations, which hold nothing else. Rows are
    /// taken in the order of their keys, so that what is there says how far it has come.
    pub migrating: Option<u64>,
}

impl Default for Committed {
    fn default() -> Self {
        Self {
            partition_time: NO_TIMESTAMP,
            changelogs: BTreeMap::new(),
            version: None,
            schemas: BTreeMap::new(),
            schema_since: None,
            schema_sources: BTreeMap::new(),
            migrating: None,
        }
    }
}

/// The bytes that the version of a store's schema, and the one before, take in the metadata.
pub(crate) fn schema_bytes(store: &str) -> usize {
    4 + SCHEMA_PREFIX.len() + store.len() + 8 + 4 + SOURCE_PREFIX.len() + store.len() + 8
}

/// What the schemas of all stores of a task may take of the metadata together.
pub(crate) const SCHEMA_BYTES_MAX: usize = BYTES_MAX - 400;

/// The metadata to commit with an offset. Schemas that take no more than `SCHEMA_BYTES_MAX` always have a place.
pub fn encode(committed: &Committed) -> String {
    let signed = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    let mut bytes = vec![VERSION];
    bytes.extend(committed.partition_time.to_be_bytes());
    let mut entries = Vec::new();
    let mut count: u32 = 0;
    let mut add = |prefix: &str, name: &str, number: i64| {
        let length = prefix.len() + name.len();
        let has_place = bytes.len() + 4 + entries.len() + length + 12 <= BYTES_MAX;
        if has_place {
            entries.extend((length as u32).to_be_bytes());
            entries.extend(prefix.as_bytes());
            entries.extend(name.as_bytes());
            entries.extend(number.to_be_bytes());
            count += 1;
        }
        has_place
    };
    // Before the changelogs, so that there is a place for it.
    if let Some(VersionMark { number, since }) = committed.version {
        add("", VERSION_NUMBER, signed(number));
        add("", VERSION_START, since);
    }
    if let Some(number) = committed.migrating {
        add("", MIGRATING, signed(number));
    }
    if let Some(since) = committed.schema_since {
        add("", SCHEMA_START, since);
    }
    for (store, &version) in &committed.schemas {
        add(SCHEMA_PREFIX, store, i64::from(version));
    }
    for (store, &version) in &committed.schema_sources {
        add(SOURCE_PREFIX, store, i64::from(version));
    }
    for (store, &offset) in &committed.changelogs {
        if !add(PREFIX, store, offset) {
            break;
        }
    }
    if count > 0 {
        bytes.extend(count.to_be_bytes());
        bytes.extend(entries);
    }
    to_base64(&bytes)
}

/// What committed metadata says; nothing where it is none of ours.
pub fn decode(metadata: &str) -> Committed {
    let bytes = from_base64(metadata).unwrap_or_default();
    let Some((partition_time, rest)) = partition_time(&bytes) else { return Committed::default() };
    let numbers = numbers(rest).unwrap_or_default();
    let changelog = |(name, &number): (&String, &i64)| Some((name.strip_prefix(PREFIX)?.to_owned(), number));
    let schemas = |prefix: &str| {
        let schema = |(name, &number): (&String, &i64)| {
            Some((name.strip_prefix(prefix)?.to_owned(), u32::try_from(number).ok()?))
        };
        numbers.iter().filter_map(schema).collect()
    };
    let version = numbers.get(VERSION_NUMBER).zip(numbers.get(VERSION_START));
    Committed {
        partition_time,
        changelogs: numbers.iter().filter_map(changelog).collect(),
        version: version.and_then(|(&number, &since)| Some(VersionMark { number: u64::try_from(number).ok()?, since })),
        schemas: schemas(SCHEMA_PREFIX),
        schema_since: numbers.get(SCHEMA_START).copied(),
        schema_sources: schemas(SOURCE_PREFIX),
        migrating: numbers.get(MIGRATING).and_then(|&number| u64::try_from(number).ok()),
    }
}

fn partition_time(bytes: &[u8]) -> Option<(Timestamp, &[u8])> {
    let (&version, rest) = bytes.split_first()?;
    let (time, rest) = rest.split_first_chunk::<8>()?;
    let time = Timestamp::from_be_bytes(*time);
    ((1..=VERSION).contains(&version) && time >= NO_TIMESTAMP).then_some((time, rest))
}

/// The `ProcessorMetadata`.
fn numbers(bytes: &[u8]) -> Option<BTreeMap<String, i64>> {
    let (count, mut rest) = bytes.split_first_chunk::<4>()?;
    let mut numbers = BTreeMap::new();
    for _ in 0..u32::from_be_bytes(*count) {
        let (length, after) = rest.split_first_chunk::<4>()?;
        let (name, after) = after.split_at_checked(u32::from_be_bytes(*length) as usize)?;
        let (number, after) = after.split_first_chunk::<8>()?;
        numbers.insert(std::str::from_utf8(name).ok()?.to_owned(), i64::from_be_bytes(*number));
        rest = after;
    }
    Some(numbers)
}

fn to_base64(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let at = |index: usize| u32::from(group.get(index).copied().unwrap_or(0));
        let bits = at(0) << 16 | at(1) << 8 | at(2);
        for (place, shift) in [18, 12, 6, 0].into_iter().enumerate() {
            let is_padding = place > group.len();
            text.push(if is_padding { '=' } else { char::from(ALPHABET[(bits >> shift) as usize & 63]) });
        }
    }
    text
}

fn from_base64(text: &str) -> Option<Vec<u8>> {
    let text = text.trim_end_matches('=');
    let mut bytes = Vec::with_capacity(text.len() * 3 / 4);
    for group in text.as_bytes().chunks(4) {
        let mut bits: u32 = 0;
        for place in 0..4 {
            let value = match group.get(place) {
                Some(character) => ALPHABET.iter().position(|letter| letter == character)?,
                None => 0,
            };
            bits = bits << 6 | value as u32;
        }
        // A last group of two characters has one byte, of three has two, and one alone has none.
        bytes.extend_from_slice(&bits.to_be_bytes()[1..group.len().max(1)]);
    }
    Some(bytes)
}

#[cfg(test)]
mod tests;
