//! What is to run, by the files of a folder and what runs already. Pure: of two files that want the same, the one that
//! has it keeps it, and whatever is wrong with a file is no reason to disturb what runs.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::files::{Found, Source};
use crate::config::{Manifest, beside};

/// See the module's head.
#[derive(Debug, Default)]
pub struct Plan {
    /// By application id, with the values of the process.
    pub wanted: BTreeMap<String, Source>,
    /// Those that go on as they are, since their file says nothing that could be used.
    pub kept: BTreeSet<String>,
    /// What is wrong, by file.
    pub troubles: BTreeMap<PathBuf, String>,
}

/// An application that the process has.
#[derive(Debug, Clone, Copy)]
pub struct Present<'a> {
    /// Whose file it is, and what it was started with.
    pub manifest: &'a Manifest,
    pub file: &'a Path,
}

/// Decides what is to run. `process` has the values that belong to the process.
pub fn plan<'a>(
    found: impl Iterator<Item = (&'a Path, &'a Found)>,
    present: &BTreeMap<&str, Present<'_>>,
    process: &Manifest,
) -> Plan {
    let mut plan = Plan::default();
    let mut claims: BTreeMap<&str, Vec<(&Path, &Source)>> = BTreeMap::new();
    for (path, found) in found {
        match found {
            Ok(source) => claims.entry(source.manifest.application_id()).or_default().push((path, source)),
            Err(reason) => {
                plan.troubles.insert(path.to_owned(), reason.clone());
                let owned = present.iter().filter(|(_, present)| present.file == path);
                plan.kept.extend(owned.map(|(id, _)| (*id).to_owned()));
            }
        }
    }
    let mut chosen = Vec::new();
    for (id, claims) in claims {
        let present = present.get(id);
        let owner = claims.iter().find(|(path, _)| present.is_some_and(|present| present.file == *path));
        let first = claims[0];
        match owner {
            Some(owner) => plan.refuse_others(*owner, &claims),
            // Its own file is there, but says nothing.
            None if plan.kept.contains(id) => {
                let manifest = present.map(|present| present.manifest);
                claims.iter().for_each(|(path, source)| plan.refuse(path, source, manifest));
            }
            None if claims.len() > 1 => plan.refuse_others(first, &claims),
            None => {}
        }
        // Which of several is meant is for their author to say.
        chosen.extend(owner.copied().or((claims.len() == 1 && !plan.kept.contains(id)).then_some(first)));
    }
    plan.fit(chosen, present, process);
    plan
}

impl Plan {
    /// Says that others have the id of this one.
    fn refuse_others(&mut self, (owner, source): (&Path, &Source), claims: &[(&Path, &Source)]) {
        for (path, other) in claims.iter().filter(|(path, _)| *path != owner) {
            self.refuse(path, other, Some(&source.manifest));
        }
    }

    fn refuse(&mut self, path: &Path, source: &Source, first: Option<&Manifest>) {
        let others: Vec<&Manifest> = first.into_iter().collect();
        if let Err(error) = beside(source.manifest.clone(), &others, &source.manifest) {
            self.troubles.insert(path.to_owned(), error.to_string());
        }
    }

    /// Takes those that go together with each other and with what runs; that comes first.
    fn fit(&mut self, chosen: Vec<(&Path, &Source)>, present: &BTreeMap<&str, Present<'_>>, process: &Manifest) {
        let (there, new): (Vec<_>, Vec<_>) =
            chosen.into_iter().partition(|(_, source)| present.contains_key(source.manifest.application_id()));
        for (path, source) in there.into_iter().chain(new) {
            let id = source.manifest.application_id();
            // One whose file is gone holds its state until it has ended.
            let running = present.iter().filter(|(other, _)| **other != id).map(|(_, present)| present.manifest);
            let wanted = self.wanted.iter().filter(|(other, _)| *other != id).map(|(_, wanted)| &wanted.manifest);
            let others: Vec<&Manifest> = running.chain(wanted).collect();
            match beside(source.manifest.clone(), &others, process) {
                Ok(manifest) => _ = self.wanted.insert(id.to_owned(), Source { manifest, ..source.clone() }),
                Err(error) => {
                    self.troubles.insert(path.to_owned(), error.to_string());
                    if present.contains_key(id) {
                        self.kept.insert(id.to_owned());
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
