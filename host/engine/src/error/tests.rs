//! Tests of `error`: the remedy and the blame of each kind, and what the messages name.

use super::*;
use crate::broker::BrokerErrorKind::*;

const TASK: TaskId = TaskId { sub_topology: 0, partition: 2 };

fn broker(kind: BrokerErrorKind) -> EngineError {
    BrokerError::new(kind, "commit offsets of group g", "it failed").into()
}

#[test]
fn broker_errors_have_the_remedy_of_their_kind() {
    for (kind, remedy, blame) in [
        (Retriable, Remedy::Retry, Blame::Broker),
        (Rebalanced, Remedy::Rebalance, Blame::Broker),
        (Abortable, Remedy::Recycle, Blame::Broker),
        (Fenced, Remedy::TaskMigrated, Blame::Broker),
        (UnknownTopic, Remedy::Fatal, Blame::Operator),
        (TopicExists, Remedy::Fatal, Blame::Broker),
        (Rejected, Remedy::Fatal, Blame::Guest),
        (Unauthorized, Remedy::Fatal, Blame::Operator),
        (OffsetOutOfRange, Remedy::Fatal, Blame::Operator),
        (Fatal, Remedy::Fatal, Blame::Broker),
    ] {
        let error = broker(kind);
        assert_eq!((error.remedy(), error.blame()), (remedy, blame), "{kind:?}");
        // Where it happened does not change what is to be done.
        let error = EngineError::Commit { thread: 0, stage: "drain", error: Box::new(error) };
        assert_eq!((error.remedy(), error.blame()), (remedy, blame), "{kind:?} in a commit");
    }
}

#[test]
fn store_errors_have_the_same_remedy_inside_a_call() {
    let (store, detail) = ("s".to_owned(), "it failed".to_owned());
    let cases = [
        (
            StoreError::Corrupt { store: store.clone(), task: TASK, detail: detail.clone() },
            Remedy::TaskCorrupted,
            Blame::Disk,
        ),
        (StoreError::NoSpace { store: store.clone(), task: TASK, detail: detail.clone() }, Remedy::Pause, Blame::Disk),
        (StoreError::Locked { path: store.clone(), detail: detail.clone() }, Remedy::Retry, Blame::Operator),
        (StoreError::Foreign { path: store.clone(), detail: detail.clone() }, Remedy::Fatal, Blame::Operator),
        (StoreError::Io { store: store.clone(), task: TASK, operation: "get", detail }, Remedy::Fatal, Blame::Disk),
        (StoreError::Closed { store: store.clone(), task: TASK }, Remedy::Fatal, Blame::Host),
        (StoreError::Undeclared { store, declared: "none".to_owned() }, Remedy::Fatal, Blame::Guest),
    ];
    for (error, remedy, blame) in cases {
        let plain = EngineError::from(error.clone());
        assert_eq!((plain.remedy(), plain.blame()), (remedy, blame), "{plain}");
        let punctuation = EngineError::Punctuation {
            task: TASK,
            schedule: 1,
            time: 5,
            digest: "d".to_owned(),
            error: Box::new(ProcessorError::Store(error)),
        };
        assert_eq!((punctuation.remedy(), punctuation.blame()), (remedy, blame), "{punctuation}");
    }
}

#[test]
fn a_failed_call_names_task_partition_offsets_and_module() {
    let error = |last_offset| EngineError::Processing {
        task: TASK,
        partition: TopicPartition::new("reports", 2),
        first_offset: 40,
        last_offset,
        digest: "abc123".to_owned(),
        error: Box::new(ProcessorError::Deadline { limit_ms: 500 }),
    };
    assert_eq!(
        error(42).to_string(),
        "task 0_2, reports-2, offset 40 to 42, module abc123: the call ran longer than 500 ms; raise it with the key processor.deadline.ms"
    );
    assert_eq!(
        error(40).to_string(),
        "task 0_2, reports-2, offset 40, module abc123: the call ran longer than 500 ms; raise it with the key processor.deadline.ms"
    );
    assert_eq!((error(40).remedy(), error(40).blame()), (Remedy::Fatal, Blame::Guest));
}

#[test]
fn giving_up_is_final_and_keeps_the_blame() {
    let error = EngineError::TimedOut { waited_ms: 300_000, error: Box::new(broker(Retriable)) };
    assert_eq!((error.remedy(), error.blame()), (Remedy::Fatal, Blame::Broker));
    assert_eq!(error.to_string(), "gave up after 300000 ms: commit offsets of group g: it failed");
}
