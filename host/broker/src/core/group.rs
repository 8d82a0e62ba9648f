//! Consumer groups, the classic protocol: requests in, answers out. An answer may come later than its request (a join
//! waits for the others, a sync for the leader), so each request that can wait carries a `Waiter`, and every call
//! returns the answers that became ready. Time is an argument; `next_deadline` says when `tick` is needed. The broker
//! never looks into subscriptions and assignments: it relays them. Rules from Kafka's `GroupCoordinator`; members are
//! not kept over a restart, generations and offsets are.

mod membership;
pub mod offsets;
mod rebalance;

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::metadata::{GroupImage, MetadataRecord, OffsetImage};
use super::refusal::{ErrorCode, Refusal};

/// Names a request whose answer may come later; chosen by the caller, unique among the open ones.
pub type Waiter = u64;

/// Bounds and delays of all groups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupOptions {
    /// `group.min.session.timeout.ms`.
    pub min_session_timeout_ms: i64,
    /// `group.max.session.timeout.ms`.
    pub max_session_timeout_ms: i64,
    /// `group.initial.rebalance.delay.ms`: how long an empty group waits for more members.
    pub initial_rebalance_delay_ms: i64,
    /// `offset.metadata.max.bytes`.
    pub offset_metadata_max_bytes: usize,
    /// `group.max.size`.
    pub max_members: usize,
}

impl Default for GroupOptions {
    fn default() -> Self {
        Self {
            min_session_timeout_ms: 6_000,
            max_session_timeout_ms: 1_800_000,
            initial_rebalance_delay_ms: 0,
            offset_metadata_max_bytes: 4_096,
            max_members: 10_000,
        }
    }
}

/// Where a group stands.
///
/// ```text
/// Empty ─join─▶ PreparingRebalance ─all joined─▶ CompletingRebalance ─leader synced─▶ Stable
///   ▲                 ▲   │ nobody left                  │ join, leave, expiry         │
///   └─────────────────┼───┘                              │                             │
///                     └──────────────────────────────────┴─────────────────────────────┘
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GroupState {
    Empty,
    PreparingRebalance,
    CompletingRebalance,
    Stable,
}

impl GroupState {
    /// Kafka's name of the state.
    pub fn name(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::PreparingRebalance => "PreparingRebalance",
            Self::CompletingRebalance => "CompletingRebalance",
            Self::Stable => "Stable",
        }
    }
}

/// A request to join.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinRequest {
    pub group: String,
    /// Empty for a new member.
    pub member_id: String,
    pub instance_id: Option<String>,
    pub client_id: String,
    pub client_host: String,
    pub session_timeout_ms: i32,
    pub rebalance_timeout_ms: i32,
    pub protocol_type: String,
    /// Assignor names with the member's subscription, the preferred first.
    pub protocols: Vec<(String, Bytes)>,
    /// A new dynamic member is told its id and joins again (KIP-394; JoinGroup version 4 and up).
    pub require_known_member_id: bool,
}

/// A member as the leader sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinedMember {
    pub member_id: String,
    pub instance_id: Option<String>,
    pub subscription: Bytes,
}

/// The answer to a join.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinAnswer {
    pub generation: i32,
    pub protocol_type: String,
    pub protocol: String,
    pub leader: String,
    pub member_id: String,
    /// The leader keeps the running assignment: it must not assign anew (KIP-814; JoinGroup version 9).
    pub skip_assignment: bool,
    /// All members for the leader, none for others.
    pub members: Vec<JoinedMember>,
}

/// A refused join; the member id is set where the client must use a new one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinRefusal {
    pub refusal: Refusal,
    pub member_id: String,
}

/// A request for the assignment; the leader brings everybody's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyncRequest {
    pub group: String,
    pub generation: i32,
    pub member_id: String,
    pub instance_id: Option<String>,
    /// Checked where given (SyncGroup version 5).
    pub protocol_type: Option<String>,
    pub protocol: Option<String>,
    pub assignments: Vec<(String, Bytes)>,
}

/// The answer to a sync.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyncAnswer {
    pub protocol_type: String,
    pub protocol: String,
    pub assignment: Bytes,
}

/// Who asks, in heartbeats and commits.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MemberIdentity {
    /// Below 0: not a member (a consumer with partitions of its own choice).
    pub generation: i32,
    pub member_id: String,
    pub instance_id: Option<String>,
}

/// An answer that became ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GroupAnswer {
    Join(Result<JoinAnswer, JoinRefusal>),
    Sync(Result<SyncAnswer, Refusal>),
}

/// What a call led to: answers for waiting requests, and changes that must be kept before they are sent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcome {
    pub answers: Vec<(Waiter, GroupAnswer)>,
    pub records: Vec<MetadataRecord>,
}

/// A member in a description.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberDescription {
    pub member_id: String,
    pub instance_id: Option<String>,
    pub client_id: String,
    pub client_host: String,
    pub subscription: Bytes,
    pub assignment: Bytes,
}

/// A group in a description.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupDescription {
    pub group: String,
    pub state: GroupState,
    pub protocol_type: String,
    pub protocol: String,
    pub generation: i32,
    pub members: Vec<MemberDescription>,
}

#[derive(Debug, Clone)]
struct Member {
    instance_id: Option<String>,
    client_id: String,
    client_host: String,
    session_timeout_ms: i64,
    rebalance_timeout_ms: i64,
    protocols: Vec<(String, Bytes)>,
    assignment: Bytes,
    joining: Option<Waiter>,
    syncing: Option<Waiter>,
    /// The session's end; does not count while the member waits for an answer.
    expires_at_ms: i64,
}

impl Member {
    fn subscription(&self, protocol: &str) -> Bytes {
        self.protocols.iter().find(|(name, _)| name == protocol).map(|(_, bytes)| bytes.clone()).unwrap_or_default()
    }

    fn is_waiting(&self) -> bool {
        self.joining.is_some() || self.syncing.is_some()
    }

    fn heard(&mut self, now_ms: i64) {
        self.expires_at_ms = now_ms.saturating_add(self.session_timeout_ms);
    }
}

/// One group.
#[derive(Debug)]
struct Group {
    name: String,
    state: GroupState,
    generation: i32,
    protocol_type: String,
    protocol: String,
    leader: Option<String>,
    members: BTreeMap<String, Member>,
    /// Static members: instance id to member id.
    instances: BTreeMap<String, String>,
    /// Ids given out whose holder has not joined with them yet, with their end.
    pending: BTreeMap<String, i64>,
    /// While preparing: when the rebalance goes on without the missing. While completing: when members that did
    /// not sync are removed.
    deadline_ms: i64,
    /// While preparing from an empty group: wait at least this long, and never longer than `deadline_ms`.
    not_before_ms: i64,
    offsets: OffsetImage,
}

impl Group {
    fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            state: GroupState::Empty,
            generation: 0,
            protocol_type: String::new(),
            protocol: String::new(),
            leader: None,
            members: BTreeMap::new(),
            instances: BTreeMap::new(),
            pending: BTreeMap::new(),
            deadline_ms: 0,
            not_before_ms: 0,
            offsets: OffsetImage::new(),
        }
    }

    fn remembered(name: &str, image: GroupImage) -> Self {
        Self {
            generation: image.generation,
            protocol_type: image.protocol_type,
            offsets: image.offsets,
            ..Self::new(name)
        }
    }

    fn unknown_member(&self, member_id: &str) -> Refusal {
        let detail = format!("group {} has no member {member_id:?}", self.name);
        Refusal::new(ErrorCode::UnknownMemberId, detail)
    }

    /// Checks that the member exists and that a static member's id is the present one.
    fn check_member(&self, member_id: &str, instance_id: Option<&str>) -> Result<(), Refusal> {
        if let Some(instance) = instance_id {
            match self.instances.get(instance) {
                None => return Err(self.unknown_member(member_id)),
                Some(current) if current != member_id => {
                    let detail = format!(
                        "group {}: the static member {instance} is {current} now, {member_id} was replaced",
                        self.name
                    );
                    return Err(Refusal::new(ErrorCode::FencedInstanceId, detail));
                }
                Some(_) => {}
            }
        }
        if self.members.contains_key(member_id) { Ok(()) } else { Err(self.unknown_member(member_id)) }
    }

    fn check_generation(&self, generation: i32) -> Result<(), Refusal> {
        if generation == self.generation {
            return Ok(());
        }
        let detail = format!("group {} is at generation {}, found {generation}", self.name, self.generation);
        Err(Refusal::new(ErrorCode::IllegalGeneration, detail))
    }

    fn heartbeat(&mut self, member: &MemberIdentity, now_ms: i64) -> Result<(), Refusal> {
        self.check_member(&member.member_id, member.instance_id.as_deref())?;
        self.check_generation(member.generation)?;
        if let Some(known) = self.members.get_mut(&member.member_id) {
            known.heard(now_ms);
        }
        match self.state {
            GroupState::Empty => Err(self.unknown_member(&member.member_id)),
            GroupState::PreparingRebalance => {
                let detail = format!("group {} is rebalancing: join again", self.name);
                Err(Refusal::new(ErrorCode::RebalanceInProgress, detail))
            }
            GroupState::CompletingRebalance | GroupState::Stable => Ok(()),
        }
    }

    fn describe(&self) -> GroupDescription {
        let members = self.members.iter().map(|(member_id, member)| MemberDescription {
            member_id: member_id.clone(),
            instance_id: member.instance_id.clone(),
            client_id: member.client_id.clone(),
            client_host: member.client_host.clone(),
            subscription: member.subscription(&self.protocol),
            assignment: member.assignment.clone(),
        });
        GroupDescription {
            group: self.name.clone(),
            state: self.state,
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone(),
            generation: self.generation,
            members: members.collect(),
        }
    }
}

/// Every group of the broker.
#[derive(Debug)]
pub struct Groups {
    options: GroupOptions,
    groups: BTreeMap<String, Group>,
    /// Part of every member id, different at each start of the broker.
    incarnation: u64,
    members_named: u64,
    /// Group, topic, partition and transactional id of every offset that waits for the end of a transaction.
    held_offsets: BTreeSet<(String, String, i32, String)>,
}

impl Groups {
    pub fn new(options: GroupOptions, incarnation: u64, images: BTreeMap<String, GroupImage>) -> Self {
        let groups = images.into_iter().map(|(name, image)| {
            let group = Group::remembered(&name, image);
            (name, group)
        });
        Self { options, groups: groups.collect(), incarnation, members_named: 0, held_offsets: BTreeSet::new() }
    }

    /// Joins a member, or begins to: the answer of `waiter` may come with a later call.
    pub fn join(&mut self, now_ms: i64, waiter: Waiter, request: JoinRequest) -> Outcome {
        let mut outcome = Outcome::default();
        let member_id = request.member_id.clone();
        if let Err(refusal) = self.join_checked(now_ms, waiter, request, &mut outcome) {
            let member_id = if refusal.member_id.is_empty() { member_id } else { refusal.member_id };
            let answer = GroupAnswer::Join(Err(JoinRefusal { member_id, ..refusal }));
            outcome.answers.push((waiter, answer));
        }
        outcome
    }

    fn join_checked(
        &mut self,
        now_ms: i64,
        waiter: Waiter,
        request: JoinRequest,
        outcome: &mut Outcome,
    ) -> Result<(), JoinRefusal> {
        check_group_name(&request.group)?;
        let timeout = i64::from(request.session_timeout_ms);
        let (least, most) = (self.options.min_session_timeout_ms, self.options.max_session_timeout_ms);
        if timeout < least || timeout > most {
            let detail = format!("group {}: a session timeout of {least} to {most} ms, found {timeout}", request.group);
            return Err(Refusal::new(ErrorCode::InvalidSessionTimeout, detail).into());
        }
        if !self.groups.contains_key(&request.group) && !request.member_id.is_empty() {
            let detail = format!("there is no group {} and so no member {:?}", request.group, request.member_id);
            return Err(Refusal::new(ErrorCode::UnknownMemberId, detail).into());
        }
        self.members_named += 1;
        let base = request.instance_id.as_deref().unwrap_or(&request.client_id);
        let new_id = format!("{base}-{}-{}", self.incarnation, self.members_named);
        let group = self.groups.entry(request.group.clone()).or_insert_with(|| Group::new(&request.group));
        group.join(now_ms, waiter, request, new_id, &self.options, outcome)
    }

    /// Asks for the assignment; the answer of `waiter` may come with a later call.
    pub fn sync(&mut self, now_ms: i64, waiter: Waiter, request: SyncRequest) -> Outcome {
        let mut outcome = Outcome::default();
        let result = match self.find(&request.group) {
            Ok(group) => group.sync(now_ms, waiter, request, &mut outcome),
            Err(refusal) => Err(refusal),
        };
        if let Err(refusal) = result {
            outcome.answers.push((waiter, GroupAnswer::Sync(Err(refusal))));
        }
        outcome
    }

    pub fn heartbeat(&mut self, now_ms: i64, group: &str, member: &MemberIdentity) -> Result<(), Refusal> {
        check_group_name(group)?;
        self.find(group)?.heartbeat(member, now_ms)
    }

    /// Removes a member at its own wish; a static member may be named by its instance id alone.
    pub fn leave(
        &mut self,
        now_ms: i64,
        group: &str,
        member_id: &str,
        instance_id: Option<&str>,
    ) -> (Result<(), Refusal>, Outcome) {
        let mut outcome = Outcome::default();
        let result = check_group_name(group).and_then(|()| self.find(group));
        let result = result.and_then(|group| group.leave(now_ms, member_id, instance_id, &mut outcome));
        (result, outcome)
    }

    /// Lets time pass: expires sessions and rebalances whose deadline has come.
    pub fn tick(&mut self, now_ms: i64) -> Outcome {
        let mut outcome = Outcome::default();
        for group in self.groups.values_mut() {
            group.tick(now_ms, &mut outcome);
        }
        outcome
    }

    /// When `tick` has something to do next; `None` while no group has members.
    pub fn next_deadline(&self) -> Option<i64> {
        self.groups.values().filter_map(Group::next_deadline).min()
    }

    /// Gives up waiting: the request of this waiter is forgotten, its member stays until its session ends.
    pub fn forget(&mut self, now_ms: i64, waiter: Waiter) {
        for member in self.groups.values_mut().flat_map(|group| group.members.values_mut()) {
            if member.syncing == Some(waiter) {
                member.syncing = None;
                member.heard(now_ms);
            }
        }
    }

    pub fn list(&self) -> Vec<GroupDescription> {
        self.groups.values().map(Group::describe).collect()
    }

    pub fn describe(&self, group: &str) -> Option<GroupDescription> {
        self.groups.get(group).map(Group::describe)
    }

    /// Forgets a group without members, its offsets included.
    pub fn delete(&mut self, group: &str) -> Result<MetadataRecord, Refusal> {
        check_group_name(group)?;
        let Some(found) = self.groups.get(group) else {
            return Err(Refusal::new(ErrorCode::GroupIdNotFound, format!("there is no group {group}")));
        };
        if !found.members.is_empty() || !found.pending.is_empty() {
            let detail = format!("group {group} has {} members", found.members.len());
            return Err(Refusal::new(ErrorCode::NonEmptyGroup, detail));
        }
        Ok(MetadataRecord::GroupDeleted { group: group.to_owned() })
    }

    fn find(&mut self, group: &str) -> Result<&mut Group, Refusal> {
        self.groups
            .get_mut(group)
            .ok_or_else(|| Refusal::new(ErrorCode::UnknownMemberId, format!("there is no group {group}")))
    }

    /// Names of topics that committed offsets of the group stand on.
    pub fn topics_with_offsets(&self, group: &str) -> BTreeSet<String> {
        self.groups.get(group).map(|group| group.offsets.keys().cloned().collect()).unwrap_or_default()
    }
}

impl From<Refusal> for JoinRefusal {
    fn from(refusal: Refusal) -> Self {
        Self { refusal, member_id: String::new() }
    }
}

fn check_group_name(group: &str) -> Result<(), Refusal> {
    match group.is_empty() {
        true => Err(Refusal::new(ErrorCode::InvalidGroupId, "the group id is empty")),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests;
