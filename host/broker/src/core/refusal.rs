//! Why the core did not do what it was asked: a Kafka error code for the client and a sentence for people. A refusal
//! always means that nothing was changed, unless the code says otherwise.

use std::fmt;

/// The protocol's error codes.
pub use kafka_protocol::ResponseError as ErrorCode;

use super::storage::StorageError;

/// A request that was not carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub code: ErrorCode,
    /// Names the thing, what was expected and what was found.
    pub detail: String,
}

impl Refusal {
    pub fn new(code: ErrorCode, detail: impl Into<String>) -> Self {
        Self { code, detail: detail.into() }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.code, self.detail)
    }
}

impl std::error::Error for Refusal {}

impl From<StorageError> for Refusal {
    fn from(error: StorageError) -> Self {
        Self::new(ErrorCode::KafkaStorageError, error.to_string())
    }
}
