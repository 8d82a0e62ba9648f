//! Turns what a user wrote, in the manifest or as text on the command line, into a checked value of an option.
//! Knows the kinds, not the keys.

use super::options::{ConfigOption, Kind};
use crate::networks::Network;

/// A checked value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    Text(String),
    Integer(i64),
    Boolean(bool),
    List(Vec<String>),
}

/// A value as written: typed as in TOML, or bare text from a flag or the environment.
#[derive(Debug, Clone, PartialEq)]
pub enum Written {
    Text(String),
    Integer(i64),
    Boolean(bool),
    List(Vec<Written>),
    /// Text whose type is the option's.
    Bare(String),
    /// Anything else, by the name of its type, with how it looks.
    Other {
        kind: &'static str,
        text: String,
    },
}

impl Written {
    /// What was found, for a message.
    pub fn describe(&self) -> String {
        match self {
            Self::Text(text) | Self::Bare(text) => format!("the text {text:?}"),
            Self::Integer(number) => format!("the number {number}"),
            Self::Boolean(value) => format!("{value}"),
            Self::List(_) => "a list".to_owned(),
            Self::Other { kind, text } if text.is_empty() => (*kind).to_owned(),
            Self::Other { kind, text } => format!("{kind} {text}"),
        }
    }
}

/// What an option takes, for messages and the reference.
pub fn expected(option: &ConfigOption) -> String {
    let unit = if option.unit.is_empty() { String::new() } else { format!(" ({})", option.unit) };
    match option.kind {
        Kind::Name => "a name of letters, digits, '.', '_' and '-' (at most 249)".to_owned(),
        Kind::Path => "a path".to_owned(),
        Kind::Servers => "host:port, several joined by commas".to_owned(),
        Kind::Networks => "networks such as 10.0.0.0/8, several joined by commas".to_owned(),
        Kind::Address => "host:port".to_owned(),
        Kind::Integer { min, max } => format!("a whole number from {min} to {max}{unit}"),
        Kind::Limit => format!("a whole number{unit}"),
        Kind::Boolean => "true or false".to_owned(),
        Kind::PublicKeys => "paths of public keys, or keys in base64, several joined by commas".to_owned(),
        Kind::Choice(choices) => {
            let quoted: Vec<String> = choices.iter().map(|choice| format!("{choice:?}")).collect();
            format!("one of {}", quoted.join(", "))
        }
    }
}

/// Checks the written value of `key`, which is the option's name or stands for it; the error says what was expected and
/// what was found.
pub fn check(option: &ConfigOption, key: &str, written: &Written) -> Result<Value, String> {
    let refuse = |detail: &str| {
        let detail = if detail.is_empty() { String::new() } else { format!(" ({detail})") };
        format!("{key}: expected {}, found {}{detail}", expected(option), written.describe())
    };
    let number = || {
        let number = match written {
            Written::Integer(number) => Some(*number),
            Written::Bare(text) => text.trim().parse().ok(),
            _ => None,
        };
        number.ok_or_else(|| refuse(if matches!(written, Written::Text(_)) { "write it without quotes" } else { "" }))
    };
    match option.kind {
        Kind::Integer { min, max } => match number()? {
            number if (min..=max).contains(&number) => Ok(Value::Integer(number)),
            _ => Err(refuse("")),
        },
        Kind::Limit => {
            let number = number()?;
            let limit = u64::try_from(number).map_err(|_| refuse(""))?;
            let set = sandbox::Limits::default().set(option.name, limit);
            set.map(|()| Value::Integer(number)).map_err(|error| error.to_string())
        }
        Kind::Boolean => match written {
            Written::Boolean(value) => Ok(Value::Boolean(*value)),
            Written::Bare(text) => text.trim().parse().map(Value::Boolean).map_err(|_| refuse("")),
            _ => Err(refuse("")),
        },
        Kind::Servers => list(written, |part| split_address(part).is_some()).map(Value::List).ok_or_else(|| refuse("")),
        Kind::Networks => {
            list(written, |part| part.parse::<Network>().is_ok()).map(Value::List).ok_or_else(|| refuse(""))
        }
        Kind::PublicKeys => {
            let is_text = |part: &str| !part.is_empty() && !part.chars().any(char::is_control);
            list(written, is_text).map(Value::List).ok_or_else(|| refuse(""))
        }
        Kind::Path | Kind::Name | Kind::Address | Kind::Choice(_) => {
            let (Written::Text(text) | Written::Bare(text)) = written else { return Err(refuse("")) };
            text_fault(option.kind, text).map_or_else(|| Ok(Value::Text(text.clone())), |detail| Err(refuse(detail)))
        }
    }
}

/// What is wrong with a text, if anything; an empty detail means that the expectation says it all.
fn text_fault(kind: Kind, text: &str) -> Option<&'static str> {
    if text.is_empty() {
        return Some("it is empty");
    }
    if text.chars().any(char::is_control) {
        return Some("control characters are not allowed");
    }
    match kind {
        Kind::Name => (!is_kafka_name(text)).then_some(""),
        Kind::Choice(choices) => (!choices.contains(&text)).then_some(""),
        Kind::Address => split_address(text).is_none().then_some(""),
        _ => None,
    }
}

/// Whether Kafka takes this as a topic name (`org.apache.kafka.common.internals.Topic`).
pub fn is_kafka_name(text: &str) -> bool {
    let legal = |character: char| character.is_ascii_alphanumeric() || matches!(character, '.' | '_' | '-');
    !text.is_empty() && text.len() <= 249 && text != "." && text != ".." && text.chars().all(legal)
}

/// The parts of a list, where each is valid and there is one.
fn list(written: &Written, is_valid: impl Fn(&str) -> bool) -> Option<Vec<String>> {
    let parts: Vec<&str> = match written {
        Written::Text(text) | Written::Bare(text) => text.split(',').map(str::trim).collect(),
        Written::List(items) => items
            .iter()
            .map(|item| match item {
                Written::Text(text) => Some(text.trim()),
                _ => None,
            })
            .collect::<Option<_>>()?,
        _ => return None,
    };
    let all_valid = !parts.is_empty() && parts.iter().all(|part| is_valid(part));
    all_valid.then(|| parts.into_iter().map(str::to_owned).collect())
}

/// Host and port of `host:port`, `[::1]:port` included.
pub fn split_address(text: &str) -> Option<(&str, u16)> {
    let (host, port) = text.rsplit_once(':')?;
    let bracketed = host.starts_with('[') && host.ends_with(']') && host.len() > 2;
    let plain = !host.is_empty() && !host.contains([':', '/', ' ', '[', ']']);
    if !(bracketed || plain) {
        return None;
    }
    Some((host, port.parse().ok()?))
}
