//! Sandbar's embedded broker: a small single-node Kafka broker for trials, development and tests on one machine. `core`
//! is the pure state machine, `direct` the engine's broker traits over it (for simulation), `wire` the Kafka protocol on
//! loopback, `disk` the folder behind it. It never binds anything but loopback and knows nothing of Sandbar's
//! applications.
//!
//! What a client will miss, and is told where it asks: the consumer protocol of KIP-848, the newer transaction protocol of
//! KIP-890 (the older one is served, with its hole closed on the broker's side), replication, security, settings of brokers.
//! Accepted but not acted on yet: retention and compaction (`DeleteRecords` does delete), recompression by the broker.
//! In compressed batches an offset for a time is the batch's first one, and keys are not checked on compacted topics.

pub mod core;
pub mod direct;
pub mod disk;
mod embedded;
#[cfg(test)]
mod mutation;
pub mod wire;

pub use embedded::{EmbeddedBroker, EmbeddedBrokerError, EmbeddedBrokerOptions, running_at};
