//! The workload of the kill campaigns: keeps a count and a sum for each key and tells every record's result to two
//! sinks, so that a record that is lost, doubled, torn or summed twice shows in the numbers. The first sink gets the
//! partition of the input, the second the one that Kafka's partitioner gives the key. All numbers are big endian.
//!
//! A record's value is `partition: u32, seq: u64, amount: i64`, an output's `partition: u32, seq: u64, count: u64, sum:
//! i64`, an entry of the store `count: u64, sum: i64`. An entry with one more byte is poison: it is written and told
//! like any other, and then misbehaves as the byte says (`poison`). Every balance is remembered as well, and one that
//! is not what the store has is refused: an instance must not have seen what was undone.

use std::collections::BTreeMap;
use std::time::Duration;

use sandbar::prelude::*;

#[sandbar::processor(source = "entries")]
struct Ledger {
    #[store(prefetch)]
    balances: Store<String, Raw>,
    /// Only poison has no key here.
    #[sink]
    first: Sink<Option<String>, Raw>,
    #[sink]
    second: Sink<String, Raw>,
    faults: Faults,
    remembered: BTreeMap<String, (u64, i64)>,
}

/// What the 21st byte of an entry asks for.
mod poison {
    /// A trap.
    pub const TRAP: u8 = 1;
    /// Memory without end.
    pub const MEMORY: u8 = 2;
    /// An output for a partition that is not there.
    pub const PARTITION: u8 = 3;
    /// An output of `LARGE_BYTES`, which is more than the first sink's topic takes.
    pub const TOO_LARGE: u8 = 4;
    /// An output without a key, for a topic that is compacted.
    pub const NULL_KEY: u8 = 5;
    /// An output from a future that the topic does not take.
    pub const TIMESTAMP: u8 = 6;
    /// A loop without end.
    pub const ENDLESS: u8 = 7;

    pub const LARGE_BYTES: usize = 100_000;
    /// Ten days, in milliseconds.
    pub const FUTURE_MS: i64 = 864_000_000;
}

/// Misbehaviour that the manifest's `[config]` asks for. It hangs on the clock beside the record, so that the same
/// record goes through at another time.
#[derive(Default)]
struct Faults {
    /// A trap at one of so many records; 0 for never.
    trap_one_in: u64,
    /// A long loop at one of so many records; 0 for never.
    idle_one_in: u64,
    /// Turns of that loop.
    idle_turns: u64,
}

impl Processor for Ledger {
    type Key = Str;
    type Value = Raw;

    fn init(&mut self, context: &mut Context) -> Result<()> {
        let number = |key: &str| context.config(key).map_or(Ok(0), |text| text.parse::<u64>());
        self.faults = Faults {
            trap_one_in: number("trap.one.in")?,
            idle_one_in: number("idle.one.in")?,
            idle_turns: number("idle.turns")?,
        };
        // A schedule that does nothing, to come between the calls.
        if let tick_ms @ 1.. = number("tick.ms")? {
            context.schedule(Duration::from_millis(tick_ms), PunctuationType::WallClockTime)?;
        }
        Ok(())
    }

    fn process(&mut self, record: Record<Str, Raw>, context: &mut Context) -> Result<()> {
        let Entry { partition, seq, amount, poison } = parse_entry(record.value)?;
        ensure!(
            partition == record.partition,
            "an entry of partition {partition} came from partition {}",
            record.partition
        );
        let balance = self.balances.get(record.key)?;
        let (count, sum) = balance.as_deref().map_or(Ok((0, 0)), parse_balance)?;
        let remembered = self.remembered.get(record.key).copied().unwrap_or((count, sum));
        ensure!(remembered == (count, sum), "the store has {count}, {sum} where {remembered:?} was written");
        let (count, sum) = (count + 1, sum + amount);
        let mut output = Vec::with_capacity(28);
        output.extend(partition.to_be_bytes());
        output.extend(seq.to_be_bytes());
        output.extend(count.to_be_bytes());
        output.extend(sum.to_be_bytes());
        self.balances.put(record.key, &output[12..])?;
        self.remembered.insert(record.key.to_owned(), (count, sum));
        let key = Some(record.key.to_owned());
        self.first.record(&key, &output).partition(partition).forward()?;
        self.second.forward(record.key, &output)?;
        self.misbehave(seq, context);
        match poison {
            Some(kind) => self.poison(kind, &record, &output),
            None => Ok(()),
        }
    }
}

impl Ledger {
    /// Comes last as well.
    fn poison(&self, kind: u8, record: &Record<Str, Raw>, output: &[u8]) -> Result<()> {
        let key = Some(record.key.to_owned());
        match kind {
            poison::TRAP => panic!("a trap that the entry asked for"),
            poison::MEMORY => {
                let mut taken: Vec<Vec<u8>> = Vec::new();
                loop {
                    taken.push(std::hint::black_box(Vec::with_capacity(1 << 20)));
                }
            }
            poison::PARTITION => self.first.record(&key, output).partition(1_000_000).forward(),
            poison::TOO_LARGE => self.first.forward(&key, &vec![0; poison::LARGE_BYTES]),
            poison::NULL_KEY => self.first.forward(&None, output),
            poison::TIMESTAMP => {
                self.first.record(&key, output).timestamp(record.timestamp + poison::FUTURE_MS).forward()
            }
            poison::ENDLESS => loop {
                std::hint::black_box(output);
            },
            other => bail!("there is no poison {other}"),
        }
    }

    /// Comes last, so that there is something to undo.
    fn misbehave(&self, seq: u64, context: &Context) {
        let Faults { trap_one_in, idle_one_in, idle_turns } = self.faults;
        if trap_one_in == 0 && idle_one_in == 0 {
            return;
        }
        let chance = scatter(context.wall_clock_time().unsigned_abs() ^ scatter(seq));
        if trap_one_in > 0 && chance % trap_one_in == 0 {
            panic!("a trap that the manifest asked for");
        }
        if idle_one_in > 0 && chance % idle_one_in == 1 % idle_one_in {
            for turn in 0..idle_turns {
                std::hint::black_box(turn);
            }
        }
    }
}

/// Numbers that follow each other give numbers that do not.
fn scatter(number: u64) -> u64 {
    let mixed = (number ^ (number >> 31)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    mixed ^ (mixed >> 29)
}

struct Entry {
    partition: u32,
    seq: u64,
    amount: i64,
    poison: Option<u8>,
}

fn parse_entry(bytes: &[u8]) -> Result<Entry> {
    ensure!(matches!(bytes.len(), 20 | 21), "expected an entry of 20 or 21 bytes, found {}", bytes.len());
    Ok(Entry {
        partition: u32::from_be_bytes(fixed(&bytes[..4])?),
        seq: u64::from_be_bytes(fixed(&bytes[4..12])?),
        amount: i64::from_be_bytes(fixed(&bytes[12..20])?),
        poison: bytes.get(20).copied(),
    })
}

fn parse_balance(bytes: &[u8]) -> Result<(u64, i64)> {
    ensure!(bytes.len() == 16, "expected a balance of 16 bytes, found {}", bytes.len());
    Ok((u64::from_be_bytes(fixed(&bytes[..8])?), i64::from_be_bytes(fixed(&bytes[8..])?)))
}

fn fixed<const LENGTH: usize>(bytes: &[u8]) -> Result<[u8; LENGTH]> {
    Ok(bytes.try_into()?)
}
