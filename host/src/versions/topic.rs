//! The topic of the versions: created where it is missing, and verified, since one that forgets or has several orders
//! of its records cannot say which version is active. Never altered or deleted.

use std::collections::BTreeMap;

use engine::broker::{Admin, BrokerError, BrokerErrorKind, NewTopic, TopicDescription};

use super::log::LogError;

const CLEANUP_POLICY: &str = "cleanup.policy";
const MAX_MESSAGE_BYTES: &str = "max.message.bytes";
/// Kafka's default.
const MESSAGE_BYTES_MAX: usize = 1_048_588;
/// Less would cut modules into very many parts, and take no version.
const MESSAGE_BYTES_MIN: usize = 16 << 10;
/// As Kafka Streams' changelogs: compaction leaves the segment alone that is written, and every host that starts reads
/// it.
const SEGMENT_BYTES: &str = "52428800";

/// A topic that can be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct UsableTopic {
    /// `None` where the broker does not tell ids.
    pub id: Option<String>,
    pub message_bytes_max: usize,
}

/// Looks at the topic, creates it where it is missing (`replication_factor` -1 = the broker's default), and verifies
/// it.
///
/// # Errors
/// What is wrong with the topic and what to do, or why the broker could not be asked.
pub(super) fn prepare(admin: &mut dyn Admin, name: &str, replication_factor: i32) -> Result<UsableTopic, LogError> {
    if let Some(found) = describe(admin, name)? {
        return verify(&found);
    }
    let configs = [(CLEANUP_POLICY, "compact"), ("segment.bytes", SEGMENT_BYTES)];
    let configs: BTreeMap<String, String> = configs.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    let topic = NewTopic { name: name.to_owned(), partitions: 1, replication_factor, configs };
    match admin.create_topic(&topic) {
        Ok(()) => {}
        // Another host was faster; what it made is verified like any other.
        Err(error) if error.kind == BrokerErrorKind::TopicExists => {}
        Err(error) => return Err(error.into()),
    }
    verify(&existing(admin, name, BrokerErrorKind::Retriable)?)
}

/// Looks at the topic again.
///
/// # Errors
/// As `prepare`; also when the topic is none any more, or another one of the same name.
pub(super) fn check(admin: &mut dyn Admin, name: &str, known: Option<&str>) -> Result<UsableTopic, LogError> {
    let found = verify(&existing(admin, name, BrokerErrorKind::UnknownTopic)?)?;
    match (known, &found.id) {
        (Some(known), Some(id)) if known != id => {
            let (known, found) = (known.to_owned(), id.clone());
            Err(LogError::TopicChanged { topic: name.to_owned(), known, found })
        }
        _ => Ok(found),
    }
}

fn describe(admin: &mut dyn Admin, name: &str) -> Result<Option<TopicDescription>, BrokerError> {
    Ok(admin.describe_topics(&[name])?.into_iter().next().flatten())
}

fn existing(admin: &mut dyn Admin, name: &str, otherwise: BrokerErrorKind) -> Result<TopicDescription, BrokerError> {
    let missing = || BrokerError::new(otherwise, format!("describe topic {name}"), "the broker does not know it");
    describe(admin, name)?.ok_or_else(missing)
}

/// Refuses a topic that cannot hold versions. A setting that the broker does not report has Kafka's default.
fn verify(found: &TopicDescription) -> Result<UsableTopic, LogError> {
    let setting = |key| found.configs.get(key).map(|value| value.trim());
    let mut faults = Vec::new();
    if found.partitions != 1 {
        faults.push(format!(
            "it has {} partitions where 1 is needed: delete it, and the next start makes it anew with its own module as \
             version 1",
            found.partitions
        ));
    }
    let policy = setting(CLEANUP_POLICY).unwrap_or("delete");
    if policy != "compact" {
        faults.push(format!(
            "its {CLEANUP_POLICY} is {policy}, which deletes versions by their age: set {CLEANUP_POLICY}=compact"
        ));
    }
    let message_bytes_max = match setting(MAX_MESSAGE_BYTES).map(str::parse::<usize>) {
        None => MESSAGE_BYTES_MAX,
        Some(Ok(bytes)) if bytes >= MESSAGE_BYTES_MIN => bytes,
        Some(_) => {
            let text = setting(MAX_MESSAGE_BYTES).unwrap_or_default();
            faults.push(format!("its {MAX_MESSAGE_BYTES} is {text}: set {MESSAGE_BYTES_MIN} or more"));
            MESSAGE_BYTES_MIN
        }
    };
    if faults.is_empty() {
        Ok(UsableTopic { id: found.id.clone(), message_bytes_max })
    } else {
        Err(LogError::Topic { topic: found.name.clone(), faults })
    }
}
