//! `sandbar build`: compiles a guest crate, makes a component of it and checks it before the file is written. Says
//! which toolchain it takes. Runs no module.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use serde_json::json;

use crate::terminal::{Format, Terminal, print_line, tell};
use crate::toolchain::{self, BuildRequest, Component, Place, Route, RouteChoice, Toolchain};

/// The manifest of an application beside its crate; its `module` key is where the component goes.
const MANIFEST: &str = "sandbar.toml";

#[derive(Debug, clap::Args)]
pub struct BuildArgs {
    #[command(flatten)]
    pub how: CrateArguments,

    /// Where the component goes; without it, the `module` of the sandbar.toml beside the crate, or else
    /// `target/<crate>.wasm`
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,

    /// Build with the optimised profile; this is the default
    #[arg(long, conflicts_with = "profile")]
    pub release: bool,
}

/// Which crate, and how cargo builds it.
#[derive(Debug, clap::Args)]
pub struct CrateArguments {
    /// The guest crate: its folder or its Cargo.toml
    #[arg(default_value = ".", value_name = "CRATE")]
    pub path: PathBuf,

    /// The guest crate's Cargo.toml, as cargo names it
    #[arg(long, value_name = "FILE", conflicts_with = "path")]
    pub manifest_path: Option<PathBuf>,

    /// The package to build, where the manifest is that of a workspace
    #[arg(short, long)]
    pub package: Option<String>,

    /// Features of the crate, several joined by commas
    #[arg(short = 'F', long, value_name = "FEATURES", value_delimiter = ',')]
    pub features: Vec<String>,

    /// The cargo profile to build with
    #[arg(long, default_value = "release")]
    pub profile: String,

    /// The way to a wasm target
    #[arg(long, value_enum, default_value_t)]
    pub route: RouteChoice,

    /// Fetch nothing from the network
    #[arg(long)]
    pub offline: bool,

    /// Take Cargo.lock as it is
    #[arg(long)]
    pub locked: bool,
}

/// A guest crate, and the toolchain that makes modules of it.
#[derive(Debug)]
pub struct Builder<'a> {
    arguments: &'a CrateArguments,
    /// The crate's `Cargo.toml`, absolute.
    manifest: PathBuf,
    pub route: Route,
    toolchain: Toolchain,
}

impl<'a> Builder<'a> {
    /// Finds crate and toolchain, and says which.
    ///
    /// # Errors
    /// When there is no crate, or no toolchain makes wasm.
    pub fn find(arguments: &'a CrateArguments, terminal: Terminal) -> Result<Self> {
        let manifest = find_manifest(arguments.manifest_path.as_deref().unwrap_or(&arguments.path))?;
        let folder = manifest.parent().unwrap_or(Path::new("."));
        let say = |line: &str| terminal.notice("progress", line, json!({ "message": line }));
        let (route, toolchain) = toolchain::find(folder, arguments.route, arguments.offline, &say)?;
        Ok(Self { arguments, route, toolchain, manifest })
    }

    /// The crate's folder.
    pub fn folder(&self) -> &Path {
        self.manifest.parent().unwrap_or(Path::new("."))
    }

    /// Where the sources are that a module of the crate is made of.
    ///
    /// # Errors
    /// When cargo does not say it.
    pub fn sources(&self) -> Result<Vec<Place>> {
        toolchain::sources(&self.toolchain, &self.manifest, self.arguments.offline)
    }

    /// Builds the component and writes it, by default into the crate's target folder.
    ///
    /// # Errors
    /// When the crate does not build, having said why, or the result is no processor module.
    pub fn build(&self, destination: Option<&Path>, terminal: Terminal) -> Result<Component> {
        let Self { arguments, manifest, route, toolchain } = self;
        let (target, version) = (toolchain.target, &toolchain.version);
        let way = describe(*route);
        let line = format!("building {} for {target} with {version} ({way})", self.folder().display());
        terminal.notice("progress", &line, json!({ "message": line }));
        let request = BuildRequest {
            manifest,
            package: arguments.package.as_deref(),
            features: &arguments.features,
            profile: &arguments.profile,
            offline: arguments.offline,
            locked: arguments.locked,
        };
        let linked = toolchain::build(toolchain, &request)?;
        let destination = match destination {
            Some(destination) => destination.to_owned(),
            None => {
                let name = linked.file_name().context("cargo made a file without a name")?;
                self.folder().join("target").join(name)
            }
        };
        toolchain::make(&linked, &destination)
    }
}

/// Builds the component.
///
/// # Errors
/// When the crate is not found or does not build, no toolchain makes wasm, or the result is no processor module.
pub fn run(arguments: &BuildArgs, terminal: Terminal) -> Result<()> {
    let started = Instant::now();
    let manifest = find_manifest(arguments.how.manifest_path.as_deref().unwrap_or(&arguments.how.path))?;
    // Before a toolchain is looked for, which may take long.
    let declared = declared_module(manifest.parent().unwrap_or(Path::new(".")))?;
    let builder = Builder::find(&arguments.how, terminal)?;
    let component = builder.build(arguments.out.as_deref().or(declared.as_deref()), terminal)?;
    report(&component, builder.route, started.elapsed().as_millis(), terminal);
    Ok(())
}

fn describe(route: Route) -> &'static str {
    match route {
        Route::Installed => "the target is installed",
        Route::Rustup => "the target was added by rustup",
        Route::BuildStd => "with a standard library built from source",
    }
}

fn report(component: &Component, route: Route, took_ms: u128, terminal: Terminal) {
    let Component { path, size_bytes, digest, imports } = component;
    match terminal.format {
        Format::Text => {
            print_line(&format!("{}  {size_bytes} bytes  sha256:{digest}", path.display()));
            if let Some(wasi) = imports.iter().find(|import| import.starts_with("wasi:")) {
                let note = format!(
                    "note: it imports WASI ({wasi} and perhaps more), which a host links with everything denied"
                );
                tell(&note);
            }
        }
        Format::Json => terminal.notice(
            "built",
            "",
            json!({
                "path": path.display().to_string(),
                "size_bytes": size_bytes,
                "sha256": digest,
                "imports": imports,
                "route": route.as_str(),
                "took_ms": u64::try_from(took_ms).unwrap_or(u64::MAX),
            }),
        ),
    }
}

/// The crate's `Cargo.toml`, absolute.
fn find_manifest(path: &Path) -> Result<PathBuf> {
    let file = if path.is_dir() { path.join("Cargo.toml") } else { path.to_owned() };
    if !file.is_file() {
        bail!(
            "there is no {}; name the folder of a guest crate, or make one with `sandbar new --language rust NAME`",
            file.display()
        );
    }
    file.canonicalize().with_context(|| format!("cannot find {}", file.display()))
}

/// Where the manifest of the application expects its module, if there is one.
fn declared_module(folder: &Path) -> Result<Option<PathBuf>> {
    let path = folder.join(MANIFEST);
    if !path.is_file() {
        return Ok(None);
    }
    let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let table: toml::Table = text.parse().with_context(|| format!("{} is not TOML", path.display()))?;
    match table.get("module") {
        None => Ok(None),
        Some(toml::Value::String(module)) => Ok(Some(folder.join(module))),
        Some(other) => bail!("{}: module must be a path in quotes, found {other}", path.display()),
    }
}

#[cfg(test)]
mod tests;
