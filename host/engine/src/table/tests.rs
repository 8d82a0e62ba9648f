//! Tables over the mock broker: what is served, and where a task goes on when stores, the group's offsets and the topic
//! do not agree.

use bytes::Bytes;

use super::*;
use crate::assignment::MemberName;
use crate::broker::{BrokerErrorKind, GroupMember, OffsetAndMetadata, RebalanceEvent};
use crate::error::EngineError;
use crate::metrics::Metric;
use crate::query::{QueryError, Role};
use crate::record::{Offset, TopicPartition};
use crate::standby::{StandbyThread, StandbyThreadOptions};
use crate::state::StoreProvider;
use crate::stream_thread::fixture::{FaultyStores, Fixture, task};
use crate::stream_thread::{CloseMode, StreamThread};
use crate::testing::{CrashStores, Operation, Seed};

const TOPIC: &str = "planes";

fn table(store: &str, topic: &str) -> TableSpec {
    TableSpec {
        store: store.into(),
        topic: topic.into(),
        backend: StoreBackend::InMemory,
        key_format: "utf8".into(),
        value_format: "utf8".into(),
    }
}

/// An application that serves the topic `planes`.
fn fixture(stores: impl StoreProvider + 'static, partitions: i32) -> Fixture {
    let topology = Arc::new(topology(&[table(TOPIC, TOPIC)]));
    let mut fixture = Fixture::new(Arc::new(TableSupplier::new(topology)), partitions);
    fixture.stores = Arc::new(stores);
    fixture
}

fn put(fixture: &Fixture, key: &str, value: &str) -> Offset {
    let (key, value) = (Some(key.as_bytes()), Some(value.as_bytes()));
    fixture.broker.append(TOPIC, 0, key, value, 5, Vec::new())
}

fn put_without_key(fixture: &Fixture) {
    fixture.broker.append(TOPIC, 0, None, Some(b"lost"), 5, Vec::new());
}

fn delete(fixture: &Fixture, key: &str) {
    fixture.broker.append(TOPIC, 0, Some(key.as_bytes()), None, 5, Vec::new());
}

fn get(fixture: &Fixture, key: &str) -> Option<Bytes> {
    fixture.queries.get(TOPIC, 0, key.as_bytes(), None).expect("the store can be asked").value
}

/// Runs until nothing is left to do, then ends cleanly. What the broker was asked is forgotten.
fn run(fixture: &Fixture) {
    let mut thread = fixture.thread();
    fixture.settle(&mut thread).expect("no fault");
    thread.close(CloseMode::Clean).expect("no fault");
    fixture.broker.assign_on_subscribe(true);
    fixture.broker.take_calls();
}

fn settled(fixture: &Fixture) -> StreamThread {
    let mut thread = fixture.thread();
    fixture.settle(&mut thread).expect("no fault");
    thread
}

fn stored(stores: &CrashStores) -> Option<Offset> {
    stores.content(task(0), TOPIC).and_then(|content| content.changelog_offset)
}

fn calls(fixture: &Fixture, wanted: &[Operation]) -> Vec<String> {
    let calls = fixture.broker.take_calls().into_iter().filter(|call| wanted.contains(&call.operation));
    calls.map(|call| call.to_string()).collect()
}

#[test]
fn a_topic_is_a_store_and_nothing_is_written_for_it() {
    let stores = CrashStores::new();
    let fixture = fixture(stores.clone(), 1);
    put(&fixture, "a", "1");
    put(&fixture, "b", "1");
    let mut thread = settled(&fixture);
    assert_eq!(fixture.progress.read().records_restored, 2, "what is there is loaded before anything is answered");
    put(&fixture, "a", "2");
    delete(&fixture, "b");
    fixture.settle(&mut thread).expect("no fault");
    assert_eq!((get(&fixture, "a").as_deref(), get(&fixture, "b")), (Some(&b"2"[..]), None));
    assert_eq!(fixture.progress.read().records_processed, 2);
    assert_eq!((stored(&stores), fixture.committed(TOPIC, 0)), (Some(4), Some(4)));
    let topics: Vec<String> = fixture.broker.topics().into_iter().map(|topic| topic.name).collect();
    assert_eq!(topics, [TOPIC]);
    assert_eq!(calls(&fixture, &[Operation::Send, Operation::CreateTopic]), Vec::<String>::new());
}

#[test]
fn nothing_is_answered_before_the_topic_is_read() {
    let mut fixture = fixture(CrashStores::new(), 1);
    fixture.config.restore_max_records = 1;
    (0..40).for_each(|number| {
        put(&fixture, &format!("k{number}"), "x");
    });
    let mut thread = fixture.thread();
    while thread.run_once().expect("no fault").records_restored == 0 {}
    assert!(matches!(fixture.queries.get(TOPIC, 0, b"k1", None), Err(QueryError::Restoring { .. })));
    fixture.settle(&mut thread).expect("no fault");
    assert_eq!(get(&fixture, "k39").as_deref(), Some(&b"x"[..]));
}

#[test]
fn a_restart_goes_on_at_the_offset_of_the_store() {
    for seed in 0..20 {
        let stores = CrashStores::new();
        let fixture = fixture(stores.clone(), 1);
        (0..5).for_each(|number| {
            put(&fixture, &format!("k{number}"), "old");
        });
        run(&fixture);
        let mut thread = settled(&fixture);
        for number in 0..3 {
            put(&fixture, &format!("k{number}"), "new");
            fixture.settle(&mut thread).expect("no fault");
        }
        // The group knows all eight; the store may have forgotten what was not flushed.
        stores.crash(&mut Seed::new(seed));
        drop(thread);
        fixture.broker.assign_on_subscribe(true);
        let have = stored(&stores).expect("it was flushed once");
        assert!((5..=8).contains(&have), "seed {seed}: {have}");
        let _thread = settled(&fixture);
        assert_eq!(fixture.progress.read().records_restored, (8 - have) as u64, "seed {seed}");
        assert_eq!(
            (get(&fixture, "k2").as_deref(), get(&fixture, "k4").as_deref()),
            (Some(&b"new"[..]), Some(&b"old"[..]))
        );
    }
}

#[test]
fn the_groups_offsets_do_not_count() {
    let at = |offset| Some(OffsetAndMetadata { offset, metadata: String::new() });
    // Expired, behind the store, beyond the log.
    for committed in [None, at(1), at(99)] {
        let fixture = fixture(CrashStores::new(), 1);
        (0..5).for_each(|number| {
            put(&fixture, &format!("k{number}"), "x");
        });
        run(&fixture);
        fixture.broker.set_committed(TopicPartition::new(TOPIC, 0), committed.clone());
        put(&fixture, "k0", "y");
        let _thread = settled(&fixture);
        assert_eq!(get(&fixture, "k0").as_deref(), Some(&b"y"[..]), "{committed:?}");
        assert_eq!(fixture.progress.read().records_restored, 1, "{committed:?}");
        assert_eq!(fixture.committed(TOPIC, 0), Some(6), "{committed:?}: the group is told");
    }
}

#[test]
fn a_log_that_was_cut_above_the_store_loads_it_again() {
    let stores = CrashStores::new();
    let mut fixture = fixture(stores.clone(), 1);
    put(&fixture, "gone", "x");
    run(&fixture);
    delete(&fixture, "gone");
    (0..5).for_each(|number| {
        put(&fixture, &format!("k{number}"), "x");
    });
    fixture.broker.delete_records(TOPIC, 0, 4);
    let faulty = FaultyStores::new(stores.clone());
    fixture.stores = Arc::new(faulty.clone());
    let _thread = settled(&fixture);
    assert_eq!((faulty.wiped(), stored(&stores)), (1, Some(7)));
    assert_eq!((get(&fixture, "gone"), get(&fixture, "k2").as_deref()), (None, Some(&b"x"[..])));
    assert_eq!(get(&fixture, "k1"), None, "it is not in the topic any more");
}

#[test]
fn a_table_that_is_overtaken_by_the_start_of_the_log_loads_again_by_itself() {
    let stores = CrashStores::new();
    let fixture = fixture(stores.clone(), 1);
    put(&fixture, "gone", "x");
    let mut thread = settled(&fixture);
    put(&fixture, "a", "1");
    put(&fixture, "b", "1");
    // Before the thread has read them.
    fixture.broker.delete_records(TOPIC, 0, 2);
    fixture.broker.assign_on_subscribe(true);
    fixture.settle(&mut thread).expect("it goes on");
    assert_eq!((get(&fixture, "gone"), get(&fixture, "b").as_deref()), (None, Some(&b"1"[..])));
    assert_eq!(stored(&stores), Some(3));
}

#[test]
fn a_topic_that_ends_before_the_store_is_refused() {
    let fixture = fixture(CrashStores::new(), 1);
    (0..5).for_each(|number| {
        put(&fixture, &format!("k{number}"), "x");
    });
    run(&fixture);
    fixture.broker.delete_topic(TOPIC);
    fixture.broker.create_topic(TOPIC, 1);
    put(&fixture, "k0", "other");
    let mut thread = fixture.thread();
    let error = fixture.settle(&mut thread).expect_err("it is another topic");
    assert!(matches!(error, EngineError::SourceRegressed { stored: 5, end: 1, .. }), "{error}");
}

#[test]
fn records_without_a_key_are_left_out_and_counted() {
    let stores = CrashStores::new();
    let fixture = fixture(stores.clone(), 1);
    put_without_key(&fixture);
    put(&fixture, "a", "1");
    put_without_key(&fixture);
    let mut thread = settled(&fixture);
    assert_eq!((fixture.metrics.get(Metric::RecordsDropped), fixture.progress.read().records_restored), (2, 1));
    assert_eq!(stored(&stores), Some(3));
    put_without_key(&fixture);
    fixture.settle(&mut thread).expect("no fault");
    assert_eq!(fixture.metrics.get(Metric::RecordsDropped), 3);
    assert_eq!((get(&fixture, ""), get(&fixture, "a").as_deref()), (None, Some(&b"1"[..])));
    // The store has passed them, though it holds nothing of them.
    thread.close(CloseMode::Clean).expect("no fault");
    assert_eq!(stored(&stores), Some(4));
}

#[test]
fn after_doubt_the_store_says_where_to_go_on() {
    let stores = CrashStores::new();
    let fixture = fixture(stores.clone(), 1);
    put(&fixture, "a", "1");
    let mut thread = settled(&fixture);
    put(&fixture, "a", "2");
    fixture.broker.lose_reply(Operation::Commit, BrokerErrorKind::Abortable);
    fixture.settle(&mut thread).expect("it goes on");
    assert!(fixture.broker.failures_are_spent());
    put(&fixture, "b", "1");
    fixture.settle(&mut thread).expect("no fault");
    assert_eq!((get(&fixture, "a").as_deref(), get(&fixture, "b").as_deref()), (Some(&b"2"[..]), Some(&b"1"[..])));
    assert_eq!((stored(&stores), fixture.committed(TOPIC, 0)), (Some(3), Some(3)));
}

#[test]
fn an_open_transaction_of_the_topics_writer_holds_up_nothing_but_itself() {
    let fixture = fixture(CrashStores::new(), 1);
    put(&fixture, "a", "1");
    put(&fixture, "a", "open");
    fixture.broker.open_transaction(TOPIC, 0, Some(1));
    let mut thread = settled(&fixture);
    assert_eq!(get(&fixture, "a").as_deref(), Some(&b"1"[..]));
    fixture.broker.open_transaction(TOPIC, 0, None);
    fixture.settle(&mut thread).expect("no fault");
    assert_eq!(get(&fixture, "a").as_deref(), Some(&b"open"[..]));
}

fn member(host: &str, partitions: &[i32]) -> GroupMember {
    let name = MemberName { host_id: host.to_owned(), endpoint: format!("{host}:7070"), thread: 0 };
    GroupMember {
        member_id: host.to_owned(),
        client_id: name.client_id("app"),
        host: "/127.0.0.1".to_owned(),
        assigned: partitions.iter().map(|&partition| TopicPartition::new(TOPIC, partition)).collect(),
    }
}

#[test]
fn a_standby_follows_the_topic_and_may_be_ahead_of_the_group() {
    let stores = CrashStores::new();
    let fixture = fixture(stores.clone(), 1);
    fixture.broker.assign_on_subscribe(false);
    fixture.broker.set_members(Some(vec![member("h0", &[0]), member("h1", &[])]));
    let (mut stream, mut options) = (fixture.options(), StandbyThreadOptions::beside(&fixture.options(), 1, "h1", 1));
    options.metrics = Arc::clone(&fixture.metrics);
    stream.standby_tasks = Arc::clone(&options.standby_tasks);
    let mut standby = StandbyThread::new(options).expect("the thread can be made");
    let mut turns = |count| {
        for _ in 0..count {
            standby.run_once().expect("it goes on");
            fixture.clock.advance_ms(100);
        }
    };
    (0..5).for_each(|number| {
        put(&fixture, &format!("k{number}"), "x");
    });
    put_without_key(&fixture);
    turns(15);
    let answer = fixture.queries.get(TOPIC, 0, b"k4", Some(0)).expect("a copy that has everything answers");
    assert_eq!((answer.value.as_deref(), answer.position.role), (Some(&b"x"[..]), Role::Standby));
    assert_eq!(fixture.metrics.get(Metric::RecordsDropped), 1);

    // The host that processes it has committed less when it dies.
    let partition = TopicPartition::new(TOPIC, 0);
    fixture.broker.set_committed(partition.clone(), Some(OffsetAndMetadata { offset: 2, metadata: String::new() }));
    let mut stream = StreamThread::new(stream).expect("the thread can be made");
    fixture.broker.rebalance(0, RebalanceEvent::Assigned(vec![partition.clone()]));
    stream.run_once().expect("joins");
    stream.run_once().expect("waits");
    turns(1);
    put(&fixture, "k0", "y");
    fixture.settle(&mut stream).expect("no fault");
    assert_eq!((get(&fixture, "k0").as_deref(), get(&fixture, "k4").as_deref()), (Some(&b"y"[..]), Some(&b"x"[..])));
    let report = fixture.progress.read();
    assert!(report.records_restored + report.records_processed <= 1, "nothing is read twice: {report:?}");
    assert_eq!((stored(&stores), fixture.committed(TOPIC, 0)), (Some(7), Some(7)));
}

#[test]
fn tables_of_one_application_are_sub_topologies_of_their_own() {
    let two = topology(&[table("planes", "planes"), table("routes", "x-routes-changelog")]);
    assert_eq!(two.validate("x"), Ok(()), "another application's changelog can be served");
    assert!(two.has_tables_only());
    let task = two.task_of(&TopicPartition::new("x-routes-changelog", 3)).expect("it is a source");
    assert_eq!(task.to_string(), "1_3");
    let names = |tables: &[TableSpec]| topology(tables).validate("x").expect_err("refused").to_string();
    assert!(names(&[table("a", "t"), table("b", "t")]).contains("topic t is read by sub-topologies 0 and 1"));
    assert!(names(&[table("a", "t"), table("a", "u")]).contains("store a is declared by sub-topologies 0 and 1"));
}
