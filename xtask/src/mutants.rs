//! `cargo xtask mutants`: proves that the simulation sees what it is for. Copies the engine, the embedded broker and
//! the simulation to a scratch folder in the target folder, puts all mutants into the copy, each behind a question
//! whether it is the chosen one, builds once, and demands that the schedules of CI fail with each of them and pass with
//! none.

mod table;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use table::{MUTANTS, Mutant};

/// The packages that are copied.
const PACKAGES: [&str; 3] = ["host/engine", "host/broker", "tests/sim"];

/// As many schedules as CI plays.
const SCHEDULES: u64 = 1_000;

/// Schedules that must pass without a mutant, as proof that the copy is sound; the tests play all of them.
const CONTROL_SCHEDULES: u64 = 60;

/// What the copy of the engine gets: which mutant is chosen.
const MUTATION: &str = r#"//! Which mutant is chosen, by the environment.

/// Whether this one is.
pub fn is(name: &str) -> bool {
    static CHOSEN: std::sync::OnceLock<String> = std::sync::OnceLock::new();
    CHOSEN.get_or_init(|| std::env::var("SANDBAR_MUTANT").unwrap_or_default()) == name
}
"#;

/// Runs the mutants with these names, or all. False when one survives.
pub fn run(root: &Path, names: &[String]) -> Result<bool> {
    for name in names {
        ensure!(MUTANTS.iter().any(|mutant| mutant.name == name), "no mutant is called {name}");
    }
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    let scratch = target.join("mutants");
    prepare(root, &scratch)?;
    for mutant in MUTANTS {
        apply(&scratch, mutant)?;
    }
    println!("building {} with {} mutants", PACKAGES.join(", "), MUTANTS.len());
    let mut build = Command::new(env!("CARGO"));
    build.args(["build", "--quiet", "--offline", "--package", "sim", "--bins"]).current_dir(&scratch);
    // A folder of its own: the copy's simulation must not take the place of the real one.
    let built = build.env("CARGO_TARGET_DIR", scratch.join("target")).env("RUSTFLAGS", "-Awarnings").status()?;
    ensure!(built.success(), "the mutants do not compile");
    let simulation = scratch.join("target/debug/sim");
    let (caught, output) = hunt(&simulation, "", CONTROL_SCHEDULES)?;
    ensure!(!caught, "the simulation fails without a mutant:\n{output}");
    let mut survivors = Vec::new();
    for mutant in MUTANTS.iter().filter(|mutant| names.is_empty() || names.iter().any(|name| name == mutant.name)) {
        let (caught, output) = hunt(&simulation, mutant.name, SCHEDULES)?;
        let Mutant { name, rule, what, .. } = mutant;
        if caught {
            println!("{name:<18} {rule:<4} caught    {what}: {}", output.trim());
        } else {
            println!("{name:<18} {rule:<4} SURVIVES  {what}");
            survivors.push(*name);
        }
    }
    println!("mutants: {} survive {SCHEDULES} schedules: {survivors:?}", survivors.len());
    Ok(survivors.is_empty())
}

/// Plays schedules until one fails: whether one has, and what was said about it.
fn hunt(simulation: &Path, mutant: &str, schedules: u64) -> Result<(bool, String)> {
    let mut command = Command::new(simulation);
    command.args(["hunt", "0", &schedules.to_string()]).env("SANDBAR_MUTANT", mutant);
    let output = command.output().with_context(|| format!("run {}", simulation.display()))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    match output.status.code() {
        Some(0) => Ok((false, text)),
        Some(1) => Ok((true, text)),
        code => bail!("the simulation ended with {code:?}: {}", String::from_utf8_lossy(&output.stderr)),
    }
}

/// Makes a workspace of the copied packages.
fn prepare(root: &Path, scratch: &Path) -> Result<()> {
    for package in PACKAGES {
        // What was compiled stays.
        let old = scratch.join(package);
        if old.exists() {
            std::fs::remove_dir_all(&old).with_context(|| format!("remove {}", old.display()))?;
        }
        copy(&root.join(package), &scratch.join(package))?;
    }
    let manifest = read(&root.join("Cargo.toml"))?;
    let (before, rest) = manifest.split_once("members = [").context("the workspace has no members")?;
    let (_, after) = rest.split_once(']').context("the members have no end")?;
    let members = PACKAGES.map(|package| format!("{package:?}")).join(", ");
    write(&scratch.join("Cargo.toml"), &format!("{before}members = [{members}]{after}"))?;
    write(&scratch.join("Cargo.lock"), &read(&root.join("Cargo.lock"))?)?;
    let library = scratch.join("host/engine/src/lib.rs");
    write(&library, &format!("{}\npub mod mutation;\n", read(&library)?))?;
    write(&scratch.join("host/engine/src/mutation.rs"), MUTATION)
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to).with_context(|| format!("create {}", to.display()))?;
    for entry in std::fs::read_dir(from).with_context(|| format!("read {}", from.display()))? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            std::fs::copy(entry.path(), &target).with_context(|| format!("copy to {}", target.display()))?;
        }
    }
    Ok(())
}

/// Puts a mutant into the copy.
fn apply(scratch: &Path, mutant: &Mutant) -> Result<()> {
    for edit in mutant.edits {
        let path = scratch.join(edit.file);
        let text = read(&path)?;
        let found = text.matches(edit.old).count();
        ensure!(found == 1, "mutant {}: its text is {found} times in {}:\n{}", mutant.name, edit.file, edit.old);
        let engine = if edit.file.starts_with("host/engine/") { "crate" } else { "engine" };
        let chosen = format!("{engine}::mutation::is({:?})", mutant.name);
        write(&path, &text.replacen(edit.old, &edit.new.replace("{on}", &chosen), 1))?;
    }
    Ok(())
}

fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))
}

fn write(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).with_context(|| format!("write {}", path.display()))
}

#[cfg(test)]
mod tests;
