//! The Kafka protocol on loopback, over the core. One thread a connection, requests of a connection one after another
//! (as Kafka does), answers in order. Requests are bounded in size and checked before they are decoded; a malformed one
//! closes its connection with a logged reason and touches nothing else. There is no authentication: binds 127.0.0.1
//! unless it is told another address by name.

mod admin;
mod ask;
mod connection;
mod data;
mod groups;
mod handles;
mod inspect;
mod offsets;
mod park;
mod requests;
mod server;
pub mod shape;
mod transactions;

pub use ask::ask_cluster_id;
#[cfg(test)]
pub(crate) use connection::OTHER_REQUEST_BYTES_MAX;
#[cfg(test)]
pub(crate) use data::{FETCH_BYTES_MAX, FETCH_WAIT_MAX};
pub use server::{Server, ServerError, WireOptions};

use std::collections::BTreeSet;

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

/// The longest error message: it may hold names that a client made up, and old versions carry 32 KiB at most.
const MESSAGE_CHARS_MAX: usize = 1_000;

/// The error message of a result.
fn message<T>(result: &Result<T, Refusal>) -> Option<StrBytes> {
    result.as_ref().err().map(|refusal| text(refusal.detail.chars().take(MESSAGE_CHARS_MAX).collect::<String>()))
}

/// Each thing once, in order: an answer is as large as what is asked for, not as often as it is asked for.
fn unique<T: Clone + Ord>(things: Vec<T>) -> impl Iterator<Item = T> {
    let mut seen = BTreeSet::new();
    things.into_iter().filter(move |thing| seen.insert(thing.clone()))
}

#[cfg(test)]
mod tests;
