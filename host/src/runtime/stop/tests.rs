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
