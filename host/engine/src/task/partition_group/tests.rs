//! Tests of `partition_group`: which record comes next, where a batch ends, and when a task waits.

use bytes::Bytes;

use super::*;
use crate::record::Header;

const LIMITS: BatchLimits = BatchLimits { max_records: 100, max_bytes: 1_000 };
const TASK: TaskId = TaskId { sub_topology: 0, partition: 0 };

fn partition(index: usize) -> TopicPartition {
    TopicPartition::new(["a", "b", "c"][index], 0)
}

fn record(offset: Offset, timestamp: Timestamp) -> Record {
    let value = Some(Bytes::from_static(b"0123456789"));
    Record { offset, timestamp, key: None, value, headers: Vec::new() }
}

/// A group whose queues hold records with these timestamps and offsets from 0 on.
fn group(queues: &[&[Timestamp]]) -> PartitionGroup {
    let partitions: Vec<TopicPartition> = (0..queues.len()).map(partition).collect();
    let mut group = PartitionGroup::new(TASK, &partitions, -1);
    for (index, timestamps) in queues.iter().enumerate() {
        let records = timestamps.iter().enumerate().map(|(offset, &timestamp)| record(offset as Offset, timestamp));
        group.queue_mut(&partition(index)).expect("the queue exists").add(records.collect());
    }
    group
}

/// Takes everything out, batch by batch, as `topic:timestamps`.
fn batches(group: &mut PartitionGroup, limits: BatchLimits, due: Option<Timestamp>) -> Vec<String> {
    let mut batches = Vec::new();
    while let Some((batch, info)) = group.next_batch(limits, due).expect("valid records") {
        batches.push(format!("{}:{:?}", batch.topic, batch.timestamps));
        group.complete(&info);
    }
    batches
}

#[test]
fn the_lowest_head_timestamp_comes_first_and_cuts_the_other_queue() {
    let mut two = group(&[&[1, 4, 5, 9], &[2, 3, 6]]);
    assert_eq!(batches(&mut two, LIMITS, None), ["a:[1]", "b:[2, 3]", "a:[4, 5]", "b:[6]", "a:[9]"]);
    assert_eq!(two.stream_time(), Some(9));
}

#[test]
fn of_equal_timestamps_the_first_declared_source_comes_first() {
    let mut ties = group(&[&[5, 5, 6], &[5, 5], &[5]]);
    assert_eq!(batches(&mut ties, LIMITS, None), ["a:[5, 5]", "b:[5, 5]", "c:[5]", "a:[6]"]);
}

#[test]
fn the_order_of_records_does_not_depend_on_the_size_of_batches() {
    let flat = |max_records| {
        let mut group = group(&[&[3, 1, 7, 7, 2], &[1, 1, 8, 3, 9], &[7, 0, 0]]);
        let mut order = Vec::new();
        while let Some((batch, info)) = group.next_batch(BatchLimits { max_records, ..LIMITS }, None).expect("valid") {
            order.extend((0..batch.len()).map(|index| (batch.topic.clone(), batch.offset(index))));
            group.complete(&info);
        }
        order
    };
    assert_eq!(flat(1).len(), 13);
    assert_eq!(flat(1), flat(3));
    assert_eq!(flat(1), flat(500));
}

#[test]
fn a_batch_is_cut_by_count_and_by_bytes_but_holds_one_record_at_least() {
    let times: &[Timestamp] = &[1, 2, 3, 4, 5];
    let limits = |max_records, max_bytes| BatchLimits { max_records, max_bytes };
    assert_eq!(batches(&mut group(&[times]), limits(2, 1_000), None), ["a:[1, 2]", "a:[3, 4]", "a:[5]"]);
    assert_eq!(batches(&mut group(&[times]), limits(100, 30), None), ["a:[1, 2, 3]", "a:[4, 5]"]);
    assert_eq!(batches(&mut group(&[times]), limits(100, 29), None), ["a:[1, 2]", "a:[3, 4]", "a:[5]"]);
    assert_eq!(batches(&mut group(&[&[1, 2]]), limits(100, 1), None), ["a:[1]", "a:[2]"]);
    assert_eq!(batches(&mut group(&[&[1, 2]]), limits(0, 0), None), ["a:[1]", "a:[2]"]);
}

#[test]
fn a_batch_ends_right_after_the_record_that_makes_a_punctuation_due() {
    let group = group(&[&[1, 5, 10, 11, 30]]);
    let (batch, info) = group.next_batch(LIMITS, Some(10)).expect("valid").expect("there are records");
    assert_eq!(batch.timestamps, [1, 5, 10]);
    assert_eq!(info.stream_time, 10);
    let (first, _) = group.next_batch(LIMITS, Some(0)).expect("valid").expect("there are records");
    assert_eq!(first.timestamps, [1]);
}

#[test]
fn offsets_with_gaps_too_wide_for_a_delta_cut_the_batch() {
    let mut gaps = group(&[&[]]);
    let far = Offset::from(u32::MAX) + 8;
    let records = vec![record(7, 1), record(9, 2), record(far - 1, 3), record(far, 4)];
    gaps.queue_mut(&partition(0)).expect("it exists").add(records);
    let (batch, info) = gaps.next_batch(LIMITS, None).expect("valid").expect("there are records");
    assert_eq!((batch.base_offset, &batch.offset_deltas[..]), (7, &[0, 2, u32::MAX][..]));
    gaps.complete(&info);
    assert_eq!(gaps.queues()[0].next_offset(), far);
    assert_eq!(gaps.queues()[0].offset_to_commit(Some(99)), far);
}

#[test]
fn stream_time_never_goes_back_and_records_without_a_timestamp_do_not_move_it() {
    let mut late = group(&[&[50, 20, -1, 60]]);
    assert_eq!(late.stream_time(), None);
    let take = |group: &mut PartitionGroup, max_records| {
        let limits = BatchLimits { max_records, ..LIMITS };
        let (batch, info) = group.next_batch(limits, None).expect("valid").expect("there are records");
        group.complete(&info);
        (batch.timestamps, group.stream_time())
    };
    assert_eq!(take(&mut late, 2), (vec![50, 20], Some(50)));
    assert_eq!(take(&mut late, 1), (vec![-1], Some(50)));
    assert_eq!(take(&mut late, 1), (vec![60], Some(60)));
    assert_eq!(late.queues()[0].partition_time(), 60);
}

#[test]
fn a_negative_timestamp_ends_the_batch_before_it_and_is_then_an_error() {
    let mut group = group(&[&[1, 2, -2, 3]]);
    let (batch, info) = group.next_batch(LIMITS, None).expect("valid so far").expect("there are records");
    assert_eq!(batch.timestamps, [1, 2]);
    group.complete(&info);
    let error = group.next_batch(LIMITS, None).expect_err("the timestamp is invalid");
    assert_eq!(
        error.to_string(),
        "task 0_0, a-0, offset 2: the record has the timestamp -2; expected milliseconds since the epoch, or -1 for none"
    );
    assert_eq!(group.queues()[0].len(), 2);
}

#[test]
fn columns_hold_what_the_records_hold() {
    let mut group = group(&[&[]]);
    let header = |key: &'static str, value: Option<&'static str>| Header {
        key: Bytes::from_static(key.as_bytes()),
        value: value.map(|value| Bytes::from_static(value.as_bytes())),
    };
    let key = |key: &'static str| Some(Bytes::from_static(key.as_bytes()));
    let records = vec![
        Record { offset: 3, timestamp: 1, key: key("k"), value: key("v"), headers: vec![] },
        Record { offset: 4, timestamp: 2, key: None, value: key(""), headers: vec![header("x", None)] },
        Record {
            offset: 8,
            timestamp: -1,
            key: key(""),
            value: None,
            headers: vec![header("", Some("1")), header("y", Some(""))],
        },
    ];
    group.queue_mut(&partition(0)).expect("it exists").add(records);
    let (batch, info) = group.next_batch(LIMITS, None).expect("valid").expect("there are records");
    assert_eq!((&*batch.topic, batch.partition, batch.base_offset), ("a", 0, 3));
    assert_eq!(batch.offset_deltas, [0, 1, 5]);
    assert_eq!(batch.keys.iter().collect::<Vec<_>>(), [Some(&b"k"[..]), None, Some(&b""[..])]);
    assert_eq!(batch.values.iter().collect::<Vec<_>>(), [Some(&b"v"[..]), Some(&b""[..]), None]);
    assert_eq!(batch.headers.counts, [0, 1, 2]);
    assert_eq!(batch.headers.keys.iter().collect::<Vec<_>>(), [&b"x"[..], b"", b"y"]);
    assert_eq!(batch.headers.values.iter().collect::<Vec<_>>(), [None, Some(&b"1"[..]), Some(&b""[..])]);
    assert_eq!(info.bytes, 2);
    assert_eq!(group.offset_in(&info, 2), Some(8));
    assert_eq!(group.offset_in(&info, 3), None);
}

#[test]
fn records_that_are_here_or_were_processed_are_not_taken_twice() {
    let mut group = group(&[&[1, 2, 3]]);
    let (_, info) = group.next_batch(BatchLimits { max_records: 2, ..LIMITS }, None).expect("valid").expect("records");
    group.complete(&info);
    let queue = group.queue_mut(&partition(0)).expect("it exists");
    queue.add(vec![record(1, 2), record(2, 3), record(3, 4)]);
    assert_eq!(queue.len(), 2);
    assert_eq!(queue.offset_to_commit(None), 2);
}

#[test]
fn an_empty_queue_commits_the_position_that_has_passed_control_records() {
    let mut group = group(&[&[1]]);
    let (_, info) = group.next_batch(LIMITS, None).expect("valid").expect("there are records");
    group.complete(&info);
    let queue = &group.queues()[0];
    assert_eq!(queue.offset_to_commit(None), 1);
    assert_eq!(queue.offset_to_commit(Some(3)), 3);
    // A position from before the last batch never takes the group back.
    assert_eq!(queue.offset_to_commit(Some(0)), 1);
}

/// Whether a task with records of `a` and none of `b` is ready, for what is known of `b`.
#[test]
fn idling_follows_kip_695() {
    /// Position and end of the log of `b`, and when they were asked for.
    type Asked = Option<(Offset, Offset, u64)>;
    // (max.task.idle.ms, what is known of b, now, ready)
    let cases: [(i64, Asked, u64, bool); 9] = [
        (-1, None, 0, true),
        (-1, Some((0, 5, 0)), 0, true),
        (0, None, 0, false),
        (0, Some((0, 5, 0)), 1_000_000, false),
        (0, Some((5, 5, 0)), 0, true),
        (0, Some((7, 5, 0)), 0, true),
        (100, Some((5, 5, 10)), 109, false),
        (100, Some((5, 5, 10)), 110, true),
        (100, Some((4, 5, 10)), 1_000_000, false),
    ];
    for (max_task_idle_ms, asked, now, ready) in cases {
        let mut group = group(&[&[1], &[]]);
        group.max_task_idle_ms = max_task_idle_ms;
        if let Some((position, end, at)) = asked {
            group.set_end(1, position, end, at);
        }
        assert_eq!(group.is_ready(now), ready, "{max_task_idle_ms} {asked:?} {now}");
    }
}

#[test]
fn waiting_begins_once_and_ends_when_records_come() {
    let mut group = group(&[&[1], &[]]);
    group.max_task_idle_ms = 100;
    assert_eq!(group.to_ask().collect::<Vec<_>>(), [1]);
    group.set_end(1, 5, 5, 10);
    group.set_end(1, 5, 5, 90);
    assert!(group.is_ready(110), "a second answer must not prolong the wait");
    // New records at the broker: the task waits for them to be fetched.
    group.set_end(1, 5, 6, 110);
    assert!(!group.is_ready(1_000));
    group.queue_mut(&partition(1)).expect("it exists").add(vec![record(5, 0)]);
    assert!(group.is_ready(0));
    assert_eq!(group.to_ask().count(), 0);
    let (batch, info) = group.next_batch(LIMITS, None).expect("valid").expect("there are records");
    assert_eq!(&*batch.topic, "b");
    group.complete(&info);
    assert!(!group.is_ready(1_000), "an emptied queue must be asked about again");
}

#[test]
fn a_task_without_records_is_not_ready_and_one_source_never_waits() {
    assert!(!group(&[&[], &[]]).is_ready(0));
    let mut one = group(&[&[1]]);
    one.max_task_idle_ms = 1_000;
    assert!(one.is_ready(0));
    assert_eq!(one.to_ask().count(), 0);
}
