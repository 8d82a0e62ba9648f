//! Commits, aborts, fencing, timeouts, and what of them a restart or a crash leaves.

mod model;

use std::sync::Arc;

use super::*;
use crate::core::admin::NewTopic;
use crate::core::batch::build::{NewRecord, ProducerStamp, batch_of};
use crate::core::group::MemberIdentity;
use crate::core::group::offsets::OffsetToCommit;
use crate::core::log::{Fetched, IsolationLevel};
use crate::core::memory::MemoryStorage;
use crate::core::metadata::MetadataImage;
use crate::core::refusal::{ErrorCode, Refusal};
use crate::core::storage::Storage;
use crate::core::{Core, CoreOptions};

const TIMEOUT_MS: i32 = 1_000;

fn open(storage: &MemoryStorage) -> Core {
    Core::open(CoreOptions::default(), Arc::new(storage.clone())).unwrap().0
}

/// A broker with topics `in` and `out` of two partitions each.
fn broker(storage: &MemoryStorage) -> Core {
    let core = open(storage);
    for name in ["in", "out"] {
        let topic = NewTopic { name: name.into(), partitions: 2, ..NewTopic::default() };
        core.create_topic(&topic, false).unwrap();
    }
    core
}

/// A transactional client as a test needs it: it keeps the sequence number of one partition, `out-0`.
struct Client<'a> {
    id: &'a str,
    owner: TransactionOwner,
    sequence: i32,
}

impl<'a> Client<'a> {
    fn init(core: &Core, id: &'a str, now_ms: i64) -> Self {
        let (owner, _) = core.init_transactional_producer(now_ms, id, TIMEOUT_MS, None).unwrap();
        Self { id, owner, sequence: 0 }
    }

    fn producer(&self) -> TransactionalProducer<'a> {
        let TransactionOwner { producer_id, epoch } = self.owner;
        TransactionalProducer { transactional_id: self.id, producer_id, epoch }
    }

    fn add(&self, core: &Core, now_ms: i64) -> Result<(), Refusal> {
        let results = core.add_partitions_to_transaction(now_ms, &self.producer(), &[("out", 0)])?;
        results.into_iter().collect()
    }

    /// One record to `out-0`, in the transaction.
    fn send(&mut self, core: &Core, value: &str) -> Result<i64, Refusal> {
        let stamp = ProducerStamp {
            producer_id: self.owner.producer_id,
            epoch: self.owner.epoch,
            base_sequence: self.sequence,
            transactional: true,
        };
        let record = NewRecord { timestamp: 7, value: Some(value.as_bytes()), ..NewRecord::default() };
        let batch = batch_of(Some(stamp), &[record]);
        let (_, appended) = core.append_in_transaction(0, self.id, "out", 0, &batch)?;
        self.sequence += 1;
        Ok(appended.base_offset)
    }

    fn send_offset(&self, core: &Core, now_ms: i64, offset: i64) -> Result<(), Refusal> {
        core.add_offsets_to_transaction(now_ms, &self.producer(), "g")?;
        self.commit_offset(core, now_ms, offset, &nobody())
    }

    fn commit_offset(&self, core: &Core, now_ms: i64, offset: i64, member: &MemberIdentity) -> Result<(), Refusal> {
        let offsets = vec![OffsetToCommit {
            topic: "in".into(),
            partition: 0,
            offset,
            leader_epoch: -1,
            metadata: format!("at {offset}"),
        }];
        let results = core.commit_transaction_offsets(now_ms, &self.producer(), "g", member, offsets)?;
        results.into_iter().collect()
    }

    fn end(&self, core: &Core, commit: bool) -> Result<(), Refusal> {
        core.end_transaction(0, &self.producer(), commit).map(drop)
    }
}

fn nobody() -> MemberIdentity {
    MemberIdentity { generation: -1, member_id: String::new(), instance_id: None }
}

fn committed(core: &Core) -> Option<i64> {
    core.committed_offset("g", "in", 0).map(|found| found.offset)
}

fn read(core: &Core, isolation: IsolationLevel) -> Fetched {
    core.partition("out", 0).unwrap().read(0, 1 << 20, true, isolation).unwrap()
}

fn lso(core: &Core) -> i64 {
    core.partition("out", 0).unwrap().bounds().last_stable_offset
}

fn state(core: &Core, id: &str) -> TransactionState {
    core.describe_transaction(id).unwrap().state
}

fn code<T: std::fmt::Debug>(result: Result<T, Refusal>) -> ErrorCode {
    result.unwrap_err().code
}

#[test]
fn a_commit_shows_records_and_offsets_at_once() {
    let core = broker(&MemoryStorage::new());
    let mut client = Client::init(&core, "t", 0);
    assert_eq!(state(&core, "t"), TransactionState::Empty);
    client.add(&core, 0).unwrap();
    assert_eq!(client.send(&core, "a").unwrap(), 0);
    client.send_offset(&core, 0, 5).unwrap();
    assert_eq!((lso(&core), committed(&core)), (0, None));
    assert!(core.is_offset_unstable("g", "in", 0) && !core.is_offset_unstable("g", "in", 1));
    assert!(read(&core, IsolationLevel::ReadCommitted).records.is_empty());
    assert!(!read(&core, IsolationLevel::ReadUncommitted).records.is_empty());
    client.end(&core, true).unwrap();
    assert_eq!((lso(&core), committed(&core)), (2, Some(5)));
    assert!(!core.is_offset_unstable("g", "in", 0));
    assert_eq!(state(&core, "t"), TransactionState::CompleteCommit);
    let fetched = read(&core, IsolationLevel::ReadCommitted);
    assert!(!fetched.records.is_empty() && fetched.aborted.is_empty());
}

#[test]
fn an_abort_leaves_offsets_and_names_what_readers_must_skip() {
    let core = broker(&MemoryStorage::new());
    let mut client = Client::init(&core, "t", 0);
    for round in 0..2 {
        client.add(&core, 0).unwrap();
        client.send(&core, "a").unwrap();
        client.send_offset(&core, 0, 5 + round).unwrap();
        client.end(&core, false).unwrap();
    }
    assert_eq!((lso(&core), committed(&core)), (4, None));
    let fetched = read(&core, IsolationLevel::ReadCommitted);
    let first: Vec<i64> = fetched.aborted.iter().map(|aborted| aborted.first_offset).collect();
    assert_eq!(first, [0, 2]);
    assert!(read(&core, IsolationLevel::ReadUncommitted).aborted.is_empty());
    let later = core.partition("out", 0).unwrap().read(2, 1 << 20, true, IsolationLevel::ReadCommitted).unwrap();
    assert_eq!(later.aborted.len(), 1);
}

#[test]
fn an_older_transaction_holds_back_a_newer_one() {
    let core = broker(&MemoryStorage::new());
    let (mut old, mut new) = (Client::init(&core, "old", 0), Client::init(&core, "new", 0));
    old.add(&core, 0).unwrap();
    new.add(&core, 0).unwrap();
    old.send(&core, "a").unwrap();
    new.send(&core, "b").unwrap();
    new.end(&core, true).unwrap();
    assert_eq!(lso(&core), 0);
    old.end(&core, false).unwrap();
    assert_eq!(lso(&core), 4);
    let aborted = read(&core, IsolationLevel::ReadCommitted).aborted;
    assert_eq!(aborted.len(), 1);
    assert_eq!((aborted[0].producer_id, aborted[0].first_offset), (old.owner.producer_id, 0));
}

#[test]
fn a_newer_producer_fences_the_older_and_aborts_its_work() {
    let core = broker(&MemoryStorage::new());
    let mut old = Client::init(&core, "t", 0);
    old.add(&core, 0).unwrap();
    old.send(&core, "lost").unwrap();
    let mut new = Client::init(&core, "t", 0);
    assert_eq!(new.owner.producer_id, old.owner.producer_id);
    assert!(new.owner.epoch > old.owner.epoch);
    assert_eq!(lso(&core), 2, "the open transaction was aborted");
    assert_eq!(code(old.add(&core, 0)), ErrorCode::ProducerFenced);
    assert_eq!(code(old.send(&core, "zombie")), ErrorCode::InvalidProducerEpoch);
    assert_eq!(code(old.send_offset(&core, 0, 1)), ErrorCode::ProducerFenced);
    assert_eq!(code(old.end(&core, true)), ErrorCode::ProducerFenced);
    new.add(&core, 0).unwrap();
    new.send(&core, "kept").unwrap();
    new.end(&core, true).unwrap();
    assert_eq!(read(&core, IsolationLevel::ReadCommitted).aborted.len(), 1);
}

#[test]
fn a_producer_that_names_its_epoch_is_fenced_when_it_is_not_the_last() {
    let core = broker(&MemoryStorage::new());
    let first = Client::init(&core, "t", 0).owner;
    let name = |owner: TransactionOwner| Some((owner.producer_id, owner.epoch));
    let init = |expected| core.init_transactional_producer(0, "t", TIMEOUT_MS, expected).map(|(owner, _)| owner);
    let second = init(name(first)).unwrap();
    assert_eq!(second.epoch, first.epoch + 1);
    assert_eq!(init(name(first)).unwrap(), second, "a repeated request gets the same answer");
    let third = init(None).unwrap();
    assert_eq!(code(init(name(first))), ErrorCode::ProducerFenced);
    assert_eq!(init(name(third)).unwrap().epoch, third.epoch + 1);
}

#[test]
fn epochs_run_out_into_a_new_producer_id() {
    let storage = MemoryStorage::new();
    let core = broker(&storage);
    let first = Client::init(&core, "t", 0).owner;
    let change = TransactionChange::Initialized {
        producer_id: first.producer_id,
        epoch: i16::MAX - 1,
        last: None,
        timeout_ms: TIMEOUT_MS,
        at_ms: 0,
    };
    storage.append_metadata(&[MetadataRecord::Transaction { transactional_id: "t".into(), change }]).unwrap();
    let core = open(&storage);
    let next = Client::init(&core, "t", 0).owner;
    assert_ne!(next.producer_id, first.producer_id);
    assert_eq!(next.epoch, 0);
}

#[test]
fn ends_may_be_repeated_but_not_turned_round() {
    let core = broker(&MemoryStorage::new());
    let client = Client::init(&core, "t", 0);
    assert_eq!(code(client.end(&core, true)), ErrorCode::InvalidTxnState);
    client.add(&core, 0).unwrap();
    client.end(&core, true).unwrap();
    client.end(&core, true).unwrap();
    assert_eq!(code(client.end(&core, false)), ErrorCode::InvalidTxnState);
    assert_eq!(lso(&core), 1, "one marker, though the end was asked twice");
}

#[test]
fn only_what_was_added_is_part_of_the_transaction() {
    let core = broker(&MemoryStorage::new());
    let mut client = Client::init(&core, "t", 0);
    assert_eq!(code(client.send(&core, "a")), ErrorCode::InvalidTxnState);
    core.add_partitions_to_transaction(0, &client.producer(), &[("out", 1)]).unwrap();
    assert_eq!(code(client.send(&core, "a")), ErrorCode::InvalidTxnState);
    assert_eq!(code(client.commit_offset(&core, 0, 1, &nobody())), ErrorCode::InvalidTxnState);
    let missing = [("out", 0), ("out", 9), ("nothing", 0)];
    let results = core.add_partitions_to_transaction(0, &client.producer(), &missing).unwrap();
    let codes: Vec<ErrorCode> = results.into_iter().map(code).collect();
    let unknown = ErrorCode::UnknownTopicOrPartition;
    assert_eq!(codes, [ErrorCode::OperationNotAttempted, unknown, unknown]);
    assert_eq!(code(client.send(&core, "a")), ErrorCode::InvalidTxnState);
}

#[test]
fn offsets_need_the_membership_they_name() {
    let core = broker(&MemoryStorage::new());
    let client = Client::init(&core, "t", 0);
    core.add_offsets_to_transaction(0, &client.producer(), "g").unwrap();
    let stale = MemberIdentity { generation: 3, member_id: "m".into(), instance_id: None };
    assert_eq!(code(client.commit_offset(&core, 0, 1, &stale)), ErrorCode::IllegalGeneration);
    client.commit_offset(&core, 0, 1, &nobody()).unwrap();
}

#[test]
fn an_open_transaction_times_out_and_fences_its_producer() {
    let core = broker(&MemoryStorage::new());
    let mut client = Client::init(&core, "t", 0);
    assert_eq!(core.next_transaction_deadline(), None);
    client.add(&core, 100).unwrap();
    client.send(&core, "a").unwrap();
    assert_eq!(core.next_transaction_deadline(), Some(1_100));
    assert!(core.tick_transactions(1_099).is_empty());
    assert_eq!(core.tick_transactions(1_100).len(), 1);
    assert_eq!((lso(&core), state(&core, "t")), (2, TransactionState::CompleteAbort));
    assert_eq!(code(client.end(&core, true)), ErrorCode::ProducerFenced);
    assert_eq!(code(client.send(&core, "b")), ErrorCode::InvalidProducerEpoch);
    assert_eq!(core.next_transaction_deadline(), None);
}

#[test]
fn timeouts_have_bounds() {
    let core = broker(&MemoryStorage::new());
    for timeout_ms in [i32::MIN, -1, 0, 900_001] {
        let result = core.init_transactional_producer(0, "t", timeout_ms, None);
        assert_eq!(code(result), ErrorCode::InvalidTransactionTimeout);
    }
    assert_eq!(code(core.init_transactional_producer(0, "", 1, None)), ErrorCode::InvalidRequest);
}

#[test]
fn unused_ids_are_forgotten() {
    let storage = MemoryStorage::new();
    let core = broker(&storage);
    Client::init(&core, "t", 0);
    core.tick_transactions(604_800_000);
    assert_eq!(core.transactions().len(), 1);
    core.tick_transactions(604_800_001);
    assert!(core.transactions().is_empty() && open(&storage).transactions().is_empty());
}

#[test]
fn an_open_transaction_survives_a_restart_and_gets_its_whole_time_again() {
    let storage = MemoryStorage::new();
    let core = broker(&storage);
    let mut client = Client::init(&core, "t", 0);
    client.add(&core, 0).unwrap();
    client.send(&core, "a").unwrap();
    client.send_offset(&core, 0, 5).unwrap();
    drop(core);
    let core = open(&storage);
    assert_eq!((lso(&core), state(&core, "t")), (0, TransactionState::Ongoing));
    assert!(core.is_offset_unstable("g", "in", 0));
    core.tick_transactions(1_000_000);
    assert_eq!(core.next_transaction_deadline(), Some(1_000_000 + i64::from(TIMEOUT_MS)));
    client.send(&core, "b").unwrap();
    client.end(&core, true).unwrap();
    assert_eq!((lso(&core), committed(&core)), (3, Some(5)));
    let core = open(&storage);
    assert_eq!((lso(&core), committed(&core)), (3, Some(5)));
    client.end(&core, true).unwrap();
}

#[test]
fn aborted_transactions_are_known_after_a_restart_with_and_without_summaries() {
    for summarized in [false, true] {
        let storage = MemoryStorage::new();
        let core = broker(&storage);
        let mut client = Client::init(&core, "t", 0);
        client.add(&core, 0).unwrap();
        client.send(&core, "a").unwrap();
        client.end(&core, false).unwrap();
        client.add(&core, 0).unwrap();
        client.send(&core, "b").unwrap();
        if summarized {
            core.summarize_logs();
        }
        let core = open(&storage);
        assert_eq!(lso(&core), 2);
        let aborted = read(&core, IsolationLevel::ReadCommitted).aborted;
        assert_eq!(aborted.len(), 1, "summarized: {summarized}");
        client.end(&core, false).unwrap();
        assert_eq!(read(&core, IsolationLevel::ReadCommitted).aborted.len(), 2);
    }
}

/// What a crash between a decision and its end leaves is finished by the first tick, or by the producer itself.
#[test]
fn a_decision_is_carried_out_after_a_crash() {
    for (commit, by_tick) in [(true, true), (true, false), (false, true), (false, false)] {
        let storage = MemoryStorage::new();
        let core = broker(&storage);
        let mut client = Client::init(&core, "t", 0);
        client.add(&core, 0).unwrap();
        client.send(&core, "a").unwrap();
        client.send_offset(&core, 0, 5).unwrap();
        let change = TransactionChange::Decided { commit, epoch: client.owner.epoch, last: None, at_ms: 0 };
        storage.append_metadata(&[MetadataRecord::Transaction { transactional_id: "t".into(), change }]).unwrap();
        drop(core);
        let core = open(&storage);
        assert!(state(&core, "t").is_prepared());
        match by_tick {
            true => assert_eq!(core.tick_transactions(0).len(), 1),
            false => client.end(&core, commit).unwrap(),
        }
        assert_eq!((lso(&core), committed(&core)), (2, commit.then_some(5)), "commit {commit}, by tick {by_tick}");
        client.end(&core, commit).unwrap();
        assert_eq!(code(client.end(&core, !commit)), ErrorCode::InvalidTxnState);
    }
}

#[test]
fn a_full_disk_delays_the_end_but_not_the_decision() {
    let storage = MemoryStorage::new();
    let core = broker(&storage);
    let mut client = Client::init(&core, "t", 0);
    client.add(&core, 0).unwrap();
    client.send(&core, "a").unwrap();
    storage.fill_disk(true);
    assert_eq!(code(client.end(&core, true)), ErrorCode::KafkaStorageError);
    assert_eq!(state(&core, "t"), TransactionState::Ongoing);
    storage.fill_disk(false);
    let change = TransactionChange::Decided { commit: true, epoch: client.owner.epoch, last: None, at_ms: 0 };
    storage.append_metadata(&[MetadataRecord::Transaction { transactional_id: "t".into(), change }]).unwrap();
    let core = open(&storage);
    storage.fill_disk(true);
    core.tick_transactions(0);
    assert_eq!(code(client.add(&core, 0)), ErrorCode::ConcurrentTransactions);
    storage.fill_disk(false);
    core.tick_transactions(0);
    assert_eq!((lso(&core), state(&core, "t")), (2, TransactionState::CompleteCommit));
}

#[test]
fn a_deleted_topic_takes_its_part_of_a_transaction_with_it() {
    let core = broker(&MemoryStorage::new());
    let mut client = Client::init(&core, "t", 0);
    client.add(&core, 0).unwrap();
    client.send(&core, "a").unwrap();
    client.send_offset(&core, 0, 5).unwrap();
    core.delete_topic("out").unwrap();
    core.delete_topic("in").unwrap();
    let topic = NewTopic { name: "out".into(), partitions: 1, ..NewTopic::default() };
    core.create_topic(&topic, false).unwrap();
    assert_eq!(code(client.send(&core, "b")), ErrorCode::InvalidTxnState, "the new topic is not part of it");
    client.end(&core, true).unwrap();
    assert_eq!((lso(&core), committed(&core)), (0, None));
}

#[test]
fn a_batch_outside_of_the_open_transaction_is_refused() {
    let core = broker(&MemoryStorage::new());
    let mut client = Client::init(&core, "t", 0);
    client.add(&core, 0).unwrap();
    client.send(&core, "a").unwrap();
    let TransactionOwner { producer_id, epoch } = client.owner;
    let stamp = ProducerStamp { producer_id, epoch, base_sequence: 1, transactional: false };
    let batch = batch_of(Some(stamp), &[NewRecord::default()]);
    assert_eq!(code(core.partition("out", 0).unwrap().append(&batch, 0)), ErrorCode::InvalidTxnState);
}

#[test]
fn a_snapshot_says_the_same_as_the_changes() {
    let storage = MemoryStorage::new();
    let core = broker(&storage);
    for (id, end) in [("open", None), ("committed", Some(true)), ("aborted", Some(false))] {
        let client = Client::init(&core, id, 3);
        client.add(&core, 4).unwrap();
        client.send_offset(&core, 5, 9).unwrap();
        if let Some(commit) = end {
            client.end(&core, commit).unwrap();
        }
    }
    Client::init(&core, "empty", 3);
    for (id, commit) in [("decided commit", true), ("decided abort", false)] {
        let client = Client::init(&core, id, 3);
        client.add(&core, 4).unwrap();
        let change = TransactionChange::Decided { commit, epoch: 1, last: Some((7, 1)), at_ms: 6 };
        storage.append_metadata(&[MetadataRecord::Transaction { transactional_id: id.into(), change }]).unwrap();
    }
    let image = storage.load_metadata().unwrap();
    let mut again = MetadataImage::default();
    for record in image.to_records() {
        let text = serde_json::to_string(&record).unwrap();
        again.apply(&serde_json::from_str(&text).unwrap());
    }
    assert_eq!(again, image);
    assert_eq!(image.transactions.len(), 6);
}

#[test]
fn the_table_of_moves() {
    use TransactionState::*;
    let all = [Empty, Ongoing, PrepareCommit, PrepareAbort, CompleteCommit, CompleteAbort];
    let allowed: Vec<(TransactionState, TransactionState)> = all
        .into_iter()
        .flat_map(|from| all.into_iter().map(move |to| (from, to)))
        .filter(|(from, to)| from.may_become(*to))
        .collect();
    let expected = [
        (Empty, Empty),
        (Empty, Ongoing),
        (Ongoing, Ongoing),
        (Ongoing, PrepareCommit),
        (Ongoing, PrepareAbort),
        (PrepareCommit, CompleteCommit),
        (PrepareAbort, CompleteAbort),
        (CompleteCommit, Empty),
        (CompleteCommit, Ongoing),
        (CompleteAbort, Empty),
        (CompleteAbort, Ongoing),
    ];
    assert_eq!(allowed, expected);
}

#[test]
fn what_was_deleted_of_an_open_transaction_holds_nobody_back() {
    let core = broker(&MemoryStorage::new());
    let mut client = Client::init(&core, "t", 0);
    client.add(&core, 0).unwrap();
    client.send(&core, "a").unwrap();
    client.send(&core, "b").unwrap();
    core.delete_records("out", 0, 1).unwrap();
    assert_eq!(lso(&core), 1);
    client.end(&core, true).unwrap();
    assert_eq!(lso(&core), 3);
}

/// A client that aborts by asking for a new epoch asks again when that failed half way (KIP-360).
#[test]
fn a_new_epoch_can_be_asked_for_again_after_a_failure() {
    for room in 0..5 {
        let storage = MemoryStorage::new();
        let core = broker(&storage);
        let mut client = Client::init(&core, "t", 0);
        client.add(&core, 0).unwrap();
        client.send(&core, "a").unwrap();
        let expected = Some((client.owner.producer_id, client.owner.epoch));
        storage.fill_disk_after(room);
        let first = core.init_transactional_producer(0, "t", TIMEOUT_MS, expected);
        storage.fill_disk(false);
        core.tick_transactions(0);
        let again = core.init_transactional_producer(0, "t", TIMEOUT_MS, expected);
        assert!(again.is_ok(), "room {room}: {again:?} after {first:?}");
        assert_eq!(code(client.send(&core, "b")), ErrorCode::InvalidProducerEpoch);
    }
}

#[test]
fn a_fenced_producer_is_not_let_in_by_the_end_of_another_transaction() {
    let core = broker(&MemoryStorage::new());
    let first = Client::init(&core, "t", 0).owner;
    let expected = Some((first.producer_id, first.epoch));
    let (owner, _) = core.init_transactional_producer(0, "t", TIMEOUT_MS, expected).unwrap();
    let second = Client { id: "t", owner, sequence: 0 };
    second.add(&core, 0).unwrap();
    second.end(&core, false).unwrap();
    assert_eq!(code(core.init_transactional_producer(0, "t", TIMEOUT_MS, expected)), ErrorCode::ProducerFenced);
}

#[test]
fn offsets_of_a_topic_that_was_made_anew_are_not_committed() {
    let core = broker(&MemoryStorage::new());
    let client = Client::init(&core, "t", 0);
    client.send_offset(&core, 0, 5).unwrap();
    core.delete_topic("in").unwrap();
    core.create_topic(&NewTopic { name: "in".into(), partitions: 2, ..NewTopic::default() }, false).unwrap();
    client.end(&core, true).unwrap();
    assert_eq!(committed(&core), None);
}

#[test]
fn an_end_that_is_tried_again_writes_each_marker_once() {
    let storage = MemoryStorage::new();
    let core = broker(&storage);
    let client = Client::init(&core, "t", 0);
    core.add_partitions_to_transaction(0, &client.producer(), &[("out", 0), ("out", 1)]).unwrap();
    storage.fill_disk_after(2);
    client.end(&core, true).unwrap();
    for now_ms in 0..20 {
        storage.fill_disk_after(u64::from(now_ms == 10));
        core.tick_transactions(now_ms);
    }
    storage.fill_disk(false);
    assert_eq!(core.tick_transactions(20), []);
    let ends = [0, 1].map(|index| core.partition("out", index).unwrap().bounds().high_watermark);
    assert_eq!((ends, state(&core, "t")), ([1, 1], TransactionState::CompleteCommit));
}
