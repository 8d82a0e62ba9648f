//! Tables of versions: what they are equal by, how they differ, what a change costs.

use std::path::Path;

use super::*;
use crate::config::Overrides;

fn manifest(lines: &str) -> Manifest {
    let text = format!("application.id = \"vote\"\nmodule = \"vote.wasm\"\n{lines}");
    Manifest::parse(Path::new("sandbar.toml"), &text, &Overrides::default()).expect("a manifest")
}

fn of(lines: &str) -> VersionManifest {
    VersionManifest::of(&manifest(lines))
}

#[test]
fn only_what_matters_is_compared() {
    let one = of("processor.deadline.ms = 5\n[config]\nb = 2\na = 1\n");
    let same = of("num.stream.threads = 4\nprocessor.deadline.ms = 5\nmax.task.idle.ms = 0\n[config]\na = 1\nb = 2\n");
    assert_eq!(one, same);
    for other in
        ["", "processor.deadline.ms = 5\n[config]\na = 1\nb = 3\n", "processor.deadline.ms = 5\n[config]\na = 1\n"]
    {
        assert_ne!(one, of(other), "{other}");
    }
}

#[test]
fn differences_name_the_keys_of_both_sides() {
    let (one, other) = (
        of("[sources.in]\ntopic = \"a\"\n[config]\nx = 1\ny = 1\n"),
        of("[sinks.out]\ntopic = \"a\"\n[config]\nx = 2\ny = 1\n"),
    );
    assert_eq!(one.differences(&other), ["config.x", "sinks.out.topic", "sources.in.topic"]);
    assert_eq!(other.differences(&one), one.differences(&other));
    assert_eq!(one.differences(&one), Vec::<String>::new());
}

#[test]
fn a_change_of_config_and_limits_is_a_swap_and_any_other_a_restart() {
    let before = of("[config]\nx = 1\n");
    assert_eq!(before.change_to(&of("processor.deadline.ms = 5\n[config]\nx = 2\n")), ChangeKind::Swap);
    assert_eq!(before.change_to(&before), ChangeKind::Swap);
    for lines in
        ["[sources.in]\ntopic = \"a\"\n", "auto.offset.reset = \"latest\"\n", "[stores.s]\nbackend = \"memory\"\n"]
    {
        assert_eq!(before.change_to(&of(lines)), ChangeKind::Restart, "{lines}");
    }
}

#[test]
fn a_host_with_an_older_file_runs_the_tables_of_the_version() {
    let deployed = of("[sources.in]\ntopic = \"new\"\n");
    let text = serde_json::to_string(&deployed).expect("JSON");
    let read: VersionManifest = serde_json::from_str(&text).expect("a manifest");
    assert_eq!((text.as_str(), &read), (r#"{"sources.in.topic":"new"}"#, &deployed));
    assert_eq!(read.get("sources.in.topic"), Some(&Value::from("new")));
    let host = read.apply_to(&manifest("state.dir = \"mine\"\n[sources.in]\ntopic = \"old\"\n")).expect("it fits");
    assert_eq!((VersionManifest::of(&host), host.text("state.dir")), (deployed, "mine"));
}
