//! Modules that try to use too much (D1, D2) or die half-way (D3): each ends in an error of its own kind, in time and
//! in bounded memory, and the next instance works as if nothing had been.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use engine::processor::{ProcessorError, ProcessorSupplier};
use rustix::time::{ClockId, clock_gettime};
use sandbox::Limits;

use crate::support::{TASK, Task, batch};

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
        let start = thread_cpu();
        assert_eq!(task.call(command, argument), Err(ProcessorError::Deadline { limit_ms: 300 }));
        let used = thread_cpu() - start;
        // A machine that is busy with other tests takes nothing of a call's time, and gives it none either (D1).
        assert!(used >= Duration::from_millis(295), "{command} was cut after {used:?}");
        assert!(used < Duration::from_millis(600), "{command} took {used:?}");
        assert_eq!(task.hits("processor.deadline.ms"), 1);
    }
    assert_eq!(failure(limits, "loop", ""), ProcessorError::Deadline { limit_ms: 300 });
}

#[test]
fn a_batch_has_twice_the_time_of_a_record() {
    let mut task = Task::start("probe", Limits { deadline_ms: 200, ..Limits::default() });
    let start = thread_cpu();
    let error = task.process(batch(&[("loop", ""), ("nothing", "")])).unwrap_err();
    let used = thread_cpu() - start;
    assert_eq!(error, ProcessorError::Deadline { limit_ms: 200 });
    assert!((395..700).contains(&used.as_millis()), "it took {used:?}");
}

/// Six threads for each processor: the call gets a small part of one, and takes longer than its deadline by the clock.
#[test]
fn a_busy_machine_does_not_end_an_innocent_call() {
    let stop = AtomicBool::new(false);
    let processors = std::thread::available_parallelism().unwrap().get();
    std::thread::scope(|scope| {
        for _ in 0..6 * processors {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        let mut task = Task::start("probe", Limits { deadline_ms: 300, ..Limits::default() });
        let (start, cpu_start) = (Instant::now(), thread_cpu());
        let outcome = task.call("work", "5000000");
        let (elapsed, used) = (start.elapsed(), thread_cpu() - cpu_start);
        let ended = task.call("loop", "");
        stop.store(true, Ordering::Relaxed);
        if used < Duration::from_millis(300) {
            outcome.unwrap_or_else(|error| panic!("{error} after {elapsed:?}, {used:?} of CPU"));
        }
        assert_eq!(ended, Err(ProcessorError::Deadline { limit_ms: 300 }));
    });
}

#[test]
fn calls_after_a_pause_have_their_whole_deadline() {
    let mut task = Task::start("probe", Limits { deadline_ms: 200, ..Limits::default() });
    // Long enough for the thread behind the deadlines to go to sleep.
    std::thread::sleep(Duration::from_millis(400));
    task.ask("context", "");
    std::thread::sleep(Duration::from_millis(400));
    let start = thread_cpu();
    assert_eq!(task.call("loop", ""), Err(ProcessorError::Deadline { limit_ms: 200 }));
    assert!(thread_cpu() - start >= Duration::from_millis(195));
}

pub fn thread_cpu() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap())
}

#[test]
fn memory_ends_at_its_limit() {
    let limits = Limits { memory_max_bytes: 16 << 20, ..Limits::default() };
    assert_eq!(failure(limits, "grow", ""), ProcessorError::Memory { limit_bytes: 16 << 20 });
    assert_eq!(failure(Limits::default(), "grow", ""), ProcessorError::Memory { limit_bytes: 64 << 20 });
}

/// Each instance stays within its own limit, and all together pass that of the application.
#[test]
fn the_memory_of_all_instances_ends_at_its_limit() {
    let limits = Limits { memory_total_max_bytes: 24 << 20, ..Limits::default() };
    let mut task = Task::start("probe", limits);
    let at_rest = task.usage().memory_bytes;
    assert!((1 << 20..4 << 20).contains(&at_rest), "{at_rest}");
    let mut others = Vec::new();
    let error = loop {
        match task.supplier.create(TASK) {
            Ok(other) => others.push(other),
            Err(error) => break error,
        }
        assert!(others.len() < 100, "nothing ends it");
    };
    let message = error.to_string();
    assert!(message.starts_with("limit memory of all instances = 25165824 exceeded ("), "{message}");
    assert!(message.ends_with("; raise it with the key processor.memory.total.max.bytes"), "{message}");
    let Err(ProcessorError::Limit { key, .. }) = task.call("grow", "") else { panic!("it grew") };
    assert_eq!(key, "processor.memory.total.max.bytes");
    assert_eq!(task.hits(key), 2);
    // What is dropped gives everything back.
    drop(others);
    task.replace();
    assert_eq!(task.usage().memory_bytes, at_rest);
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
    // Within what may be read, and more than the instance could ever hold.
    let error = failure(Limits::default(), "get-same-many", "100");
    assert_eq!(error, ProcessorError::Memory { limit_bytes: 64 << 20 });
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

/// A call that cancels everything and is undone has cancelled nothing: the engine keeps those schedules.
#[test]
fn schedules_of_a_call_that_is_undone_still_count() {
    let limits = Limits { schedule_max_count: 10, ..Limits::default() };
    let mut task = Task::start("probe", limits);
    task.ask("schedules", "10");
    let full = |task: &mut Task| {
        let Err(ProcessorError::Limit { found: 11, .. }) = task.call("schedules", "1") else { panic!("an 11th") };
        // That call ended the instance.
        task.replace();
        task.ask("schedules", "10");
    };
    task.call("cancel-and", "fail").unwrap_err();
    full(&mut task);
    assert_eq!(task.call("cancel-and", "refuse").unwrap().refused.len(), 1);
    full(&mut task);
    task.call_undone("cancel-and", "answer");
    full(&mut task);
    task.call_undone("cancel-and", "answer");
    task.ask("context", "");
    full(&mut task);
    task.ask("cancel-and", "answer");
    task.ask("schedules", "10");
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
