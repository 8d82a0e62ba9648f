//! The Rust SDK for Sandbar processors: a processor is a struct with store and sink handles and one function per
//! record; batches, columns and the write-back cache stay below it. Every record is atomic: an `Err` leaves no write,
//! no output and no schedule of it behind. Nothing here reads a clock, a file or the environment of the guest.
//!
//! ```
//! use sandbar::prelude::*;
//!
//! /// Counts the records of every key.
//! #[sandbar::processor(source = "words")]
//! struct WordCount {
//!     #[store(prefetch)]
//!     counts: Store<String, i64>,
//!     #[sink]
//!     totals: Sink<String, i64>,
//! }
//!
//! impl Processor for WordCount {
//!     type Key = String;
//!     type Value = Raw;
//!
//!     fn process(&mut self, record: Record<String, Raw>, _context: &mut Context) -> Result<()> {
//!         let count = self.counts.get(&record.key)?.unwrap_or(0) + 1;
//!         self.counts.put(&record.key, &count)?;
//!         self.totals.forward(&record.key, &count)
//!     }
//! }
//!
//! let mut driver = sandbar::testing::TestDriver::<WordCount>::new()?;
//! driver.pipe("tide", b"", 1_000)?;
//! driver.pipe("tide", b"", 2_000)?;
//! assert_eq!(driver.read(|p| &p.totals)[1].value, 2);
//! # Ok::<(), sandbar::Error>(())
//! ```

#![warn(missing_docs)]

// What the attribute macro writes names this crate from outside.
#[cfg(test)]
extern crate self as sandbar;

#[doc(hidden)]
#[allow(
    clippy::allow_attributes_without_reason,
    clippy::undocumented_unsafe_blocks,
    clippy::unwrap_used,
    missing_docs,
    reason = "the generator writes this file"
)]
pub mod bindings;
mod columns;
mod context;
mod declaration;
mod error;
#[doc(hidden)]
#[allow(missing_docs, reason = "the functions are documented in the contract, wit/processor.wit")]
pub mod host;
mod instance;
#[doc(hidden)]
pub mod log;
mod migration;
mod processor;
mod record;
mod serdes;
mod sink;
mod store;
#[cfg(not(target_arch = "wasm32"))]
pub mod testing;
#[cfg(target_arch = "wasm32")]
#[doc(hidden)]
pub mod wasm;

pub use context::{Context, PunctuationType, ScheduleId, TaskId};
pub use declaration::{Declaration, Declare, SinkBuilder, StoreBuilder};
pub use error::{Error, Result};
#[doc(hidden)]
pub use instance::Instance;
pub use processor::{Processor, Punctuation};
pub use record::{Header, Headers, Record, version};
pub use sandbar_macros::processor;
pub use serdes::{Json, Raw, Serde, Str};
pub use sink::{Outgoing, Sink};
pub use store::{Entries, Store};

/// What a processor's file needs: `use sandbar::prelude::*;`.
pub mod prelude {
    pub use crate::{
        Context, Error, Headers, Json, Processor, Punctuation, PunctuationType, Raw, Record, Result, ScheduleId, Serde,
        Sink, Store, Str, bail, ensure,
    };
}

/// The examples of the README are compiled and run as tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
