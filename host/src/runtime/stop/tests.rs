//! Waiting and raising.

use super::*;

#[test]
fn a_wait_ends_when_the_wish_is_raised() {
    let stop = Stop::default();
    assert!(!stop.wait(Duration::from_millis(1)));
    let other = stop.clone();
    let waiting = std::thread::spawn(move || other.wait(Duration::from_secs(60)));
    stop.raise();
    assert!(waiting.join().expect("no panic"));
    assert!(stop.is_raised() && stop.wait(Duration::ZERO));
}

#[test]
fn what_stops_all_stops_each_and_not_the_other_way_round() {
    let process = Stop::default();
    let (one, other) = (process.below(), process.below());
    one.raise();
    assert!(one.is_raised() && !other.is_raised() && !process.is_raised());
    let waiting = std::thread::spawn({
        let other = other.clone();
        move || other.wait(Duration::from_secs(60))
    });
    process.raise();
    assert!(waiting.join().expect("no panic"));
    assert!(process.below().is_raised(), "one that comes late");
}
