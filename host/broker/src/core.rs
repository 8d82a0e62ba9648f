//! The broker as a state machine: topics with their logs, idempotent producers, consumer groups and their offsets.
//! Requests in, answers out; time is an argument, bytes are kept through the `Storage` seam. No clock, no threads, no
//! randomness, no IO of its own, so that the same requests give the same answers. `Core` may be shared between threads:
//! topics, transactional ids, each partition and the groups have locks of their own, taken in this order: topics, topic
//! number, partition, groups, producer ids. The cleaner's lock comes before all of them, and so do the map of
//! transactional ids and then one id's.

pub mod admin;
pub mod batch;
pub mod cleaner;
pub mod group;
pub mod log;
pub mod memory;
pub mod metadata;
pub mod producer_state;
pub mod refusal;
pub mod storage;
pub mod topic_config;
pub mod topics;
pub mod transaction;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use cleaner::{Cleaner, CleanerOptions};
use group::offsets::OffsetToCommit;
use group::{GroupDescription, GroupOptions, Groups, JoinRequest, MemberIdentity, Outcome, SyncRequest, Waiter};
use log::{Appended, CheckedBatch, Fetched, IsolationLevel, LogBounds, LogLimits, Recovery};
use metadata::{CommittedOffset, MetadataRecord, OffsetImage, TopicId};
use refusal::Refusal;
use storage::{Storage, StorageError};
use topics::{Partition, Topic, Topics};
use transaction::Transaction;

/// Producer ids that are set aside at once; those not given out before a restart are skipped.
const PRODUCER_ID_BLOCK: i64 = 1_000;

/// What the core is told once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CoreOptions {
    /// Partitions of a topic that is made without a count.
    pub default_partitions: i32,
    /// The most partitions of one topic.
    pub max_partitions: i32,
    /// Upper half of every topic id; different for each broker folder.
    pub topic_id_seed: u64,
    pub groups: GroupOptions,
    /// `producer.id.expiration.ms`.
    pub producer_expiration_ms: i64,
    /// `transaction.max.timeout.ms`.
    pub max_transaction_timeout_ms: i32,
    /// `transactional.id.expiration.ms`.
    pub transactional_id_expiration_ms: i64,
    pub cleaner: CleanerOptions,
}

impl Default for CoreOptions {
    fn default() -> Self {
        Self {
            default_partitions: 1,
            max_partitions: 10_000,
            topic_id_seed: 1,
            groups: GroupOptions::default(),
            producer_expiration_ms: 86_400_000,
            max_transaction_timeout_ms: 900_000,
            transactional_id_expiration_ms: 604_800_000,
            cleaner: CleanerOptions::default(),
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct ProducerIds {
    next: i64,
    /// Ids below this one are set aside.
    limit: i64,
}

/// The broker.
pub struct Core {
    options: CoreOptions,
    storage: Arc<dyn Storage>,
    topics: RwLock<Topics>,
    next_topic: Mutex<u64>,
    groups: Mutex<Groups>,
    producer_ids: Mutex<ProducerIds>,
    transactions: RwLock<BTreeMap<String, Arc<Mutex<Transaction>>>>,
    cleaner: Mutex<Cleaner>,
}

impl std::fmt::Debug for Core {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Core").field("options", &self.options).finish_non_exhaustive()
    }
}

// State behind these locks changes only after what must not fail was done, so a panic elsewhere leaves it whole.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn read_locked<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

fn write_locked<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}

/// A partition with the settings of its topic at the time it was looked up.
#[derive(Debug, Clone)]
pub struct PartitionHandle {
    pub partition: Arc<Partition>,
    pub limits: Arc<LogLimits>,
}

impl PartitionHandle {
    /// Appends exactly one record batch outside of any transaction; see `PartitionLog::append`. One that may belong to
    /// a transaction goes through `Core::append_in_transaction`.
    pub fn append(&self, batch: &[u8], now_ms: i64) -> Result<Appended, Refusal> {
        let checked = self.check(batch)?;
        self.partition.log().append_checked(&checked, &self.limits, now_ms, None)
    }

    /// Checks a batch for this partition, without its lock.
    fn check<'a>(&self, batch: &'a [u8]) -> Result<CheckedBatch<'a>, Refusal> {
        CheckedBatch::new(batch, &self.limits).map_err(|refusal| {
            let (topic, index) = (&self.partition.topic, self.partition.index);
            Refusal::new(refusal.code, format!("append to {topic}-{index}: {}", refusal.detail))
        })
    }

    /// Reads whole batches; see `PartitionLog::read`.
    pub fn read(
        &self,
        offset: i64,
        max_bytes: usize,
        at_least_one: bool,
        isolation: IsolationLevel,
    ) -> Result<Fetched, Refusal> {
        self.partition.log().read(offset, max_bytes, at_least_one, isolation)
    }

    pub fn bounds(&self) -> LogBounds {
        self.partition.log().bounds()
    }

    /// The first offset at or after this timestamp, with its timestamp.
    pub fn offset_for_timestamp(&self, timestamp: i64) -> Result<Option<(i64, i64)>, Refusal> {
        self.partition.log().offset_for_timestamp(timestamp)
    }
}

impl Core {
    /// Opens the broker on what its storage holds, and says what was cut from torn logs. Transactions whose end was
    /// decided are finished by the first `tick_transactions`, or by their producer's next request.
    pub fn open(options: CoreOptions, storage: Arc<dyn Storage>) -> Result<(Self, Vec<Recovery>), StorageError> {
        let image = storage.load_metadata()?;
        let incarnation = image.incarnation + 1;
        // On a full disk the broker still starts, so that what it has can be read and deleted.
        if let Err(error) = storage.append_metadata(&[MetadataRecord::Started { incarnation }]) {
            tracing::warn!(%error, "the broker starts, but cannot write");
        }
        let (topics, recoveries) = Topics::open(storage.as_ref(), &image)?;
        let mut groups = Groups::new(options.groups.clone(), incarnation, image.groups);
        let mut transactions = BTreeMap::new();
        for (id, image) in image.transactions {
            for (group, offsets) in &image.offsets {
                groups.hold_offsets(group, &id, offsets.keys().cloned().collect());
            }
            transactions.insert(id, Arc::new(Mutex::new(Transaction::new(image))));
        }
        let core = Self {
            topics: RwLock::new(topics),
            next_topic: Mutex::new(image.next_topic),
            groups: Mutex::new(groups),
            transactions: RwLock::new(transactions),
            producer_ids: Mutex::new(ProducerIds { next: image.next_producer_id, limit: image.next_producer_id }),
            cleaner: Mutex::new(Cleaner::default()),
            options,
            storage,
        };
        Ok((core, recoveries))
    }

    pub fn options(&self) -> &CoreOptions {
        &self.options
    }

    /// A topic as it is now; cheap, its partitions are shared.
    pub fn topic(&self, name: &str) -> Option<Topic> {
        read_locked(&self.topics).get(name).cloned()
    }

    pub fn topic_by_id(&self, id: TopicId) -> Option<Topic> {
        let topics = read_locked(&self.topics);
        topics.name_of(id).and_then(|name| topics.get(name)).cloned()
    }

    /// Every topic, by name.
    pub fn topics(&self) -> Vec<Topic> {
        read_locked(&self.topics).iter().cloned().collect()
    }

    /// A partition to append to and to read from.
    ///
    /// # Errors
    /// `UnknownTopicOrPartition`.
    pub fn partition(&self, topic: &str, partition: i32) -> Result<PartitionHandle, Refusal> {
        let topics = read_locked(&self.topics);
        let found = topics.get(topic).ok_or_else(|| admin::unknown_topic(topic))?;
        let partition = found.partition(partition).ok_or_else(|| admin::unknown_partition(topic, partition))?;
        Ok(PartitionHandle { partition: Arc::clone(partition), limits: Arc::clone(&found.limits) })
    }

    /// Gives an idempotent producer without a transactional id its id; its epoch is 0.
    pub fn init_producer_id(&self) -> Result<(i64, i16), Refusal> {
        Ok((self.next_producer_id()?, 0))
    }

    fn next_producer_id(&self) -> Result<i64, Refusal> {
        let mut ids = locked(&self.producer_ids);
        if ids.next >= ids.limit {
            let limit = ids.next + PRODUCER_ID_BLOCK;
            self.storage.append_metadata(&[MetadataRecord::NextProducerId { number: limit }])?;
            ids.limit = limit;
        }
        let id = ids.next;
        ids.next += 1;
        Ok(id)
    }

    /// Keeps what a group call changed. When that fails the group goes on in memory: a generation that is not kept
    /// is no loss, since its members do not survive the broker either.
    fn keep_group(&self, outcome: &mut Outcome) {
        if !outcome.records.is_empty()
            && let Err(error) = self.storage.append_metadata(&outcome.records)
        {
            tracing::warn!(%error, "a group's generation was not kept; it starts anew after a restart");
        }
    }

    /// Joins a member to a group. The outcome has the answers that became ready, perhaps of other waiters.
    pub fn join_group(&self, now_ms: i64, waiter: Waiter, request: JoinRequest) -> Outcome {
        let mut groups = locked(&self.groups);
        let mut outcome = groups.join(now_ms, waiter, request);
        self.keep_group(&mut outcome);
        outcome
    }

    /// Asks for a member's assignment.
    pub fn sync_group(&self, now_ms: i64, waiter: Waiter, request: SyncRequest) -> Outcome {
        let mut groups = locked(&self.groups);
        let mut outcome = groups.sync(now_ms, waiter, request);
        self.keep_group(&mut outcome);
        outcome
    }

    pub fn heartbeat(&self, now_ms: i64, group: &str, member: &MemberIdentity) -> Result<(), Refusal> {
        locked(&self.groups).heartbeat(now_ms, group, member)
    }

    /// Removes a member at its own wish.
    pub fn leave_group(
        &self,
        now_ms: i64,
        group: &str,
        member_id: &str,
        instance_id: Option<&str>,
    ) -> (Result<(), Refusal>, Outcome) {
        let mut groups = locked(&self.groups);
        let (result, mut outcome) = groups.leave(now_ms, group, member_id, instance_id);
        self.keep_group(&mut outcome);
        (result, outcome)
    }

    /// Lets time pass for groups.
    pub fn tick_groups(&self, now_ms: i64) -> Outcome {
        let mut groups = locked(&self.groups);
        let mut outcome = groups.tick(now_ms);
        self.keep_group(&mut outcome);
        outcome
    }

    /// When `tick_groups` has something to do next.
    pub fn next_group_deadline(&self) -> Option<i64> {
        locked(&self.groups).next_deadline()
    }

    /// Forgets a waiting request whose client is gone.
    pub fn forget_waiter(&self, now_ms: i64, waiter: Waiter) {
        locked(&self.groups).forget(now_ms, waiter);
    }

    /// Commits offsets: the answer of each, in the order asked.
    ///
    /// # Errors
    /// When nothing of it may be committed (generation, member, rebalance, a failed write).
    pub fn commit_offsets(
        &self,
        now_ms: i64,
        group: &str,
        member: &MemberIdentity,
        offsets: Vec<OffsetToCommit>,
    ) -> Result<Vec<Result<(), Refusal>>, Refusal> {
        // Topics stay locked, so that no offset is kept for a topic that is being deleted.
        let topics = read_locked(&self.topics);
        let mut groups = locked(&self.groups);
        groups.check_commit(now_ms, group, member)?;
        let mut results = Vec::with_capacity(offsets.len());
        let mut accepted = Vec::with_capacity(offsets.len());
        for offset in offsets {
            let known = topics.get(&offset.topic).is_some_and(|topic| topic.partition(offset.partition).is_some());
            let checked = match known {
                true => groups.check_offset(&offset),
                false => Err(admin::unknown_partition(&offset.topic, offset.partition)),
            };
            if checked.is_ok() {
                accepted.push(offset);
            }
            results.push(checked);
        }
        if !accepted.is_empty() {
            let record = Groups::commit_record(now_ms, group, accepted);
            self.storage.append_metadata(std::slice::from_ref(&record))?;
            groups.apply(&record);
        }
        Ok(results)
    }

    /// A committed offset.
    pub fn committed_offset(&self, group: &str, topic: &str, partition: i32) -> Option<CommittedOffset> {
        locked(&self.groups).committed(group, topic, partition).cloned()
    }

    /// Whether an open transaction is going to commit an offset for this partition.
    pub fn is_offset_unstable(&self, group: &str, topic: &str, partition: i32) -> bool {
        locked(&self.groups).is_offset_held(group, topic, partition)
    }

    /// Every committed offset of a group.
    pub fn committed_offsets(&self, group: &str) -> OffsetImage {
        locked(&self.groups).all_committed(group)
    }

    /// Forgets committed offsets of a group without members.
    pub fn delete_offsets(&self, group: &str, partitions: Vec<(String, i32)>) -> Result<(), Refusal> {
        let mut groups = locked(&self.groups);
        let record = groups.delete_offsets(group, partitions)?;
        self.storage.append_metadata(std::slice::from_ref(&record))?;
        groups.apply(&record);
        Ok(())
    }

    pub fn groups(&self) -> Vec<GroupDescription> {
        locked(&self.groups).list()
    }

    pub fn group(&self, group: &str) -> Option<GroupDescription> {
        locked(&self.groups).describe(group)
    }

    /// Forgets a group without members.
    pub fn delete_group(&self, group: &str) -> Result<(), Refusal> {
        let mut groups = locked(&self.groups);
        let record = groups.delete(group)?;
        self.storage.append_metadata(std::slice::from_ref(&record))?;
        groups.apply(&record);
        Ok(())
    }

    /// Forgets idempotent producers that were silent for `producer.id.expiration.ms`. To be called now and then.
    pub fn expire_producers(&self, now_ms: i64) {
        for topic in self.topics() {
            for partition in &topic.partitions {
                partition.log().expire_producers(now_ms, self.options.producer_expiration_ms);
            }
        }
    }

    /// Summarizes every log, so that the next start need not scan. To be called before the end.
    pub fn summarize_logs(&self) {
        for topic in self.topics() {
            for partition in &topic.partitions {
                partition.log().summarize();
            }
        }
    }

    /// Bytes of records kept, by topic.
    pub fn size_bytes(&self) -> BTreeMap<Arc<str>, u64> {
        let size = |topic: Topic| (topic.name, topic.partitions.iter().map(|found| found.log().size_bytes()).sum());
        self.topics().into_iter().map(size).collect()
    }
}

#[cfg(test)]
mod tests;
