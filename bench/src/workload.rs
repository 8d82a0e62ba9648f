//! The records of the benchmark and what is done with them. The same seedless sequence in every run: keys are spread
//! evenly over a fixed number, or by Zipf's law, values are JSON of about 100 bytes.

use std::fmt;
use std::sync::Arc;

use engine::broker::ProducerRecord;
use engine::testing::topology;
use engine::topology::{StoreBackend, Topology};

/// Distinct keys of the input.
pub const KEYS: u64 = 100_000;

/// Partitions of the input topic.
pub const PARTITIONS: i32 = 4;

pub const INPUT: &str = "bench-in";
/// As `INPUT`, with keys by Zipf's law.
pub const ZIPF_INPUT: &str = "bench-in-zipf";
/// One row for each key, for joins.
pub const TABLE: &str = "bench-table";
pub const OUTPUT: &str = "bench-out";

/// What a processor of the benchmark does with a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// Forwards it as it is.
    PassThrough,
    /// Counts it under its key and forwards key and count.
    Count(StoreBackend),
}

impl Work {
    pub const ALL: [Self; 3] =
        [Self::PassThrough, Self::Count(StoreBackend::InMemory), Self::Count(StoreBackend::Persistent)];

    /// The name of its guest.
    pub fn guest(self) -> &'static str {
        match self {
            Self::PassThrough => "passthrough",
            Self::Count(_) => "count",
        }
    }

    /// Its topology; the names are those that the guest declares.
    pub fn topology(self) -> Topology {
        let stores: &[&str] = if self == Self::PassThrough { &[] } else { &["counts"] };
        let mut topology = topology(&["in"], stores, &["out"]);
        for sub_topology in &mut topology.sub_topologies {
            sub_topology.sources.iter_mut().for_each(|source| source.topic = INPUT.into());
            sub_topology.sinks.iter_mut().for_each(|sink| sink.topic = OUTPUT.into());
            if let Self::Count(backend) = self {
                sub_topology.stores.iter_mut().for_each(|store| store.backend = backend);
            }
        }
        topology
    }
}

impl fmt::Display for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::PassThrough => "pass-through",
            Self::Count(StoreBackend::InMemory) => "count, memory",
            Self::Count(StoreBackend::Persistent) => "count, RocksDB",
        })
    }
}

/// One input record.
pub struct Input {
    pub partition: i32,
    pub timestamp: i64,
    pub key: String,
    pub value: String,
}

impl Input {
    /// As it is sent to the input topic.
    pub fn record<'a>(&'a self, topic: &'a Arc<str>) -> ProducerRecord<'a> {
        ProducerRecord {
            topic,
            partition: Some(self.partition),
            timestamp: self.timestamp,
            key: Some(self.key.as_bytes()),
            value: Some(self.value.as_bytes()),
            headers: &[],
        }
    }
}

/// How often keys come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keys {
    /// Each as often as the others.
    Uniform,
    /// The `n`-th in proportion to `1/n`.
    Zipf,
}

/// Spreads numbers that follow each other.
fn scatter(index: u64) -> u64 {
    index.wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

impl Keys {
    /// The number of the key of record `index`.
    fn number(self, index: u64) -> u64 {
        match self {
            Self::Uniform => (scatter(index) >> 20) % KEYS,
            Self::Zipf => {
                // The inverse of the law's distribution, taken as continuous.
                let share = (scatter(index) >> 11) as f64 / (1u64 << 53) as f64;
                (((KEYS + 1) as f64).powf(share) as u64 - 1).min(KEYS - 1)
            }
        }
    }
}

fn key_of(number: u64) -> String {
    format!("k{number:06}")
}

/// A key always has the same partition.
fn partition_of(number: u64) -> i32 {
    (number % PARTITIONS as u64) as i32
}

/// Record `index` of the input with uniform keys.
pub fn input(index: u64) -> Input {
    input_of(Keys::Uniform, index)
}

/// Record `index` of an input. Ten records have the same time, so that a minute holds each of the keys about six times.
pub fn input_of(keys: Keys, index: u64) -> Input {
    let number = keys.number(index);
    Input {
        partition: partition_of(number),
        timestamp: 1_357_020_000_000 + index as i64 / 10,
        key: key_of(number),
        value: format!(
            r#"{{"id":{index:010},"agent":"station-{:02}","state":true,"note":"some more text that a report carries"}}"#,
            number % 97
        ),
    }
}

/// The table's row of a key, below `KEYS`; older than every record.
pub fn row(number: u64) -> Input {
    Input {
        partition: partition_of(number),
        timestamp: 1_357_000_000_000,
        key: key_of(number),
        value: format!(r#"{{"agent":"station-{:02}","place":"the row of {number:06}"}}"#, number % 97),
    }
}
