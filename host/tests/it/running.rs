//! Applications that run: what they answer, how they stop, what they find again, and how they fail.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{Host, Place, guest};

fn lines(keys: &[&str]) -> String {
    keys.iter().map(|key| json!({ "key": key, "value": "x", "timestamp": 1000 }).to_string() + "\n").collect()
}

/// The whole store; null while its partitions are between two owners, as while another thread joins.
fn counts(host: &Host) -> Value {
    let (code, body) = host.get("/v1/apps/count/stores/counts/entries").expect("an answer");
    if code == 503 {
        return Value::Null;
    }
    assert_eq!(code, 200, "{body}");
    let entries = body["entries"].as_array().expect("entries");
    entries.iter().map(|entry| (entry["key"].as_str().unwrap_or("?").to_owned(), entry["value"].clone())).collect()
}

/// How many records all restores together have told.
fn restored(log: &str) -> u64 {
    let told = log.lines().filter_map(|line| line.strip_prefix("restored "));
    told.map(|rest| rest.split(' ').next().and_then(|count| count.parse::<u64>().ok()).expect(rest)).sum()
}

#[test]
fn until_idle_ends_with_everything_committed() {
    let place = Place::counting("until-idle");
    place.create_topic("in", 2);
    place.produce("in", &lines(&["a", "b", "a"]));
    let ended = place.run_until_idle(&[]).succeeded();
    assert!(ended.stderr.contains("a single node for trials and tests"), "{ended:?}");
    assert!(ended.stderr.contains("stopped (idle): processed 3 records, everything committed"), "{ended:?}");
    assert_eq!(place.read("out", &["--value-format", "i64"]).len(), 3);
    let again = place.run_until_idle(&[]).succeeded();
    assert!(again.stderr.contains("processed 0 records"), "nothing is processed twice: {again:?}");
}

#[test]
fn a_running_host_answers_and_ends_clean_on_sigterm() {
    let place = Place::counting("sigterm");
    let mut host = place.start_ready(&[]);
    place.produce("in", &lines(&["a", "b", "a", "c"]));
    host.wait_until("all is committed", |host| counts(host) == json!({ "a": 2, "b": 1, "c": 1 }));
    let (code, body) = host.get("/v1/apps/count/stores/counts/keys/a").expect("an answer");
    assert_eq!((code, &body["value"]), (200, &json!(2)));
    assert_eq!(host.get("/v1/apps/count/stores/counts/keys/zz").expect("an answer").0, 404);
    let (_, metrics) = host.get("/metrics").expect("an answer");
    let metrics = metrics.as_str().expect("text");
    assert!(metrics.contains("sandbar_records_processed_total{app=\"count\",thread=\"0\"} 4"), "{metrics}");

    let scan = ["stores", "scan", "counts", "--url", &host.url];
    assert_eq!(place.sandbar(&scan).succeeded().stdout, "a\t2\nb\t1\nc\t1\n");
    let get = |key: &str| place.sandbar(&["stores", "get", "counts", key, "--url", &host.url]);
    assert_eq!(get("b").succeeded().stdout, "1\n");
    get("zz").failed(1, &["store counts has no entry with the key zz"]);
    let unknown = place.sandbar(&["stores", "get", "count", "a", "--url", &host.url]);
    unknown.failed(1, &["store count is not declared; declared are: counts"]);

    host.terminate();
    assert!(host.log().contains("everything committed"), "{}", host.log());
    place.sandbar(&["stores", "get", "counts", "a", "--url", &host.url]).failed(3, &["is it running there?"]);
}

#[test]
fn state_survives_a_restart_and_the_loss_of_its_directory() {
    for backend in ["rocksdb", "memory"] {
        let place = Place::counting("restart");
        let setting = format!("stores.counts.backend={backend}");
        let arguments = ["--state-dir", "state", "-X", &setting, "-X", "num.stream.threads=2"];
        place.create_topic("in", 3);
        place.produce("in", &lines(&["a", "b", "a", "c"]));
        place.run_until_idle(&arguments).succeeded();

        place.produce("in", &lines(&["a"]));
        let ended = place.run_until_idle(&arguments).succeeded();
        // Each thread tells its own restore, and which of them has the partitions is the group's choice.
        assert_eq!(restored(&ended.stderr), if backend == "memory" { 3 } else { 0 }, "{ended:?}");

        std::fs::remove_dir_all(place.folder.join("state")).expect("removed");
        let mut host = place.start_ready(&arguments);
        host.wait_until("the restore is told", |host| host.log().contains("records/s)"));
        host.wait_until("everything is there", |host| counts(host) == json!({ "a": 3, "b": 1, "c": 1 }));
        host.terminate();
    }
}

#[test]
fn a_thread_without_partitions_leaves_the_group_too() {
    let place = Place::counting("idle-thread");
    place.create_topic("in", 1);
    for _ in 0..3 {
        place.produce("in", &lines(&["a"]));
        let started = Instant::now();
        // One of the threads has nothing; left behind in the group, it would hold up the other and the next start.
        place.run_until_idle(&["-X", "num.stream.threads=3"]).succeeded();
        assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
    }
}

#[test]
fn a_killed_host_loses_nothing() {
    let place = Place::counting("sigkill");
    let mut host = place.start_ready(&["-X", "commit.interval.ms=50"]);
    for round in 1..=3 {
        place.produce("in", &lines(&["a", "b"]));
        host.wait_until("committed", |host| counts(host) == json!({ "a": round, "b": round }));
        host.kill();
        // The group takes the dead member's partitions back after its session.
        host = place.start_ready(&["-X", "commit.interval.ms=50"]);
    }
    host.wait_until("everything is there", |host| counts(host) == json!({ "a": 3, "b": 3 }));
}

#[test]
fn events_are_json_lines() {
    let place = Place::counting("events");
    place.create_topic("in", 1);
    place.produce("in", &lines(&["a"]));
    let ended = place.run_until_idle(&["-o", "json"]).succeeded();
    let events: Vec<Value> = ended.stdout.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    let names: Vec<&str> = events.iter().filter_map(|event| event["event"].as_str()).collect();
    for name in ["rest", "module", "broker", "running", "stopped"] {
        assert!(names.contains(&name), "{name} is missing in {names:?}");
    }
    assert_eq!(events.last().map(|event| &event["records_processed"]), Some(&json!(1)));
}

#[test]
fn a_failing_module_stops_the_application_and_says_where() {
    let place = Place::new("failing");
    place.write("sandbar.toml", format!("application.id = \"probe\"\nmodule = {:?}\n", guest("probe")));
    place.create_topic("commands", 1);
    place.produce("commands", r#"{"key":"error","value":"this will not do","timestamp":1}"#);
    for _ in 0..2 {
        let ended = place.run_until_idle(&["-o", "json"]);
        let words = ["commands-0", "offset 0", "module ", "this will not do"];
        let failed = ended.failed(1, &words);
        let last = failed.stdout.lines().last().expect("an event");
        let last: Value = serde_json::from_str(last).expect("JSON");
        assert_eq!(last["event"], json!("failed"), "{last}");
    }
    assert_eq!(place.read("answers", &[]).len(), 0, "nothing of it is forwarded");
}

#[test]
fn a_second_signal_ends_at_once() {
    let place = Place::counting("second-signal");
    let mut host = place.start(&["-b", "127.0.0.1:1"]);
    host.wait_until("it waits", |host| host.log().contains("waiting for a broker"));
    let asked = Instant::now();
    host.signal("-INT");
    host.signal("-INT");
    let code = host.wait();
    // The first one may have been enough already.
    assert!(matches!(code, Some(0 | 130)), "{code:?}\n{}", host.log());
    assert!(asked.elapsed() < Duration::from_secs(10), "{:?}", asked.elapsed());
}
