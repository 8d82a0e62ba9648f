//! Log lines of guests: escaped, cut and counted, then given to `tracing` under the target `guest`, as many as a call
//! and a second may have. What a guest says never reaches the log as it is (S15).

use std::fmt::Write as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use engine::topology::TaskId;

use crate::limits::Limits;
use crate::log_rate::{Dropped, TooFast};
use crate::usage::Usage;

/// A longer line is cut.
pub(crate) const LINE_MAX_BYTES: usize = 4_096;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Level {
    Trace,
    Debug,
    Info,
    Warn,
    Error,
}

/// Where the lines of one instance go; shared with its standard output streams.
#[derive(Debug, Clone)]
pub(crate) struct GuestLog(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    application_id: Arc<str>,
    task: Option<TaskId>,
    limits: Arc<Limits>,
    /// That of the application, whose instances share a rate.
    usage: Arc<Usage>,
    lines: u64,
    dropped: Dropped,
    /// The last warning or error of the call: most often the message of the panic behind a trap.
    last_complaint: Option<String>,
}

/// What a call said.
#[derive(Debug, Default)]
pub(crate) struct CallLines {
    pub lines: u64,
    pub dropped: Dropped,
    pub last_complaint: Option<String>,
}

impl GuestLog {
    pub fn new(task: Option<TaskId>, limits: Arc<Limits>, usage: Arc<Usage>) -> Self {
        let (application_id, dropped) = (Arc::from(""), Dropped::default());
        let inner = Inner { application_id, task, limits, usage, lines: 0, dropped, last_complaint: None };
        Self(Arc::new(Mutex::new(inner)))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Every state of `Inner` is a valid one, so a panic elsewhere does not matter.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn begin_call(&self, application_id: &Arc<str>) {
        let mut inner = self.lock();
        inner.application_id = Arc::clone(application_id);
        (inner.lines, inner.dropped, inner.last_complaint) = (0, Dropped::default(), None);
    }

    /// Begins a call of which nothing says for which application it is: for that of the calls before, if any.
    pub fn begin_call_like_the_last(&self) {
        let mut inner = self.lock();
        (inner.lines, inner.dropped, inner.last_complaint) = (0, Dropped::default(), None);
    }

    pub fn end_call(&self) -> CallLines {
        let mut inner = self.lock();
        let (lines, dropped) = (inner.lines, inner.dropped);
        if let Some(all) = inner.usage.log_rate().dropped(Instant::now(), &dropped) {
            inner.tell(&all);
        }
        CallLines { lines, dropped, last_complaint: inner.last_complaint.take() }
    }

    pub fn line(&self, level: Level, message: &str) {
        let mut inner = self.lock();
        let complaint = matches!(level, Level::Warn | Level::Error);
        let is_over = inner.lines >= inner.limits.log_max_lines;
        if is_over && !complaint {
            inner.dropped.of_call += 1;
            return;
        }
        let escaped = escape(message, LINE_MAX_BYTES);
        // What the host's own filter leaves out costs nothing.
        let taken = if is_over || !is_enabled(level) {
            Ok(())
        } else {
            inner.usage.log_rate().take(Instant::now(), escaped.len(), &inner.limits)
        };
        match taken {
            _ if is_over => inner.dropped.of_call += 1,
            Err(TooFast::Lines) => inner.dropped.lines_per_second += 1,
            Err(TooFast::Bytes) => inner.dropped.bytes_per_second += 1,
            Ok(()) => {
                inner.lines += 1;
                emit(level, &inner.application_id, inner.task, &escaped);
            }
        }
        if complaint {
            inner.last_complaint = Some(escaped);
        }
    }
}

impl Inner {
    /// Says what this application has lost since that was last said.
    fn tell(&self, dropped: &Dropped) {
        let mut by_key = String::new();
        let limits =
            [self.limits.log_max_lines, self.limits.log_max_lines_per_second, self.limits.log_max_bytes_per_second];
        for ((key, lines), limit) in dropped.by_key().into_iter().zip(limits).filter(|((_, lines), _)| *lines > 0) {
            let separator = if by_key.is_empty() { "" } else { ", " };
            // Writing to a string cannot fail.
            let _ = write!(by_key, "{separator}{lines} by {key} = {limit}");
        }
        let (application_id, task, total) = (&*self.application_id, self.task.unwrap_or_default(), dropped.total());
        tracing::warn!(
            target: "guest", application_id, %task,
            "{total} log lines of the application were dropped: {by_key}"
        );
    }
}

fn is_enabled(level: Level) -> bool {
    match level {
        Level::Trace => tracing::enabled!(target: "guest", tracing::Level::TRACE),
        Level::Debug => tracing::enabled!(target: "guest", tracing::Level::DEBUG),
        Level::Info => tracing::enabled!(target: "guest", tracing::Level::INFO),
        Level::Warn => tracing::enabled!(target: "guest", tracing::Level::WARN),
        Level::Error => tracing::enabled!(target: "guest", tracing::Level::ERROR),
    }
}

/// `tracing` needs its level at compile time.
fn emit(level: Level, application_id: &str, task: Option<TaskId>, line: &str) {
    let task = task.unwrap_or_default();
    match level {
        Level::Trace => tracing::trace!(target: "guest", application_id, %task, "{line}"),
        Level::Debug => tracing::debug!(target: "guest", application_id, %task, "{line}"),
        Level::Info => tracing::info!(target: "guest", application_id, %task, "{line}"),
        Level::Warn => tracing::warn!(target: "guest", application_id, %task, "{line}"),
        Level::Error => tracing::error!(target: "guest", application_id, %task, "{line}"),
    }
}

/// Makes a guest's text safe for one line: control characters, direction marks and line separators are written as
/// escapes, and what is longer than `max_bytes` is cut with a note.
pub(crate) fn escape(text: &str, max_bytes: usize) -> String {
    let mut escaped = String::with_capacity(text.len().min(max_bytes));
    for (position, character) in text.char_indices() {
        if escaped.len() >= max_bytes {
            let cut = text.len() - position;
            // Writing to a string cannot fail.
            let _ = write!(escaped, "… ({cut} bytes cut)");
            break;
        }
        match character {
            '\n' => escaped.push_str("\\n"),
            '\r' => escaped.push_str("\\r"),
            '\t' => escaped.push_str("\\t"),
            // Backslashes too, or an escape could be forged.
            '\\' => escaped.push_str("\\\\"),
            c if c.is_control() || steers_display(c) => {
                let _ = write!(escaped, "\\u{{{:x}}}", c as u32);
            }
            c => escaped.push(c),
        }
    }
    escaped
}

/// Characters that are no control characters but change how a terminal or browser shows their neighbours.
fn steers_display(character: char) -> bool {
    matches!(character, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

#[cfg(test)]
mod tests;
