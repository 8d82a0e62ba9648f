//! WASI's clocks: the wall clock stands still within a call, the monotonic clock moves by one microsecond with each
//! look and jumps to the end of what a guest sleeps for. A sleep never takes real time, so no host call can hang.

use std::time::Duration;

use wasmtime::Result;
use wasmtime::component::Resource;
use wasmtime_wasi::async_trait;
use wasmtime_wasi::p2::bindings::clocks::{monotonic_clock, wall_clock};
use wasmtime_wasi::p2::{DynPollable, Pollable, subscribe};

use crate::task_state::TaskState;

const NS_PER_MS: u64 = 1_000_000;
const LOOK_NS: u64 = 1_000;

/// The time that a guest sees.
#[derive(Debug, Default)]
pub(crate) struct VirtualTime {
    wall_clock_ms: u64,
    monotonic_ns: u64,
}

impl VirtualTime {
    /// The monotonic clock follows the wall clock from call to call, never backwards.
    pub fn begin_call(&mut self, wall_clock_ms: i64) {
        self.wall_clock_ms = u64::try_from(wall_clock_ms).unwrap_or(0);
        self.monotonic_ns = self.monotonic_ns.max(self.wall_clock_ms.saturating_mul(NS_PER_MS));
    }

    fn look(&mut self) -> u64 {
        self.monotonic_ns = self.monotonic_ns.saturating_add(LOOK_NS);
        self.monotonic_ns
    }

    fn advance_to(&mut self, monotonic_ns: u64) {
        self.monotonic_ns = self.monotonic_ns.max(monotonic_ns);
    }
}

impl wall_clock::Host for TaskState {
    fn now(&mut self) -> Result<wall_clock::Datetime> {
        self.count_host_call()?;
        let now = Duration::from_millis(self.time.wall_clock_ms);
        Ok(wall_clock::Datetime { seconds: now.as_secs(), nanoseconds: now.subsec_nanos() })
    }

    fn resolution(&mut self) -> Result<wall_clock::Datetime> {
        Ok(wall_clock::Datetime { seconds: 0, nanoseconds: NS_PER_MS as u32 })
    }
}

impl monotonic_clock::Host for TaskState {
    fn now(&mut self) -> Result<u64> {
        self.count_host_call()?;
        Ok(self.time.look())
    }

    fn resolution(&mut self) -> Result<u64> {
        Ok(LOOK_NS)
    }

    fn subscribe_instant(&mut self, when: u64) -> Result<Resource<DynPollable>> {
        self.count_host_call()?;
        self.time.advance_to(when);
        let ready = self.table().push(Ready)?;
        subscribe(self.table(), ready)
    }

    fn subscribe_duration(&mut self, duration_ns: u64) -> Result<Resource<DynPollable>> {
        let when = self.time.monotonic_ns.saturating_add(duration_ns);
        monotonic_clock::Host::subscribe_instant(self, when)
    }
}

/// A pollable that never waits.
struct Ready;

#[async_trait]
impl Pollable for Ready {
    async fn ready(&mut self) {}
}
