//! Groups over connections: a join that waits in one thread is answered by another's; sessions end by the clock.

use std::time::{Duration, Instant};

use bytes::Bytes;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use kafka_protocol::messages::*;

use super::client::{Broker, Client, text, topic};
use crate::core::CoreOptions;
use crate::core::group::GroupOptions;
use crate::wire::WireOptions;
use crate::wire::shape::Api;

fn join_request(member_id: &str) -> JoinGroupRequest {
    let protocol = JoinGroupRequestProtocol::default().with_name(text("range")).with_metadata(Bytes::from_static(b"m"));
    JoinGroupRequest::default()
        .with_group_id(GroupId(text("g")))
        .with_session_timeout_ms(6_000)
        .with_rebalance_timeout_ms(6_000)
        .with_member_id(text(member_id))
        .with_protocol_type(text("consumer"))
        .with_protocols(vec![protocol])
}

fn sync_request(joined: &JoinGroupResponse, assignments: &[&str]) -> SyncGroupRequest {
    let assignments = assignments.iter().map(|member| {
        let assignment = Bytes::copy_from_slice(format!("of {member}").as_bytes());
        SyncGroupRequestAssignment::default().with_member_id(text(member)).with_assignment(assignment)
    });
    SyncGroupRequest::default()
        .with_group_id(GroupId(text("g")))
        .with_generation_id(joined.generation_id)
        .with_member_id(joined.member_id.clone())
        .with_assignments(assignments.collect())
}

/// Joins as a client does: once for the id, once with it.
fn begin_join(client: &mut Client, version: i16) -> JoinGroupRequest {
    let refused = client.call(&join_request(""), version);
    assert_eq!(refused.error_code, ResponseError::MemberIdRequired.code());
    join_request(&refused.member_id)
}

#[test]
fn a_group_in_every_version() {
    let broker = Broker::start();
    let client = &mut broker.client();
    client.create_topic("t", 1);
    let api = Api::find(ApiKey::JoinGroup as i16).unwrap();
    for version in api.min..=api.max {
        let request = if version >= 4 { begin_join(client, version) } else { join_request("") };
        let joined = client.call(&request, version);
        assert_eq!((joined.error_code, joined.members.len()), (0, 1), "{version}");
        assert_eq!(joined.leader, joined.member_id);
        let sync = client.call(&sync_request(&joined, &[&joined.member_id]), version.min(5));
        assert_eq!(sync.error_code, 0, "{version}");
        assert_eq!(sync.assignment, format!("of {}", joined.member_id.as_str()));
        let heartbeat = HeartbeatRequest::default()
            .with_group_id(GroupId(text("g")))
            .with_generation_id(joined.generation_id)
            .with_member_id(joined.member_id.clone());
        assert_eq!(client.call(&heartbeat, version.min(4)).error_code, 0);
        commit_and_fetch(client, &joined, version);
        describe(client, version.min(5));
        let left = match version {
            0..=2 => {
                let request = LeaveGroupRequest::default()
                    .with_group_id(GroupId(text("g")))
                    .with_member_id(joined.member_id.clone());
                client.call(&request, version).error_code
            }
            _ => {
                let member = MemberIdentity::default().with_member_id(joined.member_id.clone());
                let request = LeaveGroupRequest::default().with_group_id(GroupId(text("g"))).with_members(vec![member]);
                client.call(&request, version.min(5)).members[0].error_code
            }
        };
        assert_eq!(left, 0, "{version}");
        assert_eq!(client.call(&heartbeat, version.min(4)).error_code, ResponseError::UnknownMemberId.code());
    }
    let delete = DeleteGroupsRequest::default().with_groups_names(vec![GroupId(text("g"))]);
    assert_eq!(client.call(&delete, 0).results[0].error_code, 0);
    assert_eq!(client.call(&delete, 2).results[0].error_code, ResponseError::GroupIdNotFound.code());
}

fn commit_and_fetch(client: &mut Client, joined: &JoinGroupResponse, version: i16) {
    use kafka_protocol::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
    let version = version.clamp(2, 8);
    let partition = OffsetCommitRequestPartition::default()
        .with_committed_offset(i64::from(version))
        .with_committed_metadata(Some(text("meta")));
    let topics = vec![OffsetCommitRequestTopic::default().with_name(topic("t")).with_partitions(vec![partition])];
    let request = OffsetCommitRequest::default()
        .with_group_id(GroupId(text("g")))
        .with_generation_id_or_member_epoch(joined.generation_id)
        .with_member_id(joined.member_id.clone())
        .with_topics(topics);
    assert_eq!(client.call(&request, version).topics[0].partitions[0].error_code, 0);
    let old = request.with_generation_id_or_member_epoch(joined.generation_id - 1);
    let code = ResponseError::IllegalGeneration.code();
    assert_eq!(client.call(&old, version).topics[0].partitions[0].error_code, code);
    if version < 8 {
        let one = offset_fetch_request::OffsetFetchRequestTopic::default()
            .with_name(topic("t"))
            .with_partition_indexes(vec![0, 1]);
        for asked in [Some(vec![one]), None].into_iter().take(if version >= 2 { 2 } else { 1 }) {
            let request = OffsetFetchRequest::default().with_group_id(GroupId(text("g"))).with_topics(asked.clone());
            let response = client.call(&request, version);
            let partitions = &response.topics[0].partitions;
            assert_eq!(
                (partitions[0].committed_offset, partitions[0].metadata.as_deref()),
                (i64::from(version), Some("meta"))
            );
            assert_eq!(partitions.get(1).map(|one| one.committed_offset), asked.map(|_| -1));
        }
        return;
    }
    let one = offset_fetch_request::OffsetFetchRequestTopics::default()
        .with_name(topic("t"))
        .with_partition_indexes(vec![0, 1]);
    let group = offset_fetch_request::OffsetFetchRequestGroup::default()
        .with_group_id(GroupId(text("g")))
        .with_topics(Some(vec![one]));
    let response = client.call(&OffsetFetchRequest::default().with_groups(vec![group]), version);
    let partitions = &response.groups[0].topics[0].partitions;
    assert_eq!((partitions[0].committed_offset, partitions[1].committed_offset), (8, -1));
}

fn describe(client: &mut Client, version: i16) {
    let unknown = GroupId(text("unknown"));
    let request = DescribeGroupsRequest::default().with_groups(vec![GroupId(text("g")), unknown]);
    let response = client.call(&request, version);
    let group = &response.groups[0];
    assert_eq!((group.group_state.as_str(), group.members.len()), ("Stable", 1));
    assert_eq!((group.members[0].client_id.as_str(), group.members[0].client_host.as_str()), ("test", "/127.0.0.1"));
    assert_eq!(response.groups[1].group_state.as_str(), "Dead");
    let listed = client.call(&ListGroupsRequest::default(), version);
    assert_eq!(listed.groups[0].group_id.as_str(), "g");
    if version == 5 {
        assert_eq!(listed.groups[0].group_type.as_str(), "classic");
        for (kind, count) in [("Classic", 1), ("consumer", 0)] {
            let request = ListGroupsRequest::default().with_types_filter(vec![text(kind)]);
            assert_eq!(client.call(&request, 5).groups.len(), count, "{kind}");
        }
    }
    match version {
        0..=3 => {
            let found = client.call(&FindCoordinatorRequest::default().with_key(text("g")), version);
            assert_eq!((found.error_code, found.host.as_str()), (0, "127.0.0.1"));
        }
        _ => {
            let request = FindCoordinatorRequest::default().with_coordinator_keys(vec![text("g")]);
            let found = client.call(&request, 4);
            assert_eq!((found.coordinators[0].error_code, found.coordinators[0].host.as_str()), (0, "127.0.0.1"));
        }
    }
    let transactional = FindCoordinatorRequest::default().with_key(text("x")).with_key_type(1);
    assert_eq!(client.call(&transactional, 2).error_code, 0);
    let other = FindCoordinatorRequest::default().with_key(text("x")).with_key_type(7);
    assert_eq!(client.call(&other, 2).error_code, ResponseError::InvalidRequest.code());
}

#[test]
fn two_connections_make_one_group() {
    let broker = Broker::start();
    let (mut first, mut second) = (broker.client(), broker.client());
    let request = begin_join(&mut first, 5);
    let one = first.call(&request, 5);
    first.call(&sync_request(&one, &[]), 3);
    let joining = begin_join(&mut second, 5);
    second.write(&joining, 5);
    std::thread::sleep(Duration::from_millis(20));
    let one = first.call(&join_request(&one.member_id), 5);
    let two = second.read::<JoinGroupRequest>(5);
    assert_eq!((one.members.len(), two.members.len(), one.generation_id), (2, 0, two.generation_id));
    second.write(&sync_request(&two, &[]), 3);
    std::thread::sleep(Duration::from_millis(20));
    let own = first.call(&sync_request(&one, &[&one.member_id, &two.member_id]), 3);
    assert_eq!(own.assignment, format!("of {}", one.member_id.as_str()));
    let own = second.read::<SyncGroupRequest>(3);
    assert_eq!(own.assignment, format!("of {}", two.member_id.as_str()));
}

#[test]
fn sessions_end_by_the_clock() {
    let groups = GroupOptions { min_session_timeout_ms: 10, ..GroupOptions::default() };
    let broker = Broker::with(CoreOptions { groups, ..CoreOptions::default() }, WireOptions::default());
    let (mut dead, mut alive) = (broker.client(), broker.client());
    let short = |request: JoinGroupRequest| request.with_session_timeout_ms(150).with_rebalance_timeout_ms(5_000);
    let joined = dead.call(&short(join_request("")), 3);
    dead.call(&sync_request(&joined, &[]), 3);
    drop(dead);
    let began = Instant::now();
    let joined = alive.call(&short(join_request("")), 3);
    assert_eq!((joined.error_code, joined.members.len(), joined.generation_id), (0, 1, 2));
    assert!(began.elapsed() < Duration::from_secs(3), "woken by the deadline, not by the rebalance timeout");
}
