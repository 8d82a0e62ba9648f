//! A rebalance from its beginning to the leader's assignment: who is waited for, until when, which assignor wins, who
//! gets which answer. Every generation is kept (as a record) before its members hear of it.

use std::collections::BTreeMap;

use super::{Group, GroupAnswer, GroupState, JoinAnswer, JoinedMember, Outcome, SyncAnswer, SyncRequest, Waiter};
use crate::core::metadata::MetadataRecord;
use crate::core::refusal::{ErrorCode, Refusal};

impl Group {
    /// Begins a rebalance, or goes on with the running one: members must join again until the longest of their
    /// rebalance timeouts is over.
    pub(super) fn prepare_rebalance(&mut self, now_ms: i64, initial_delay_ms: i64, outcome: &mut Outcome) {
        if self.state == GroupState::CompletingRebalance {
            let detail = format!("group {} rebalances again: join again", self.name);
            self.answer_syncs(now_ms, Some(&Refusal::new(ErrorCode::RebalanceInProgress, detail)), outcome);
        }
        let timeout = self.members.values().map(|member| member.rebalance_timeout_ms).max().unwrap_or(0);
        match self.state {
            GroupState::PreparingRebalance => {
                // Each member that comes while an empty group gathers gives the next ones time to come too.
                if self.not_before_ms > now_ms {
                    self.not_before_ms = now_ms.saturating_add(initial_delay_ms).max(self.not_before_ms);
                    self.not_before_ms = self.not_before_ms.min(self.deadline_ms);
                }
            }
            GroupState::Empty => {
                self.deadline_ms = now_ms.saturating_add(timeout.max(initial_delay_ms));
                self.not_before_ms = now_ms.saturating_add(initial_delay_ms);
            }
            GroupState::CompletingRebalance | GroupState::Stable => {
                self.deadline_ms = now_ms.saturating_add(timeout);
                self.not_before_ms = now_ms;
            }
        }
        self.state = GroupState::PreparingRebalance;
        self.try_complete_join(now_ms, false, outcome);
    }

    /// Ends the join phase when everybody has joined, or when `expired` without those who have not.
    pub(super) fn try_complete_join(&mut self, now_ms: i64, expired: bool, outcome: &mut Outcome) {
        if self.state != GroupState::PreparingRebalance {
            return;
        }
        let missing = self.members.values().any(|member| member.joining.is_none()) || !self.pending.is_empty();
        if !expired && (missing || now_ms < self.not_before_ms) {
            return;
        }
        // Static members keep their place without joining; only their session's end removes them.
        let absent: Vec<String> = self
            .members
            .iter()
            .filter(|(_, member)| member.joining.is_none() && member.instance_id.is_none())
            .map(|(id, _)| id.clone())
            .collect();
        for member_id in absent {
            self.drop_member(&member_id, outcome);
        }
        if self.members.is_empty() {
            self.become_empty(outcome);
            return;
        }
        let joined = |member_id: &String| self.members.get(member_id).is_some_and(|member| member.joining.is_some());
        if !self.leader.as_ref().is_some_and(joined) {
            let Some(leader) = self.members.keys().find(|id| joined(id)).cloned() else {
                // Only absent static members are left: wait for one of them or for their sessions to end.
                let timeout = self.members.values().map(|member| member.rebalance_timeout_ms).max().unwrap_or(0);
                self.deadline_ms = now_ms.saturating_add(timeout.max(1));
                return;
            };
            self.leader = Some(leader);
        }
        self.begin_generation(now_ms, outcome);
    }

    fn become_empty(&mut self, outcome: &mut Outcome) {
        self.state = GroupState::Empty;
        self.leader = None;
        self.protocol.clear();
        self.next_generation(outcome);
    }

    fn next_generation(&mut self, outcome: &mut Outcome) {
        self.generation = self.generation.checked_add(1).unwrap_or(1);
        outcome.records.push(MetadataRecord::GroupGeneration {
            group: self.name.clone(),
            generation: self.generation,
            protocol_type: self.protocol_type.clone(),
        });
    }

    fn begin_generation(&mut self, now_ms: i64, outcome: &mut Outcome) {
        self.next_generation(outcome);
        self.protocol = self.select_protocol();
        self.state = GroupState::CompletingRebalance;
        let leader = self.leader.clone().unwrap_or_default();
        let everybody = self.joined_members();
        let mut longest = 0;
        for (member_id, member) in &mut self.members {
            longest = longest.max(member.rebalance_timeout_ms);
            let Some(waiter) = member.joining.take() else { continue };
            member.heard(now_ms);
            let answer = JoinAnswer {
                generation: self.generation,
                protocol_type: self.protocol_type.clone(),
                protocol: self.protocol.clone(),
                leader: leader.clone(),
                member_id: member_id.clone(),
                skip_assignment: false,
                members: if *member_id == leader { everybody.clone() } else { Vec::new() },
            };
            outcome.answers.push((waiter, GroupAnswer::Join(Ok(answer))));
        }
        self.deadline_ms = now_ms.saturating_add(longest);
    }

    /// The assignor that most members prefer among those that all of them know; ties go by name.
    fn select_protocol(&self) -> String {
        let known_to_all =
            |name: &str| self.members.values().all(|member| member.protocols.iter().any(|(known, _)| known == name));
        let mut votes: BTreeMap<&str, usize> = BTreeMap::new();
        for member in self.members.values() {
            if let Some((name, _)) = member.protocols.iter().find(|(name, _)| known_to_all(name)) {
                *votes.entry(name).or_default() += 1;
            }
        }
        let most = votes.values().copied().max().unwrap_or(0);
        votes.into_iter().find(|(_, count)| *count == most).map(|(name, _)| name.to_owned()).unwrap_or_default()
    }

    pub(super) fn joined_members(&self) -> Vec<JoinedMember> {
        let member = |(member_id, member): (&String, &super::Member)| JoinedMember {
            member_id: member_id.clone(),
            instance_id: member.instance_id.clone(),
            subscription: member.subscription(&self.protocol),
        };
        self.members.iter().map(member).collect()
    }

    pub(super) fn sync(
        &mut self,
        now_ms: i64,
        waiter: Waiter,
        request: SyncRequest,
        outcome: &mut Outcome,
    ) -> Result<(), Refusal> {
        self.check_member(&request.member_id, request.instance_id.as_deref())?;
        self.check_generation(request.generation)?;
        let differs = |given: &Option<String>, own: &str| given.as_deref().is_some_and(|given| given != own);
        if differs(&request.protocol_type, &self.protocol_type) || differs(&request.protocol, &self.protocol) {
            let detail = format!(
                "group {} runs {:?} of {:?}, found {:?} of {:?}",
                self.name, self.protocol, self.protocol_type, request.protocol, request.protocol_type
            );
            return Err(Refusal::new(ErrorCode::InconsistentGroupProtocol, detail));
        }
        let is_leader = self.leader.as_deref() == Some(request.member_id.as_str());
        let (protocol_type, protocol) = (self.protocol_type.clone(), self.protocol.clone());
        let unknown = self.unknown_member(&request.member_id);
        let Some(member) = self.members.get_mut(&request.member_id) else { return Err(unknown) };
        member.heard(now_ms);
        match self.state {
            GroupState::Empty => Err(unknown),
            GroupState::PreparingRebalance => {
                let detail = format!("group {} is rebalancing: join again", self.name);
                Err(Refusal::new(ErrorCode::RebalanceInProgress, detail))
            }
            GroupState::Stable => {
                let answer = SyncAnswer { protocol_type, protocol, assignment: member.assignment.clone() };
                outcome.answers.push((waiter, GroupAnswer::Sync(Ok(answer))));
                Ok(())
            }
            GroupState::CompletingRebalance => {
                member.syncing = Some(waiter);
                if is_leader {
                    for member in self.members.values_mut() {
                        member.assignment.clear();
                    }
                    for (member_id, assignment) in request.assignments {
                        if let Some(member) = self.members.get_mut(&member_id) {
                            member.assignment = assignment;
                        }
                    }
                    self.state = GroupState::Stable;
                    self.answer_syncs(now_ms, None, outcome);
                }
                Ok(())
            }
        }
    }

    /// Answers every waiting sync: with the refusal, or with the member's assignment.
    fn answer_syncs(&mut self, now_ms: i64, refusal: Option<&Refusal>, outcome: &mut Outcome) {
        for member in self.members.values_mut() {
            let Some(waiter) = member.syncing.take() else { continue };
            member.heard(now_ms);
            let answer = match refusal {
                Some(refusal) => Err(refusal.clone()),
                None => Ok(SyncAnswer {
                    protocol_type: self.protocol_type.clone(),
                    protocol: self.protocol.clone(),
                    assignment: member.assignment.clone(),
                }),
            };
            outcome.answers.push((waiter, GroupAnswer::Sync(answer)));
        }
    }

    pub(super) fn tick(&mut self, now_ms: i64, outcome: &mut Outcome) {
        let pending = self.pending.len();
        self.pending.retain(|_, expires_at_ms| *expires_at_ms > now_ms);
        let silent: Vec<String> = self
            .members
            .iter()
            .filter(|(_, member)| !member.is_waiting() && member.expires_at_ms <= now_ms)
            .map(|(id, _)| id.clone())
            .collect();
        for member_id in silent {
            self.remove_member(now_ms, &member_id, outcome);
        }
        if pending != self.pending.len() {
            self.try_complete_join(now_ms, false, outcome);
        }
        match self.state {
            GroupState::PreparingRebalance => {
                self.try_complete_join(now_ms, now_ms >= self.deadline_ms, outcome);
            }
            GroupState::CompletingRebalance if now_ms >= self.deadline_ms => {
                let late: Vec<String> = self
                    .members
                    .iter()
                    .filter(|(_, member)| member.syncing.is_none() && member.instance_id.is_none())
                    .map(|(id, _)| id.clone())
                    .collect();
                for member_id in &late {
                    self.drop_member(member_id, outcome);
                }
                self.prepare_rebalance(now_ms, 0, outcome);
            }
            _ => {}
        }
    }

    pub(super) fn next_deadline(&self) -> Option<i64> {
        let sessions = self.members.values().filter(|member| !member.is_waiting()).map(|member| member.expires_at_ms);
        let pending = self.pending.values().copied();
        let phase = match self.state {
            GroupState::Empty | GroupState::Stable => None,
            GroupState::CompletingRebalance => Some(self.deadline_ms),
            GroupState::PreparingRebalance => {
                let waits_only =
                    self.members.values().all(|member| member.joining.is_some()) && self.pending.is_empty();
                Some(if waits_only { self.not_before_ms.min(self.deadline_ms) } else { self.deadline_ms })
            }
        };
        sessions.chain(pending).chain(phase).min()
    }
}
