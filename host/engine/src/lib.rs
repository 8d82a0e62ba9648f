//! The engine: what a stream processor does between a consumer and a producer, as synchronous, deterministic code.
//! It knows broker, store, processor and clock as traits only; time is passed in. The modules are declared in the
//! order in which a record meets them.

pub mod broker;
pub mod clock;
pub mod columns;
pub mod metrics;
pub mod partitioner;
pub mod processor;
pub mod query;
pub mod record;
pub mod state;
pub mod testing;
pub mod topology;
