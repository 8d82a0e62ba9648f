//! The producer's calls: records with every field explicit, flush, purge and transactions. Delivery reports come by
//! callback, so that librdkafka's own flush, commit and abort serve them and return as soon as the last one is in (with
//! report events they would wait for somebody else to serve them).

use std::ffi::c_void;
use std::ptr::{self, NonNull};
use std::time::Duration;

use rdkafka::bindings as sys;
use rdkafka::bindings::rd_kafka_vtype_t as vtype;
use rdkafka::error::RDKafkaErrorCode;

use super::consumer::GroupMetadataObject;
use super::{Client, Failure, GroupMember, PartitionList, c_name, timeout_ms};

/// A topic known to a producer. Must be dropped before its client.
pub(crate) struct TopicHandle(NonNull<sys::rd_kafka_topic_t>);

// SAFETY: librdkafka's topic handles may be used from any thread.
unsafe impl Send for TopicHandle {}

impl TopicHandle {
    /// As delivery reports name it.
    pub fn id(&self) -> usize {
        self.0.as_ptr() as usize
    }
}

impl Drop for TopicHandle {
    fn drop(&mut self) {
        // SAFETY: the reference is owned and given back once.
        unsafe { sys::rd_kafka_topic_destroy(self.0.as_ptr()) }
    }
}

/// A record to send; everything is copied.
#[derive(Clone, Copy)]
pub(crate) struct NativeRecord<'a> {
    /// -1 = the default partitioner.
    pub partition: i32,
    /// 0 means "now" to librdkafka (T6), so it must not be 0.
    pub timestamp: i64,
    pub key: Option<&'a [u8]>,
    pub value: Option<&'a [u8]>,
}

fn pointer_and_length(bytes: Option<&[u8]>) -> (*mut c_void, usize) {
    match bytes {
        // An empty slice has a dangling but non-null pointer, which is how librdkafka tells empty from null.
        Some(bytes) => (bytes.as_ptr().cast_mut().cast(), bytes.len()),
        None => (ptr::null_mut(), 0),
    }
}

/// Headers until librdkafka takes them.
struct HeaderList(NonNull<sys::rd_kafka_headers_t>);

impl HeaderList {
    fn new<'a>(headers: impl ExactSizeIterator<Item = (&'a [u8], Option<&'a [u8]>)>) -> Result<Self, Failure> {
        // SAFETY: no preconditions; librdkafka aborts the process when it has no memory.
        let list = unsafe { sys::rd_kafka_headers_new(headers.len()) };
        let list = NonNull::new(list)
            .map(HeaderList)
            .ok_or_else(|| Failure::with_detail(RDKafkaErrorCode::CriticalSystemResource, "no memory for headers"))?;
        for (name, value) in headers {
            let (value, size) = pointer_and_length(value);
            let length = |length: usize| isize::try_from(length).unwrap_or(isize::MAX);
            // SAFETY: the list is live; name and value have the lengths given and are copied.
            Failure::check_code(unsafe {
                sys::rd_kafka_header_add(list.0.as_ptr(), name.as_ptr().cast(), length(name.len()), value, length(size))
            })?;
        }
        Ok(list)
    }
}

impl Drop for HeaderList {
    fn drop(&mut self) {
        // SAFETY: still ours: `send` forgets a list that librdkafka took.
        unsafe { sys::rd_kafka_headers_destroy(self.0.as_ptr()) }
    }
}

impl Client {
    pub fn topic(&self, name: &str) -> Result<TopicHandle, Failure> {
        let c_topic = c_name(name)?;
        // SAFETY: live client, NUL-terminated name; null = the default topic configuration.
        let handle = unsafe { sys::rd_kafka_topic_new(self.raw(), c_topic.as_ptr(), ptr::null_mut()) };
        // SAFETY: reads this thread's last error.
        NonNull::new(handle)
            .map(TopicHandle)
            .ok_or_else(|| Failure::of_code(RDKafkaErrorCode::from(unsafe { sys::rd_kafka_last_error() })))
    }

    /// Queues a record. `QueueFull` is the one failure after which the same record may be sent again.
    pub fn send<'a>(
        &self,
        topic: &TopicHandle,
        record: NativeRecord<'_>,
        headers: impl ExactSizeIterator<Item = (&'a [u8], Option<&'a [u8]>)>,
    ) -> Result<(), Failure> {
        let list = if headers.len() == 0 { None } else { Some(HeaderList::new(headers)?) };
        let (key, key_length) = pointer_and_length(record.key);
        let (value, value_length) = pointer_and_length(record.value);
        // SAFETY: client and topic are live; each tag is followed by arguments of the types that rdkafka.h names for
        // it, the list ends with END, and the COPY flag makes librdkafka copy key and value before it returns.
        let code = unsafe {
            sys::rd_kafka_producev(
                self.raw(),
                vtype::RD_KAFKA_VTYPE_RKT,
                topic.0.as_ptr(),
                vtype::RD_KAFKA_VTYPE_PARTITION,
                record.partition,
                vtype::RD_KAFKA_VTYPE_MSGFLAGS,
                sys::RD_KAFKA_MSG_F_COPY,
                vtype::RD_KAFKA_VTYPE_VALUE,
                value,
                value_length,
                vtype::RD_KAFKA_VTYPE_KEY,
                key,
                key_length,
                vtype::RD_KAFKA_VTYPE_TIMESTAMP,
                record.timestamp,
                vtype::RD_KAFKA_VTYPE_HEADERS,
                list.as_ref().map_or(ptr::null_mut(), |list| list.0.as_ptr()),
                vtype::RD_KAFKA_VTYPE_END,
            )
        };
        Failure::check_code(code)?;
        // librdkafka owns the headers of a record that it took.
        std::mem::forget(list);
        Ok(())
    }

    /// Sends at once what lingers and serves reports until nothing is outstanding or the time is over.
    pub fn flush(&self, timeout: Duration) -> Result<(), Failure> {
        // SAFETY: live producer.
        Failure::check_code(unsafe { sys::rd_kafka_flush(self.raw(), timeout_ms(timeout)) })
    }

    /// Fails every record that is queued or in flight, so that a producer can be dropped without waiting.
    pub fn purge(&self) -> Result<(), Failure> {
        // SAFETY: live producer.
        Failure::check_code(unsafe {
            sys::rd_kafka_purge(self.raw(), sys::RD_KAFKA_PURGE_F_QUEUE | sys::RD_KAFKA_PURGE_F_INFLIGHT)
        })
    }

    pub fn init_transactions(&self, timeout: Duration) -> Result<(), Failure> {
        // SAFETY: live producer; the error object is ours.
        unsafe { Failure::check_object(sys::rd_kafka_init_transactions(self.raw(), timeout_ms(timeout))) }
    }

    pub fn begin_transaction(&self) -> Result<(), Failure> {
        // SAFETY: as above.
        unsafe { Failure::check_object(sys::rd_kafka_begin_transaction(self.raw())) }
    }

    pub fn send_offsets(
        &self,
        offsets: &PartitionList,
        member: &GroupMember,
        group_instance_id: Option<&str>,
        timeout: Duration,
    ) -> Result<(), Failure> {
        let metadata = GroupMetadataObject::new(member, group_instance_id)?;
        // SAFETY: live producer, list and metadata object; all are copied, the error object is ours.
        unsafe {
            Failure::check_object(sys::rd_kafka_send_offsets_to_transaction(
                self.raw(),
                offsets.raw(),
                metadata.raw(),
                timeout_ms(timeout),
            ))
        }
    }

    pub fn commit_transaction(&self, timeout: Duration) -> Result<(), Failure> {
        // SAFETY: live producer; the error object is ours.
        unsafe { Failure::check_object(sys::rd_kafka_commit_transaction(self.raw(), timeout_ms(timeout))) }
    }

    pub fn abort_transaction(&self, timeout: Duration) -> Result<(), Failure> {
        // SAFETY: as above.
        unsafe { Failure::check_object(sys::rd_kafka_abort_transaction(self.raw(), timeout_ms(timeout))) }
    }
}
