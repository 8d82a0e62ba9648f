//! What a version takes of a manifest, and what a host keeps of its own.

use std::path::Path;

use serde_json::json;

use crate::config::options::{OPTIONS, Scope};
use crate::config::{Manifest, Overrides};

const MINIMAL: &str = "application.id = \"vote\"\nmodule = \"vote.wasm\"\n";

fn parse(lines: &str) -> Manifest {
    let text = format!("{MINIMAL}{lines}");
    Manifest::parse(Path::new("app/sandbar.toml"), &text, &Overrides::default()).expect("a manifest")
}

#[test]
fn what_a_host_would_have_to_be_started_again_for() {
    let manifest = parse("num.stream.threads = 3\nretry.backoff.ms = 100\n[config]\nagents = 3\n");
    let other = parse("state.dir = \"elsewhere\"\nretry.backoff.ms = 100\n[kafka]\nsecurity.protocol = \"ssl\"\n");
    let differing = ["kafka.security.protocol", "num.stream.threads", "state.dir"];
    assert_eq!(manifest.host_differences(&other), differing);
    assert_eq!(other.host_differences(&manifest), differing);
    assert_eq!(parse("").host_differences(&parse("num.stream.threads = 1\n[config]\nagents = 3\n")), [""; 0]);
    // What a deployment says of it: only what its manifest sets, and not where the host is.
    assert_eq!(manifest.host_keys_unlike(&other), ["num.stream.threads"]);
    assert_eq!(other.host_keys_unlike(&manifest), ["kafka.security.protocol"]);
    assert!(parse("").is_same_as(&parse("# nothing\nnum.stream.threads = 1\n")));
    assert!(!manifest.is_same_as(&other) && !parse("").is_same_as(&parse("[config]\nagents = 3\n")));
}

#[test]
fn a_version_has_the_tables_and_options_that_shape_what_the_module_does_and_no_default() {
    let manifest = parse(
        "state.dir = \"elsewhere\"\nnum.stream.threads = 3\nprocessor.deadline.ms = 5\n\
         processing.guarantee = \"exactly_once_v2\"\nauto.offset.reset = \"latest\"\n\
         processor.memory.total.max.bytes = 1000000\n\
         [sources.in]\ntopic = \"reports\"\n[stores.votes]\nbackend = \"memory\"\nlogging.enabled = true\n\
         [config]\nagents = 3\n[kafka]\nsecurity.protocol = \"ssl\"\n",
    );
    let values = serde_json::to_value(manifest.version_values()).expect("JSON");
    let expected = json!({
        "auto.offset.reset": "latest", "config.agents": "3", "processor.deadline.ms": 5, "sources.in.topic": "reports",
        "stores.votes.backend": "memory",
    });
    assert_eq!(values, expected);
}

#[test]
fn a_host_keeps_its_own_and_takes_everything_else_from_the_version() {
    let deployed = parse("processor.deadline.ms = 5\n[sources.in]\ntopic = \"new\"\n[config]\nagents = 3\n");
    let mut overrides = Overrides::default();
    overrides.flag("--guarantee", "processing.guarantee", "at_least_once");
    let text = format!(
        "{MINIMAL}state.dir = \"mine\"\ncommit.interval.ms = 7\nmax.task.idle.ms = 9\n\
         [sources.in]\ntopic = \"old\"\n[sinks.out]\ntopic = \"old-out\"\n[config]\nolder = 1\n"
    );
    let host = Manifest::parse(Path::new("app/sandbar.toml"), &text, &overrides).expect("a manifest");
    let merged = host.with_version_values(&deployed.version_values()).expect("they fit");
    assert_eq!(merged.version_values(), deployed.version_values());
    assert_eq!((merged.text("state.dir"), merged.integer("commit.interval.ms")), ("mine", 7));
    assert_eq!((merged.text("processing.guarantee"), merged.integer("max.task.idle.ms")), ("exactly_once_v2", 0));
    assert_eq!(merged.sources.get("in").map(String::as_str), Some("new"));
    assert!(merged.sinks.is_empty() && merged.config.len() == 1, "{merged:?}");
    assert_eq!(merged.limits().deadline_ms, 5);
}

#[test]
fn every_value_that_survives_json_comes_back_as_it_was() {
    let of_version = OPTIONS.iter().filter(|option| option.scope == Scope::Version);
    assert!(of_version.count() > 20);
    let manifest = parse("errors.dead.letter.queue.topic.name = \"dlq\"\n[stores.a.b]\nlogging.enabled = false\n");
    let text = serde_json::to_string(&manifest.version_values()).expect("JSON");
    let read = serde_json::from_str(&text).expect("JSON");
    let again = parse("").with_version_values(&read).expect("they fit");
    assert_eq!(again.version_values(), manifest.version_values());
    assert!(!again.stores["a.b"].logging_enabled);
}

#[test]
fn what_no_version_can_have_is_named_all_at_once() {
    let values = json!({
        "state.dir": "/elsewhere", "processor.novelty.max": 5, "processor.deadline.ms": "soon", "kafka.acks": "1",
        "sources.in.topic": null, "production.exception.handler": "dlq",
    });
    let values = serde_json::from_value(values).expect("a map");
    let message = parse("").with_version_values(&values).expect_err("it is refused").to_string();
    for expected in [
        "the manifest of the version: state.dir belongs to the host and to no version",
        "the manifest of the version: unknown key processor.novelty.max, as a newer host has it: update this host",
        "processor.deadline.ms: expected a whole number (ms), found the text \"soon\"",
        "kafka.acks belongs to the host",
        "sources.in.topic: expected a name of letters",
    ] {
        assert!(message.contains(expected), "{expected}\n{message}");
    }
    let alone = serde_json::from_value(json!({ "production.exception.handler": "dlq" })).expect("a map");
    let message = parse("").with_version_values(&alone).expect_err("it is refused").to_string();
    assert!(message.contains("set errors.dead.letter.queue.topic.name"), "{message}");
}
