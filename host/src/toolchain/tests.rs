//! Facts about compilers, read from what they print and keep.

use super::*;

const VERSION: &str = "rustc 1.96.0 (ac68faa20 2026-05-25)\nbinary: rustc\ncommit-hash: ac68faa20aaaaaaa\n\
commit-date: 2026-05-25\nhost: x86_64-unknown-linux-gnu\nrelease: 1.96.0\nLLVM version: 22.1.0\n";

fn parse(version: &str, sysroot: &str) -> Result<Compiler> {
    Compiler::parse(version, sysroot, Path::new("/usr/bin/rustc"), Path::new("/usr/bin/cargo"))
}

#[test]
fn a_compiler_tells_its_version() {
    let compiler = parse(VERSION, "/usr").expect("complete");
    assert_eq!((compiler.release.as_str(), compiler.host.as_str()), ("1.96.0", "x86_64-unknown-linux-gnu"));
    let error = parse("rustc 1.96.0\n", "/usr").expect_err("incomplete").to_string();
    assert_eq!(error, "/usr/bin/rustc -vV printed no release");
}

#[test]
fn a_target_is_there_when_its_library_is() {
    let folder = std::env::temp_dir().join(format!("sandbar-toolchain-{}", std::process::id()));
    let library = folder.join("lib/rustlib/wasm32-unknown-unknown/lib");
    std::fs::create_dir_all(&library).expect("a folder");
    let compiler = parse(VERSION, &folder.display().to_string()).expect("complete");
    // An empty folder is what an interrupted install leaves.
    assert!(!compiler.has_target("wasm32-unknown-unknown"));
    std::fs::write(library.join("libstd-0123.rlib"), "").expect("a file");
    assert!(compiler.has_target("wasm32-unknown-unknown"));
    assert!(!compiler.has_target("wasm32-wasip2"));
    std::fs::remove_dir_all(&folder).expect("removed");
}
