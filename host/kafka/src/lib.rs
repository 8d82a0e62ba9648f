//! The engine's broker seam over librdkafka: group consumer, restore consumer, membership, producer, admin, and what
//! the command line needs to look at topics. One client configuration rules them all (`KafkaClientsConfig`); settings
//! on which correctness rests cannot be overridden. Knows records and offsets, never tasks or stores.

mod admin;
mod clients;
mod config;
mod consumer;
mod error;
mod fetch;
mod members;
mod metadata;
mod native;
mod producer;
mod restore;
pub mod topics;

pub use clients::KafkaClients;
pub use config::{ConfigError, KafkaClientsConfig};
pub use metadata::{ClusterInfo, ConnectAttempt};
pub use native::broker_ends;
