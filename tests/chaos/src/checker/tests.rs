//! The checker on recordings with one defect each, on clean ones, and on an empty one.

use super::*;
use crate::self_test;

#[test]
fn every_kind_of_defect_is_found_and_nothing_else() {
    let outcome = self_test::run(20).expect("every defect as what it is, and no false alarm");
    assert_eq!((outcome.kinds, outcome.clean_runs), (13, 20));
}

#[test]
fn nothing_that_was_done_is_not_taken_for_a_success() {
    let entry = Input::parse(0, b"0-00001", &[0; 20]).expect("an entry");
    let recording = Recording {
        input: vec![vec![entry]],
        outputs: [vec![Vec::new()], vec![Vec::new()]],
        witnessed: [vec![Vec::new()], vec![Vec::new()]],
        ..Recording::default()
    };
    let verdict = check(&recording);
    assert_eq!(verdict.counts().collect::<Vec<_>>(), [(Defect::Lost, 1), (Defect::Stale, 1)]);
}

#[test]
fn a_record_that_nobody_wrote_is_foreign() {
    let mut recording = Recording { input: vec![Vec::new()], ..Recording::default() };
    let output = Output::parse(7, b"0-00001", &[0; 28]).expect("an output");
    recording.outputs = [vec![vec![output]], vec![Vec::new()]];
    recording.witnessed = recording.outputs.clone();
    let verdict = check(&recording);
    assert_eq!(verdict.counts().collect::<Vec<_>>(), [(Defect::Foreign, 1)]);
    assert!(verdict.to_string().contains("first-0 offset 7: entry 0/0"), "{verdict}");
}
