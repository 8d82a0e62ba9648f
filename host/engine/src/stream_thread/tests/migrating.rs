//! Tests of migrations: rows of an older schema are taken over before anything is processed, whatever happens
//! meanwhile.

use super::super::fixture::Fixture;
use super::super::*;
use crate::broker::{ClientSupplier, OffsetAndMetadata};
use crate::columns::{Columns, NullableColumns};
use crate::internal_topics::{self, KnownTopics};
use crate::processor::{ProcessorContext, ProcessorError, PunctuationType, ScheduleId};
use crate::record::{InputBatch, Outcome, Timestamp, TopicPartition};
use crate::task::offset_metadata::{self, Committed};
use crate::testing::{NativeProcessor, NativeSupplier, Operation, forward, number, topology};
use crate::topic_limits::SharedSinkLimits;
use crate::topology::Topology;
use crate::topology::generations::OlderGeneration;
use crate::version::{self, Probation, ProcessorVersion, Versions};

const STRICT: Probation = Probation { failures_max: 0, output_factor: 10.0 };

/// What a `migrate` does wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    /// It traps at this row.
    At(&'static str),
    /// It answers with a row too few.
    Short,
    /// Its rows are larger than the changelog takes.
    Large,
    /// It marks what it takes over, as a wrong one.
    Marks,
    /// Its `init` writes a row.
    InitWrites,
    /// It has a schedule that writes a row.
    ScheduleWrites,
    /// Its `init` fails, which comes after.
    Init,
}

/// Counts each key and forwards `v<schema>:<count>`. Schema 1 is a number of 8 bytes, schema 2 the text `n=<count>`.
struct Counting {
    schema: u32,
    fault: Fault,
}

impl Counting {
    fn read(&self, value: &[u8]) -> u64 {
        let text = |value: &[u8]| String::from_utf8_lossy(value).strip_prefix("n=").and_then(|text| text.parse().ok());
        if self.schema == 1 { number(value) } else { text(value).expect("a row of schema 2") }
    }

    fn written(&self, count: u64) -> Vec<u8> {
        if self.schema == 1 { count.to_be_bytes().to_vec() } else { format!("n={count}").into_bytes() }
    }
}

impl NativeProcessor for Counting {
    fn init(&mut self, context: &mut ProcessorContext) -> Result<(), ProcessorError> {
        match self.fault {
            Fault::Init => return Err(ProcessorError::Returned("no licence".to_owned())),
            Fault::InitWrites => {
                let store = context.store_at(0)?;
                context.put(store, b"init", Some(&self.written(1)), None)?;
            }
            Fault::ScheduleWrites => {
                context.schedule(100, PunctuationType::WallClockTime);
            }
            _ => {}
        }
        Ok(())
    }

    fn punctuate(
        &mut self,
        context: &mut ProcessorContext,
        _: ScheduleId,
        _: Timestamp,
    ) -> Result<Outcome, ProcessorError> {
        let store = context.store_at(0)?;
        context.put(store, b"schedule", Some(&self.written(1)), None)?;
        Ok(Outcome::default())
    }

    fn process(&mut self, context: &mut ProcessorContext, batch: &InputBatch) -> Result<Outcome, ProcessorError> {
        let store = context.store_at(0)?;
        assert!(context.store_at(1).is_err() && context.store("counts@1").is_err(), "older rows are no store");
        let mut outcome = Outcome::default();
        for (index, &timestamp) in batch.timestamps.iter().enumerate() {
            let key = batch.keys.get(index).unwrap_or_default();
            if batch.values.get(index) == Some(b"delete") {
                context.put(store, key, None, None)?;
                continue;
            }
            let count = context.get(store, key)?.map_or(0, |value| self.read(&value)) + 1;
            context.put(store, key, Some(&self.written(count)), None)?;
            let text = format!("v{}:{count}", self.schema);
            forward(&mut outcome.outputs, timestamp, Some(key), Some(text.as_bytes()));
            outcome.outputs.partitions.push(batch.partition);
        }
        Ok(outcome)
    }

    fn migrate(
        &mut self,
        store: &str,
        from_version: u32,
        keys: &Columns,
        values: &Columns,
    ) -> Result<NullableColumns, ProcessorError> {
        assert!(store == "counts" && from_version < self.schema);
        let older = Self { schema: from_version, fault: Fault::None };
        let mut migrated = NullableColumns::default();
        for (key, value) in keys.iter().zip(values.iter()) {
            let count = older.read(value);
            match self.fault {
                Fault::At(bad) if key == bad.as_bytes() => {
                    let message = "unreachable".to_owned();
                    return Err(ProcessorError::Trap { message, backtrace: String::new() });
                }
                Fault::Short if migrated.len() + 1 == keys.len() => {}
                Fault::Large => migrated.push(Some(&vec![b'n'; 2 << 20])),
                Fault::Marks => migrated.push(Some(b"n=1000")),
                // A row that is not to be kept.
                _ if key == b"gone" => migrated.push(None),
                _ => migrated.push(Some(format!("n={count}").as_bytes())),
            }
        }
        Ok(migrated)
    }
}

fn declared(schema: u32) -> Topology {
    let mut topology = topology(&["in"], &["counts"], &["out"]);
    topology.sub_topologies[0].stores[0].version = schema;
    topology
}

fn version(number: u64, schema: u32, fault: Fault) -> Arc<ProcessorVersion> {
    let supplier = NativeSupplier::new(declared(schema), move |_| Counting { schema, fault }).migrating();
    ProcessorVersion::new(number, Arc::new(supplier), Arc::default())
}

/// An application on two partitions that is restarted with another version, each time without a state directory.
struct Migrating {
    fixture: Fixture,
    thread: StreamThread,
    versions: Arc<Versions>,
}

impl Migrating {
    /// Version 1 has counted.
    fn after(guarantee: ProcessingGuarantee, keys: &[&str]) -> Self {
        let first = version(1, 1, Fault::None);
        let mut fixture = Fixture::new(Arc::clone(&first.processors), 2);
        fixture.config.processing_guarantee = guarantee;
        let versions = Arc::new(Versions::new(first));
        let thread = started(&fixture, &versions);
        let mut migrating = Self { fixture, thread, versions };
        (0..2).for_each(|partition| migrating.fixture.produce(partition, keys));
        migrating.settle();
        migrating
    }

    /// Another process takes over; the last one ends in good order, or all of a sudden.
    fn restart(&mut self, versions: Versions, mode: Option<CloseMode>) {
        if let Some(mode) = mode {
            self.thread.close(mode).expect("it closes");
        }
        self.versions = Arc::new(versions);
        self.fixture.broker.assign_on_subscribe(true);
        self.thread = started(&self.fixture, &self.versions);
    }

    fn migrate_to(&mut self, version: Arc<ProcessorVersion>) {
        self.restart(Versions::on_probation(version, STRICT), Some(CloseMode::Clean));
    }

    fn settle(&mut self) {
        self.fixture.settle(&mut self.thread).expect("no fault");
    }

    /// Gives the thread the time to do what it should not.
    fn wait(&mut self) {
        for _ in 0..50 {
            self.thread.run_once().expect("it waits");
            self.fixture.clock.advance_ms(100);
        }
    }

    fn committed(&self, partition: i32) -> Committed {
        let committed = self.fixture.broker.committed(&TopicPartition::new("in", partition));
        offset_metadata::decode(&committed.expect("an offset").metadata)
    }

    fn last_outputs(&self, partition: i32, count: usize) -> Vec<String> {
        let mut texts = self.fixture.texts("out", partition);
        texts.split_off(texts.len().saturating_sub(count))
    }

    fn schema(&self, partition: i32) -> Option<u32> {
        self.committed(partition).schemas.get("counts").copied()
    }
}

/// A thread as a host starts it: with the older generations that the group still has rows of.
fn started(fixture: &Fixture, versions: &Arc<Versions>) -> StreamThread {
    let declared = Arc::clone(versions.target().processors.topology());
    let partitions = [0, 1].map(|partition| TopicPartition::new("in", partition));
    let committed = partitions.iter().filter_map(|partition| Some((partition, fixture.broker.committed(partition)?)));
    let committed: Vec<_> = committed.collect();
    let older = version::older_generations(&declared, committed.iter().map(|(partition, found)| (*partition, found)));
    assert!(older.iter().all(|found| found.is_certain), "{older:?}");
    let older: Vec<_> = older.into_iter().map(|found| found.generation).collect();
    let topology = Arc::new(declared.with_older_generations(&older));
    started_with(fixture, versions, topology)
}

fn started_with(fixture: &Fixture, versions: &Arc<Versions>, topology: Arc<Topology>) -> StreamThread {
    let mut admin = fixture.broker.admin().expect("the mock has an admin client");
    let prepared = internal_topics::prepare_known(&mut *admin, "app", &topology, -1, &KnownTopics::default());
    let prepared = prepared.expect("the topics can be prepared");
    let options = StreamThreadOptions {
        topology,
        versions: Arc::clone(versions),
        partition_counts: Arc::new(prepared.counts),
        sink_limits: Arc::new(SharedSinkLimits::new(prepared.limits)),
        ..fixture.options()
    };
    StreamThread::new(options).expect("the thread can be made")
}

#[test]
fn rows_are_taken_over_before_anything_is_processed() {
    for guarantee in [ProcessingGuarantee::ExactlyOnceV2, ProcessingGuarantee::AtLeastOnce] {
        let mut migrating = Migrating::after(guarantee, &["a", "b", "a", "gone"]);
        let old_rows = migrating.fixture.texts("app-counts-changelog", 0);
        migrating.fixture.produce(0, &["a", "gone", "new"]);
        migrating.migrate_to(version(2, 2, Fault::None));
        migrating.settle();
        assert_eq!(migrating.last_outputs(0, 3), ["a=v2:3", "gone=v2:1", "new=v2:1"], "{guarantee:?}");
        assert_eq!(migrating.fixture.texts("app-counts-changelog", 0), old_rows, "nobody writes the older rows");
        let rows = migrating.fixture.texts("app-counts-v2-changelog", 1);
        assert_eq!(rows, ["a=n=2", "b=n=1"], "an idle task has taken its rows over too");
        for partition in 0..2 {
            let committed = migrating.committed(partition);
            assert_eq!((migrating.schema(partition), committed.migrating), (Some(2), None));
            // Where something was processed since, the older rows are nothing to return to.
            assert_eq!(committed.schema_since, (partition == 1).then_some(4));
            assert!(committed.changelogs.contains_key("counts-v2"), "{committed:?}");
        }
        assert_eq!(migrating.fixture.metrics.get(crate::metrics::Metric::RowsMigrated), 6);
        // Nothing is left to be taken over, and a restart goes on with the newer rows alone.
        migrating.restart(Versions::new(version(2, 2, Fault::None)), Some(CloseMode::Clean));
        migrating.fixture.produce(1, &["b"]);
        migrating.settle();
        assert_eq!(migrating.last_outputs(1, 1), ["b=v2:2"]);
        assert_eq!(migrating.thread.options.topology.sub_topologies[0].stores.len(), 1);
        assert_eq!(migrating.fixture.progress.read().recycles, 0);
    }
}

/// Keys of several slices.
fn many_keys() -> Vec<String> {
    (0..1_800).map(|n| format!("key-{n:04}")).collect()
}

#[test]
fn a_host_that_is_killed_in_the_middle_goes_on_where_it_was() {
    let keys = many_keys();
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    for guarantee in [ProcessingGuarantee::ExactlyOnceV2, ProcessingGuarantee::AtLeastOnce] {
        let (mut half_done, mut resumed) = (0, 0);
        for kill_after in 0..24 {
            let mut migrating = Migrating::after(guarantee, &keys);
            migrating.thread.close(CloseMode::Clean).expect("it closes");
            migrating.fixture.produce(0, &["key-0000", "key-1799", "new"]);
            migrating.fixture.config.statestore_uncommitted_max_bytes = 8 << 10;
            for _ in 0..3 {
                migrating.restart(Versions::on_probation(version(2, 2, Fault::None), STRICT), None);
                for _ in 0..kill_after {
                    migrating.thread.run_once().expect("no fault");
                    migrating.fixture.clock.advance_ms(1);
                }
                let rows = migrating.fixture.texts("app-counts-v2-changelog", 0).len();
                half_done += usize::from(rows > 0 && rows < keys.len());
                resumed += usize::from(migrating.committed(0).migrating == Some(2));
            }
            migrating.restart(Versions::on_probation(version(2, 2, Fault::None), STRICT), None);
            migrating.settle();
            let outputs = migrating.last_outputs(0, 3);
            let context = format!("{guarantee:?}, killed after {kill_after} turns");
            if guarantee == ProcessingGuarantee::ExactlyOnceV2 {
                assert_eq!(outputs, ["key-0000=v2:2", "key-1799=v2:2", "new=v2:1"], "{context}");
            } else {
                assert!(outputs[0].starts_with("key-0000=v2:") && outputs[2].starts_with("new=v2:"), "{context}");
            }
            let view = |key: &str| migrating.fixture.queries.get("counts", 1, key.as_bytes(), None);
            for key in &keys {
                let found = view(key).expect("it can be asked").value.expect("a row");
                assert_eq!(&found[..], b"n=1", "{key}, {context}");
            }
        }
        assert!(half_done > 1 && resumed > 3, "it is killed in the middle: {half_done}, {resumed}");
    }
}

#[test]
fn a_migration_that_fails_changes_nothing() {
    let keys = many_keys();
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    let faults = [Fault::At("key-0000"), Fault::At("key-0900"), Fault::At("key-1799"), Fault::Short, Fault::Large];
    for fault in faults {
        let mut migrating = Migrating::after(ProcessingGuarantee::ExactlyOnceV2, &keys);
        migrating.fixture.produce(0, &["key-0900"]);
        if fault == Fault::Large {
            // Once it is there.
            drop(started(&migrating.fixture, &Arc::new(Versions::new(version(2, 2, fault)))));
            migrating.fixture.broker.set_topic_config("app-counts-v2-changelog", "max.message.bytes", "1000000");
        }
        migrating.migrate_to(version(2, 2, fault));
        migrating.settle();
        let back = migrating.versions.rolled_back().expect("it was given up");
        assert!(back.to.is_none() && migrating.versions.is_paused(), "{back:?}");
        assert!(back.reason.contains("migrate from schema version 1 to 2 fails"), "{}", back.reason);
        assert_eq!(migrating.schema(0), None);
        // The host starts the older version again, and nothing is missing.
        migrating.restart(Versions::new(version(1, 1, Fault::None)), Some(CloseMode::Clean));
        migrating.settle();
        assert_eq!(migrating.last_outputs(0, 1), ["key-0900=v1:2"], "{fault:?}");
        assert_eq!(migrating.committed(0).migrating, None);
    }
}

#[test]
fn nothing_is_left_of_an_earlier_attempt() {
    let keys = many_keys();
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    let mut migrating = Migrating::after(ProcessingGuarantee::AtLeastOnce, &keys);
    migrating.fixture.config.statestore_uncommitted_max_bytes = 8 << 10;
    migrating.migrate_to(version(2, 2, Fault::Marks));
    while migrating.fixture.texts("app-counts-v2-changelog", 0).len() < 100 {
        migrating.thread.run_once().expect("no fault");
        migrating.fixture.clock.advance_ms(1);
    }
    assert_eq!(migrating.schema(0), None, "and did not end");
    // It was taken back by hand, and the older version went on.
    migrating.restart(Versions::new(version(1, 1, Fault::None)), None);
    migrating.fixture.produce(0, &["key-0001"]);
    migrating.fixture.append("in", 0, "key-0002", "delete", 5);
    migrating.settle();
    migrating.migrate_to(version(3, 2, Fault::None));
    migrating.fixture.produce(0, &["key-0000", "key-0001", "key-0002"]);
    migrating.settle();
    assert_eq!(migrating.last_outputs(0, 3), ["key-0000=v2:2", "key-0001=v2:3", "key-0002=v2:1"]);
}

#[test]
fn a_corrected_version_takes_nothing_over_from_the_wrong_one() {
    let keys = many_keys();
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    let mut migrating = Migrating::after(ProcessingGuarantee::ExactlyOnceV2, &keys);
    migrating.fixture.config.statestore_uncommitted_max_bytes = 8 << 10;
    migrating.migrate_to(version(2, 2, Fault::Marks));
    while migrating.fixture.texts("app-counts-v2-changelog", 0).len() < 100 {
        migrating.thread.run_once().expect("no fault");
        migrating.fixture.clock.advance_ms(1);
    }
    assert_eq!(migrating.committed(0).migrating, Some(2));
    // In the same threads, as their topologies are the same.
    migrating.versions.deploy(version(3, 2, Fault::None), Some(STRICT));
    migrating.fixture.produce(0, &["key-0000", "key-1799"]);
    migrating.settle();
    assert_eq!(migrating.last_outputs(0, 2), ["key-0000=v2:2", "key-1799=v2:2"]);
    assert_eq!(migrating.versions.rolled_back(), None);
}

/// Who lost its tasks to another host is refused by the group, and only those who name offsets ask it.
#[test]
fn every_commit_of_rows_names_the_offsets_too() {
    let keys = many_keys();
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    let mut migrating = Migrating::after(ProcessingGuarantee::ExactlyOnceV2, &keys);
    migrating.fixture.config.statestore_uncommitted_max_bytes = 8 << 10;
    migrating.restart(Versions::new(version(2, 2, Fault::None)), Some(CloseMode::Clean));
    migrating.fixture.broker.take_calls();
    migrating.settle();
    let calls = migrating.fixture.broker.take_calls();
    let count = |operation| calls.iter().filter(|call| call.operation == operation).count();
    let commits = count(Operation::CommitTransaction);
    assert!(commits > 3, "in several commits: {commits}");
    assert_eq!(count(Operation::SendOffsets), commits);
}

#[test]
fn an_older_version_never_goes_on_with_rows_that_have_changed_since() {
    let mut migrating = Migrating::after(ProcessingGuarantee::ExactlyOnceV2, &["a", "a"]);
    migrating.migrate_to(version(2, 2, Fault::None));
    migrating.settle();
    // Where nothing was processed since, the older rows are what they were.
    migrating.restart(Versions::new(version(1, 1, Fault::None)), Some(CloseMode::Clean));
    migrating.fixture.produce(0, &["a"]);
    migrating.settle();
    assert_eq!(migrating.last_outputs(0, 1), ["a=v1:3"]);
    assert_eq!((migrating.schema(0), migrating.committed(0).schema_since), (None, None));
    // Once more, and this time the newer version processes a record of one task.
    migrating.migrate_to(version(3, 2, Fault::None));
    migrating.settle();
    migrating.fixture.produce(0, &["a"]);
    migrating.settle();
    assert_eq!(migrating.last_outputs(0, 1), ["a=v2:4"]);
    // A version of the same schema follows: that changes nothing about the rows.
    migrating.versions.deploy(version(4, 2, Fault::None), None);
    migrating.settle();
    migrating.restart(Versions::new(version(1, 1, Fault::None)), Some(CloseMode::Clean));
    migrating.fixture.produce(0, &["a"]);
    migrating.wait();
    assert_eq!(migrating.last_outputs(0, 1), ["a=v2:4"], "it does not process");
    let (trouble, _) = migrating.fixture.progress.read().trouble.expect("it says why");
    assert!(trouble.contains("has rows of schema version 2") && trouble.contains("this one has 1"), "{trouble}");
}

#[test]
fn older_rows_that_are_not_open_are_waited_for() {
    let mut migrating = Migrating::after(ProcessingGuarantee::ExactlyOnceV2, &["a"]);
    migrating.migrate_to(version(2, 2, Fault::None));
    migrating.settle();
    migrating.thread.close(CloseMode::Clean).expect("it closes");
    let versions = Arc::new(Versions::new(version(3, 3, Fault::None)));
    migrating.fixture.broker.assign_on_subscribe(true);
    migrating.thread = started_with(&migrating.fixture, &versions, Arc::new(declared(3)));
    for _ in 0..20 {
        migrating.thread.run_once().expect("it waits");
        migrating.fixture.clock.advance_ms(100);
    }
    let (trouble, _) = migrating.fixture.progress.read().trouble.expect("it says why");
    assert!(trouble.contains("were not taken over yet"), "{trouble}");
    assert!(versions.misses_older_rows(), "a host knows that it is to start the threads again");
}

#[test]
fn a_store_that_the_group_has_not_heard_of_is_new() {
    let mut migrating = Migrating::after(ProcessingGuarantee::ExactlyOnceV2, &[]);
    migrating.thread.close(CloseMode::Clean).expect("it closes");
    migrating.versions = Arc::new(Versions::new(version(2, 2, Fault::None)));
    migrating.fixture.broker.assign_on_subscribe(true);
    migrating.thread = started_with(&migrating.fixture, &migrating.versions, Arc::new(declared(2)));
    migrating.fixture.produce(0, &["a"]);
    migrating.settle();
    assert_eq!(migrating.last_outputs(0, 1), ["a=v2:1"]);
    assert_eq!((migrating.schema(0), migrating.committed(0).schema_since), (Some(2), None));
}

/// The group's answer was wrong when the threads were started, or an older version was faster with the first records.
#[test]
fn rows_of_the_first_schema_that_are_not_open_are_waited_for() {
    let mut migrating = Migrating::after(ProcessingGuarantee::ExactlyOnceV2, &["a"]);
    migrating.thread.close(CloseMode::Clean).expect("it closes");
    migrating.fixture.broker.assign_on_subscribe(true);
    migrating.fixture.produce(0, &["a"]);
    let versions = Arc::new(Versions::new(version(2, 2, Fault::None)));
    migrating.thread = started_with(&migrating.fixture, &versions, Arc::new(declared(2)));
    migrating.wait();
    assert_eq!(migrating.last_outputs(0, 1), ["a=v1:1"], "it does not process");
    let (trouble, _) = migrating.fixture.progress.read().trouble.expect("it says why");
    assert!(trouble.contains("were not taken over yet"), "{trouble}");
    migrating.migrate_to(version(2, 2, Fault::None));
    migrating.settle();
    assert_eq!(migrating.last_outputs(0, 1), ["a=v2:2"]);
}

#[test]
fn a_version_goes_back_to_the_rows_that_were_taken_and_to_no_older_ones() {
    let mut migrating = Migrating::after(ProcessingGuarantee::ExactlyOnceV2, &["a"]);
    migrating.migrate_to(version(2, 2, Fault::None));
    migrating.fixture.produce(0, &["a"]);
    migrating.settle();
    // Those of the second are what they were when the third took them over; those of the first are older than that.
    migrating.migrate_to(version(3, 3, Fault::None));
    migrating.settle();
    assert_eq!((migrating.schema(0), migrating.last_outputs(0, 1)), (Some(3), vec!["a=v2:2".to_owned()]));
    migrating.fixture.produce(0, &["a"]);
    migrating.restart(Versions::new(version(1, 1, Fault::None)), Some(CloseMode::Clean));
    migrating.wait();
    assert_eq!(migrating.last_outputs(0, 1), ["a=v2:2"], "it does not process");
    let (trouble, _) = migrating.fixture.progress.read().trouble.expect("it says why");
    assert!(trouble.contains("has rows of schema version 3"), "{trouble}");
    migrating.restart(Versions::new(version(2, 2, Fault::None)), Some(CloseMode::Clean));
    migrating.settle();
    assert_eq!(migrating.last_outputs(0, 1), ["a=v2:3"]);
}

#[test]
fn a_version_that_was_given_up_is_not_started_again() {
    let mut migrating = Migrating::after(ProcessingGuarantee::ExactlyOnceV2, &["a"]);
    migrating.migrate_to(version(2, 2, Fault::Init));
    migrating.wait();
    let back = migrating.versions.rolled_back().expect("it was given up");
    assert!(back.to.is_none() && back.reason.contains("no licence"), "{back:?}");
    // A corrected one goes on.
    migrating.versions.deploy(version(3, 2, Fault::None), Some(STRICT));
    migrating.fixture.produce(0, &["a"]);
    migrating.settle();
    assert_eq!(migrating.last_outputs(0, 1), ["a=v2:2"]);
}

/// The last confirmed version could not read the rows any more.
#[test]
fn a_bad_version_goes_back_to_one_that_is_not_confirmed_and_has_its_rows() {
    let mut migrating = Migrating::after(ProcessingGuarantee::ExactlyOnceV2, &["a"]);
    migrating.migrate_to(version(2, 2, Fault::None));
    migrating.settle();
    // The second is not confirmed, and has counted a record since it took the rows over.
    migrating.fixture.produce(0, &["a"]);
    migrating.settle();
    migrating.versions.deploy(version(3, 2, Fault::Init), Some(STRICT));
    migrating.fixture.produce(0, &["a"]);
    migrating.wait();
    let back = migrating.versions.rolled_back().expect("it was given up");
    assert!(back.to == Some(2) && back.reason.contains("no licence"), "{back:?}");
    migrating.settle();
    assert_eq!(migrating.last_outputs(0, 1), ["a=v2:3"]);
}

#[test]
fn what_init_and_schedules_have_written_is_not_lost_by_the_way_back() {
    for fault in [Fault::InitWrites, Fault::ScheduleWrites] {
        let mut migrating = Migrating::after(ProcessingGuarantee::ExactlyOnceV2, &["a", "a"]);
        migrating.migrate_to(version(2, 2, fault));
        migrating.settle();
        assert_eq!((migrating.schema(0), migrating.committed(0).schema_since), (Some(2), None), "{fault:?}");
        migrating.restart(Versions::new(version(1, 1, Fault::None)), Some(CloseMode::Clean));
        for _ in 0..20 {
            migrating.thread.run_once().expect("it waits");
            migrating.fixture.clock.advance_ms(100);
        }
        let (trouble, _) = migrating.fixture.progress.read().trouble.expect("it says why");
        assert!(trouble.contains("has rows of schema version 2"), "{fault:?}: {trouble}");
    }
}

#[test]
fn offsets_that_others_have_set_do_not_have_the_older_rows_taken_again() {
    let mut migrating = Migrating::after(ProcessingGuarantee::ExactlyOnceV2, &["a", "a"]);
    migrating.migrate_to(version(2, 2, Fault::None));
    migrating.fixture.produce(0, &["a"]);
    migrating.settle();
    migrating.thread.close(CloseMode::Clean).expect("it closes");
    // As Kafka's tools do: without metadata.
    let set = OffsetAndMetadata { offset: 3, metadata: String::new() };
    migrating.fixture.broker.set_committed(TopicPartition::new("in", 0), Some(set));
    // The group knows nothing of the rows, and the older changelog is there: a host declares the older generation.
    let older = OlderGeneration { sub_topology: 0, store: "counts".into(), version: 1 };
    let topology = Arc::new(declared(2).with_older_generations(&[older]));
    let versions = Arc::new(Versions::new(version(2, 2, Fault::None)));
    migrating.fixture.broker.assign_on_subscribe(true);
    migrating.thread = started_with(&migrating.fixture, &versions, Arc::clone(&topology));
    let error = (0..20).find_map(|_| migrating.thread.run_once().err()).expect("it does not go on");
    assert!(matches!(error, EngineError::UnknownSchema { own: 2, .. }), "{error}");
    assert_eq!(migrating.fixture.texts("app-counts-v2-changelog", 0).last().map(String::as_str), Some("a=n=3"));

    migrating.thread.close(CloseMode::Dirty).expect("it closes");
    migrating.fixture.config.accept_missing_offsets = true;
    migrating.fixture.broker.assign_on_subscribe(true);
    migrating.thread = started_with(&migrating.fixture, &versions, topology);
    migrating.fixture.produce(0, &["a"]);
    migrating.settle();
    assert_eq!(migrating.last_outputs(0, 1), ["a=v2:4"]);
    assert_eq!(migrating.schema(0), Some(2));
}
