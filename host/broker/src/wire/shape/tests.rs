//! Shapes agree with the codec for every request in every version; lying lengths cost nothing.

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::create_partitions_request::{CreatePartitionsAssignment, CreatePartitionsTopic};
use kafka_protocol::messages::create_topics_request::{
    CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig,
};
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic, ForgottenTopic};
use kafka_protocol::messages::incremental_alter_configs_request as incremental;
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use kafka_protocol::messages::*;
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};

use super::*;

fn text(value: &str) -> StrBytes {
    StrBytes::from_string(value.to_owned())
}

fn topic(name: &str) -> TopicName {
    TopicName(text(name))
}

/// Encodes what `request` makes for each served version, and walks it whole, cut short and extended.
fn agree<T: Encodable + Decodable>(key: ApiKey, request: impl Fn(i16) -> T) {
    let api = Api::find(key as i16).unwrap();
    for version in api.min..=api.max {
        let mut body = BytesMut::new();
        request(version).encode(&mut body, version).unwrap_or_else(|error| panic!("{key:?} {version}: {error}"));
        assert_eq!(api.check(version, &body), Ok(()), "{key:?} version {version}");
        for length in 0..body.len() {
            assert!(api.check(version, &body[..length]).is_err(), "{key:?} version {version}, {length} bytes");
        }
        body.extend_from_slice(&[0]);
        assert_eq!(api.check(version, &body), Ok(()), "{key:?} version {version}: bytes after the last field");
    }
}

#[test]
fn shapes_of_data_requests() {
    agree(ApiKey::Produce, |_| {
        let data = PartitionProduceData::default().with_index(1).with_records(Some(Bytes::from_static(b"records")));
        let none = PartitionProduceData::default().with_records(None);
        let topics = vec![TopicProduceData::default().with_name(topic("t")).with_partition_data(vec![data, none])];
        ProduceRequest::default().with_acks(-1).with_topic_data(topics)
    });
    agree(ApiKey::Fetch, |version| {
        let partition = FetchPartition::default().with_partition(3).with_partition_max_bytes(5);
        let topics = vec![FetchTopic::default().with_topic(topic("t")).with_partitions(vec![partition; 2])];
        let request = FetchRequest::default().with_max_wait_ms(1).with_topics(topics);
        if version < 7 {
            return request;
        }
        let forgotten = ForgottenTopic::default().with_topic(topic("u")).with_partitions(vec![1, 2]);
        let request = request.with_forgotten_topics_data(vec![forgotten]);
        if version < 11 { request } else { request.with_rack_id(text("rack")) }
    });
    agree(ApiKey::ListOffsets, |_| {
        use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
        let partitions = vec![ListOffsetsPartition::default().with_timestamp(-1); 2];
        let topics = vec![ListOffsetsTopic::default().with_name(topic("t")).with_partitions(partitions)];
        ListOffsetsRequest::default().with_topics(topics)
    });
    agree(ApiKey::OffsetForLeaderEpoch, |_| {
        use kafka_protocol::messages::offset_for_leader_epoch_request::{
            OffsetForLeaderPartition, OffsetForLeaderTopic,
        };
        let partitions = vec![OffsetForLeaderPartition::default(); 2];
        let topics = vec![OffsetForLeaderTopic::default().with_topic(topic("t")).with_partitions(partitions)];
        OffsetForLeaderEpochRequest::default().with_topics(topics)
    });
    agree(ApiKey::InitProducerId, |_| InitProducerIdRequest::default().with_transaction_timeout_ms(1));
}

#[test]
fn shapes_of_group_requests() {
    agree(ApiKey::FindCoordinator, |version| match version {
        0..=3 => FindCoordinatorRequest::default().with_key(text("g")),
        _ => FindCoordinatorRequest::default().with_coordinator_keys(vec![text("g"), text("h")]),
    });
    agree(ApiKey::JoinGroup, |version| {
        let protocol =
            JoinGroupRequestProtocol::default().with_name(text("range")).with_metadata(Bytes::from_static(b"m"));
        let request = JoinGroupRequest::default().with_group_id(GroupId(text("g"))).with_protocols(vec![protocol; 2]);
        if version >= 5 { request.with_group_instance_id(Some(text("i"))) } else { request }
    });
    agree(ApiKey::SyncGroup, |_| {
        let one = SyncGroupRequestAssignment::default().with_assignment(Bytes::from_static(b"a"));
        SyncGroupRequest::default().with_member_id(text("m")).with_assignments(vec![one; 2])
    });
    agree(ApiKey::Heartbeat, |_| HeartbeatRequest::default().with_member_id(text("m")));
    agree(ApiKey::LeaveGroup, |version| match version {
        0..=2 => LeaveGroupRequest::default().with_member_id(text("m")),
        _ => LeaveGroupRequest::default().with_members(vec![MemberIdentity::default().with_member_id(text("m"))]),
    });
    agree(ApiKey::DescribeGroups, |_| DescribeGroupsRequest::default().with_groups(vec![GroupId(text("g")); 2]));
    agree(ApiKey::ListGroups, |version| match version {
        0..=3 => ListGroupsRequest::default(),
        4 => ListGroupsRequest::default().with_states_filter(vec![text("Stable")]),
        _ => ListGroupsRequest::default()
            .with_states_filter(vec![text("Stable")])
            .with_types_filter(vec![text("classic")]),
    });
    agree(ApiKey::DeleteGroups, |_| DeleteGroupsRequest::default().with_groups_names(vec![GroupId(text("g")); 2]));
    agree(ApiKey::OffsetCommit, |_| {
        use kafka_protocol::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
        let partition = OffsetCommitRequestPartition::default().with_committed_metadata(Some(text("m")));
        let topics =
            vec![OffsetCommitRequestTopic::default().with_name(topic("t")).with_partitions(vec![partition; 2])];
        OffsetCommitRequest::default().with_topics(topics)
    });
    agree(ApiKey::OffsetFetch, |version| {
        if version < 8 {
            let one = OffsetFetchRequestTopic::default().with_name(topic("t")).with_partition_indexes(vec![1, 2]);
            return OffsetFetchRequest::default().with_group_id(GroupId(text("g"))).with_topics(Some(vec![one]));
        }
        let one = OffsetFetchRequestTopics::default().with_name(topic("t")).with_partition_indexes(vec![1, 2]);
        let group = OffsetFetchRequestGroup::default().with_group_id(GroupId(text("g"))).with_topics(Some(vec![one]));
        OffsetFetchRequest::default().with_groups(vec![group])
    });
    agree(ApiKey::OffsetDelete, |_| {
        use kafka_protocol::messages::offset_delete_request::{OffsetDeleteRequestPartition, OffsetDeleteRequestTopic};
        let partitions = vec![OffsetDeleteRequestPartition::default(); 2];
        let topics = vec![OffsetDeleteRequestTopic::default().with_name(topic("t")).with_partitions(partitions)];
        OffsetDeleteRequest::default().with_topics(topics)
    });
}

#[test]
fn shapes_of_admin_requests() {
    agree(ApiKey::ApiVersions, |_| ApiVersionsRequest::default());
    agree(ApiKey::Metadata, |_| {
        let one = MetadataRequestTopic::default().with_name(Some(topic("t")));
        MetadataRequest::default().with_topics(Some(vec![one; 2])).with_allow_auto_topic_creation(true)
    });
    agree(ApiKey::DescribeCluster, |_| DescribeClusterRequest::default());
    agree(ApiKey::CreateTopics, |_| {
        let assignment = CreatableReplicaAssignment::default().with_broker_ids(vec![0.into(), 1.into()]);
        let config = CreatableTopicConfig::default().with_name(text("n")).with_value(Some(text("v")));
        let one = CreatableTopic::default()
            .with_name(topic("t"))
            .with_assignments(vec![assignment; 2])
            .with_configs(vec![config; 2]);
        CreateTopicsRequest::default().with_topics(vec![one; 2])
    });
    agree(ApiKey::DeleteTopics, |version| match version {
        0..=5 => DeleteTopicsRequest::default().with_topic_names(vec![topic("t"); 2]),
        _ => {
            let one = delete_topics_request::DeleteTopicState::default().with_name(Some(topic("t")));
            DeleteTopicsRequest::default().with_topics(vec![one; 2])
        }
    });
    agree(ApiKey::DeleteRecords, |_| {
        use kafka_protocol::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
        let partitions = vec![DeleteRecordsPartition::default(); 2];
        let topics = vec![DeleteRecordsTopic::default().with_name(topic("t")).with_partitions(partitions)];
        DeleteRecordsRequest::default().with_topics(topics)
    });
    agree(ApiKey::CreatePartitions, |_| {
        let assignment = CreatePartitionsAssignment::default().with_broker_ids(vec![0.into()]);
        let one = CreatePartitionsTopic::default().with_name(topic("t")).with_assignments(Some(vec![assignment; 2]));
        CreatePartitionsRequest::default().with_topics(vec![one])
    });
    agree(ApiKey::DescribeConfigs, |_| {
        let one = describe_configs_request::DescribeConfigsResource::default()
            .with_resource_name(text("t"))
            .with_configuration_keys(Some(vec![text("a"), text("b")]));
        DescribeConfigsRequest::default().with_resources(vec![one])
    });
    agree(ApiKey::DescribeLogDirs, |_| {
        use kafka_protocol::messages::describe_log_dirs_request::DescribableLogDirTopic;
        let one = DescribableLogDirTopic::default().with_topic(topic("t")).with_partitions(vec![0, 1]);
        DescribeLogDirsRequest::default().with_topics(Some(vec![one; 2]))
    });
    agree(ApiKey::AlterConfigs, |_| {
        let config = alter_configs_request::AlterableConfig::default().with_name(text("n"));
        let one = alter_configs_request::AlterConfigsResource::default().with_configs(vec![config; 2]);
        AlterConfigsRequest::default().with_resources(vec![one])
    });
    agree(ApiKey::IncrementalAlterConfigs, |_| {
        let config = incremental::AlterableConfig::default().with_name(text("n"));
        let one = incremental::AlterConfigsResource::default().with_configs(vec![config; 2]);
        IncrementalAlterConfigsRequest::default().with_resources(vec![one])
    });
}

#[test]
fn versions_lie_within_those_of_the_codec() {
    for api in APIS {
        let valid = api.key.valid_versions();
        assert!(api.min >= valid.min && api.max <= valid.max, "{:?}", api.key);
        assert_eq!(api.shapes.first().map(|(from, _)| *from), Some(api.min), "{:?}", api.key);
    }
}

#[test]
fn a_length_that_lies_is_refused_before_anything_is_reserved() {
    let metadata = Api::find(ApiKey::Metadata as i16).unwrap();
    for length in [i32::MAX, i32::MIN, -2, 1_000] {
        let malformed = metadata.check(1, &length.to_be_bytes()).unwrap_err();
        assert_eq!(malformed, Malformed::Length { length: i64::from(length), left: 0 });
    }
    // The same in the compact form.
    assert!(metadata.check(9, &[0xff, 0xff, 0xff, 0xff, 0x0f]).is_err());
    assert_eq!(metadata.check(9, &[0xff, 0xff, 0xff, 0xff, 0xff, 0x0f]), Err(Malformed::Number));
}
