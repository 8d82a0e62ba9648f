//! Tests of rebalances with whole turns: partitions that come, go, and come back.

use super::super::fixture::Fixture;
use super::super::*;
use super::{calls, fault, partitions, settled};
use crate::broker::RebalanceEvent;
use crate::metrics::Metric;
use crate::testing::{Count, NativeSupplier, Operation, topology};

#[test]
fn revoked_tasks_commit_before_their_partitions_are_given_up() {
    let fixture = Fixture::counting(2);
    let mut thread = fixture.thread();
    fixture.settle(&mut thread).expect("no fault");
    fixture.produce(0, &["a"]);
    fixture.produce(1, &["b"]);
    while fixture.texts("out", 0).len() + fixture.texts("out", 1).len() < 2 {
        thread.run_once().expect("no fault");
    }
    fixture.broker.take_calls();
    fixture.broker.rebalance(0, RebalanceEvent::Revoked(partitions("in", &[0])));
    thread.run_once().expect("no fault");
    assert_eq!(calls(&fixture, &[Operation::Commit, Operation::Unassign]), ["Commit in-0@1 in-1@1", "Unassign in-0"]);
    assert_eq!(fixture.progress.read().tasks.len(), 1);
    // The other task goes on, and the first comes back with its state.
    fixture.broker.rebalance(0, RebalanceEvent::Assigned(partitions("in", &[0])));
    fixture.produce(0, &["a"]);
    fixture.produce(1, &["b"]);
    fixture.settle(&mut thread).expect("no fault");
    assert_eq!((fixture.count(0, "a"), fixture.count(1, "b")), (Some(2), Some(2)));
}

#[test]
fn a_task_whose_last_commit_fails_is_closed_without_writing() {
    for kind in [BrokerErrorKind::Rebalanced, BrokerErrorKind::Retriable] {
        let fixture = Fixture::counting(1);
        let mut thread = fixture.thread();
        fixture.settle(&mut thread).expect("no fault");
        fixture.produce(0, &["a"]);
        while fixture.texts("out", 0).is_empty() {
            thread.run_once().expect("no fault");
        }
        (0..2_000).for_each(|_| fixture.broker.fail(Operation::Commit, kind));
        fixture.broker.rebalance(0, RebalanceEvent::Revoked(partitions("in", &[0])));
        thread.run_once().expect("the revoke is answered all the same");
        assert!(fixture.progress.read().tasks.is_empty());
        assert_eq!(fixture.committed("in", 0), Some(0), "{kind:?}");
        assert_eq!(fixture.metrics.get(Metric::TasksClosedDirty), 1);
    }
}

#[test]
fn lost_tasks_write_nothing() {
    let fixture = Fixture::counting(1);
    let mut thread = fixture.thread();
    fixture.settle(&mut thread).expect("no fault");
    fixture.produce(0, &["a"]);
    while fixture.texts("out", 0).is_empty() {
        thread.run_once().expect("no fault");
    }
    fixture.broker.take_calls();
    fixture.broker.rebalance(0, RebalanceEvent::Lost(partitions("in", &[0])));
    thread.run_once().expect("no fault");
    assert_eq!(calls(&fixture, &[Operation::Commit, Operation::Send, Operation::Unassign]), ["Unassign in-0"]);
    // The next owner, here the same thread, processes the record again.
    fixture.broker.rebalance(0, RebalanceEvent::Assigned(partitions("in", &[0])));
    fixture.settle(&mut thread).expect("no fault");
    assert_eq!((fixture.texts("out", 0).len(), fixture.count(0, "a")), (2, Some(1)));
}

/// A crash may leave changelogs ahead of the offsets, and the records in between are then done again on the newer
/// state: their first outputs must be there by then.
#[test]
fn outputs_are_acknowledged_before_changelogs_are_written() {
    let (fixture, mut thread) = settled(1, ProcessingGuarantee::AtLeastOnce);
    fixture.broker.take_calls();
    fixture.broker.hold_deliveries(true);
    fixture.produce(0, &["a"]);
    for _ in 0..20 {
        fixture.clock.advance_ms(100);
        thread.run_once().expect("no fault");
    }
    assert_eq!(calls(&fixture, &[Operation::Send, Operation::Commit]), ["Send out-0"]);
    fixture.broker.hold_deliveries(false);
    fixture.settle(&mut thread).expect("no fault");
    let calls = calls(&fixture, &[Operation::Send, Operation::Commit]);
    assert_eq!(calls, ["Send app-counts-changelog-0", "Commit in-0@1"]);
}

/// What a lost task has sent is in the thread's open transaction, and its offsets never will be: the transaction must
/// not be committed, neither with the other tasks' work nor with that of a task that comes back.
#[test]
fn a_transaction_with_work_of_a_lost_task_is_never_committed() {
    let (fixture, mut thread) = settled(2, ProcessingGuarantee::ExactlyOnceV2);
    fixture.produce(0, &["a"]);
    fixture.produce(1, &["b"]);
    while fixture.texts("out", 0).len() + fixture.texts("out", 1).len() < 2 {
        thread.run_once().expect("no fault");
    }
    fixture.broker.take_calls();
    fixture.broker.rebalance(0, RebalanceEvent::Lost(partitions("in", &[0])));
    fixture.settle(&mut thread).expect("the other task begins again at its last commit");
    let transactional = [Operation::InitTransactions, Operation::SendOffsets, Operation::CommitTransaction];
    assert_eq!(
        calls(&fixture, &transactional),
        ["InitTransactions ", "SendOffsets in-1 generation 2", "CommitTransaction "],
        "the producer is made anew before anything is committed"
    );
    assert_eq!((fixture.committed("in", 0), fixture.committed("in", 1)), (Some(0), Some(1)));
    assert_eq!(fixture.count(1, "b"), Some(1));
}

/// librdkafka tells the loss of the partitions before it tells why. A producer that is made in between would fence the
/// copy of this host that took them over (row A5).
#[test]
fn a_consumer_that_is_fenced_after_it_lost_its_partitions_makes_no_new_producer() {
    let (fixture, mut thread) = settled(1, ProcessingGuarantee::ExactlyOnceV2);
    fixture.produce(0, &["a"]);
    while fixture.texts("out", 0).is_empty() {
        thread.run_once().expect("no fault");
    }
    fixture.broker.take_calls();
    fixture.broker.rebalance(0, RebalanceEvent::Lost(partitions("in", &[0])));
    fixture.broker.fail_after(1, Operation::Poll, BrokerErrorKind::Fenced);
    let error = (0..5).find_map(|_| thread.run_once().err()).expect("the other copy goes on").to_string();
    assert!(error.starts_with("another process runs with the identity of this host"), "{error}");
    assert_eq!(calls(&fixture, &[Operation::CreateProducer, Operation::InitTransactions]), [""; 0]);
}

/// Without a transaction nothing undoes what is still on its way. It must not reach a changelog after the next owner
/// has read that to its end, so it goes with the producer that has it.
#[test]
fn a_producer_that_still_sends_work_of_a_lost_task_is_made_anew() {
    let (fixture, mut thread) = settled(2, ProcessingGuarantee::AtLeastOnce);
    fixture.broker.take_calls();
    fixture.broker.hold_deliveries(true);
    fixture.produce(0, &["a"]);
    for _ in 0..5 {
        thread.run_once().expect("no fault");
    }
    fixture.broker.rebalance(0, RebalanceEvent::Lost(partitions("in", &[0])));
    thread.run_once().expect("it is remedied");
    fixture.broker.hold_deliveries(false);
    fixture.settle(&mut thread).expect("it is remedied");
    assert_eq!(calls(&fixture, &[Operation::CreateProducer]).len(), 1);
    assert_eq!(fixture.progress.read().recycles, 1);

    // One that has nothing on its way is kept.
    fixture.broker.take_calls();
    fixture.broker.rebalance(0, RebalanceEvent::Lost(partitions("in", &[1])));
    fixture.settle(&mut thread).expect("no fault");
    assert_eq!(calls(&fixture, &[Operation::CreateProducer]), [""; 0]);
}

#[test]
fn an_incomplete_task_waits_for_its_other_partitions_and_then_says_what_is_missing() {
    let processors = Arc::new(NativeSupplier::new(topology(&["in", "more"], &["counts"], &["out"]), |_| Count));
    let fixture = Fixture::new(processors, 1);
    fixture.broker.assign_on_subscribe(false);
    let mut thread = fixture.thread();
    fixture.produce(0, &["a"]);
    fixture.broker.rebalance(0, RebalanceEvent::Assigned(partitions("in", &[0])));
    fixture.settle(&mut thread).expect("it waits");
    assert!(fixture.texts("out", 0).is_empty());
    fixture.broker.rebalance(0, RebalanceEvent::Assigned(partitions("more", &[0])));
    fixture.settle(&mut thread).expect("it is complete");
    assert_eq!(fixture.texts("out", 0), ["a=1"]);
    fixture.broker.rebalance(0, RebalanceEvent::Revoked(partitions("more", &[0])));
    fixture.settle(&mut thread).expect("it waits again");
    fixture.clock.advance_ms(60_000);
    let error = fault(&fixture, &mut thread).to_string();
    assert!(error.starts_with("task 0_0 got in-0 but not more-0 within"), "{error}");
}

/// The consumer has passed the records that waited in the queues of the task that was closed.
#[test]
fn a_task_that_is_completed_again_goes_on_at_the_committed_offsets() {
    let processors = Arc::new(NativeSupplier::new(topology(&["in", "more"], &["counts"], &["out"]), |_| Count));
    let mut fixture = Fixture::new(processors, 1);
    fixture.config.max_task_idle_ms = 10_000;
    fixture.broker.assign_on_subscribe(false);
    let mut thread = fixture.thread();
    let both = [partitions("in", &[0]), partitions("more", &[0])].concat();
    fixture.broker.rebalance(0, RebalanceEvent::Assigned(both));
    fixture.settle(&mut thread).expect("no fault");
    fixture.produce(0, &["a", "b"]);
    thread.run_once().expect("the records wait for the other partition");
    assert!(fixture.texts("out", 0).is_empty());
    fixture.broker.rebalance(0, RebalanceEvent::Revoked(partitions("more", &[0])));
    thread.run_once().expect("the task is closed");
    fixture.broker.rebalance(0, RebalanceEvent::Assigned(partitions("more", &[0])));
    fixture.settle(&mut thread).expect("it is complete again");
    fixture.clock.advance_ms(10_000);
    fixture.settle(&mut thread).expect("it has waited long enough");
    fixture.clock.advance_ms(10_000);
    fixture.settle(&mut thread).expect("it has waited long enough");
    assert_eq!(fixture.texts("out", 0), ["a=1", "b=1"]);
}
