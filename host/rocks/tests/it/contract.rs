//! The engine's contract of a state store.

use engine::state::StoreProvider;
use engine::testing;

use crate::folder::{Folder, TASK, open, put, spec};

#[test]
fn stores_keep_the_contract() {
    let folder = Folder::new("contract");
    let provider = folder.provider();
    let mut number = 0;
    testing::store_contract(&mut || {
        number += 1;
        open(&provider, &format!("store-{number}"))
    });
}

#[test]
fn stores_keep_the_contract_over_a_close() {
    let folder = Folder::new("persistent");
    let provider = folder.provider();
    testing::persistent_store_contract(&mut || open(&provider, "store"));
}

#[test]
fn stores_survive_their_provider_being_opened_anew() {
    let folder = Folder::new("reopen");
    for round in 0..3_i64 {
        let provider = folder.provider();
        let mut store = open(&provider, "store");
        let expected = if round == 0 { None } else { Some(round) };
        assert_eq!(store.changelog_offset().expect("offset"), expected, "written without a flush, closed in order");
        store.write(&[put("round", &round.to_string())], Some(round + 1)).expect("write");
        drop(store);
    }
}

#[test]
fn stores_of_two_tasks_and_names_are_apart() {
    let folder = Folder::new("apart");
    let provider = folder.provider();
    let other = engine::topology::TaskId { sub_topology: 1, partition: 3 };
    let mut stores = [open(&provider, "a"), open(&provider, "b"), provider.open(other, &spec("a")).expect("open")];
    for (index, store) in stores.iter_mut().enumerate() {
        store.write(&[put("who", &index.to_string())], Some(index as i64)).expect("write");
    }
    for (index, store) in stores.iter().enumerate() {
        assert_eq!(store.get(b"who").expect("get").as_deref(), Some(index.to_string().as_bytes()));
    }
    provider.wipe(TASK, &spec("never-there")).expect("wiping nothing is no error");
    assert!(provider.memory_usage_bytes() > 0, "write buffers are charged to the shared cache");
}
