//! What a rebalance asks for: a pure function from the event and the facts to a list of actions, in the order in
//! which they must happen. Executing them is `rebalance`'s.

use std::collections::{BTreeMap, BTreeSet};

use crate::broker::RebalanceEvent;
use crate::error::EngineError;
use crate::record::TopicPartition;
use crate::topology::{PartitionCounts, TaskId, Topology};

/// One step of an answer to a rebalance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Begin to fetch these partitions from where the group stands.
    Assign(Vec<TopicPartition>),
    /// Stop fetching them until their tasks run.
    Pause(Vec<TopicPartition>),
    /// Create a task; all of its partitions are assigned.
    Create(TaskId, Vec<TopicPartition>),
    /// Keep the partitions of an incomplete task paused until the others come.
    Hold(TaskId),
    /// Nothing is left of an incomplete task.
    Release(TaskId),
    /// Commit the work of these tasks while their partitions are still owned (R8).
    Commit(Vec<TaskId>),
    /// Close a task after its work was committed; dirty if that failed.
    CloseClean(TaskId),
    /// Drop a task without writing.
    CloseDirty(TaskId),
    /// Give the partitions up.
    Unassign(Vec<TopicPartition>),
}

/// What a plan depends on.
pub struct Facts<'a> {
    pub topology: &'a Topology,
    pub counts: &'a PartitionCounts,
    /// The partitions assigned before the event.
    pub assigned: &'a BTreeSet<TopicPartition>,
    /// The tasks that exist before the event.
    pub tasks: &'a BTreeSet<TaskId>,
}

/// The partitions of an event, by task.
fn by_task(
    partitions: &[TopicPartition],
    facts: &Facts<'_>,
) -> Result<BTreeMap<TaskId, Vec<TopicPartition>>, EngineError> {
    let mut tasks: BTreeMap<TaskId, Vec<TopicPartition>> = BTreeMap::new();
    for partition in partitions {
        let Some(task) = facts.topology.task_of(partition) else {
            return Err(EngineError::UnexpectedPartition { partition: partition.clone() });
        };
        let expected = facts.counts.of(&partition.topic);
        if partition.partition >= expected {
            let (topic, found) = (partition.topic.to_string(), partition.partition + 1);
            return Err(EngineError::PartitionsAdded { topic, expected, found });
        }
        tasks.entry(task).or_default().push(partition.clone());
    }
    Ok(tasks)
}

/// The actions that answer an event.
pub fn plan(event: &RebalanceEvent, facts: &Facts<'_>) -> Result<Vec<Action>, EngineError> {
    match event {
        RebalanceEvent::Assigned(partitions) => plan_assigned(partitions, facts),
        RebalanceEvent::Revoked(partitions) => plan_taken(partitions, facts, true),
        RebalanceEvent::Lost(partitions) => plan_taken(partitions, facts, false),
    }
}

fn plan_assigned(partitions: &[TopicPartition], facts: &Facts<'_>) -> Result<Vec<Action>, EngineError> {
    let tasks = by_task(partitions, facts)?;
    let mut actions = Vec::new();
    // A task that exists would go on at its own position while its partition begins anew.
    for task in tasks.keys().filter(|task| facts.tasks.contains(task)) {
        actions.push(Action::CloseDirty(*task));
    }
    actions.push(Action::Assign(partitions.to_vec()));
    if !partitions.is_empty() {
        actions.push(Action::Pause(partitions.to_vec()));
    }
    for (task, new) in tasks {
        let wanted = facts.topology.task_partitions(task, facts.counts);
        let owned = |partition| new.contains(partition) || facts.assigned.contains(partition);
        if wanted.iter().all(owned) {
            actions.push(Action::Create(task, wanted));
        } else {
            actions.push(Action::Hold(task));
        }
    }
    Ok(actions)
}

fn plan_taken(partitions: &[TopicPartition], facts: &Facts<'_>, still_owned: bool) -> Result<Vec<Action>, EngineError> {
    let tasks = by_task(partitions, facts)?;
    let closing: Vec<TaskId> = tasks.keys().copied().filter(|task| facts.tasks.contains(task)).collect();
    let mut actions = Vec::new();
    if still_owned && !closing.is_empty() {
        actions.push(Action::Commit(closing.clone()));
    }
    let close = |task| if still_owned { Action::CloseClean(task) } else { Action::CloseDirty(task) };
    actions.extend(closing.into_iter().map(close));
    actions.push(Action::Unassign(partitions.to_vec()));
    for (task, taken) in tasks {
        let wanted = facts.topology.task_partitions(task, facts.counts);
        let stays = |partition: &TopicPartition| !taken.contains(partition) && facts.assigned.contains(partition);
        let rest: Vec<TopicPartition> = wanted.into_iter().filter(stays).collect();
        if rest.is_empty() {
            actions.push(Action::Release(task));
        } else {
            // Nobody takes its records until the task is complete again.
            actions.push(Action::Pause(rest));
            actions.push(Action::Hold(task));
        }
    }
    Ok(actions)
}

#[cfg(test)]
mod tests;
