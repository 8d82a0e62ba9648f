//! What is watched all the time is found when it happens, and only then.

use std::collections::BTreeMap;
use std::sync::Arc;

use broker::core::CoreOptions;
use broker::core::admin::NewTopic;
use broker::core::batch::build::NewRecord;
use broker::core::group::MemberIdentity;
use broker::core::group::offsets::OffsetToCommit;
use broker::core::memory::MemoryStorage;
use broker::direct::{DirectBroker, Faults};
use bytes::Bytes;
use engine::record::TopicPartition;
use engine::state::StoreProvider;
use engine::task::offset_metadata::{Committed, encode};
use engine::testing::{CrashStores, ManualClock, Seed};
use engine::topology::{TaskId, changelog_topic};
use sim::host::APPLICATION;
use sim::tally::{TALLIES, declare};
use sim::watch::Watch;
use sim::{Kind, Scenario, Violation};

fn broker(topics: &[&str]) -> DirectBroker {
    let storage = Arc::new(MemoryStorage::new());
    let clock = Arc::new(ManualClock::new(1_000));
    let broker = DirectBroker::open(CoreOptions::default(), storage, clock, Faults::none()).expect("opens");
    for name in topics {
        let topic = NewTopic { name: (*name).to_owned(), partitions: 1, configs: BTreeMap::new() };
        broker.core().create_topic(&topic, false).expect("is created");
    }
    broker
}

fn commit(broker: &DirectBroker, offset: i64, metadata: &str) {
    let nobody = MemberIdentity { generation: -1, member_id: String::new(), instance_id: None };
    let (topic, metadata) = ("in-0".to_owned(), metadata.to_owned());
    let offset = OffsetToCommit { topic, partition: 0, offset, leader_epoch: -1, metadata };
    let results = broker.core().commit_offsets(1_000, APPLICATION, &nobody, vec![offset]).expect("commits");
    results.into_iter().collect::<Result<Vec<()>, _>>().expect("commits");
}

#[test]
fn offsets_and_times_that_go_back_are_found() {
    let with = |partition_time, changelogs| encode(&Committed { partition_time, changelogs, ..Committed::default() });
    let at = |time, offset| with(time, BTreeMap::from([("s".to_owned(), offset)]));
    let (earlier, later) = (at(5_000, 3), at(6_000, 3));
    let broker = broker(&["in-0"]);
    let mut watch = Watch::default();
    for (offset, time) in [(3, &earlier), (3, &earlier), (4, &later), (9, &later)] {
        commit(&broker, offset, time);
        assert_eq!(watch.look_at_offsets(&broker), Ok(()));
    }
    commit(&broker, 8, &later);
    assert!(matches!(watch.look_at_offsets(&broker), Err(Violation::WentBack { .. })));
    commit(&broker, 9, &earlier);
    let mut watch = Watch::default();
    assert_eq!(watch.look_at_offsets(&broker), Ok(()));
    commit(&broker, 9, &later);
    assert_eq!(watch.look_at_offsets(&broker), Ok(()));
    commit(&broker, 10, &earlier);
    assert!(matches!(watch.look_at_offsets(&broker), Err(Violation::WentBack { .. })));
    for shrunk in [at(6_000, 2), with(6_000, BTreeMap::new())] {
        let mut watch = Watch::default();
        commit(&broker, 11, &later);
        assert_eq!(watch.look_at_offsets(&broker), Ok(()));
        commit(&broker, 11, &shrunk);
        assert!(matches!(watch.look_at_offsets(&broker), Err(Violation::WentBack { .. })), "{shrunk}");
    }
}

#[test]
fn a_schema_that_goes_back_after_something_was_processed_is_found() {
    let of = |schema: u32, schema_since| {
        let schemas = BTreeMap::from([(TALLIES.to_owned(), schema)]);
        encode(&Committed { schemas, schema_since, ..Committed::default() })
    };
    for (since, is_fine) in [(Some(5), true), (Some(4), false), (None, false)] {
        let broker = broker(&["in-0"]);
        let mut watch = Watch::default();
        commit(&broker, 5, &of(3, since));
        assert_eq!(watch.look_at_offsets(&broker), Ok(()));
        commit(&broker, 6, &of(2, None));
        assert_eq!(watch.look_at_offsets(&broker).is_ok(), is_fine, "since {since:?}");
    }
}

#[test]
fn a_task_with_two_owners_for_long_is_found() {
    let (mut watch, clock) = (Watch::default(), ManualClock::new(0));
    let task = TaskId::default();
    let owners = |threads: &[&str]| threads.iter().map(|name| (task, (*name).to_owned())).collect::<Vec<_>>();
    let mut look = |threads: &[&str], ms| {
        clock.advance_ms(ms);
        watch.look_at_owners(owners(threads).into_iter(), &clock)
    };
    assert_eq!(look(&["h0-0", "h1-0"], 0), Ok(()));
    assert_eq!(look(&["h0-0", "h1-0"], 9_000), Ok(()));
    assert_eq!(look(&["h1-0"], 2_000), Ok(()));
    assert_eq!(look(&["h0-0", "h1-0"], 2_000), Ok(()));
    assert!(matches!(look(&["h0-0", "h1-0"], 11_000), Err(Violation::TwoOwners { .. })));
}

#[test]
fn a_store_that_its_changelog_does_not_explain_is_found() {
    let changelog = changelog_topic(APPLICATION, TALLIES);
    let broker = broker(&[&changelog]);
    for value in [b"1", b"2", b"3"] {
        let record = NewRecord { timestamp: 1_000, key: Some(b"k"), value: Some(value), headers: &[] };
        broker.append(&TopicPartition::new(changelog.as_str(), 0), &[record]).expect("append");
    }
    let scenario = Scenario { partitions: 1, ..Scenario::new(Kind::Clean, 0) };
    let spec = declare(1, 1).sub_topologies.remove(0).stores.remove(0);
    let check_as = |value: &'static [u8], offset, thinned, exactly_once| {
        let stores = CrashStores::new();
        let mut store = stores.open(TaskId::default(), &spec).expect("opens");
        store.write(&[(Bytes::from_static(b"k"), Some(Bytes::from_static(value)))], offset).expect("write");
        store.flush().expect("flush");
        stores.crash(&mut Seed::new(0));
        let mut watch = Watch::default();
        if thinned {
            watch.look_before_thinning(&broker, &scenario);
        }
        watch.check_stores(&broker, "h0", &stores, exactly_once).is_ok()
    };
    let check = |value, offset, thinned| check_as(value, offset, thinned, true);
    assert!(check(b"2", Some(2), false));
    assert!(!check(b"3", Some(2), false), "ahead of its offset");
    assert!(!check(b"1", Some(2), false), "behind its offset");
    assert!(!check(b"1", None, false), "without an offset");
    assert!(check(b"1", Some(2), true), "the record in between may be gone");
    assert!(!check(b"3", Some(2), true), "ahead of its offset");
    assert!(check_as(b"1", Some(2), false, false), "the record in between was in flight");
    assert!(!check_as(b"3", Some(2), false, false), "ahead of its offset");
}
