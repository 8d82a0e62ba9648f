//! Consumed messages: owned by librdkafka's fetch buffers, lent out as slices, given back together.

use std::ffi::{c_char, c_void};
use std::marker::PhantomData;
use std::ptr::{self, NonNull};

use rdkafka::bindings as sys;
use rdkafka::error::RDKafkaErrorCode;

use super::{Failure, owned_text};

/// The messages of one poll.
pub(crate) struct Messages {
    pointers: Vec<*mut sys::rd_kafka_message_t>,
    count: usize,
}

// SAFETY: consumed messages may be read and destroyed on any thread; nothing of them is tied to the polling one.
unsafe impl Send for Messages {}

impl Messages {
    pub fn new() -> Self {
        Self { pointers: Vec::new(), count: 0 }
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub fn len(&self) -> usize {
        self.count
    }

    pub fn iter(&self) -> impl Iterator<Item = Message<'_>> {
        self.pointers
            .iter()
            .take(self.count)
            .filter_map(|&pointer| NonNull::new(pointer).map(|message| Message { message, lifetime: PhantomData }))
    }

    /// Gives all messages back.
    pub fn clear(&mut self) {
        for pointer in self.pointers.iter().take(self.count) {
            // SAFETY: each pointer below `count` came from the consume call, is owned here and is destroyed once,
            // since `count` becomes 0 right after.
            unsafe { sys::rd_kafka_message_destroy(*pointer) }
        }
        self.count = 0;
    }

    /// Lets `fill` write up to `limit` more messages behind the present ones; it returns how many it wrote.
    ///
    /// # Safety
    /// `fill` writes only live, owned messages and returns at most the given length.
    pub(super) unsafe fn extend(
        &mut self,
        limit: usize,
        fill: impl FnOnce(*mut *mut sys::rd_kafka_message_t, usize) -> usize,
    ) -> usize {
        let needed = self.count + limit;
        if self.pointers.len() < needed {
            self.pointers.resize(needed, ptr::null_mut());
        }
        let Some(room) = self.pointers.get_mut(self.count..needed) else { return 0 };
        let written = fill(room.as_mut_ptr(), room.len()).min(limit);
        self.count += written;
        written
    }
}

impl Drop for Messages {
    fn drop(&mut self) {
        self.clear();
    }
}

/// One message, lent by `Messages`.
#[derive(Clone, Copy)]
pub(crate) struct Message<'a> {
    message: NonNull<sys::rd_kafka_message_t>,
    lifetime: PhantomData<&'a Messages>,
}

impl<'a> Message<'a> {
    fn raw(&self) -> &'a sys::rd_kafka_message_t {
        // SAFETY: the message lives as long as the `Messages` that lends it, and nobody writes to it.
        unsafe { self.message.as_ref() }
    }

    /// Identifies the topic among the messages of one poll.
    pub fn topic_handle(&self) -> usize {
        self.raw().rkt as usize
    }

    /// The topic's name; empty for an error that concerns no topic.
    pub fn topic(&self) -> String {
        if self.raw().rkt.is_null() {
            return String::new();
        }
        // SAFETY: the message holds a reference to its topic, whose name is NUL-terminated.
        unsafe { owned_text(sys::rd_kafka_topic_name(self.raw().rkt)) }
    }

    pub fn partition(&self) -> i32 {
        self.raw().partition
    }

    pub fn offset(&self) -> i64 {
        self.raw().offset
    }

    /// The timestamp, -1 where there is none.
    pub fn timestamp(&self) -> i64 {
        // SAFETY: live message; the type of the timestamp is not asked for.
        unsafe { sys::rd_kafka_message_timestamp(self.message.as_ptr(), ptr::null_mut()) }
    }

    pub fn key(&self) -> Option<&'a [u8]> {
        let raw = self.raw();
        // SAFETY: key and length belong together and live as long as the message.
        unsafe { slice(raw.key, raw.key_len) }
    }

    pub fn value(&self) -> Option<&'a [u8]> {
        let raw = self.raw();
        // SAFETY: payload and length belong together and live as long as the message.
        unsafe { slice(raw.payload, raw.len) }
    }

    /// Calls `visit` for each header in order.
    pub fn for_each_header(&self, mut visit: impl FnMut(&'a [u8], Option<&'a [u8]>)) {
        let mut headers = ptr::null_mut();
        // SAFETY: live message; the headers belong to it.
        let found = unsafe { sys::rd_kafka_message_headers(self.message.as_ptr(), &mut headers) };
        if found != sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR || headers.is_null() {
            return;
        }
        for index in 0.. {
            let (mut name, mut value, mut size) = (ptr::null::<c_char>(), ptr::null::<c_void>(), 0);
            // SAFETY: the headers are live; past the last one the call returns an error. Name and value live as long as
            // the message.
            unsafe {
                let code = sys::rd_kafka_header_get_all(headers, index, &mut name, &mut value, &mut size);
                if code != sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR || name.is_null() {
                    return;
                }
                visit(std::ffi::CStr::from_ptr(name).to_bytes(), slice(value.cast_mut(), size));
            }
        }
    }

    /// The failure, when this is a report of the consumer and no record.
    pub fn failure(&self) -> Option<Failure> {
        match RDKafkaErrorCode::from(self.raw().err) {
            RDKafkaErrorCode::NoError => None,
            code => {
                // SAFETY: live message; the text belongs to it.
                let detail = unsafe { owned_text(sys::rd_kafka_message_errstr(self.message.as_ptr())) };
                Some(Failure::with_detail(code, detail))
            }
        }
    }
}

/// # Safety
/// `start` is null or points to `length` bytes that live for `'a`.
unsafe fn slice<'a>(start: *mut c_void, length: usize) -> Option<&'a [u8]> {
    if start.is_null() {
        return None;
    }
    // SAFETY: by the caller's promise.
    Some(unsafe { std::slice::from_raw_parts(start.cast::<u8>().cast_const(), length) })
}
