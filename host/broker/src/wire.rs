//! The Kafka protocol on loopback, over the core. One thread a connection, requests of a connection one after another
//! (as Kafka does), answers in order. Requests are bounded in size and checked before they are decoded; a malformed one
//! closes its connection with a logged reason and touches nothing else. Binds 127.0.0.1 only: there is no authentication.

mod admin;
mod ask;
mod connection;
mod data;
mod groups;
mod offsets;
mod park;
mod requests;
mod server;
pub mod shape;
mod transactions;

pub use ask::ask_cluster_id;
pub use server::{Server, ServerError, WireOptions};

use kafka_protocol::protocol::StrBytes;

use crate::core::refusal::Refusal;

/// The only node of the cluster.
const NODE_ID: i32 = 0;

fn text(value: impl Into<String>) -> StrBytes {
    StrBytes::from_string(value.into())
}

/// The error code of a result, 0 for success.
fn code<T>(result: &Result<T, Refusal>) -> i16 {
    result.as_ref().err().map_or(0, |refusal| refusal.code.code())
}

/// The error message of a result.
fn message<T>(result: &Result<T, Refusal>) -> Option<StrBytes> {
    result.as_ref().err().map(|refusal| text(refusal.detail.as_str()))
}

#[cfg(test)]
mod tests;
