//! Tests of `internal_topics`: what is created, what is accepted, and what each refusal says.

use super::*;
use crate::broker::ClientSupplier;
use crate::testing::{MockBroker, Operation, topology};

const CHANGELOG: &str = "app-counts-changelog";

fn broker() -> MockBroker {
    let broker = MockBroker::new();
    broker.create_topic("in", 3);
    broker.create_topic("more", 5);
    broker.create_topic("out", 2);
    broker
}

fn prepare_on(broker: &MockBroker) -> Result<PartitionCounts, EngineError> {
    let mut admin = broker.admin()?;
    prepare(&mut *admin, "app", &topology(&["in", "more"], &["counts"], &["out"]), -1)
}

#[test]
fn a_changelog_is_created_with_the_most_partitions_of_its_sources() {
    let broker = broker();
    let counts = prepare_on(&broker).expect("everything is there");
    assert_eq!((counts.of("in"), counts.of("more"), counts.of("out"), counts.of("other")), (3, 5, 2, 0));
    let topics = broker.topics();
    let created = topics.iter().find(|topic| topic.name == CHANGELOG).expect("it was created");
    assert_eq!(created.partitions, 5);
    assert_eq!(created.configs.get("cleanup.policy").map(String::as_str), Some("compact"));
    assert_eq!(created.configs.get("message.timestamp.type").map(String::as_str), Some("CreateTime"));
}

#[test]
fn a_second_start_and_stores_without_logging_create_nothing() {
    let broker = broker();
    prepare_on(&broker).expect("the first start");
    broker.take_calls();
    prepare_on(&broker).expect("the second start");
    assert!(broker.take_calls().iter().all(|call| call.operation != Operation::CreateTopic));
    let mut unlogged = topology(&["in"], &["counts"], &[]);
    unlogged.sub_topologies[0].stores[0].logging_enabled = false;
    assert_eq!(required("app", &unlogged, &PartitionCounts::default()), []);
}

#[test]
fn missing_topics_are_all_named() {
    let broker = MockBroker::new();
    broker.create_topic("more", 1);
    let error = prepare_on(&broker).expect_err("two topics are missing");
    assert_eq!(error.to_string(), "topics do not exist: in, out; create them first");
    assert!(!broker.topics().iter().any(|topic| topic.name == CHANGELOG), "nothing is created before all is known");
}

#[test]
fn a_changelog_that_cannot_hold_state_is_refused() {
    type Configs<'a> = &'a [(&'a str, &'a str)];
    let cases: [(i32, Configs<'_>, &str); 5] = [
        (4, &[("cleanup.policy", "compact")], "it has 4 partitions where 5 are needed"),
        (5, &[("cleanup.policy", "delete")], "its cleanup.policy is delete where compact is needed"),
        (5, &[], "its cleanup.policy is delete where compact is needed"),
        (5, &[("cleanup.policy", "compact,delete")], "its cleanup.policy is compact,delete where compact is needed"),
        (
            1,
            &[("cleanup.policy", "compact"), ("message.timestamp.type", "LogAppendTime")],
            "it has 1 partitions where 5 are needed, its message.timestamp.type is LogAppendTime where CreateTime is needed",
        ),
    ];
    for (partitions, configs, fault) in cases {
        let broker = broker();
        broker.create_topic(CHANGELOG, partitions);
        configs.iter().for_each(|(key, value)| broker.set_topic_config(CHANGELOG, key, value));
        let error = prepare_on(&broker).expect_err(fault);
        assert!(
            error.to_string().starts_with(&format!("internal topic {CHANGELOG} cannot be used: {fault};")),
            "{error}"
        );
    }
}

#[test]
fn another_host_may_be_faster() {
    let broker = broker();
    let mut admin = broker.admin().expect("the mock has one");
    let topic = InternalTopic { name: CHANGELOG.to_owned(), partitions: 5 };
    broker.create_topic(CHANGELOG, 5);
    broker.set_topic_config(CHANGELOG, "cleanup.policy", "compact");
    assert_eq!(create(&mut *admin, &topic, 1), Ok(()));
    let wrong = InternalTopic { name: CHANGELOG.to_owned(), partitions: 6 };
    assert!(matches!(create(&mut *admin, &wrong, 1), Err(EngineError::InternalTopic { .. })));
}

#[test]
fn a_broken_topology_is_refused_before_the_broker_is_asked() {
    let broker = broker();
    let mut admin = broker.admin().expect("the mock has one");
    let error = prepare(&mut *admin, "app", &topology(&[], &[], &[]), -1).expect_err("it has no source");
    assert!(matches!(error, EngineError::Topology(_)), "{error}");
    assert!(broker.take_calls().is_empty());
}
