//! Where a broker listens, what address it tells its clients, what it says of torn files.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;

use broker::{EmbeddedBroker, EmbeddedBrokerOptions, running_at};

use crate::client::{Client, TestDir};

fn on(ip: IpAddr) -> EmbeddedBrokerOptions {
    EmbeddedBrokerOptions { listen: ip, ..EmbeddedBrokerOptions::default() }
}

#[test]
fn a_client_is_told_the_address_that_it_reached() {
    let dir = TestDir::new();
    let broker = EmbeddedBroker::start(dir.path(), &on(Ipv4Addr::UNSPECIFIED.into())).unwrap();
    let port = broker.address().port();
    assert_eq!(broker.address(), SocketAddr::from((Ipv4Addr::LOCALHOST, port)), "what a local client can use");
    assert_eq!(running_at(dir.path()), Some(broker.address()));
    // All of 127.0.0.0/8 is this machine: two of its addresses stand for two interfaces.
    for ip in [[127, 0, 0, 1], [127, 0, 0, 2]].map(Ipv4Addr::from) {
        let mut client = Client::connect((ip, port).into()).unwrap();
        assert_eq!(client.advertised(), (ip.to_string(), i32::from(port)));
    }
    broker.shutdown();
    assert_eq!(running_at(dir.path()), None);
}

#[test]
fn another_address_than_127_0_0_1_is_found_too() {
    let dir = TestDir::new();
    let ip = IpAddr::from([127, 0, 0, 3]);
    let broker = EmbeddedBroker::start(dir.path(), &on(ip)).unwrap();
    assert_eq!(broker.address().ip(), ip);
    assert_eq!(running_at(dir.path()), Some(broker.address()));
    let port = broker.address().port();
    drop(broker);
    assert_eq!(EmbeddedBroker::start(dir.path(), &on(ip)).unwrap().address().port(), port, "the remembered port");
}

#[test]
fn an_address_of_another_machine_is_neither_bound_nor_asked() {
    let dir = TestDir::new();
    let elsewhere = "192.0.2.1";
    let error = EmbeddedBroker::start(dir.path(), &on(elsewhere.parse().unwrap())).unwrap_err().to_string();
    assert!(error.contains("listen on 192.0.2.1: no interface of this machine has this address"), "{error}");
    fs::write(dir.path().join("listener"), format!("{elsewhere}:9092\n")).unwrap();
    assert_eq!(running_at(dir.path()), None);
}

#[test]
fn a_taken_port_is_named_with_its_address() {
    let dir = TestDir::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let options = EmbeddedBrokerOptions { port, ..EmbeddedBrokerOptions::default() };
    let error = EmbeddedBroker::start(dir.path(), &options).unwrap_err().to_string();
    assert!(error.contains(&format!("listen on 127.0.0.1:{port}: the port is in use")), "{error}");
}

/// The only log of the folder.
fn log_file(dir: &TestDir) -> PathBuf {
    let topic = fs::read_dir(dir.path().join("logs")).unwrap().next().unwrap().unwrap().path();
    topic.join("0/00000000000000000000.log")
}

#[test]
fn what_was_cut_from_torn_files_is_told() {
    let dir = TestDir::new();
    let start = || EmbeddedBroker::start(dir.path(), &EmbeddedBrokerOptions::default()).unwrap();
    let broker = start();
    assert_eq!(broker.repairs(), [] as [String; 0]);
    let mut client = Client::connect(broker.address()).unwrap();
    assert_eq!(client.create_topic(), 0);
    assert_eq!(client.produce(1, 0, b"kept").unwrap(), (0, 0));
    drop(broker);
    let torn = |path: PathBuf, bytes: &[u8]| fs::write(&path, [fs::read(&path).unwrap(), bytes.to_vec()].concat());
    torn(log_file(&dir), &[0; 30]).unwrap();
    torn(dir.path().join("metadata.log"), b"01234567 {").unwrap();
    let broker = start();
    let [metadata, log] = broker.repairs() else { panic!("{:?}", broker.repairs()) };
    assert!(metadata.starts_with("cut 10 bytes from the end of ") && metadata.contains("metadata.log"), "{metadata}");
    assert!(log.starts_with("cut 30 bytes from the end of t-0, which now ends at offset 1"), "{log}");
    drop(broker);
    assert_eq!(start().repairs(), [] as [String; 0]);
}
