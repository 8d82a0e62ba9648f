//! What both sides are given to do: the same work, in the DSL of Kafka Streams and as modules of ours. Says nothing of
//! how it is run.

use crate::workload::{INPUT, Keys, TABLE, ZIPF_INPUT};

/// One piece of work.
#[derive(Debug, Clone, Copy)]
pub struct Pipeline {
    /// The name in the tables.
    pub name: &'static str,
    /// The name that the Java program knows.
    pub peer: &'static str,
    /// The module on our side.
    pub guest: &'static str,
    /// The module's store with its backend.
    pub store: Option<(&'static str, &'static str)>,
    pub keys: Keys,
    pub kind: Kind,
}

/// What its outputs must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The value of every record in capital letters.
    Uppercase,
    /// The count of every key.
    Count,
    /// The count of every key in every minute.
    Window,
    /// The value of every record with the row of its key.
    Join,
}

impl Pipeline {
    /// The topic that it reads.
    pub fn input(&self) -> &'static str {
        match self.keys {
            Keys::Uniform => INPUT,
            Keys::Zipf => ZIPF_INPUT,
        }
    }

    /// The part of the manifest that only it has.
    pub fn manifest(&self) -> String {
        let mut text = String::new();
        if self.kind == Kind::Join {
            text.push_str(&format!("sources.table.topic = {TABLE:?}\nconfig.table = {TABLE:?}\n"));
        }
        if let Some((store, backend)) = self.store {
            text.push_str(&format!("stores.{store}.backend = {backend:?}\n"));
        }
        text
    }
}

const fn pipeline(
    name: &'static str,
    peer: &'static str,
    guest: &'static str,
    store: Option<(&'static str, &'static str)>,
    kind: Kind,
) -> Pipeline {
    Pipeline { name, peer, guest, store, keys: Keys::Uniform, kind }
}

/// All of them, the simplest first.
pub const PIPELINES: [Pipeline; 6] = [
    pipeline("pass-through", "uppercase", "uppercase", None, Kind::Uppercase),
    pipeline("count, RocksDB", "count-rocksdb", "tally", Some(("counts", "rocksdb")), Kind::Count),
    Pipeline {
        keys: Keys::Zipf,
        ..pipeline("count, RocksDB, Zipf keys", "count-rocksdb", "tally", Some(("counts", "rocksdb")), Kind::Count)
    },
    pipeline("count, memory", "count-memory", "tally", Some(("counts", "memory")), Kind::Count),
    pipeline("window", "window", "window", Some(("counts", "rocksdb")), Kind::Window),
    pipeline("join", "join", "join", Some(("rows", "rocksdb")), Kind::Join),
];
