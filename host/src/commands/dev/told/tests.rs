//! What is read after a swap.

use serde_json::json;

use super::*;

#[test]
fn saved_files_are_named_from_the_crate_on() {
    let files: Vec<PathBuf> = ["/w/src/lib.rs", "/sdk/src/a.rs", "/w/b.rs", "/w/c.rs"].map(PathBuf::from).to_vec();
    assert_eq!(saved(&files[..2], Path::new("/w")), "saved src/lib.rs, /sdk/src/a.rs");
    assert_eq!(saved(&files, Path::new("/w")), "saved src/lib.rs, /sdk/src/a.rs, b.rs and 1 more");
}

#[test]
fn what_the_host_says_goes_before_what_swaps_are() {
    let version = |kind: &str, changes: serde_json::Value| {
        Version::of(json!({ "number": 2, "module": "ab", "state": "ACTIVE", "kind": kind, "changes": changes }))
            .expect("one")
    };
    let changes = json!([
        { "what": "store counts", "effect": "kept" },
        { "what": "store last", "effect": "migrated" },
        { "what": "positions", "effect": "kept" },
    ]);
    assert_eq!(effects(&version("swap", changes)), ["kept: store counts, positions", "migrated: store last"]);
    assert!(effects(&version("Swap", json!([])))[1].ends_with("the module's memory and schedules"));
    assert!(effects(&version("RESTART", json!([])))[1].starts_with("reset: the stream threads"));
}
