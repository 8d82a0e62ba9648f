//! Each rule shown failing on a bad snippet and passing on a good one, and the rules over the repository itself.

use std::path::Path;

use super::{Finding, apply_ratchet, check_repository, findings, parse_ratchet};
use crate::source::SourceFile;

/// The rules that a single file breaks.
fn broken(path: &str, text: &str) -> Vec<&'static str> {
    findings(&[SourceFile::new(path, text)]).into_iter().map(|finding| finding.rule).collect()
}

const DOC: &str = "//! Owns the example, always in order, never the clock.\n";

fn with_doc(code: &str) -> String {
    format!("{DOC}\n{code}")
}

#[test]
fn the_repository_obeys() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    assert!(check_repository(root).unwrap(), "see the lines above, or run `cargo xtask tidy`");
}

#[test]
fn a_file_starts_with_its_doc() {
    assert_eq!(broken("a.rs", "use std::fmt;\n"), ["first-line"]);
    assert_eq!(broken("a.rs", "//!\n"), ["first-line"]);
    assert_eq!(broken("a.rs", "//! To be written.\n"), ["first-line"]);
    assert!(broken("a.rs", DOC).is_empty());
}

#[test]
fn comments_are_no_wider_than_code() {
    let comment = |columns: usize| with_doc(&format!("    // {}\n", "é".repeat(columns - 7)));
    assert_eq!(broken("a.rs", &comment(121)), ["comment-width"]);
    assert!(broken("a.rs", &comment(120)).is_empty());
}

#[test]
fn a_file_ends_after_700_lines() {
    assert_eq!(broken("a.rs", &with_doc(&"\n".repeat(700))), ["file-length"]);
    assert!(broken("a.rs", &with_doc(&"\n".repeat(698))).is_empty());
    let generated = format!("{DOC}// DO NOT EDIT\n{}", "\n".repeat(900));
    assert!(broken("a.rs", &generated).is_empty());
}

#[test]
fn a_function_ends_after_70_lines() {
    let function = |lines: usize| with_doc(&format!("fn f(a: [u8; 2]) {{\n{}}}\n", "    // {\n".repeat(lines - 2)));
    assert_eq!(broken("a.rs", &function(71)), ["function-length"]);
    assert!(broken("a.rs", &function(70)).is_empty());
    let declarations = with_doc(&"trait T {\n    fn f();\n}\n".repeat(40));
    assert!(broken("a.rs", &declarations).is_empty());
}

#[test]
fn tests_are_siblings() {
    assert_eq!(broken("a.rs", &with_doc("#[cfg(test)]\nmod tests {\n}\n")), ["tests-inside"]);
    assert!(broken("a.rs", &with_doc("#[cfg(test)]\nmod tests;\n")).is_empty());
}

#[test]
fn tests_run() {
    assert_eq!(broken("a.rs", &with_doc("#[ignore]\nfn f() {}\n")), ["ignored-test"]);
}

#[test]
fn unsafe_stays_in_its_modules() {
    let code = with_doc("fn f() { unsafe { g() } }\n");
    assert_eq!(broken("host/src/main.rs", &code), ["unsafe"]);
    assert!(broken("guest-sdk/rust/src/exports.rs", &code).is_empty());
    assert!(broken("host/src/main.rs", &with_doc("// unsafe in a comment\nfn unsafely() {}\n")).is_empty());
}

#[test]
fn one_integration_binary_for_each_package() {
    let manifest = SourceFile::new("host/Cargo.toml", "[package]\n");
    let test = SourceFile::new("host/tests/second.rs", DOC);
    let found = findings(&[manifest, test]);
    assert_eq!(found.iter().map(|f| f.rule).collect::<Vec<_>>(), ["integration-binary"]);
    assert_eq!(broken("host/Cargo.toml", "[[test]]\nname = \"a\"\n[[test]]\nname = \"b\"\n"), ["integration-binary"]);
}

#[test]
fn layers_do_not_know_what_is_above_or_beside() {
    assert_eq!(broken("host/engine/src/a.rs", &with_doc("// as RocksDB does\n")), ["foreign-word"]);
    assert_eq!(broken("host/engine/src/a.rs", &with_doc("struct HttpClient;\n")), ["foreign-word"]);
    assert_eq!(broken("host/broker/src/core/log.rs", &with_doc("use std::fs;\n")), ["foreign-word"]);
    assert!(broken("host/rocks/src/a.rs", &with_doc("// as RocksDB does\n")).is_empty());
}

#[test]
fn nothing_unfinished_and_no_path_of_one_machine() {
    assert_eq!(broken("a.rs", &with_doc(concat!("// FIX", "ME\n"))), ["never"]);
    assert_eq!(broken("a.rs", &with_doc(concat!("fn f() { todo", "!() }\n"))), ["never"]);
    assert_eq!(broken("README.md", concat!("cd /ho", "me/me/sandbar\n")), ["never"]);
    assert_eq!(broken("scripts/a.sh", concat!("cd /wo", "rk/sandbar\n")), ["never"]);
}

#[test]
fn the_glossary_has_one_word_for_a_thing() {
    assert_eq!(broken("a.rs", &with_doc("fn send(msg: u8) {}\n")), ["synonym"]);
    assert_eq!(broken("a.rs", &with_doc("fn write_checkpoint() {}\n")), ["synonym"]);
    assert!(broken("a.rs", &with_doc("// a msg in a comment\nfn f() { g(\"msg\") }\n")).is_empty());
}

#[test]
fn adapters_do_not_import_each_other() {
    let manifest = |dependency: &str| format!("[dependencies]\n{dependency}\n");
    assert_eq!(broken("host/kafka/Cargo.toml", &manifest("rocks.workspace = true")), ["imports"]);
    assert_eq!(broken("host/Cargo.toml", &manifest("wasmtime = { workspace = true }")), ["imports"]);
    assert_eq!(broken("host/engine/Cargo.toml", &manifest("serde.workspace = true")), ["imports"]);
    assert_eq!(broken("host/rocks/Cargo.toml", "[dev-dependencies]\nkafka.workspace = true\n"), ["imports"]);
    assert!(broken("host/kafka/Cargo.toml", &manifest("rdkafka.workspace = true")).is_empty());
    assert!(broken("host/kafka/Cargo.toml", "[package]\nrocks = 1\n").is_empty());
}

#[test]
fn links_lead_somewhere() {
    let page = "[a](src/a.md#part) [b](../README.md) [c](https://example.org/x) [d](#here)\n```\n[e](no)\n```\n";
    let files = |names: &[&str]| -> Vec<SourceFile> {
        let others = names.iter().map(|name| SourceFile::new(name, ""));
        others.chain([SourceFile::new("docs/index.md", page)]).collect()
    };
    let broken = |names: &[&str]| findings(&files(names)).into_iter().map(|f| f.rule).collect::<Vec<_>>();
    assert!(broken(&["docs/src/a.md", "README.md"]).is_empty());
    assert_eq!(broken(&["docs/src/b.md", "README.md"]), ["link"]);
    assert_eq!(broken(&["docs/src/a.md"]), ["link"]);
}

#[test]
fn named_tests_exist() {
    let broken = |name: &str| -> Vec<&'static str> {
        let page = SourceFile::new("docs/a.md", &format!("By `{name}` and `std::mem::swap`.\n"));
        let test = SourceFile::new("host/tests/it/a.rs", "//! Tests.\n\n#[test]\nfn it_holds() {}\n");
        findings(&[page, test]).into_iter().map(|finding| finding.rule).collect()
    };
    assert!(broken("host/tests/it/a.rs::it_holds").is_empty());
    assert_eq!(broken("host/tests/it/a.rs::it_falls"), ["named-test"]);
    assert_eq!(broken("host/tests/it/b.rs::it_holds"), ["named-test"]);
}

fn long_function(size: usize) -> Finding {
    let what = String::new();
    Finding { rule: "function-length", path: "a.rs".to_owned(), line: 1, what, size: Some(size) }
}

#[test]
fn the_ratchet_lets_old_sizes_through_and_only_goes_down() {
    let ratchet = parse_ratchet("# comment\nfunction-length a.rs 80\n").unwrap();
    let rules = |found: Vec<Finding>| {
        apply_ratchet(found, &ratchet).into_iter().map(|finding| finding.rule).collect::<Vec<_>>()
    };
    assert!(rules(vec![long_function(80), long_function(75)]).is_empty());
    assert_eq!(rules(vec![long_function(81)]), ["function-length"]);
    assert_eq!(rules(vec![long_function(79)]), ["ratchet"]);
    assert_eq!(rules(vec![]), ["ratchet"]);
}

#[test]
fn a_ratchet_line_has_three_fields() {
    assert!(parse_ratchet("function-length a.rs\n").is_err());
    assert!(parse_ratchet("function-length a.rs many\n").is_err());
}
