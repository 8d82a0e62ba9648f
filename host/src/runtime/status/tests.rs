//! Readiness and the account of a restore.

use engine::record::TopicPartition;
use engine::stream_thread::{MigrationReport, RestoreReport, TaskReport};
use engine::topology::TaskId;

use super::*;

fn restoring_task(position: i64) -> TaskReport {
    let restore = RestoreReport {
        store: "votes".to_owned(),
        changelog: TopicPartition::new("app-votes-changelog", 0),
        start_offset: 10,
        position,
        target: 110,
        records: 5,
    };
    TaskReport {
        task: TaskId::default(),
        state: TaskState::Restoring,
        restores: vec![restore],
        ..TaskReport::default()
    }
}

#[test]
fn a_restore_counts_tasks_and_offsets() {
    let running = TaskReport { state: TaskState::Running, ..TaskReport::default() };
    let report = ThreadReport { tasks: vec![restoring_task(60), running], records_restored: 5, ..Default::default() };
    let expected = Restoring { tasks_running: 1, tasks: 2, records_restored: 5, offsets_left: 50, offsets: 100 };
    assert_eq!(Restoring::of(&[report]), expected);
}

#[test]
fn a_host_that_starts_stops_or_failed_is_not_ready_and_says_why() {
    let status = Status::new("app");
    status.set_phase(Phase::Starting("loading the module"));
    assert_eq!(status.readiness(), Readiness::NotReady("starting: loading the module".to_owned()));
    status.set_phase(Phase::Running);
    assert_eq!(status.readiness(), Readiness::Ready);
    status.set_phase(Phase::Failed("no broker".to_owned()));
    status.set_phase(Phase::Stopping);
    assert_eq!(status.readiness(), Readiness::NotReady("failed: no broker".to_owned()));
}

#[test]
fn a_host_that_takes_rows_over_is_not_ready() {
    let migrating = |rows| TaskReport {
        state: TaskState::Running,
        migration: Some(MigrationReport { rows, rows_expected: 100 }),
        ..TaskReport::default()
    };
    let running = TaskReport { state: TaskState::Running, ..TaskReport::default() };
    let report = ThreadReport { tasks: vec![migrating(10), migrating(7), running.clone()], ..Default::default() };
    assert_eq!(Migrating::of(&[report]), Some(Migrating { tasks: 2, rows: 17, rows_expected: 200 }));
    assert_eq!(Migrating::of(&[ThreadReport { tasks: vec![running], ..Default::default() }]), None);
}
