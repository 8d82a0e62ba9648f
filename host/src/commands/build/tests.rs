//! Where a build reads from and writes to.

use std::fs;

use super::*;

#[test]
fn the_manifest_says_where_the_module_goes() {
    let folder = std::env::temp_dir().join(format!("sandbar-build-{}", std::process::id()));
    fs::create_dir_all(&folder).expect("a folder");
    let written = |text: &str| fs::write(folder.join(MANIFEST), text).expect("a file");

    assert_eq!(declared_module(&folder).expect("none is fine"), None);
    written("application.id = \"vote\"\nmodule = \"vote.wasm\"\n");
    assert_eq!(declared_module(&folder).expect("valid"), Some(folder.join("vote.wasm")));
    written("module = 3\n");
    let error = declared_module(&folder).expect_err("refused").to_string();
    assert!(error.ends_with("module must be a path in quotes, found 3"), "{error}");
    written("module = ");
    assert!(declared_module(&folder).expect_err("refused").to_string().ends_with("is not TOML"));

    let error = find_manifest(&folder).expect_err("no crate").to_string();
    assert!(error.contains("Cargo.toml; name the folder of a guest crate"), "{error}");
    fs::remove_dir_all(&folder).expect("removed");
}
