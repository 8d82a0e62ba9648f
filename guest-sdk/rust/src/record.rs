//! `Record`: one record of a source with its metadata and headers, decoded lazily where it costs. It borrows the batch
//! and changes nothing.

use crate::Serde;
use crate::bindings::sandbar::processor::types;

/// A record that a processor is given.
pub struct Record<'a, K: Serde, V: Serde> {
    pub key: K::Item<'a>,
    pub value: V::Item<'a>,
    /// Milliseconds since the epoch.
    pub timestamp: i64,
    pub offset: i64,
    pub partition: u32,
    pub topic: &'a str,
    pub headers: Headers<'a>,
}

/// A header of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header<'a> {
    pub key: &'a str,
    pub value: Option<&'a [u8]>,
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

    pub fn len(&self) -> usize {
        self.count
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub fn iter(&self) -> impl DoubleEndedIterator<Item = Header<'a>> + use<'a> {
        let columns = self.columns;
        (self.first..self.first + self.count).map(move |index| Header {
            key: std::str::from_utf8(columns.keys.get(index)).unwrap_or_default(),
            value: columns.values.get(index),
        })
    }

    /// The last header with this key, as Kafka's `Headers.lastHeader`.
    pub fn last(&self, key: &str) -> Option<Header<'a>> {
        self.iter().rev().find(|header| header.key == key)
    }
}
