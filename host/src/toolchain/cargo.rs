//! Runs cargo for a guest crate and finds the file it made. Cargo's own progress goes to standard error as always.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::{Toolchain, output};

/// What to build.
#[derive(Debug, Clone)]
pub struct BuildRequest<'a> {
    /// The crate's `Cargo.toml`.
    pub manifest: &'a Path,
    pub package: Option<&'a str>,
    pub features: &'a [String],
    pub profile: &'a str,
    pub offline: bool,
    pub locked: bool,
}

/// A line of cargo's report, as far as it matters here.
#[derive(Debug, Deserialize)]
struct Message {
    reason: String,
    #[serde(default)]
    filenames: Vec<PathBuf>,
}

/// Builds the crate as a module and returns the `.wasm` file that cargo made.
///
/// # Errors
/// When cargo fails, having said why, or makes no module.
pub fn build(toolchain: &Toolchain, request: &BuildRequest<'_>) -> Result<PathBuf> {
    let target_folder = own_target_folder(toolchain, request)?;
    let mut command = command(toolchain, request);
    if let Some(folder) = target_folder {
        command.arg("--target-dir").arg(folder);
    }
    let mut child =
        command.stdout(Stdio::piped()).spawn().with_context(|| format!("cannot run {}", toolchain.cargo.display()))?;
    let mut module = None;
    if let Some(stdout) = child.stdout.take() {
        for line in BufReader::new(stdout).lines() {
            let line = line.context("cannot read cargo's report")?;
            module = module_of(&line).or(module);
        }
    }
    let status = child.wait().context("cannot wait for cargo")?;
    if !status.success() {
        bail!("{} does not build ({status}); cargo says why above", request.manifest.display());
    }
    module.with_context(|| format!("cargo made no .wasm file of {}; is it a library?", request.manifest.display()))
}

/// Where cargo builds a workspace.
#[derive(Debug, Deserialize)]
struct Folders {
    target_directory: PathBuf,
    workspace_root: PathBuf,
}

/// The folder to build in, where the target folder is none of the workspace's own, as with `CARGO_TARGET_DIR`. In one
/// that several workspaces share, cargo takes the module of a crate for that of another one with the same name.
fn own_target_folder(toolchain: &Toolchain, request: &BuildRequest<'_>) -> Result<Option<PathBuf>> {
    let mut command = Command::new(&toolchain.cargo);
    command.args(["metadata", "--no-deps", "--format-version", "1", "--manifest-path"]).arg(request.manifest);
    if request.offline {
        command.arg("--offline");
    }
    if let Some(folder) = request.manifest.parent() {
        command.current_dir(folder);
    }
    if let Some(rustc) = &toolchain.rustc {
        command.env("RUSTC", rustc).env_remove("RUSTUP_TOOLCHAIN");
    }
    let answer = output(&mut command).context("cannot find out where cargo builds")?;
    let folders: Folders = serde_json::from_str(&answer).context("cannot read what `cargo metadata` printed")?;
    Ok(target_folder_of(&folders))
}

fn target_folder_of(folders: &Folders) -> Option<PathBuf> {
    if folders.target_directory.starts_with(&folders.workspace_root) {
        return None;
    }
    let digest = Sha256::digest(folders.workspace_root.as_os_str().as_encoded_bytes());
    let name: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    Some(folders.target_directory.join("sandbar").join(name))
}

fn command(toolchain: &Toolchain, request: &BuildRequest<'_>) -> Command {
    let mut command = Command::new(&toolchain.cargo);
    // The crate type on the command line: a guest needs no `crate-type` of its own, and an `rlib` beside the module
    // would switch link-time optimisation off.
    command.args(["rustc", "--lib", "--crate-type", "cdylib", "--message-format", "json-render-diagnostics"]);
    command.args(["--profile", request.profile, "--target", toolchain.target, "--manifest-path"]);
    command.arg(request.manifest);
    if let Some(package) = request.package {
        command.args(["--package", package]);
    }
    if !request.features.is_empty() {
        command.args(["--features", &request.features.join(",")]);
    }
    if request.offline {
        command.arg("--offline");
    }
    if request.locked {
        command.arg("--locked");
    }
    if let Some(folder) = request.manifest.parent() {
        command.current_dir(folder);
    }
    let variable = |name: &str| format!("CARGO_TARGET_{}_{name}", toolchain.target.to_uppercase().replace('-', "_"));
    if let Some(rustc) = &toolchain.rustc {
        command.env("RUSTC", rustc).env_remove("RUSTUP_TOOLCHAIN");
    }
    if let Some(linker) = &toolchain.linker {
        command.env(variable("LINKER"), linker);
    }
    if let Some(sysroot) = &toolchain.sysroot {
        let flags = std::env::var("RUSTFLAGS").unwrap_or_default();
        let flags = flags.split_whitespace().map(str::to_owned);
        let flags: Vec<String> = flags.chain(["--sysroot".to_owned(), sysroot.display().to_string()]).collect();
        // For the wasm target only: cargo keeps these flags off build scripts and macros when a target is given.
        command.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"));
    }
    command
}

/// The module that a line of the report tells of. The last one is the crate's own.
fn module_of(line: &str) -> Option<PathBuf> {
    let message: Message = serde_json::from_str(line).ok()?;
    if message.reason != "compiler-artifact" {
        return None;
    }
    message.filenames.into_iter().find(|file| file.extension().is_some_and(|extension| extension == "wasm"))
}

#[cfg(test)]
mod tests;
