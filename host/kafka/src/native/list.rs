//! Lists of topic partitions with offsets and metadata, as librdkafka takes and fills them.

use std::ffi::CStr;
use std::ptr::NonNull;

use rdkafka::bindings as sys;
use rdkafka::error::RDKafkaErrorCode;

use super::{Failure, c_name, owned_text};

/// An owned list.
pub(crate) struct PartitionList(NonNull<sys::rd_kafka_topic_partition_list_t>);

/// One element, read out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub topic: String,
    pub partition: i32,
    pub offset: i64,
    pub metadata: Vec<u8>,
    pub error: Option<RDKafkaErrorCode>,
}

impl PartitionList {
    pub fn new() -> Self {
        // SAFETY: no preconditions; librdkafka aborts the process when it has no memory.
        let list = unsafe { sys::rd_kafka_topic_partition_list_new(8) };
        Self(NonNull::new(list).unwrap_or_else(|| unreachable!("rd_kafka_topic_partition_list_new never returns null")))
    }

    /// Appends a partition. Partition -1 stands for a whole topic (subscriptions).
    pub fn add(&mut self, topic: &str, partition: i32, offset: i64, metadata: &[u8]) -> Result<(), Failure> {
        let topic = c_name(topic)?;
        // SAFETY: the list is live, the name is NUL-terminated and copied; the new element is ours until the next add.
        // The metadata is allocated by librdkafka's allocator, which frees it with the list.
        unsafe {
            let element = sys::rd_kafka_topic_partition_list_add(self.raw(), topic.as_ptr(), partition);
            if let Some(element) = element.as_mut() {
                element.offset = offset;
                if !metadata.is_empty() {
                    let copy = sys::rd_kafka_mem_malloc(std::ptr::null_mut(), metadata.len());
                    if let Some(copy) = NonNull::new(copy) {
                        copy.cast::<u8>()
                            .copy_from_nonoverlapping(NonNull::from(metadata).cast::<u8>(), metadata.len());
                        element.metadata = copy.as_ptr();
                        element.metadata_size = metadata.len();
                    }
                }
            }
        }
        Ok(())
    }

    pub(super) fn raw(&self) -> *mut sys::rd_kafka_topic_partition_list_t {
        self.0.as_ptr()
    }

    /// The elements, in order.
    pub fn entries(&self) -> Vec<Entry> {
        // SAFETY: the list is live and owned, so nobody changes it meanwhile.
        unsafe { elements(self.raw()) }.iter().map(Entry::read).collect()
    }

    /// The first element that carries an error.
    pub fn first_error(&self) -> Option<Entry> {
        self.entries().into_iter().find(|entry| entry.error.is_some())
    }

    /// Topic and partition of each element of a list that librdkafka owns.
    ///
    /// # Safety
    /// `list` is null or live through the call.
    pub(super) unsafe fn names_of(list: *mut sys::rd_kafka_topic_partition_list_t) -> Vec<(String, i32)> {
        // SAFETY: by the caller's promise; topic names are NUL-terminated.
        unsafe { elements(list).iter().map(|element| (owned_text(element.topic), element.partition)).collect() }
    }
}

/// # Safety
/// `list` is null or live, and unchanged for `'a`.
unsafe fn elements<'a>(list: *mut sys::rd_kafka_topic_partition_list_t) -> &'a [sys::rd_kafka_topic_partition_t] {
    // SAFETY: `elems` points to `cnt` initialised elements (rdkafka.h), or is null when there are none.
    unsafe {
        match list.as_ref() {
            Some(list) if !list.elems.is_null() && list.cnt > 0 => {
                std::slice::from_raw_parts(list.elems, usize::try_from(list.cnt).unwrap_or(0))
            }
            _ => &[],
        }
    }
}

impl Entry {
    fn read(element: &sys::rd_kafka_topic_partition_t) -> Self {
        // SAFETY: the element is live (borrowed); its name is NUL-terminated and its metadata has the length given.
        let (topic, metadata) = unsafe {
            let topic = if element.topic.is_null() {
                String::new()
            } else {
                CStr::from_ptr(element.topic).to_string_lossy().into_owned()
            };
            let metadata = if element.metadata.is_null() {
                Vec::new()
            } else {
                std::slice::from_raw_parts(element.metadata.cast::<u8>(), element.metadata_size).to_vec()
            };
            (topic, metadata)
        };
        let error = match RDKafkaErrorCode::from(element.err) {
            RDKafkaErrorCode::NoError => None,
            code => Some(code),
        };
        Entry { topic, partition: element.partition, offset: element.offset, metadata, error }
    }
}

impl Drop for PartitionList {
    fn drop(&mut self) {
        // SAFETY: owned, freed once.
        unsafe { sys::rd_kafka_topic_partition_list_destroy(self.raw()) }
    }
}
