//! A valid request of every kind and version, for the fuzz test. They speak of topic `t` and group `g`.

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::*;
use kafka_protocol::protocol::Encodable;

use super::client::{batch, produce_request, text, topic};

fn encoded<T: Encodable>(request: &T, version: i16) -> Bytes {
    let mut body = BytesMut::new();
    request.encode(&mut body, version).unwrap();
    body.freeze()
}

fn group() -> GroupId {
    GroupId(text("g"))
}

/// The body of a valid request.
pub fn sample(key: ApiKey, version: i16) -> Bytes {
    let found = data(key, version).or_else(|| groups(key, version)).or_else(|| topics(key, version));
    let found = found.or_else(|| cluster(key, version)).or_else(|| transactions(key, version));
    found.unwrap_or_else(|| panic!("{key:?} is served, but has no sample: add one to wire/tests/samples.rs"))
}

fn data(key: ApiKey, version: i16) -> Option<Bytes> {
    Some(match key {
        ApiKey::Produce => encoded(&produce_request("t", 0, batch(b"value")), version),
        ApiKey::Fetch => {
            let partition = fetch_request::FetchPartition::default().with_partition_max_bytes(1_000);
            let one = fetch_request::FetchTopic::default().with_topic(topic("t")).with_partitions(vec![partition; 2]);
            let request = FetchRequest::default().with_max_bytes(1_000).with_max_wait_ms(1).with_min_bytes(1);
            encoded(&request.with_topics(vec![one]), version)
        }
        ApiKey::ListOffsets => {
            let partition = |timestamp| list_offsets_request::ListOffsetsPartition::default().with_timestamp(timestamp);
            let one = list_offsets_request::ListOffsetsTopic::default()
                .with_name(topic("t"))
                .with_partitions(vec![partition(-1), partition(1)]);
            encoded(&ListOffsetsRequest::default().with_topics(vec![one]), version)
        }
        ApiKey::OffsetForLeaderEpoch => {
            let one = offset_for_leader_epoch_request::OffsetForLeaderTopic::default()
                .with_topic(topic("t"))
                .with_partitions(vec![Default::default(); 2]);
            encoded(&OffsetForLeaderEpochRequest::default().with_topics(vec![one]), version)
        }
        // Idempotent and transactional ones in turn.
        ApiKey::InitProducerId => {
            let id = (version % 2 == 1).then(|| TransactionalId(text("x")));
            let request = InitProducerIdRequest::default().with_transactional_id(id);
            encoded(&request.with_transaction_timeout_ms(10_000), version)
        }
        ApiKey::DeleteRecords => {
            let partition = delete_records_request::DeleteRecordsPartition::default().with_offset(-1);
            let one = delete_records_request::DeleteRecordsTopic::default()
                .with_name(topic("t"))
                .with_partitions(vec![partition]);
            encoded(&DeleteRecordsRequest::default().with_topics(vec![one]), version)
        }
        _ => return None,
    })
}

fn groups(key: ApiKey, version: i16) -> Option<Bytes> {
    Some(match key {
        ApiKey::FindCoordinator if version < 4 => {
            encoded(&FindCoordinatorRequest::default().with_key(text("g")), version)
        }
        ApiKey::FindCoordinator => {
            encoded(&FindCoordinatorRequest::default().with_coordinator_keys(vec![text("g"), text("h")]), version)
        }
        ApiKey::JoinGroup => {
            let protocol = join_group_request::JoinGroupRequestProtocol::default()
                .with_name(text("range"))
                .with_metadata(Bytes::from_static(b"topics"));
            let request = JoinGroupRequest::default()
                .with_group_id(group())
                .with_session_timeout_ms(10_000)
                .with_protocol_type(text("consumer"))
                .with_protocols(vec![protocol]);
            let request = if version >= 5 { request.with_group_instance_id(Some(text("i"))) } else { request };
            encoded(&request, version)
        }
        ApiKey::SyncGroup => {
            let one = sync_group_request::SyncGroupRequestAssignment::default()
                .with_member_id(text("m"))
                .with_assignment(Bytes::from_static(b"partitions"));
            let request = SyncGroupRequest::default().with_group_id(group()).with_member_id(text("m"));
            encoded(&request.with_generation_id(1).with_assignments(vec![one; 2]), version)
        }
        ApiKey::Heartbeat => {
            encoded(&HeartbeatRequest::default().with_group_id(group()).with_member_id(text("m")), version)
        }
        ApiKey::LeaveGroup if version < 3 => {
            encoded(&LeaveGroupRequest::default().with_group_id(group()).with_member_id(text("m")), version)
        }
        ApiKey::LeaveGroup => {
            let one = leave_group_request::MemberIdentity::default().with_member_id(text("m"));
            encoded(&LeaveGroupRequest::default().with_group_id(group()).with_members(vec![one; 2]), version)
        }
        ApiKey::DescribeGroups => encoded(&DescribeGroupsRequest::default().with_groups(vec![group(); 2]), version),
        ApiKey::ListGroups if version < 4 => encoded(&ListGroupsRequest::default(), version),
        ApiKey::ListGroups => {
            let request = ListGroupsRequest::default().with_states_filter(vec![text("Empty"), text("Stable")]);
            let types = if version < 5 { Vec::new() } else { vec![text("classic")] };
            encoded(&request.with_types_filter(types), version)
        }
        ApiKey::DeleteGroups => encoded(&DeleteGroupsRequest::default().with_groups_names(vec![group()]), version),
        _ => return offsets(key, version),
    })
}

fn offsets(key: ApiKey, version: i16) -> Option<Bytes> {
    Some(match key {
        ApiKey::OffsetCommit => {
            use kafka_protocol::messages::offset_commit_request as commit;
            let partition = commit::OffsetCommitRequestPartition::default()
                .with_committed_offset(3)
                .with_committed_metadata(Some(text("meta")));
            let one =
                commit::OffsetCommitRequestTopic::default().with_name(topic("t")).with_partitions(vec![partition; 2]);
            let request = OffsetCommitRequest::default().with_group_id(group());
            encoded(&request.with_generation_id_or_member_epoch(-1).with_topics(vec![one]), version)
        }
        ApiKey::OffsetFetch if version < 8 => {
            let one = offset_fetch_request::OffsetFetchRequestTopic::default()
                .with_name(topic("t"))
                .with_partition_indexes(vec![0, 1]);
            encoded(&OffsetFetchRequest::default().with_group_id(group()).with_topics(Some(vec![one])), version)
        }
        ApiKey::OffsetFetch => {
            use kafka_protocol::messages::offset_fetch_request as fetch;
            let one =
                fetch::OffsetFetchRequestTopics::default().with_name(topic("t")).with_partition_indexes(vec![0, 1]);
            let one = fetch::OffsetFetchRequestGroup::default().with_group_id(group()).with_topics(Some(vec![one]));
            encoded(&OffsetFetchRequest::default().with_groups(vec![one]), version)
        }
        ApiKey::OffsetDelete => {
            use kafka_protocol::messages::offset_delete_request as delete;
            let one = delete::OffsetDeleteRequestTopic::default()
                .with_name(topic("t"))
                .with_partitions(vec![Default::default()]);
            encoded(&OffsetDeleteRequest::default().with_group_id(group()).with_topics(vec![one]), version)
        }
        _ => return None,
    })
}

fn topics(key: ApiKey, version: i16) -> Option<Bytes> {
    Some(match key {
        ApiKey::CreateTopics => {
            let config = create_topics_request::CreatableTopicConfig::default()
                .with_name(text("cleanup.policy"))
                .with_value(Some(text("compact")));
            let one = create_topics_request::CreatableTopic::default()
                .with_name(topic("u"))
                .with_num_partitions(2)
                .with_replication_factor(1)
                .with_configs(vec![config]);
            let assigned =
                create_topics_request::CreatableTopic::default().with_name(topic("v")).with_assignments(vec![
                    create_topics_request::CreatableReplicaAssignment::default().with_broker_ids(vec![0.into()]),
                ]);
            encoded(&CreateTopicsRequest::default().with_topics(vec![one, assigned]), version)
        }
        ApiKey::DeleteTopics if version < 6 => {
            encoded(&DeleteTopicsRequest::default().with_topic_names(vec![topic("u"), topic("v")]), version)
        }
        ApiKey::DeleteTopics => {
            let one = delete_topics_request::DeleteTopicState::default().with_name(Some(topic("u")));
            encoded(&DeleteTopicsRequest::default().with_topics(vec![one]), version)
        }
        ApiKey::CreatePartitions => {
            let one = create_partitions_request::CreatePartitionsTopic::default()
                .with_name(topic("t"))
                .with_count(3)
                .with_assignments(None);
            encoded(&CreatePartitionsRequest::default().with_topics(vec![one]), version)
        }
        ApiKey::DescribeConfigs => {
            let one = describe_configs_request::DescribeConfigsResource::default()
                .with_resource_type(2)
                .with_resource_name(text("t"))
                .with_configuration_keys(Some(vec![text("retention.ms")]));
            encoded(&DescribeConfigsRequest::default().with_resources(vec![one; 2]), version)
        }
        ApiKey::AlterConfigs => {
            use kafka_protocol::messages::alter_configs_request as alter;
            let config = alter::AlterableConfig::default().with_name(text("retention.ms")).with_value(Some(text("5")));
            let one = alter::AlterConfigsResource::default().with_resource_type(2).with_resource_name(text("t"));
            encoded(&AlterConfigsRequest::default().with_resources(vec![one.with_configs(vec![config])]), version)
        }
        ApiKey::IncrementalAlterConfigs => {
            use kafka_protocol::messages::incremental_alter_configs_request as alter;
            let config = alter::AlterableConfig::default()
                .with_name(text("cleanup.policy"))
                .with_config_operation(2)
                .with_value(Some(text("compact")));
            let one = alter::AlterConfigsResource::default().with_resource_type(2).with_resource_name(text("t"));
            let request = IncrementalAlterConfigsRequest::default();
            encoded(&request.with_resources(vec![one.with_configs(vec![config])]), version)
        }
        _ => return None,
    })
}

fn cluster(key: ApiKey, version: i16) -> Option<Bytes> {
    Some(match key {
        ApiKey::ApiVersions => encoded(&ApiVersionsRequest::default(), version),
        ApiKey::Metadata => {
            let asked = |name| metadata_request::MetadataRequestTopic::default().with_name(Some(topic(name)));
            let request = MetadataRequest::default().with_allow_auto_topic_creation(true);
            encoded(&request.with_topics(Some(vec![asked("t"), asked("w")])), version)
        }
        ApiKey::DescribeCluster => encoded(&DescribeClusterRequest::default(), version),
        _ => return None,
    })
}

fn transactions(key: ApiKey, version: i16) -> Option<Bytes> {
    let id = || TransactionalId(text("x"));
    Some(match key {
        ApiKey::AddPartitionsToTxn if version < 4 => {
            let one = add_partitions_to_txn_request::AddPartitionsToTxnTopic::default()
                .with_name(topic("t"))
                .with_partitions(vec![0, 1]);
            let request = AddPartitionsToTxnRequest::default().with_v3_and_below_transactional_id(id());
            encoded(&request.with_v3_and_below_topics(vec![one]), version)
        }
        ApiKey::AddOffsetsToTxn => {
            encoded(&AddOffsetsToTxnRequest::default().with_transactional_id(id()).with_group_id(group()), version)
        }
        ApiKey::EndTxn => encoded(&EndTxnRequest::default().with_transactional_id(id()).with_committed(true), version),
        ApiKey::DescribeLogDirs => {
            let one = describe_log_dirs_request::DescribableLogDirTopic::default()
                .with_topic(topic("t"))
                .with_partitions(vec![0, 1]);
            encoded(&DescribeLogDirsRequest::default().with_topics(Some(vec![one])), version)
        }
        ApiKey::DescribeProducers => {
            let one = describe_producers_request::TopicRequest::default()
                .with_name(topic("t"))
                .with_partition_indexes(vec![0, 1]);
            encoded(&DescribeProducersRequest::default().with_topics(vec![one]), version)
        }
        ApiKey::DescribeTransactions => {
            encoded(&DescribeTransactionsRequest::default().with_transactional_ids(vec![id(); 2]), version)
        }
        ApiKey::ListTransactions => {
            encoded(&ListTransactionsRequest::default().with_state_filters(vec![text("Ongoing")]), version)
        }
        ApiKey::TxnOffsetCommit => {
            use kafka_protocol::messages::txn_offset_commit_request as commit;
            let partition = commit::TxnOffsetCommitRequestPartition::default().with_committed_offset(3);
            let one =
                commit::TxnOffsetCommitRequestTopic::default().with_name(topic("t")).with_partitions(vec![partition]);
            let request = TxnOffsetCommitRequest::default().with_transactional_id(id()).with_group_id(group());
            encoded(&request.with_topics(vec![one]), version)
        }
        _ => return None,
    })
}
