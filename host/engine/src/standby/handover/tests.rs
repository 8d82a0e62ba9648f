//! Stores change hands without two openers, whoever gives up first.

use super::*;
use crate::state::memory::MemoryStore;
use crate::topology::TaskId;

const TASK: TaskId = TaskId { sub_topology: 0, partition: 3 };

fn stores() -> OpenStores {
    vec![OpenStore { copy: None, name: "counts".into(), backend: Box::new(MemoryStore::default()) }]
}

#[test]
fn a_task_that_nobody_has_is_taken_at_once_by_either() {
    let tasks = Arc::new(StandbyTasks::default());
    let mut active = ActiveClaim::new(&tasks, TASK);
    assert!(active.take().is_some_and(|stores| stores.is_empty()));
    assert!(tasks.keep(TASK).is_none(), "a stream thread has it");
    assert!(active.take().is_some(), "it is still its own");
    active.release();
    let standby = tasks.keep(TASK).expect("nobody has it");
    assert!(!standby.is_wanted());
    assert!(tasks.keep(TASK).is_none(), "one standby is enough");
}

#[test]
fn the_standby_thread_gives_up_what_a_stream_thread_wants() {
    let tasks = Arc::new(StandbyTasks::default());
    let standby = tasks.keep(TASK).expect("nobody has it");
    let mut active = ActiveClaim::new(&tasks, TASK);
    assert!(active.take().is_none());
    assert!(standby.is_wanted());
    standby.hand_over(stores());
    assert!(tasks.keep(TASK).is_none(), "it is on its way");
    let taken = active.take().expect("it is there");
    assert_eq!(taken.len(), 1);
    assert_eq!(&*taken[0].name, "counts");
    assert!(tasks.keep(TASK).is_none());
    drop((taken, active));
    assert!(tasks.keep(TASK).is_some());
}

#[test]
fn a_wish_that_is_dropped_leaves_nothing_behind() {
    let tasks = Arc::new(StandbyTasks::default());
    let standby = tasks.keep(TASK).expect("nobody has it");
    let mut active = ActiveClaim::new(&tasks, TASK);
    assert!(active.take().is_none());
    drop(active);
    assert!(!standby.is_wanted(), "nobody waits any more");
    standby.hand_over(stores());
    let standby = tasks.keep(TASK).expect("the stores were closed instead of handed over");

    let mut active = ActiveClaim::new(&tasks, TASK);
    assert!(active.take().is_none());
    standby.hand_over(stores());
    active.release();
    assert!(tasks.keep(TASK).is_some(), "what was handed over is closed with the wish");
}

#[test]
fn a_standby_thread_that_is_gone_holds_nothing() {
    let tasks = Arc::new(StandbyTasks::default());
    let mut active = ActiveClaim::new(&tasks, TASK);
    let standby = tasks.keep(TASK).expect("nobody has it");
    assert!(active.take().is_none());
    drop(standby);
    assert!(active.take().is_some_and(|stores| stores.is_empty()));
}

#[test]
fn two_stream_threads_never_have_a_task_at_the_same_time() {
    let tasks = Arc::new(StandbyTasks::default());
    let (mut one, mut other) = (ActiveClaim::new(&tasks, TASK), ActiveClaim::new(&tasks, TASK));
    assert!(one.take().is_some());
    assert!(other.take().is_none());
    let before = tasks.changes();
    one.release();
    assert!(tasks.changes() > before);
    assert!(other.take().is_some());
    assert!(one.take().is_none());
    drop(one);
    assert!(tasks.keep(TASK).is_none(), "the other has it still");
}

#[test]
fn a_store_that_is_opened_again_is_whole_where_it_lacks_nothing_of_what_it_had() {
    let tasks = Arc::new(StandbyTasks::default());
    let mut active = ActiveClaim::new(&tasks, TASK);
    active.take().expect("nobody has it");
    let (counts, other) = ("counts".into(), "other".into());
    assert!(!active.take_whole(&counts, Some(9)), "nobody knows it");
    for (offset, whole) in [(Some(9), true), (Some(12), true), (Some(8), false), (None, false)] {
        active.note_whole(&counts, 9);
        assert_eq!(active.take_whole(&counts, offset), whole, "{offset:?}");
        assert!(!active.take_whole(&counts, Some(20)), "what came after {offset:?} may be compacted");
    }
    active.note_whole(&counts, 9);
    drop(active);
    let standby = tasks.keep(TASK).expect("nobody has it");
    assert!(!standby.take_whole(&other, Some(9)));
    assert!(standby.take_whole(&counts, Some(9)), "whoever opens it next knows");
}
