//! What of a manifest belongs to a version of the module: the keys that the options table says so of, without those
//! that have their defaults. Taken out of a manifest, and put into that of a host in place of its own.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value as Json;

use super::fault::ConfigError;
use super::layers::Layers;
use super::options::{Scope, find, scope_of};
use super::value::Value;
use super::{Manifest, checked_default};

impl Manifest {
    /// The values that belong to a version, by their flattened keys. One that is the default is left out, so that it is
    /// the same whether it is written or not, and for hosts that do not know the key.
    pub fn version_values(&self) -> BTreeMap<String, Json> {
        let of_version = self.values.iter().filter(|(key, _)| scope_of(key) == Some(Scope::Version));
        let set = of_version.filter(|(key, located)| !is_default(key, &located.value));
        set.map(|(key, located)| (key.clone(), to_json(&located.value))).collect()
    }

    /// The keys that belong to no version and mean something else in another manifest, in order. The file of the
    /// module is none of them: what counts is what is in it.
    pub fn host_differences<'a>(&'a self, other: &'a Self) -> Vec<&'a str> {
        let keys: BTreeSet<&String> = self.values.keys().chain(other.values.keys()).collect();
        let of_host = keys.into_iter().filter(|key| scope_of(key) != Some(Scope::Version) && *key != "module");
        let value = |manifest: &Self, key: &str| manifest.values.get(key).map(|located| located.value.clone());
        let differing = of_host
            .filter(|key| !is_same(key, value(self, key).as_ref(), value(other, key).as_ref()))
            .map(String::as_str);
        differing.collect()
    }

    /// The keys that belong to no version, that this manifest sets, and that mean something else for a host that runs;
    /// in order. Where that is reached, and where it has its files, is its own affair.
    pub fn host_keys_unlike<'a>(&'a self, host: &'a Self) -> Vec<&'a str> {
        const OWN_AFFAIRS: [&str; 4] = ["application.server", "bootstrap.servers", "state.dir", "advertised.listener"];
        let mut keys = self.host_differences(host);
        keys.retain(|key| self.values.contains_key(*key) && !OWN_AFFAIRS.contains(key));
        keys
    }

    /// Whether another manifest means the same in every key.
    pub fn is_same_as(&self, other: &Self) -> bool {
        self.version_values() == other.version_values()
            && self.host_differences(other).is_empty()
            && self.text("module") == other.text("module")
    }

    /// This host's manifest with the values of a version in place of its own, wherever those came from. Everything else
    /// stays as it is.
    ///
    /// # Errors
    /// Every key that no version can have, every value that is none for its key, and what does not go together.
    pub fn with_version_values(&self, values: &BTreeMap<String, Json>) -> Result<Self, ConfigError> {
        let mut layers = Layers::default();
        let own = self.values.iter().filter(|(key, _)| scope_of(key) != Some(Scope::Version));
        layers.values.extend(own.map(|(key, located)| (key.clone(), located.clone())));
        for (key, value) in values {
            layers.version(key, value);
        }
        Self::of_layers(&self.path, layers)
    }
}

/// Whether two values of a key mean the same; one that is missing means the default.
pub(super) fn is_same(key: &str, one: Option<&Value>, other: Option<&Value>) -> bool {
    let set = |value: Option<&Value>| value.filter(|value| !is_default(key, value)).cloned();
    set(one) == set(other)
}

fn is_default(key: &str, value: &Value) -> bool {
    find(key).and_then(checked_default).is_some_and(|default| default.as_ref() == Ok(value))
}

fn to_json(value: &Value) -> Json {
    match value {
        Value::Text(text) => Json::from(text.as_str()),
        Value::Integer(number) => Json::from(*number),
        Value::Boolean(value) => Json::from(*value),
        Value::List(items) => Json::from(items.clone()),
    }
}

#[cfg(test)]
mod tests;
