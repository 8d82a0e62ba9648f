//! The table under many keys and the reuse of a cache, which the model test of `testing` is too small to reach.

use super::*;
use crate::bindings::sandbar::processor::context::PunctuationType;
use crate::bindings::sandbar::processor::state::{Bound, Page};
use crate::bindings::sandbar::processor::types::TaskId;

/// A store with `v<key>` for every even key.
struct EvenKeys;

impl Host for EvenKeys {
    fn open(&self, _name: &str) -> Result<u32, String> {
        Ok(0)
    }

    fn get(&self, _store: u32, key: &[u8]) -> Option<Vec<u8>> {
        let number: u32 = std::str::from_utf8(key).ok()?.parse().ok()?;
        number.is_multiple_of(2).then(|| format!("v{number}").into_bytes())
    }

    fn get_many(&self, store: u32, keys: &Columns) -> NullableColumns {
        let mut values = NullableColumns::default();
        for index in 0..keys.len() {
            values.push(self.get(store, keys.get(index)).as_deref());
        }
        values
    }

    fn put_many(&self, _store: u32, _keys: &Columns, _values: &NullableColumns, _timestamps: &[i64]) {
        panic!("nothing was written");
    }

    fn range(&self, _: u32, _: &Bound, _: &Bound, _: bool, _: u32) -> Page {
        Page::default()
    }

    fn prefix(&self, _: u32, _: &[u8], _: Option<&[u8]>, _: bool, _: u32) -> Page {
        Page::default()
    }

    fn approximate_entries(&self, _store: u32) -> u64 {
        0
    }

    fn application_id(&self) -> String {
        String::new()
    }

    fn task(&self) -> TaskId {
        TaskId::default()
    }

    fn stream_time(&self) -> Option<i64> {
        None
    }

    fn wall_clock_time(&self) -> i64 {
        0
    }

    fn schedule(&self, _interval_ms: u64, _kind: PunctuationType) -> u32 {
        0
    }

    fn cancel(&self, _schedule: u32) {}

    fn config(&self, _key: &str) -> Option<String> {
        None
    }
}

#[test]
fn many_keys_keep_apart_through_growth_and_reuse() {
    let mut cache = StoreCache::default();
    // A large call, a small one (which empties the table slot by slot), a large one again.
    for (count, prefetch) in [(3_000, false), (5, true), (3_000, true)] {
        let keys: Vec<String> = (0..count).map(|number| number.to_string()).collect();
        if prefetch {
            cache.prefetch(&EvenKeys, 0, keys.iter().map(String::as_bytes));
        }
        for (number, key) in keys.iter().enumerate() {
            let expected = number.is_multiple_of(2).then(|| format!("v{number}").into_bytes());
            assert_eq!(cache.get(&EvenKeys, 0, key.as_bytes()), expected.as_deref(), "{key} of {count}");
        }
        cache.flush(&EvenKeys, 0);
        cache.clear();
        assert!(cache.table.iter().all(|&entry| entry == 0), "{count}");
    }
}

#[test]
fn an_empty_value_is_not_an_absent_one() {
    let mut cache = StoreCache::default();
    cache.begin_record();
    cache.put::<()>(b"1", 0, |_| Ok(true)).expect("written");
    assert_eq!(cache.get(&EvenKeys, 0, b"1"), Some(&[][..]));
    cache.undo_record();
    assert_eq!(cache.get(&EvenKeys, 0, b"1"), None);
    assert_eq!(cache.get(&EvenKeys, 0, b""), None);
}
