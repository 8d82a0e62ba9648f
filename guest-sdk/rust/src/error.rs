//! `Error`: why a record was refused, as one line of text. Any error type turns into it by `?`, its causes joined with
//! colons; nothing is ever downcast from it.

use std::fmt;

/// The result of a processor's functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a record (or a punctuation) failed. Returned from [`Processor::process`](crate::Processor::process) it refuses
/// that record, with this text as the reason.
pub struct Error {
    message: Box<str>,
}

impl Error {
    /// An error with this text: lower case, naming the thing, what was expected and what was found.
    pub fn new(message: impl fmt::Display) -> Self {
        Self { message: message.to_string().into() }
    }

    /// The same error with what was being done in front of it.
    pub fn context(self, what: impl fmt::Display) -> Self {
        Self { message: format!("{what}: {}", self.message).into() }
    }

    /// The text.
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

// `Error` itself is no `std::error::Error`, or this conversion would overlap with the identity.
impl<E: std::error::Error> From<E> for Error {
    fn from(error: E) -> Self {
        let mut message = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            message.push_str(": ");
            message.push_str(&cause.to_string());
            source = cause.source();
        }
        Self { message: message.into() }
    }
}

/// Returns an [`Error`] made of a format string.
#[macro_export]
macro_rules! bail {
    ($($message:tt)*) => {
        return ::core::result::Result::Err($crate::Error::new(::core::format_args!($($message)*)))
    };
}

/// Returns an [`Error`] made of a format string unless the condition holds.
#[macro_export]
macro_rules! ensure {
    ($condition:expr, $($message:tt)*) => {
        if !$condition {
            $crate::bail!($($message)*);
        }
    };
}
