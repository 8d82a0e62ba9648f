//! What fits a second, what the next one brings, and how often drops are told.

use super::*;

fn limits(lines: u64, bytes: u64) -> Limits {
    Limits { log_max_lines_per_second: lines, log_max_bytes_per_second: bytes, ..Limits::default() }
}

#[test]
fn a_second_holds_its_lines_and_the_next_ones_come_evenly() {
    let (rate, limits, start) = (LogRate::default(), limits(10, 1_000_000), Instant::now());
    let taken = |now, tries| (0..tries).filter(|_| rate.take(now, 10, &limits).is_ok()).count();
    assert_eq!(taken(start, 100), 10);
    assert_eq!(rate.take(start, 10, &limits), Err(TooFast::Lines));
    assert_eq!(taken(start + Duration::from_millis(250), 100), 2);
    // The half line of before is not lost.
    assert_eq!(taken(start + Duration::from_millis(300), 100), 1);
    assert_eq!(taken(start, 100), 0, "another thread looked at the clock a little earlier");
    assert_eq!(taken(start + Duration::from_secs(3_600), 100), 10, "what was not used is not saved up");
}

#[test]
fn a_second_holds_its_bytes() {
    let (rate, limits, start) = (LogRate::default(), limits(1_000, 1_000), Instant::now());
    assert_eq!(rate.take(start, 600, &limits), Ok(()));
    assert_eq!(rate.take(start, 600, &limits), Err(TooFast::Bytes));
    assert_eq!(rate.take(start, 400, &limits), Ok(()));
    assert_eq!(rate.take(start + Duration::from_secs(1), 5_000, &limits), Ok(()), "larger than the whole bucket");
    assert_eq!(rate.take(start + Duration::from_secs(1), 1, &limits), Err(TooFast::Bytes));
}

#[test]
fn what_is_dropped_is_told_once_a_second_at_most() {
    let (rate, start) = (LogRate::default(), Instant::now());
    let at = |ms| start + Duration::from_millis(ms);
    assert_eq!(rate.dropped(at(0), &Dropped::default()), None);
    let one = Dropped { of_call: 1, lines_per_second: 2, bytes_per_second: 3 };
    assert_eq!(rate.dropped(at(0), &one), Some(one));
    assert_eq!(rate.dropped(at(1), &one), None);
    assert_eq!(rate.dropped(at(999), &one), None);
    let both = Dropped { of_call: 2, lines_per_second: 4, bytes_per_second: 6 };
    assert_eq!((rate.dropped(at(1_000), &Dropped::default()), both.total()), (Some(both), 12));
    assert_eq!(rate.dropped(at(5_000), &Dropped::default()), None, "there is nothing to tell");
}
