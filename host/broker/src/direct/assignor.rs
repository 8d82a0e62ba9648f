//! The assignor that the leader of a direct group runs, and what members tell it. It balances by partition number, so
//! that partitions of the same number go together (a task needs all of its sources), keeps what members own, and in
//! cooperative mode gives nobody a partition that another member still holds. Pure.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

/// How partitions change hands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RebalanceProtocol {
    /// Only what moves is revoked, in two rebalances (KIP-429).
    #[default]
    Cooperative,
    /// Everything is revoked before every rebalance.
    Eager,
}

impl RebalanceProtocol {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Cooperative => "direct-cooperative",
            Self::Eager => "direct-eager",
        }
    }
}

/// A partition as it travels in subscriptions and assignments.
pub(super) type Named = (String, i32);

/// What a member tells the leader.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Subscription {
    pub(super) topics: Vec<String>,
    pub(super) owned: Vec<Named>,
    /// The generation in which it owned them; the newest claim counts (KIP-792).
    pub(super) generation: i32,
}

/// What the leader tells a member.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Assignment {
    pub(super) partitions: Vec<Named>,
}

/// Assigns every partition number of the subscribed topics. `partitions` are the counts of existing topics.
pub(super) fn assign(
    members: &BTreeMap<String, Subscription>,
    partitions: &BTreeMap<String, i32>,
    protocol: RebalanceProtocol,
) -> BTreeMap<String, Assignment> {
    let topics: BTreeSet<&String> = members.values().flat_map(|member| &member.topics).collect();
    let count = topics.iter().filter_map(|topic| partitions.get(*topic)).copied().max().unwrap_or(0);
    let owners = owners(members);
    let numbers = balance(members, &owners, count);
    let mut assignments: BTreeMap<String, Assignment> =
        members.keys().map(|member| (member.clone(), Assignment::default())).collect();
    for (number, member) in numbers {
        let Some(assignment) = assignments.get_mut(member) else { continue };
        for topic in topics.iter().filter(|topic| partitions.get(**topic).is_some_and(|count| number < *count)) {
            let named = ((*topic).clone(), number);
            let held_by_another = owners.get(&named).is_some_and(|owner| owner != member);
            if protocol == RebalanceProtocol::Eager || !held_by_another {
                assignment.partitions.push(named);
            }
        }
    }
    assignments
}

/// Who owns what: the claim of the newest generation counts, and of two equal ones none.
fn owners(members: &BTreeMap<String, Subscription>) -> BTreeMap<Named, String> {
    let mut claims: BTreeMap<Named, (i32, Option<String>)> = BTreeMap::new();
    for (member, subscription) in members {
        for named in &subscription.owned {
            let claim = (subscription.generation, Some(member.clone()));
            match claims.get_mut(named) {
                Some(known) if known.0 > subscription.generation => {}
                Some(known) if known.0 == subscription.generation => known.1 = None,
                Some(known) => *known = claim,
                None => {
                    claims.insert(named.clone(), claim);
                }
            }
        }
    }
    claims.into_iter().filter_map(|(named, (_, member))| Some((named, member?))).collect()
}

/// A member for each partition number: its owner while that has no more than its share, else the one with the least.
fn balance<'a>(
    members: &'a BTreeMap<String, Subscription>,
    owners: &BTreeMap<Named, String>,
    count: i32,
) -> BTreeMap<i32, &'a String> {
    let mut loads: BTreeMap<&String, i32> = members.keys().map(|member| (member, 0)).collect();
    let mut larger_shares = count % members.len().max(1) as i32;
    let share = count / members.len().max(1) as i32;
    let mut numbers = BTreeMap::new();
    for ((_, number), owner) in owners {
        let Some((member, load)) = loads.get_key_value(owner).map(|(member, load)| (*member, *load)) else { continue };
        if *number >= count || numbers.contains_key(number) {
            continue;
        }
        if load == share && larger_shares > 0 {
            larger_shares -= 1;
        } else if load >= share {
            continue;
        }
        loads.insert(member, load + 1);
        numbers.insert(*number, member);
    }
    for number in 0..count {
        if numbers.contains_key(&number) {
            continue;
        }
        if let Some((member, load)) = loads.iter().min_by_key(|(_, load)| **load).map(|(member, load)| (*member, *load))
        {
            loads.insert(member, load + 1);
            numbers.insert(number, member);
        }
    }
    numbers
}

#[cfg(test)]
mod tests;
