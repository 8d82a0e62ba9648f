//! A folder of applications that is followed while the host runs: what comes, what goes, what changes, and what is
//! wrong with a file. State stays in every case.

use std::collections::BTreeMap;
use std::os::unix::fs::symlink;
use std::path::Path;

use serde_json::{Value, json};

use crate::support::{Host, Place, guest};

/// A manifest of a module of the folder `apps`, with further lines.
fn manifest(id: &str, module: &str, more: &str) -> String {
    format!(
        "application.id = \"{id}\"\nmodule = \"{module}\"\nsources.in.topic = \"{id}-in\"\nsinks.out.topic = \"{id}-out\"\n{more}"
    )
}

/// A folder `apps` with modules in it, and with the topics of these applications.
fn place(name: &str, modules: &[(&str, &str)], ids: &[&str]) -> Place {
    let place = Place::new(name);
    std::fs::create_dir(place.folder.join("apps")).expect("a folder");
    for (file, name) in modules {
        put(&place, file, name);
    }
    for id in ids {
        place.create_topic(&format!("{id}-in"), 2);
        place.create_topic(&format!("{id}-out"), 2);
    }
    place
}

/// Puts a guest in the place of a module.
fn put(place: &Place, file: &str, name: &str) {
    std::fs::copy(guest(name), place.folder.join("apps").join(file)).expect("a copy");
}

fn remove(place: &Place, file: &str) {
    std::fs::remove_file(place.folder.join("apps").join(file)).expect("a file");
}

/// Sends ten keys so many times.
fn produce(place: &Place, id: &str, times: usize) {
    let lines: String =
        (0..10 * times).map(|n| json!({ "key": format!("k{}", n % 10), "value": "x" }).to_string() + "\n").collect();
    place.produce(&format!("{id}-in"), &lines);
}

fn start(place: &Place) -> Host {
    place.start_ready(&["--apps", "apps"])
}

/// The states of the applications of a host by their ids.
fn states(host: &Host) -> BTreeMap<String, String> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (_, listed) = host.get("/v1/apps").expect("an answer");
    let apps = listed["apps"].as_array().cloned().unwrap_or_default();
    apps.iter().map(|app| (text(&app["id"]), text(&app["state"]))).collect()
}

fn is_ready(host: &Host, id: &str) -> bool {
    host.get(&format!("/readyz?app={id}")).is_some_and(|(code, _)| code == 200)
}

/// Waits until each key was counted so many times.
#[track_caller]
fn wait_for_counts(host: &mut Host, id: &str, count: u64) {
    host.wait_until(&format!("{id} has counted to {count}"), |host| {
        (0..10).all(|n| {
            let answer = host.get(&format!("/v1/apps/{id}/stores/counts/keys/k{n}"));
            answer.is_some_and(|(code, body)| code == 200 && body["value"] == json!(count))
        })
    });
}

#[track_caller]
fn wait_for_log(host: &mut Host, words: &str) {
    host.wait_until(words, |host| host.log().contains(words));
}

fn active(host: &Host, id: &str) -> (u64, Value) {
    let (_, versions) = host.get(&format!("/v1/apps/{id}/versions")).expect("an answer");
    let number = versions["active"].as_u64().unwrap_or_default();
    let found =
        versions["versions"].as_array().into_iter().flatten().find(|version| version["number"] == json!(number));
    (number, found.cloned().unwrap_or_default())
}

#[test]
fn applications_come_and_go_with_their_files_and_keep_their_state() {
    let place = place("folder-goes", &[("m.wasm", "count")], &["one", "two"]);
    place.write("apps/one.toml", manifest("one", "m.wasm", ""));
    let mut host = start(&place);
    produce(&place, "two", 10);
    place.write("apps/two.toml", manifest("two", "m.wasm", ""));
    wait_for_log(&mut host, "[two] apps/two.toml is new: starting");
    wait_for_counts(&mut host, "two", 10);
    assert_eq!(host.get("/readyz").map(|(code, _)| code), Some(200));

    remove(&place, "two.toml");
    host.wait_until("it is gone", |host| !states(host).contains_key("two"));
    let log = host.log();
    assert!(log.contains("[two] stopped (told to): processed 100 records, everything committed"), "{log}");
    assert!(place.folder.join("apps/.sandbar/state/two").is_dir(), "its state was touched");
    assert_eq!(host.get("/v1/apps/two").map(|(code, _)| code), Some(404));
    assert_eq!(host.get("/readyz").map(|(code, _)| code), Some(200));
    let (_, metrics) = host.get("/metrics").expect("an answer");
    assert!(!metrics.to_string().contains("app=\\\"two\\\""), "{metrics}");

    produce(&place, "two", 5);
    place.write("apps/two.toml", manifest("two", "m.wasm", ""));
    wait_for_counts(&mut host, "two", 15);
    assert!(!host.log().contains("[two] restored"), "{}", host.log());
    assert_eq!(host.log().matches("[one] running").count(), 1, "the other one was disturbed: {}", host.log());

    remove(&place, "one.toml");
    remove(&place, "two.toml");
    host.wait_until("both are gone", |host| states(host).is_empty());
    assert_eq!(host.get("/livez").map(|(code, _)| code), Some(200), "it waits for files");
    place.write("apps/one.toml", manifest("one", "m.wasm", ""));
    host.wait_until("it is back", |host| is_ready(host, "one"));
    host.terminate();
}

#[test]
fn a_changed_file_is_a_deployment() {
    let place = place("folder-changes", &[("m.wasm", "versions")], &["one"]);
    place.write("apps/one.toml", manifest("one", "m.wasm", ""));
    let mut host = start(&place);
    produce(&place, "one", 3);
    wait_for_counts(&mut host, "one", 3);

    put(&place, "m.wasm", "versions-b");
    wait_for_log(&mut host, "[one] version 2 takes over by a swap");
    wait_for_log(&mut host, "[one] version 2 runs in 2 tasks");
    let (number, version) = active(&host, "one");
    assert_eq!((number, &version["who"]), (2, &json!("apps directory")), "{version}");
    assert_eq!(version["why"], json!("apps/one.toml has changed"));
    produce(&place, "one", 3);
    wait_for_counts(&mut host, "one", 6);
    let made_by = |version: &str| {
        let records = place.read("one-out", &[]);
        let words = format!("\"version\":\"{version}\"");
        let values = records.iter().filter_map(|record| record["value"].as_str());
        values.filter(|value| value.contains(&words)).count()
    };
    host.wait_until("the new version has answered", |_| made_by("b") == 30);
    assert_eq!(made_by("a"), 30);

    // What does not fit is told once, with the reason.
    put(&place, "m.wasm", "versions-other-format");
    wait_for_log(
        &mut host,
        "[one] apps/one.toml: not deployed, and what runs goes on: it does not fit version 2, which runs",
    );
    // Settings of the module, and the module as it was.
    put(&place, "m.wasm", "versions-b");
    place.write("apps/one.toml", manifest("one", "m.wasm", "config.label = \"c\"\n"));
    wait_for_log(&mut host, "[one] version 3 takes over by a swap");
    assert_eq!(host.log().matches("not deployed").count(), 1, "{}", host.log());

    // What belongs to the host is read at a start.
    place.write("apps/one.toml", manifest("one", "m.wasm", "config.label = \"c\"\nnum.stream.threads = 2\n"));
    wait_for_log(&mut host, "[one] apps/one.toml: num.stream.threads of this host changed: starting again");
    host.wait_until("it runs again", |host| {
        is_ready(host, "one") && host.get("/v1/apps/one").is_some_and(|(_, app)| app["threads"][1].is_object())
    });
    produce(&place, "one", 3);
    wait_for_counts(&mut host, "one", 9);
    assert_eq!(active(&host, "one").0, 3);
    assert!(!host.log().contains("restored"), "{}", host.log());
    host.terminate();
}

#[test]
fn what_was_taken_back_is_not_deployed_by_its_file_again() {
    let place = place("folder-back", &[("m.wasm", "versions")], &["one"]);
    let write =
        |label: &str| place.write("apps/one.toml", manifest("one", "m.wasm", &format!("config.label = \"{label}\"\n")));
    write("x");
    let mut host = start(&place);
    write("y");
    wait_for_log(&mut host, "[one] version 2 takes over by a swap");
    place.sandbar(&["rollback", "--url", &host.url]).succeeded();
    wait_for_log(&mut host, "[one] version 2 goes back to version 1");
    write("x");
    std::thread::sleep(std::time::Duration::from_secs(3));
    write("y");
    wait_for_log(
        &mut host,
        "[one] apps/one.toml: not deployed, and what runs goes on: it is version 2, which was taken back",
    );
    assert_eq!(active(&host, "one").0, 1);
    write("z");
    wait_for_log(&mut host, "[one] version 3 takes over by a swap");
    host.terminate();
}

#[test]
fn a_file_that_is_wrong_is_told_once_and_disturbs_nothing() {
    let place = place("folder-broken", &[("m.wasm", "count")], &["one", "two"]);
    place.write("apps/one.toml", manifest("one", "m.wasm", ""));
    place.write("apps/two.toml", manifest("two", "two.wasm", ""));
    let mut host = place.start(&["--apps", "apps"]);
    host.wait_until("one runs", |host| states_if_there(host, "one") == "running");
    host.wait_until("two has no module", |host| states_if_there(host, "two") == "ERRORED");

    place.write("apps/three.toml", manifest("three", "m.wasm", "nonsense = 1\n"));
    wait_for_log(&mut host, "apps/three.toml:5:1: unknown key nonsense");
    place.write("apps/again.toml", manifest("one", "m.wasm", ""));
    wait_for_log(&mut host, "apps/again.toml:1:1: application.id \"one\" is that of apps/one.toml:1:1 already");
    place.write("apps/one.toml", "application.id = one");
    wait_for_log(&mut host, "apps/one.toml:1:18: ");
    remove(&place, "again.toml");
    remove(&place, "three.toml");
    // Whatever failed gets another try with another file.
    put(&place, "two.wasm", "count");
    host.wait_until("two runs", |host| is_ready(host, "two"));
    produce(&place, "one", 2);
    wait_for_counts(&mut host, "one", 2);
    place.write("apps/one.toml", manifest("one", "m.wasm", "# mended\n"));
    host.wait_until("all are ready", |host| host.get("/readyz").is_some_and(|(code, _)| code == 200));
    std::thread::sleep(std::time::Duration::from_secs(2));
    let log = host.log();
    for words in ["unknown key nonsense", "is that of apps/one.toml", "apps/one.toml:1:18: "] {
        assert_eq!(log.matches(words).count(), 1, "{words:?} in {log}");
    }
    assert_eq!(log.matches("[one] running").count(), 1, "it was disturbed: {log}");
    assert_eq!(states(&host).len(), 2);
    assert_eq!(active(&host, "one").0, 1, "a comment is no version");
    host.terminate();
}

/// The state of an application; empty where there is none, or nobody answers yet.
fn states_if_there(host: &Host, id: &str) -> String {
    let (_, app) = host.get(&format!("/v1/apps/{id}")).unwrap_or_default();
    app["state"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn what_a_link_points_to_is_what_counts() {
    let place = place("folder-links", &[], &["one"]);
    let apps = place.folder.join("apps");
    // As Kubernetes mounts a ConfigMap.
    let swap = |revision: &str, text: String| {
        let folder = apps.join(revision);
        std::fs::create_dir(&folder).expect("a folder");
        std::fs::copy(guest("versions"), folder.join("m.wasm")).expect("a copy");
        std::fs::write(folder.join("one.toml"), text).expect("a manifest");
        symlink(revision, apps.join("..data_tmp")).expect("a link");
        std::fs::rename(apps.join("..data_tmp"), apps.join("..data")).expect("a link");
    };
    swap("..1", manifest("one", "m.wasm", ""));
    for file in ["one.toml", "m.wasm"] {
        symlink(Path::new("..data").join(file), apps.join(file)).expect("a link");
    }
    let mut host = start(&place);
    produce(&place, "one", 1);
    wait_for_counts(&mut host, "one", 1);
    swap("..2", manifest("one", "m.wasm", ""));
    std::fs::remove_dir_all(apps.join("..1")).expect("a folder");
    std::thread::sleep(std::time::Duration::from_secs(3));
    assert_eq!(active(&host, "one").0, 1, "other files with the same in them");
    swap("..3", manifest("one", "m.wasm", "config.label = \"c\"\n"));
    wait_for_log(&mut host, "[one] version 2 takes over by a swap");
    produce(&place, "one", 1);
    wait_for_counts(&mut host, "one", 2);
    assert_eq!(host.log().matches("[one] running").count(), 1, "{}", host.log());
    host.terminate();
}
