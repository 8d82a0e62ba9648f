//! The project's own chores, run by `cargo xtask <chore>`: the house rules, the proof of absent dependencies and the
//! commands in the documentation, and the mutants of the simulation. Depends on nothing that takes long to compile, and
//! never changes a source file.

mod absent;
mod doc_commands;
mod mutants;
mod source;
mod tidy;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};

const USAGE: &str = "usage: cargo xtask <chore>
  tidy                     check the house rules over every file of the repository
  absent                   prove that the pure crates do not depend on native libraries or async runtimes
  doc-commands [FILE...]   run the commands of README.md and docs/ that are marked `sh run`
  mutants [NAME...]        prove that the simulation notices when something is taken out of the engine";

fn main() -> Result<ExitCode> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let root = repository_root()?;
    let passed = match arguments.split_first() {
        Some((chore, [])) if chore == "tidy" => tidy::check_repository(&root)?,
        Some((chore, [])) if chore == "absent" => absent::check(&root)?,
        Some((chore, files)) if chore == "doc-commands" => doc_commands::run(&root, files)?,
        Some((chore, names)) if chore == "mutants" => mutants::run(&root, names)?,
        _ => bail!("{USAGE}"),
    };
    Ok(if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The folder that holds the workspace, wherever the command is called from.
fn repository_root() -> Result<PathBuf> {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = package.parent().context("the xtask package has no parent folder")?;
    Ok(root.to_path_buf())
}
