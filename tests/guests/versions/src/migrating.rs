//! Takes the counts of version 1, eight bytes each, over into text. Traps at a value that is none of them: a row that
//! is migrated twice, one into the other, does not go unseen.

use std::hint::black_box;

use sandbar::bindings::migration::__export_migration;
use sandbar::bindings::migration::exports::sandbar::processor::migration::Guest;
use sandbar::bindings::sandbar::processor::log;
use sandbar::bindings::sandbar::processor::types::{Columns, NullableColumns};

/// The row at which the fragile one traps.
const TRAP_KEY: &[u8] = b"0-00042";

struct Migrating;

impl Guest for Migrating {
    fn migrate(store: String, from_version: u32, keys: Columns, values: Columns) -> Result<NullableColumns, String> {
        // It is called without `init`.
        std::panic::set_hook(Box::new(|panic| log::log(log::Level::Error, &panic.to_string())));
        if (store.as_str(), from_version) != ("counts", 1) {
            return Err(format!("{store} is not migrated from version {from_version}"));
        }
        let mut migrated = NullableColumns { bytes: Vec::new(), ends: Vec::new(), nulls: Vec::new() };
        for index in 0..keys.ends.len() {
            let (key, value) = (item(&keys, index), item(&values, index));
            if cfg!(feature = "migrates-fragile") && key == TRAP_KEY {
                panic!("the row {} is not liked", String::from_utf8_lossy(key));
            }
            take_time();
            let count: [u8; 8] = value.try_into().unwrap_or_else(|_| panic!("a count that is not i64: {value:?}"));
            migrated.bytes.extend_from_slice(i64::from_be_bytes(count).to_string().as_bytes());
            migrated.ends.push(migrated.bytes.len() as u32);
        }
        Ok(migrated)
    }
}

__export_migration!(Migrating with_types_in sandbar::bindings::migration);

/// Some 0.4 ms for a row: a host is to be killed in the middle.
fn take_time() {
    for turn in 0..1_300_000_u64 {
        black_box(turn);
    }
}

fn item(columns: &Columns, index: usize) -> &[u8] {
    let start = if index == 0 { 0 } else { columns.ends[index - 1] as usize };
    &columns.bytes[start..columns.ends[index] as usize]
}
