//! Topics made, deleted, widened and set up. Each change is kept before it is visible; a failed one changes nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::metadata::{MetadataRecord, TopicId, TopicImage};
use super::refusal::{ErrorCode, Refusal};
use super::topic_config;
use super::topics::{Topic, open_partitions, open_topic};
use super::{Core, locked, read_locked, write_locked};

/// A topic to make.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NewTopic {
    pub name: String,
    /// -1 = the broker's default.
    pub partitions: i32,
    pub configs: BTreeMap<String, String>,
}

/// How one setting changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConfigChange {
    Set(String),
    /// Back to the default.
    Delete,
    /// Adds to a list.
    Append(String),
    /// Takes from a list.
    Subtract(String),
}

/// One setting in force.
#[derive(Debug, Clone, PartialEq)]
pub struct ConfigEntry {
    pub name: &'static str,
    pub value: String,
    pub is_default: bool,
    pub kind: topic_config::ConfigKind,
    pub default: &'static str,
}

impl Core {
    /// Makes a topic, or only checks that it could be made.
    ///
    /// # Errors
    /// An invalid or taken name, a bad partition count, an invalid setting, a failed write.
    pub fn create_topic(&self, new: &NewTopic, validate_only: bool) -> Result<Topic, Refusal> {
        let mut topics = write_locked(&self.topics);
        topics.check_new_name(&new.name)?;
        let partitions = if new.partitions == -1 { self.options.default_partitions } else { new.partitions };
        self.check_partition_count(&new.name, partitions)?;
        topic_config::check_all(&new.configs)?;
        let mut number = locked(&self.next_topic);
        let id = TopicId((u128::from(self.options.topic_id_seed) << 64) | u128::from(*number + 1));
        let image = TopicImage { id, partitions, configs: new.configs.clone(), log_starts: BTreeMap::new() };
        if validate_only {
            let mut topic = Topic {
                id,
                name: Arc::from(new.name.as_str()),
                partitions: Vec::new(),
                configs: BTreeMap::new(),
                limits: Arc::default(),
            };
            topic.set_configs(image.configs);
            return Ok(topic);
        }
        let records = [
            MetadataRecord::NextTopic { number: *number + 1 },
            MetadataRecord::TopicCreated { id, name: new.name.clone(), partitions, configs: new.configs.clone() },
        ];
        let made = open_topic(self.storage.as_ref(), &new.name, &image)
            .and_then(|(topic, _)| self.storage.append_metadata(&records).map(|()| topic));
        let topic = made.inspect_err(|_| {
            // On a full disk each of its files counts. What cannot be removed now is removed at the next start.
            drop(self.storage.remove_topic(id, &new.name));
        })?;
        *number += 1;
        topics.insert(topic.clone());
        Ok(topic)
    }

    fn check_partition_count(&self, name: &str, partitions: i32) -> Result<(), Refusal> {
        let most = self.options.max_partitions;
        if partitions < 1 || partitions > most {
            let detail = format!("topic {name}: 1 to {most} partitions, found {partitions}");
            return Err(Refusal::new(ErrorCode::InvalidPartitions, detail));
        }
        Ok(())
    }

    /// Deletes a topic, its records and every committed offset on it.
    pub fn delete_topic(&self, name: &str) -> Result<TopicId, Refusal> {
        let mut topics = write_locked(&self.topics);
        let topic = topics.get(name).ok_or_else(|| unknown_topic(name))?;
        let id = topic.id;
        let record = MetadataRecord::TopicDeleted { id, name: name.to_owned() };
        // Groups are locked while the deletion is kept, so that no commit comes between the two.
        let mut groups = locked(&self.groups);
        self.storage.append_metadata(std::slice::from_ref(&record))?;
        groups.apply(&record);
        drop(groups);
        topics.remove(name);
        drop(topics);
        // The topic is gone by now; files that could not be removed are removed at the next start.
        if let Err(error) = self.storage.remove_topic(id, name) {
            tracing::warn!(%error, topic = name, "a deleted topic's files are left until the next start");
        }
        Ok(id)
    }

    /// Widens a topic to `count` partitions, or only checks that it could be.
    pub fn create_partitions(&self, name: &str, count: i32, validate_only: bool) -> Result<(), Refusal> {
        let mut topics = write_locked(&self.topics);
        let topic = topics.get_mut(name).ok_or_else(|| unknown_topic(name))?;
        let present = topic.partitions.len() as i32;
        if count <= present {
            let detail = format!("topic {name} has {present} partitions: more than that, found {count}");
            return Err(Refusal::new(ErrorCode::InvalidPartitions, detail));
        }
        self.check_partition_count(name, count)?;
        if validate_only {
            return Ok(());
        }
        let mut widened = topic.clone();
        open_partitions(self.storage.as_ref(), &mut widened, count, &BTreeMap::new())?;
        let record = MetadataRecord::PartitionsAdded { name: name.to_owned(), partitions: count };
        self.storage.append_metadata(&[record])?;
        *topic = widened;
        Ok(())
    }

    /// Every setting of a topic.
    pub fn describe_configs(&self, name: &str) -> Result<Vec<ConfigEntry>, Refusal> {
        let topics = read_locked(&self.topics);
        let topic = topics.get(name).ok_or_else(|| unknown_topic(name))?;
        let entry = |definition: &topic_config::ConfigDefinition| ConfigEntry {
            name: definition.name,
            value: topic_config::value(&topic.configs, definition.name).to_owned(),
            is_default: !topic.configs.contains_key(definition.name),
            kind: definition.kind,
            default: definition.default,
        };
        Ok(topic_config::DEFINITIONS.iter().map(entry).collect())
    }

    /// Replaces all settings of a topic: what is not named goes back to its default (the legacy call).
    pub fn alter_configs(
        &self,
        name: &str,
        configs: BTreeMap<String, String>,
        validate_only: bool,
    ) -> Result<(), Refusal> {
        let mut topics = write_locked(&self.topics);
        let topic = topics.get_mut(name).ok_or_else(|| unknown_topic(name))?;
        self.set_configs(topic, configs, validate_only)
    }

    /// Changes the named settings of a topic and leaves the others (KIP-339).
    pub fn incremental_alter_configs(
        &self,
        name: &str,
        changes: &[(String, ConfigChange)],
        validate_only: bool,
    ) -> Result<(), Refusal> {
        let mut topics = write_locked(&self.topics);
        let topic = topics.get_mut(name).ok_or_else(|| unknown_topic(name))?;
        let mut configs = topic.configs.clone();
        for (key, change) in changes {
            apply_change(&mut configs, key, change)?;
        }
        self.set_configs(topic, configs, validate_only)
    }

    fn set_configs(
        &self,
        topic: &mut Topic,
        configs: BTreeMap<String, String>,
        validate_only: bool,
    ) -> Result<(), Refusal> {
        topic_config::check_all(&configs)?;
        if validate_only {
            return Ok(());
        }
        let record = MetadataRecord::ConfigsSet { name: topic.name.to_string(), configs: configs.clone() };
        self.storage.append_metadata(&[record])?;
        topic.set_configs(configs);
        Ok(())
    }

    /// Deletes the records below `offset` (-1 = all) and answers the new log start. Those of a topic that is only
    /// compacted are not for deletion (Kafka's `ReplicaManager.deleteRecordsOnLocalLog`).
    pub fn delete_records(&self, name: &str, partition: i32, offset: i64) -> Result<i64, Refusal> {
        // The lock keeps a deletion of the topic away until the new start is kept. Others may read meanwhile: this
        // waits for the partition.
        let topics = read_locked(&self.topics);
        let found = topics.get(name).and_then(|topic| topic.partition(partition));
        let found = found.ok_or_else(|| unknown_partition(name, partition))?;
        if topics.get(name).is_some_and(|topic| !topic.limits.cleanup.delete) {
            let detail = format!("delete records of {name}-{partition}: its cleanup.policy has no delete");
            return Err(Refusal::new(ErrorCode::PolicyViolation, detail));
        }
        let mut log = found.log();
        let bounds = log.bounds();
        let offset = if offset == -1 { bounds.high_watermark } else { offset };
        if offset < 0 || offset > bounds.high_watermark {
            let detail = format!(
                "delete records of {name}-{partition} below {offset}: the log ends at {}",
                bounds.high_watermark
            );
            return Err(Refusal::new(ErrorCode::OffsetOutOfRange, detail));
        }
        if offset > bounds.log_start_offset {
            let record = MetadataRecord::LogStart { name: name.to_owned(), partition, offset };
            self.storage.append_metadata(&[record])?;
            log.advance_log_start(offset)?;
        }
        Ok(log.bounds().log_start_offset)
    }
}

fn apply_change(configs: &mut BTreeMap<String, String>, key: &str, change: &ConfigChange) -> Result<(), Refusal> {
    let definition = topic_config::definition(key)?;
    let current = topic_config::value(configs, key).to_owned();
    let list = |words: &str| -> Result<Vec<String>, Refusal> {
        match definition.kind {
            topic_config::ConfigKind::List(_) => {
                Ok(topic_config::list_values(words).into_iter().map(str::to_owned).collect())
            }
            _ => Err(Refusal::new(ErrorCode::InvalidConfig, format!("{key} is no list: set it instead"))),
        }
    };
    match change {
        ConfigChange::Set(value) => {
            configs.insert(key.to_owned(), value.clone());
        }
        ConfigChange::Delete => {
            configs.remove(key);
        }
        ConfigChange::Append(words) => {
            let mut all = list(&current)?;
            all.extend(
                list(words)?.into_iter().filter(|word| !topic_config::list_values(&current).contains(&word.as_str())),
            );
            configs.insert(key.to_owned(), all.join(","));
        }
        ConfigChange::Subtract(words) => {
            let gone = list(words)?;
            let mut all = list(&current)?;
            all.retain(|word| !gone.contains(word));
            configs.insert(key.to_owned(), all.join(","));
        }
    }
    Ok(())
}

pub(super) fn unknown_topic(name: &str) -> Refusal {
    Refusal::new(ErrorCode::UnknownTopicOrPartition, format!("there is no topic {name}"))
}

pub(super) fn unknown_partition(name: &str, partition: i32) -> Refusal {
    Refusal::new(ErrorCode::UnknownTopicOrPartition, format!("there is no partition {name}-{partition}"))
}
