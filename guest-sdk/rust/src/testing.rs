//! Unit tests without wasm: [`TestDriver`] runs a processor natively, through the same code as in a component, with
//! stores in memory and a clock that the test moves. Batches are cut and punctuations fire as the engine does it. Not
//! part of a component.

mod driver;
mod memory;

pub use driver::{Builder, Forwarded, Refused, StoreView, TestDriver, TestRecord};
pub use memory::HostCalls;

#[cfg(test)]
mod tests;
