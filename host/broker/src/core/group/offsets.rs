//! Committed offsets: who may commit when, and what is kept. A commit becomes visible only when its record was kept.
//! Offsets of open transactions are not here; only that they exist is, so that a reader can wait for them.

use std::collections::BTreeMap;

use super::{Group, GroupState, Groups, MemberIdentity, check_group_name};
use crate::core::metadata::{CommittedOffset, MetadataRecord, OffsetImage, OffsetRecord};
use crate::core::refusal::{ErrorCode, Refusal};

/// An offset to commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OffsetToCommit {
    pub topic: String,
    pub partition: i32,
    pub offset: i64,
    pub leader_epoch: i32,
    pub metadata: String,
}

impl OffsetToCommit {
    /// As it is kept.
    pub fn into_record(self, now_ms: i64) -> OffsetRecord {
        OffsetRecord {
            topic: self.topic,
            partition: self.partition,
            committed: CommittedOffset {
                offset: self.offset,
                leader_epoch: self.leader_epoch,
                metadata: self.metadata,
                commit_timestamp: now_ms,
            },
        }
    }
}

impl Group {
    /// Whether this member may commit now (Kafka's `ClassicGroup.validateOffsetCommit`).
    fn check_commit(&mut self, member: &MemberIdentity, now_ms: i64) -> Result<(), Refusal> {
        if member.generation < 0 && self.state == GroupState::Empty {
            return Ok(());
        }
        if member.generation >= 0 || !member.member_id.is_empty() || member.instance_id.is_some() {
            self.check_member(&member.member_id, member.instance_id.as_deref())?;
            self.check_generation(member.generation)?;
        } else {
            let detail = format!("group {} has members: only they may commit", self.name);
            return Err(Refusal::new(ErrorCode::UnknownMemberId, detail));
        }
        if self.state == GroupState::CompletingRebalance {
            let detail = format!("group {} is rebalancing: take the new assignment first", self.name);
            return Err(Refusal::new(ErrorCode::RebalanceInProgress, detail));
        }
        if let Some(known) = self.members.get_mut(&member.member_id) {
            known.heard(now_ms);
        }
        Ok(())
    }
}

impl Groups {
    /// As `check_commit`, for offsets of a transaction: a producer without a group's membership may commit them, and so
    /// may a member while its group waits for an assignment (Kafka's `ClassicGroup.validateOffsetCommit`).
    pub fn check_transactional_commit(
        &mut self,
        now_ms: i64,
        group: &str,
        member: &MemberIdentity,
    ) -> Result<(), Refusal> {
        check_group_name(group)?;
        if member.generation < 0 && member.member_id.is_empty() && member.instance_id.is_none() {
            return Ok(());
        }
        let Some(found) = self.groups.get_mut(group) else {
            let detail = format!("there is no group {group}, found generation {}", member.generation);
            return Err(Refusal::new(ErrorCode::IllegalGeneration, detail));
        };
        found.check_member(&member.member_id, member.instance_id.as_deref())?;
        found.check_generation(member.generation)?;
        if let Some(known) = found.members.get_mut(&member.member_id) {
            known.heard(now_ms);
        }
        Ok(())
    }

    /// Notes that a transaction has offsets for these partitions.
    pub fn hold_offsets(&mut self, group: &str, transactional_id: &str, partitions: Vec<(String, i32)>) {
        let held = partitions
            .into_iter()
            .map(|(topic, partition)| (group.to_owned(), topic, partition, transactional_id.to_owned()));
        self.held_offsets.extend(held);
    }

    /// The transaction ended.
    pub fn release_offsets(&mut self, transactional_id: &str) {
        self.held_offsets.retain(|(_, _, _, id)| id != transactional_id);
    }

    /// Whether an open transaction has an offset for this partition.
    pub fn is_offset_held(&self, group: &str, topic: &str, partition: i32) -> bool {
        let from = (group.to_owned(), topic.to_owned(), partition, String::new());
        let next = self.held_offsets.range(from..).next();
        next.is_some_and(|(g, t, p, _)| g == group && t == topic && *p == partition)
    }

    /// Checks a commit as a whole. Changes nothing but the member's session.
    pub fn check_commit(&mut self, now_ms: i64, group: &str, member: &MemberIdentity) -> Result<(), Refusal> {
        check_group_name(group)?;
        match self.groups.get_mut(group) {
            Some(found) => found.check_commit(member, now_ms),
            None if member.generation < 0 => Ok(()),
            None => {
                let detail = format!("there is no group {group}, found generation {}", member.generation);
                Err(Refusal::new(ErrorCode::IllegalGeneration, detail))
            }
        }
    }

    /// Checks one offset of a commit.
    pub fn check_offset(&self, offset: &OffsetToCommit) -> Result<(), Refusal> {
        let limit = self.options.offset_metadata_max_bytes;
        if offset.metadata.len() > limit {
            let detail = format!(
                "offset metadata of {} bytes for {}-{}, at most {limit}",
                offset.metadata.len(),
                offset.topic,
                offset.partition
            );
            return Err(Refusal::new(ErrorCode::OffsetMetadataTooLarge, detail));
        }
        Ok(())
    }

    /// The record that keeps these offsets; `apply` makes them visible once it was kept.
    pub fn commit_record(now_ms: i64, group: &str, offsets: Vec<OffsetToCommit>) -> MetadataRecord {
        let offsets = offsets.into_iter().map(|offset| offset.into_record(now_ms));
        MetadataRecord::OffsetsCommitted { group: group.to_owned(), offsets: offsets.collect() }
    }

    /// Applies a kept record of offsets, groups or topics to the groups.
    pub fn apply(&mut self, record: &MetadataRecord) {
        match record {
            MetadataRecord::OffsetsCommitted { group, offsets } => {
                let found = self.groups.entry(group.clone()).or_insert_with(|| Group::new(group));
                for offset in offsets {
                    let topic = found.offsets.entry(offset.topic.clone()).or_default();
                    topic.insert(offset.partition, offset.committed.clone());
                }
            }
            MetadataRecord::OffsetsDeleted { group, partitions } => {
                let Some(found) = self.groups.get_mut(group) else { return };
                for (topic, partition) in partitions {
                    if let Some(offsets) = found.offsets.get_mut(topic) {
                        offsets.remove(partition);
                    }
                }
                found.offsets.retain(|_, offsets| !offsets.is_empty());
            }
            MetadataRecord::GroupDeleted { group } => {
                self.groups.remove(group);
            }
            MetadataRecord::TopicDeleted { name, .. } => {
                for group in self.groups.values_mut() {
                    group.offsets.remove(name);
                }
            }
            _ => {}
        }
    }

    /// The committed offset of one partition.
    pub fn committed(&self, group: &str, topic: &str, partition: i32) -> Option<&CommittedOffset> {
        self.groups.get(group)?.offsets.get(topic)?.get(&partition)
    }

    /// Every committed offset of a group.
    pub fn all_committed(&self, group: &str) -> OffsetImage {
        self.groups.get(group).map_or_else(BTreeMap::new, |group| group.offsets.clone())
    }

    /// The record that forgets offsets of a group. Offsets of a group with members are theirs (Kafka refuses only
    /// subscribed topics, which the broker would have to read from the members' subscriptions).
    pub fn delete_offsets(&self, group: &str, partitions: Vec<(String, i32)>) -> Result<MetadataRecord, Refusal> {
        check_group_name(group)?;
        match self.groups.get(group) {
            None => Err(Refusal::new(ErrorCode::GroupIdNotFound, format!("there is no group {group}"))),
            Some(found) if !found.members.is_empty() => {
                let detail = format!("group {group} has {} members", found.members.len());
                Err(Refusal::new(ErrorCode::GroupSubscribedToTopic, detail))
            }
            Some(_) => Ok(MetadataRecord::OffsetsDeleted { group: group.to_owned(), partitions }),
        }
    }
}
