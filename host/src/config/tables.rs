//! The tables of a manifest, `[table.<name>]`: topics that are served without a module. What a table has no use for is
//! refused beside one, so that nobody waits for its effect.

use std::collections::{BTreeMap, BTreeSet};

use super::fault::{Fault, Origin};
use super::layers::{Layers, Located};
use super::options::find;
use super::value::{self, Value};

/// What the manifest says of a table, with its defaults.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableSettings {
    pub topic: String,
    pub in_memory: bool,
    pub key_format: String,
    pub value_format: String,
}

/// How long the name of a store may be.
pub const STORE_NAME_MAX_LENGTH: usize = 200;

const FIELDS: [&str; 4] = ["topic", "backend", "key.format", "value.format"];

/// The tables by their names, which are the stores' too.
pub fn tables_of(values: &BTreeMap<String, Located>) -> BTreeMap<String, TableSettings> {
    let named = |name: &str, field: &str| match values.get(&format!("table.{name}.{field}"))?.value {
        Value::Text(ref text) => Some(text.clone()),
        _ => None,
    };
    let or_default = |name: &str, field: &str| {
        let default = || find(&format!("table.{name}.{field}")).and_then(|option| option.default);
        named(name, field).or_else(|| default().map(|text| text.trim_matches('"').to_owned())).unwrap_or_default()
    };
    let settings = |name: &str| TableSettings {
        topic: named(name, "topic").unwrap_or_else(|| name.to_owned()),
        in_memory: or_default(name, "backend") == "memory",
        key_format: or_default(name, "key.format"),
        value_format: or_default(name, "value.format"),
    };
    names(values).into_iter().map(|name| (name.to_owned(), settings(name))).collect()
}

fn names(values: &BTreeMap<String, Located>) -> BTreeSet<&str> {
    let name = |key: &'_ String| -> Option<(usize, usize)> {
        let rest = key.strip_prefix("table.")?;
        let name = FIELDS.iter().find_map(|field| rest.strip_suffix(field)?.strip_suffix('.'))?;
        Some(("table.".len(), "table.".len() + name.len()))
    };
    values.keys().filter_map(|key| name(key).and_then(|(start, end)| key.get(start..end))).collect()
}

/// Finds what does not go together: a module with tables, neither of both, settings that mean nothing to a table, and
/// two tables of one topic.
pub fn check(layers: &mut Layers) {
    let tables = tables_of(&layers.values);
    let Some(first) = tables.keys().next() else {
        if !layers.values.contains_key("module") {
            layers.faults.push(Fault {
                origin: Origin::Default,
                message:
                    "the key module is missing: expected a path, or [table.<name>] to serve a topic without a module"
                        .to_owned(),
                line_text: None,
            });
        }
        return;
    };
    let mut faults = Vec::new();
    for (key, located) in &layers.values {
        if let Some(reason) = not_beside_tables(key, &located.value, first) {
            faults.push(fault_at(Some(located), format!("{key}: {reason}")));
        }
    }
    let mut served: BTreeMap<&str, &str> = BTreeMap::new();
    for (name, table) in &tables {
        let at = |field: &str| layers.values.get(&format!("table.{name}.{field}"));
        if !is_store_name(name) {
            let message = format!(
                "table.{name}: expected a name of letters, digits, '.', '_' and '-', at most {STORE_NAME_MAX_LENGTH} and not \
                 beginning with '.'; with the key topic a table can have another name than its topic"
            );
            faults.push(fault_at(FIELDS.iter().find_map(|field| at(field)), message));
        }
        if let Some(other) = served.insert(&table.topic, name) {
            let message = format!("table.{name}: the topic {} is served by table.{other} already", table.topic);
            faults.push(fault_at(at("topic").or_else(|| FIELDS.iter().find_map(|field| at(field))), message));
        }
    }
    layers.faults.extend(faults);
}

/// Names of stores become folders.
fn is_store_name(name: &str) -> bool {
    value::is_kafka_name(name) && name.len() <= STORE_NAME_MAX_LENGTH && !name.starts_with('.')
}

/// Why a key means nothing in a manifest with tables, if that is so.
fn not_beside_tables(key: &str, value: &Value, first: &str) -> Option<String> {
    let is = |expected: &str| matches!(value, Value::Text(text) if text == expected);
    match key.split_once('.').map_or(key, |(table, _)| table) {
        "module" if key == "module" => {
            Some(format!("a manifest has a module or tables, and this one has table.{first}; take one of the two away"))
        }
        "sources" | "sinks" | "config" => {
            Some("only a module has that, and a manifest with tables has none".to_owned())
        }
        "stores" => Some(format!("only a module has that; the settings of a table are below table.{first}")),
        _ if key == "processing.guarantee" && !is("at_least_once") => Some(
            "a table writes nothing that a transaction could hold, so it is \"at_least_once\"; leave the key out"
                .to_owned(),
        ),
        _ if key == "auto.offset.reset" && !is("earliest") => {
            Some("a table has the whole of its topic, so it begins with \"earliest\"; leave the key out".to_owned())
        }
        _ => None,
    }
}

fn fault_at(located: Option<&Located>, message: String) -> Fault {
    let origin = located.map_or(Origin::Default, |located| located.origin.clone());
    Fault { origin, message, line_text: located.and_then(|located| located.line_text.clone()) }
}
