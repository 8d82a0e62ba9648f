//! The topics of the broker and their partitions. A partition is shared (`Arc`) and has a lock of its own, so that
//! produce and fetch of different partitions do not wait for each other. Topic names follow Kafka's rules; a topic
//! made again under an old name has a new id and an empty log.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::log::{LogLimits, PartitionLog, Recovery};
use super::metadata::{MetadataImage, TopicId, TopicImage};
use super::refusal::{ErrorCode, Refusal};
use super::storage::{Storage, StorageError};
use super::topic_config;

/// The longest name (Kafka's `Topic.MAX_NAME_LENGTH`).
const NAME_BYTES_MAX: usize = 249;

/// One partition.
#[derive(Debug)]
pub struct Partition {
    pub topic: Arc<str>,
    pub topic_id: TopicId,
    pub index: i32,
    log: Mutex<PartitionLog>,
}

impl Partition {
    /// The log, for as long as the guard lives. A poisoned lock is taken: the log changes only after a write was
    /// done, so that a panic leaves it as it was.
    pub fn log(&self) -> MutexGuard<'_, PartitionLog> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One topic.
#[derive(Debug, Clone)]
pub struct Topic {
    pub id: TopicId,
    pub name: Arc<str>,
    pub partitions: Vec<Arc<Partition>>,
    /// Settings that are not defaults.
    pub configs: BTreeMap<String, String>,
    pub limits: Arc<LogLimits>,
}

impl Topic {
    /// The partition of this number.
    pub fn partition(&self, index: i32) -> Option<&Arc<Partition>> {
        usize::try_from(index).ok().and_then(|index| self.partitions.get(index))
    }

    pub fn set_configs(&mut self, configs: BTreeMap<String, String>) {
        self.limits = Arc::new(topic_config::log_limits(&configs));
        self.configs = configs;
    }
}

/// Topics by name and by id.
#[derive(Debug, Default)]
pub struct Topics {
    by_name: BTreeMap<Arc<str>, Topic>,
    names: BTreeMap<TopicId, Arc<str>>,
}

impl Topics {
    /// Opens every topic that is remembered, and says what was cut from torn tails.
    pub fn open(storage: &dyn Storage, image: &MetadataImage) -> Result<(Self, Vec<Recovery>), StorageError> {
        let mut topics = Self::default();
        let mut recoveries = Vec::new();
        for (name, remembered) in &image.topics {
            let (topic, cut) = open_topic(storage, name, remembered)?;
            topics.insert(topic);
            recoveries.extend(cut);
        }
        Ok((topics, recoveries))
    }

    pub fn get(&self, name: &str) -> Option<&Topic> {
        self.by_name.get(name)
    }

    pub fn get_mut(&mut self, name: &str) -> Option<&mut Topic> {
        self.by_name.get_mut(name)
    }

    pub fn name_of(&self, id: TopicId) -> Option<&Arc<str>> {
        self.names.get(&id)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Topic> {
        self.by_name.values()
    }

    pub fn insert(&mut self, topic: Topic) {
        self.names.insert(topic.id, Arc::clone(&topic.name));
        self.by_name.insert(Arc::clone(&topic.name), topic);
    }

    pub fn remove(&mut self, name: &str) -> Option<Topic> {
        let topic = self.by_name.remove(name)?;
        self.names.remove(&topic.id);
        Some(topic)
    }

    /// Checks the name of a topic that is to be made.
    pub fn check_new_name(&self, name: &str) -> Result<(), Refusal> {
        let invalid = |detail: String| Err(Refusal::new(ErrorCode::InvalidTopicException, detail));
        if name.is_empty() || name == "." || name == ".." {
            return invalid(format!("a topic cannot be named {name:?}"));
        }
        if name.len() > NAME_BYTES_MAX {
            return invalid(format!("a topic name has at most {NAME_BYTES_MAX} characters, found {}", name.len()));
        }
        if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte)) {
            return invalid(format!("topic name {name:?}: only letters, digits, '.', '_' and '-' are allowed"));
        }
        if self.by_name.contains_key(name) {
            return Err(Refusal::new(ErrorCode::TopicAlreadyExists, format!("topic {name} exists already")));
        }
        let plain = |name: &str| name.replace('.', "_");
        match self.by_name.keys().find(|other| plain(other) == plain(name)) {
            Some(other) => invalid(format!("topic {name} collides with {other}: '.' and '_' count as the same")),
            None => Ok(()),
        }
    }
}

/// Opens a topic's partitions.
pub fn open_topic(
    storage: &dyn Storage,
    name: &str,
    image: &TopicImage,
) -> Result<(Topic, Vec<Recovery>), StorageError> {
    let mut topic = Topic {
        id: image.id,
        name: Arc::from(name),
        partitions: Vec::new(),
        configs: BTreeMap::new(),
        limits: Arc::new(LogLimits::default()),
    };
    topic.set_configs(image.configs.clone());
    let recoveries = open_partitions(storage, &mut topic, image.partitions, &image.log_starts)?;
    Ok((topic, recoveries))
}

/// Opens the partitions that the topic does not have yet, up to `count`. Nothing is added after an error.
pub fn open_partitions(
    storage: &dyn Storage,
    topic: &mut Topic,
    count: i32,
    log_starts: &BTreeMap<i32, i64>,
) -> Result<Vec<Recovery>, StorageError> {
    let mut recoveries = Vec::new();
    let mut added = Vec::new();
    for index in topic.partitions.len() as i32..count {
        let store = storage.open_log(topic.id, &topic.name, index)?;
        let name = Arc::from(format!("{}-{index}", topic.name));
        let log_start = log_starts.get(&index).copied().unwrap_or(0);
        let (log, recovery) = PartitionLog::open(name, store, log_start, &topic.limits)?;
        recoveries.extend(recovery);
        let topic_name = Arc::clone(&topic.name);
        added.push(Arc::new(Partition { topic: topic_name, topic_id: topic.id, index, log: Mutex::new(log) }));
    }
    topic.partitions.extend(added);
    Ok(recoveries)
}
