//! Threads of an application. Each carries the span of the one that started it, so that a log line says whose it is
//! where a process has several.

use std::io;
use std::thread::{Builder, JoinHandle};

/// Starts a thread with a stack of so many bytes.
///
/// # Errors
/// When the machine gives no thread.
pub fn spawn<T: Send + 'static>(
    name: impl Into<String>,
    stack_bytes: usize,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<JoinHandle<T>> {
    let span = tracing::Span::current();
    Builder::new().name(name.into()).stack_size(stack_bytes).spawn(move || span.in_scope(work))
}
