//! Row B4: a coordinator that answers with an error, once or several times. What passes by itself is tried again by the
//! client; all else comes out as what it asks for, and never as "nothing was committed".

use std::time::Duration;

use engine::broker::{BrokerError, BrokerErrorKind, ClientSupplier, GroupMetadata, OffsetAndMetadata, Producer};
use engine::record::TopicPartition;
use kafka::{KafkaClients, KafkaClientsConfig};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr as Code};

use crate::cluster::{Member, PATIENCE, send, unique};

const TOPIC: &str = "entries";

/// What a coordinator may answer, and what a call may make of it beside success.
const ANSWERS: [(Code, &[BrokerErrorKind]); 12] = {
    use BrokerErrorKind::{Abortable, Fenced, Rebalanced, Retriable};
    const PASSING: &[BrokerErrorKind] = &[Retriable, Abortable];
    const GONE: &[BrokerErrorKind] = &[Rebalanced, Fenced, Abortable];
    [
        (Code::RD_KAFKA_RESP_ERR_NOT_COORDINATOR, PASSING),
        (Code::RD_KAFKA_RESP_ERR_COORDINATOR_NOT_AVAILABLE, PASSING),
        (Code::RD_KAFKA_RESP_ERR_COORDINATOR_LOAD_IN_PROGRESS, PASSING),
        (Code::RD_KAFKA_RESP_ERR_CONCURRENT_TRANSACTIONS, PASSING),
        (Code::RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT, PASSING),
        (Code::RD_KAFKA_RESP_ERR_UNSTABLE_OFFSET_COMMIT, PASSING),
        (Code::RD_KAFKA_RESP_ERR_NETWORK_EXCEPTION, PASSING),
        (Code::RD_KAFKA_RESP_ERR__TRANSPORT, PASSING),
        (Code::RD_KAFKA_RESP_ERR_ILLEGAL_GENERATION, GONE),
        (Code::RD_KAFKA_RESP_ERR_UNKNOWN_MEMBER_ID, GONE),
        (Code::RD_KAFKA_RESP_ERR_FENCED_INSTANCE_ID, GONE),
        (Code::RD_KAFKA_RESP_ERR_PRODUCER_FENCED, GONE),
    ]
};

fn cluster() -> (MockCluster<'static, DefaultProducerContext>, KafkaClients) {
    let cluster = MockCluster::new(1).expect("a mock cluster");
    cluster.create_topic(TOPIC, 1, 1).expect("a topic");
    let mut config = KafkaClientsConfig::new(cluster.bootstrap_servers(), unique("mocked"));
    // A mock is never out of patience, so neither must the test be.
    config.request_timeout = Duration::from_secs(10);
    (cluster, KafkaClients::new(config).expect("clients"))
}

fn offset(offset: i64) -> Vec<(TopicPartition, OffsetAndMetadata)> {
    vec![(TopicPartition::new(TOPIC, 0), OffsetAndMetadata { offset, metadata: String::new() })]
}

fn check(what: &str, code: Code, allowed: &[BrokerErrorKind], result: Result<(), BrokerError>) {
    if let Err(error) = result {
        assert!(allowed.contains(&error.kind), "{what} answered with {code:?}: {:?}: {error}", error.kind);
    }
}

#[test]
fn committed_offsets_are_never_taken_for_missing() {
    let (cluster, clients) = cluster();
    let mut member = Member::join(&clients, 0, &TOPIC.into());
    member.poll_until_owned(1);
    member.consumer.commit(&offset(5)).expect("commit");
    let partition = TopicPartition::new(TOPIC, 0);
    for (code, _) in ANSWERS {
        for times in [1, 2] {
            cluster.request_errors(RDKafkaApiKey::OffsetFetch, &vec![code; times]);
            match member.consumer.committed(std::slice::from_ref(&partition)) {
                Ok(found) => {
                    let found: Vec<_> = found.into_iter().map(|found| found.map(|found| found.offset)).collect();
                    assert_eq!(found, [Some(5)], "{code:?} {times} times");
                }
                // Which one is for the caller to sort out; that it is one, is what matters.
                Err(error) => assert!(error.kind != BrokerErrorKind::OffsetOutOfRange, "{error}"),
            }
            cluster.clear_request_errors(RDKafkaApiKey::OffsetFetch);
        }
    }
}

#[test]
fn a_transaction_calls_end_as_what_the_coordinator_said() {
    let (cluster, clients) = cluster();
    let group = GroupMetadata {
        group_id: "mocked".to_owned(),
        generation_id: 1,
        member_id: "member".to_owned(),
        group_instance_id: None,
    };
    let calls: [(&str, RDKafkaApiKey); 3] = [
        ("sending offsets", RDKafkaApiKey::TxnOffsetCommit),
        ("adding the group", RDKafkaApiKey::AddOffsetsToTxn),
        ("the end", RDKafkaApiKey::EndTxn),
    ];
    for (code, allowed) in ANSWERS {
        for (what, key) in calls {
            let mut producer = clients.producer(0, Some(&unique("id"))).expect("producer");
            producer.init_transactions(PATIENCE).expect("init");
            producer.begin_transaction().expect("begin");
            send(&mut *producer, &TOPIC.into(), Some(0), "key", "value");
            producer.flush(PATIENCE).expect("flush");
            cluster.request_errors(key, &[code]);
            check(what, code, allowed, transact(&mut *producer, &group));
            cluster.clear_request_errors(key);
        }
    }
}

fn transact(producer: &mut dyn Producer, group: &GroupMetadata) -> Result<(), BrokerError> {
    producer.send_offsets(&offset(7), group, PATIENCE)?;
    producer.commit_transaction(PATIENCE)
}

/// The request that was lost may still come to the broker, and would end the next transaction of the same epoch.
#[test]
fn a_lost_answer_ends_the_producer_and_not_the_commit() {
    let (cluster, clients) = cluster();
    let mut producer = clients.producer(0, Some(&unique("id"))).expect("producer");
    producer.init_transactions(PATIENCE).expect("init");
    for _ in 0..2 {
        producer.begin_transaction().expect("begin");
        send(&mut *producer, &TOPIC.into(), Some(0), "key", "value");
        producer.flush(PATIENCE).expect("flush");
        producer.commit_transaction(PATIENCE).expect("commit");
    }
    producer.begin_transaction().expect("begin");
    send(&mut *producer, &TOPIC.into(), Some(0), "key", "value");
    producer.flush(PATIENCE).expect("flush");
    cluster.request_errors(RDKafkaApiKey::EndTxn, &[Code::RD_KAFKA_RESP_ERR__TRANSPORT]);
    producer.commit_transaction(PATIENCE).expect("the client commits on another connection");
    let error = producer.begin_transaction().expect_err("the producer is used up");
    assert_eq!(error.kind, BrokerErrorKind::Abortable, "{error}");
    assert!(error.to_string().contains("answers were lost"), "{error}");
}
