//! Tests of swaps: another version of the processor at a commit boundary, its probation, and the way back.

use super::super::fixture::Fixture;
use super::super::*;
use super::calls;
use crate::broker::OffsetAndMetadata;
use crate::metrics::Metric;
use crate::processor::{ProcessorContext, ProcessorError, PunctuationType, ScheduleId};
use crate::record::{Header, InputBatch, Outcome, Timestamp, TopicPartition};
use crate::task::offset_metadata::{self, VersionMark};
use crate::testing::{NativeProcessor, NativeSupplier, Operation, forward, number, topology};
use crate::version::{Probation, ProcessorVersion, Versions};

const STRICT: Probation = Probation { failures_max: 0, output_factor: 10.0 };

/// What a version does wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    /// Its `init` writes, and then fails.
    Init,
    /// It traps at the key `bad`.
    Trap,
    /// It refuses the key `bad`, as an error of the call.
    Refuse,
    /// It traps when its schedule is due.
    Punctuate,
    /// It forwards each record twenty times.
    Floods,
}

/// Counts each key and forwards the count with its own number: `v1:3`.
struct Numbered {
    number: u64,
    fault: Fault,
}

impl NativeProcessor for Numbered {
    fn init(&mut self, context: &mut ProcessorContext) -> Result<(), ProcessorError> {
        if self.fault == Fault::Init {
            let store = context.store_at(0)?;
            context.put(store, b"half", Some(b"done"), None)?;
            return Err(ProcessorError::Returned("no licence".to_owned()));
        }
        context.schedule(1_000, PunctuationType::StreamTime);
        Ok(())
    }

    fn process(&mut self, context: &mut ProcessorContext, batch: &InputBatch) -> Result<Outcome, ProcessorError> {
        let store = context.store_at(0)?;
        let mut outcome = Outcome::default();
        for (index, &timestamp) in batch.timestamps.iter().enumerate() {
            let key = batch.keys.get(index).unwrap_or_default();
            let count = context.get(store, key)?.map_or(0, |value| number(&value)) + 1;
            context.put(store, key, Some(&count.to_be_bytes()), None)?;
            match self.fault {
                Fault::Trap if key == b"bad" => return Err(trap()),
                Fault::Refuse if key == b"bad" => return Err(ProcessorError::Returned("no bad ones".to_owned())),
                _ => {}
            }
            let text = format!("v{}:{count}", self.number);
            for _ in 0..if self.fault == Fault::Floods { 20 } else { 1 } {
                forward(&mut outcome.outputs, timestamp, Some(key), Some(text.as_bytes()));
                outcome.outputs.partitions.push(batch.partition);
            }
        }
        Ok(outcome)
    }

    fn punctuate(&mut self, _: &mut ProcessorContext, _: ScheduleId, _: Timestamp) -> Result<Outcome, ProcessorError> {
        if self.fault == Fault::Punctuate { Err(trap()) } else { Ok(Outcome::default()) }
    }
}

fn trap() -> ProcessorError {
    ProcessorError::Trap { message: "unreachable".to_owned(), backtrace: String::new() }
}

fn version(number: u64, fault: Fault) -> Arc<ProcessorVersion> {
    let make = move |_| Numbered { number, fault };
    let supplier = NativeSupplier::new(topology(&["in"], &["counts"], &["out"]), make);
    ProcessorVersion::new(number, Arc::new(supplier), Arc::default())
}

/// A thread on two partitions with version 1, under exactly-once.
struct Swapping {
    fixture: Fixture,
    versions: Arc<Versions>,
    thread: StreamThread,
}

impl Swapping {
    fn new() -> Self {
        Self::with(|_| ())
    }

    fn with(configure: impl FnOnce(&mut StreamsConfig)) -> Self {
        let first = version(1, Fault::None);
        let mut fixture = Fixture::new(Arc::clone(&first.processors), 2);
        fixture.config.processing_guarantee = ProcessingGuarantee::ExactlyOnceV2;
        configure(&mut fixture.config);
        let versions = Arc::new(Versions::new(first));
        let thread = Self::thread(&fixture, &versions);
        Self { fixture, versions, thread }
    }

    fn thread(fixture: &Fixture, versions: &Arc<Versions>) -> StreamThread {
        let options = StreamThreadOptions { versions: Arc::clone(versions), ..fixture.options() };
        StreamThread::new(options).expect("the thread can be made")
    }

    /// Another process takes over, without a state directory.
    fn restart(&mut self, versions: &Arc<Versions>) {
        self.fixture.broker.assign_on_subscribe(true);
        self.thread = Self::thread(&self.fixture, versions);
    }

    fn settle(&mut self) {
        self.fixture.settle(&mut self.thread).expect("no fault");
    }

    fn produce(&self, keys: &[&str]) {
        (0..2).for_each(|partition| self.fixture.produce(partition, keys));
    }

    fn committed_mark(&self, partition: i32) -> Option<VersionMark> {
        let committed = self.fixture.broker.committed(&TopicPartition::new("in", partition));
        committed.and_then(|OffsetAndMetadata { metadata, .. }| offset_metadata::decode(&metadata).version)
    }

    fn versions_of_tasks(&self) -> Vec<u64> {
        self.fixture.progress.read().tasks.iter().map(|task| task.version).collect()
    }
}

#[test]
fn every_task_goes_on_in_the_new_version_with_its_state() {
    let mut swapping = Swapping::new();
    swapping.produce(&["a", "b", "a"]);
    swapping.settle();
    assert_eq!(swapping.committed_mark(0), Some(VersionMark { number: 1, since: 0 }));
    swapping.versions.deploy(version(2, Fault::None), Some(STRICT));
    swapping.produce(&["a"]);
    swapping.settle();
    for partition in 0..2 {
        assert_eq!(swapping.fixture.texts("out", partition), ["a=v1:1", "b=v1:1", "a=v1:2", "a=v2:3"]);
        assert_eq!(swapping.committed_mark(partition), Some(VersionMark { number: 2, since: 3 }));
    }
    assert_eq!(swapping.versions_of_tasks(), [2, 2]);
    assert_eq!(swapping.fixture.metrics.get(Metric::TasksSwapped), 2);
    let report = swapping.fixture.progress.read();
    assert_eq!(report.tasks[0].partitions[0].version_since, Some(3));
    assert_eq!(report.recycles, 0);
}

#[test]
fn records_of_before_the_swap_are_committed_by_the_old_version() {
    let mut swapping = Swapping::new();
    swapping.settle();
    swapping.produce(&["a"]);
    // Processed, and not committed.
    swapping.thread.run_once().expect("no fault");
    swapping.versions.deploy(version(2, Fault::None), Some(STRICT));
    swapping.produce(&["a"]);
    swapping.settle();
    let texts = swapping.fixture.texts("out", 0);
    assert!(texts == ["a=v1:1", "a=v2:2"] || texts == ["a=v1:1", "a=v1:2"], "{texts:?}");
    let mark = swapping.committed_mark(0).expect("a version");
    assert_eq!(mark.number, 2);
    let by_old = texts.iter().filter(|text| text.contains("v1")).count();
    assert_eq!(mark.since, by_old as i64, "the version begins where the outputs change");
}

#[test]
fn an_idle_task_says_too_which_version_it_runs() {
    let mut swapping = Swapping::new();
    swapping.settle();
    swapping.fixture.broker.take_calls();
    swapping.versions.deploy(version(2, Fault::None), None);
    swapping.settle();
    assert_eq!(swapping.committed_mark(1), Some(VersionMark { number: 2, since: 0 }));
    assert_eq!(calls(&swapping.fixture, &[Operation::SendOffsets]).len(), 1, "it is said once");
}

#[test]
fn a_restart_goes_on_with_the_wanted_version_and_knows_since_when() {
    let mut swapping = Swapping::new();
    swapping.produce(&["a"]);
    swapping.settle();
    swapping.versions.deploy(version(2, Fault::None), None);
    swapping.produce(&["a"]);
    swapping.settle();
    swapping.thread.close(CloseMode::Dirty).expect("it closes");
    swapping.restart(&Arc::clone(&swapping.versions));
    swapping.produce(&["a"]);
    swapping.settle();
    assert_eq!(swapping.fixture.texts("out", 0), ["a=v1:1", "a=v2:2", "a=v2:3"]);
    assert_eq!(swapping.committed_mark(0), Some(VersionMark { number: 2, since: 1 }));
    assert_eq!(swapping.fixture.progress.read().tasks[0].partitions[0].version_since, Some(1));
}

#[test]
fn a_host_that_starts_with_a_version_that_the_offsets_do_not_know_says_so() {
    let mut swapping = Swapping::new();
    swapping.produce(&["a"]);
    swapping.settle();
    swapping.thread.close(CloseMode::Clean).expect("it closes");
    // Another host was told of version 3 while this one was away.
    let versions = Arc::new(Versions::new(version(3, Fault::None)));
    swapping.restart(&versions);
    swapping.settle();
    assert_eq!(swapping.committed_mark(0), Some(VersionMark { number: 3, since: 1 }));
}

#[test]
fn a_version_that_does_not_start_changes_nothing() {
    let mut swapping = Swapping::new();
    swapping.produce(&["a"]);
    swapping.settle();
    swapping.versions.deploy(version(2, Fault::Init), None);
    swapping.produce(&["a"]);
    swapping.settle();
    assert_eq!(swapping.fixture.texts("out", 0), ["a=v1:1", "a=v1:2"]);
    let rolled_back = swapping.versions.rolled_back().expect("it was given up");
    assert_eq!((rolled_back.number, rolled_back.to), (2, Some(1)));
    assert!(rolled_back.reason.contains("no licence"), "{}", rolled_back.reason);
    assert_eq!(swapping.versions_of_tasks(), [1, 1]);
    assert_eq!(swapping.fixture.count(0, "half"), None, "what init wrote is undone");
    assert_eq!(swapping.fixture.progress.read().recycles, 0);
    assert_eq!(swapping.fixture.metrics.get(Metric::InstancesReplaced), 0, "the old instance goes on");
}

/// The work of the failing version is never committed, and the old one does it again.
#[test]
fn a_version_on_probation_that_fails_goes_back_by_itself() {
    for fault in [Fault::Trap, Fault::Refuse] {
        let mut swapping = Swapping::new();
        swapping.produce(&["a", "bad"]);
        swapping.settle();
        swapping.versions.deploy(version(2, fault), Some(STRICT));
        swapping.settle();
        assert_eq!(swapping.versions_of_tasks(), [2, 2]);
        swapping.produce(&["a", "bad", "a"]);
        swapping.settle();
        let rolled_back = swapping.versions.rolled_back().expect("it went back");
        assert!(rolled_back.reason.contains("probation.failures.max"), "{fault:?}: {}", rolled_back.reason);
        assert_eq!(swapping.versions_of_tasks(), [1, 1], "{fault:?}");
        for partition in 0..2 {
            assert_eq!(swapping.fixture.count(partition, "a"), Some(3), "{fault:?}");
            assert_eq!(swapping.fixture.count(partition, "bad"), Some(2), "{fault:?}");
            assert_eq!(swapping.committed_mark(partition).map(|mark| mark.number), Some(1), "{fault:?}");
        }
    }
}

/// Between the rollback, or another deployment, and the swap a task still runs the version that fails.
#[test]
fn a_version_that_is_not_wanted_any_more_gives_no_record_up() {
    let mut swapping = Swapping::with(|config| {
        config.exception_handlers.processing = crate::exception_handlers::ExceptionHandler::Continue;
    });
    swapping.settle();
    swapping.versions.deploy(version(2, Fault::Trap), Some(STRICT));
    swapping.settle();
    swapping.produce(&["a"]);
    // The next swap waits for the commit of this record.
    swapping.thread.run_once().expect("no fault");
    swapping.versions.deploy(version(3, Fault::None), Some(STRICT));
    swapping.produce(&["bad"]);
    swapping.settle();
    assert_eq!(swapping.fixture.count(0, "bad"), Some(1));
    assert_eq!(swapping.fixture.metrics.get(Metric::RecordsDropped), 0);
}

#[test]
fn a_schedule_that_fails_on_probation_goes_back_too() {
    let mut swapping = Swapping::new();
    swapping.fixture.append("in", 0, "a", "", 10);
    swapping.settle();
    swapping.versions.deploy(version(2, Fault::Punctuate), Some(STRICT));
    swapping.settle();
    swapping.fixture.append("in", 0, "a", "", 5_000);
    swapping.settle();
    assert_eq!(swapping.versions.rolled_back().and_then(|back| back.to), Some(1));
    assert_eq!(swapping.fixture.count(0, "a"), Some(2));
}

#[test]
fn a_version_that_forwards_far_more_goes_back() {
    let mut swapping = Swapping::new();
    let many = vec!["a"; 1_100];
    swapping.fixture.produce(0, &many);
    swapping.settle();
    swapping.versions.deploy(version(2, Fault::Floods), Some(STRICT));
    swapping.fixture.produce(0, &many);
    swapping.settle();
    let reason = swapping.versions.rolled_back().expect("it went back").reason;
    assert!(reason.contains("probation.output.factor"), "{reason}");
    assert_eq!(swapping.fixture.count(0, "a"), Some(2_200));
}

#[test]
fn a_confirmed_version_is_isolated_like_any_other() {
    let mut swapping = Swapping::with(|config| {
        config.exception_handlers.processing = crate::exception_handlers::ExceptionHandler::Continue;
    });
    swapping.settle();
    swapping.versions.deploy(version(2, Fault::Trap), Some(STRICT));
    swapping.versions.confirm(2);
    swapping.produce(&["a", "bad", "a"]);
    swapping.settle();
    assert_eq!(swapping.versions.rolled_back(), None);
    assert_eq!(swapping.fixture.texts("out", 0), ["a=v2:1", "a=v2:2"]);
}

#[test]
fn a_paused_application_commits_what_it_has_and_stands_still() {
    let mut swapping = Swapping::new();
    swapping.settle();
    swapping.produce(&["a"]);
    swapping.thread.run_once().expect("no fault");
    swapping.versions.pause(true);
    swapping.produce(&["a"]);
    swapping.settle();
    assert_eq!(swapping.fixture.committed("in", 0), Some(1));
    swapping.versions.pause(false);
    swapping.settle();
    assert_eq!(swapping.fixture.committed("in", 0), Some(2));
}

#[test]
fn a_version_without_one_before_it_stands_still_when_it_fails() {
    let mut swapping = Swapping::new();
    let versions = Arc::new(Versions::on_probation(version(1, Fault::Trap), STRICT));
    swapping.restart(&versions);
    swapping.produce(&["bad"]);
    swapping.settle();
    assert_eq!(versions.rolled_back().map(|back| (back.number, back.to)), Some((1, None)));
    assert_eq!(swapping.fixture.committed("in", 0), Some(0));
    assert_eq!(swapping.fixture.progress.read().recycles, 1, "it does not try again");
}

#[test]
fn schedules_keep_their_time_over_a_swap() {
    let mut swapping = Swapping::new();
    swapping.fixture.append("in", 0, "a", "", 1_500);
    swapping.settle();
    let punctuations = swapping.fixture.metrics.get(Metric::Punctuations);
    swapping.versions.deploy(version(2, Fault::None), Some(STRICT));
    swapping.fixture.append("in", 0, "a", "", 1_900);
    swapping.settle();
    assert_eq!(swapping.fixture.metrics.get(Metric::Punctuations), punctuations, "it is due at 2,000");
    swapping.fixture.append("in", 0, "a", "", 2_000);
    swapping.settle();
    assert_eq!(swapping.fixture.metrics.get(Metric::Punctuations), punctuations + 1);
}

#[test]
fn an_output_says_which_module_made_it_where_that_is_wanted() {
    let mut swapping = Swapping::with(|config| config.provenance = true);
    swapping.produce(&["a"]);
    swapping.settle();
    let records = swapping.fixture.broker.records("out", 0);
    let expected = Header { key: "__sandbar.module".into(), value: Some("native".into()) };
    assert_eq!(records[0].headers, [expected]);
}
