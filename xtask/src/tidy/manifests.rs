//! Rules about who may depend on whom, read from the `Cargo.toml` files. Cargo proves the rest: what is not declared
//! cannot be imported.

use super::Finding;
use crate::source::SourceFile;

/// A package and all that its normal dependencies may be.
const ONLY: &[(&str, &[&str])] = &[("host/engine", &["bytes", "foldhash", "thiserror", "tracing"])];

/// A package and what it must not depend on, in tests neither.
const NOT: &[(&str, &[&str], &str)] = &[
    ("host/kafka", &["rocks", "sandbox"], "adapters never import each other"),
    ("host/rocks", &["kafka", "sandbox", "broker"], "adapters never import each other"),
    ("host/sandbox", &["kafka", "rocks", "broker"], "adapters never import each other"),
    ("host/broker", &["kafka", "rocks", "sandbox"], "the broker stands below the adapters"),
    ("tests/sim", &["kafka", "rocks", "sandbox"], "the simulation is free of native code"),
    (
        "tests/conformance",
        &["engine", "kafka", "rocks", "sandbox", "sandbar-host"],
        "the suite knows a broker to start and a client library, nothing else of the project",
    ),
    (
        "tests/chaos",
        &["engine", "kafka", "rocks", "sandbox", "broker", "sandbar-host"],
        "the campaigns see what a user can see: processes, topics, REST",
    ),
];

/// A library and the packages that name it: its adapter, and for librdkafka the suites that judge brokers and hosts as
/// any client sees them, so not through the adapter.
const OWNED: &[(&str, &[&str])] = &[
    ("rdkafka", &["host/kafka", "tests/conformance", "tests/chaos"]),
    ("rdkafka-sys", &["host/kafka"]),
    ("rocksdb", &["host/rocks"]),
    ("librocksdb-sys", &["host/rocks"]),
    ("wasmtime", &["host/sandbox"]),
    ("wasmtime-wasi", &["host/sandbox"]),
];

pub fn check(files: &[SourceFile]) -> Vec<Finding> {
    files.iter().filter(|file| file.path.ends_with("/Cargo.toml")).flat_map(check_manifest).collect()
}

pub fn check_manifest(file: &SourceFile) -> Vec<Finding> {
    let package = file.path.trim_end_matches("/Cargo.toml");
    let mut found = Vec::new();
    for dependency in dependencies(&file.text) {
        let mut report = |what: String| {
            found.push(Finding { rule: "imports", path: file.path.clone(), line: dependency.line, what, size: None });
        };
        let name = dependency.name;
        for (_, allowed) in ONLY.iter().filter(|(folder, _)| *folder == package) {
            if !dependency.only_tests && !allowed.contains(&name) {
                report(format!("`{name}`: {package} may only depend on {}", allowed.join(", ")));
            }
        }
        for (_, _, reason) in NOT.iter().filter(|(folder, names, _)| *folder == package && names.contains(&name)) {
            report(format!("`{name}`: {reason}"));
        }
        for (_, owners) in OWNED.iter().filter(|(library, owners)| *library == name && !owners.contains(&package)) {
            report(format!("`{name}`: only {} names it", owners.join(" and ")));
        }
    }
    found
}

struct Dependency<'a> {
    name: &'a str,
    line: usize,
    only_tests: bool,
}

/// The names in the dependency tables, in the forms that this repository uses.
fn dependencies(manifest: &str) -> Vec<Dependency<'_>> {
    let mut found = Vec::new();
    let mut table = "";
    for (index, line) in manifest.lines().enumerate() {
        let line = line.trim();
        if let Some(name) = line.strip_prefix('[') {
            table = name.trim_end_matches(']');
        } else if table.ends_with("dependencies") && !line.is_empty() && !line.starts_with('#') {
            let end = line.find(|c: char| !c.is_alphanumeric() && c != '-' && c != '_').unwrap_or(line.len());
            if end > 0 {
                found.push(Dependency { name: &line[..end], line: index + 1, only_tests: table.starts_with("dev-") });
            }
        }
    }
    found
}
