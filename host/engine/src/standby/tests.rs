//! The standby thread over the mock broker: follows changelogs, gives tasks up, and gets over what goes wrong with one
//! task without harm to the others.

use super::*;
use crate::assignment::{GroupView, MemberName, assign_standbys};
use crate::broker::{GroupMember, RebalanceEvent};
use crate::query::{QueryError, Role};
use crate::record::Offset;
use crate::stream_thread::fixture::{At, FaultyStores, Fixture, task};
use crate::task::TaskState;
use crate::testing::{CrashStores, Operation, Seed, number};

const CHANGELOG: &str = "app-counts-changelog";

pub(super) fn member(host: &str, partitions: &[i32]) -> GroupMember {
    let name = MemberName { host_id: host.to_owned(), endpoint: format!("{host}:7070"), thread: 0 };
    GroupMember {
        member_id: host.to_owned(),
        client_id: name.client_id("app"),
        host: "/127.0.0.1".to_owned(),
        assigned: partitions.iter().map(|&partition| TopicPartition::new("in", partition)).collect(),
    }
}

/// Two hosts: `h0` processes everything, the standby thread of `h1` keeps it warm.
struct Warm {
    fixture: Fixture,
    tasks: Arc<StandbyTasks>,
    report: Arc<SharedStandbyReport>,
}

impl Warm {
    fn new(partitions: i32, stores: impl StoreProvider + 'static) -> Self {
        let mut fixture = Fixture::counting(partitions);
        fixture.stores = Arc::new(stores);
        fixture.broker.assign_on_subscribe(false);
        // Makes the changelog.
        fixture.options();
        let all: Vec<i32> = (0..partitions).collect();
        fixture.broker.set_members(Some(vec![member("h0", &all), member("h1", &[])]));
        Self { fixture, tasks: Arc::default(), report: Arc::default() }
    }

    fn thread(&self) -> StandbyThread {
        let mut stream = self.fixture.options();
        stream.standby_tasks = Arc::clone(&self.tasks);
        let mut options = StandbyThreadOptions::beside(&stream, 1, "h1", 1);
        options.metrics = Arc::clone(&self.fixture.metrics);
        options.report = Arc::clone(&self.report);
        StandbyThread::new(options).expect("the thread can be made")
    }

    fn topology(&self) -> Arc<Topology> {
        Arc::clone(self.fixture.processors.topology())
    }

    /// As the active task would: the count of a key, in the changelog.
    fn log(&self, partition: i32, key: &str, count: u64) -> Offset {
        let (key, value) = (Some(key.as_bytes()), count.to_be_bytes());
        self.fixture.broker.append(CHANGELOG, partition, key, Some(&value), 0, Vec::new())
    }

    fn turns(&self, thread: &mut StandbyThread, turns: u32) {
        for _ in 0..turns {
            let turn = thread.run_once().expect("the thread goes on");
            self.fixture.clock.advance_ms(100.max(turn.wait_ms));
        }
    }

    /// What a query that allows standbys finds.
    fn count(&self, partition: i32, key: &str) -> Option<u64> {
        let answer =
            self.fixture.queries.get("counts", partition, key.as_bytes(), Some(u64::MAX)).expect("it can be asked");
        assert_eq!(answer.position.role, Role::Standby);
        answer.value.map(|value| number(&value))
    }

    fn state(&self, partition: i32) -> StandbyTaskReport {
        let report = self.report.read();
        let found = report.tasks.into_iter().find(|found| found.task == task(partition));
        found.unwrap_or_else(|| panic!("0_{partition} is not kept here"))
    }

    /// The offsets at which changelogs were begun to be read, since the last time this was asked.
    fn begun(&self) -> Vec<String> {
        let calls = self.fixture.broker.take_calls();
        calls.into_iter().filter(|call| call.operation == Operation::RestoreAssign).map(|call| call.detail).collect()
    }
}

#[test]
fn it_follows_the_changelogs_of_what_another_host_processes() {
    let warm = Warm::new(2, CrashStores::new());
    warm.log(0, "a", 1);
    let mut thread = warm.thread();
    warm.turns(&mut thread, 3);
    assert_eq!(warm.count(0, "a"), Some(1));
    warm.log(0, "a", 2);
    warm.log(1, "b", 1);
    warm.turns(&mut thread, 15);
    assert_eq!((warm.count(0, "a"), warm.count(1, "b")), (Some(2), Some(1)));
    let refused = warm.fixture.queries.get("counts", 0, b"a", None).expect_err("it is no active store");
    assert!(matches!(refused, QueryError::NotAssigned { .. }));
    let report = warm.report.read();
    assert_eq!((report.records, report.lag(), report.trouble), (3, 0, None));
    assert_eq!(warm.state(0).state, StandbyState::Following);
    assert_eq!((warm.state(0).stores[0].position, warm.state(0).stores[0].end), (2, 2));
    assert_eq!(warm.fixture.metrics.get(Metric::StandbyTasks), 2);
    assert_eq!(warm.fixture.metrics.get(Metric::StandbyRecords), 3);
}

#[test]
fn nothing_is_kept_without_another_host() {
    let warm = Warm::new(2, CrashStores::new());
    warm.fixture.broker.set_members(Some(vec![member("h1", &[0, 1])]));
    let mut thread = warm.thread();
    warm.turns(&mut thread, 3);
    assert!(warm.report.read().tasks.is_empty());
}

#[test]
fn a_copy_goes_on_where_it_was_after_a_clean_end_and_after_a_crash() {
    let stores = CrashStores::new();
    let warm = Warm::new(1, stores.clone());
    (1..=5).for_each(|count| {
        warm.log(0, "a", count);
    });
    // Control records at the end.
    warm.fixture.broker.skip_offsets(CHANGELOG, 0, 2);
    let mut thread = warm.thread();
    warm.turns(&mut thread, 3);
    assert_eq!(warm.begun(), [format!("{CHANGELOG}-0@0")]);
    thread.close(CloseMode::Clean);
    assert!(matches!(warm.fixture.queries.get("counts", 0, b"a", Some(u64::MAX)), Err(QueryError::NotAssigned { .. })));
    drop(thread);

    let mut thread = warm.thread();
    warm.turns(&mut thread, 3);
    assert_eq!(warm.begun(), [format!("{CHANGELOG}-0@7")], "nothing is read twice");
    warm.log(0, "a", 6);
    warm.turns(&mut thread, 2);
    // Nothing of the last record was flushed.
    stores.crash(&mut Seed::new(3));
    drop(thread);
    let mut thread = warm.thread();
    warm.turns(&mut thread, 3);
    assert!([7, 8].map(|at| format!("{CHANGELOG}-0@{at}")).contains(&warm.begun()[0]));
    assert_eq!(warm.count(0, "a"), Some(6));
}

#[test]
fn what_was_applied_is_flushed_from_time_to_time() {
    let stores = CrashStores::new();
    let mut warm = Warm::new(1, stores.clone());
    warm.fixture.config.statestore_flush_interval_ms = 1_000;
    warm.log(0, "a", 1);
    let mut thread = warm.thread();
    warm.turns(&mut thread, 15);
    for seed in 0..20 {
        stores.crash(&mut Seed::new(seed));
    }
    assert_eq!(stores.content(task(0), "counts").expect("the store is there").changelog_offset, Some(1));
}

#[test]
fn a_task_that_moves_elsewhere_is_closed_and_stays_on_the_disk() {
    let stores = CrashStores::new();
    let warm = Warm::new(1, stores.clone());
    warm.log(0, "a", 1);
    let mut thread = warm.thread();
    warm.turns(&mut thread, 3);
    // A third host to which the task's copy belongs more than to this one.
    let view =
        |third: &str| GroupView::of(&[member("h0", &[0]), member("h1", &[]), member(third, &[])], &warm.topology());
    let wanted = |third: &String| assign_standbys(&view(third), &[task(0)].into(), 1)["h1"].is_empty();
    let third = (2..100).map(|number| format!("h{number}")).find(wanted).expect("one of many");
    let members = vec![member("h0", &[0]), member("h1", &[]), member(&third, &[])];
    warm.fixture.broker.set_members(Some(members));
    warm.turns(&mut thread, 40);
    assert!(warm.report.read().tasks.is_empty());
    assert_eq!(stores.content(task(0), "counts").expect("the store is there").changelog_offset, Some(1));
    assert!(warm.tasks.keep(task(0)).is_some(), "it is let go");
}

#[test]
fn a_changelog_that_was_cut_above_the_copy_begins_it_anew() {
    let warm = Warm::new(2, CrashStores::new());
    warm.log(0, "gone", 1);
    let mut thread = warm.thread();
    warm.turns(&mut thread, 3);
    assert_eq!(warm.count(0, "gone"), Some(1));
    // Its delete is among the records that are cut off.
    (0..10).for_each(|count| {
        warm.log(0, "a", count);
    });
    warm.fixture.broker.delete_records(CHANGELOG, 0, 9);
    warm.log(1, "b", 1);
    warm.turns(&mut thread, 30);
    assert_eq!((warm.count(0, "gone"), warm.count(0, "a")), (None, Some(9)));
    assert_eq!(warm.count(1, "b"), Some(1), "the other task is not disturbed");
    assert_eq!(warm.state(0).error, None);
}

#[test]
fn a_recreated_changelog_keeps_the_task_off_and_the_host_goes_on() {
    let warm = Warm::new(2, CrashStores::new());
    for count in 1..=5 {
        warm.log(0, "a", count);
        warm.log(1, "b", count);
    }
    let mut thread = warm.thread();
    warm.turns(&mut thread, 3);
    warm.fixture.broker.create_topic(CHANGELOG, 2);
    (1..=6).for_each(|count| {
        warm.log(1, "b", count);
    });
    warm.turns(&mut thread, 50);
    let off = warm.state(0);
    assert_eq!(off.state, StandbyState::Off);
    let error = off.error.expect("it says why");
    assert!(error.contains("the changelog was deleted or recreated"), "{error}");
    assert_eq!(warm.count(1, "b"), Some(6), "the other task goes on");
    assert!(warm.begun().len() < 12, "it is tried again with pauses");
}

#[test]
fn a_corrupt_copy_is_wiped_and_read_again() {
    let corrupt = || StoreError::Corrupt { store: "counts".to_owned(), task: task(0), detail: "bad block".to_owned() };
    for at in [At::Open, At::Write] {
        let faulty = FaultyStores::new(CrashStores::new());
        let warm = Warm::new(1, faulty.clone());
        warm.log(0, "a", 1);
        faulty.fail(at, corrupt());
        let mut thread = warm.thread();
        warm.turns(&mut thread, 30);
        assert_eq!(faulty.wiped(), 1, "{at:?}");
        assert_eq!(warm.count(0, "a"), Some(1), "{at:?}");
        assert_eq!(warm.state(0).error, None, "{at:?}");
    }
}

#[test]
fn a_full_disk_keeps_the_task_off_until_there_is_space() {
    let stores = CrashStores::new();
    let warm = Warm::new(1, stores.clone());
    warm.log(0, "a", 1);
    let mut thread = warm.thread();
    warm.turns(&mut thread, 3);
    stores.fill_disk(true);
    warm.log(0, "a", 2);
    warm.turns(&mut thread, 20);
    assert_eq!(warm.state(0).state, StandbyState::Off);
    assert_eq!(stores.content(task(0), "counts").expect("the store is there").changelog_offset, Some(1));
    stores.fill_disk(false);
    warm.turns(&mut thread, 100);
    assert_eq!(warm.count(0, "a"), Some(2));
    assert_eq!(warm.state(0).state, StandbyState::Following);
}

#[test]
fn a_copy_that_could_not_be_filled_never_answers_with_nothing() {
    let faulty = FaultyStores::new(CrashStores::new());
    let mut warm = Warm::new(1, faulty.clone());
    warm.log(0, "a", 1);
    let mut thread = warm.thread();
    warm.turns(&mut thread, 3);
    thread.close(CloseMode::Clean);
    drop(thread);
    // Another process, which does not know that the copy was whole without the next key.
    warm.tasks = Arc::default();
    warm.log(0, "b", 1);
    let full = StoreError::NoSpace { store: "counts".to_owned(), task: task(0), detail: "full".to_owned() };
    faulty.fail(At::Write, full);
    let mut thread = warm.thread();
    let mut answered = false;
    for turn in 0..60 {
        // Once it has begun anew, and before it has read what it could not write.
        if warm.report.read().tasks.iter().any(|task| task.state == StandbyState::Off) {
            warm.fixture.broker.fail(Operation::RestorePoll, BrokerErrorKind::Retriable);
        }
        warm.turns(&mut thread, 1);
        let answer = warm.fixture.queries.get("counts", 0, b"b", Some(u64::MAX));
        assert!(answer.as_ref().map_or(true, |answer| answer.value.is_some()), "turn {turn}: {answer:?}");
        answered |= answer.is_ok();
    }
    assert!(answered && warm.fixture.broker.failures_are_spent());
}

#[test]
fn records_of_a_poll_that_failed_are_read_again() {
    let warm = Warm::new(1, CrashStores::new());
    let mut thread = warm.thread();
    warm.turns(&mut thread, 3);
    warm.log(0, "a", 7);
    warm.fixture.broker.lose_reply(Operation::RestorePoll, BrokerErrorKind::Retriable);
    // The ends cannot be asked for either, so the place is found again later.
    warm.fixture.broker.fail(Operation::Watermarks, BrokerErrorKind::Retriable);
    warm.turns(&mut thread, 1);
    assert!(warm.report.read().trouble.is_some());
    warm.turns(&mut thread, 3);
    assert_eq!(warm.count(0, "a"), Some(7));
    assert_eq!(warm.report.read().trouble, None);
}

#[test]
fn a_close_after_a_failed_poll_keeps_the_place() {
    let stores = CrashStores::new();
    let warm = Warm::new(1, stores.clone());
    let mut thread = warm.thread();
    warm.turns(&mut thread, 3);
    warm.log(0, "a", 7);
    warm.fixture.broker.lose_reply(Operation::RestorePoll, BrokerErrorKind::Retriable);
    warm.fixture.broker.fail(Operation::Watermarks, BrokerErrorKind::Retriable);
    warm.turns(&mut thread, 1);
    thread.close(CloseMode::Clean);
    assert_ne!(stores.content(task(0), "counts").and_then(|content| content.changelog_offset), Some(1));
}

#[test]
fn a_group_that_cannot_be_asked_changes_nothing() {
    let warm = Warm::new(1, CrashStores::new());
    let mut thread = warm.thread();
    warm.turns(&mut thread, 3);
    warm.fixture.broker.fail(Operation::Members, BrokerErrorKind::Retriable);
    warm.fixture.broker.set_members(None);
    warm.log(0, "a", 1);
    warm.turns(&mut thread, 31);
    assert!(warm.report.read().trouble.is_some_and(|trouble| trouble.contains("Members")));
    warm.turns(&mut thread, 40);
    assert_eq!(warm.report.read().trouble, None);
    assert_eq!(warm.count(0, "a"), Some(1));
}

#[test]
fn a_client_that_is_broken_ends_the_thread_and_leaves_nothing_held() {
    let warm = Warm::new(1, CrashStores::new());
    let mut thread = warm.thread();
    warm.turns(&mut thread, 3);
    warm.fixture.broker.fail(Operation::RestorePoll, BrokerErrorKind::Fatal);
    thread.run_once().expect_err("no remedy but a new client");
    drop(thread);
    assert!(warm.tasks.keep(task(0)).is_some());
}

#[test]
fn a_bounded_number_of_tasks_catches_up_at_a_time() {
    let mut warm = Warm::new(12, CrashStores::new());
    warm.fixture.config.restore_max_records = 1;
    for partition in 0..12 {
        (0..100).for_each(|count| {
            warm.log(partition, "a", count);
        });
    }
    let mut thread = warm.thread();
    let mut catching_up_max = 0;
    for _ in 0..400 {
        warm.turns(&mut thread, 1);
        let report = warm.report.read();
        let catching_up = report.tasks.iter().filter(|found| found.state == StandbyState::CatchingUp).count();
        catching_up_max = catching_up_max.max(catching_up);
    }
    assert_eq!(catching_up_max, CATCHING_UP_MAX);
    assert!((0..12).all(|partition| warm.count(partition, "a") == Some(99)), "all came to their turn");
}

/// A standby thread and a stream thread of the same host.
fn beside_each_other(
    stores: impl StoreProvider + 'static,
) -> (Warm, StandbyThread, crate::stream_thread::StreamThread) {
    let warm = Warm::new(1, stores);
    let standby = warm.thread();
    let mut options = warm.fixture.options();
    options.standby_tasks = Arc::clone(&warm.tasks);
    let stream = crate::stream_thread::StreamThread::new(options).expect("the thread can be made");
    (warm, standby, stream)
}

#[test]
fn a_promoted_task_takes_the_open_stores_and_restores_what_is_missing() {
    let stores = CrashStores::new();
    let (warm, mut standby, mut stream) = beside_each_other(stores.clone());
    (1..=50).for_each(|count| {
        warm.log(0, "a", count);
    });
    warm.turns(&mut standby, 3);
    stream.run_once().expect("joins");
    // Written by the old owner in its last moments.
    warm.log(0, "a", 51);
    let committed = crate::broker::OffsetAndMetadata { offset: 0, metadata: String::new() };
    warm.fixture.broker.set_committed(TopicPartition::new("in", 0), Some(committed));
    let assigned = vec![TopicPartition::new("in", 0)];
    warm.fixture.broker.rebalance(0, RebalanceEvent::Assigned(assigned.clone()));
    let waiting = stream.run_once().expect("waits");
    assert_eq!(waiting.wait_ms, 0);
    assert_eq!(warm.fixture.progress.read().tasks[0].state, TaskState::Created);
    assert_eq!(warm.count(0, "a"), Some(50), "the standby answers until then");
    // The standby thread reads the last record, or not, before it learns of it.
    warm.turns(&mut standby, 1);
    let answers = |warm: &Warm| {
        let answer = warm.fixture.queries.get("counts", 0, b"a", Some(u64::MAX)).expect("it can be asked");
        matches!(answer.value.map(|value| number(&value)), Some(50 | 51))
    };
    assert!(answers(&warm), "and on the way");
    for _ in 0..5 {
        stream.run_once().expect("runs");
        assert!(answers(&warm), "and the stream thread's copy from the first moment");
        warm.fixture.clock.advance_ms(100);
    }
    assert_eq!(warm.fixture.progress.read().tasks[0].state, TaskState::Running);
    assert_eq!(warm.fixture.count(0, "a"), Some(51));
    assert!(warm.fixture.progress.read().records_restored <= 1);
    assert_eq!(warm.fixture.metrics.get(Metric::StandbyPromotions), 1);
    warm.turns(&mut standby, 5);
    assert_eq!(warm.state(0).state, StandbyState::Waiting, "the group has not said yet that the task is here");

    // Demoted: what was not committed is dropped, the rest is followed from where it is.
    warm.fixture.produce(0, &["a", "a"]);
    warm.fixture.settle(&mut stream).expect("processes");
    assert_eq!(warm.fixture.count(0, "a"), Some(53));
    warm.begun();
    warm.fixture.broker.rebalance(0, RebalanceEvent::Revoked(assigned));
    stream.run_once().expect("gives it up");
    warm.turns(&mut standby, 10);
    assert_eq!(warm.count(0, "a"), Some(53));
    let end = warm.state(0).stores[0].end;
    assert_eq!(warm.begun(), [format!("{CHANGELOG}-0@{end}")], "nothing is read again");
}

#[test]
fn a_copy_stays_warm_until_the_stream_thread_comes_for_it() {
    let (warm, mut standby, mut stream) = beside_each_other(CrashStores::new());
    warm.log(0, "a", 1);
    warm.turns(&mut standby, 3);
    stream.run_once().expect("joins");
    // The standby thread hears of it first, and the stream thread is busy for a while.
    warm.fixture.broker.set_members(Some(vec![member("h1", &[0])]));
    warm.log(0, "a", 2);
    warm.turns(&mut standby, 80);
    assert_eq!(warm.count(0, "a"), Some(2));
    let committed = crate::broker::OffsetAndMetadata { offset: 0, metadata: String::new() };
    warm.fixture.broker.set_committed(TopicPartition::new("in", 0), Some(committed));
    warm.fixture.broker.rebalance(0, RebalanceEvent::Assigned(vec![TopicPartition::new("in", 0)]));
    stream.run_once().expect("waits");
    warm.turns(&mut standby, 1);
    stream.run_once().expect("takes it");
    assert_eq!(warm.fixture.progress.read().tasks[0].promoted_with, Some(0));
    warm.turns(&mut standby, 5);
    assert!(warm.report.read().tasks.is_empty());
}

#[test]
fn a_wish_that_is_taken_back_leaves_the_copy_warm() {
    let (warm, mut standby, mut stream) = beside_each_other(CrashStores::new());
    warm.log(0, "a", 1);
    warm.turns(&mut standby, 3);
    stream.run_once().expect("joins");
    let assigned = vec![TopicPartition::new("in", 0)];
    warm.fixture.broker.rebalance(0, RebalanceEvent::Assigned(assigned.clone()));
    stream.run_once().expect("waits");
    warm.fixture.broker.rebalance(0, RebalanceEvent::Lost(assigned));
    stream.run_once().expect("gives up");
    warm.turns(&mut standby, 3);
    assert_eq!(warm.count(0, "a"), Some(1));
    assert_eq!(warm.state(0).state, StandbyState::Following);
}

#[test]
fn a_stream_thread_that_waits_in_vain_says_so() {
    let mut warm = Warm::new(1, CrashStores::new());
    warm.fixture.config.task_timeout_ms = 1_000;
    let mut standby = warm.thread();
    warm.turns(&mut standby, 3);
    let mut options = warm.fixture.options();
    options.standby_tasks = Arc::clone(&warm.tasks);
    let mut stream = crate::stream_thread::StreamThread::new(options).expect("the thread can be made");
    stream.run_once().expect("joins");
    warm.fixture.broker.rebalance(0, RebalanceEvent::Assigned(vec![TopicPartition::new("in", 0)]));
    stream.run_once().expect("waits");
    // The standby thread hangs.
    warm.fixture.clock.advance_ms(2_000);
    assert!(stream.run_once().expect("waits on").troubled);
    let (trouble, _) = warm.fixture.progress.read().trouble.expect("it says why");
    assert!(trouble.contains("another thread of this host"), "{trouble}");
}
