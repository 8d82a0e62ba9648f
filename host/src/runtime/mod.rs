//! A run of applications: `host` is the process, `application` one of them, `shared` what they have together. The other
//! parts belong to an application each.

mod application;
pub mod brokers;
mod clock;
pub mod deployments;
mod generations;
mod host;
mod idle;
mod loader;
mod settings;
mod shared;
mod spawn;
mod standby;
pub mod status;
pub mod stop;
mod stores;
mod supervisor;
mod threads;
mod topics;
mod wiring;
pub mod writer;

pub use clock::wall_clock_ms;
pub use host::{Beside, run, run_beside};
pub use settings::{cache_dir, compile_limits, parse_duration};
pub use shared::RunOptions;
