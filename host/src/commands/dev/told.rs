//! What the developer reads after a swap. Pure.

use std::path::{Path, PathBuf};

use crate::commands::deploy::version::Version;

/// Files that are named; the others are counted.
const FILES_MAX: usize = 3;

/// Which files were saved, from the crate's folder where they are in it.
pub fn saved(files: &[PathBuf], folder: &Path) -> String {
    let short = |file: &PathBuf| file.strip_prefix(folder).unwrap_or(file).display().to_string();
    let named: Vec<String> = files.iter().take(FILES_MAX).map(short).collect();
    let others = files.len().saturating_sub(FILES_MAX);
    let others = if others == 0 { String::new() } else { format!(" and {others} more") };
    format!("saved {}{others}", named.join(", "))
}

/// What the version took over and what began anew, a line for each, as the host says it; a host that does not say it
/// swaps as swaps are.
pub fn effects(version: &Version) -> Vec<String> {
    let said = version.effects();
    if !said.is_empty() {
        return said;
    }
    let lines = match version.kind.as_deref().map(str::to_lowercase).as_deref() {
        Some("restart") => [
            "kept: the stores and the positions in the sources",
            "reset: the stream threads, and with them the module's memory and schedules",
        ],
        _ => ["kept: the stores and the positions in the sources", "reset: the module's memory and schedules"],
    };
    lines.map(str::to_owned).to_vec()
}

#[cfg(test)]
mod tests;
