//! The metadata log: one line a change, `CRC JSON`, the CRC-32C of the JSON in eight hexadecimal digits. Keeps the
//! image of all lines, so that it can write itself anew (a snapshot) when it has grown much larger than what it says. A
//! torn last line is cut with a message. Damage before good lines is an error, and so is a whole line that this program
//! does not understand: nothing is changed then. With `fsync`, an append is done only when its bytes and the log's name
//! are synced: after a rewrite, nothing is appended to the new file before it is sure to be the one that the next start
//! finds.

use std::fs::{self, File};
use std::io;
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
    /// Bytes of a torn last line that were cut when it was opened.
    cut_bytes: u64,
    fsync: bool,
    /// The file was made or renamed, and its folder was not synced since; only with `fsync`.
    must_sync_name: bool,
    /// A failed append could not be cut off again: nothing is appended before it is.
    is_torn: bool,
}

/// What a line holds.
enum Line {
    Record(MetadataRecord),
    /// Its checksum holds, but it is no record that is known here; with the reason.
    Unknown(String),
    Damaged,
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

/// The lines that say an image.
fn lines(image: &MetadataImage) -> Result<Vec<u8>, StorageError> {
    let mut bytes = Vec::new();
    for record in image.to_records() {
        bytes.extend_from_slice(&line(&record)?);
    }
    Ok(bytes)
}

fn parse(line: &[u8]) -> Line {
    let checked = || {
        let (crc, rest) = line.strip_suffix(b"\n")?.split_at_checked(8)?;
        let json = rest.strip_prefix(b" ")?;
        let crc = u32::from_str_radix(std::str::from_utf8(crc).ok()?, 16).ok()?;
        (crc32c::crc32c(json) == crc).then_some(json)
    };
    match checked().map(serde_json::from_slice) {
        Some(Ok(record)) => Line::Record(record),
        Some(Err(error)) => Line::Unknown(error.to_string()),
        None => Line::Damaged,
    }
}

fn is_whole(line: &[u8]) -> bool {
    !matches!(parse(line), Line::Damaged)
}

/// The image of all lines, and how many bytes they are up to the torn end.
fn read_lines(path: &Path, bytes: &[u8]) -> Result<(MetadataImage, u64), DiskError> {
    let refused = |detail| DiskError::Damaged { path: path.to_owned(), detail };
    let mut image = MetadataImage::default();
    let mut good = 0;
    let mut at = 0;
    let mut bad: Option<(usize, u64)> = None;
    for (number, line) in bytes.split_inclusive(|&byte| byte == b'\n').enumerate() {
        let number = number + 1;
        match (parse(line), bad) {
            (Line::Unknown(reason), _) => {
                return Err(refused(format!("line {number} at byte {at} is whole but not known here ({reason})")));
            }
            (Line::Record(_), Some((bad, byte))) => {
                return Err(refused(format!("line {bad} at byte {byte} is damaged, but line {number} is whole")));
            }
            (Line::Record(record), None) => {
                image.apply(&record);
                good += line.len() as u64;
            }
            // The byte that ended the line before may be the damaged one.
            (Line::Damaged, None) if (1..line.len()).any(|from| is_whole(line.get(from..).unwrap_or_default())) => {
                return Err(refused(format!("line {number} at byte {at} is damaged, but a whole one follows it")));
            }
            (Line::Damaged, None) => bad = Some((number, at)),
            (Line::Damaged, Some(_)) => {}
        }
        at += line.len() as u64;
    }
    Ok((image, good))
}

impl Journal {
    /// Opens or makes the log and reads it whole.
    pub fn open(path: &Path, fsync: bool) -> Result<Self, DiskError> {
        let io_error = |operation| super::io_error(operation, path);
        let file =
            File::options().create(true).truncate(false).read(true).write(true).open(path).map_err(io_error("open"))?;
        let bytes = fs::read(path).map_err(io_error("read"))?;
        let (image, good) = read_lines(path, &bytes)?;
        let cut = bytes.len() as u64 - good;
        if cut > 0 {
            file.set_len(good).map_err(io_error("truncate"))?;
        }
        // Else every start would let the log grow anew.
        let compact_length = if good > REWRITE_BYTES_MIN { lines(&image)?.len() as u64 } else { good };
        Ok(Self {
            path: path.to_owned(),
            file,
            length: good,
            compact_length,
            image,
            cut_bytes: cut,
            fsync,
            must_sync_name: fsync,
            is_torn: false,
        })
    }

    pub fn image(&self) -> &MetadataImage {
        &self.image
    }

    /// What was cut when the log was opened.
    pub fn repair(&self) -> Option<String> {
        (self.cut_bytes > 0).then(|| {
            format!(
                "cut {} bytes from the end of {}: a write was not finished when the broker last stopped",
                self.cut_bytes,
                self.path.display()
            )
        })
    }

    /// Appends changes; after an error none of them is kept.
    pub fn append(&mut self, records: &[MetadataRecord]) -> Result<(), StorageError> {
        let mut bytes = Vec::new();
        for record in records {
            bytes.extend_from_slice(&line(record)?);
        }
        if let Err(error) = self.write(&bytes) {
            // A later, shorter append would leave the rest of this one behind it.
            self.is_torn = self.file.set_len(self.length).is_err();
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

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.is_torn {
            self.file.set_len(self.length)?;
            self.is_torn = false;
        }
        self.sync_name()?;
        self.file.write_all_at(bytes, self.length)?;
        if self.fsync { self.file.sync_data() } else { Ok(()) }
    }

    fn sync_name(&mut self) -> io::Result<()> {
        if self.must_sync_name {
            super::sync_dir(self.path.parent().unwrap_or(&self.path))?;
            self.must_sync_name = false;
        }
        Ok(())
    }

    /// Writes the image in place of its history.
    fn rewrite(&mut self) -> io::Result<()> {
        let bytes = lines(&self.image).map_err(io::Error::other)?;
        self.file = super::replace_file(&self.path, &bytes)?;
        self.length = bytes.len() as u64;
        self.compact_length = self.length;
        self.must_sync_name = self.fsync;
        self.sync_name()
    }
}

#[cfg(test)]
mod tests;
