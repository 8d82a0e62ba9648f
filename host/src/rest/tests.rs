//! The routes, asked as a client does: formats, pages, and every reason for which a store has no answer.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::Body;
use axum::http::Request;
use bytes::Bytes;
use engine::metrics::{EngineMetrics, Metric};
use engine::query::{Availability, QueryRegistry, Registration, Role, SourcePositions};
use engine::record::TopicPartition;
use engine::standby::{StandbyReport, StandbyState, StandbyStoreReport, StandbyTaskReport};
use engine::state::StateStore;
use engine::state::memory::MemoryStore;
use engine::stream_thread::SharedProgress;
use engine::topology::{
    PartitionCounts, StoreBackend, StoreChangelog, StoreSpec, SubTopology, TaskId, TopicBinding, Topology,
};
use tower::ServiceExt;

use super::*;
use crate::runtime::status::{Phase, StandbyStatus, Wired};

mod accept;
mod changes;
mod fresh;
mod limits;
mod names;
mod openapi;
mod routed;
mod several;
mod writes;

const PARTITIONS: i32 = 2;

/// Path and text of every file of the interface, without its tests.
fn sources() -> Vec<(String, String)> {
    let mut folders = vec![std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/rest")];
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            match path.is_dir() {
                true if name != "tests" => folders.push(path),
                false if name.ends_with(".rs") && name != "tests.rs" => {
                    let text = std::fs::read_to_string(&path).expect("text");
                    found.push((path.display().to_string(), text));
                }
                _ => {}
            }
        }
    }
    found
}

fn store_spec(name: &str, key_format: &str) -> StoreSpec {
    StoreSpec {
        name: name.into(),
        backend: StoreBackend::InMemory,
        changelog: StoreChangelog::Internal,
        version: 1,
        key_format: key_format.into(),
        value_format: "json".into(),
        older_generation_of: None,
    }
}

/// A running host with the store `votes` (utf8 keys) in two partitions and `blobs` (byte keys) nowhere.
fn host() -> (Arc<Status>, Arc<QueryRegistry>) {
    let part = SubTopology {
        sources: vec![TopicBinding { name: "reports".into(), topic: "reports".into() }],
        stores: vec![store_spec("votes", "utf8"), store_spec("blobs", "bytes")],
        sinks: Vec::new(),
    };
    let topology = Arc::new(Topology { sub_topologies: vec![part], ..Topology::default() });
    let queries = Arc::new(QueryRegistry::new(["votes".into(), "blobs".into()]));
    let status = Arc::new(Status::new("vote"));
    let metrics = Arc::new(EngineMetrics::new());
    metrics.add(Metric::RecordsProcessed, 7);
    status.wire(Wired {
        topology,
        partition_counts: Arc::new(PartitionCounts(BTreeMap::from([("reports".into(), PARTITIONS)]))),
        sink_limits: Arc::default(),
        queries: Arc::clone(&queries),
        threads: vec![Arc::new(SharedProgress::default())],
        metrics: vec![metrics],
        standby: None,
        module_digest: Some("00ff".to_owned()),
        usage: Some(Arc::default()),
        routing: None,
        writes: None,
        changelogs: None,
        deployments: None,
    });
    (status, queries)
}

fn register(queries: &QueryRegistry, partition: i32, availability: Availability, entries: &[(&str, &str)]) {
    register_as(Role::Active, queries, partition, availability, entries);
}

fn register_as(
    role: Role,
    queries: &QueryRegistry,
    partition: i32,
    availability: Availability,
    entries: &[(&str, &str)],
) -> Arc<SourcePositions> {
    let mut store = MemoryStore::new();
    let writes: Vec<_> = entries
        .iter()
        .map(|(key, value)| (Bytes::copy_from_slice(key.as_bytes()), Some(Bytes::copy_from_slice(value.as_bytes()))))
        .collect();
    store.write(&writes, Some(entries.len() as i64)).expect("memory takes it");
    let sources = Arc::new(SourcePositions::default());
    queries.register(Registration {
        store: "votes".into(),
        task: TaskId { sub_topology: 0, partition },
        role,
        availability,
        view: store.read_view(),
        sources: Arc::clone(&sources),
    });
    sources
}

fn running_host() -> Arc<Status> {
    let (status, queries) = host();
    register(&queries, 0, Availability::Running, &[("a", "1"), ("c", "{\"yes\":true}"), ("d", "4")]);
    register(&queries, 1, Availability::Running, &[("b", "2"), ("da", "5")]);
    status
}

/// The routes of a host with one application.
fn routes(status: Arc<Status>) -> Router {
    router(Arc::new(status.into()))
}

fn ask(status: &Arc<Status>, path: &str) -> (u16, Value) {
    ask_of(routes(Arc::clone(status)), path)
}

/// Asks these routes.
fn ask_of(routes: Router, path: &str) -> (u16, Value) {
    let (code, text) = send_to(routes, path, Request::get(path).body(Body::empty()).expect("a request"));
    (code, serde_json::from_str(&text).unwrap_or_else(|_| panic!("{path} did not answer with JSON: {text}")))
}

fn ask_text(status: &Arc<Status>, path: &str) -> (u16, String) {
    send(status, path, Request::get(path).body(Body::empty()).expect("a request"))
}

fn send(status: &Arc<Status>, path: &str, request: Request<Body>) -> (u16, String) {
    send_to(routes(Arc::clone(status)), path, request)
}

fn send_to(routes: Router, path: &str, request: Request<Body>) -> (u16, String) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let response = routes.oneshot(request).await.expect("infallible");
        let code = response.status().as_u16();
        if code >= 400 {
            assert_eq!(response.headers()[header::CONTENT_TYPE], "application/problem+json", "{path}");
        }
        let body = axum::body::to_bytes(response.into_body(), 1 << 20).await.expect("a body");
        (code, String::from_utf8(body.to_vec()).expect("text"))
    })
}

#[test]
fn a_key_is_found_in_whichever_partition_holds_it() {
    let status = running_host();
    let (code, body) = ask(&status, "/v1/apps/vote/stores/votes/keys/c");
    assert_eq!((code, &body["value"]), (200, &json!({ "yes": true })));
    assert_eq!(body["position"], json!({ "partition": 0, "role": "active", "changelog_offset": 3, "lag": 0 }));
    assert_eq!(ask(&status, "/v1/apps/vote/stores/votes/keys/b").1["value"], json!(2));
    assert_eq!(ask(&status, "/v1/apps/vote/stores/votes/keys/62?key_format=hex").1["key"], json!("62"));
    assert_eq!(ask(&status, "/v1/apps/vote/stores/votes/keys/b?value_format=base64").1["value"], json!("Mg=="));
}

#[test]
fn the_empty_key_is_a_key() {
    let (status, queries) = host();
    register(&queries, 0, Availability::Running, &[("", "1")]);
    assert_eq!(ask(&status, "/v1/apps/vote/stores/votes/keys/").1["value"], json!(1));
    assert_eq!(ask(&status, "/v1/apps/vote/stores/votes/keys/?key_format=hex").1["key"], json!(""));
    let (code, body) = ask(&running_host(), "/v1/apps/vote/stores/votes/keys/");
    assert_eq!((code, &body["type"]), (404, &json!("urn:sandbar:problem:key-not-found")), "{body}");
}

#[test]
fn what_is_not_there_has_a_problem_of_its_own() {
    let status = running_host();
    for (path, code, kind) in [
        ("/v1/apps/vote/stores/votes/keys/zz", 404, "key-not-found"),
        ("/v1/apps/vote/stores/votes/keys/b?partition=0", 404, "key-not-found"),
        ("/v1/apps/vote/stores/vote/keys/b", 404, "store-not-found"),
        ("/v1/apps/other/stores/votes/keys/b", 404, "app-not-found"),
        ("/v1/apps/vote/stores/blobs/keys/AAAA", 503, "not-here"),
        ("/v1/apps/vote/stores/blobs/entries", 503, "not-here"),
        ("/v1/apps/vote/stores/votes/keys/b?partition=9", 400, "bad-request"),
        ("/v1/apps/vote/stores/votes/entries?partition=-1", 400, "bad-request"),
        ("/v1/apps/vote/stores/blobs/entries?partition=1", 503, "not-here"),
        ("/v1/apps/vote/stores/votes/keys/b?key_format=text", 400, "bad-request"),
        ("/v1/apps/vote/stores/votes/keys/b?format=json", 400, "bad-request"),
        ("/v1/apps/vote/stores/votes/keys/x?key_format=i64", 400, "bad-request"),
        ("/v1/apps/vote/stores/votes/keys/%ff", 400, "bad-request"),
        ("/v1/apps/vote/stores/votes/keys/%zz", 400, "bad-request"),
        ("/v1/apps/vote/stores/votes/entries?from=%ff", 400, "bad-request"),
        ("/v1/apps/vote/stores/votes/entries?prefix=%C3", 400, "bad-request"),
        ("/v1/apps/vote/stores/votes/entries?where=/a=%2", 400, "bad-request"),
        ("/v1/apps/vote/stores/votes/owner?key=%ff", 400, "bad-request"),
        ("/v1/apps/vote/stores/votes/changes?key=%ff", 400, "bad-request"),
        ("/v1/apps/vote/stores/votes/keys/c?value_format=i64", 422, "format"),
        ("/v1/apps/vote/stores/votes/entries?limit=0", 400, "bad-request"),
        ("/v1/apps/vote/stores/votes/entries?cursor=x", 400, "bad-request"),
        ("/v1/apps/vote/stores/votes/entries?prefix=a&from=b", 400, "bad-request"),
        ("/v1/apps/vote/stores/votes/entries?partitions=0,x", 400, "bad-request"),
        ("/v1/apps/vote/stores/votes/entries?max_lag=1", 400, "bad-request"),
        ("/v1/apps/vote/stores/votes/keys/b?max_lag=1", 400, "bad-request"),
        ("/v1/apps/vote/stores/votes/keys/b?standby=true&max_lag=-1", 400, "bad-request"),
        ("/v1/apps/vote/stores/votes/entries?partitions=0,2", 400, "bad-request"),
        ("/v1/apps/vote/stores/votes/entries?partitions=0&partition=1", 400, "bad-request"),
        ("/v1/apps/vote/stores/votes/owner", 400, "bad-request"),
        ("/v1/apps/vote/stores/vote/owner?key=a", 404, "store-not-found"),
        ("/v1/apps/vote/stores/votes/owner?key=a", 503, "no-routes"),
        ("/v1/apps/vote/instances", 503, "no-routes"),
        ("/v2", 404, "route-not-found"),
    ] {
        let (found, body) = ask(&status, path);
        assert_eq!((found, &body["type"]), (code, &json!(format!("urn:sandbar:problem:{kind}"))), "{path}: {body}");
        assert!(body["detail"].as_str().is_some_and(|detail| !detail.is_empty()), "{path}: {body}");
    }
}

#[test]
fn a_store_that_is_restoring_never_answers_with_nothing() {
    let (status, queries) = host();
    register(&queries, 0, Availability::Running, &[("a", "1")]);
    register(&queries, 1, Availability::Restoring { position: 3, target: 10 }, &[]);
    let (code, body) = ask(&status, "/v1/apps/vote/stores/votes/keys/zz");
    assert_eq!((code, &body["type"]), (503, &json!("urn:sandbar:problem:restoring")), "{body}");
    assert!(body["detail"].as_str().is_some_and(|detail| detail.contains("3 of 10")), "{body}");
    assert_eq!(ask(&status, "/v1/apps/vote/stores/votes/entries").0, 503);
    assert_eq!(ask(&status, "/v1/apps/vote/stores/votes/keys/a").0, 200);
    assert_eq!(ask(&status, "/v1/apps/vote/stores/votes/entries?partition=0").0, 200);
}

#[test]
fn nothing_is_said_of_a_part_of_the_partitions() {
    let (status, queries) = host();
    register(&queries, 0, Availability::Running, &[("a", "1")]);
    let (code, body) = ask(&status, "/v1/apps/vote/stores/votes/entries");
    assert_eq!((code, &body["type"]), (503, &json!("urn:sandbar:problem:not-here")), "{body}");
    assert!(body["detail"].as_str().is_some_and(|detail| detail.contains("partition 1")), "{body}");
    assert_eq!(ask(&status, "/v1/apps/vote/stores/votes/entries?partitions=0").0, 200);
    assert_eq!(ask(&status, "/v1/apps/vote/stores/votes/keys/zz").0, 503, "another host may have it");
}

fn keys(body: &Value) -> Vec<&str> {
    body["entries"].as_array().expect("entries").iter().filter_map(|entry| entry["key"].as_str()).collect()
}

#[test]
fn entries_come_in_key_order_over_all_partitions() {
    let status = running_host();
    let path = "/v1/apps/vote/stores/votes/entries";
    assert_eq!(keys(&ask(&status, path).1), ["a", "b", "c", "d", "da"]);
    assert_eq!(keys(&ask(&status, &format!("{path}?reverse=true")).1), ["da", "d", "c", "b", "a"]);
    assert_eq!(keys(&ask(&status, &format!("{path}?from=b&to=d")).1), ["b", "c"]);
    assert_eq!(keys(&ask(&status, &format!("{path}?prefix=d")).1), ["d", "da"]);
}

#[test]
fn pages_follow_each_other_without_gap_or_repeat() {
    let status = running_host();
    for reverse in [false, true] {
        let (mut found, mut cursor) = (Vec::new(), String::new());
        loop {
            let path = format!("/v1/apps/vote/stores/votes/entries?limit=2&reverse={reverse}{cursor}");
            let (_, body) = ask(&status, &path);
            found.extend(keys(&body).into_iter().map(str::to_owned));
            match body["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => break,
            }
        }
        if reverse {
            found.reverse();
        }
        assert_eq!(found, ["a", "b", "c", "d", "da"]);
    }
}

#[test]
fn health_says_why_not() {
    let status = Arc::new(Status::new("vote"));
    status.set_phase(Phase::Starting("connecting to the broker"));
    let (code, body) = ask(&status, "/readyz");
    assert_eq!((code, &body["detail"]), (503, &json!("starting: connecting to the broker")));
    assert_eq!(ask(&status, "/livez").0, 200);
    let (code, body) = ask(&status, "/v1/apps/vote/stores/votes/keys/a");
    assert_eq!((code, &body["type"]), (503, &json!("urn:sandbar:problem:starting")));
    status.set_phase(Phase::Failed("no such topic".to_owned()));
    assert_eq!(ask(&status, "/livez").0, 503);
}

#[test]
fn a_refusal_names_the_thing_and_is_no_echo() {
    let status = running_host();
    let (_, body) = ask(&status, "/v1/apps/vote/stores/votes/entries?limit=-1");
    let detail = body["detail"].as_str().unwrap_or_default();
    assert!(detail.contains("limit: expected a whole number, not below 0"), "{detail}");
    for format in ["x".repeat(5_000), format!("x{}", "%C3%A9".repeat(2_000))] {
        let (code, body) = ask(&status, &format!("/v1/apps/vote/stores/votes/keys/b?key_format={format}"));
        let detail = body["detail"].as_str().unwrap_or_default();
        assert!(code == 400 && detail.contains("bytes in all)") && detail.len() < 2_100, "{}: {detail}", detail.len());
    }
}

#[test]
fn apps_tell_topology_and_module() {
    let status = running_host();
    status.set_phase(Phase::Running);
    assert_eq!(ask(&status, "/v1/apps").1, json!({ "apps": [{ "id": "vote", "state": "running" }] }));
    let (code, body) = ask(&status, "/v1/apps/vote");
    assert_eq!((code, &body["module"]), (200, &json!("00ff")));
    assert_eq!(body["topology"][0]["stores"][0]["name"], json!("votes"));
    let (code, body) = ask(&status, "/v1/apps/vote/stores");
    assert_eq!((code, body["stores"][0]["partitions"].as_array().map(Vec::len)), (200, Some(2)));
}

#[test]
fn metrics_are_prometheus_text() {
    let (code, text) = ask_text(&running_host(), "/metrics");
    assert_eq!(code, 200);
    assert!(text.contains("# TYPE sandbar_records_processed_total counter\n"), "{text}");
    assert!(text.contains("sandbar_records_processed_total{app=\"vote\",thread=\"0\"} 7\n"), "{text}");
    assert!(
        text.contains("sandbar_commit_duration_seconds_bucket{app=\"vote\",thread=\"0\",le=\"+Inf\"} 0\n"),
        "{text}"
    );
    let hits = "sandbar_limit_hits_total{app=\"vote\",key=\"processor.deadline.ms\"} 0\n";
    assert!(text.contains(hits) && text.contains("sandbar_module_memory_bytes{app=\"vote\"} 0\n"), "{text}");
    let heads = text.lines().filter(|line| line.starts_with("# TYPE")).count();
    let distinct: std::collections::BTreeSet<&str> = text.lines().filter(|line| line.starts_with("# TYPE")).collect();
    assert_eq!(heads, distinct.len(), "a metric's head comes once");
}

#[test]
fn standby_tasks_are_told_with_their_lag_and_answer_no_query() {
    let (status, queries) = host();
    let standby = StandbyStatus::default();
    let store = StandbyStoreReport {
        store: "votes".to_owned(),
        changelog: TopicPartition::new("vote-votes-changelog", 1),
        position: 7,
        end: 10,
    };
    let task = |partition, state, error: Option<&str>, stores| StandbyTaskReport {
        task: TaskId { sub_topology: 0, partition },
        state,
        error: error.map(str::to_owned),
        stores,
    };
    let off = task(0, StandbyState::Off, Some("the disk is full"), Vec::new());
    let tasks = vec![off, task(1, StandbyState::CatchingUp, None, vec![store])];
    standby.report.publish(StandbyReport { trouble: None, records: 7, tasks });
    standby.metrics.set(Metric::StandbyTasks, 1);
    status.wire(Wired { standby: Some(standby), ..Wired::clone(&status.wired().expect("it is wired")) });
    status.set_phase(Phase::Running);
    let (code, body) = ask(&status, "/v1/apps/vote");
    let tasks = json!([
        { "task": "0_0", "state": "OFF", "error": "the disk is full", "stores": [] },
        { "task": "0_1", "state": "CATCHING_UP", "error": null, "stores": [{
            "store": "votes", "changelog": "vote-votes-changelog-1", "position": 7, "end": 10, "lag": 3,
        }] },
    ]);
    let expected = json!({ "trouble": null, "records": 7, "lag": 3, "tasks": tasks });
    assert_eq!((code, &body["standby"]), (200, &expected));
    let (_, text) = ask_text(&status, "/metrics");
    let lag = "sandbar_standby_lag_offsets{app=\"vote\",topic=\"vote-votes-changelog\",partition=\"1\"} 3\n";
    assert!(text.contains(lag), "{text}");
    assert!(text.contains("sandbar_standby_tasks{app=\"vote\",thread=\"1\"} 1\n"), "{text}");

    register_as(Role::Standby, &queries, 1, Availability::Following { position: 7, end: 10 }, &[("b", "2")]);
    let (code, body) = ask(&status, "/v1/apps/vote/stores/votes/keys/b");
    assert_eq!((code, &body["type"]), (503, &json!("urn:sandbar:problem:not-here")), "{body}");
    for query in ["keys/b?standby=true&partition=1&max_lag=3", "entries?standby=true&partition=1"] {
        let (code, body) = ask(&status, &format!("/v1/apps/vote/stores/votes/{query}"));
        let position = if query.starts_with("keys") { &body["position"] } else { &body["positions"][0] };
        let expected = json!({ "partition": 1, "role": "standby", "changelog_offset": 1, "lag": 3 });
        assert_eq!((code, position), (200, &expected), "{query}: {body}");
    }
    for (query, kind) in [("keys/b", "restoring"), ("entries", "not-here")] {
        let path = format!("/v1/apps/vote/stores/votes/{query}?standby=true&partition=1&max_lag=2");
        let (code, body) = ask(&status, &path);
        assert_eq!((code, &body["type"]), (503, &json!(format!("urn:sandbar:problem:{kind}"))), "{query}: {body}");
    }
    register_as(Role::Standby, &queries, 1, Availability::Restoring { position: 0, target: 10 }, &[]);
    for query in ["keys/b?standby=true&partition=1", "entries?standby=true&partition=1"] {
        let (code, body) = ask(&status, &format!("/v1/apps/vote/stores/votes/{query}"));
        assert_eq!(code, 503, "a copy that is being filled has never had everything: {query}: {body}");
    }
}

#[test]
fn other_methods_are_refused() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let code = runtime.block_on(async {
        let request = Request::post("/v1/apps").body(Body::empty()).expect("a request");
        routes(running_host()).oneshot(request).await.expect("infallible").status()
    });
    assert_eq!(code, StatusCode::METHOD_NOT_ALLOWED);
}
