//! Histories with one defect each, and one without.

use super::*;

/// A delete has a number, but no value that could be seen.
fn history() -> (Vec<Vec<Event>>, Topics) {
    let write = |key, number, delete, outcome| Event::Write { key, number, delete, outcome };
    let read = |kind, key, at_least, number: Option<Number>, at_ms| {
        let found = number.map(|number| value_text(key, number));
        Event::Read { kind, key, at_least, found, at_ms }
    };
    let events = vec![
        read(Kind::Plain, 7, 0, None, 5),
        write(7, 1, false, Outcome::Acknowledged),
        read(Kind::Plain, 7, 0, None, 10),
        read(Kind::Fresh, 7, 1, Some(1), 2_000),
        write(7, 2, false, Outcome::Doubtful),
        write(7, 3, false, Outcome::Nothing),
        read(Kind::Fresh, 7, 1, Some(2), 3_000),
        write(7, 4, true, Outcome::Acknowledged),
        read(Kind::Fresh, 7, 4, None, 4_000),
        write(7, 5, false, Outcome::Acknowledged),
        read(Kind::Applied, 7, 5, Some(5), 6_000),
    ];
    let topics = Topics {
        writes: [((7, 1), 1), ((7, 2), 1), ((7, 5), 1)].into(),
        deletes: [(7, 1)].into(),
        committed_ms: [((7, 1), 1_900), ((7, 2), 2_900), ((7, 5), 6_100)].into(),
        last: [(7, Some(5))].into(),
        shown: vec![("host 0".to_owned(), [(7, 5)].into())],
    };
    (vec![events], topics)
}

/// Puts one defect in.
type PutIn = fn(&mut Vec<Event>, &mut Topics);

fn find(events: &mut [Event], place: usize, text: Option<&str>) {
    if let Event::Read { found, .. } = &mut events[place] {
        *found = text.map(str::to_owned);
    }
}

#[test]
fn a_history_without_a_defect_has_no_findings() {
    let (clients, topics) = history();
    assert_eq!(judge(&clients, &topics, Some(500)), Findings::default());
}

#[test]
fn every_kind_of_defect_is_found_and_nothing_else() {
    let older = |events: &mut Vec<Event>, _: &mut Topics| find(events, 8, Some(&value_text(7, 2)));
    let cases: [(&str, PutIn); 17] = [
        (STALE, older),
        (STALE, |events, _| find(events, 3, None)),
        (APPLIED, |events, _| find(events, 10, Some(&value_text(7, 2)))),
        (APPLIED, |events, _| find(events, 10, None)),
        (FOREIGN, |events, _| find(events, 3, Some("8:00000001"))),
        (FOREIGN, |events, _| find(events, 6, Some(&value_text(7, 3)))),
        (FOREIGN, |events, _| find(events, 3, Some("something"))),
        (UNCOMMITTED, |_, topics| {
            topics.committed_ms.insert((7, 1), 2_501);
        }),
        (UNCOMMITTED, |_, topics| {
            topics.committed_ms.remove(&(7, 2));
        }),
        (LOST, |_, topics| {
            topics.writes.remove(&(7, 1));
        }),
        (LOST, |_, topics| {
            topics.deletes.clear();
        }),
        (REPEATED, |_, topics| {
            topics.writes.insert((7, 2), 2);
        }),
        (REPEATED, |_, topics| {
            topics.deletes.insert(7, 2);
        }),
        (DISOWNED, |_, topics| {
            topics.writes.insert((7, 3), 1);
        }),
        (OUTCOMES, |events, _| events.push(Event::TwoOutcomes { key: 7, number: 5 })),
        (ENDS, |_, topics| {
            topics.shown[0].1.insert(7, 2);
        }),
        (STRANGE, |events, _| events.push(Event::Strange("500".to_owned()))),
    ];
    for (number, (kind, put_in)) in cases.into_iter().enumerate() {
        let (mut clients, mut topics) = history();
        put_in(&mut clients[0], &mut topics);
        let findings = judge(&clients, &topics, Some(500));
        assert_eq!(findings.counts, [(kind, 1)].into(), "case {number}: {:?}", findings.examples);
    }
}

#[test]
fn entries_that_are_missing_or_too_many_at_the_end_are_found() {
    let (clients, mut topics) = history();
    topics.shown.push(("host 1".to_owned(), [(8, 1)].into()));
    assert_eq!(judge(&clients, &topics, None).counts, [(ENDS, 2)].into());
}

#[test]
fn commits_are_judged_only_where_there_is_time_between_them() {
    let (clients, mut topics) = history();
    topics.committed_ms.clear();
    assert_eq!(judge(&clients, &topics, None), Findings::default());
}

#[test]
fn values_name_their_keys() {
    assert_eq!(parse_value(&value_text(12, 345)).expect("a value"), (12, 345));
    assert!(parse_value("12").is_err() && parse_value("a:1").is_err());
}
