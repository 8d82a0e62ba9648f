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
