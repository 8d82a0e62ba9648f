//! The in-memory store passes the store contract.

use super::MemoryStore;
use crate::testing::store_contract;

#[test]
fn passes_the_store_contract() {
    store_contract(&mut || Box::new(MemoryStore::new()));
}
