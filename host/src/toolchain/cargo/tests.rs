//! Reading cargo's report.

use super::*;

#[test]
fn only_an_artifact_with_a_module_counts() {
    let line =
        r#"{"reason":"compiler-artifact","target":{"name":"vote"},"filenames":["/t/libvote.rlib","/t/vote.wasm"]}"#;
    assert_eq!(module_of(line), Some(PathBuf::from("/t/vote.wasm")));
    assert_eq!(module_of(r#"{"reason":"compiler-artifact","filenames":["/t/libserde.rlib"]}"#), None);
    assert_eq!(module_of(r#"{"reason":"build-finished","success":true}"#), None);
    assert_eq!(module_of("Hello"), None);
}

#[test]
fn workspaces_that_share_a_target_folder_build_in_folders_of_their_own() {
    let of = |workspace_root: &str, target_directory: &str| {
        target_folder_of(&Folders { target_directory: target_directory.into(), workspace_root: workspace_root.into() })
    };
    assert_eq!(of("/a/buoys", "/a/buoys/target"), None);
    let (a, b) = (of("/a/buoys", "/shared"), of("/b/buoys", "/shared"));
    assert!(a.as_ref().is_some_and(|folder| folder.starts_with("/shared/sandbar")), "{a:?}");
    assert_ne!(a, b);
    assert_eq!(a, of("/a/buoys", "/shared"));
}
