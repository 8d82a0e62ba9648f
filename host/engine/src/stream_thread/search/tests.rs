//! The search by itself: when it begins, whom it finds, and when it gives up.

use super::*;

fn place(offset: Offset) -> Place {
    (TopicPartition::new("in", 0), offset)
}

fn until(offset: Offset) -> BTreeMap<TopicPartition, Offset> {
    BTreeMap::from([(TopicPartition::new("in", 0), offset)])
}

#[test]
fn the_only_record_of_a_refused_transaction_is_found_once() {
    let mut search = Search::default();
    assert!(search.begin(until(5), 1));
    assert_eq!(search.convict(), None, "nothing was processed");
    search.suspect(place(3));
    assert_eq!(search.convict(), Some(place(3)));
    search.suspect(place(3));
    assert_eq!(search.convict(), None, "it is given up already");
    search.suspect(place(4));
    assert_eq!(search.convict(), Some(place(4)));
}

#[test]
fn it_ends_where_the_refused_work_ended() {
    let mut search = Search::default();
    assert!(!search.begin(BTreeMap::new(), 1), "there is no work");
    assert!(search.begin(until(5), 1));
    search.committed(|_| Some(4));
    assert!(search.is_on());
    search.committed(|_| Some(5));
    assert!(!search.is_on());
    assert!(search.begin(until(9), 2));
    search.committed(|_| None);
    assert!(!search.is_on(), "the partition is somebody else's");
}

#[test]
fn searches_in_vain_come_to_an_end() {
    let mut search = Search::default();
    for now_ms in 1..=3 {
        assert!(search.begin(until(5), now_ms));
        search.end();
    }
    assert!(!search.begin(until(5), 4));
    search.end();
    assert!(search.begin(until(5), IN_A_ROW_MS + 10), "long after");
    search.suspect(place(1));
    assert!(search.convict().is_some());
    for now_ms in 1..=3 {
        assert!(search.begin(until(5), IN_A_ROW_MS + 10 + now_ms), "one was found since");
    }
}
