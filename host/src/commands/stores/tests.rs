//! What the commands make of a host's answers.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::thread;

use clap::Parser;

use super::*;

/// Answers one request with each of the bodies, and returns the address.
pub fn host_of(bodies: &'static [&'static str]) -> String {
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
fn a_scan_goes_on_over_all_pages() {
    let url = host_of(&[
        r#"{"entries":[{"key":"a"},{"key":"b"}],"next_cursor":"x"}"#,
        r#"{"entries":[{"key":"c"}],"next_cursor":null}"#,
    ]);
    let mut keys = Vec::new();
    Client::new(&url).entries("/entries", &[], None, |entry| keys.push(bare(&entry["key"]))).expect("two pages");
    assert_eq!(keys, ["a", "b", "c"]);
}

#[test]
fn a_scan_ends_at_its_limit() {
    let url = host_of(&[r#"{"entries":[{"key":"a"}],"next_cursor":"x"}"#]);
    let mut keys = Vec::new();
    Client::new(&url).entries("/entries", &[], Some(1), |entry| keys.push(bare(&entry["key"]))).expect("one page");
    assert_eq!(keys, ["a"]);
}

#[test]
fn an_owner_has_its_partition_and_its_copies() {
    let answer = serde_json::json!({
        "store": "votes", "partition": 3,
        "active": { "host_id": "aa", "endpoint": "a:1" },
        "standbys": [{ "host_id": "bb", "endpoint": "b:2" }],
    });
    assert_eq!(owner_lines(&answer), ["partition\t3", "active\taa\ta:1", "standby\tbb\tb:2"]);
    let nobody = serde_json::json!({ "store": "votes", "partition": 3, "active": null, "standbys": [] });
    assert_eq!(owner_lines(&nobody), ["partition\t3"]);
}

#[test]
fn a_count_is_asked_of_the_host() {
    let url = host_of(&["{\"approximate_entries\":7}"]);
    let host = HostArguments { url };
    let at = At { host, app: Some("vote".to_owned()), key_format: None, value_format: None, store: "votes".to_owned() };
    count(&at, Terminal::new(Format::Text)).expect("a count");
}

#[derive(Parser)]
struct Line {
    #[command(subcommand)]
    command: Command,
}

/// The path and query that a command asks a host for.
fn question_of(arguments: &[&str], answer: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("bound"));
    let host = thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a request");
        let mut lines = BufReader::new(stream.try_clone().expect("a socket")).lines().map(|line| line.expect("text"));
        let first = lines.next().expect("a request");
        lines.find(String::is_empty).expect("the end of its head");
        let length = answer.len();
        write!(stream, "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{answer}")
            .expect("a reader");
        first.split(' ').nth(1).expect("a path").to_owned()
    });
    let line = [&["stores"], arguments, &["--url", &url, "--app", "vote"]].concat();
    run(&Line::try_parse_from(line).expect("known flags").command, Terminal::new(Format::Text)).expect("an answer");
    host.join().expect("no panic")
}

#[test]
fn who_may_answer_and_how_new_it_has_to_be_is_said_to_the_host() {
    let reading = ["--standby", "--max-lag", "7", "--min-position", "eyJh"];
    let get = question_of(&[&["get", "votes", "a"], &reading[..]].concat(), r#"{"value":1}"#);
    assert_eq!(get, "/v1/apps/vote/stores/votes/keys/a?standby=true&max_lag=7&min_position=eyJh");
    let scan = [&["scan", "votes", "--where", "/a b=1&2"], &reading[..]].concat();
    let scan = question_of(&scan, r#"{"entries":[],"next_cursor":null}"#);
    let (path, query) = scan.split_once('?').expect("a query");
    assert_eq!(path, "/v1/apps/vote/stores/votes/entries");
    assert!(query.starts_with("standby=true&max_lag=7&min_position=eyJh&where="), "{query}");
    let condition = query.split('&').find_map(|pair| pair.strip_prefix("where=")).expect("a condition");
    assert!(!condition.contains(' ') && condition.ends_with("1%262"), "{condition}");
    assert!(Line::try_parse_from(["stores", "get", "votes", "a", "--max-lag", "7"]).is_err(), "of which copies?");
}
