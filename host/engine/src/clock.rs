//! The seam to time. The engine never asks the machine; it is told. Two clocks exist: the host's own and
//! `testing::ManualClock`.

use crate::record::Timestamp;

/// A source of time. `monotonic_ms` never goes back and guards deadlines; `wall_clock_ms` may jump and is for
/// wall-clock punctuation only (R23).
pub trait Clock: Send + Sync {
    /// Milliseconds from an arbitrary start.
    fn monotonic_ms(&self) -> u64;

    /// Milliseconds since the epoch.
    fn wall_clock_ms(&self) -> Timestamp;
}
