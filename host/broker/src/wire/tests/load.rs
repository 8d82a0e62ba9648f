//! Many requests, many clients, and clients that do not play along: each pays for itself only.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use kafka_protocol::messages::*;
use kafka_protocol::protocol::Encodable;

use super::client::{Broker, Client, batch, produce_request, text, topic};
use crate::core::CoreOptions;
use crate::core::group::GroupOptions;
use crate::wire::WireOptions;

/// A request in a version without compact lengths, as its bytes.
fn frame<T: Encodable>(key: ApiKey, version: i16, correlation_id: i32, request: &T) -> Vec<u8> {
    let mut frame = BytesMut::new();
    frame.put_i32(0);
    frame.put_i16(key as i16);
    frame.put_i16(version);
    frame.put_i32(correlation_id);
    frame.put_i16(-1);
    request.encode(&mut frame, version).unwrap();
    let length = frame.len() as i32 - 4;
    frame[..4].copy_from_slice(&length.to_be_bytes());
    frame.to_vec()
}

#[test]
fn a_thousand_requests_in_one_write() {
    let broker = Broker::start();
    let mut client = broker.client();
    client.create_topic("t", 1);
    let mut bytes = Vec::new();
    for number in 0..1_000 {
        match number % 2 {
            0 => bytes.extend(frame(ApiKey::Produce, 8, number, &produce_request("t", 0, batch(b"v")))),
            _ => bytes.extend(frame(ApiKey::Metadata, 4, number, &MetadataRequest::default())),
        }
    }
    let mut writer = client.stream.try_clone().unwrap();
    let writing = std::thread::spawn(move || writer.write_all(&bytes).unwrap());
    for number in 0..1_000i32 {
        assert_eq!(client.read_frame().unwrap()[..4], number.to_be_bytes());
    }
    writing.join().unwrap();
    assert_eq!(broker.client().produce("t", b"v"), 500);
}

fn fetch_all(name: &str) -> FetchRequest {
    let partition = FetchPartition::default().with_partition_max_bytes(50_000_000);
    let one = FetchTopic::default().with_topic(topic(name)).with_partitions(vec![partition]);
    FetchRequest::default().with_max_bytes(50_000_000).with_topics(vec![one])
}

#[test]
fn a_client_that_never_reads_its_answers_is_cut_off() {
    let stall_timeout = Duration::from_millis(300);
    let broker = Broker::with(CoreOptions::default(), WireOptions { stall_timeout, ..WireOptions::default() });
    let mut bystander = broker.client();
    bystander.create_topic("t", 1);
    let answer_bytes = 30 * 1_000_000;
    for _ in 0..30 {
        bystander.produce("t", &vec![7; 1_000_000]);
    }
    let mut client = broker.client();
    // The broker reads a request only after it has got rid of the answer before, so this does not fill up.
    let request = frame(ApiKey::Fetch, 11, 1, &fetch_all("t"));
    client.stream.write_all(&request.repeat(100)).unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while client.stream.write_all(&request).is_ok() {
        assert!(Instant::now() < deadline, "still connected");
        std::thread::sleep(stall_timeout / 10);
    }
    assert_eq!(bystander.produce("t", b"v"), 30);
    // What the operating system took of the first answer, if it has kept that; there is no second one.
    let mut taken = 0;
    let mut buffer = vec![0; 1_000_000];
    while let Ok(count) = client.stream.read(&mut buffer)
        && count > 0
    {
        taken += count;
    }
    assert!(taken < answer_bytes, "{taken} bytes");
}

#[test]
fn the_cap_on_connections_is_kept_and_left() {
    let broker = Broker::with(CoreOptions::default(), WireOptions { connections_max: 5, ..WireOptions::default() });
    let mut clients: Vec<Client> = (0..5).map(|_| broker.client()).collect();
    for client in &mut clients {
        assert_eq!(client.call(&ApiVersionsRequest::default(), 0).error_code, 0);
    }
    for _ in 0..20 {
        assert!(broker.client().is_closed(), "one more is refused");
    }
    assert_eq!(clients[0].call(&ApiVersionsRequest::default(), 0).error_code, 0);
    clients.truncate(3);
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let mut client = broker.client();
        client.write(&ApiVersionsRequest::default(), 0);
        if client.read_frame().is_ok() {
            return;
        }
        assert!(Instant::now() < deadline, "there is room again, but nobody is let in");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_flood_does_not_keep_others_waiting() {
    let broker = Broker::start();
    let mut client = broker.client();
    client.create_topic("t", 1);
    client.create_topic("flooded", 1);
    let stop = AtomicBool::new(false);
    let mut latencies = Vec::new();
    std::thread::scope(|scope| {
        let stop = &stop;
        let mut flood = broker.client();
        let mut answers = flood.stream.try_clone().unwrap();
        scope.spawn(move || while answers.read(&mut [0; 65_536]).is_ok_and(|count| count > 0) {});
        scope.spawn(move || {
            let bytes = frame(ApiKey::Produce, 8, 1, &produce_request("flooded", 0, batch(&[7; 10_000]))).repeat(50);
            while !stop.load(Ordering::Relaxed) {
                flood.stream.write_all(&bytes).unwrap();
            }
            flood.stream.shutdown(Shutdown::Both).unwrap();
        });
        for _ in 0..300 {
            let began = Instant::now();
            client.produce("t", b"v");
            latencies.push(began.elapsed());
        }
        stop.store(true, Ordering::Relaxed);
    });
    latencies.sort();
    // Generous, since tests run beside builds; alone it is a tenth of a millisecond.
    assert!(latencies[150] < Duration::from_millis(20), "p50 {:?}", latencies[150]);
    assert!(latencies[299] < Duration::from_secs(1), "most {:?}", latencies[299]);
}

#[test]
fn a_client_that_only_listens_gets_its_answers() {
    let broker = Broker::start();
    let mut client = broker.client();
    client.create_topic("t", 1);
    for number in 0..10 {
        client.stream.write_all(&frame(ApiKey::Metadata, 4, number, &MetadataRequest::default())).unwrap();
    }
    client.stream.shutdown(Shutdown::Write).unwrap();
    for number in 0..10i32 {
        assert_eq!(client.read_frame().unwrap()[..4], number.to_be_bytes());
    }
    assert!(client.is_closed());
}

fn join_request(member_id: &str, session_timeout_ms: i32) -> JoinGroupRequest {
    let protocol = JoinGroupRequestProtocol::default().with_name(text("range")).with_metadata(Bytes::from_static(b"m"));
    JoinGroupRequest::default()
        .with_group_id(GroupId(text("g")))
        .with_session_timeout_ms(session_timeout_ms)
        .with_rebalance_timeout_ms(60_000)
        .with_member_id(text(member_id))
        .with_protocol_type(text("consumer"))
        .with_protocols(vec![protocol])
}

fn sync(client: &mut Client, joined: &JoinGroupResponse) -> i16 {
    let one = SyncGroupRequestAssignment::default().with_member_id(joined.member_id.clone());
    let request = SyncGroupRequest::default()
        .with_group_id(GroupId(text("g")))
        .with_generation_id(joined.generation_id)
        .with_member_id(joined.member_id.clone())
        .with_assignments(vec![one]);
    client.call(&request, 2).error_code
}

#[test]
fn a_member_that_dies_while_it_joins_leaves_the_group() {
    let groups = GroupOptions { min_session_timeout_ms: 100, ..GroupOptions::default() };
    let broker = Broker::with(CoreOptions { groups, ..CoreOptions::default() }, WireOptions::default());
    let mut client = broker.client();
    let first = client.call(&join_request("", 60_000), 3);
    assert_eq!((first.error_code, sync(&mut client, &first)), (0, 0));
    let mut dying = broker.client();
    dying.write(&join_request("", 700), 3);
    std::thread::sleep(Duration::from_millis(50));
    drop(dying);
    // The one that lives joins again until it is alone, as a client does when its heartbeat says so.
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        assert!(Instant::now() < deadline, "the dead member is still in the group");
        let joined = client.call(&join_request(&first.member_id, 60_000), 3);
        assert_eq!(joined.error_code, 0);
        if joined.generation_id > first.generation_id && joined.members.len() == 1 {
            assert_eq!(sync(&mut client, &joined), 0);
            return;
        }
        if sync(&mut client, &joined) == 0 {
            let heartbeat = HeartbeatRequest::default()
                .with_group_id(GroupId(text("g")))
                .with_generation_id(joined.generation_id)
                .with_member_id(first.member_id.clone());
            while client.call(&heartbeat, 2).error_code != ResponseError::RebalanceInProgress.code() {
                assert!(Instant::now() < deadline, "the dead member is still in the group");
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }
}

#[test]
fn an_answer_names_each_thing_once() {
    let broker = Broker::start();
    let client = &mut broker.client();
    client.create_topic("t", 3);
    let asked = metadata_request::MetadataRequestTopic::default().with_name(Some(topic("t")));
    let metadata = client.call(&MetadataRequest::default().with_topics(Some(vec![asked; 1_000])), 8);
    assert_eq!((metadata.topics.len(), metadata.topics[0].partitions.len()), (1, 3));
    let one = describe_configs_request::DescribeConfigsResource::default()
        .with_resource_type(2)
        .with_resource_name(text("t"))
        .with_configuration_keys(None);
    let configs = client.call(&DescribeConfigsRequest::default().with_resources(vec![one; 1_000]), 2);
    assert_eq!(configs.results.len(), 1);
    let groups = client.call(&DescribeGroupsRequest::default().with_groups(vec![GroupId(text("g")); 1_000]), 2);
    assert_eq!(groups.groups.len(), 1);
    let one = offset_fetch_request::OffsetFetchRequestTopic::default()
        .with_name(topic("t"))
        .with_partition_indexes(vec![1; 1_000]);
    let request = OffsetFetchRequest::default().with_group_id(GroupId(text("g"))).with_topics(Some(vec![one; 10]));
    let offsets = client.call(&request, 5);
    assert_eq!(offsets.topics.iter().map(|topic| topic.partitions.len()).sum::<usize>(), 1);
    let one = create_topics_request::CreatableTopic::default()
        .with_name(topic("u"))
        .with_num_partitions(1)
        .with_replication_factor(1);
    let created = client.call(&CreateTopicsRequest::default().with_topics(vec![one; 100]), 4);
    assert_eq!((created.topics.len(), created.topics[0].error_code), (1, ResponseError::InvalidRequest.code()));
}
