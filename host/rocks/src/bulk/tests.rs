//! What a table file is made of: each key once, with its last write, in the order of the database.

use std::collections::BTreeMap;

use engine::testing::Seed;

use super::*;

#[test]
fn the_last_write_of_each_key_wins_and_keys_are_sorted() {
    let mut seed = Seed::new(7);
    for round in 0..200 {
        let mut model: BTreeMap<Vec<u8>, Option<Bytes>> = BTreeMap::new();
        let mut writes: Vec<Write> = Vec::new();
        for _ in 0..seed.below(120) {
            // Keys of a few letters, zeros among them, some of them beginnings of others, some with equal first bytes.
            let length = seed.below(4) + if seed.one_in(2) { 8 } else { 0 };
            let key: Vec<u8> =
                (0..length).map(|at| if at < 8 && length > 7 { 0 } else { seed.below(3) as u8 }).collect();
            let value = (!seed.one_in(3)).then(|| Bytes::from(seed.next_u64().to_string()));
            model.insert(key.clone(), value.clone());
            writes.push((Bytes::from(key), value));
        }
        let found: Vec<(Vec<u8>, Option<Bytes>)> =
            last_of_each_key(&writes).map(|(key, value)| (key.to_vec(), value.clone())).collect();
        assert_eq!(found, model.into_iter().collect::<Vec<_>>(), "round {round}");
    }
}
