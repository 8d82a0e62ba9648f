//! Outcomes and host calls that break the contract: each is an error with its own words, none indexes out of range.

use engine::processor::ProcessorError;
use sandbox::Limits;

use crate::support::Task;

#[test]
fn a_malformed_outcome_is_refused() {
    let mut task = Task::start("probe", Limits::default());
    assert_eq!(task.call("well-formed", "").unwrap().outputs.len(), 2);
    for (command, part) in [
        ("ends-descending", "end offset 2 of item 1 is below the end 4 of the item before it"),
        ("ends-short", "the end offsets stop at 3 but there are 4 bytes"),
        ("ends-beyond", "the end offsets stop at 1000000 but there are 4 bytes"),
        ("ends-huge", "the end offsets stop at 4294967295 but there are 4 bytes"),
        ("nulls-beyond", "the null index 2 at position 0 is out of order or not below 2"),
        ("nulls-disorder", "the null index 0 at position 1 is out of order or not below 2"),
        ("nulls-twice", "the null index 1 at position 1 is out of order or not below 2"),
        ("null-with-bytes", "item 1 is null but has 2 bytes"),
        ("keys-missing", "a column has 1 items where 2 were expected (keys)"),
        ("values-missing", "a column has 0 items where 2 were expected (values)"),
        ("timestamps-missing", "a column has 2 items where 0 were expected (keys)"),
        ("sinks-missing", "a column has 1 items where 2 were expected (sinks)"),
        ("partitions-missing", "a column has 3 items where 2 were expected (partitions)"),
        ("header-counts", "a column has 1 items where 2 were expected (header counts)"),
        ("header-keys", "a column has 0 items where 1 were expected (header keys)"),
        ("header-counts-huge", "a column has 0 items where 8589934590 were expected (header keys)"),
        ("refused-beyond", "record 1 was refused, but the call got only 1 records"),
    ] {
        let error = task.call(command, "").unwrap_err();
        assert_eq!(error, ProcessorError::Output(part.to_owned()), "{command}");
        task.replace();
    }
}

#[test]
fn malformed_columns_never_reach_a_store() {
    let mut task = Task::start("probe", Limits::default());
    for (command, part) in [
        ("get-many-malformed", "state.get-many: keys: end offset 2 of item 1 is below the end 3"),
        ("put-many-count", "state.put-many: values: a column has 0 items where 1 were expected"),
        ("put-many-timestamps", "state.put-many: timestamps: a column has 2 items where 1 were expected"),
        ("put-many-negative", "state.put-many: timestamp -1 of item 0 is negative"),
    ] {
        let Err(ProcessorError::Output(message)) = task.call(command, "") else { panic!("{command} passed") };
        assert!(message.starts_with(part), "{message}");
        task.replace();
    }
}

#[test]
fn stores_that_were_not_declared_or_opened_do_not_exist() {
    let mut task = Task::start("probe", Limits::default());
    assert_eq!(task.ask("open", "data"), "Ok(0)");
    assert_eq!(task.ask("open", "../other"), "Err(\"store ../other is not declared; declared are: data\")");
    for handle in ["1", "4294967295"] {
        let Err(ProcessorError::Trap { message, .. }) = task.call("unopened", handle) else {
            panic!("{handle} passed")
        };
        assert_eq!(message, format!("state.get was called with the store {handle}, which `open` never returned"));
        task.replace();
    }
    // The store exists, but this instance has not opened it.
    let Err(ProcessorError::Trap { message, .. }) = task.call("unopened", "0") else { panic!("0 passed") };
    assert!(message.contains("the store 0"), "{message}");
}
