//! What a module says of itself, checked: names that Kafka accepts, kinds and formats that this host knows, nothing
//! twice. The host binds it to topics. All faults are found at once; nothing that is not understood passes.

use std::collections::BTreeSet;

use crate::bindings::types;
use crate::guest_log::escape;

/// The checked answer of `describe`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Declaration {
    pub sub_topologies: Vec<SubTopologyDeclaration>,
}

/// Sources, stores and sinks whose records meet in one task.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SubTopologyDeclaration {
    pub sources: Vec<TopicDeclaration>,
    pub stores: Vec<StoreDeclaration>,
    pub sinks: Vec<TopicDeclaration>,
}

/// A source or a sink: the name that the manifest binds to a topic, else the topic's own name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicDeclaration {
    pub name: String,
}

/// A key-value store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreDeclaration {
    pub name: String,
    /// How people see keys and values: one of `bytes`, `utf8`, `json`, `i32`, `i64`, `f64`.
    pub key_format: String,
    pub value_format: String,
    /// The version of the stored schema.
    pub version: u32,
}

const FORMATS: [&str; 6] = ["bytes", "utf8", "json", "i32", "i64", "f64"];
const KINDS: [&str; 1] = ["key-value"];
/// Sources, stores, sinks and sub-topologies of one kind; far above any real topology.
const ENTRIES_MAX: usize = 1_000;
/// Kafka's limit for topic names (`Topic.MAX_NAME_LENGTH`). A store name becomes a part of one.
const TOPIC_NAME_MAX: usize = 249;
/// Leaves room for `<application id>-<store>-changelog` within it.
const STORE_NAME_MAX: usize = 100;
/// After that many faults the rest is only counted.
const FAULTS_MAX: usize = 20;

struct Faults(Vec<String>, usize);

impl Faults {
    fn add(&mut self, fault: String) {
        if self.0.len() < FAULTS_MAX {
            self.0.push(fault);
        } else {
            self.1 += 1;
        }
    }
}

impl Declaration {
    /// Checks what the guest returned; the error holds every fault.
    pub(crate) fn from_guest(topology: types::Topology) -> Result<Self, Vec<String>> {
        let mut faults = Faults(Vec::new(), 0);
        no_options(&mut faults, "the topology", &topology.options);
        if topology.sub_topologies.is_empty() {
            faults.add("it has no sub-topology".to_owned());
        }
        too_many(&mut faults, "sub-topologies", topology.sub_topologies.len());
        let (mut sources, mut stores) = (BTreeSet::new(), BTreeSet::new());
        let mut declaration = Self::default();
        for (index, guest) in topology.sub_topologies.into_iter().take(ENTRIES_MAX).enumerate() {
            let part = format!("sub-topology {index}");
            if guest.sources.is_empty() {
                faults.add(format!("{part} has no source"));
            }
            too_many(&mut faults, "sources", guest.sources.len());
            too_many(&mut faults, "stores", guest.stores.len());
            too_many(&mut faults, "sinks", guest.sinks.len());
            let mut checked = SubTopologyDeclaration::default();
            for source in guest.sources.into_iter().take(ENTRIES_MAX) {
                topic(&mut faults, &format!("source of {part}"), &source.name, &source.options, &mut sources);
                checked.sources.push(TopicDeclaration { name: source.name });
            }
            for declared in guest.stores.into_iter().take(ENTRIES_MAX) {
                checked.stores.push(store(&mut faults, &part, declared, &mut stores));
            }
            // Two sub-topologies may write to the same topic, so each has a set of its own.
            let mut sinks = BTreeSet::new();
            for sink in guest.sinks.into_iter().take(ENTRIES_MAX) {
                topic(&mut faults, &format!("sink of {part}"), &sink.name, &sink.options, &mut sinks);
                checked.sinks.push(TopicDeclaration { name: sink.name });
            }
            declaration.sub_topologies.push(checked);
        }
        if faults.1 > 0 {
            let more = format!("and {} more", faults.1);
            faults.0.push(more);
        }
        if faults.0.is_empty() { Ok(declaration) } else { Err(faults.0) }
    }
}

fn too_many(faults: &mut Faults, what: &str, found: usize) {
    if found > ENTRIES_MAX {
        faults.add(format!("it has {found} {what}, at most {ENTRIES_MAX} are allowed"));
    }
}

/// This version knows no option. One that is not understood may change the meaning, so it is refused.
fn no_options(faults: &mut Faults, of: &str, options: &[(String, String)]) {
    for (name, _) in options {
        faults.add(format!("{of} has the option {}, which this host does not know; update the host", shown(name)));
    }
}

fn topic(faults: &mut Faults, what: &str, name: &str, options: &[(String, String)], known: &mut BTreeSet<String>) {
    let what = format!("{what} {}", shown(name));
    check_name(faults, &what, name, TOPIC_NAME_MAX);
    no_options(faults, &what, options);
    if !known.insert(name.to_owned()) {
        faults.add(format!("{what} is declared twice"));
    }
}

fn store(
    faults: &mut Faults,
    part: &str,
    declared: types::StoreDeclaration,
    known: &mut BTreeSet<String>,
) -> StoreDeclaration {
    let what = format!("store {} of {part}", shown(&declared.name));
    check_name(faults, &what, &declared.name, STORE_NAME_MAX);
    no_options(faults, &what, &declared.options);
    if !known.insert(declared.name.clone()) {
        faults.add(format!("{what} is declared twice"));
    }
    one_of(faults, &what, "kind", &declared.kind, &KINDS);
    one_of(faults, &what, "key format", &declared.key_format, &FORMATS);
    one_of(faults, &what, "value format", &declared.value_format, &FORMATS);
    StoreDeclaration {
        name: declared.name,
        key_format: declared.key_format,
        value_format: declared.value_format,
        version: declared.version,
    }
}

fn one_of(faults: &mut Faults, of: &str, what: &str, found: &str, known: &[&str]) {
    if !known.contains(&found) {
        faults.add(format!("{of} has the {what} {}, known are {}", shown(found), known.join(", ")));
    }
}

/// Kafka's rule for topic names: letters, digits, `.`, `_`, `-`; not `.` and not `..`.
fn check_name(faults: &mut Faults, what: &str, name: &str, max: usize) {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    if name.is_empty() {
        faults.add(format!("{what} has an empty name"));
    } else if name.len() > max {
        faults.add(format!("{what} has a name of {} bytes, at most {max} are allowed", name.len()));
    } else if name == "." || name == ".." || !name.bytes().all(legal) {
        faults.add(format!("{what} has a name with other characters than letters, digits, '.', '_' and '-'"));
    }
}

/// A guest's string in a message.
fn shown(text: &str) -> String {
    format!("\"{}\"", escape(text, 60))
}

#[cfg(test)]
mod tests;
