//! That the generated pages of the book are those of this code. With `SANDBAR_UPDATE` set they are written anew.

use std::fs;
use std::process::Command;

use anyhow::{Result, ensure};
use e2e::repository;

#[test]
fn the_manifest_reference_is_current() -> Result<()> {
    check("docs/src/reference/manifest.md", &["reference", "manifest"])
}

/// Compares a page with what the command prints.
#[track_caller]
fn check(page: &str, arguments: &[&str]) -> Result<()> {
    let output = Command::new(repository::sandbar()?).args(arguments).output()?;
    ensure!(output.status.success(), "sandbar {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    let path = repository::root().join(page);
    let printed = String::from_utf8(output.stdout)?;
    if std::env::var_os("SANDBAR_UPDATE").is_some() {
        fs::write(&path, &printed)?;
    }
    let written = fs::read_to_string(&path).unwrap_or_default();
    ensure!(written == printed, "{page} is out of date; run `make docs`");
    Ok(())
}
