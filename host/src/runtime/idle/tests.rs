//! Who waits for whom.

use super::*;

#[test]
fn all_are_idle_at_once_or_none_may_end() {
    let votes = IdleVotes::new(2);
    assert!(!votes.vote(0, true), "the other one is busy");
    assert!(!votes.vote(0, false));
    assert!(!votes.vote(1, true), "the first one has records again");
    assert!(votes.vote(0, true));
    assert!(votes.vote(1, false), "it is decided, or the second one would be left behind");
}

#[test]
fn one_that_has_ended_is_not_waited_for() {
    let votes = IdleVotes::new(2);
    votes.withdraw(1);
    assert!(votes.vote(0, true));
}

#[test]
fn one_alone_decides() {
    let votes = IdleVotes::new(1);
    assert!(!votes.vote(0, false));
    assert!(votes.vote(0, true));
}
