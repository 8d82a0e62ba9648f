//! Writes become records of the source topic, once for each idempotency key, and the answer says how far the state is.

use std::time::Duration;

use axum::http::Method;
use engine::broker::{BrokerErrorKind, ClientSupplier};
use engine::record::Record;
use engine::testing::{MockBroker, Operation};

use super::routed::{Pair, members};
use super::*;
use crate::formats;
use crate::rest::token::Token;
use crate::rest::writes::{Target, Writes};
use crate::runtime::stop::Stop;
use crate::runtime::writer::Writer;

const KEYS: &str = "/v1/apps/vote/stores/votes/keys";

/// A host whose store `votes` takes writes, with the broker that gets them.
struct Written {
    status: Arc<Status>,
    broker: MockBroker,
    sources: [Arc<SourcePositions>; 2],
    stop: Stop,
}

impl Drop for Written {
    fn drop(&mut self) {
        self.stop.raise();
    }
}

fn writable(conditional: bool) -> Written {
    let (status, queries) = host();
    let sources = [
        register_as(Role::Active, &queries, 0, Availability::Running, &[("a", "1"), ("c", "3")]),
        register_as(Role::Active, &queries, 1, Availability::Running, &[("b", "2")]),
    ];
    let (broker, stop) = (MockBroker::new(), Stop::default());
    broker.create_topic("reports", PARTITIONS);
    let clients: Arc<dyn ClientSupplier> = Arc::new(broker.clone());
    wire(&status, clients, &stop, conditional);
    Written { status, broker, sources, stop }
}

/// Has a host take writes for the store `votes`.
fn wire(status: &Status, clients: Arc<dyn ClientSupplier>, stop: &Stop, conditional: bool) {
    let target = Target {
        store: "votes".to_owned(),
        topic: "reports".into(),
        partitions: PARTITIONS,
        conditional,
        record_bytes_max: None,
    };
    let writer = Writer::start(clients, stop).expect("a thread");
    let writes = Some(Arc::new(Writes { targets: vec![target], writer, outcomes: Default::default() }));
    status.wire(Wired { writes, ..Wired::clone(&status.wired().expect("it is wired")) });
}

impl Written {
    fn send(&self, method: Method, path: &str, headers: &[(&str, &str)], body: &str) -> (u16, Value) {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Body::from(body.to_owned())).expect("a request");
        let (code, text) = super::send(&self.status, path, request);
        (code, serde_json::from_str(&text).expect(&text))
    }

    fn put(&self, path: &str, body: &str) -> (u16, Value) {
        self.send(Method::PUT, &format!("{KEYS}/{path}"), &[], body)
    }

    /// What was written, in the order of partitions.
    fn records(&self) -> Vec<Record> {
        (0..PARTITIONS).flat_map(|partition| self.broker.records("reports", partition)).collect()
    }
}

fn kind(body: &Value) -> &str {
    body["type"].as_str().unwrap_or_default().trim_start_matches("urn:sandbar:problem:")
}

#[test]
fn a_write_is_a_record_where_kafka_would_put_it() {
    let host = writable(false);
    let (code, body) = host.put("new?timestamp_ms=77", "{\"yes\": true}");
    assert_eq!((code, &body["applied"], &body["key"]), (202, &json!(false), &json!("new")), "{body}");
    let home = engine::partitioner::partition_for_key(b"new", PARTITIONS);
    let token = Token::read(body["consistency_token"].as_str().expect("a token"), "vote").expect("our own");
    let mut expected = Token::new("vote");
    expected.add_source("reports", home, 1);
    assert_eq!(token, expected);
    let (code, _) = host.send(Method::DELETE, &format!("{KEYS}/new"), &[], "");
    assert_eq!(code, 202);
    let records = host.broker.records("reports", home);
    let values: Vec<_> = records.iter().map(|record| (record.key.clone(), record.value.clone())).collect();
    assert_eq!(values, [(Some("new".into()), Some("{\"yes\": true}".into())), (Some("new".into()), None)]);
    assert_eq!(records[0].timestamp, 77);
    assert_eq!(host.put("n?value_format=i64", "258").0, 202);
    let n = host.broker.records("reports", engine::partitioner::partition_for_key(b"n", PARTITIONS));
    assert_eq!(n.last().and_then(|record| record.value.clone()), Some(258i64.to_be_bytes().to_vec().into()));
}

#[test]
fn a_write_waits_for_the_state_where_it_is_asked_to() {
    let host = writable(false);
    let home = engine::partitioner::partition_for_key(b"c", PARTITIONS);
    let sources = Arc::clone(&host.sources[home as usize]);
    let (code, body) = host.put("c?wait=applied&timeout_ms=50", "1");
    assert_eq!((code, &body["applied"]), (202, &json!(false)), "nothing processes it: {body}");
    assert!(body["reason"].as_str().is_some_and(|reason| reason.contains("not as far")), "{body}");
    sources.set([(TopicPartition::new("reports", home), 1)]);
    let processing = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(50));
        sources.set([(TopicPartition::new("reports", home), 2)]);
    });
    let (code, body) = host.put("c?wait=applied", "2");
    assert_eq!((code, &body["applied"], &body["entry"]["value"]), (200, &json!(true), &json!(3)), "{body}");
    processing.join().expect("no panic");
    host.sources.iter().zip(0..).for_each(|(sources, at)| sources.set([(TopicPartition::new("reports", at), 9)]));
    let (code, body) = host.send(Method::DELETE, &format!("{KEYS}/gone?wait=applied"), &[], "");
    assert_eq!((code, &body["applied"], &body["entry"]), (200, &json!(true), &Value::Null), "{body}");
}

#[test]
fn a_write_under_an_idempotency_key_is_done_once() {
    let host = writable(false);
    let key = [("Idempotency-Key", "order-7")];
    let path = format!("{KEYS}/x");
    let (first, again) = (host.send(Method::PUT, &path, &key, "1"), host.send(Method::PUT, &path, &key, "1"));
    assert_eq!((first.0, &first.1), (202, &again.1));
    let records = host.records();
    assert_eq!(records.len(), 1, "one record");
    let header = &records[0].headers[0];
    assert_eq!((&*header.key, header.value.as_deref()), (&b"idempotency-key"[..], Some(&b"order-7"[..])));
    let (code, body) = host.send(Method::PUT, &path, &key, "2");
    assert_eq!((code, kind(&body)), (422, "idempotency-key-reused"), "{body}");
    let (code, _) = host.send(Method::PUT, &format!("{KEYS}/y"), &key, "2");
    assert_eq!((code, host.records().len()), (202, 2), "a key of its own for each key of the store");
    let (code, body) = host.send(Method::PUT, &path, &[("Idempotency-Key", "1"), ("Idempotency-Key", "2")], "2");
    assert_eq!((code, kind(&body)), (400, "bad-request"), "{body}");
    let (code, body) = host.send(Method::PUT, &path, &[("Idempotency-Key", "a b")], "2");
    assert_eq!((code, kind(&body)), (400, "bad-request"), "{body}");
    host.broker.fail(Operation::Delivery, BrokerErrorKind::Abortable);
    let unsure = [("Idempotency-Key", "order-8")];
    let (code, body) = host.send(Method::PUT, &path, &unsure, "3");
    assert_eq!((code, kind(&body)), (503, "write-unknown"), "{body}");
    let (code, body) = host.send(Method::PUT, &path, &unsure, "3");
    assert_eq!((code, kind(&body)), (409, "write-unknown"), "nobody writes it a second time: {body}");
}

#[test]
fn conditions_are_for_a_processor_that_looks_at_them() {
    let condition = [("If-Match", "\"0123\""), ("If-None-Match", "*")];
    let (code, body) = writable(false).send(Method::PUT, &format!("{KEYS}/x"), &condition, "1");
    assert_eq!((code, kind(&body)), (501, "not-conditional"), "{body}");
    let host = writable(true);
    for refused in ["0123", "W/\"0123\"", "\"01\", \"23\"", "\"\"", ""] {
        let (code, body) = host.send(Method::PUT, &format!("{KEYS}/x"), &[("If-None-Match", refused)], "1");
        assert_eq!((code, kind(&body)), (400, "bad-request"), "{refused}: {body}");
    }
    assert_eq!(host.send(Method::PUT, &format!("{KEYS}/x"), &condition, "1").0, 202);
    let record = host.records().remove(0);
    let headers: Vec<_> = record.headers.iter().map(|header| (&*header.key, header.value.as_deref())).collect();
    let expected: [(&[u8], Option<&[u8]>); 2] =
        [(b"sandbar-if-match", Some(b"0123")), (b"sandbar-if-none-match", Some(b"*"))];
    assert_eq!(headers, expected);
    let (_, body) = ask(&host.status, &format!("{KEYS}/b"));
    assert_eq!(body["version"], json!(formats::version(b"2")));
}

#[test]
fn a_batch_is_written_in_order() {
    let host = writable(false);
    let batch = |body: Value| {
        let json = [("Content-Type", "application/json")];
        host.send(Method::POST, "/v1/apps/vote/stores/votes/batch-write", &json, &body.to_string())
    };
    let (code, body) = batch(json!({ "writes": [
        { "key": "a", "value": { "x": 1 } }, { "key": "b", "value": 1 }, { "key": "a", "delete": true },
    ] }));
    assert_eq!((code, &body["writes"]), (202, &json!(3)), "{body}");
    let home = engine::partitioner::partition_for_key(b"a", PARTITIONS);
    let of_a: Vec<_> = host.broker.records("reports", home).into_iter().filter(|r| r.key == Some("a".into())).collect();
    assert_eq!(of_a.iter().map(|record| record.value.as_deref()).collect::<Vec<_>>(), [Some(&br#"{"x":1}"#[..]), None]);
    for refused in [
        json!({ "writes": [] }),
        json!({ "writes": [{ "key": "a" }] }),
        json!({ "writes": [{ "key": "a", "value": null }] }),
        json!({ "writes": [{ "key": "a", "value": 1, "delete": true }] }),
        json!({ "writes": [{ "key": 1, "value": 1 }] }),
    ] {
        let (code, body) = batch(refused);
        assert_eq!((code, kind(&body)), (400, "bad-request"), "{body}");
    }
    assert_eq!(host.records().len(), 3, "a batch that cannot be read writes nothing");
}

#[test]
fn what_cannot_be_written_is_refused_before_it_is() {
    let host = writable(false);
    for (path, code, expected) in [
        ("x?wait=done", 400, "bad-request"),
        ("x?timeout_ms=5", 400, "bad-request"),
        ("x?timestamp_ms=-1", 400, "bad-request"),
        ("x?timestamp_ms=4102444800000", 400, "bad-request"),
        ("x?wait=applied&timeout_ms=10001", 400, "bad-request"),
        ("x?value_format=i64", 400, "bad-request"),
        ("x?value_format=text", 400, "bad-request"),
        ("x?key_format=i32", 400, "bad-request"),
        ("x?partition=0", 400, "bad-request"),
    ] {
        let (found, body) = host.put(path, "no number");
        assert_eq!((found, kind(&body)), (code, expected), "{path}: {body}");
    }
    let (code, body) = host.send(Method::PUT, "/v1/apps/vote/stores/blobs/keys/AA==", &[], "1");
    assert_eq!((code, kind(&body)), (405, "not-writable"), "{body}");
    let (code, body) = host.send(Method::PUT, &format!("{KEYS}/x"), &[], &"x".repeat(2 << 20));
    assert_eq!((code, kind(&body)), (413, "body-too-large"), "{body}");
    assert!(host.records().is_empty());
}

const JSON: (&str, &str) = ("Content-Type", "application/json");
const STORE: &str = "/v1/apps/vote/stores/votes";

#[test]
fn a_list_is_not_taken_for_an_object() {
    let host = writable(false);
    for (route, body) in [
        ("batch-get", json!([["a"]])),
        ("batch-get", json!("a")),
        ("batch-write", json!([[{ "key": "a", "value": 1 }]])),
        ("batch-write", json!({ "writes": [["a", 1, false]] })),
    ] {
        let (code, answer) = host.send(Method::POST, &format!("{STORE}/{route}"), &[JSON], &body.to_string());
        assert_eq!((code, kind(&answer)), (400, "bad-request"), "{route} {body}: {answer}");
        assert!(answer["detail"].as_str().is_some_and(|detail| detail.contains("an object")), "{answer}");
    }
    assert!(host.records().is_empty());
}

#[test]
fn a_body_that_cannot_be_read_is_not_one_of_another_media_type() {
    let host = writable(false);
    for route in ["batch-get", "batch-write"] {
        let text: &[(&str, &str)] = &[("Content-Type", "text/plain")];
        for (headers, body, expected) in [
            (text, "{}", (415, "unsupported-media-type")),
            (&[], "{}", (415, "unsupported-media-type")),
            (&[JSON], "{", (400, "bad-request")),
            (&[JSON], "{}", (400, "bad-request")),
            (&[JSON], "{\"keys\":1,\"writes\":1}", (400, "bad-request")),
        ] {
            let (code, answer) = host.send(Method::POST, &format!("{STORE}/{route}"), headers, body);
            assert_eq!((code, kind(&answer)), expected, "{route} {headers:?} {body}: {answer}");
        }
    }
}

#[test]
fn a_json_value_stays_as_the_client_wrote_it() {
    let host = writable(false);
    let home = engine::partitioner::partition_for_key(b"c", PARTITIONS);
    let queries = &host.status.wired().expect("it is wired").queries;
    let value = "{\"z\":1.50,\r\n\"a\":9007199254740993000001}\n";
    let sources = register_as(Role::Active, queries, home, Availability::Running, &[("c", value)]);
    sources.set([(TopicPartition::new("reports", home), 9)]);
    let put = |query: &str, body: &str| {
        let path = format!("{KEYS}/c?wait=applied{query}");
        let request = Request::put(&path).body(Body::from(body.to_owned())).expect("a request");
        super::send(&host.status, &path, request)
    };
    let expected = "\"value\":{\"z\":1.50,\"a\":9007199254740993000001}";
    for query in ["", "&value_format=json"] {
        let (code, text) = put(query, value);
        assert!(code == 200 && text.contains(expected), "{query}: {code} {text}");
    }
    let (code, text) = put("&value_format=hex", &formats::hex(value.as_bytes()));
    assert!(code == 200 && text.contains(expected), "the store is JSON: {code} {text}");
    for record in host.records() {
        assert_eq!(record.value.as_deref(), Some(value.as_bytes()));
    }
    assert_eq!(host.records().len(), 3);
}

/// Declares another format of the values of `votes`.
fn declare(status: &Status, value_format: &str) {
    let wired = status.wired().expect("it is wired");
    let mut topology = Topology::clone(&wired.topology);
    topology.sub_topologies[0].stores[0].value_format = value_format.into();
    status.wire(Wired { topology: Arc::new(topology), ..Wired::clone(&wired) });
}

#[test]
fn an_entry_is_shown_in_the_format_of_the_store_and_not_of_the_body() {
    // The processor counts words: the body is text, and what the store has under the key is a number.
    let host = writable(false);
    let home = engine::partitioner::partition_for_key(b"c", PARTITIONS);
    let queries = &host.status.wired().expect("it is wired").queries;
    let sources = register_as(Role::Active, queries, home, Availability::Running, &[("c", "\0\0\0\0\0\0\0\u{7}")]);
    sources.set([(TopicPartition::new("reports", home), 9)]);
    for (declared, expected) in [("i64", json!(7)), ("bytes", json!("\0\0\0\0\0\0\0\u{7}"))] {
        declare(&host.status, declared);
        let (code, body) = host.put("c?wait=applied&value_format=utf8", "seven words");
        assert_eq!((code, &body["entry"]["value"]), (200, &expected), "{declared}: {body}");
        let (_, body) = host.put("c?wait=applied", "seven words");
        let (_, read) = ask(&host.status, &format!("{KEYS}/c"));
        assert_eq!(body["entry"]["value"], read["value"], "{declared}: {body}");
    }
}

#[test]
fn a_write_whose_owner_refuses_the_connection_was_not_written() {
    let pair = Pair::whole();
    let (broker, stop) = (MockBroker::new(), Stop::default());
    broker.create_topic("reports", PARTITIONS);
    wire(&pair.asked, Arc::new(broker.clone()), &stop, false);
    // Nobody listens at this port.
    pair.say([Some(members(&[("aa", "127.0.0.1:2", &[0]), ("cc", "127.0.0.1:1", &[1])]))]);
    let key = (0..)
        .map(|n| format!("k{n}"))
        .find(|key| engine::partitioner::partition_for_key(key.as_bytes(), PARTITIONS) == 1);
    let request = Request::put(format!("{KEYS}/{}", key.expect("one of them"))).header("Idempotency-Key", "1");
    let (code, headers, body) = pair.send(request.body(Body::from("1")).expect("a request"));
    assert_eq!((code, kind(&body)), (503, "write-unavailable"), "{body}");
    assert!(headers.contains_key(header::RETRY_AFTER), "{body}");
    // An earlier attempt may have been in doubt, and whoever makes this one must not be told that it was not written.
    assert_eq!(body["title"], json!("this request wrote nothing"));
    let detail = body["detail"].as_str().unwrap_or_default();
    assert!(detail.contains("an earlier one under the same idempotency key may have"), "{body}");
    stop.raise();
}
