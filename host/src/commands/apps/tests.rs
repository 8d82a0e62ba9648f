//! What is asked of a host, and what is shown of its answers.

use clap::Parser;
use serde_json::json;

use super::*;
use crate::commands::client::testing::host_of;

#[derive(Parser)]
struct Line {
    #[command(subcommand)]
    command: Command,
}

/// What a command asks a host for.
fn questions(words: &[&str], answers: Vec<(u16, Value)>) -> Vec<String> {
    let (url, host) = host_of(answers);
    let line = [&["apps"], words, &["--url", &url]].concat();
    run(&Line::try_parse_from(line).expect("known flags").command, Terminal::new(Format::Text)).expect("an answer");
    host.join().expect("no panic").iter().map(crate::commands::client::testing::Asked::what).collect()
}

#[test]
fn each_command_asks_its_route() {
    let app = || (200, json!({ "id": "vote", "state": "paused" }));
    assert_eq!(questions(&["list"], vec![(200, json!({ "apps": [] }))]), ["GET /v1/apps"]);
    assert_eq!(questions(&["show", "a/b"], vec![app()]), ["GET /v1/apps/a%2Fb"]);
    assert_eq!(questions(&["history", "v"], vec![(200, json!({ "versions": [] }))]), ["GET /v1/apps/v/versions"]);
    for what in ["pause", "resume", "stop"] {
        assert_eq!(questions(&[what, "v"], vec![app()]), [format!("POST /v1/apps/v/{what}")]);
    }
    // The only application need not be named.
    let only = (200, json!({ "apps": [{ "id": "vote", "state": "running" }] }));
    assert_eq!(questions(&["pause"], vec![only, app()]), ["GET /v1/apps", "POST /v1/apps/vote/pause"]);
}

#[test]
fn an_application_is_a_row() {
    assert_eq!(row(&json!({ "id": "vote", "state": "running" })), "vote\trunning");
    let failed = json!({ "id": "vote", "state": "errored", "error": "no\nbroker" });
    assert_eq!(row(&failed), "vote\terrored\tno\\nbroker");
}

#[test]
fn an_order_is_answered_with_what_became_of_it() {
    assert_eq!(ordered(&json!({ "id": "vote", "paused": true })), "vote\tpaused");
    assert_eq!(ordered(&json!({ "id": "vote", "paused": false })), "vote\tresumed");
    assert_eq!(ordered(&json!({ "id": "vote", "stopping": true })), "vote\tstopping");
    assert_eq!(ordered(&json!({ "id": "vote", "state": "running" })), "vote\trunning");
}

#[test]
fn an_application_is_shown_with_its_tasks() {
    let app = json!({
        "id": "vote", "state": "running", "error": null, "not_ready": null, "version": 3,
        "on_probation": true, "paused": false, "module": "ab", "lag": 7,
        "threads": [
            { "tasks": [{ "task": "0_0", "state": "running", "version": 3, "partitions": [{ "lag": 3 }, { "lag": 4 }] }] },
            { "tasks": [{ "task": "0_1", "state": "restoring", "partitions": [{ "lag": null }] }] },
        ],
    });
    let expected = [
        "id\tvote",
        "state\trunning",
        "version\t3",
        "on_probation\ttrue",
        "module\tab",
        "lag\t7",
        "task\t0_0\trunning\tversion 3\tlag 7",
        "task\t0_1\trestoring",
    ];
    assert_eq!(lines(&app), expected);
}
