//! The metadata log: one line a change, `CRC JSON`, the CRC-32C of the JSON in eight hexadecimal digits. Keeps the image of
//! all lines, so that it can write itself anew (a snapshot) when it has grown much larger than what it says. A torn last
//! line is cut with a message; damage before good lines is an error.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::{DiskError, storage_error};
use crate::core::metadata::{MetadataImage, MetadataRecord};
use crate::core::storage::StorageError;

/// Below this size the log is never rewritten.
const REWRITE_BYTES_MIN: u64 = 1024 * 1024;
/// Rewritten when it is this many times larger than after the last rewrite.
const REWRITE_GROWTH: u64 = 4;

/// An open metadata log.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
    length: u64,
    /// The length after the last rewrite.
    compact_length: u64,
    image: MetadataImage,
    fsync: bool,
}

fn line(record: &MetadataRecord) -> Result<Vec<u8>, StorageError> {
    let json = serde_json::to_vec(record).map_err(|error| StorageError {
        operation: "encode",
        subject: "a metadata record".into(),
        detail: error.to_string(),
    })?;
    let mut line = format!("{:08x} ", crc32c::crc32c(&json)).into_bytes();
    line.extend_from_slice(&json);
    line.push(b'\n');
    Ok(line)
}

fn parse(line: &[u8]) -> Option<MetadataRecord> {
    let (crc, rest) = line.split_at_checked(8)?;
    let json = rest.strip_prefix(b" ")?;
    let crc = u32::from_str_radix(std::str::from_utf8(crc).ok()?, 16).ok()?;
    if crc32c::crc32c(json) != crc {
        return None;
    }
    serde_json::from_slice(json).ok()
}

impl Journal {
    /// Opens or makes the log and reads it whole.
    pub fn open(path: &Path, fsync: bool) -> Result<Self, DiskError> {
        let io_error = |operation| super::io_error(operation, path);
        let file =
            File::options().create(true).truncate(false).read(true).write(true).open(path).map_err(io_error("open"))?;
        let bytes = fs::read(path).map_err(io_error("read"))?;
        let mut image = MetadataImage::default();
        let mut good = 0;
        let mut bad: Option<usize> = None;
        for (number, line) in bytes.split_inclusive(|&byte| byte == b'\n').enumerate() {
            let record = line.strip_suffix(b"\n").and_then(parse);
            match (record, bad) {
                (Some(_), Some(bad)) => {
                    let detail = format!("line {} is damaged, but line {} is whole", bad + 1, number + 1);
                    return Err(DiskError::Format { path: path.to_owned(), detail });
                }
                (Some(record), None) => {
                    image.apply(&record);
                    good += line.len() as u64;
                }
                (None, None) => bad = Some(number),
                (None, Some(_)) => {}
            }
        }
        let cut = bytes.len() as u64 - good;
        if cut > 0 {
            tracing::warn!(path = %path.display(), cut_bytes = cut, "cut the torn end of the broker's metadata");
            file.set_len(good).map_err(io_error("truncate"))?;
        }
        Ok(Self { path: path.to_owned(), file, length: good, compact_length: good, image, fsync })
    }

    pub fn image(&self) -> &MetadataImage {
        &self.image
    }

    /// Appends changes; after an error none of them is kept.
    pub fn append(&mut self, records: &[MetadataRecord]) -> Result<(), StorageError> {
        let mut bytes = Vec::new();
        for record in records {
            bytes.extend_from_slice(&line(record)?);
        }
        let written = self.file.write_all_at(&bytes, self.length).and_then(|()| match self.fsync {
            true => self.file.sync_data(),
            false => Ok(()),
        });
        if let Err(error) = written {
            // The next append goes to the same place; cutting only keeps a crash before it from finding half lines.
            drop(self.file.set_len(self.length));
            return Err(storage_error("append to", &self.path, &error));
        }
        self.length += bytes.len() as u64;
        records.iter().for_each(|record| self.image.apply(record));
        if self.length > REWRITE_BYTES_MIN && self.length > self.compact_length.saturating_mul(REWRITE_GROWTH) {
            // The log is whole as it is: a rewrite that fails is tried again after the next growth.
            if let Err(error) = self.rewrite() {
                tracing::warn!(path = %self.path.display(), %error, "the broker's metadata could not be rewritten");
                self.compact_length = self.length;
            }
        }
        Ok(())
    }

    /// Writes the image in place of its history.
    fn rewrite(&mut self) -> io::Result<()> {
        let next = self.path.with_extension("new");
        let mut bytes = Vec::new();
        for record in self.image.to_records() {
            bytes.extend_from_slice(&line(&record).map_err(io::Error::other)?);
        }
        let mut file = File::options().create(true).truncate(true).read(true).write(true).open(&next)?;
        file.write_all(&bytes)?;
        file.sync_data()?;
        fs::rename(&next, &self.path)?;
        self.file = file;
        self.length = bytes.len() as u64;
        self.compact_length = self.length;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
