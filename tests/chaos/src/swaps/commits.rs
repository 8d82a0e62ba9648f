//! The offsets that an application has committed, in their order, as Kafka keeps them in `__consumer_offsets`, each
//! with the version that its metadata names. Reads the topic's own bytes and the metadata as documented, with nothing
//! of the host's code: what a host says by REST is compared with this. Judges nothing (`judge`).

use anyhow::{Context, Result, bail, ensure};

/// What a commit says of a partition.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Commit {
    pub offset: i64,
    /// The version that processed what was committed, and the offset with which it began; none where it says nothing.
    pub version: Option<(u64, i64)>,
    /// The version that is taking rows over into another schema: it is in the middle of that.
    pub migrating: Option<u64>,
    /// The offset at which the rows got the schema that they have, where they had another one before.
    pub schema_since: Option<i64>,
}

/// A record of the topic that is a commit of this group: topic, partition and what it says. `None` for other records.
///
/// # Errors
/// When the bytes are none that this Kafka writes.
pub fn parse(group: &str, key: &[u8], value: Option<&[u8]>) -> Result<Option<(String, u32, Commit)>> {
    let mut key = Bytes(key);
    // 0 and 1 are offsets; the others are members and groups.
    if !matches!(key.short()?, 0 | 1) || key.text()? != group {
        return Ok(None);
    }
    let (topic, partition) = (key.text()?.to_owned(), key.int()?.cast_unsigned());
    // A deleted offset.
    let Some(value) = value else { return Ok(None) };
    let mut value = Bytes(value);
    let form = value.short()?;
    let offset = value.long()?;
    if form >= 3 {
        value.int().context("the epoch of the leader")?;
    }
    let metadata = match form {
        0..=3 => value.text()?,
        4 => value.compact_text()?,
        _ => bail!("a committed offset of the form {form}"),
    };
    Ok(Some((topic, partition, Commit { offset, ..commit_of(metadata)? })))
}

/// The names of the numbers in the metadata.
const NUMBER: &[u8] = b"sandbar@version";
const SINCE: &[u8] = b"sandbar@since";
const MIGRATING: &[u8] = b"sandbar@migrating";
const SCHEMA_SINCE: &[u8] = b"sandbar@schema-since";

/// What metadata in the form of Kafka Streams says, but for the offset.
fn commit_of(metadata: &str) -> Result<Commit> {
    let bytes = base64(metadata).with_context(|| format!("metadata that is no base64: {metadata:?}"))?;
    let mut bytes = Bytes(&bytes);
    if bytes.0.is_empty() || bytes.byte()? != 2 {
        return Ok(Commit::default());
    }
    bytes.long().context("the partition time")?;
    let (mut number, mut since) = (None, None);
    let mut commit = Commit::default();
    if !bytes.0.is_empty() {
        for _ in 0..bytes.int()? {
            let length = usize::try_from(bytes.int()?)?;
            let name = bytes.take(length)?;
            let value = bytes.long()?;
            match name {
                NUMBER => number = Some(u64::try_from(value)?),
                SINCE => since = Some(value),
                MIGRATING => commit.migrating = Some(u64::try_from(value)?),
                SCHEMA_SINCE => commit.schema_since = Some(value),
                _ => {}
            }
        }
    }
    ensure!(number.is_some() == since.is_some(), "metadata with half of a version");
    Ok(Commit { version: number.zip(since), ..commit })
}

/// Bytes from which numbers and texts are taken.
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length).context("the bytes are too few")?;
        self.0 = rest;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8> {
        Ok(self.take(1)?[0])
    }

    fn short(&mut self) -> Result<i16> {
        Ok(i16::from_be_bytes(self.take(2)?.try_into()?))
    }

    fn int(&mut self) -> Result<i32> {
        Ok(i32::from_be_bytes(self.take(4)?.try_into()?))
    }

    fn long(&mut self) -> Result<i64> {
        Ok(i64::from_be_bytes(self.take(8)?.try_into()?))
    }

    fn text(&mut self) -> Result<&'a str> {
        let length = usize::try_from(self.short()?).context("a text that is not there")?;
        Ok(std::str::from_utf8(self.take(length)?)?)
    }

    /// A text whose length, and one, comes before it in parts of seven bits.
    fn compact_text(&mut self) -> Result<&'a str> {
        let (mut length, mut shift) = (0_usize, 0);
        loop {
            let byte = self.byte()?;
            length |= usize::from(byte & 0x7F) << shift;
            shift += 7;
            if byte < 0x80 || shift > 28 {
                break;
            }
        }
        Ok(std::str::from_utf8(self.take(length.checked_sub(1).context("a text that is not there")?)?)?)
    }
}

fn base64(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() * 3 / 4);
    let (mut bits, mut count) = (0_u32, 0);
    for letter in text.trim_end_matches('=').bytes() {
        let value = match letter {
            b'A'..=b'Z' => letter - b'A',
            b'a'..=b'z' => letter - b'a' + 26,
            b'0'..=b'9' => letter - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(value);
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
            bits &= (1 << count) - 1;
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests;
