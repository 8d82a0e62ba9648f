//! Nobody answers: the reason is visible, the wait is bounded, nothing hangs on its way out.

use std::time::{Duration, Instant};

use engine::broker::{BrokerErrorKind, ClientSupplier};
use kafka::{KafkaClients, KafkaClientsConfig};

/// An address where nobody listens.
fn nowhere() -> KafkaClients {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("address").to_string();
    drop(listener);
    let mut config = KafkaClientsConfig::new(address, "unreachable");
    config.request_timeout = Duration::from_millis(500);
    KafkaClients::new(config).expect("clients")
}

#[test]
fn every_try_is_shown_and_the_error_names_the_address() {
    let clients = nowhere();
    let mut attempts = Vec::new();
    let started = Instant::now();
    let error = clients
        .wait_for_broker(Duration::from_secs(5), &mut |attempt| attempts.push(attempt.clone()))
        .expect_err("nobody is there");
    assert!(started.elapsed() < Duration::from_secs(15), "{:?}", started.elapsed());
    assert!(!attempts.is_empty());
    assert!(attempts.iter().any(|attempt| attempt.reason.contains("refused")), "{attempts:?}");
    assert_eq!(error.kind, BrokerErrorKind::Retriable);
    let text = error.to_string();
    assert!(text.contains(&clients.config().bootstrap_servers) && text.contains("refused"), "{text}");
}

#[test]
fn calls_are_bounded_and_clients_end() {
    let clients = nowhere();
    let started = Instant::now();
    let error = clients.admin().expect("admin").describe_topics(&["t"]).expect_err("nobody is there");
    assert_eq!(error.kind, BrokerErrorKind::Retriable, "{error}");
    let mut consumer = clients.consumer(0).expect("consumer");
    consumer.subscribe(&["t".into()]).expect("subscribe");
    // Nothing comes, which is no error: librdkafka keeps trying.
    let polled = consumer.poll(Duration::from_millis(300), 10).expect("poll");
    assert!(polled.records.is_empty() && polled.events.is_empty());
    let committed = consumer.committed(&[engine::record::TopicPartition::new("t", 0)]);
    assert_eq!(committed.expect_err("nobody is there").kind, BrokerErrorKind::Retriable);
    drop(consumer);
    let mut producer = clients.producer(0, None).expect("producer");
    crate::cluster::send(&mut *producer, &"t".into(), Some(0), "k", "v");
    let error = producer.flush(Duration::from_millis(300)).expect_err("nobody is there");
    assert_eq!(error.kind, BrokerErrorKind::Retriable, "{error}");
    assert!(error.to_string().contains("1 records"), "{error}");
    drop(producer);
    assert!(started.elapsed() < Duration::from_secs(25), "{:?}", started.elapsed());
}

#[test]
fn an_address_that_cannot_be_resolved_is_explained() {
    let clients = KafkaClients::new(KafkaClientsConfig::new("no-such-host.invalid:9092", "app")).expect("clients");
    let error = clients.wait_for_broker(Duration::from_secs(3), &mut |_| {}).expect_err("no such host");
    assert!(error.to_string().contains("no-such-host.invalid"), "{error}");
}
