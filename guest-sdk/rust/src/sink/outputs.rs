//! The outputs of a call as columns, with marks to cut back to. Every column has one item per record, or none at all
//! where the contract allows that (sinks, partitions, header counts).

use crate::Result;
use crate::bindings::sandbar::processor::types::{Headers, NullableColumns, OutputBatch};

/// The forwarded records of the running call.
#[derive(Default)]
pub(crate) struct Outputs {
    batch: OutputBatch,
    /// What the last call needed, to reserve it for the next in one go.
    records_hint: usize,
    key_bytes_hint: usize,
    value_bytes_hint: usize,
}

/// Where the outputs stood.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mark {
    records: usize,
    headers: usize,
}

/// A record whose headers are still to be said.
pub(crate) struct Pushed<'a> {
    batch: &'a mut OutputBatch,
}

impl Pushed<'_> {
    pub(crate) fn no_headers(self) {
        if !self.batch.headers.counts.is_empty() {
            self.batch.headers.counts.push(0);
        }
    }

    pub(crate) fn add<'h>(self, added: impl Iterator<Item = (&'h str, Option<&'h [u8]>)>) {
        let records = self.batch.timestamps.len();
        let Headers { counts, keys, values } = &mut self.batch.headers;
        if counts.is_empty() {
            counts.resize(records - 1, 0);
        }
        let before = keys.len();
        for (key, value) in added {
            keys.push(key.as_bytes());
            values.push(value);
        }
        counts.push((keys.len() - before) as u32);
    }
}

impl Outputs {
    pub(crate) fn begin(&mut self) {
        self.batch = OutputBatch {
            timestamps: Vec::with_capacity(self.records_hint),
            keys: NullableColumns::with_capacity(self.records_hint, self.key_bytes_hint),
            values: NullableColumns::with_capacity(self.records_hint, self.value_bytes_hint),
            ..OutputBatch::default()
        };
    }

    pub(crate) fn take(&mut self) -> OutputBatch {
        self.records_hint = self.batch.timestamps.len();
        self.key_bytes_hint = self.batch.keys.bytes.len();
        self.value_bytes_hint = self.batch.values.bytes.len();
        std::mem::take(&mut self.batch)
    }

    pub(crate) fn mark(&self) -> Mark {
        Mark { records: self.batch.timestamps.len(), headers: self.batch.headers.keys.len() }
    }

    /// Drops what was forwarded since the mark.
    pub(crate) fn cut_back(&mut self, mark: Mark) {
        let OutputBatch { sinks, partitions, timestamps, keys, values, headers } = &mut self.batch;
        sinks.truncate(mark.records);
        partitions.truncate(mark.records);
        timestamps.truncate(mark.records);
        keys.truncate(mark.records);
        values.truncate(mark.records);
        headers.counts.truncate(mark.records);
        headers.keys.truncate(mark.headers);
        headers.values.truncate(mark.headers);
    }

    /// Appends a record; an error leaves nothing of it.
    pub(crate) fn push(
        &mut self,
        sink: u32,
        partition: i32,
        timestamp: i64,
        key: impl FnOnce(&mut Vec<u8>) -> Result<bool>,
        value: impl FnOnce(&mut Vec<u8>) -> Result<bool>,
    ) -> Result<Pushed<'_>> {
        if timestamp < 0 {
            crate::bail!("a forwarded record needs a timestamp of 0 or more, found {timestamp}");
        }
        let batch = &mut self.batch;
        let records = batch.timestamps.len();
        let encoded = key(&mut batch.keys.bytes).and_then(|key| Ok((key, value(&mut batch.values.bytes)?)));
        let (key, value) = match encoded {
            Ok(encoded) => encoded,
            Err(error) => {
                batch.keys.truncate(records);
                batch.values.truncate(records);
                return Err(error.context("a forwarded record"));
            }
        };
        batch.keys.close_item(key);
        batch.values.close_item(value);
        batch.timestamps.push(timestamp);
        push_sparse(&mut batch.sinks, records, sink, 0);
        push_sparse(&mut batch.partitions, records, partition, -1);
        Ok(Pushed { batch })
    }
}

/// Appends to a column that stays empty while all its items are `usual`.
fn push_sparse<T: Copy + PartialEq>(column: &mut Vec<T>, records: usize, item: T, usual: T) {
    if column.is_empty() {
        if item == usual {
            return;
        }
        column.resize(records, usual);
    }
    column.push(item);
}
