//! Versions: their JSON, their moves, and what is refused to be read.

use serde_json::json;

use super::*;

fn version(number: u64) -> Version {
    Version::new(NewVersion {
        number,
        module: ModuleDigest::of(b"a module"),
        manifest: VersionManifest::default(),
        who: "ada".to_owned(),
        when_ms: 7,
        why: "two thirds".to_owned(),
        kind: ChangeKind::Swap,
        signature: None,
    })
}

#[test]
fn a_version_is_read_as_it_was_written() {
    let mut written = version(3);
    written.move_to(VersionState::Ready, 8, "checked").expect("an allowed move");
    let text = serde_json::to_value(&written).expect("JSON");
    let expected = json!({
        "number": 3, "module": ModuleDigest::of(b"a module").to_string(), "manifest": {}, "who": "ada", "when_ms": 7,
        "why": "two thirds", "kind": "SWAP", "state": "READY",
        "moves": [
            { "state": "PREPARING", "when_ms": 7, "reason": "" }, { "state": "READY", "when_ms": 8, "reason": "checked" },
        ],
    });
    assert_eq!(text, expected);
    assert_eq!(Version::read(3, text.to_string().as_bytes()), Ok(written));
}

#[test]
fn what_a_newer_host_has_written_stays() {
    let mut text = serde_json::to_value(version(3)).expect("JSON");
    text["canary"] = json!({ "share": 0.1 });
    let mut read = Version::read(3, text.to_string().as_bytes()).expect("a version");
    read.move_to(VersionState::Ready, 9, "").expect("an allowed move");
    let again = serde_json::to_value(read).expect("JSON");
    assert_eq!((&again["canary"], &again["state"]), (&json!({ "share": 0.1 }), &json!("READY")));
}

#[test]
fn a_refused_move_changes_nothing() {
    let mut refused = version(3);
    let before = refused.clone();
    let error = refused.move_to(VersionState::Active, 9, "").expect_err("it skips two");
    assert_eq!(error.to_string(), "version 3 is PREPARING and cannot become ACTIVE");
    assert_eq!(refused, before);
}

#[test]
fn texts_and_moves_are_bounded() {
    let mut long = version(3);
    long.move_to(VersionState::Ready, 1, "é".repeat(5_000)).expect("an allowed move");
    assert!(long.moves()[1].reason.len() <= TEXT_MAX_BYTES + 3 && long.moves()[1].reason.ends_with("é…"));
    for to in [VersionState::Swapping, VersionState::Active, VersionState::Superseded].repeat(400) {
        long.move_to(to, 2, "").expect("an allowed move");
    }
    assert_eq!(long.moves().len(), MOVES_MAX);
    assert_eq!(long.moves()[0].state, VersionState::Preparing);
    assert!(serde_json::to_vec(&long).expect("JSON").len() < 100_000);
}

#[test]
fn what_contradicts_itself_is_not_read() {
    let text = serde_json::to_value(version(3)).expect("JSON");
    let read = |change: &dyn Fn(&mut serde_json::Value)| {
        let mut text = text.clone();
        change(&mut text);
        Version::read(3, text.to_string().as_bytes()).expect_err("it is refused")
    };
    assert_eq!(read(&|text| text["number"] = json!(4)), "it is of version 4");
    assert_eq!(read(&|text| text["state"] = json!("ACTIVE")), "its state is ACTIVE, but its last move is another one");
    assert!(read(&|text| text["state"] = json!("PAUSED")).contains("unknown variant `PAUSED`"));
    assert!(read(&|text| text["module"] = json!("../../etc")).contains("is no digest of a module"));
    assert!(Version::read(3, b"\xff").is_err() && Version::read(3, b"").is_err());
}
