//! Members come, are replaced and go. Each change either starts a rebalance or answers the member from what stands;
//! `rebalance` does the rest.

use bytes::Bytes;

use super::{
    Group, GroupAnswer, GroupOptions, GroupState, JoinAnswer, JoinRefusal, JoinRequest, Member, Outcome, Waiter,
};
use crate::core::refusal::{ErrorCode, Refusal};

impl Group {
    pub(super) fn join(
        &mut self,
        now_ms: i64,
        waiter: Waiter,
        request: JoinRequest,
        new_id: String,
        options: &GroupOptions,
        outcome: &mut Outcome,
    ) -> Result<(), JoinRefusal> {
        self.check_protocols(&request)?;
        if request.member_id.is_empty() {
            return match request.instance_id.clone() {
                Some(instance) => self.join_static(now_ms, waiter, request, new_id, instance, options, outcome),
                None => self.join_new(now_ms, waiter, request, new_id, options, outcome),
            };
        }
        if request.instance_id.is_none() && self.pending.remove(&request.member_id).is_some() {
            let member_id = request.member_id.clone();
            return self.add_member(now_ms, waiter, member_id, request, options, outcome);
        }
        self.check_member(&request.member_id, request.instance_id.as_deref())?;
        self.rejoin(now_ms, waiter, request, outcome);
        Ok(())
    }

    /// All members share a protocol type, and there must be an assignor that every member knows.
    fn check_protocols(&self, request: &JoinRequest) -> Result<(), Refusal> {
        let inconsistent = |detail: String| Refusal::new(ErrorCode::InconsistentGroupProtocol, detail);
        if request.protocol_type.is_empty() || request.protocols.is_empty() {
            return Err(inconsistent(format!("group {}: a member needs a protocol type and a protocol", self.name)));
        }
        let mut others = self.members.iter().filter(|(id, _)| **id != request.member_id).map(|(_, member)| member);
        if !self.members.is_empty() && self.protocol_type != request.protocol_type {
            return Err(inconsistent(format!(
                "group {} has protocol type {:?}, found {:?}",
                self.name, self.protocol_type, request.protocol_type
            )));
        }
        let replaced = request.instance_id.as_ref().and_then(|instance| self.instances.get(instance));
        let shared = request.protocols.iter().any(|(name, _)| {
            self.members
                .iter()
                .filter(|(id, _)| **id != request.member_id && Some(*id) != replaced)
                .all(|(_, member)| member.protocols.iter().any(|(known, _)| known == name))
        });
        if shared || others.next().is_none() {
            return Ok(());
        }
        let offered: Vec<&str> = request.protocols.iter().map(|(name, _)| name.as_str()).collect();
        Err(inconsistent(format!("group {}: the members share no assignor with {}", self.name, offered.join(", "))))
    }

    fn join_new(
        &mut self,
        now_ms: i64,
        waiter: Waiter,
        request: JoinRequest,
        new_id: String,
        options: &GroupOptions,
        outcome: &mut Outcome,
    ) -> Result<(), JoinRefusal> {
        if request.require_known_member_id {
            self.check_size(options)?;
            self.pending.insert(new_id.clone(), now_ms.saturating_add(i64::from(request.session_timeout_ms)));
            let detail = format!("group {}: join again as {new_id}", self.name);
            let refusal = Refusal::new(ErrorCode::MemberIdRequired, detail);
            return Err(JoinRefusal { refusal, member_id: new_id });
        }
        self.add_member(now_ms, waiter, new_id, request, options, outcome)
    }

    fn check_size(&self, options: &GroupOptions) -> Result<(), Refusal> {
        if self.members.len() + self.pending.len() < options.max_members {
            return Ok(());
        }
        let detail = format!("group {} has {} members already", self.name, self.members.len());
        Err(Refusal::new(ErrorCode::GroupMaxSizeReached, detail))
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "one request with its circumstances; a struct would only rename them"
    )]
    fn join_static(
        &mut self,
        now_ms: i64,
        waiter: Waiter,
        request: JoinRequest,
        new_id: String,
        instance: String,
        options: &GroupOptions,
        outcome: &mut Outcome,
    ) -> Result<(), JoinRefusal> {
        let Some(old_id) = self.instances.get(&instance).cloned() else {
            self.check_size(options)?;
            self.instances.insert(instance, new_id.clone());
            return self.add_member(now_ms, waiter, new_id, request, options, outcome);
        };
        let Some(mut member) = self.members.remove(&old_id) else {
            return Err(self.unknown_member(&old_id).into());
        };
        self.fence_waiting(&mut member, &old_id, &instance, outcome);
        let was_leader = self.leader.as_deref() == Some(old_id.as_str());
        let before = member.subscription(&self.protocol);
        let unchanged = topics_of(&before) == topics_of(&subscription_of(&request, &self.protocol))
            && request.protocols.iter().any(|(name, _)| *name == self.protocol);
        // As Kafka does: who replaces a static member goes on under the client id and the address of the first.
        let (client_id, client_host) = (member.client_id.clone(), member.client_host.clone());
        update(&mut member, &request);
        (member.client_id, member.client_host) = (client_id, client_host);
        member.heard(now_ms);
        self.members.insert(new_id.clone(), member);
        self.instances.insert(instance, new_id.clone());
        if was_leader {
            self.leader = Some(new_id.clone());
        }
        if self.state == GroupState::Stable && unchanged {
            // The member keeps its assignment: nothing changes for the others. A leader that comes back must not
            // assign anew, or the others would never hear of it (KIP-814).
            let answer = self.present_answer(&new_id, was_leader);
            outcome.answers.push((waiter, GroupAnswer::Join(Ok(answer))));
            return Ok(());
        }
        if let Some(member) = self.members.get_mut(&new_id) {
            member.joining = Some(waiter);
        }
        self.prepare_rebalance(now_ms, 0, outcome);
        Ok(())
    }

    /// Tells the requests of a replaced static member that it was replaced.
    fn fence_waiting(&self, member: &mut Member, old_id: &str, instance: &str, outcome: &mut Outcome) {
        let detail = format!("group {}: the static member {instance} ({old_id}) was replaced", self.name);
        let refusal = Refusal::new(ErrorCode::FencedInstanceId, detail);
        if let Some(waiter) = member.joining.take() {
            let refusal = JoinRefusal { refusal: refusal.clone(), member_id: old_id.to_owned() };
            outcome.answers.push((waiter, GroupAnswer::Join(Err(refusal))));
        }
        if let Some(waiter) = member.syncing.take() {
            outcome.answers.push((waiter, GroupAnswer::Sync(Err(refusal))));
        }
    }

    fn add_member(
        &mut self,
        now_ms: i64,
        waiter: Waiter,
        member_id: String,
        request: JoinRequest,
        options: &GroupOptions,
        outcome: &mut Outcome,
    ) -> Result<(), JoinRefusal> {
        self.check_size(options)?;
        if self.members.is_empty() {
            self.protocol_type.clone_from(&request.protocol_type);
        }
        let mut member = Member {
            instance_id: request.instance_id.clone(),
            client_id: request.client_id.clone(),
            client_host: request.client_host.clone(),
            session_timeout_ms: 0,
            rebalance_timeout_ms: 0,
            protocols: Vec::new(),
            assignment: Bytes::new(),
            joining: Some(waiter),
            syncing: None,
            expires_at_ms: 0,
        };
        update(&mut member, &request);
        member.heard(now_ms);
        self.members.insert(member_id.clone(), member);
        self.leader.get_or_insert(member_id);
        self.prepare_rebalance(now_ms, options.initial_rebalance_delay_ms, outcome);
        Ok(())
    }

    /// A known member joins again.
    fn rejoin(&mut self, now_ms: i64, waiter: Waiter, request: JoinRequest, outcome: &mut Outcome) {
        let member_id = request.member_id.clone();
        let is_leader = self.leader.as_deref() == Some(member_id.as_str());
        let Some(member) = self.members.get_mut(&member_id) else { return };
        let unchanged = member.protocols == request.protocols;
        let answer_from_present = match self.state {
            GroupState::Empty | GroupState::PreparingRebalance => false,
            // The answer to its first join was lost.
            GroupState::CompletingRebalance => unchanged,
            GroupState::Stable => unchanged && !is_leader,
        };
        update(member, &request);
        member.heard(now_ms);
        // A join that is repeated takes the place of the one before.
        let superseded = member.joining.take();
        if answer_from_present {
            let answer = self.present_answer(&member_id, false);
            outcome.answers.push((waiter, GroupAnswer::Join(Ok(answer))));
            return;
        }
        member.joining = Some(waiter);
        if let Some(superseded) = superseded.filter(|superseded| *superseded != waiter) {
            let detail = format!("group {}: {member_id} joined again meanwhile", self.name);
            let refusal = Refusal::new(ErrorCode::RebalanceInProgress, detail);
            outcome.answers.push((superseded, GroupAnswer::Join(Err(JoinRefusal { refusal, member_id }))));
        }
        self.prepare_rebalance(now_ms, 0, outcome);
    }

    /// The answer to a join that changes nothing.
    fn present_answer(&self, member_id: &str, skip_assignment: bool) -> JoinAnswer {
        let is_leader = self.leader.as_deref() == Some(member_id);
        JoinAnswer {
            generation: self.generation,
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone(),
            leader: self.leader.clone().unwrap_or_default(),
            member_id: member_id.to_owned(),
            skip_assignment,
            members: if is_leader { self.joined_members() } else { Vec::new() },
        }
    }

    pub(super) fn leave(
        &mut self,
        now_ms: i64,
        member_id: &str,
        instance_id: Option<&str>,
        outcome: &mut Outcome,
    ) -> Result<(), Refusal> {
        if instance_id.is_none() && self.pending.remove(member_id).is_some() {
            self.try_complete_join(now_ms, false, outcome);
            return Ok(());
        }
        let resolved = match (member_id, instance_id) {
            ("", Some(instance)) => self.instances.get(instance).cloned().ok_or_else(|| self.unknown_member(""))?,
            _ => member_id.to_owned(),
        };
        self.check_member(&resolved, instance_id)?;
        self.remove_member(now_ms, &resolved, outcome);
        Ok(())
    }

    /// Removes a member and lets the rebalance that follows begin or go on.
    pub(super) fn remove_member(&mut self, now_ms: i64, member_id: &str, outcome: &mut Outcome) {
        self.drop_member(member_id, outcome);
        match self.state {
            GroupState::Empty => {}
            GroupState::PreparingRebalance => self.try_complete_join(now_ms, false, outcome),
            GroupState::CompletingRebalance | GroupState::Stable => self.prepare_rebalance(now_ms, 0, outcome),
        }
    }

    /// Takes a member out; its waiting requests are refused and a leader's place goes to another.
    pub(super) fn drop_member(&mut self, member_id: &str, outcome: &mut Outcome) {
        let Some(member) = self.members.remove(member_id) else { return };
        let refusal = self.unknown_member(member_id);
        if let Some(waiter) = member.joining {
            let refusal = JoinRefusal { refusal: refusal.clone(), member_id: member_id.to_owned() };
            outcome.answers.push((waiter, GroupAnswer::Join(Err(refusal))));
        }
        if let Some(waiter) = member.syncing {
            outcome.answers.push((waiter, GroupAnswer::Sync(Err(refusal))));
        }
        if let Some(instance) = &member.instance_id
            && self.instances.get(instance).is_some_and(|current| current == member_id)
        {
            self.instances.remove(instance);
        }
        if self.leader.as_deref() == Some(member_id) {
            let joined = self.members.iter().find(|(_, member)| member.joining.is_some()).map(|(id, _)| id.clone());
            self.leader = joined.or_else(|| self.members.keys().next().cloned());
        }
    }
}

fn subscription_of(request: &JoinRequest, protocol: &str) -> Bytes {
    request.protocols.iter().find(|(name, _)| name == protocol).map(|(_, bytes)| bytes.clone()).unwrap_or_default()
}

/// The topics in a `ConsumerProtocolSubscription`, as bytes; all of the bytes where they have another form. What a
/// member owned, its generation and its rack follow them, and change when it comes back.
fn topics_of(subscription: &[u8]) -> &[u8] {
    let end = || {
        let mut end = 6;
        let count = i32::from_be_bytes(subscription.get(2..end)?.try_into().ok()?);
        for _ in 0..count {
            let length = i16::from_be_bytes(subscription.get(end..end + 2)?.try_into().ok()?);
            end += 2 + usize::try_from(length).ok()?;
        }
        Some(end)
    };
    end().and_then(|end| subscription.get(2..end)).unwrap_or(subscription)
}

fn update(member: &mut Member, request: &JoinRequest) {
    member.client_id.clone_from(&request.client_id);
    member.client_host.clone_from(&request.client_host);
    member.session_timeout_ms = i64::from(request.session_timeout_ms);
    // Version 0 of the request has no rebalance timeout: the session timeout stands for it.
    let timeout =
        if request.rebalance_timeout_ms < 0 { request.session_timeout_ms } else { request.rebalance_timeout_ms };
    member.rebalance_timeout_ms = i64::from(timeout);
    member.protocols.clone_from(&request.protocols);
}

#[cfg(test)]
mod tests;
