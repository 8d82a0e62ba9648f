//! The slot table against a map: the same inserts, look-ups and removals, with colliding hashes too.

use std::collections::{BTreeMap, BTreeSet};

use super::{NO_SLOT, SlotTable, hash};
use crate::testing::Seed;

#[test]
fn agrees_with_a_map_under_random_inserts_and_removals() {
    // Few distinct hashes make long clusters that wrap around the end of the buckets.
    for (round, distinct_hashes) in [3, 17, 1 << 30].into_iter().enumerate() {
        let mut seed = Seed::new(round as u64);
        let mut table = SlotTable::new();
        let mut model: BTreeMap<u32, u32> = BTreeMap::new();
        for _ in 0..1_500 {
            let slot = seed.below(300) as u32;
            let slot_hash = (u64::from(slot).wrapping_mul(0x9e37_79b9) % distinct_hashes) as u32;
            if model.remove(&slot).is_some() {
                table.remove(slot_hash, slot);
            } else {
                table.insert(slot_hash, slot);
                model.insert(slot, slot_hash);
            }
            for probe in 0..300 {
                let probe_hash = (u64::from(probe).wrapping_mul(0x9e37_79b9) % distinct_hashes) as u32;
                let found = table.find(probe_hash, |candidate| candidate == probe);
                assert_eq!(found != NO_SLOT, model.contains_key(&probe), "slot {probe}");
            }
        }
    }
}

#[test]
fn hashes_of_short_similar_keys_differ() {
    let keys: BTreeSet<Vec<u8>> = (0..20_000_u32)
        .flat_map(|n| [n.to_be_bytes().to_vec(), n.to_string().into_bytes(), format!("station/{n:012}").into_bytes()])
        .collect();
    let hashes: BTreeSet<u32> = keys.iter().map(|key| hash(key)).collect();
    // A random function over 2^32 loses less than one in 60 000 of 60 000 keys.
    assert!(hashes.len() + 8 >= keys.len(), "{} of {}", hashes.len(), keys.len());
    assert_ne!(hash(b"a"), hash(b"a\0"));
    assert_ne!(hash(b""), hash(b"\0"));
}
