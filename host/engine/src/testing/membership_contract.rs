//! The contract of `Membership`: what an application learns of its group from outside.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use crate::assignment::MemberName;
use crate::broker::{ClientSupplier, Consumer, GroupMember, RebalanceEvent, StartOffset};
use crate::record::TopicPartition;

/// A group is settled long before so many polls.
const POLLS_MAX: u32 = 2_000;

/// A host in the contract: its clients, and the id under which they name it.
pub struct ContractHost<'a> {
    pub clients: &'a dyn ClientSupplier,
    pub host_id: &'a str,
}

struct Joined {
    consumer: Box<dyn Consumer>,
    owned: BTreeSet<TopicPartition>,
}

impl Joined {
    fn new(host: &ContractHost<'_>, topic: &Arc<str>) -> Self {
        let mut consumer = host.clients.consumer(0).expect("a consumer");
        consumer.subscribe(std::slice::from_ref(topic)).expect("it subscribes");
        Self { consumer, owned: BTreeSet::new() }
    }

    fn poll(&mut self) {
        for event in self.consumer.poll(Duration::from_millis(50), 100).expect("it polls").events {
            match event {
                RebalanceEvent::Assigned(partitions) => {
                    let starts: Vec<_> =
                        partitions.iter().map(|partition| (partition.clone(), StartOffset::Earliest)).collect();
                    self.consumer.assign(&starts).expect("it assigns");
                    self.owned.extend(partitions);
                }
                RebalanceEvent::Revoked(partitions) | RebalanceEvent::Lost(partitions) => {
                    self.consumer.unassign(&partitions).expect("it unassigns");
                    self.owned.retain(|partition| !partitions.contains(partition));
                }
            }
        }
    }
}

/// Runs the contract with two hosts of a group that nobody has joined yet, on a topic of four partitions that nobody
/// else reads. `pass_time` is called between polls, for brokers whose time stands still otherwise.
pub fn membership_contract(hosts: [ContractHost<'_>; 2], topic: &Arc<str>, pass_time: &mut dyn FnMut()) {
    let mut membership = hosts[1].clients.membership().expect("a membership");
    let nobody = membership.members().expect("an answer");
    assert_eq!(nobody, Some(Vec::new()), "a group that nobody has joined has no members");

    let mut joined = vec![Joined::new(&hosts[0], topic)];
    let mut settle = |joined: &mut Vec<Joined>, hosts: &[ContractHost<'_>]| {
        for _ in 0..POLLS_MAX {
            joined.iter_mut().for_each(Joined::poll);
            pass_time();
            let shares: BTreeSet<usize> = joined.iter().map(|member| member.owned.len()).collect();
            if shares == BTreeSet::from([4 / joined.len()])
                && let Some(members) = membership.members().expect("an answer")
                && members.len() == joined.len()
            {
                check(&members, joined, hosts);
                return;
            }
        }
        panic!("the group does not settle");
    };
    settle(&mut joined, &hosts[..1]);
    joined.push(Joined::new(&hosts[1], topic));
    settle(&mut joined, &hosts);
    let mut left = joined.pop().expect("two have joined");
    left.consumer.close().expect("it leaves");
    settle(&mut joined, &hosts[..1]);
}

/// Every member is there, by its name and with what it has.
fn check(members: &[GroupMember], joined: &[Joined], hosts: &[ContractHost<'_>]) {
    for (member, host) in joined.iter().zip(hosts) {
        let is_named = |found: &&GroupMember| {
            MemberName::parse(&found.client_id).is_some_and(|name| name.host_id == host.host_id && name.thread == 0)
        };
        let found: Vec<&GroupMember> = members.iter().filter(is_named).collect();
        assert_eq!(found.len(), 1, "one member is host {}: {members:?}", host.host_id);
        let assigned: BTreeSet<TopicPartition> = found[0].assigned.iter().cloned().collect();
        assert_eq!(assigned, member.owned, "host {}", host.host_id);
        assert!(!found[0].member_id.is_empty() && !found[0].host.is_empty(), "{:?}", found[0]);
    }
}
