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
