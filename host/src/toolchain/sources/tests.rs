//! What is watched of a crate, by what cargo says of it.

use serde_json::json;

use super::*;

fn package(name: &str, source: Option<&str>, targets: serde_json::Value) -> serde_json::Value {
    json!({ "id": name, "source": source, "manifest_path": format!("/w/{name}/Cargo.toml"), "targets": targets })
}

fn found(manifest: &str) -> Vec<Place> {
    let library = |name: &str| json!({ "kind": ["cdylib", "rlib"], "src_path": format!("/w/{name}/src/lib.rs") });
    let test = json!({ "kind": ["test"], "src_path": "/w/vote/tests/it.rs" });
    let script = json!({ "kind": ["custom-build"], "src_path": "/w/sdk/build.rs" });
    let text = json!({
        "workspace_root": "/w",
        "packages": [
            package("vote", None, json!([library("vote"), test])),
            package("sdk", None, json!([library("sdk"), script])),
            package("other", None, json!([library("other")])),
            package("serde", Some("registry+https://github.com/rust-lang/crates.io-index"), json!([library("serde")])),
        ],
        "resolve": { "nodes": [
            { "id": "vote", "dependencies": ["sdk", "serde"] },
            { "id": "sdk", "dependencies": ["serde"] },
            { "id": "other", "dependencies": ["sdk"] },
            { "id": "serde", "dependencies": [] },
        ] },
    });
    let metadata: Metadata = serde_json::from_value(text).expect("as cargo prints it");
    places(&metadata, Path::new(manifest)).expect("there are packages")
}

#[test]
fn a_crate_is_watched_with_what_it_is_made_of_on_this_machine() {
    let file = |path: &str| Place::File(path.into());
    let folder = |path: &str| Place::Folder(path.into());
    let expected = [
        folder("/w/sdk/src"),
        folder("/w/vote/src"),
        file("/w/Cargo.toml"),
        file("/w/sdk/Cargo.toml"),
        file("/w/sdk/build.rs"),
        file("/w/vote/Cargo.toml"),
    ];
    assert_eq!(found("/w/vote/Cargo.toml"), expected);
}

#[test]
fn the_manifest_of_a_workspace_means_all_its_members() {
    let folders = found("/w/Cargo.toml").into_iter().filter(|place| matches!(place, Place::Folder(_)));
    let names = ["/w/other/src", "/w/sdk/src", "/w/vote/src"].map(|path| Place::Folder(path.into()));
    assert_eq!(folders.collect::<Vec<_>>(), names);
}
