//! Start, find, stop, start again.

use std::fs;
use std::net::TcpListener;
use std::time::Instant;

use broker::{EmbeddedBroker, EmbeddedBrokerOptions, running_at};

use crate::client::{Client, TestDir};

fn start(dir: &TestDir) -> EmbeddedBroker {
    EmbeddedBroker::start(dir.path(), &EmbeddedBrokerOptions::default()).unwrap()
}

#[test]
fn a_running_broker_is_found_and_keeps_its_port() {
    let dir = TestDir::new();
    assert_eq!(running_at(dir.path()), None);
    let broker = start(&dir);
    let address = broker.address();
    assert_eq!(running_at(dir.path()), Some(address));
    assert!(address.ip().is_loopback());
    broker.shutdown();
    assert_eq!(running_at(dir.path()), None);
    let broker = start(&dir);
    assert_eq!(broker.address(), address);
    drop(broker);
    // Another program has the port now: it is not mistaken for the broker, and the broker takes another port.
    let other = TcpListener::bind(address).unwrap();
    let answering = std::thread::spawn(move || other.accept().map(drop));
    assert_eq!(running_at(dir.path()), None);
    answering.join().unwrap().unwrap();
    let other = TcpListener::bind(address).unwrap();
    let broker = start(&dir);
    assert_ne!(broker.address(), address);
    drop(other);
}

#[test]
fn another_brokers_port_is_not_mistaken_for_ours() {
    let (one, other) = (TestDir::new(), TestDir::new());
    drop(start(&one));
    let broker = start(&other);
    fs::write(one.path().join("listener"), broker.address().to_string()).unwrap();
    assert_eq!(running_at(one.path()), None);
    assert_eq!(running_at(other.path()), Some(broker.address()));
}

#[test]
fn a_port_in_use_and_a_folder_in_use_are_named() {
    let (one, other) = (TestDir::new(), TestDir::new());
    let broker = start(&one);
    let port = broker.address().port();
    let options = EmbeddedBrokerOptions { port, ..EmbeddedBrokerOptions::default() };
    let error = EmbeddedBroker::start(other.path(), &options).unwrap_err().to_string();
    assert!(error.contains(&format!("127.0.0.1:{port}: the port is in use by another process")), "{error}");
    let error = EmbeddedBroker::start(one.path(), &EmbeddedBrokerOptions::default()).unwrap_err().to_string();
    assert!(error.contains("another process uses it") && error.contains(&broker.address().to_string()), "{error}");
}

#[test]
fn an_empty_folder_is_ready_at_once() {
    let dir = TestDir::new();
    let began = Instant::now();
    let broker = start(&dir);
    assert!(running_at(dir.path()).is_some());
    let took = began.elapsed();
    drop(broker);
    // Generous, since tests run beside builds; it takes about a millisecond.
    assert!(took.as_millis() < 1_000, "{took:?}");
}

#[test]
fn what_was_acknowledged_is_there_after_a_clean_stop() {
    let dir = TestDir::new();
    let broker = start(&dir);
    let mut client = Client::connect(broker.address()).unwrap();
    assert_eq!(client.create_topic(), 0);
    assert_eq!(client.produce(7, 0, b"first").unwrap(), (0, 0));
    assert_eq!(client.commit(1).unwrap(), 0);
    broker.shutdown();
    let broker = start(&dir);
    let mut client = Client::connect(broker.address()).unwrap();
    assert_eq!(client.create_topic(), 36, "it exists already");
    assert_eq!(client.produce(7, 0, b"first").unwrap(), (0, 0), "the same batch again");
    assert_eq!(client.produce(7, 2, b"third").unwrap(), (45, -1), "a gap");
    assert_eq!(client.produce(7, 1, b"second").unwrap(), (0, 1));
    assert_eq!(client.committed(), 1);
}
