//! The checks, a file for each theme; `table` names them all.

pub mod admin;
pub mod cleaning;
pub mod consumer_protocol;
pub mod durability;
pub mod exactly_once;
pub mod fetch;
pub mod groups;
pub mod idempotence;
pub mod offsets;
pub mod produce;
pub mod topics;
pub mod transaction_offsets;
pub mod transactions;
