//! All calls into librdkafka's C interface, and the only unsafe code of this crate: a client handle with its callbacks,
//! partition lists, consumed messages, the producer's calls. Every function here is safe to call from any thread
//! (librdkafka is thread-safe); none of them knows of the engine. Callbacks only record: a rebalance, a delivery
//! report or an error is kept in `Events` until its owner takes it.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rdkafka::bindings as sys;
use rdkafka::error::RDKafkaErrorCode;

mod consumer;
mod events;
mod group;
mod list;
mod message;
mod metadata;
mod producer;

pub(crate) use consumer::{ConsumerQueue, GroupMember};
pub use events::broker_ends;
pub(crate) use events::{Events, Rebalance};
pub(crate) use group::DescribedGroup;
pub(crate) use list::PartitionList;
pub(crate) use message::{Message, Messages};
pub(crate) use metadata::{ClusterMetadata, TopicMetadata};
pub(crate) use producer::{NativeRecord, TopicHandle};

/// A failed call of librdkafka, as it was reported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    pub code: RDKafkaErrorCode,
    pub detail: String,
    pub fatal: bool,
    pub retriable: bool,
    pub requires_abort: bool,
}

impl Failure {
    pub fn of_code(code: RDKafkaErrorCode) -> Self {
        Self::with_detail(code, code.to_string())
    }

    pub fn with_detail(code: RDKafkaErrorCode, detail: impl Into<String>) -> Self {
        let fatal = code == RDKafkaErrorCode::Fatal;
        Self { code, detail: detail.into(), fatal, retriable: false, requires_abort: false }
    }

    /// Turns a returned error object into a failure and frees it; null is success.
    ///
    /// # Safety
    /// `error` is null or an error object that the caller owns.
    unsafe fn check_object(error: *mut sys::rd_kafka_error_t) -> Result<(), Failure> {
        if error.is_null() {
            return Ok(());
        }
        // SAFETY: `error` is a live error object by the caller's promise, its string lives as long as it does and is
        // copied before the object is destroyed, once.
        unsafe {
            let failure = Failure {
                code: sys::rd_kafka_error_code(error).into(),
                detail: owned_text(sys::rd_kafka_error_string(error)),
                fatal: sys::rd_kafka_error_is_fatal(error) != 0,
                retriable: sys::rd_kafka_error_is_retriable(error) != 0,
                requires_abort: sys::rd_kafka_error_txn_requires_abort(error) != 0,
            };
            sys::rd_kafka_error_destroy(error);
            Err(failure)
        }
    }

    fn check_code(code: sys::rd_kafka_resp_err_t) -> Result<(), Failure> {
        match RDKafkaErrorCode::from(code) {
            RDKafkaErrorCode::NoError => Ok(()),
            code => Err(Failure::of_code(code)),
        }
    }
}

/// Copies a C string; null gives an empty one.
///
/// # Safety
/// `text` is null or a NUL-terminated string that lives through the call.
unsafe fn owned_text(text: *const c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: not null, and NUL-terminated by the caller's promise.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}

/// A C string from a name that came from outside; a NUL inside is an error instead of a cut name.
pub(crate) fn c_name(name: &str) -> Result<CString, Failure> {
    CString::new(name).map_err(|_| {
        Failure::with_detail(RDKafkaErrorCode::InvalidTopic, format!("the name {name:?} holds a NUL byte"))
    })
}

/// A timeout as librdkafka takes it: whole milliseconds, rounded up so that a short wait is not a busy loop.
pub(crate) fn timeout_ms(timeout: Duration) -> c_int {
    c_int::try_from(timeout.as_micros().div_ceil(1000)).unwrap_or(c_int::MAX)
}

/// How long the owner of a client waits for it to be freed.
const DESTROY_TIMEOUT: Duration = Duration::from_secs(3);

/// Which kind of client to make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ClientKind {
    Consumer,
    Producer,
}

/// Why a property was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PropertyFault {
    Unknown,
    Invalid(String),
}

/// A configuration under construction.
pub(crate) struct NativeConfig {
    conf: NonNull<sys::rd_kafka_conf_t>,
}

impl NativeConfig {
    pub fn new() -> Self {
        // SAFETY: no preconditions; librdkafka aborts the process when it has no memory, so the result is not null.
        let conf = unsafe { sys::rd_kafka_conf_new() };
        Self { conf: NonNull::new(conf).unwrap_or_else(|| unreachable!("rd_kafka_conf_new never returns null")) }
    }

    pub fn set(&mut self, key: &str, value: &str) -> Result<(), PropertyFault> {
        let (Ok(c_key), Ok(c_value)) = (CString::new(key), CString::new(value)) else {
            return Err(PropertyFault::Invalid("the name or the value holds a NUL byte".into()));
        };
        let mut text = ErrorText::new();
        // SAFETY: the configuration is live, both strings are NUL-terminated and the buffer has the length given.
        let result = unsafe {
            let (buffer, size) = text.parts();
            sys::rd_kafka_conf_set(self.conf.as_ptr(), c_key.as_ptr(), c_value.as_ptr(), buffer, size)
        };
        match result {
            sys::rd_kafka_conf_res_t::RD_KAFKA_CONF_OK => Ok(()),
            sys::rd_kafka_conf_res_t::RD_KAFKA_CONF_UNKNOWN => Err(PropertyFault::Unknown),
            sys::rd_kafka_conf_res_t::RD_KAFKA_CONF_INVALID => Err(PropertyFault::Invalid(text.to_string())),
        }
    }
}

impl Drop for NativeConfig {
    fn drop(&mut self) {
        // SAFETY: owned and not handed to `rd_kafka_new` (which forgets the wrapper).
        unsafe { sys::rd_kafka_conf_destroy(self.conf.as_ptr()) }
    }
}

/// A buffer for the texts that librdkafka writes.
struct ErrorText([u8; 512]);

impl ErrorText {
    fn new() -> Self {
        Self([0; 512])
    }

    fn parts(&mut self) -> (*mut c_char, usize) {
        (self.0.as_mut_ptr().cast(), self.0.len())
    }
}

impl std::fmt::Display for ErrorText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let end = self.0.iter().position(|&byte| byte == 0).unwrap_or(self.0.len());
        f.write_str(&String::from_utf8_lossy(self.0.get(..end).unwrap_or_default()))
    }
}

/// A librdkafka client with the record of its callbacks.
pub(crate) struct Client {
    rk: NonNull<sys::rd_kafka_t>,
    // The callbacks hold a plain pointer to it, so it must outlive `rk`: `Drop` destroys the client before its fields
    // go.
    events: Arc<Events>,
}

// SAFETY: librdkafka's handles may be used from any thread at the same time (rdkafka.h, "Threads and callbacks"), and
// `Events` is `Sync`.
unsafe impl Send for Client {}
// SAFETY: as above.
unsafe impl Sync for Client {}

impl Client {
    /// Makes a client. `name` stands in every log line of it.
    pub fn new(kind: ClientKind, config: NativeConfig, name: &str) -> Result<Client, Failure> {
        let events = Arc::new(Events::new(name));
        let mut text = ErrorText::new();
        let conf = config.conf.as_ptr();
        // SAFETY: the configuration is live. The opaque pointer stays valid for the client's life, since `Client` owns
        // a reference to `events` and destroys the client first; the callbacks read it as `&Events`, which is `Sync`.
        let rk = unsafe {
            sys::rd_kafka_conf_set_opaque(conf, Arc::as_ptr(&events) as *mut c_void);
            sys::rd_kafka_conf_set_log_cb(conf, Some(events::log_callback));
            sys::rd_kafka_conf_set_error_cb(conf, Some(events::error_callback));
            let native_kind = match kind {
                ClientKind::Consumer => {
                    sys::rd_kafka_conf_set_rebalance_cb(conf, Some(events::rebalance_callback));
                    sys::rd_kafka_type_t::RD_KAFKA_CONSUMER
                }
                ClientKind::Producer => {
                    sys::rd_kafka_conf_set_dr_msg_cb(conf, Some(events::delivery_callback));
                    let opaque = Arc::as_ptr(&events) as *mut c_void;
                    let name = c"lost-answers".as_ptr();
                    let added = sys::rd_kafka_conf_interceptor_add_on_new(
                        conf,
                        name,
                        Some(events::add_response_interceptor),
                        opaque,
                    );
                    Failure::check_code(added)?;
                    sys::rd_kafka_type_t::RD_KAFKA_PRODUCER
                }
            };
            let (buffer, size) = text.parts();
            sys::rd_kafka_new(native_kind, conf, buffer, size)
        };
        match NonNull::new(rk) {
            Some(rk) => {
                // The client owns the configuration now.
                std::mem::forget(config);
                Ok(Client { rk, events })
            }
            // The configuration stays ours on failure and is freed by its own drop.
            None => Err(Failure::with_detail(RDKafkaErrorCode::InvalidArgument, text.to_string())),
        }
    }

    pub fn events(&self) -> &Events {
        &self.events
    }

    fn raw(&self) -> *mut sys::rd_kafka_t {
        self.rk.as_ptr()
    }

    /// The fatal error that was raised, if any; after one the client does nothing more.
    pub fn fatal_error(&self) -> Option<Failure> {
        let mut text = ErrorText::new();
        let (buffer, size) = text.parts();
        // SAFETY: live client, and a buffer of the length given.
        let code = unsafe { sys::rd_kafka_fatal_error(self.raw(), buffer, size) };
        match RDKafkaErrorCode::from(code) {
            RDKafkaErrorCode::NoError => None,
            code => {
                Some(Failure { code, detail: text.to_string(), fatal: true, retriable: false, requires_abort: false })
            }
        }
    }

    /// Serves callbacks, waiting for at most `timeout` when there are none.
    pub fn poll(&self, timeout: Duration) {
        // SAFETY: live client.
        unsafe { sys::rd_kafka_poll(self.raw(), timeout_ms(timeout)) };
    }

    /// The cluster's id, if a broker told it within `timeout`.
    pub fn cluster_id(&self, timeout: Duration) -> Option<String> {
        // SAFETY: live client; the returned string is ours, copied and freed by librdkafka's own allocator.
        unsafe {
            let id = sys::rd_kafka_clusterid(self.raw(), timeout_ms(timeout));
            if id.is_null() {
                return None;
            }
            let copy = owned_text(id);
            sys::rd_kafka_mem_free(self.raw(), id.cast());
            Some(copy)
        }
    }
}

/// A client on its way to be freed.
struct LastHandle {
    rk: NonNull<sys::rd_kafka_t>,
    // Kept until no callback can run any more.
    _events: Arc<Events>,
}

// SAFETY: librdkafka's handles may be destroyed on any thread.
unsafe impl Send for LastHandle {}

impl LastHandle {
    fn destroy(self) {
        // SAFETY: the last use of the handle. A consumer was closed before or never joined, so the flag only keeps
        // `destroy` from waiting for a group that nobody serves.
        unsafe { sys::rd_kafka_destroy_flags(self.rk.as_ptr(), sys::RD_KAFKA_DESTROY_F_NO_CONSUMER_CLOSE) }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.events.wake_queue.store(ptr::null_mut(), Ordering::Release);
        let (done, wait) = std::sync::mpsc::channel::<()>();
        let last = LastHandle { rk: self.rk, _events: Arc::clone(&self.events) };
        // Freeing a client can take long while a broker does not answer (T13), so its owner waits for a bounded time.
        let spawned = std::thread::Builder::new().name("kafka-destroy".into()).spawn(move || {
            last.destroy();
            drop(done);
        });
        match spawned {
            // The sender never sends: the wait ends when the thread drops it.
            Ok(_) => {
                if wait.recv_timeout(DESTROY_TIMEOUT) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
                    tracing::warn!(
                        client = self.events.name(),
                        "a Kafka client is slow to end; it is left to end by itself"
                    );
                }
            }
            // The client leaks; its threads go with the process.
            Err(error) => tracing::warn!(client = self.events.name(), %error, "no thread to free a Kafka client"),
        }
    }
}
