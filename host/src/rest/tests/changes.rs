//! Subscriptions on a broker in memory: what is told, what never is, where it goes on, and why it may be refused.

use std::future::poll_fn;
use std::pin::Pin;
use std::time::Duration;

use axum::body::HttpBody;
use broker::core::CoreOptions;
use broker::core::admin::NewTopic;
use broker::core::memory::MemoryStorage;
use broker::direct::{ClientOptions, DirectBroker, Faults};
use engine::broker::{ClientSupplier, Producer, ProducerRecord};
use engine::testing::ManualClock;
use engine::topology::StoreChangelog;

use super::*;
use crate::rest::changes::Changelogs;
use crate::rest::changes::position::write_from;
use crate::runtime::stop::Stop;

const CHANGES: &str = "/v1/apps/vote/stores/votes/changes";
const CHANGELOG: &str = "vote-votes-changelog";
const NDJSON: (&str, &str) = ("accept", "application/x-ndjson");
const LIMIT: Duration = Duration::from_secs(10);

/// A host whose store `votes` has a changelog on a broker in memory.
struct Subscribed {
    runtime: tokio::runtime::Runtime,
    broker: DirectBroker,
    clients: Arc<dyn ClientSupplier>,
    status: Arc<Status>,
    stop: Stop,
}

/// An answer that goes on.
struct Stream<'a> {
    runtime: &'a tokio::runtime::Runtime,
    body: Body,
    text: String,
}

impl Subscribed {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
        let (storage, clock) = (Arc::new(MemoryStorage::new()), Arc::new(ManualClock::new(1_000)));
        let broker = DirectBroker::open(CoreOptions::default(), storage, clock, Faults::none()).expect("opens");
        let topic = NewTopic { name: CHANGELOG.to_owned(), partitions: PARTITIONS, configs: Default::default() };
        broker.core().create_topic(&topic, false).expect("is created");
        let clients: Arc<dyn ClientSupplier> = Arc::new(broker.clients(ClientOptions::new("aa", "vote")));
        let (status, _) = host();
        let stop = Stop::default();
        let changelogs = Some(Changelogs::new(Arc::clone(&clients), stop.clone()));
        status.wire(Wired { changelogs, ..Wired::clone(&status.wired().expect("it is wired")) });
        Self { runtime, broker, clients, status, stop }
    }

    fn producer(&self, id: &str) -> Box<dyn Producer> {
        let mut producer = self.clients.producer(0, Some(id)).expect("a producer");
        producer.init_transactions(LIMIT).expect("nobody else has the id");
        producer
    }

    /// Writes changes in a transaction, and ends it.
    fn write(&self, changes: &[(i32, &str, Option<&str>)]) {
        let mut producer = self.producer("writer");
        producer.begin_transaction().expect("begins");
        send(&mut *producer, changes);
        producer.commit_transaction(LIMIT).expect("is committed");
    }

    fn respond(&self, path: &str, headers: &[(&str, &str)]) -> Response {
        self.runtime.block_on(async {
            let mut request = Request::get(path);
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            let request = request.body(Body::empty()).expect("a request");
            routes(Arc::clone(&self.status)).oneshot(request).await.expect("infallible")
        })
    }

    fn subscribe(&self, query: &str, headers: &[(&str, &str)]) -> Stream<'_> {
        let response = self.respond(&format!("{CHANGES}{query}"), headers);
        assert_eq!(response.status(), StatusCode::OK, "{query}");
        Stream { runtime: &self.runtime, body: response.into_body(), text: String::new() }
    }

    /// As NDJSON, from after its first sign of life on.
    fn changes(&self, query: &str) -> Stream<'_> {
        let mut stream = self.subscribe(query, &[NDJSON]);
        stream.line().expect("a sign of life");
        stream
    }

    fn refusal(&self, query: &str) -> (u16, Value) {
        let response = self.respond(&format!("{CHANGES}{query}"), &[]);
        let code = response.status().as_u16();
        let body = self.runtime.block_on(axum::body::to_bytes(response.into_body(), 1 << 20)).expect("a body");
        let body: Value = serde_json::from_slice(&body).expect("a problem");
        (code, body["type"].clone())
    }
}

fn send(producer: &mut dyn Producer, changes: &[(i32, &str, Option<&str>)]) {
    for (partition, key, value) in changes {
        let record = ProducerRecord {
            topic: &CHANGELOG.into(),
            partition: Some(*partition),
            timestamp: 5,
            key: Some(key.as_bytes()),
            value: value.map(str::as_bytes),
            headers: &[],
        };
        producer.send(record).expect("is taken");
    }
    producer.flush(LIMIT).expect("is written");
}

impl Stream<'_> {
    /// The next line; `None` at the end.
    fn line(&mut self) -> Option<String> {
        let (body, text) = (&mut self.body, &mut self.text);
        self.runtime.block_on(async {
            loop {
                if let Some((line, rest)) = text.split_once('\n') {
                    let (line, rest) = (line.to_owned(), rest.to_owned());
                    *text = rest;
                    return Some(line);
                }
                let frame = poll_fn(|context| Pin::new(&mut *body).poll_frame(context));
                let frame = tokio::time::timeout(LIMIT, frame).await.expect("something in time")?.expect("whole");
                text.push_str(std::str::from_utf8(&frame.into_data().expect("data")).expect("text"));
            }
        })
    }

    /// The next change, past signs of life.
    fn change(&mut self) -> Value {
        loop {
            let line = self.line().expect("a change");
            let change: Value = serde_json::from_str(&line).expect("JSON");
            if !change["offset"].is_null() || !change["problem"].is_null() {
                return change;
            }
        }
    }

    /// Key and value of so many changes.
    fn take(&mut self, count: usize) -> Vec<(String, Value)> {
        let pair = |change: Value| (change["key"].as_str().expect("a key").to_owned(), change["value"].clone());
        (0..count).map(|_| pair(self.change())).collect()
    }
}

fn pairs(of: &[(&str, Value)]) -> Vec<(String, Value)> {
    of.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect()
}

#[test]
fn every_committed_change_is_told_and_an_aborted_one_never() {
    let host = Subscribed::new();
    host.write(&[(0, "before", Some("0"))]);
    let mut stream = host.changes("");
    host.write(&[(0, "a", Some("1")), (0, "a", Some("{\"yes\":true}"))]);
    let mut aborting = host.producer("aborting");
    aborting.begin_transaction().expect("begins");
    send(&mut *aborting, &[(0, "a", Some("9")), (0, "z", Some("9"))]);
    aborting.abort_transaction(LIMIT).expect("is aborted");
    host.write(&[(0, "a", None)]);
    assert_eq!(stream.take(2), pairs(&[("a", json!(1)), ("a", json!({ "yes": true }))]));
    let last = stream.change();
    assert_eq!((&last["key"], &last["value"], &last["timestamp"]), (&json!("a"), &Value::Null, &json!(5)), "{last}");
    assert!(last["offset"].as_i64() > Some(4) && last["partition"] == 0, "{last}");
    host.write(&[(1, "b", Some("2"))]);
    assert_eq!(stream.take(1), pairs(&[("b", json!(2))]));
}

#[test]
fn what_is_committed_after_the_beginning_is_told_even_if_it_was_written_before() {
    let host = Subscribed::new();
    let mut open = host.producer("open");
    open.begin_transaction().expect("begins");
    send(&mut *open, &[(0, "a", Some("1"))]);
    let mut stream = host.changes("");
    open.commit_transaction(LIMIT).expect("is committed");
    assert_eq!(stream.take(1), pairs(&[("a", json!(1))]));
}

#[test]
fn a_key_or_a_prefix_is_told_alone() {
    let host = Subscribed::new();
    let (mut key, mut prefix) = (host.changes("?key=da"), host.changes("?prefix=d"));
    let mut hex = host.changes("?key=6461&key_format=hex&value_format=base64");
    host.write(&[(0, "a", Some("1")), (1, "d", Some("2")), (1, "da", Some("3")), (1, "e", Some("4"))]);
    host.write(&[(1, "da", None), (1, "dada", Some("5"))]);
    assert_eq!(key.take(2), pairs(&[("da", json!(3)), ("da", Value::Null)]));
    assert_eq!(prefix.take(4), pairs(&[("d", json!(2)), ("da", json!(3)), ("da", Value::Null), ("dada", json!(5))]));
    assert_eq!(hex.take(2), pairs(&[("6461", json!("Mw==")), ("6461", Value::Null)]));
}

#[test]
fn it_goes_on_where_it_was() {
    let host = Subscribed::new();
    let mut first = host.changes("");
    host.write(&[(0, "a", Some("1")), (0, "b", Some("2")), (0, "c", Some("3"))]);
    first.change();
    let position = first.change()["position"].as_str().expect("a position").to_owned();
    drop(first);
    host.write(&[(1, "d", Some("4"))]);
    let mut second = host.changes(&format!("?from={position}"));
    let mut found = second.take(2);
    found.sort_by(|one, other| one.0.cmp(&other.0));
    assert_eq!(found, pairs(&[("c", json!(3)), ("d", json!(4))]));

    assert_eq!(host.changes("?from=beginning&prefix=c").take(1), pairs(&[("c", json!(3))]));
    // A client that comes back asks as before and says what it has seen.
    let mut third = host.subscribe("?from=beginning", &[NDJSON, ("last-event-id", &position)]);
    assert_eq!(third.take(1)[0].0, "c");
}

#[test]
fn signs_of_life_carry_the_position_past_what_is_left_out() {
    let host = Subscribed::new();
    let mut stream = host.subscribe("?key=nobody&from=beginning", &[]);
    let lines: Vec<Option<String>> = (0..3).map(|_| stream.line()).collect();
    let [Some(comment), Some(id), Some(empty)] = &lines[..] else { panic!("{lines:?}") };
    assert_eq!((comment.as_str(), empty.as_str()), (": heartbeat", ""));
    assert!(id.starts_with("id: "), "{id}");
}

#[test]
fn server_sent_events_have_an_id_and_one_line_of_data() {
    let host = Subscribed::new();
    let mut stream = host.subscribe("", &[("accept", "text/event-stream")]);
    (0..3).for_each(|_| drop(stream.line()));
    host.write(&[(0, "a", Some("{\n\"yes\": true}"))]);
    let (id, data, empty) = (stream.line(), stream.line(), stream.line());
    let (id, data) = (id.expect("an id"), data.expect("data"));
    let data: Value = serde_json::from_str(data.strip_prefix("data: ").expect("data")).expect("JSON");
    let expected = json!({ "partition": 0, "offset": 0, "key": "a", "value": { "yes": true }, "timestamp": 5 });
    assert_eq!((data, empty.as_deref()), (expected, Some("")));
    let position = id.strip_prefix("id: ").expect("an id");
    host.write(&[(0, "b", Some("2"))]);
    assert_eq!(host.changes(&format!("?from={position}")).take(1), pairs(&[("b", json!(2))]));
}

#[test]
fn a_change_that_cannot_be_shown_ends_it_and_says_so() {
    let host = Subscribed::new();
    let mut stream = host.changes("?value_format=i64");
    host.write(&[(0, "a", Some("12345678")), (0, "b", Some("short")), (0, "c", Some("12345678"))]);
    assert_eq!(stream.take(1)[0].0, "a");
    assert_eq!(stream.change()["problem"]["type"], json!("urn:sandbar:problem:format"));
    assert_eq!(stream.line(), None);
}

#[test]
fn a_position_that_the_log_does_not_hold_has_expired() {
    let host = Subscribed::new();
    let position = |partition: i32, offset: i64| write_from(&BTreeMap::from([(partition, offset)]));
    host.write(&[(0, "a", Some("1")), (0, "b", Some("2"))]);
    host.broker.core().delete_records(CHANGELOG, 0, 1).expect("are deleted");
    for (query, code, kind) in [
        (format!("?from={}", position(0, 0)), 410, "position-expired"),
        (format!("?from={}", position(0, 4711)), 410, "position-expired"),
        (format!("?from={}", position(2, 0)), 400, "bad-request"),
        ("?from=yesterday".to_owned(), 400, "bad-request"),
        ("?from=".to_owned(), 400, "bad-request"),
        ("?key=a&prefix=b".to_owned(), 400, "bad-request"),
        ("?key=x&key_format=i64".to_owned(), 400, "bad-request"),
        ("?since=1".to_owned(), 400, "bad-request"),
    ] {
        let expected = (code, json!(format!("urn:sandbar:problem:{kind}")));
        assert_eq!(host.refusal(&query), expected, "{query}");
    }
    assert_eq!(host.changes(&format!("?from={}", position(0, 1))).take(1), pairs(&[("b", json!(2))]));
}

#[test]
fn a_store_without_a_changelog_tells_no_changes() {
    let host = Subscribed::new();
    let wired = host.status.wired().expect("it is wired");
    let mut topology = Topology::clone(&wired.topology);
    topology.sub_topologies[0].stores[0].changelog = StoreChangelog::Off;
    host.status.wire(Wired { topology: Arc::new(topology), ..Wired::clone(&wired) });
    assert_eq!(host.refusal(""), (409, json!("urn:sandbar:problem:no-changelog")));
    let (code, body) = ask(&host.status, "/v1/apps/vote/stores/nothing/changes");
    assert_eq!((code, &body["type"]), (404, &json!("urn:sandbar:problem:store-not-found")));
    let (code, body) = ask(&host.status, "/v1/apps/vote/stores/blobs/changes");
    assert_eq!((code, &body["type"]), (503, &json!("urn:sandbar:problem:changelog-unavailable")), "{body}");
}

#[test]
fn a_host_serves_so_many_subscriptions_and_no_more() {
    let host = Subscribed::new();
    let mut streams: Vec<Stream<'_>> = (0..32).map(|_| host.subscribe("", &[NDJSON])).collect();
    let response = host.respond(CHANGES, &[]);
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(response.headers().contains_key(header::RETRY_AFTER));
    assert_eq!(host.refusal("").1, json!("urn:sandbar:problem:too-many-subscriptions"));
    // A client that goes makes room.
    streams.pop();
    let since = std::time::Instant::now();
    while host.respond(CHANGES, &[NDJSON]).status() != StatusCode::OK {
        assert!(since.elapsed() < LIMIT, "its place is not given back");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn the_end_of_the_host_ends_it() {
    let host = Subscribed::new();
    let mut stream = host.changes("");
    host.write(&[(0, "a", Some("1"))]);
    assert_eq!(stream.take(1)[0].0, "a");
    let since = std::time::Instant::now();
    host.stop.raise();
    assert_eq!(stream.line(), None);
    assert!(since.elapsed() < Duration::from_secs(2), "{:?}", since.elapsed());
}
