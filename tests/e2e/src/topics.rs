//! `sandbar topics` as a test uses it: create, fill and read topics of either broker. Reads everything that is there
//! and never waits for more.

use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::thread;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::repository;

/// Where the records are.
#[derive(Debug, Clone)]
pub enum Broker {
    /// The embedded broker of this folder.
    Embedded(PathBuf),
    /// A broker at this address.
    Kafka(String),
    /// Whichever the manifests of a host name.
    OfManifest,
}

impl Broker {
    /// The flags that name it.
    pub fn flags(&self) -> Vec<OsString> {
        match self {
            Self::Embedded(folder) => vec!["--embedded".into(), folder.into()],
            Self::Kafka(address) => vec!["-b".into(), address.into()],
            Self::OfManifest => Vec::new(),
        }
    }
}

/// A record as `sandbar topics read` shows it.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    pub partition: u64,
    pub offset: u64,
    pub timestamp: i64,
    pub key: Value,
    pub value: Value,
    /// Name and value of each, in order.
    pub headers: Value,
}

/// Runs `sandbar topics VERB TOPIC`, with lines on its standard input.
///
/// # Errors
/// When it cannot be started; whether it succeeded is in the output.
pub fn run(broker: &Broker, verb: &str, arguments: &[&str], input: &str) -> Result<Output> {
    let mut child = Command::new(repository::sandbar()?)
        .args(["topics", verb])
        .args(broker.flags())
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot start sandbar topics")?;
    let mut stdin = child.stdin.take().context("sandbar topics has no standard input")?;
    // Beside the reading of its output, or both sides could wait for each other. A command that refuses its input
    // closes the pipe; its own message says more than ours would.
    let output = thread::scope(|scope| {
        scope.spawn(move || stdin.write_all(input.as_bytes()).is_ok());
        child.wait_with_output()
    })?;
    Ok(output)
}

fn run_or_fail(broker: &Broker, verb: &str, arguments: &[&str], input: &str) -> Result<String> {
    let output = run(broker, verb, arguments, input)?;
    if !output.status.success() {
        let errors = String::from_utf8_lossy(&output.stderr);
        bail!("sandbar topics {verb} {} ended with {}: {errors}", arguments.join(" "), output.status);
    }
    String::from_utf8(output.stdout).context("sandbar topics printed something that is not UTF-8")
}

/// Creates a topic.
///
/// # Errors
/// When the command fails.
pub fn create(broker: &Broker, topic: &str, partitions: u32) -> Result<()> {
    run_or_fail(broker, "create", &[topic, "--partitions", &partitions.to_string()], "").map(drop)
}

/// Creates a topic that keeps the last record of each key.
///
/// # Errors
/// When the command fails.
pub fn create_compacted(broker: &Broker, topic: &str, partitions: u32) -> Result<()> {
    create_with(broker, topic, partitions, &["cleanup.policy=compact"])
}

/// Creates a topic with settings of its own, `key=value` each.
///
/// # Errors
/// When the command fails.
pub fn create_with(broker: &Broker, topic: &str, partitions: u32, settings: &[&str]) -> Result<()> {
    let partitions = partitions.to_string();
    let mut arguments = vec![topic, "--partitions", &partitions];
    arguments.extend(settings.iter().flat_map(|setting| ["--config", setting]));
    run_or_fail(broker, "create", &arguments, "").map(drop)
}

/// How a topic's values are written in lines of NDJSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Values {
    Text,
    Json,
    /// Eight bytes, big-endian.
    I64,
}

impl Values {
    fn flag(self) -> &'static str {
        match self {
            Self::Text => "--value-format=utf8",
            Self::Json => "--value-format=json",
            Self::I64 => "--value-format=i64",
        }
    }
}

/// Writes records, one line of NDJSON each.
///
/// # Errors
/// When the command fails.
pub fn produce(broker: &Broker, topic: &str, values: Values, lines: &str) -> Result<()> {
    run_or_fail(broker, "produce", &[values.flag(), topic], lines).map(drop)
}

/// All records of a topic, in offset order within a partition.
///
/// # Errors
/// When the command fails or prints something else than records.
pub fn read(broker: &Broker, topic: &str, values: Values) -> Result<Vec<Record>> {
    let text = run_or_fail(broker, "read", &[values.flag(), topic], "")?;
    let mut records = text.lines().map(parse).collect::<Result<Vec<_>>>()?;
    records.sort_by_key(|record| (record.partition, record.offset));
    Ok(records)
}

fn parse(line: &str) -> Result<Record> {
    let fields: Value = serde_json::from_str(line).with_context(|| format!("not a record: {line}"))?;
    let number = |name: &str| fields[name].as_u64().with_context(|| format!("no `{name}` in {line}"));
    Ok(Record {
        partition: number("partition")?,
        offset: number("offset")?,
        timestamp: fields["timestamp"].as_i64().unwrap_or(-1),
        key: fields["key"].clone(),
        value: fields["value"].clone(),
        headers: fields["headers"].clone(),
    })
}
