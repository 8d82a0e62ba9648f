//! Which way a build for wasm goes: the ways are tried in order, and the first that is open is taken. Where none is,
//! the error tells why for each. Changes nothing itself but what `rustup` and `build_std` do.

use std::path::Path;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;

use super::{Compiler, TARGETS, Toolchain, build_std, rustup, search_path, which};

/// The way to a wasm target that was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    Installed,
    Rustup,
    BuildStd,
}

/// The way that is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum RouteChoice {
    /// The first one that works
    #[default]
    Auto,
    /// A wasm target of the toolchain in use
    Installed,
    /// `rustup target add`
    Rustup,
    /// Build the standard library from its source, once
    BuildStd,
}

impl Route {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Installed => "installed",
            Self::Rustup => "rustup",
            Self::BuildStd => "build-std",
        }
    }
}

impl RouteChoice {
    fn allows(self, route: Route) -> bool {
        match self {
            Self::Auto => true,
            Self::Installed => route == Route::Installed,
            Self::Rustup => route == Route::Rustup,
            Self::BuildStd => route == Route::BuildStd,
        }
    }
}

/// Finds a toolchain for the crate in `folder`; `say` is told each step in a line.
///
/// # Errors
/// When no way is open: why each was not, and what to install.
pub fn find(folder: &Path, choice: RouteChoice, offline: bool, say: &dyn Fn(&str)) -> Result<(Route, Toolchain)> {
    let path = search_path();
    let active = active_compiler(folder);
    let mut closed = Vec::new();

    match &active {
        Ok(compiler) => {
            if choice.allows(Route::Installed) {
                if let Some(toolchain) = installed(compiler) {
                    return Ok((Route::Installed, toolchain));
                }
                closed.push(format!("installed: rustc {} has none of {}", compiler.release, TARGETS.join(", ")));
            }
            if choice.allows(Route::Rustup) {
                match rustup::add_target(TARGETS[0], folder, offline, path.as_deref(), say) {
                    Ok(()) => match installed(compiler) {
                        Some(toolchain) => return Ok((Route::Rustup, toolchain)),
                        None => closed.push(format!(
                            "rustup: the target was added, but to another toolchain than {}, which comes first on the \
                             search path",
                            compiler.rustc.display()
                        )),
                    },
                    Err(reason) => closed.push(format!("rustup: {reason:#}")),
                }
            }
        }
        Err(reason) => closed.push(format!("installed: {reason:#}")),
    }
    if choice.allows(Route::BuildStd) {
        match build_std::find(active.ok(), folder, offline, path.as_deref(), say) {
            Ok(toolchain) => return Ok((Route::BuildStd, toolchain)),
            Err(reason) => closed.push(format!("build-std: {reason:#}")),
        }
    }
    bail!(
        "no Rust toolchain that builds for {}:\n  {}\nany of these helps:\n  rustup target add {}\n  \
         rustup component add rust-src\n  apt-get install rustc-web cargo-web rust-web-src lld   (Debian, Ubuntu)",
        TARGETS[0],
        closed.join("\n  "),
        TARGETS[0],
    )
}

/// The compiler that cargo would use in this folder.
fn active_compiler(folder: &Path) -> Result<Compiler> {
    let path = search_path();
    let program = |name: &str| {
        which(name, path.as_deref()).with_context(|| format!("there is no {name} on the search path; install Rust"))
    };
    Compiler::ask(&program("rustc")?, &program("cargo")?, folder)
}

/// A toolchain of the first wasm target that the compiler has.
fn installed(compiler: &Compiler) -> Option<Toolchain> {
    let target = TARGETS.into_iter().find(|target| compiler.has_target(target))?;
    Some(Toolchain {
        cargo: compiler.cargo.clone(),
        rustc: None,
        target,
        version: format!("rustc {}", compiler.release),
        sysroot: None,
        linker: match compiler.own_linker() {
            Some(_) => None,
            None => build_std::linker(&[], search_path().as_deref()),
        },
    })
}
