//! Which files a module of a crate is made of: those of the crate and of every crate of this machine that it depends
//! on, as cargo knows them. Crates of registries never change, so they are left out. Reads no source.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use super::{Toolchain, output};

/// A part of the sources.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// With all that is below it.
    Folder(PathBuf),
    File(PathBuf),
}

/// What `cargo metadata` says, as far as it matters here.
#[derive(Debug, Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    resolve: Option<Resolve>,
    workspace_root: PathBuf,
}

#[derive(Debug, Deserialize)]
struct Package {
    id: String,
    /// Absent for crates of this machine.
    source: Option<String>,
    manifest_path: PathBuf,
    targets: Vec<Target>,
}

#[derive(Debug, Deserialize)]
struct Target {
    kind: Vec<String>,
    src_path: PathBuf,
}

#[derive(Debug, Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Debug, Deserialize)]
struct Node {
    id: String,
    dependencies: Vec<String>,
}

/// Asks cargo for the sources of a crate, by its `Cargo.toml`.
///
/// # Errors
/// When cargo fails or its answer cannot be read.
pub fn sources(toolchain: &Toolchain, manifest: &Path, offline: bool) -> Result<Vec<Place>> {
    let mut command = Command::new(&toolchain.cargo);
    command.args(["metadata", "--format-version", "1", "--manifest-path"]).arg(manifest);
    if offline {
        command.arg("--offline");
    }
    if let Some(folder) = manifest.parent() {
        command.current_dir(folder);
    }
    if let Some(rustc) = &toolchain.rustc {
        command.env("RUSTC", rustc).env_remove("RUSTUP_TOOLCHAIN");
    }
    let answer = output(&mut command).context("cannot find out which files to watch")?;
    let metadata: Metadata = serde_json::from_str(&answer).context("cannot read what `cargo metadata` printed")?;
    places(&metadata, manifest)
}

fn places(metadata: &Metadata, manifest: &Path) -> Result<Vec<Place>> {
    let of_machine = metadata.packages.iter().filter(|package| package.source.is_none());
    let packages: BTreeMap<&str, &Package> = of_machine.map(|package| (package.id.as_str(), package)).collect();
    let roots: Vec<&str> =
        packages.values().filter(|package| package.manifest_path == manifest).map(|package| &*package.id).collect();
    // The manifest of a workspace is none of a package: all members are meant.
    let roots = if roots.is_empty() { packages.keys().copied().collect() } else { roots };
    if roots.is_empty() {
        bail!("cargo knows no package of {}", manifest.display());
    }
    // Not Cargo.lock, which a build may write itself.
    let mut places = BTreeSet::from([Place::File(metadata.workspace_root.join("Cargo.toml"))]);
    for package in reached(&packages, metadata.resolve.as_ref(), roots) {
        places.insert(Place::File(package.manifest_path.clone()));
        for target in &package.targets {
            let is = |kinds: &[&str]| target.kind.iter().any(|kind| kinds.contains(&kind.as_str()));
            if is(&["lib", "rlib", "cdylib", "dylib", "staticlib", "proc-macro"]) {
                let folder = target.src_path.parent().map(Path::to_owned);
                places.insert(folder.map_or_else(|| Place::File(target.src_path.clone()), Place::Folder));
            } else if is(&["custom-build"]) {
                places.insert(Place::File(target.src_path.clone()));
            }
        }
    }
    Ok(places.into_iter().collect())
}

/// The packages of this machine that the roots are made of, themselves included.
fn reached<'a>(
    packages: &BTreeMap<&'a str, &'a Package>,
    resolve: Option<&'a Resolve>,
    roots: Vec<&'a str>,
) -> Vec<&'a Package> {
    let nodes = resolve.into_iter().flat_map(|resolve| &resolve.nodes);
    let nodes: BTreeMap<&str, &Node> = nodes.map(|node| (node.id.as_str(), node)).collect();
    let (mut seen, mut left) = (BTreeSet::new(), roots);
    while let Some(id) = left.pop() {
        if packages.contains_key(id) && seen.insert(id) {
            left.extend(nodes.get(id).into_iter().flat_map(|node| node.dependencies.iter().map(String::as_str)));
        }
    }
    seen.into_iter().filter_map(|id| packages.get(id).copied()).collect()
}

#[cfg(test)]
mod tests;
