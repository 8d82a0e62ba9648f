//! Groups: the classic protocol as clients see it, each rule by itself, time passed by hand.

use super::offsets::OffsetToCommit;
use super::*;

const SESSION_MS: i64 = 10_000;
const REBALANCE_MS: i64 = 60_000;

/// Groups with a clock and a count of waiters.
struct Bench {
    groups: Groups,
    now_ms: i64,
    waiter: Waiter,
    ready: BTreeMap<Waiter, GroupAnswer>,
    generations: Vec<i32>,
}

impl Bench {
    fn new() -> Self {
        Self::with(GroupOptions::default())
    }

    fn with(options: GroupOptions) -> Self {
        Self {
            groups: Groups::new(options, 1, BTreeMap::new()),
            now_ms: 0,
            waiter: 0,
            ready: BTreeMap::new(),
            generations: Vec::new(),
        }
    }

    fn take(&mut self, outcome: Outcome) {
        for record in &outcome.records {
            if let MetadataRecord::GroupGeneration { generation, .. } = record {
                self.generations.push(*generation);
            }
        }
        for (waiter, answer) in outcome.answers {
            assert!(self.ready.insert(waiter, answer).is_none(), "waiter {waiter} was answered twice");
        }
    }

    fn request(member_id: &str, instance: Option<&str>, protocols: &[(&str, &str)]) -> JoinRequest {
        let protocols =
            protocols.iter().map(|(name, data)| ((*name).to_owned(), Bytes::copy_from_slice(data.as_bytes())));
        JoinRequest {
            group: "g".into(),
            member_id: member_id.into(),
            instance_id: instance.map(str::to_owned),
            client_id: "client".into(),
            client_host: "/127.0.0.1".into(),
            session_timeout_ms: SESSION_MS as i32,
            rebalance_timeout_ms: REBALANCE_MS as i32,
            protocol_type: "consumer".into(),
            protocols: protocols.collect(),
            require_known_member_id: false,
        }
    }

    fn join_with(&mut self, request: JoinRequest) -> Waiter {
        self.waiter += 1;
        let outcome = self.groups.join(self.now_ms, self.waiter, request);
        self.take(outcome);
        self.waiter
    }

    fn join(&mut self, member_id: &str) -> Waiter {
        self.join_with(Self::request(member_id, None, &[("range", "topic")]))
    }

    fn joined(&mut self, waiter: Waiter) -> JoinAnswer {
        match self.ready.remove(&waiter) {
            Some(GroupAnswer::Join(Ok(answer))) => answer,
            other => panic!("waiter {waiter}: {other:?}"),
        }
    }

    fn join_error(&mut self, waiter: Waiter) -> ErrorCode {
        match self.ready.remove(&waiter) {
            Some(GroupAnswer::Join(Err(refused))) => refused.refusal.code,
            other => panic!("waiter {waiter}: {other:?}"),
        }
    }

    fn sync(&mut self, answer: &JoinAnswer, assignments: &[(&str, &str)]) -> Waiter {
        self.waiter += 1;
        let request = SyncRequest {
            group: "g".into(),
            generation: answer.generation,
            member_id: answer.member_id.clone(),
            instance_id: None,
            protocol_type: None,
            protocol: None,
            assignments: assignments
                .iter()
                .map(|(member, data)| ((*member).to_owned(), Bytes::copy_from_slice(data.as_bytes())))
                .collect(),
        };
        let outcome = self.groups.sync(self.now_ms, self.waiter, request);
        self.take(outcome);
        self.waiter
    }

    fn synced(&mut self, waiter: Waiter) -> Result<Bytes, ErrorCode> {
        match self.ready.remove(&waiter) {
            Some(GroupAnswer::Sync(Ok(answer))) => Ok(answer.assignment),
            Some(GroupAnswer::Sync(Err(refusal))) => Err(refusal.code),
            other => panic!("waiter {waiter}: {other:?}"),
        }
    }

    fn heartbeat(&mut self, answer: &JoinAnswer) -> Option<ErrorCode> {
        let member = identity(answer);
        self.groups.heartbeat(self.now_ms, "g", &member).err().map(|refusal| refusal.code)
    }

    fn leave(&mut self, member_id: &str) {
        let (result, outcome) = self.groups.leave(self.now_ms, "g", member_id, None);
        result.unwrap();
        self.take(outcome);
    }

    fn pass(&mut self, milliseconds: i64) {
        self.now_ms += milliseconds;
        let outcome = self.groups.tick(self.now_ms);
        self.take(outcome);
    }

    fn state(&self) -> GroupState {
        self.groups.describe("g").unwrap().state
    }

    /// A stable group of one member.
    fn one(&mut self) -> JoinAnswer {
        let waiter = self.join("");
        let answer = self.joined(waiter);
        let sync = self.sync(&answer, &[(&answer.member_id, "all")]);
        assert_eq!(self.synced(sync), Ok(Bytes::from_static(b"all")));
        answer
    }

    /// A stable group of two members, the leader first.
    fn two(&mut self) -> (JoinAnswer, JoinAnswer) {
        let first = self.one();
        let joining = self.join("");
        assert!(!self.ready.contains_key(&joining), "the second waits for the first");
        assert_eq!(self.heartbeat(&first), Some(ErrorCode::RebalanceInProgress));
        let again = self.join(&first.member_id);
        let (first, second) = (self.joined(again), self.joined(joining));
        let waiting = self.sync(&second, &[]);
        assert!(!self.ready.contains_key(&waiting), "a follower waits for the leader");
        let leading = self.sync(&first, &[(&first.member_id, "one"), (&second.member_id, "two")]);
        assert_eq!(self.synced(leading), Ok(Bytes::from_static(b"one")));
        assert_eq!(self.synced(waiting), Ok(Bytes::from_static(b"two")));
        (first, second)
    }

    fn commit(&mut self, member: &MemberIdentity) -> Option<ErrorCode> {
        self.groups.check_commit(self.now_ms, "g", member).err().map(|refusal| refusal.code)
    }
}

fn identity(answer: &JoinAnswer) -> MemberIdentity {
    MemberIdentity { generation: answer.generation, member_id: answer.member_id.clone(), instance_id: None }
}

#[test]
fn members_join_sync_and_are_told_apart() {
    let mut bench = Bench::new();
    let (first, second) = bench.two();
    assert_eq!((first.generation, second.generation), (2, 2));
    assert_eq!(bench.generations, [1, 2]);
    assert_eq!(first.leader, first.member_id);
    assert_eq!((first.members.len(), second.members.len()), (2, 0));
    assert_eq!(second.leader, first.member_id);
    assert_ne!(first.member_id, second.member_id);
    assert_eq!(bench.state(), GroupState::Stable);
    assert_eq!(bench.heartbeat(&first), None);
    assert_eq!(bench.heartbeat(&JoinAnswer { generation: 1, ..second }), Some(ErrorCode::IllegalGeneration));
}

#[test]
fn a_new_member_is_told_its_id_first() {
    let mut bench = Bench::new();
    let request = JoinRequest { require_known_member_id: true, ..Bench::request("", None, &[("range", "")]) };
    let waiter = bench.join_with(request.clone());
    let Some(GroupAnswer::Join(Err(refused))) = bench.ready.remove(&waiter) else { panic!() };
    assert_eq!(refused.refusal.code, ErrorCode::MemberIdRequired);
    let waiter = bench.join_with(JoinRequest { member_id: refused.member_id.clone(), ..request.clone() });
    assert_eq!(bench.joined(waiter).member_id, refused.member_id);
    // An id that was given out holds a rebalance up until it is used or expires.
    let waiter = bench.join_with(request);
    assert_eq!(bench.join_error(waiter), ErrorCode::MemberIdRequired);
    assert_eq!(bench.groups.describe("g").unwrap().members.len(), 1);
}

#[test]
fn a_leaving_member_starts_a_rebalance_and_the_last_one_empties_the_group() {
    let mut bench = Bench::new();
    let (first, second) = bench.two();
    bench.leave(&first.member_id);
    assert_eq!(bench.heartbeat(&second), Some(ErrorCode::RebalanceInProgress));
    let waiter = bench.join(&second.member_id);
    let alone = bench.joined(waiter);
    assert_eq!((alone.generation, alone.leader.as_str()), (3, second.member_id.as_str()));
    bench.leave(&second.member_id);
    assert_eq!(bench.state(), GroupState::Empty);
    assert_eq!(bench.groups.describe("g").unwrap().generation, 4);
    let waiter = bench.join(&second.member_id);
    assert_eq!(bench.join_error(waiter), ErrorCode::UnknownMemberId);
}

#[test]
fn a_silent_member_is_removed_after_its_session() {
    let mut bench = Bench::new();
    let (first, second) = bench.two();
    bench.pass(SESSION_MS - 1);
    assert_eq!(bench.heartbeat(&first), None);
    assert_eq!(bench.groups.next_deadline(), Some(SESSION_MS));
    bench.pass(1);
    assert_eq!(bench.heartbeat(&second), Some(ErrorCode::UnknownMemberId));
    assert_eq!(bench.heartbeat(&first), Some(ErrorCode::RebalanceInProgress));
    let waiter = bench.join(&first.member_id);
    assert_eq!(bench.joined(waiter).members.len(), 1);
}

#[test]
fn a_rebalance_goes_on_without_those_who_do_not_join() {
    let mut bench = Bench::new();
    let (first, second) = bench.two();
    let joining = bench.join("");
    let again = bench.join(&first.member_id);
    for _ in 0..7 {
        bench.pass(REBALANCE_MS / 8);
        // It is alive, but does not join.
        assert_eq!(bench.heartbeat(&second), Some(ErrorCode::RebalanceInProgress));
    }
    assert!(bench.ready.is_empty());
    bench.pass(REBALANCE_MS / 8);
    assert_eq!((bench.joined(again).members.len(), bench.joined(joining).generation), (2, 3));
    assert_eq!(bench.heartbeat(&second), Some(ErrorCode::UnknownMemberId));
}

#[test]
fn a_member_that_never_syncs_is_removed() {
    let mut bench = Bench::new();
    let waiter = bench.join("");
    let leader = bench.joined(waiter);
    let joining = bench.join("");
    let again = bench.join(&leader.member_id);
    let (leader, follower) = (bench.joined(again), bench.joined(joining));
    let waiting = bench.sync(&follower, &[]);
    for _ in 0..8 {
        assert_eq!(bench.heartbeat(&leader), None);
        bench.pass(REBALANCE_MS / 8);
    }
    assert_eq!(bench.synced(waiting), Err(ErrorCode::RebalanceInProgress));
    assert_eq!(bench.heartbeat(&leader), Some(ErrorCode::UnknownMemberId));
    let waiter = bench.join(&follower.member_id);
    assert_eq!(bench.joined(waiter).leader, follower.member_id);
}

#[test]
fn a_join_while_the_leader_assigns_starts_over() {
    let mut bench = Bench::new();
    let (first, second) = bench.two();
    let again = bench.join(&first.member_id);
    let again_second = bench.join(&second.member_id);
    let (first, second) = (bench.joined(again), bench.joined(again_second));
    let waiting = bench.sync(&second, &[]);
    let joining = bench.join("");
    assert_eq!(bench.synced(waiting), Err(ErrorCode::RebalanceInProgress));
    let late = bench.sync(&first, &[]);
    assert_eq!(bench.synced(late), Err(ErrorCode::RebalanceInProgress));
    let (first, second) = (bench.join(&first.member_id), bench.join(&second.member_id));
    assert_eq!((bench.joined(first).members.len(), bench.joined(second).generation), (3, 4));
    assert_eq!(bench.joined(joining).generation, 4);
}

#[test]
fn rejoining_without_a_change_disturbs_nobody() {
    let mut bench = Bench::new();
    let (first, second) = bench.two();
    let waiter = bench.join(&second.member_id);
    assert_eq!(bench.joined(waiter).generation, 2);
    assert_eq!(bench.state(), GroupState::Stable);
    // A changed subscription (as after a cooperative revocation), and the leader's join, do.
    let changed = bench.join_with(Bench::request(&second.member_id, None, &[("range", "owned: none")]));
    assert_eq!(bench.state(), GroupState::PreparingRebalance);
    let again = bench.join(&first.member_id);
    assert_eq!((bench.joined(changed).generation, bench.joined(again).generation), (3, 3));
}

#[test]
fn the_assignor_that_most_prefer_and_all_know_wins() {
    let mut bench = Bench::new();
    let first = bench.join_with(Bench::request("", None, &[("cooperative-sticky", "c"), ("range", "r")]));
    let first = bench.joined(first);
    assert_eq!(first.protocol, "cooperative-sticky");
    let joining = bench.join_with(Bench::request("", None, &[("range", "r2")]));
    let request = Bench::request(&first.member_id, None, &[("cooperative-sticky", "c"), ("range", "r")]);
    let again = bench.join_with(request);
    let answer = bench.joined(again);
    assert_eq!((answer.protocol.as_str(), answer.members[1].subscription.as_ref()), ("range", &b"r2"[..]));
    assert_eq!(bench.joined(joining).protocol, "range");
    let stranger = bench.join_with(Bench::request("", None, &[("sticky", "s")]));
    assert_eq!(bench.join_error(stranger), ErrorCode::InconsistentGroupProtocol);
    let other = JoinRequest { protocol_type: "connect".into(), ..Bench::request("", None, &[("range", "")]) };
    let other = bench.join_with(other);
    assert_eq!(bench.join_error(other), ErrorCode::InconsistentGroupProtocol);
}

fn static_join(bench: &mut Bench, member_id: &str, instance: &str) -> Waiter {
    bench.join_with(Bench::request(member_id, Some(instance), &[("range", "topic")]))
}

#[test]
fn a_static_member_comes_back_without_a_rebalance() {
    let mut bench = Bench::new();
    let waiter = static_join(&mut bench, "", "i1");
    let old = bench.joined(waiter);
    let sync = bench.sync(&old, &[(&old.member_id, "mine")]);
    assert!(bench.synced(sync).is_ok());
    bench.pass(SESSION_MS - 1);
    let waiter = static_join(&mut bench, "", "i1");
    let new = bench.joined(waiter);
    assert_eq!((new.generation, new.skip_assignment, new.leader == new.member_id), (1, true, true));
    assert_ne!(new.member_id, old.member_id);
    assert_eq!(bench.state(), GroupState::Stable);
    let sync = bench.sync(&new, &[]);
    assert_eq!(bench.synced(sync), Ok(Bytes::from_static(b"mine")));
    // The old one is fenced, in every call.
    let zombie = MemberIdentity { instance_id: Some("i1".into()), ..identity(&old) };
    assert_eq!(bench.groups.heartbeat(bench.now_ms, "g", &zombie).unwrap_err().code, ErrorCode::FencedInstanceId);
    assert_eq!(bench.commit(&zombie), Some(ErrorCode::FencedInstanceId));
    let waiter = static_join(&mut bench, &old.member_id, "i1");
    assert_eq!(bench.join_error(waiter), ErrorCode::FencedInstanceId);
    // Only its session's end removes it.
    bench.pass(SESSION_MS);
    assert_eq!(bench.state(), GroupState::Empty);
}

#[test]
fn a_static_member_that_joins_twice_fences_its_waiting_request() {
    let mut bench = Bench::new();
    let first = bench.one();
    let waiting = static_join(&mut bench, "", "i1");
    assert!(bench.ready.is_empty());
    let newer = static_join(&mut bench, "", "i1");
    assert_eq!(bench.join_error(waiting), ErrorCode::FencedInstanceId);
    let again = bench.join(&first.member_id);
    assert_eq!(bench.joined(newer).generation, bench.joined(again).generation);
    assert_eq!(bench.groups.describe("g").unwrap().members.len(), 2);
}

#[test]
fn a_static_member_may_be_removed_by_its_instance_id() {
    let mut bench = Bench::new();
    let waiter = static_join(&mut bench, "", "i1");
    bench.joined(waiter);
    let (result, _) = bench.groups.leave(0, "g", "", Some("i2"));
    assert_eq!(result.unwrap_err().code, ErrorCode::UnknownMemberId);
    let (result, outcome) = bench.groups.leave(0, "g", "", Some("i1"));
    result.unwrap();
    bench.take(outcome);
    assert_eq!(bench.state(), GroupState::Empty);
}

#[test]
fn an_empty_group_waits_for_more_members_when_told_to() {
    let mut bench = Bench::with(GroupOptions { initial_rebalance_delay_ms: 3_000, ..GroupOptions::default() });
    let first = bench.join("");
    bench.pass(2_000);
    let second = bench.join("");
    assert_eq!(bench.groups.next_deadline(), Some(5_000));
    bench.pass(2_999);
    assert!(bench.ready.is_empty());
    bench.pass(1);
    assert_eq!((bench.joined(first).generation, bench.joined(second).generation), (1, 1));
}

#[test]
fn commits_are_for_members_of_this_generation_outside_of_rebalances() {
    let mut bench = Bench::new();
    let simple = MemberIdentity { generation: -1, ..MemberIdentity::default() };
    assert_eq!(bench.commit(&simple), None, "a group that does not exist");
    assert_eq!(bench.commit(&MemberIdentity { generation: 3, ..simple.clone() }), Some(ErrorCode::IllegalGeneration));
    let waiter = bench.join("");
    let answer = bench.joined(waiter);
    let member = identity(&answer);
    assert_eq!(bench.commit(&member), Some(ErrorCode::RebalanceInProgress), "not synced yet");
    let sync = bench.sync(&answer, &[]);
    assert!(bench.synced(sync).is_ok());
    assert_eq!(bench.commit(&member), None);
    assert_eq!(bench.commit(&simple), Some(ErrorCode::UnknownMemberId), "only members may");
    assert_eq!(bench.commit(&MemberIdentity { generation: 0, ..member.clone() }), Some(ErrorCode::IllegalGeneration));
    let stranger = MemberIdentity { member_id: "stranger".into(), ..member.clone() };
    assert_eq!(bench.commit(&stranger), Some(ErrorCode::UnknownMemberId));
    bench.join("");
    assert_eq!(bench.commit(&member), None, "a last commit before the partitions are given up");
    bench.leave(&answer.member_id);
    assert_eq!(bench.commit(&member), Some(ErrorCode::UnknownMemberId));
}

#[test]
fn a_commit_keeps_the_session_alive() {
    let mut bench = Bench::new();
    let answer = bench.one();
    bench.pass(SESSION_MS - 1);
    assert_eq!(bench.commit(&identity(&answer)), None);
    bench.pass(SESSION_MS - 1);
    assert_eq!(bench.heartbeat(&answer), None);
}

#[test]
fn committed_offsets_are_found_and_forgotten() {
    let mut bench = Bench::new();
    let offset = OffsetToCommit {
        topic: "t".into(),
        partition: 3,
        offset: 42,
        leader_epoch: 0,
        metadata: "AgAAAAAAAAAB".into(),
    };
    assert!(bench.groups.check_offset(&offset).is_ok());
    let large = OffsetToCommit { metadata: "x".repeat(4_097), ..offset.clone() };
    assert_eq!(bench.groups.check_offset(&large).unwrap_err().code, ErrorCode::OffsetMetadataTooLarge);
    bench.groups.apply(&Groups::commit_record(7, "g", vec![offset]));
    let found = bench.groups.committed("g", "t", 3).unwrap();
    assert_eq!((found.offset, found.metadata.as_str(), found.commit_timestamp), (42, "AgAAAAAAAAAB", 7));
    assert_eq!(bench.groups.committed("g", "t", 2), None);
    let record = bench.groups.delete("g").unwrap();
    bench.groups.apply(&record);
    assert_eq!(bench.groups.delete("g").unwrap_err().code, ErrorCode::GroupIdNotFound);
    bench.one();
    assert_eq!(bench.groups.delete("g").unwrap_err().code, ErrorCode::NonEmptyGroup);
}

#[test]
fn a_group_that_is_full_takes_nobody() {
    let mut bench = Bench::with(GroupOptions { max_members: 1, ..GroupOptions::default() });
    bench.one();
    let waiter = bench.join("");
    assert_eq!(bench.join_error(waiter), ErrorCode::GroupMaxSizeReached);
    for _ in 0..2 {
        // The refusal leaves nothing behind: the second try is refused for the same reason.
        let waiter = static_join(&mut bench, "", "i1");
        assert_eq!(bench.join_error(waiter), ErrorCode::GroupMaxSizeReached);
    }
}

#[test]
fn bad_requests_are_refused() {
    let mut bench = Bench::new();
    let range = [("range", "")];
    for (request, code) in [
        (JoinRequest { group: String::new(), ..Bench::request("", None, &range) }, ErrorCode::InvalidGroupId),
        (
            JoinRequest { session_timeout_ms: 5_999, ..Bench::request("", None, &range) },
            ErrorCode::InvalidSessionTimeout,
        ),
        (JoinRequest { session_timeout_ms: -1, ..Bench::request("", None, &range) }, ErrorCode::InvalidSessionTimeout),
        (Bench::request("nobody", None, &range), ErrorCode::UnknownMemberId),
        (Bench::request("", None, &[]), ErrorCode::InconsistentGroupProtocol),
    ] {
        let waiter = bench.join_with(request);
        assert_eq!(bench.join_error(waiter), code);
    }
    let stranger = MemberIdentity::default();
    assert_eq!(bench.groups.heartbeat(0, "no such group", &stranger).unwrap_err().code, ErrorCode::UnknownMemberId);
}
