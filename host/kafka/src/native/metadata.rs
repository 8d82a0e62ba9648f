//! What a broker says of the cluster and its topics, copied out of librdkafka's structures.

use std::ffi::{CString, c_int};
use std::ptr;
use std::time::{Duration, Instant};

use rdkafka::bindings as sys;
use rdkafka::error::RDKafkaErrorCode;

use super::{Client, ErrorText, Failure, TopicHandle, c_name, owned_text, timeout_ms};

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

impl Client {
    /// The ids of topics, in the order asked: `None` where a topic does not exist or the broker is too old to tell.
    /// Never creates a topic. The answer of the only request that has them.
    pub fn topic_ids(&self, names: &[&str], timeout: Duration) -> Result<Vec<Option<String>>, Failure> {
        let names: Vec<CString> = names.iter().map(|name| c_name(name)).collect::<Result<_, _>>()?;
        let mut pointers: Vec<_> = names.iter().map(|name| name.as_ptr()).collect();
        let mut text = ErrorText::new();
        // SAFETY: live client; the strings outlive the call that copies them. Queue, options and collection are made
        // here, non-null (librdkafka aborts the process when it has no memory), used while live, and destroyed once;
        // the event is ours, read while live and destroyed once.
        unsafe {
            let options =
                sys::rd_kafka_AdminOptions_new(self.raw(), sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS);
            let (buffer, size) = text.parts();
            let set = sys::rd_kafka_AdminOptions_set_request_timeout(options, timeout_ms(timeout), buffer, size);
            let queue = sys::rd_kafka_queue_new(self.raw());
            let topics = sys::rd_kafka_TopicCollection_of_topic_names(pointers.as_mut_ptr(), pointers.len());
            sys::rd_kafka_DescribeTopics(self.raw(), topics, options, queue);
            sys::rd_kafka_TopicCollection_destroy(topics);
            sys::rd_kafka_AdminOptions_destroy(options);
            let event = Self::await_event(queue, timeout);
            let ids = Failure::check_code(set).and_then(|()| read_topic_ids(event, names.len()));
            if !event.is_null() {
                sys::rd_kafka_event_destroy(event);
            }
            sys::rd_kafka_queue_destroy(queue);
            ids
        }
    }

    /// The first event of a queue; null when none came. librdkafka answers a request within its own timeout; the grace
    /// is for a client that cannot.
    ///
    /// # Safety
    /// The queue is live.
    unsafe fn await_event(queue: *mut sys::rd_kafka_queue_t, timeout: Duration) -> *mut sys::rd_kafka_event_t {
        const GRACE: Duration = Duration::from_secs(5);
        let deadline = Instant::now() + timeout + GRACE;
        loop {
            let rest = deadline.saturating_duration_since(Instant::now());
            // SAFETY: by the caller's promise.
            let event = unsafe { sys::rd_kafka_queue_poll(queue, timeout_ms(rest)) };
            if !event.is_null() || rest.is_zero() {
                return event;
            }
        }
    }
}

/// # Safety
/// `event` is null or a live answer to a request that describes `count` topics.
unsafe fn read_topic_ids(event: *mut sys::rd_kafka_event_t, count: usize) -> Result<Vec<Option<String>>, Failure> {
    if event.is_null() {
        return Err(Failure::of_code(RDKafkaErrorCode::RequestTimedOut));
    }
    // SAFETY: the event is live, and so is everything that it owns: the descriptions, in the order asked and with
    // their count, with names, errors and ids. The id's text is static or belongs to the id, and is copied.
    unsafe {
        match RDKafkaErrorCode::from(sys::rd_kafka_event_error(event)) {
            RDKafkaErrorCode::NoError => {}
            code => return Err(Failure::with_detail(code, owned_text(sys::rd_kafka_event_error_string(event)))),
        }
        let result = sys::rd_kafka_event_DescribeTopics_result(event);
        let mut described = 0;
        let topics = match result.is_null() {
            true => ptr::null_mut(),
            false => sys::rd_kafka_DescribeTopics_result_topics(result, &mut described),
        };
        if topics.is_null() || described != count {
            let detail = format!("{described} topics described where {count} were asked for");
            return Err(Failure::with_detail(RDKafkaErrorCode::BadMessage, detail));
        }
        let topics = std::slice::from_raw_parts(topics, described);
        topics.iter().map(|&topic| read_topic_id(topic)).collect()
    }
}

/// # Safety
/// `topic` is a live description.
unsafe fn read_topic_id(topic: *const sys::rd_kafka_TopicDescription_t) -> Result<Option<String>, Failure> {
    // SAFETY: by the caller's promise; what is returned lives as long as the description.
    unsafe {
        match RDKafkaErrorCode::from(sys::rd_kafka_error_code(sys::rd_kafka_TopicDescription_error(topic))) {
            RDKafkaErrorCode::NoError => {}
            RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic => return Ok(None),
            code => return Err(Failure::of_code(code)),
        }
        let id = sys::rd_kafka_TopicDescription_topic_id(topic);
        // Brokers before 2.8 have no ids; librdkafka then says zero.
        let known = !id.is_null()
            && (sys::rd_kafka_Uuid_most_significant_bits(id) != 0
                || sys::rd_kafka_Uuid_least_significant_bits(id) != 0);
        Ok(known.then(|| owned_text(sys::rd_kafka_Uuid_base64str(id))))
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
