//! Sandbar's embedded broker: a small single-node Kafka broker for trials, development and tests on one machine. `core`
//! is the pure state machine, `direct` the engine's broker traits over it (for simulation), `wire` the Kafka protocol
//! on loopback, `disk` the folder behind it. It binds nothing but loopback unless it is told another address by name,
//! and knows nothing of Sandbar's applications.
//!
//! What a client will miss, and is told where it asks: the consumer protocol of KIP-848, the newer transaction protocol
//! of KIP-890 (the older one is served, with its hole closed on the broker's side), replication, security, changes of
//! the broker's settings, recompression by the broker (`compression.type`). Retention and compaction work as in Kafka,
//! with three differences: a topic keeps its records for ever unless its `retention.ms` says otherwise, a segment ends
//! by time (`segment.ms`, `max.compaction.lag.ms`) even if nothing more is written, and markers of transactions are
//! never compacted away.

pub mod core;
pub mod direct;
pub mod disk;
mod embedded;
#[cfg(test)]
mod mutation;
pub mod wire;

pub use embedded::{EmbeddedBroker, EmbeddedBrokerError, EmbeddedBrokerOptions, running_at};
