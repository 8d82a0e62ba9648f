//! The answer stays while the group is changing, and a copy that is warm elsewhere is named.

use super::*;
use crate::standby::tests::member;
use crate::testing::topology;

fn task(partition: i32) -> TaskId {
    TaskId { sub_topology: 0, partition }
}

fn placement(host: &str, partitions: i32) -> (Placement, Topology) {
    let tasks = (0..partitions).map(task).collect();
    (Placement::new(host, tasks, 1), topology(&["in"], &["counts"], &[]))
}

const SETTLED: Placed = Placed::Settled(Vec::new());

#[test]
fn a_host_keeps_what_the_other_one_processes() {
    let (mut placement, topology) = placement("h1", 4);
    let members = [member("h0", &[0, 2]), member("h1", &[1, 3])];
    assert_eq!(placement.update(Some(&members), &topology, 0), SETTLED);
    assert_eq!(*placement.keep(), BTreeSet::from([task(0), task(2)]));
}

#[test]
fn a_group_in_motion_changes_nothing() {
    let (mut placement, topology) = placement("h1", 2);
    let members = [member("h0", &[0, 1]), member("h1", &[])];
    assert_eq!(placement.update(Some(&members), &topology, 0), SETTLED);
    let kept = placement.keep().clone();
    assert_eq!(kept.len(), 2);
    let in_motion: [Option<&[GroupMember]>; 3] =
        [None, Some(&[member("h0", &[0, 1])]), Some(&[member("h0", &[0]), member("h1", &[])])];
    for members in in_motion {
        assert_eq!(placement.update(members, &topology, 1_000), Placed::Unsettled, "{members:?}");
        assert_eq!(*placement.keep(), kept, "{members:?}");
    }
}

#[test]
fn a_task_that_stays_nobody_s_holds_up_the_answer_for_a_while_only() {
    let (mut placement, topology) = placement("h1", 2);
    let members = [member("h0", &[0]), member("h1", &[])];
    assert_eq!(placement.update(Some(&members), &topology, 5_000), Placed::Unsettled);
    assert_eq!(placement.update(Some(&members), &topology, 14_999), Placed::Unsettled);
    assert_eq!(placement.update(Some(&members), &topology, 15_000), SETTLED);
    assert!(placement.keep().contains(&task(0)));
}

#[test]
fn a_task_that_comes_to_the_wrong_host_is_a_miss_once() {
    let (mut placement, topology) = placement("h2", 3);
    let before = [member("h0", &[0]), member("h1", &[1]), member("h2", &[2])];
    assert_eq!(placement.update(Some(&before), &topology, 0), SETTLED);
    let kept = placement.keep().clone();
    assert_eq!(kept.len(), 1, "one standby each");
    // h0 dies and h2 gets its task; who kept it warm decides whether that was lucky.
    let lucky = kept.contains(&task(0));
    let after = [member("h1", &[1]), member("h2", &[0, 2])];
    let miss = Miss { task: task(0), host_id: "h1".to_owned(), endpoint: "h1:7070".to_owned() };
    let expected = if lucky { SETTLED } else { Placed::Settled(vec![miss]) };
    assert_eq!(placement.update(Some(&after), &topology, 0), expected);
    assert_eq!(placement.update(Some(&after), &topology, 0), SETTLED, "said once");
    // The task of a host that lives moves here: that host has a warm copy.
    let moved = [member("h1", &[]), member("h2", &[0, 1, 2])];
    let expected = if placement.keep().contains(&task(1)) { 0 } else { 1 };
    let Placed::Settled(misses) = placement.update(Some(&moved), &topology, 0) else { panic!("it is settled") };
    assert_eq!(misses.len(), expected, "{misses:?}");
    assert!(misses.iter().all(|miss| miss.host_id == "h1"));
}

#[test]
fn a_new_host_misses_what_the_others_have() {
    let (mut placement, topology) = placement("h9", 2);
    assert_eq!(placement.update(Some(&[member("h0", &[0, 1]), member("h9", &[])]), &topology, 0), SETTLED);
    assert_eq!(placement.keep().len(), 2, "it keeps both warm");
    let both = [member("h0", &[]), member("h9", &[0, 1])];
    assert_eq!(placement.update(Some(&both), &topology, 0), SETTLED, "and so misses nothing");
    assert!(placement.keep().is_empty());
}
