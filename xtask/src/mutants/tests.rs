//! Every mutant still finds its text, and none has the name of another.

use std::collections::BTreeSet;

use super::table::MUTANTS;
use super::{apply, prepare};

#[test]
fn every_mutant_finds_its_text_exactly_once() {
    let root = crate::repository_root().expect("the repository");
    let scratch = std::env::temp_dir().join(format!("sandbar-mutants-{}", std::process::id()));
    prepare(&root, &scratch).expect("the copy is made");
    let applied: Vec<_> = MUTANTS.iter().map(|mutant| (mutant.name, apply(&scratch, mutant))).collect();
    std::fs::remove_dir_all(&scratch).expect("the copy is removed");
    for (name, applied) in applied {
        applied.unwrap_or_else(|error| panic!("{name}: {error:#}"));
    }
    let names: BTreeSet<&str> = MUTANTS.iter().map(|mutant| mutant.name).collect();
    assert_eq!(names.len(), MUTANTS.len());
}
