//! What is left of a run for the checker: inputs, outputs, stores, changelogs and committed offsets, in plain maps.
//! Knows nothing of how they came about.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use engine::record::Offset;
use engine::task::offset_metadata::VersionMark;

use crate::tally::Tallied;
use crate::workload::Input;

/// The content of a store or the newest records of a changelog.
pub type Rows = BTreeMap<Vec<u8>, Vec<u8>>;

/// A store of a partition.
pub type StorePartition = (String, i32);

/// One output record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    pub key: Vec<u8>,
    /// The record that it answers.
    pub topic: u32,
    pub sequence: u32,
    /// The tally of its key after that record.
    pub tallied: Tallied,
    /// The version that made it.
    pub version: u64,
    /// The offset of the record.
    pub offset: Offset,
}

/// Everything that the checker may know.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Observation {
    pub inputs: Vec<Input>,
    /// By output partition, in the order of the log.
    pub outputs: BTreeMap<i32, Vec<Output>>,
    /// The stores of the tasks' last owners, and the changelog offsets that they hold.
    pub stores: BTreeMap<StorePartition, (Rows, Option<Offset>)>,
    /// The newest record of each key, deleted ones left out, and the offsets that a store may hold which has them all:
    /// from the one after the last record to the end of the log, which may have markers and aborted records before it.
    pub changelogs: BTreeMap<StorePartition, (Rows, RangeInclusive<Offset>)>,
    /// What a host with an empty state directory restored.
    pub restored: BTreeMap<StorePartition, Rows>,
    /// By topic and partition.
    pub committed: BTreeMap<(u32, i32), Option<Offset>>,
    /// What the committed offsets say of the version, and the one that is wanted at last.
    pub versions: BTreeMap<(u32, i32), VersionMark>,
    pub active_version: u64,
    /// Of the rows of `tallies`, which are those of the generation that this version has.
    pub schema: u32,
    /// The offsets that the group may have committed which has processed everything: from the one after the last record
    /// to the end of the log.
    pub input_ends: BTreeMap<(u32, i32), RangeInclusive<Offset>>,
    /// By output partition: what somebody has read who read committed records all the time.
    pub read_meanwhile: BTreeMap<i32, Vec<Output>>,
    /// What the changelogs said before anything of them was compacted or deleted.
    pub histories: BTreeMap<StorePartition, Rows>,
}
