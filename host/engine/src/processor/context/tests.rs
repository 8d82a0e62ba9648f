//! A call that fails leaves no trace; one that succeeds keeps its writes and hands out its schedule requests.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{ProcessorContext, PunctuationType, ScheduleId, ScheduleRequest, StoreIndex};
use crate::columns::{Columns, NullableColumns};
use crate::state::memory::MemoryStore;
use crate::state::{StoreError, TaskStore};
use crate::topology::{StoreBackend, StoreChangelog, StoreSpec, TaskId};

fn context() -> ProcessorContext {
    let stores = ["reports", "schedule"]
        .map(|name| StoreSpec {
            name: name.into(),
            backend: StoreBackend::InMemory,
            changelog: StoreChangelog::Internal,
            version: 1,
            key_format: "utf8".into(),
            value_format: "json".into(),
            older_generation_of: None,
        })
        .map(|spec| TaskStore::new(spec, Box::new(MemoryStore::new()), 0));
    let task = TaskId { sub_topology: 0, partition: 2 };
    ProcessorContext::new(task, "app".into(), Arc::new(BTreeMap::new()), stores.into())
}

#[test]
fn a_failed_call_leaves_no_write_and_no_schedule() {
    let mut context = context();
    context.begin_call(None, 5, 1_000);
    let reports = context.store("reports").expect("declared");
    context.put(reports, b"rain", Some(b"1"), None).expect("put");
    let first = context.schedule(0, PunctuationType::StreamTime);
    let expected = ScheduleRequest::Add { id: first, interval_ms: 1, kind: PunctuationType::StreamTime };
    assert_eq!(context.complete_call(), [expected]);
    assert!(!context.last_call_undone());

    context.begin_call(Some(5), 7, 2_000);
    context.put(reports, b"rain", Some(b"2"), None).expect("put");
    let lost = context.schedule(60_000, PunctuationType::WallClockTime);
    context.cancel(first);
    context.fail_call();
    assert_eq!(context.get(reports, b"rain").expect("get").as_deref(), Some(&b"1"[..]));

    context.begin_call(Some(5), 7, 2_000);
    assert!(context.last_call_undone(), "the next call is told");
    let again = context.schedule(60_000, PunctuationType::WallClockTime);
    assert_eq!(again, lost, "a retried call gets the same ids");
    assert_eq!(again, ScheduleId(1));
    assert_eq!(context.complete_call().len(), 1, "the cancel of the failed call does not count");
}

#[test]
fn writes_without_a_timestamp_get_the_one_of_the_call() {
    let mut context = context();
    context.begin_call(Some(40), 50, 0);
    let (mut keys, mut values) = (Columns::default(), NullableColumns::default());
    for key in ["a", "b", "c"] {
        keys.push(key.as_bytes());
        values.push(None);
    }
    context.put_many(StoreIndex(1), &keys, &values, &[7, -1, 0]).expect("put_many");
    context.put(StoreIndex(1), b"d", None, Some(9)).expect("put");
    context.put(StoreIndex(1), b"e", None, None).expect("put");
    let timestamps: Vec<_> = context.stores()[1].dirty_entries().map(|entry| entry.timestamp).collect();
    assert_eq!(timestamps, [7, 50, 0, 9, 50]);
}

#[test]
fn an_undeclared_store_is_named_beside_those_that_exist() {
    let mut context = context();
    let error = context.store("votes").expect_err("not declared");
    assert_eq!(error.to_string(), "store votes is not declared; declared are: reports, schedule");
    let error = context.get(StoreIndex(2), b"x").expect_err("out of range");
    assert!(matches!(error, StoreError::Undeclared { .. }));
    assert_eq!(context.approximate_entries(StoreIndex(9)), 0);
}
