//! The verdict on dead letters: one for each poison, which says what it was and carries it as it came, in the order of
//! the source; none for anything else.

use std::collections::BTreeMap;

use super::{Defect, Recording, Verdict};
use crate::poison::DeadLetter;
use crate::workload::PLACE_HEADER;

pub fn check(recording: &Recording, verdict: &mut Verdict) {
    let mut found: BTreeMap<(u32, u64), u64> = BTreeMap::new();
    // The highest seq of an origin in a partition of the topic.
    let mut highest: BTreeMap<(i32, u32), u64> = BTreeMap::new();
    for letter in &recording.dead_letters {
        let DeadLetter { partition, offset, origin, seq, .. } = letter;
        let place = || format!("dead letter {partition}/{offset}, of entry {origin}/{seq}");
        let times = found.entry((*origin, *seq)).or_default();
        *times += 1;
        if let Some(fault) = fault(recording, letter) {
            verdict.found(Defect::FalseLetter, || format!("{}: {fault}", place()));
            continue;
        }
        let before = highest.entry((*partition, *origin)).or_insert(*seq);
        if *times > 1 {
            verdict.found(Defect::ManyLetters, place);
        } else if *before > *seq {
            verdict.found(Defect::Reordered, || format!("{} comes after {before}", place()));
        }
        *before = (*before).max(*seq);
    }
    for input in recording.input.iter().flatten() {
        let Some(poison) = input.entry.poison else { continue };
        if !found.contains_key(&(input.partition, input.seq)) {
            let what = || format!("entry {}/{} ({})", input.partition, input.seq, poison.name());
            verdict.found(Defect::NoLetter, what);
        }
    }
}

/// What is wrong with a dead letter by itself.
fn fault(recording: &Recording, letter: &DeadLetter) -> Option<String> {
    let DeadLetter { topic, origin, seq, reason, key, value, .. } = letter;
    let entries = recording.input.get(*origin as usize);
    let input = entries.and_then(|entries| entries.get(usize::try_from(*seq).ok()?));
    let Some(input) = input else { return Some("there is no such entry".to_owned()) };
    let Some(poison) = input.entry.poison else { return Some(format!("the entry is no poison ({reason})")) };
    if topic != &recording.input_topic {
        return Some(format!("it names the topic {topic}"));
    }
    if reason != poison.reason() {
        return Some(format!("it says {reason} of a {}", poison.name()));
    }
    if (&key[..], value) != (input.entry.key.text().as_bytes(), &input.value()) {
        return Some(format!("it is {value:?} with the key {key:?}"));
    }
    if letter.timestamp != input.timestamp {
        return Some(format!("its timestamp is {}, not {}", letter.timestamp, input.timestamp));
    }
    if letter.headers != [(PLACE_HEADER.to_owned(), input.place())] {
        return Some(format!("its headers are {:?}", letter.headers));
    }
    None
}
