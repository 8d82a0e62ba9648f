//! What the broker must remember besides records: topics, settings, committed offsets, ids. One `MetadataRecord` is one
//! change; `MetadataImage` is the sum of all changes and can say itself in records again (a snapshot). Every change of
//! these things goes through `MetadataImage::apply`, at run time and at start alike. A transactional id's part is
//! `core::transaction`'s.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::transaction::{TransactionChange, TransactionImage};

/// A topic's identity; a topic that is deleted and made again has another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TopicId(#[serde(with = "hexadecimal")] pub u128);

mod hexadecimal {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub fn serialize<S: Serializer>(value: &u128, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&format!("{value:032x}"))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u128, D::Error> {
        let text = String::deserialize(deserializer)?;
        u128::from_str_radix(&text, 16).map_err(D::Error::custom)
    }
}

/// A committed offset as the group's member gave it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommittedOffset {
    pub offset: i64,
    /// -1 = not given.
    pub leader_epoch: i32,
    pub metadata: String,
    /// When it was committed, in milliseconds since the epoch.
    pub commit_timestamp: i64,
}

/// One committed offset with its place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OffsetRecord {
    pub topic: String,
    pub partition: i32,
    #[serde(flatten)]
    pub committed: CommittedOffset,
}

/// One change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum MetadataRecord {
    /// Topic ids below this number are taken.
    NextTopic {
        number: u64,
    },
    TopicCreated {
        id: TopicId,
        name: String,
        partitions: i32,
        configs: BTreeMap<String, String>,
    },
    /// The topic's records and every committed offset on it are gone.
    TopicDeleted {
        id: TopicId,
        name: String,
    },
    PartitionsAdded {
        name: String,
        partitions: i32,
    },
    /// All settings of the topic that are not defaults.
    ConfigsSet {
        name: String,
        configs: BTreeMap<String, String>,
    },
    /// Records below this offset were deleted.
    LogStart {
        name: String,
        partition: i32,
        offset: i64,
    },
    /// Producer ids below this number may have been given out.
    NextProducerId {
        number: i64,
    },
    /// How often the broker was started; member ids hold it, so that they never repeat.
    Started {
        incarnation: u64,
    },
    GroupGeneration {
        group: String,
        generation: i32,
        protocol_type: String,
    },
    OffsetsCommitted {
        group: String,
        offsets: Vec<OffsetRecord>,
    },
    OffsetsDeleted {
        group: String,
        partitions: Vec<(String, i32)>,
    },
    GroupDeleted {
        group: String,
    },
    Transaction {
        transactional_id: String,
        #[serde(flatten)]
        change: TransactionChange,
    },
}

/// A topic as it is remembered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicImage {
    pub id: TopicId,
    pub partitions: i32,
    pub configs: BTreeMap<String, String>,
    /// Log start offsets that are not 0.
    pub log_starts: BTreeMap<i32, i64>,
}

/// Offsets by topic and partition.
pub type OffsetImage = BTreeMap<String, BTreeMap<i32, CommittedOffset>>;

/// A group as it is remembered. Members are not: after a restart they join anew.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GroupImage {
    pub generation: i32,
    pub protocol_type: String,
    pub offsets: OffsetImage,
}

/// Everything remembered.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MetadataImage {
    pub next_topic: u64,
    pub next_producer_id: i64,
    pub incarnation: u64,
    pub topics: BTreeMap<String, TopicImage>,
    pub groups: BTreeMap<String, GroupImage>,
    pub transactions: BTreeMap<String, TransactionImage>,
}

impl MetadataImage {
    /// Applies one change. A change of a topic that does not exist changes nothing: its deletion came first.
    pub fn apply(&mut self, record: &MetadataRecord) {
        match record {
            MetadataRecord::NextTopic { number } => self.next_topic = self.next_topic.max(*number),
            MetadataRecord::TopicCreated { id, name, partitions, configs } => {
                let topic = TopicImage {
                    id: *id,
                    partitions: *partitions,
                    configs: configs.clone(),
                    log_starts: BTreeMap::new(),
                };
                self.topics.insert(name.clone(), topic);
            }
            MetadataRecord::TopicDeleted { id, name } => {
                if self.topics.get(name).is_some_and(|topic| topic.id == *id) {
                    self.topics.remove(name);
                }
                for group in self.groups.values_mut() {
                    group.offsets.remove(name);
                }
            }
            MetadataRecord::PartitionsAdded { name, partitions } => {
                self.with_topic(name, |topic| topic.partitions = *partitions);
            }
            MetadataRecord::ConfigsSet { name, configs } => {
                self.with_topic(name, |topic| topic.configs.clone_from(configs));
            }
            MetadataRecord::LogStart { name, partition, offset } => {
                self.with_topic(name, |topic| {
                    topic.log_starts.insert(*partition, *offset);
                });
            }
            MetadataRecord::NextProducerId { number } => self.next_producer_id = self.next_producer_id.max(*number),
            MetadataRecord::Started { incarnation } => self.incarnation = self.incarnation.max(*incarnation),
            MetadataRecord::GroupGeneration { group, generation, protocol_type } => {
                let group = self.groups.entry(group.clone()).or_default();
                group.generation = *generation;
                group.protocol_type.clone_from(protocol_type);
            }
            MetadataRecord::OffsetsCommitted { group, offsets } => {
                let group = self.groups.entry(group.clone()).or_default();
                for offset in offsets {
                    let topic = group.offsets.entry(offset.topic.clone()).or_default();
                    topic.insert(offset.partition, offset.committed.clone());
                }
            }
            MetadataRecord::OffsetsDeleted { group, partitions } => {
                if let Some(group) = self.groups.get_mut(group) {
                    group.remove_offsets(partitions);
                }
            }
            MetadataRecord::GroupDeleted { group } => {
                self.groups.remove(group);
            }
            MetadataRecord::Transaction { transactional_id, change } => {
                let mut image = self.transactions.remove(transactional_id);
                TransactionImage::apply(&mut image, change);
                self.transactions.extend(image.map(|image| (transactional_id.clone(), image)));
            }
        }
    }

    fn with_topic(&mut self, name: &str, change: impl FnOnce(&mut TopicImage)) {
        if let Some(topic) = self.topics.get_mut(name) {
            change(topic);
        }
    }

    /// The records that make this image from an empty one.
    pub fn to_records(&self) -> Vec<MetadataRecord> {
        let mut records = vec![
            MetadataRecord::Started { incarnation: self.incarnation },
            MetadataRecord::NextTopic { number: self.next_topic },
            MetadataRecord::NextProducerId { number: self.next_producer_id },
        ];
        for (name, topic) in &self.topics {
            records.push(MetadataRecord::TopicCreated {
                id: topic.id,
                name: name.clone(),
                partitions: topic.partitions,
                configs: topic.configs.clone(),
            });
            records.extend(topic.log_starts.iter().map(|(&partition, &offset)| MetadataRecord::LogStart {
                name: name.clone(),
                partition,
                offset,
            }));
        }
        for (name, group) in &self.groups {
            records.push(MetadataRecord::GroupGeneration {
                group: name.clone(),
                generation: group.generation,
                protocol_type: group.protocol_type.clone(),
            });
            let mut offsets = Vec::new();
            for (topic, partitions) in &group.offsets {
                offsets.extend(partitions.iter().map(|(&partition, committed)| OffsetRecord {
                    topic: topic.clone(),
                    partition,
                    committed: committed.clone(),
                }));
            }
            if !offsets.is_empty() {
                records.push(MetadataRecord::OffsetsCommitted { group: name.clone(), offsets });
            }
        }
        records.extend(self.transactions.iter().flat_map(|(id, transaction)| transaction.to_records(id)));
        records
    }
}

impl GroupImage {
    fn remove_offsets(&mut self, partitions: &[(String, i32)]) {
        for (topic, partition) in partitions {
            if let Some(offsets) = self.offsets.get_mut(topic) {
                offsets.remove(partition);
                if offsets.is_empty() {
                    self.offsets.remove(topic);
                }
            }
        }
    }
}
