//! Where the tasks of an application are, for whoever has to ask another host: a pure function of the group's members,
//! as the placement of standby tasks is. An address comes from a member's name and from nowhere else (H4). Never asks
//! anybody by itself.

use std::collections::{BTreeMap, BTreeSet};

use crate::assignment::{GroupView, assign_standbys};
use crate::broker::GroupMember;
use crate::topology::{TaskId, Topology};

/// A host that has a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    pub host_id: String,
    /// Where it answers, as `host:port`.
    pub endpoint: String,
}

/// A host with what it has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Instance {
    pub endpoint: String,
    pub active: BTreeSet<TaskId>,
    /// The tasks that it should keep warm. It may still be catching up.
    pub standby: BTreeSet<TaskId>,
}

/// The hosts of an application at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Routes {
    /// By host id.
    pub instances: BTreeMap<String, Instance>,
}

impl Routes {
    /// `tasks` are those that have something to keep warm, `replicas` how many hosts should.
    pub fn of(members: &[GroupMember], topology: &Topology, tasks: &BTreeSet<TaskId>, replicas: usize) -> Self {
        let view = GroupView::of(members, topology);
        let mut standby = assign_standbys(&view, tasks, replicas);
        let instances = view.hosts.into_iter().map(|(id, host)| {
            let standby = standby.remove(&id).unwrap_or_default();
            (id, Instance { endpoint: host.endpoint, active: host.active, standby })
        });
        Self { instances: instances.collect() }
    }

    /// The host that processes a task; `None` while nobody does.
    pub fn active(&self, task: TaskId) -> Option<Route> {
        self.find(|instance| instance.active.contains(&task)).next()
    }

    /// The hosts that should keep a task warm, in the order of their ids.
    pub fn standbys(&self, task: TaskId) -> impl Iterator<Item = Route> {
        self.find(move |instance| instance.standby.contains(&task))
    }

    fn find(&self, has: impl Fn(&Instance) -> bool) -> impl Iterator<Item = Route> {
        let found = self.instances.iter().filter(move |(_, instance)| has(instance));
        found.map(|(id, instance)| Route { host_id: id.clone(), endpoint: instance.endpoint.clone() })
    }
}

#[cfg(test)]
mod tests;
