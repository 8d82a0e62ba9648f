//! Several applications on one command line: which go together, where their state is, and how the process ends.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{Place, guest};

/// A folder of manifests of the guest that counts records by key: id, topic that it reads, topic that it writes.
fn counting(name: &str, applications: &[(&str, &str, &str)]) -> Place {
    let place = Place::new(name);
    std::fs::create_dir(place.folder.join("apps")).expect("a folder");
    for (id, source, sink) in applications {
        let module = guest("count");
        let text = format!(
            "application.id = \"{id}\"\nmodule = {module:?}\nsources.in.topic = \"{source}\"\nsinks.out.topic = \"{sink}\"\n"
        );
        place.write(&format!("apps/{id}.toml"), text);
    }
    place
}

const RUN: [&str; 7] = ["run", "--embedded", "broker", "--until-idle", "1s", "--listen", "127.0.0.1:0"];

fn with<'a>(more: &[&'a str]) -> Vec<&'a str> {
    RUN.iter().copied().chain(more.iter().copied()).collect()
}

#[test]
fn a_folder_of_applications_runs_until_all_are_idle() {
    let place = counting("apps-folder", &[("one", "in", "middle"), ("two", "middle", "out")]);
    for topic in ["in", "middle", "out"] {
        place.create_topic(topic, 2);
    }
    let lines: String =
        (0..500).map(|n| json!({ "key": format!("k{}", n % 10), "value": "x" }).to_string() + "\n").collect();
    place.produce("in", &lines);
    let ended = place.sandbar(&with(&["--apps", "apps"])).succeeded();
    for id in ["one", "two"] {
        let words = format!("[{id}] stopped (idle): processed 500 records, everything committed");
        assert!(ended.stderr.contains(&words), "{words:?} is missing in {ended:#?}");
        assert!(place.folder.join("apps/.sandbar/state").join(id).is_dir(), "each has a folder of its own");
    }
    assert_eq!(place.read("out", &["--value-format", "i64"]).len(), 500);

    // What one of them is alone goes on with the same state.
    let alone = place.sandbar(&with(&["-f", "apps/one.toml"])).succeeded();
    assert!(alone.stderr.contains("\nstopped (idle): processed 0 records"), "{alone:#?}");
    assert!(!alone.stderr.contains("restored"), "{alone:#?}");
}

#[test]
fn events_say_whose_they_are() {
    let place = counting("apps-json", &[("one", "in", "middle"), ("two", "middle", "out")]);
    let ended = place.sandbar(&with(&["--apps", "apps", "-o", "json", "--state-dir", "state"])).succeeded();
    let events: Vec<Value> = ended.stdout.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let of = |event: &str| -> Vec<&Value> {
        let found = events.iter().filter(|found| found["event"] == json!(event));
        found.map(|found| &found["app"]).collect()
    };
    let mut stopped: Vec<&str> = of("stopped").into_iter().filter_map(Value::as_str).collect();
    stopped.sort_unstable();
    assert_eq!(stopped, ["one", "two"]);
    assert_eq!(of("rest"), [&Value::Null], "the process has one listener");
    assert_eq!(of("broker"), [&Value::Null], "and one embedded broker");
    assert!(place.folder.join("state/one").is_dir() && place.folder.join("state/two").is_dir());
}

#[test]
fn what_does_not_go_together_is_refused_before_anything_starts() {
    let place = counting("apps-clash", &[("one", "in", "out"), ("two", "in", "out")]);
    let other = place.folder.join("apps/again.toml");
    std::fs::copy(place.folder.join("apps/one.toml"), &other).expect("a file");
    let words = ["again.toml:1:1", "one.toml:1:1", "application.id \"one\""];
    place.sandbar(&with(&["--apps", "apps"])).failed(2, &words);
    std::fs::remove_file(&other).expect("a file");

    let set = |id: &str, line: &str| {
        let path = place.folder.join(format!("apps/{id}.toml"));
        let text = std::fs::read_to_string(&path).expect("a manifest");
        std::fs::write(&path, format!("{line}\n{text}")).expect("a manifest");
    };
    set("one", "rocksdb.block.cache.bytes = 2097152");
    set("two", "rocksdb.block.cache.bytes = 4194304\nthreads = 2");
    let both = ["run", "-f", "apps/one.toml", "-f", "apps/two.toml", "-f", "apps/three.toml"];
    place.sandbar(&both).failed(2, &["two.toml:2:1: unknown key threads", "no manifest at apps/three.toml"]);
    let text = std::fs::read_to_string(place.folder.join("apps/two.toml")).expect("a manifest");
    place.write("apps/two.toml", text.replace("threads = 2\n", ""));
    let words = ["two.toml:1:1: rocksdb.block.cache.bytes belongs to the process", "one.toml:1:1"];
    place.sandbar(&with(&["--apps", "apps"])).failed(2, &words);
    assert!(!place.folder.join("broker").exists() && !place.folder.join("apps/.sandbar").exists(), "nothing started");

    place.sandbar(&with(&["--apps", "nowhere"])).failed(2, &["--apps nowhere: cannot read the folder"]);
}

#[test]
fn when_all_have_failed_the_process_ends_by_itself() {
    let place = counting("apps-failed", &[("one", "in", "out"), ("two", "in", "out")]);
    for id in ["one", "two"] {
        place.write(&format!("apps/{id}.toml"), format!("application.id = \"{id}\"\nmodule = \"nowhere.wasm\"\n"));
    }
    let words = [
        "[one] ERRORED: there is no module at apps/nowhere.wasm",
        "2 of 2 applications failed",
        "one (apps/one.toml): there is no module",
    ];
    place.sandbar(&["run", "--apps", "apps", "--embedded", "broker", "--listen", "127.0.0.1:0"]).failed(4, &words);

    // With one that works: it goes on until it is idle, and the code still tells.
    place.write("apps/two.toml", counting_manifest());
    let ended =
        place.sandbar(&with(&["--apps", "apps"])).failed(4, &["1 of 2 applications failed", "[two] stopped (idle)"]);
    assert!(!ended.stderr.contains("two (apps/two.toml)"), "{ended:#?}");
}

fn counting_manifest() -> String {
    format!("application.id = \"two\"\nmodule = {:?}\n", guest("count"))
}

#[test]
fn a_second_signal_ends_all_at_once() {
    let place = counting("apps-signals", &[("one", "in", "middle"), ("two", "middle", "out")]);
    let arguments = ["-f", "apps/one.toml", "-f", "apps/two.toml"];
    let mut host = place.start_ready(&arguments);
    assert_eq!(host.get("/v1/apps").expect("an answer").1["apps"].as_array().map(Vec::len), Some(2));
    host.terminate();
    assert_eq!(host.log().matches("everything committed").count(), 2, "{}", host.log());

    // One that waits for a broker is stopped too.
    let mut host = place.start(&["-f", "apps/one.toml", "-f", "apps/two.toml", "-b", "127.0.0.1:1"]);
    host.wait_until("both wait", |host| host.log().matches("waiting for a broker").count() > 1);
    let asked = Instant::now();
    host.terminate();
    assert!(asked.elapsed() < Duration::from_secs(10), "{:?}", asked.elapsed());
}
