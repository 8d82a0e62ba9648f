//! Clients that misbehave lose their connection and nothing else.

use std::io::Write;
use std::net::Shutdown;
use std::time::{Duration, Instant};

use kafka_protocol::messages::*;
use kafka_protocol::protocol::Decodable;

use super::client::{Broker, Client, batch, produce_request};
use crate::core::CoreOptions;
use crate::wire::shape::{APIS, Api, Malformed};
use crate::wire::{Server, ServerError, WireOptions};

fn frame(key: i16, version: i16, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend_from_slice(&(body.len() as i32 + 10).to_be_bytes());
    bytes.extend_from_slice(&key.to_be_bytes());
    bytes.extend_from_slice(&version.to_be_bytes());
    bytes.extend_from_slice(&7i32.to_be_bytes());
    bytes.extend_from_slice(&(-1i16).to_be_bytes());
    bytes.extend_from_slice(body);
    bytes
}

fn is_alive(broker: &Broker) -> bool {
    broker.client().call(&ApiVersionsRequest::default(), 0).error_code == 0
}

#[test]
fn garbage_closes_its_connection_only() {
    let broker = Broker::start();
    let mut bystander = broker.client();
    bystander.create_topic("t", 1);
    let huge = i32::MAX.to_be_bytes();
    let cases: Vec<Vec<u8>> = vec![
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        (-1i32).to_be_bytes().to_vec(),
        huge.to_vec(),
        0i32.to_be_bytes().to_vec(),
        vec![0, 0, 0, 3, 0, 0, 0],
        frame(999, 0, &[]),
        frame(3, 99, &[]),
        frame(3, 1, &huge),
        frame(3, 1, &[0, 0, 0, 1, 0xff, 0xfe]),
        frame(3, 1, &[0, 0, 0, 1, 0, 2, 0xff, 0xff]),
        frame(0, 3, &[0xff; 40]),
    ];
    for bytes in cases {
        let mut client = broker.client();
        client.stream.write_all(&bytes).unwrap();
        assert!(client.is_closed(), "{bytes:?}");
    }
    assert_eq!(bystander.produce("t", b"v"), 0);
}

#[test]
fn requests_above_the_bound_are_refused() {
    let broker =
        Broker::with(CoreOptions::default(), WireOptions { request_bytes_max: 1_000, ..WireOptions::default() });
    let mut client = broker.client();
    client.create_topic("t", 1);
    assert_eq!(client.produce("t", &[1; 800]), 0);
    client.write(&produce_request("t", 0, batch(&[1; 1_000])), 8);
    assert!(client.is_closed());
    assert!(is_alive(&broker));
}

#[test]
fn a_client_that_stalls_inside_of_a_request_is_cut_off() {
    let stall_timeout = Duration::from_millis(100);
    let broker = Broker::with(CoreOptions::default(), WireOptions { stall_timeout, ..WireOptions::default() });
    let began = Instant::now();
    for half in [&[0u8, 0][..], &frame(18, 0, &[0; 50])[..20]] {
        let mut client = broker.client();
        client.stream.write_all(half).unwrap();
        assert!(client.is_closed());
    }
    assert!(began.elapsed() < Duration::from_secs(5));
    // A silent client between requests is not stalled.
    let mut client = broker.client();
    std::thread::sleep(3 * stall_timeout);
    assert_eq!(client.call(&ApiVersionsRequest::default(), 0).error_code, 0);
}

#[test]
fn an_idle_client_is_cut_off_at_last() {
    let options = WireOptions {
        stall_timeout: Duration::from_millis(20),
        idle_timeout: Duration::from_millis(100),
        ..WireOptions::default()
    };
    let broker = Broker::with(CoreOptions::default(), options);
    assert!(broker.client().is_closed());
}

#[test]
fn a_newer_client_is_told_the_versions() {
    let broker = Broker::start();
    let mut client = broker.client();
    client.stream.write_all(&frame(18, 99, b"who knows")).unwrap();
    let mut answer = client.read_frame().unwrap();
    assert_eq!(answer.split_to(4).as_ref(), 7i32.to_be_bytes());
    let response = ApiVersionsResponse::decode(&mut answer, 0).unwrap();
    assert_eq!((response.error_code, response.api_keys.len()), (35, APIS.len()));
    assert_eq!(client.call(&ApiVersionsRequest::default(), 0).error_code, 0, "on the same connection");
}

#[test]
fn many_idle_clients_do_no_harm() {
    let broker = Broker::start();
    let idle: Vec<Client> = (0..300).map(|_| broker.client()).collect();
    assert!(is_alive(&broker));
    drop(idle);
    assert!(is_alive(&broker));
}

#[test]
fn a_port_in_use_is_named() {
    let broker = Broker::start();
    let port = broker.server.address().port();
    let storage = crate::core::memory::MemoryStorage::new();
    let (core, _) = crate::core::Core::open(CoreOptions::default(), std::sync::Arc::new(storage)).unwrap();
    let error = Server::start(std::sync::Arc::new(core), WireOptions { port, ..WireOptions::default() }).unwrap_err();
    assert!(matches!(error, ServerError::PortInUse { address } if address.port() == port));
    assert!(error.to_string().contains(&format!("127.0.0.1:{port}: the port is in use")), "{error}");
}

#[test]
fn shutting_down_ends_every_connection() {
    let mut broker = Broker::start();
    let mut idle = broker.client();
    let mut parked = broker.client();
    parked.create_topic("t", 1);
    parked.write(&FetchRequest::default().with_max_wait_ms(300_000).with_min_bytes(1), 11);
    let address = broker.server.address();
    let began = Instant::now();
    broker.server.shutdown();
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    assert!(idle.is_closed());
    drop(idle.stream.shutdown(Shutdown::Both));
    assert!(std::net::TcpStream::connect(address).is_err());
}

#[test]
fn many_elements_and_long_strings_are_refused() {
    let metadata = Api::find(ApiKey::Metadata as i16).unwrap();
    let names = |count: i32| [count.to_be_bytes().to_vec(), vec![0; count as usize * 2]].concat();
    assert_eq!(metadata.check(1, &names(200_000)), Ok(()));
    assert_eq!(metadata.check(1, &names(200_001)), Err(Malformed::TooMany));
    // In arrays of arrays each level counts: 500 topics with 500 partitions.
    let fetch = Api::find(ApiKey::OffsetDelete as i16).unwrap();
    let partitions = [500i32.to_be_bytes().to_vec(), vec![0; 500 * 4]].concat();
    let topics = [&[0, 1, b't'], partitions.as_slice()].concat().repeat(500);
    let body = [&[0, 1, b'g'], 500i32.to_be_bytes().as_slice(), &topics].concat();
    assert_eq!(fetch.check(0, &body), Err(Malformed::TooMany));
    // Tagged fields count too: three bytes each, and a map entry when decoded.
    let mut tags = vec![0x01, 0, 0, 0xc1, 0x9a, 0x0c];
    tags.extend([5, 0].repeat(200_001));
    assert_eq!(metadata.check(11, &tags), Err(Malformed::TooMany));
    // The compact form could carry what no older version can give back.
    let long = |length: usize| {
        let compact = length + 1;
        let varint = [compact as u8 | 0x80, (compact >> 7) as u8 | 0x80, (compact >> 14) as u8];
        [varint.to_vec(), vec![b'x'; length], vec![1, 0]].concat()
    };
    let describe = Api::find(ApiKey::ApiVersions as i16).unwrap();
    assert_eq!(describe.check(3, &long(32_767)), Ok(()));
    assert_eq!(describe.check(3, &long(32_768)), Err(Malformed::LongText(32_768)));
}
