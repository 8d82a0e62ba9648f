//! Tests of restores, missing offsets and store faults with whole turns.

use super::super::fixture::{At, FaultyStores, Fixture, task};
use super::super::*;
use super::{calls, fault, partitions};
use crate::broker::{OffsetAndMetadata, RebalanceEvent};
use crate::record::TopicPartition;
use crate::state::StoreError;
use crate::task::TaskState;
use crate::testing::{CrashStores, Operation, Seed};

const CHANGELOG: &str = "app-counts-changelog";

/// An application whose stores survive a restart, after it has counted `a`, `b`, `a` in one partition.
fn counted(stores: &CrashStores) -> Fixture {
    let mut fixture = Fixture::counting(1);
    fixture.stores = Arc::new(stores.clone());
    fixture.produce(0, &["a", "b", "a"]);
    let mut thread = fixture.thread();
    fixture.settle(&mut thread).expect("no fault");
    thread.close(CloseMode::Clean).expect("no fault");
    fixture.broker.assign_on_subscribe(true);
    fixture.broker.take_calls();
    fixture
}

fn counts(fixture: &Fixture) -> (Option<u64>, Option<u64>) {
    (fixture.count(0, "a"), fixture.count(0, "b"))
}

#[test]
fn a_store_that_has_everything_restores_nothing() {
    let fixture = counted(&CrashStores::new());
    let mut thread = fixture.thread();
    fixture.settle(&mut thread).expect("no fault");
    assert_eq!(fixture.progress.read().records_restored, 0);
    assert_eq!(calls(&fixture, &[Operation::RestoreAssign]), Vec::<String>::new());
    assert_eq!(counts(&fixture), (Some(2), Some(1)));
}

#[test]
fn a_lost_state_directory_is_restored_to_the_same_content() {
    let stores = CrashStores::new();
    let fixture = counted(&stores);
    let before = stores.content(task(0), "counts").expect("the store was there");
    stores.remove_all();
    let mut thread = fixture.thread();
    fixture.settle(&mut thread).expect("no fault");
    assert_eq!(stores.content(task(0), "counts"), Some(before));
    assert_eq!(fixture.progress.read().records_restored, 2);
}

#[test]
fn after_a_crash_only_the_delta_is_restored() {
    for seed in 0..20 {
        let stores = CrashStores::new();
        let fixture = counted(&stores);
        let mut thread = fixture.thread();
        for key in ["a", "c", "d"] {
            fixture.append("in", 0, key, "", 10);
            fixture.settle(&mut thread).expect("no fault");
        }
        stores.crash(&mut Seed::new(seed));
        drop(thread);
        fixture.broker.assign_on_subscribe(true);
        let have = stores.content(task(0), "counts").and_then(|content| content.changelog_offset).unwrap_or(0);
        let mut thread = fixture.thread();
        fixture.settle(&mut thread).expect("no fault");
        assert_eq!(fixture.progress.read().records_restored, (5 - have) as u64, "seed {seed}");
        assert_eq!((fixture.count(0, "a"), fixture.count(0, "d")), (Some(3), Some(1)), "seed {seed}");
    }
}

#[test]
fn control_records_at_the_end_of_a_changelog_are_passed() {
    let stores = CrashStores::new();
    let fixture = counted(&stores);
    fixture.broker.skip_offsets(CHANGELOG, 0, 2);
    let mut thread = fixture.thread();
    fixture.settle(&mut thread).expect("no fault");
    assert_eq!(stores.content(task(0), "counts").and_then(|content| content.changelog_offset), Some(4));
    assert_eq!(counts(&fixture), (Some(2), Some(1)));
}

#[test]
fn a_restore_goes_on_in_slices_beside_tasks_that_run() {
    let mut fixture = Fixture::counting(2);
    fixture.config.restore_max_records = 1;
    let mut thread = fixture.thread();
    let keys: Vec<String> = (0..30).map(|key| format!("k{key}")).collect();
    fixture.produce(0, &keys.iter().map(String::as_str).collect::<Vec<_>>());
    fixture.produce(1, &["b"]);
    fixture.settle(&mut thread).expect("no fault");
    // The task moves away and comes back with empty stores, while the other one is running.
    fixture.broker.rebalance(0, RebalanceEvent::Revoked(partitions("in", &[0])));
    fixture.settle(&mut thread).expect("no fault");
    fixture.broker.rebalance(0, RebalanceEvent::Assigned(partitions("in", &[0])));
    for turns in 0..10 {
        fixture.produce(1, &["b"]);
        let turn = thread.run_once().expect("no fault");
        assert!(turn.records_restored <= 1, "turn {turns}");
        assert!(turn.records_processed >= 1 || turns < 2, "turn {turns}");
        fixture.clock.advance_ms(100);
    }
    let report = fixture.progress.read();
    let restore = &report.tasks[0].restores[0];
    assert_eq!((report.tasks[0].state, report.tasks[1].state), (TaskState::Restoring, TaskState::Running));
    assert_eq!((restore.target, restore.position + restore.remaining() as i64), (30, 30));
    assert!(matches!(fixture.queries.get("counts", 0, b"k1", None), Err(crate::query::QueryError::Restoring { .. })));
    assert_eq!(fixture.metrics.get(crate::metrics::Metric::TasksRestoring), 1);
    fixture.settle(&mut thread).expect("no fault");
    assert_eq!((fixture.count(0, "k29"), fixture.count(1, "b")), (Some(1), Some(11)));
}

#[test]
fn a_restore_that_was_interrupted_goes_on_where_it_was() {
    let stores = CrashStores::new();
    let mut fixture = counted(&stores);
    stores.remove_all();
    fixture.config.restore_max_records = 1;
    // Two changelog records: the slices of a thread without running tasks are ten times as large.
    for key in 0..40 {
        fixture.append(CHANGELOG, 0, &format!("k{key}"), "x", 5);
    }
    let mut restored = 0;
    for _ in 0..6 {
        let mut thread = fixture.thread();
        while restored < 42 && thread.run_once().expect("no fault").records_restored == 0 {}
        restored = stores.content(task(0), "counts").and_then(|content| content.changelog_offset).unwrap_or(0);
        thread.close(CloseMode::Clean).expect("no fault");
        fixture.broker.assign_on_subscribe(true);
    }
    assert_eq!(restored, 42);
    let starts: Vec<String> = calls(&fixture, &[Operation::RestoreAssign]);
    let expected = [0, 10, 20, 30, 40].map(|start| format!("RestoreAssign {CHANGELOG}-0@{start}"));
    assert_eq!(starts, expected);
}

#[test]
fn few_tasks_are_restored_at_a_time_and_nobody_waits_for_them_without_need() {
    let stores = CrashStores::new();
    let mut fixture = Fixture::counting(7);
    fixture.stores = Arc::new(stores.clone());
    fixture.config.restore_max_records = 1;
    // The last task has nothing to restore.
    for partition in 0..6 {
        fixture.produce(partition, &["a"]);
    }
    let mut thread = fixture.thread();
    fixture.settle(&mut thread).expect("no fault");
    thread.close(CloseMode::Clean).expect("no fault");
    stores.remove_all();
    for partition in 0..6 {
        for key in 0..200 {
            fixture.append(CHANGELOG, partition, &format!("k{key}"), "x", 5);
        }
    }
    fixture.broker.assign_on_subscribe(true);
    let mut thread = fixture.thread();
    let (mut most, mut started_beside) = (0, false);
    for _ in 0..10_000 {
        thread.run_once().expect("no fault");
        fixture.clock.advance_ms(10);
        let report = fixture.progress.read();
        let restoring = report.tasks.iter().filter(|task| !task.restores.is_empty()).count();
        most = most.max(restoring);
        started_beside |= restoring == 4 && report.tasks.get(6).is_some_and(|task| task.state == TaskState::Running);
        if report.all_running() {
            break;
        }
    }
    assert_eq!((most, started_beside), (4, true));
    assert!((0..6).all(|partition| fixture.count(partition, "a") == Some(1)));
    assert_eq!(fixture.progress.read().records_restored, 6 * 201);
}

#[test]
fn a_restore_that_is_killed_twenty_times_keeps_its_progress() {
    for seed in 0..3 {
        let stores = CrashStores::new();
        let mut fixture = counted(&stores);
        stores.remove_all();
        fixture.config.restore_max_records = 1;
        for key in 0..400 {
            fixture.append(CHANGELOG, 0, &format!("k{}", key % 90), &format!("v{key}"), 5);
        }
        let mut seed = Seed::new(seed);
        let mut read = 0;
        for _ in 0..20 {
            let mut thread = fixture.thread();
            let mut slices = 1 + seed.below(4);
            while slices > 0 {
                let restored = thread.run_once().expect("no fault").records_restored;
                read += restored;
                slices -= u64::from(restored > 0).min(slices);
                if fixture.progress.read().all_running() {
                    break;
                }
            }
            // As a power cut: what was not flushed is gone to some part.
            stores.crash(&mut seed);
            drop(thread);
            fixture.broker.assign_on_subscribe(true);
        }
        let mut thread = fixture.thread();
        fixture.settle(&mut thread).expect("no fault");
        read += fixture.progress.read().records_restored;
        let content = stores.content(task(0), "counts").expect("the store is there");
        assert_eq!((content.changelog_offset, content.entries.len()), (Some(402), 92));
        assert!((0..90).all(|key| {
            let last = if key < 40 { key + 360 } else { key + 270 };
            content
                .entries
                .get(format!("k{key}").as_bytes())
                .is_some_and(|value| value == format!("v{last}").as_bytes())
        }));
        assert!(read < 402 * 20, "no progress was kept: {read} records read");
    }
}

#[test]
fn a_changelog_that_is_cut_while_it_is_read_wipes_the_store_and_begins_again() {
    let stores = CrashStores::new();
    let mut fixture = counted(&stores);
    fixture.config.restore_max_records = 1;
    for key in 0..40 {
        fixture.append(CHANGELOG, 0, &format!("k{key}"), "x", 5);
    }
    let faulty = FaultyStores::new(stores.clone());
    fixture.stores = Arc::new(faulty.clone());
    let mut thread = fixture.thread();
    while thread.run_once().expect("no fault").records_restored == 0 {}
    // As DeleteRecords or retention do: the store lacks what was cut, deletes among it.
    fixture.broker.delete_records(CHANGELOG, 0, 30);
    fixture.broker.fail(Operation::RestorePoll, BrokerErrorKind::OffsetOutOfRange);
    fixture.settle(&mut thread).expect("it begins again");
    assert_eq!(faulty.wiped(), 1);
    let content = stores.content(task(0), "counts").expect("the store is there");
    assert_eq!((content.changelog_offset, content.entries.len()), (Some(42), 12));
}

#[test]
fn a_changelog_that_was_cut_above_the_store_wipes_the_store() {
    let stores = CrashStores::new();
    let mut fixture = counted(&stores);
    fixture.append(CHANGELOG, 0, "a", "x", 5);
    fixture.append(CHANGELOG, 0, "c", "x", 5);
    fixture.broker.delete_records(CHANGELOG, 0, 3);
    let faulty = FaultyStores::new(stores.clone());
    fixture.stores = Arc::new(faulty.clone());
    let mut thread = fixture.thread();
    fixture.settle(&mut thread).expect("no fault");
    assert_eq!(faulty.wiped(), 1);
    let content = stores.content(task(0), "counts").expect("it is there");
    assert_eq!((content.entries.len(), content.changelog_offset), (1, Some(4)));
    // Its view was replaced as well.
    assert_eq!(fixture.queries.get("counts", 0, b"c", None).expect("it runs").value.as_deref(), Some(&b"x"[..]));
}

/// Row C7: the offset of a store that nobody writes to any more is on the disk within the flush interval, so that
/// neither a crash nor a changelog that ends there by then costs a restore.
#[test]
fn an_idle_store_is_flushed_in_time_and_survives_the_end_of_its_changelog() {
    for seed in 0..20 {
        let stores = CrashStores::new();
        let mut fixture = counted(&stores);
        let mut thread = fixture.thread();
        for key in ["a", "c", "d"] {
            fixture.append("in", 0, key, "", 10);
            fixture.settle(&mut thread).expect("no fault");
        }
        fixture.clock.advance_ms(fixture.config.statestore_flush_interval_ms);
        thread.run_once().expect("no fault");
        stores.crash(&mut Seed::new(seed));
        drop(thread);
        fixture.broker.assign_on_subscribe(true);
        fixture.broker.delete_records(CHANGELOG, 0, 5);
        let faulty = FaultyStores::new(stores.clone());
        fixture.stores = Arc::new(faulty.clone());
        let mut thread = fixture.thread();
        fixture.settle(&mut thread).expect("no fault");
        assert_eq!((faulty.wiped(), fixture.progress.read().records_restored), (0, 0), "seed {seed}");
        assert_eq!((fixture.count(0, "a"), fixture.count(0, "d")), (Some(3), Some(1)), "seed {seed}");
    }
}

#[test]
fn a_changelog_that_is_cut_above_its_restore_begins_it_again() {
    let stores = CrashStores::new();
    let mut fixture = counted(&stores);
    let keys: Vec<String> = (0..30).map(|key| format!("k{key}")).collect();
    fixture.produce(0, &keys.iter().map(String::as_str).collect::<Vec<_>>());
    let mut thread = fixture.thread();
    fixture.settle(&mut thread).expect("no fault");
    thread.close(CloseMode::Clean).expect("no fault");
    stores.remove_all();
    fixture.broker.assign_on_subscribe(true);
    fixture.config.restore_max_records = 1;
    let mut thread = fixture.thread();
    while thread.run_once().expect("no fault").records_restored == 0 {}
    // Of the 32 records some were read; the first of the next slice is gone.
    fixture.broker.delete_records(CHANGELOG, 0, 22);
    fixture.settle(&mut thread).expect("no fault");
    let content = stores.content(task(0), "counts").expect("the store is there");
    assert_eq!((content.entries.len(), content.changelog_offset), (10, Some(32)));
    assert_eq!(fixture.progress.read().state, ThreadState::Running);
}

#[test]
fn a_changelog_that_was_made_anew_stops_the_thread() {
    let fixture = counted(&CrashStores::new());
    fixture.broker.create_topic(CHANGELOG, 1);
    fixture.broker.set_topic_config(CHANGELOG, "cleanup.policy", "compact");
    let error = fault(&fixture, &mut fixture.thread()).to_string();
    let expected = "store counts of task 0_0 is at offset 2 of its changelog app-counts-changelog-0, which ends at 0";
    assert!(error.starts_with(expected), "{error}");
}

/// The group remembers how far the changelog was, so that it is not begun anew from nothing where nobody else does.
#[test]
fn a_changelog_that_was_made_anew_is_found_without_a_state_directory_too() {
    let stores = CrashStores::new();
    let fixture = counted(&stores);
    stores.remove_all();
    fixture.broker.create_topic(CHANGELOG, 1);
    fixture.broker.set_topic_config(CHANGELOG, "cleanup.policy", "compact");
    for _ in 0..2 {
        let error = fault(&fixture, &mut fixture.thread());
        assert!(matches!(error, EngineError::ChangelogLost { committed: 2, end: 0, .. }), "{error}");
        fixture.broker.assign_on_subscribe(true);
    }
    assert_eq!(fixture.texts("out", 0).len(), 3, "nothing was counted from nothing");
}

/// What commits say of a changelog stays there when later ones do not write to it, and after restarts.
#[test]
fn the_group_goes_on_knowing_a_changelog_that_is_not_written_to() {
    let stores = CrashStores::new();
    let fixture = counted(&stores);
    let committed = || fixture.broker.committed(&TopicPartition::new("in", 0)).expect("it was committed");
    let known = || crate::task::offset_metadata::decode(&committed().metadata).changelogs.get("counts").copied();
    assert_eq!((committed().offset, known()), (3, Some(2)));
    for offset in 4..6 {
        let mut thread = fixture.thread();
        // The count has no use for a record without a key.
        fixture.broker.append("in", 0, None, Some(b"x"), 10, Vec::new());
        fixture.settle(&mut thread).expect("no fault");
        thread.close(CloseMode::Clean).expect("no fault");
        fixture.broker.assign_on_subscribe(true);
        assert_eq!((committed().offset, known()), (offset, Some(2)));
    }
}

/// A store that was written while it had no changelog is not what its changelog says, and may be the only copy.
#[test]
fn what_was_written_without_a_changelog_is_refused_and_kept() {
    let stores = CrashStores::new();
    let fixture = counted(&stores);
    stores.remove_all();
    let options = fixture.options();
    let spec = &options.topology.sub_topologies[0].stores[0];
    let mut store = fixture.stores.open(task(0), spec).expect("it opens");
    store.write(&[("z".into(), Some("9".into()))], None).expect("it is written");
    store.flush().expect("it is flushed");
    drop(store);
    let error = fault(&fixture, &mut fixture.thread());
    assert!(matches!(error, EngineError::UnloggedContent { .. }), "{error}");
    assert_eq!(stores.content(task(0), "counts").expect("it is there").entries.len(), 1);
}

#[test]
fn the_operator_may_accept_a_lost_changelog() {
    let stores = CrashStores::new();
    let mut fixture = counted(&stores);
    stores.remove_all();
    fixture.broker.create_topic(CHANGELOG, 1);
    fixture.broker.set_topic_config(CHANGELOG, "cleanup.policy", "compact");
    fixture.config.accept_lost_changelogs = true;
    fixture.produce(0, &["a"]);
    let mut thread = fixture.thread();
    fixture.settle(&mut thread).expect("it is accepted");
    assert_eq!(counts(&fixture), (Some(1), None));
}

#[test]
fn state_without_committed_offsets_is_not_counted_again() {
    let stores = CrashStores::new();
    let fixture = counted(&stores);
    let source = TopicPartition::new("in", 0);
    let committed = fixture.broker.committed(&source);
    fixture.broker.set_committed(source.clone(), None);
    let mut thread = fixture.thread();
    for _ in 0..30 {
        thread.run_once().expect("it asks again");
        fixture.clock.advance_ms(1_000);
    }
    assert_eq!(fixture.progress.read().tasks[0].state, TaskState::Restoring);
    // The coordinator has found its offsets again.
    fixture.broker.set_committed(source.clone(), committed);
    fixture.settle(&mut thread).expect("no fault");
    fixture.produce(0, &["a"]);
    fixture.settle(&mut thread).expect("no fault");
    assert_eq!(counts(&fixture), (Some(3), Some(1)));
    thread.close(CloseMode::Clean).expect("no fault");

    fixture.broker.assign_on_subscribe(true);
    fixture.broker.set_committed(source, None);
    let mut thread = fixture.thread();
    for _ in 0..59 {
        thread.run_once().expect("it asks again");
        fixture.clock.advance_ms(1_000);
    }
    fixture.clock.advance_ms(2_000);
    let error = fault(&fixture, &mut thread).to_string();
    assert!(
        error.starts_with(
            "task 0_0 has state (store counts, local changelog offset 3) but the group has no committed offset for in-0"
        ),
        "{error}"
    );
}

#[test]
fn the_operator_may_accept_missing_offsets() {
    let mut fixture = counted(&CrashStores::new());
    fixture.broker.set_committed(TopicPartition::new("in", 0), None);
    fixture.config.accept_missing_offsets = true;
    let mut thread = fixture.thread();
    fixture.settle(&mut thread).expect("no fault");
    assert_eq!(counts(&fixture), (Some(4), Some(2)));
}

#[test]
fn a_first_start_that_crashed_leaves_nothing_that_looks_like_lost_offsets() {
    for turns in 0..12 {
        let stores = CrashStores::new();
        let mut fixture = Fixture::counting(1);
        fixture.stores = Arc::new(stores.clone());
        fixture.produce(0, &["a", "b"]);
        let mut thread = fixture.thread();
        for _ in 0..turns {
            thread.run_once().expect("no fault");
            fixture.clock.advance_ms(200);
        }
        stores.crash(&mut Seed::new(turns));
        drop(thread);
        fixture.broker.assign_on_subscribe(true);
        let mut thread = fixture.thread();
        fixture.settle(&mut thread).unwrap_or_else(|error| panic!("after {turns} turns: {error}"));
        assert!(fixture.count(0, "b") >= Some(1), "after {turns} turns");
    }
}

fn corrupt() -> StoreError {
    StoreError::Corrupt { store: "counts".to_owned(), task: task(0), detail: "bad block".to_owned() }
}

#[test]
fn a_corrupt_store_is_wiped_and_restored_wherever_it_shows() {
    for guarantee in [ProcessingGuarantee::AtLeastOnce, ProcessingGuarantee::ExactlyOnceV2] {
        for at in [At::Open, At::Get, At::Write] {
            let stores = CrashStores::new();
            let mut fixture = counted(&stores);
            fixture.config.processing_guarantee = guarantee;
            // Reads must reach the store.
            fixture.config.statestore_cache_max_bytes = 0;
            let faulty = FaultyStores::new(stores);
            fixture.stores = Arc::new(faulty.clone());
            faulty.fail(at, corrupt());
            let mut thread = fixture.thread();
            fixture.produce(0, &["a"]);
            fixture.settle(&mut thread).expect("it is remedied");
            assert_eq!(faulty.wiped(), 1, "{guarantee:?}, {at:?}");
            assert_eq!(counts(&fixture), (Some(3), Some(1)), "{guarantee:?}, {at:?}");
            assert_eq!(fixture.committed("in", 0), Some(4), "{guarantee:?}, {at:?}");
        }
    }
}

#[test]
fn a_store_that_stays_corrupt_stops_the_thread() {
    let mut fixture = Fixture::counting(1);
    let faulty = FaultyStores::new(CrashStores::new());
    fixture.stores = Arc::new(faulty.clone());
    (0..100).for_each(|_| faulty.fail(At::Get, corrupt()));
    fixture.produce(0, &["a"]);
    let error = fault(&fixture, &mut fixture.thread()).to_string();
    assert!(error.starts_with("gave up after 10 attempts without a commit: task 0_0, in-0, offset 0"), "{error}");
}

#[test]
fn a_full_disk_stops_processing_until_there_is_space_and_loses_nothing() {
    let stores = CrashStores::new();
    let fixture = counted(&stores);
    let mut thread = fixture.thread();
    fixture.settle(&mut thread).expect("no fault");
    stores.fill_disk(true);
    fixture.produce(0, &["a"]);
    fixture.clock.advance_ms(1_000);
    for _ in 0..50 {
        thread.run_once().expect("it waits");
        fixture.clock.advance_ms(1_000);
    }
    // The offsets are committed, so the writes wait in memory; nothing new is processed.
    fixture.produce(0, &["b"]);
    let turn = thread.run_once().expect("it waits");
    assert!(turn.wait_ms > 0 && turn.records_processed == 0, "{turn:?}");
    assert_eq!((fixture.committed("in", 0), counts(&fixture)), (Some(4), (Some(2), Some(1))));
    assert!(fixture.progress.read().trouble.is_some_and(|(trouble, _)| trouble.contains("no space left")));
    stores.fill_disk(false);
    fixture.settle(&mut thread).expect("there is space again");
    assert_eq!((fixture.committed("in", 0), counts(&fixture)), (Some(5), (Some(3), Some(2))));
}

#[test]
fn a_store_that_another_thread_still_holds_is_waited_for() {
    let mut fixture = Fixture::counting(1);
    let faulty = FaultyStores::new(CrashStores::new());
    fixture.stores = Arc::new(faulty.clone());
    for _ in 0..5 {
        faulty.fail(At::Open, StoreError::Locked { path: "0_0/counts".to_owned(), detail: "in use".to_owned() });
    }
    fixture.produce(0, &["a"]);
    let mut thread = fixture.thread();
    fixture.settle(&mut thread).expect("the other thread has closed it");
    assert_eq!(fixture.count(0, "a"), Some(1));
}

#[test]
fn errors_during_a_restore_leave_it_resumable() {
    for operation in
        [Operation::RestoreAssign, Operation::RestorePoll, Operation::RestoreUnassign, Operation::Watermarks]
    {
        let stores = CrashStores::new();
        let fixture = counted(&stores);
        stores.remove_all();
        let mut thread = fixture.thread();
        (0..3).for_each(|_| fixture.broker.fail(operation, crate::broker::BrokerErrorKind::Retriable));
        fixture.settle(&mut thread).unwrap_or_else(|error| panic!("{operation:?}: {error}"));
        assert!(fixture.broker.failures_are_spent(), "{operation:?}");
        assert_eq!(counts(&fixture), (Some(2), Some(1)), "{operation:?}");
    }
    let stores = CrashStores::new();
    let mut fixture = counted(&stores);
    stores.remove_all();
    let faulty = FaultyStores::new(stores);
    fixture.stores = Arc::new(faulty.clone());
    let (store, detail) = ("counts".to_owned(), "full".to_owned());
    faulty.fail(At::Write, StoreError::NoSpace { store, task: task(0), detail });
    let mut thread = fixture.thread();
    fixture.settle(&mut thread).expect("there is space again");
    assert_eq!(counts(&fixture), (Some(2), Some(1)));
}

#[test]
fn a_changelog_record_without_a_key_stops_the_thread() {
    let stores = CrashStores::new();
    let fixture = counted(&stores);
    fixture.broker.append(CHANGELOG, 0, None, Some(b"x"), 5, Vec::new());
    let error = fault(&fixture, &mut fixture.thread()).to_string();
    assert!(error.starts_with("changelog app-counts-changelog-0 has a record without a key at offset 2"), "{error}");
}

#[test]
fn a_committed_offset_keeps_stream_time_even_of_another_version() {
    let fixture = counted(&CrashStores::new());
    let source = TopicPartition::new("in", 0);
    let committed = fixture.broker.committed(&source).expect("it was committed");
    assert_eq!(crate::task::offset_metadata::decode(&committed.metadata).partition_time, 2);
    let foreign = OffsetAndMetadata { offset: 3, metadata: "something else".to_owned() };
    fixture.broker.set_committed(source, Some(foreign));
    let mut thread = fixture.thread();
    fixture.settle(&mut thread).expect("no fault");
    assert_eq!(fixture.progress.read().tasks[0].stream_time, None);
}
