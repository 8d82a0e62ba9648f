//! What time a record may have (E2), and what a clock that jumps changes (E5): event time comes from records only.

use super::super::fixture::Fixture;
use super::super::*;
use super::fault;
use crate::clock::Clock;
use crate::record::{NO_TIMESTAMP, Timestamp};

const DAY_MS: Timestamp = 86_400_000;
const YEAR_2100: Timestamp = 4_102_444_800_000;

/// Processes records with these timestamps. The stream time afterwards, or the error.
fn run(timestamps: &[Timestamp]) -> Result<Option<Timestamp>, EngineError> {
    let fixture = Fixture::counting(1);
    timestamps.iter().for_each(|&timestamp| fixture.append("in", 0, "a", "", timestamp));
    let mut thread = fixture.thread();
    fixture.settle(&mut thread)?;
    assert_eq!(fixture.count(0, "a"), Some(timestamps.len() as u64), "every record is counted");
    assert_eq!(fixture.committed("in", 0), Some(timestamps.len() as i64));
    let stream_time = fixture.progress.read().tasks[0].stream_time;
    // Whatever the time was, a restart goes on behind the records.
    thread.close(CloseMode::Clean)?;
    Ok(stream_time)
}

#[test]
fn every_timestamp_has_its_rule() {
    for (what, timestamps, stream_time) in [
        ("in order", vec![1, 2, 3], Some(3)),
        ("the epoch", vec![0], Some(0)),
        ("none", vec![5, NO_TIMESTAMP, 6], Some(6)),
        ("only none", vec![NO_TIMESTAMP], None),
        ("out of order", vec![3, 1, 2], Some(3)),
        ("30 days late", vec![40 * DAY_MS, 10 * DAY_MS, 40 * DAY_MS + 1], Some(40 * DAY_MS + 1)),
        ("the year 2100", vec![1, YEAR_2100, 2], Some(YEAR_2100)),
        ("the last one there is", vec![Timestamp::MAX, 1], Some(Timestamp::MAX)),
    ] {
        assert_eq!(run(&timestamps), Ok(stream_time), "{what}");
    }
    for invalid in [-2, Timestamp::MIN] {
        let fixture = Fixture::counting(1);
        for timestamp in [1, 2, invalid, 3] {
            fixture.append("in", 0, "a", "", timestamp);
        }
        // No loop: the same record stops every start, after the records before it.
        for _ in 0..3 {
            let mut thread = fixture.thread();
            let error = fault(&fixture, &mut thread);
            assert!(matches!(error, EngineError::InvalidTimestamp { offset: 2, .. }), "{error}");
            thread.close(CloseMode::Dirty).expect("it closes");
            fixture.broker.assign_on_subscribe(true);
        }
    }
}

/// Outputs with their timestamps, and the stream time, of a run whose wall clock jumps by `jump_ms` now and then.
fn with_jumps(jumps_ms: &[Timestamp]) -> (Vec<String>, Vec<Timestamp>, Option<Timestamp>) {
    let fixture = Fixture::counting(1);
    let mut thread = fixture.thread();
    for round in 0..24 {
        for key in ["a", "b", "c"] {
            fixture.append("in", 0, key, "", 1_000 * round + 7);
        }
        if let Some(jump_ms) = jumps_ms.get(round as usize % jumps_ms.len().max(1)) {
            fixture.clock.set_wall_clock_ms((fixture.clock.wall_clock_ms() + jump_ms).max(0));
        }
        fixture.settle(&mut thread).expect("a jump is no fault");
    }
    thread.close(CloseMode::Clean).expect("no fault");
    let times = fixture.broker.records("out", 0).iter().map(|record| record.timestamp).collect();
    (fixture.texts("out", 0), times, fixture.progress.read().tasks.first().and_then(|task| task.stream_time))
}

#[test]
fn a_clock_that_jumps_changes_no_result() {
    let steady = with_jumps(&[]);
    assert_eq!(steady.0.len(), 72);
    let hour_ms = DAY_MS / 24;
    for jumps_ms in [vec![hour_ms], vec![-hour_ms], vec![DAY_MS, -DAY_MS], vec![-30 * DAY_MS], vec![1, -1, 0, 17]] {
        assert_eq!(with_jumps(&jumps_ms), steady, "jumps of {jumps_ms:?} ms");
    }
}
