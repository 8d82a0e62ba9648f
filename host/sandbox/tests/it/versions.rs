//! The guest `versions`, of which the tests of the hot swap make good and bad versions: each bad one is bad in the way
//! that its name says, at that place and nowhere else, and the good ones count.

use engine::processor::ProcessorError;
use engine::record::Outcome;
use sandbox::Limits;

use crate::support::{Task, batch, module};

fn limits() -> Limits {
    Limits { deadline_ms: 300, memory_max_bytes: 40 << 20, host_max_calls: 20_000, ..Limits::default() }
}

fn created(config: &[(&str, &str)]) -> Task {
    Task::create("versions", limits(), config)
}

fn started(config: &[(&str, &str)]) -> Task {
    let mut task = created(config);
    task.init().unwrap_or_else(|error| panic!("{config:?}: {error}"));
    task
}

fn values(outcome: &Outcome) -> Vec<String> {
    let values = (0..outcome.outputs.values.len()).map(|index| outcome.outputs.values.get(index).unwrap_or_default());
    values.map(|value| String::from_utf8_lossy(value).into_owned()).collect()
}

/// Two records of one key, and one of another.
fn three() -> engine::record::InputBatch {
    batch(&[("a", ""), ("poison", ""), ("a", "")])
}

#[test]
fn good_versions_say_who_they_are_and_count() {
    for (guest, config, label) in
        [("versions", None, "a"), ("versions-b", None, "b"), ("versions", Some(("label", "17")), "17")]
    {
        let mut task = Task::create(guest, limits(), config.as_slice());
        task.init().unwrap();
        let said = |count: u32, offset: u32| {
            format!(r#"{{"version":"{label}","count":{count},"partition":3,"offset":{offset}}}"#)
        };
        assert_eq!(values(&task.process(three()).unwrap()), [said(1, 100), said(1, 101), said(2, 102)]);
        assert_eq!(values(&task.process(three()).unwrap()), [said(3, 100), said(2, 101), said(4, 102)]);
    }
}

#[test]
fn versions_that_do_not_start() {
    let start = |behaviour| created(&[("behaviour", behaviour)]).init().unwrap_err();
    assert!(matches!(start("trap-in-init"), ProcessorError::Trap { .. }));
    assert_eq!(start("error-in-init"), ProcessorError::Returned("this version does not start".to_owned()));
    assert_eq!(start("loop-in-init"), ProcessorError::Deadline { limit_ms: 300 });
    let ProcessorError::Returned(message) = start("trap-in-int") else { panic!("a typo is told") };
    assert!(message.ends_with("found \"trap-in-int\""), "{message}");
}

#[test]
fn versions_at_which_a_call_fails() {
    type Expected = fn(&ProcessorError) -> bool;
    let trap: Expected = |error| matches!(error, ProcessorError::Trap { .. });
    let calls: Expected = |error| matches!(error, ProcessorError::Limit { key: "processor.host.max.calls", .. });
    let rows: [(&str, Expected); 12] = [
        ("trap-first-record", trap),
        ("trap-every-record", trap),
        ("trap-one-key", trap),
        ("recurse", trap),
        ("panic-huge", trap),
        ("error-every-call", |error| matches!(error, ProcessorError::Returned(_))),
        ("loop-in-process", |error| matches!(error, ProcessorError::Deadline { .. })),
        ("grow-memory", |error| matches!(error, ProcessorError::Memory { .. })),
        ("flood-log", calls),
        ("flood-host-calls", calls),
        ("columns-misfit", |error| matches!(error, ProcessorError::Output(_))),
        ("good", |_| false),
    ];
    for (behaviour, is_expected) in rows {
        let result = started(&[("behaviour", behaviour)]).process(three());
        match result {
            Ok(outcome) => assert!(behaviour == "good" && outcome.outputs.len() == 3, "{behaviour} passed"),
            Err(error) => assert!(is_expected(&error), "{behaviour}: {error}"),
        }
        // They are bad from a record on, and not before.
        let mut later = started(&[("behaviour", behaviour), ("after_records", "3")]);
        assert_eq!(values(&later.process(three()).unwrap()).len(), 3, "{behaviour}");
        assert_eq!(later.process(three()).is_err(), behaviour != "good", "{behaviour}");
    }
}

#[test]
fn a_version_that_traps_at_one_key_passes_the_others() {
    let config = [("behaviour", "trap-one-key"), ("key", "x")];
    let mut task = started(&config);
    task.process(three()).unwrap();
    assert!(matches!(task.process(batch(&[("x", "")])), Err(ProcessorError::Trap { .. })));
}

#[test]
fn a_version_that_traps_in_its_punctuation_passes_records() {
    let mut task = started(&[("behaviour", "trap-in-punctuate")]);
    assert_eq!(task.requests.len(), 1, "it asked for no schedule");
    task.process(three()).unwrap();
    assert!(matches!(task.punctuate(0, 1_000), Err(ProcessorError::Trap { .. })));
    assert_eq!(started(&[]).requests.len(), 0);
}

/// The sandbox passes them on: sinks, partitions and topics are the task's to know, and rates the host's.
#[test]
fn versions_whose_outputs_only_the_host_can_judge() {
    let outcome = |behaviour| started(&[("behaviour", behaviour)]).process(three()).unwrap();
    let refused = outcome("refuse-every-record");
    assert_eq!((refused.refused.len(), refused.outputs.len()), (3, 0));
    assert_eq!(outcome("sink-out-of-range").outputs.sinks, [7, 7, 7]);
    assert_eq!(outcome("partition-missing").outputs.partitions, [99_999; 3]);
    assert_eq!(outcome("outputs-hundredfold").outputs.len(), 300);
    assert_eq!(outcome("outputs-none").outputs.len(), 0);
    let keyless = outcome("null-key").outputs;
    assert!((0..3).all(|index| keyless.keys.get(index).is_none() && keyless.values.get(index).is_some()));
    let large = outcome("output-too-large").outputs;
    assert!(large.values.get(2).is_some_and(|value| value.len() > 2 << 20) && large.values.get(1).is_some());
}

#[test]
fn incompatible_versions_declare_one_thing_otherwise() {
    let declared = |guest: &str| {
        let topology = module(guest).declaration().sub_topologies[0].clone();
        let sources = topology.sources.iter().map(|source| source.name.clone()).collect::<Vec<_>>();
        let stores = topology.stores.iter();
        let stores = stores.map(|store| format!("{} {} {}", store.name, store.value_format, store.version));
        (sources.join(","), stores.collect::<Vec<_>>().join(","))
    };
    let pair = |sources: &str, stores: &str| (sources.to_owned(), stores.to_owned());
    assert_eq!(declared("versions"), pair("in", "counts i64 1,last i64 1"));
    assert_eq!(declared("versions-b"), declared("versions"));
    assert_eq!(declared("versions-other-source"), pair("in-renamed", "counts i64 1,last i64 1"));
    assert_eq!(declared("versions-store-less"), pair("in", "counts i64 1"));
    assert_eq!(declared("versions-store-more"), pair("in", "counts i64 1,last i64 1,extra bytes 1"));
    assert_eq!(declared("versions-other-format"), pair("in", "counts utf8 1,last i64 1"));
    assert_eq!(declared("versions-higher-schema"), pair("in", "counts i64 2,last i64 1"));
}
