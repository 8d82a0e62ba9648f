//! `GroupObserver`: the members of the application's group, asked from outside of its coordinator.

use std::sync::Arc;
use std::time::Duration;

use engine::assignment::MemberName;
use engine::broker::{BrokerError, GroupMember, Membership};
use engine::record::TopicPartition;

use crate::metadata::MetadataClient;
use crate::native::DescribedGroup;

/// An answer is wanted every few seconds; whoever waits for it has other things to do.
const TIMEOUT_MAX: Duration = Duration::from_secs(3);

/// The engine's membership over librdkafka's description of groups.
pub(crate) struct GroupObserver {
    metadata: Arc<MetadataClient>,
    group: String,
    timeout: Duration,
}

impl GroupObserver {
    pub fn new(metadata: Arc<MetadataClient>, group: &str, request_timeout: Duration) -> Self {
        Self { metadata, group: group.to_owned(), timeout: request_timeout.min(TIMEOUT_MAX) }
    }
}

impl Membership for GroupObserver {
    fn members(&mut self) -> Result<Option<Vec<GroupMember>>, BrokerError> {
        let DescribedGroup::Settled(members) = self.metadata.describe_group(&self.group, self.timeout)? else {
            return Ok(None);
        };
        let members = members.into_iter().map(|member| GroupMember {
            member_id: member.member_id,
            client_id: member.rack.filter(|rack| MemberName::parse(rack).is_some()).unwrap_or(member.client_id),
            host: member.host,
            assigned: member.assigned.into_iter().map(|(topic, at)| TopicPartition::new(topic, at)).collect(),
        });
        Ok(Some(members.collect()))
    }
}
