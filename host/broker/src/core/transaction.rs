//! Transactions: what the coordinator keeps of each transactional id, as one image that changes by recorded changes
//! alone, at run time and at start alike. The order that makes a commit survive a crash: the decision is kept, then the
//! markers are written, then the offsets and the end are kept together. Whatever has a decision and no end is finished
//! at the next start; what is only open stays open until its timeout. Rules from KIP-98, KIP-360, KIP-447 and Kafka's
//! `TransactionMetadata`.

mod coordinator;
mod describe;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::log::TransactionOwner;
use super::metadata::{CommittedOffset, MetadataRecord, OffsetRecord, TopicId};

pub use coordinator::TransactionalProducer;
pub use describe::{ActiveProducer, TransactionDescription};

/// Where a transactional id stands.
///
/// ```text
/// Empty ─▶ Ongoing ─▶ PrepareCommit ─▶ CompleteCommit ─▶ Ongoing …
///             │
///             └─────▶ PrepareAbort ──▶ CompleteAbort ──▶ Ongoing …
/// ```
/// A producer that starts anew brings a complete one back to Empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TransactionState {
    Empty,
    Ongoing,
    PrepareCommit,
    PrepareAbort,
    CompleteCommit,
    CompleteAbort,
}

impl TransactionState {
    /// Kafka's name of the state.
    pub fn name(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::Ongoing => "Ongoing",
            Self::PrepareCommit => "PrepareCommit",
            Self::PrepareAbort => "PrepareAbort",
            Self::CompleteCommit => "CompleteCommit",
            Self::CompleteAbort => "CompleteAbort",
        }
    }

    /// Whether it is decided how the transaction ends, but the end is not kept yet.
    pub fn is_prepared(self) -> bool {
        matches!(self, Self::PrepareCommit | Self::PrepareAbort)
    }

    /// The moves that are allowed.
    pub fn may_become(self, next: Self) -> bool {
        match next {
            Self::Empty => !self.is_prepared() && self != Self::Ongoing,
            Self::Ongoing => !self.is_prepared(),
            Self::PrepareCommit | Self::PrepareAbort => self == Self::Ongoing,
            Self::CompleteCommit => self == Self::PrepareCommit,
            Self::CompleteAbort => self == Self::PrepareAbort,
        }
    }
}

/// One change of a transactional id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "change", rename_all = "snake_case")]
pub enum TransactionChange {
    /// A producer took the id; older ones are fenced.
    Initialized {
        producer_id: i64,
        epoch: i16,
        /// The producer id and epoch that the request named, so that it is known when it is repeated.
        last: Option<(i64, i16)>,
        timeout_ms: i32,
        at_ms: i64,
    },
    /// The transaction, which is open from here on if it was not, has these partitions and groups besides.
    Extended { partitions: Vec<(TopicId, i32)>, groups: Vec<String>, at_ms: i64 },
    /// Offsets that become a group's when the transaction commits, and the topics that they are of: a topic that is
    /// made anew meanwhile is another one.
    OffsetsAdded { group: String, offsets: Vec<OffsetRecord>, topics: BTreeMap<String, TopicId> },
    /// How it ends. The epoch is that of the markers: a producer that is aborted by others is fenced with it, except
    /// the one that asked for it and named itself (`last`).
    Decided { commit: bool, epoch: i16, last: Option<(i64, i16)>, at_ms: i64 },
    /// The markers are written.
    Done { at_ms: i64 },
    /// The id was not used for long.
    Forgotten,
}

/// An offset that waits for the end of its transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PendingOffset {
    pub topic_id: TopicId,
    pub committed: CommittedOffset,
}

/// Offsets by topic and partition.
pub type PendingOffsets = BTreeMap<(String, i32), PendingOffset>;

/// What is remembered of a transactional id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransactionImage {
    pub producer_id: i64,
    pub epoch: i16,
    pub last: Option<(i64, i16)>,
    pub timeout_ms: i32,
    pub state: TransactionState,
    pub partitions: BTreeSet<(TopicId, i32)>,
    pub groups: BTreeSet<String>,
    pub offsets: BTreeMap<String, PendingOffsets>,
    /// When the transaction was opened.
    pub started_ms: i64,
    /// When it changed last.
    pub updated_ms: i64,
}

impl TransactionImage {
    pub fn owner(&self) -> TransactionOwner {
        TransactionOwner { producer_id: self.producer_id, epoch: self.epoch }
    }

    /// Applies a change to what is remembered of an id, which is nothing at first and after `Forgotten`.
    pub fn apply(image: &mut Option<Self>, change: &TransactionChange) {
        if let TransactionChange::Initialized { producer_id, epoch, last, timeout_ms, at_ms } = change {
            *image = Some(Self {
                producer_id: *producer_id,
                epoch: *epoch,
                last: *last,
                timeout_ms: *timeout_ms,
                state: TransactionState::Empty,
                partitions: BTreeSet::new(),
                groups: BTreeSet::new(),
                offsets: BTreeMap::new(),
                started_ms: *at_ms,
                updated_ms: *at_ms,
            });
            return;
        }
        if *change == TransactionChange::Forgotten {
            *image = None;
            return;
        }
        if let Some(image) = image {
            image.change(change);
        }
    }

    fn enter(&mut self, next: TransactionState) {
        debug_assert!(self.state.may_become(next), "{} to {}", self.state.name(), next.name());
        self.state = next;
    }

    fn change(&mut self, change: &TransactionChange) {
        match change {
            TransactionChange::Extended { partitions, groups, at_ms } => {
                if self.state != TransactionState::Ongoing {
                    self.enter(TransactionState::Ongoing);
                    self.started_ms = *at_ms;
                }
                self.partitions.extend(partitions);
                self.groups.extend(groups.iter().cloned());
                self.updated_ms = *at_ms;
            }
            TransactionChange::OffsetsAdded { group, offsets, topics } => {
                let pending = self.offsets.entry(group.clone()).or_default();
                pending.extend(offsets.iter().filter_map(|one| {
                    let topic_id = *topics.get(&one.topic)?;
                    let offset = PendingOffset { topic_id, committed: one.committed.clone() };
                    Some(((one.topic.clone(), one.partition), offset))
                }));
            }
            TransactionChange::Decided { commit, epoch, last, at_ms } => {
                self.enter(if *commit { TransactionState::PrepareCommit } else { TransactionState::PrepareAbort });
                self.epoch = *epoch;
                self.last = *last;
                self.updated_ms = *at_ms;
            }
            TransactionChange::Done { at_ms } => {
                self.enter(match self.state {
                    TransactionState::PrepareCommit => TransactionState::CompleteCommit,
                    _ => TransactionState::CompleteAbort,
                });
                self.partitions.clear();
                self.groups.clear();
                self.offsets.clear();
                self.updated_ms = *at_ms;
            }
            TransactionChange::Initialized { .. } | TransactionChange::Forgotten => {}
        }
    }

    /// The records that make this image from nothing.
    pub fn to_records(&self, transactional_id: &str) -> Vec<MetadataRecord> {
        let mut changes = vec![TransactionChange::Initialized {
            producer_id: self.producer_id,
            epoch: self.epoch,
            last: self.last,
            timeout_ms: self.timeout_ms,
            at_ms: self.updated_ms,
        }];
        if self.state != TransactionState::Empty {
            changes.push(TransactionChange::Extended {
                partitions: self.partitions.iter().copied().collect(),
                groups: self.groups.iter().cloned().collect(),
                at_ms: self.started_ms,
            });
        }
        for (group, offsets) in &self.offsets {
            let topics = offsets.iter().map(|((topic, _), offset)| (topic.clone(), offset.topic_id)).collect();
            let offsets = offsets.iter().map(|((topic, partition), offset)| OffsetRecord {
                topic: topic.clone(),
                partition: *partition,
                committed: offset.committed.clone(),
            });
            changes.push(TransactionChange::OffsetsAdded { group: group.clone(), offsets: offsets.collect(), topics });
        }
        let decided =
            |commit| TransactionChange::Decided { commit, epoch: self.epoch, last: self.last, at_ms: self.updated_ms };
        match self.state {
            TransactionState::Empty => {}
            TransactionState::Ongoing => changes.push(TransactionChange::Extended {
                partitions: Vec::new(),
                groups: Vec::new(),
                at_ms: self.updated_ms,
            }),
            TransactionState::PrepareCommit => changes.push(decided(true)),
            TransactionState::PrepareAbort => changes.push(decided(false)),
            TransactionState::CompleteCommit => {
                changes.extend([decided(true), TransactionChange::Done { at_ms: self.updated_ms }]);
            }
            TransactionState::CompleteAbort => {
                changes.extend([decided(false), TransactionChange::Done { at_ms: self.updated_ms }]);
            }
        }
        let id = transactional_id.to_owned();
        changes.into_iter().map(|change| MetadataRecord::Transaction { transactional_id: id.clone(), change }).collect()
    }
}

/// A transactional id at run time.
#[derive(Debug, Default)]
pub(super) struct Transaction {
    /// Nothing before its first producer was kept.
    image: Option<TransactionImage>,
    /// Partitions whose marker is written while others' are not: a marker is not written twice.
    marked: BTreeSet<(TopicId, i32)>,
    /// When an open transaction is aborted. Set anew after a restart: the time that the broker was away does not count.
    deadline_ms: Option<i64>,
}

impl Transaction {
    pub fn new(image: TransactionImage) -> Self {
        Self { image: Some(image), ..Self::default() }
    }
}

#[cfg(test)]
mod tests;
