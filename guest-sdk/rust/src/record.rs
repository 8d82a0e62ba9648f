//! `Record`: one record of a source with its metadata and headers, decoded lazily where it costs. It borrows the batch
//! and changes nothing.

use crate::Serde;
use crate::bindings::sandbar::processor::types;

/// A record that a processor is given.
pub struct Record<'a, K: Serde, V: Serde> {
    /// The key, decoded.
    pub key: K::Item<'a>,
    /// The value, decoded.
    pub value: V::Item<'a>,
    /// Milliseconds since the epoch.
    pub timestamp: i64,
    /// Its place in the partition.
    pub offset: i64,
    /// The partition it was read from.
    pub partition: u32,
    /// The topic it was read from: what the manifest binds the source to, or the source's own name.
    pub topic: &'a str,
    /// Its headers.
    pub headers: Headers<'a>,
}

/// A header of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header<'a> {
    /// The header's key.
    pub key: &'a str,
    /// The header's value, `None` where it is null.
    pub value: Option<&'a [u8]>,
}

/// The version of a value, as REST shows it: FNV-1a of 64 bits, in hexadecimal.
pub fn version(value: &[u8]) -> String {
    let fnv = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    format!("{:016x}", value.iter().fold(0xcbf2_9ce4_8422_2325, fnv))
}

/// The headers of a record, in the order of the record. Header keys that are not UTF-8 read as empty.
#[derive(Clone, Copy)]
pub struct Headers<'a> {
    columns: &'a types::Headers,
    first: usize,
    count: usize,
}

impl<'a> Headers<'a> {
    pub(crate) fn new(columns: &'a types::Headers, first: usize, count: usize) -> Self {
        Self { columns, first, count }
    }

    /// The number of headers.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The headers one by one, in the order of the record.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = Header<'a>> + use<'a> {
        let columns = self.columns;
        (self.first..self.first + self.count).map(move |index| Header {
            key: std::str::from_utf8(columns.keys.get(index)).unwrap_or_default(),
            value: columns.values.get(index),
        })
    }

    /// Whether the condition of a REST write holds (`If-Match`, `If-None-Match`), given what is under its key now; true
    /// for a record without conditions. A processor that asks this before it changes its store decides between writers
    /// that do not know of each other. The manifest says so with `stores.….write.conditional = true`.
    pub fn condition_holds(&self, current: Option<&[u8]>) -> bool {
        let text = |name: &str| self.last(name).and_then(|header| header.value);
        let is_version = |wanted: &[u8]| match current {
            None => false,
            Some(current) => wanted == b"*" || wanted == version(current).as_bytes(),
        };
        text("sandbar-if-match").is_none_or(is_version)
            && text("sandbar-if-none-match").is_none_or(|unwanted| !is_version(unwanted))
    }

    /// The last header with this key, as Kafka's `Headers.lastHeader`.
    pub fn last(&self, key: &str) -> Option<Header<'a>> {
        self.iter().rev().find(|header| header.key == key)
    }
}
