//! Good calls: what a module sees of its task and what it can do to its stores.

use engine::processor::{ProcessorError, ProcessorSupplier, PunctuationType, ScheduleId, ScheduleRequest};
use engine::record::InputBatch;
use sandbox::Limits;

use crate::support::{TASK, Task, batch};

#[test]
fn every_field_of_a_batch_comes_through() {
    let mut task = Task::start("probe", Limits::default());
    let mut input = batch(&[("echo", "1")]);
    for (key, value) in [(None, Some(&b"2"[..])), (Some(&b""[..]), None), (Some(b"\0\xff"), Some(b""))] {
        input.offset_deltas.push(7);
        input.timestamps.push(5);
        input.keys.push(key);
        input.values.push(value);
    }
    input.headers.counts = vec![0, 2, 0, 1];
    for (key, value) in [(&b"h1"[..], Some(&b"v"[..])), (b"h2", None), (b"", Some(b""))] {
        input.headers.keys.push(key);
        input.headers.values.push(value);
    }
    let outcome = task.process(input.clone()).unwrap();
    assert_eq!(outcome.outputs.timestamps, input.timestamps);
    assert_eq!(outcome.outputs.keys, input.keys);
    assert_eq!(outcome.outputs.values, input.values);
    assert_eq!(outcome.outputs.headers, input.headers);
    assert!(outcome.refused.is_empty());
}

#[test]
fn an_empty_batch_is_a_batch() {
    let mut task = Task::start("passthrough", Limits::default());
    let outcome = task.process(InputBatch::default()).unwrap();
    assert!(outcome.outputs.is_empty());
}

#[test]
fn a_large_batch_comes_through() {
    let mut task = Task::start("passthrough", Limits::default());
    let records: Vec<(String, String)> = (0..10_000).map(|n| (n.to_string(), "x".repeat(n % 300))).collect();
    let records: Vec<(&str, &str)> = records.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    let input = batch(&records);
    let outcome = task.process(input.clone()).unwrap();
    assert_eq!((outcome.outputs.keys, outcome.outputs.values), (input.keys, input.values));
}

#[test]
fn a_module_sees_its_task() {
    let mut task = Task::create("probe", Limits::default(), &[("colour", "blue")]);
    task.init().unwrap();
    assert_eq!(
        task.ask("context", ""),
        "test-app 0_3 stream-time Some(900) wall-clock 1700000000123 config Some(\"blue\") None"
    );
}

#[test]
fn every_function_of_a_store_works() {
    let mut task = Task::start("probe", Limits::default());
    assert_eq!(
        task.ask("every-function", ""),
        "get Some(\"two\"); many \"fourone\" [1]; all a1,a2,a3,b1; page a1,a2+; back a3,a2; none ; \
         prefix a1,a2,a3; after a2+; deleted None; about 0"
    );
}

#[test]
fn counts_are_kept_between_calls() {
    let mut task = Task::start("count", Limits::default());
    let numbers = |outcome: &engine::record::Outcome| -> Vec<i64> {
        outcome.outputs.values.iter().map(|value| i64::from_be_bytes(value.unwrap().try_into().unwrap())).collect()
    };
    let outcome = task.process(batch(&[("a", ""), ("b", ""), ("a", "")])).unwrap();
    assert_eq!(numbers(&outcome), [1, 1, 2]);
    let outcome = task.process(batch(&[("b", ""), ("a", "")])).unwrap();
    assert_eq!(numbers(&outcome), [2, 3]);
}

#[test]
fn large_reads_are_made_in_pieces_that_nobody_sees() {
    let mut task = Task::start("probe", Limits::default());
    task.ask("put-entries", "3000");
    assert_eq!(task.ask("get-many-count", "3500"), "3000 of 3500, 500 nulls");
    assert_eq!(task.ask("range-all", "5000"), "3000 sorted true more false");
    assert_eq!(task.ask("range-all", "3000"), "3000 sorted true more false");
    assert_eq!(task.ask("range-all", "700"), "700 sorted true more true");
}

#[test]
fn schedules_reach_the_engine_and_their_calls_the_module() {
    let mut task = Task::start("probe", Limits::default());
    let answer = task.ask("schedule", "60000");
    let [ScheduleRequest::Add { id, interval_ms: 60_000, kind: PunctuationType::StreamTime }] = task.requests[..]
    else {
        panic!("{:?}", task.requests)
    };
    assert_eq!(answer, format!("schedule {}", id.0));
    let outcome = task.punctuate(id.0, 120_000).unwrap();
    assert_eq!(outcome.outputs.values.get(0), Some(format!("schedule {} at 120000", id.0).as_bytes()));
    task.ask("schedule-cancel", "1");
    assert!(task.requests.contains(&ScheduleRequest::Cancel(ScheduleId(id.0 + 1))), "{:?}", task.requests);
}

#[test]
fn a_refusal_comes_through_with_its_reason_escaped() {
    let mut task = Task::start("probe", Limits::default());
    let outcome = task.call("refused", "").unwrap();
    assert_eq!((outcome.refused[0].index, outcome.refused[0].reason.as_str()), (0, "not\\u{7} today"));
}

#[test]
fn an_error_of_the_module_undoes_the_call_and_keeps_the_instance() {
    let mut task = Task::start("probe", Limits::default());
    task.ask("put", "kept");
    let error = task.call("put-and-fail", "key").unwrap_err();
    assert_eq!(error, ProcessorError::Returned("after a put".to_owned()));
    assert_eq!(task.ask("get", "key"), "None");
    assert_eq!(task.ask("get", "kept"), "Some([49])");
    assert_eq!(task.call("error", "no\nway"), Err(ProcessorError::Returned("no\\nway".to_owned())));
    assert_eq!(task.usage().instances, 1);
}

#[test]
fn init_can_refuse_and_can_crash() {
    let mut task = Task::create("probe", Limits::default(), &[("init", "error")]);
    assert_eq!(task.init(), Err(ProcessorError::Returned("no wish to run task 0_3".to_owned())));
    let mut task = Task::create("probe", Limits::default(), &[("init", "panic")]);
    let Err(ProcessorError::Trap { message, .. }) = task.init() else { panic!("init did not crash") };
    assert!(message.contains("init of 0_3 panicked"), "{message}");
}

#[test]
fn use_is_counted() {
    let mut task = Task::start("probe", Limits::default());
    let before = task.usage();
    // The CPU time of small calls is sampled: one of sixteen stands for all.
    (0..16).for_each(|_| _ = task.ask("put-entries", "2000"));
    task.call("error", "x").unwrap_err();
    let after = task.usage();
    assert_eq!(after.calls - before.calls, 17);
    assert_eq!(after.records - before.records, 17);
    assert_eq!(after.failures - before.failures, 1);
    // One `open` and two `put-many` each.
    assert_eq!(after.host_calls - before.host_calls, 48);
    assert!(after.cpu_ns - before.cpu_ns > 100_000, "32,000 puts in {} ns", after.cpu_ns - before.cpu_ns);
    assert!(after.memory_peak_bytes >= 1 << 20);
    assert_eq!(task.supplier.create(TASK).map(|_| task.usage().instances), Ok(2));
}
