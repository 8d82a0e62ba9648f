//! `migrate` through the sandbox: what it gets and gives, how it can fail, and that it sees its rows only.

use engine::columns::{Columns, NullableColumns};
use engine::processor::{ProcessorError, ProcessorSupplier};
use engine::testing::topology;
use sandbox::{Limits, LoadError, check};

use crate::handmade::{Handmade, list, migrate, migrated};
use crate::support::{TASK, Task, guest, module, runtime};

/// Rows of `tally`, whose values are counts.
fn rows(rows: &[(&str, i64)]) -> (Columns, Columns) {
    let (mut keys, mut values) = (Columns::default(), Columns::default());
    for (key, count) in rows {
        keys.push(key.as_bytes());
        values.push(&count.to_be_bytes());
    }
    (keys, values)
}

fn texts(values: &NullableColumns) -> Vec<Option<String>> {
    values.iter().map(|value| value.map(|value| String::from_utf8(value.to_vec()).unwrap())).collect()
}

/// Rows through a handmade `migrate`, before any other call of the instance.
fn handmade(body: &str, imports: &str, limits: Limits) -> (Task, Result<NullableColumns, ProcessorError>) {
    let migration = migrate(body);
    let module = Handmade { migration: &migration, imports, ..Handmade::default() }.load().unwrap();
    let mut task = Task::of(&module, limits, &[]);
    let (keys, values) = rows(&[("a", 1), ("b", 2)]);
    let result = task.processor.migrate("counts", 1, &keys, &values);
    (task, result)
}

fn failed(body: &str, imports: &str) -> ProcessorError {
    let (mut task, result) = handmade(body, imports, Limits::default());
    let error = result.unwrap_err();
    // Whatever a call that ended badly has left in its memory, nobody calls again.
    let (keys, values) = rows(&[("a", 1)]);
    let again = task.processor.migrate("counts", 1, &keys, &values);
    assert!(matches!(again, Err(ProcessorError::Start(_))), "{again:?}");
    error
}

#[test]
fn rows_become_rows_of_the_new_version() {
    let mut task = Task::create("tally-v2", Limits::default(), &[]);
    let (keys, values) = rows(&[("ebb", 3), ("", 4), ("flood", 0)]);
    let new = task.processor.migrate("counts", 1, &keys, &values).unwrap();
    // A count of nothing is no row any more.
    let expected = [Some(r#"{"count":3}"#.to_owned()), Some(r#"{"count":4}"#.to_owned()), None];
    assert_eq!(texts(&new), expected);
    // Without rows it is a question.
    let none = Columns::default();
    assert_eq!(task.processor.migrate("counts", 1, &none, &none).unwrap(), NullableColumns::default());
    // The same instance goes on as any other.
    task.init().unwrap();
    let again = task.processor.migrate("counts", 1, &keys, &values).unwrap();
    assert_eq!(again, new);
    assert_eq!(task.usage().failures, 0);
}

#[test]
fn what_a_module_does_not_migrate_it_says() {
    let mut task = Task::create("tally-v2", Limits::default(), &[]);
    let none = Columns::default();
    for (store, version, said) in [
        ("counts", 2, "it has no migration of store counts from version 2; it has: counts from version 1"),
        ("totals", 1, "it has no migration of store totals from version 1; it has: counts from version 1"),
    ] {
        let error = task.processor.migrate(store, version, &none, &none).unwrap_err();
        let message = format!("migrate of 0 rows of store {store} from version {version}: {said}");
        assert_eq!(error, ProcessorError::Returned(message));
    }
    let (keys, mut values) = (rows(&[("ebb", 3)]).0, Columns::default());
    values.push(b"three");
    let message = "migrate of 1 rows of store counts from version 1: store counts: the row of key `ebb`: the value is not a \
                   big-endian 64-bit integer: 8 bytes expected, 5 found (`three`)";
    let error = task.processor.migrate("counts", 1, &keys, &values).unwrap_err();
    assert_eq!(error, ProcessorError::Returned(message.to_owned()));
}

#[test]
fn only_a_module_that_exports_it_can_migrate() {
    for (name, can_migrate) in [("tally", false), ("tally-v2", true)] {
        let module = module(name);
        assert_eq!(module.can_migrate(), can_migrate);
        assert_eq!(check(&guest(name)).unwrap().exports_migration(), can_migrate);
        let supplier = module.supplier(topology(&["in"], &["counts"], &["out"]).into(), Limits::default());
        assert_eq!(supplier.can_migrate(), can_migrate);
    }
    assert_eq!(module("tally-v2").declaration().sub_topologies[0].stores[0].version, 2);
    let mut task = Task::start("tally", Limits::default());
    let (keys, values) = rows(&[("a", 1)]);
    assert_eq!(
        task.processor.migrate("counts", 1, &keys, &values).unwrap_err().to_string(),
        "the processor returned an error: migrate of 1 rows of store counts from version 1: the module does not export \
         sandbar:processor/migration@0.1.0"
    );
}

#[test]
fn every_way_to_fail_on_one_key_names_the_call() {
    let limits = || Limits { deadline_ms: 50, ..Limits::default() };
    let failed = |key: &str| {
        let mut task = Task::create("tally-v2-fragile", limits(), &[]);
        let (keys, values) = rows(&[("fine", 1), (key, 2)]);
        let error = task.processor.migrate("counts", 1, &keys, &values).unwrap_err();
        // Another instance takes the rows before it.
        task.processor = task.supplier.create(TASK).unwrap();
        let (keys, values) = rows(&[("fine", 1)]);
        assert_eq!(task.processor.migrate("counts", 1, &keys, &values).unwrap().len(), 1);
        error
    };
    let call = "migrate of 2 rows of store counts from version 1: ";
    let ProcessorError::Trap { message, backtrace } = failed("trap") else { panic!("no trap") };
    assert!(message.starts_with(&format!("{call}panic or abort: panicked at ")), "{message}");
    assert!(message.ends_with("this row is one too many"), "{message}");
    assert!(!backtrace.is_empty());
    assert_eq!(failed("loop"), ProcessorError::Deadline { limit_ms: 50 });
    let ProcessorError::Trap { message, .. } = failed("curious") else { panic!("no trap") };
    assert_eq!(message, format!("{call}the module called context.config in `migrate`, which must be pure"));
    let expected = format!("{call}store counts: the row of key `refuse`: it is refused");
    assert_eq!(failed("refuse"), ProcessorError::Returned(expected));
}

#[test]
fn an_answer_that_breaks_the_contract_is_refused() {
    let call = "migrate of 2 rows of store counts from version 1: ";
    let values =
        "(i32.store (i32.const 1028) (local.get $values)) (i32.store (i32.const 1032) (local.get $value_bytes))";
    let ends = |rows: u32| {
        format!("(i32.store (i32.const 1036) (local.get $value_ends)) (i32.store (i32.const 1040) (i32.const {rows}))")
    };
    for (body, said) in [
        (String::new(), "a column has 0 items where 2 were expected (one value per row)"),
        (format!("{values}{}", ends(1)), "a column has 1 items where 2 were expected (one value per row)"),
        (list(migrated::ENDS, 64, 2), "end offset 1 of item 1 is below the end 128 of the item before it"),
        (format!("{values}{}{}", ends(2), list(migrated::NULLS, 132, 1)), "item 1 is null but has 8 bytes"),
        (list(migrated::BYTES, 64, 4) + &ends(2), "the end offsets stop at 16 but there are 4 bytes"),
    ] {
        assert_eq!(failed(&body, ""), ProcessorError::Output(format!("{call}{said}")), "{body}");
    }
    // The same by halves is right.
    let (_, result) = handmade(&format!("{values}{}", ends(2)), "", Limits::default());
    let (_, expected) = rows(&[("a", 1), ("b", 2)]);
    assert_eq!(result.unwrap().bytes, expected.bytes);
    let few = Limits { state_max_write_bytes: 15, ..Limits::default() };
    let (_, result) = handmade(&format!("{values}{}", ends(2)), "", few);
    let Err(ProcessorError::Limit { key, limit: 15, found: 16, .. }) = result else { panic!("{result:?}") };
    assert_eq!(key, "processor.state.max.write.bytes");
}

#[test]
fn a_call_sees_its_rows_and_nothing_else() {
    let now = r#"(import "sandbar:processor/context@0.1.0" "wall-clock-time" (func $now (result i64)))"#;
    let open = r#"(import "sandbar:processor/state@0.1.0" "open" (func $open (param i32 i32 i32)))"#;
    for (import, call, name) in [
        (now, "(drop (call $now))", "context.wall-clock-time"),
        (open, "(call $open (i32.const 192) (i32.const 4) (i32.const 1100))", "state.open"),
    ] {
        let ProcessorError::Trap { message, .. } = failed(call, import) else { panic!("no trap") };
        let said = format!("the module called {name} in `migrate`, which must be pure");
        assert!(message.ends_with(&said), "{message}");
    }
    let log = r#"(import "sandbar:processor/log@0.1.0" "log" (func $log (param i32 i32 i32)))"#;
    let (task, result) =
        handmade("(call $log (i32.const 3) (i32.const 192) (i32.const 8)) unreachable", log, Limits::default());
    let Err(ProcessorError::Trap { message, .. }) = result else { panic!("{result:?}") };
    assert!(message.ends_with(": panic or abort: commands"), "{message}");
    assert_eq!(task.usage().log_lines, 1);
}

#[test]
fn a_loop_ends_at_the_deadline() {
    let (task, result) = handmade("(loop $ever (br $ever))", "", Limits { deadline_ms: 20, ..Limits::default() });
    assert_eq!(result, Err(ProcessorError::Deadline { limit_ms: 20 }));
    assert_eq!(task.hits("processor.deadline.ms"), 1);
}

/// A module that says it can migrate is one that can, or it is not loaded.
#[test]
fn an_interface_of_another_shape_is_refused_at_the_load() {
    let refused = |migration: &str, contract| {
        let bytes = Handmade { migration, contract, ..Handmade::default() }.component();
        let error = runtime().load(&bytes).unwrap_err();
        assert!(matches!(error, LoadError::Link { .. } | LoadError::WrongVersion { .. }), "{error}");
        error.to_string()
    };
    let right = migrate("");
    let wide = right.replace("(param $from i32)", "(param $from i64)");
    let message = refused(&wide, ("from-version: u32", "from-version: u64"));
    assert!(message.contains("does not fit sandbar:processor@0.1.0: `migrate` of its interface"), "{message}");
    assert!(message.contains("expected `u32` found `u64`"), "{message}");
    let other = right.replace("#migrate\"", "#convert\"");
    let message = refused(&other, ("migrate: func(", "convert: func("));
    let said = "its interface sandbar:processor/migration@0.1.0 has no function `migrate`; build it with";
    assert!(message.contains(said), "{message}");
}
