//! The host's clock for the engine: the machine's monotonic and wall-clock time.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use engine::clock::Clock;
use engine::record::Timestamp;

/// Time as the machine has it.
#[derive(Debug)]
pub struct HostClock {
    start: Instant,
}

impl Default for HostClock {
    fn default() -> Self {
        Self { start: Instant::now() }
    }
}

impl Clock for HostClock {
    fn monotonic_ms(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn wall_clock_ms(&self) -> Timestamp {
        wall_clock_ms()
    }
}

/// Milliseconds since the epoch; 0 on a machine whose clock stands before it.
pub fn wall_clock_ms() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::try_from(since.as_millis()).unwrap_or(Timestamp::MAX)
}
