//! Tests of what becomes of records at which a processor fails: the others are processed once and in order, theirs
//! leave no trace, and the handlers decide.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use bytes::Bytes;

use super::*;
use crate::dead_letter::header;
use crate::exception_handlers::{DESERIALIZATION, ExceptionHandler, ExceptionHandlers};
use crate::processor::{Read, Reads, ScheduleId};
use crate::record::{Record, Refusal};
use crate::testing::{Obedient, ProcessWith, Seed, forward};

/// `in` with `counts`, `out` and the dead letter topic `dlq`.
pub(super) fn with_dead_letters<P: Processor + 'static>(make: impl Fn() -> P + Send + Sync + 'static) -> Fixture {
    let mut topology = topology(&["in"], &["counts"], &["out"]);
    topology.dead_letter_topic = Some("dlq".into());
    let mut fixture = Fixture::new(Arc::new(NativeSupplier::new(topology, move |_| make())), 1);
    fixture.config.exception_handlers = ExceptionHandlers {
        deserialization: ExceptionHandler::DeadLetter,
        processing: ExceptionHandler::DeadLetter,
        production: ExceptionHandler::DeadLetter,
        ..ExceptionHandlers::default()
    };
    fixture
}

pub(super) fn values(fixture: &Fixture, values: &[&[u8]]) {
    for (index, value) in values.iter().enumerate() {
        let key = format!("k{index}");
        fixture.broker.append("in", 0, Some(key.as_bytes()), Some(value), index as i64, Vec::new());
    }
}

/// One header of a dead letter, as text.
pub(super) fn said(record: &Record, name: &str) -> String {
    let found = record.headers.iter().rfind(|one| one.key == name.as_bytes()).and_then(|one| one.value.clone());
    String::from_utf8_lossy(&found.unwrap_or_default()).into_owned()
}

/// Source offset and reason of each dead letter.
pub(super) fn dead_letters(fixture: &Fixture) -> Vec<(String, String)> {
    let records = fixture.broker.records("dlq", 0);
    records.iter().map(|record| (said(record, header::OFFSET), said(record, header::REASON))).collect()
}

#[test]
fn one_bad_record_costs_one_record_whatever_is_wrong_with_it() {
    for (command, reason) in [
        (commands::REFUSE, "refused"),
        (commands::RETURN, "refused"),
        (commands::TRAP, "trap"),
        (commands::MALFORMED, "output"),
        (commands::UNKNOWN_SINK, "output"),
    ] {
        for bad in 0..7 {
            let fixture = with_dead_letters(|| Obedient);
            let mut thread = fixture.thread();
            let mut batch: Vec<&[u8]> = vec![b""; 7];
            batch[bad] = command;
            values(&fixture, &batch);
            fixture.settle(&mut thread).expect("no fault");
            let expected: Vec<String> = (0..7).filter(|&one| one != bad).map(|one| format!("k{one}=1")).collect();
            assert_eq!(fixture.texts("out", 0), expected, "{reason} at {bad}");
            assert_eq!(fixture.texts("app-counts-changelog", 0), expected, "{reason} at {bad}");
            assert_eq!(dead_letters(&fixture), [(bad.to_string(), reason.to_owned())]);
            assert_eq!(fixture.committed("in", 0), Some(7));
            assert_eq!(fixture.metrics.get(Metric::DeadLetters), 1);
            // Three levels of halves, and once more in a fresh instance.
            let calls = fixture.metrics.get(Metric::IsolationCalls);
            assert!(calls <= 8, "{reason} at {bad}: {calls} calls");
        }
    }
}

#[test]
fn continue_leaves_the_record_out_and_fail_names_it() {
    let mut fixture = with_dead_letters(|| Obedient);
    fixture.config.exception_handlers.processing = ExceptionHandler::Continue;
    let mut thread = fixture.thread();
    values(&fixture, &[b"", commands::TRAP, b"", commands::REFUSE]);
    fixture.settle(&mut thread).expect("no fault");
    assert_eq!(fixture.texts("out", 0), ["k0=1", "k2=1"]);
    assert_eq!((dead_letters(&fixture).len(), fixture.metrics.get(Metric::RecordsDropped)), (0, 2));
    assert_eq!(fixture.committed("in", 0), Some(4));

    for (command, expected) in [
        (commands::TRAP, "task 0_0, in-0, offset 2, module native: the processor crashed: told to trap"),
        (commands::REFUSE, "task 0_0, in-0, offset 2, module native: the processor refused the record: told to refuse"),
    ] {
        let mut fixture = with_dead_letters(|| Obedient);
        fixture.config.exception_handlers = ExceptionHandlers::default();
        let mut thread = fixture.thread();
        values(&fixture, &[b"", b"", command, b""]);
        let error = fixture.settle(&mut thread).expect_err("the record stops the application");
        assert_eq!(error.to_string(), expected);
        assert_eq!(error.remedy(), Remedy::Fatal);
    }
}

#[test]
fn what_could_not_be_read_has_a_handler_of_its_own() {
    let mut fixture = with_dead_letters(|| {
        ProcessWith(|_: &mut ProcessorContext, batch: &InputBatch| {
            let refuse = |index| Refusal { index, reason: format!("{DESERIALIZATION}the value is no number") };
            Ok(Outcome { refused: (0..batch.len() as u32).map(refuse).collect(), ..Outcome::default() })
        })
    });
    fixture.config.exception_handlers.deserialization = ExceptionHandler::Continue;
    fixture.config.exception_handlers.processing = ExceptionHandler::Fail;
    let mut thread = fixture.thread();
    values(&fixture, &[b"", b""]);
    // A record before all time is read by nobody either.
    fixture.append("in", 0, "k", "", -5);
    fixture.settle(&mut thread).expect("no fault");
    assert_eq!(fixture.metrics.get(Metric::RecordsDropped), 3);
    assert_eq!(fixture.committed("in", 0), Some(3));
}

/// Fails at its second record and at each after it, whatever they are.
struct Tires {
    records: u32,
}

impl NativeProcessor for Tires {
    fn process(&mut self, _: &mut ProcessorContext, batch: &InputBatch) -> Result<Outcome, ProcessorError> {
        let mut outcome = Outcome::default();
        for (key, &timestamp) in batch.keys.iter().zip(&batch.timestamps) {
            self.records += 1;
            if self.records > 1 {
                return Err(ProcessorError::Trap { message: "tired".to_owned(), backtrace: String::new() });
            }
            forward(&mut outcome.outputs, timestamp, key, None);
        }
        Ok(outcome)
    }
}

#[test]
fn no_record_is_given_up_for_what_an_earlier_one_has_left_in_the_instance() {
    let fixture = with_dead_letters(|| Tires { records: 0 });
    let mut thread = fixture.thread();
    values(&fixture, &[b"", b"", b"", b"", b""]);
    fixture.settle(&mut thread).expect("no fault");
    assert_eq!(dead_letters(&fixture), []);
    assert_eq!(fixture.texts("out", 0), ["k0=null", "k1=null", "k2=null", "k3=null", "k4=null"]);
}

#[test]
fn a_dead_letter_says_what_the_call_has_read() {
    struct Reader;
    impl NativeProcessor for Reader {
        fn init(&mut self, context: &mut ProcessorContext) -> Result<(), ProcessorError> {
            context.config_value("unit");
            Ok(())
        }

        fn process(&mut self, context: &mut ProcessorContext, batch: &InputBatch) -> Result<Outcome, ProcessorError> {
            let store = context.store_at(0)?;
            for (key, value) in batch.keys.iter().zip(batch.values.iter()) {
                let key = key.unwrap_or_default();
                context.get(store, b"k0")?;
                context.get(store, key)?;
                context.put(store, key, value, None)?;
                context.get(store, key)?;
                if value == Some(b"bad") {
                    return Err(ProcessorError::Trap { message: "bad".to_owned(), backtrace: String::new() });
                }
            }
            Ok(Outcome::default())
        }
    }
    let fixture = with_dead_letters(|| Reader);
    let mut thread = fixture.thread();
    values(&fixture, &[b"first", b"", b"bad"]);
    fixture.settle(&mut thread).expect("no fault");
    let letter = &fixture.broker.records("dlq", 0)[0];
    let reads = letter.headers.iter().find(|one| one.key == header::READS).and_then(|one| one.value.clone());
    let entry = |key: &'static [u8], value: Option<&'static [u8]>| Read::Entry {
        store: Bytes::from_static(b"counts"),
        key: Bytes::from_static(key),
        value: value.map(Bytes::from_static),
    };
    let expected = [
        Read::Config { key: Bytes::from_static(b"unit"), value: None },
        Read::EndOfInit,
        entry(b"k0", Some(b"first")),
        entry(b"k2", None),
    ];
    assert_eq!(Reads::decode(&reads.expect("the header is there")).expect("it can be read").reads, expected);
    assert_eq!(said(letter, header::STREAM_TIME), "1");
    assert_eq!(said(letter, header::WRITE_TIME), "2");
}

#[test]
fn a_processor_that_always_fails_slows_down_and_ends_with_the_reason() {
    let mut fixture = with_dead_letters(|| Obedient);
    fixture.config.exception_handlers.consecutive_failures_max = 14;
    let mut thread = fixture.thread();
    values(&fixture, &[commands::TRAP; 20]);
    let before_ms = fixture.options().clock.monotonic_ms();
    let error = loop {
        match thread.run_once() {
            Ok(turn) => fixture.clock.advance_ms(1 + turn.wait_ms),
            Err(error) => break error,
        }
    };
    let expected = "task 0_0, in-0, offset 13, module native: the processor failed at 14 records in a row, so the fault \
                    is hardly theirs; those before it were given up; mend the module, or raise \
                    processing.exception.consecutive.max: the processor crashed: told to trap";
    assert_eq!(error.to_string(), expected);
    assert_eq!(error.remedy(), Remedy::Fatal);
    let taken_ms = fixture.options().clock.monotonic_ms() - before_ms;
    assert!(taken_ms >= 10 + 20 + 40 + 80, "it took {taken_ms} ms");
}

#[test]
fn one_success_in_between_is_enough_to_go_on() {
    let mut fixture = with_dead_letters(|| Obedient);
    fixture.config.exception_handlers.consecutive_failures_max = 3;
    let mut thread = fixture.thread();
    let bad = commands::TRAP;
    values(&fixture, &[bad, bad, b"", bad, bad, b"", bad]);
    fixture.settle(&mut thread).expect("no fault");
    assert_eq!((dead_letters(&fixture).len(), fixture.texts("out", 0).len()), (5, 2));
}

#[test]
fn schedules_of_init_keep_their_time_through_failures() {
    struct Scheduler;
    impl NativeProcessor for Scheduler {
        fn init(&mut self, context: &mut ProcessorContext) -> Result<(), ProcessorError> {
            context.schedule(5_000, PunctuationType::WallClockTime);
            Ok(())
        }

        fn process(&mut self, _: &mut ProcessorContext, batch: &InputBatch) -> Result<Outcome, ProcessorError> {
            match batch.values.iter().any(|value| value == Some(commands::TRAP)) {
                true => Err(ProcessorError::Trap { message: String::new(), backtrace: String::new() }),
                false => Ok(Outcome::default()),
            }
        }
    }
    let fixture = with_dead_letters(|| Scheduler);
    let mut thread = fixture.thread();
    for _ in 0..5 {
        values(&fixture, &[commands::TRAP]);
        fixture.settle(&mut thread).expect("no fault");
        // Every instance lives for less than the interval.
        fixture.clock.advance_ms(900);
    }
    assert!(fixture.metrics.get(Metric::InstancesReplaced) >= 5);
    assert!(fixture.metrics.get(Metric::Punctuations) >= 1);
}

/// Knows its schedules by their ids, fails at records and at the first of its two schedules.
#[derive(Default)]
struct Particular {
    own: Vec<ScheduleId>,
}

impl NativeProcessor for Particular {
    fn init(&mut self, context: &mut ProcessorContext) -> Result<(), ProcessorError> {
        self.own =
            [600_000, 600_001].map(|interval_ms| context.schedule(interval_ms, PunctuationType::WallClockTime)).into();
        Ok(())
    }

    fn process(&mut self, _: &mut ProcessorContext, _: &InputBatch) -> Result<Outcome, ProcessorError> {
        Err(ProcessorError::Trap { message: "at a record".to_owned(), backtrace: String::new() })
    }

    fn punctuate(&mut self, _: &mut ProcessorContext, schedule: ScheduleId, _: i64) -> Result<Outcome, ProcessorError> {
        let message = match self.own.iter().position(|own| *own == schedule) {
            Some(0) => "at the first schedule",
            Some(_) => return Ok(Outcome::default()),
            None => "at a schedule that it does not know",
        };
        Err(ProcessorError::Trap { message: message.to_owned(), backtrace: String::new() })
    }
}

#[test]
fn an_instance_is_called_for_its_own_schedules_only() {
    let fixture = with_dead_letters(Particular::default);
    let mut thread = fixture.thread();
    values(&fixture, &[b""]);
    fixture.settle(&mut thread).expect("no fault");
    // The instance is gone, and both schedules are due.
    fixture.clock.advance_ms(600_500);
    fixture.settle(&mut thread).expect("no fault");
    let messages: Vec<String> =
        fixture.broker.records("dlq", 0).iter().map(|letter| said(letter, header::MESSAGE)).collect();
    assert_eq!(messages, ["at a record", "at the first schedule"].map(|at| format!("the processor crashed: {at}")));
    assert_eq!(fixture.metrics.get(Metric::Punctuations), 1);
}

#[test]
fn a_punctuation_that_fails_is_a_dead_letter_without_a_record() {
    struct Punctual;
    impl NativeProcessor for Punctual {
        fn init(&mut self, context: &mut ProcessorContext) -> Result<(), ProcessorError> {
            context.schedule(1_000, PunctuationType::StreamTime);
            Ok(())
        }

        fn process(&mut self, _: &mut ProcessorContext, _: &InputBatch) -> Result<Outcome, ProcessorError> {
            Ok(Outcome::default())
        }

        fn punctuate(
            &mut self,
            context: &mut ProcessorContext,
            _: ScheduleId,
            time: i64,
        ) -> Result<Outcome, ProcessorError> {
            let store = context.store_at(0)?;
            context.put(store, b"half", Some(b"written"), None)?;
            match time {
                1_500 => Err(ProcessorError::Trap { message: "not now".to_owned(), backtrace: String::new() }),
                _ => Ok(Outcome::default()),
            }
        }
    }
    let fixture = with_dead_letters(|| Punctual);
    let mut thread = fixture.thread();
    fixture.append("in", 0, "k", "", 1_500);
    fixture.settle(&mut thread).expect("no fault");
    assert_eq!(fixture.texts("app-counts-changelog", 0), [""; 0]);
    let letters = fixture.broker.records("dlq", 0);
    assert_eq!((letters.len(), letters[0].key.clone(), letters[0].timestamp), (1, None, 1_500));
    assert_eq!(said(&letters[0], header::PUNCTUATION_TIME), "1500");
    fixture.append("in", 0, "k", "", 2_500);
    fixture.settle(&mut thread).expect("no fault");
    assert_eq!(fixture.texts("app-counts-changelog", 0), ["half=written"]);
}

/// Forwards each record as it is, with the record's value as value, to the topic `out`.
pub(super) fn copies() -> impl NativeProcessor {
    ProcessWith(|context: &mut ProcessorContext, batch: &InputBatch| {
        let store = context.store_at(0)?;
        let mut outcome = Outcome::default();
        for ((key, value), &timestamp) in batch.keys.iter().zip(batch.values.iter()).zip(&batch.timestamps) {
            context.put(store, key.unwrap_or_default(), value, None)?;
            let key = key.filter(|_| value != Some(b"no key"));
            let timestamp = if value == Some(b"future") { timestamp + 7_200_000 } else { timestamp };
            forward(&mut outcome.outputs, timestamp, key, value);
        }
        Ok(outcome)
    })
}

fn with_bounded_sink() -> Fixture {
    let fixture = with_dead_letters(copies);
    let now_ms = fixture.options().clock.wall_clock_ms();
    for (key, value) in
        [("max.message.bytes", "200"), ("cleanup.policy", "compact"), ("message.timestamp.after.max.ms", "3600000")]
    {
        fixture.broker.set_topic_config("out", key, value);
    }
    for (index, value) in ["a", "no key", "b", "future", &"x".repeat(200), "c"].iter().enumerate() {
        fixture.append("in", 0, &format!("k{index}"), value, now_ms);
    }
    fixture
}

#[test]
fn what_kafka_would_refuse_is_found_before_it_is_sent() {
    let fixture = with_bounded_sink();
    let mut thread = fixture.thread();
    fixture.settle(&mut thread).expect("no fault");
    assert_eq!(fixture.texts("out", 0), ["k0=a", "k2=b", "k5=c"]);
    assert_eq!(fixture.texts("app-counts-changelog", 0), ["k0=a", "k2=b", "k5=c"]);
    let expected = [("1", "output"), ("3", "output"), ("4", "too-large")];
    assert_eq!(dead_letters(&fixture), expected.map(|(offset, reason)| (offset.to_owned(), reason.to_owned())));
    let fault = said(&fixture.broker.records("dlq", 0)[0], header::MESSAGE);
    assert_eq!(fault, "an output that Kafka would refuse: output 0 to out: it has no key, and the topic is compacted");
}

#[test]
fn a_topic_that_takes_less_than_at_the_start_costs_the_record_that_does_not_fit() {
    for guarantee in [ProcessingGuarantee::ExactlyOnceV2, ProcessingGuarantee::AtLeastOnce] {
        let mut fixture = with_dead_letters(copies);
        fixture.config.processing_guarantee = guarantee;
        let mut thread = fixture.thread();
        fixture.append("in", 0, "k0", "a", 1);
        fixture.settle(&mut thread).expect("no fault");
        fixture.broker.set_topic_config("out", "cleanup.policy", "compact");
        fixture.append("in", 0, "k1", "b", 2);
        fixture.append("in", 0, "k2", "no key", 3);
        fixture.append("in", 0, "k3", "c", 4);
        fixture.settle(&mut thread).expect("no fault");
        let read = fixture.texts("out", 0);
        assert_eq!(read.iter().filter(|text| text.starts_with("null")).count(), 0, "{read:?}");
        if guarantee == ProcessingGuarantee::ExactlyOnceV2 {
            assert_eq!(read, ["k0=a", "k1=b", "k3=c"]);
        }
        assert_eq!(dead_letters(&fixture), [("2".to_owned(), "output".to_owned())]);
        assert_eq!(fixture.committed("in", 0), Some(4));
    }
}

#[test]
fn continue_leaves_out_the_output_alone() {
    let mut fixture = with_bounded_sink();
    fixture.config.exception_handlers.production = ExceptionHandler::Continue;
    let mut thread = fixture.thread();
    fixture.settle(&mut thread).expect("no fault");
    assert_eq!(fixture.texts("out", 0), ["k0=a", "k2=b", "k5=c"]);
    assert_eq!(fixture.texts("app-counts-changelog", 0).len(), 6);
    assert_eq!((dead_letters(&fixture).len(), fixture.metrics.get(Metric::OutputsDropped)), (0, 3));
}

#[test]
fn a_dead_letter_that_its_topic_would_refuse_stops_the_task() {
    // Its details are left out first, the record itself never: at the smallest size that is enough.
    let written = (300..800).find_map(|bytes: usize| {
        let fixture = with_dead_letters(|| Obedient);
        fixture.broker.set_topic_config("dlq", "max.message.bytes", &bytes.to_string());
        let mut thread = fixture.thread();
        values(&fixture, &[commands::TRAP]);
        fixture.settle(&mut thread).is_ok().then(|| fixture.broker.records("dlq", 0))
    });
    let written = written.expect("800 bytes are enough");
    assert_eq!((written.len(), written[0].value.as_deref()), (1, Some(commands::TRAP)));
    assert!(!written[0].headers.iter().any(|one| one.key == header::READS));

    let fixture = with_dead_letters(|| Obedient);
    fixture.broker.set_topic_config("dlq", "max.message.bytes", "200");
    let mut thread = fixture.thread();
    values(&fixture, &[b"", commands::TRAP]);
    let error = fixture.settle(&mut thread).expect_err("it cannot be written");
    assert!(error.to_string().contains("the dead letter topic dlq would refuse the dead letter (it has "), "{error}");
    assert_eq!(error.remedy(), Remedy::Fatal);
    assert_ne!(fixture.committed("in", 0), Some(2));
}

#[test]
fn without_savepoints_the_first_failure_is_the_last_one() {
    let mut fixture = with_dead_letters(|| Obedient);
    fixture.config.without_savepoints = true;
    let mut thread = fixture.thread();
    values(&fixture, &[b"", commands::TRAP, b""]);
    let error = fixture.settle(&mut thread).expect_err("nothing can be undone");
    assert_eq!(error.remedy(), Remedy::Fatal);
    assert_eq!((dead_letters(&fixture).len(), fixture.committed("in", 0).unwrap_or(0)), (0, 0));
}

/// Does everything that a record may do, and stops in the middle of it where the record says so.
struct Careless;

impl NativeProcessor for Careless {
    fn process(&mut self, context: &mut ProcessorContext, batch: &InputBatch) -> Result<Outcome, ProcessorError> {
        let store = context.store_at(0)?;
        let mut outcome = Outcome::default();
        for (index, (key, value)) in batch.keys.iter().zip(batch.values.iter()).enumerate() {
            let (key, value) = (key.unwrap_or_default(), value.unwrap_or_default());
            let fails_after = value.first().copied().unwrap_or(u8::MAX);
            for step in 0..6 {
                if step == fails_after {
                    return match value[1] {
                        0 => Err(ProcessorError::Trap { message: String::new(), backtrace: String::new() }),
                        1 => Err(ProcessorError::Memory { limit_bytes: 1 }),
                        2 => Err(ProcessorError::Returned("no".to_owned())),
                        _ => {
                            let reason = "no".to_owned();
                            outcome.refused.push(Refusal { index: index as u32, reason });
                            return Ok(outcome);
                        }
                    };
                }
                match step {
                    0 | 3 => {
                        let count = context.get(store, key)?.map_or(0, |value| crate::testing::number(&value)) + 1;
                        context.put(store, key, Some(&count.to_be_bytes()), None)?;
                    }
                    1 => forward(&mut outcome.outputs, batch.timestamps[index], Some(key), Some(b"1")),
                    2 => context.put(store, &[key, b"/last"].concat(), Some(value), None)?,
                    4 => {
                        let schedule = context.schedule(1 << 40, PunctuationType::WallClockTime);
                        context.cancel(schedule);
                    }
                    _ => forward(&mut outcome.outputs, batch.timestamps[index], Some(key), Some(b"2")),
                }
            }
        }
        Ok(outcome)
    }
}

/// D3: traps at random points with half-written state, outputs and schedules leave nothing behind.
#[test]
fn thousands_of_failures_at_random_points_leave_no_trace() {
    const FAILURES: u32 = 10_000;
    let failures = AtomicU32::new(0);
    let mut seed = Seed::new(7);
    while failures.load(Relaxed) < FAILURES {
        let mut fixture = with_dead_letters(|| Careless);
        fixture.config.batch_max_records = 1 + seed.below(40) as usize;
        fixture.config.exception_handlers.consecutive_failures_max = u32::MAX;
        let one_in = 2 + seed.below(30);
        let (mut outputs, mut counts, mut bad) = (Vec::new(), BTreeMap::new(), Vec::new());
        for index in 0..400_i64 {
            let key = format!("k{}", seed.below(20));
            let fails = seed.below(one_in) == 0;
            let value = if fails { [seed.below(6) as u8, seed.below(4) as u8] } else { [u8::MAX, 0] };
            fixture.broker.append("in", 0, Some(key.as_bytes()), Some(&value), index, Vec::new());
            if fails {
                bad.push(index.to_string());
                continue;
            }
            *counts.entry(key.clone()).or_insert(0_u64) += 2;
            outputs.extend([format!("{key}=1"), format!("{key}=2")]);
        }
        let mut thread = fixture.thread();
        for _ in 0..100_000 {
            let turn = thread.run_once().expect("no fault");
            fixture.clock.advance_ms(10.max(turn.wait_ms));
            if fixture.committed("in", 0) == Some(400) {
                break;
            }
        }
        assert_eq!(fixture.texts("out", 0), outputs);
        for (key, count) in counts {
            assert_eq!(fixture.count(0, &key), Some(count), "{key}");
            let last = fixture.queries.get("counts", 0, format!("{key}/last").as_bytes(), None);
            assert_eq!(last.expect("it can be asked").value.as_deref(), Some(&[u8::MAX, 0][..]), "{key}");
        }
        let found: Vec<String> = dead_letters(&fixture).into_iter().map(|(offset, _)| offset).collect();
        assert_eq!(found, bad);
        failures.fetch_add(bad.len() as u32, Relaxed);
    }
}
