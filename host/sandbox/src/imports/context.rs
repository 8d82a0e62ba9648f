//! The interface `context`: the task, its times, schedules and config.

use engine::processor::{ProcessorError, PunctuationType, ScheduleId};
use wasmtime::Result;

use crate::bindings::context::{Host, PunctuationType as GuestPunctuationType};
use crate::bindings::types;
use crate::task_state::TaskState;

impl Host for TaskState {
    fn application_id(&mut self) -> Result<String> {
        Ok(self.context("context.application-id")?.application_id.to_string())
    }

    fn task(&mut self) -> Result<types::TaskId> {
        Ok(self.context("context.task")?.task.into())
    }

    fn stream_time(&mut self) -> Result<Option<i64>> {
        Ok(self.context("context.stream-time")?.stream_time)
    }

    fn wall_clock_time(&mut self) -> Result<i64> {
        Ok(self.context("context.wall-clock-time")?.wall_clock_ms)
    }

    fn schedule(&mut self, interval_ms: u64, kind: GuestPunctuationType) -> Result<u32> {
        let context = self.context("context.schedule")?;
        if interval_ms == 0 {
            let message = "context.schedule was called with an interval of 0 ms, at least 1 ms is needed".to_owned();
            return Err(ProcessorError::Trap { message, backtrace: String::new() }.into());
        }
        let kind = match kind {
            GuestPunctuationType::StreamTime => PunctuationType::StreamTime,
            GuestPunctuationType::WallClockTime => PunctuationType::WallClockTime,
        };
        let schedule = context.schedule(interval_ms, kind);
        self.schedule_added(schedule)?;
        Ok(schedule.0)
    }

    fn cancel(&mut self, schedule: u32) -> Result<()> {
        self.context("context.cancel")?.cancel(ScheduleId(schedule));
        self.schedule_cancelled(ScheduleId(schedule));
        Ok(())
    }

    fn config(&mut self, key: String) -> Result<Option<String>> {
        Ok(self.context("context.config")?.config_value(&key))
    }
}
