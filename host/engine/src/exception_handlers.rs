//! What is done about a record that cannot be read, processed or sent: Kafka Streams' three exception handlers with
//! their answers (KIP-1034 among them). Plain settings; `task::stream_task` carries them out.

use crate::processor::ProcessorError;

/// The answer of a handler.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ExceptionHandler {
    /// The record goes to the dead letter topic and processing goes on.
    DeadLetter,
    /// The record is left out and counted, and processing goes on.
    Continue,
    /// The application stops with the reason.
    #[default]
    Fail,
}

/// A refusal whose reason begins so says that the record's bytes could not be read.
pub const DESERIALIZATION: &str = "deserialization: ";

/// The handlers of an application.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExceptionHandlers {
    /// `deserialization.exception.handler`: records that are not what the processor takes.
    pub deserialization: ExceptionHandler,
    /// `processing.exception.handler`: records that are refused otherwise, or at which the processor fails.
    pub processing: ExceptionHandler,
    /// `production.exception.handler`: records for which the processor forwards what Kafka would refuse.
    pub production: ExceptionHandler,
    /// How much of what the call has read a dead letter carries.
    pub dead_letter_reads_max_bytes: usize,
    /// After so many records in a row at which the processor failed, without one success, it is the processor that is
    /// broken: the application stops.
    pub consecutive_failures_max: u32,
}

impl Default for ExceptionHandlers {
    fn default() -> Self {
        Self {
            deserialization: ExceptionHandler::Fail,
            processing: ExceptionHandler::Fail,
            production: ExceptionHandler::Fail,
            dead_letter_reads_max_bytes: 64 << 10,
            consecutive_failures_max: 100,
        }
    }
}

impl ExceptionHandlers {
    /// Who answers for the failure of a single record. What is no record's fault has no handler.
    pub fn handler_of(&self, error: &ProcessorError) -> ExceptionHandler {
        match error {
            ProcessorError::Returned(reason) if reason.starts_with(DESERIALIZATION) => self.deserialization,
            ProcessorError::Production { .. } => self.production,
            ProcessorError::Store(_) | ProcessorError::HostPanic(_) | ProcessorError::Start(_) => {
                ExceptionHandler::Fail
            }
            ProcessorError::Returned(_)
            | ProcessorError::Trap { .. }
            | ProcessorError::Deadline { .. }
            | ProcessorError::Memory { .. }
            | ProcessorError::Limit { .. }
            | ProcessorError::Output(_) => self.processing,
        }
    }
}
