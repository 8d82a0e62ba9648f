//! The settings of a topic: one table of names, defaults and allowed values (Kafka's `LogConfig`, version 4.3). A name
//! that is not in the table, or a value outside its bounds, is refused. Accepted, but without effect: `compression.*`,
//! `file.delete.delay.ms` (files go at once), `flush.*`, `preallocate`, `segment.index.bytes`, `segment.jitter.ms`, and
//! what concerns replicas.

use std::collections::BTreeMap;

use super::log::LogLimits;
use super::log::retention::CleanupLimits;
use super::refusal::{ErrorCode, Refusal};

/// The longest value: it must fit into the answers of every protocol version.
const VALUE_BYTES_MAX: usize = i16::MAX as usize;

/// What values a setting takes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum ConfigKind {
    Boolean,
    /// Smallest value of a 32-bit number.
    Int(i64),
    /// Smallest value of a 64-bit number.
    Long(i64),
    Double(f64, f64),
    /// One of these.
    Word(&'static [&'static str]),
    /// Any of these, with commas.
    List(&'static [&'static str]),
    Text,
}

/// One setting.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ConfigDefinition {
    pub name: &'static str,
    pub default: &'static str,
    pub kind: ConfigKind,
}

const fn define(name: &'static str, default: &'static str, kind: ConfigKind) -> ConfigDefinition {
    ConfigDefinition { name, default, kind }
}

/// Every topic setting, in the order of names.
pub const DEFINITIONS: &[ConfigDefinition] = &[
    define("cleanup.policy", "delete", ConfigKind::List(&["compact", "delete"])),
    define("compression.gzip.level", "-1", ConfigKind::Int(-1)),
    define("compression.lz4.level", "9", ConfigKind::Int(1)),
    define(
        "compression.type",
        "producer",
        ConfigKind::Word(&["uncompressed", "zstd", "lz4", "snappy", "gzip", "producer"]),
    ),
    define("compression.zstd.level", "3", ConfigKind::Int(-131_072)),
    define("delete.retention.ms", "86400000", ConfigKind::Long(0)),
    define("file.delete.delay.ms", "60000", ConfigKind::Long(0)),
    define("flush.messages", "9223372036854775807", ConfigKind::Long(1)),
    define("flush.ms", "9223372036854775807", ConfigKind::Long(0)),
    define("follower.replication.throttled.replicas", "", ConfigKind::Text),
    define("index.interval.bytes", "4096", ConfigKind::Int(0)),
    define("leader.replication.throttled.replicas", "", ConfigKind::Text),
    define("max.compaction.lag.ms", "9223372036854775807", ConfigKind::Long(1)),
    define("max.message.bytes", "1048588", ConfigKind::Int(0)),
    define("message.timestamp.after.max.ms", "3600000", ConfigKind::Long(0)),
    define("message.timestamp.before.max.ms", "9223372036854775807", ConfigKind::Long(0)),
    define("message.timestamp.type", "CreateTime", ConfigKind::Word(&["CreateTime", "LogAppendTime"])),
    define("min.cleanable.dirty.ratio", "0.5", ConfigKind::Double(0.0, 1.0)),
    define("min.compaction.lag.ms", "0", ConfigKind::Long(0)),
    define("min.insync.replicas", "1", ConfigKind::Int(1)),
    define("preallocate", "false", ConfigKind::Boolean),
    define("retention.bytes", "-1", ConfigKind::Long(-1)),
    // Kafka's topics take this one from their broker, where it is a week unless set. Here records stay for as long as
    // no topic says otherwise: records of a trial are often years old, and would be gone before anybody has read them.
    define("retention.ms", "-1", ConfigKind::Long(-1)),
    define("segment.bytes", "67108864", ConfigKind::Int(14)),
    define("segment.index.bytes", "10485760", ConfigKind::Int(4)),
    define("segment.jitter.ms", "0", ConfigKind::Long(0)),
    define("segment.ms", "604800000", ConfigKind::Long(1)),
    define("unclean.leader.election.enable", "false", ConfigKind::Boolean),
];

/// The setting of this name.
pub fn definition(name: &str) -> Result<&'static ConfigDefinition, Refusal> {
    DEFINITIONS
        .iter()
        .find(|definition| definition.name == name)
        .ok_or_else(|| Refusal::new(ErrorCode::InvalidConfig, format!("unknown topic config name: {name}")))
}

/// Checks one setting.
pub fn check(name: &str, value: &str) -> Result<(), Refusal> {
    let definition = definition(name)?;
    if value.len() > VALUE_BYTES_MAX {
        let detail = format!("a value of {} bytes for configuration {name}: at most {VALUE_BYTES_MAX}", value.len());
        return Err(Refusal::new(ErrorCode::InvalidConfig, detail));
    }
    let invalid = |expected: String| {
        let detail = format!("invalid value {value:?} for configuration {name}: expected {expected}");
        Err(Refusal::new(ErrorCode::InvalidConfig, detail))
    };
    match definition.kind {
        ConfigKind::Boolean => match value {
            "true" | "false" => Ok(()),
            _ => invalid("true or false".into()),
        },
        ConfigKind::Int(least) => match value.trim().parse::<i32>() {
            Ok(number) if i64::from(number) >= least => Ok(()),
            _ => invalid(format!("a 32-bit number of at least {least}")),
        },
        ConfigKind::Long(least) => match value.trim().parse::<i64>() {
            Ok(number) if number >= least => Ok(()),
            _ => invalid(format!("a 64-bit number of at least {least}")),
        },
        ConfigKind::Double(least, most) => match value.trim().parse::<f64>() {
            Ok(number) if (least..=most).contains(&number) => Ok(()),
            _ => invalid(format!("a number from {least} to {most}")),
        },
        ConfigKind::Word(words) if words.contains(&value) => Ok(()),
        ConfigKind::Word(words) => invalid(format!("one of {}", words.join(", "))),
        ConfigKind::List(words) if value.split(',').all(|word| words.contains(&word.trim())) => Ok(()),
        ConfigKind::List(words) => invalid(format!("some of {}", words.join(", "))),
        ConfigKind::Text => Ok(()),
    }
}

/// Checks every setting of a topic.
pub fn check_all(configs: &BTreeMap<String, String>) -> Result<(), Refusal> {
    configs.iter().try_for_each(|(name, value)| check(name, value))
}

/// The value in force: the topic's own, else the default. Empty for a name that does not exist.
pub fn value<'a>(configs: &'a BTreeMap<String, String>, name: &str) -> &'a str {
    match configs.get(name) {
        Some(value) => value,
        None => definition(name).map_or("", |definition| definition.default),
    }
}

/// The values of a setting that is a list.
pub fn list_values(text: &str) -> Vec<&str> {
    text.split(',').map(str::trim).filter(|word| !word.is_empty()).collect()
}

fn cleanup_limits(configs: &BTreeMap<String, String>) -> CleanupLimits {
    let number = |name| value(configs, name).trim().parse::<i64>().unwrap_or(i64::MAX);
    let policy = list_values(value(configs, "cleanup.policy"));
    let ratio = value(configs, "min.cleanable.dirty.ratio").trim().parse::<f64>().unwrap_or(1.0);
    CleanupLimits {
        delete: policy.contains(&"delete"),
        compact: policy.contains(&"compact"),
        retention_ms: number("retention.ms"),
        retention_bytes: number("retention.bytes"),
        segment_ms: number("segment.ms"),
        min_compaction_lag_ms: number("min.compaction.lag.ms"),
        max_compaction_lag_ms: number("max.compaction.lag.ms"),
        min_dirty_millionths: (ratio * 1_000_000.0).round() as u64,
        delete_retention_ms: number("delete.retention.ms"),
    }
}

/// The log's part of checked settings.
pub fn log_limits(configs: &BTreeMap<String, String>) -> LogLimits {
    let number = |name| value(configs, name).trim().parse::<i64>().unwrap_or(i64::MAX);
    LogLimits {
        max_message_bytes: number("max.message.bytes").max(0) as usize,
        segment_bytes: number("segment.bytes").max(0) as u64,
        index_interval_bytes: number("index.interval.bytes").max(0) as u64,
        log_append_time: value(configs, "message.timestamp.type") == "LogAppendTime",
        require_keys: list_values(value(configs, "cleanup.policy")).contains(&"compact"),
        timestamp_before_max_ms: number("message.timestamp.before.max.ms"),
        timestamp_after_max_ms: number("message.timestamp.after.max.ms"),
        cleanup: cleanup_limits(configs),
    }
}

#[cfg(test)]
mod tests;
