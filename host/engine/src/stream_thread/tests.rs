//! Tests of `stream_thread`: whole turns over the mock broker.

use super::fixture::{Fixture, task};
use super::*;
use crate::broker::{OffsetAndMetadata, RebalanceEvent};
use crate::metrics::Metric;
use crate::processor::{Processor, ProcessorContext, ProcessorError, ProcessorSupplier, PunctuationType};
use crate::record::{InputBatch, Outcome, TopicPartition};
use crate::task::TaskState;
use crate::testing::{Hostile, NativeProcessor, NativeSupplier, Operation, commands, topology};

#[test]
fn a_record_goes_all_the_way() {
    let fixture = Fixture::counting(1);
    let mut thread = fixture.thread();
    fixture.produce(0, &["a", "b", "a"]);
    fixture.settle(&mut thread).expect("no fault");
    assert_eq!(fixture.texts("out", 0), ["a=1", "b=1", "a=2"]);
    assert_eq!(fixture.texts("app-counts-changelog", 0), ["a=2", "b=1"]);
    assert_eq!(fixture.committed("in", 0), Some(3));
    assert_eq!(fixture.count(0, "a"), Some(2));
    let report = fixture.progress.read();
    assert_eq!((report.records_processed, report.state), (3, ThreadState::Running));
    assert_eq!((report.tasks[0].task, report.tasks[0].state), (task(0), TaskState::Running));
    assert_eq!(report.tasks[0].stream_time, Some(2));
}

mod isolation;
mod migrating;
mod rebalancing;
mod refusals;
mod restoring;
mod scheduling;
mod swapping;
mod time;

/// The calls of some operations, as text.
fn calls(fixture: &Fixture, wanted: &[Operation]) -> Vec<String> {
    let calls = fixture.broker.take_calls().into_iter().filter(|call| wanted.contains(&call.operation));
    calls.map(|call| call.to_string()).collect()
}

fn partitions(topic: &str, partitions: &[i32]) -> Vec<TopicPartition> {
    partitions.iter().map(|&partition| TopicPartition::new(topic, partition)).collect()
}

/// A processor supplier over `in`, `counts` and `out`.
fn supplier<P: Processor + 'static>(make: impl Fn() -> P + Send + Sync + 'static) -> Arc<dyn ProcessorSupplier> {
    Arc::new(NativeSupplier::new(topology(&["in"], &["counts"], &["out"]), move |_| make()))
}

#[test]
fn a_thread_that_gets_no_partition_is_running_too() {
    let fixture = Fixture::counting(1);
    fixture.broker.assign_on_subscribe(false);
    let mut thread = fixture.thread();
    thread.run_once().expect("it waits");
    assert_eq!(fixture.progress.read().state, ThreadState::Starting);
    fixture.broker.rebalance(0, RebalanceEvent::Assigned(Vec::new()));
    thread.run_once().expect("an empty assignment is one");
    assert_eq!(fixture.progress.read().state, ThreadState::Running);
    assert!(fixture.progress.read().all_running());
}

#[test]
fn the_start_is_committed_before_anything_is_written() {
    let fixture = Fixture::counting(1);
    let mut thread = fixture.thread();
    fixture.produce(0, &["a"]);
    fixture.broker.take_calls();
    fixture.settle(&mut thread).expect("no fault");
    assert_eq!(
        calls(&fixture, &[Operation::Commit, Operation::Send]),
        ["Commit in-0@0", "Send out-0", "Send app-counts-changelog-0", "Commit in-0@1"]
    );
}

/// Writes one entry when it starts.
struct WritesInInit;

impl NativeProcessor for WritesInInit {
    fn init(&mut self, context: &mut ProcessorContext) -> Result<(), ProcessorError> {
        let store = context.store_at(0)?;
        Ok(context.put(store, b"started", Some(b"1"), None)?)
    }

    fn process(&mut self, _context: &mut ProcessorContext, _batch: &InputBatch) -> Result<Outcome, ProcessorError> {
        Ok(Outcome::default())
    }
}

/// A changelog with records but no committed offset would look like lost offsets after a crash in between (R11).
#[test]
fn the_start_is_committed_before_what_init_wrote() {
    let fixture = Fixture::new(supplier(|| WritesInInit), 1);
    let mut thread = fixture.thread();
    fixture.broker.take_calls();
    fixture.settle(&mut thread).expect("no fault");
    assert_eq!(
        calls(&fixture, &[Operation::Commit, Operation::Send]),
        ["Commit in-0@0", "Send app-counts-changelog-0"]
    );
    assert_eq!(fixture.texts("app-counts-changelog", 0).len(), 1);
}

#[test]
fn auto_offset_reset_decides_where_a_group_begins() {
    for (reset, expected) in [(AutoOffsetReset::Earliest, "a=2"), (AutoOffsetReset::Latest, "a=1")] {
        let mut fixture = Fixture::counting(1);
        fixture.config.auto_offset_reset = reset;
        fixture.produce(0, &["a"]);
        let mut thread = fixture.thread();
        fixture.settle(&mut thread).expect("no fault");
        fixture.produce(0, &["a"]);
        fixture.settle(&mut thread).expect("no fault");
        assert_eq!(fixture.texts("out", 0).last().map(String::as_str), Some(expected), "{reset:?}");
    }
    let mut fixture = Fixture::counting(1);
    fixture.config.auto_offset_reset = AutoOffsetReset::None;
    let error = fixture.settle(&mut fixture.thread()).expect_err("there is no committed offset");
    assert_eq!(error.to_string(), "in-0 has no committed offset and auto.offset.reset is none");
}

#[test]
fn exactly_once_commits_offsets_and_changelog_in_one_transaction() {
    let mut fixture = Fixture::counting(1);
    fixture.config.processing_guarantee = ProcessingGuarantee::ExactlyOnceV2;
    let mut thread = fixture.thread();
    fixture.produce(0, &["a"]);
    fixture.broker.take_calls();
    fixture.settle(&mut thread).expect("no fault");
    let transactional = [
        Operation::InitTransactions,
        Operation::BeginTransaction,
        Operation::Send,
        Operation::SendOffsets,
        Operation::CommitTransaction,
        Operation::Commit,
    ];
    assert_eq!(
        calls(&fixture, &transactional),
        [
            "InitTransactions ",
            "BeginTransaction ",
            "SendOffsets in-0 generation 1",
            "CommitTransaction ",
            "BeginTransaction ",
            "Send out-0",
            "Send app-counts-changelog-0",
            "SendOffsets in-0 generation 1",
            "CommitTransaction ",
        ]
    );
    assert_eq!((fixture.committed("in", 0), fixture.count(0, "a")), (Some(1), Some(1)));
    let mut options = fixture.options();
    options.transactional_id = None;
    assert!(matches!(StreamThread::new(options), Err(EngineError::NoTransactionalId { thread: 0 })));
}

#[test]
fn queries_see_what_is_committed_and_nothing_else() {
    let fixture = Fixture::counting(1);
    let input = TopicPartition::new("in", 0);
    let mut thread = fixture.thread();
    fixture.settle(&mut thread).expect("no fault");
    fixture.produce(0, &["a"]);
    while fixture.texts("out", 0).is_empty() {
        thread.run_once().expect("no fault");
    }
    let reflected = || fixture.queries.get("counts", 0, b"a", None).expect("an answer").position.sources;
    assert_eq!((fixture.count(0, "a"), reflected().as_deref()), (None, Some(&[(input.clone(), 0)][..])));
    fixture.settle(&mut thread).expect("no fault");
    assert_eq!((fixture.count(0, "a"), reflected().as_deref()), (Some(1), Some(&[(input.clone(), 1)][..])));
    thread.close(CloseMode::Clean).expect("no fault");
    assert!(fixture.queries.registrations().is_empty());
    // Whoever goes on knows at once how far its state is.
    fixture.broker.assign_on_subscribe(true);
    let mut thread = fixture.thread();
    while fixture.queries.get("counts", 0, b"a", None).is_err() {
        thread.run_once().expect("no fault");
    }
    assert_eq!((fixture.count(0, "a"), reflected().as_deref()), (Some(1), Some(&[(input, 1)][..])));
}

#[test]
fn a_restart_goes_on_with_state_offsets_and_stream_time() {
    let fixture = Fixture::counting(2);
    let mut thread = fixture.thread();
    fixture.produce(0, &["a", "a"]);
    fixture.produce(1, &["b"]);
    fixture.settle(&mut thread).expect("no fault");
    thread.close(CloseMode::Clean).expect("no fault");
    fixture.broker.assign_on_subscribe(true);
    let mut thread = fixture.thread();
    fixture.settle(&mut thread).expect("no fault");
    let report = fixture.progress.read();
    assert_eq!(report.records_restored, 2);
    assert_eq!(report.tasks.iter().map(|task| task.stream_time).collect::<Vec<_>>(), [Some(1), Some(0)]);
    fixture.produce(0, &["a"]);
    fixture.settle(&mut thread).expect("no fault");
    assert_eq!((fixture.count(0, "a"), fixture.count(1, "b")), (Some(3), Some(1)));
}

#[test]
fn a_clean_close_commits_what_was_processed() {
    let fixture = Fixture::counting(1);
    let mut thread = fixture.thread();
    fixture.settle(&mut thread).expect("no fault");
    fixture.produce(0, &["a"]);
    while fixture.texts("out", 0).is_empty() {
        thread.run_once().expect("no fault");
    }
    assert_eq!(fixture.committed("in", 0), Some(0));
    thread.close(CloseMode::Clean).expect("no fault");
    assert_eq!(fixture.committed("in", 0), Some(1));
    assert_eq!(fixture.texts("app-counts-changelog", 0), ["a=1"]);
    assert_eq!(fixture.progress.read().state, ThreadState::Dead);
    assert_eq!(thread.close(CloseMode::Clean), Ok(()), "closing twice is harmless");
}

#[test]
fn a_clean_close_waits_for_a_rebalance_that_is_going_on() {
    let fixture = Fixture::counting(2);
    let mut thread = fixture.thread();
    fixture.settle(&mut thread).expect("no fault");
    fixture.produce(0, &["a"]);
    fixture.produce(1, &["b"]);
    while fixture.texts("out", 0).len() + fixture.texts("out", 1).len() < 2 {
        thread.run_once().expect("no fault");
    }
    fixture.broker.fail(Operation::Commit, BrokerErrorKind::Rebalanced);
    fixture.broker.rebalance(0, RebalanceEvent::Revoked(partitions("in", &[1])));
    thread.close(CloseMode::Clean).expect("no fault");
    assert_eq!((fixture.committed("in", 0), fixture.committed("in", 1)), (Some(1), Some(1)));
    assert_eq!(fixture.metrics.get(Metric::TasksClosedDirty), 0);
}

#[test]
fn a_dirty_close_commits_nothing() {
    let fixture = Fixture::counting(1);
    let mut thread = fixture.thread();
    fixture.settle(&mut thread).expect("no fault");
    fixture.produce(0, &["a"]);
    thread.run_once().expect("no fault");
    thread.close(CloseMode::Dirty).expect("no fault");
    assert_eq!((fixture.committed("in", 0), fixture.texts("app-counts-changelog", 0).len()), (Some(0), 0));
}

#[test]
fn a_thread_can_be_closed_in_every_state() {
    for turns in 0..8 {
        for mode in [CloseMode::Clean, CloseMode::Dirty] {
            let fixture = Fixture::counting(1);
            fixture.produce(0, &["a", "b"]);
            let mut thread = fixture.thread();
            for _ in 0..turns {
                thread.run_once().expect("no fault");
            }
            assert_eq!(thread.close(mode), Ok(()), "after {turns} turns, {mode:?}");
            fixture.broker.assign_on_subscribe(true);
            let mut thread = fixture.thread();
            fixture.settle(&mut thread).expect("no fault");
            assert!(fixture.count(0, "a") >= Some(1), "after {turns} turns, {mode:?}");
        }
    }
}

/// A counting application under a guarantee, whose tasks run.
fn settled(partitions: i32, guarantee: ProcessingGuarantee) -> (Fixture, StreamThread) {
    let mut fixture = Fixture::counting(partitions);
    fixture.config.processing_guarantee = guarantee;
    let mut thread = fixture.thread();
    fixture.settle(&mut thread).expect("no fault");
    (fixture, thread)
}

/// Runs until the thread stops and returns why.
fn fault(fixture: &Fixture, thread: &mut StreamThread) -> EngineError {
    fixture.settle(thread).expect_err("the thread must stop")
}

#[test]
fn a_trap_stops_the_thread_and_leaves_no_trace_of_its_batch() {
    for (command, message) in [
        (commands::TRAP, "the processor crashed: told to trap"),
        (commands::RETURN, "the processor refused the record: told to fail"),
        (commands::MALFORMED, "malformed output: a column has 2 items where 1 were expected (keys)"),
        (commands::UNKNOWN_SINK, "malformed output: output 0 goes to sink 99, but the sinks are 0 to 0: out"),
    ] {
        let mut fixture = Fixture::new(supplier(|| Hostile), 1);
        fixture.config.batch_max_records = 1;
        let mut thread = fixture.thread();
        fixture.append("in", 0, "a", "", 1);
        fixture.append("in", 0, "a", std::str::from_utf8(command).expect("ASCII"), 2);
        let error = fault(&fixture, &mut thread);
        assert_eq!(error.to_string(), format!("task 0_0, in-0, offset 1, module native: {message}"));
        thread.close(CloseMode::Clean).expect("no fault");
        // The record before it is committed, the batch with the fault is not.
        assert_eq!(fixture.committed("in", 0), Some(1), "{message}");
        assert_eq!(fixture.texts("out", 0), ["a=1"]);
        assert_eq!(fixture.texts("app-counts-changelog", 0), ["a=1"]);
    }
}

#[test]
fn a_refused_record_stops_the_thread_and_is_named() {
    let fixture = Fixture::new(supplier(|| Hostile), 1);
    let mut thread = fixture.thread();
    for value in ["", "refuse", "refuse", ""] {
        fixture.append("in", 0, "a", value, 1);
    }
    let error = fault(&fixture, &mut thread);
    assert_eq!(
        error.to_string(),
        "task 0_0, in-0, offset 1, module native: the processor refused the record: told to refuse"
    );
    thread.close(CloseMode::Clean).expect("no fault");
    // What came before it is committed.
    assert_eq!((fixture.committed("in", 0), fixture.texts("out", 0).len()), (Some(1), 1));
    assert_eq!(fixture.texts("app-counts-changelog", 0).len(), 1);
}

#[test]
fn a_processor_that_cannot_start_stops_the_thread() {
    struct Unable;
    impl NativeProcessor for Unable {
        fn init(&mut self, context: &mut ProcessorContext) -> Result<(), ProcessorError> {
            context.schedule(5, PunctuationType::StreamTime);
            Err(ProcessorError::Start("no memory".to_owned()))
        }

        fn process(&mut self, _: &mut ProcessorContext, _: &InputBatch) -> Result<Outcome, ProcessorError> {
            Ok(Outcome::default())
        }
    }
    let fixture = Fixture::new(supplier(|| Unable), 1);
    let mut thread = fixture.thread();
    assert_eq!(
        fault(&fixture, &mut thread).to_string(),
        "task 0_0, module native: the processor could not start: no memory"
    );
    thread.close(CloseMode::Clean).expect("no fault");
}

#[test]
fn a_negative_timestamp_stops_the_thread_after_the_records_before_it() {
    let fixture = Fixture::counting(1);
    let mut thread = fixture.thread();
    for timestamp in [-1, 5, -2] {
        fixture.append("in", 0, "a", "", timestamp);
    }
    let error = fault(&fixture, &mut thread);
    assert!(error.to_string().starts_with("task 0_0, in-0, offset 2: the record has the timestamp -2"), "{error}");
    thread.close(CloseMode::Clean).expect("no fault");
    assert_eq!((fixture.committed("in", 0), fixture.texts("out", 0).len()), (Some(2), 2));
}

#[test]
fn retriable_errors_are_tried_again_for_a_bounded_time() {
    for operation in [
        Operation::CreateProducer,
        Operation::CreateConsumer,
        Operation::Subscribe,
        Operation::Committed,
        Operation::Assign,
        Operation::Pause,
        Operation::Watermarks,
        Operation::Resume,
        Operation::Commit,
        Operation::Position,
    ] {
        let fixture = Fixture::counting(1);
        let mut thread = fixture.thread();
        fixture.produce(0, &["a"]);
        (0..3).for_each(|_| fixture.broker.fail(operation, BrokerErrorKind::Retriable));
        fixture.settle(&mut thread).unwrap_or_else(|error| panic!("{operation:?}: {error}"));
        assert!(fixture.broker.failures_are_spent(), "{operation:?}");
        assert_eq!(fixture.texts("out", 0), ["a=1"], "{operation:?}");
        assert_eq!(fixture.committed("in", 0), Some(1), "{operation:?}");
        assert_eq!(fixture.progress.read().trouble, None);
    }
    let mut fixture = Fixture::counting(1);
    fixture.config.task_timeout_ms = 1_000;
    let mut thread = fixture.thread();
    (0..100).for_each(|_| fixture.broker.fail(Operation::Commit, BrokerErrorKind::Retriable));
    let error = fault(&fixture, &mut thread).to_string();
    assert!(error.starts_with("gave up after 1"), "{error}");
    assert!(error.contains("commit of thread 0 failed in stage commit offsets"), "{error}");
}

#[test]
fn a_broker_that_is_away_never_stops_the_thread() {
    let fixture = Fixture::counting(1);
    let mut thread = fixture.thread();
    fixture.settle(&mut thread).expect("no fault");
    (0..5_000).for_each(|_| fixture.broker.fail(Operation::Poll, BrokerErrorKind::Retriable));
    for _ in 0..5_000 {
        let turn = thread.run_once().expect("it waits");
        assert!(turn.wait_ms > 0, "no spinning");
        fixture.clock.advance_ms(turn.wait_ms);
    }
    assert!(fixture.progress.read().trouble.is_some());
    fixture.produce(0, &["a"]);
    fixture.settle(&mut thread).expect("the broker is back");
    assert_eq!((fixture.count(0, "a"), fixture.progress.read().trouble), (Some(1), None));
}

#[test]
fn a_failed_delivery_drops_the_work_and_makes_a_new_producer() {
    for guarantee in [ProcessingGuarantee::AtLeastOnce, ProcessingGuarantee::ExactlyOnceV2] {
        for (after, kind) in
            [(0, BrokerErrorKind::Retriable), (1, BrokerErrorKind::Retriable), (1, BrokerErrorKind::Abortable)]
        {
            let mut fixture = Fixture::counting(1);
            fixture.config.processing_guarantee = guarantee;
            let mut thread = fixture.thread();
            fixture.produce(0, &["a", "b"]);
            fixture.broker.fail_after(after, Operation::Delivery, kind);
            fixture.settle(&mut thread).expect("it is remedied");
            assert!(fixture.broker.failures_are_spent());
            let case = format!("{guarantee:?}, delivery {after}, {kind:?}");
            let made = calls(&fixture, &[Operation::CreateProducer]);
            assert_eq!(made.len(), 2, "{case}: {made:?}");
            // Nothing is lost, and the state is as if nothing had happened.
            assert_eq!((fixture.count(0, "a"), fixture.count(0, "b")), (Some(1), Some(1)), "{case}");
            assert_eq!(fixture.committed("in", 0), Some(2), "{case}");
            let outputs = fixture.texts("out", 0);
            assert!(outputs.iter().any(|text| text == "a=1") && outputs.iter().any(|text| text == "b=1"), "{case}");
            assert_eq!(fixture.progress.read().recycles, 1);
        }
    }
}

#[test]
fn doubt_about_a_transaction_is_never_guessed_away() {
    for (operation, lost_reply) in [
        (Operation::SendOffsets, false),
        (Operation::SendOffsets, true),
        (Operation::CommitTransaction, false),
        (Operation::CommitTransaction, true),
        (Operation::BeginTransaction, false),
    ] {
        for kind in [BrokerErrorKind::Retriable, BrokerErrorKind::Abortable] {
            let mut fixture = Fixture::counting(1);
            fixture.config.processing_guarantee = ProcessingGuarantee::ExactlyOnceV2;
            let mut thread = fixture.thread();
            fixture.settle(&mut thread).expect("no fault");
            fixture.produce(0, &["a", "a"]);
            if lost_reply {
                fixture.broker.lose_reply(operation, kind);
            } else {
                fixture.broker.fail(operation, kind);
            }
            fixture.settle(&mut thread).expect("it is remedied");
            let case = format!("{operation:?}, reply lost: {lost_reply}, {kind:?}");
            assert!(fixture.broker.failures_are_spent(), "{case}");
            // The mock keeps the records of a transaction that nobody aborted, so only a commit that took effect can
            // be checked to the record: it must not be repeated.
            assert_eq!(fixture.committed("in", 0), Some(2), "{case}");
            if operation == Operation::CommitTransaction && lost_reply {
                assert_eq!(fixture.count(0, "a"), Some(2), "{case}");
                assert_eq!(fixture.texts("out", 0), ["a=1", "a=2"], "{case}");
            }
        }
    }
}

#[test]
fn a_fenced_thread_joins_anew_and_two_that_fence_each_other_end_loudly() {
    let fixture = Fixture::counting(1);
    let mut thread = fixture.thread();
    fixture.settle(&mut thread).expect("no fault");
    fixture.produce(0, &["a"]);
    fixture.broker.assign_on_subscribe(true);
    fixture.broker.fail(Operation::Commit, BrokerErrorKind::Fenced);
    fixture.settle(&mut thread).expect("it joins anew");
    // At least once: the changelog record of the failed commit is there, and its source record is processed again.
    assert_eq!((fixture.count(0, "a"), fixture.committed("in", 0)), (Some(2), Some(1)));
    for _ in 0..4 {
        fixture.broker.fail(Operation::Poll, BrokerErrorKind::Fenced);
    }
    let error = fault(&fixture, &mut thread).to_string();
    assert!(error.starts_with("gave up after 3 attempts without a commit: Poll"), "{error}");
}

#[test]
fn a_thread_whose_transaction_is_taken_by_another_ends_and_does_not_come_back() {
    let (fixture, mut thread) = settled(1, ProcessingGuarantee::ExactlyOnceV2);
    fixture.produce(0, &["a"]);
    fixture.broker.take_calls();
    fixture.broker.fail(Operation::CommitTransaction, BrokerErrorKind::Fenced);
    let error = fault(&fixture, &mut thread).to_string();
    assert!(error.starts_with("another process runs with the identity of this host"), "{error}");
    assert_eq!(calls(&fixture, &[Operation::InitTransactions]), [""; 0], "it must not fence the other in turn");
}

#[test]
fn a_thread_whose_transaction_grew_too_old_joins_anew() {
    let (fixture, mut thread) = settled(1, ProcessingGuarantee::ExactlyOnceV2);
    fixture.produce(0, &["a"]);
    while fixture.texts("out", 0).is_empty() {
        thread.run_once().expect("no fault");
    }
    fixture.broker.assign_on_subscribe(true);
    fixture.broker.fail(Operation::CommitTransaction, BrokerErrorKind::Fenced);
    // The machine slept, which the monotonic clock does not see.
    let timeout_ms = fixture.config.transaction_timeout_ms as i64;
    fixture.clock.set_wall_clock_ms(crate::clock::Clock::wall_clock_ms(&fixture.clock) + timeout_ms);
    fixture.settle(&mut thread).expect("it joins anew");
    assert_eq!(fixture.committed("in", 0), Some(1));
}

#[test]
fn a_thread_that_stood_still_asks_the_group_before_it_writes() {
    for kind in [BrokerErrorKind::Rebalanced, BrokerErrorKind::Retriable] {
        let fixture = Fixture::counting(1);
        let mut thread = fixture.thread();
        fixture.settle(&mut thread).expect("no fault");
        fixture.produce(0, &["a"]);
        while fixture.texts("out", 0).is_empty() {
            thread.run_once().expect("no fault");
        }
        let committed = fixture.broker.committed(&TopicPartition::new("in", 0));
        fixture.clock.advance_ms(20_000);
        fixture.broker.fail(Operation::Commit, kind);
        fixture.broker.take_calls();
        thread.run_once().expect("it asks again");
        assert_eq!(calls(&fixture, &[Operation::Commit, Operation::Send]), ["Commit in-0@0"], "{kind:?}");
        assert_eq!(fixture.broker.committed(&TopicPartition::new("in", 0)), committed);
        fixture.broker.rebalance(0, RebalanceEvent::Lost(partitions("in", &[0])));
        thread.run_once().expect("it was replaced");
        thread.run_once().expect("it is idle");
        assert_eq!(calls(&fixture, &[Operation::Commit, Operation::Send]), Vec::<String>::new(), "{kind:?}");
    }
}

#[test]
fn a_rebalance_during_a_commit_is_waited_for() {
    let fixture = Fixture::counting(1);
    let mut thread = fixture.thread();
    fixture.settle(&mut thread).expect("no fault");
    fixture.produce(0, &["a"]);
    fixture.broker.fail(Operation::Commit, BrokerErrorKind::Rebalanced);
    fixture.settle(&mut thread).expect("no fault");
    assert!(fixture.broker.failures_are_spent());
    assert_eq!((fixture.committed("in", 0), fixture.texts("out", 0).len()), (Some(1), 1));
}

#[test]
fn removed_records_stop_the_thread_with_a_name() {
    let fixture = Fixture::counting(1);
    fixture.produce(0, &["a", "b", "c"]);
    let at = OffsetAndMetadata { offset: 0, metadata: String::new() };
    fixture.broker.set_committed(TopicPartition::new("in", 0), Some(at));
    fixture.broker.delete_records("in", 0, 2);
    let error = fault(&fixture, &mut fixture.thread());
    assert!(matches!(error, EngineError::OffsetOutOfRange { .. }), "{error}");
    assert!(error.to_string().contains("in-0"), "{error}");
}

#[test]
fn a_full_producer_queue_holds_processing_back_and_loses_nothing() {
    for guarantee in [ProcessingGuarantee::AtLeastOnce, ProcessingGuarantee::ExactlyOnceV2] {
        let mut fixture = Fixture::counting(1);
        fixture.config.processing_guarantee = guarantee;
        fixture.config.batch_max_records = 4;
        // Neither the outputs of a batch nor the changelog records of a commit fit.
        fixture.broker.limit_producer_queue(3);
        let mut thread = fixture.thread();
        let keys: Vec<String> = (0..20).map(|key| format!("k{key:02}")).collect();
        let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
        fixture.produce(0, &keys);
        fixture.settle(&mut thread).expect("no fault");
        let expected: Vec<String> = keys.iter().map(|key| format!("{key}=1")).collect();
        assert_eq!(fixture.texts("out", 0), expected);
        assert_eq!(fixture.texts("app-counts-changelog", 0), expected);
        assert_eq!(fixture.committed("in", 0), Some(20));
    }
}

#[test]
fn deliveries_that_do_not_come_hold_the_commit_open() {
    let mut fixture = Fixture::counting(1);
    fixture.config.processing_guarantee = ProcessingGuarantee::AtLeastOnce;
    let mut thread = fixture.thread();
    fixture.settle(&mut thread).expect("no fault");
    fixture.broker.hold_deliveries(true);
    fixture.produce(0, &["a"]);
    fixture.clock.advance_ms(1_000);
    for _ in 0..50 {
        thread.run_once().expect("it waits");
        fixture.clock.advance_ms(10);
    }
    assert_eq!((fixture.committed("in", 0), fixture.count(0, "a")), (Some(0), None));
    fixture.produce(0, &["b"]);
    fixture.broker.hold_deliveries(false);
    fixture.settle(&mut thread).expect("no fault");
    assert_eq!(fixture.texts("out", 0), ["a=1", "b=1"]);
    assert_eq!((fixture.committed("in", 0), fixture.count(0, "b")), (Some(2), Some(1)));
}

/// A pause makes the client throw away what it has fetched ahead, so it must not be the normal case.
#[test]
fn a_queue_that_each_turn_empties_is_never_paused() {
    let mut fixture = Fixture::counting(1);
    fixture.config.buffered_records_per_partition = 2;
    fixture.config.max_poll_records = 2;
    let mut thread = fixture.thread();
    fixture.settle(&mut thread).expect("no fault");
    fixture.broker.take_calls();
    fixture.produce(0, &["a"; 10]);
    fixture.settle(&mut thread).expect("no fault");
    assert_eq!(fixture.count(0, "a"), Some(10));
    assert_eq!(calls(&fixture, &[Operation::Pause, Operation::Resume]), Vec::<String>::new());
}

#[test]
fn a_full_queue_pauses_its_partition_until_there_is_room() {
    let mut fixture = Fixture::counting(1);
    fixture.config.buffered_records_per_partition = 4;
    fixture.config.max_poll_records = 2;
    let mut thread = fixture.thread();
    fixture.settle(&mut thread).expect("no fault");
    fixture.broker.hold_deliveries(true);
    fixture.broker.limit_producer_queue(0);
    fixture.produce(0, &["a"; 20]);
    for _ in 0..20 {
        thread.run_once().expect("it waits");
    }
    // One batch is with the collector; the queue took what fits.
    let report = fixture.progress.read();
    assert_eq!(thread.poll_timeout(), Duration::from_millis(10), "no spinning");
    fixture.clock.advance_ms(1_000);
    thread.run_once().expect("it waits");
    let buffered = fixture.progress.read().tasks[0].partitions[0].buffered;
    assert!((4..6).contains(&buffered), "{buffered} in {report:?}");
    assert_eq!(calls(&fixture, &[Operation::Pause]).last().map(String::as_str), Some("Pause in-0"));
    fixture.broker.hold_deliveries(false);
    fixture.broker.limit_producer_queue(100);
    fixture.settle(&mut thread).expect("no fault");
    assert_eq!((fixture.texts("out", 0).len(), fixture.count(0, "a")), (20, Some(20)));
}

#[test]
fn a_poll_waits_exactly_as_long_as_there_is_nothing_to_do() {
    let mut fixture = Fixture::counting(1);
    fixture.config.poll_ms = 5_000;
    let mut thread = fixture.thread();
    assert_eq!(thread.poll_timeout(), Duration::from_secs(5), "no assignment yet");
    fixture.settle(&mut thread).expect("no fault");
    assert_eq!(thread.poll_timeout(), Duration::from_secs(5), "nothing to do");
    fixture.produce(0, &["a"]);
    thread.run_once().expect("no fault");
    let until_commit_ms = thread.poll_timeout().as_millis();
    assert!((1..=1_000).contains(&until_commit_ms), "{until_commit_ms} ms until the commit is due");
    fixture.broker.rebalance(0, RebalanceEvent::Assigned(partitions("in", &[0])));
    fixture.broker.fail(Operation::Assign, BrokerErrorKind::Retriable);
    thread.run_once().expect("it is tried again");
    assert_eq!(thread.poll_timeout(), Duration::ZERO, "a rebalance is to be answered");
}

#[test]
fn uncommitted_bytes_force_a_commit() {
    let mut fixture = Fixture::counting(1);
    fixture.config.commit_interval_ms = u64::MAX;
    fixture.config.batch_max_records = 1;
    fixture.config.statestore_uncommitted_max_bytes = 400;
    let mut thread = fixture.thread();
    fixture.produce(0, &["a", "b", "c", "d"]);
    for _ in 0..20 {
        thread.run_once().expect("no fault");
    }
    // Each entry counts more than 128 bytes.
    assert_eq!(fixture.committed("in", 0), Some(3));
    assert_eq!(fixture.metrics.get(Metric::CommitsForcedBySize), 1);
}
