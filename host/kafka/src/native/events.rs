//! What librdkafka's callbacks reported and nobody has taken yet. The callbacks run on librdkafka's own threads (logs)
//! or inside a poll, flush or close of ours (the rest); they take a lock for a few instructions and never call out.

use std::ffi::{c_char, c_int, c_void};
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rdkafka::bindings as sys;
use rdkafka::error::RDKafkaErrorCode;

use super::{Failure, PartitionList, owned_text};

/// Whether this process is ending the broker that its clients talk to.
static BROKER_ENDS: AtomicBool = AtomicBool::new(false);

/// Says that the broker of this process's clients ends with it: that they lose their connections is no news then.
pub fn broker_ends() {
    BROKER_ENDS.store(true, Ordering::Relaxed);
}

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
    /// Requests of transactions that were sent and whose answer never came.
    lost_answers: AtomicU64,
    /// While a consumer closes, its rebalances are answered by the callback itself.
    pub(super) closing: AtomicBool,
    /// Whether that was done.
    gave_up: AtomicBool,
    /// Whether the group's protocol was the eager one when the consumer began to close.
    pub(super) eager: AtomicBool,
    /// The queue whose waiting poll a rebalance ends.
    pub(super) wake_queue: AtomicPtr<sys::rd_kafka_queue_t>,
}

impl Events {
    pub(super) fn new(name: &str) -> Self {
        Self {
            name: name.into(),
            state: Mutex::new(State::default()),
            lost_answers: AtomicU64::new(0),
            closing: AtomicBool::new(false),
            gave_up: AtomicBool::new(false),
            eager: AtomicBool::new(false),
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

    /// Whether a rebalance that comes while the consumer closes must be answered. One answer gives up everything, after
    /// which the member leaves, and a call that reaches librdkafka as the group's state ends is never answered
    /// (`rd_kafka_cgrp_op_serve` drops it): a second answer could hang for ever. Neither is an answer needed to
    /// partitions that were just assigned: the close has begun their revocation, which comes as an event of its own
    /// under the cooperative protocol. Under the eager one it needs no answer at all, not even for an empty assignment.
    fn must_give_up(&self, assigned: bool, partitions: usize) -> bool {
        let superseded = assigned && (partitions > 0 || self.eager.load(Ordering::Acquire));
        !superseded && !self.gave_up.swap(true, Ordering::AcqRel)
    }

    /// Delivery reports so far, failed ones included.
    pub fn delivered(&self) -> u64 {
        self.state().delivered
    }

    /// How often a request of a transaction was sent and its answer did not come, because the connection broke or the
    /// time was over. librdkafka sends such a request again by itself, while the first one may still reach the broker.
    pub fn lost_answers(&self) -> u64 {
        self.lost_answers.load(Ordering::Acquire)
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
    // So is a connection that fails because this process has ended its own broker.
    let is_noise = facility == "CONFWARN" || BROKER_ENDS.load(Ordering::Relaxed);
    let level = if is_noise { 7 } else { level };
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
    // SAFETY: the list is live during the callback.
    let names = unsafe { PartitionList::names_of(partitions) };
    if events.closing.load(Ordering::Acquire) {
        if events.must_give_up(assigned, names.len()) {
            // SAFETY: the client is live within its callback.
            unsafe { super::consumer::give_up_all(rk) };
        }
        return;
    }
    // SAFETY: the client is live within its callback.
    let lost = unsafe { sys::rd_kafka_assignment_lost(rk) != 0 };
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

/// AddPartitionsToTxn, AddOffsetsToTxn, EndTxn and TxnOffsetCommit, by their keys in Kafka's protocol.
const TRANSACTION_REQUESTS: [i16; 4] = [24, 25, 26, 28];

pub(super) unsafe extern "C" fn response_interceptor(
    _rk: *mut sys::rd_kafka_t,
    _socket: c_int,
    _broker: *const c_char,
    _broker_id: i32,
    request: i16,
    _version: i16,
    _correlation_id: i32,
    _size: usize,
    _round_trip_us: i64,
    error: sys::rd_kafka_resp_err_t,
    opaque: *mut c_void,
) -> sys::rd_kafka_resp_err_t {
    use sys::rd_kafka_resp_err_t as code;
    // What timed out in the client's own queue was never sent.
    let answered = matches!(
        error,
        code::RD_KAFKA_RESP_ERR_NO_ERROR | code::RD_KAFKA_RESP_ERR__DESTROY | code::RD_KAFKA_RESP_ERR__TIMED_OUT_QUEUE
    );
    // SAFETY: the opaque is ours.
    if let (false, true, Some(events)) = (answered, TRANSACTION_REQUESTS.contains(&request), unsafe { events(opaque) })
    {
        events.lost_answers.fetch_add(1, Ordering::AcqRel);
    }
    code::RD_KAFKA_RESP_ERR_NO_ERROR
}

/// Adds the interceptor to a client that is being made.
pub(super) unsafe extern "C" fn add_response_interceptor(
    rk: *mut sys::rd_kafka_t,
    _conf: *const sys::rd_kafka_conf_t,
    opaque: *mut c_void,
    _text: *mut c_char,
    _size: usize,
) -> sys::rd_kafka_resp_err_t {
    // SAFETY: the client is live, the name is NUL-terminated and copied, and the opaque outlives the client.
    unsafe {
        sys::rd_kafka_interceptor_add_on_response_received(
            rk,
            c"lost-answers".as_ptr(),
            Some(response_interceptor),
            opaque,
        )
    }
}
