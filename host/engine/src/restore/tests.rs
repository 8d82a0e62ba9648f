//! Tests of where a restore begins; restores as a whole are tested with turns of a stream thread.

use super::RestoreStart::{Complete, From, Regressed, WipeAndFrom};
use super::*;

#[test]
fn a_restore_begins_by_the_stores_offset_and_the_bounds_of_the_log() {
    for (stored, low, high, expected) in [
        (None, 0, 0, Complete),
        (None, 7, 7, Complete),
        (None, 0, 9, From(0)),
        (None, 4, 9, From(4)),
        (Some(0), 0, 9, From(0)),
        (Some(5), 0, 9, From(5)),
        (Some(9), 0, 9, Complete),
        (Some(4), 4, 9, From(4)),
        (Some(3), 4, 9, WipeAndFrom(4)),
        (Some(3), 9, 9, WipeAndFrom(9)),
        (Some(10), 0, 9, Regressed),
        (Some(1), 0, 0, Regressed),
    ] {
        assert_eq!(restore_start(stored, Watermarks { low, high }), expected, "{stored:?} in {low}..{high}");
    }
}

#[test]
fn state_shows_in_the_store_or_in_the_changelog() {
    let facts = |stored, low, high| ChangelogFacts {
        index: 0,
        store: "s".to_owned(),
        changelog: TopicPartition::new("app-s-changelog", 1),
        stored,
        log: Watermarks { low, high },
    };
    assert_eq!(facts(None, 0, 0).evidence_of_state(), None);
    assert_eq!(facts(Some(0), 0, 0).evidence_of_state(), None);
    assert_eq!(facts(None, 5, 5).evidence_of_state(), None);
    assert_eq!(facts(Some(5), 5, 5).evidence_of_state(), Some("local changelog offset 5".to_owned()));
    assert_eq!(facts(None, 0, 5).evidence_of_state(), Some("changelog app-s-changelog-1 ends at offset 5".to_owned()));
}
