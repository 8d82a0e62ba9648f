//! `DirectMembership`: the group's members as the core describes them.

use engine::broker::{BrokerError, GroupMember, Membership};

use super::membership::decode_assignment;
use super::{Connection, Operation};
use crate::core::group::GroupState;

pub(super) struct DirectMembership {
    connection: Connection,
}

impl DirectMembership {
    pub(super) fn new(connection: Connection) -> Self {
        Self { connection }
    }
}

impl Membership for DirectMembership {
    fn members(&mut self) -> Result<Option<Vec<GroupMember>>, BrokerError> {
        let group = &self.connection.options.group;
        let describe = || Ok(self.connection.core().group(group));
        let described = self.connection.call(Operation::DescribeGroup, || group.clone(), describe)?;
        // A group that nobody has joined yet has no members.
        let Some(described) = described else { return Ok(Some(Vec::new())) };
        match described.state {
            GroupState::Stable | GroupState::Empty => {}
            GroupState::PreparingRebalance | GroupState::CompletingRebalance => return Ok(None),
        }
        let members = described.members.into_iter().map(|member| GroupMember {
            member_id: member.member_id,
            client_id: member.client_id,
            host: member.client_host,
            assigned: decode_assignment(&member.assignment).into_iter().collect(),
        });
        Ok(Some(members.collect()))
    }
}
