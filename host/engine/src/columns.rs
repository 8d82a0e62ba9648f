//! Columns: many byte strings in one buffer with their end offsets. The shape in which batches travel between the
//! stream thread, the processor and the state stores. Ends ascend and the last one is the length of the bytes;
//! `validate` checks that for columns that came from outside. Knows nothing of what the bytes mean.

/// Many byte strings in one list: item `i` is `bytes[ends[i-1]..ends[i]]`, where `ends[-1]` counts as 0.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Columns {
    pub bytes: Vec<u8>,
    pub ends: Vec<u32>,
}

/// Columns in which items may be absent: an absent item has length 0 and its index is in `nulls`, ascending.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NullableColumns {
    pub bytes: Vec<u8>,
    pub ends: Vec<u32>,
    pub nulls: Vec<u32>,
}

/// Why columns from outside were refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ColumnsError {
    #[error("end offset {end} of item {index} is below the end {previous} of the item before it")]
    Descending { index: usize, end: u32, previous: u32 },
    #[error("the end offsets stop at {last} but there are {bytes} bytes")]
    Length { last: u32, bytes: usize },
    #[error("the null index {null} at position {position} is out of order or not below {items}")]
    Nulls { position: usize, null: u32, items: usize },
    #[error("item {index} is null but has {length} bytes")]
    NullWithBytes { index: u32, length: usize },
    #[error("a column has {found} items where {expected} were expected ({what})")]
    Count { what: &'static str, expected: usize, found: usize },
}

fn check_ends(bytes: &[u8], ends: &[u32]) -> Result<(), ColumnsError> {
    let mut previous = 0;
    for (index, &end) in ends.iter().enumerate() {
        if end < previous {
            return Err(ColumnsError::Descending { index, end, previous });
        }
        previous = end;
    }
    if previous as usize != bytes.len() {
        return Err(ColumnsError::Length { last: previous, bytes: bytes.len() });
    }
    Ok(())
}

fn item<'a>(bytes: &'a [u8], ends: &[u32], index: usize) -> &'a [u8] {
    let start = if index == 0 { 0 } else { ends[index - 1] as usize };
    &bytes[start..ends[index] as usize]
}

impl Columns {
    /// The number of items.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Item `index`. Panics when it is out of range, like a slice.
    pub fn get(&self, index: usize) -> &[u8] {
        item(&self.bytes, &self.ends, index)
    }

    /// Appends an item. The caller bounds batches far below 4 GiB.
    pub fn push(&mut self, value: &[u8]) {
        self.bytes.extend_from_slice(value);
        self.ends.push(self.bytes.len() as u32);
    }

    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        (0..self.len()).map(|index| self.get(index))
    }

    /// Checks columns that came from outside.
    pub fn validate(&self) -> Result<(), ColumnsError> {
        check_ends(&self.bytes, &self.ends)
    }

    pub fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
    }
}

impl NullableColumns {
    /// The number of items, absent ones included.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Item `index`, `None` where it is absent. Panics when it is out of range, like a slice.
    pub fn get(&self, index: usize) -> Option<&[u8]> {
        if !self.nulls.is_empty() && self.nulls.binary_search(&(index as u32)).is_ok() {
            return None;
        }
        Some(item(&self.bytes, &self.ends, index))
    }

    /// Appends an item, `None` for an absent one.
    pub fn push(&mut self, value: Option<&[u8]>) {
        match value {
            Some(value) => self.bytes.extend_from_slice(value),
            None => self.nulls.push(self.ends.len() as u32),
        }
        self.ends.push(self.bytes.len() as u32);
    }

    pub fn iter(&self) -> impl Iterator<Item = Option<&[u8]>> {
        (0..self.len()).map(|index| self.get(index))
    }

    /// Checks columns that came from outside.
    pub fn validate(&self) -> Result<(), ColumnsError> {
        check_ends(&self.bytes, &self.ends)?;
        let mut previous: Option<u32> = None;
        for (position, &null) in self.nulls.iter().enumerate() {
            if null as usize >= self.len() || previous.is_some_and(|p| p >= null) {
                return Err(ColumnsError::Nulls { position, null, items: self.len() });
            }
            let length = item(&self.bytes, &self.ends, null as usize).len();
            if length != 0 {
                return Err(ColumnsError::NullWithBytes { index: null, length });
            }
            previous = Some(null);
        }
        Ok(())
    }

    pub fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
        self.nulls.clear();
    }
}
