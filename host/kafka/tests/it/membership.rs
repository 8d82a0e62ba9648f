//! The group as seen from outside.

use std::time::{Duration, Instant};

use engine::broker::{BrokerErrorKind, ClientSupplier};
use engine::testing::{ContractHost, membership_contract};
use kafka::KafkaClients;

use crate::cluster::{Cluster, Member, on_each_broker, unique, wait_for};

on_each_broker!(
    the_group_tells_its_members,
    a_static_member_is_told_by_its_client_id,
    a_static_member_that_comes_back_is_told_by_its_new_address,
);

fn the_group_tells_its_members(cluster: &Cluster) {
    let topic = cluster.topic("members", 4);
    let application = unique("group");
    let named = |host_id: &str| {
        let clients = cluster.clients(&application);
        clients.name_host(host_id, "127.0.0.1:7070");
        clients
    };
    let (one, other) = (named("00ff"), named("00aa"));
    let hosts = [ContractHost { clients: &one, host_id: "00ff" }, ContractHost { clients: &other, host_id: "00aa" }];
    membership_contract(hosts, &topic, &mut || {});
}

fn a_static_member_is_told_by_its_client_id(cluster: &Cluster) {
    let topic = cluster.topic("static-members", 1);
    let mut config = cluster.config(&unique("group"));
    config.group_instance_id = Some("host-1".into());
    config.client_id = Some("my-hosts".into());
    let clients = KafkaClients::new(config).expect("clients");
    clients.name_host("00ff", "[::1]:7070");
    let mut member = Member::join(&clients, 3, &topic);
    member.poll_until_owned(1);
    let mut membership = clients.membership().expect("a membership");
    let members = wait_for("a settled group", || membership.members().expect("an answer"));
    assert_eq!(members.len(), 1, "{members:?}");
    assert_eq!(members[0].client_id, "my-hosts-00ff@[::1]:7070-consumer-3");
    assert_eq!(members[0].assigned, member.owned);
}

/// Brokers keep the client id of a static member that is replaced.
fn a_static_member_that_comes_back_is_told_by_its_new_address(cluster: &Cluster) {
    let topic = cluster.topic("moved-members", 1);
    let mut config = cluster.config(&unique("group"));
    config.group_instance_id = Some("host-1".into());
    let mut assigned = Vec::new();
    for endpoint in ["10.0.0.1:7070", "10.0.0.2:7070"] {
        let clients = KafkaClients::new(config.clone()).expect("clients");
        clients.name_host("00ff", endpoint);
        let mut member = Member::join(&clients, 3, &topic);
        member.poll_until_owned(1);
        let mut membership = clients.membership().expect("a membership");
        let members = wait_for("a settled group", || membership.members().expect("an answer"));
        assert_eq!(members.len(), 1, "{members:?}");
        assert!(members[0].client_id.ends_with(&format!("-00ff@{endpoint}-consumer-3")), "{members:?}");
        assigned.push((member.owned.clone(), member.consumer.group_metadata().expect("a member").generation_id));
        member.consumer.close().expect("closed");
    }
    // Nothing has moved for it.
    assert_eq!(assigned[0], assigned[1]);
}

/// librdkafka never answers a call that reaches a group's state while it ends, which a second answer to a rebalance
/// does.
#[test]
fn a_member_leaves_at_any_moment_of_its_join() {
    let cluster = Cluster::embedded();
    let topic = cluster.topic("leaves", 3);
    for strategy in ["cooperative-sticky", "range"] {
        let mut config = cluster.config(&unique("group"));
        config.properties.insert("consumer.partition.assignment.strategy".into(), strategy.into());
        let clients = KafkaClients::new(config).expect("clients");
        for round in 0..60 {
            // Nobody polls, so that an assignment that has come is answered by the close.
            let mut consumer = clients.consumer(0).expect("consumer");
            consumer.subscribe(&[std::sync::Arc::clone(&topic)]).expect("subscribe");
            std::thread::sleep(Duration::from_millis(4 * (round % 30)));
            let began = Instant::now();
            consumer.close().unwrap_or_else(|error| panic!("{strategy}, round {round}: {error}"));
            assert!(began.elapsed() < Duration::from_secs(4), "{strategy}, round {round}: {:?}", began.elapsed());
        }
        let mut membership = clients.membership().expect("a membership");
        let members = wait_for("a settled group", || membership.members().expect("an answer"));
        assert_eq!(members, [], "{strategy}");
    }
}

/// A broker that waits for another member answers a join, and what comes after it, only then.
#[test]
fn a_member_whose_join_is_held_up_leaves_in_time() {
    let cluster = Cluster::embedded();
    let topic = cluster.topic("held-up", 1);
    for strategy in ["cooperative-sticky", "range"] {
        let mut config = cluster.config(&unique("group"));
        config.properties.insert("consumer.partition.assignment.strategy".into(), strategy.into());
        config.properties.insert("consumer.session.timeout.ms".into(), "30000".into());
        // The first member hears of the second one only much later.
        config.properties.insert("consumer.heartbeat.interval.ms".into(), "20000".into());
        let clients = KafkaClients::new(config).expect("clients");
        let mut first = Member::join(&clients, 0, &topic);
        first.poll_until_owned(1);
        let mut second = Member::join(&clients, 1, &topic);
        (0..10).for_each(|_| second.poll());
        let began = Instant::now();
        second.consumer.close().expect("it owns nothing that anybody could miss");
        assert!(began.elapsed() < Duration::from_millis(5_500), "{strategy}: {:?}", began.elapsed());
    }
}

#[test]
fn a_group_without_a_broker_is_an_error_in_time() {
    let mut config = kafka::KafkaClientsConfig::new("127.0.0.1:1", "nobody");
    config.request_timeout = Duration::from_secs(1);
    let clients = KafkaClients::new(config).expect("clients");
    let mut membership = clients.membership().expect("a membership");
    let began = Instant::now();
    let error = membership.members().expect_err("nobody answers");
    assert_eq!(error.kind, BrokerErrorKind::Retriable, "{error}");
    assert!(error.to_string().contains("group nobody"), "{error}");
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}
