//! Dead letters from a file: what a stranger wrote is judged, bounded, and never steers the terminal.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::support::{Ended, Place, guest};

/// `repro` of a dead letter with these settings, as `dlq show --save` writes it.
fn repro(place: &Place, settings: &str, module: &str) -> Ended {
    let headers = [
        ("__streams.errors.exception", "sandbar.RecordRefused: no"),
        ("__streams.errors.message", "no"),
        ("__streams.errors.topic", "in"),
        ("__streams.errors.partition", "0"),
        ("__streams.errors.offset", "7"),
        ("__sandbar.reason", "refused"),
        ("__sandbar.task", "0_0"),
        ("__sandbar.wall-clock-time", "1795800600000"),
        ("__sandbar.settings", settings),
    ];
    let headers: Vec<Value> =
        headers.iter().map(|(name, value)| json!([STANDARD.encode(name), STANDARD.encode(value)])).collect();
    let key = STANDARD.encode("k");
    let saved = json!({ "position": "dlq@0:0", "timestamp": 5, "key": key, "value": key, "headers": headers });
    place.write("letter.json", saved.to_string());
    place.sandbar(&["repro", "--from-file", "letter.json", "--module", module])
}

#[test]
fn what_a_dead_letter_says_never_steers_the_terminal() {
    let place = Place::new("repro-terminal");
    let module = guest("count").display().to_string();
    for (settings, words) in [
        ("a\u{1b}]0;title\u{7}=1", "no limit has the key a\\u{1b}]0;title\\u{7}"),
        ("a\u{9b}2J\u{202e}=1", "no limit has the key a\\u{9b}2J\\u{202e}"),
        ("sink.o\u{1b}[2J.partitions=1", "sink o\\u{1b}[2J has no topic"),
    ] {
        let ended = repro(&place, settings, &module).failed(1, &[words]);
        let steers = |character: char| character.is_control() && character != '\n';
        assert!(!ended.stderr.contains(steers) && !ended.stderr.contains('\u{202e}'), "{ended:?}");
    }
}

#[test]
fn settings_that_cannot_be_read_are_no_defaults() {
    let place = Place::new("repro-settings");
    let module = guest("count").display().to_string();
    for count in ["many", "-1", "4294967296", ""] {
        let settings = format!("sink.out.topic=out\nsink.out.partitions={count}");
        let expected = format!("partitions: expected how many there are, found {count:?}");
        repro(&place, &settings, &module).failed(1, &["dlq@0:0: sink out", &expected]);
    }
    // The module processes it today.
    repro(&place, "sink.out.topic=out\nsink.out.partitions=4", &module).succeeded();
}

#[test]
fn a_module_without_a_manifest_has_the_default_bounds() {
    let place = Place::new("repro-bounds");
    place.write("large.wasm", vec![0; (10 << 20) + 1]);
    let words = ["10485761 bytes", "more than the limit of 10485760 bytes", "module.max.bytes"];
    repro(&place, "", "large.wasm").failed(4, &words);
}
