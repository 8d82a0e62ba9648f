//! The deadline of a call, in CPU time of the thread that makes it: a machine that is busy with something else must
//! never end an innocent call, since the price would be a dead letter.
//!
//! The clock of a thread's CPU time is a system call, and most calls end within microseconds. So a call does not look
//! at it when it starts, but at its first stop, an eighth of its time later by the epochs, which cost nothing. What it
//! had used before that is unknown, but no more than the eighth; counting begins there, so that a call has its whole
//! time for certain and an eighth more at most. Of the time that is left by the CPU clock, none can have passed before
//! that much has passed by the epochs: the next stop is then. On a machine that gives the thread half of its time the
//! stops halve what is left, a dozen of them at the most.
//!
//! Ten times as long by the epochs ends a call whatever it has used: it would hold up its stream thread until the group
//! takes the partitions away. An epoch is a millisecond by the clock, except while the whole process stands still.
//!
//! A batch has twice the time of a record. More would let many slow records through in one call, but a record that
//! never ends would cost that much at each halving of its batch until it is found; two halves of a batch that took too
//! long have their own time each, so that slow records cost repeated work and no dead letter.

use crate::limits::Limits;

/// The first stop comes after this part of the time.
const FIRST_PART: u64 = 8;
/// How many times as long a call may take by the clock.
const WALL_FACTOR: u64 = 10;
/// How many times the deadline a call with more than one record may take.
const BATCH_FACTOR: u64 = 2;

const NS_PER_MS: u64 = 1_000_000;

/// The time of one running call.
#[derive(Debug, Default)]
pub(crate) struct Deadline {
    cpu_limit_ns: u64,
    /// Epochs that may still be granted.
    epochs_left: u64,
    /// The thread's CPU clock at the first stop.
    counted_from_ns: Option<u64>,
}

impl Deadline {
    /// Starts the time of a call with so many records. Returns the epochs until its first stop.
    pub fn begin(&mut self, limits: &Limits, records: usize) -> u64 {
        let limit_ms = limits.deadline_ms.saturating_mul(if records > 1 { BATCH_FACTOR } else { 1 });
        let first = (limit_ms / FIRST_PART).max(1);
        *self = Self {
            cpu_limit_ns: limit_ms.saturating_mul(NS_PER_MS),
            epochs_left: limit_ms.saturating_mul(WALL_FACTOR).saturating_sub(first),
            counted_from_ns: None,
        };
        // The epoch that is running has partly passed already, so one more.
        first.saturating_add(1)
    }

    /// What a stop finds: the epochs until the next one, or `None` where the time is over.
    pub fn stop(&mut self, thread_cpu_ns: u64) -> Option<u64> {
        let used_ns = thread_cpu_ns.saturating_sub(*self.counted_from_ns.get_or_insert(thread_cpu_ns));
        let left = self.cpu_limit_ns.saturating_sub(used_ns).div_ceil(NS_PER_MS).min(self.epochs_left);
        self.epochs_left -= left;
        (left > 0).then_some(left)
    }
}

#[cfg(test)]
mod tests;
