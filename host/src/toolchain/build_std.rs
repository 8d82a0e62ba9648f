//! The way without a ready-made target: the standard library is compiled from its source once per compiler and kept in
//! the user's cache folder. It takes about a minute and 80 MB. A stable compiler does it when `RUSTC_BOOTSTRAP` is set
//! for this one build; guests are built by plain stable cargo afterwards.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail};

use super::{Compiler, TARGETS, Toolchain, cache_folder, which};

/// Goes up when the way of building changes, so that an older library is not taken.
const RECIPE: u32 = 1;
/// The oldest compiler that takes the SDK.
const OLDEST: &str = env!("CARGO_PKG_RUST_VERSION");
/// Where distributions put a compiler that rustup hides.
const SYSTEM_FOLDER: &str = "/usr/bin";

/// Finds a compiler with source, and its library in the cache, built now where it is not there yet.
pub(super) fn find(
    active: Option<Compiler>,
    folder: &Path,
    offline: bool,
    path: Option<&OsStr>,
    say: &dyn Fn(&str),
) -> Result<Toolchain> {
    let mut compilers: Vec<Compiler> = active.into_iter().collect();
    let system = Path::new(SYSTEM_FOLDER);
    if compilers.iter().all(|compiler| compiler.rustc.parent() != Some(system))
        && system.join("rustc").is_file()
        && let Ok(compiler) = Compiler::ask(&system.join("rustc"), &system.join("cargo"), folder)
    {
        compilers.push(compiler);
    }
    let compiler = choose(&compilers)?;
    let linker = match compiler.own_linker() {
        Some(_) => None,
        None => Some(linker(&compilers, path).context(
            "there is no linker for wasm: neither rust-lld of a rustup toolchain nor wasm-ld; install the package lld",
        )?),
    };
    let name = format!("{}-{}-v{RECIPE}", compiler.release, compiler.commit.get(..9).unwrap_or("unknown"));
    let sysroot = cache_folder()?.join("rust-std").join(name);
    if !sysroot.is_dir() {
        build(compiler, &sysroot, offline, say)?;
    }
    Ok(Toolchain {
        cargo: compiler.cargo.clone(),
        rustc: Some(compiler.rustc.clone()),
        target: TARGETS[0],
        version: format!("rustc {} of {}", compiler.release, compiler.rustc.display()),
        sysroot: Some(sysroot),
        linker,
    })
}

/// The first compiler that is new enough and has the library's source beside it.
fn choose(compilers: &[Compiler]) -> Result<&Compiler> {
    let mut closed = Vec::new();
    for compiler in compilers {
        if !is_new_enough(&compiler.release, OLDEST) {
            closed.push(format!("{} is {}, older than {OLDEST}", compiler.rustc.display(), compiler.release));
        } else if !compiler.has_source() {
            closed.push(format!(
                "{} has no source of the standard library (no {}/lib/rustlib/src)",
                compiler.rustc.display(),
                compiler.sysroot.display()
            ));
        } else {
            return Ok(compiler);
        }
    }
    if closed.is_empty() {
        bail!("there is no Rust compiler");
    }
    bail!("{}", closed.join("; "))
}

/// Compares `1.95.0`, `1.95.0-nightly` and `1.95` by their numbers.
fn is_new_enough(release: &str, oldest: &str) -> bool {
    let numbers = |version: &str| -> Vec<u64> {
        let plain = version.split('-').next().unwrap_or_default();
        plain.split('.').map(|part| part.parse().unwrap_or(0)).chain([0, 0]).take(3).collect()
    };
    numbers(release) >= numbers(oldest)
}

/// A linker for wasm: of one of these compilers, on the search path, or in a folder of LLVM.
pub(super) fn linker(compilers: &[Compiler], path: Option<&OsStr>) -> Option<PathBuf> {
    let own = compilers.iter().find_map(Compiler::own_linker);
    let versions = (14..=30).rev();
    own.or_else(|| which("rust-lld", path))
        .or_else(|| which("wasm-ld", path))
        .or_else(|| versions.clone().find_map(|version| which(&format!("wasm-ld-{version}"), path)))
        .or_else(|| {
            let mut folders = versions.map(|version| PathBuf::from(format!("/usr/lib/llvm-{version}/bin/wasm-ld")));
            folders.find(|linker| linker.is_file())
        })
}

/// Builds the library beside its place and moves it there whole, so that a build that was cut off leaves nothing that
/// looks ready.
fn build(compiler: &Compiler, sysroot: &Path, offline: bool, say: &dyn Fn(&str)) -> Result<()> {
    let target = TARGETS[0];
    say(&format!(
        "building the standard library for {target} with rustc {}, once (about a minute, 80 MB in {})",
        compiler.release,
        sysroot.display()
    ));
    let started = Instant::now();
    let parent = sysroot.parent().unwrap_or(sysroot);
    let work = parent.join(format!(".building-{}", std::process::id()));
    let done = build_in(compiler, &work, offline).and_then(|library| {
        let result = fs::rename(&library, sysroot);
        // Another build may have been quicker; its library is as good.
        if sysroot.is_dir() { Ok(()) } else { result.with_context(|| format!("cannot make {}", sysroot.display())) }
    });
    let removed = fs::remove_dir_all(&work);
    done?;
    removed.with_context(|| format!("cannot remove {}", work.display()))?;
    say(&format!("built the standard library in {:.0} s", started.elapsed().as_secs_f64()));
    Ok(())
}

/// Builds in a folder of its own and returns a sysroot with nothing but the target's libraries.
fn build_in(compiler: &Compiler, work: &Path, offline: bool) -> Result<PathBuf> {
    let target = TARGETS[0];
    let write =
        |path: PathBuf, text: &str| fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()));
    let sources = work.join("src");
    fs::create_dir_all(&sources).with_context(|| format!("cannot make {}", sources.display()))?;
    write(
        work.join("Cargo.toml"),
        "[package]\nname = \"stdbuild\"\nversion = \"0.0.0\"\nedition = \"2024\"\n[workspace]\n",
    )?;
    write(sources.join("lib.rs"), "#![no_std]\n")?;

    let mut command = Command::new(&compiler.cargo);
    command.args(["build", "--release", "-Zbuild-std=std,panic_abort", "--target", target]);
    if offline {
        command.arg("--offline");
    }
    command.current_dir(work).env("CARGO_TARGET_DIR", work.join("target")).env("RUSTC_BOOTSTRAP", "1");
    // Without bitcode in the library, a guest cannot be optimised as a whole ("failed to get bitcode").
    command.env("CARGO_ENCODED_RUSTFLAGS", "-Cembed-bitcode=yes");
    own_environment(&mut command, compiler);
    let status = command.status().with_context(|| format!("cannot run {}", compiler.cargo.display()))?;
    if !status.success() {
        bail!("the standard library does not build ({status})");
    }

    let sysroot = work.join("sysroot");
    let libraries = sysroot.join("lib/rustlib").join(target).join("lib");
    fs::create_dir_all(&libraries).with_context(|| format!("cannot make {}", libraries.display()))?;
    let built = work.join("target").join(target).join("release/deps");
    let entries = fs::read_dir(&built).with_context(|| format!("cannot read {}", built.display()))?;
    for entry in entries {
        let entry = entry.with_context(|| format!("cannot read {}", built.display()))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.ends_with(".rlib") && !name.starts_with("libstdbuild-") {
            fs::copy(entry.path(), libraries.join(&name)).with_context(|| format!("cannot copy {name}"))?;
        }
    }
    Ok(sysroot)
}

/// Keeps rustup, or the cargo that runs us, from choosing another compiler.
pub(super) fn own_environment(command: &mut Command, compiler: &Compiler) {
    command.env("RUSTC", &compiler.rustc).env_remove("RUSTUP_TOOLCHAIN").env_remove("RUSTFLAGS");
    for name in ["RUSTC_WRAPPER", "RUSTC_WORKSPACE_WRAPPER", "CARGO_BUILD_TARGET"] {
        command.env_remove(name);
    }
}

#[cfg(test)]
mod tests;
