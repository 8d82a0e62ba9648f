//! Tests of schedules, the order of several sources, and results that do not depend on the size of batches.

use super::super::fixture::Fixture;
use super::super::*;
use super::supplier;
use crate::clock::Clock;
use crate::processor::{ProcessorContext, ProcessorError, PunctuationType, ScheduleId};
use crate::record::{InputBatch, Outcome, Timestamp};
use crate::testing::{MajorityVote, NativeProcessor, NativeSupplier, PassThrough, forward, topology};

/// Forwards every record, and each punctuation as `at=<time>/<stream time>`.
struct Ticking {
    interval_ms: u64,
    kind: PunctuationType,
}

impl NativeProcessor for Ticking {
    fn init(&mut self, context: &mut ProcessorContext) -> Result<(), ProcessorError> {
        context.schedule(self.interval_ms, self.kind);
        Ok(())
    }

    fn process(&mut self, context: &mut ProcessorContext, batch: &InputBatch) -> Result<Outcome, ProcessorError> {
        NativeProcessor::process(&mut PassThrough, context, batch)
    }

    fn punctuate(
        &mut self,
        context: &mut ProcessorContext,
        _: ScheduleId,
        time: Timestamp,
    ) -> Result<Outcome, ProcessorError> {
        let mut outcome = Outcome::default();
        let value = format!("{time}/{:?}", context.stream_time);
        forward(&mut outcome.outputs, time, Some(b"at"), Some(value.as_bytes()));
        Ok(outcome)
    }
}

fn ticking(interval_ms: u64, kind: PunctuationType) -> Fixture {
    Fixture::new(supplier(move || Ticking { interval_ms, kind }), 1)
}

#[test]
fn stream_time_punctuations_stand_where_they_are_due_for_any_batch_size() {
    for batch_max_records in [1, 2, 500] {
        let mut fixture = ticking(100, PunctuationType::StreamTime);
        fixture.config.batch_max_records = batch_max_records;
        for (key, timestamp) in [("a", 20), ("b", 90), ("c", 105), ("d", 110), ("e", 430), ("f", 499), ("g", 500)] {
            fixture.append("in", 0, key, "", timestamp);
        }
        let mut thread = fixture.thread();
        fixture.settle(&mut thread).expect("no fault");
        assert_eq!(
            fixture.texts("out", 0),
            [
                "a=",
                "at=20/Some(20)",
                "b=",
                "c=",
                "at=105/Some(105)",
                "d=",
                "e=",
                "at=430/Some(430)",
                "f=",
                "g=",
                "at=500/Some(500)",
            ],
            "batches of {batch_max_records}"
        );
        assert_eq!(fixture.progress.read().punctuations, 4);
    }
}

#[test]
fn stream_time_punctuations_wait_for_data_after_a_restart() {
    let fixture = ticking(100, PunctuationType::StreamTime);
    fixture.append("in", 0, "a", "", 250);
    let mut thread = fixture.thread();
    fixture.settle(&mut thread).expect("no fault");
    thread.close(CloseMode::Clean).expect("no fault");
    fixture.broker.assign_on_subscribe(true);
    let mut thread = fixture.thread();
    fixture.settle(&mut thread).expect("no fault");
    assert_eq!(fixture.texts("out", 0).len(), 2);
    // A late record does not take the stream time back.
    fixture.append("in", 0, "b", "", 130);
    fixture.settle(&mut thread).expect("no fault");
    assert_eq!(fixture.texts("out", 0)[2..], ["b=", "at=250/Some(250)"]);
}

#[test]
fn wall_clock_punctuations_come_after_an_interval_without_any_record() {
    let fixture = ticking(500, PunctuationType::WallClockTime);
    let mut thread = fixture.thread();
    for _ in 0..100 {
        thread.run_once().expect("no fault");
        fixture.clock.advance_ms(10);
    }
    let times: Vec<String> = fixture.texts("out", 0);
    assert_eq!(times.len(), 1, "{times:?}");
    // The machine slept: missed intervals are skipped.
    fixture.clock.advance_ms(10_000);
    thread.run_once().expect("no fault");
    thread.run_once().expect("no fault");
    let turn = thread.run_once().expect("no fault");
    assert_eq!((fixture.texts("out", 0).len(), turn.punctuations), (2, 0));
}

#[test]
fn the_outputs_of_a_vote_do_not_depend_on_batches_or_commits() {
    let run = |batch_max_records, commit_interval_ms| {
        let mut fixture = Fixture::new(supplier(MajorityVote::default), 1);
        fixture.config.batch_max_records = batch_max_records;
        fixture.config.commit_interval_ms = commit_interval_ms;
        for report in 0..200_i64 {
            let (object, agent) = (["rain", "fog"][report as usize % 2], report % 3);
            let value = format!("{agent}={}", u8::from(report % 7 < 3));
            fixture.append("in", 0, object, &value, report * 500_000);
        }
        let mut thread = fixture.thread();
        fixture.settle(&mut thread).expect("no fault");
        thread.close(CloseMode::Clean).expect("no fault");
        fixture.texts("out", 0)
    };
    let expected = run(1, 1_000);
    assert!(expected.len() > 220, "{}", expected.len());
    for (batch_max_records, commit_interval_ms) in [(7, 1), (100, 1_000), (500, 10)] {
        assert!(run(batch_max_records, commit_interval_ms) == expected, "{batch_max_records}, {commit_interval_ms}");
    }
}

/// Two sources, joined by time.
fn two_sources(max_task_idle_ms: i64) -> Fixture {
    let processors = NativeSupplier::new(topology(&["in", "more"], &[], &["out"]), |_| PassThrough);
    let mut fixture = Fixture::new(Arc::new(processors), 1);
    fixture.config.max_task_idle_ms = max_task_idle_ms;
    fixture
}

#[test]
fn records_of_two_sources_come_in_the_order_of_their_timestamps() {
    let mut fixture = two_sources(0);
    // The second source comes in many small polls, the first in few.
    fixture.config.max_poll_records = 3;
    for index in 0..20 {
        fixture.append("in", 0, &format!("i{}", index * 10), "", index * 10);
        fixture.append("more", 0, &format!("m{}", index * 10 + 5), "", index * 10 + 5);
    }
    let mut thread = fixture.thread();
    fixture.settle(&mut thread).expect("no fault");
    let expected: Vec<String> = (0..40).map(|index| format!("{}{}=", ["i", "m"][index % 2], index * 5)).collect();
    assert_eq!(fixture.texts("out", 0), expected);
    assert_eq!((fixture.committed("in", 0), fixture.committed("more", 0)), (Some(20), Some(20)));
}

#[test]
fn a_task_waits_for_an_empty_source_as_long_as_it_is_told() {
    let fixture = two_sources(5_000);
    let mut thread = fixture.thread();
    fixture.settle(&mut thread).expect("no fault");
    fixture.append("in", 0, "i", "", 10);
    for _ in 0..40 {
        thread.run_once().expect("it waits");
        fixture.clock.advance_ms(100);
    }
    assert!(fixture.texts("out", 0).is_empty());
    fixture.append("more", 0, "m", "", 5);
    for _ in 0..10 {
        thread.run_once().expect("no fault");
    }
    assert_eq!(fixture.texts("out", 0), ["m="]);
    for _ in 0..60 {
        thread.run_once().expect("it waits again, then goes on");
        fixture.clock.advance_ms(100);
    }
    assert_eq!(fixture.texts("out", 0), ["m=", "i="]);
}

#[test]
fn a_wall_clock_that_is_set_back_does_not_prolong_a_wait() {
    const DAY_MS: i64 = 86_400_000;
    for jump_ms in [-DAY_MS, -3_600_000, 3_600_000, DAY_MS] {
        let fixture = two_sources(5_000);
        let mut thread = fixture.thread();
        fixture.settle(&mut thread).expect("no fault");
        fixture.append("in", 0, "i", "", 10);
        for turn in 0..60 {
            if turn == 10 {
                fixture.clock.set_wall_clock_ms(fixture.clock.wall_clock_ms() + jump_ms);
                thread.run_once().expect("it waits");
                assert!(fixture.texts("out", 0).is_empty(), "a jump of {jump_ms} ms ends the wait");
            }
            thread.run_once().expect("it waits, then goes on");
            fixture.clock.advance_ms(100);
        }
        assert_eq!(fixture.texts("out", 0), ["i="], "after a jump of {jump_ms} ms");
    }
}

#[test]
fn results_do_not_depend_on_a_wall_clock_that_jumps() {
    let run = |jump_ms: i64| {
        let fixture = Fixture::new(supplier(MajorityVote::default), 1);
        let mut thread = fixture.thread();
        for report in 0..200_i64 {
            let (object, agent) = (["rain", "fog"][report as usize % 2], report % 3);
            let value = format!("{agent}={}", u8::from(report % 7 < 3));
            fixture.append("in", 0, object, &value, report * 500_000);
            if report % 40 == 20 {
                fixture.settle(&mut thread).expect("no fault");
                let sign = if report % 80 == 20 { 1 } else { -1 };
                fixture.clock.set_wall_clock_ms(fixture.clock.wall_clock_ms() + sign * jump_ms);
            }
        }
        fixture.settle(&mut thread).expect("no fault");
        thread.close(CloseMode::Clean).expect("no fault");
        fixture.texts("out", 0)
    };
    let expected = run(0);
    for jump_ms in [3_600_000, -3_600_000, 86_400_000, -86_400_000] {
        assert!(run(jump_ms) == expected, "jumps of {jump_ms} ms");
    }
}
