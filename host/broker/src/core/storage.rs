//! The seam to what keeps the broker's bytes: one `LogStore` a partition, one metadata journal a broker. Implemented by
//! `core::memory` (simulation, tests) and `disk`. The core decides what is written and when; a store never looks
//! inside.

use bytes::Bytes;

use super::metadata::{MetadataImage, MetadataRecord, TopicId};

/// What could not be read or written, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{operation} {subject}: {detail}")]
pub struct StorageError {
    /// For example `append to`.
    pub operation: &'static str,
    /// The file or the like.
    pub subject: String,
    pub detail: String,
}

/// The bytes of one partition's log: segments, each named by the offset of its first record.
pub trait LogStore: Send {
    /// What people find a segment by: its file or the like.
    fn segment_name(&self, base_offset: i64) -> String;

    /// The segments that exist, ascending, with their length in bytes.
    fn segments(&self) -> Result<Vec<(i64, u64)>, StorageError>;

    /// Makes an empty segment.
    fn create_segment(&mut self, base_offset: i64) -> Result<(), StorageError>;

    /// Writes the parts one after another at `position`, which is the segment's length. All or nothing: after an
    /// error the bytes from `position` on are not part of the log, and the next append goes to the same place.
    fn append(&mut self, base_offset: i64, position: u64, parts: &[&[u8]]) -> Result<(), StorageError>;

    /// The bytes from `position` on, `length` of them or up to the segment's end.
    fn read(&self, base_offset: i64, position: u64, length: usize) -> Result<Bytes, StorageError>;

    /// Cuts a segment to `length` bytes.
    fn truncate(&mut self, base_offset: i64, length: u64) -> Result<(), StorageError>;

    /// Begins to write the bytes that will take the place of a closed segment's.
    fn begin_replacement(&self, base_offset: i64) -> Result<Box<dyn SegmentReplacement>, StorageError>;

    /// Puts the replacement in the segment's place and drops the segment's summary. All or nothing, also when the
    /// process ends in the middle: the old bytes or the new ones are there.
    fn replace_segment(
        &mut self,
        base_offset: i64,
        replacement: Box<dyn SegmentReplacement>,
    ) -> Result<(), StorageError>;

    /// Drops a segment and its summary.
    fn remove_segment(&mut self, base_offset: i64) -> Result<(), StorageError>;

    /// Keeps what was derived from a closed segment, so that it need not be scanned again. A cache: losing it is
    /// no loss. After an error there is none, or a damaged one.
    fn write_summary(&mut self, base_offset: i64, summary: &[u8]) -> Result<(), StorageError>;

    fn read_summary(&self, base_offset: i64) -> Result<Option<Bytes>, StorageError>;
}

/// New bytes of a segment, written beside it, so that nobody has to wait for them. They are no part of the log until
/// `LogStore::replace_segment`; dropped before that, they are gone.
pub trait SegmentReplacement: Send {
    fn append(&mut self, bytes: &[u8]) -> Result<(), StorageError>;

    /// Makes what was appended as safe as the store makes records.
    fn sync(&mut self) -> Result<(), StorageError>;
}

/// What keeps a broker's logs and metadata.
pub trait Storage: Send + Sync {
    /// The metadata that was kept, applied in order.
    fn load_metadata(&self) -> Result<MetadataImage, StorageError>;

    /// Keeps records before the answer that depends on them is given. All or nothing.
    fn append_metadata(&self, records: &[MetadataRecord]) -> Result<(), StorageError>;

    /// Opens or makes the log of a partition.
    fn open_log(&self, topic: TopicId, name: &str, partition: i32) -> Result<Box<dyn LogStore>, StorageError>;

    /// Drops every log of a topic.
    fn remove_topic(&self, topic: TopicId, name: &str) -> Result<(), StorageError>;
}
