//! Which compiler is taken, and in which words none is.

use super::*;

fn compiler(rustc: &str, release: &str, sysroot: &Path) -> Compiler {
    Compiler {
        cargo: PathBuf::from(rustc).with_file_name("cargo"),
        rustc: PathBuf::from(rustc),
        release: release.to_owned(),
        commit: "0123456789abcdef".to_owned(),
        host: "x86_64-unknown-linux-gnu".to_owned(),
        sysroot: sysroot.to_owned(),
    }
}

#[test]
fn versions_compare_by_number() {
    assert!(is_new_enough("1.96.0", "1.95"));
    assert!(is_new_enough("1.95.0", "1.95"));
    assert!(is_new_enough("1.100.0-nightly", "1.95"));
    assert!(!is_new_enough("1.63.0", "1.95"));
    assert!(!is_new_enough("1.94.9", "1.95"));
}

#[test]
fn the_first_compiler_with_source_is_taken() {
    let folder = std::env::temp_dir().join(format!("sandbar-build-std-{}", std::process::id()));
    let library = folder.join("lib/rustlib/src/rust/library/std");
    fs::create_dir_all(&library).expect("a folder");
    fs::write(library.join("Cargo.toml"), "").expect("a file");

    let without = compiler("/a/rustc", "1.95.0", Path::new("/nowhere"));
    let with = compiler("/b/rustc", "1.96.0", &folder);
    let old = compiler("/c/rustc", "1.63.0", &folder);
    let chosen = choose(&[without.clone(), old.clone(), with.clone()]).expect("one fits").clone();
    fs::remove_dir_all(&folder).expect("removed");
    assert_eq!(chosen, with);

    let error = choose(&[without, old]).expect_err("none fits").to_string();
    assert!(error.contains("/a/rustc has no source of the standard library"), "{error}");
    assert!(error.contains("/c/rustc is 1.63.0, older than"), "{error}");
    assert_eq!(choose(&[]).expect_err("none").to_string(), "there is no Rust compiler");
}
