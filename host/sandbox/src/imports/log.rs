//! The interface `log`. Lines are escaped, cut and counted by `GuestLog`.

use wasmtime::Result;

use crate::bindings::log::{Host, Level as GuestLevel};
use crate::guest_log::Level;
use crate::task_state::TaskState;

impl Host for TaskState {
    /// Also allowed in `describe`, where a panic's message would be lost otherwise.
    fn log(&mut self, level: GuestLevel, message: String) -> Result<()> {
        self.count_host_call()?;
        let level = match level {
            GuestLevel::Trace => Level::Trace,
            GuestLevel::Debug => Level::Debug,
            GuestLevel::Info => Level::Info,
            GuestLevel::Warn => Level::Warn,
            GuestLevel::Error => Level::Error,
        };
        self.log.line(level, &message);
        Ok(())
    }
}
