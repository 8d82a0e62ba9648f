//! What the end-to-end tests and the demo share: the built `sandbar` as a process, real Kafka, real data with its
//! expected answers. Speaks to Sandbar only as a user can (command line, REST, topics); links none of its crates.

pub mod embedded;
pub mod flights;
pub mod host;
pub mod http;
pub mod kafka;
pub mod own_kafka;
pub mod repository;
pub mod tools;
pub mod topics;
pub mod votes;
pub mod weather;
