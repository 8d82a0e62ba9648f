//! Random histories of several transactional clients over a broker whose disk fills up in the middle of things and that
//! is restarted, against a model that knows of each record only whether its transaction committed. A failing seed is
//! printed.

use std::collections::BTreeMap;

use engine::testing::Seed;

use super::*;
use crate::core::batch::{BatchHeader, Marker, Records, marker};

const SEEDS: u64 = 150;
const STEPS: usize = 120;
const PARTITIONS: i32 = 2;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Open,
    Committed,
    Aborted,
}

/// One record that the broker acknowledged.
#[derive(Debug)]
struct Sent {
    partition: i32,
    offset: i64,
    value: u64,
    client: usize,
    fate: Fate,
}

#[derive(Debug, Default)]
struct ModelClient {
    owner: Option<TransactionOwner>,
    /// Owners before this one.
    fenced: Vec<TransactionOwner>,
    sequences: BTreeMap<i32, i32>,
    is_open: bool,
    offset: Option<i64>,
}

struct World {
    seed: Seed,
    storage: MemoryStorage,
    core: Core,
    now_ms: i64,
    next_value: u64,
    clients: Vec<ModelClient>,
    sent: Vec<Sent>,
    committed_offset: Option<i64>,
}

fn id(client: usize) -> String {
    format!("t{client}")
}

impl World {
    fn new(seed: u64) -> Self {
        let storage = MemoryStorage::new();
        let core = broker(&storage);
        let clients = (0..3).map(|_| ModelClient::default()).collect();
        Self {
            seed: Seed::new(seed),
            storage,
            core,
            now_ms: 0,
            next_value: 0,
            clients,
            sent: Vec::new(),
            committed_offset: None,
        }
    }

    /// The transaction of a client is over.
    fn close(&mut self, client: usize, fate: Fate) {
        for sent in self.sent.iter_mut().filter(|sent| sent.client == client && sent.fate == Fate::Open) {
            sent.fate = fate;
        }
        let known = &mut self.clients[client];
        known.is_open = false;
        if let Some(offset) = known.offset.take()
            && fate == Fate::Committed
        {
            self.committed_offset = Some(offset);
        }
    }

    fn init(&mut self, client: usize) {
        let result = self.core.init_transactional_producer(self.now_ms, &id(client), TIMEOUT_MS, None);
        if let Ok((owner, _)) = result {
            self.close(client, Fate::Aborted);
            let known = &mut self.clients[client];
            known.fenced.extend(known.owner.replace(owner));
            known.sequences.clear();
        }
    }

    fn send(&mut self, client: usize) {
        let Some(owner) = self.clients[client].owner else { return };
        let partition = self.seed.below(PARTITIONS as u64) as i32;
        let producer = (owner.producer_id, owner.epoch);
        let id = id(client);
        let producer = TransactionalProducer { transactional_id: &id, producer_id: producer.0, epoch: producer.1 };
        let added = self.core.add_partitions_to_transaction(self.now_ms, &producer, &[("out", partition)]);
        if added.is_err() {
            return;
        }
        self.clients[client].is_open = true;
        let sequence = self.clients[client].sequences.get(&partition).copied().unwrap_or(0);
        let value = self.next_value;
        if let Ok(offset) = append(&self.core, &producer, partition, sequence, value) {
            self.next_value += 1;
            self.clients[client].sequences.insert(partition, sequence + 1);
            self.sent.push(Sent { partition, offset, value, client, fate: Fate::Open });
        }
    }

    fn send_offset(&mut self, client: usize) {
        let Some(owner) = self.clients[client].owner else { return };
        let id = id(client);
        let model = Client { id: &id, owner, sequence: 0 };
        let offset = self.seed.below(1_000) as i64;
        if self.core.add_offsets_to_transaction(self.now_ms, &model.producer(), "g").is_ok() {
            self.clients[client].is_open = true;
            if model.commit_offset(&self.core, self.now_ms, offset, &nobody()).is_ok() {
                self.clients[client].offset = Some(offset);
            }
        }
    }

    fn end(&mut self, client: usize) {
        let Some(owner) = self.clients[client].owner else { return };
        let commit = !self.seed.one_in(3);
        let id = id(client);
        let ended = Client { id: &id, owner, sequence: 0 }.end(&self.core, commit);
        match (ended, self.clients[client].is_open) {
            (Ok(()), true) => self.close(client, if commit { Fate::Committed } else { Fate::Aborted }),
            (Err(refusal), true) => {
                let expected = [ErrorCode::KafkaStorageError, ErrorCode::ProducerFenced];
                assert!(expected.contains(&refusal.code), "{refusal}");
            }
            // Nothing was open: a repeated end, or one that has no sense.
            (_, false) => {}
        }
    }

    /// Whoever was fenced can do nothing.
    fn haunt(&mut self, client: usize) {
        let id = id(client);
        for &owner in &self.clients[client].fenced {
            let mut zombie = Client { id: &id, owner, sequence: 0 };
            assert!(zombie.add(&self.core, self.now_ms).is_err());
            assert!(zombie.send(&self.core, "zombie").is_err());
            assert!(zombie.end(&self.core, true).is_err());
        }
    }

    fn pass_time(&mut self) {
        self.now_ms += self.seed.below(TIMEOUT_MS as u64 / 2) as i64;
        self.core.tick_transactions(self.now_ms);
        self.see_what_timed_out();
    }

    /// The broker may have aborted what is open, by a timeout or in an `init` that failed later on.
    fn see_what_timed_out(&mut self) {
        for client in 0..self.clients.len() {
            let state = self.core.describe_transaction(&id(client)).map(|found| found.state);
            if self.clients[client].is_open && !matches!(state, Ok(TransactionState::Ongoing)) {
                assert_eq!(state.map_err(|refusal| refusal.detail), Ok(TransactionState::CompleteAbort));
                self.close(client, Fate::Aborted);
            }
        }
    }

    /// Something happens while the disk has room for a few writes only; then the broker starts again.
    fn crash(&mut self) {
        let room = self.seed.below(4);
        self.storage.fill_disk_after(room);
        self.act();
        self.storage.fill_disk(false);
        self.core = open(&self.storage);
        self.core.tick_transactions(self.now_ms);
        self.see_what_timed_out();
    }

    fn act(&mut self) {
        let client = self.seed.below(self.clients.len() as u64) as usize;
        match self.seed.below(12) {
            0 => self.init(client),
            1..=5 => self.send(client),
            6 | 7 => self.send_offset(client),
            _ => self.end(client),
        }
    }

    fn step(&mut self) {
        match self.seed.below(20) {
            0 => self.crash(),
            1 => {
                self.core = open(&self.storage);
                self.core.tick_transactions(self.now_ms);
            }
            2 => self.pass_time(),
            3 => {
                let client = self.seed.below(3) as usize;
                self.haunt(client);
            }
            4 if self.seed.one_in(2) => self.core.summarize_logs(),
            _ => self.act(),
        }
    }

    fn check(&self) {
        for partition in 0..PARTITIONS {
            let here = || self.sent.iter().filter(move |sent| sent.partition == partition);
            let first_open = here().filter(|sent| sent.fate == Fate::Open).map(|sent| sent.offset).min();
            let bounds = self.core.partition("out", partition).unwrap().bounds();
            assert_eq!(bounds.last_stable_offset, first_open.unwrap_or(bounds.high_watermark));
            let visible = here().filter(|sent| sent.fate == Fate::Committed && sent.offset < bounds.last_stable_offset);
            let mut expected: Vec<(i64, u64)> = visible.map(|sent| (sent.offset, sent.value)).collect();
            expected.sort_unstable();
            assert_eq!(read_values(&self.core, partition), expected, "partition {partition}");
        }
        assert_eq!(committed(&self.core), self.committed_offset);
    }
}

fn append(
    core: &Core,
    producer: &TransactionalProducer<'_>,
    partition: i32,
    sequence: i32,
    value: u64,
) -> Result<i64, Refusal> {
    let (producer_id, epoch) = (producer.producer_id, producer.epoch);
    let stamp = ProducerStamp { producer_id, epoch, base_sequence: sequence, transactional: true };
    let value = value.to_be_bytes();
    let batch = batch_of(Some(stamp), &[NewRecord { timestamp: 1, value: Some(&value), ..NewRecord::default() }]);
    let (_, appended) = core.append_in_transaction(0, producer.transactional_id, "out", partition, &batch)?;
    assert!(!appended.duplicate);
    Ok(appended.base_offset)
}

/// Offsets and values that a reader of committed records sees, as a client finds out.
fn read_values(core: &Core, partition: i32) -> Vec<(i64, u64)> {
    let fetched = core.partition("out", partition).unwrap().read(0, 1 << 20, true, IsolationLevel::ReadCommitted);
    let fetched = fetched.unwrap();
    let mut waiting = fetched.aborted.as_slice();
    let mut aborted = Vec::new();
    let mut values = Vec::new();
    let mut rest = &fetched.records[..];
    while let Some(header) = BatchHeader::read(rest) {
        let (batch, tail) = rest.split_at(header.size().unwrap());
        rest = tail;
        while let Some((first, others)) = waiting.split_first()
            && first.first_offset <= header.last_offset()
        {
            aborted.push(first.producer_id);
            waiting = others;
        }
        match marker(batch, &header) {
            Some(Marker::Abort) => aborted.retain(|id| *id != header.producer_id),
            Some(Marker::Commit) => {}
            None if aborted.contains(&header.producer_id) => {}
            None => values.extend(Records::new(batch, &header).map(|record| {
                let value = record.value.and_then(|value| value.try_into().ok()).map(u64::from_be_bytes);
                (record.offset, value.unwrap())
            })),
        }
    }
    values
}

#[test]
fn random_histories() {
    for seed in 0..SEEDS {
        let play = || {
            let mut world = World::new(seed);
            for _ in 0..STEPS {
                world.step();
                world.check();
            }
            world.sent.len()
        };
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(play));
        assert!(result.is_ok_and(|sent| sent > 0), "seed {seed}");
    }
}
