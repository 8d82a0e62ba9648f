//! `Sink`: a typed handle to a sink of the topology. Forwarded records gather in columns until the call ends; those of
//! a record that fails are cut off again. Nothing is sent from here.

use std::marker::PhantomData;
use std::rc::Rc;

use crate::context::Shared;
use crate::{Headers, Result, Serde};

mod outputs;
pub(crate) use outputs::Outputs;

/// A sink that takes keys of `K` and values of `V`.
pub struct Sink<K, V> {
    pub(crate) index: u32,
    shared: Rc<Shared>,
    types: PhantomData<fn() -> (K, V)>,
}

impl<K: Serde, V: Serde> Sink<K, V> {
    pub(crate) fn new(index: u32, shared: Rc<Shared>) -> Self {
        Self { index, shared, types: PhantomData }
    }

    /// Forwards a record with the timestamp of the running record (or punctuation), no headers, and the partition that
    /// Kafka's default partitioner gives the key.
    pub fn forward(&self, key: &K::View, value: &V::View) -> Result<()> {
        self.push(key, |bytes| V::encode(value, bytes))
    }

    /// A record to forward with headers, another timestamp or a partition of its own.
    pub fn record<'r>(&'r self, key: &'r K::View, value: &'r V::View) -> Outgoing<'r, K, V> {
        Outgoing { sink: self, key, value, timestamp: None, partition: -1, copied: None, headers: Vec::new() }
    }

    /// Forwards a null value: a deletion for those who read the topic as a table.
    pub fn forward_tombstone(&self, key: &K::View) -> Result<()> {
        self.push(key, |_| Ok(false))
    }

    /// Appends a record with the defaults, without the detour over [`Outgoing`]: this is the path of nearly all
    /// records.
    fn push(&self, key: &K::View, value: impl FnOnce(&mut Vec<u8>) -> Result<bool>) -> Result<()> {
        let timestamp = self.shared.forwarding_timestamp()?;
        let mut outputs = self.shared.outputs.borrow_mut();
        outputs.push(self.index, -1, timestamp, |bytes| K::encode(key, bytes), value)?.no_headers();
        Ok(())
    }
}

impl<K, V> Clone for Sink<K, V> {
    fn clone(&self) -> Self {
        Self { index: self.index, shared: self.shared.clone(), types: PhantomData }
    }
}

/// A record on its way to a sink; nothing happens before [`forward`](Outgoing::forward).
#[must_use = "nothing is forwarded before `forward()`"]
pub struct Outgoing<'r, K: Serde, V: Serde> {
    sink: &'r Sink<K, V>,
    key: &'r K::View,
    value: &'r V::View,
    timestamp: Option<i64>,
    partition: i32,
    copied: Option<Headers<'r>>,
    headers: Vec<(&'r str, Option<&'r [u8]>)>,
}

impl<'r, K: Serde, V: Serde> Outgoing<'r, K, V> {
    /// Milliseconds since the epoch, 0 or more.
    pub fn timestamp(mut self, timestamp: i64) -> Self {
        self.timestamp = Some(timestamp);
        self
    }

    /// The partition to write to, in place of the one computed from the key.
    pub fn partition(mut self, partition: u32) -> Self {
        // A partition number above `i32::MAX` exists nowhere; the host refuses it by its bound.
        self.partition = i32::try_from(partition).unwrap_or(i32::MAX);
        self
    }

    /// Copies all headers of a record, in front of those added one by one.
    pub fn headers(mut self, headers: Headers<'r>) -> Self {
        self.copied = Some(headers);
        self
    }

    /// Adds a header.
    pub fn header(mut self, key: &'r str, value: &'r [u8]) -> Self {
        self.headers.push((key, Some(value)));
        self
    }

    /// Forwards the record.
    pub fn forward(self) -> Result<()> {
        let shared = &self.sink.shared;
        let now = shared.forwarding_timestamp()?;
        let timestamp = self.timestamp.unwrap_or(now);
        let mut outputs = shared.outputs.borrow_mut();
        let headers = outputs.push(
            self.sink.index,
            self.partition,
            timestamp,
            |bytes| K::encode(self.key, bytes),
            |bytes| V::encode(self.value, bytes),
        )?;
        if self.copied.is_none() && self.headers.is_empty() {
            headers.no_headers();
        } else {
            let copied = self.copied.iter().flat_map(Headers::iter).map(|header| (header.key, header.value));
            headers.add(copied.chain(self.headers.iter().copied()));
        }
        Ok(())
    }
}
