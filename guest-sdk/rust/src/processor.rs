//! `Processor`: what a user writes. One value per task; its store and sink fields are handles, every other field is a
//! cache that the host may drop between two calls.

use crate::declaration::Declare;
use crate::{Context, Record, Result, ScheduleId, Serde};

/// A stateful stream processor. Put [`#[sandbar::processor]`](macro@crate::processor) on the struct to declare its
/// topology and to export it from the component.
pub trait Processor: Declare {
    /// The type of the source records' keys. A key that is not one refuses its record; [`Raw`](crate::Raw) takes any.
    type Key: Serde;
    /// The type of the source records' values.
    type Value: Serde;

    /// Called once for each instance, before anything else: the place to schedule punctuations. Forwarding is an error
    /// here. An error stops the task.
    #[allow(unused_variables, reason = "the name is for those who implement it")]
    fn init(&mut self, context: &mut Context) -> Result<()> {
        Ok(())
    }

    /// Processes one record. An error refuses it: its writes, outputs and schedules are undone, the error's text is the
    /// reason, and the next record goes on. The processor's own fields begin anew after it.
    fn process(&mut self, record: Record<'_, Self::Key, Self::Value>, context: &mut Context) -> Result<()>;

    /// A schedule is due. An error undoes and fails the whole call.
    #[allow(unused_variables, reason = "the name is for those who implement it")]
    fn punctuate(&mut self, punctuation: Punctuation, context: &mut Context) -> Result<()> {
        Ok(())
    }
}

/// A schedule that is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Punctuation {
    /// What [`Context::schedule`] returned.
    pub schedule: ScheduleId,
    /// The stream time or the wall-clock time that made it due, in milliseconds since the epoch.
    pub time: i64,
}
