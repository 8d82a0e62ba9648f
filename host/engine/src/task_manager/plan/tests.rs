//! Tests of `plan`: the answer to each rebalance as a list of actions.

use super::Action::*;
use super::*;
use crate::topology::{SubTopology, TopicBinding};

/// Sub-topology 0 reads `a` (4 partitions) and `b` (2), sub-topology 1 reads `c` (4).
fn topology() -> (Topology, PartitionCounts) {
    let binding = |name: &str| TopicBinding { name: name.into(), topic: name.into() };
    let sub = |names: &[&str]| SubTopology {
        sources: names.iter().copied().map(binding).collect(),
        ..SubTopology::default()
    };
    let counts = [("a", 4), ("b", 2), ("c", 4)].map(|(topic, count)| (topic.into(), count));
    (
        Topology { sub_topologies: vec![sub(&["a", "b"]), sub(&["c"])], ..Topology::default() },
        PartitionCounts(counts.into()),
    )
}

fn partitions(names: &[&str]) -> Vec<TopicPartition> {
    let partition = |name: &&str| {
        let (topic, partition) = name.split_once('-').expect("topic-partition");
        TopicPartition::new(topic, partition.parse().expect("a number"))
    };
    names.iter().map(partition).collect()
}

fn id(sub_topology: u32, partition: i32) -> TaskId {
    TaskId { sub_topology, partition }
}

fn check(event: RebalanceEvent, assigned: &[&str], tasks: &[TaskId]) -> Result<Vec<Action>, EngineError> {
    let (topology, counts) = topology();
    let assigned = partitions(assigned).into_iter().collect();
    let tasks = tasks.iter().copied().collect();
    plan(&event, &Facts { topology: &topology, counts: &counts, assigned: &assigned, tasks: &tasks })
}

#[test]
fn complete_tasks_are_created_and_incomplete_ones_held() {
    let new = partitions(&["a-0", "a-1", "b-0", "a-3", "c-2"]);
    assert_eq!(
        check(RebalanceEvent::Assigned(new.clone()), &[], &[]),
        Ok(vec![
            Assign(new.clone()),
            Pause(new),
            Create(id(0, 0), partitions(&["a-0", "b-0"])),
            Hold(id(0, 1)),
            // `b` has no partition 3, so `a-3` is a task by itself.
            Create(id(0, 3), partitions(&["a-3"])),
            Create(id(1, 2), partitions(&["c-2"])),
        ])
    );
}

#[test]
fn the_rest_of_a_held_task_completes_it() {
    let new = partitions(&["b-1"]);
    assert_eq!(
        check(RebalanceEvent::Assigned(new.clone()), &["a-1"], &[]),
        Ok(vec![Assign(new.clone()), Pause(new), Create(id(0, 1), partitions(&["a-1", "b-1"]))])
    );
}

#[test]
fn a_partition_that_is_assigned_again_begins_its_task_anew() {
    let again = partitions(&["c-0"]);
    assert_eq!(
        check(RebalanceEvent::Assigned(again.clone()), &["c-0"], &[id(1, 0)]),
        Ok(vec![CloseDirty(id(1, 0)), Assign(again.clone()), Pause(again), Create(id(1, 0), partitions(&["c-0"]))])
    );
}

#[test]
fn revoked_partitions_are_given_up_after_commit_and_close() {
    let revoked = partitions(&["a-0", "b-0", "c-1"]);
    assert_eq!(
        check(RebalanceEvent::Revoked(revoked.clone()), &["a-0", "b-0", "c-1", "c-2"], &[id(0, 0), id(1, 1), id(1, 2)]),
        Ok(vec![
            Commit(vec![id(0, 0), id(1, 1)]),
            CloseClean(id(0, 0)),
            CloseClean(id(1, 1)),
            Unassign(revoked),
            Release(id(0, 0)),
            Release(id(1, 1)),
        ])
    );
}

#[test]
fn what_is_left_of_a_task_is_held() {
    let revoked = partitions(&["b-0"]);
    assert_eq!(
        check(RebalanceEvent::Revoked(revoked.clone()), &["a-0", "b-0"], &[id(0, 0)]),
        Ok(vec![
            Commit(vec![id(0, 0)]),
            CloseClean(id(0, 0)),
            Unassign(revoked),
            Pause(partitions(&["a-0"])),
            Hold(id(0, 0)),
        ])
    );
}

#[test]
fn lost_partitions_are_dropped_without_a_commit() {
    let lost = partitions(&["c-1"]);
    assert_eq!(
        check(RebalanceEvent::Lost(lost.clone()), &["c-1"], &[id(1, 1)]),
        Ok(vec![CloseDirty(id(1, 1)), Unassign(lost), Release(id(1, 1))])
    );
}

#[test]
fn empty_events_are_answered_too() {
    assert_eq!(check(RebalanceEvent::Assigned(vec![]), &[], &[]), Ok(vec![Assign(vec![])]));
    assert_eq!(check(RebalanceEvent::Revoked(vec![]), &[], &[]), Ok(vec![Unassign(vec![])]));
}

#[test]
fn partitions_that_cannot_be_ours_are_errors() {
    let error = check(RebalanceEvent::Assigned(partitions(&["x-0"])), &[], &[]).expect_err("x is no source");
    assert_eq!(error.to_string(), "x-0 was assigned but belongs to no source of the topology");
    let error = check(RebalanceEvent::Assigned(partitions(&["c-4"])), &[], &[]).expect_err("c had 4 partitions");
    assert_eq!(error, EngineError::PartitionsAdded { topic: "c".to_owned(), expected: 4, found: 5 });
}
