//! The manifest `sandbar.toml`: one options table (`options`) from which parsing, validation, defaults and the
//! reference come. A flag wins over the environment, the environment over the file. Starts nothing and reads
//! nothing but the manifest.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

mod fault;
mod layers;
mod options;
mod reference;
mod tables;
#[cfg(test)]
mod tests;
mod together;
mod value;
mod version;

pub use fault::{ConfigError, nearest};
pub use reference::manifest_reference;
pub use tables::{STORE_NAME_MAX_LENGTH, TableSettings};
pub use together::{beside, together};
pub use value::is_kafka_name;

use crate::networks::PeerNetworks;
use fault::{Fault, Origin};
use layers::{Layers, Located};
use options::OPTIONS;
use value::Value;

/// How a run departs from its manifest.
#[derive(Debug, Default, Clone)]
pub struct Overrides {
    /// Keys with a flag of their own: flag, key, text.
    pub flags: Vec<(&'static str, String, String)>,
    /// `-X key=value`, in order.
    pub pairs: Vec<String>,
    /// The environment's variables.
    pub environment: Vec<(String, String)>,
}

impl Overrides {
    /// The environment's variables, and what `-X` gave.
    pub fn of_environment(pairs: &[String]) -> Self {
        // A name or value that is not UTF-8 can be none of ours.
        let environment = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        Self { environment, pairs: pairs.to_vec(), flags: Vec::new() }
    }

    /// Sets a key by a flag of its own.
    pub fn flag(&mut self, flag: &'static str, key: impl Into<String>, text: impl ToString) {
        self.flags.push((flag, key.into(), text.to_string()));
    }
}

/// What the manifest says of a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreSettings {
    pub in_memory: bool,
    pub logging_enabled: bool,
    /// The source that gets what REST clients write.
    pub write_source: Option<String>,
    /// Whether the processor looks at the conditions of such writes.
    pub conditional_writes: bool,
}

impl Default for StoreSettings {
    fn default() -> Self {
        Self { in_memory: false, logging_enabled: true, write_source: None, conditional_writes: false }
    }
}

/// A checked manifest.
#[derive(Debug, Clone)]
pub struct Manifest {
    /// The file it was read from.
    pub path: PathBuf,
    values: BTreeMap<String, Located>,
    /// Topics by the module's names.
    pub sources: BTreeMap<String, String>,
    pub sinks: BTreeMap<String, String>,
    pub stores: BTreeMap<String, StoreSettings>,
    /// Topics that are served without a module, by the names of their stores; a manifest with some has no module.
    pub tables: BTreeMap<String, TableSettings>,
    /// For the module.
    pub config: BTreeMap<String, String>,
    /// For librdkafka.
    pub kafka: BTreeMap<String, String>,
}

impl Manifest {
    /// Reads and checks a manifest with its overrides.
    ///
    /// # Errors
    /// Everything that is wrong at once, each with its place.
    pub fn load(path: &Path, overrides: &Overrides) -> Result<Self, ConfigError> {
        Self::parse(path, &Self::read(path)?, overrides)
    }

    /// The text of a manifest.
    ///
    /// # Errors
    /// When there is none, or it cannot be read.
    pub fn read(path: &Path) -> Result<String, ConfigError> {
        let bytes = std::fs::read(path).map_err(|source| match source.kind() {
            std::io::ErrorKind::NotFound => ConfigError::Missing { path: path.to_owned() },
            _ => ConfigError::Unreadable { path: path.to_owned(), source },
        })?;
        String::from_utf8(bytes)
            .map_err(|error| ConfigError::NotText { path: path.to_owned(), offset: error.utf8_error().valid_up_to() })
    }

    /// Checks a manifest's text with its overrides; `path` is for messages and relative paths.
    ///
    /// # Errors
    /// As `load`.
    pub fn parse(path: &Path, text: &str, overrides: &Overrides) -> Result<Self, ConfigError> {
        let mut layers = Layers::default();
        layers.file(text);
        layers.environment(overrides.environment.iter().cloned());
        for pair in &overrides.pairs {
            layers.flag("-X", pair);
        }
        for (flag, key, text) in &overrides.flags {
            layers.set(flag, key, text);
        }
        Self::of_layers(path, layers)
    }

    /// Checks the values together.
    fn of_layers(path: &Path, mut layers: Layers) -> Result<Self, ConfigError> {
        // Missing keys are only worth telling when what is there could be read.
        if layers.faults.is_empty() {
            missing(&mut layers);
            tables::check(&mut layers);
            handlers_without_topic(&mut layers);
        }
        if !layers.faults.is_empty() {
            return Err(ConfigError::Faults { path: path.to_owned(), faults: layers.faults });
        }
        Ok(Self::of(path, layers.values))
    }

    fn of(path: &Path, values: BTreeMap<String, Located>) -> Self {
        let free = |table: &str| -> BTreeMap<String, String> {
            values
                .iter()
                .filter_map(|(key, located)| match (layers::free_table(key), &located.value) {
                    (Some((name, rest)), Value::Text(text)) if name == table => Some((rest.to_owned(), text.clone())),
                    _ => None,
                })
                .collect()
        };
        let named = |table: &str, field: &str| -> BTreeMap<String, Value> {
            values
                .iter()
                .filter_map(|(key, located)| {
                    let rest = key.strip_prefix(table)?.strip_prefix('.')?;
                    let name = rest.strip_suffix(field)?.strip_suffix('.')?;
                    Some((name.to_owned(), located.value.clone()))
                })
                .collect()
        };
        let topics = |table: &str| -> BTreeMap<String, String> {
            let texts = named(table, "topic").into_iter();
            texts
                .filter_map(|(name, value)| if let Value::Text(text) = value { Some((name, text)) } else { None })
                .collect()
        };
        let (backends, logging) = (named("stores", "backend"), named("stores", "logging.enabled"));
        let (sources, conditional) = (named("stores", "write.source"), named("stores", "write.conditional"));
        let names: BTreeSet<&String> =
            [&backends, &logging, &sources, &conditional].into_iter().flat_map(BTreeMap::keys).collect();
        let stores = names
            .into_iter()
            .map(|name| {
                let in_memory = backends.get(name) == Some(&Value::Text("memory".to_owned()));
                let logging_enabled = logging.get(name) != Some(&Value::Boolean(false));
                let write_source = match sources.get(name) {
                    Some(Value::Text(source)) => Some(source.clone()),
                    _ => None,
                };
                let conditional_writes = conditional.get(name) == Some(&Value::Boolean(true));
                (name.clone(), StoreSettings { in_memory, logging_enabled, write_source, conditional_writes })
            })
            .collect();
        Self {
            path: path.to_owned(),
            sources: topics("sources"),
            sinks: topics("sinks"),
            stores,
            tables: tables::tables_of(&values),
            config: free("config"),
            kafka: free("kafka"),
            values,
        }
    }

    /// The folder that relative paths start from.
    pub fn directory(&self) -> &Path {
        match self.path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        }
    }

    pub fn application_id(&self) -> &str {
        self.text("application.id")
    }

    /// A text option; empty where it is absent and has no default.
    pub fn text(&self, key: &str) -> &str {
        match self.values.get(key).map(|located| &located.value) {
            Some(Value::Text(text)) => text,
            _ => default_of(key).map_or("", |written| written.trim_matches('"')),
        }
    }

    /// A number option; the options table has a default for each.
    pub fn integer(&self, key: &str) -> i64 {
        match self.values.get(key).map(|located| &located.value) {
            Some(Value::Integer(number)) => *number,
            _ => default_of(key).and_then(|written| written.parse().ok()).unwrap_or_default(),
        }
    }

    /// A number option whose minimum is 0 or more.
    pub fn count(&self, key: &str) -> u64 {
        self.integer(key).max(0).unsigned_abs()
    }

    /// Whether anybody gave the key a value.
    pub fn is_set(&self, key: &str) -> bool {
        self.values.contains_key(key)
    }

    pub fn boolean(&self, key: &str) -> bool {
        match self.values.get(key).map(|located| &located.value) {
            Some(Value::Boolean(value)) => *value,
            _ => default_of(key) == Some("true"),
        }
    }

    /// A text option that may be absent.
    pub fn optional_text(&self, key: &str) -> Option<&str> {
        Some(self.text(key)).filter(|text| !text.is_empty())
    }

    /// The limits of the module's instances.
    pub fn limits(&self) -> sandbox::Limits {
        let mut limits = sandbox::Limits::default();
        for key in sandbox::Limits::keys() {
            if let Some(Value::Integer(number)) = self.values.get(key.key).map(|located| &located.value) {
                // The value was checked by the same table when it was read.
                let set = limits.set(key.key, number.unsigned_abs());
                debug_assert!(set.is_ok(), "{set:?}");
            }
        }
        limits
    }

    /// A path option, from the manifest's folder where it is relative. A path of a flag starts at the working
    /// directory, as paths on a command line do.
    pub fn path_of(&self, key: &str) -> PathBuf {
        self.path_at(key, self.text(key))
    }

    /// A path that is in the value of `key`, from where that starts.
    pub fn path_at(&self, key: &str, path: &str) -> PathBuf {
        let path = Path::new(path);
        match self.values.get(key).map(|located| &located.origin) {
            Some(Origin::Flag(_)) => path.to_owned(),
            _ => self.directory().join(path),
        }
    }

    /// `bootstrap.servers`, comma-joined; `None` where nobody gave them.
    pub fn bootstrap_servers(&self) -> Option<String> {
        match self.values.get("bootstrap.servers").map(|located| &located.value) {
            Some(Value::List(servers)) => Some(servers.join(",")),
            _ => None,
        }
    }

    /// `module.trusted.keys`, as they are written; empty where nobody gave any.
    pub fn module_trusted_keys(&self) -> &[String] {
        match self.values.get("module.trusted.keys").map(|located| &located.value) {
            Some(Value::List(keys)) => keys,
            _ => &[],
        }
    }

    /// `advertised.networks`.
    pub fn peer_networks(&self) -> PeerNetworks {
        match self.values.get("advertised.networks").map(|located| &located.value) {
            // They were parsed when they were checked.
            Some(Value::List(networks)) => PeerNetworks::new(networks.iter().flat_map(|text| text.parse()).collect()),
            _ => PeerNetworks::default(),
        }
    }

    /// A fault about a named table, with the place of its first key.
    pub fn fault_below(&self, table: &str, message: impl Into<String>) -> ConfigError {
        let below = |key: &str| key.strip_prefix(table).is_some_and(|rest| rest.starts_with('.'));
        let first = self.values.iter().find(|(key, _)| below(key));
        self.fault_of(first.map(|(_, located)| located), message.into())
    }

    /// A fault about a key, with the place of its value.
    pub fn fault_at(&self, key: &str, message: impl Into<String>) -> ConfigError {
        self.fault_of(self.values.get(key), message.into())
    }

    fn fault_of(&self, located: Option<&Located>, message: String) -> ConfigError {
        let (origin, line_text) =
            located.map_or((Origin::Default, None), |located| (located.origin.clone(), located.line_text.clone()));
        let fault = Fault { origin, message, line_text };
        ConfigError::Faults { path: self.path.clone(), faults: vec![fault] }
    }
}

fn default_of(key: &str) -> Option<&'static str> {
    options::find(key).and_then(|option| option.default)
}

fn missing(layers: &mut Layers) {
    for option in OPTIONS.iter().filter(|option| option.required && !layers.values.contains_key(option.name)) {
        layers.faults.push(Fault {
            origin: Origin::Default,
            message: format!("the key {} is missing: expected {}", option.name, value::expected(option)),
            line_text: None,
        });
    }
}

/// Dead letters need a topic.
fn handlers_without_topic(layers: &mut Layers) {
    const TOPIC: &str = "errors.dead.letter.queue.topic.name";
    if layers.values.contains_key(TOPIC) {
        return;
    }
    for stage in ["deserialization", "processing", "production"] {
        let key = format!("{stage}.exception.handler");
        let Some(located) = layers.values.get(&key).filter(|one| one.value == Value::Text("dlq".to_owned())) else {
            continue;
        };
        layers.faults.push(Fault {
            origin: located.origin.clone(),
            message: format!("{key} is dlq, but there is no topic for dead letters: set {TOPIC}"),
            line_text: located.line_text.clone(),
        });
    }
}

/// The checked default of an option.
fn checked_default(option: &options::ConfigOption) -> Option<Result<Value, String>> {
    option
        .default
        .map(|written| value::check(option, option.name, &value::Written::Bare(written.trim_matches('"').to_owned())))
}
