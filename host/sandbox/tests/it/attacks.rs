//! Attacks by hand-made components, one for each, below any language and compiler: on the start of an instance, on time
//! and memory, on the way that lists and text cross the boundary. Each ends in its own words, and the host goes on.

use engine::processor::ProcessorError;
use sandbox::Limits;

use crate::handmade::{ANSWER, Handmade, list, outcome, set};
use crate::support::{Task, batch, runtime};

const LOOP: &str = "(loop $again (br $again))";
const UNREACHABLE: &str = "unreachable";

fn limits() -> Limits {
    Limits { deadline_ms: 60, ..Limits::default() }
}

/// What loading says.
fn refused(handmade: &Handmade<'_>) -> String {
    runtime().load_with(&handmade.component(), &limits(), &mut |_| {}).unwrap_err().to_string()
}

fn start(handmade: &Handmade<'_>, limits: Limits) -> Task {
    let module = runtime().load_with(&handmade.component(), &limits, &mut |_| {}).unwrap();
    Task::of(&module, limits, &[])
}

/// What a call with one record says; afterwards a new instance can be made.
fn failed(handmade: &Handmade<'_>, limits: Limits) -> ProcessorError {
    let mut task = start(handmade, limits);
    task.init().unwrap();
    let error = task.call("key", "value").unwrap_err();
    task.replace();
    error
}

#[track_caller]
fn process(body: &str, expected: &str) {
    says(&failed(&Handmade { process: body, ..Handmade::default() }, limits()), body, expected);
}

#[track_caller]
fn says(error: &ProcessorError, attack: &str, expected: &str) {
    assert!(error.to_string().contains(expected), "{attack}\n{error}");
}

#[test]
fn a_component_by_hand_works() {
    let mut task = start(&Handmade::default(), limits());
    task.init().unwrap();
    assert!(task.call("key", "value").unwrap().outputs.is_empty());
    assert!(task.punctuate(1, 5).unwrap().outputs.is_empty());
}

#[test]
fn a_start_that_does_not_end_or_crashes_is_refused() {
    let late = "could not say what it is (`describe`): the call ran longer than 60 ms; raise it with the key \
                processor.deadline.ms";
    let crashed = "could not say what it is (`describe`): the processor crashed: wasm trap: wasm `unreachable`";
    for (body, expected) in [(LOOP, late), (UNREACHABLE, crashed)] {
        for handmade in
            [Handmade { start: body, ..Handmade::default() }, Handmade { describe: body, ..Handmade::default() }]
        {
            let message = refused(&handmade);
            assert!(message.contains(expected), "{handmade:?}\n{message}");
        }
    }
}

#[test]
fn a_start_with_too_much_memory_or_too_large_a_table_is_refused() {
    let message = refused(&Handmade { pages: "65536", ..Handmade::default() });
    assert!(message.ends_with("raise it with the key processor.memory.max.bytes"), "{message}");
    let message = refused(&Handmade { fields: "(table 50000000 funcref)", ..Handmade::default() });
    assert!(message.ends_with("raise it with the key processor.table.max.elements"), "{message}");
}

/// A component with so many more instances of a small core module.
fn with_instances(count: usize) -> Vec<u8> {
    let mut component = Handmade::default().component();
    // Sections may come in any order, so what is added at the end counts after what is there.
    let mut modules = 0;
    let mut depth = 0;
    for payload in wasmparser::Parser::new(0).parse_all(&component) {
        match payload.unwrap() {
            wasmparser::Payload::Version { .. } => depth += 1,
            wasmparser::Payload::End(_) => depth -= 1,
            wasmparser::Payload::ModuleSection { .. } if depth == 1 => modules += 1,
            _ => {}
        }
    }
    let module = wat::parse_str("(module (global i32 (i32.const 0)))").unwrap();
    component.extend([1, module.len() as u8]);
    component.extend(module);
    let mut instances = vec![count as u8];
    (0..count).for_each(|_| instances.extend([0, modules, 0]));
    component.extend([2, instances.len() as u8]);
    component.extend(instances);
    component
}

#[test]
fn core_instances_end_at_their_limit() {
    let load = |count| runtime().load_with(&with_instances(count), &limits(), &mut |_| {});
    load(10).unwrap();
    let message = load(30).unwrap_err().to_string();
    assert!(message.contains("resource limit exceeded: instance count too high at 21"), "{message}");
}

#[test]
fn a_description_that_lies_is_refused() {
    for (body, expected) in [
        (list(64, 128, u32::MAX), "out of bounds"),
        (list(64, 65_535, 1_000), "not aligned"),
        ("(i32.store8 (i32.const 192) (i32.const 255))".to_owned(), "utf-8"),
        // Each of them reads nothing, which is one fault each.
        (list(64, 4_096, 5_000), "declares an impossible topology"),
    ] {
        let message = refused(&Handmade { describe: &body, ..Handmade::default() });
        assert!(message.contains(expected), "{body}\n{message}");
        assert!(message.len() < 20_000, "{} bytes", message.len());
    }
}

#[test]
fn an_endless_loop_ends_wherever_it_is() {
    let deadline = ProcessorError::Deadline { limit_ms: 60 };
    let mut task = start(&Handmade { init: LOOP, ..Handmade::default() }, limits());
    assert_eq!(task.init(), Err(deadline.clone()));
    let mut task = start(&Handmade { process: LOOP, punctuate: LOOP, ..Handmade::default() }, limits());
    task.init().unwrap();
    assert_eq!(task.call("key", "value").map(|_| ()), Err(deadline.clone()));
    task.replace();
    assert_eq!(task.punctuate(1, 5).map(|_| ()), Err(deadline.clone()));
    // The function by which the host gets memory runs under the deadline too.
    assert_eq!(failed(&Handmade { realloc: LOOP, ..Handmade::default() }, limits()), deadline);
    assert_eq!(task.hits("processor.deadline.ms"), 2);
}

#[test]
fn crashes_say_which() {
    const FIELDS: &str = "(table 4 funcref) (type $void (func)) (type $number (func (result i32)))
        (func $deeper (call $deeper)) (func $typed (result i32) (i32.const 1)) (elem (i32.const 1) $typed)";
    for (body, expected) in [
        (UNREACHABLE, "`unreachable`"),
        ("(drop (i32.div_u (i32.const 1) (i32.const 0)))", "integer divide by zero"),
        ("(drop (i32.div_s (i32.const -2147483648) (i32.const -1)))", "integer overflow"),
        ("(drop (i32.trunc_f32_s (f32.const nan)))", "invalid conversion to integer"),
        ("(drop (i32.load (i32.const -4)))", "out of bounds memory access"),
        ("(memory.copy (i32.const 0) (i32.const 1) (i32.const -1))", "out of bounds memory access"),
        ("(memory.fill (i32.const 1) (i32.const 7) (i32.const 131072))", "out of bounds memory access"),
        ("(call_indirect (type $void) (i32.const 9))", "undefined element: out of bounds table access"),
        ("(call_indirect (type $void) (i32.const 0))", "uninitialized element"),
        ("(call_indirect (type $void) (i32.const 1))", "indirect call type mismatch"),
        ("(table.fill (i32.const 2) (ref.null func) (i32.const 9))", "out of bounds table access"),
        ("(call $deeper)", "call stack exhausted"),
    ] {
        let error = failed(&Handmade { fields: FIELDS, process: body, ..Handmade::default() }, limits());
        says(&error, body, expected);
    }
}

#[test]
fn memory_and_tables_end_at_their_limits() {
    let grow = "(loop $again (br_if $again (i32.ne (memory.grow (i32.const 16)) (i32.const -1))))";
    process(grow, "memory limit of 67108864 bytes reached; raise it with the key processor.memory.max.bytes");
    let grow = "(loop $again (br_if $again (i32.ne (table.grow (ref.null func) (i32.const 1000)) (i32.const -1))))";
    let error = failed(&Handmade { fields: "(table 1 funcref)", process: grow, ..Handmade::default() }, limits());
    let key = "raise it with the key processor.table.max.elements";
    says(&error, grow, "limit table elements = 100000 exceeded (");
    says(&error, grow, key);
}

/// Each copy is one instruction of a millisecond or more; the deadline is looked at between two of them.
#[test]
fn bulk_copies_end_at_the_deadline() {
    let copies = "(loop $again (memory.copy (i32.const 0) (i32.const 1) (i32.const 60000000)) (br $again))";
    let error = failed(&Handmade { pages: "1000", process: copies, ..Handmade::default() }, limits());
    assert_eq!(error, ProcessorError::Deadline { limit_ms: 60 });
}

#[test]
fn lists_that_lie_about_their_place_or_length_are_refused() {
    for (field, pointer, length, expected) in [
        (outcome::KEY_BYTES, 131_072, 1, "out of bounds"),
        (outcome::KEY_BYTES, 0, u32::MAX, "out of bounds"),
        (outcome::KEY_BYTES, u32::MAX, u32::MAX, "out of bounds"),
        (outcome::VALUE_BYTES, 131_000, 100, "out of bounds"),
        (outcome::KEY_ENDS, 4_097, 1, "not aligned"),
        (outcome::KEY_ENDS, 0, 0x4000_0000, "out of bounds"),
        (outcome::VALUE_ENDS, 0, 0x8000_0001, "out of bounds"),
        (outcome::KEY_NULLS, 0, u32::MAX, "out of bounds"),
        (outcome::TIMESTAMPS, 4_100, 1, "not aligned"),
        (outcome::TIMESTAMPS, 0, 0x2000_0000, "out of bounds"),
        (outcome::SINKS, 131_072, 1, "out of bounds"),
        (outcome::PARTITIONS, 0, u32::MAX, "out of bounds"),
        (outcome::HEADER_COUNTS, 8, 0x7fff_ffff, "out of bounds"),
        (outcome::REFUSED, 0, 0x1555_5556, "out of bounds"),
        (outcome::REFUSED, 4_097, 1, "not aligned"),
        // In bounds, but the columns do not fit together.
        (outcome::KEY_BYTES, 0, 100, "malformed output: the end offsets stop at 0 but there are 100 bytes"),
        (outcome::KEY_ENDS, 0, 1, "malformed output: a column has 1 items where 0 were expected (keys)"),
        (outcome::SINKS, 0, 30_000, "malformed output: a column has 30000 items where 0 were expected (sinks)"),
    ] {
        process(&list(field, pointer, length), expected);
    }
    // An answer that is itself outside, or not aligned.
    process("(return (i32.const 131072))", "out of bounds");
    process("(return (i32.const -4))", "out of bounds");
    process("(return (i32.const 1026))", "aligned");
}

#[test]
fn what_is_too_large_is_refused_before_it_is_copied() {
    let limits = Limits { memory_max_bytes: 256 << 20, deadline_ms: 60_000, ..Limits::default() };
    let key = list(outcome::KEY_BYTES, 0, 100_000_000);
    let error = failed(&Handmade { pages: "1600", process: &key, ..Handmade::default() }, limits.clone());
    assert_eq!(
        error.to_string(),
        "limit bytes handed to the host at once = 67108864 exceeded (67108865); raise it with the key \
         processor.output.max.bytes"
    );
    // A million and one records without keys or values, all of them the same zeroes.
    let records = 1_000_001;
    let mut outputs = list(outcome::TIMESTAMPS, 65_536, records);
    outputs += &list(outcome::KEY_ENDS, 65_536, records);
    outputs += &list(outcome::VALUE_ENDS, 65_536, records);
    let error = failed(&Handmade { pages: "160", process: &outputs, ..Handmade::default() }, limits);
    assert_eq!(
        error.to_string(),
        "limit forwarded records = 1000000 exceeded (1000001); raise it with the key processor.output.max.records"
    );
}

#[test]
fn text_that_is_none_is_refused() {
    let bad = "(i32.store (i32.const 4096) (i32.const 0xff)) ";
    let error = bad.to_owned() + &set(ANSWER, 1) + &list(ANSWER + 4, 4_096, 4);
    process(&error, "utf-8");
    let refusal = bad.to_owned() + &list(outcome::REFUSED, 8_192, 1) + &list(8_196, 4_096, 4);
    process(&refusal, "utf-8");
    let far = set(ANSWER, 1) + &list(ANSWER + 4, 131_000, 1_000);
    process(&far, "out of bounds");
    let kind = set(ANSWER, 7);
    process(&kind, "discriminant");
}

const LOG: &str = r#"(import "sandbar:processor/log@0.1.0" "log" (func $log (param i32 i32 i32)))"#;
const STATE: &str = r#"(import "sandbar:processor/state@0.1.0" "open" (func $open (param i32 i32 i32)))
    (import "sandbar:processor/state@0.1.0" "get" (func $get (param i32 i32 i32 i32)))"#;

#[test]
fn host_calls_with_arguments_that_lie_are_refused() {
    let call = |imports: &str, body: &str, expected: &str| {
        let error = failed(&Handmade { imports, process: body, ..Handmade::default() }, limits());
        says(&error, body, expected);
    };
    call(LOG, "(call $log (i32.const 2) (i32.const 131072) (i32.const 1))", "out of bounds");
    call(LOG, "(call $log (i32.const 2) (i32.const 0) (i32.const -1))", "out of bounds");
    call(LOG, "(call $log (i32.const 9) (i32.const 0) (i32.const 1))", "discriminant");
    let bad = "(i32.store8 (i32.const 4096) (i32.const 255))";
    call(LOG, &format!("{bad} (call $log (i32.const 2) (i32.const 4096) (i32.const 1))"), "utf-8");
    call(STATE, &format!("{bad} (call $open (i32.const 4096) (i32.const 1) (i32.const 8192))"), "utf-8");
    // The answer would be written outside of the module's memory.
    call(STATE, "(call $open (i32.const 192) (i32.const 8) (i32.const 131072))", "out of bounds");
    call(STATE, "(call $get (i32.const 0) (i32.const 0) (i32.const 4) (i32.const 8192))", "the store 0");
    call(STATE, "(call $get (i32.const -1) (i32.const 0) (i32.const 4) (i32.const 8192))", "the store 4294967295");
}

#[test]
fn a_place_for_the_input_that_lies_is_refused() {
    for (realloc, expected) in [
        ("(return (i32.const -8))", "realloc return: beyond end of memory"),
        ("(return (i32.const 131072))", "realloc return: beyond end of memory"),
        ("(return (i32.const 4097))", "aligned"),
        (UNREACHABLE, "`unreachable`"),
        // Out of the call that the host makes back into it: it may not be entered, nor leave, a second time.
        ("(call $log (i32.const 2) (i32.const 0) (i32.const 1))", "cannot leave"),
    ] {
        let error = failed(&Handmade { imports: LOG, realloc, ..Handmade::default() }, limits());
        says(&error, realloc, expected);
    }
}

const STREAMS: &str = r#"(import "wasi:cli/stdout@0.2.0" "get-stdout" (func $stdout (result i32)))
    (import "wasi:io/streams@0.2.0" "[resource-drop]output-stream" (func $drop (param i32)))
    (import "wasi:io/streams@0.2.0" "[resource-drop]input-stream" (func $drop_other (param i32)))
    (import "wasi:io/streams@0.2.0" "[method]output-stream.blocking-write-and-flush"
        (func $write (param i32 i32 i32 i32)))"#;

#[test]
fn handles_that_were_dropped_or_never_given_are_refused() {
    for (body, expected) in [
        ("(call $drop (call $stdout)) (call $drop (i32.const 1))", "unknown handle index"),
        (
            "(call $drop (call $stdout)) (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8192))",
            "unknown handle index",
        ),
        ("(call $write (i32.const 4000) (i32.const 0) (i32.const 1) (i32.const 8192))", "unknown handle index"),
        ("(call $drop (i32.const -1))", "unknown handle index"),
        ("(call $drop_other (call $stdout))", "wrong type"),
        ("(loop $again (drop (call $stdout)) (br $again))", "table"),
    ] {
        let error = failed(&Handmade { wasi: true, imports: STREAMS, process: body, ..Handmade::default() }, limits());
        says(&error, body, expected);
    }
}

/// What the same record gives in an instance that has seen others and in a new one, which is how `sandbar repro`
/// repeats a call (S8): the same, unless the module kept something between calls.
fn repeated(process: &str) -> [Vec<i64>; 2] {
    let handmade = Handmade { fields: "(global $count (mut i32) (i32.const 0))", process, ..Handmade::default() };
    let mut task = start(&handmade, limits());
    task.init().unwrap();
    let record = || batch(&[("key", "value")]);
    (0..5).for_each(|_| _ = task.call("other", "history").unwrap());
    let with_history = task.process(record()).unwrap();
    task.replace();
    let alone = task.process(record()).unwrap();
    [with_history.outputs.timestamps, alone.outputs.timestamps]
}

#[test]
fn state_in_globals_is_found_by_repeating_the_call() {
    let count = "(global.set $count (i32.add (global.get $count) (i32.const 1)))";
    let answer = |timestamp: &str| {
        format!("(i64.store (i32.const 4096) (i64.extend_i32_u {timestamp}))")
            + &list(outcome::TIMESTAMPS, 4_096, 1)
            + &list(outcome::KEY_ENDS, 8_192, 1)
            + &list(outcome::VALUE_ENDS, 8_192, 1)
    };
    let covert = repeated(&(count.to_owned() + &answer("(global.get $count)")));
    assert_eq!(covert, [[6], [1]], "the two results differ");
    let honest = repeated(&(count.to_owned() + &answer("(i32.const 7)")));
    assert_eq!(honest, [[7], [7]]);
}
