//! What a client may hold of the REST interface: header time, header size, connections.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::support::{Host, Place};

fn connect(host: &Host) -> TcpStream {
    let address = host.url.trim_start_matches("http://");
    let stream = TcpStream::connect(address).expect("a connection");
    stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a time-out");
    stream
}

/// What comes until the host closes the connection.
fn rest(stream: &mut TcpStream) -> String {
    let mut text = Vec::new();
    let _ = stream.read_to_end(&mut text);
    String::from_utf8_lossy(&text).into_owned()
}

#[test]
fn a_slow_client_is_cut_off_and_others_are_served() {
    let place = Place::counting("slow-client");
    let host = place.start_ready(&[]);
    let started = Instant::now();
    let mut slow = connect(&host);
    slow.write_all(b"GET /livez HTTP/1.1\r\nHost: ").expect("sent");
    assert_eq!(host.get("/livez").map(|(code, _)| code), Some(200));
    rest(&mut slow);
    let held = started.elapsed();
    assert!(held > Duration::from_secs(5) && held < Duration::from_secs(20), "{held:?}");
}

#[test]
fn heads_that_are_too_large_are_refused() {
    let place = Place::counting("large-head");
    let host = place.start_ready(&[]);
    let mut stream = connect(&host);
    let head = format!("GET /livez HTTP/1.1\r\nHost: x\r\nX-Large: {}\r\n\r\n", "x".repeat(64 * 1024));
    // The host may close before it has read everything.
    let _ = stream.write_all(head.as_bytes());
    let answer = rest(&mut stream);
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431"), "{answer}");
    assert_eq!(host.get("/livez").map(|(code, _)| code), Some(200));
}

#[test]
fn connections_are_bounded_and_come_back() {
    let place = Place::counting("connections");
    let mut host = place.start_ready(&[]);
    let mut idle: Vec<TcpStream> = (0..300).map(|_| connect(&host)).collect();
    for stream in &idle {
        stream.set_read_timeout(Some(Duration::from_millis(5))).expect("a time-out");
    }
    // Those above the bound are closed at once; the others wait for a request.
    let deadline = Instant::now() + Duration::from_secs(5);
    let mut closed = 0;
    while closed == 0 && Instant::now() < deadline {
        closed = idle.iter_mut().filter_map(|stream| stream.read(&mut [0]).ok()).filter(|read| *read == 0).count();
    }
    assert!(closed > 0, "300 connections are open at once");
    drop(idle);
    host.wait_until("others are served again", |host| host.get("/livez").is_some_and(|(code, _)| code == 200));
    host.terminate();
}
