//! Reading and building the contract's columns. Columns that arrive were checked by the host, so an index within their
//! length is in range. Knows nothing of what the bytes mean.

use crate::bindings::sandbar::processor::types::{Columns, NullableColumns};

fn item<'a>(bytes: &'a [u8], ends: &[u32], index: usize) -> &'a [u8] {
    let start = if index == 0 { 0 } else { ends[index - 1] as usize };
    &bytes[start..ends[index] as usize]
}

/// The end offset of what has been appended. The host bounds a batch far below 4 GiB, and so does a wasm memory.
fn end(bytes: &[u8]) -> u32 {
    bytes.len() as u32
}

impl Columns {
    pub(crate) fn with_capacity(items: usize, bytes: usize) -> Self {
        Self { bytes: Vec::with_capacity(bytes), ends: Vec::with_capacity(items) }
    }

    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    pub(crate) fn get(&self, index: usize) -> &[u8] {
        item(&self.bytes, &self.ends, index)
    }

    pub(crate) fn push(&mut self, value: &[u8]) {
        self.bytes.extend_from_slice(value);
        self.ends.push(end(&self.bytes));
    }

    pub(crate) fn truncate(&mut self, items: usize) {
        self.ends.truncate(items);
        self.bytes.truncate(self.ends.last().map_or(0, |&end| end as usize));
    }
}

impl NullableColumns {
    pub(crate) fn with_capacity(items: usize, bytes: usize) -> Self {
        Self { bytes: Vec::with_capacity(bytes), ends: Vec::with_capacity(items), nulls: Vec::new() }
    }

    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    pub(crate) fn get(&self, index: usize) -> Option<&[u8]> {
        // A present item of length 0 and an absent one differ only in `nulls`, which is usually empty.
        let value = item(&self.bytes, &self.ends, index);
        if value.is_empty() && self.nulls.binary_search(&(index as u32)).is_ok() { None } else { Some(value) }
    }

    pub(crate) fn push(&mut self, value: Option<&[u8]>) {
        match value {
            Some(value) => self.bytes.extend_from_slice(value),
            None => self.nulls.push(self.ends.len() as u32),
        }
        self.ends.push(end(&self.bytes));
    }

    /// Ends the item whose bytes have just been appended to `bytes`.
    pub(crate) fn close_item(&mut self, present: bool) {
        if !present {
            self.nulls.push(self.ends.len() as u32);
        }
        self.ends.push(end(&self.bytes));
    }

    /// Drops all items from `items` on, with the bytes of an item that was not closed.
    pub(crate) fn truncate(&mut self, items: usize) {
        self.ends.truncate(items);
        self.bytes.truncate(self.ends.last().map_or(0, |&end| end as usize));
        while self.nulls.last().is_some_and(|&null| null as usize >= items) {
            self.nulls.pop();
        }
    }
}
