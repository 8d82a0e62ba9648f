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
    unlogged.sub_topologies[0].stores[0].changelog = StoreChangelog::Off;
    assert_eq!(required("app", &unlogged, &PartitionCounts::default()), []);
    unlogged.sub_topologies[0].stores[0].changelog = StoreChangelog::Source("in".into());
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
        (6, &[("cleanup.policy", "compact")], "it has 6 partitions where 5 are needed"),
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

fn prepare_again(broker: &MockBroker, known: &KnownTopics) -> Result<Prepared, EngineError> {
    let mut admin = broker.admin()?;
    prepare_known(&mut *admin, "app", &topology(&["in", "more"], &["counts"], &["out"]), -1, known)
}

fn check_again(broker: &MockBroker, prepared: &Prepared) -> Result<(), EngineError> {
    let mut admin = broker.admin()?;
    check(&mut *admin, "app", &topology(&["in", "more"], &["counts"], &["out"]), prepared)
}

fn prepared(broker: &MockBroker) -> Prepared {
    prepare_again(broker, &KnownTopics::default()).expect("the first start")
}

#[test]
fn a_start_knows_its_sources_and_changelogs() {
    let broker = broker();
    let prepared = prepared(&broker);
    let names: Vec<&str> = prepared.topics.0.keys().map(String::as_str).collect();
    assert_eq!(names, [CHANGELOG, "in", "more"]);
    assert!(prepared.topics.0.values().all(|topic| topic.id.is_some()));
    assert_eq!(check_again(&broker, &prepared), Ok(()));
    assert_eq!(prepare_again(&broker, &prepared.topics), Ok(prepared));
}

#[test]
fn a_sink_that_is_deleted_is_missed_at_run_time_and_may_be_made_anew() {
    let mut with_dead_letters = topology(&["in", "more"], &["counts"], &["out"]);
    with_dead_letters.dead_letter_topic = Some("dlq".into());
    for name in ["out", "dlq"] {
        let broker = broker();
        broker.create_topic("dlq", 1);
        let mut admin = broker.admin().expect("the mock has an admin client");
        let known = KnownTopics::default();
        let prepared = prepare_known(&mut *admin, "app", &with_dead_letters, -1, &known).expect("all topics are there");
        assert_eq!(check(&mut *admin, "app", &with_dead_letters, &prepared), Ok(()));
        broker.delete_topic(name);
        let expected = EngineError::MissingTopics { topics: vec![name.to_owned()] };
        assert_eq!(check(&mut *admin, "app", &with_dead_letters, &prepared), Err(expected));
        broker.create_topic(name, 1);
        assert_eq!(check(&mut *admin, "app", &with_dead_letters, &prepared), Ok(()));
    }
}

#[test]
fn a_topic_of_dead_letters_that_is_compacted_is_refused() {
    let mut topology = topology(&["in", "more"], &["counts"], &["out"]);
    topology.dead_letter_topic = Some("dlq".into());
    let broker = broker();
    broker.create_topic("dlq", 1);
    let start = || {
        let mut admin = broker.admin().expect("the mock has an admin client");
        prepare_known(&mut *admin, "app", &topology, -1, &KnownTopics::default())
    };
    for policy in ["compact", "compact,delete", "delete,compact"] {
        broker.set_topic_config("dlq", "cleanup.policy", policy);
        let error = start().expect_err("it is compacted");
        let expected = EngineError::CompactedDeadLetters { topic: "dlq".to_owned(), policy: policy.to_owned() };
        assert_eq!((&error, error.remedy()), (&expected, crate::error::Remedy::Fatal));
        let words = format!("errors.dead.letter.queue.topic.name is dlq, whose cleanup.policy is {policy}: ");
        assert!(error.to_string().starts_with(&words), "{error}");
        assert!(broker.topics().iter().all(|topic| topic.name != CHANGELOG), "nothing was made");
    }
    broker.set_topic_config("dlq", "cleanup.policy", "delete");
    start().expect("it keeps every record");
}

#[test]
fn a_topic_that_was_deleted_is_never_taken_for_a_new_one() {
    for (name, role, partitions) in
        [("in", TopicRole::Source, 3), ("more", TopicRole::Source, 5), (CHANGELOG, TopicRole::Changelog, 5)]
    {
        let broker = broker();
        let prepared = prepared(&broker);
        broker.delete_topic(name);
        let gone = |error: Option<EngineError>| match error {
            Some(EngineError::TopicChanged { topic, role: as_what, found: None, .. }) => {
                assert_eq!((topic.as_str(), as_what), (name, role));
            }
            other => panic!("{name} deleted: {other:?}"),
        };
        gone(check_again(&broker, &prepared).err());
        gone(prepare_again(&broker, &prepared.topics).err());
        assert!(broker.topics().iter().all(|topic| topic.name != name), "{name} was created anew");

        broker.create_topic(name, partitions);
        broker.set_topic_config(name, "cleanup.policy", "compact");
        let anew = |error: Option<EngineError>| match error {
            Some(EngineError::TopicChanged { topic, role: as_what, found: Some(found), known }) => {
                assert_eq!((topic.as_str(), as_what), (name, role));
                assert_ne!(found, known);
            }
            other => panic!("{name} made anew: {other:?}"),
        };
        anew(check_again(&broker, &prepared).err());
        anew(prepare_again(&broker, &prepared.topics).err());
    }
}

#[test]
fn more_partitions_under_state_are_refused_at_run_time_and_at_start() {
    let broker = broker();
    let prepared = prepared(&broker);
    broker.add_partitions("more", 7);
    let refused = EngineError::PartitionsAdded { topic: "more".into(), expected: 5, found: 7 };
    assert_eq!(check_again(&broker, &prepared), Err(refused.clone()));
    assert_eq!(prepare_again(&broker, &prepared.topics), Err(refused.clone()), "a start that remembers");
    assert_eq!(prepare_again(&broker, &KnownTopics::default()), Err(refused), "a start that only has the changelog");

    // The smaller of two sources may grow unseen by the changelog.
    broker.delete_topic("more");
    broker.create_topic("more", 5);
    broker.add_partitions("in", 4);
    let mut known = prepared.topics;
    known.0.remove("more");
    let refused = EngineError::PartitionsAdded { topic: "in".into(), expected: 3, found: 4 };
    assert_eq!(prepare_again(&broker, &known), Err(refused));
}

#[test]
fn an_application_without_stores_takes_new_partitions_on_with_its_next_start() {
    let broker = broker();
    let stateless = topology(&["in"], &[], &["out"]);
    let mut admin = broker.admin().expect("the mock has one");
    let before = prepare_known(&mut *admin, "app", &stateless, -1, &KnownTopics::default()).expect("the first start");
    broker.add_partitions("in", 4);
    let error = check(&mut *admin, "app", &stateless, &before).expect_err("nobody would read them");
    assert!(error.to_string().contains("with its next start"), "{error}");
    let after = prepare_known(&mut *admin, "app", &stateless, -1, &before.topics).expect("the next start");
    assert_eq!(after.counts.of("in"), 4);
}

#[test]
fn a_changelog_that_is_altered_while_the_application_runs_is_refused() {
    let broker = broker();
    let prepared = prepared(&broker);
    broker.set_topic_config(CHANGELOG, "cleanup.policy", "delete");
    let error = check_again(&broker, &prepared).expect_err("it deletes state");
    assert!(matches!(error, EngineError::InternalTopic { .. }), "{error}");
}
