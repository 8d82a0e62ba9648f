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

#[test]
fn a_load_that_cannot_be_written_takes_no_more() {
    let folder = std::env::temp_dir().join(format!("sandbar-rocks-bulk-{}", std::process::id()));
    let mut options = crate::RocksOptions::new(&folder, "a");
    options.write_buffers_bytes = 3 << 20;
    let shared = Arc::new(crate::options::SharedOptions::new(&options));
    let topology = engine::testing::topology(&["in"], &["counts"], &["out"]);
    let task = engine::topology::TaskId { sub_topology: 0, partition: 0 };
    let spec = &topology.sub_topologies[0].stores[0];
    let store = crate::store::RocksStore::open(&folder.join("store"), folder.join("load"), task, spec, shared)
        .expect("a store");
    let mut bulk = Bulk::begin(store.database(), folder.join("files")).expect("a load");
    fs::remove_dir_all(folder.join("files")).expect("no file can be made any more");
    let share = bulk.database.shared.bulk.share();
    let mut refused = 0;
    for number in 0..400_i64 {
        let write = (Bytes::from(number.to_string()), Some(Bytes::from(vec![0; 16 << 10])));
        refused += usize::from(bulk.write(&[write], Some(number)).is_err());
        assert!(bulk.gathered.bytes <= 3 * share + (32 << 10), "{} bytes after {number}", bulk.gathered.bytes);
    }
    assert!(refused > 200, "{refused} of 400 were refused");
    fs::create_dir_all(folder.join("files")).expect("files can be made again");
    bulk.end().expect("everything is written");
    assert!(bulk.offset().is_none());
    drop(bulk);
    drop(store);
    fs::remove_dir_all(folder).expect("removed");
}
