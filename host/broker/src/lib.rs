//! Sandbar's embedded broker: a small single-node Kafka broker for trials, development and tests on one machine. `core`
//! is the pure state machine, `direct` the engine's broker traits over it (for simulation), `wire` the Kafka protocol on
//! loopback, `disk` the folder behind it. It never binds anything but loopback and knows nothing of Sandbar's
//! applications.

pub mod core;
pub mod direct;
pub mod disk;
mod embedded;
pub mod wire;

pub use embedded::{EmbeddedBroker, EmbeddedBrokerError, EmbeddedBrokerOptions, running_at};
