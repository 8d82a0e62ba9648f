//! Who gives a place up for whom.

use std::net::Ipv4Addr;

use super::*;

const CAPS: ConnectionCaps = ConnectionCaps { total: 3, per_address: 2 };

fn address(last: u8) -> IpAddr {
    Ipv4Addr::new(10, 0, 0, last).into()
}

fn enter(connections: &Connections, last: u8) -> Option<Place> {
    connections.enter(address(last), CAPS)
}

fn is_open(place: &Place) -> bool {
    place.connections.table().open.contains_key(&place.id)
}

#[test]
fn an_address_takes_places_from_itself_only() {
    let connections = Connections::default();
    let (other, first) = (enter(&connections, 2).expect("room"), enter(&connections, 1).expect("room"));
    let second = enter(&connections, 1).expect("room");
    let third = enter(&connections, 1).expect("the first one leaves");
    assert_eq!([&other, &first, &second, &third].map(is_open), [true, false, true, true]);
}

#[test]
fn over_the_total_the_one_leaves_that_waits_for_longest() {
    let connections = Connections::default();
    let places: Vec<Place> = (1..=4).filter_map(|last| enter(&connections, last)).collect();
    assert_eq!(places.iter().map(is_open).collect::<Vec<_>>(), [false, true, true, true]);
}

#[test]
fn who_has_asked_something_stays_before_who_never_has() {
    let connections = Connections::default();
    let asking = enter(&connections, 1).expect("room");
    drop(asking.marker().busy());
    let silent = enter(&connections, 1).expect("room");
    enter(&connections, 1).expect("the silent one leaves");
    assert_eq!([&asking, &silent].map(is_open), [true, false]);
}

#[test]
fn a_busy_one_never_leaves() {
    let connections = Connections::default();
    let (first, second) = (enter(&connections, 1).expect("room"), enter(&connections, 1).expect("room"));
    let (_busy, marked) = (first.marker().busy(), second.marker().busy());
    assert!(enter(&connections, 1).is_none());
    drop(marked);
    let third = enter(&connections, 1).expect("the second one waits again");
    assert_eq!([&first, &second, &third].map(is_open), [true, false, true]);
}

#[test]
fn a_place_is_given_back_once() {
    let connections = Connections::default();
    let first = enter(&connections, 1).expect("room");
    let _second = enter(&connections, 1).expect("room");
    let _third = enter(&connections, 1).expect("the first one leaves");
    drop(first);
    assert_eq!(connections.table().open.len(), 2);
}

#[test]
fn a_network_of_ipv6_is_one_address() {
    let connections = Connections::default();
    let enter = |text: &str| connections.enter(text.parse().expect("an address"), CAPS).expect("room");
    let first = enter("2001:db8:1:2::1");
    let (second, third) = (enter("2001:db8:1:2:ffff::7"), enter("2001:db8:1:2::3"));
    assert_eq!([&first, &second, &third].map(is_open), [false, true, true], "they count as one");
    drop((second, third));
    let (_one, _two, _three) = (enter("2001:db8:1:2::1"), enter("2001:db8:1:3::1"), enter("2001:db8:1:2::2"));
    assert_eq!(connections.table().open.len(), 3, "the next network is another");
}

#[test]
fn an_ipv4_address_in_ipv6_counts_as_itself() {
    let connections = Connections::default();
    let mapped = |last| IpAddr::from(Ipv4Addr::new(10, 0, 0, last).to_ipv6_mapped());
    let _many: Vec<Place> = (1..=3).filter_map(|last| connections.enter(mapped(last), CAPS)).collect();
    assert_eq!(connections.table().open.len(), 3, "they are three");
    let connections = Connections::default();
    let (first, _second) = (enter(&connections, 1), connections.enter(mapped(1), CAPS));
    let _third = enter(&connections, 1);
    assert!(!is_open(&first.expect("room")), "both forms are one");
}
