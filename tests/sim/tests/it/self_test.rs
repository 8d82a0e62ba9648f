//! The checker finds every kind of seeded defect, and nothing in what is right: it is run on observations of clean
//! runs that were changed afterwards, each change as a faulty engine would have left it.

use engine::testing::Seed;
use sim::tally::{LATEST, PAIRED, TALLIES, Tallied, UNPAIRED};
use sim::{Kind, Observation, Rules, Scenario, Violation, check, run};

const CLEAN: Rules = Rules { replays: 0, zombies: false };
const REPLAYS: Rules = Rules { replays: 3, zombies: false };
const ZOMBIES: Rules = Rules { replays: 3, zombies: true };

/// Runs whose observations are changed.
const SEEDS: u64 = 20;

/// One of the elements, and where it is.
fn any(seed: &mut Seed, len: usize) -> Option<usize> {
    (len > 0).then(|| seed.below(len as u64) as usize)
}

/// A defect: changes the observation, or returns false where there is nothing to change.
type Defect = fn(&mut Observation, &mut Seed) -> bool;

/// A partition with at least `len` outputs.
fn outputs<'a>(
    observation: &'a mut Observation,
    seed: &mut Seed,
    len: usize,
) -> Option<&'a mut Vec<sim::observation::Output>> {
    let mut large: Vec<_> = observation.outputs.values_mut().filter(|outputs| outputs.len() >= len).collect();
    let index = any(seed, large.len())?;
    Some(large.swap_remove(index))
}

/// A store with rows.
fn row<'a>(
    observation: &'a mut Observation,
    seed: &mut Seed,
    store: &str,
) -> Option<(&'a mut sim::observation::Rows, Vec<u8>)> {
    let mut stores: Vec<_> = observation
        .stores
        .iter_mut()
        .filter(|((name, _), (rows, _))| name == store && !rows.is_empty())
        .map(|(_, (rows, _))| rows)
        .collect();
    let rows = any(seed, stores.len()).map(|index| stores.swap_remove(index))?;
    let keys: Vec<Vec<u8>> = rows.keys().filter(|key| *key != PAIRED).cloned().collect();
    let key = any(seed, keys.len()).map(|index| keys[index].clone())?;
    Some((rows, key))
}

fn drop_an_output(observation: &mut Observation, seed: &mut Seed) -> bool {
    let Some(outputs) = outputs(observation, seed, 1) else { return false };
    any(seed, outputs.len()).map(|index| outputs.remove(index)).is_some()
}

fn repeat_an_output(observation: &mut Observation, seed: &mut Seed) -> bool {
    let Some(outputs) = outputs(observation, seed, 1) else { return false };
    let Some(index) = any(seed, outputs.len()) else { return false };
    outputs.insert(index, outputs[index].clone());
    true
}

fn repeat_an_output_too_often(observation: &mut Observation, seed: &mut Seed) -> bool {
    (0..=REPLAYS.replays).all(|_| repeat_first(observation)) && seed.below(1) == 0
}

fn repeat_first(observation: &mut Observation) -> bool {
    let Some(outputs) = observation.outputs.values_mut().find(|outputs| !outputs.is_empty()) else { return false };
    outputs.insert(0, outputs[0].clone());
    true
}

/// Swaps two outputs of one topic.
fn swap_outputs(observation: &mut Observation, seed: &mut Seed) -> bool {
    let Some(outputs) = outputs(observation, seed, 2) else { return false };
    let pairs: Vec<usize> = (1..outputs.len()).filter(|&n| outputs[n].topic == outputs[n - 1].topic).collect();
    let Some(index) = any(seed, pairs.len()) else { return false };
    outputs.swap(pairs[index], pairs[index] - 1);
    true
}

/// An output whose tally lacks a record that came before.
fn tear_an_output(observation: &mut Observation, seed: &mut Seed) -> bool {
    let Some(outputs) = outputs(observation, seed, 1) else { return false };
    let Some(index) = any(seed, outputs.len()) else { return false };
    let tallied = &mut outputs[index].tallied;
    *tallied = Tallied { count: tallied.count - 1, sum: tallied.sum - 1 };
    true
}

fn lose_a_row(observation: &mut Observation, seed: &mut Seed) -> bool {
    row(observation, seed, TALLIES).map(|(rows, key)| rows.remove(&key)).is_some()
}

/// A row as it was one record earlier.
fn stale_row(observation: &mut Observation, seed: &mut Seed) -> bool {
    let schema = observation.schema;
    let Some((rows, key)) = row(observation, seed, TALLIES) else { return false };
    let Some(tallied) = rows.get(&key).and_then(|row| Tallied::decode_row(schema, row)) else { return false };
    let last = tallied.count - 1;
    rows.insert(key, Tallied { count: last, sum: tallied.sum - (1 << (8 * last)) }.encode_row(schema));
    true
}

fn wrong_sum(observation: &mut Observation, seed: &mut Seed) -> bool {
    let schema = observation.schema;
    let Some((rows, key)) = row(observation, seed, TALLIES) else { return false };
    let Some(tallied) = rows.get(&key).and_then(|row| Tallied::decode_row(schema, row)) else { return false };
    rows.insert(key, Tallied { sum: tallied.sum + 1, ..tallied }.encode_row(schema));
    true
}

/// A record that is counted twice.
fn count_twice(observation: &mut Observation, seed: &mut Seed) -> bool {
    let schema = observation.schema;
    let Some((rows, key)) = row(observation, seed, TALLIES) else { return false };
    let Some(tallied) = rows.get(&key).and_then(|row| Tallied::decode_row(schema, row)) else { return false };
    rows.insert(key, Tallied { count: tallied.count + 1, sum: tallied.sum + 1 }.encode_row(schema));
    true
}

fn stale_latest(observation: &mut Observation, seed: &mut Seed) -> bool {
    let Some((rows, key)) = row(observation, seed, LATEST) else { return false };
    rows.insert(key, vec![0; 3]);
    true
}

/// A row that a migration should have removed was met.
fn unpaired_row(observation: &mut Observation, _seed: &mut Seed) -> bool {
    let mut stores = observation.stores.iter_mut().filter(|((name, _), _)| name == LATEST);
    stores.next().map(|(_, (rows, _))| rows.insert(UNPAIRED.to_vec(), b"!".to_vec())).is_some()
}

/// A delete that did not reach the store.
fn resurrected_row(observation: &mut Observation, _seed: &mut Seed) -> bool {
    let stores = observation.stores.iter_mut().filter(|((name, _), _)| name == LATEST);
    { stores }.next().map(|(_, (rows, _))| rows.insert(b"t0k99999".to_vec(), vec![0; 4])).is_some()
}

/// The changelog lacks the last write of a key.
fn stale_changelog(observation: &mut Observation, _seed: &mut Seed) -> bool {
    let row = observation.changelogs.values_mut().find_map(|(rows, _)| rows.pop_first());
    row.is_some()
}

fn stale_restore(observation: &mut Observation, _seed: &mut Seed) -> bool {
    observation.restored.values_mut().find_map(|rows| rows.pop_last()).is_some()
}

fn old_store_offset(observation: &mut Observation, _seed: &mut Seed) -> bool {
    let offset = observation.stores.values_mut().find_map(|(_, offset)| offset.as_mut());
    offset.map(|offset| *offset -= 1).is_some()
}

fn uncommitted_input(observation: &mut Observation, _seed: &mut Seed) -> bool {
    let offset = observation.committed.values_mut().flatten().find(|offset| **offset > 0);
    offset.map(|offset| *offset -= 1).is_some()
}

/// An output that lacks its own record, which no zombie explains.
fn forget_own_record(observation: &mut Observation, seed: &mut Seed) -> bool {
    let inputs = observation.inputs.clone();
    let Some((&partition, outputs)) = observation.outputs.iter_mut().find(|(_, outputs)| !outputs.is_empty()) else {
        return false;
    };
    let Some(output) = any(seed, outputs.len()).map(|index| &mut outputs[index]) else { return false };
    let own = inputs
        .iter()
        .find(|input| (input.topic, input.partition, input.sequence) == (output.topic, partition, output.sequence));
    let Some(own) = own else { return false };
    output.tallied = Tallied { count: output.tallied.count - 1, sum: output.tallied.sum - own.amount() };
    true
}

/// A reader saw an output that was taken back later.
fn read_what_was_aborted(observation: &mut Observation, _seed: &mut Seed) -> bool {
    let read = observation.read_meanwhile.values_mut().find(|read| !read.is_empty());
    read.map(|read| read.push(read[0].clone())).is_some()
}

/// Compaction lost a row.
fn compact_too_much(observation: &mut Observation, _seed: &mut Seed) -> bool {
    let history = observation.histories.values_mut().find(|rows| !rows.is_empty());
    history.map(|rows| rows.insert(b"lost".to_vec(), vec![1])).is_some()
}

/// An output of another version than the committed offsets say.
fn output_of_another_version(observation: &mut Observation, _seed: &mut Seed) -> bool {
    let since = observation.versions.clone();
    let outputs = observation
        .outputs
        .iter_mut()
        .flat_map(|(partition, outputs)| outputs.iter_mut().map(move |output| (*partition, output)));
    let mut late = outputs.filter(|(partition, output)| {
        since.get(&(output.topic, *partition)).is_some_and(|mark| output.offset >= mark.since)
    });
    late.next().map(|(_, output)| output.version += 1).is_some()
}

/// The committed offsets name a version that is not the wanted one.
fn forgotten_swap(observation: &mut Observation, _seed: &mut Seed) -> bool {
    observation.active_version += 1;
    !observation.versions.is_empty()
}

/// Every defect, and the rules under which it must be found.
const DEFECTS: [(&str, Defect, &[Rules]); 21] = [
    ("drop an output", drop_an_output, &[CLEAN, REPLAYS, ZOMBIES]),
    ("repeat an output", repeat_an_output, &[CLEAN]),
    ("repeat an output too often", repeat_an_output_too_often, &[CLEAN, REPLAYS, ZOMBIES]),
    ("swap outputs", swap_outputs, &[CLEAN, REPLAYS, ZOMBIES]),
    ("tear an output", tear_an_output, &[CLEAN, REPLAYS]),
    ("lose a row", lose_a_row, &[CLEAN, REPLAYS]),
    ("stale row", stale_row, &[CLEAN, REPLAYS]),
    ("wrong sum", wrong_sum, &[CLEAN, REPLAYS]),
    ("count twice", count_twice, &[CLEAN]),
    ("stale latest", stale_latest, &[CLEAN, REPLAYS]),
    ("unpaired row", unpaired_row, &[CLEAN]),
    ("resurrected row", resurrected_row, &[CLEAN, REPLAYS]),
    ("stale changelog", stale_changelog, &[CLEAN, REPLAYS, ZOMBIES]),
    ("stale restore", stale_restore, &[CLEAN, REPLAYS, ZOMBIES]),
    ("old store offset", old_store_offset, &[CLEAN, REPLAYS]),
    ("uncommitted input", uncommitted_input, &[CLEAN, REPLAYS, ZOMBIES]),
    ("forget the own record", forget_own_record, &[CLEAN, REPLAYS, ZOMBIES]),
    ("read what was aborted", read_what_was_aborted, &[CLEAN, REPLAYS, ZOMBIES]),
    ("output of another version", output_of_another_version, &[CLEAN]),
    ("forgotten swap", forgotten_swap, &[CLEAN, REPLAYS, ZOMBIES]),
    ("compact too much", compact_too_much, &[CLEAN, REPLAYS, ZOMBIES]),
];

#[test]
fn every_seeded_defect_is_found_and_nothing_else() {
    // Even without faults a host that leaves in the middle of a rebalance may find its last commit refused.
    let clean =
        (0..5 * SEEDS).map(|seed| run(&Scenario::new(Kind::Clean, seed), false)).filter(|report| report.rules == CLEAN);
    let runs: Vec<Observation> = clean.take(SEEDS as usize).map(|report| report.observation).collect();
    assert_eq!(runs.len(), SEEDS as usize, "clean runs are rare");
    for (name, defect, rules) in DEFECTS {
        let mut applied = 0;
        for (number, clean) in runs.iter().enumerate() {
            assert_eq!(check(clean, CLEAN), [], "a false alarm in run {number}");
            let mut seed = Seed::new(number as u64);
            let mut observation = clean.clone();
            if !defect(&mut observation, &mut seed) {
                continue;
            }
            applied += 1;
            assert_ne!(&observation, clean, "{name} changes nothing in run {number}");
            for &rules in rules {
                let found: Vec<Violation> = check(&observation, rules);
                assert!(!found.is_empty(), "{name} is not found in run {number} under {rules:?}");
            }
        }
        assert!(applied >= SEEDS / 2, "{name} was applied to {applied} of {SEEDS} runs only");
    }
}
