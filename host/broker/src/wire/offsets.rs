//! Committed offsets on the wire.

use std::collections::BTreeSet;

use kafka_protocol::messages::offset_commit_response::{OffsetCommitResponsePartition, OffsetCommitResponseTopic};
use kafka_protocol::messages::offset_delete_response::{OffsetDeleteResponsePartition, OffsetDeleteResponseTopic};
use kafka_protocol::messages::offset_fetch_response::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions, OffsetFetchResponseTopic,
    OffsetFetchResponseTopics,
};
use kafka_protocol::messages::{
    OffsetCommitRequest, OffsetCommitResponse, OffsetDeleteRequest, OffsetDeleteResponse, OffsetFetchRequest,
    OffsetFetchResponse, TopicName,
};

use super::connection::Session;
use super::{code, text};
use crate::core::group::MemberIdentity;
use crate::core::group::offsets::OffsetToCommit;
use crate::core::metadata::CommittedOffset;
use crate::core::refusal::ErrorCode;

pub(super) fn commit(session: &Session<'_>, request: OffsetCommitRequest) -> OffsetCommitResponse {
    let member = MemberIdentity {
        generation: request.generation_id_or_member_epoch,
        member_id: request.member_id.as_str().to_owned(),
        instance_id: request.group_instance_id.as_ref().map(|id| id.as_str().to_owned()),
    };
    let mut offsets = Vec::new();
    for topic in &request.topics {
        offsets.extend(topic.partitions.iter().map(|partition| OffsetToCommit {
            topic: topic.name.as_str().to_owned(),
            partition: partition.partition_index,
            offset: partition.committed_offset,
            leader_epoch: partition.committed_leader_epoch,
            metadata: partition.committed_metadata.as_ref().map_or_else(String::new, |text| text.as_str().to_owned()),
        }));
    }
    let shared = session.shared;
    let result = shared.core.commit_offsets(shared.group_now_ms(), &request.group_id, &member, offsets);
    let (whole, each) = match result {
        Ok(each) => (0, each),
        // Kafka's answer when its offsets topic cannot be written: clients ask for the coordinator and try again.
        Err(refusal) if refusal.code == ErrorCode::KafkaStorageError => {
            if shared.may_log_storage_error() {
                tracing::error!(%refusal, group = request.group_id.as_str(), "the broker could not keep offsets");
            }
            (ErrorCode::NotCoordinator.code(), Vec::new())
        }
        Err(refusal) => (refusal.code.code(), Vec::new()),
    };
    let mut codes = each.iter().map(code);
    let topics = request.topics.into_iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|partition| {
            OffsetCommitResponsePartition::default()
                .with_partition_index(partition.partition_index)
                .with_error_code(codes.next().unwrap_or(whole))
        });
        let partitions = partitions.collect();
        OffsetCommitResponseTopic::default().with_name(topic.name).with_partitions(partitions)
    });
    OffsetCommitResponse::default().with_topics(topics.collect())
}

/// Topics with partitions, as a group asked for them or as they are committed.
fn wanted(session: &Session<'_>, group: &str, asked: Option<Vec<(TopicName, Vec<i32>)>>) -> Vec<(TopicName, Vec<i32>)> {
    let mut seen = BTreeSet::new();
    if let Some(mut asked) = asked {
        for (topic, partitions) in &mut asked {
            partitions.retain(|&partition| seen.insert((topic.clone(), partition)));
        }
        return asked;
    }
    let all = session.shared.core.committed_offsets(group);
    all.into_iter().map(|(topic, offsets)| (TopicName(text(topic)), offsets.into_keys().collect())).collect()
}

/// A committed offset with the error that goes with it. A reader that requires stable offsets waits while a transaction
/// is about to commit one (KIP-447).
fn committed(session: &Session<'_>, group: &str, topic: &str, index: i32, stable: bool) -> (CommittedOffset, i16) {
    let core = &session.shared.core;
    if stable && core.is_offset_unstable(group, topic, index) {
        return (none(), ErrorCode::UnstableOffsetCommit.code());
    }
    (core.committed_offset(group, topic, index).unwrap_or_else(none), 0)
}

pub(super) fn fetch(session: &Session<'_>, version: i16, request: OffsetFetchRequest) -> OffsetFetchResponse {
    let response = OffsetFetchResponse::default();
    let stable = request.require_stable;
    if version < 8 {
        let asked = request.topics.map(|topics| topics.into_iter().map(|topic| (topic.name, topic.partition_indexes)));
        let group = request.group_id.as_str();
        let topics = wanted(session, group, asked.map(Iterator::collect)).into_iter().map(|(name, partitions)| {
            let partitions = partitions.into_iter().map(|index| {
                let (found, error_code) = committed(session, group, &name, index, stable);
                OffsetFetchResponsePartition::default()
                    .with_partition_index(index)
                    .with_error_code(error_code)
                    .with_committed_offset(found.offset)
                    .with_committed_leader_epoch(if version >= 5 { found.leader_epoch } else { -1 })
                    .with_metadata(Some(text(found.metadata)))
            });
            let partitions = partitions.collect();
            OffsetFetchResponseTopic::default().with_name(name).with_partitions(partitions)
        });
        return response.with_topics(topics.collect());
    }
    let mut seen = BTreeSet::new();
    let mut groups = request.groups;
    groups.retain(|group| seen.insert(group.group_id.clone()));
    let groups = groups.into_iter().map(|group| {
        let asked = group.topics.map(|topics| topics.into_iter().map(|topic| (topic.name, topic.partition_indexes)));
        let name = group.group_id.as_str();
        let topics = wanted(session, name, asked.map(Iterator::collect)).into_iter().map(|(topic, partitions)| {
            let partitions = partitions.into_iter().map(|index| {
                let (found, error_code) = committed(session, name, &topic, index, stable);
                OffsetFetchResponsePartitions::default()
                    .with_partition_index(index)
                    .with_error_code(error_code)
                    .with_committed_offset(found.offset)
                    .with_committed_leader_epoch(found.leader_epoch)
                    .with_metadata(Some(text(found.metadata)))
            });
            let partitions = partitions.collect();
            OffsetFetchResponseTopics::default().with_name(topic).with_partitions(partitions)
        });
        let topics = topics.collect();
        OffsetFetchResponseGroup::default().with_group_id(group.group_id).with_topics(topics)
    });
    response.with_groups(groups.collect())
}

/// The answer where nothing is committed.
fn none() -> CommittedOffset {
    CommittedOffset { offset: -1, leader_epoch: -1, metadata: String::new(), commit_timestamp: -1 }
}

pub(super) fn delete(session: &Session<'_>, request: &OffsetDeleteRequest) -> OffsetDeleteResponse {
    let mut partitions = Vec::new();
    for topic in &request.topics {
        partitions.extend(topic.partitions.iter().map(|one| (topic.name.as_str().to_owned(), one.partition_index)));
    }
    let result = session.shared.core.delete_offsets(&request.group_id, partitions);
    let topics = request.topics.iter().map(|topic| {
        let partitions = topic
            .partitions
            .iter()
            .map(|one| OffsetDeleteResponsePartition::default().with_partition_index(one.partition_index));
        let partitions = partitions.collect();
        OffsetDeleteResponseTopic::default().with_name(topic.name.clone()).with_partitions(partitions)
    });
    let topics = if result.is_ok() { topics.collect() } else { Vec::new() };
    OffsetDeleteResponse::default().with_error_code(code(&result)).with_topics(topics)
}
