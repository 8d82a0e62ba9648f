//! `sandbar new`: writes a small application that builds, with its tests, from the templates in `host/templates`. Never
//! writes into a folder that has anything in it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use serde_json::json;

use crate::terminal::{Format, Terminal, print_line};

/// The files of a Rust application: where they go, and their text with `{{name}}` and `{{sdk}}` to fill in.
const RUST: [(&str, &str); 6] = [
    ("Cargo.toml", include_str!("../../templates/rust/Cargo.toml.template")),
    ("src/lib.rs", include_str!("../../templates/rust/lib.rs.template")),
    ("src/tests.rs", include_str!("../../templates/rust/tests.rs.template")),
    ("sandbar.toml", include_str!("../../templates/rust/sandbar.toml.template")),
    ("README.md", include_str!("../../templates/rust/README.md.template")),
    (".gitignore", include_str!("../../templates/rust/gitignore.template")),
];

/// The SDK's place in a checkout of the project.
const SDK: &str = "guest-sdk/rust";
const NAME_LIMIT: usize = 64;
/// Crates that an application cannot be named after: Rust's own, and those that it depends on.
const CRATES: [&str; 7] = ["test", "core", "std", "alloc", "proc-macro", "sandbar", "serde"];
const KEYWORDS: &str = "abstract as async await become box break const continue crate do dyn else enum extern false final fn \
                        for gen if impl in let loop macro match mod move mut override priv pub ref return self static struct \
                        super trait true try type typeof unsafe unsized use virtual where while yield";

/// The language of the processor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Language {
    Rust,
}

#[derive(Debug, clap::Args)]
pub struct NewArgs {
    /// Name of the application, its crate and its folder: lower-case letters, digits and hyphens
    pub name: String,

    /// The language of the processor
    #[arg(long, value_enum, default_value = "rust")]
    pub language: Language,

    /// The folder to make; without it, one with the application's name in the current folder
    #[arg(long, value_name = "FOLDER")]
    pub path: Option<PathBuf>,

    /// The SDK's folder; without it, that of the checkout around the new folder or around this program
    #[arg(long, value_name = "FOLDER", conflicts_with = "sdk_version")]
    pub sdk_path: Option<PathBuf>,

    /// Take the SDK from the package registry, in this version
    #[arg(long, value_name = "VERSION")]
    pub sdk_version: Option<String>,
}

/// Makes the application.
///
/// # Errors
/// When the name is none, the folder is in use, or the SDK is not where it was said to be.
pub fn run(arguments: &NewArgs, terminal: Terminal) -> Result<()> {
    let name = arguments.name.as_str();
    check_name(name)?;
    let folder = arguments.path.clone().unwrap_or_else(|| PathBuf::from(name));
    require_empty(&folder)?;
    let program = std::env::current_exe().context("cannot tell where this program is")?;
    let sdk = find_sdk(arguments, &folder, &program)?;

    let Language::Rust = arguments.language;
    for (file, text) in RUST {
        let path = folder.join(file);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
        }
        let text = text.replace("{{name}}", name).replace("{{sdk}}", &sdk);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    let shown = folder.display().to_string();
    match terminal.format {
        Format::Text => print_line(&format!("made {shown}; next: cd {shown} && cargo test && sandbar build")),
        Format::Json => terminal.notice("made", "", json!({ "path": shown, "sdk": sdk })),
    }
    Ok(())
}

/// A name that is a crate's, an application id's and a folder's at once.
fn check_name(name: &str) -> Result<()> {
    let starts = name.starts_with(|first: char| first.is_ascii_lowercase());
    let plain = name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
    if !starts || !plain || name.ends_with('-') || name.len() > NAME_LIMIT {
        bail!(
            "{name:?} is no name for an application: it starts with a lower-case letter, goes on with lower-case \
             letters, digits and hyphens, and has at most {NAME_LIMIT} of them"
        );
    }
    if CRATES.contains(&name) {
        bail!("{name:?} is the name of another crate; choose another one");
    }
    if KEYWORDS.split_whitespace().any(|keyword| keyword == name) {
        bail!("{name:?} is a word of Rust, which cargo takes for no crate; choose another name");
    }
    Ok(())
}

fn require_empty(folder: &Path) -> Result<()> {
    if !folder.exists() {
        return Ok(());
    }
    let mut entries = fs::read_dir(folder).with_context(|| format!("cannot make {}: it exists", folder.display()))?;
    if entries.next().is_some() {
        bail!("{} exists and is not empty; choose another folder with --path", folder.display());
    }
    Ok(())
}

/// What stands behind `sandbar =` in the crate's `Cargo.toml`.
fn find_sdk(arguments: &NewArgs, folder: &Path, program: &Path) -> Result<String> {
    if let Some(version) = &arguments.sdk_version {
        return Ok(format!("{version:?}"));
    }
    if let Some(path) = &arguments.sdk_path {
        let found = path.canonicalize().with_context(|| format!("there is no folder {}", path.display()))?;
        if !found.join("Cargo.toml").is_file() {
            bail!("{} is not the SDK: it has no Cargo.toml", path.display());
        }
        return Ok(by_path(&found));
    }
    let folder = std::path::absolute(folder).context("cannot tell the current folder")?;
    // Inside a checkout the path is relative, so that the checkout can move.
    for (depth, ancestor) in folder.ancestors().enumerate() {
        if is_sdk(&ancestor.join(SDK)) {
            return Ok(by_path(&Path::new(&"../".repeat(depth)).join(SDK)));
        }
    }
    match program.ancestors().map(|ancestor| ancestor.join(SDK)).find(|sdk| is_sdk(sdk)) {
        Some(sdk) => Ok(by_path(&sdk)),
        // No registry has the SDK yet; whoever takes its name there must not get into an application by default.
        None => bail!("there is no checkout with the SDK here; name its folder with --sdk-path CHECKOUT/{SDK}"),
    }
}

fn is_sdk(folder: &Path) -> bool {
    folder.join("Cargo.toml").is_file() && folder.join("macros/Cargo.toml").is_file()
}

fn by_path(path: &Path) -> String {
    // TOML's basic strings and Rust's debug format agree on everything a path is made of.
    format!("{{ path = {:?} }}", path.display().to_string())
}

#[cfg(test)]
mod tests;
