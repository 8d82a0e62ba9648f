//! From a guest crate to a checked component: finds a compiler that can build for wasm (an installed target, one that
//! rustup fetches, or a standard library that is built here once), runs cargo, makes the component and checks it. Says
//! which way it takes and why. Writes into the crate's own target folder and the user's cache folder only.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

mod build_std;
mod cargo;
mod component;
mod route;
mod rustup;
mod sources;

pub use cargo::{BuildRequest, build};
pub use component::{Component, make};
pub use route::{Route, RouteChoice, find};
pub use sources::{Place, sources};

/// The wasm targets that make a usable module, the best one first: `wasm32-unknown-unknown` imports nothing but what
/// the contract has.
pub const TARGETS: [&str; 2] = ["wasm32-unknown-unknown", "wasm32-wasip2"];

/// A compiler with its cargo, and what it takes to make them build for a wasm target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Toolchain {
    pub cargo: PathBuf,
    /// Set where cargo must not look for a compiler by itself.
    pub rustc: Option<PathBuf>,
    pub target: &'static str,
    /// `rustc 1.95.0`, for people.
    pub version: String,
    /// A folder with the standard library of the target, where it is not the compiler's own.
    pub sysroot: Option<PathBuf>,
    /// A linker in place of the compiler's own.
    pub linker: Option<PathBuf>,
}

/// Facts about a compiler, as it tells them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Compiler {
    pub cargo: PathBuf,
    pub rustc: PathBuf,
    pub release: String,
    pub commit: String,
    pub host: String,
    pub sysroot: PathBuf,
}

impl Compiler {
    /// Asks the compiler that `rustc` is in `folder`, where a `rust-toolchain.toml` may choose it.
    pub(crate) fn ask(rustc: &Path, cargo: &Path, folder: &Path) -> Result<Self> {
        let version = output(Command::new(rustc).arg("-vV").current_dir(folder))?;
        let sysroot = output(Command::new(rustc).args(["--print", "sysroot"]).current_dir(folder))?;
        Self::parse(&version, sysroot.trim(), rustc, cargo)
    }

    fn parse(version: &str, sysroot: &str, rustc: &Path, cargo: &Path) -> Result<Self> {
        let field = |name: &str| {
            let value = version.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
            value.map(str::to_owned).with_context(|| format!("{} -vV printed no {name}", rustc.display()))
        };
        Ok(Self {
            cargo: cargo.to_owned(),
            rustc: rustc.to_owned(),
            release: field("release")?,
            commit: field("commit-hash")?,
            host: field("host")?,
            sysroot: PathBuf::from(sysroot),
        })
    }

    /// Where the compiler keeps the libraries of a target.
    fn has_target(&self, target: &str) -> bool {
        let folder = self.sysroot.join("lib/rustlib").join(target).join("lib");
        std::fs::read_dir(folder).is_ok_and(|entries| {
            entries.flatten().any(|entry| {
                let name = entry.file_name();
                let name = name.to_string_lossy();
                name.starts_with("libstd-") && name.ends_with(".rlib")
            })
        })
    }

    /// The source of the standard library, where it is installed beside the compiler.
    fn has_source(&self) -> bool {
        self.sysroot.join("lib/rustlib/src/rust/library/std/Cargo.toml").is_file()
    }

    /// The linker that the compiler brings along.
    fn own_linker(&self) -> Option<PathBuf> {
        let linker = self.sysroot.join("lib/rustlib").join(&self.host).join("bin/rust-lld");
        linker.is_file().then_some(linker)
    }
}

/// A program of this name on the search path.
pub(crate) fn which(name: &str, path: Option<&OsStr>) -> Option<PathBuf> {
    std::env::split_paths(path?).map(|folder| folder.join(name)).find(|candidate| candidate.is_file())
}

fn search_path() -> Option<OsString> {
    std::env::var_os("PATH")
}

/// Runs a command that answers at once.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.output().with_context(|| format!("cannot run {program}"))?;
    if !output.status.success() {
        bail!("{program} failed ({}): {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    String::from_utf8(output.stdout).with_context(|| format!("{program} printed something that is not UTF-8"))
}

/// The user's cache folder, for what is built once for all projects.
fn cache_folder() -> Result<PathBuf> {
    let folder = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    folder("SANDBAR_CACHE_DIR")
        .or_else(|| Some(folder("XDG_CACHE_HOME")?.join("sandbar")))
        .or_else(|| Some(folder("HOME")?.join(".cache/sandbar")))
        .context("no cache folder: set SANDBAR_CACHE_DIR, XDG_CACHE_HOME or HOME")
}

#[cfg(test)]
mod tests;
