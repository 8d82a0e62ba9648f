//! Whole applications of native processors, record by record: outputs, stores, schedules, restarts, refusals.

use std::sync::Arc;

use super::{DriverOptions, TopologyTestDriver};
use crate::query::QueryError;
use crate::stream_thread::{CloseMode, ProcessingGuarantee};
use crate::testing::{
    Count, Hostile, MajorityVote, NativeProcessor, NativeSupplier, PassThrough, commands, number, topology,
};

fn driver<P: NativeProcessor + Copy + Sync + 'static>(processor: P, stores: &[&str]) -> TopologyTestDriver {
    let supplier = NativeSupplier::new(topology(&["in"], stores, &["out"]), move |_| processor);
    TopologyTestDriver::new(DriverOptions::new(Arc::new(supplier))).expect("the application starts")
}

fn texts(driver: &mut TopologyTestDriver) -> Vec<String> {
    let text = |bytes: Option<bytes::Bytes>| String::from_utf8_lossy(&bytes.unwrap_or_default()).into_owned();
    let records = driver.read_output("out").into_iter();
    records.map(|record| format!("{}={}@{}", text(record.key), text(record.value), record.timestamp)).collect()
}

#[test]
fn records_pass_through() {
    let mut driver = driver(PassThrough, &[]);
    driver.pipe_input("in", Some(b"k"), Some(b"v"), 5).expect("processed");
    driver.pipe_input("in", None, None, 6).expect("processed");
    driver.commit().expect("committed");
    assert_eq!(texts(&mut driver), ["k=v@5", "=@6"]);
    assert!(texts(&mut driver).is_empty(), "read once");
}

#[test]
fn counts_are_in_the_store_once_they_are_committed_and_survive_a_restart() {
    for guarantee in [ProcessingGuarantee::AtLeastOnce, ProcessingGuarantee::ExactlyOnceV2] {
        let supplier = NativeSupplier::new(topology(&["in"], &["counts"], &["out"]), |_| Count);
        let mut options = DriverOptions::new(Arc::new(supplier));
        options.config.processing_guarantee = guarantee;
        options.partitions = 3;
        let mut driver = TopologyTestDriver::new(options).expect("the application starts");
        for key in ["a", "b", "a"] {
            driver.pipe_input("in", Some(key.as_bytes()), None, 10).expect("processed");
        }
        assert_eq!(driver.store_value("counts", b"a").expect("is there"), None, "not committed yet");
        driver.commit().expect("committed");
        assert_eq!(driver.store_value("counts", b"a").expect("is there").map(|value| number(&value)), Some(2));
        driver.restart(CloseMode::Clean).expect("starts again");
        driver.pipe_input("in", Some(b"a"), None, 11).expect("processed");
        driver.commit().expect("committed");
        let entries = driver.store_entries("counts").expect("is there");
        let counts: Vec<_> = entries.iter().map(|(key, value)| (&key[..], number(value))).collect();
        assert_eq!(counts, [(&b"a"[..], 3), (&b"b"[..], 1)], "{guarantee:?}");
    }
}

#[test]
fn what_was_not_committed_is_processed_again_after_a_crash() {
    let mut driver = driver(Count, &["counts"]);
    driver.pipe_input("in", Some(b"a"), None, 10).expect("processed");
    driver.commit().expect("committed");
    driver.pipe_input("in", Some(b"a"), None, 11).expect("processed");
    driver.restart(CloseMode::Dirty).expect("starts again");
    driver.commit().expect("committed");
    assert_eq!(driver.store_value("counts", b"a").expect("is there").map(|value| number(&value)), Some(2));
}

#[test]
fn a_majority_is_counted_and_summed_up_by_the_hour() {
    let mut driver = driver(MajorityVote, &["reports"]);
    let hour = MajorityVote::SUMMARY_INTERVAL_MS as i64;
    for (report, at) in [("EWR=1", 0), ("JFK=0", 1), ("LGA=1", 2), ("JFK=1", hour + 1)] {
        driver.pipe_input("in", Some(b"rain"), Some(report.as_bytes()), at).expect("processed");
    }
    driver.commit().expect("committed");
    let votes: Vec<String> = texts(&mut driver).into_iter().filter(|text| text.starts_with("rain")).collect();
    assert_eq!(votes, ["rain=1/1@0", "rain=1/2@1", "rain=2/3@2", &format!("rain=3/3@{}", hour + 1)]);
    let entries = driver.store_entries("reports").expect("is there");
    assert_eq!(
        entries.iter().map(|(key, _)| &key[..]).collect::<Vec<_>>(),
        [&b"rain/EWR"[..], b"rain/JFK", b"rain/LGA"]
    );
}

#[test]
fn a_hostile_record_stops_the_application_and_leaves_no_trace_of_itself() {
    for command in [commands::REFUSE, commands::TRAP, commands::RETURN, commands::MALFORMED, commands::UNKNOWN_SINK] {
        let mut driver = driver(Hostile, &["counts"]);
        driver.pipe_input("in", Some(b"a"), Some(b"good"), 10).expect("processed");
        driver.commit().expect("committed");
        let outputs = driver.read_output("out").len();
        let error = driver.pipe_input("in", Some(b"a"), Some(command), 11).expect_err("stops");
        let message = error.to_string();
        for part in ["in-0", "offset 1", "native"] {
            assert!(message.contains(part), "{message:?} does not name {part:?}");
        }
        assert_eq!(driver.read_output("out").len(), 0, "after {outputs} outputs");
        let count = driver.broker().records("test-counts-changelog", 0).len();
        assert_eq!(count, 1, "no changelog record of the failed call");
    }
}

#[test]
fn an_unknown_store_is_named() {
    let driver = driver(Count, &["counts"]);
    assert!(matches!(driver.store_entries("count"), Err(QueryError::UnknownStore { .. })));
}
