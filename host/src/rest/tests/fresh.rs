//! How new an answer is, and the queries for many keys or entries at once.

use std::time::{Duration, Instant};

use axum::http::header;

use super::routed::Pair;
use super::*;
use crate::rest::token::Token;

const STORE: &str = "/v1/apps/vote/stores/votes";

fn set(sources: &SourcePositions, partition: i32, offset: i64) {
    sources.set([(TopicPartition::new("reports", partition), offset)]);
}

/// A token that asks for a source offset.
fn asking(partition: i32, offset: i64) -> String {
    let mut token = Token::new("vote");
    token.add_source("reports", partition, offset);
    token.write().expect("it is short")
}

fn kind(body: &Value) -> &str {
    body["type"].as_str().unwrap_or_default().trim_start_matches("urn:sandbar:problem:")
}

#[test]
fn an_answer_is_as_new_as_asked_or_says_how_old_it_is() {
    let (status, queries) = host();
    register(&queries, 0, Availability::Running, &[("a", "1"), ("c", "3")]);
    let sources = register_as(Role::Active, &queries, 1, Availability::Running, &[("b", "2")]);
    set(&sources, 1, 9);
    let (code, body) = ask(&status, &format!("{STORE}/keys/b"));
    assert_eq!((code, &body["position"]["source_offsets"]), (200, &json!({ "reports": 9 })), "{body}");
    let token = body["consistency_token"].as_str().expect("a token").to_owned();
    let behind = asking(1, 10);
    for path in ["keys/b?", "keys/zz?", "entries?", "entries?limit=1&partition=1&"] {
        let (code, body) = ask(&status, &format!("{STORE}/{path}min_position={token}"));
        assert!(matches!((path, code), ("keys/zz?", 404) | (_, 200)), "{path}: {code} {body}");
        let begun = Instant::now();
        let (code, body) = ask(&status, &format!("{STORE}/{path}min_position={behind}&timeout_ms=60"));
        assert_eq!((code, kind(&body)), (412, "position-not-reached"), "{path}: {body}");
        assert_eq!(body["position"]["source_offsets"], json!({ "reports": 9 }), "{path}");
        assert!(begun.elapsed() >= Duration::from_millis(60), "{path}: it waits as long as it may");
    }
    // Where the token says nothing of a partition, nothing is waited for.
    assert_eq!(ask(&status, &format!("{STORE}/entries?partition=0&min_position={behind}&timeout_ms=0")).0, 200);
    let reached = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(50));
        set(&sources, 1, 10);
    });
    let (code, body) = ask(&status, &format!("{STORE}/keys/b?min_position={behind}"));
    assert_eq!((code, &body["position"]["source_offsets"]), (200, &json!({ "reports": 10 })), "{body}");
    reached.join().expect("no panic");
}

#[test]
fn what_is_asked_of_the_position_is_read_with_care() {
    let status = running_host();
    let foreign = Token::new("other").write().expect("it is short");
    let token = Token::new("vote").write().expect("it is short");
    for (query, code, expected) in [
        (format!("min_position={token}"), 200, ""),
        (format!("min_position={foreign}"), 400, "bad-token"),
        ("min_position=".to_owned(), 400, "bad-token"),
        ("min_position=a.b".to_owned(), 400, "bad-token"),
        (format!("min_position={}", "A".repeat(13_000)), 400, "bad-token"),
        ("timeout_ms=10".to_owned(), 400, "bad-request"),
        (format!("min_position={token}&timeout_ms=20001"), 400, "bad-request"),
        (format!("min_position={token}&timeout_ms=-1"), 400, "bad-request"),
    ] {
        for path in ["keys/b", "entries"] {
            let (found, body) = ask(&status, &format!("{STORE}/{path}?{query}"));
            assert_eq!((found, kind(&body)), (code, expected), "{path} {query}: {body}");
        }
    }
}

#[test]
fn another_host_waits_until_it_is_new_enough() {
    let pair = Pair::new();
    let sources = register_as(Role::Active, &pair.other, 1, Availability::Running, &[("b", "2"), ("d", "4")]);
    set(&sources, 1, 5);
    let behind = asking(1, 6);
    for path in ["keys/b?", "entries?"] {
        let (code, body) = pair.ask(&format!("{STORE}/{path}min_position={behind}&timeout_ms=60"));
        assert_eq!((code, kind(&body)), (412, "position-not-reached"), "{path}: {body}");
        assert_eq!(body["position"]["partition"], json!(1), "{path}: {body}");
    }
    let (code, body) =
        pair.post(&format!("{STORE}/batch-get?min_position={behind}&timeout_ms=60"), &json!({ "keys": ["b"] }));
    assert_eq!((code, kind(&body)), (412, "position-not-reached"), "{body}");
    set(&sources, 1, 6);
    for path in ["keys/b?", "entries?"] {
        let (code, body) = pair.ask(&format!("{STORE}/{path}min_position={behind}"));
        assert_eq!(code, 200, "{path}: {body}");
        let token = Token::read(body["consistency_token"].as_str().expect("a token"), "vote").expect("our own");
        let mut expected = Token::read(&behind, "vote").expect("our own");
        expected.merge(&token);
        assert_eq!(expected, token, "the other host's offsets are part of it");
        assert_eq!(token.changelog("votes").and_then(|offsets| offsets.get(&1)), Some(&2));
    }
}

#[test]
fn many_keys_are_answered_in_their_order_wherever_they_are() {
    let pair = Pair::whole();
    let keys = json!({ "keys": ["e", "zz", "b", "a", "b"] });
    let (code, body) = pair.post(&format!("{STORE}/batch-get"), &keys);
    assert_eq!(code, 200, "{body}");
    let answer = |entry: &Value| (entry["key"].clone(), entry["found"].clone(), entry["value"].clone());
    let found: Vec<_> = body["entries"].as_array().expect("entries").iter().map(answer).collect();
    let hit = |key: &str, value: u32| (json!(key), json!(true), json!(value));
    assert_eq!(found, [hit("e", 5), (json!("zz"), json!(false), Value::Null), hit("b", 2), hit("a", 1), hit("b", 2)]);
    let partitions: Vec<&Value> =
        body["positions"].as_array().expect("positions").iter().map(|at| &at["partition"]).collect();
    assert_eq!(partitions, [0, 1]);
    for (body, code) in [
        (json!({ "keys": [] }), 400),
        (json!({ "keys": vec!["a"; 1_001] }), 400),
        (json!({ "keys": [1] }), 400),
        (json!({ "keys": "a" }), 400),
        (json!({ "names": ["a"] }), 400),
    ] {
        let (found, answer) = pair.post(&format!("{STORE}/batch-get"), &body);
        assert_eq!((found, kind(&answer)), (code, "bad-request"), "{answer}");
    }
    let pair = Pair::new();
    let (code, body) = pair.post(&format!("{STORE}/batch-get"), &keys);
    assert_eq!((code, kind(&body)), (503, "not-here"), "a partition that nobody answers for: {body}");
}

#[test]
fn entries_are_counted_on_all_hosts_or_not_at_all() {
    let (code, body) = Pair::whole().ask(&format!("{STORE}/count"));
    assert_eq!((code, &body["approximate_entries"]), (200, &json!(5)), "{body}");
    assert_eq!(body["positions"][1], json!({ "partition": 1, "approximate_entries": 2 }));
    assert_eq!(Pair::whole().ask(&format!("{STORE}/count?partition=0")).1["approximate_entries"], json!(3));
    let (code, body) = Pair::new().ask(&format!("{STORE}/count"));
    assert_eq!((code, kind(&body)), (503, "not-here"), "{body}");
}

#[test]
fn entries_are_found_by_what_is_in_their_values() {
    let pair = Pair::new();
    register(&pair.other, 1, Availability::Running, &[("b", r#"{"s":"x"}"#), ("d", r#"{"s":"y z"}"#), ("f", "7")]);
    let (code, body) = pair.ask(&format!("{STORE}/entries?where=/s%3Dy%20z"));
    assert_eq!((code, body["entries"][0]["key"].as_str(), &body["scanned"]), (200, Some("d"), &json!(6)), "{body}");
    assert_eq!(body["entries"].as_array().map(Vec::len), Some(1));
    let (code, body) = pair.ask(&format!("{STORE}/entries?where=%3D7&value_format=base64"));
    assert_eq!(
        (code, &body["entries"][0]["value"]),
        (200, &json!("Nw==")),
        "by the value, however it is shown: {body}"
    );
    assert_eq!(pair.ask(&format!("{STORE}/entries")).1.get("scanned"), None);
    for refused in ["s%3D1", "/s"] {
        let (code, body) = pair.ask(&format!("{STORE}/entries?where={refused}"));
        assert_eq!((code, kind(&body)), (400, "bad-request"), "{body}");
    }
}

/// The lines of a streamed scan.
fn lines(status: &Arc<Status>, path: &str) -> (u16, Vec<Value>) {
    let request = Request::get(path).header(header::ACCEPT, "text/html, application/x-ndjson;q=0.9");
    let (code, text) = send(status, path, request.body(Body::empty()).expect("a request"));
    (code, text.lines().map(|line| serde_json::from_str(line).expect(line)).collect())
}

#[test]
fn a_scan_is_streamed_to_its_end_and_says_so() {
    let (status, queries) = host();
    let names: Vec<String> = (0..3_500).map(|number| format!("{number:04}")).collect();
    let entries: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "1")).collect();
    register(&queries, 0, Availability::Running, &entries[..2_000]);
    register(&queries, 1, Availability::Running, &entries[2_000..]);
    let (code, found) = lines(&status, &format!("{STORE}/entries"));
    assert_eq!((code, found.len()), (200, 3_501));
    assert!(found.iter().zip(&names).all(|(line, name)| line["key"] == **name), "all of them, in order");
    assert_eq!(found[3_500]["end"], json!({ "entries": 3_500, "next_cursor": null }));
    assert!(found[3_500]["consistency_token"].is_string());
    let (_, first) = lines(&status, &format!("{STORE}/entries?limit=1200"));
    let cursor = first[1_200]["end"]["next_cursor"].as_str().expect("there is more");
    let (_, rest) = lines(&status, &format!("{STORE}/entries?cursor={cursor}"));
    assert_eq!((rest[0]["key"].as_str(), rest.len()), (Some("1200"), 2_301));
    assert_eq!(lines(&status, &format!("{STORE}/entries?limit=0")).0, 400);
    let (code, refused) = lines(&status, "/v1/apps/vote/stores/blobs/entries");
    assert_eq!((code, kind(&refused[0])), (503, "not-here"), "what is wrong at once has a status");
}

#[test]
fn a_stream_that_cannot_go_on_says_why_in_its_last_line() {
    let (status, queries) = host();
    let names: Vec<String> = (0..1_500).map(|number| format!("{number:04}")).collect();
    let mut entries: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "1")).collect();
    entries[1_400].1 = "no json";
    register(&queries, 0, Availability::Running, &entries);
    register(&queries, 1, Availability::Running, &[]);
    let (code, found) = lines(&status, &format!("{STORE}/entries"));
    assert_eq!((code, found.len()), (200, 1_001), "a page, and then the reason");
    assert_eq!(kind(&found[1_000]["error"]), "format", "{}", found[1_000]);
}
