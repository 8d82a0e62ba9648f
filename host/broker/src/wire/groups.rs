//! Consumer groups on the wire. A join or sync parks its thread until the core answers it.

use std::sync::Arc;

use bytes::Bytes;
use kafka_protocol::messages::delete_groups_response::DeletableGroupResult;
use kafka_protocol::messages::describe_groups_response::{DescribedGroup, DescribedGroupMember};
use kafka_protocol::messages::find_coordinator_response::Coordinator;
use kafka_protocol::messages::join_group_response::JoinGroupResponseMember;
use kafka_protocol::messages::leave_group_response::MemberResponse;
use kafka_protocol::messages::list_groups_response::ListedGroup;
use kafka_protocol::messages::{
    DeleteGroupsRequest, DeleteGroupsResponse, DescribeGroupsRequest, DescribeGroupsResponse, FindCoordinatorRequest,
    FindCoordinatorResponse, HeartbeatRequest, HeartbeatResponse, JoinGroupRequest, JoinGroupResponse,
    LeaveGroupRequest, LeaveGroupResponse, ListGroupsRequest, ListGroupsResponse, SyncGroupRequest, SyncGroupResponse,
};
use kafka_protocol::protocol::StrBytes;

use super::connection::{Ended, RequestHead, Session};
use super::park::Slot;
use super::{NODE_ID, code, text, unique};
use crate::core::group::{GroupAnswer, GroupDescription, JoinRequest, MemberIdentity, SyncRequest, Waiter};
use crate::core::refusal::{ErrorCode, Refusal};

/// Coordinators of groups and of transactions; there is no other kind (share groups have 2).
const COORDINATOR_KINDS: std::ops::RangeInclusive<i8> = 0..=1;
/// The type of every group here.
const CLASSIC: &str = "classic";

fn optional(value: Option<&StrBytes>) -> Option<String> {
    value.map(|value| value.as_str().to_owned())
}

/// This broker, for every group and every transactional id.
pub(super) fn find_coordinator(
    session: &Session<'_>,
    version: i16,
    request: FindCoordinatorRequest,
) -> FindCoordinatorResponse {
    let result = match request.key_type {
        kind if COORDINATOR_KINDS.contains(&kind) => Ok(()),
        other => {
            let detail = format!("coordinators of groups (0) and transactions (1) only, found kind {other}");
            Err(Refusal::new(ErrorCode::InvalidRequest, detail))
        }
    };
    let host = text(session.address.ip().to_string());
    let port = i32::from(session.address.port());
    let message = super::message(&result);
    if version < 4 {
        return FindCoordinatorResponse::default()
            .with_error_code(code(&result))
            .with_error_message(if version >= 1 { message } else { None })
            .with_node_id(NODE_ID.into())
            .with_host(host)
            .with_port(port);
    }
    let coordinators = request.coordinator_keys.into_iter().map(|key| {
        Coordinator::default()
            .with_key(key)
            .with_node_id(NODE_ID.into())
            .with_host(host.clone())
            .with_port(port)
            .with_error_code(code(&result))
            .with_error_message(message.clone())
    });
    FindCoordinatorResponse::default().with_coordinators(coordinators.collect())
}

/// Waits until the core answered, as long as the client is there.
fn wait(session: &Session<'_>, waiter: Waiter, slot: &Arc<Slot<Option<GroupAnswer>>>) -> Result<GroupAnswer, Ended> {
    loop {
        if let Some(answer) = slot.take(session.patience()) {
            return answer.ok_or(Ended::Stopping);
        }
        if !session.is_connected() {
            session.shared.groups.leave(waiter);
            session.shared.core.forget_waiter(session.shared.group_now_ms(), waiter);
            session.shared.group_clock.ring();
            return Err(Ended::Closed);
        }
    }
}

pub(super) fn join_group(
    session: &Session<'_>,
    head: &RequestHead,
    request: JoinGroupRequest,
) -> Result<JoinGroupResponse, Ended> {
    let shared = session.shared;
    let (waiter, slot) = shared.groups.enter();
    // Copied: a slice would keep the member's whole request in memory for as long as it is a member.
    let protocols = request
        .protocols
        .iter()
        .map(|protocol| (protocol.name.as_str().to_owned(), Bytes::copy_from_slice(&protocol.metadata)));
    let request = JoinRequest {
        group: request.group_id.as_str().to_owned(),
        member_id: request.member_id.as_str().to_owned(),
        instance_id: optional(request.group_instance_id.as_ref()),
        client_id: head.client_id.clone(),
        client_host: format!("/{}", session.peer.ip()),
        session_timeout_ms: request.session_timeout_ms,
        rebalance_timeout_ms: if head.version >= 1 { request.rebalance_timeout_ms } else { -1 },
        protocol_type: request.protocol_type.as_str().to_owned(),
        protocols: protocols.collect(),
        require_known_member_id: head.version >= 4,
    };
    shared.deliver(shared.core.join_group(shared.group_now_ms(), waiter, request));
    let response = JoinGroupResponse::default();
    Ok(match wait(session, waiter, &slot)? {
        GroupAnswer::Join(Ok(answer)) => {
            let members = answer.members.into_iter().map(|member| {
                let instance = member.instance_id.filter(|_| head.version >= 5).map(text);
                JoinGroupResponseMember::default()
                    .with_member_id(text(member.member_id))
                    .with_group_instance_id(instance)
                    .with_metadata(member.subscription)
            });
            let members = members.collect();
            // Before version 9 a returning static leader would assign anew from its answer; without members it cannot.
            let members = if answer.skip_assignment && head.version < 9 { Vec::new() } else { members };
            let hide_leader = answer.skip_assignment && head.version < 9;
            response
                .with_generation_id(answer.generation)
                .with_protocol_type((head.version >= 7).then(|| text(answer.protocol_type)))
                .with_protocol_name(Some(text(answer.protocol)))
                .with_leader(if hide_leader { StrBytes::new() } else { text(answer.leader) })
                .with_skip_assignment(answer.skip_assignment && head.version >= 9)
                .with_member_id(text(answer.member_id))
                .with_members(members)
        }
        GroupAnswer::Join(Err(refused)) => response
            .with_error_code(refused.refusal.code.code())
            .with_generation_id(-1)
            .with_protocol_name(if head.version >= 7 { None } else { Some(StrBytes::new()) })
            .with_member_id(text(refused.member_id)),
        GroupAnswer::Sync(_) => response.with_error_code(ErrorCode::UnknownServerError.code()),
    })
}

pub(super) fn sync_group(
    session: &Session<'_>,
    version: i16,
    request: SyncGroupRequest,
) -> Result<SyncGroupResponse, Ended> {
    let shared = session.shared;
    let (waiter, slot) = shared.groups.enter();
    let copied = |bytes: &Bytes| Bytes::copy_from_slice(bytes);
    let assignments =
        request.assignments.iter().map(|one| (one.member_id.as_str().to_owned(), copied(&one.assignment)));
    let request = SyncRequest {
        group: request.group_id.as_str().to_owned(),
        generation: request.generation_id,
        member_id: request.member_id.as_str().to_owned(),
        instance_id: optional(request.group_instance_id.as_ref()),
        protocol_type: optional(request.protocol_type.as_ref()),
        protocol: optional(request.protocol_name.as_ref()),
        assignments: assignments.collect(),
    };
    shared.deliver(shared.core.sync_group(shared.group_now_ms(), waiter, request));
    let response = SyncGroupResponse::default();
    Ok(match wait(session, waiter, &slot)? {
        GroupAnswer::Sync(Ok(answer)) => response
            .with_protocol_type((version >= 5).then(|| text(answer.protocol_type)))
            .with_protocol_name((version >= 5).then(|| text(answer.protocol)))
            .with_assignment(answer.assignment),
        GroupAnswer::Sync(Err(refusal)) => response.with_error_code(refusal.code.code()).with_assignment(Bytes::new()),
        GroupAnswer::Join(_) => response.with_error_code(ErrorCode::UnknownServerError.code()),
    })
}

pub(super) fn heartbeat(session: &Session<'_>, request: &HeartbeatRequest) -> HeartbeatResponse {
    let member = MemberIdentity {
        generation: request.generation_id,
        member_id: request.member_id.as_str().to_owned(),
        instance_id: optional(request.group_instance_id.as_ref()),
    };
    let result = session.shared.core.heartbeat(session.shared.group_now_ms(), &request.group_id, &member);
    HeartbeatResponse::default().with_error_code(code(&result))
}

pub(super) fn leave_group(session: &Session<'_>, version: i16, request: LeaveGroupRequest) -> LeaveGroupResponse {
    let shared = session.shared;
    let leave = |member_id: &str, instance_id: Option<&str>| {
        let (result, outcome) =
            shared.core.leave_group(shared.group_now_ms(), &request.group_id, member_id, instance_id);
        shared.deliver(outcome);
        code(&result)
    };
    let response = LeaveGroupResponse::default();
    if version < 3 {
        return response.with_error_code(leave(&request.member_id, None));
    }
    let members = request.members.iter().map(|member| {
        let instance = member.group_instance_id.as_ref();
        MemberResponse::default()
            .with_member_id(member.member_id.clone())
            .with_group_instance_id(member.group_instance_id.clone())
            .with_error_code(leave(&member.member_id, instance.map(StrBytes::as_str)))
    });
    response.with_members(members.collect())
}

pub(super) fn describe_groups(
    session: &Session<'_>,
    version: i16,
    request: DescribeGroupsRequest,
) -> DescribeGroupsResponse {
    let groups = unique(request.groups).map(|name| match session.shared.core.group(&name) {
        Some(group) => described(group, version),
        // Kafka's answer for a group that it does not know, in the versions served here.
        None => DescribedGroup::default().with_group_id(name).with_group_state(text("Dead")),
    });
    DescribeGroupsResponse::default().with_groups(groups.collect())
}

fn described(group: GroupDescription, version: i16) -> DescribedGroup {
    let members = group.members.into_iter().map(|member| {
        DescribedGroupMember::default()
            .with_member_id(text(member.member_id))
            .with_group_instance_id(member.instance_id.filter(|_| version >= 4).map(text))
            .with_client_id(text(member.client_id))
            .with_client_host(text(member.client_host))
            .with_member_metadata(member.subscription)
            .with_member_assignment(member.assignment)
    });
    DescribedGroup::default()
        .with_group_id(text(group.group).into())
        .with_group_state(text(group.state.name()))
        .with_protocol_type(text(group.protocol_type))
        .with_protocol_data(text(group.protocol))
        .with_members(members.collect())
}

pub(super) fn list_groups(session: &Session<'_>, version: i16, request: &ListGroupsRequest) -> ListGroupsResponse {
    let named = |words: &[StrBytes], name: &str| {
        words.is_empty() || words.iter().any(|word| word.as_str().eq_ignore_ascii_case(name))
    };
    let wanted = |group: &GroupDescription| {
        named(&request.states_filter, group.state.name()) && named(&request.types_filter, CLASSIC)
    };
    let groups = session.shared.core.groups().into_iter().filter(wanted).map(|group| {
        ListedGroup::default()
            .with_group_id(text(group.group).into())
            .with_protocol_type(text(group.protocol_type))
            .with_group_state(if version >= 4 { text(group.state.name()) } else { StrBytes::new() })
            .with_group_type(if version >= 5 { text(CLASSIC) } else { StrBytes::new() })
    });
    ListGroupsResponse::default().with_groups(groups.collect())
}

pub(super) fn delete_groups(session: &Session<'_>, request: DeleteGroupsRequest) -> DeleteGroupsResponse {
    let results = request.groups_names.into_iter().map(|name| {
        let result = session.shared.core.delete_group(&name);
        DeletableGroupResult::default().with_group_id(name).with_error_code(code(&result))
    });
    DeleteGroupsResponse::default().with_results(results.collect())
}
