//! Queries merge local partitions in key order, page without loss or repeat, and say why they have no answer.

use std::num::NonZeroUsize;
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;

use super::{
    ANY_FOLLOWING, Availability, Filter, QueryError, QueryRegistry, Registration, RegistrationId, ResumeKey, Role,
    ScanQuery, merge_pages,
};
use crate::state::memory::MemoryStore;
use crate::state::{KeyRange, StateStore, Write, prefix_end};
use crate::testing::Seed;
use crate::topology::TaskId;

fn registry() -> QueryRegistry {
    QueryRegistry::new(["votes".into(), "schedule".into()])
}

fn register(
    registry: &QueryRegistry,
    partition: i32,
    role: Role,
    availability: Availability,
    keys: &[&str],
) -> (RegistrationId, MemoryStore) {
    let mut store = MemoryStore::new();
    let writes: Vec<Write> = keys
        .iter()
        .map(|key| (Bytes::copy_from_slice(key.as_bytes()), Some(Bytes::from(partition.to_string()))))
        .collect();
    store.write(&writes, Some(keys.len() as i64)).expect("write");
    let task = TaskId { sub_topology: 0, partition };
    let view = store.read_view();
    let id = registry.register(Registration {
        store: "votes".into(),
        task,
        role,
        availability,
        view,
        sources: Arc::default(),
    });
    (id, store)
}

const ALL: ScanQuery<'static> = ScanQuery {
    store: "votes",
    partitions: None,
    range: KeyRange::ALL,
    reverse: false,
    limit: NonZeroUsize::MAX,
    resume: None,
    max_lag: None,
    filter: None,
};

/// All pages of a query as `key/partition`.
fn pages(registry: &QueryRegistry, query: ScanQuery<'_>) -> Vec<String> {
    let mut found = Vec::new();
    let mut resume: Option<ResumeKey> = None;
    loop {
        let page = registry.scan(ScanQuery { resume: resume.as_ref(), ..query }).expect("scan");
        assert!(page.entries.len() <= query.limit.get());
        found.extend(page.entries.iter().map(|e| format!("{}/{}", String::from_utf8_lossy(&e.key), e.partition)));
        match page.resume {
            Some(next) => resume = Some(next),
            None => return found,
        }
    }
}

#[test]
fn a_key_is_answered_with_partition_and_position() {
    let registry = registry();
    let (_, mut store) = register(&registry, 3, Role::Active, Availability::Running, &["a", "b"]);
    let answer = registry.get("votes", 3, b"b", None).expect("answer");
    assert_eq!(answer.value, Some(Bytes::from_static(b"3")));
    assert_eq!((answer.position.partition, answer.position.changelog_offset), (3, Some(2)));
    store.write(&[("b".into(), None)], Some(9)).expect("write");
    let answer = registry.get("votes", 3, b"b", None).expect("answer");
    assert_eq!((answer.value, answer.position.changelog_offset), (None, Some(9)));
}

#[test]
fn a_query_without_an_answer_says_why() {
    let registry = registry();
    let unknown = registry.get("vote", 0, b"a", None).expect_err("unknown");
    assert_eq!(unknown.to_string(), "store vote is not declared; declared are: schedule, votes");
    let error = registry.get("votes", 0, b"a", None).expect_err("not assigned");
    assert_eq!(error.to_string(), "partition 0 of store votes is not assigned to this host");
    assert!(matches!(registry.scan(ALL), Err(QueryError::NotAssigned { partition: None, .. })));

    let restoring = Availability::Restoring { position: 10, target: 40 };
    let (id, _) = register(&registry, 0, Role::Active, restoring, &["a"]);
    register(&registry, 1, Role::Active, Availability::Running, &["b"]);
    let (standby, _) = register(&registry, 2, Role::Standby, restoring, &["c"]);
    let error = registry.get("votes", 0, b"a", None).expect_err("restoring");
    assert_eq!(error.to_string(), "partition 0 of store votes is being restored: 10 of 40");
    assert!(registry.get("votes", 2, b"c", None).is_err(), "a standby answers only when it is allowed to");
    for partition in [0, 2] {
        let refused = registry.get("votes", partition, b"x", Some(ANY_FOLLOWING)).expect_err("it was never whole");
        assert!(matches!(refused, QueryError::Restoring { .. }), "what it lacks may be anything: {refused}");
    }
    registry.set_availability(standby, Availability::Following { position: 10, end: 40 });
    assert_eq!(registry.get("votes", 2, b"c", Some(ANY_FOLLOWING)).expect("stale").position.role, Role::Standby);
    assert!(registry.get("votes", 2, b"c", None).is_err(), "a standby answers only when it is allowed to");
    // The store has one record, whatever the reader has read beside it.
    registry.set_availability(standby, restoring);
    for (max_lag, answers) in [(39, true), (38, false)] {
        assert_eq!(registry.get("votes", 2, b"c", Some(max_lag)).is_ok(), answers, "a standby that lacks 39");
        let active = registry.get("votes", 0, b"a", Some(max_lag)).map(|answer| answer.position.lag);
        assert_eq!(active.ok(), answers.then_some(39), "an active task that lacks 39");
        let page = registry.scan(ScanQuery { max_lag: Some(max_lag), ..ALL }).expect("scan");
        assert_eq!(page.restoring.is_empty(), answers);
    }
    let page = registry.scan(ALL).expect("scan");
    assert_eq!(page.restoring, [0]);
    assert_eq!(page.positions.iter().map(|p| p.partition).collect::<Vec<_>>(), [1]);
    let page = registry.scan(ScanQuery { partitions: Some(&[0, 5]), ..ALL }).expect("scan");
    assert_eq!((page.restoring, page.positions), (vec![0], Vec::new()));
    let error = registry.scan(ScanQuery { partitions: Some(&[5]), ..ALL }).expect_err("nowhere");
    assert_eq!(error.to_string(), "partition 5 of store votes is not assigned to this host");

    registry.set_availability(id, Availability::Opened);
    for max_lag in [None, Some(0), Some(u64::MAX)] {
        let error = registry.get("votes", 0, b"a", max_lag).expect_err("nobody knows what it lacks");
        assert!(matches!(error, QueryError::Opened { partition: 0, .. }), "{error}");
        assert!(registry.scan(ScanQuery { max_lag, ..ALL }).expect("scan").restoring.contains(&0));
    }

    registry.set_availability(id, Availability::Running);
    registry.set_availability(standby, Availability::Following { position: 10, end: 40 });
    assert_eq!(pages(&registry, ScanQuery { max_lag: Some(u64::MAX), ..ALL }), ["a/0", "b/1", "c/2"]);
}

#[test]
fn a_task_that_closes_late_does_not_remove_its_successor() {
    let registry = registry();
    let (old, _) = register(&registry, 0, Role::Active, Availability::Running, &["old"]);
    let (new, _) = register(&registry, 0, Role::Active, Availability::Running, &["new"]);
    registry.unregister(old);
    assert_eq!(pages(&registry, ALL), ["new/0"]);
    registry.unregister(new);
    assert!(registry.registrations().is_empty());
}

#[test]
fn partitions_are_merged_in_key_order_and_paged() {
    let registry = registry();
    register(&registry, 0, Role::Active, Availability::Running, &["a", "c", "same", "x1"]);
    register(&registry, 1, Role::Active, Availability::Running, &["b", "same", "x0", "x2"]);
    register(&registry, 2, Role::Active, Availability::Running, &["same"]);
    let expected = ["a/0", "b/1", "c/0", "same/0", "same/1", "same/2", "x0/1", "x1/0", "x2/1"];
    let reversed = ["x2/1", "x1/0", "x0/1", "same/0", "same/1", "same/2", "c/0", "b/1", "a/0"];
    for limit in 1..=10 {
        let limit = NonZeroUsize::new(limit).expect("above 0");
        assert_eq!(pages(&registry, ScanQuery { limit, ..ALL }), expected, "limit {limit}");
        assert_eq!(pages(&registry, ScanQuery { limit, reverse: true, ..ALL }), reversed, "limit {limit}");
        let end = prefix_end(b"x");
        let range = KeyRange::of_prefix(b"x", end.as_deref());
        assert_eq!(pages(&registry, ScanQuery { limit, range, ..ALL }), ["x0/1", "x1/0", "x2/1"]);
        let range = KeyRange { lower: Bound::Excluded(b"b"), upper: Bound::Excluded(b"same") };
        assert_eq!(pages(&registry, ScanQuery { limit, range, reverse: true, ..ALL }), ["c/0"]);
        let only = ScanQuery { limit, partitions: Some(&[1]), ..ALL };
        assert_eq!(pages(&registry, only), ["b/1", "same/1", "x0/1", "x2/1"]);
    }
}

#[test]
fn pages_cut_by_their_size_lose_nothing() {
    let registry = registry();
    let mut seed = Seed::new(7);
    let mut stores: Vec<MemoryStore> =
        (0..3).map(|partition| register(&registry, partition, Role::Active, Availability::Running, &[]).1).collect();
    let mut expected = Vec::new();
    for n in 0..60 {
        let key = format!("{n:02}");
        let partition = seed.below(3) as usize;
        // Three of these fill a page by bytes.
        let value = Bytes::from(vec![1; if seed.one_in(2) { 3 << 20 } else { 10 }]);
        stores[partition].write(&[(Bytes::from(key.clone()), Some(value))], None).expect("write");
        expected.push(format!("{key}/{partition}"));
    }
    assert_eq!(pages(&registry, ALL), expected);
    expected.reverse();
    assert_eq!(pages(&registry, ScanQuery { reverse: true, ..ALL }), expected);
    let shared: Arc<QueryRegistry> = Arc::new(registry);
    assert_eq!(shared.declared_stores().count(), 2);
}

/// The pages of several hosts are those of one that has everything, whoever has which partition and whatever the limit.
#[test]
fn pages_of_several_hosts_merge_to_those_of_one() {
    for number in 0..200 {
        let mut seed = Seed::new(number);
        let (whole, hosts) = (registry(), [registry(), registry(), registry()]);
        let mut kept = Vec::new();
        for partition in 0..6 {
            let keys: Vec<String> = (0..seed.below(12)).map(|_| format!("k{}", seed.below(20))).collect();
            let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
            let host = &hosts[seed.below(3) as usize];
            for registry in [&whole, host] {
                kept.push(register(registry, partition, Role::Active, Availability::Running, &keys));
            }
        }
        let query = ScanQuery {
            reverse: seed.one_in(2),
            limit: NonZeroUsize::new(1 + seed.below(9) as usize).expect("not 0"),
            ..ALL
        };
        let mut found = Vec::new();
        let mut resume: Option<ResumeKey> = None;
        loop {
            let pages =
                hosts.iter().filter_map(|host| match host.scan(ScanQuery { resume: resume.as_ref(), ..query }) {
                    Err(QueryError::NotAssigned { .. }) => None,
                    page => Some(page.expect("scan")),
                });
            let page = merge_pages(pages.collect(), query.reverse, query.limit);
            assert_eq!(page.positions.len(), 6, "seed {number}");
            assert!(page.entries.len() <= query.limit.get());
            found.extend(page.entries.iter().map(|e| format!("{}/{}", String::from_utf8_lossy(&e.key), e.partition)));
            match page.resume {
                Some(next) => resume = Some(next),
                None => break,
            }
        }
        assert_eq!(found, pages(&whole, query), "seed {number}");
    }
}

/// However little a page may look at, the pages together find what the filter wants, once and in order, and end.
#[test]
fn filtered_pages_find_everything_with_a_bound_on_each() {
    for number in 0..200 {
        let mut seed = Seed::new(number);
        let (whole, hosts) = (registry(), [registry(), registry()]);
        let mut kept = Vec::new();
        for partition in 0..4 {
            let keys: Vec<String> = (0..seed.below(15)).map(|_| format!("k{:02}", seed.below(30))).collect();
            let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
            for registry in [&whole, &hosts[seed.below(2) as usize]] {
                kept.push(register(registry, partition, Role::Active, Availability::Running, &keys));
            }
        }
        let is_wanted = |key: &[u8]| key.last().is_some_and(|last| last % 3 == 0);
        let scanned_max = 1 + seed.below(12) as usize;
        let filter = Filter {
            accepts: &|key, _| is_wanted(key),
            scanned_max: NonZeroUsize::new(scanned_max).expect("not 0"),
            // A key and its value are 4 bytes.
            scanned_bytes_max: if seed.one_in(2) { usize::MAX } else { 4 * (1 + seed.below(12) as usize) },
        };
        let query = ScanQuery {
            reverse: seed.one_in(2),
            limit: NonZeroUsize::new(1 + seed.below(9) as usize).expect("not 0"),
            filter: Some(filter),
            ..ALL
        };
        let mut found = Vec::new();
        let mut resume: Option<ResumeKey> = None;
        for turn in 0.. {
            assert!(turn < 1_000, "seed {number}: the pages do not end");
            let pages: Vec<_> = { hosts.iter() }
                .filter_map(|host| match host.scan(ScanQuery { resume: resume.as_ref(), ..query }) {
                    Err(QueryError::NotAssigned { .. }) => None,
                    page => Some(page.expect("scan")),
                })
                .collect();
            for page in &pages {
                let partitions = page.positions.len();
                assert!(
                    page.scanned <= scanned_max.max(partitions) as u64,
                    "seed {number}: {} looked at",
                    page.scanned
                );
            }
            let page = merge_pages(pages, query.reverse, query.limit);
            found.extend(page.entries.iter().map(|e| format!("{}/{}", String::from_utf8_lossy(&e.key), e.partition)));
            match page.resume {
                Some(next) => resume = Some(next),
                None => break,
            }
        }
        let all = pages(&whole, ScanQuery { filter: None, ..query });
        let wanted = all.into_iter().filter(|text| is_wanted(text.split('/').next().unwrap_or_default().as_bytes()));
        assert_eq!(found, wanted.collect::<Vec<_>>(), "seed {number}");
    }
}
