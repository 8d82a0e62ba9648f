//! The client's side of the classic group protocol: join, sync, heartbeats, and the order of events that a rebalance
//! shows to the engine. Each event is answered (by `assigned` or `unassigned`) before the next one, except that a
//! lost membership is told at once. Driven by `poll`; never waits.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use engine::broker::{BrokerError, GroupMetadata, RebalanceEvent};
use engine::record::TopicPartition;

use super::assignor::{self, Assignment, Named, RebalanceProtocol, Subscription};
use super::{Connection, Operation};
use crate::core::group::{GroupAnswer, JoinAnswer, JoinRequest, MemberIdentity, SyncRequest, Waiter};
use crate::core::refusal::{ErrorCode, Refusal};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Must join, after what it has to give up is given up.
    Unjoined,
    Joining(Waiter),
    Syncing(Waiter),
    /// `target` is known; give up first what is not in it.
    Reconciling,
    Stable,
}

/// What the engine was told and has not answered yet.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Pending {
    Nothing,
    /// These must be unassigned.
    GiveUp(BTreeSet<TopicPartition>),
    /// These must be assigned.
    TakeOver(BTreeSet<TopicPartition>),
}

/// A member of a group.
pub(super) struct Membership {
    connection: Connection,
    topics: Vec<Arc<str>>,
    instance_id: Option<String>,
    member_id: String,
    /// Below 0 while it is no member.
    generation: i32,
    /// The generation in which `owned` was assigned.
    owned_in: i32,
    /// Whether to join again once `target` is reached, so that others get what was given up (KIP-429).
    join_again: bool,
    /// How often the broker had been started when the waiting request was sent.
    sent_to: u64,
    phase: Phase,
    pending: Pending,
    owned: BTreeSet<TopicPartition>,
    target: BTreeSet<TopicPartition>,
    next_heartbeat_ms: i64,
    subscribed: bool,
}

impl Membership {
    pub(super) fn new(connection: Connection) -> Self {
        let instance_id =
            connection.options.group_instance_id.as_ref().map(|prefix| format!("{prefix}-{}", connection.name));
        Self {
            connection,
            topics: Vec::new(),
            instance_id,
            member_id: String::new(),
            generation: -1,
            owned_in: -1,
            join_again: false,
            sent_to: 0,
            phase: Phase::Unjoined,
            pending: Pending::Nothing,
            owned: BTreeSet::new(),
            target: BTreeSet::new(),
            next_heartbeat_ms: 0,
            subscribed: false,
        }
    }

    pub(super) fn subscribe(&mut self, topics: &[Arc<str>]) {
        self.topics = topics.to_vec();
        self.subscribed = true;
    }

    pub(super) fn owns(&self, partition: &TopicPartition) -> bool {
        self.owned.contains(partition)
    }

    pub(super) fn identity(&self) -> MemberIdentity {
        MemberIdentity {
            generation: self.generation,
            member_id: self.member_id.clone(),
            instance_id: self.instance_id.clone(),
        }
    }

    pub(super) fn metadata(&self) -> GroupMetadata {
        GroupMetadata {
            group_id: self.connection.options.group.clone(),
            generation_id: self.generation,
            member_id: self.member_id.clone(),
            group_instance_id: self.instance_id.clone(),
        }
    }

    /// The engine began to read these.
    pub(super) fn assigned<'a>(&mut self, partitions: impl Iterator<Item = &'a TopicPartition>) {
        for partition in partitions {
            self.owned.insert(partition.clone());
            if let Pending::TakeOver(waiting) = &mut self.pending {
                waiting.remove(partition);
            }
        }
        self.settle();
    }

    /// The engine gave these up.
    pub(super) fn unassigned(&mut self, partitions: &[TopicPartition]) {
        for partition in partitions {
            self.owned.remove(partition);
            if let Pending::GiveUp(waiting) | Pending::TakeOver(waiting) = &mut self.pending {
                waiting.remove(partition);
            }
        }
        self.settle();
    }

    fn settle(&mut self) {
        if let Pending::GiveUp(waiting) | Pending::TakeOver(waiting) = &self.pending
            && waiting.is_empty()
        {
            self.pending = Pending::Nothing;
        }
    }

    /// Serves the group: returns the next event, or `None` when there is nothing to tell for now.
    pub(super) fn serve(&mut self) -> Result<Option<RebalanceEvent>, BrokerError> {
        if !self.subscribed {
            return Ok(None);
        }
        self.connection.broker.tick();
        loop {
            if let Some(event) = self.heartbeat() {
                return Ok(Some(event));
            }
            if self.pending != Pending::Nothing {
                return Ok(None);
            }
            match self.phase {
                Phase::Stable => return Ok(None),
                Phase::Reconciling => return Ok(Some(self.reconcile())),
                Phase::Unjoined if self.connection.options.protocol == RebalanceProtocol::Eager => {
                    if !self.owned.is_empty() {
                        return Ok(Some(self.give_up(RebalanceEvent::Revoked)));
                    }
                    self.join()?;
                }
                Phase::Unjoined => self.join()?,
                Phase::Joining(waiter) | Phase::Syncing(waiter) => {
                    let lost = match self.connection.broker.take_answer(waiter) {
                        Some(answer) => self.answered(answer)?,
                        // A broker that was restarted knows nothing of the request.
                        None if self.sent_to != self.connection.broker.starts() => self.lose(),
                        None => return Ok(None),
                    };
                    if lost.is_some() {
                        return Ok(lost);
                    }
                }
            }
        }
    }

    fn answered(&mut self, answer: GroupAnswer) -> Result<Option<RebalanceEvent>, BrokerError> {
        match answer {
            GroupAnswer::Join(Ok(answer)) => self.joined(answer).map(|()| None),
            GroupAnswer::Join(Err(refused)) if refused.refusal.code == ErrorCode::MemberIdRequired => {
                self.member_id = refused.member_id;
                self.phase = Phase::Unjoined;
                Ok(None)
            }
            GroupAnswer::Sync(Ok(answer)) => {
                self.target = decode_assignment(&answer.assignment);
                self.phase = Phase::Reconciling;
                self.next_heartbeat_ms = self.connection.now_ms() + self.connection.options.heartbeat_interval_ms;
                Ok(None)
            }
            GroupAnswer::Join(Err(refused)) => Ok(self.refused(&refused.refusal)),
            GroupAnswer::Sync(Err(refusal)) => Ok(self.refused(&refusal)),
        }
    }

    /// Tells the broker that the member lives, when it is time to; not while a join or sync is waiting.
    fn heartbeat(&mut self) -> Option<RebalanceEvent> {
        let now_ms = self.connection.now_ms();
        let waiting = matches!(self.phase, Phase::Joining(_) | Phase::Syncing(_));
        if waiting || self.generation < 0 || now_ms < self.next_heartbeat_ms {
            return None;
        }
        let (core, group, identity) = (self.connection.core(), &self.connection.options.group, self.identity());
        let mut refused = None;
        let sent = self.connection.call(
            Operation::Heartbeat,
            || identity.member_id.clone(),
            || {
                refused = core.heartbeat(now_ms, group, &identity).err();
                Ok(())
            },
        );
        // A heartbeat that did not get through is sent again with the next poll.
        if sent.is_ok() {
            self.next_heartbeat_ms = now_ms + self.connection.options.heartbeat_interval_ms;
        }
        let refusal = refused?;
        if refusal.code != ErrorCode::RebalanceInProgress {
            return self.refused(&refusal);
        }
        // What was told must be answered first; the next heartbeat says it again.
        if self.pending == Pending::Nothing && self.phase == Phase::Stable {
            self.phase = Phase::Unjoined;
        }
        None
    }

    fn join(&mut self) -> Result<(), BrokerError> {
        let options = &self.connection.options;
        let subscription = Subscription {
            topics: self.topics.iter().map(|topic| topic.to_string()).collect(),
            owned: self.owned.iter().map(to_named).collect(),
            generation: self.owned_in,
        };
        let request = JoinRequest {
            group: options.group.clone(),
            member_id: self.member_id.clone(),
            instance_id: self.instance_id.clone(),
            client_id: self.connection.client_id(),
            client_host: "/127.0.0.1".to_owned(),
            session_timeout_ms: options.session_timeout_ms,
            rebalance_timeout_ms: options.rebalance_timeout_ms,
            protocol_type: "consumer".to_owned(),
            protocols: vec![(options.protocol.name().to_owned(), encode(&subscription))],
            require_known_member_id: true,
        };
        let waiter = self.connection.broker.new_waiter();
        self.connection.call(
            Operation::Join,
            || self.member_id.clone(),
            || {
                let outcome = self.connection.core().join_group(self.connection.now_ms(), waiter, request);
                self.connection.broker.keep(outcome);
                Ok(())
            },
        )?;
        self.sent_to = self.connection.broker.starts();
        self.phase = Phase::Joining(waiter);
        Ok(())
    }

    fn joined(&mut self, answer: JoinAnswer) -> Result<(), BrokerError> {
        self.member_id = answer.member_id.clone();
        self.generation = answer.generation;
        let assignments = if answer.leader == answer.member_id && !answer.skip_assignment {
            self.assign_as_leader(&answer)
        } else {
            Vec::new()
        };
        let request = SyncRequest {
            group: self.connection.options.group.clone(),
            generation: self.generation,
            member_id: self.member_id.clone(),
            instance_id: self.instance_id.clone(),
            protocol_type: None,
            protocol: None,
            assignments,
        };
        let waiter = self.connection.broker.new_waiter();
        // A sync that does not get through leaves the member unsynced: it has to join again.
        self.phase = Phase::Unjoined;
        let detail = || format!("generation {}", self.generation);
        self.connection.call(Operation::Sync, detail, || {
            let outcome = self.connection.core().sync_group(self.connection.now_ms(), waiter, request);
            self.connection.broker.keep(outcome);
            Ok(())
        })?;
        self.sent_to = self.connection.broker.starts();
        self.phase = Phase::Syncing(waiter);
        Ok(())
    }

    fn assign_as_leader(&self, answer: &JoinAnswer) -> Vec<(String, Bytes)> {
        let members: BTreeMap<String, Subscription> =
            answer.members.iter().map(|member| (member.member_id.clone(), decode(&member.subscription))).collect();
        let topics = self.connection.core().topics().into_iter();
        let counts = topics.map(|topic| (topic.name.to_string(), topic.partitions.len() as i32)).collect();
        assignor::assign(&members, &counts, self.connection.options.protocol)
            .into_iter()
            .map(|(member, assignment)| (member, encode(&assignment)))
            .collect()
    }

    /// One step towards `target`.
    fn reconcile(&mut self) -> RebalanceEvent {
        let revoked: BTreeSet<TopicPartition> = self.owned.difference(&self.target).cloned().collect();
        if !revoked.is_empty() {
            self.join_again = self.connection.options.protocol == RebalanceProtocol::Cooperative;
            self.pending = Pending::GiveUp(revoked.clone());
            return RebalanceEvent::Revoked(revoked.into_iter().collect());
        }
        let added: BTreeSet<TopicPartition> = self.target.difference(&self.owned).cloned().collect();
        self.phase = if std::mem::take(&mut self.join_again) { Phase::Unjoined } else { Phase::Stable };
        self.owned_in = self.generation;
        self.pending = if added.is_empty() { Pending::Nothing } else { Pending::TakeOver(added.clone()) };
        RebalanceEvent::Assigned(added.into_iter().collect())
    }

    /// A refusal of the group: either join again as the same member, or the membership is over.
    fn refused(&mut self, refusal: &Refusal) -> Option<RebalanceEvent> {
        self.phase = Phase::Unjoined;
        match refusal.code {
            ErrorCode::UnknownMemberId | ErrorCode::IllegalGeneration | ErrorCode::FencedInstanceId => self.lose(),
            _ => None,
        }
    }

    fn lose(&mut self) -> Option<RebalanceEvent> {
        self.phase = Phase::Unjoined;
        self.member_id.clear();
        self.generation = -1;
        self.owned_in = -1;
        self.join_again = false;
        self.target.clear();
        if let Pending::TakeOver(waiting) = &self.pending {
            self.owned.extend(waiting.iter().cloned());
        }
        self.pending = Pending::Nothing;
        (!self.owned.is_empty()).then(|| self.give_up(RebalanceEvent::Lost))
    }

    fn give_up(&mut self, event: fn(Vec<TopicPartition>) -> RebalanceEvent) -> RebalanceEvent {
        self.pending = Pending::GiveUp(self.owned.clone());
        event(self.owned.iter().cloned().collect())
    }

    /// Leaves the group.
    pub(super) fn leave(&mut self) -> Result<(), BrokerError> {
        if self.member_id.is_empty() {
            return Ok(());
        }
        let (options, now_ms) = (&self.connection.options, self.connection.now_ms());
        let left = self.connection.call(
            Operation::Leave,
            || self.member_id.clone(),
            || {
                let (result, outcome) = self.connection.core().leave_group(
                    now_ms,
                    &options.group,
                    &self.member_id,
                    self.instance_id.as_deref(),
                );
                self.connection.broker.keep(outcome);
                result
            },
        );
        self.member_id.clear();
        self.generation = -1;
        self.subscribed = false;
        left
    }
}

fn to_named(partition: &TopicPartition) -> Named {
    (partition.topic.to_string(), partition.partition)
}

fn encode<T: serde::Serialize>(value: &T) -> Bytes {
    // Strings and numbers in structs: their encoding cannot fail.
    serde_json::to_vec(value).map(Bytes::from).unwrap_or_default()
}

fn decode<T: serde::de::DeserializeOwned + Default>(bytes: &[u8]) -> T {
    serde_json::from_slice(bytes).unwrap_or_default()
}

pub(super) fn decode_assignment(bytes: &[u8]) -> BTreeSet<TopicPartition> {
    let Assignment { partitions } = decode(bytes);
    partitions.into_iter().map(|(topic, partition)| TopicPartition::new(topic, partition)).collect()
}
