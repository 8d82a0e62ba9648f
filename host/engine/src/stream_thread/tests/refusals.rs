//! Tests of what isolation must withstand: instances with a memory, clocks that go on inside a call, schedules between
//! the calls, topics that refuse what was checked.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, OnceLock};

use super::isolation::{copies, dead_letters, said, values, with_dead_letters};
use super::*;
use crate::broker::BrokerErrorKind;
use crate::dead_letter::header;
use crate::processor::ScheduleId;
use crate::record::Refusal;
use crate::testing::{ManualClock, MockBroker, Obedient, Operation, ProcessWith, forward};

fn trap(message: &str) -> ProcessorError {
    ProcessorError::Trap { message: message.to_owned(), backtrace: String::new() }
}

/// Keeps what it has counted in its memory, and refuses as `Obedient` does.
#[derive(Default)]
struct Caching {
    counts: BTreeMap<Vec<u8>, u64>,
}

impl NativeProcessor for Caching {
    fn process(&mut self, context: &mut ProcessorContext, batch: &InputBatch) -> Result<Outcome, ProcessorError> {
        let (store, mut outcome) = (context.store_at(0)?, Outcome::default());
        for (index, (key, value)) in batch.keys.iter().zip(batch.values.iter()).enumerate() {
            let key = key.unwrap_or_default();
            let count = match self.counts.get(key) {
                Some(count) => *count,
                None => context.get(store, key)?.map_or(0, |value| crate::testing::number(&value)),
            } + 1;
            self.counts.insert(key.to_vec(), count);
            context.put(store, key, Some(&count.to_be_bytes()), None)?;
            forward(&mut outcome.outputs, batch.timestamps[index], Some(key), Some(&count.to_be_bytes()));
            if value == Some(commands::REFUSE) {
                outcome.refused.push(Refusal { index: index as u32, reason: "told to".to_owned() });
            }
        }
        Ok(outcome)
    }
}

#[test]
fn an_instance_that_has_seen_what_was_undone_does_not_go_on() {
    let fixture = with_dead_letters(Caching::default);
    let mut thread = fixture.thread();
    for (timestamp, value) in [b"", commands::REFUSE, b"", b"", commands::REFUSE, b""].into_iter().enumerate() {
        fixture.broker.append("in", 0, Some(b"a"), Some(value), timestamp as i64, Vec::new());
    }
    fixture.settle(&mut thread).expect("no fault");
    assert_eq!(fixture.texts("out", 0), ["a=1", "a=2", "a=3", "a=4"]);
    assert_eq!(fixture.count(0, "a"), Some(4));
    assert_eq!(dead_letters(&fixture).len(), 2);
}

#[test]
fn nothing_is_refused_because_it_was_seen_before_it_was_undone() {
    /// Refuses what it has seen, and crashes at the third record.
    #[derive(Default)]
    struct Deduplicating {
        seen: BTreeSet<Vec<u8>>,
    }
    impl NativeProcessor for Deduplicating {
        fn process(&mut self, _: &mut ProcessorContext, batch: &InputBatch) -> Result<Outcome, ProcessorError> {
            let mut outcome = Outcome::default();
            for (index, (key, value)) in batch.keys.iter().zip(batch.values.iter()).enumerate() {
                if value == Some(commands::REFUSE) || !self.seen.insert(key.unwrap_or_default().to_vec()) {
                    outcome.refused.push(Refusal { index: index as u32, reason: "seen".to_owned() });
                } else {
                    forward(&mut outcome.outputs, batch.timestamps[index], key, None);
                }
            }
            Ok(outcome)
        }
    }
    let fixture = with_dead_letters(Deduplicating::default);
    let mut thread = fixture.thread();
    values(&fixture, &[b"", b"", commands::REFUSE, b""]);
    fixture.settle(&mut thread).expect("no fault");
    assert_eq!(dead_letters(&fixture), [("2".to_owned(), "refused".to_owned())]);
    assert_eq!(fixture.texts("out", 0), ["k0=null", "k1=null", "k3=null"]);
}

#[test]
fn a_slow_record_beside_a_schedule_is_given_up_all_the_same() {
    /// Takes five times its schedule's interval until it crashes.
    struct Slow(ManualClock);
    impl NativeProcessor for Slow {
        fn init(&mut self, context: &mut ProcessorContext) -> Result<(), ProcessorError> {
            context.schedule(1_000, PunctuationType::WallClockTime);
            Ok(())
        }

        fn process(&mut self, _: &mut ProcessorContext, batch: &InputBatch) -> Result<Outcome, ProcessorError> {
            if batch.values.iter().any(|value| value == Some(commands::TRAP)) {
                self.0.advance_ms(5_000);
                return Err(trap("too slow"));
            }
            Ok(Outcome::default())
        }
    }
    let clock = ManualClock::new(1_000_000);
    let in_processor = clock.clone();
    let mut fixture = with_dead_letters(move || Slow(in_processor.clone()));
    fixture.clock = clock;
    let mut thread = fixture.thread();
    values(&fixture, &[b"", commands::TRAP, b""]);
    for _ in 0..50 {
        thread.run_once().expect("no fault");
        fixture.clock.advance_ms(10);
    }
    assert_eq!(dead_letters(&fixture), [("1".to_owned(), "trap".to_owned())]);
    assert!(fixture.metrics.get(Metric::Punctuations) > 1, "the schedule comes between the calls");
}

/// Its first schedule on stream time fails and its second one succeeds.
struct TwoSchedules;

impl NativeProcessor for TwoSchedules {
    fn init(&mut self, context: &mut ProcessorContext) -> Result<(), ProcessorError> {
        context.schedule(1_000, PunctuationType::StreamTime);
        context.schedule(1_001, PunctuationType::StreamTime);
        Ok(())
    }

    fn process(&mut self, _: &mut ProcessorContext, _: &InputBatch) -> Result<Outcome, ProcessorError> {
        Ok(Outcome::default())
    }

    fn punctuate(&mut self, _: &mut ProcessorContext, schedule: ScheduleId, _: i64) -> Result<Outcome, ProcessorError> {
        if schedule.0.is_multiple_of(2) { Err(trap("at the first")) } else { Ok(Outcome::default()) }
    }
}

#[test]
fn a_schedule_that_fails_does_not_cost_the_next_one_its_time() {
    let fixture = with_dead_letters(|| TwoSchedules);
    let mut thread = fixture.thread();
    fixture.append("in", 0, "k", "", 1_500);
    fixture.settle(&mut thread).expect("no fault");
    // No record comes any more.
    assert_eq!((dead_letters(&fixture).len(), fixture.metrics.get(Metric::Punctuations)), (1, 1));
}

/// Its second schedule is due all the time and fails with this.
struct BrokenSchedule(ProcessorError);

impl NativeProcessor for BrokenSchedule {
    fn init(&mut self, context: &mut ProcessorContext) -> Result<(), ProcessorError> {
        context.schedule(3_600_000, PunctuationType::WallClockTime);
        context.schedule(1, PunctuationType::WallClockTime);
        Ok(())
    }

    fn process(&mut self, _: &mut ProcessorContext, _: &InputBatch) -> Result<Outcome, ProcessorError> {
        Ok(Outcome::default())
    }

    fn punctuate(&mut self, _: &mut ProcessorContext, _: ScheduleId, _: i64) -> Result<Outcome, ProcessorError> {
        Err(self.0.clone())
    }
}

#[test]
fn schedules_that_only_fail_end_the_application_whatever_records_do() {
    let mut fixture = with_dead_letters(|| BrokenSchedule(trap("always")));
    fixture.config.exception_handlers.consecutive_failures_max = 14;
    let mut thread = fixture.thread();
    let error = (0..1_000).find_map(|_| {
        values(&fixture, &[b""]);
        fixture.clock.advance_ms(10);
        thread.run_once().err()
    });
    let error = error.expect("it ends").to_string();
    assert!(error.contains("failure number 14 in a row") && error.contains("consecutive.max"), "{error}");
    // The last one is in no transaction that was committed.
    assert!((13..=14).contains(&dead_letters(&fixture).len()));
}

#[test]
fn a_store_entry_that_its_changelog_would_refuse_costs_its_record() {
    let fixture = with_dead_letters(copies);
    let mut prepared = fixture.thread();
    fixture.broker.set_topic_config("app-counts-changelog", "max.message.bytes", "300");
    prepared.close(CloseMode::Dirty).expect("it was not used");
    let mut thread = fixture.thread();
    values(&fixture, &[b"a", &[b'x'; 400], b"b"]);
    fixture.settle(&mut thread).expect("no fault");
    assert_eq!(fixture.texts("app-counts-changelog", 0), ["k0=a", "k2=b"]);
    assert_eq!(dead_letters(&fixture), [("1".to_owned(), "too-large".to_owned())]);
    let fault = said(&fixture.broker.records("dlq", 0)[0], header::MESSAGE);
    assert!(fault.contains("an entry of store counts has 402 bytes with its key"), "{fault}");
}

#[test]
fn a_record_whose_output_is_refused_for_no_known_reason_is_found_and_given_up() {
    for guarantee in [ProcessingGuarantee::ExactlyOnceV2, ProcessingGuarantee::AtLeastOnce] {
        for bad in [0, 3, 6] {
            let mut fixture = with_dead_letters(copies);
            fixture.config.processing_guarantee = guarantee;
            fixture.broker.refuse_value("out", b"unfit");
            let mut thread = fixture.thread();
            let mut batch: Vec<&[u8]> = vec![b"fit"; 7];
            batch[bad] = b"unfit";
            values(&fixture, &batch);
            fixture.settle(&mut thread).expect("no fault");
            fixture.settle(&mut thread).expect("no fault");
            let others: Vec<String> = (0..7).filter(|&one| one != bad).map(|one| format!("k{one}=fit")).collect();
            let (out, changelog) = (fixture.texts("out", 0), fixture.texts("app-counts-changelog", 0));
            if guarantee == ProcessingGuarantee::ExactlyOnceV2 {
                assert_eq!((&out, &changelog), (&others, &others), "{bad}");
            }
            assert!(others.iter().all(|text| out.contains(text) && changelog.contains(text)), "{out:?}");
            assert_eq!(fixture.committed("in", 0), Some(7));
            let letter = &fixture.broker.records("dlq", 0)[0];
            assert_eq!(dead_letters(&fixture), [(bad.to_string(), "output".to_owned())]);
            assert!(said(letter, header::MESSAGE).contains("invalid record"), "{}", said(letter, header::MESSAGE));
            // Later records are processed in batches again.
            let calls = fixture.metrics.get(Metric::ProcessCalls);
            values(&fixture, &[&b"fit"[..]; 50]);
            fixture.settle(&mut thread).expect("no fault");
            assert!(fixture.metrics.get(Metric::ProcessCalls) < calls + 10);
        }
    }
}

#[test]
fn outputs_of_schedules_that_are_refused_end_the_application_with_the_reason() {
    struct Unfit;
    impl NativeProcessor for Unfit {
        fn init(&mut self, context: &mut ProcessorContext) -> Result<(), ProcessorError> {
            context.schedule(1_000, PunctuationType::WallClockTime);
            Ok(())
        }

        fn process(&mut self, _: &mut ProcessorContext, _: &InputBatch) -> Result<Outcome, ProcessorError> {
            Ok(Outcome::default())
        }

        fn punctuate(&mut self, _: &mut ProcessorContext, _: ScheduleId, now: i64) -> Result<Outcome, ProcessorError> {
            let mut outcome = Outcome::default();
            forward(&mut outcome.outputs, now, Some(b"k"), Some(b"unfit"));
            Ok(outcome)
        }
    }
    let fixture = with_dead_letters(|| Unfit);
    fixture.broker.refuse_value("out", b"unfit");
    let mut thread = fixture.thread();
    let error = (0..2_000).find_map(|turn| {
        if turn % 3 == 0 {
            values(&fixture, &[b""]);
        }
        fixture.clock.advance_ms(100);
        thread.run_once().err()
    });
    assert!(error.expect("it ends").to_string().contains("invalid record"));
}

#[test]
fn a_broker_that_cannot_say_what_topics_take_does_not_end_the_application() {
    let fixture = with_dead_letters(copies);
    let mut thread = fixture.thread();
    fixture.append("in", 0, "k0", "a", 1);
    fixture.settle(&mut thread).expect("no fault");
    fixture.broker.fail(Operation::DescribeTopics, BrokerErrorKind::Retriable);
    fixture.broker.set_topic_config("out", "cleanup.policy", "compact");
    fixture.append("in", 0, "k1", "no key", 2);
    fixture.settle(&mut thread).expect("no fault");
    assert_eq!(dead_letters(&fixture), [("1".to_owned(), "output".to_owned())]);
}

#[test]
fn a_dead_letter_has_the_time_that_its_topic_takes() {
    let fixture = with_dead_letters(|| Obedient);
    fixture.broker.set_topic_config("dlq", "message.timestamp.after.max.ms", "3600000");
    let mut thread = fixture.thread();
    let future_ms = 4_102_444_800_000;
    fixture.broker.append("in", 0, Some(b"k"), Some(commands::TRAP), future_ms, Vec::new());
    fixture.settle(&mut thread).expect("no fault");
    let letter = &fixture.broker.records("dlq", 0)[0];
    assert!(letter.timestamp < future_ms);
    assert_eq!(said(letter, header::TIMESTAMP), future_ms.to_string());
}

#[test]
fn a_dead_letter_that_is_too_large_with_its_message_says_less() {
    let fixture = with_dead_letters(|| {
        ProcessWith(|_: &mut ProcessorContext, _: &InputBatch| Err(ProcessorError::Returned("long ".repeat(1_000))))
    });
    fixture.broker.set_topic_config("dlq", "max.message.bytes", "2000");
    let mut thread = fixture.thread();
    values(&fixture, &[&[b'x'; 900]]);
    fixture.settle(&mut thread).expect("no fault");
    let letter = &fixture.broker.records("dlq", 0)[0];
    assert_eq!((letter.value.as_deref(), said(letter, header::MESSAGE).len()), (Some(&[b'x'; 900][..]), 100));
}

/// What a broker's calls tell of the open transaction, as the processor sees it.
#[derive(Default)]
struct Transactions {
    is_open: bool,
    /// Slow calls in the open one, and the most there ever were in one.
    slow: u32,
    slow_most: u32,
}

impl Transactions {
    fn slow_call(&mut self, broker: &MockBroker) {
        for call in broker.take_calls() {
            match call.operation {
                Operation::BeginTransaction => self.is_open = true,
                Operation::CommitTransaction => (self.is_open, self.slow) = (false, 0),
                _ => {}
            }
        }
        self.slow += u32::from(self.is_open);
        self.slow_most = self.slow_most.max(self.slow);
    }
}

#[test]
fn after_a_call_that_took_long_what_is_done_is_committed_before_the_next_one() {
    /// Forwards, and takes 3 s for a record at which it crashes.
    struct Slow {
        clock: ManualClock,
        broker: Arc<OnceLock<MockBroker>>,
        transactions: Arc<Mutex<Transactions>>,
    }
    impl NativeProcessor for Slow {
        fn process(&mut self, _: &mut ProcessorContext, batch: &InputBatch) -> Result<Outcome, ProcessorError> {
            let mut outcome = Outcome::default();
            for ((key, value), &timestamp) in batch.keys.iter().zip(batch.values.iter()).zip(&batch.timestamps) {
                if value == Some(commands::TRAP) {
                    let broker = self.broker.get().expect("it is there before the first record");
                    self.transactions.lock().expect("no panic").slow_call(broker);
                    self.clock.advance_ms(3_000);
                    return Err(trap("too slow"));
                }
                forward(&mut outcome.outputs, timestamp, key, None);
            }
            Ok(outcome)
        }
    }
    let (clock, transactions) = (ManualClock::new(1_000_000), Arc::new(Mutex::new(Transactions::default())));
    let (in_clock, in_transactions) = (clock.clone(), Arc::clone(&transactions));
    let broker: Arc<OnceLock<MockBroker>> = Arc::default();
    let in_broker = Arc::clone(&broker);
    let mut topology = topology(&["in"], &["counts"], &["out"]);
    topology.dead_letter_topic = Some("dlq".into());
    let supplier = NativeSupplier::new(topology, move |_| Slow {
        clock: in_clock.clone(),
        broker: Arc::clone(&in_broker),
        transactions: Arc::clone(&in_transactions),
    });
    let mut fixture = Fixture::new(Arc::new(supplier), 3);
    fixture.config.exception_handlers = with_dead_letters(|| Obedient).config.exception_handlers;
    fixture.config.processing_guarantee = ProcessingGuarantee::ExactlyOnceV2;
    fixture.config.commit_interval_ms = 3_600_000;
    fixture.clock = clock;
    broker.set(fixture.broker.clone()).ok();
    let mut thread = fixture.thread();
    for partition in 0..3 {
        fixture.produce(partition, &["a", "b"]);
        fixture.append("in", partition, "bad", "trap", 2);
    }
    for _ in 0..60 {
        thread.run_once().expect("no fault");
    }
    fixture.clock.advance_ms(3_600_000);
    for _ in 0..10 {
        thread.run_once().expect("no fault");
    }
    assert_eq!((0..3).map(|partition| fixture.broker.records("dlq", partition).len()).sum::<usize>(), 3);
    let slow_most = transactions.lock().expect("no panic").slow_most;
    assert!(slow_most <= 1, "{slow_most} slow calls in one transaction");
}

#[test]
fn schedules_that_return_errors_end_the_application_too_and_keep_their_number() {
    let mut fixture = with_dead_letters(|| BrokenSchedule(ProcessorError::Returned("always".to_owned())));
    fixture.config.exception_handlers.consecutive_failures_max = 14;
    let mut thread = fixture.thread();
    let error = (0..1_000).find_map(|_| {
        fixture.clock.advance_ms(10);
        thread.run_once().err()
    });
    let error = error.expect("it ends").to_string();
    assert!(error.contains("failure number 14 in a row"), "{error}");
    let letters = fixture.broker.records("dlq", 0);
    assert!(letters.len() > 10 && letters.iter().all(|letter| said(letter, header::SCHEDULE) == "1"));
}
