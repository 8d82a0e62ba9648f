//! The figures of the hostile suite: D1 (calls in a row), D2 (host memory of one call), D6 (two tenants). Each is
//! measured in a process of its own, since other tests would be in the figures, and prints one line that begins with
//! `hostile: `. `SANDBAR_HOSTILE=long` makes the rows as long as `make hostile` reports them.

use std::process::Command;
use std::time::Duration;

use engine::processor::ProcessorError;
use sandbox::Limits;

use crate::handmade::Handmade;
use crate::hostile::thread_cpu;
use crate::support::Task;

const MIB: u64 = 1 << 20;
const ALONE: &str = "SANDBAR_HOSTILE_ALONE";

/// The first number in a quick run, the second in a long one.
fn rounds(short: usize, long: usize) -> usize {
    if std::env::var_os("SANDBAR_HOSTILE").is_some_and(|form| form == "long") { long } else { short }
}

/// Runs a test of this file in a process of its own: true in that process, false in the one that has waited for it.
fn alone(test: &str) -> bool {
    if std::env::var_os(ALONE).is_some() {
        return true;
    }
    let test = format!("figures::{test}");
    let mut command = Command::new(std::env::current_exe().unwrap());
    let output = command.args(["--exact", &test, "--nocapture"]).env(ALONE, "1").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    // The runner may have begun the line with the test's name.
    let figures = text.lines().filter_map(|line| line.find("hostile: ").and_then(|at| line.get(at..)));
    figures.for_each(|figure| println!("{figure}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{}\n{text}\n{said}", output.status);
    false
}

/// A number of bytes from `/proc/self/status`.
fn status_bytes(field: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(field)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1_024
}

fn resident() -> u64 {
    status_bytes("VmRSS:")
}

/// Lets the peak begin anew.
fn forget_peak() {
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
}

/// Commands of the probe that end an instance or a call, each with the word of its error.
const HOSTILE: [(&str, &str, &str); 22] = [
    ("panic", "x", "the processor crashed"),
    ("recurse", "", "stack overflow"),
    ("recurse-small", "1", "call stack exhausted"),
    ("grow", "", "processor.memory.max.bytes"),
    ("host-calls", "", "processor.host.max.calls"),
    ("log-huge", "5000000", "processor.output.max.bytes"),
    ("output-bytes", "5000000", "processor.output.max.bytes"),
    ("output-records", "1001", "processor.output.max.records"),
    ("put-megabytes", "5", "processor.state.max.write.bytes"),
    ("put-entries", "3000", "processor.state.max.operations"),
    ("get-same-many", "20", "processor.state.max.read.bytes"),
    ("schedules", "11", "processor.schedule.max.count"),
    ("ends-descending", "", "malformed output"),
    ("ends-huge", "", "malformed output"),
    ("nulls-twice", "", "malformed output"),
    ("header-counts-huge", "", "malformed output"),
    ("refused-beyond", "", "malformed output"),
    ("get-many-malformed", "", "malformed output"),
    ("put-many-negative", "", "malformed output"),
    ("unopened", "7", "the processor crashed"),
    ("put-and-panic", "key", "after a put"),
    ("schedule", "0", "an interval of 0 ms"),
];

fn tight() -> Limits {
    Limits {
        deadline_ms: 100,
        memory_max_bytes: 8 * MIB,
        host_max_calls: 1_000,
        output_max_bytes: 4 * MIB,
        output_max_records: 1_000,
        state_max_write_bytes: 4 * MIB,
        state_max_operations: 2_999,
        state_max_read_bytes: 8 * MIB,
        schedule_max_count: 10,
        ..Limits::default()
    }
}

/// D1: hostile calls in a row; each ends in its own words, loops within twice their CPU time, and memory stays flat.
#[test]
fn d1_hostile_calls_in_a_row() {
    if !alone("d1_hostile_calls_in_a_row") {
        return;
    }
    let mut task = Task::start("probe", tight());
    let (mut loops, mut slowest) = (0_u64, Duration::ZERO);
    let mut attack = |round: usize| {
        if round.is_multiple_of(200) {
            let start = thread_cpu();
            assert_eq!(task.call("loop", ""), Err(ProcessorError::Deadline { limit_ms: 100 }));
            slowest = slowest.max(thread_cpu() - start);
            loops += 1;
        } else {
            let (command, argument, expected) = HOSTILE[round % HOSTILE.len()];
            let error = task.call(command, argument).unwrap_err();
            // With a deadline this short a large copy may be what ends it.
            let late = matches!(error, ProcessorError::Deadline { .. });
            assert!(late || error.to_string().contains(expected), "{command}: {error}");
        }
        task.replace();
    };
    let calls = rounds(3_000, 100_000);
    (0..500).for_each(&mut attack);
    let before = resident();
    (500..500 + calls).for_each(&mut attack);
    let after = resident();
    println!(
        "hostile: D1 {calls} hostile calls, host up; {loops} loops ended within {} ms of CPU at a deadline of 100 ms; \
         resident {} MiB before, {} MiB after",
        slowest.as_millis(),
        before / MIB,
        after / MIB
    );
    assert!(slowest <= Duration::from_millis(200), "a loop took {slowest:?}");
    assert!(after.saturating_sub(before) < 16 * MIB, "{before} bytes before, {after} after");
}

/// D2: what one call makes the host hold at most, the instance's own memory included, under the default limits.
#[test]
fn d2_host_memory_of_one_call_is_bounded() {
    if !alone("d2_host_memory_of_one_call_is_bounded") {
        return;
    }
    let limits = Limits { deadline_ms: 60_000, ..Limits::default() };
    let mut worst = ("", 0);
    let mut calls = 0;
    // Each with the word of its error, or with what it answers: those that stay within their limits are greedy too.
    for (command, argument, expected) in [
        ("grow", "", Err("processor.memory.max.bytes")),
        ("output-bytes", "20000000", Ok(1)),
        ("output-records", "1000000", Ok(1_000_000)),
        ("log-huge", "20000000", Ok(1)),
        ("put-megabytes", "60", Ok(1)),
        ("put-entries", "900000", Ok(1)),
        ("get-same-many", "300", Err("processor.memory.max.bytes")),
        ("get-same-many", "1024 32", Err("processor.memory.max.bytes")),
        ("scan-for-ever", "", Err("processor.host.max.calls")),
        ("host-calls", "", Err("processor.host.max.calls")),
        ("schedules", "2000", Err("processor.schedule.max.count")),
        ("log-flood", "900000", Ok(1)),
        ("header-counts-huge", "", Err("malformed output")),
        ("ends-huge", "", Err("malformed output")),
    ] {
        let mut task = Task::start("probe", limits.clone());
        forget_peak();
        let before = resident();
        let outcome = task.call(command, argument).map(|outcome| outcome.outputs.len());
        let peak = status_bytes("VmHWM:").saturating_sub(before);
        match (&outcome, expected) {
            (Err(error), Err(word)) => assert!(error.to_string().contains(word), "{command}: {error}"),
            (Ok(outputs), Ok(expected)) => assert_eq!(*outputs, expected, "{command}"),
            _ => panic!("{command} {argument} ended in {outcome:?}, not {expected:?}"),
        }
        calls += 1;
        if peak > worst.1 {
            worst = (command, peak);
        }
    }
    let (command, peak) = worst;
    // An instance, what it hands over, what it reads, and the overlay of what it writes.
    let bound = limits.memory_max_bytes + limits.output_max_bytes + limits.state_max_read_bytes;
    println!("hostile: D2 {calls} greedy calls, at most {} MiB of the host for one (`{command}`)", peak / MIB);
    assert!(peak <= bound, "{command} took {peak} bytes, more than {bound}");
}

/// Reads all of its memory for the mark of another, then fills what it has with its own and asks for more, which must
/// be zeroes. `{mark}` is a word that no code or data has.
fn marking(mark: &str) -> String {
    format!(
        "(func $mark (local $at i32)
        (drop (memory.grow (i32.const 2)))
        (local.set $at (i32.const 65536))
        (loop $again
            (if (i64.ne (i64.load (local.get $at)) (i64.const 0)) (then (unreachable)))
            (i64.store (local.get $at) (i64.const {mark}))
            (local.set $at (i32.add (local.get $at) (i32.const 8)))
            (br_if $again (i32.lt_u (local.get $at) (i32.const 262144)))))"
    )
}

/// D6: two tenants by turns on one thread, each call on an instance of its own; whatever one leaves in its memory, the
/// other finds zeroes.
#[test]
fn d6_a_tenant_never_sees_the_memory_of_another() {
    if !alone("d6_a_tenant_never_sees_the_memory_of_another") {
        return;
    }
    let mut tenants: Vec<Task> = ["0x5afec0de5afec0de", "0x0ddba11c0ddba11c"]
        .into_iter()
        .map(|mark| {
            let fields = &marking(mark);
            let module = Handmade { fields, process: "(call $mark)", ..Handmade::default() }.load().unwrap();
            let mut task = Task::of(&module, Limits::default(), &[]);
            task.init().unwrap();
            task
        })
        .collect();
    let calls = rounds(20_000, 1_000_000);
    for round in 0..calls {
        let tenant = &mut tenants[round % 2];
        tenant.call("key", "value").unwrap_or_else(|error| panic!("call {round} found a mark: {error}"));
        // A second call of this instance would find its own mark, as it should.
        if round < 2 {
            assert!(tenant.call("key", "value").is_err(), "the search finds nothing at all");
        }
        tenant.replace();
    }
    println!("hostile: D6 {calls} calls of two tenants, 0 bytes of one seen by the other");
}
