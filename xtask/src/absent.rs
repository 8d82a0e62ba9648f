//! Proves with `cargo tree` that the pure crates stay free of what would make them slow to build or impossible to
//! replay. Looks at normal and build dependencies of all features, never at what only tests use.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

/// The crates that must stay pure.
const PURE: &[&str] = &["engine", "broker", "sim"];

/// What none of them may depend on, directly or not.
const ABSENT: &[&str] = &["wasmtime", "rdkafka", "rocksdb", "librocksdb-sys", "tokio", "hyper", "axum", "rand"];

/// Prints one line for each crate; false when a banned dependency was found.
pub fn check(root: &Path) -> Result<bool> {
    let mut passed = true;
    for package in PURE {
        let tree = dependencies(root, package)?;
        let found = banned(&tree);
        if found.is_empty() {
            println!("{package}: {} crates, none of {}", tree.lines().count(), ABSENT.join(", "));
        } else {
            println!("{package} must not depend on {}; see `cargo tree -p {package} -i <crate>`", found.join(", "));
            passed = false;
        }
    }
    Ok(passed)
}

/// One line `name vX.Y.Z` for each crate in the tree of `package`.
fn dependencies(root: &Path, package: &str) -> Result<String> {
    let output = Command::new(env!("CARGO"))
        .current_dir(root)
        .args(["tree", "--locked", "--package", package, "--edges", "normal,build", "--prefix", "none", "--no-dedupe"])
        .output()
        .with_context(|| format!("cannot run cargo tree for {package}"))?;
    if !output.status.success() {
        bail!("cargo tree for {package} failed: {}", String::from_utf8_lossy(&output.stderr));
    }
    let mut lines: Vec<&str> = std::str::from_utf8(&output.stdout)?.lines().collect();
    lines.sort_unstable();
    lines.dedup();
    Ok(lines.join("\n"))
}

fn banned(tree: &str) -> Vec<&'static str> {
    let has = |name: &str| tree.lines().any(|line| line.split(' ').next() == Some(name));
    ABSENT.iter().copied().filter(|name| has(name)).collect()
}

#[cfg(test)]
mod tests;
