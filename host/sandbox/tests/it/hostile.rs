//! Modules that try to use too much (D1, D2) or die half-way (D3): each ends in an error of its own kind, in time and
//! in bounded memory, and the next instance works as if nothing had been.

use std::time::{Duration, Instant};

use engine::processor::{ProcessorError, ProcessorSupplier};
use sandbox::Limits;

use crate::support::{TASK, Task};

/// The error of a command under limits; afterwards a new instance works.
fn failure(limits: Limits, command: &str, argument: &str) -> ProcessorError {
    let mut task = Task::start("probe", limits);
    let error = task.call(command, argument).unwrap_err();
    let dead = task.call("context", "").unwrap_err();
    assert!(matches!(dead, ProcessorError::Start(_)), "the instance was entered again: {dead}");
    task.replace();
    task.ask("context", "");
    error
}

fn limit(limits: Limits, command: &str, argument: &str, expected: (&str, u64)) {
    match failure(limits, command, argument) {
        ProcessorError::Limit { key, limit, found, .. } => {
            assert_eq!((key, limit), expected, "{command}");
            assert!(found > limit, "{command}: {found}");
        }
        other => panic!("{command}: {other}"),
    }
}

#[test]
fn an_endless_loop_ends_at_its_deadline() {
    let limits = Limits { deadline_ms: 300, ..Limits::default() };
    for (command, argument) in [("loop", ""), ("fill", "30000000")] {
        let mut task = Task::start("probe", limits.clone());
        let start = Instant::now();
        assert_eq!(task.call(command, argument), Err(ProcessorError::Deadline { limit_ms: 300 }));
        let elapsed = start.elapsed();
        assert!(elapsed >= Duration::from_millis(295), "{command} was cut after {elapsed:?}");
        assert!(elapsed < Duration::from_millis(900), "{command} ran for {elapsed:?}");
    }
    assert_eq!(failure(limits, "loop", ""), ProcessorError::Deadline { limit_ms: 300 });
}

#[test]
fn calls_after_a_pause_have_their_whole_deadline() {
    let mut task = Task::start("probe", Limits { deadline_ms: 200, ..Limits::default() });
    // Long enough for the thread behind the deadlines to go to sleep.
    std::thread::sleep(Duration::from_millis(400));
    task.ask("context", "");
    std::thread::sleep(Duration::from_millis(400));
    let start = Instant::now();
    assert_eq!(task.call("loop", ""), Err(ProcessorError::Deadline { limit_ms: 200 }));
    assert!(start.elapsed() >= Duration::from_millis(195));
}

#[test]
fn memory_ends_at_its_limit() {
    let limits = Limits { memory_max_bytes: 16 << 20, ..Limits::default() };
    assert_eq!(failure(limits, "grow", ""), ProcessorError::Memory { limit_bytes: 16 << 20 });
    assert_eq!(failure(Limits::default(), "grow", ""), ProcessorError::Memory { limit_bytes: 64 << 20 });
}

#[test]
fn an_instance_that_needs_more_than_its_limit_does_not_start() {
    let task = Task::start("probe", Limits::default());
    let few = Limits { memory_max_bytes: 65_536, ..Limits::default() };
    let supplier = crate::support::module("probe").supplier(task.supplier.topology().clone(), few);
    let Err(error) = supplier.create(TASK) else { panic!("it started") };
    assert_eq!(error, ProcessorError::Memory { limit_bytes: 65_536 });
    let few = Limits { table_max_elements: 1, ..Limits::default() };
    let supplier = crate::support::module("probe").supplier(task.supplier.topology().clone(), few);
    let Err(ProcessorError::Limit { key, .. }) = supplier.create(TASK) else { panic!("it started") };
    assert_eq!(key, "processor.table.max.elements");
}

#[test]
fn deep_recursion_ends_in_a_trap() {
    for (command, part) in [("recurse", "stack overflow"), ("recurse-small", "call stack exhausted")] {
        let ProcessorError::Trap { message, backtrace } = failure(Limits::default(), command, "") else { panic!() };
        assert!(message.contains(part), "{command}: {message}");
        assert!((5..30).contains(&backtrace.lines().count()), "{backtrace}");
        assert!(backtrace.contains("recurse"), "{backtrace}");
    }
}

#[test]
fn a_panic_keeps_its_message_and_a_backtrace() {
    let ProcessorError::Trap { message, backtrace } = failure(Limits::default(), "panic", "why") else { panic!() };
    assert!(message.contains("a panic with \\u{1b}[31mcolour and\\na second line: why"), "{message}");
    assert!(!message.contains('\n') && !message.contains('\u{1b}'), "{message}");
    assert!(backtrace.contains("process"), "{backtrace}");
}

#[test]
fn host_calls_end_at_their_limit() {
    let limits = Limits { host_max_calls: 10_000, ..Limits::default() };
    limit(limits.clone(), "host-calls", "", ("processor.host.max.calls", 10_000));
    limit(limits, "log-flood", "20000", ("processor.host.max.calls", 10_000));
}

#[test]
fn outputs_end_at_their_limits() {
    let limits = Limits { output_max_bytes: 1 << 20, output_max_records: 1_000, ..Limits::default() };
    limit(limits.clone(), "output-bytes", "2000000", ("processor.output.max.bytes", 1 << 20));
    limit(limits.clone(), "output-records", "1001", ("processor.output.max.records", 1_000));
    let mut task = Task::start("probe", limits);
    assert_eq!(task.call("output-records", "1000").unwrap().outputs.len(), 1_000);
    assert_eq!(task.call("output-bytes", "1000000").unwrap().outputs.values.bytes.len(), 1_000_000);
}

#[test]
fn a_huge_host_call_is_refused_before_it_is_copied() {
    let limits = Limits { output_max_bytes: 1 << 20, ..Limits::default() };
    limit(limits, "log-huge", "8000000", ("processor.output.max.bytes", 1 << 20));
}

#[test]
fn state_ends_at_its_limits() {
    let limits = Limits { state_max_write_bytes: 4 << 20, ..Limits::default() };
    limit(limits, "put-megabytes", "5", ("processor.state.max.write.bytes", 4 << 20));
    let limits = Limits { state_max_operations: 2_999, ..Limits::default() };
    limit(limits, "put-entries", "3000", ("processor.state.max.operations", 2_999));
    let limits = Limits { state_max_scan_entries: 10_000, ..Limits::default() };
    let mut task = Task::start("probe", limits);
    task.ask("put-entries", "3000");
    let Err(ProcessorError::Limit { key, .. }) = task.call("scan-for-ever", "") else { panic!() };
    assert_eq!(key, "processor.state.max.scan.entries");
}

/// A small request for a huge answer: the guest's memory would not hold it, the host's must not try.
#[test]
fn reads_that_multiply_end_at_their_limit() {
    let limits = Limits { state_max_read_bytes: 8 << 20, ..Limits::default() };
    limit(limits, "get-same-many", "20", ("processor.state.max.read.bytes", 8 << 20));
}

#[test]
fn schedules_end_at_their_limit() {
    let limits = Limits { schedule_max_count: 10, ..Limits::default() };
    limit(limits.clone(), "schedules", "11", ("processor.schedule.max.count", 10));
    let mut task = Task::start("probe", limits);
    // What is cancelled does not count, nor what a failed call asked for.
    task.ask("schedule-cancel", "100");
    for _ in 0..20 {
        task.call("schedule-and-fail", "").unwrap_err();
    }
    task.ask("schedules", "10");
    let Err(ProcessorError::Limit { found: 11, .. }) = task.call("schedules", "1") else { panic!() };
    let ProcessorError::Trap { message, .. } = failure(Limits::default(), "schedule", "0") else { panic!() };
    assert!(message.contains("an interval of 0 ms"), "{message}");
}

#[test]
fn a_crash_leaves_nothing_in_the_store() {
    let mut task = Task::start("probe", Limits::default());
    for round in 0..1_000 {
        let key = format!("key-{}", round % 10);
        let Err(ProcessorError::Trap { .. }) = task.call("put-and-panic", &key) else { panic!() };
        task.replace();
    }
    for round in 0..10 {
        assert_eq!(task.ask("get", &format!("key-{round}")), "None");
    }
    assert_eq!(task.usage().instances, 1_001);
}

/// Crashes in a row must not make the host grow (D1). `SANDBAR_HOSTILE_CALLS` makes the row longer.
#[test]
fn crashes_in_a_row_keep_memory_flat() {
    let calls = std::env::var("SANDBAR_HOSTILE_CALLS").map_or(1_000, |calls| calls.parse().unwrap());
    let mut task = Task::start("probe", Limits { memory_max_bytes: 8 << 20, ..Limits::default() });
    let mut crash = |rounds: usize| {
        for round in 0..rounds {
            let command = ["panic", "grow", "ends-descending", "unopened"][round % 4];
            task.call(command, "7").unwrap_err();
            task.replace();
        }
    };
    crash(200);
    let before = resident_bytes();
    crash(calls);
    let grown = resident_bytes().saturating_sub(before);
    // Other tests run beside this one, so the bound is wide; a leak of one instance a crash would be 1 GB.
    assert!(grown < 300 << 20, "{grown} bytes more after {calls} crashes");
}

fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/statm").unwrap();
    status.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4_096
}
