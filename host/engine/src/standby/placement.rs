//! Which tasks this host keeps warm, as the group's members give it. Keeps the last answer while the group is changing:
//! a copy that is closed for a moment's picture is a copy that must catch up. Never talks to a broker itself.

use std::collections::{BTreeMap, BTreeSet};

use crate::assignment::{GroupView, assign_standbys};
use crate::broker::GroupMember;
use crate::topology::{TaskId, Topology};

/// How long tasks that nobody has may hold up the answer: a cooperative group takes them away before it gives them.
const UNASSIGNED_MAX_MS: u64 = 10_000;

/// A task that became active here while another host had the warm copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Miss {
    pub task: TaskId,
    pub host_id: String,
    pub endpoint: String,
}

/// What an answer of the group led to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Placed {
    /// Nothing can be said now: ask again soon.
    Unsettled,
    Settled(Vec<Miss>),
}

/// The tasks of this host, and from what they were computed.
pub(super) struct Placement {
    host_id: String,
    tasks: BTreeSet<TaskId>,
    replicas: usize,
    view: GroupView,
    assignment: BTreeMap<String, BTreeSet<TaskId>>,
    keep: BTreeSet<TaskId>,
    /// Since when some task is nobody's (monotonic).
    unassigned_since_ms: Option<u64>,
}

impl Placement {
    /// `tasks` are those that have something to keep warm.
    pub fn new(host_id: &str, tasks: BTreeSet<TaskId>, replicas: usize) -> Self {
        Self {
            host_id: host_id.to_owned(),
            tasks,
            replicas,
            view: GroupView::default(),
            assignment: BTreeMap::new(),
            keep: BTreeSet::new(),
            unassigned_since_ms: None,
        }
    }

    /// The tasks that this host should keep warm.
    pub fn keep(&self) -> &BTreeSet<TaskId> {
        &self.keep
    }

    /// Whether an open copy is to stay open: it is to be kept warm, or the group has given the task to this host, and a
    /// stream thread will ask for it in a moment.
    pub fn stays(&self, task: TaskId) -> bool {
        self.keep.contains(&task) || self.view.active_host(task) == Some(&self.host_id)
    }

    /// Takes what the group says of its members, `None` while it is rebalancing.
    pub fn update(&mut self, members: Option<&[GroupMember]>, topology: &Topology, now_ms: u64) -> Placed {
        let Some(members) = members else { return Placed::Unsettled };
        let view = GroupView::of(members, topology);
        // A host that the group does not count is about to join it, or to learn that it lost everything.
        if !view.hosts.contains_key(&self.host_id) {
            return Placed::Unsettled;
        }
        if self.tasks.iter().any(|&task| !view.is_active(task)) {
            let since = *self.unassigned_since_ms.get_or_insert(now_ms);
            if now_ms.saturating_sub(since) < UNASSIGNED_MAX_MS {
                return Placed::Unsettled;
            }
        } else {
            self.unassigned_since_ms = None;
        }
        if view == self.view {
            return Placed::Settled(Vec::new());
        }
        let misses = self.misses(&view);
        self.assignment = assign_standbys(&view, &self.tasks, self.replicas);
        self.keep = self.assignment.get(&self.host_id).cloned().unwrap_or_default();
        self.view = view;
        Placed::Settled(misses)
    }

    /// The tasks that came to this host without having been kept warm here, where another host had them warm.
    fn misses(&self, view: &GroupView) -> Vec<Miss> {
        let none = BTreeSet::new();
        let here = |view: &GroupView| view.hosts.get(&self.host_id).map(|host| host.active.clone()).unwrap_or_default();
        let kept_here = self.assignment.get(&self.host_id).unwrap_or(&none);
        let arrived = here(view).difference(&here(&self.view)).copied().collect::<Vec<_>>();
        let cold = arrived.into_iter().filter(|task| self.tasks.contains(task) && !kept_here.contains(task));
        let miss = |task: TaskId| {
            let had = |id: &String| {
                let kept = self.assignment.get(id).is_some_and(|kept| kept.contains(&task));
                kept || self.view.active_host(task) == Some(id)
            };
            let warm = view.hosts.iter().find(|(id, _)| **id != self.host_id && had(id));
            warm.map(|(id, host)| Miss { task, host_id: id.clone(), endpoint: host.endpoint.clone() })
        };
        cold.filter_map(miss).collect()
    }
}

#[cfg(test)]
mod tests;
