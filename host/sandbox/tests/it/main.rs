//! The sandbox from outside: real modules (`tests/guests`, built by `make guests`), good and hostile, in a real
//! runtime.

#![expect(clippy::unwrap_used, reason = "a test stops where something is wrong")]

mod attacks;
mod cache;
mod calls;
mod compiler;
mod figures;
mod handmade;
mod hostile;
mod load;
mod log;
mod malformed;
mod migration;
mod support;
mod traps;
mod versions;
mod wasi;
