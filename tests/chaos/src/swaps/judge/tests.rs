//! The judge of swaps on recordings with one defect each, on clean ones, and on what a version that spoils outputs
//! may do.

use super::super::self_test;
use super::*;

#[test]
fn every_kind_of_defect_is_found_and_nothing_else() {
    let outcome = self_test::run(20).expect("every defect as what it is, and no false alarm");
    assert_eq!((outcome.kinds, outcome.clean_runs), (13, 20));
}

#[test]
fn nothing_that_was_done_is_not_taken_for_a_success() {
    let key = Key { partition: 0, number: 1 };
    let counts = vec![Counts { name: "the changelog".to_owned(), partitions: vec![0], rows: BTreeMap::new() }];
    let recording = Recording { input: vec![vec![key]], outputs: vec![Vec::new()], counts, ..Recording::default() };
    let found = judge(&recording).findings.counts;
    assert_eq!(found.into_iter().collect::<Vec<_>>(), [("lost", 1), ("stale", 1)]);
}

/// One that forwards nothing and one that forwards twice: the entries are counted, and are no defects.
#[test]
fn a_version_that_spoils_outputs_is_not_blamed_on_the_host() {
    let key = Key { partition: 0, number: 1 };
    let output =
        |offset, seq: u64, label| Output { offset, appended_ms: 0, origin: 0, seq, key, count: seq + 1, label };
    let outputs = vec![vec![output(0, 0, 10), output(2, 2, 30), output(3, 2, 30)]];
    let known = |label, spoils| Known { label, spoils };
    let mark = |offset, number| Commit { offset, version: Some((number, offset - 1)), ..Commit::default() };
    let recording = Recording {
        input: vec![vec![key; 3]],
        outputs: outputs.clone(),
        witnessed: outputs,
        commits: vec![vec![mark(1, 1), mark(2, 2), mark(3, 3)]],
        versions: [(1, known(10, false)), (2, known(20, true)), (3, known(30, true))].into(),
        ..Recording::default()
    };
    let verdict = judge(&recording);
    assert!(verdict.findings.counts.is_empty(), "{:?}", verdict.findings);
    assert_eq!((verdict.records, verdict.switches, verdict.spoiled), (3, 2, 2));
}

#[test]
fn an_output_is_read_as_the_guest_writes_it() {
    let value = br#"{"version":"17","count":3,"partition":2,"offset":41}"#;
    let output = Output::parse(9, 5, b"2-00007", value).expect("an output");
    let key = Key { partition: 2, number: 7 };
    assert_eq!(output, Output { offset: 9, appended_ms: 5, origin: 2, seq: 41, key, count: 3, label: 17 });
    assert!(Output::parse(9, 5, b"2-00007", &value[1..]).is_err());
}
