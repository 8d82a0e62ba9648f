//! The consumer's calls: assignment, batches of messages, positions, commits, the group's metadata.

use std::ffi::{CStr, CString};
use std::ptr::{self, NonNull};
use std::sync::atomic::Ordering;
use std::time::Duration;

use rdkafka::bindings as sys;
use rdkafka::error::RDKafkaErrorCode;

use super::{Client, Failure, Messages, PartitionList, owned_text, timeout_ms};

/// The identity of a group's member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct GroupMember {
    pub group_id: String,
    pub generation_id: i32,
    pub member_id: String,
}

/// The queue into which a consumer's partitions and events flow. Must be dropped before its client.
pub(crate) struct ConsumerQueue(NonNull<sys::rd_kafka_queue_t>);

// SAFETY: librdkafka's queues are locked and may be served from any thread.
unsafe impl Send for ConsumerQueue {}

impl Drop for ConsumerQueue {
    fn drop(&mut self) {
        // SAFETY: the reference is owned and given back once.
        unsafe { sys::rd_kafka_queue_destroy(self.0.as_ptr()) }
    }
}

/// Gives up the whole assignment, which librdkafka makes of every answer once it was told to close, under either
/// protocol (`rd_kafka_cgrp_handle_assign_op`).
///
/// # Safety
/// Called from the rebalance callback of this client.
pub(super) unsafe fn give_up_all(rk: *mut sys::rd_kafka_t) {
    // SAFETY: the client is live during its callback.
    unsafe { sys::rd_kafka_assign(rk, ptr::null()) };
}

/// # Safety
/// `rk` is a live consumer.
unsafe fn has_protocol(rk: *mut sys::rd_kafka_t, name: &CStr) -> bool {
    // SAFETY: live consumer; the result is null or a static string.
    unsafe {
        let protocol = sys::rd_kafka_rebalance_protocol(rk);
        !protocol.is_null() && CStr::from_ptr(protocol) == name
    }
}

impl Client {
    /// Directs all events of the client to the consumer's queue and returns it.
    pub fn consumer_queue(&self) -> Result<ConsumerQueue, Failure> {
        // SAFETY: live consumer with a group id, so the queue exists.
        let queue = unsafe {
            sys::rd_kafka_poll_set_consumer(self.raw());
            sys::rd_kafka_queue_get_consumer(self.raw())
        };
        let queue = NonNull::new(queue)
            .ok_or_else(|| Failure::with_detail(RDKafkaErrorCode::InvalidArgument, "the consumer has no group.id"))?;
        self.events().wake_queue.store(queue.as_ptr(), Ordering::Release);
        Ok(ConsumerQueue(queue))
    }

    /// Takes up to `limit` messages that are there; with a `timeout` waits until that many came, the time is over or
    /// a rebalance was recorded.
    pub fn consume(&self, queue: &ConsumerQueue, timeout: Duration, limit: usize, messages: &mut Messages) -> usize {
        // SAFETY: the queue belongs to this live client; librdkafka writes at most `room` owned messages and returns
        // their number, or -1.
        unsafe {
            messages.extend(limit, |slots, room| {
                let count = sys::rd_kafka_consume_batch_queue(queue.0.as_ptr(), timeout_ms(timeout), slots, room);
                usize::try_from(count).unwrap_or(0)
            })
        }
    }

    pub fn subscribe(&self, topics: &PartitionList) -> Result<(), Failure> {
        // SAFETY: live client and list; the list is copied.
        Failure::check_code(unsafe { sys::rd_kafka_subscribe(self.raw(), topics.raw()) })
    }

    pub fn unsubscribe(&self) -> Result<(), Failure> {
        // SAFETY: live client.
        Failure::check_code(unsafe { sys::rd_kafka_unsubscribe(self.raw()) })
    }

    /// Whether there is a subscription that nobody has ended.
    pub fn is_subscribed(&self) -> Result<bool, Failure> {
        let mut list = ptr::null_mut();
        // SAFETY: live client; on success the list is ours, read and destroyed once.
        unsafe {
            Failure::check_code(sys::rd_kafka_subscription(self.raw(), &mut list))?;
            let subscribed = list.as_ref().is_some_and(|list| list.cnt > 0);
            if !list.is_null() {
                sys::rd_kafka_topic_partition_list_destroy(list);
            }
            Ok(subscribed)
        }
    }

    pub fn is_cooperative(&self) -> bool {
        // SAFETY: live client.
        unsafe { has_protocol(self.raw(), c"COOPERATIVE") }
    }

    /// Replaces the whole assignment; `None` ends it.
    pub fn assign(&self, partitions: Option<&PartitionList>) -> Result<(), Failure> {
        let list = partitions.map_or(ptr::null(), |list| list.raw().cast_const());
        // SAFETY: live client; the list is live or null, and copied.
        Failure::check_code(unsafe { sys::rd_kafka_assign(self.raw(), list) })
    }

    pub fn incremental_assign(&self, partitions: &PartitionList) -> Result<(), Failure> {
        // SAFETY: live client and list; the list is copied, the error object is ours.
        unsafe { Failure::check_object(sys::rd_kafka_incremental_assign(self.raw(), partitions.raw())) }
    }

    pub fn incremental_unassign(&self, partitions: &PartitionList) -> Result<(), Failure> {
        // SAFETY: as above.
        unsafe { Failure::check_object(sys::rd_kafka_incremental_unassign(self.raw(), partitions.raw())) }
    }

    pub fn pause(&self, partitions: &PartitionList) -> Result<(), Failure> {
        // SAFETY: live client and list; errors of single partitions are written into it.
        Failure::check_code(unsafe { sys::rd_kafka_pause_partitions(self.raw(), partitions.raw()) })
    }

    pub fn resume(&self, partitions: &PartitionList) -> Result<(), Failure> {
        // SAFETY: as above.
        Failure::check_code(unsafe { sys::rd_kafka_resume_partitions(self.raw(), partitions.raw()) })
    }

    /// Seeks; errors of single partitions are written into the list.
    pub fn seek(&self, partitions: &PartitionList, timeout: Duration) -> Result<(), Failure> {
        // SAFETY: live client and list; the error object is ours.
        unsafe {
            Failure::check_object(sys::rd_kafka_seek_partitions(self.raw(), partitions.raw(), timeout_ms(timeout)))
        }
    }

    /// Writes each partition's position into the list; a negative one where nothing was consumed.
    pub fn position(&self, partitions: &PartitionList) -> Result<(), Failure> {
        // SAFETY: live client and list.
        Failure::check_code(unsafe { sys::rd_kafka_position(self.raw(), partitions.raw()) })
    }

    /// Writes the group's committed offsets and metadata into the list; a negative offset where there is none.
    pub fn committed(&self, partitions: &PartitionList, timeout: Duration) -> Result<(), Failure> {
        // SAFETY: live client and list.
        Failure::check_code(unsafe { sys::rd_kafka_committed(self.raw(), partitions.raw(), timeout_ms(timeout)) })
    }

    /// Commits and waits for the answer.
    pub fn commit(&self, offsets: &PartitionList) -> Result<(), Failure> {
        // SAFETY: live client and list; 0 = synchronous.
        Failure::check_code(unsafe { sys::rd_kafka_commit(self.raw(), offsets.raw(), 0) })
    }

    /// The membership at this moment.
    pub fn group_member(&self) -> Result<GroupMember, Failure> {
        // SAFETY: live client; the metadata object is ours, read and destroyed once.
        unsafe {
            let metadata = sys::rd_kafka_consumer_group_metadata(self.raw());
            if metadata.is_null() {
                return Err(Failure::of_code(RDKafkaErrorCode::UnknownGroup));
            }
            let member = GroupMember {
                group_id: owned_text(sys::rd_kafka_consumer_group_metadata_group_id(metadata)),
                generation_id: sys::rd_kafka_consumer_group_metadata_generation_id(metadata),
                member_id: owned_text(sys::rd_kafka_consumer_group_metadata_member_id(metadata)),
            };
            sys::rd_kafka_consumer_group_metadata_destroy(metadata);
            Ok(member)
        }
    }

    /// Leaves the group. Rebalances from now on are answered by the callback; blocks until the group is left, which
    /// may take long when no broker answers.
    pub fn close_consumer(&self) -> Result<(), Failure> {
        // SAFETY: live consumer.
        let eager = unsafe { has_protocol(self.raw(), c"EAGER") };
        self.events().eager.store(eager, Ordering::Release);
        self.events().closing.store(true, Ordering::Release);
        self.events().wake_queue.store(ptr::null_mut(), Ordering::Release);
        // SAFETY: live consumer.
        Failure::check_code(unsafe { sys::rd_kafka_consumer_close(self.raw()) })
    }

    /// The log start and end of a partition as this client's isolation level sees them.
    pub fn watermarks(&self, topic: &str, partition: i32, timeout: Duration) -> Result<(i64, i64), Failure> {
        let topic = super::c_name(topic)?;
        let (mut low, mut high) = (0, 0);
        // SAFETY: live client, NUL-terminated name, two places to write to.
        Failure::check_code(unsafe {
            sys::rd_kafka_query_watermark_offsets(
                self.raw(),
                topic.as_ptr(),
                partition,
                &mut low,
                &mut high,
                timeout_ms(timeout),
            )
        })?;
        Ok((low, high))
    }
}

/// The group metadata object for a transaction's offsets.
pub(super) struct GroupMetadataObject(NonNull<sys::rd_kafka_consumer_group_metadata_t>);

impl GroupMetadataObject {
    pub fn new(member: &GroupMember, group_instance_id: Option<&str>) -> Result<Self, Failure> {
        let name = |text: &str| {
            CString::new(text).map_err(|_| {
                Failure::with_detail(RDKafkaErrorCode::InvalidGroupId, format!("{text:?} holds a NUL byte"))
            })
        };
        let group = name(&member.group_id)?;
        let member_id = name(&member.member_id)?;
        let instance = group_instance_id.map(name).transpose()?;
        // SAFETY: NUL-terminated strings, copied by the call.
        let object = unsafe {
            sys::rd_kafka_consumer_group_metadata_new_with_genid(
                group.as_ptr(),
                member.generation_id,
                member_id.as_ptr(),
                instance.as_ref().map_or(ptr::null(), |instance| instance.as_ptr()),
            )
        };
        NonNull::new(object).map(Self).ok_or_else(|| Failure::of_code(RDKafkaErrorCode::InvalidGroupId))
    }

    pub fn raw(&self) -> *const sys::rd_kafka_consumer_group_metadata_t {
        self.0.as_ptr()
    }
}

impl Drop for GroupMetadataObject {
    fn drop(&mut self) {
        // SAFETY: owned, freed once.
        unsafe { sys::rd_kafka_consumer_group_metadata_destroy(self.0.as_ptr()) }
    }
}
