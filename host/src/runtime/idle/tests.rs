//! Who waits for whom.

use super::*;

/// So many applications, with places from 0.
fn votes_of(applications: usize) -> IdleVotes {
    let votes = IdleVotes::default();
    (0..applications).for_each(|place| assert_eq!(votes.enter(), place));
    votes
}

#[test]
fn all_are_idle_at_once_or_none_may_end() {
    let votes = votes_of(2);
    assert!(!votes.vote(0, true), "the other one is busy");
    assert!(!votes.vote(0, false));
    assert!(!votes.vote(1, true), "the first one has records again");
    assert!(votes.vote(0, true));
    assert!(votes.vote(1, false), "it is decided, or the second one would be left behind");
}

#[test]
fn one_that_has_ended_is_not_waited_for() {
    let votes = votes_of(2);
    votes.withdraw(1);
    assert!(votes.vote(0, true));
}

#[test]
fn one_alone_decides() {
    let votes = votes_of(1);
    assert!(!votes.vote(0, false));
    assert!(votes.vote(0, true));
}

#[test]
fn one_that_comes_after_all_have_ended_is_waited_for() {
    let votes = votes_of(1);
    votes.withdraw(0);
    assert!(!votes.vote(0, true), "it has no say any more");
    let place = votes.enter();
    assert_eq!(place, 1, "a place is that of one application for good");
    assert!(!votes.vote(place, false), "that none was left is no decision");
    assert!(votes.vote(place, true));
}
