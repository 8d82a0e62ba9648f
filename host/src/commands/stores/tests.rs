//! What a scan makes of a host's pages.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::thread;

use super::*;

/// Answers one request with each of the bodies, and returns the address.
fn host_of(bodies: &'static [&'static str]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("bound"));
    thread::spawn(move || {
        for body in bodies {
            let (mut stream, _) = listener.accept().expect("a request");
            let mut lines = BufReader::new(stream.try_clone().expect("a socket")).lines();
            while lines.next().is_some_and(|line| !line.expect("a request").is_empty()) {}
            let length = body.len();
            write!(stream, "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}")
                .expect("a reader");
        }
    });
    url
}

#[test]
fn a_scan_knows_which_partitions_it_has_not_seen() {
    let url = host_of(&[
        r#"{"entries":[{"key":"a"},{"key":"b"}],"next_cursor":"x","not_here":[1]}"#,
        r#"{"entries":[{"key":"c"}],"next_cursor":null,"not_here":[1,3]}"#,
    ]);
    let mut keys = Vec::new();
    let not_here = Client::new(&url).entries("/entries", &[], None, |entry| keys.push(bare(&entry["key"])));
    assert_eq!(not_here.expect("two pages"), BTreeSet::from([1, 3]));
    assert_eq!(keys, ["a", "b", "c"]);
}

#[test]
fn a_scan_ends_at_its_limit() {
    let url = host_of(&[r#"{"entries":[{"key":"a"}],"next_cursor":"x","not_here":[]}"#]);
    let not_here = Client::new(&url).entries("/entries", &[], Some(1), |_| ()).expect("one page");
    assert!(not_here.is_empty());
}
