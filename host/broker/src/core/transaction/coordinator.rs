//! The requests of transactional producers. Each is done under the lock of its transactional id, so that no batch can
//! slip in behind a marker (KIP-890's hanging transaction); different ids do not wait for each other.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use super::{Transaction, TransactionChange, TransactionImage, TransactionState};
use crate::core::batch::{BatchHeader, Marker};
use crate::core::group::MemberIdentity;
use crate::core::group::offsets::OffsetToCommit;
use crate::core::log::{Appended, TransactionOwner};
use crate::core::metadata::{MetadataRecord, OffsetRecord, TopicId};
use crate::core::refusal::{ErrorCode, Refusal};
use crate::core::{Core, admin, locked, read_locked, write_locked};

/// Partitions whose last stable offset may have moved: readers of committed records that wait there should look again.
pub type Touched = Vec<(TopicId, i32)>;

/// Who asks: a transactional id with the producer id and epoch that it was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TransactionalProducer<'a> {
    pub transactional_id: &'a str,
    pub producer_id: i64,
    pub epoch: i16,
}

/// The last epoch that a producer is given; the one above it is left for fencing it.
const EPOCH_MAX: i16 = i16::MAX - 1;

impl Transaction {
    /// The image, when the producer is the one that owns the id.
    fn owned_by(&self, producer: &TransactionalProducer<'_>) -> Result<&TransactionImage, Refusal> {
        let id = producer.transactional_id;
        let image = self.image.as_ref().filter(|image| image.producer_id == producer.producer_id).ok_or_else(|| {
            let detail = format!("transactional id {id} has no producer {}", producer.producer_id);
            Refusal::new(ErrorCode::InvalidProducerIdMapping, detail)
        })?;
        if image.epoch != producer.epoch {
            let detail = format!(
                "transactional id {id}: producer {} has epoch {}, found {}: another producer took the id, or the \
                 transaction timed out",
                image.producer_id, image.epoch, producer.epoch
            );
            return Err(Refusal::new(ErrorCode::ProducerFenced, detail));
        }
        Ok(image)
    }
}

fn invalid_state(id: &str, state: TransactionState, asked: &str) -> Refusal {
    let detail = format!("the transaction of {id} is in state {}: {asked} is not possible", state.name());
    Refusal::new(ErrorCode::InvalidTxnState, detail)
}

impl Core {
    pub(super) fn transaction(&self, id: &str) -> Option<Arc<Mutex<Transaction>>> {
        read_locked(&self.transactions).get(id).cloned()
    }

    fn transaction_of(&self, producer: &TransactionalProducer<'_>) -> Result<Arc<Mutex<Transaction>>, Refusal> {
        self.transaction(producer.transactional_id).ok_or_else(|| {
            let detail = format!("there is no transactional id {}", producer.transactional_id);
            Refusal::new(ErrorCode::InvalidProducerIdMapping, detail)
        })
    }

    /// Keeps a change, then makes it visible.
    fn change_transaction(
        &self,
        id: &str,
        transaction: &mut Transaction,
        change: TransactionChange,
    ) -> Result<(), Refusal> {
        let record = MetadataRecord::Transaction { transactional_id: id.to_owned(), change };
        self.storage.append_metadata(std::slice::from_ref(&record))?;
        if let MetadataRecord::Transaction { change, .. } = &record {
            TransactionImage::apply(&mut transaction.image, change);
        }
        Ok(())
    }

    /// Gives a transactional id to a producer: aborts what an older one left open and fences it. `expected` is the
    /// producer id and epoch that the caller had before, if any (KIP-360): it must not be fenced then.
    ///
    /// # Errors
    /// A timeout of 0 or less or above `transaction.max.timeout.ms`, an older producer that asks for a newer epoch, a
    /// transaction that is still ending because the disk is full, a failed write.
    pub fn init_transactional_producer(
        &self,
        now_ms: i64,
        id: &str,
        timeout_ms: i32,
        expected: Option<(i64, i16)>,
    ) -> Result<(TransactionOwner, Touched), Refusal> {
        if id.is_empty() {
            return Err(Refusal::new(ErrorCode::InvalidRequest, "a transactional id has at least one character"));
        }
        let most = self.options.max_transaction_timeout_ms;
        if timeout_ms <= 0 || timeout_ms > most {
            let detail = format!("transactional id {id}: a timeout of 1 to {most} ms, found {timeout_ms}");
            return Err(Refusal::new(ErrorCode::InvalidTransactionTimeout, detail));
        }
        let known = self.transaction(id);
        let known =
            known.unwrap_or_else(|| Arc::clone(write_locked(&self.transactions).entry(id.to_owned()).or_default()));
        let mut transaction = locked(&known);
        if let Some(image) = &transaction.image
            && let Some(expected) = expected
            && let Some(repeated) = check_expected(id, image, expected)?
        {
            return Ok((repeated, Vec::new()));
        }
        let mut touched = Vec::new();
        self.abort_open(now_ms, id, &mut transaction, expected, &mut touched)?;
        let (next, last) = match &transaction.image {
            None => (TransactionOwner { producer_id: self.next_producer_id()?, epoch: 0 }, None),
            Some(image) if image.epoch >= EPOCH_MAX => {
                let fresh = TransactionOwner { producer_id: self.next_producer_id()?, epoch: 0 };
                (fresh, Some((image.producer_id, image.epoch)))
            }
            Some(image) => {
                let next = TransactionOwner { producer_id: image.producer_id, epoch: image.epoch + 1 };
                (next, expected)
            }
        };
        let change = TransactionChange::Initialized {
            producer_id: next.producer_id,
            epoch: next.epoch,
            last,
            timeout_ms,
            at_ms: now_ms,
        };
        self.change_transaction(id, &mut transaction, change)?;
        transaction.deadline_ms = None;
        Ok((next, touched))
    }

    /// Aborts what is open, and finishes what is decided. `last` is the producer that asked for it, if it named itself.
    fn abort_open(
        &self,
        now_ms: i64,
        id: &str,
        transaction: &mut Transaction,
        last: Option<(i64, i16)>,
        touched: &mut Touched,
    ) -> Result<(), Refusal> {
        let Some(image) = &transaction.image else { return Ok(()) };
        if image.state == TransactionState::Ongoing {
            let epoch = image.epoch.saturating_add(1);
            let change = TransactionChange::Decided { commit: false, epoch, last, at_ms: now_ms };
            self.change_transaction(id, transaction, change)?;
        }
        self.finish_transaction(now_ms, id, transaction, touched)
    }

    /// Adds partitions to the open transaction, or opens one with them: all or none of them.
    ///
    /// # Errors
    /// For all: a producer that does not own the id, a transaction that is ending, a failed write. For each: a
    /// partition that does not exist, and then `OperationNotAttempted` for the others.
    pub fn add_partitions_to_transaction(
        &self,
        now_ms: i64,
        producer: &TransactionalProducer<'_>,
        partitions: &[(&str, i32)],
    ) -> Result<Vec<Result<(), Refusal>>, Refusal> {
        let known = self.transaction_of(producer)?;
        let mut transaction = locked(&known);
        self.settle(now_ms, producer.transactional_id, &mut transaction)?;
        let image = transaction.owned_by(producer)?;
        let ids: Vec<Result<(TopicId, i32), Refusal>> = partitions
            .iter()
            .map(|&(topic, index)| {
                let found = self.partition(topic, index)?;
                Ok((found.partition.topic_id, index))
            })
            .collect();
        if ids.iter().any(Result::is_err) {
            let detail = "another partition of the request does not exist";
            let not_attempted = || Refusal::new(ErrorCode::OperationNotAttempted, detail);
            return Ok(ids.into_iter().map(|found| Err(found.err().unwrap_or_else(not_attempted))).collect());
        }
        let asked: BTreeSet<(TopicId, i32)> = ids.iter().flatten().copied().collect();
        let is_open = image.state == TransactionState::Ongoing;
        let added: Vec<_> =
            asked.into_iter().filter(|partition| !(is_open && image.partitions.contains(partition))).collect();
        if !added.is_empty() {
            self.extend_transaction(now_ms, producer.transactional_id, &mut transaction, added, Vec::new())?;
        }
        Ok(vec![Ok(()); partitions.len()])
    }

    /// Adds a group whose offsets are going to be committed with the transaction, or opens one with it.
    pub fn add_offsets_to_transaction(
        &self,
        now_ms: i64,
        producer: &TransactionalProducer<'_>,
        group: &str,
    ) -> Result<(), Refusal> {
        let known = self.transaction_of(producer)?;
        let mut transaction = locked(&known);
        self.settle(now_ms, producer.transactional_id, &mut transaction)?;
        let image = transaction.owned_by(producer)?;
        if image.state == TransactionState::Ongoing && image.groups.contains(group) {
            return Ok(());
        }
        self.extend_transaction(now_ms, producer.transactional_id, &mut transaction, Vec::new(), vec![group.to_owned()])
    }

    fn extend_transaction(
        &self,
        now_ms: i64,
        id: &str,
        transaction: &mut Transaction,
        partitions: Vec<(TopicId, i32)>,
        groups: Vec<String>,
    ) -> Result<(), Refusal> {
        let change = TransactionChange::Extended { partitions, groups, at_ms: now_ms };
        self.change_transaction(id, transaction, change)?;
        if let (Some(image), None) = (&transaction.image, transaction.deadline_ms) {
            transaction.deadline_ms = Some(now_ms.saturating_add(i64::from(image.timeout_ms)));
        }
        Ok(())
    }

    /// Keeps offsets that become the group's when the transaction commits: the answer of each, in the order asked.
    ///
    /// # Errors
    /// A producer that does not own the id, a group that was not added to the open transaction, a member or generation
    /// that the group does not have (KIP-447), a failed write.
    pub fn commit_transaction_offsets(
        &self,
        now_ms: i64,
        producer: &TransactionalProducer<'_>,
        group: &str,
        member: &MemberIdentity,
        offsets: Vec<OffsetToCommit>,
    ) -> Result<Vec<Result<(), Refusal>>, Refusal> {
        let id = producer.transactional_id;
        let known = self.transaction_of(producer)?;
        let mut transaction = locked(&known);
        let image = transaction.owned_by(producer)?;
        if image.state != TransactionState::Ongoing || !image.groups.contains(group) {
            let detail = format!("group {group} is not part of an open transaction of {id}");
            return Err(Refusal::new(ErrorCode::InvalidTxnState, detail));
        }
        let topics = read_locked(&self.topics);
        let mut groups = locked(&self.groups);
        groups.check_transactional_commit(now_ms, group, member)?;
        let mut results = Vec::with_capacity(offsets.len());
        let mut accepted = Vec::with_capacity(offsets.len());
        let mut topic_ids = BTreeMap::new();
        for offset in offsets {
            let found = topics.get(&offset.topic).filter(|topic| topic.partition(offset.partition).is_some());
            let checked = match found {
                Some(_) => groups.check_offset(&offset),
                None => Err(admin::unknown_partition(&offset.topic, offset.partition)),
            };
            if checked.is_ok() {
                topic_ids.extend(found.map(|topic| (offset.topic.clone(), topic.id)));
                accepted.push(offset.into_record(now_ms));
            }
            results.push(checked);
        }
        if !accepted.is_empty() {
            let partitions: Vec<_> = accepted.iter().map(|one| (one.topic.clone(), one.partition)).collect();
            let change =
                TransactionChange::OffsetsAdded { group: group.to_owned(), offsets: accepted, topics: topic_ids };
            self.change_transaction(id, &mut transaction, change)?;
            groups.hold_offsets(group, id, partitions);
        }
        Ok(results)
    }

    /// Commits or aborts. The answer means that the decision is kept; the transaction then ends by itself, at once
    /// unless the disk is full. A repeated request gets the same answer.
    ///
    /// # Errors
    /// A producer that does not own the id, nothing to end, the opposite of what was decided, a failed write.
    pub fn end_transaction(
        &self,
        now_ms: i64,
        producer: &TransactionalProducer<'_>,
        commit: bool,
    ) -> Result<Touched, Refusal> {
        let id = producer.transactional_id;
        let known = self.transaction_of(producer)?;
        let mut transaction = locked(&known);
        let image = transaction.owned_by(producer)?;
        match (image.state, commit) {
            (TransactionState::Ongoing, _) => {
                let change = TransactionChange::Decided { commit, epoch: image.epoch, last: None, at_ms: now_ms };
                self.change_transaction(id, &mut transaction, change)?;
            }
            (TransactionState::CompleteCommit, true) | (TransactionState::CompleteAbort, false) => {
                return Ok(Vec::new());
            }
            (TransactionState::PrepareCommit, true) | (TransactionState::PrepareAbort, false) => {}
            (state, commit) => return Err(invalid_state(id, state, if commit { "a commit" } else { "an abort" })),
        }
        let mut touched = Vec::new();
        if let Err(error) = self.finish_transaction(now_ms, id, &mut transaction, &mut touched) {
            tracing::warn!(%error, transactional_id = id, "a decided transaction could not be finished; tried again");
        }
        Ok(touched)
    }

    /// Finishes a decided transaction before something new is asked of its id.
    ///
    /// # Errors
    /// `ConcurrentTransactions` when that is still not possible.
    fn settle(&self, now_ms: i64, id: &str, transaction: &mut Transaction) -> Result<(), Refusal> {
        let state = transaction.image.as_ref().map_or(TransactionState::Empty, |image| image.state);
        // Readers that wait are woken by their own deadline: it was the disk that they waited for.
        self.finish_transaction(now_ms, id, transaction, &mut Vec::new()).map_err(|error| {
            let detail = format!("the transaction of {id} is still in state {}: {error}; try again", state.name());
            Refusal::new(ErrorCode::ConcurrentTransactions, detail)
        })
    }

    /// Does what a decision asks for: markers, then offsets and the end together. Safe to do again after a failure;
    /// `touched` has what was done until then.
    fn finish_transaction(
        &self,
        now_ms: i64,
        id: &str,
        transaction: &mut Transaction,
        touched: &mut Touched,
    ) -> Result<(), Refusal> {
        let Some(image) = transaction.image.as_ref().filter(|image| image.state.is_prepared()) else {
            return Ok(());
        };
        let commit = image.state == TransactionState::PrepareCommit;
        let marker = if commit { Marker::Commit } else { Marker::Abort };
        for &(topic_id, index) in image.partitions.difference(&transaction.marked.clone()) {
            // A topic that was deleted meanwhile takes its part of the transaction with it.
            let Some(topic) = self.topic_by_id(topic_id) else { continue };
            if let Some(partition) = topic.partition(index) {
                partition.log().append_marker(image.owner(), marker, &topic.limits, now_ms)?;
                transaction.marked.insert((topic_id, index));
                touched.push((topic_id, index));
            }
        }
        let done = TransactionChange::Done { at_ms: now_ms };
        self.keep_end(id, image, commit, done.clone())?;
        TransactionImage::apply(&mut transaction.image, &done);
        transaction.marked.clear();
        transaction.deadline_ms = None;
        Ok(())
    }

    /// Keeps the offsets of a committed transaction and its end in one piece.
    fn keep_end(
        &self,
        id: &str,
        image: &TransactionImage,
        commit: bool,
        done: TransactionChange,
    ) -> Result<(), Refusal> {
        let topics = read_locked(&self.topics);
        let mut groups = locked(&self.groups);
        let mut records = Vec::new();
        for (group, offsets) in image.offsets.iter().filter(|_| commit) {
            let is_there = |topic: &str, index: i32, id: TopicId| {
                topics.get(topic).is_some_and(|found| found.id == id && found.partition(index).is_some())
            };
            let offsets = offsets.iter().filter(|((topic, index), offset)| is_there(topic, *index, offset.topic_id));
            let offsets = offsets.map(|((topic, partition), offset)| OffsetRecord {
                topic: topic.clone(),
                partition: *partition,
                committed: offset.committed.clone(),
            });
            records.push(MetadataRecord::OffsetsCommitted { group: group.clone(), offsets: offsets.collect() });
        }
        records.push(MetadataRecord::Transaction { transactional_id: id.to_owned(), change: done });
        self.storage.append_metadata(&records)?;
        records.iter().for_each(|record| groups.apply(record));
        groups.release_offsets(id);
        Ok(())
    }

    /// Appends a batch of a transactional producer.
    ///
    /// # Errors
    /// As `PartitionLog::append`; a producer that does not own the id, a partition that was not added to the open
    /// transaction.
    pub fn append_in_transaction(
        &self,
        now_ms: i64,
        transactional_id: &str,
        topic: &str,
        partition: i32,
        batch: &[u8],
    ) -> Result<(TopicId, Appended), Refusal> {
        let header = BatchHeader::read(batch).filter(BatchHeader::is_transactional);
        let handle = self.partition(topic, partition)?;
        let Some(header) = header else { return Ok((handle.partition.topic_id, handle.append(batch, now_ms)?)) };
        let producer =
            TransactionalProducer { transactional_id, producer_id: header.producer_id, epoch: header.producer_epoch };
        let checked = handle.check(batch)?;
        let known = self.transaction_of(&producer)?;
        let transaction = locked(&known);
        // Kafka answers a produce with the older code; clients know it as being fenced.
        let image = transaction.owned_by(&producer).map_err(|refusal| match refusal.code {
            ErrorCode::ProducerFenced => Refusal::new(ErrorCode::InvalidProducerEpoch, refusal.detail),
            _ => refusal,
        })?;
        let place = (handle.partition.topic_id, partition);
        if image.state != TransactionState::Ongoing || !image.partitions.contains(&place) {
            let detail = format!("{topic}-{partition} is not part of an open transaction of {transactional_id}");
            return Err(Refusal::new(ErrorCode::InvalidTxnState, detail));
        }
        let appended = handle.partition.log().append_checked(&checked, &handle.limits, now_ms, Some(image.owner()))?;
        Ok((handle.partition.topic_id, appended))
    }

    /// Lets time pass for transactions: finishes decided ones, aborts open ones that timed out (and fences their
    /// producers), forgets ids that were not used for `transactional.id.expiration.ms`.
    pub fn tick_transactions(&self, now_ms: i64) -> Touched {
        let known: Vec<_> =
            read_locked(&self.transactions).iter().map(|(id, one)| (id.clone(), Arc::clone(one))).collect();
        let mut touched = Vec::new();
        for (id, one) in known {
            if let Err(error) = self.tick_transaction(now_ms, &id, &mut locked(&one), &mut touched) {
                tracing::warn!(%error, transactional_id = %id, "a transaction waits for the disk");
            }
        }
        // One that somebody else holds is in use.
        write_locked(&self.transactions).retain(|_, one| Arc::strong_count(one) > 1 || locked(one).image.is_some());
        touched
    }

    fn tick_transaction(
        &self,
        now_ms: i64,
        id: &str,
        transaction: &mut Transaction,
        touched: &mut Touched,
    ) -> Result<(), Refusal> {
        let Some(image) = &transaction.image else { return Ok(()) };
        match image.state {
            TransactionState::Ongoing => {
                let deadline_ms = now_ms.saturating_add(i64::from(image.timeout_ms));
                let deadline_ms = *transaction.deadline_ms.get_or_insert(deadline_ms);
                if now_ms < deadline_ms {
                    return Ok(());
                }
                tracing::info!(transactional_id = id, timeout_ms = image.timeout_ms, "a transaction timed out");
                self.abort_open(now_ms, id, transaction, None, touched)
            }
            TransactionState::PrepareCommit | TransactionState::PrepareAbort => {
                self.finish_transaction(now_ms, id, transaction, touched)
            }
            _ if now_ms.saturating_sub(image.updated_ms) > self.options.transactional_id_expiration_ms => {
                self.change_transaction(id, transaction, TransactionChange::Forgotten)
            }
            _ => Ok(()),
        }
    }

    /// When `tick_transactions` has something to do next, apart from forgetting old ids.
    pub fn next_transaction_deadline(&self) -> Option<i64> {
        let known: Vec<_> = read_locked(&self.transactions).values().cloned().collect();
        known
            .iter()
            .filter_map(|one| {
                let transaction = locked(one);
                match transaction.image.as_ref()?.state {
                    TransactionState::Ongoing => Some(transaction.deadline_ms.unwrap_or(i64::MIN)),
                    state if state.is_prepared() => Some(i64::MIN),
                    _ => None,
                }
            })
            .min()
    }
}

/// What a producer that names its last id and epoch gets: `None` = a new epoch, else the answer that it got before. One
/// whose earlier request aborted its transaction and failed then is not fenced by that.
fn check_expected(
    id: &str,
    image: &TransactionImage,
    expected: (i64, i16),
) -> Result<Option<TransactionOwner>, Refusal> {
    if expected == (image.producer_id, image.epoch) {
        return Ok(None);
    }
    if Some(expected) == image.last {
        let is_answered = image.state == TransactionState::Empty;
        return Ok(is_answered.then(|| image.owner()));
    }
    let detail = format!(
        "transactional id {id}: producer {} has epoch {}, found producer {} epoch {}: another producer took the id",
        image.producer_id, image.epoch, expected.0, expected.1
    );
    Err(Refusal::new(ErrorCode::ProducerFenced, detail))
}
