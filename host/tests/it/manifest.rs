//! Manifests that are refused, each with its place and what to do, before anything starts.

use crate::support::Place;

/// `run` with this manifest is refused with code 2 and these words.
#[track_caller]
fn refused(name: &str, manifest: &str, arguments: &[&str], words: &[&str]) {
    let place = Place::new(name);
    place.write("sandbar.toml", manifest);
    let mut all = vec!["run", "--embedded", "broker"];
    all.extend(arguments);
    place.sandbar(&all).failed(2, words);
    assert!(!place.folder.join("broker").exists(), "nothing is started for a manifest that is refused");
}

const MINIMAL: &str = "application.id = \"a\"\nmodule = \"a.wasm\"\n";

#[test]
fn missing() {
    let place = Place::new("missing");
    let words = ["no manifest at sandbar.toml", "sandbar new", "-f"];
    place.sandbar(&["run", "--embedded", "broker"]).failed(2, &words);
    place.sandbar(&["run", "-f", "there/app.toml"]).failed(2, &["no manifest at there/app.toml"]);
}

#[test]
fn not_toml() {
    refused("not-toml", "application.id = \n", &[], &["sandbar.toml:1:", "not valid TOML", "1 | application.id ="]);
}

#[test]
fn not_text() {
    let place = Place::new("not-text");
    place.write("sandbar.toml", b"application.id = \"\xff\"");
    place.sandbar(&["run"]).failed(2, &["sandbar.toml is not UTF-8 text (first bad byte at 18)"]);
}

#[test]
fn unknown_key() {
    let manifest = format!("{MINIMAL}commit.intervall.ms = 5\n");
    let words = ["sandbar.toml:3:1: unknown key commit.intervall.ms; did you mean commit.interval.ms?"];
    refused("unknown-key", &manifest, &[], &words);
}

#[test]
fn wrong_type_and_range() {
    let manifest = format!("{MINIMAL}num.stream.threads = \"two\"\ncommit.interval.ms = 0\n");
    let words = [
        "sandbar.toml:3:1: num.stream.threads: expected a whole number from 1 to 256, found the text \"two\"",
        "sandbar.toml:4:1: commit.interval.ms: expected a whole number from 1 to 86400000 (ms), found the number 0",
    ];
    refused("wrong-type", &manifest, &[], &words);
}

#[test]
fn incomplete() {
    refused("incomplete", "", &[], &["the key application.id is missing", "the key module is missing"]);
}

#[test]
fn flags_and_environment() {
    refused("flag", MINIMAL, &["-X", "poll.ms=fast"], &["-X poll.ms=fast: poll.ms: expected a whole number"]);
    let place = Place::new("environment");
    place.write("sandbar.toml", MINIMAL);
    let output = place.command(&["run"]).env("SANDBAR__POLL_MSS", "5").output().expect("sandbar runs");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(
        text.contains("environment variable SANDBAR__POLL_MSS: unknown key poll.mss; did you mean poll.ms?"),
        "{text}"
    );
}

#[test]
fn no_broker() {
    let place = Place::counting("no-broker");
    let words = ["no broker", "-b HOST:PORT", "--embedded DIR"];
    place.sandbar(&["run", "--listen", "127.0.0.1:0"]).failed(2, &words);
    place.sandbar(&["topics", "list"]).failed(2, &words);
    place.sandbar(&["run", "--embedded", "x", "-b", "localhost:1"]).failed(2, &["cannot be used with"]);
}

#[test]
fn properties_of_the_kafka_client() {
    let place = Place::counting("properties");
    let run = |property: &str| {
        place.sandbar(&["run", "-b", "127.0.0.1:1", "--listen", "127.0.0.1:0", "-X", &format!("kafka.{property}")])
    };
    run("fetch.mn.bytes=1").failed(2, &["unknown librdkafka property fetch.mn.bytes"]);
    run("group.id=mine").failed(2, &["property group.id cannot be set: it is the application id"]);
}

#[test]
fn the_reference_is_printed() {
    let ended = Place::new("reference").sandbar(&["reference", "manifest"]).succeeded();
    assert!(ended.stdout.contains("### `commit.interval.ms` (KS)"), "{}", ended.stdout);
}

#[test]
fn completions_are_printed() {
    let ended = Place::new("completions").sandbar(&["completions", "bash"]).succeeded();
    assert!(ended.stdout.contains("_sandbar"), "{}", ended.stdout);
}
