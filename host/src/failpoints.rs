//! Named points at which the process aborts, for the kill campaigns: wrappers round the seams, since the order of the
//! engine's calls there is the order of its stages. `SANDBAR_FAILPOINT=name:n` aborts when the point is passed for the
//! n-th time; `SANDBAR_FAILPOINT_HOLD=name:ms` waits so long at each pass of a point. Compiled only with the feature
//! `failpoints`, which no released binary has.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread::ThreadId;
use std::time::Duration;

use anyhow::{Result, bail};
use bytes::Bytes;
use engine::broker::{
    Admin, BrokerError, ClientSupplier, Consumer, GroupMetadata, Membership, OffsetAndMetadata, Polled, Producer,
    ProducerRecord, RebalanceEvent, RestoreConsumer, SendError, StartOffset,
};
use engine::record::{Offset, TopicPartition};
use engine::state::{KeyRange, ReadView, StateStore, StoreError, StoreProvider, Visit, Write};
use engine::topology::{StoreSpec, TaskId};

const VARIABLE: &str = "SANDBAR_FAILPOINT";
const HOLD_VARIABLE: &str = "SANDBAR_FAILPOINT_HOLD";

/// Every point. Those of a dead-letter queue and of a module's exchange come with them.
const POINTS: [&str; 18] = [
    "before-send",
    "after-send",
    "before-drain",
    "after-drain",
    "before-send-offsets",
    "after-send-offsets",
    "before-end-txn",
    "end-txn-sent",
    "after-commit",
    "after-write-batch",
    "before-flush",
    "after-flush",
    "before-revoke",
    "after-revoke",
    "before-restore-batch",
    "after-restore-batch",
    // A store goes from the standby thread to a stream thread, or back.
    "before-handover",
    "after-handover",
];

/// How long after the call that sends it an `EndTxn` request is on its way, at most.
const SENT_WITHIN_US: u64 = 4_000;

struct Failpoint {
    /// Empty for none.
    name: String,
    left: AtomicU64,
    /// The point at which every pass waits, and how long; empty for none.
    held: (String, Duration),
}

thread_local! {
    /// This thread's next writes to stores are those of a commit, and not of a restore.
    static COMMITTED: Cell<bool> = const { Cell::new(false) };
}

impl Failpoint {
    fn from_environment() -> Result<Self> {
        let (name, count) = of_environment(VARIABLE, 1)?;
        let (held, hold_ms) = of_environment(HOLD_VARIABLE, 0)?;
        Ok(Self { name, left: AtomicU64::new(count), held: (held, Duration::from_millis(hold_ms)) })
    }

    /// Whether it is passed for the last time.
    fn is_due(&self, point: &str) -> bool {
        debug_assert!(POINTS.contains(&point), "{point} is in the list");
        point == self.name && self.left.fetch_sub(1, Ordering::Relaxed) == 1
    }

    fn pass(&self, point: &str) {
        if point == self.held.0 {
            std::thread::sleep(self.held.1);
        }
        if self.is_due(point) {
            abort(point);
        }
    }

    /// Aborts a moment later, while the call that follows is under way.
    fn pass_soon(&self, point: &'static str) {
        if self.is_due(point) {
            let moment = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
            let wait = Duration::from_micros(u64::from(moment.subsec_nanos()) % SENT_WITHIN_US);
            std::thread::spawn(move || {
                std::thread::sleep(wait);
                abort(point);
            });
        }
    }
}

/// A point and a number from a variable; an empty name where it is not set.
fn of_environment(variable: &str, default: u64) -> Result<(String, u64)> {
    let text = std::env::var(variable).unwrap_or_default();
    let (name, number) = text.split_once(':').unwrap_or((&text, ""));
    if !name.is_empty() && !POINTS.contains(&name) {
        bail!("{variable}: there is no point {name}; there are {}", POINTS.join(", "));
    }
    if number.is_empty() {
        return Ok((name.to_owned(), default));
    }
    let Ok(number) = number.parse() else { bail!("{variable}: `{number}` is no number") };
    Ok((name.to_owned(), number))
}

fn abort(point: &str) -> ! {
    eprintln!("failpoint {point}");
    std::process::abort()
}

/// The clients and stores with the point of the environment.
///
/// # Errors
/// When the variable names no point.
pub fn wrap(
    clients: Arc<dyn ClientSupplier>,
    stores: Arc<dyn StoreProvider>,
) -> Result<(Arc<dyn ClientSupplier>, Arc<dyn StoreProvider>)> {
    let point = Arc::new(Failpoint::from_environment()?);
    let clients = Clients { inner: clients, point: Arc::clone(&point) };
    Ok((Arc::new(clients), Arc::new(Stores { inner: stores, point, opened: Mutex::default() })))
}

struct Clients {
    inner: Arc<dyn ClientSupplier>,
    point: Arc<Failpoint>,
}

impl ClientSupplier for Clients {
    fn consumer(&self, thread: usize) -> Result<Box<dyn Consumer>, BrokerError> {
        let inner = self.inner.consumer(thread)?;
        Ok(Box::new(PointedConsumer { inner, point: Arc::clone(&self.point), revoking: false }))
    }

    fn restore_consumer(&self, thread: usize) -> Result<Box<dyn RestoreConsumer>, BrokerError> {
        self.inner.restore_consumer(thread)
    }

    fn producer(&self, thread: usize, transactional_id: Option<&str>) -> Result<Box<dyn Producer>, BrokerError> {
        let inner = self.inner.producer(thread, transactional_id)?;
        Ok(Box::new(PointedProducer { inner, point: Arc::clone(&self.point), draining: false }))
    }

    fn admin(&self) -> Result<Box<dyn Admin>, BrokerError> {
        self.inner.admin()
    }

    fn membership(&self) -> Result<Box<dyn Membership>, BrokerError> {
        self.inner.membership()
    }
}

struct PointedProducer {
    inner: Box<dyn Producer>,
    point: Arc<Failpoint>,
    /// Waits were made since the last time that nothing was in flight.
    draining: bool,
}

impl Producer for PointedProducer {
    fn send(&mut self, record: ProducerRecord<'_>) -> Result<(), SendError> {
        self.point.pass("before-send");
        let sent = self.inner.send(record);
        self.point.pass("after-send");
        sent
    }

    fn poll(&mut self, timeout: Duration) -> Result<(), BrokerError> {
        // A wait for reports, and not a glance, is a drain.
        if !self.draining && !timeout.is_zero() && self.inner.in_flight() > 0 {
            self.draining = true;
            self.point.pass("before-drain");
        }
        self.inner.poll(timeout)
    }

    fn in_flight(&self) -> usize {
        self.inner.in_flight()
    }

    fn flush(&mut self, timeout: Duration) -> Result<(), BrokerError> {
        self.inner.flush(timeout)
    }

    fn take_acknowledged(&mut self) -> BTreeMap<TopicPartition, Offset> {
        if std::mem::take(&mut self.draining) {
            self.point.pass("after-drain");
        }
        self.inner.take_acknowledged()
    }

    fn init_transactions(&mut self, timeout: Duration) -> Result<(), BrokerError> {
        self.inner.init_transactions(timeout)
    }

    fn begin_transaction(&mut self) -> Result<(), BrokerError> {
        COMMITTED.set(false);
        self.inner.begin_transaction()
    }

    fn send_offsets(
        &mut self,
        offsets: &[(TopicPartition, OffsetAndMetadata)],
        group: &GroupMetadata,
        timeout: Duration,
    ) -> Result<(), BrokerError> {
        self.point.pass("before-send-offsets");
        self.inner.send_offsets(offsets, group, timeout)?;
        self.point.pass("after-send-offsets");
        Ok(())
    }

    fn commit_transaction(&mut self, timeout: Duration) -> Result<(), BrokerError> {
        self.point.pass("before-end-txn");
        self.point.pass_soon("end-txn-sent");
        self.inner.commit_transaction(timeout)?;
        COMMITTED.set(true);
        self.point.pass("after-commit");
        Ok(())
    }

    fn abort_transaction(&mut self, timeout: Duration) -> Result<(), BrokerError> {
        self.inner.abort_transaction(timeout)
    }
}

struct PointedConsumer {
    inner: Box<dyn Consumer>,
    point: Arc<Failpoint>,
    revoking: bool,
}

impl Consumer for PointedConsumer {
    fn subscribe(&mut self, topics: &[Arc<str>]) -> Result<(), BrokerError> {
        self.inner.subscribe(topics)
    }

    fn poll(&mut self, timeout: Duration, max_records: usize) -> Result<Polled, BrokerError> {
        COMMITTED.set(false);
        let polled = self.inner.poll(timeout, max_records)?;
        if polled.events.iter().any(|event| matches!(event, RebalanceEvent::Revoked(_))) {
            self.revoking = true;
            self.point.pass("before-revoke");
        }
        Ok(polled)
    }

    fn assign(&mut self, partitions: &[(TopicPartition, StartOffset)]) -> Result<(), BrokerError> {
        self.inner.assign(partitions)
    }

    fn unassign(&mut self, partitions: &[TopicPartition]) -> Result<(), BrokerError> {
        // The revoked tasks are committed by now, and not yet given up.
        if std::mem::take(&mut self.revoking) {
            self.point.pass("after-revoke");
        }
        self.inner.unassign(partitions)
    }

    fn pause(&mut self, partitions: &[TopicPartition]) -> Result<(), BrokerError> {
        self.inner.pause(partitions)
    }

    fn resume(&mut self, partitions: &[TopicPartition]) -> Result<(), BrokerError> {
        self.inner.resume(partitions)
    }

    fn seek(&mut self, partition: &TopicPartition, offset: Offset) -> Result<(), BrokerError> {
        self.inner.seek(partition, offset)
    }

    fn position(&mut self, partition: &TopicPartition) -> Result<Option<Offset>, BrokerError> {
        self.inner.position(partition)
    }

    fn end_offset(&mut self, partition: &TopicPartition) -> Result<Option<Offset>, BrokerError> {
        self.inner.end_offset(partition)
    }

    fn committed(&mut self, partitions: &[TopicPartition]) -> Result<Vec<Option<OffsetAndMetadata>>, BrokerError> {
        self.inner.committed(partitions)
    }

    fn commit(&mut self, offsets: &[(TopicPartition, OffsetAndMetadata)]) -> Result<(), BrokerError> {
        self.point.pass("before-send-offsets");
        self.inner.commit(offsets)?;
        COMMITTED.set(true);
        self.point.pass("after-commit");
        Ok(())
    }

    fn group_metadata(&mut self) -> Result<GroupMetadata, BrokerError> {
        self.inner.group_metadata()
    }

    fn close(&mut self) -> Result<(), BrokerError> {
        self.inner.close()
    }
}

struct Stores {
    inner: Arc<dyn StoreProvider>,
    point: Arc<Failpoint>,
    /// The thread that opened a store last.
    opened: Mutex<BTreeMap<(TaskId, Arc<str>), ThreadId>>,
}

impl StoreProvider for Stores {
    fn open(&self, task: TaskId, store: &StoreSpec) -> Result<Box<dyn StateStore>, StoreError> {
        let thread = std::thread::current().id();
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        let before = opened.insert((task, Arc::clone(&store.name)), thread);
        drop(opened);
        let handed_over = before.is_some_and(|before| before != thread);
        if handed_over {
            self.point.pass("before-handover");
        }
        let inner = self.inner.open(task, store)?;
        if handed_over {
            self.point.pass("after-handover");
        }
        Ok(Box::new(PointedStore { inner, point: Arc::clone(&self.point) }))
    }

    fn wipe(&self, task: TaskId, store: &StoreSpec) -> Result<(), StoreError> {
        self.inner.wipe(task, store)
    }
}

struct PointedStore {
    inner: Box<dyn StateStore>,
    point: Arc<Failpoint>,
}

impl StateStore for PointedStore {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.inner.get(key)
    }

    fn get_many(&self, keys: &[&[u8]], found: &mut dyn FnMut(usize, Option<&[u8]>)) -> Result<(), StoreError> {
        self.inner.get_many(keys, found)
    }

    fn scan(&self, range: KeyRange<'_>, reverse: bool, visit: &mut Visit<'_>) -> Result<(), StoreError> {
        self.inner.scan(range, reverse, visit)
    }

    fn write(&mut self, writes: &[Write], changelog_offset: Option<Offset>) -> Result<(), StoreError> {
        if COMMITTED.get() {
            self.inner.write(writes, changelog_offset)?;
            self.point.pass("after-write-batch");
            return Ok(());
        }
        self.point.pass("before-restore-batch");
        self.inner.write(writes, changelog_offset)?;
        self.point.pass("after-restore-batch");
        Ok(())
    }

    fn changelog_offset(&self) -> Result<Option<Offset>, StoreError> {
        self.inner.changelog_offset()
    }

    fn flush(&mut self) -> Result<(), StoreError> {
        self.point.pass("before-flush");
        self.inner.flush()?;
        self.point.pass("after-flush");
        Ok(())
    }

    fn read_view(&self) -> Arc<dyn ReadView> {
        self.inner.read_view()
    }

    fn approximate_entries(&self) -> u64 {
        self.inner.approximate_entries()
    }
}
