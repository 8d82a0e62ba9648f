//! Where things are: the repository, the built binary, the example modules, scratch folders. Finds them from this
//! package's own place, so that a test runs from anywhere.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, ensure};

/// The repository's root.
pub fn root() -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.ancestors().nth(2).expect("the package is two folders below the root").to_path_buf()
}

/// Cargo's target folder.
pub fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// The built binary.
///
/// # Errors
/// When it was not built.
pub fn sandbar() -> Result<PathBuf> {
    let path = target().join("release/sandbar");
    ensure!(path.is_file(), "{} is not there; run `make build`", path.display());
    Ok(path)
}

/// The folder of an example.
pub fn example(name: &str) -> PathBuf {
    root().join("examples").join(name)
}

/// An empty folder of this name below the target folder; what an earlier run left in it is gone.
///
/// # Errors
/// When the disk refuses.
pub fn scratch(name: &str) -> Result<PathBuf> {
    let path = target().join("e2e").join(name);
    if path.exists() {
        std::fs::remove_dir_all(&path).with_context(|| format!("cannot empty {}", path.display()))?;
    }
    std::fs::create_dir_all(&path).with_context(|| format!("cannot create {}", path.display()))?;
    Ok(path)
}

/// A name that no other test of this or an earlier run has: for topics and application ids on a shared broker.
pub fn unique(prefix: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("{prefix}-{}-{number}", std::process::id())
}

/// The module of a test guest, which `make guests` builds.
///
/// # Errors
/// When it was not built.
pub fn guest(name: &str) -> Result<PathBuf> {
    let path = target().join("guests").join(format!("{name}.wasm"));
    anyhow::ensure!(path.exists(), "{} is missing; `make guests` builds it", path.display());
    Ok(path)
}
