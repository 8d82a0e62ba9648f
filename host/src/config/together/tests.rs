//! Which manifests go together, and what the others are refused with.

use super::super::Overrides;
use super::*;

fn manifest(path: &str, text: &str) -> Manifest {
    let text = format!("module = \"m.wasm\"\n{text}");
    Manifest::parse(Path::new(path), &text, &Overrides::default()).expect("a manifest")
}

/// What these texts are refused with, as `a.toml`, `b.toml`, ….
#[track_caller]
fn refused(texts: &[&str]) -> String {
    let names = ["apps/a.toml", "apps/b.toml", "apps/c.toml"];
    let manifests = names.iter().zip(texts).map(|(name, text)| manifest(name, text)).collect();
    together(manifests).expect_err("they do not fit").to_string()
}

#[test]
fn applications_of_a_folder_go_together() {
    let texts = [("apps/a.toml", "application.id = \"a\""), ("apps/b.toml", "application.id = \"b\"")];
    let manifests = texts.iter().map(|(path, text)| manifest(path, text)).collect();
    let manifests = together(manifests).expect("they fit");
    assert_eq!(state_folder(&manifests[0]).file_name(), Some("a".as_ref()));
    assert_ne!(state_folder(&manifests[0]), state_folder(&manifests[1]));
}

#[test]
fn an_id_is_there_once() {
    let error = refused(&["application.id = \"a\"", "application.id = \"b\"", "application.id = \"a\""]);
    let expected = "apps/c.toml:2:1: application.id \"a\" is that of apps/a.toml:2:1 already; each application has an id of \
                    its own";
    assert_eq!(error, expected);
}

#[test]
fn state_within_the_state_of_another_is_refused() {
    let error = refused(&[
        "application.id = \"a\"\nstate.dir = \"/srv/state\"",
        "application.id = \"b\"\nstate.dir = \"/srv/state/a\"",
        "application.id = \"c\"\nstate.dir = \"/srv/state\"",
    ]);
    assert!(error.starts_with("apps/b.toml: its state is in /srv/state/a/b, and that of apps/a.toml in"), "{error}");
    assert_eq!(error.lines().count(), 1, "{error}");
}

#[test]
fn a_key_of_the_process_has_one_value() {
    let error = refused(&[
        "application.id = \"a\"\napplication.server = \"127.0.0.1:1\"\nrocksdb.block.cache.bytes = 2097152",
        "application.id = \"b\"\nrocksdb.block.cache.bytes = 4194304",
        "application.id = \"c\"\napplication.server = \"127.0.0.1:2\"",
    ]);
    let lines: Vec<&str> = error.lines().collect();
    assert_eq!(lines.len(), 2, "{error}");
    for (line, words) in lines.iter().zip([
        ["apps/c.toml:3:1: application.server belongs to the process", "apps/a.toml:3:1"],
        ["apps/b.toml:3:1: rocksdb.block.cache.bytes belongs to the process", "apps/a.toml:4:1"],
    ]) {
        assert!(words.iter().all(|word| line.contains(word)), "{line}");
    }
}

#[test]
fn a_value_of_the_process_holds_for_those_that_have_none() {
    let manifests = vec![
        manifest("a.toml", "application.id = \"a\""),
        manifest("b.toml", "application.id = \"b\"\napplication.server = \"127.0.0.1:1\""),
    ];
    let manifests = together(manifests).expect("they fit");
    assert_eq!(manifests[0].text("application.server"), "127.0.0.1:1");
    assert!(!manifests[0].is_set("advertised.listener"));
}
