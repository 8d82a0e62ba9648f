//! Topics: created, described, waited for.

use std::collections::BTreeMap;

use engine::broker::{BrokerErrorKind, ClientSupplier, NewTopic};

use crate::cluster::{Cluster, on_each_broker, unique};

on_each_broker!(
    a_topic_is_described_as_it_was_created,
    topics_have_ids_of_their_own,
    asking_for_a_topic_does_not_create_it,
    a_topic_is_created_once,
    an_impossible_topic_is_refused,
    a_broker_that_is_there_is_found_at_once,
);

fn new_topic(name: &str, partitions: i32, configs: &[(&str, &str)]) -> NewTopic {
    let configs: BTreeMap<String, String> =
        configs.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect();
    NewTopic { name: name.into(), partitions, replication_factor: -1, configs }
}

fn a_topic_is_described_as_it_was_created(cluster: &Cluster) {
    let name = unique("described");
    let mut admin = cluster.clients("admin").admin().expect("admin");
    let configs = [("cleanup.policy", "compact"), ("message.timestamp.type", "CreateTime")];
    admin.create_topic(&new_topic(&name, 3, &configs)).expect("create");
    let described = admin.describe_topics(&[&unique("missing"), &name]).expect("describe");
    assert_eq!(described.len(), 2);
    assert_eq!(described[0], None);
    let topic = described[1].as_ref().expect("it exists");
    assert_eq!((topic.name.as_str(), topic.partitions), (name.as_str(), 3));
    assert_eq!(topic.configs.get("cleanup.policy").map(String::as_str), Some("compact"));
    assert_eq!(topic.configs.get("message.timestamp.type").map(String::as_str), Some("CreateTime"));
}

fn topics_have_ids_of_their_own(cluster: &Cluster) {
    let names = [unique("one"), unique("missing"), unique("other")];
    let mut admin = cluster.clients("admin").admin().expect("admin");
    for name in [&names[0], &names[2]] {
        admin.create_topic(&new_topic(name, 1, &[])).expect("create");
    }
    let mut ids = || {
        let described = admin.describe_topics(&[&names[0], &names[1], &names[2]]).expect("describe");
        described.into_iter().map(|topic| topic.map(|topic| topic.id.expect("an id"))).collect::<Vec<_>>()
    };
    let first = ids();
    assert!(first[0].is_some() && first[1].is_none() && first[2].is_some() && first[0] != first[2], "{first:?}");
    assert_eq!(ids(), first, "they stay");
}

fn asking_for_a_topic_does_not_create_it(cluster: &Cluster) {
    let name = unique("ghost");
    let mut admin = cluster.clients("admin").admin().expect("admin");
    for _ in 0..3 {
        assert_eq!(admin.describe_topics(&[&name]).expect("describe"), [None]);
    }
}

fn a_topic_is_created_once(cluster: &Cluster) {
    let name = unique("once");
    let mut admin = cluster.clients("admin").admin().expect("admin");
    admin.create_topic(&new_topic(&name, 1, &[])).expect("create");
    let error = admin.create_topic(&new_topic(&name, 1, &[])).expect_err("it exists");
    assert_eq!(error.kind, BrokerErrorKind::TopicExists, "{error}");
    assert!(error.to_string().contains(&name), "{error}");
}

fn an_impossible_topic_is_refused(cluster: &Cluster) {
    let mut admin = cluster.clients("admin").admin().expect("admin");
    let cases = [
        new_topic("spaces are illegal", 1, &[]),
        new_topic("a\0b", 1, &[]),
        new_topic(&unique("none"), 0, &[]),
        new_topic(&unique("policy"), 1, &[("cleanup.policy", "shred")]),
    ];
    for topic in cases {
        let error = admin.create_topic(&topic).expect_err(&topic.name);
        assert_eq!(error.kind, BrokerErrorKind::Rejected, "{error}");
    }
}

fn a_broker_that_is_there_is_found_at_once(cluster: &Cluster) {
    let clients = cluster.clients("admin");
    let info =
        clients.wait_for_broker(crate::cluster::PATIENCE, &mut |attempt| panic!("{attempt:?}")).expect("a broker");
    assert!(!info.brokers.is_empty());
    assert!(info.cluster_id.is_some(), "{info:?}");
}
