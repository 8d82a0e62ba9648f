//! `ManualClock`: time that moves only when it is told to. Its clones show the same time.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::SeqCst};

use crate::clock::Clock;
use crate::record::Timestamp;

/// A clock for tests and for the simulation.
#[derive(Debug, Clone, Default)]
pub struct ManualClock {
    monotonic_ms: Arc<AtomicU64>,
    wall_clock_ms: Arc<AtomicI64>,
}

impl ManualClock {
    /// A clock whose wall clock shows `wall_clock_ms`; the monotonic one starts at 0.
    pub fn new(wall_clock_ms: Timestamp) -> Self {
        let clock = Self::default();
        clock.set_wall_clock_ms(wall_clock_ms);
        clock
    }

    /// Moves both times on.
    pub fn advance_ms(&self, ms: u64) {
        self.monotonic_ms.fetch_add(ms, SeqCst);
        self.wall_clock_ms.fetch_add(ms as i64, SeqCst);
    }

    /// Lets the wall clock jump, as an administrator or a time server would.
    pub fn set_wall_clock_ms(&self, wall_clock_ms: Timestamp) {
        self.wall_clock_ms.store(wall_clock_ms, SeqCst);
    }
}

impl Clock for ManualClock {
    fn monotonic_ms(&self) -> u64 {
        self.monotonic_ms.load(SeqCst)
    }

    fn wall_clock_ms(&self) -> Timestamp {
        self.wall_clock_ms.load(SeqCst)
    }
}
