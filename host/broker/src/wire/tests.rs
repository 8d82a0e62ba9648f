//! The wire, from a raw client's side: every request in every version, records in and out, groups over connections,
//! and clients that misbehave.

mod client;
mod data;
mod fuzz;
mod groups;
mod hostile;
mod load;
mod names;
mod samples;
mod transactions;
mod versions;
