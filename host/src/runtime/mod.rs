//! A run of applications: `host` is the process, `application` one of them, `shared` what they have together,
//! `apps_directory` the folder whose files they may come and go with. The other parts belong to an application each.

mod application;
mod apps_directory;
pub mod brokers;
mod clock;
pub mod deployments;
mod generations;
mod host;
mod idle;
mod lives;
mod loader;
mod retrying;
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

pub use apps_directory::{Watch, manifests_in};
pub use clock::wall_clock_ms;
pub use deployments::OwnModule;
pub use host::{Beside, run, run_beside, run_folder};
pub use settings::{cache_dir, compile_limits, parse_duration};
pub use shared::RunOptions;
