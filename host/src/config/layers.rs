//! Reads the layers of a configuration (manifest, environment, flags) into one map of checked values, each with its
//! origin. A key that the options table does not have is a fault in every layer, never a default.

use std::collections::BTreeMap;
use std::ops::Range;

use toml::de::{DeInteger, DeTable, DeValue};

use super::fault::{Fault, Origin, nearest, place};
use super::options::{FREE_TABLES, OPTIONS, Scope, find, scope_of};
use super::value::{Value, Written, check};

/// Prefix of the environment variables that set a key: `SANDBAR__COMMIT_INTERVAL_MS` is `commit.interval.ms`.
pub const ENVIRONMENT_PREFIX: &str = "SANDBAR__";

/// A checked value and where it came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Located {
    pub value: Value,
    pub origin: Origin,
    /// The line of the manifest, where it came from there.
    pub line_text: Option<String>,
}

/// Checked values by flattened key, and everything that was wrong.
#[derive(Debug, Default)]
pub struct Layers {
    pub values: BTreeMap<String, Located>,
    pub faults: Vec<Fault>,
}

impl Layers {
    /// Reads the manifest's text.
    pub fn file(&mut self, text: &str) {
        match DeTable::parse(text) {
            Ok(table) => self.table(text, &mut Vec::new(), table.get_ref()),
            Err(error) => {
                let (line, column, line_text) = place(text, error.span().map_or(0, |span| span.start));
                let mut message = format!("not valid TOML: {}", error.message().replace('\n', ", "));
                // In TOML `module = "a.wasm"` leaves no room for keys below `module`, except in quotes.
                if error.message().contains("cannot extend value") {
                    let key = line_text.split('=').next().unwrap_or_default().trim();
                    message.push_str(&format!("; write the key in quotes: \"{key}\" = …"));
                }
                self.faults.push(Fault {
                    origin: Origin::File { line, column },
                    message,
                    line_text: Some(line_text.to_owned()),
                });
            }
        }
    }

    /// Reads the environment variables with our prefix; others are not ours.
    pub fn environment(&mut self, variables: impl IntoIterator<Item = (String, String)>) {
        for (variable, text) in variables {
            let Some(rest) = variable.strip_prefix(ENVIRONMENT_PREFIX) else { continue };
            let key = rest.to_lowercase().replace("__", "_").replace('_', ".");
            self.insert(&key, &Written::Bare(text), Origin::Environment(variable), None);
        }
    }

    /// Reads a `key=value` of the command line.
    pub fn flag(&mut self, flag: &str, pair: &str) {
        let origin = Origin::Flag(format!("{flag} {pair}"));
        match pair.split_once('=') {
            Some((key, text)) => self.insert(key.trim(), &Written::Bare(text.to_owned()), origin, None),
            None => self.faults.push(Fault {
                origin,
                message: "expected key=value, found no '='".to_owned(),
                line_text: None,
            }),
        }
    }

    /// Sets a key from a flag of its own, such as `--state-dir`.
    pub fn set(&mut self, flag: &str, key: &str, text: &str) {
        let origin = Origin::Flag(format!("{flag} {text}"));
        self.insert(key, &Written::Bare(text.to_owned()), origin, None);
    }

    /// Sets a key from the manifest of a version that was deployed. One that a version cannot have is a fault: a newer
    /// host means something by it, and what is left out would be missed.
    pub fn version(&mut self, key: &str, value: &serde_json::Value) {
        let refused = match scope_of(key) {
            Some(Scope::Version) => return self.insert(key, &of_json(value), Origin::Version, None),
            Some(Scope::Host) => format!("{key} belongs to the host and to no version; take it away and deploy again"),
            None => {
                format!("unknown key {key}, as a newer host has it: update this host, or deploy again without the key")
            }
        };
        self.faults.push(Fault { origin: Origin::Version, message: refused, line_text: None });
    }

    fn table(&mut self, text: &str, path: &mut Vec<String>, table: &DeTable<'_>) {
        for (key, value) in table {
            path.push(key.get_ref().to_string());
            let name = path.join(".");
            match (value.get_ref(), name.strip_prefix("table.")) {
                // A table that keeps every default is one too.
                (DeValue::Table(inner), Some(topic)) if inner.is_empty() => {
                    let (origin, line_text) = file_origin(text, key.span());
                    let topic = Written::Text(topic.to_owned());
                    self.insert(&format!("{name}.topic"), &topic, origin, Some(line_text));
                }
                (DeValue::Table(inner), _) if find(&name).is_none() => self.table(text, path, inner),
                (other, _) => {
                    let (origin, line_text) = file_origin(text, key.span());
                    self.insert(&name, &written(other), origin, Some(line_text));
                }
            }
            path.pop();
        }
    }

    fn insert(&mut self, key: &str, written: &Written, origin: Origin, line_text: Option<String>) {
        let checked = match (free_table(key), find(key)) {
            (Some(_), _) => free_text(key, written).map(Value::Text),
            (None, Some(option)) => check(option, key, written),
            (None, None) => Err(unknown(key, line_text.as_deref())),
        };
        match checked {
            Ok(value) => {
                self.values.insert(key.to_owned(), Located { value, origin, line_text });
            }
            Err(message) => self.faults.push(Fault { origin, message, line_text }),
        }
    }
}

/// The free table that a key belongs to, with the rest of the key.
pub fn free_table(key: &str) -> Option<(&'static str, &str)> {
    FREE_TABLES.iter().find_map(|table| {
        let rest = key.strip_prefix(table.name)?.strip_prefix('.')?;
        (!rest.is_empty()).then_some((table.name, rest))
    })
}

/// A free value as text: numbers and booleans as they are written.
fn free_text(key: &str, written: &Written) -> Result<String, String> {
    match written {
        Written::Text(text) | Written::Bare(text) => Ok(text.clone()),
        Written::Integer(number) => Ok(number.to_string()),
        Written::Boolean(value) => Ok(value.to_string()),
        Written::Other { kind: "float", text } => Ok(text.clone()),
        other => Err(format!("{key}: expected text, a number, true or false, found {}", other.describe())),
    }
}

/// The key that is written on the line, where that is one of its own and only the table above made another one of it.
fn below_a_table<'a>(key: &'a str, line_text: &str) -> Option<&'a str> {
    let written: String = line_text.chars().filter(|one| !matches!(one, ' ' | '\t' | '"' | '\'')).collect();
    let written = written.split('=').next()?;
    let mut ends = key.match_indices('.').map(|(at, _)| &key[at + 1..]);
    ends.find(|end| *end == written && find(end).is_some())
}

fn unknown(key: &str, line_text: Option<&str>) -> String {
    if let Some(own) = line_text.and_then(|line| below_a_table(key, line)) {
        return format!("unknown key {key}; {own} is a key of the manifest itself: put it above the first [table]");
    }
    let mut names: Vec<String> = Vec::new();
    // A key below a named table is compared with that table's keys under the user's own name, wherever that may end.
    for table in ["sources", "sinks", "stores", "table"] {
        if let Some(rest) = key.strip_prefix(table).and_then(|rest| rest.strip_prefix('.')) {
            for name in rest.match_indices('.').map(|(at, _)| &rest[..at]).chain([rest]) {
                let of_table = OPTIONS.iter().filter(|option| option.name.starts_with(&format!("{table}.")));
                names.extend(of_table.map(|option| option.name.replace('*', name)));
            }
        }
    }
    let is_below = !names.is_empty();
    names.extend(OPTIONS.iter().map(|option| option.name.to_owned()).filter(|name| !is_below || !name.contains('*')));
    let suggestion = match nearest(key, names.iter().map(String::as_str)) {
        Some(name) => format!("did you mean {name}?"),
        None => "`sandbar reference manifest` lists the keys; librdkafka's own go below [kafka]".to_owned(),
    };
    format!("unknown key {key}; {suggestion}")
}

/// Place of a dotted key: its line, and the column where its first part starts.
fn file_origin(text: &str, span: Range<usize>) -> (Origin, String) {
    let (line, column, line_text) = place(text, span.start);
    let dotted =
        |character: char| character.is_alphanumeric() || matches!(character, '.' | '_' | '-' | '"' | '\'' | ' ');
    let lead: String = line_text.chars().take(column - 1).collect();
    let column = if lead.chars().all(dotted) { lead.len() - lead.trim_start().len() + 1 } else { column };
    (Origin::File { line, column }, line_text.to_owned())
}

fn written(value: &DeValue<'_>) -> Written {
    match value {
        DeValue::String(text) => Written::Text(text.to_string()),
        DeValue::Integer(number) => integer(number),
        DeValue::Boolean(value) => Written::Boolean(*value),
        DeValue::Array(items) => Written::List(items.iter().map(|item| written(item.get_ref())).collect()),
        DeValue::Float(number) => Written::Other { kind: "float", text: number.as_str().to_owned() },
        DeValue::Datetime(moment) => Written::Other { kind: "date", text: moment.to_string() },
        DeValue::Table(_) => Written::Other { kind: "a table", text: String::new() },
    }
}

fn of_json(value: &serde_json::Value) -> Written {
    let other = |kind| Written::Other { kind, text: value.to_string() };
    match value {
        serde_json::Value::String(text) => Written::Text(text.clone()),
        serde_json::Value::Bool(value) => Written::Boolean(*value),
        serde_json::Value::Number(number) => number.as_i64().map_or_else(|| other("the number"), Written::Integer),
        serde_json::Value::Array(items) => Written::List(items.iter().map(of_json).collect()),
        serde_json::Value::Null => Written::Other { kind: "nothing", text: String::new() },
        serde_json::Value::Object(_) => Written::Other { kind: "a table", text: String::new() },
    }
}

fn integer(number: &DeInteger<'_>) -> Written {
    match i64::from_str_radix(number.as_str(), number.radix()) {
        Ok(value) => Written::Integer(value),
        Err(_) => Written::Other { kind: "the number", text: number.to_string() },
    }
}
