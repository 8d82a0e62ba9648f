//! The seam to the host: the contract's imports as a trait. `wasm` calls them, `testing` keeps them in memory. Pure
//! plumbing: no cache, no types, no errors besides those of the contract.

use crate::bindings::sandbar::processor::context::PunctuationType;
use crate::bindings::sandbar::processor::state::{Bound, Page};
use crate::bindings::sandbar::processor::types::{Columns, NullableColumns, TaskId};

/// What a processor may ask its host. See `wit/processor.wit` for the meaning of each function.
pub trait Host {
    fn open(&self, name: &str) -> Result<u32, String>;
    fn get(&self, store: u32, key: &[u8]) -> Option<Vec<u8>>;
    fn get_many(&self, store: u32, keys: &Columns) -> NullableColumns;
    fn put_many(&self, store: u32, keys: &Columns, values: &NullableColumns, timestamps: &[i64]);
    fn range(&self, store: u32, lower: &Bound, upper: &Bound, reverse: bool, limit: u32) -> Page;
    fn prefix(&self, store: u32, prefix: &[u8], after: Option<&[u8]>, reverse: bool, limit: u32) -> Page;
    fn approximate_entries(&self, store: u32) -> u64;
    fn application_id(&self) -> String;
    fn task(&self) -> TaskId;
    fn stream_time(&self) -> Option<i64>;
    fn wall_clock_time(&self) -> i64;
    fn schedule(&self, interval_ms: u64, kind: PunctuationType) -> u32;
    fn cancel(&self, schedule: u32);
    fn config(&self, key: &str) -> Option<String>;
}
