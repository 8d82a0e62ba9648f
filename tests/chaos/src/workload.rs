//! What goes in and what must come out: the entries of the ledger as a function of a seed, and the bytes of entries,
//! outputs and balances, as the guest `ledger` writes them. The model is the ledger itself, computed here.

use anyhow::{Context, Result, ensure};

use crate::poison::Poison;
use crate::random::scatter;

/// The topics of the outputs, in the order of the guest's sinks.
pub const OUTPUTS: [&str; 2] = ["first", "second"];
pub const STORE: &str = "balances";

/// Which entries a campaign writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    pub seed: u64,
    pub partitions: u32,
    /// Keys of each partition; no key is in two.
    pub keys: u32,
    /// One of so many entries is poison; 0 for none.
    pub poison_one_in: u64,
    /// So many entries come first, each of a key of its own.
    pub preloaded: u32,
}

/// A key: the partition of its entries, and its number there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    pub partition: u32,
    pub number: u32,
}

impl Key {
    pub fn text(self) -> String {
        format!("{}-{:05}", self.partition, self.number)
    }

    /// # Errors
    /// When the text is no key of a plan.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let text = std::str::from_utf8(bytes)?;
        let (partition, number) = text.split_once('-').with_context(|| format!("`{text}` is no key"))?;
        Ok(Self { partition: partition.parse()?, number: number.parse()? })
    }
}

/// An input record; its partition and seq are where it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    pub key: Key,
    pub amount: i64,
    /// It must leave no trace but a dead letter.
    pub poison: Option<Poison>,
}

impl Plan {
    /// The entry with number `seq` of a partition.
    pub fn entry(&self, partition: u32, seq: u64) -> Entry {
        let random = scatter(self.seed ^ scatter((u64::from(partition) << 48) | seq));
        // Half of the entries meet in a tenth of the keys.
        let hot = random & 1 == 0;
        let among = if hot { self.keys.div_ceil(10) } else { self.keys };
        let number = match u32::try_from(seq) {
            Ok(seq) if seq < self.preloaded => seq,
            _ => u32::try_from((random >> 1) % u64::from(among.max(1))).unwrap_or(0),
        };
        let amount = i64::try_from((random >> 40) % 2_001).unwrap_or(0) - 1_000;
        Entry { key: Key { partition, number }, amount, poison: self.poison(random) }
    }

    fn poison(&self, random: u64) -> Option<Poison> {
        let random = scatter(random);
        let is_poison = self.poison_one_in > 0 && random.is_multiple_of(self.poison_one_in);
        is_poison.then(|| Poison::by_chance(random >> 32))
    }

    /// The entries of a partition, in order, without end.
    pub fn entries(&self, partition: u32) -> impl Iterator<Item = Entry> + '_ {
        (0..).map(move |seq| self.entry(partition, seq))
    }
}

/// An entry as it is read from the input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Input {
    pub partition: u32,
    pub seq: u64,
    /// Of the record, in milliseconds; no part of its value.
    pub timestamp: i64,
    pub entry: Entry,
}

/// The header that each entry has, with its place as text.
pub const PLACE_HEADER: &str = "place";

/// How a value begins that is no entry.
const NO_ENTRY: &str = "this record is no entry: ";

impl Input {
    /// What its header says.
    pub fn place(&self) -> String {
        format!("{}/{}", self.partition, self.seq)
    }

    pub fn value(&self) -> Vec<u8> {
        let Self { partition, seq, entry, .. } = self;
        if entry.poison == Some(Poison::NoEntry) {
            return format!("{NO_ENTRY}{}", self.place()).into_bytes();
        }
        let mut bytes = Vec::with_capacity(21);
        bytes.extend(partition.to_be_bytes());
        bytes.extend(seq.to_be_bytes());
        bytes.extend(entry.amount.to_be_bytes());
        bytes.extend(entry.poison.and_then(Poison::byte));
        bytes
    }

    /// # Errors
    /// When the bytes are no entry.
    pub fn parse(timestamp: i64, key: &[u8], value: &[u8]) -> Result<Self> {
        let key = Key::parse(key)?;
        if let Some(place) = value.strip_prefix(NO_ENTRY.as_bytes()) {
            let (partition, seq) = std::str::from_utf8(place)?.split_once('/').context("no place of a record")?;
            let entry = Entry { key, amount: 0, poison: Some(Poison::NoEntry) };
            return Ok(Self { partition: partition.parse()?, seq: seq.parse()?, timestamp, entry });
        }
        ensure!(matches!(value.len(), 20 | 21), "an entry has 20 or 21 bytes, found {}", value.len());
        let poison = match value.get(20) {
            Some(&byte) => Some(Poison::of_byte(byte).with_context(|| format!("there is no poison {byte}"))?),
            None => None,
        };
        let entry = Entry { key, amount: number(&value[12..20])?, poison };
        let partition = u32::from_be_bytes(value[..4].try_into()?);
        Ok(Self { partition, seq: unsigned(&value[4..12])?, timestamp, entry })
    }
}

/// What the ledger knows of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Balance {
    pub count: u64,
    pub sum: i64,
}

impl Balance {
    pub fn add(&mut self, amount: i64) {
        self.count += 1;
        self.sum += amount;
    }

    /// # Errors
    /// When the bytes are no balance.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        ensure!(bytes.len() == 16, "a balance has 16 bytes, found {}", bytes.len());
        Ok(Self { count: unsigned(&bytes[..8])?, sum: number(&bytes[8..])? })
    }

    /// As REST shows it with `value_format=hex`.
    ///
    /// # Errors
    /// When the text is no balance.
    pub fn parse_hex(text: &str) -> Result<Self> {
        ensure!(text.len() == 32, "a balance has 32 hexadecimal digits, found {text:?}");
        let digits = |range: std::ops::Range<usize>| text.get(range).context("a balance is not ASCII");
        let count = u64::from_str_radix(digits(0..16)?, 16)?;
        Ok(Self { count, sum: u64::from_str_radix(digits(16..32)?, 16)?.cast_signed() })
    }
}

/// An output record: which entry it tells of, and the balance after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Output {
    pub offset: i64,
    /// Partition and seq of the entry.
    pub origin: u32,
    pub seq: u64,
    pub key: Key,
    pub balance: Balance,
}

impl Output {
    /// # Errors
    /// When the bytes are no output.
    pub fn parse(offset: i64, key: &[u8], value: &[u8]) -> Result<Self> {
        ensure!(value.len() == 28, "an output has 28 bytes, found {}", value.len());
        let origin = u32::from_be_bytes(value[..4].try_into()?);
        let (seq, balance) = (unsigned(&value[4..12])?, Balance::parse(&value[12..])?);
        Ok(Self { offset, origin, seq, key: Key::parse(key)?, balance })
    }
}

fn unsigned(bytes: &[u8]) -> Result<u64> {
    Ok(u64::from_be_bytes(bytes.try_into()?))
}

fn number(bytes: &[u8]) -> Result<i64> {
    Ok(i64::from_be_bytes(bytes.try_into()?))
}
