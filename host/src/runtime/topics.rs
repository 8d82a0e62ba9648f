//! The topics of a run: prepared at the start, remembered beside the stores, and watched while the application runs. A
//! topic that is another one than before, or is none, stops the application; it is never taken for a new one (R11,
//! R22).

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use engine::broker::{BrokerError, BrokerErrorKind, ClientSupplier, NewTopic};
use engine::error::{EngineError, Remedy};
use engine::internal_topics::{self, KnownTopic, KnownTopics, Prepared};
use engine::topology::Topology;
use kafka::KafkaClients;
use serde_json::{Value, json};

use super::retrying::until_answered;
use super::spawn::spawn;
use super::stop::Stop;
use crate::config::Manifest;
use crate::exit::StateDirectoryError;
use crate::terminal::Terminal;

/// The file of the state directory that remembers the topics.
const TOPICS: &str = ".topics";

/// How often the topics are looked at. With the second look, a change is known within 10 s.
const LOOK_INTERVAL: Duration = Duration::from_secs(4);
/// A broker that has only just started may not know of every topic yet, so a fault must last.
const SECOND_LOOK: Duration = Duration::from_secs(1);
const STACK_BYTES: usize = 2 << 20;

/// `max.message.bytes` of a dead letter topic that the embedded broker gets: twice that of the others.
const DEAD_LETTER_MAX_BYTES: u32 = 2 << 20;

/// Internal topics, created, checked and remembered; tried again while the broker asks for it. `None` when the wish to
/// stop came.
///
/// # Errors
/// When the topics do not fit, cannot be remembered, or no broker answers in time.
pub fn prepare(
    manifest: &Manifest,
    clients: &KafkaClients,
    topology: &Topology,
    folder: &Path,
    stop: &Stop,
) -> Result<Option<Prepared>> {
    let known = read_known(folder)?;
    let prepared = ask(manifest, clients, topology, &known, stop)?;
    if let Some(prepared) = prepared.as_ref().filter(|prepared| prepared.topics != known) {
        write_known(folder, &prepared.topics)
            .with_context(|| format!("cannot write {}", folder.join(TOPICS).display()))?;
    }
    Ok(prepared)
}

/// As `prepare`, for a topology that may never run: what runs stays what is remembered.
///
/// # Errors
/// As `prepare`.
pub fn look(
    manifest: &Manifest,
    clients: &KafkaClients,
    topology: &Topology,
    folder: &Path,
    stop: &Stop,
) -> Result<Option<Prepared>> {
    ask(manifest, clients, topology, &read_known(folder)?, stop)
}

fn ask(
    manifest: &Manifest,
    clients: &KafkaClients,
    topology: &Topology,
    known: &KnownTopics,
    stop: &Stop,
) -> Result<Option<Prepared>> {
    let replication_factor = i32::try_from(manifest.integer("replication.factor")).unwrap_or(-1);
    let is_retriable = |error: &EngineError| error.remedy() == Remedy::Retry;
    until_answered(manifest, stop, "prepare the topics", is_retriable, || {
        let mut admin = clients.admin()?;
        let application_id = manifest.application_id();
        internal_topics::prepare_known(admin.as_mut(), application_id, topology, replication_factor, known)
    })
}

/// Nothing where there is no file.
fn read_known(folder: &Path) -> Result<KnownTopics> {
    let path = folder.join(TOPICS);
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(KnownTopics::default()),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
    };
    let unreadable = || {
        let detail = format!("{} is damaged; remove the directory to restore its stores", path.display());
        StateDirectoryError(detail)
    };
    Ok(parse(&text).ok_or_else(unreadable)?)
}

fn parse(text: &str) -> Option<KnownTopics> {
    let value: Value = serde_json::from_str(text).ok()?;
    let topic = |(name, topic): (&String, &Value)| {
        let id = match &topic["id"] {
            Value::Null => None,
            id => Some(id.as_str()?.to_owned()),
        };
        let partitions = i32::try_from(topic["partitions"].as_i64()?).ok()?;
        Some((name.clone(), KnownTopic { id, partitions }))
    };
    value["topics"].as_object()?.iter().map(topic).collect::<Option<_>>().map(KnownTopics)
}

fn render(known: &KnownTopics) -> String {
    let topic = |(name, topic): (&String, &KnownTopic)| {
        (name.clone(), json!({ "id": topic.id, "partitions": topic.partitions }))
    };
    let topics: serde_json::Map<String, Value> = known.0.iter().map(topic).collect();
    format!("{:#}\n", json!({ "topics": topics }))
}

/// Written beside and renamed, so that a crash leaves the old file or the new one.
fn write_known(folder: &Path, known: &KnownTopics) -> io::Result<()> {
    let draft = folder.join(format!("{TOPICS}.new"));
    let mut file = File::create(&draft)?;
    file.write_all(render(known).as_bytes())?;
    file.sync_all()?;
    fs::rename(&draft, folder.join(TOPICS))?;
    File::open(folder)?.sync_all()
}

/// The embedded broker gets the source and sink topics that are missing; a real one never.
///
/// # Errors
/// When the broker does not say which there are, or makes none.
pub fn create_missing(clients: &KafkaClients, topology: &Topology, partitions: i64, terminal: Terminal) -> Result<()> {
    let mut names = topology.source_topics();
    names.extend(topology.sink_topics());
    for name in names {
        if clients.describe_topic(&name)?.is_some() {
            continue;
        }
        let mut configs = BTreeMap::new();
        // A dead letter is as old as its record, which must not be the reason that nobody sees it.
        if topology.dead_letter_topic.as_ref() == Some(&name) {
            configs.insert("retention.ms".to_owned(), "-1".to_owned());
            // A dead letter is larger than its record.
            configs.insert("max.message.bytes".to_owned(), DEAD_LETTER_MAX_BYTES.to_string());
        }
        let topic = NewTopic {
            name: name.to_string(),
            partitions: i32::try_from(partitions).unwrap_or(i32::MAX),
            replication_factor: -1,
            configs,
        };
        match clients.create_topic(&topic) {
            Ok(()) => {
                let text = format!("created topic {name} with {partitions} partitions");
                terminal.notice("topic-created", &text, json!({ "topic": &*name, "partitions": partitions }));
            }
            Err(error) if error.kind == BrokerErrorKind::TopicExists => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Looks at the topics from time to time, on a thread of its own so that nothing waits for it.
pub struct TopicWatch {
    look: Arc<Look>,
    fault: Arc<Mutex<Option<EngineError>>>,
}

struct Look {
    clients: Arc<KafkaClients>,
    application_id: String,
    topology: Arc<Topology>,
    prepared: Prepared,
}

impl TopicWatch {
    /// Begins to look, until the wish to stop.
    ///
    /// # Errors
    /// When the machine gives no thread.
    pub fn start(
        clients: Arc<KafkaClients>,
        application_id: &str,
        topology: Arc<Topology>,
        prepared: Prepared,
        stop: &Stop,
    ) -> Result<Self> {
        let look = Arc::new(Look { clients, application_id: application_id.to_owned(), topology, prepared });
        let watch = Self { look: Arc::clone(&look), fault: Arc::default() };
        let (fault, stop) = (Arc::clone(&watch.fault), stop.clone());
        let looking = move || {
            while !stop.wait(LOOK_INTERVAL) {
                if look.fault().is_none() || stop.wait(SECOND_LOOK) {
                    continue;
                }
                if let Some(found) = look.fault() {
                    *fault.lock().unwrap_or_else(PoisonError::into_inner) = Some(found);
                    return;
                }
            }
        };
        spawn("topic-watch", STACK_BYTES, looking).context("cannot start a thread")?;
        Ok(watch)
    }

    /// What was found, once.
    pub fn take_fault(&self) -> Option<EngineError> {
        self.fault.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// The change of a topic behind a failure, if that is the reason: a client only says that something is not there.
    pub fn reason_of(&self, failure: &anyhow::Error) -> Option<EngineError> {
        let suspicious = failure.chain().any(|cause| match cause.downcast_ref::<EngineError>() {
            Some(
                EngineError::OffsetOutOfRange { .. }
                | EngineError::ChangelogRegressed { .. }
                | EngineError::SourceRegressed { .. },
            ) => true,
            Some(error) => broker_error(error).is_some_and(|error| error.kind == BrokerErrorKind::UnknownTopic),
            None => false,
        });
        self.take_fault().or_else(|| suspicious.then(|| self.look.fault()).flatten())
    }
}

fn broker_error(error: &EngineError) -> Option<&BrokerError> {
    match error {
        EngineError::Broker(error) | EngineError::Send { error, .. } => Some(error),
        EngineError::Commit { error, .. }
        | EngineError::TimedOut { error, .. }
        | EngineError::Recycled { error, .. } => broker_error(error),
        _ => None,
    }
}

impl Look {
    /// What is wrong for good with the topics. A broker that does not answer is no fault of theirs.
    fn fault(&self) -> Option<EngineError> {
        let checked = self.clients.admin().map_err(EngineError::from).and_then(|mut admin| {
            internal_topics::check(admin.as_mut(), &self.application_id, &self.topology, &self.prepared)
        });
        match checked {
            Ok(()) => None,
            Err(error @ EngineError::Broker(_)) => {
                tracing::debug!(%error, "the topics could not be looked at");
                None
            }
            Err(error) => Some(error),
        }
    }
}

#[cfg(test)]
mod tests;
