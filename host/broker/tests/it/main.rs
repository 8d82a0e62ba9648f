//! The embedded broker as a host uses it: started on a folder, found by others, killed and started again.

#![expect(clippy::unwrap_used, reason = "a test stops where something is wrong")]

mod client;
mod clients;
mod crash;
mod embedded;
mod fairness;
mod full_disk;
mod listening;
mod standby;
