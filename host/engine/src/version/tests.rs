//! Which version is wanted, what a rollback returns to, and when a probation has gone wrong.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Probation, ProcessorVersion, RolledBack, Versions};
use crate::processor::ProcessorError;
use crate::testing::{Count, NativeSupplier, topology};

const STRICT: Probation = Probation { failures_max: 0, output_factor: 10.0 };

fn version(number: u64) -> Arc<ProcessorVersion> {
    ProcessorVersion::new(
        number,
        Arc::new(NativeSupplier::new(topology(&["in"], &["counts"], &["out"]), |_| Count)),
        Arc::new(BTreeMap::new()),
    )
}

fn trap() -> ProcessorError {
    ProcessorError::Trap { message: "unreachable".to_owned(), backtrace: String::new() }
}

#[test]
fn a_rollback_returns_to_the_version_before_and_from_there_to_the_one_before_that() {
    let versions = Versions::new(version(1));
    assert!(!versions.roll_back(1, "no other"), "there is nothing to return to");
    versions.deploy(version(2), Some(STRICT));
    versions.deploy(version(3), Some(STRICT));
    assert_eq!(versions.target_number(), 3);
    assert!(!versions.roll_back(2, "not wanted any more"));
    assert!(versions.roll_back(3, "it traps"));
    let expected = RolledBack { number: 3, to: Some(2), reason: "it traps".to_owned() };
    assert_eq!((versions.target_number(), versions.rolled_back()), (2, Some(expected)));
    // It was not confirmed, and may fail as well.
    assert!(versions.is_on_probation() && versions.failed(&versions.target(), &trap()).is_some());
    assert!(versions.roll_back(2, "it traps too"));
    assert_eq!((versions.target_number(), versions.is_on_probation()), (1, false));
    assert!(!versions.roll_back(1, "no other"));
}

#[test]
fn what_others_have_given_up_is_nothing_to_return_to() {
    let versions = Versions::new(version(1));
    versions.deploy(version(3), Some(STRICT));
    // Another host has gone back to one that this host has not seen.
    assert!(!versions.deploy_after(1, version(2), Some(STRICT), false), "another one is wanted");
    assert!(versions.deploy_after(3, version(2), Some(STRICT), false));
    assert_eq!((versions.target_number(), versions.previous().map(|previous| previous.number)), (2, Some(1)));
    assert!(versions.roll_back(2, "it traps"));
    assert_eq!(versions.target_number(), 1);
}

#[test]
fn a_task_that_runs_a_version_which_is_wanted_again_counts_for_it() {
    let versions = Versions::new(version(1));
    let old = version(2);
    versions.deploy(Arc::clone(&old), Some(STRICT));
    assert!(versions.failed(&old, &trap()).is_some() && versions.roll_back(2, "it traps"));
    versions.deploy(version(2), Some(STRICT));
    assert!(versions.failed(&old, &trap()).is_some(), "the task has not been given the new one yet");
}

#[test]
fn of_many_former_versions_the_last_one_and_the_confirmed_one_are_kept() {
    let versions = Versions::new(version(1));
    (2..=20).for_each(|number| versions.deploy(version(number), Some(STRICT)));
    let mut way = Vec::new();
    while versions.roll_back(versions.target_number(), "it traps") {
        way.push(versions.target_number());
    }
    assert_eq!(way, [19, 1]);
    let told: Vec<u64> = versions.rollbacks().iter().map(|back| back.number).collect();
    assert_eq!(told, [20, 19], "whoever looks late hears of both");
}

#[test]
fn one_that_was_given_up_goes_on_where_its_operator_says_so() {
    let versions = Versions::on_probation(version(4), STRICT);
    assert!(versions.roll_back(4, "it traps") && versions.is_given_up());
    versions.pause(false);
    assert!(!versions.is_given_up() && !versions.is_on_probation() && versions.rolled_back().is_none());
    versions.pause(true);
    assert!(!versions.is_given_up(), "it is only paused");
    versions.deploy(version(5), Some(STRICT));
    assert_eq!(versions.previous().map(|previous| previous.number), Some(4));
}

#[test]
fn a_confirmed_version_is_what_the_next_rollback_returns_to() {
    let versions = Versions::new(version(1));
    versions.deploy(version(2), Some(STRICT));
    assert!(versions.confirm(2));
    assert!(!versions.confirm(1), "it is not wanted");
    versions.deploy(version(3), Some(STRICT));
    assert!(versions.roll_back(3, "it traps"));
    assert_eq!(versions.target_number(), 2);
}

#[test]
fn a_first_version_on_probation_pauses_where_there_is_nothing_to_return_to() {
    let versions = Versions::on_probation(version(4), STRICT);
    let fourth = versions.target();
    assert!(versions.failed(&fourth, &trap()).is_some());
    assert!(versions.roll_back(4, "it traps"));
    let expected = RolledBack { number: 4, to: None, reason: "it traps".to_owned() };
    assert_eq!((versions.rolled_back(), versions.is_paused()), (Some(expected), true));
    assert!(!versions.roll_back(4, "again"), "it is told once");
}

#[test]
fn a_version_that_was_given_up_is_nothing_to_return_to() {
    let versions = Versions::on_probation(version(4), STRICT);
    assert!(versions.roll_back(4, "it traps"));
    let fourth = versions.target();
    assert!(versions.failed(&fourth, &trap()).is_some(), "in another thread");
    versions.deploy(version(5), Some(STRICT));
    assert!(!versions.is_paused() && versions.previous().is_none());
    assert!(versions.roll_back(5, "it traps as well"));
    let expected = RolledBack { number: 5, to: None, reason: "it traps as well".to_owned() };
    assert_eq!((versions.rolled_back(), versions.is_given_up()), (Some(expected), true));
}

#[test]
fn without_probation_a_version_is_confirmed_at_once() {
    let versions = Versions::new(version(1));
    let second = version(2);
    versions.deploy(Arc::clone(&second), None);
    assert_eq!(versions.failed(&second, &trap()), None, "nobody compares");
    versions.deploy(version(3), Some(STRICT));
    assert!(versions.roll_back(3, "it traps"));
    assert_eq!(versions.target_number(), 2);
}

#[test]
fn one_failure_is_too_many_after_a_version_without_any() {
    let versions = Versions::new(version(1));
    versions.target().tally.processed(10_000, 10_000);
    let second = version(2);
    versions.deploy(Arc::clone(&second), Some(STRICT));
    second.tally.processed(500, 500);
    assert_eq!(versions.past_bounds(2), None);
    let reason = versions.failed(&second, &trap()).expect("it is past the bound");
    assert!(reason.contains("1 failed calls in 500 records"), "{reason}");
    assert!(reason.contains("unreachable"), "{reason}");
    assert_eq!(versions.past_bounds(1), None, "it is not the wanted one");
}

#[test]
fn failures_that_the_version_before_had_as_well_are_allowed() {
    let versions = Versions::new(version(1));
    let first = versions.target();
    first.tally.processed(9_900, 9_900);
    (0..100).for_each(|_| first.tally.gave_up());
    let second = version(2);
    versions.deploy(Arc::clone(&second), Some(STRICT));
    second.tally.processed(990, 990);
    let refused = ProcessorError::Returned("bad".to_owned());
    let judged: Vec<bool> = (0..60).map(|_| versions.gave_up(&second, &refused).is_some()).collect();
    // 1 % of about 1,000, and four standard deviations.
    let allowed = judged.iter().take_while(|past| !**past).count();
    assert!((20..=26).contains(&allowed), "{allowed} were allowed");
}

#[test]
fn outputs_that_are_far_from_those_of_the_version_before_are_told() {
    let versions = Versions::new(version(1));
    versions.target().tally.processed(2_000, 2_000);
    for (outputs, is_past) in [(500, false), (20_000, false), (20_001, true), (199, true), (0, true)] {
        let second = version(2);
        versions.deploy(Arc::clone(&second), Some(STRICT));
        second.tally.processed(2_000, outputs);
        assert_eq!(versions.past_bounds(2).is_some(), is_past, "{outputs} outputs");
        assert!(versions.roll_back(2, "next"));
    }
}

#[test]
fn few_records_say_nothing_of_outputs() {
    let versions = Versions::new(version(1));
    versions.target().tally.processed(2_000, 2_000);
    let second = version(2);
    versions.deploy(Arc::clone(&second), Some(STRICT));
    second.tally.processed(999, 0);
    assert_eq!(versions.past_bounds(2), None);
}
