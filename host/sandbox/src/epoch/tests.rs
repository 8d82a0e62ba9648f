//! How many epochs a late tick is worth.

use super::*;

#[test]
fn a_thread_that_is_late_makes_up_for_it() {
    let last = Instant::now();
    let parts = last + Duration::from_micros(3_700);
    assert_eq!(epochs_due(last, parts), (3, last + Duration::from_millis(3)));
    assert_eq!(epochs_due(last, last + Duration::from_micros(900)), (0, last));
    let starved = last + Duration::from_millis(800);
    assert_eq!(epochs_due(last, starved), (800, starved));
}

#[test]
fn of_time_in_which_the_process_stood_still_a_second_counts() {
    let last = Instant::now();
    let woken = last + Duration::from_secs(13);
    assert_eq!(epochs_due(last, woken), (1_000, woken));
}
