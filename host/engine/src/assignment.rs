//! Which host keeps which standby tasks warm: a pure function of the group's members, the tasks and the number of
//! replicas. Every host computes it alone and comes to the same answer, so nothing is negotiated. Owns the name under
//! which a host's consumers are known in the group, too. Never asks a broker and never moves an active task.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::broker::GroupMember;
use crate::topology::{PartitionCounts, TaskId, Topology};

/// Who a consumer is, as its client id tells: `<prefix>-<host id>@<host:port>-consumer-<thread>`. So the group itself
/// carries where each host is to be found.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct MemberName {
    /// Letters and digits; stays with the state directory.
    pub host_id: String,
    /// Where the host answers, as `host:port`.
    pub endpoint: String,
    pub thread: usize,
}

impl MemberName {
    /// The client id of the consumer.
    pub fn client_id(&self, prefix: &str) -> String {
        format!("{prefix}-{}@{}-consumer-{}", self.host_id, self.endpoint, self.thread)
    }

    /// Reads a client id; `None` for one that no host of ours has made.
    pub fn parse(client_id: &str) -> Option<Self> {
        let (rest, thread) = client_id.rsplit_once("-consumer-")?;
        let (rest, endpoint) = rest.rsplit_once('@')?;
        let (prefix, host_id) = rest.rsplit_once('-')?;
        let (host, port) = endpoint.rsplit_once(':')?;
        let is_name = !host_id.is_empty() && host_id.bytes().all(|byte| byte.is_ascii_alphanumeric());
        let has_digits_only = !thread.is_empty() && thread.bytes().all(|byte| byte.is_ascii_digit());
        if prefix.is_empty() || host.is_empty() || !is_name || !has_digits_only {
            return None;
        }
        port.parse::<u16>().ok()?;
        Some(Self { host_id: host_id.to_owned(), endpoint: endpoint.to_owned(), thread: thread.parse().ok()? })
    }
}

/// A host of the application, put together from its members.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostView {
    pub endpoint: String,
    /// The tasks that it processes.
    pub active: BTreeSet<TaskId>,
}

/// The application's hosts as the group knows them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GroupView {
    /// By host id.
    pub hosts: BTreeMap<String, HostView>,
    /// Active on members that are no hosts of ours, and keep nothing warm.
    pub elsewhere: BTreeSet<TaskId>,
}

impl GroupView {
    /// Puts the members together. Partitions that are no source of the topology are left out.
    pub fn of(members: &[GroupMember], topology: &Topology) -> Self {
        let mut view = Self::default();
        for member in members {
            let tasks = member.assigned.iter().filter_map(|partition| topology.task_of(partition));
            match MemberName::parse(&member.client_id) {
                Some(name) => {
                    let host = view.hosts.entry(name.host_id).or_default();
                    host.endpoint = name.endpoint;
                    host.active.extend(tasks);
                }
                None => view.elsewhere.extend(tasks),
            }
        }
        view
    }

    /// The host that processes a task.
    pub fn active_host(&self, task: TaskId) -> Option<&str> {
        self.hosts.iter().find(|(_, host)| host.active.contains(&task)).map(|(id, _)| id.as_str())
    }

    /// Whether a task is active anywhere.
    pub fn is_active(&self, task: TaskId) -> bool {
        self.elsewhere.contains(&task) || self.active_host(task).is_some()
    }
}

/// The tasks that have something to keep warm: those with a store that a topic backs.
pub fn logged_tasks(topology: &Topology, counts: &PartitionCounts) -> BTreeSet<TaskId> {
    let mut tasks = BTreeSet::new();
    for (index, sub_topology) in topology.sub_topologies.iter().enumerate() {
        if sub_topology.stores.iter().any(|store| store.is_logged()) {
            let sub_topology = index as u32;
            let partitions = 0..topology.task_count(sub_topology, counts);
            tasks.extend(partitions.map(|partition| TaskId { sub_topology, partition }));
        }
    }
    tasks
}

/// The standby tasks of each host, by host id.
///
/// A task gets `replicas` standbys, fewer where there are not that many hosts beside its active one. Each goes where
/// the hash of host and task is highest, so that few move when hosts come and go; then as many are moved as it takes
/// for no host to have two more than another that could take one of its own.
pub fn assign_standbys(
    view: &GroupView,
    tasks: &BTreeSet<TaskId>,
    replicas: usize,
) -> BTreeMap<String, BTreeSet<TaskId>> {
    let mut hosts: Vec<HostLoad<'_>> = Vec::new();
    for (id, host) in &view.hosts {
        hosts.push(HostLoad { id, active: &host.active, standby: BTreeSet::new() });
    }
    for &task in tasks {
        let mut ranking: Vec<usize> = (0..hosts.len()).filter(|&host| !hosts[host].active.contains(&task)).collect();
        ranking.sort_by_key(|&host| std::cmp::Reverse((weight(hosts[host].id, task), hosts[host].id)));
        for &host in ranking.iter().take(replicas) {
            hosts[host].standby.insert(task);
        }
    }
    while even_out(&mut hosts) {}
    hosts.into_iter().map(|host| (host.id.to_owned(), host.standby)).collect()
}

struct HostLoad<'a> {
    id: &'a str,
    active: &'a BTreeSet<TaskId>,
    standby: BTreeSet<TaskId>,
}

impl HostLoad<'_> {
    fn could_take(&self, task: TaskId) -> bool {
        !self.active.contains(&task) && !self.standby.contains(&task)
    }
}

/// Takes one task from a host that has at least two more than another, over others between them where it must. False
/// when nothing is to be gained any more.
fn even_out(hosts: &mut [HostLoad<'_>]) -> bool {
    let mut fullest: Vec<usize> = (0..hosts.len()).collect();
    fullest.sort_by_key(|&host| (std::cmp::Reverse(hosts[host].standby.len()), host));
    for first in fullest {
        let Some(moves) = moves_from(hosts, first) else { continue };
        for (from, to, task) in moves {
            hosts[from].standby.remove(&task);
            hosts[to].standby.insert(task);
        }
        return true;
    }
    false
}

/// A move of a task from one host to another.
type Move = (usize, usize, TaskId);

/// The fewest moves that take a task from `first` to a host with at least two fewer.
fn moves_from(hosts: &[HostLoad<'_>], first: usize) -> Option<Vec<Move>> {
    let mut reached_by: Vec<Option<Move>> = vec![None; hosts.len()];
    let mut queue = VecDeque::from([first]);
    while let Some(from) = queue.pop_front() {
        for to in 0..hosts.len() {
            if to == first || reached_by[to].is_some() {
                continue;
            }
            let movable = hosts[from].standby.iter().copied().filter(|&task| hosts[to].could_take(task));
            let Some(task) = movable.max_by_key(|&task| weight(hosts[to].id, task)) else { continue };
            reached_by[to] = Some((from, to, task));
            if hosts[to].standby.len() + 2 <= hosts[first].standby.len() {
                let mut moves = Vec::new();
                let mut end = to;
                while let Some(step) = reached_by[end] {
                    moves.push(step);
                    end = step.0;
                }
                return Some(moves);
            }
            queue.push_back(to);
        }
    }
    None
}

/// How much a host wants a task. The same on every host and in every version: changing it moves every standby.
fn weight(host: &str, task: TaskId) -> u64 {
    const OFFSET_BASIS: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    let numbers = task.sub_topology.to_be_bytes().into_iter().chain(task.partition.to_be_bytes());
    // FNV-1a; its last bytes hardly reach the high bits, so they are mixed (the end of MurmurHash3).
    let hash =
        host.bytes().chain(numbers).fold(OFFSET_BASIS, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(PRIME));
    let hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    let hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

#[cfg(test)]
mod tests;
