//! Tests of `replay`: the same call with the same reads, and what another version reads beyond them.

use super::*;
use crate::testing::{NativeProcessor, NativeSupplier, forward, topology};

/// Adds up the values of a key, up to the limit of the configuration; its `init` counts its own runs.
struct Sum;

impl NativeProcessor for Sum {
    fn init(&mut self, context: &mut ProcessorContext) -> Result<(), ProcessorError> {
        let store = context.store_at(0)?;
        let runs = context.get(store, b"runs")?.map_or(0, |value| value[0]);
        context.put(store, b"runs", Some(&[runs + 1]), None)?;
        Ok(())
    }

    fn process(&mut self, context: &mut ProcessorContext, batch: &InputBatch) -> Result<Outcome, ProcessorError> {
        let store = context.store_at(0)?;
        let limit: u8 = context.config_value("limit").and_then(|text| text.parse().ok()).unwrap_or(u8::MAX);
        let mut outcome = Outcome::default();
        for (key, value) in batch.keys.iter().zip(batch.values.iter()) {
            let (key, value) = (key.unwrap_or_default(), value.unwrap_or_default());
            let runs = context.get(store, b"runs")?.map_or(0, |value| value[0]);
            let others = context.prefix(store, b"k", None, false, 10)?.keys.len() as u8;
            let sum = context.get(store, key)?.map_or(0, |value| value[0]) + value[0];
            context.put(store, key, Some(&[sum]), None)?;
            forward(&mut outcome.outputs, batch.timestamps[0], Some(key), Some(&[runs, others, sum]));
            if sum > limit {
                let message = format!("{sum} of {others} in run {runs}");
                return Err(ProcessorError::Trap { message, backtrace: String::new() });
            }
        }
        Ok(outcome)
    }
}

fn supplier() -> NativeSupplier<impl Fn(TaskId) -> Sum> {
    NativeSupplier::new(topology(&["in"], &["sums"], &["out"]), |_| Sum)
}

fn recorded() -> Replay {
    let mut init = Reads::new(1_000);
    init.entry("sums", b"runs", Some(&[3]));
    let mut call = Reads::new(1_000);
    call.config("limit", Some("10"));
    // Another instance has run since.
    call.entry("sums", b"runs", Some(&[9]));
    call.entry("sums", b"k1", Some(&[7]));
    call.entry("sums", b"k2", Some(&[1]));
    call.range("sums", Bound::Included(b"k"), Bound::Excluded(b"l"));
    let record = Record {
        offset: 40,
        timestamp: 5,
        key: Some(Bytes::from_static(b"k1")),
        value: Some(Bytes::from_static(&[4])),
        headers: Vec::new(),
    };
    Replay {
        call: ReplayedCall::Record { partition: TopicPartition::new("in", 0), record },
        task: TaskId::default(),
        application_id: "app".to_owned(),
        stream_time: Some(4),
        write_time: 5,
        wall_clock_ms: 1_000,
        reads: init.followed_by(&call),
        partition_counts: PartitionCounts([("out".into(), 1)].into()),
        sink_limits: SinkLimits::default(),
        entry_max_bytes: BTreeMap::new(),
    }
}

#[test]
fn a_call_is_repeated_with_what_it_has_read() {
    let replayed = replay(&recorded(), &supplier()).expect("the instance can be made");
    let expected = ProcessorError::Trap { message: "11 of 2 in run 9".to_owned(), backtrace: String::new() };
    assert_eq!((replayed.result, replayed.in_init), (Err(expected), false));
    let write = ("sums".to_owned(), Bytes::from_static(b"k1"), Some(Bytes::from_static(&[11])), 5);
    assert_eq!(replayed.writes, [write]);
    assert_eq!(replayed.unknown_reads, [""; 0]);
}

#[test]
fn what_another_version_reads_beyond_that_is_told() {
    let mut other = recorded();
    let ReplayedCall::Record { record, .. } = &mut other.call else { unreachable!("it is a record") };
    record.key = Some(Bytes::from_static(b"m"));
    record.value = Some(Bytes::from_static(&[1]));
    let replayed = replay(&other, &supplier()).expect("the instance can be made");
    let outcome = replayed.result.expect("it is within the limit");
    assert_eq!(outcome.outputs.values.get(0), Some(&[9, 2, 1][..]));
    assert_eq!(replayed.unknown_reads, ["sums: key m"]);

    other.reads.reads.retain(|read| !matches!(read, Read::Range { .. }));
    let replayed = replay(&other, &supplier()).expect("the instance can be made");
    assert_eq!(replayed.unknown_reads, ["sums: key m", "sums: range k..l"]);
}

#[test]
fn outputs_are_judged_by_the_topics_limits() {
    let mut small = recorded();
    let ReplayedCall::Record { record, .. } = &mut small.call else { unreachable!("it is a record") };
    record.value = Some(Bytes::from_static(&[1]));
    let configs = BTreeMap::from([("max.message.bytes".to_owned(), "70".to_owned())]);
    small.sink_limits.0.insert("out".into(), crate::topic_limits::TopicLimits::of_configs(&configs));
    let replayed = replay(&small, &supplier()).expect("the instance can be made");
    let expected = "an output that Kafka would refuse: output 0 to out: it has 73 bytes, max.message.bytes of the topic \
                    is 70";
    assert_eq!(replayed.result.expect_err("it is too large").to_string(), expected);
}

#[test]
fn entries_are_judged_by_what_their_changelog_takes() {
    let mut small = recorded();
    let ReplayedCall::Record { record, .. } = &mut small.call else { unreachable!("it is a record") };
    record.value = Some(Bytes::from_static(&[1]));
    small.entry_max_bytes.insert("sums".to_owned(), 2);
    let replayed = replay(&small, &supplier()).expect("the instance can be made");
    let error = replayed.result.expect_err("it is too large").to_string();
    assert!(error.contains("an entry of store sums has 3 bytes with its key"), "{error}");
}

#[test]
fn what_init_has_read_is_no_news_of_the_time_of_the_call() {
    let mut older = recorded();
    let mut init = Reads::new(1_000);
    init.entry("sums", b"runs", Some(&[3]));
    // Deleted since: the scan of the call did not see it.
    init.entry("sums", b"k3", Some(&[1]));
    init.entry("sums", b"m", Some(&[5]));
    let (_, call) = split(&older.reads);
    let call = call.to_vec();
    older.reads = init.followed_by(&Reads::new(0));
    older.reads.reads.extend(call);
    let replayed = replay(&older, &supplier()).expect("the instance can be made");
    let expected = ProcessorError::Trap { message: "11 of 2 in run 9".to_owned(), backtrace: String::new() };
    assert_eq!(replayed.result, Err(expected));

    let ReplayedCall::Record { record, .. } = &mut older.call else { unreachable!("it is a record") };
    record.key = Some(Bytes::from_static(b"m"));
    let replayed = replay(&older, &supplier()).expect("the instance can be made");
    assert_eq!(replayed.result.expect("4 alone is within the limit").outputs.values.get(0), Some(&[9, 2, 4][..]));
    assert_eq!(replayed.unknown_reads, ["sums: key m"]);
}
