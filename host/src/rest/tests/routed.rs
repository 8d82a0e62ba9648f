//! Two hosts on loopback that have a partition each, and a group that may be wrong about it.

use std::collections::{BTreeSet, VecDeque};
use std::net::TcpListener;
use std::sync::Mutex;

use axum::http::HeaderMap;
use engine::broker::{BrokerError, GroupMember, Membership};

use super::*;
use crate::networks::PeerNetworks;
use crate::routes::RouteFinder;
use crate::runtime::status::Routing;

mod poisoned;

/// The answers of a group, one after the other; the last one stays.
type Answers = Arc<Mutex<VecDeque<Option<Vec<GroupMember>>>>>;

struct Group(Answers);

impl Membership for Group {
    fn members(&mut self) -> Result<Option<Vec<GroupMember>>, BrokerError> {
        let mut answers = self.0.lock().expect("no panic");
        let last = answers.len() == 1;
        Ok(if last { answers.front().cloned().flatten() } else { answers.pop_front().flatten() })
    }
}

/// Members by the endpoints of their hosts, with their partitions.
pub fn members(of: &[(&str, &str, &[i32])]) -> Vec<GroupMember> {
    let member = |(id, endpoint, partitions): &(&str, &str, &[i32])| GroupMember {
        member_id: (*id).to_owned(),
        client_id: format!("vote-{id}@{endpoint}-consumer-0"),
        host: "/127.0.0.1".to_owned(),
        assigned: partitions.iter().map(|&at| TopicPartition::new("reports", at)).collect(),
    };
    of.iter().map(member).collect()
}

/// Two hosts: `aa`, which is asked, has partition 0, and `bb`, which listens, partition 1.
pub struct Pair {
    runtime: tokio::runtime::Runtime,
    pub asked: Arc<Status>,
    pub other: Arc<QueryRegistry>,
    endpoint: String,
    answers: Answers,
    /// The other host ends when it is dropped.
    _stop: tokio::sync::watch::Sender<bool>,
}

fn routing(id: &str, answers: &Answers, status: &Status) -> Routing {
    let topology = status.wired().expect("it is wired").topology.clone();
    let group = Box::new(Group(Arc::clone(answers)));
    let tasks: BTreeSet<TaskId> = (0..PARTITIONS).map(|partition| TaskId { sub_topology: 0, partition }).collect();
    let finder = RouteFinder::with(id, group, topology, tasks, 2);
    Routing { finder: Arc::new(finder), peers: Arc::new(peers::Peers::new(PeerNetworks::default())) }
}

impl Pair {
    pub fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
        let ((asked, here), (other, there)) = (host(), host());
        register(&here, 0, Availability::Running, &[("a", "1"), ("c", "3"), ("e", "5")]);
        let listener = bind("127.0.0.1:0").expect("a port");
        let endpoint = listener.local_addr().expect("bound").to_string();
        let settled = members(&[("aa", "127.0.0.1:1", &[0]), ("bb", &endpoint, &[1])]);
        let answers: Answers = Arc::new(Mutex::new(VecDeque::from([Some(settled)])));
        for (id, status) in [("aa", &asked), ("bb", &other)] {
            let routing = runtime.block_on(async { routing(id, &answers, status) });
            status.wire(Wired { routing: Some(routing), ..Wired::clone(&status.wired().expect("it is wired")) });
        }
        let (sender, stop) = tokio::sync::watch::channel(false);
        runtime.spawn(serve(listener, routes(other), stop));
        Self { runtime, asked, other: there, endpoint, answers, _stop: sender }
    }

    /// With partition 1 on the other host.
    pub fn whole() -> Self {
        let pair = Self::new();
        register(&pair.other, 1, Availability::Running, &[("b", "2"), ("d", "4")]);
        pair
    }

    pub fn say(&self, answers: impl IntoIterator<Item = Option<Vec<GroupMember>>>) {
        *self.answers.lock().expect("no panic") = answers.into_iter().collect();
    }

    fn ask_as(&self, from: Option<&str>, path: &str) -> (u16, HeaderMap, Value) {
        let mut request = Request::get(path);
        if let Some(from) = from {
            request = request.header(peers::FORWARDED_BY, from);
        }
        self.send(request.body(Body::empty()).expect("a request"))
    }

    pub fn post(&self, path: &str, document: &Value) -> (u16, Value) {
        let request = Request::post(path).header(header::CONTENT_TYPE, "application/json");
        let (code, _, body) = self.send(request.body(Body::from(document.to_string())).expect("a request"));
        (code, body)
    }

    pub fn send(&self, request: Request<Body>) -> (u16, HeaderMap, Value) {
        self.runtime.block_on(async {
            let response = routes(Arc::clone(&self.asked)).oneshot(request).await.expect("infallible");
            let (code, headers) = (response.status().as_u16(), response.headers().clone());
            let body = axum::body::to_bytes(response.into_body(), 1 << 20).await.expect("a body");
            (code, headers, serde_json::from_slice(&body).unwrap_or_default())
        })
    }

    pub fn ask(&self, path: &str) -> (u16, Value) {
        let (code, _, body) = self.ask_as(None, path);
        (code, body)
    }
}

const STORE: &str = "/v1/apps/vote/stores/votes";

#[test]
fn a_key_of_another_host_is_asked_there() {
    let pair = Pair::whole();
    let (code, body) = pair.ask(&format!("{STORE}/keys/b"));
    assert_eq!((code, &body["value"], &body["position"]["partition"]), (200, &json!(2), &json!(1)), "{body}");
    assert_eq!(pair.ask(&format!("{STORE}/keys/d?key_format=utf8&value_format=base64")).1["value"], json!("NA=="));
    assert_eq!(pair.ask(&format!("{STORE}/keys/64?key_format=hex")).1["key"], json!("64"));
    assert_eq!(pair.ask(&format!("{STORE}/keys/a")).1["value"], json!(1));
    let (code, body) = pair.ask(&format!("{STORE}/keys/zz"));
    assert_eq!((code, &body["type"]), (404, &json!("urn:sandbar:problem:key-not-found")), "both were asked: {body}");
    let (code, body) = pair.ask(&format!("{STORE}/keys/d?value_format=i64"));
    assert_eq!((code, &body["type"]), (422, &json!("urn:sandbar:problem:format")), "{body}");
}

#[test]
fn the_pages_of_two_hosts_are_one() {
    let pair = Pair::whole();
    assert_eq!(keys(&pair.ask(&format!("{STORE}/entries")).1), ["a", "b", "c", "d", "e"]);
    assert_eq!(keys(&pair.ask(&format!("{STORE}/entries?from=b&to=e&reverse=true")).1), ["d", "c", "b"]);
    assert_eq!(keys(&pair.ask(&format!("{STORE}/entries?prefix=d")).1), ["d"]);
    assert_eq!(keys(&pair.ask(&format!("{STORE}/entries?partition=1")).1), ["b", "d"]);
    for reverse in [false, true] {
        let (mut found, mut cursor) = (Vec::new(), String::new());
        loop {
            let (code, body) = pair.ask(&format!("{STORE}/entries?limit=2&reverse={reverse}{cursor}"));
            assert_eq!((code, body["positions"].as_array().map(Vec::len)), (200, Some(2)), "{body}");
            found.extend(keys(&body).into_iter().map(str::to_owned));
            match body["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => break,
            }
        }
        found.sort();
        assert_eq!(found, ["a", "b", "c", "d", "e"]);
    }
}

#[test]
fn a_partition_without_an_answer_is_named_and_never_left_out() {
    let pair = Pair::new();
    for path in ["keys/b", "keys/zz", "entries", "entries?partition=1"] {
        let (code, headers, body) = pair.ask_as(None, &format!("{STORE}/{path}"));
        assert_eq!((code, &body["type"]), (503, &json!("urn:sandbar:problem:not-here")), "{path}: {body}");
        assert!(headers.contains_key(header::RETRY_AFTER), "{path}");
        let detail = body["detail"].as_str().unwrap_or_default();
        assert!(detail.contains("partition 1") && detail.contains(&pair.endpoint), "{path}: {detail}");
    }
    register(&pair.other, 1, Availability::Restoring { position: 3, target: 10 }, &[]);
    let (code, body) = pair.ask(&format!("{STORE}/keys/b"));
    assert!(code == 503 && body["detail"].as_str().is_some_and(|detail| detail.contains("3 of 10")), "{body}");
    assert_eq!(pair.ask(&format!("{STORE}/entries")).0, 503);
    // What is here needs nobody.
    assert_eq!(pair.ask(&format!("{STORE}/keys/a")).0, 200);
    assert_eq!(pair.ask(&format!("{STORE}/entries?partition=0")).0, 200);
}

#[test]
fn a_host_without_tasks_is_not_ready_before_its_group_has_settled() {
    let pair = Pair::whole();
    pair.asked.set_phase(Phase::Running);
    let wired = pair.asked.wired().expect("it is wired");
    pair.asked.wire(Wired { threads: Vec::new(), ..Wired::clone(&wired) });
    let settled = pair.answers.lock().expect("no panic").front().cloned().expect("one");
    pair.say([None]);
    let (code, body) = pair.ask("/readyz");
    let detail = body["detail"].as_str().unwrap_or_default();
    assert!(code == 503 && detail.contains("the group is rebalancing"), "{body}");
    assert_eq!(pair.ask("/v1/apps/vote").1["not_ready"], body["detail"]);
    pair.say([settled]);
    std::thread::sleep(std::time::Duration::from_millis(1_100));
    assert_eq!(pair.ask("/readyz").0, 200, "others have the tasks");
}

#[test]
fn a_batch_that_is_too_large_for_the_other_host_is_no_reason_to_ask_again() {
    let pair = Pair::new();
    let value = format!("{:?}", "x".repeat(1 << 20));
    let keys: Vec<String> = (0..34).map(|number| format!("big{number}")).collect();
    let entries: Vec<(&str, &str)> = keys.iter().map(|key| (key.as_str(), value.as_str())).collect();
    register(&pair.other, 1, Availability::Running, &entries);
    let (code, body) = pair.post(&format!("{STORE}/batch-get"), &json!({ "keys": keys }));
    assert_eq!((code, &body["type"]), (413, &json!("urn:sandbar:problem:too-large")), "{body}");
    assert!(body["detail"].as_str().is_some_and(|detail| detail.contains("fewer keys")), "{body}");
}

#[test]
fn a_host_that_does_not_answer_is_no_answer() {
    let pair = Pair::whole();
    // Bound, and so nobody else's, but not listened to in time.
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = silent.local_addr().expect("bound").to_string();
    for endpoint in ["127.0.0.1:1", &address] {
        pair.say([Some(members(&[("aa", "127.0.0.1:2", &[0]), ("cc", endpoint, &[1])]))]);
        let (code, body) = pair.ask(&format!("{STORE}/keys/b"));
        let detail = body["detail"].as_str().unwrap_or_default();
        assert!(code == 503 && detail.contains(endpoint), "{code}: {body}");
        std::thread::sleep(std::time::Duration::from_millis(1_100));
    }
}

#[test]
fn a_wrong_route_is_looked_up_again() {
    let pair = Pair::whole();
    let settled = pair.answers.lock().expect("no panic").front().cloned().expect("one");
    let wrong = Some(members(&[("aa", "127.0.0.1:2", &[0]), ("cc", "127.0.0.1:1", &[1])]));
    let nobody = Some(members(&[("aa", "127.0.0.1:2", &[0])]));
    for (what, first) in [("another host", wrong), ("nobody", nobody), ("rebalancing", None)] {
        for path in ["keys/b", "entries"] {
            std::thread::sleep(std::time::Duration::from_millis(1_100));
            pair.say([first.clone(), settled.clone()]);
            let (code, body) = pair.ask(&format!("{STORE}/{path}"));
            assert_eq!(code, 200, "{what}, {path}: {body}");
        }
    }
}

#[test]
fn a_standby_answers_where_it_may_and_the_active_host_is_gone() {
    let pair = Pair::new();
    register_as(Role::Standby, &pair.other, 1, Availability::Following { position: 7, end: 10 }, &[("b", "2")]);
    // The one that has partition 1 is gone, and the next keeps it warm.
    pair.say([Some(members(&[("aa", "127.0.0.1:2", &[0]), ("bb", &pair.endpoint, &[]), ("cc", "127.0.0.1:1", &[1])]))]);
    assert_eq!(pair.ask(&format!("{STORE}/keys/b")).0, 503);
    let (code, body) = pair.ask(&format!("{STORE}/keys/b?standby=true"));
    assert_eq!((code, &body["position"]["role"], &body["position"]["lag"]), (200, &json!("standby"), &json!(3)));
    assert_eq!(pair.ask(&format!("{STORE}/keys/b?standby=true&max_lag=2")).0, 503);
    let (code, body) = pair.ask(&format!("{STORE}/entries?standby=true&max_lag=3"));
    assert_eq!((code, keys(&body)), (200, vec!["a", "b", "c", "e"]));
    assert_eq!(body["positions"][1], json!({ "partition": 1, "role": "standby", "changelog_offset": 1, "lag": 3 }));
}

#[test]
fn a_copy_here_that_lacks_too_much_is_no_reason_not_to_ask_the_active_host() {
    let pair = Pair::whole();
    let here = pair.asked.wired().expect("it is wired").queries.clone();
    register_as(Role::Standby, &here, 1, Availability::Following { position: 7, end: 10 }, &[("b", "0")]);
    let (code, body) = pair.ask(&format!("{STORE}/keys/b?standby=true&max_lag=2"));
    assert_eq!((code, &body["value"], &body["position"]["role"]), (200, &json!(2), &json!("active")), "{body}");
    let (code, body) = pair.ask(&format!("{STORE}/entries?standby=true&max_lag=2"));
    assert_eq!((code, keys(&body)), (200, vec!["a", "b", "c", "d", "e"]), "{body}");
    let (_, body) = pair.ask(&format!("{STORE}/keys/b?standby=true"));
    assert_eq!((&body["value"], &body["position"]["role"]), (&json!(0), &json!("standby")), "{body}");
}

#[test]
fn who_does_not_know_the_store_has_not_looked_for_the_key() {
    let pair = Pair::whole();
    // Another application's host at the address that the group says.
    let (other, _) = host();
    let stranger = Arc::new(Status::new("other"));
    stranger.wire(Wired::clone(&other.wired().expect("it is wired")));
    let listener = bind("127.0.0.1:0").expect("a port");
    let endpoint = listener.local_addr().expect("bound").to_string();
    let (_sender, stop) = tokio::sync::watch::channel(false);
    pair.runtime.spawn(serve(listener, routes(stranger), stop));
    pair.say([Some(members(&[("aa", "127.0.0.1:2", &[0]), ("bb", &endpoint, &[1])]))]);
    for path in ["keys/zz", "entries"] {
        let (code, body) = pair.ask(&format!("{STORE}/{path}"));
        assert_eq!((code, &body["type"]), (503, &json!("urn:sandbar:problem:not-here")), "{path}: {body}");
    }
}

#[test]
fn what_another_host_asks_is_never_passed_on() {
    let pair = Pair::whole();
    for path in ["keys/b", "entries", "entries?partitions=0,1"] {
        let (code, _, body) = pair.ask_as(Some("bb"), &format!("{STORE}/{path}"));
        assert_eq!((code, &body["type"]), (503, &json!("urn:sandbar:problem:not-here")), "{path}: {body}");
    }
    assert_eq!(pair.ask_as(Some("bb"), &format!("{STORE}/keys/a")).0, 200);
}

#[test]
fn a_client_may_find_the_owner_itself() {
    let pair = Pair::whole();
    let elsewhere = { 0.. }.map(|n| format!("k{n}"));
    let key = elsewhere.into_iter().find(|key| engine::partitioner::partition_for_key(key.as_bytes(), 2) == 1);
    let key = key.expect("one of them");
    let (code, headers, _) = pair.ask_as(None, &format!("{STORE}/keys/{key}?redirect=true"));
    let expected = format!("http://{}{STORE}/keys/{key}?key_format=utf8&value_format=json", pair.endpoint);
    assert_eq!((code, headers[header::LOCATION].to_str().ok()), (307, Some(expected.as_str())));
    let (code, headers, _) = pair.ask_as(None, &format!("{STORE}/keys/b?redirect=true&partition=1"));
    let expected = format!("http://{}{STORE}/keys/b?key_format=utf8&value_format=json&partition=1", pair.endpoint);
    assert_eq!((code, headers[header::LOCATION].to_str().ok()), (307, Some(expected.as_str())));
    assert_eq!(pair.ask(&format!("{STORE}/keys/a?redirect=true")).0, 200);

    let (code, body) = pair.ask("/v1/apps/vote/instances");
    let expected = json!([
        { "host_id": "aa", "endpoint": "127.0.0.1:1", "this_host": true, "active_tasks": ["0_0"], "standby_tasks": ["0_1"] },
        { "host_id": "bb", "endpoint": pair.endpoint, "this_host": false, "active_tasks": ["0_1"], "standby_tasks": ["0_0"] },
    ]);
    assert_eq!((code, &body["instances"]), (200, &expected));

    // Kafka's partitioner gives these keys to partitions 0 and 1 of two.
    for partition in 0..2 {
        let key = (0..)
            .map(|n| format!("k{n}"))
            .find(|key| engine::partitioner::partition_for_key(key.as_bytes(), 2) == partition);
        let (code, body) = pair.ask(&format!("{STORE}/owner?key={}", key.expect("one of them")));
        assert_eq!((code, &body["partition"]), (200, &json!(partition)));
        assert_eq!(body["active"]["host_id"], json!(["aa", "bb"][partition as usize]));
    }
}
