//! A task's schedules: when each is due next, by Kafka Streams' rules (`PunctuationQueue`, `PunctuationSchedule`).
//! Time is passed in. Never calls a processor.

use crate::processor::{PunctuationType, ScheduleId, ScheduleRequest};
use crate::record::Timestamp;

/// One schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Schedule {
    id: ScheduleId,
    kind: PunctuationType,
    interval_ms: u64,
    /// It is due once its time has reached this.
    next: Timestamp,
}

/// The schedules of a task. Those on stream time are aligned to the epoch and due with the first data; those on the
/// wall clock are due after one interval. Intervals that were missed are skipped.
#[derive(Debug, Default)]
pub struct PunctuationQueue {
    schedules: Vec<Schedule>,
    /// The lowest `next` of the schedules on stream time, kept because each batch is cut at it.
    next_stream_time: Option<Timestamp>,
    next_wall_clock_time: Option<Timestamp>,
}

/// When a schedule that was due at `timestamp` is due again after it ran at `now`: one interval later, or if that has
/// passed too, at the first multiple of the interval after `now` (`PunctuationSchedule.next`).
pub fn next_punctuation(timestamp: Timestamp, interval_ms: u64, now: Timestamp) -> Timestamp {
    let (timestamp, interval, now) = (i128::from(timestamp), i128::from(interval_ms.max(1)), i128::from(now));
    let next = timestamp + interval;
    let next = if now >= next { timestamp + (now - timestamp) / interval * interval + interval } else { next };
    Timestamp::try_from(next).unwrap_or(Timestamp::MAX)
}

impl PunctuationQueue {
    /// Applies the schedule changes of a call that has succeeded, in order.
    pub fn apply(&mut self, requests: Vec<ScheduleRequest>, wall_clock_ms: Timestamp) {
        if requests.is_empty() {
            return;
        }
        for request in requests {
            match request {
                ScheduleRequest::Add { id, interval_ms, kind } => {
                    let next = match kind {
                        PunctuationType::StreamTime => 0,
                        PunctuationType::WallClockTime => {
                            wall_clock_ms.saturating_add(Timestamp::try_from(interval_ms).unwrap_or(Timestamp::MAX))
                        }
                    };
                    self.schedules.push(Schedule { id, kind, interval_ms, next });
                }
                ScheduleRequest::Cancel(id) => self.schedules.retain(|schedule| schedule.id != id),
            }
        }
        self.find_next();
    }

    /// Takes the schedules that the `init` of a new instance asked for in place of those there are. One that is asked
    /// for again keeps its time, or it would never be due where instances follow one another quickly.
    pub fn renew(&mut self, requests: Vec<ScheduleRequest>, wall_clock_ms: Timestamp) {
        let mut before = std::mem::take(&mut self.schedules);
        self.apply(requests, wall_clock_ms);
        for schedule in &mut self.schedules {
            let same = |old: &Schedule| old.kind == schedule.kind && old.interval_ms == schedule.interval_ms;
            if let Some(position) = before.iter().position(same) {
                schedule.next = before.remove(position).next;
            }
        }
        self.find_next();
    }

    /// When the next schedule of a kind is due.
    pub fn next_due(&self, kind: PunctuationType) -> Option<Timestamp> {
        match kind {
            PunctuationType::StreamTime => self.next_stream_time,
            PunctuationType::WallClockTime => self.next_wall_clock_time,
        }
    }

    /// The schedules of a kind that are due at `now`, those that were due first at the front.
    pub fn due(&self, kind: PunctuationType, now: Timestamp) -> Vec<ScheduleId> {
        if self.next_due(kind).is_none_or(|next| next > now) {
            return Vec::new();
        }
        let due = self.schedules.iter().filter(|schedule| schedule.kind == kind && schedule.next <= now);
        let mut due: Vec<_> = due.map(|schedule| (schedule.next, schedule.id)).collect();
        due.sort_unstable();
        due.into_iter().map(|(_, id)| id).collect()
    }

    /// Whether the schedule is still there; an earlier punctuation may have cancelled it.
    pub fn contains(&self, id: ScheduleId) -> bool {
        self.schedules.iter().any(|schedule| schedule.id == id)
    }

    /// A schedule ran at `now`: moves it to its next time.
    pub fn completed(&mut self, id: ScheduleId, now: Timestamp) {
        for schedule in self.schedules.iter_mut().filter(|schedule| schedule.id == id) {
            schedule.next = next_punctuation(schedule.next, schedule.interval_ms, now);
        }
        self.find_next();
    }

    fn find_next(&mut self) {
        let next = |wanted| {
            let schedules = self.schedules.iter().filter(|schedule| schedule.kind == wanted);
            schedules.map(|schedule| schedule.next).min()
        };
        (self.next_stream_time, self.next_wall_clock_time) =
            (next(PunctuationType::StreamTime), next(PunctuationType::WallClockTime));
    }
}

#[cfg(test)]
mod tests;
