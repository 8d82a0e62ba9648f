//! Tests of `topology`: faults, names and the way from partitions to tasks.

use super::*;
use crate::testing::topology;

fn counts(counts: &[(&str, i32)]) -> PartitionCounts {
    PartitionCounts(counts.iter().map(|&(topic, count)| (topic.into(), count)).collect())
}

fn faults(topology: &Topology, application_id: &str) -> Vec<String> {
    let faults = topology.validate(application_id).err().map(|error| error.faults).unwrap_or_default();
    faults.iter().map(ToString::to_string).collect()
}

#[test]
fn every_fault_is_found_at_once() {
    let mut broken = topology(&["in", "in"], &["s", "s", "sp ace"], &["out"]);
    broken.sub_topologies[0].stores[0].value_format = "yaml".into();
    broken.sub_topologies.push(topology(&["in"], &["s"], &["app-s-changelog"]).sub_topologies.remove(0));
    broken.sub_topologies.push(SubTopology::default());
    assert_eq!(
        faults(&broken, "app"),
        [
            r#"sub-topology 0 declares the source "in" twice"#,
            r#"sub-topology 0 declares the source topic "in" twice"#,
            r#"sub-topology 0 declares the store "s" twice"#,
            r#"sub-topology 0 has a store with an invalid name "sp ace": it contains ' '; use letters, digits, '.', '_' and '-'"#,
            r#"store s has the unknown value format "yaml"; known are bytes, utf8, json, i32, i64, f64"#,
            "sub-topology 2 has no source",
            "topic in is read by sub-topologies 0 and 1; one topic feeds one sub-topology",
            "store s is declared by sub-topologies 0 and 1; a store belongs to one",
            r#"the sink "app-s-changelog" of sub-topology 1 is bound to app-s-changelog, the changelog of store s"#,
        ]
    );
    let error = broken.validate("app").expect_err("it is broken").to_string();
    assert!(error.starts_with("the topology cannot run: sub-topology 0 declares"), "{error}");
}

#[test]
fn names_must_be_topic_names() {
    assert_eq!(faults(&topology(&["in"], &["s"], &["out"]), "app"), Vec::<String>::new());
    assert_eq!(faults(&Topology::default(), "app"), ["the topology has no sub-topology"]);
    for application_id in ["", "..", "a/b", "ä", "a\0b"] {
        assert_eq!(faults(&topology(&["in"], &[], &[]), application_id).len(), 1, "{application_id:?}");
    }
    let long = "x".repeat(250);
    for broken in [topology(&[&long], &[], &[]), topology(&["in"], &[], &[&long]), topology(&["in"], &[&long], &[])] {
        assert_eq!(faults(&broken, "app").len(), 1);
    }
    // A changelog's name has the application id in it.
    let store = "s".repeat(240);
    assert_eq!(faults(&topology(&["in"], &[&store], &[]), "application").len(), 1);
}

#[test]
fn a_source_partition_belongs_to_the_task_of_its_sub_topology() {
    let mut two = topology(&["a", "b"], &[], &[]);
    two.sub_topologies.push(topology(&["c"], &[], &[]).sub_topologies.remove(0));
    let task = |topic, partition| two.task_of(&TopicPartition::new(topic, partition));
    assert_eq!(task("b", 3), Some(TaskId { sub_topology: 0, partition: 3 }));
    assert_eq!(task("c", 3), Some(TaskId { sub_topology: 1, partition: 3 }));
    assert_eq!(task("d", 0), None);
    let counts = counts(&[("a", 4), ("b", 2), ("c", 1)]);
    let partitions = |partition| two.task_partitions(TaskId { sub_topology: 0, partition }, &counts).len();
    assert_eq!((partitions(1), partitions(3), partitions(4)), (2, 1, 0));
    assert_eq!((two.task_count(0, &counts), two.task_count(1, &counts), two.task_count(2, &counts)), (4, 1, 0));
    assert_eq!(TaskId { sub_topology: 1, partition: 3 }.to_string(), "1_3");
    assert_eq!(changelog_topic("app", "counts"), "app-counts-changelog");
    assert_eq!(versions_topic("app"), "app-sandbar-versions");
}

#[test]
fn a_source_that_backs_a_store_has_nothing_beside_it() {
    let backed = |sources: &[&str], stores: &[&str], sinks: &[&str]| {
        let mut topology = topology(sources, stores, sinks);
        topology.sub_topologies[0].stores[0].changelog = StoreChangelog::Source("in".into());
        topology
    };
    assert_eq!(faults(&backed(&["in"], &["s"], &[]), "app"), Vec::<String>::new());
    // It needs no changelog, so the length of its name does not matter.
    assert_eq!(faults(&backed(&["in"], &[&"s".repeat(240)], &[]), "application"), Vec::<String>::new());
    let fault = "store s of sub-topology 0 is backed by the source topic in: that must be the only source, with no other \
                 store and no sink beside it";
    for broken in [
        backed(&["other"], &["s"], &[]),
        backed(&["in", "other"], &["s"], &[]),
        backed(&["in"], &["s", "more"], &[]),
        backed(&["in"], &["s"], &["out"]),
    ] {
        assert_eq!(faults(&broken, "app"), [fault]);
        assert!(broken.is_source_backed("in") && !broken.is_source_backed("other"));
    }
    let store = &backed(&["in"], &["s"], &[]).sub_topologies[0].stores[0];
    assert_eq!((store.is_logged(), store.changelog_topic("app").as_deref()), (true, Some("in")));
}

#[test]
fn a_sink_is_never_the_state_of_an_application() {
    for topic in ["other-s-changelog", "other-k-repartition", "other-sandbar-versions", "__consumer_offsets"] {
        let fault = format!(
            "the sink {topic:?} of sub-topology 0 is bound to {topic}, which may be the state of an application: a sink's \
             topic never ends in -changelog, -repartition or -sandbar-versions and never begins with __"
        );
        assert_eq!(faults(&topology(&["in"], &["s"], &[topic]), "app"), [fault]);
        // Whoever runs the application may read it.
        assert_eq!(faults(&topology(&[topic], &["s"], &["out"]), "app"), Vec::<String>::new());
    }
    for topic in ["changelog", "changelog-of-it", "_schemas", "repartition", "sandbar-versions", "app-versions"] {
        assert_eq!(faults(&topology(&["in"], &["s"], &[topic]), "app"), Vec::<String>::new());
    }
}

#[test]
fn dead_letters_have_a_topic_that_nobody_else_writes_or_reads() {
    let of = |topic: &str| {
        let mut topology = topology(&["in"], &["s"], &["out"]);
        topology.dead_letter_topic = Some(topic.into());
        faults(&topology, "app")
    };
    assert_eq!(of("dlq"), Vec::<String>::new());
    let refused = |topic: &str, what: &str| {
        let fault = format!(
            "errors.dead.letter.queue.topic.name is {topic}, which is {what}: dead letters need a topic of their own"
        );
        assert_eq!(of(topic), [fault]);
    };
    refused("in", "a source topic");
    // A module could forward what passes for a dead letter, and a redrive would believe it.
    refused("out", "the topic of the sink \"out\"");
    refused("app-s-changelog", "the changelog of store s");
    refused("other-s-changelog", "named like the state of an application");
}
