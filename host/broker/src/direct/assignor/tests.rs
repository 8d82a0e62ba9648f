//! Assignments are complete, balanced and sticky; cooperative ones never take a partition from its holder.

use std::collections::{BTreeMap, BTreeSet};

use super::{Assignment, Named, RebalanceProtocol, Subscription, assign};

fn member(owned: &[Named], generation: i32) -> Subscription {
    Subscription { topics: vec!["a".into(), "b".into()], owned: owned.to_vec(), generation }
}

fn counts() -> BTreeMap<String, i32> {
    BTreeMap::from([("a".into(), 6), ("b".into(), 6), ("other".into(), 50)])
}

fn numbers(assignment: &Assignment) -> BTreeSet<i32> {
    assignment.partitions.iter().map(|(_, number)| *number).collect()
}

#[test]
fn every_partition_has_one_member_and_numbers_stay_together() {
    for size in 1..=8 {
        let members: BTreeMap<_, _> = (0..size).map(|n| (format!("m{n}"), member(&[], -1))).collect();
        let assignments = assign(&members, &counts(), RebalanceProtocol::Eager);
        let all: Vec<&Named> = assignments.values().flat_map(|assignment| &assignment.partitions).collect();
        assert_eq!(all.len(), 12, "{size} members");
        assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), 12);
        for assignment in assignments.values() {
            assert_eq!(assignment.partitions.len(), 2 * numbers(assignment).len(), "both topics of a number");
            assert!((6 / size..=6_usize.div_ceil(size)).contains(&numbers(assignment).len()));
        }
    }
}

#[test]
fn a_new_member_gets_nothing_that_is_still_held() {
    let owned: Vec<Named> = (0..6).flat_map(|n| [("a".to_owned(), n), ("b".to_owned(), n)]).collect();
    let mut members = BTreeMap::from([("m0".to_owned(), member(&owned, 4)), ("m1".to_owned(), member(&[], -1))]);
    let first = assign(&members, &counts(), RebalanceProtocol::Cooperative);
    assert_eq!(numbers(&first["m0"]).len(), 3, "the old member must give up a half");
    assert!(first["m1"].partitions.is_empty());
    members.insert("m0".to_owned(), member(&first["m0"].partitions, 5));
    let second = assign(&members, &counts(), RebalanceProtocol::Cooperative);
    assert_eq!(second["m0"], first["m0"], "what was kept stays");
    assert_eq!(numbers(&second["m1"]).len(), 3);
}

#[test]
fn the_newest_claim_counts() {
    let named = ("a".to_owned(), 0);
    let members = BTreeMap::from([
        ("m0".to_owned(), member(std::slice::from_ref(&named), 3)),
        ("m1".to_owned(), member(std::slice::from_ref(&named), 5)),
    ]);
    let assignments = assign(&members, &counts(), RebalanceProtocol::Cooperative);
    assert!(assignments["m1"].partitions.contains(&named));
    assert!(!assignments["m0"].partitions.contains(&named), "a member that slept owns nothing any more");
}
