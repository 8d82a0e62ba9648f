//! Tests of where a restore begins; restores as a whole are tested with turns of a stream thread.

use super::RestoreStart::{Complete, From, Regressed, WipeAndFrom};
use super::*;
use crate::broker::{BrokerError, BrokerErrorKind};
use crate::stream_thread::fixture::{Fixture, task};
use crate::testing::ManualClock;
use std::sync::{Arc, Mutex};

#[test]
fn a_restore_begins_by_the_stores_offset_and_the_bounds_of_the_log() {
    for (stored, low, high, expected) in [
        (None, 0, 0, Complete),
        (None, 7, 7, Complete),
        (None, 0, 9, From(0)),
        (None, 4, 9, From(4)),
        (Some(0), 0, 9, From(0)),
        (Some(5), 0, 9, From(5)),
        (Some(9), 0, 9, Complete),
        (Some(4), 4, 9, From(4)),
        (Some(3), 4, 9, WipeAndFrom(4)),
        (Some(3), 9, 9, WipeAndFrom(9)),
        (Some(10), 0, 9, Regressed),
        (Some(1), 0, 0, Regressed),
    ] {
        assert_eq!(restore_start(stored, Watermarks { low, high }), expected, "{stored:?} in {low}..{high}");
    }
}

#[test]
fn state_shows_in_the_store_or_in_the_changelog() {
    let facts = |stored, low, high| ChangelogFacts {
        index: 0,
        store: "s".to_owned(),
        changelog: TopicPartition::new("app-s-changelog", 1),
        stored,
        log: Watermarks { low, high },
        is_source: false,
    };
    assert_eq!(facts(None, 0, 0).evidence_of_state(), None);
    assert_eq!(facts(Some(0), 0, 0).evidence_of_state(), None);
    assert_eq!(facts(None, 5, 5).evidence_of_state(), None);
    assert_eq!(facts(Some(5), 5, 5).evidence_of_state(), Some("local changelog offset 5".to_owned()));
    assert_eq!(facts(None, 0, 5).evidence_of_state(), Some("changelog app-s-changelog-1 ends at offset 5".to_owned()));
}

/// A changelog that ends at `high` and can be read up to `readable`, as below a transaction that hangs.
struct Hanging {
    high: Arc<Mutex<Offset>>,
    readable: Offset,
    reachable: Arc<Mutex<bool>>,
    /// Polls without a broker are empty, as librdkafka's are; else they fail.
    silent: bool,
}

fn no_broker() -> BrokerError {
    BrokerError::new(BrokerErrorKind::Retriable, "fetch", "no broker")
}

impl RestoreConsumer for Hanging {
    fn watermarks(&mut self, partitions: &[TopicPartition]) -> Result<Vec<Watermarks>, BrokerError> {
        if !*self.reachable.lock().expect("one thread") {
            return Err(no_broker());
        }
        let high = *self.high.lock().expect("one thread");
        Ok(partitions.iter().map(|_| Watermarks { low: 0, high }).collect())
    }

    fn stable_ends(&mut self, partitions: &[TopicPartition]) -> Result<Vec<Offset>, BrokerError> {
        Ok(partitions.iter().map(|_| self.readable).collect())
    }

    fn assign(&mut self, _: &TopicPartition, _: Offset) -> Result<(), BrokerError> {
        Ok(())
    }

    fn unassign(&mut self, _: &TopicPartition) -> Result<(), BrokerError> {
        Ok(())
    }

    fn poll(&mut self, _: Duration, _: usize) -> Result<Vec<PartitionRecords>, BrokerError> {
        if self.silent || *self.reachable.lock().expect("one thread") {
            return Ok(Vec::new());
        }
        Err(no_broker())
    }

    fn position(&mut self, _: &TopicPartition) -> Result<Option<Offset>, BrokerError> {
        Ok(Some(self.readable))
    }
}

struct Stalled {
    reader: StoreChangelogReader,
    tasks: BTreeMap<TaskId, StreamTask>,
    high: Arc<Mutex<Offset>>,
    reachable: Arc<Mutex<bool>>,
}

impl Stalled {
    fn new() -> Self {
        Self::with_polls(false)
    }

    fn with_polls(silent: bool) -> Self {
        let (high, reachable) = (Arc::new(Mutex::new(9)), Arc::new(Mutex::new(true)));
        let consumer = Hanging { high: Arc::clone(&high), readable: 4, reachable: Arc::clone(&reachable), silent };
        let mut reader = StoreChangelogReader::new(Box::new(consumer), 10_000);
        let options = Arc::new(Fixture::counting(1).options());
        let mut restoring = StreamTask::new(task(0), &[TopicPartition::new("in", 0)], options);
        restoring.open_stores().expect("they open");
        let facts = reader.look(&restoring).expect("the bounds are known");
        reader.begin(&mut restoring, &facts, 0).expect("it begins");
        Self { reader, tasks: BTreeMap::from([(task(0), restoring)]), high, reachable }
    }

    fn at(&mut self, now_ms: u64) -> Result<u64, EngineError> {
        let clock = ManualClock::default();
        clock.advance_ms(now_ms);
        self.reader.restore(&mut self.tasks, Slice { wait: Duration::ZERO, max_records: 10, max_ms: 0 }, &clock)
    }
}

#[test]
fn a_restore_that_stands_still_fails_after_a_minute() {
    let mut stalled = Stalled::new();
    for now_ms in [10, 30_011, 60_009] {
        assert_eq!(stalled.at(now_ms), Ok(0), "at {now_ms}");
    }
    assert_eq!(stalled.reader.reports(task(0))[0].remaining(), 5);
    let error = stalled.at(60_010).expect_err("a minute without progress").to_string();
    let expected = "restoring store counts of task 0_0 stands at offset 4 of app-counts-changelog-0 since 60000 ms and should reach 9";
    assert!(error.starts_with(expected), "{error}");
}

#[test]
fn time_without_a_broker_is_not_held_against_a_restore() {
    let mut stalled = Stalled::new();
    assert_eq!(stalled.at(0), Ok(0));
    *stalled.reachable.lock().expect("one thread") = false;
    for now_ms in [30_000, 60_000, 90_000] {
        assert!(matches!(stalled.at(now_ms), Err(EngineError::Broker(_))));
    }
    *stalled.reachable.lock().expect("one thread") = true;
    assert_eq!(stalled.at(100_000), Ok(0));
}

#[test]
fn a_broker_that_is_silently_away_is_asked_before_a_restore_fails() {
    let mut stalled = Stalled::with_polls(true);
    assert_eq!(stalled.at(0), Ok(0));
    *stalled.reachable.lock().expect("one thread") = false;
    for now_ms in [30_000, 60_000, 90_000] {
        assert!(matches!(stalled.at(now_ms), Err(EngineError::Broker(_))), "at {now_ms}");
    }
    *stalled.reachable.lock().expect("one thread") = true;
    assert_eq!(stalled.at(120_000), Ok(0));
    assert_eq!(stalled.at(149_999), Ok(0));
    assert!(matches!(stalled.at(150_000), Err(EngineError::RestoreStalled { .. })));
}

#[test]
fn a_log_end_that_falls_below_the_target_is_found_when_the_restore_stalls() {
    let mut stalled = Stalled::new();
    assert_eq!(stalled.at(0), Ok(0));
    *stalled.high.lock().expect("one thread") = 5;
    assert_eq!(stalled.at(29_999), Ok(0));
    assert!(matches!(stalled.at(30_000), Err(EngineError::ChangelogRegressed { stored: 9, end: 5, .. })));
}

/// Reads of ten records each, of a log that has no end; each takes 5 ms.
struct Endless {
    clock: ManualClock,
    position: Offset,
}

impl RestoreConsumer for Endless {
    fn watermarks(&mut self, partitions: &[TopicPartition]) -> Result<Vec<Watermarks>, BrokerError> {
        Ok(partitions.iter().map(|_| Watermarks { low: 0, high: 1_000_000 }).collect())
    }

    fn stable_ends(&mut self, partitions: &[TopicPartition]) -> Result<Vec<Offset>, BrokerError> {
        Ok(partitions.iter().map(|_| 1_000_000).collect())
    }

    fn assign(&mut self, _: &TopicPartition, _: Offset) -> Result<(), BrokerError> {
        Ok(())
    }

    fn unassign(&mut self, _: &TopicPartition) -> Result<(), BrokerError> {
        Ok(())
    }

    fn poll(&mut self, _: Duration, max_records: usize) -> Result<Vec<PartitionRecords>, BrokerError> {
        self.clock.advance_ms(5);
        let record = |offset| crate::record::Record {
            offset,
            timestamp: 0,
            key: Some("k".into()),
            value: Some("v".into()),
            headers: Default::default(),
        };
        let first = self.position;
        self.position += max_records.min(10) as Offset;
        let partition = TopicPartition::new("app-counts-changelog", 0);
        Ok(vec![PartitionRecords { partition, records: (first..self.position).map(record).collect() }])
    }

    fn position(&mut self, _: &TopicPartition) -> Result<Option<Offset>, BrokerError> {
        Ok(Some(self.position))
    }
}

#[test]
fn a_slice_ends_by_its_time_and_by_its_records() {
    let clock = ManualClock::default();
    let consumer = Endless { clock: clock.clone(), position: 0 };
    let mut reader = StoreChangelogReader::new(Box::new(consumer), 10_000);
    let options = Arc::new(Fixture::counting(1).options());
    let mut restoring = StreamTask::new(task(0), &[TopicPartition::new("in", 0)], options);
    restoring.open_stores().expect("they open");
    let facts = reader.look(&restoring).expect("the bounds are known");
    reader.begin(&mut restoring, &facts, 0).expect("it begins");
    let mut tasks = BTreeMap::from([(task(0), restoring)]);
    let mut restore = |max_records, max_ms| {
        let slice = Slice { wait: Duration::ZERO, max_records, max_ms };
        reader.restore(&mut tasks, slice, &clock).expect("no fault")
    };
    assert_eq!(restore(1_000, 20), 40, "four reads of 5 ms");
    assert_eq!(restore(25, 20), 25, "the last read is cut to what is left");
    assert_eq!(restore(1_000, 0), 10, "one read at least");
}

/// Two changelogs on one client that reads the first to its end before it looks at the second, which hangs.
struct OneByOne {
    first: Offset,
}

impl RestoreConsumer for OneByOne {
    fn watermarks(&mut self, partitions: &[TopicPartition]) -> Result<Vec<Watermarks>, BrokerError> {
        Ok(partitions.iter().map(|_| Watermarks { low: 0, high: 10 }).collect())
    }

    fn stable_ends(&mut self, partitions: &[TopicPartition]) -> Result<Vec<Offset>, BrokerError> {
        Ok(partitions.iter().map(|_| 10).collect())
    }

    fn assign(&mut self, _: &TopicPartition, _: Offset) -> Result<(), BrokerError> {
        Ok(())
    }

    fn unassign(&mut self, _: &TopicPartition) -> Result<(), BrokerError> {
        Ok(())
    }

    fn poll(&mut self, _: Duration, _: usize) -> Result<Vec<PartitionRecords>, BrokerError> {
        self.first += 1;
        Ok(Vec::new())
    }

    fn position(&mut self, partition: &TopicPartition) -> Result<Option<Offset>, BrokerError> {
        Ok(Some(if partition.partition == 0 { self.first.min(10) } else { 0 }))
    }
}

#[test]
fn a_changelog_that_waits_behind_another_does_not_stand_still() {
    let mut reader = StoreChangelogReader::new(Box::new(OneByOne { first: 0 }), 10_000);
    let options = Arc::new(Fixture::counting(2).options());
    let mut tasks = BTreeMap::new();
    for partition in 0..2 {
        let source = TopicPartition::new("in", partition);
        let mut restoring = StreamTask::new(task(partition), &[source], Arc::clone(&options));
        restoring.open_stores().expect("they open");
        let facts = reader.look(&restoring).expect("the bounds are known");
        reader.begin(&mut restoring, &facts, 0).expect("it begins");
        tasks.insert(task(partition), restoring);
    }
    let clock = ManualClock::default();
    let slice = Slice { wait: Duration::ZERO, max_records: 10, max_ms: 0 };
    for turn in 1..=10 {
        clock.advance_ms(20_000);
        assert_eq!(reader.restore(&mut tasks, slice, &clock), Ok(0), "turn {turn}");
    }
    assert!(reader.is_complete(task(0)));
    // From now on nothing moves.
    for turn in 1..=2 {
        clock.advance_ms(29_999);
        assert_eq!(reader.restore(&mut tasks, slice, &clock), Ok(0), "still turn {turn}");
    }
    clock.advance_ms(10);
    let error = reader.restore(&mut tasks, slice, &clock).expect_err("a minute in which nothing moved");
    assert!(matches!(error, EngineError::RestoreStalled { .. }), "{error}");
}
