//! The manifests of a process with several applications: what may not be said twice, and what belongs to the process
//! and so is the same for all. Everything that does not fit is found at once, before anything starts.

use std::path::{Path, PathBuf};

use super::fault::ConfigError;
use super::layers::Located;
use super::version::is_same;
use super::{Manifest, Origin};

/// Keys that belong to the process. A value in one manifest is that of all.
const OF_THE_PROCESS: [&str; 5] = [
    "application.server",
    "advertised.listener",
    "advertised.networks",
    "rocksdb.block.cache.bytes",
    "rocksdb.write.buffers.bytes",
];

/// Checks the manifests of a process together, and gives each the values of the process. One alone is as it was.
///
/// # Errors
/// Two with the same id, state directories that lie within each other, and keys of the process with two values, each
/// with both places.
pub fn together(mut manifests: Vec<Manifest>) -> Result<Vec<Manifest>, ConfigError> {
    let mut faults = Vec::new();
    for (at, manifest) in manifests.iter().enumerate() {
        for earlier in &manifests[..at] {
            faults.extend(clash(earlier, manifest));
        }
    }
    for key in OF_THE_PROCESS {
        let set: Vec<(&Manifest, &Located)> =
            manifests.iter().filter_map(|manifest| Some((manifest, manifest.values.get(key)?))).collect();
        let Some(&(first, located)) = set.first() else { continue };
        let differing = set.iter().filter(|(_, other)| other.value != located.value);
        faults.extend(differing.map(|(other, value)| {
            let (here, there) = (place(first, located), place(other, value));
            format!("{there}: {key} belongs to the process, and {here} has another value; give both the same one, or one none")
        }));
        let located = located.clone();
        for manifest in &mut manifests {
            manifest.values.entry(key.to_owned()).or_insert_with(|| located.clone());
        }
    }
    if faults.is_empty() { Ok(manifests) } else { Err(ConfigError::Together { faults }) }
}

/// Checks a manifest that comes to a process beside `others`, and gives it the values of the process, which runs with
/// those of the manifest `process`.
///
/// # Errors
/// As `together`, and a key of the process with another value than it runs with.
pub fn beside(mut manifest: Manifest, others: &[&Manifest], process: &Manifest) -> Result<Manifest, ConfigError> {
    let mut faults: Vec<String> = others.iter().filter_map(|other| clash(other, &manifest)).collect();
    for key in OF_THE_PROCESS {
        match (manifest.values.get(key), process.values.get(key)) {
            (Some(own), running) if !is_same(key, Some(&own.value), running.map(|running| &running.value)) => {
                let place = place(&manifest, own);
                faults.push(format!(
                    "{place}: {key} belongs to the process, which runs with another value; it changes when the process is \
                     started again"
                ));
            }
            (None, Some(running)) => _ = manifest.values.insert(key.to_owned(), running.clone()),
            _ => {}
        }
    }
    if faults.is_empty() { Ok(manifest) } else { Err(ConfigError::Together { faults }) }
}

/// Why two cannot run in one process, if that is so.
fn clash(one: &Manifest, other: &Manifest) -> Option<String> {
    let place_of = |manifest: &Manifest| match manifest.values.get("application.id") {
        Some(located) => place(manifest, located),
        None => manifest.path.display().to_string(),
    };
    if one.application_id() == other.application_id() {
        let (id, one, other) = (one.application_id(), place_of(one), place_of(other));
        return Some(format!(
            "{other}: application.id {id:?} is that of {one} already; each application has an id of its own"
        ));
    }
    let (mine, theirs) = (state_folder(one), state_folder(other));
    if mine.starts_with(&theirs) || theirs.starts_with(&mine) {
        let (one, other) = (one.path.display(), other.path.display());
        let (mine, theirs) = (mine.display(), theirs.display());
        return Some(format!(
            "{other}: its state is in {theirs}, and that of {one} in {mine}, which lie within each other; change a state.dir"
        ));
    }
    None
}

/// The folder of an application's state, which is below `state.dir`.
fn state_folder(manifest: &Manifest) -> PathBuf {
    let folder = manifest.path_of("state.dir").join(manifest.application_id());
    // One that is not there yet is compared as it is written.
    let mut missing = Vec::new();
    let mut existing: &Path = &folder;
    loop {
        if let Ok(found) = existing.canonicalize() {
            return missing.iter().rev().fold(found, |path: PathBuf, name| path.join(name));
        }
        let (Some(parent), Some(name)) = (existing.parent(), existing.file_name()) else { return folder };
        missing.push(name);
        existing = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
    }
}

/// Where a value came from.
fn place(manifest: &Manifest, located: &Located) -> String {
    let path = manifest.path.display();
    match &located.origin {
        Origin::Default => path.to_string(),
        Origin::File { line, column } => format!("{path}:{line}:{column}"),
        Origin::Environment(name) => format!("{path} (environment variable {name})"),
        Origin::Flag(flag) => format!("{path} ({flag})"),
        Origin::Version => format!("{path} (the version that was deployed)"),
    }
}

#[cfg(test)]
mod tests;
