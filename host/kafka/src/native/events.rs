//! What librdkafka's callbacks reported and nobody has taken yet. The callbacks run on librdkafka's own threads (logs)
//! or inside a poll, flush or close of ours (the rest); they take a lock for a few instructions and never call out.

use std::ffi::{c_char, c_int, c_void};
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rdkafka::bindings as sys;
use rdkafka::error::RDKafkaErrorCode;

use super::{Failure, PartitionList, owned_text};

/// A change of the group's assignment that waits for its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Rebalance {
    Assigned(Vec<(String, i32)>),
    Revoked(Vec<(String, i32)>),
    Lost(Vec<(String, i32)>),
}

/// The delivery reports since they were last taken.
#[derive(Debug, Default)]
pub(crate) struct Deliveries {
    /// The first failed delivery: topic handle, partition, failure.
    pub first_failure: Option<(usize, i32, Failure)>,
    /// Highest acknowledged offset by topic handle and partition.
    pub acknowledged: Vec<(usize, i32, i64)>,
    latest: usize,
}

impl Deliveries {
    fn acknowledge(&mut self, topic: usize, partition: i32, offset: i64) {
        // Reports come in runs of one partition, so the last hit is nearly always the right one.
        let hit = |entry: &(usize, i32, i64)| entry.0 == topic && entry.1 == partition;
        if !self.acknowledged.get(self.latest).is_some_and(hit) {
            match self.acknowledged.iter().position(hit) {
                Some(index) => self.latest = index,
                None => {
                    self.latest = self.acknowledged.len();
                    self.acknowledged.push((topic, partition, offset));
                }
            }
        }
        if let Some(entry) = self.acknowledged.get_mut(self.latest) {
            entry.2 = entry.2.max(offset);
        }
    }
}

#[derive(Debug, Default)]
struct State {
    rebalances: Vec<Rebalance>,
    deliveries: Deliveries,
    delivered: u64,
    last_error: Option<(RDKafkaErrorCode, String)>,
    fatal: bool,
}

/// The record of one client's callbacks.
pub(crate) struct Events {
    name: String,
    state: Mutex<State>,
    /// While a consumer closes, its rebalances are answered by the callback itself.
    pub(super) closing: AtomicBool,
    /// The queue whose waiting poll a rebalance ends.
    pub(super) wake_queue: AtomicPtr<sys::rd_kafka_queue_t>,
}

impl Events {
    pub(super) fn new(name: &str) -> Self {
        Self {
            name: name.into(),
            state: Mutex::new(State::default()),
            closing: AtomicBool::new(false),
            wake_queue: AtomicPtr::new(ptr::null_mut()),
        }
    }

    /// The client's name, as in its log lines.
    pub fn name(&self) -> &str {
        &self.name
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing can panic under this lock; a poisoned one still holds a consistent record.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn take_rebalances(&self) -> Vec<Rebalance> {
        std::mem::take(&mut self.state().rebalances)
    }

    pub fn has_rebalances(&self) -> bool {
        !self.state().rebalances.is_empty()
    }

    /// Delivery reports so far, failed ones included.
    pub fn delivered(&self) -> u64 {
        self.state().delivered
    }

    pub fn take_first_failure(&self) -> Option<(usize, i32, Failure)> {
        self.state().deliveries.first_failure.take()
    }

    pub fn take_acknowledged(&self) -> Vec<(usize, i32, i64)> {
        let mut state = self.state();
        state.deliveries.latest = 0;
        std::mem::take(&mut state.deliveries.acknowledged)
    }

    /// The last connection or client error, for example why a broker cannot be reached.
    pub fn last_error(&self) -> Option<(RDKafkaErrorCode, String)> {
        self.state().last_error.clone()
    }

    /// Whether a fatal error was raised.
    pub fn is_fatal(&self) -> bool {
        self.state().fatal
    }
}

/// # Safety
/// `opaque` is the pointer that `Client::new` set.
unsafe fn events<'a>(opaque: *const c_void) -> Option<&'a Events> {
    // SAFETY: it points to the `Events` that the client's owner keeps alive until the client is destroyed, after which
    // librdkafka calls nothing any more.
    unsafe { opaque.cast::<Events>().as_ref() }
}

pub(super) unsafe extern "C" fn log_callback(
    rk: *const sys::rd_kafka_t,
    level: c_int,
    facility: *const c_char,
    text: *const c_char,
) {
    // SAFETY: librdkafka passes NUL-terminated strings and a live client (or none, before it is complete).
    let (facility, text, name) = unsafe {
        let opaque = if rk.is_null() { ptr::null() } else { sys::rd_kafka_opaque(rk).cast_const() };
        let name = events(opaque).map_or("", Events::name);
        (owned_text(facility), owned_text(text), name)
    };
    // A property for one kind of client is set on all when it has no prefix; the hint that one ignores it is noise.
    let level = if facility == "CONFWARN" { 7 } else { level };
    match level {
        ..=3 => tracing::error!(target: "librdkafka", client = name, facility, "{text}"),
        4 => tracing::warn!(target: "librdkafka", client = name, facility, "{text}"),
        5 | 6 => tracing::info!(target: "librdkafka", client = name, facility, "{text}"),
        _ => tracing::debug!(target: "librdkafka", client = name, facility, "{text}"),
    }
}

pub(super) unsafe extern "C" fn error_callback(
    _rk: *mut sys::rd_kafka_t,
    code: c_int,
    reason: *const c_char,
    opaque: *mut c_void,
) {
    // SAFETY: the opaque is ours, the reason is a NUL-terminated string.
    let (Some(events), reason) = (unsafe { (events(opaque), owned_text(reason)) }) else { return };
    let code = match sys::rd_kafka_resp_err_t::try_from(code) {
        Ok(code) => RDKafkaErrorCode::from(code),
        Err(_) => RDKafkaErrorCode::Unknown,
    };
    // librdkafka logs a failed connection by itself; what only shows here is a fatal error.
    if code == RDKafkaErrorCode::Fatal {
        tracing::error!(target: "librdkafka", client = events.name(), error = ?code, "{reason}");
    } else {
        tracing::debug!(target: "librdkafka", client = events.name(), error = ?code, "{reason}");
    }
    let mut state = events.state();
    if code == RDKafkaErrorCode::Fatal {
        state.fatal = true;
    }
    // That all brokers are down is a consequence; the reason to show is the connection's own error before it.
    if code != RDKafkaErrorCode::AllBrokersDown || state.last_error.is_none() {
        state.last_error = Some((code, reason));
    }
}

pub(super) unsafe extern "C" fn rebalance_callback(
    rk: *mut sys::rd_kafka_t,
    code: sys::rd_kafka_resp_err_t,
    partitions: *mut sys::rd_kafka_topic_partition_list_t,
    opaque: *mut c_void,
) {
    // SAFETY: the opaque is ours.
    let Some(events) = (unsafe { events(opaque) }) else { return };
    let assigned = code == sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS;
    if events.closing.load(Ordering::Acquire) {
        // SAFETY: the client is live within its callback and the list belongs to the event.
        unsafe { super::consumer::answer_while_closing(rk, partitions) };
        return;
    }
    // SAFETY: the list is live during the callback; the client too.
    let (names, lost) = unsafe { (PartitionList::names_of(partitions), sys::rd_kafka_assignment_lost(rk) != 0) };
    let rebalance = match (assigned, lost) {
        (true, _) => Rebalance::Assigned(names),
        (false, false) => Rebalance::Revoked(names),
        (false, true) => Rebalance::Lost(names),
    };
    tracing::debug!(target: "librdkafka", client = events.name(), ?rebalance, "rebalance");
    events.state().rebalances.push(rebalance);
    let queue = events.wake_queue.load(Ordering::Acquire);
    if !queue.is_null() {
        // SAFETY: the queue lives as long as it stands here (`ConsumerQueue` clears it first), and its lock is not held
        // while a callback runs.
        unsafe { sys::rd_kafka_queue_yield(queue) };
    }
}

pub(super) unsafe extern "C" fn delivery_callback(
    _rk: *mut sys::rd_kafka_t,
    message: *const sys::rd_kafka_message_t,
    opaque: *mut c_void,
) {
    // SAFETY: the opaque is ours and the message is live during the callback.
    let (Some(events), Some(message)) = (unsafe { (events(opaque), message.as_ref()) }) else { return };
    let topic = message.rkt as usize;
    let mut state = events.state();
    state.delivered += 1;
    match RDKafkaErrorCode::from(message.err) {
        RDKafkaErrorCode::NoError => {
            if message.offset >= 0 {
                state.deliveries.acknowledge(topic, message.partition, message.offset);
            }
        }
        code => {
            if state.deliveries.first_failure.is_none() {
                // Not `rd_kafka_message_produce_errstr`: librdkafka 2.12 copies the broker's answer into the report's
                // event but lets the message point into the original, which is freed by now.
                let failure = Failure::of_code(code);
                state.deliveries.first_failure = Some((topic, message.partition, failure));
            }
        }
    }
}
