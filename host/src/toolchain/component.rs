//! Makes a component of what the linker made, checks it against the contract and writes it. A file that fails the check
//! is never written, and a file that was there stays.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// A component that was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Component {
    pub path: PathBuf,
    pub size_bytes: u64,
    /// The sha-256 as 64 hexadecimal digits.
    pub digest: String,
    /// The interfaces it imports.
    pub imports: Vec<String>,
}

/// Makes, checks and writes the component.
///
/// # Errors
/// When the linker's file is no processor module, with the reason of the check, or cannot be read or written.
pub fn make(linked: &Path, destination: &Path) -> Result<Component> {
    let bytes = fs::read(linked).with_context(|| format!("cannot read {}", linked.display()))?;
    let bytes = encode(bytes).with_context(|| format!("cannot make a component of {}", linked.display()))?;
    let facts = sandbox::check(&bytes)
        .with_context(|| format!("{} is no processor module; nothing was written", linked.display()))?;
    write(&bytes, destination)?;
    Ok(Component {
        path: destination.to_owned(),
        size_bytes: bytes.len() as u64,
        digest: facts.digest,
        imports: facts.imports,
    })
}

/// The linkers of some targets make a component themselves; a core module carries its types in a custom section.
fn encode(bytes: Vec<u8>) -> Result<Vec<u8>> {
    if wasmparser::Parser::is_component(&bytes) {
        return Ok(bytes);
    }
    wit_component::ComponentEncoder::default().validate(true).module(&bytes)?.encode()
}

/// Writes beside the destination and moves it there, so that a host that watches the file never reads half of it.
fn write(bytes: &[u8], destination: &Path) -> Result<()> {
    let folder = destination.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let mut name = destination.file_name().context("the output needs a file name")?.to_owned();
    name.push(format!(".{}.part", std::process::id()));
    let part = destination.with_file_name(name);
    let written = fs::write(&part, bytes).and_then(|()| fs::rename(&part, destination));
    if written.is_err() {
        // The error that counts is the one above; a part that cannot be removed either is of no use to anyone.
        let _ = fs::remove_file(&part);
    }
    written.with_context(|| format!("cannot write {}", destination.display()))
}

#[cfg(test)]
mod tests;
