//! Tests of `punctuation`: Kafka Streams' rules as tables.

use super::*;
use PunctuationType::{StreamTime, WallClockTime};

fn add(id: u32, interval_ms: u64, kind: PunctuationType) -> ScheduleRequest {
    ScheduleRequest::Add { id: ScheduleId(id), interval_ms, kind }
}

fn due(queue: &PunctuationQueue, kind: PunctuationType, now: Timestamp) -> Vec<u32> {
    queue.due(kind, now).into_iter().map(|id| id.0).collect()
}

#[test]
fn missed_intervals_are_skipped() {
    for (timestamp, interval_ms, now, next) in [
        (0, 10, 0, 10),
        (0, 10, 9, 10),
        // At the next time itself that one counts as missed.
        (0, 10, 10, 20),
        (0, 10, 11, 20),
        (0, 10, 95, 100),
        (100, 30, 129, 130),
        (100, 30, 130, 160),
        (100, 30, 1_000, 1_030),
        (100, 30, 1_001, 1_030),
        (0, u64::MAX, 5, Timestamp::MAX),
        (Timestamp::MAX - 1, 10, Timestamp::MAX, Timestamp::MAX),
    ] {
        assert_eq!(next_punctuation(timestamp, interval_ms, now), next, "{timestamp} every {interval_ms} at {now}");
    }
}

#[test]
fn stream_time_schedules_are_due_with_the_first_data_and_aligned_to_the_epoch() {
    let mut queue = PunctuationQueue::default();
    queue.apply(vec![add(0, 100, StreamTime)], 77);
    assert_eq!(queue.next_due(StreamTime), Some(0));
    assert_eq!(due(&queue, StreamTime, -1), []);
    assert_eq!(due(&queue, StreamTime, 1_234), [0]);
    queue.completed(ScheduleId(0), 1_234);
    assert_eq!(queue.next_due(StreamTime), Some(1_300));
    assert_eq!(due(&queue, StreamTime, 1_299), []);
    assert_eq!(due(&queue, StreamTime, 1_300), [0]);
}

#[test]
fn wall_clock_schedules_are_due_after_one_interval() {
    let mut queue = PunctuationQueue::default();
    queue.apply(vec![add(0, 100, WallClockTime)], 77);
    assert_eq!(queue.next_due(WallClockTime), Some(177));
    assert_eq!(queue.next_due(StreamTime), None);
    assert_eq!(due(&queue, WallClockTime, 176), []);
    queue.completed(ScheduleId(0), 500);
    assert_eq!(queue.next_due(WallClockTime), Some(577));
    queue.apply(vec![add(1, u64::MAX, WallClockTime)], 500);
    assert_eq!(queue.next_due(WallClockTime), Some(577));
}

#[test]
fn those_that_were_due_first_run_first_and_cancelled_ones_not_at_all() {
    let mut queue = PunctuationQueue::default();
    queue.apply(vec![add(0, 30, WallClockTime), add(1, 10, WallClockTime), add(2, 20, WallClockTime)], 0);
    assert_eq!(due(&queue, WallClockTime, 25), [1, 2]);
    assert_eq!(due(&queue, WallClockTime, 30), [1, 2, 0]);
    queue.apply(vec![ScheduleRequest::Cancel(ScheduleId(2)), ScheduleRequest::Cancel(ScheduleId(9))], 0);
    assert!(!queue.contains(ScheduleId(2)));
    assert_eq!(due(&queue, WallClockTime, 30), [1, 0]);
    queue.apply(vec![ScheduleRequest::Cancel(ScheduleId(0)), ScheduleRequest::Cancel(ScheduleId(1))], 0);
    assert_eq!(queue.next_due(WallClockTime), None);
}
