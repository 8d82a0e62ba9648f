//! Tests of `offset_metadata`, against bytes made by hand from Kafka Streams' format.

use super::*;
use crate::testing::Seed;

fn of(entries: &[(&str, Offset)]) -> BTreeMap<String, Offset> {
    entries.iter().map(|&(store, offset)| (store.to_owned(), offset)).collect()
}

/// A commit that says nothing of the processor.
fn of_state(partition_time: Timestamp, changelogs: BTreeMap<String, Offset>) -> Committed {
    Committed { partition_time, changelogs, ..Committed::default() }
}

#[test]
fn partition_times_are_written_as_kafka_streams_does() {
    for (time, text) in [(-1, "Av//////////"), (0, "AgAAAAAAAAAA"), (1_700_000_000_123, "AgAAAYvP5Wh7")] {
        assert_eq!(encode(&of_state(time, of(&[]))), text);
        assert_eq!(decode(text), of_state(time, of(&[])));
    }
}

#[test]
fn changelog_offsets_are_written_as_processor_metadata() {
    let text = encode(&of_state(5, of(&[("meta", 7)])));
    assert_eq!(text, "AgAAAAAAAAAFAAAAAQAAAAxzYW5kYmFyOm1ldGEAAAAAAAAABw==");
    assert_eq!(decode(&text), of_state(5, of(&[("meta", 7)])));
    // Under a store's own name Kafka Streams keeps when a window was closed last.
    let foreign = decode("AgAAAAAAAAAFAAAAAQAAAARtZXRhAAAAAAAAAAc=");
    assert_eq!(foreign, of_state(5, of(&[])));
    for number in 0..200 {
        let mut seed = Seed::new(number);
        let stores = seed.below(6);
        let changelogs: BTreeMap<String, Offset> =
            (0..stores).map(|_| ("s".repeat(seed.below(20) as usize), seed.below(1 << 40) as Offset)).collect();
        let time = seed.below(1 << 42) as Timestamp;
        let committed = of_state(time, changelogs);
        assert_eq!(decode(&encode(&committed)), committed);
    }
}

#[test]
fn a_commit_is_never_too_long_for_the_broker() {
    let many: BTreeMap<String, Offset> = (0..1_000).map(|store| (format!("a-store-{store:04}"), store)).collect();
    let text = encode(&of_state(5, many.clone()));
    assert!(text.len() <= 4_000, "{} characters", text.len());
    let decoded = decode(&text);
    assert!(decoded.changelogs.len() > 50 && decoded.changelogs.iter().all(|(store, offset)| many[store] == *offset));
}

#[test]
fn older_versions_and_processor_metadata_are_read() {
    assert_eq!(decode("AQAAAYvP5Wh7").partition_time, 1_700_000_000_123);
    let cut_short = decode("AgAAAAAAAAAFAAAAAW1ldGE=");
    assert_eq!(cut_short, of_state(5, of(&[])));
}

#[test]
fn what_is_not_ours_says_nothing() {
    for text in ["", "Ag", "AgAAAAAAAAA", "AgAA AAAAAAA", "AwAAAAAAAAAF", "Av/////////5", "hello, world", "äöü", "A"]
    {
        assert_eq!(decode(text), Committed::default(), "{text}");
    }
}

#[test]
fn the_version_stands_before_the_stores_and_is_never_left_out() {
    let version = Some(VersionMark { number: 3, since: 1_234 });
    let many: BTreeMap<String, Offset> = (0..1_000).map(|store| (format!("a-store-{store:04}"), store)).collect();
    for changelogs in [of(&[]), of(&[("meta", 7), ("version", 8)]), many] {
        let text = encode(&Committed { version, ..of_state(5, changelogs.clone()) });
        assert!(text.len() <= 4_000, "{} characters", text.len());
        let decoded = decode(&text);
        assert_eq!(decoded.version, version);
        assert!(decoded.changelogs.iter().all(|(store, offset)| changelogs[store] == *offset));
        assert_eq!(decoded.changelogs.is_empty(), changelogs.is_empty());
    }
}

#[test]
fn a_version_that_is_none_of_ours_is_none() {
    let negative =
        encode(&Committed { version: Some(VersionMark { number: u64::MAX, since: 1 }), ..Committed::default() });
    assert_eq!(decode(&negative).version, Some(VersionMark { number: i64::MAX as u64, since: 1 }));
    let half = encode(&of_state(5, of(&[("meta", 7)])));
    assert_eq!(decode(&half).version, None);
}

#[test]
fn schemas_and_a_migration_come_before_the_changelogs() {
    let names: Vec<String> = (0..).map(|store| format!("a-store-{store:04}")).take(50).collect();
    let schemas: BTreeMap<String, u32> = names.iter().map(|name| (name.clone(), 7)).collect();
    let bytes: usize = names.iter().map(|name| schema_bytes(name)).sum();
    assert!(bytes <= SCHEMA_BYTES_MAX, "{bytes}");
    let changelogs = names.iter().map(|name| (format!("{name}-v7"), 5)).collect();
    let version = Some(VersionMark { number: 3, since: 1_234 });
    let committed =
        Committed { version, schemas, schema_since: Some(9), migrating: Some(3), ..of_state(5, changelogs) };
    let text = encode(&committed);
    assert!(text.len() <= 4_000, "{} characters", text.len());
    let decoded = decode(&text);
    assert!(decoded.changelogs.len() < 50, "some have no place");
    assert_eq!(Committed { changelogs: committed.changelogs.clone(), ..decoded }, committed);
    // A store may be named like what stands beside it.
    let names = Committed { schemas: BTreeMap::from([("sandbar@migrating".to_owned(), 2)]), ..Committed::default() };
    assert_eq!(decode(&encode(&names)), names);
}
