//! Poison among the entries: which entries are, what the guest `ledger` does at each kind, and what the dead letter
//! must say of it. Reads dead letters as any consumer sees them; judges nothing (`checker` does).

use anyhow::{Context, Result};
use rdkafka::message::{BorrowedMessage, Headers, Message};

/// What is wrong with an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Poison {
    /// The module traps after it has written and forwarded.
    Trap,
    /// It takes memory without end.
    Memory,
    /// It forwards to a partition that is not there.
    Partition,
    /// It forwards more than the topic takes.
    TooLarge,
    /// It forwards without a key to a compacted topic.
    NullKey,
    /// It forwards a timestamp that the topic does not take.
    Timestamp,
    /// It loops without end. Rarer than the others, for each takes the whole time of several calls.
    Endless,
    /// The value is no entry, and the module refuses it.
    NoEntry,
}

/// The dead letter topic's key of the manifest.
pub const TOPIC_KEY: &str = "errors.dead.letter.queue.topic.name";

/// `max.message.bytes` of the outputs: less than the guest forwards as too large.
pub const MESSAGE_MAX_BYTES: u32 = 65_536;

impl Poison {
    pub const ALL: [Self; 8] = [
        Self::Trap,
        Self::Memory,
        Self::Partition,
        Self::TooLarge,
        Self::NullKey,
        Self::Timestamp,
        Self::NoEntry,
        Self::Endless,
    ];

    /// A kind by chance.
    pub fn by_chance(random: u64) -> Self {
        const ENDLESS_ONE_IN: u64 = 50;
        if random.is_multiple_of(ENDLESS_ONE_IN) {
            return Self::Endless;
        }
        let others = Self::ALL.len() as u64 - 1;
        Self::ALL[usize::try_from((random / ENDLESS_ONE_IN) % others).unwrap_or(0)]
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Trap => "trap",
            Self::Memory => "memory bomb",
            Self::Partition => "partition out of range",
            Self::TooLarge => "output too large",
            Self::NullKey => "null key to a compacted topic",
            Self::Timestamp => "timestamp out of bounds",
            Self::Endless => "endless loop",
            Self::NoEntry => "value that is no entry",
        }
    }

    /// The last byte of the entry, from which the guest knows it; none where the value says nothing of the kind.
    pub fn byte(self) -> Option<u8> {
        match self {
            Self::Trap => Some(1),
            Self::Memory => Some(2),
            Self::Partition => Some(3),
            Self::TooLarge => Some(4),
            Self::NullKey => Some(5),
            Self::Timestamp => Some(6),
            Self::Endless => Some(7),
            Self::NoEntry => None,
        }
    }

    /// The kind with this byte.
    pub fn of_byte(byte: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.byte() == Some(byte))
    }

    /// What the dead letter names as its reason.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Trap => "trap",
            Self::Memory => "memory",
            Self::Endless => "deadline",
            Self::Partition | Self::NullKey | Self::Timestamp => "output",
            Self::TooLarge => "too-large",
            Self::NoEntry => "refused",
        }
    }
}

/// A dead letter as a reader of committed records finds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// Where it stands in the dead letter topic.
    pub partition: i32,
    pub offset: i64,
    /// Where its source stands, as it says.
    pub topic: String,
    pub origin: u32,
    pub seq: u64,
    pub reason: String,
    pub key: Vec<u8>,
    pub value: Vec<u8>,
    /// In milliseconds.
    pub timestamp: i64,
    /// The headers that are not the letter's own, with their values as text.
    pub headers: Vec<(String, String)>,
}

/// How the headers begin that a dead letter adds to those of its record.
const OWN_HEADERS: [&str; 2] = ["__streams.errors.", "__sandbar."];

impl DeadLetter {
    /// # Errors
    /// When it does not say where it comes from.
    pub fn read(record: &BorrowedMessage<'_>) -> Result<Self> {
        let said = |name: &str| -> Result<String> {
            let headers = record.headers().context("a dead letter without headers")?;
            // A source's own header of the name would come first.
            let found = headers.iter().filter(|header| header.key == name).last();
            let value = found.and_then(|header| header.value).with_context(|| format!("no header {name}"))?;
            Ok(std::str::from_utf8(value)?.to_owned())
        };
        let foreign = record.headers().into_iter().flat_map(Headers::iter);
        let foreign = foreign.filter(|header| !OWN_HEADERS.iter().any(|own| header.key.starts_with(own)));
        let text = |value: Option<&[u8]>| String::from_utf8_lossy(value.unwrap_or_default()).into_owned();
        Ok(Self {
            headers: foreign.map(|header| (header.key.to_owned(), text(header.value))).collect(),
            timestamp: record.timestamp().to_millis().context("a dead letter without a timestamp")?,
            partition: record.partition(),
            offset: record.offset(),
            topic: said("__streams.errors.topic")?,
            origin: said("__streams.errors.partition")?.parse()?,
            seq: said("__streams.errors.offset")?.parse()?,
            reason: said("__sandbar.reason")?,
            key: record.key().unwrap_or_default().to_vec(),
            value: record.payload().unwrap_or_default().to_vec(),
        })
    }
}
