//! What a broker says of the cluster and its topics, copied out of librdkafka's structures.

use std::ffi::c_int;
use std::ptr;
use std::time::Duration;

use rdkafka::bindings as sys;
use rdkafka::error::RDKafkaErrorCode;

use super::{Client, Failure, TopicHandle, owned_text, timeout_ms};

/// A topic's partitions; an error where the broker cannot describe it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TopicMetadata {
    pub name: String,
    pub partitions: i32,
    /// Whether every partition has a leader.
    pub available: bool,
    pub error: Option<RDKafkaErrorCode>,
}

/// The answer of one broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ClusterMetadata {
    /// `host:port` of each broker.
    pub brokers: Vec<String>,
    pub topics: Vec<TopicMetadata>,
}

impl Client {
    /// Metadata of one topic, or of all. Never creates a topic when asked by a consumer's client.
    pub fn metadata(&self, topic: Option<&TopicHandle>, timeout: Duration) -> Result<ClusterMetadata, Failure> {
        let mut metadata = ptr::null();
        let all = c_int::from(topic.is_none());
        let handle = topic.map_or(ptr::null_mut(), |topic| topic.id() as *mut sys::rd_kafka_topic_t);
        // SAFETY: live client; the handle is live or null; on success the structure is ours, copied and destroyed once.
        unsafe {
            Failure::check_code(sys::rd_kafka_metadata(self.raw(), all, handle, &mut metadata, timeout_ms(timeout)))?;
            let copy = read(metadata);
            if !metadata.is_null() {
                sys::rd_kafka_metadata_destroy(metadata);
            }
            Ok(copy)
        }
    }
}

/// # Safety
/// `metadata` is null or live.
unsafe fn read(metadata: *const sys::rd_kafka_metadata) -> ClusterMetadata {
    // SAFETY: each pointer comes with its count (rdkafka.h) and names are NUL-terminated.
    unsafe {
        let Some(metadata) = metadata.as_ref() else {
            return ClusterMetadata { brokers: Vec::new(), topics: Vec::new() };
        };
        let brokers = items(metadata.brokers, metadata.broker_cnt)
            .iter()
            .map(|broker| format!("{}:{}", owned_text(broker.host), broker.port))
            .collect();
        let topics = items(metadata.topics, metadata.topic_cnt)
            .iter()
            .map(|topic| TopicMetadata {
                name: owned_text(topic.topic),
                partitions: topic.partition_cnt,
                available: topic.partition_cnt > 0
                    && items(topic.partitions, topic.partition_cnt).iter().all(|partition| partition.leader >= 0),
                error: match RDKafkaErrorCode::from(topic.err) {
                    RDKafkaErrorCode::NoError => None,
                    code => Some(code),
                },
            })
            .collect();
        ClusterMetadata { brokers, topics }
    }
}

/// # Safety
/// `start` is null or points to `count` live items.
unsafe fn items<'a, T>(start: *mut T, count: c_int) -> &'a [T] {
    match usize::try_from(count) {
        // SAFETY: by the caller's promise.
        Ok(count) if !start.is_null() && count > 0 => unsafe { std::slice::from_raw_parts(start, count) },
        _ => &[],
    }
}
