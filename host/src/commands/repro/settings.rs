//! What a dead letter says about the circumstances of its call: the task, the limits of the instance, the topics of the
//! sinks, the reads. What cannot be read is an error, since a repetition under other circumstances proves nothing.
//! Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context, Result, anyhow, bail};
use engine::processor::Reads;
use engine::topic_limits::{SinkLimits, TopicLimits};
use engine::topology::{
    PartitionCounts, StoreBackend, StoreChangelog, StoreSpec, SubTopology, TaskId, TopicBinding, Topology,
};
use sandbox::{Declaration, Limits, StoreDeclaration};

use super::super::dlq::DeadLetter;

/// The circumstances of a call.
pub struct Recorded {
    pub task: TaskId,
    pub limits: Limits,
    pub reads: Reads,
    pub partition_counts: PartitionCounts,
    pub sink_limits: SinkLimits,
    pub entry_max_bytes: BTreeMap<String, usize>,
    /// Topics by the sinks that they were bound to.
    sinks: BTreeMap<String, Arc<str>>,
}

impl Recorded {
    /// Reads the headers that say so.
    ///
    /// # Errors
    /// Names the header that is missing or malformed.
    pub fn of(letter: &DeadLetter) -> Result<Self> {
        let reads = match &letter.reads {
            Some(bytes) => Reads::decode(bytes).with_context(|| format!("{}", letter.position))?,
            None => Reads::unknown(),
        };
        let mut recorded = Self {
            task: task_of(letter)?,
            limits: Limits::default(),
            reads,
            partition_counts: PartitionCounts::default(),
            sink_limits: SinkLimits::default(),
            entry_max_bytes: BTreeMap::new(),
            sinks: BTreeMap::new(),
        };
        let mut sinks: BTreeMap<&str, BTreeMap<String, String>> = BTreeMap::new();
        for line in letter.settings.as_deref().unwrap_or_default().lines() {
            let malformed = || anyhow!("{}: malformed setting {line:?}", letter.position);
            let (key, value) = line.split_once('=').ok_or_else(malformed)?;
            let store = key.strip_prefix("store.").and_then(|rest| rest.strip_suffix(".entry.max.bytes"));
            match (key.strip_prefix("sink."), store) {
                (Some(rest), _) => {
                    let (name, key) = sink_key(rest).ok_or_else(malformed)?;
                    sinks.entry(name).or_default().insert(key.to_owned(), value.to_owned());
                }
                (None, Some(store)) => {
                    let max_bytes = value.parse().map_err(|_| malformed())?;
                    recorded.entry_max_bytes.insert(store.to_owned(), max_bytes);
                }
                (None, None) => {
                    let value = value.parse().map_err(|_| malformed())?;
                    recorded.limits.set(key, value).with_context(|| letter.position.to_string())?;
                }
            }
        }
        for (name, settings) in sinks {
            let topic =
                settings.get("topic").with_context(|| format!("{}: sink {name} has no topic", letter.position))?;
            let topic: Arc<str> = topic.as_str().into();
            // What the dead letter does not say bounds nothing.
            let partitions = settings.get("partitions").map_or(Ok(i32::MAX), |text| partitions_of(text));
            let partitions = partitions.with_context(|| format!("{}: sink {name}", letter.position))?;
            recorded.partition_counts.0.insert(Arc::clone(&topic), partitions);
            recorded.sink_limits.0.insert(Arc::clone(&topic), TopicLimits::of_configs(&settings));
            recorded.sinks.insert(name.to_owned(), topic);
        }
        Ok(recorded)
    }

    /// What a module declares, bound as it was then; a sink that is new has a topic of its own name without bounds.
    pub fn topology(&self, declaration: &Declaration) -> Topology {
        let own = |name: &str| TopicBinding { name: name.into(), topic: name.into() };
        let sink = |name: &str| match self.sinks.get(name) {
            Some(topic) => TopicBinding { name: name.into(), topic: Arc::clone(topic) },
            None => own(name),
        };
        let parts = declaration.sub_topologies.iter().map(|part| SubTopology {
            sources: part.sources.iter().map(|source| own(&source.name)).collect(),
            stores: part.stores.iter().map(store).collect(),
            sinks: part.sinks.iter().map(|one| sink(&one.name)).collect(),
        });
        Topology { sub_topologies: parts.collect(), ..Topology::default() }
    }
}

/// In memory, whatever it was.
fn store(declared: &StoreDeclaration) -> StoreSpec {
    StoreSpec {
        name: declared.name.as_str().into(),
        backend: StoreBackend::InMemory,
        changelog: StoreChangelog::Off,
        version: declared.version,
        key_format: declared.key_format.as_str().into(),
        value_format: declared.value_format.as_str().into(),
        older_generation_of: None,
    }
}

/// `<name>.<key>`, where both may have dots: the keys are known.
fn sink_key(rest: &str) -> Option<(&str, &str)> {
    const KEYS: [&str; 6] = [
        "topic",
        "partitions",
        "max.message.bytes",
        "cleanup.policy",
        "message.timestamp.before.max.ms",
        "message.timestamp.after.max.ms",
    ];
    KEYS.iter().find_map(|key| Some((rest.strip_suffix(key)?.strip_suffix('.')?, *key)))
}

fn partitions_of(text: &str) -> Result<i32> {
    let count = text.parse::<i32>().ok().filter(|count| *count >= 0);
    count.with_context(|| format!("partitions: expected how many there are, found {text:?}"))
}

fn task_of(letter: &DeadLetter) -> Result<TaskId> {
    let Some(text) = &letter.task else { bail!("{}: it does not say of which task it is", letter.position) };
    let task = text.split_once('_').and_then(|(sub_topology, partition)| {
        Some(TaskId { sub_topology: sub_topology.parse().ok()?, partition: partition.parse().ok()? })
    });
    task.with_context(|| format!("{}: expected a task such as 0_3, found {text:?}", letter.position))
}
