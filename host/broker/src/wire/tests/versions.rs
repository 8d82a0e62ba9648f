//! Every request in every served version gets an answer that its own version can read.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::*;
use kafka_protocol::protocol::Request;

use super::client::{Broker, Client, batch, produce_request, text, topic};
use crate::wire::shape::{APIS, Api};

pub(super) fn each<R: Request>(client: &mut Client, request: impl Fn(i16) -> R, check: impl Fn(i16, R::Response)) {
    let api = Api::find(R::KEY).unwrap();
    for version in api.min..=api.max {
        check(version, client.call(&request(version), version));
    }
}

#[test]
fn data_and_cluster() {
    let broker = Broker::start();
    let client = &mut broker.client();
    client.create_topic("t", 2);
    records(client);
    positions(client);
    cluster(client);
}

/// Appends one record in each of the eight versions, and reads.
fn records(client: &mut Client) {
    each(
        client,
        |_| produce_request("t", 0, batch(b"v")),
        |version, response| {
            assert_eq!(response.responses[0].partition_responses[0].error_code, 0, "{version}");
        },
    );
    each(
        client,
        |_| produce_request("u", 0, batch(b"v")),
        |_, response| {
            assert_eq!(response.responses[0].partition_responses[0].error_code, 3);
        },
    );
    each(
        client,
        |_| {
            let partition =
                |index| fetch_request::FetchPartition::default().with_partition(index).with_partition_max_bytes(1);
            let one = fetch_request::FetchTopic::default()
                .with_topic(topic("t"))
                .with_partitions(vec![partition(0), partition(9)]);
            FetchRequest::default().with_max_bytes(1_000).with_isolation_level(1).with_topics(vec![one])
        },
        |version, response| {
            let partitions = &response.responses[0].partitions;
            assert_eq!((partitions[0].error_code, partitions[0].high_watermark), (0, 8), "{version}");
            assert_eq!(partitions[0].records.as_ref().map(|records| records.is_empty()), Some(false));
            assert_eq!(partitions[1].error_code, 3);
        },
    );
}

fn positions(client: &mut Client) {
    each(
        client,
        |version| {
            let partition = |timestamp| list_offsets_request::ListOffsetsPartition::default().with_timestamp(timestamp);
            let times = if version >= 7 { vec![-1, -2, 1, 2, -3, -4, -5] } else { vec![-1, -2, 1, 2] };
            let one = list_offsets_request::ListOffsetsTopic::default()
                .with_name(topic("t"))
                .with_partitions(times.into_iter().map(partition).collect());
            ListOffsetsRequest::default().with_topics(vec![one])
        },
        |version, response| {
            let offsets: Vec<i64> = response.topics[0].partitions.iter().map(|one| one.offset).collect();
            let expected: &[i64] = if version >= 7 { &[8, 0, 0, -1, 0, 0, -1] } else { &[8, 0, 0, -1] };
            assert_eq!(offsets, expected, "{version}");
        },
    );
    each(
        client,
        |_| {
            let one = offset_for_leader_epoch_request::OffsetForLeaderPartition::default();
            let one = offset_for_leader_epoch_request::OffsetForLeaderTopic::default()
                .with_topic(topic("t"))
                .with_partitions(vec![one]);
            OffsetForLeaderEpochRequest::default().with_topics(vec![one])
        },
        |_, response| assert_eq!(response.topics[0].partitions[0].end_offset, 8),
    );
}

fn cluster(client: &mut Client) {
    each(
        client,
        |_| InitProducerIdRequest::default().with_transactional_id(None),
        |_, response| assert_eq!(response.error_code, 0),
    );
    each(client, |_| ApiVersionsRequest::default(), |_, response| assert_eq!(response.api_keys.len(), APIS.len()));
    each(client, |_| DescribeClusterRequest::default(), |_, response| assert_eq!(response.brokers.len(), 1));
    each(
        client,
        |_| {
            let asked = |name| metadata_request::MetadataRequestTopic::default().with_name(Some(topic(name)));
            MetadataRequest::default().with_topics(Some(vec![asked("t"), asked("u")]))
        },
        |version, response| {
            assert_eq!(response.topics[0].partitions.len(), 2);
            assert_eq!(response.topics[0].topic_id.is_nil(), version < 10);
            assert_eq!(response.topics[1].error_code, 3, "{version}");
        },
    );
    each(
        client,
        |version| {
            use kafka_protocol::messages::describe_log_dirs_request::DescribableLogDirTopic;
            let one = DescribableLogDirTopic::default().with_topic(topic("t")).with_partitions(vec![0, 9]);
            DescribeLogDirsRequest::default().with_topics((version > 1).then(|| vec![one]))
        },
        |version, response| {
            let found = &response.results[0];
            assert_eq!((response.results.len(), found.error_code, found.log_dir.as_str()), (1, 0, "memory"));
            let sizes: Vec<bool> = found.topics[0].partitions.iter().map(|one| one.partition_size > 0).collect();
            assert_eq!(sizes, if version > 1 { vec![true] } else { vec![true, false] }, "{version}");
        },
    );
    each(
        client,
        |version| MetadataRequest::default().with_topics((version == 0).then(Vec::new)),
        |_, response| assert_eq!(response.topics.len(), 1, "all topics"),
    );
}

#[test]
fn topics_by_id() {
    let broker = Broker::start();
    let client = &mut broker.client();
    client.create_topic("t", 1);
    let asked = metadata_request::MetadataRequestTopic::default().with_name(Some(topic("t")));
    let found = client.call(&MetadataRequest::default().with_topics(Some(vec![asked])), 12);
    let id = found.topics[0].topic_id;
    let by_id = metadata_request::MetadataRequestTopic::default().with_name(None).with_topic_id(id);
    let request = MetadataRequest::default().with_topics(Some(vec![by_id]));
    let again = client.call(&request, 12);
    assert_eq!(again.topics[0].name, Some(topic("t")));
    let gone = delete_topics_request::DeleteTopicState::default().with_name(None).with_topic_id(id);
    let deleted = client.call(&DeleteTopicsRequest::default().with_topics(vec![gone]), 6);
    assert_eq!((deleted.responses[0].error_code, &deleted.responses[0].name), (0, &Some(topic("t"))));
    let again = client.call(&request, 12);
    assert_eq!((again.topics[0].error_code, again.topics[0].topic_id), (100, id));
}

#[test]
fn topics_and_settings() {
    let broker = Broker::start();
    let client = &mut broker.client();
    create_topics(client);
    describe_configs(client);
    alter_configs(client);
    shrink_and_delete(client);
}

fn create_topics(client: &mut Client) {
    each(
        client,
        |version| {
            let config = create_topics_request::CreatableTopicConfig::default()
                .with_name(text("cleanup.policy"))
                .with_value(Some(text("compact")));
            let one = |name: &str, factor| {
                create_topics_request::CreatableTopic::default()
                    .with_name(topic(name))
                    .with_num_partitions(1)
                    .with_replication_factor(factor)
                    .with_configs(vec![config.clone()])
            };
            let name = format!("t{version}");
            CreateTopicsRequest::default().with_topics(vec![one(&name, 1), one("bad", 3)])
        },
        |version, response| {
            assert_eq!(response.topics[0].error_code, 0, "{version}");
            assert_eq!(response.topics[1].error_code, ResponseError::InvalidReplicationFactor.code());
            assert!(response.topics[1].error_message.as_ref().unwrap().contains("topic bad: one broker"));
        },
    );
    each(
        client,
        |version| {
            let one = create_partitions_request::CreatePartitionsTopic::default()
                .with_name(topic("t2"))
                .with_count(i32::from(version) + 2)
                .with_assignments(None);
            CreatePartitionsRequest::default().with_topics(vec![one])
        },
        |_, response| assert_eq!(response.results[0].error_code, 0),
    );
}

fn describe_configs(client: &mut Client) {
    each(
        client,
        |_| {
            let one = describe_configs_request::DescribeConfigsResource::default()
                .with_resource_type(2)
                .with_resource_name(text("t2"))
                .with_configuration_keys(Some(vec![text("cleanup.policy")]));
            let broker = describe_configs_request::DescribeConfigsResource::default()
                .with_resource_type(4)
                .with_resource_name(text("0"))
                .with_configuration_keys(None);
            DescribeConfigsRequest::default().with_resources(vec![one, broker]).with_include_synonyms(true)
        },
        |_, response| {
            let configs = &response.results[0].configs;
            assert_eq!((configs.len(), configs[0].value.as_deref()), (1, Some("compact")));
            assert_eq!((configs[0].config_source, configs[0].synonyms.len()), (1, 2));
            let broker = &response.results[1];
            assert_eq!(broker.error_code, 0);
            let find = |name| broker.configs.iter().find(|config| config.name.as_str() == name).unwrap();
            assert_eq!(find("log.dirs").value.as_deref(), Some("memory"));
            assert!(broker.configs.iter().all(|config| config.read_only && config.config_source == 4));
        },
    );
    let ask = |client: &mut Client, kind, name| {
        let one = describe_configs_request::DescribeConfigsResource::default()
            .with_resource_type(kind)
            .with_resource_name(text(name))
            .with_configuration_keys(Some(vec![text("broker.id")]));
        let answer = client.call(&DescribeConfigsRequest::default().with_resources(vec![one]), 1).results.remove(0);
        (answer.error_code, answer.configs.len())
    };
    assert_eq!(ask(client, 4, "0"), (0, 1));
    assert_eq!(ask(client, 4, ""), (0, 0), "settings of every broker");
    let refused = ResponseError::InvalidRequest.code();
    assert_eq!([ask(client, 4, "1"), ask(client, 8, "0")], [(refused, 0); 2]);
}

fn alter_configs(client: &mut Client) {
    each(
        client,
        |_| {
            let config = alter_configs_request::AlterableConfig::default()
                .with_name(text("retention.ms"))
                .with_value(Some(text("5")));
            let one = alter_configs_request::AlterConfigsResource::default()
                .with_resource_type(2)
                .with_resource_name(text("t2"))
                .with_configs(vec![config]);
            AlterConfigsRequest::default().with_resources(vec![one])
        },
        |_, response| assert_eq!(response.responses[0].error_code, 0),
    );
    each(
        client,
        |_| {
            use kafka_protocol::messages::incremental_alter_configs_request as incremental;
            let config =
                incremental::AlterableConfig::default().with_name(text("nonsense")).with_value(Some(text("5")));
            let one = incremental::AlterConfigsResource::default()
                .with_resource_type(2)
                .with_resource_name(text("t2"))
                .with_configs(vec![config]);
            IncrementalAlterConfigsRequest::default().with_resources(vec![one])
        },
        |_, response| assert_eq!(response.responses[0].error_code, ResponseError::InvalidConfig.code()),
    );
}

fn shrink_and_delete(client: &mut Client) {
    each(
        client,
        |_| {
            let partitions = vec![delete_records_request::DeleteRecordsPartition::default().with_offset(-1)];
            let one = delete_records_request::DeleteRecordsTopic::default()
                .with_name(topic("t2"))
                .with_partitions(partitions);
            DeleteRecordsRequest::default().with_topics(vec![one])
        },
        |_, response| assert_eq!(response.topics[0].partitions[0].error_code, 0),
    );
    each(
        client,
        |version| match version {
            0..=5 => DeleteTopicsRequest::default().with_topic_names(vec![topic(&format!("t{version}"))]),
            _ => {
                let one = delete_topics_request::DeleteTopicState::default().with_name(Some(topic("t6")));
                DeleteTopicsRequest::default().with_topics(vec![one])
            }
        },
        |version, response| assert_eq!(response.responses[0].error_code, if version == 1 { 3 } else { 0 }, "{version}"),
    );
}
