//! What of a manifest belongs to a version: sources, sinks, stores, config and the options that shape what the module
//! does, as `config` marks them. Never where a host keeps its state, which brokers it asks or how many threads it has.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::version::ChangeKind;
use crate::config::{ConfigError, Manifest};

/// Keys and values of a version by their flattened names, for example `sources.in.topic`, without defaults: an object
/// in JSON, in the order of the keys.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct VersionManifest(BTreeMap<String, Value>);

impl VersionManifest {
    /// What belongs to a version of the values that a host runs with, its flags and environment included.
    pub fn of(manifest: &Manifest) -> Self {
        Self(manifest.version_values())
    }

    /// The manifest of a host that runs this version: the version's values, and none of the host's own for such keys.
    ///
    /// # Errors
    /// Every key that this host does not know or that belongs to no version, and every value that does not fit.
    pub fn apply_to(&self, host: &Manifest) -> Result<Manifest, ConfigError> {
        host.with_version_values(&self.0)
    }

    /// The keys whose values differ, in order; one that is missing on one side is among them.
    pub fn differences(&self, other: &Self) -> Vec<String> {
        let here = self.0.iter().filter(|(key, value)| other.0.get(*key) != Some(value)).map(|(key, _)| key);
        let mut keys: Vec<String> =
            here.chain(other.0.keys().filter(|key| !self.0.contains_key(*key))).cloned().collect();
        keys.sort();
        keys
    }

    /// What a change to `next` costs as far as the tables say: what the module reads with `config` and its limits
    /// belong to an instance, and everything else to the threads. That a module declares other topics or stores is not
    /// known here.
    pub fn change_to(&self, next: &Self) -> ChangeKind {
        let limit = |key: &str| sandbox::Limits::keys().any(|limit| limit.key == key);
        let of_instance = |key: &String| key.starts_with("config.") || limit(key);
        let swaps = self.differences(next).iter().all(of_instance);
        if swaps { ChangeKind::Swap } else { ChangeKind::Restart }
    }

    #[cfg(test)]
    /// A value, by its flattened key.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.0.get(key)
    }
}

#[cfg(test)]
mod tests;
