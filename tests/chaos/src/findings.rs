//! What a verdict on recorded answers has found: how often each kind of defect, with a few examples for people. Judges
//! nothing by itself.

use std::collections::BTreeMap;

/// What was found, by kind.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Findings {
    pub counts: BTreeMap<&'static str, u64>,
    pub examples: Vec<String>,
}

/// So many examples are kept in all.
const EXAMPLES: usize = 10;

impl Findings {
    /// Counts a defect; `what` is asked for only while there is room for examples.
    pub fn found(&mut self, kind: &'static str, what: impl FnOnce() -> String) {
        *self.counts.entry(kind).or_default() += 1;
        if self.examples.len() < EXAMPLES {
            self.examples.push(format!("{kind}: {}", what()));
        }
    }
}
